//! Keys from another system, by SHA-256.
//!
//! `LISTMILL_TEST_IMPORT_ROWS` (20,000): rows of the list that is interrupted.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use listmill_tests::admin::{Outcome, run_with_input};
use listmill_tests::process::{Launch, Process};
use listmill_tests::{Deployment, Setup, Size, eventually, for_each_size, sql};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::refusal;
use crate::key_docs::snippet;

for_each_size!(
    opens_the_gate_at_once,
    names_bad_rows_and_stores_the_others,
    goes_on_after_it_was_killed,
    takes_no_secrets,
);

/// The most that an import may hold in memory, however long its list.
const MOST_MEMORY: u64 = 256 << 20;

fn hex(key: &str) -> String {
    Sha256::digest(key).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn file(app: &Deployment, name: &str, text: &str) -> PathBuf {
    let path = app.folder().join(name);
    std::fs::write(&path, text).expect("a file");
    path
}

async fn import(app: &Deployment, account: &str, path: &std::path::Path, more: &[&str]) -> Outcome {
    let path = path.display().to_string();
    let mut args = vec!["admin", "key", "import", path.as_str(), "--account", account, "--json"];
    args.extend(more);
    app.cli(&args).await
}

fn counts(told: &Value) -> [u64; 4] {
    ["rows", "new", "there", "bad"].map(|name| told[name].as_u64().expect(name))
}

async fn opens_the_gate_at_once(size: Size) {
    let app = Setup::new(size).start().await;
    let owner = app.customer(10).await;
    // Of another form; of ours with another checksum; of ours by chance.
    let foreign = "sk_live_51H8fX2eZvKYlo2C.Qz~abc";
    let like_ours = format!("VEC{}", "Zz0O1lIi".repeat(4));
    let third = "a-short-one";
    for key in [foreign, like_ours.as_str(), third] {
        app.keep_secret(key);
    }
    let csv = format!(
        "sha256,start,label,scopes,allow,external_id,rate_limit,credit_limit,meta,note\n\
         {},sk_live_,shop,tasks:read keys:read,127.0.0.0/8,c1,500,100,\"{{\"\"a\"\":1}}\",from before\n\
         {},,like ours,,,,,,,\n",
        hex(foreign),
        STANDARD.encode(Sha256::digest(&like_ours)),
    );
    let path = file(&app, "keys.csv", &csv);
    let told = import(&app, &owner.account, &path, &["--dry-run"]).await.expect_success().json();
    assert_eq!((counts(&told), &told["dry_run"]), ([2, 2, 0, 0], &json!(true)));
    for key in [foreign, like_ours.as_str()] {
        app.client(key).get("/v1/tasks").await.expect(401);
    }
    let told = import(&app, &owner.account, &path, &[]).await.expect_success().json();
    assert_eq!(counts(&told), [2, 2, 0, 0]);
    for api in 0..app.apis.len() {
        app.client_of(api, foreign).get("/v1/tasks").await.expect(200);
        app.client_of(api, &like_ours).get("/v1/tasks").await.expect(200);
        app.client_of(api, foreign).get("/v1/account/credits").await.expect(403);
    }
    // All that was said of it is so.
    let rows = owner.client.get("/v1/keys?external_id=c1").await.expect(200).json();
    let key = &rows["data"][0];
    for (field, value) in [
        ("start", json!("sk_live_")),
        ("label", json!("shop")),
        ("scopes", json!(["tasks:read", "keys:read"])),
        ("allow", json!(["127.0.0.0/8"])),
        ("rate_limit", json!(500)),
        ("credit_limit", json!({ "limit": 100, "used": 0, "refill": null })),
        ("meta", json!({ "a": 1 })),
        ("note", json!("from before")),
        ("created_by", json!({ "operator": true })),
    ] {
        let sorted = |value: &Value| match value.as_array() {
            Some(list) => {
                let mut list: Vec<String> = list.iter().map(Value::to_string).collect();
                list.sort();
                json!(list)
            }
            None => value.clone(),
        };
        assert_eq!(sorted(&key[field]), sorted(&value), "{field}: {key}");
    }
    let found = app.cli_with_input(&["admin", "key", "find", "-", "--json"], foreign).await;
    assert_eq!(found.expect_success().json()["keys"][0]["key_id"], key["id"]);
    // It is a key like any other: it can be rotated into one of our form, and ended.
    let id = key["id"].as_str().expect("an id");
    let rotated = owner.client.post(&format!("/v1/keys/{id}/rotate"), &json!({})).await.expect(201);
    let secret = rotated.json()["key"].as_str().expect("a key").to_owned();
    app.keep_secret(&secret);
    assert!(secret.starts_with("VEC"));
    app.client(&secret).get("/v1/tasks").await.expect(200);
    let expired = refusal("Invalid or inactive API key", "This API key has expired");
    app.client(foreign).get("/v1/tasks").await.expect_body(401, &expired);

    // NDJSON by stdin, and what is there already is left as it is.
    let line = json!({ "sha256": hex(third), "label": "third", "scopes": ["*"] });
    let again = json!({ "sha256": hex(&like_ours), "label": "another name" });
    let input = format!("{line}\n\n{again}\n{line}\n");
    let args = ["admin", "key", "import", "-", "--account", &owner.account, "--json"];
    let told = app.cli_with_input(&args, &input).await.expect_success().json();
    assert_eq!(counts(&told), [3, 1, 2, 0]);
    app.client(third).get("/v1/tasks").await.expect(200);
    let labels = owner.client.all_pages("/v1/keys", 100).await;
    assert!(labels.iter().any(|key| key["label"] == "like ours"), "{labels:?}");
    let rows = owner.client.get("/v1/audit?action=key.import").await.expect(200).json();
    let after = rows["data"][0]["after"].clone();
    assert_eq!((&after["keys"], &after["first_line"]), (&json!(1), &json!(1)), "{rows}");
    assert_eq!(rows["data"].as_array().map(Vec::len), Some(2), "one for each batch: {rows}");
    app.finish().await;
}

async fn names_bad_rows_and_stores_the_others(size: Size) {
    let app = Setup::new(size).start().await;
    let (owner, other) = (app.customer(10).await, app.customer(10).await);
    let import_one = |key: &'static str, account: String| {
        let path = file(&app, "one.csv", &format!("sha256,label\n{},x\n", hex(key)));
        let app = &app;
        async move { import(app, &account, &path, &[]).await }
    };
    import_one("foreign-1", other.account.clone()).await.expect_success();
    import_one("deleted-1", owner.account.clone()).await.expect_success();
    let keys = owner.client.all_pages("/v1/keys", 100).await;
    let id = keys.iter().find(|key| key["label"] == "x").expect("it")["id"].clone();
    owner.client.delete(&format!("/v1/keys/{}", id.as_str().expect("an id"))).await.expect(200);

    let rows = [
        format!("{},good one,,", hex("good-1")),
        format!("{},not mine,,", hex("foreign-1")),
        format!("{},gone,,", hex("deleted-1")),
        String::from("1234,short,,"),
        format!("{},,,", hex("nameless")),
        format!("{},scope,everything,", hex("scope")),
        format!("{},past,,2020-01-31T12:00:00Z", hex("past")),
        format!("{},cells", hex("cells")),
        format!("{},hash of nothing,,", hex("")),
        format!("{},good two,verify,2100-01-31T12:00:00Z", hex("good-2")),
    ];
    let text = format!("sha256,label,scopes,expires_at\n{}\n", rows.join("\n"));
    let path = file(&app, "mixed.csv", &text);
    let errors = app.folder().join("errors.ndjson");
    for dry_run in [true, false] {
        let errors = errors.display().to_string();
        let mut more = vec!["--errors", errors.as_str()];
        more.extend(dry_run.then_some("--dry-run"));
        let outcome = import(&app, &owner.account, &path, &more).await.expect_failure();
        assert_eq!(outcome.code, Some(1), "{outcome:#?}");
        let told = outcome.json();
        assert_eq!(counts(&told), [10, 2, 0, 8], "{told}");
        let lines: Vec<u64> = told["errors"]
            .as_array()
            .expect("errors")
            .iter()
            .map(|error| error["line"].as_u64().expect("a line"))
            .collect();
        assert_eq!(lines, [3, 4, 5, 6, 7, 8, 9, 10], "{told}");
        let says = told["errors"].to_string();
        for word in ["sha256", "label", "scope", "expires_at", "cells", "deleted"] {
            assert!(says.contains(word), "{word}: {says}");
        }
        assert!(!outcome.text().contains(&other.account), "whose it is is not told");
        assert!(!outcome.text().contains(&hex("foreign-1")), "nor is a hash");
        let written = std::fs::read_to_string(&errors).expect("the file of errors");
        assert_eq!(written.lines().count(), 8, "{written}");
        let expect = if dry_run { 401 } else { 200 };
        app.client("good-1").get("/v1/tasks").await.expect(expect);
    }
    app.client("foreign-1").get("/v1/tasks").await.expect(200);
    app.client("deleted-1").get("/v1/tasks").await.expect(401);
    // Mended, it goes on.
    let mended = text.replace("1234,short,,", &format!("{},short,,", hex("mended")));
    let path = file(&app, "mixed.csv", &mended);
    let told = import(&app, &owner.account, &path, &[]).await.expect_failure().json();
    assert_eq!(counts(&told), [10, 1, 2, 7], "{told}");
    app.client("mended").get("/v1/tasks").await.expect(200);
    app.finish().await;
}

