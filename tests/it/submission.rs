//! Every way to hand in a list gives the same task.

use listmill_tests::client::{parse, send};
use listmill_tests::{Customer, Deployment, Reply, Setup, Size, Task, for_each_size, lists};
use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::json;

for_each_size!(every_format_gives_the_same_task, csv_with_warts, dry_run_leaves_nothing);

const EMAILS: &[&str] =
    &["person1@example.com", "person2@example.com", "broken", "person1@example.com"];

async fn start(size: Size) -> (Deployment, Customer) {
    let app = Setup::new(size).start().await;
    let customer = app.customer(1_000).await;
    (app, customer)
}

fn text() -> String {
    EMAILS.join("\n") + "\n"
}

fn csv() -> String {
    let rows: Vec<String> = (1..).zip(EMAILS).map(|(i, email)| format!("{i},{email}")).collect();
    format!("id,email\n{}\n", rows.join("\n"))
}

fn ndjson() -> String {
    EMAILS.iter().map(|email| format!("{}\n", json!({ "email": email }))).collect()
}

async fn every_format_gives_the_same_task(size: Size) {
    let (app, customer) = start(size).await;
    let client = &customer.client;
    let file = |name: &'static str, body: String| {
        let form = Form::new().part("file", Part::text(body).file_name(name));
        send(client.request(Method::POST, "/v1/tasks").multipart(form))
    };
    let gzipped = |kind: &'static str, body: String| {
        let request = client.request(Method::POST, "/v1/tasks").header("content-type", kind);
        send(request.header("content-encoding", "gzip").body(lists::gzip(body.as_bytes())))
    };
    let replies: Vec<(&str, Reply)> = vec![
        ("json", client.post("/v1/tasks", &json!({ "emails": EMAILS })).await),
        ("csv", client.post_bytes("/v1/tasks", "text/csv", csv()).await),
        ("csv, column", client.post_bytes("/v1/tasks?column=email", "text/csv", csv()).await),
        ("csv, charset", client.post_bytes("/v1/tasks", "text/csv; charset=utf-8", csv()).await),
        ("text", client.post_bytes("/v1/tasks", "text/plain", text()).await),
        ("ndjson", client.post_bytes("/v1/tasks", "application/x-ndjson", ndjson()).await),
        ("csv file", file("list.csv", csv()).await),
        ("text file", file("list.txt", text()).await),
        ("csv, gzip", gzipped("text/csv", csv()).await),
        ("text, gzip", gzipped("text/plain", text()).await),
    ];
    for (format, reply) in replies {
        assert_eq!(reply.status, 201, "{format}: {reply}");
        let id = parse(&reply.json()).id;
        let task = client.wait_completed(&id).await;
        assert_counts(format, &task);
        let results = client.results(&id).await;
        let emails: Vec<&str> = results.iter().filter_map(|r| r["email"].as_str()).collect();
        assert_eq!(emails, EMAILS[..3], "{format}");
    }
    app.finish().await;
}

fn assert_counts(format: &str, task: &Task) {
    let c = task.counts;
    let seen = (c.submitted, c.unique, c.duplicates, c.invalid_syntax);
    assert_eq!(seen, (4, 3, 1, 1), "{format}: {task:#?}");
    assert_eq!(task.credits.charged, 2, "{format}");
}

/// What real exports look like: byte-order mark, CRLF, quotes, commas and newlines in fields,
/// an address column in the middle.
async fn csv_with_warts(size: Size) {
    let (app, customer) = start(size).await;
    let list = "\u{feff}Name,E-Mail,Note\r\n\
                \"Doe, Jane\",person1@EXAMPLE.com,\"two\r\nlines\"\r\n\
                Jörg,\"person2+tag@example.com\",\"he said \"\"hi\"\"\"\r\n\
                Again,person1@example.com,\r\n\
                ,anna@bücher.example,IDN\r\n";
    let id = customer.client.submit_csv(list).await.id;
    let task = customer.client.wait_completed(&id).await;
    let c = task.counts;
    assert_eq!((c.submitted, c.unique, c.duplicates, c.invalid_syntax), (4, 3, 1, 0), "{c:?}");
    assert_eq!(c.deliverable, 3, "{task:#?}");
    app.finish().await;
}

async fn dry_run_leaves_nothing(size: Size) {
    let (app, customer) = start(size).await;
    let client = &customer.client;
    let reply = client.post("/v1/tasks?dry_run=true", &json!({ "emails": EMAILS })).await;
    assert!(reply.status == 200 || reply.status == 201, "{reply}");
    let counts = &reply.json()["counts"];
    assert_eq!(counts["submitted"], 4, "{reply}");
    assert_eq!(counts["unique"], 3, "{reply}");
    assert!(client.tasks().await.is_empty());
    assert_eq!(client.balance().await, 1_000);
    app.finish().await;
}
