//! Who may see and do what; what every page is sent with; forms of others; text that would be more than text.

use std::collections::BTreeSet;
use std::time::Duration;

use listmill_tests::dashboard::{PASSWORD, Page};
use listmill_tests::{Deployment, Login, Person, Setup, Size, Task, for_each_size, lists};
use serde_json::json;

use super::{HOSTILE, OPERATORS, PAGES, browsed, sends_to_login, task_when};

for_each_size!(
    every_page_is_closed,
    every_form_needs_its_token,
    accounts_are_apart,
    roles_hold,
    operators_alone,
    hostile_text_is_text,
);

/// Tasks last long enough to be paused.
async fn slow(size: Size) -> Deployment {
    Setup::new(size).latency("100ms").concurrency(2).start().await
}

/// Something of everything: a task that is done, one that waits, a key, a key that is disabled.
async fn fill(app: &Deployment, login: &Login) -> (String, String, String) {
    let client = login.client(app).await;
    let done = client.submit(&lists::people(20)).await.id;
    client.wait_completed(&done).await;
    let body = json!({ "name": "it waits", "emails": lists::people(30) });
    let waiting = client.submit_json(&body).await.id;
    client.pause(&waiting).await.expect(200);
    let still = |task: &Task| task.status == "paused" && task.credits.held == 0;
    client.wait_until(&waiting, "it stands still", Duration::from_secs(30), still).await;
    let key = app.create_key(&login.account).await;
    (done, waiting, key.id)
}

/// Every page that one can come to from the navigation.
async fn pages_of(person: &Person, starts: &[&str]) -> Vec<(String, Page)> {
    const MOST: usize = 90;
    let mut known: BTreeSet<String> = starts.iter().map(|path| (*path).to_owned()).collect();
    let mut waiting: Vec<String> = known.iter().cloned().collect();
    let mut pages = Vec::new();
    while let Some(path) = waiting.pop() {
        let page = person.get(&path).await;
        let html = page.reply.header("content-type").is_some_and(|k| k.starts_with("text/html"));
        if !html || pages.len() >= MOST {
            continue;
        }
        // Buttons that open a dialog are forms that ask for a page.
        let asked = page.forms().into_iter().filter(|form| !form.post).map(|form| form.action);
        let buttons = listmill_tests::html::tags(&page.text)
            .into_iter()
            .filter_map(|tag| tag.get("formaction").map(str::to_owned));
        for link in page.links().into_iter().chain(asked).chain(buttons) {
            let link = link.split('#').next().unwrap_or_default().to_owned();
            let outside = !link.starts_with('/')
                || ["/v1/", "/assets/", "/docs", "/logout"].iter().any(|s| link.starts_with(s));
            if !outside && known.insert(link.clone()) {
                waiting.push(link);
            }
        }
        pages.push((path, page));
    }
    pages
}

