//! What the browser has logged and measured: requests, bytes, times, shifts, errors; and axe's findings.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::{Browser, LIMIT};
use crate::admin::run;
use crate::process::Launch;
use crate::scratch;

const AXE: &str = "axe-core@4.14.1";
/// Nothing comes for so long: the page is loaded.
const QUIET: Duration = Duration::from_millis(700);

/// What a page cost when it was opened for the first time.
#[derive(Debug, Clone)]
pub struct Load {
    /// As transferred: compressed, with headers.
    pub bytes: u64,
    /// From the request to the first byte of the page, in milliseconds.
    pub first_byte: f64,
    pub layout_shift: f64,
    /// What moved: the beginning of its HTML, from where, to where: `(x, y, width, height)`.
    pub moved: Vec<String>,
}

impl Browser {
    /// Errors with these words are what the test is about.
    pub fn forgive(&self, words: &str) {
        self.forgiven.lock().expect("not poisoned").push(words.to_owned());
    }

    /// What the console said in red so far.
    pub async fn console_errors(&self) -> Vec<String> {
        let entries = self.driver.browser_log().await.unwrap_or_default();
        let mut errors = self.errors.lock().expect("not poisoned");
        let severe = entries.into_iter().filter(|entry| entry.level == "SEVERE");
        errors.extend(severe.map(|entry| entry.message));
        let forgiven = self.forgiven.lock().expect("not poisoned");
        let is_forgiven = |error: &String| forgiven.iter().any(|words| error.contains(words));
        errors.iter().filter(|error| !is_forgiven(error)).cloned().collect()
    }

    /// Every event of the network so far: `{"method", "params"}`.
    async fn network_events(&self) -> Vec<Value> {
        let entries = self.driver.get_log("performance").await.unwrap_or_default();
        let parsed = entries.iter().filter_map(|entry| {
            let event: Value = serde_json::from_str(&entry.message).ok()?;
            let event = event.get("message")?.clone();
            event["method"].as_str()?.starts_with("Network.").then_some(event)
        });
        let mut events = self.events.lock().expect("not poisoned");
        events.extend(parsed);
        events.clone()
    }

    /// Addresses of all requests so far.
    pub async fn requests(&self) -> Vec<String> {
        let sent = |event: &Value| {
            let is_request = event["method"] == "Network.requestWillBeSent";
            is_request.then(|| event["params"]["request"]["url"].as_str().map(str::to_owned))?
        };
        self.network_events().await.iter().filter_map(sent).collect()
    }

    /// Those that went to somebody else.
    pub async fn foreign_requests(&self) -> Vec<String> {
        const INSIDE: &[&str] = &["data:", "blob:", "about:", "chrome:", "chrome-untrusted:"];
        let own = |url: &str| {
            let base = |base: &String| url == base || url.starts_with(&format!("{base}/"));
            self.bases.iter().any(base) || INSIDE.iter().any(|start| url.starts_with(start))
        };
        self.requests().await.into_iter().filter(|url| !own(url)).collect()
    }

    /// Opens a page as if for the first time, and says what that cost.
    pub async fn first_load(&self, path: &str) -> Load {
        let before = self.network_events().await.len();
        self.open_anew(path).await;
        let bytes = self.transferred_since(before).await;
        let first_byte = self.first_byte().await;
        let (layout_shift, moved) = self.shifts().await;
        Load { bytes, first_byte, layout_shift, moved }
    }

    /// Opens a page as if for the first time.
    pub async fn open_anew(&self, path: &str) {
        self.cdp("Network.clearBrowserCache", json!({})).await;
        self.open(path).await;
    }

    /// Bytes of the site's answers since then that have come to their end. The browser loads pages of its own,
    /// too.
    async fn transferred_since(&self, before: usize) -> u64 {
        let mut seen = usize::MAX;
        loop {
            let now = self.network_events().await.len();
            if now == seen {
                break;
            }
            seen = now;
            tokio::time::sleep(QUIET).await;
        }
        let events = self.network_events().await;
        let id = |event: &Value| event["params"]["requestId"].as_str().map(str::to_owned);
        let asked = |event: &&Value| {
            let url = event["params"]["request"]["url"].as_str().unwrap_or_default();
            let own = self.bases.iter().any(|base| url.starts_with(&format!("{base}/")));
            event["method"] == "Network.requestWillBeSent" && own
        };
        let since = &events[before..];
        let own: HashSet<String> = since.iter().filter(asked).filter_map(id).collect();
        let ended = |event: &&Value| {
            let own = id(event).is_some_and(|id| own.contains(&id));
            event["method"] == "Network.loadingFinished" && own
        };
        let size = |event: &Value| event["params"]["encodedDataLength"].as_f64().unwrap_or(0.0);
        let sum: f64 = since.iter().filter(ended).map(size).sum();
        format!("{sum:.0}").parse().expect("a count of bytes")
    }

    /// From the request to the first byte of this page, in milliseconds.
    pub async fn first_byte(&self) -> f64 {
        let script = "const [page] = performance.getEntriesByType('navigation');
            return page.responseStart - page.requestStart;";
        self.script(script, vec![]).await.as_f64().expect("a time")
    }

