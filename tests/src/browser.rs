//! A real browser, used as a person uses one: by the roles and names of what is on the page.
//!
//! Data structures:
//! - [`Browser`]: one `chromedriver` and one headless Chromium with an empty profile in a folder of its own
//! - [`Control`]: where something is on the page (a role and words of its accessible name, perhaps within
//!   another); it is looked for anew each time it is used, so a page may redraw itself at any moment
//! - `measure`: what the browser has measured and logged: requests, bytes, shifts, errors, axe's findings
//!
//! Invariants:
//! - Every wait ends after [`LIMIT`], with the page's text in the message.
//! - Every test ends in [`Browser::finish`]: no error in the console, no request to anybody but the product.
//! - Driver and browser end with the test process, however that ends.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use thirtyfour::prelude::*;

use crate::deployment::Deployment;
use crate::poll::within;
use crate::process::Process;
use crate::scratch;

mod chrome;
mod control;
mod measure;
#[cfg(test)]
mod selftest;

pub use control::Control;
pub use thirtyfour::{Key, WindowHandle};

/// How long something may take to appear.
pub const LIMIT: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(50);
/// Of a page's text, in a message.
const SHOWN: usize = 3_000;

#[derive(Debug)]
pub struct Browser {
    driver: WebDriver,
    /// Of every process that serves this product; the first is where pages are opened.
    bases: Vec<String>,
    /// What the network log has said so far (reading it empties it).
    events: Mutex<Vec<Value>>,
    errors: Mutex<Vec<String>>,
    forgiven: Mutex<Vec<String>>,
    folder: PathBuf,
    finished: bool,
    // Last: the driver's process ends after the session.
    _process: Process,
}

impl Browser {
    /// A browser without a past, before this product.
    pub async fn start(app: &Deployment) -> Self {
        Self::start_at(app.bases()).await
    }

    /// Likewise, before whatever serves at these addresses.
    pub async fn start_at(bases: Vec<String>) -> Self {
        let folder = scratch::folder("browser");
        let (process, driver) = chrome::start(&folder).await;
        Self {
            driver,
            bases,
            events: Mutex::default(),
            errors: Mutex::default(),
            forgiven: Mutex::default(),
            folder,
            finished: false,
            _process: process,
        }
    }

    /// Pages are opened at this process from now on. Cookies know no ports: the session stays.
    pub fn go_to_api(&mut self, which: usize) {
        self.bases.swap(0, which);
    }

    /// Pages are opened at this port from now on. The session stays here, too.
    pub fn go_to_port(&mut self, port: u16) {
        self.bases.insert(0, format!("http://127.0.0.1:{port}"));
    }