/// The most memory that a process has had, while it is there.
fn peak(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib << 10)
}

async fn goes_on_after_it_was_killed(size: Size) {
    let app = Setup::new(size).start().await;
    let owner = app.customer(10).await;
    let rows: u64 = std::env::var("LISTMILL_TEST_IMPORT_ROWS")
        .map_or(20_000, |text| text.parse().expect("a number of rows"));
    let path = app.folder().join("many.ndjson");
    {
        use std::io::Write;
        let mut out = std::io::BufWriter::new(std::fs::File::create(&path).expect("a file"));
        for number in 0..rows {
            let hash = hex(&format!("many-{number}"));
            writeln!(out, "{{\"sha256\":\"{hash}\",\"label\":\"many {number}\"}}").expect("a line");
        }
        out.flush().expect("a file");
    }
    let url = app.database_url();
    let stored = || async {
        sql::number(&url, "SELECT count(*) FROM api_keys WHERE label LIKE 'many %'").await
    };
    let start = |name: &str| {
        let args = ["admin", "key", "import", path.to_str().expect("a path"), "--account"];
        let launch: Launch = app.launch().args(args).args([owner.account.as_str(), "--json"]);
        Process::start(name, launch, app.folder().join(format!("{name}.log")))
    };
    let mut first = start("import-1");
    eventually("some are stored", Duration::from_secs(120), || async {
        (stored().await > 0).then_some(())
    })
    .await;
    first.kill9();
    let before = stored().await;
    assert!(before > 0 && before as u64 <= rows);
    let mut second = start("import-2");
    let mut most = 0;
    let (pid, limit) = (second.pid(), Duration::from_secs(60 + rows / 100));
    let began = std::time::Instant::now();
    let status = loop {
        most = peak(pid).unwrap_or(0).max(most);
        if let Some(status) = second.ended() {
            break status;
        }
        assert!(began.elapsed() < limit, "{}", second.tail(20));
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(status.success(), "{}", second.tail(20));
    assert!(most < MOST_MEMORY, "{most} bytes for {rows} rows");
    let output = second.output();
    let told = output.lines().find(|line| line.starts_with('{')).expect("what became of them");
    let told: Value = serde_json::from_str(told).expect("JSON");
    // What the killed one had sent may have been stored after we looked.
    let [all, new, there, bad] = counts(&told);
    assert_eq!((all, new + there, bad), (rows, rows, 0), "{told}");
    assert!(there >= before as u64 && (there % 1_000 == 0 || there == rows), "{before}: {told}");
    assert_eq!(stored().await as u64, rows, "exactly all");
    for number in [0, rows / 2, rows - 1] {
        app.client(&format!("many-{number}")).get("/v1/tasks").await.expect(200);
    }
    app.client(&format!("many-{rows}")).get("/v1/tasks").await.expect(401);
    let verified = app.cli(&["admin", "audit", "verify", "--json"]).await;
    verified.expect_success();
    app.finish().await;
}

async fn takes_no_secrets(size: Size) {
    let app = Setup::new(size).start().await;
    let owner = app.customer(10).await;
    let (one, two) = ("hunter2-first", "hunter2, \"quoted\"");
    for (name, text) in [
        ("a.csv", format!("key,label\n{one},x\n")),
        ("b.csv", format!("label,Secret\nx,{one}\n")),
        ("c.ndjson", json!({ "token": one, "label": "x" }).to_string()),
        ("d.csv", format!("{one},x\n")),
        // Shifted by one field.
        ("e.ndjson", json!({ "sha256": hex("x"), "label": "x", "rate_limit": one }).to_string()),
    ] {
        let path = file(&app, name, &text);
        let refused = import(&app, &owner.account, &path, &[]).await.expect_failure();
        let named = if name == "e.ndjson" { "rate_limit" } else { "sha256" };
        assert!(refused.text().contains(named), "{refused:#?}");
        assert!(!refused.text().contains("hunter2"), "{refused:#?}");
    }
    app.client(one).get("/v1/tasks").await.expect(401);
    // The documented line makes of it what can be imported.
    let input = format!("key,label\n{one},first\n\"{}\",second\n", two.replace('"', "\"\""));
    let launch =
        Launch::new("sh", app.folder()).args(["-c".to_owned(), snippet("docs/KEYS.md", "hash")]);
    let hashed = run_with_input(launch, Duration::from_secs(30), Some(&input)).await;
    let hashed = hashed.expect_success().stdout;
    assert!(!hashed.contains("hunter2") && hashed.contains(&hex(two)), "{hashed}");
    let args = ["admin", "key", "import", "-", "--account", &owner.account, "--json"];
    let told = app.cli_with_input(&args, &hashed).await.expect_success().json();
    assert_eq!(counts(&told), [2, 2, 0, 0], "{told}");
    app.client(one).get("/v1/tasks").await.expect(200);
    // Nothing to import is no success.
    let path = file(&app, "empty.csv", "");
    import(&app, &owner.account, &path, &[]).await.expect_failure();
    let path = file(&app, "other.csv", "sha256,label,colour\n");
    import(&app, &owner.account, &path, &[]).await.expect_failure();
    app.finish().await;
}
