//! Lists as people have them: whatever program wrote them, in whatever encoding, packed or not. No address is lost,
//! none is invented, none is wrongly said to be broken; and what comes back is written as what came in.

mod files;

use std::collections::HashSet;
use std::time::Duration;

use futures::{StreamExt, stream};
use listmill_tests::admin::run;
use listmill_tests::process::Launch;
use listmill_tests::random::Random;
use listmill_tests::setup::binary;
use listmill_tests::{Client, Setup, Size, for_each_size, scratch, workbook};
use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use self::files::File;

for_each_size!(every_list_gives_its_addresses);

/// Lists at once: so many workbooks are made for one account.
const AT_ONCE: usize = 2;

/// Sends a file as a browser does: with its name, and with no more said of it.
async fn submit(client: &Client, file: &File) -> Value {
    let part = Part::bytes(file.bytes.clone()).file_name(file.name.clone());
    let part = part.mime_str("application/octet-stream").expect("a type");
    let request =
        client.request(Method::POST, "/v1/tasks").multipart(Form::new().part("file", part));
    let reply = listmill_tests::client::try_send(request).await.expect("an answer");
    assert_eq!(reply.status, 201, "{}: {reply}", file.name);
    reply.json()
}

/// The results, in the list's order.
async fn results(client: &Client, id: &str) -> Vec<Value> {
    let path = format!("/v1/tasks/{id}/results?limit=1000");
    let page = client.get(&path).await.expect(200).json();
    page["data"].as_array().expect("results").clone()
}

async fn every_list_gives_its_addresses(size: Size) {
    let app = Setup::new(size).start().await;
    let client = &app.customer(10_000).await.client;
    let files = files::all();
    assert!(files.len() >= 60, "{} lists", files.len());
    let names: HashSet<&str> = files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names.len(), files.len(), "each has a name of its own");
    let each = stream::iter(&files).map(|file| async move {
        let task = submit(client, file).await;
        let id = task["id"].as_str().expect("an id");
        client.wait_completed(id).await;
        let results = results(client, id).await;
        let emails: Vec<&str> = results.iter().filter_map(|row| row["email"].as_str()).collect();
        assert_eq!(emails, file.wanted, "{}: {}", file.name, task["list"]);
        let broken = results.iter().filter(|row| row["reason"] == "invalid_syntax").count();
        assert_eq!(broken, 0, "{}: {results:#?}", file.name);
        // It comes back as a workbook, and that is a list with the same addresses.
        let xlsx =
            client.get(&format!("/v1/tasks/{id}/results?format=xlsx")).await.expect(200).body;
        let again = client.post_bytes("/v1/tasks?dry_run=true", workbook::KIND, xlsx).await;
        let counts = &again.expect(200).json()["counts"];
        assert_eq!(counts["unique"], file.wanted.len(), "{}: {counts}", file.name);
        assert_eq!(counts["invalid_syntax"], 0, "{}: {counts}", file.name);
    });
    each.buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    app.finish().await;
}

/// The same by the shell: some of them, others each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shell_takes_them_as_well() {
    let mut files = files::all();
    let mut random = Random::printed();
    let folder = scratch::folder("lists");
    let mut chosen = Vec::new();
    for _ in 0..10 {
        chosen.push(files.swap_remove(random.index(files.len())));
    }
    let folder = &folder;
    let each = stream::iter(&chosen).map(|file| async move {
        std::fs::write(folder.join(&file.name), &file.bytes).expect("a list");
        let output = format!("{}.out.ndjson", file.name);
        let args = ["verify", &file.name, "--output", &output, "--provider", "sandbox"];
        let launch = Launch::new(binary(), folder).args(args);
        run(launch, Duration::from_secs(60)).await.expect_success();
        let text = std::fs::read_to_string(folder.join(&output)).expect("results");
        let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let emails: Vec<String> =
            rows.map(|row| row["email"].as_str().expect("an email").to_owned()).collect();
        assert_eq!(emails, file.wanted, "{}", file.name);
    });
    each.buffer_unordered(3).collect::<Vec<()>>().await;
}