    /// How much of this page has moved by itself so far (CLS).
    pub async fn layout_shift(&self) -> f64 {
        self.shifts().await.0
    }

    /// Likewise, and what moved: see [`Load`].
    pub async fn shifts(&self) -> (f64, Vec<String>) {
        let script = "const done = arguments[arguments.length - 1];
            const all = [];
            const watch = new PerformanceObserver((list) => all.push(...list.getEntries()));
            watch.observe({ type: 'layout-shift', buffered: true });
            const place = ({ x, y, width, height }) => `(${[x, y, width, height].join(', ')})`;
            const name = (node) => node?.outerHTML?.slice(0, 80) ?? node?.textContent ?? 'gone';
            const show = ({ node, previousRect, currentRect }) =>
                `${name(node)} from ${place(previousRect)} to ${place(currentRect)}`;
            setTimeout(() => {
                all.push(...watch.takeRecords());
                const own = all.filter((entry) => !entry.hadRecentInput);
                const sum = own.reduce((sum, entry) => sum + entry.value, 0);
                done([sum, own.flatMap((entry) => entry.sources.map(show))]);
            }, 300);";
        let found = self.script_later(script, vec![]).await;
        serde_json::from_value(found).expect("a number and what moved")
    }

    /// Whether something sticks out of the page to the side.
    pub async fn scrolls_sideways(&self) -> bool {
        let script = "const page = document.scrollingElement;
            return page.scrollWidth > page.clientWidth + 1;";
        self.script(script, vec![]).await == true
    }

    /// What axe finds wrong with the page as it is now, in words. Empty, and said so, where the registry
    /// cannot be reached.
    pub async fn axe(&self) -> Vec<String> {
        self.axe_by("undefined").await
    }

    /// By the rules that colours alone can break.
    async fn axe_of_colours(&self) -> Vec<String> {
        self.axe_by("{ type: 'rule', values: ['color-contrast', 'link-in-text-block'] }").await
    }

    async fn axe_by(&self, rules: &str) -> Vec<String> {
        let Some(source) = axe_source().await else { return Vec::new() };
        if self.script("return typeof window.axe", vec![]).await != "object" {
            self.script(source, vec![]).await;
        }
        let script = "const done = arguments[arguments.length - 1];
            const runOnly = RULES;
            const show = (node) => `${node.target.join(' ')} ${node.html.slice(0, 160)}`
                + ` (${node.failureSummary.replace(/\\s+/g, ' ')})`;
            window.axe.run(document, { resultTypes: ['violations'], ...(runOnly && { runOnly }) }).then(
                ({ violations }) => done(violations.map((one) =>
                    `${one.id}: ${one.help}: ${one.nodes.slice(0, 4).map(show).join('; ')}`)),
                (error) => done([`axe fails: ${error}`]));";
        let found = self.script_later(&script.replace("RULES", rules), vec![]).await;
        serde_json::from_value(found).expect("a list of words")
    }

    /// The page as it is now has nothing that axe finds wrong, in light and in dark.
    pub async fn assert_accessible(&self, what: &str) {
        let found = self.axe().await;
        assert!(found.is_empty(), "{what}, light: {found:#?}");
        self.dark().await;
        let found = self.axe_of_colours().await;
        assert!(found.is_empty(), "{what}, dark: {found:#?}");
        self.light().await;
    }
}

/// The text of axe-core, installed once and kept beside the tests. `None` where nobody can be reached.
async fn axe_source() -> Option<&'static str> {
    static SOURCE: OnceCell<Option<String>> = OnceCell::const_new();
    let source = SOURCE.get_or_init(|| async {
        let kept = kept_folder();
        let file = kept.join("node_modules/axe-core/axe.min.js");
        if !file.is_file() && !install(&kept).await {
            return None;
        }
        Some(std::fs::read_to_string(&file).expect("axe-core is installed"))
    });
    source.await.as_deref()
}

/// Below the target folder: it stays when the tests are over, as what cargo fetched does.
fn kept_folder() -> PathBuf {
    let tests = std::env::current_exe().expect("the path of the running program");
    let profile = tests.parent().and_then(Path::parent).expect("target/<profile>/deps");
    profile.join("npm").join(AXE.replace('@', "-"))
}

/// Did it install? Made aside and then moved, so that two test processes do not meet.
async fn install(kept: &Path) -> bool {
    let folder = scratch::folder("npm");
    let args = ["install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", ".", AXE];
    let outcome = run(Launch::new("npm", &folder).args(args), LIMIT * 6).await;
    if outcome.code != Some(0) {
        assert!(outcome.says_unreachable(), "{outcome:#?}");
        println!("SKIPPED: the package registry cannot be reached: {}", outcome.line);
        return false;
    }
    std::fs::create_dir_all(kept).expect("a folder beside the tests");
    let copied = Launch::new("cp", &folder).args(["-r", "node_modules"]).args([kept]);
    run(copied, LIMIT).await.expect_success();
    scratch::remove(&folder);
    true
}