/// Nobody may frame a page, none runs what is not ours, none is kept by caches, and none has a style or script in it.
async fn every_page_is_closed(size: Size) {
    let app = slow(size).await;
    let login = app.operator(1_000).await;
    fill(&app, &login).await;
    let person = login.person(&app).await;
    let starts = [&PAGES[..], &OPERATORS[..], &["/no-such-page", "/tasks/task_0"]].concat();
    let mut pages = pages_of(&person, &starts).await;
    let stranger = Person::stranger(&app);
    pages.push(("/login".to_owned(), stranger.get("/login").await));
    pages.push(("/login/link/x".to_owned(), stranger.get("/login/link/x").await));
    assert!(pages.len() > 30, "{:?}", pages.iter().map(|(path, _)| path).collect::<Vec<_>>());
    for (path, page) in &pages {
        let header = |name: &str| page.reply.header(name).unwrap_or_default().to_owned();
        let policy = header("content-security-policy");
        for part in ["default-src 'none'", "script-src 'self'", "style-src 'self'"] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        for part in ["frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(header("x-frame-options").to_ascii_uppercase(), "DENY", "{path}");
        assert!(!header("referrer-policy").is_empty(), "{path}");
        assert!(header("cache-control").contains("no-store"), "{path}");
        for tag in listmill_tests::html::tags(&page.text) {
            assert!(tag.name != "style" && tag.get("style").is_none(), "{path}: {tag:?}");
            assert!(tag.name != "script" || tag.get("src").is_some(), "{path}: {tag:?}");
            let handler = tag.attributes.iter().find(|(name, _)| name.starts_with("on"));
            assert!(handler.is_none(), "{path}: {tag:?}");
        }
        let lacking = page.text.contains("[missing") || page.text.contains("{{");
        assert!(!lacking, "{path}: a text is missing");
        assert!(page.status < 500, "{path}: {}", page.reply);
    }
    app.finish().await;
}

/// Each form that is on any page, sent without its token, with a wrong one, with another person's, and from
/// another site: refused, and nothing is other than before.
async fn every_form_needs_its_token(size: Size) {
    let app = slow(size).await;
    let login = app.operator(1_000).await;
    let (_, waiting, key) = fill(&app, &login).await;
    let person = login.person(&app).await;
    let other = app.person(1).await.person(&app).await;
    other.get("/tasks").await.expect(200);
    let foreign = other.csrf();
    let before = state(&app, &login).await;
    let mut starts: Vec<String> =
        PAGES.iter().chain(&OPERATORS).map(|path| (*path).to_owned()).collect();
    starts.push(format!("/tasks/{waiting}"));
    starts.extend(["disable", "rotate", "limits", "delete"].map(|a| format!("/keys/{key}/{a}")));
    let starts: Vec<&str> = starts.iter().map(String::as_str).collect();
    let mut tried = BTreeSet::new();
    for (path, page) in pages_of(&person, &starts).await {
        for form in page.forms().into_iter().filter(|form| form.post) {
            let to = if form.action.is_empty() { path.clone() } else { form.action.clone() };
            if !tried.insert(to.clone()) {
                continue;
            }
            let own = form.field("csrf").unwrap_or_else(|| panic!("no token: {path}: {to}"));
            let fields: Vec<(&str, &str)> = form
                .fields
                .iter()
                .filter(|(name, _)| name != "csrf")
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect();
            let reversed: String = own.chars().rev().collect();
            for token in [None, Some(""), Some("0"), Some(&reversed), Some(foreign.as_str())] {
                let mut sent: Vec<(&str, &str)> = token.map(|t| ("csrf", t)).into_iter().collect();
                sent.extend(&fields);
                let page = post(&person, &to, &sent, form.multipart).await;
                assert_eq!(page.status, 403, "{path}: {to} with {token:?}: {}", page.reply);
            }
        }
    }
    assert!(tried.len() > 12, "{tried:?}");
    assert!(tried.contains("/logout"), "{tried:?}");
    // Another site's form, as the browser says, however right the token.
    person.get("/account").await.expect(200);
    let body = format!("csrf={}", person.csrf());
    let request = person.request(reqwest::Method::POST, "/logout");
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    person.send(request.header("sec-fetch-site", "cross-site").body(body)).await.expect(403);
    person.get("/tasks").await.expect(200);
    assert_eq!(state(&app, &login).await, before, "nothing was changed");
    app.finish().await;
}

async fn post(person: &Person, to: &str, fields: &[(&str, &str)], multipart: bool) -> Page {
    if !multipart {
        return person.post_raw(to, fields).await;
    }
    let mut form = reqwest::multipart::Form::new();
    for (name, value) in fields {
        form = form.text((*name).to_owned(), (*value).to_owned());
    }
    person.send(person.request(reqwest::Method::POST, to).multipart(form)).await
}

/// What an account has, as its key sees it, without what moves by itself.
async fn state(app: &Deployment, login: &Login) -> Vec<String> {
    let client = login.client(app).await;
    let mut rows: Vec<String> =
        client.tasks().await.iter().map(|t| format!("{} {}", t["id"], t["status"])).collect();
    let keys = client.get("/v1/keys?limit=100").await.expect(200).json();
    let keys = keys["data"].as_array().expect("keys").iter();
    // The one that asks is new each time.
    let mut states: Vec<String> = keys
        .filter(|key| key["label"] != "made by a test")
        .map(|key| format!("{} {} {}", key["id"], key["status"], key["label"]))
        .collect();
    rows.append(&mut states);
    rows.push(client.balance().await.to_string());
    rows
}

/// Everything of one account is not there for another, whatever the address.
async fn accounts_are_apart(size: Size) {
    let app = slow(size).await;
    let (ours, theirs) = (app.person(1_000).await, app.person(1_000).await);
    let (done, waiting, key) = fill(&app, &theirs).await;
    let person = ours.person(&app).await;
    for task in [&done, &waiting] {
        for rest in
            ["", "?q=person1%40example.com", "/results/0", "/download?format=csv", "/cancel"]
        {
            let page = person.get(&format!("/tasks/{task}{rest}")).await;
            assert_eq!(page.status, 404, "{rest}: {}", page.reply);
        }
        for action in ["cancel", "pause", "resume", "erase"] {
            person.get("/tasks").await.expect(200);
            let page = person.post(&format!("/tasks/{task}/{action}"), &[]).await;
            assert_eq!(page.status, 404, "{action}: {}", page.reply);
        }
        let api = person.get(&format!("/v1/tasks/{task}")).await.status;
        assert!([401, 404].contains(&api), "{api}");
    }
    for action in ["disable", "enable", "rotate", "limits", "delete", "receipt"] {
        person.get(&format!("/keys/{key}/{action}")).await.expect(404);
        if action != "receipt" {
            person.get("/keys").await.expect(200);
            let fields = [("password", PASSWORD), ("grace", "0")];
            person.post(&format!("/keys/{key}/{action}"), &fields).await.expect(404);
        }
    }
    for path in PAGES {
        let page = person.get(path).await.expect(200);
        for secret in [&done, &waiting, &key, &theirs.account, &theirs.email] {
            page.assert_lacks(secret);
        }
    }
    // The other one still has all of it.
    let theirs = theirs.person(&app).await;
    theirs.get(&format!("/tasks/{waiting}")).await.expect(200);
    theirs.get("/keys").await.expect(200).assert_has(&key);
    app.finish().await;
}

/// Viewers look; members also work with lists; owners also change keys and people.
async fn roles_hold(size: Size) {
    let app = slow(size).await;
    let owner = app.person(1_000).await;
    let (_, waiting, key) = fill(&app, &owner).await;
    let before = state(&app, &owner).await;
    for role in ["viewer", "member"] {
        let login = app.colleague(&owner, role).await;
        let person = login.person(&app).await;
        for path in PAGES {
            person.get(path).await.expect(200);
        }
        person.get(&format!("/tasks/{waiting}")).await.expect(200);
        person.get("/keys").await.expect(200).assert_lacks("/keys/new");
        for path in
            ["/keys/new".to_owned(), format!("/keys/{key}/delete"), "/account/invite".into()]
        {
            assert_eq!(person.get(&path).await.status, 403, "{role}: {path}");
        }
        person.get("/tasks").await.expect(200);
        let fields =
            [("label", "x"), ("password", PASSWORD), ("email", "x@y.example"), ("role", "owner")];
        for to in ["/keys/new".to_owned(), format!("/keys/{key}/disable"), "/account/invite".into()]
        {
            let page = person.post(&to, &fields).await;
            assert_eq!(page.status, 403, "{role}: {to}: {}", page.reply);
        }
        if role == "viewer" {
            for action in ["cancel", "pause", "resume", "erase"] {
                let page = person.post(&format!("/tasks/{waiting}/{action}"), &[]).await;
                assert_eq!(page.status, 403, "{action}: {}", page.reply);
            }
            assert_eq!(state(&app, &owner).await, before, "a viewer changed nothing");
        } else {
            let page = person.post(&format!("/tasks/{waiting}/resume"), &[]).await;
            assert_eq!(page.status, 303, "{}", page.reply);
            task_when(&app, &owner, "it goes on", |task| {
                task["id"] == waiting.as_str() && task["status"] == "completed"
            })
            .await;
        }
        assert_eq!(person.get("/operator").await.status, 404, "{role}");
    }
    // Removed, one is out at once.
    let login = app.colleague(&owner, "member").await;
    let member = login.person(&app).await;
    let person = owner.person(&app).await;
    let account = person.get("/account").await.expect(200);
    let tags = listmill_tests::html::tags(&account.text);
    let named = |tag: &&listmill_tests::html::Tag| {
        tag.get("aria-label").is_some_and(|name| name.ends_with(&login.email))
    };
    let path = tags.iter().find(named).and_then(|tag| tag.get("href")).expect("their page");
    person.post(path, &[("role", ""), ("password", PASSWORD)]).await.expect(303);
    assert!(sends_to_login(&member, "/tasks").await, "out");
    app.finish().await;
}

async fn operators_alone(size: Size) {
    let app = slow(size).await;
    let (login, operator) = (app.person(10).await, app.operator(10).await);
    let person = login.person(&app).await;
    person.get("/tasks").await.expect(200).assert_lacks("href=\"/operator\"");
    let account = format!("/operator/accounts/{}", login.account);
    for path in OPERATORS.into_iter().chain([account.as_str()]) {
        assert_eq!(person.get(path).await.status, 404, "{path}");
        assert!(sends_to_login(&Person::stranger(&app), path).await, "{path}");
    }
    person.get("/tasks").await.expect(200);
    let fields = [("amount", "1000"), ("kind", "email"), ("password", PASSWORD)];
    assert_eq!(person.post(&format!("{account}/credits"), &fields).await.status, 404);
    let operator = operator.person(&app).await;
    operator.get("/tasks").await.expect(200).assert_has("href=\"/operator\"");
    for path in OPERATORS.into_iter().chain([account.as_str()]) {
        operator.get(path).await.expect(200);
    }
    assert_eq!(login.client(&app).await.balance().await, 10);
    app.finish().await;
}

/// Names, labels, cells and file names that would run if they were more than text.
async fn hostile_text_is_text(size: Size) {
    let app = browsed(size).start().await;
    let login = app.operator(10_000).await;
    let client = login.client(&app).await;
    let mut ids = Vec::new();
    for text in HOSTILE {
        let csv = format!(
            "email,{}\nperson1@example.com,\"{}\"\nnot an address {text},x\n",
            "note",
            text.replace('"', "\"\"")
        );
        let coded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let path = format!("/v1/tasks?name={coded}");
        let made = client.post_bytes(&path, "text/csv", csv).await.expect(201).json();
        ids.push(made["id"].as_str().expect("an id").to_owned());
        let body = json!({ "label": text });
        let key = client.post("/v1/keys", &body).await.expect(201).json();
        app.keep_secret(key["key"].as_str().expect("a key"));
    }
    let person = login.person(&app).await;
    person.get("/keys/new").await.expect(200);
    let mut paths: Vec<String> =
        PAGES.iter().chain(&OPERATORS).map(|path| (*path).to_owned()).collect();
    paths.extend(ids.iter().map(|id| format!("/tasks/{id}")));
    let coded: String = HOSTILE[1].bytes().map(|byte| format!("%{byte:02X}")).collect();
    for page in ["/tasks?q=", "/keys?q=", "/requests?key=", "/operator/accounts?q=", "/login?next="]
    {
        paths.push(format!("{page}{coded}"));
    }
    let browser = login.browse(&app).await;
    browser.forgive("status of 404");
    for path in &paths {
        let page = person.get(path).await;
        for text in ["<script>window", "<img src=x"] {
            assert!(!page.text.contains(text), "{path} has {text}");
        }
        browser.open(path).await;
        let hacked = browser.script("return window.hacked === undefined", vec![]).await;
        assert_eq!(hacked, true, "{path}");
    }
    browser.open("/keys").await;
    browser.wait_for(HOSTILE[0]).await;
    browser.open("/tasks").await;
    browser.wait_for(HOSTILE[0]).await;
    // A file whose name is more than a name, chosen and previewed by the page's own script.
    let csv = format!("email,{}\nperson2@example.com,{}\n", HOSTILE[0], HOSTILE[0]);
    let file = browser.file("<img src=x onerror=window.hacked=1>.csv", csv);
    browser.file_field("List file").choose_file(&file).await;
    browser.wait_for(HOSTILE[0]).await;
    browser.button("Start verification").click().await;
    let name = "onerror=window.hacked=1";
    task_when(&app, &login, "the file", |task| {
        task["name"].as_str().is_some_and(|own| own.contains(name))
    })
    .await;
    assert_eq!(browser.script("return window.hacked === undefined", vec![]).await, true);
    browser.finish().await;
    app.finish().await;
}
