//! Bad input in small: each a clear 4xx, nothing stored, nothing charged.

use listmill_tests::client::send;
use listmill_tests::{Client, Setup, Size, for_each_size};
use reqwest::Method;
use serde_json::{Value, json};

for_each_size!(bodies, queries);

const JSON: &str = "application/json";
const CSV: &str = "text/csv";
const TEXT: &str = "text/plain";
const NDJSON: &str = "application/x-ndjson";

struct Case {
    name: &'static str,
    kind: &'static str,
    body: Vec<u8>,
    statuses: &'static [u16],
    /// Words that the detail must hold.
    says: &'static [&'static str],
    /// The detail must say where: a number beside "line", "byte", "row" or "column".
    position: bool,
}

impl Case {
    fn new(name: &'static str, kind: &'static str, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        Self { name, kind, body, statuses: &[400], says: &[], position: false }
    }

    fn or_422(mut self) -> Self {
        self.statuses = &[400, 422];
        self
    }

    fn status(mut self, statuses: &'static [u16]) -> Self {
        self.statuses = statuses;
        self
    }

    fn says(mut self, words: &'static [&'static str]) -> Self {
        self.says = words;
        self
    }

    fn with_position(mut self) -> Self {
        self.position = true;
        self
    }
}

fn json_cases() -> Vec<Case> {
    let emails = &["emails"];
    vec![
        Case::new("no JSON at all", JSON, "hello").with_position(),
        Case::new("empty body", JSON, ""),
        Case::new("cut off", JSON, "{\"emails\": [\"a@example.com\",").with_position(),
        Case::new("trailing comma", JSON, "{\"emails\":\n[\"a@example.com\",]}").with_position(),
        Case::new("rubbish after it", JSON, "{\"emails\":[\"a@example.com\"]} x").with_position(),
        Case::new("an array of numbers", JSON, "[7]").or_422(),
        Case::new("emails missing", JSON, "{\"name\":\"x\"}").or_422().says(emails),
        Case::new("emails null", JSON, "{\"emails\":null}").or_422().says(emails),
        Case::new("emails a string", JSON, "{\"emails\":\"a@example.com\"}").or_422().says(emails),
        Case::new("emails an object", JSON, "{\"emails\":{}}").or_422().says(emails),
        Case::new("emails empty", JSON, "{\"emails\":[]}").or_422().says(emails),
        Case::new("a number in it", JSON, "{\"emails\":[\"a@example.com\",7]}").or_422(),
        Case::new("a null in it", JSON, "{\"emails\":[null]}").or_422(),
        Case::new("a name that is none", JSON, "{\"name\":7,\"emails\":[\"a@b.example\"]}")
            .or_422(),
        Case::new("raw NUL", JSON, b"{\"emails\":[\"a\0@example.com\"]}".to_vec()).with_position(),
        Case::new("non-UTF-8", JSON, b"{\"emails\":[\"a\xff@example.com\"]}".to_vec()),
        Case::new("nested a million deep", JSON, "[".repeat(1_000_000)).status(&[400, 413, 422]),
    ]
}

fn list_cases() -> Vec<Case> {
    let long_line = format!("email\n{}@example.com\n", "x".repeat(1 << 20));
    let too_long = &[400, 413, 422];
    vec![
        Case::new("CSV without an address column", CSV, "first,second\nJane,Doe\nJoe,Doe\n")
            .or_422()
            .says(&["first", "second"]),
        Case::new("empty CSV", CSV, "").or_422(),
        Case::new("CSV of a header only", CSV, "email\n").or_422(),
        Case::new(
            "CSV, non-UTF-8",
            "text/csv; charset=utf-8",
            b"email\na@example.com\nb\xff@example.com\n".to_vec(),
        )
        .or_422()
        .with_position(),
        Case::new("CSV, NUL", CSV, b"email\na@example.com\nb\0@example.com\n".to_vec())
            .or_422()
            .with_position(),
        Case::new("CSV, a line of 1 MB", CSV, long_line.clone()).status(too_long).with_position(),
        Case::new("empty text", TEXT, "").or_422(),
        Case::new("blank lines", TEXT, "\n\r\n  \n").or_422(),
        Case::new(
            "text, non-UTF-8",
            "text/plain; charset=utf-8",
            b"a@example.com\n\xc3\x28@example.com\n".to_vec(),
        )
        .or_422()
        .with_position(),
        Case::new("text, NUL", TEXT, b"a@example.com\n\0\n".to_vec()).or_422().with_position(),
        Case::new("text, a line of 1 MB", TEXT, long_line).status(too_long).with_position(),
        Case::new("NDJSON, second line broken", NDJSON, "{\"email\":\"a@b.example\"}\n{oops\n")
            .with_position(),
        Case::new("NDJSON, no email", NDJSON, "{\"name\":\"Ada\"}\n").or_422(),
        Case::new("charset that is none", "text/csv; charset=klingon", "a@b.example\n")
            .status(&[415])
            .says(&["klingon"]),
        Case::new("CSV, a quote left open", CSV, "name,email\n\"A,a@b.example\nB,c@b.example\n")
            .or_422()
            .with_position(),
        Case::new("a web page", CSV, "<!DOCTYPE html><table>").status(&[415]).says(&["web page"]),
        Case::new(
            "Shift_JIS that is none",
            "text/plain; charset=shift_jis",
            b"a@b.example\n\x81".to_vec(),
        )
        .or_422()
        .with_position(),
        Case::new("mostly no addresses", TEXT, names())
            .status(&[422])
            .says(&["allow_invalid=true", "no @"]),
        Case::new("wrong type", "application/xml", "<a/>").status(&[415]),
        Case::new("type that is none", "rubbish", "a@example.com").status(&[415]),
        Case::new("multipart without a boundary", "multipart/form-data", "x").or_422(),
        Case::new(
            "multipart without a file",
            "multipart/form-data; boundary=b",
            "--b\r\ncontent-disposition: form-data; name=\"other\"\r\n\r\nx\r\n--b--\r\n",
        )
        .or_422(),
    ]
}

