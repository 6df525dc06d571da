//! Something on the page, by its role and name. It is looked for anew with each use, and each use is tried
//! until it works or [`LIMIT`] is over: pages that are alive replace what was found a moment ago.

use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};
use thirtyfour::prelude::*;

use super::{Browser, LIMIT, PAUSE};

const NAMES: &str = include_str!("names.js");

#[derive(Debug, Clone)]
#[must_use]
pub struct Control<'a> {
    browser: &'a Browser,
    steps: Vec<(&'static str, String)>,
}

impl<'a> Control<'a> {
    pub(super) fn new(browser: &'a Browser, role: &'static str, name: &str) -> Self {
        Self { browser, steps: vec![(role, name.to_owned())] }
    }

    fn within(&self, role: &'static str, name: &str) -> Self {
        let mut control = self.clone();
        control.steps.push((role, name.to_owned()));
        control
    }

    pub fn button(&self, name: &str) -> Self {
        self.within("button", name)
    }

    pub fn link(&self, name: &str) -> Self {
        self.within("link", name)
    }

    /// An entry of a menu: a button or a link.
    pub fn item(&self, name: &str) -> Self {
        self.within("item", name)
    }

    pub fn field(&self, label: &str) -> Self {
        self.within("field", label)
    }

    pub fn row(&self, name: &str) -> Self {
        self.within("row", name)
    }

    pub fn heading(&self, name: &str) -> Self {
        self.within("heading", name)
    }

    pub fn progress(&self) -> Self {
        self.within("progress", "")
    }

    fn description(&self) -> String {
        let steps: Vec<String> =
            self.steps.iter().rev().map(|(role, name)| format!("{role} {name:?}")).collect();
        steps.join(" in ")
    }

    /// Runs the finder, and then `script` with `found.element`.
    async fn ask(&self, script: &str) -> WebDriverResult<Value> {
        let steps: Vec<Value> =
            self.steps.iter().map(|(role, name)| json!({ "role": role, "name": name })).collect();
        let whole = format!("{NAMES}\nconst found = find(arguments[0]);\n{script}");
        let answer = self.browser.driver.execute(whole, vec![json!(steps)]).await?;
        Ok(answer.json().clone())
    }

    async fn look(&self) -> WebDriverResult<Option<WebElement>> {
        let found = self.ask("return found.element").await?;
        if found.is_null() {
            return Ok(None);
        }
        WebElement::from_json(found, self.browser.driver.handle().clone()).map(Some)
    }

    /// Uses what is there, again and again until that works.
    async fn using<T>(
        &self,
        what: &str,
        work: impl AsyncFn(WebElement) -> WebDriverResult<T>,
    ) -> T {
        let start = Instant::now();
        loop {
            let problem = match self.look().await {
                Ok(None) => "it is not there".to_owned(),
                Ok(Some(element)) => match work(element).await {
                    Ok(value) => return value,
                    Err(error) => error.to_string(),
                },
                Err(error) => error.to_string(),
            };
            if start.elapsed() > LIMIT {
                let names = self.ask("return found.names").await.unwrap_or_default();
                let (target, page) = (self.description(), self.browser.shown().await);
                panic!("{what}: {target}: {problem}\nthere are: {names}\n{page}");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    pub async fn click(&self) {
        self.using("click", async |element| {
            if !element.is_enabled().await? {
                return Err(WebDriverError::FatalError("it is disabled".to_owned()));
            }
            element.scroll_into_view().await?;
            element.click().await
        })
        .await;
    }

    /// Writes this instead of what is in the field.
    pub async fn fill(&self, text: &str) {
        self.using("fill", async |element| {
            element.clear().await?;
            element.send_keys(text).await
        })
        .await;
    }

    /// Chooses the entry with these words from a list.
    pub async fn choose(&self, entry: &str) {
        self.using("choose", async |element| {
            let options = element.find_all(By::Tag("option")).await?;
            for option in options {
                if option.text().await?.contains(entry) {
                    return option.click().await;
                }
            }
            Err(WebDriverError::FatalError(format!("there is no {entry:?} to choose")))
        })
        .await;
    }

    /// Chooses a file for this field.
    pub async fn choose_file(&self, path: &Path) {
        let path = path.display().to_string();
        self.using("choose a file", async |element| element.send_keys(&path).await).await;
    }

    /// Its words, as they can be seen.
    pub async fn text(&self) -> String {
        self.using("read", async |element| element.text().await).await
    }

    pub async fn value(&self) -> String {
        self.using("read", async |element| element.prop("value").await).await.unwrap_or_default()
    }

    pub async fn attribute(&self, name: &str) -> Option<String> {
        self.using("read", async |element| element.attr(name).await).await
    }

    pub async fn is_enabled(&self) -> bool {
        self.using("look", async |element| element.is_enabled().await).await
    }

    /// A property of it at this moment, as text; `None` where it is not there.
    pub async fn now(&self, property: &str) -> Option<String> {
        let script = format!("return found.element && String(found.element[{property:?}])");
        self.ask(&script).await.ok()?.as_str().map(str::to_owned)
    }

    /// Whether it is there at this moment.
    pub async fn is_there(&self) -> bool {
        matches!(self.look().await, Ok(Some(_)))
    }

    pub(super) async fn has_focus(&self) -> bool {
        let script = "return found.element !== null && found.element === document.activeElement";
        self.ask(script).await.is_ok_and(|answer| answer == true)
    }

    /// Waits until it is there.
    pub async fn wait(&self) {
        self.using("wait", async |_| Ok(())).await;
    }

    pub async fn wait_gone(&self) {
        let what = format!("the end of {}", self.description());
        self.browser.wait_until(&what, LIMIT, async || matches!(self.look().await, Ok(None))).await;
    }

    /// Waits until its words hold these.
    pub async fn wait_for(&self, words: &str) {
        let what = format!("{words:?} in {}", self.description());
        let holds = async || match self.look().await {
            Ok(Some(element)) => element.text().await.is_ok_and(|text| text.contains(words)),
            _ => false,
        };
        self.browser.wait_until(&what, LIMIT, holds).await;
    }

    /// Likewise, whatever the case of the letters, for work that takes a while.
    pub async fn wait_long_for(&self, words: &str, limit: std::time::Duration) {
        let what = format!("{words:?} in {}", self.description());
        let words = words.to_lowercase();
        let holds = async || match self.look().await {
            Ok(Some(found)) => found.text().await.is_ok_and(|t| t.to_lowercase().contains(&words)),
            _ => false,
        };
        self.browser.wait_until(&what, limit, holds).await;
    }
}