    /// A folder of this browser's, for files to be chosen.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A file to be chosen, with this in it.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.join(name);
        std::fs::write(&path, content).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        path
    }

    pub async fn open(&self, path: &str) {
        let url = format!("{}{path}", self.bases[0]);
        let opened = within(&url, LIMIT * 2, self.driver.goto(&url)).await;
        opened.unwrap_or_else(|e| panic!("{url} does not open: {e}"));
    }

    pub async fn reload(&self) {
        within("reload", LIMIT * 2, self.driver.refresh()).await.expect("the page loads again");
    }

    pub async fn back(&self) {
        within("back", LIMIT * 2, self.driver.back()).await.expect("the page before");
    }

    /// Path and query of the page.
    pub async fn path(&self) -> String {
        let url = self.driver.current_url().await.expect("an address");
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        format!("{}{query}", url.path())
    }

    pub fn button(&self, name: &str) -> Control<'_> {
        Control::new(self, "button", name)
    }

    pub fn link(&self, name: &str) -> Control<'_> {
        Control::new(self, "link", name)
    }

    pub fn field(&self, label: &str) -> Control<'_> {
        Control::new(self, "field", label)
    }

    /// A field for a file, which may be drawn as something else.
    pub fn file_field(&self, label: &str) -> Control<'_> {
        Control::new(self, "file", label)
    }

    pub fn heading(&self, name: &str) -> Control<'_> {
        Control::new(self, "heading", name)
    }

    pub fn row(&self, name: &str) -> Control<'_> {
        Control::new(self, "row", name)
    }

    pub fn dialog(&self) -> Control<'_> {
        Control::new(self, "dialog", "")
    }

    pub fn progress(&self) -> Control<'_> {
        Control::new(self, "progress", "")
    }

    /// The words that can be seen.
    pub async fn text(&self) -> String {
        self.script("return document.body.innerText", vec![]).await.as_str().unwrap_or("").into()
    }

    /// Waits until these words can be seen.
    pub async fn wait_for(&self, words: &str) {
        self.wait_until(&format!("the words {words:?}"), LIMIT, async || {
            self.text().await.contains(words)
        })
        .await;
    }

    /// Waits until these words can no longer be seen.
    pub async fn wait_gone(&self, words: &str) {
        self.wait_until(&format!("no words {words:?}"), LIMIT, async || {
            !self.text().await.contains(words)
        })
        .await;
    }

    /// Waits until the address of the page begins with this.
    pub async fn wait_path(&self, start: &str) {
        self.wait_until(&format!("a page at {start}"), LIMIT, async || {
            self.path().await.starts_with(start)
        })
        .await;
    }

    pub async fn wait_until(&self, what: &str, limit: Duration, holds: impl AsyncFn() -> bool) {
        let found = async || holds().await.then_some(());
        self.eventually(what, limit, found).await;
    }

    /// The first `Some`, or a panic that shows the page.
    pub async fn eventually<T>(
        &self,
        what: &str,
        limit: Duration,
        probe: impl AsyncFn() -> Option<T>,
    ) -> T {
        let start = Instant::now();
        loop {
            if let Some(value) = probe().await {
                return value;
            }
            if start.elapsed() > limit {
                panic!("waited {limit:?} in vain for {what}\n{}", self.shown().await);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Address, words and focus, for a message; a picture goes into the folder.
    pub(crate) async fn shown(&self) -> String {
        let picture = self.folder.join("failure.png");
        let _ = self.driver.screenshot(&picture).await;
        let text: String = self.text().await.chars().take(SHOWN).collect();
        let errors = self.console_errors().await;
        let path = self.path().await;
        format!(
            "--- the page at {path}\n{text}\n--- console: {errors:#?}\n--- {}",
            picture.display()
        )
    }

    /// Keys for whatever has the focus.
    pub async fn press(&self, keys: impl Into<TypingData>) {
        let chain = self.driver.action_chain().send_keys(keys);
        within("keys", LIMIT, chain.perform()).await.expect("the keys are pressed");
    }

    /// Presses Enter, once: the driver sends keys a second time where the first leads to another page.
    pub async fn enter(&self) {
        for kind in ["rawKeyDown", "char", "keyUp"] {
            let text = if kind == "char" { "\r" } else { "" };
            let event = json!({
                "type": kind, "key": "Enter", "code": "Enter", "text": text,
                "windowsVirtualKeyCode": 13,
            });
            self.cdp("Input.dispatchKeyEvent", event).await;
        }
    }

    /// Presses Tab until what has this role and name has the focus.
    pub async fn tab_to(&self, role: &'static str, name: &str) {
        const STEPS: usize = 150;
        let control = Control::new(self, role, name);
        for _ in 0..STEPS {
            if control.has_focus().await {
                return;
            }
            self.press(Key::Tab).await;
        }
        panic!("Tab does not come to the {role} {name:?}\n{}", self.shown().await);
    }

    /// A width of so many pixels, as on a phone.
    pub async fn emulate(&self, width: u32) {
        let size =
            json!({ "width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.cdp("Emulation.setDeviceMetricsOverride", size).await;
    }

    pub async fn dark(&self) {
        self.prefer("dark").await;
    }

    pub async fn light(&self) {
        self.prefer("light").await;
    }

    async fn prefer(&self, scheme: &str) {
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.cdp("Emulation.setEmulatedMedia", json!({ "features": [feature] })).await;
    }

    /// Pages that are opened from now on run no script of theirs.
    pub async fn no_script(&self) {
        self.cdp("Emulation.setScriptExecutionDisabled", json!({ "value": true })).await;
    }

    /// A slow phone network: 400 ms each way, some 50 KB/s.
    pub async fn slow_network(&self) {
        self.network(json!({ "offline": false, "latency": 400, "downloadThroughput": 50_000,
            "uploadThroughput": 50_000 }))
            .await;
    }

    /// Nobody can be reached.
    pub async fn offline(&self) {
        self.network(json!({ "offline": true, "latency": 0, "downloadThroughput": -1,
            "uploadThroughput": -1 }))
            .await;
    }

    pub async fn online(&self) {
        self.network(json!({ "offline": false, "latency": 0, "downloadThroughput": -1,
            "uploadThroughput": -1 }))
            .await;
    }

    async fn network(&self, conditions: Value) {
        self.cdp("Network.enable", json!({})).await;
        self.cdp("Network.emulateNetworkConditions", conditions).await;
    }

    /// Lets the page write to the clipboard and read it.
    pub async fn allow_clipboard(&self) {
        let permissions = ["clipboardReadWrite", "clipboardSanitizedWrite"];
        let grant = json!({ "origin": self.bases[0], "permissions": permissions });
        self.cdp("Browser.grantPermissions", grant).await;
    }

    /// What was copied last.
    pub async fn clipboard(&self) -> String {
        let script = "const done = arguments[arguments.length - 1];
            navigator.clipboard.readText().then(done, (error) => done(`${error}`));";
        self.script_later(script, vec![]).await.as_str().unwrap_or_default().to_owned()
    }

    pub async fn cdp(&self, method: &str, parameters: Value) -> Value {
        let sent = within(method, LIMIT, self.driver.cdp().send_raw(method, parameters)).await;
        sent.unwrap_or_else(|e| panic!("{method}: {e}"))
    }

    /// The value of a script; a page that goes away meanwhile gives null.
    pub async fn script(&self, script: &str, arguments: Vec<Value>) -> Value {
        let answer = within("a script", LIMIT, self.driver.execute(script, arguments)).await;
        answer.map_or(Value::Null, |answer| answer.json().clone())
    }

    /// Of one that calls its last argument.
    async fn script_later(&self, script: &str, arguments: Vec<Value>) -> Value {
        let answer = within("a script", LIMIT * 3, self.driver.execute_async(script, arguments));
        answer.await.unwrap_or_else(|e| panic!("the script fails: {e}")).json().clone()
    }

    /// One more tab, which is looked at from now on.
    pub async fn new_tab(&self) -> WindowHandle {
        let tab = self.driver.new_tab().await.expect("a tab");
        self.look_at(&tab).await;
        tab
    }

    pub async fn this_tab(&self) -> WindowHandle {
        self.driver.window().await.expect("a tab")
    }

    pub async fn look_at(&self, tab: &WindowHandle) {
        self.driver.switch_to_window(tab.clone()).await.expect("the tab is there");
        self.cdp("Page.bringToFront", json!({})).await;
    }

    /// A picture of the page as it is seen.
    pub async fn screenshot(&self, path: &Path) {
        self.driver.screenshot(path).await.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }

    pub async fn cookie(&self, name: &str) -> Option<Cookie> {
        let cookies = self.driver.get_all_cookies().await.expect("the cookies");
        cookies.into_iter().find(|cookie| cookie.name == name)
    }

    /// The end of every test: the console is clean, and nobody outside was asked.
    pub async fn finish(mut self) {
        let errors = self.console_errors().await;
        assert!(errors.is_empty(), "errors in the console: {errors:#?}");
        let foreign = self.foreign_requests().await;
        assert!(foreign.is_empty(), "requests to others: {foreign:#?}");
        self.finished = true;
        let _ = within("the browser ends", LIMIT, self.driver.clone().quit()).await;
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let panicking = std::thread::panicking();
        assert!(self.finished || panicking, "the test did not call Browser::finish");
        if self.finished {
            scratch::remove(&self.folder);
        }
    }
}
