//! The browser's harness tried on pages of its own.

use super::Browser;
use crate::process::{Launch, Process};
use crate::{eventually, ports, scratch};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use thirtyfour::Key;

const PAGE: &str = r#"<!doctype html><html lang="en"><head><title>Test</title><link rel="icon" href="data:,">
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>:root{color-scheme:light dark} body{color:#111;background:#fff} @media (prefers-color-scheme: dark){body{color:#eee;background:#111}}</style>
</head><body><main><h1>Things</h1>
<form><label for="a">Email</label><input id="a"><label>Password <input type="password"></label>
<label>List file <input type="file" style="opacity:0"></label></form>
<table><caption>All</caption><tr><th scope="col">Name</th><th scope="col">What</th></tr>
<tr><td>one.csv</td><td><button type="button" id="one">Cancel <span>one.csv</span></button></td></tr>
<tr><td>two.csv</td><td><button type="button" popovertarget="m">Actions</button>
<div popover id="m"><button type="button" id="two">Disable</button></div></td></tr></table>
<button type="button" id="open">Generate key</button><a href="/other.html">Elsewhere</a>
<dialog id="d" aria-labelledby="t"><h2 id="t">New key</h2><button type="button" id="in">Generate</button></dialog>
<p id="said">quiet</p><noscript><p>No script here</p></noscript></main>
<script>const say = (t) => document.getElementById('said').textContent = t;
for (const id of ['one', 'two', 'in']) document.getElementById(id).onclick = () => say(id);
document.getElementById('open').onclick = () => document.getElementById('d').showModal();
document.querySelector('[type=file]').onchange = (e) => say(e.target.files[0].name);
matchMedia('(prefers-color-scheme: dark)').onchange = (e) => say(e.matches ? 'dark' : 'light');</script>
</body></html>"#;
const OTHER: &str = r#"<!doctype html><html lang="en"><head><title>Other</title><link rel="icon" href="data:,"></head>
<body><main><h1>Other</h1><img src="http://127.0.0.1:1/spy.png"><p id="p">text</p></main><script>
console.error('spoilt'); setTimeout(() => document.querySelector('h1').style.marginTop = '300px', 400);</script></body></html>"#;

struct Site {
    _process: Process,
    base: String,
    folder: PathBuf,
}

async fn site() -> Site {
    let folder = scratch::folder("site");
    std::fs::write(folder.join("index.html"), PAGE).expect("written");
    std::fs::write(folder.join("other.html"), OTHER).expect("written");
    let port = ports::free_port();
    let args = ["-m", "http.server", "--bind", "127.0.0.1", &port.to_string()].map(str::to_owned);
    let launch = Launch::new("python3", &folder).args(args);
    let process = Process::start("site", launch, folder.join("site.log"));
    let base = format!("http://127.0.0.1:{port}");
    let url = &base;
    eventually("the pages are served", Duration::from_secs(10), || async move {
        crate::client::http().build().ok()?.get(url).send().await.ok()
    })
    .await;
    Site { _process: process, base, folder }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_finds_presses_and_measures() {
    let site = site().await;
    let browser = Browser::start_at(vec![site.base.clone()]).await;
    let load = browser.first_load("/").await;
    assert!(load.bytes > 1_000 && load.bytes < 5_000, "{load:?}");
    assert!(load.first_byte > 0.0 && load.layout_shift == 0.0, "{load:?}");
    browser.heading("Things").wait().await;
    browser.field("Email").fill("a@b.example").await;
    browser.field("Password").fill("secret").await;
    assert_eq!(browser.field("Email").value().await, "a@b.example");
    let file = browser.file("list.csv", "email\n");
    browser.file_field("List file").choose_file(&file).await;
    browser.wait_for("list.csv").await;
    browser.row("one.csv").button("Cancel").click().await;
    browser.wait_for("one").await;
    assert!(!browser.button("Disable").is_there().await, "the menu is shut");
    browser.row("two.csv").button("Actions").click().await;
    browser.row("two.csv").item("Disable").click().await;
    browser.wait_for("two").await;
    browser.press(Key::Escape).await;

    browser.button("Generate key").click().await;
    assert!(!browser.button("Generate key").is_there().await, "it lies under the dialog");
    browser.dialog().button("Generate").click().await;
    browser.press(Key::Escape).await;
    browser.dialog().wait_gone().await;
    browser.tab_to("link", "Elsewhere").await;
    browser.dark().await;
    browser.wait_for("dark").await;
    assert_eq!(browser.axe().await, Vec::<String>::new());
    browser.emulate(390).await;
    assert!(!browser.scrolls_sideways().await);
    assert_eq!(browser.script("return innerWidth", vec![]).await, 390);

    browser.no_script().await;
    browser.open("/").await;
    browser.wait_for("No script here").await;
    browser.field("Email").fill("still@works.example").await;
    browser.link("Elsewhere").click().await;
    browser.wait_path("/other").await;
    browser.script("document.querySelector('img').remove()", vec![]).await;
    assert_eq!(browser.foreign_requests().await, ["http://127.0.0.1:1/spy.png"]);
    browser.events.lock().expect("not poisoned").clear();
    browser.forgive("spy.png");
    browser.finish().await;
    scratch::remove(&site.folder);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_sees_what_is_wrong() {
    let site = site().await;
    let browser = Browser::start_at(vec![site.base.clone()]).await;
    let load = browser.first_load("/other.html").await;
    assert!(load.layout_shift > 0.0, "{load:?}");
    let errors = browser.console_errors().await.join("\n");
    assert!(errors.contains("spoilt") && errors.contains("spy.png"), "{errors}");
    let found = browser.axe().await.join("\n");
    assert!(found.contains("image-alt"), "{found}");
    assert_eq!(browser.foreign_requests().await, ["http://127.0.0.1:1/spy.png"]);

    let first = browser.this_tab().await;
    browser.new_tab().await;
    browser.open("/").await;
    browser.look_at(&first).await;
    assert_eq!(browser.script("return document.visibilityState", vec![]).await, "visible");
    browser.heading("Other").wait().await;

    browser.slow_network().await;
    let started = Instant::now();
    browser.open("/?fresh").await;
    assert!(started.elapsed() > Duration::from_millis(400), "{:?}", started.elapsed());
    browser.forgive("spoilt");
    browser.forgive("spy.png");
    browser.events.lock().expect("not poisoned").clear();
    browser.finish().await;
    scratch::remove(&site.folder);
}