/// Names that are no addresses, enough to be doubted.
fn names() -> String {
    (0..30).map(|no| format!("Person {no}\n")).collect()
}

/// "line 3", "byte 17", "row 2", "column 5"; also "3rd line".
fn says_where(detail: &str) -> bool {
    let detail = detail.to_lowercase();
    let word = ["line", "byte", "row", "column", "offset"].iter().any(|w| detail.contains(w));
    word && detail.contains(|c: char| c.is_ascii_digit())
}

pub async fn assert_untouched(client: &Client, balance: u64, name: &str) {
    assert!(client.tasks().await.is_empty(), "{name}: a task appeared");
    assert_eq!(client.balance().await, balance, "{name}: a credit moved");
}

async fn bodies(size: Size) {
    let app = Setup::new(size).start().await;
    let client = app.customer(1_000).await.client;
    for case in json_cases().into_iter().chain(list_cases()) {
        let name = case.name;
        let headers = [("content-type", case.kind)];
        let reply = client.post_refused("/v1/tasks", &headers, &case.body).await;
        assert!(case.statuses.contains(&reply.status), "{name}: {reply}");
        let problem = reply.expect_problem();
        let detail = problem["detail"].as_str().expect("detail");
        assert!(case.says.iter().all(|word| detail.contains(word)), "{name}: {detail}");
        assert!(!case.position || says_where(detail), "{name}: {detail}");
        assert!(detail.len() < 2_000, "{name}: the detail is short");
        assert_untouched(&client, 1_000, name).await;
    }
    let untyped = client.request(Method::POST, "/v1/tasks").body("a@example.com");
    send(untyped).await.expect(415).expect_problem();
    let encoding = client.request(Method::POST, "/v1/tasks").header("content-type", TEXT);
    let encoding = encoding.header("content-encoding", "gzip").body("not gzip");
    let reply = send(encoding).await;
    assert!(matches!(reply.status, 400 | 422), "{reply}");
    reply.expect_problem();
    let encoding = client.request(Method::POST, "/v1/tasks").header("content-type", TEXT);
    let encoding = encoding.header("content-encoding", "sdch").body("a@example.com\n");
    send(encoding).await.expect(415).expect_problem();
    for body in [json!({}), json!({ "email": 7 }), json!({ "email": "" }), json!([])] {
        let reply = client.post("/v1/verifications", &body).await;
        assert!(matches!(reply.status, 400 | 422), "{reply}");
        reply.expect_problem();
    }
    assert_untouched(&client, 1_000, "the last ones").await;
    app.finish().await;
}

async fn queries(size: Size) {
    let app = Setup::new(size).start().await;
    let client = app.customer(10).await.client;
    let id = client.submit(&["person1@example.com"]).await.id;
    client.wait_completed(&id).await;
    let results = format!("/v1/tasks/{id}/results");
    let lists = [results.as_str(), "/v1/tasks", "/v1/ledger", "/v1/keys"];
    let wrong = ["limit=0", "limit=-1", "limit=ten", "limit=99999999999999999999", "limit=10001"];
    let cursors = ["cursor=rubbish", "cursor=%00", "cursor=%F0%9F%92%A9", "cursor='%20OR%201=1"];
    for list in lists {
        for query in wrong.iter().chain(&cursors) {
            bad_query(&client, &format!("{list}?{query}")).await;
        }
    }
    for query in ["status=nonsense", "reason=nonsense", "format=docx"] {
        bad_query(&client, &format!("{results}?{query}")).await;
    }
    bad_query(&client, "/v1/tasks?status=nonsense").await;
    // A cursor of one list is none of another.
    let page = client.get("/v1/ledger?limit=1").await.expect(200).json();
    if let Value::String(cursor) = &page["next_cursor"] {
        bad_query(&client, &format!("/v1/tasks?cursor={cursor}")).await;
    }
    let legacy = client.get(&format!("/api/get-results/{id}?limit=ten")).await;
    legacy.expect(400).expect_plain_error();
    app.finish().await;
}

async fn bad_query(client: &Client, path: &str) {
    let reply = client.get(path).await;
    assert!(matches!(reply.status, 400 | 422), "{reply}");
    let problem = reply.expect_problem();
    let detail = problem["detail"].as_str().expect("detail");
    let query = path.split_once('?').expect("a query").1;
    let name = query.split_once('=').expect("a value").0;
    assert!(detail.contains(name), "the detail names {name}: {detail}");
}