/// How the list was read is said; what was submitted stands beside what was made of it; and the file comes back with
/// its mark, its line ends and its columns in their places.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_comes_back_as_it_was_written() {
    let app = Setup::new(Size::Embedded).start().await;
    let client = app.customer(100).await.client;
    let list = "\u{feff}Name;E-Mail\nJörg;J <joerg@Shop.example>\nAda;ada@shop.example;too;many\nNobody;n/a\n";
    let task = client.post_bytes("/v1/tasks", "text/csv", list).await.expect(201).json();
    assert_eq!(task["list"]["format"], "csv");
    assert_eq!(task["list"]["encoding"], "UTF-8");
    assert_eq!(task["list"]["delimiter"], ";");
    assert_eq!(task["list"]["columns"], json!([{"number": 2, "name": "E-Mail", "why": "header"}]));
    assert_eq!(
        task["list"]["first"][0],
        json!({"submitted": "J <joerg@Shop.example>", "email": "joerg@shop.example", "valid": true})
    );
    let id = task["id"].as_str().expect("an id");
    client.wait_completed(id).await;
    let rows = results(&client, id).await;
    assert_eq!(rows[0]["submitted"], "J <joerg@Shop.example>");
    assert!(rows[1].get("submitted").is_none(), "{}", rows[1]);
    let ndjson =
        client.get(&format!("/v1/tasks/{id}/results?format=ndjson")).await.expect(200).text();
    assert!(ndjson.contains("\"submitted\":\"J <joerg@Shop.example>\""), "{ndjson}");
    let file = async |id: &str| {
        client.get(&format!("/v1/tasks/{id}/results?format=csv")).await.expect(200).text()
    };
    let text = file(id).await;
    assert!(text.starts_with("\u{feff}Name;E-Mail;listmill_status;"), "{text}");
    assert!(!text.contains('\r'), "{text:?}");
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[2].starts_with("Ada;ada@shop.example;deliverable;accepted;"), "{}", lines[2]);
    assert!(lines[2].ends_with(";too;many"), "{}", lines[2]);
    // Fed back, it has one set of our columns.
    let again = client.post_bytes("/v1/tasks", "text/csv", text.clone()).await.expect(201).json();
    let again = again["id"].as_str().expect("an id");
    client.wait_completed(again).await;
    let second = file(again).await;
    assert_eq!(second.lines().next(), text.lines().next());
    assert_eq!(second.matches("listmill_status").count(), 1);
    app.finish().await;
}

/// A list that is probably another file is neither charged nor begun, unless its owner says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wrong_file_is_doubted() {
    let app = Setup::new(Size::Embedded).start().await;
    let client = app.customer(100).await.client;
    let rows: String = (0..20).map(|no| format!("Person {no};person{no}@shop.example\n")).collect();
    let list = format!("Email;Contact\n{rows}");
    let post = async |query: &str| {
        client.post_bytes(&format!("/v1/tasks{query}"), "text/csv", list.clone()).await
    };
    let refused = post("").await.expect(422).expect_problem();
    assert_eq!(refused["code"], "mostly_invalid");
    let detail = refused["detail"].as_str().expect("a detail");
    assert!(detail.contains("column=Contact") && detail.contains("\"Person 0\""), "{detail}");
    crate::bad_input::assert_untouched(&client, 100, "the wrong file").await;
    let dry = post("?dry_run=true").await.expect(200).json();
    assert!(dry["doubt"].as_str().is_some_and(|doubt| doubt.contains("column=Contact")), "{dry}");
    let right = post("?dry_run=true&column=Contact").await.expect(200).json();
    assert_eq!((&right["doubt"], &right["cost"]["credits"]), (&Value::Null, &json!(20)));
    post("?allow_invalid=true").await.expect(201);
    app.finish().await;
}

/// Letter case and tags: counted, and collapsed on request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn likely_duplicates_are_shown() {
    let app = Setup::new(Size::Embedded).start().await;
    let client = app.customer(100).await.client;
    let list = "ada@shop.example\nAda@shop.example\nada+news@shop.example\nbob@shop.example\n";
    let post = async |query: &str| {
        client.post_bytes(&format!("/v1/tasks?dry_run=true{query}"), "text/plain", list).await
    };
    let each = post("").await.expect(200).json();
    assert_eq!(
        (&each["list"]["likely_duplicates"], &each["cost"]["credits"]),
        (&json!(2), &json!(4))
    );
    let collapsed = post("&collapse=true").await.expect(200).json();
    assert_eq!(collapsed["cost"]["credits"], 2, "{collapsed}");
    app.finish().await;
}

/// One address, as it was copied from somewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_address_is_unwrapped() {
    let app = Setup::new(Size::Embedded).start().await;
    let client = app.customer(100).await.client;
    let body = json!({ "email": "Ada <ada@Shop.example>" });
    let found = client.post("/v1/verifications", &body).await.expect(200).json();
    assert_eq!(
        (&found["email"], &found["submitted"]),
        (&json!("ada@shop.example"), &body["email"])
    );
    let several = json!({ "email": "ada@shop.example, bob@shop.example" });
    let found = client.post("/v1/verifications", &several).await.expect(200).json();
    assert_eq!(found["reason"], "invalid_syntax");
    app.finish().await;
}
