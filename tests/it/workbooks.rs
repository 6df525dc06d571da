//! Lists as workbooks (XLSX): they give what their CSV gives, and what is none, or means no good, costs little.

use std::io::Read;
use std::time::{Duration, Instant};

use listmill_tests::{
    Client, Deployment, Reply, Setup, Size, Weight, archive, for_each_size, within, workbook,
};
use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use crate::bad_input::assert_untouched;

for_each_size!(a_workbook_gives_what_its_csv_gives, out_and_in_again, two_accounts_at_once);

const MIB: u64 = 1 << 20;

const INPUT: &str = "id,Email,note\n\
    1,person1@example.com,\"a, b\"\n\
    2,broken,<x & y>\n\
    3,undeliverable@example.com,\"line\nbreak\"\n\
    ,,\n\
    4,person1@EXAMPLE.com,again\n\
    005,timeout@example.com,=1+1\n";

/// What a list comes to.
async fn counted(client: &Client, kind: &str, body: Vec<u8>) -> Value {
    client.post_bytes("/v1/tasks?dry_run=true", kind, body).await.expect(200).json()
}

async fn a_workbook_gives_what_its_csv_gives(size: Size) {
    let app = Setup::new(size).start().await;
    let client = app.customer(100).await.client;
    let book = workbook::of_csv(INPUT);
    let by_csv = counted(&client, "text/csv", INPUT.into()).await;
    // By its type, and by its bytes whatever its type.
    for kind in [workbook::KIND, "text/csv", "text/plain", "application/octet-stream"] {
        let by_book = counted(&client, kind, book.clone()).await;
        assert_eq!(by_book["counts"], by_csv["counts"], "{kind}");
        assert_eq!(by_book["cost"], by_csv["cost"], "{kind}");
        assert_eq!(by_book["workbook"]["column"], 2, "{kind}: {by_book}");
    }
    assert!(by_csv.get("workbook").is_none());

    let csv = client.submit_csv(INPUT).await.id;
    let request = || {
        let request = client.request(Method::POST, "/v1/tasks?name=book");
        request.header("content-type", workbook::KIND).header("idempotency-key", "book-1")
    };
    let first = sent(request().body(book.clone())).await.expect(201);
    let again = sent(request().body(book.clone())).await.expect(201);
    assert_eq!(first.json()["id"], again.json()["id"], "it is one task");
    let other = workbook::of_csv("email\na@x.example\n");
    sent(request().body(other)).await.expect(409).expect_problem();
    let form = |name: &'static str| {
        let file = Part::bytes(book.clone()).file_name(name).mime_str("application/octet-stream");
        Form::new().text("column", "B").part("file", file.expect("a type"))
    };
    let formed =
        sent(client.request(Method::POST, "/v1/tasks").multipart(form("People.xlsx"))).await;
    let formed = formed.expect(201).json();
    assert_eq!(formed["name"], "People.xlsx", "{formed}");
    let gzip = client.request(Method::POST, "/v1/tasks").header("content-encoding", "gzip");
    let gzip = gzip.header("content-type", workbook::KIND);
    let packed = sent(gzip.body(listmill_tests::lists::gzip(&book))).await.expect(201).json();

    client.wait_completed(&csv).await;
    let rows_of = async |id: &str| {
        let path = format!("/v1/tasks/{id}/results?format=csv");
        let text = client.get(&path).await.expect(200).text();
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
        let without_time = |row: csv::StringRecord| {
            row.iter().take(row.len() - 1).map(str::to_owned).collect::<Vec<_>>()
        };
        reader.records().map(|row| without_time(row.expect("a row"))).collect::<Vec<_>>()
    };
    let wanted = rows_of(&csv).await;
    assert_eq!(wanted.len(), 7);
    for task in [first.json(), formed, packed] {
        let id = task["id"].as_str().expect("an id");
        client.wait_completed(id).await;
        assert_eq!(rows_of(id).await, wanted, "its rows become those of a CSV");
    }
    app.finish().await;
}

async fn sent(request: reqwest::RequestBuilder) -> Reply {
    listmill_tests::client::try_send(request).await.expect("an answer")
}

/// What is downloaded as a workbook is taken as one, and nothing of it is lost.
async fn out_and_in_again(size: Size) {
    let app = Setup::new(size).start().await;
    let client = app.customer(100).await.client;
    let nasty = "007;person1@example.com;=1+1\n\
        12345678901234567890;undeliverable@example.com;_x0041_\n\
        2024-01-02;timeout@example.com;\" lead and trail \"\n\
        ;;\n\
        1e5;broken;a & b <c>\n\
        TRUE;person1@EXAMPLE.com;\"two\r\nlines\"\n\
        9;person2@example.com;\"\ttab \u{1} \u{8}名单\"\n";
    let list = format!("id;E-mail;note\n{nasty}");
    let first = client.submit_csv(&list).await.id;
    client.wait_completed(&first).await;
    let xlsx = async |id: &str| {
        client.get(&format!("/v1/tasks/{id}/results?format=xlsx")).await.expect(200).body
    };
    let out = xlsx(&first).await;
    let reply = client.post_bytes("/v1/tasks?column=E-mail", workbook::KIND, out.clone()).await;
    let second = reply.expect(201).json()["id"].as_str().expect("an id").to_owned();
    client.wait_completed(&second).await;
    let (before, after) = (archive::sheets(&out), archive::sheets(&xlsx(&second).await));
    assert_eq!(before[0].len(), after[0].len(), "every row is there");
    // Our columns are there once, with what was found this time.
    assert_eq!(before[0][0], after[0][0]);
    let own = |row: &[String]| {
        let mut own = row[..row.len().min(3)].to_vec();
        own.resize(3, String::new());
        own
    };
    for (before, after) in before[0].iter().zip(&after[0]) {
        assert_eq!(own(before), own(after), "to the last character");
    }
    app.finish().await;
}

/// Nobody waits for the other, whatever the other sends.
async fn two_accounts_at_once(size: Size) {
    let app = Setup::new(size).start().await;
    let (first, second) = (app.customer(1_000).await.client, app.customer(1_000).await.client);
    let people = |from: usize| {
        let people = (from..from + 200).map(|n| format!("person{n}@example.com\n"));
        workbook::of_csv(&format!("email\n{}", people.collect::<String>()))
    };
    let submit = async |client: &Client, from: usize| {
        let reply = client.post_bytes("/v1/tasks", workbook::KIND, people(from)).await.expect(201);
        reply.json()["id"].as_str().expect("an id").to_owned()
    };
    let (a, b, c, d) = tokio::join!(
        submit(&first, 0),
        submit(&second, 0),
        submit(&first, 1_000),
        submit(&second, 1_000)
    );
    for (client, id) in [(&first, a), (&second, b), (&first, c), (&second, d)] {
        let task = client.wait_completed(&id).await;
        assert_eq!(task.counts.deliverable, 200, "{task:#?}");
        assert_eq!(client.tasks().await.len(), 2);
    }
    app.finish().await;
}

fn sheet<'a>(rows: impl Read + 'a) -> Vec<(&'static str, Box<dyn Read + 'a>)> {
    vec![("Sheet1", Box::new(rows))]
}

/// Sheets are found; one that is not there is named, with those that are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_sheet_of_several() {
    let app = Setup::new(Size::Embedded).start().await;
    let client = app.customer(100).await.client;
    let rows =
        |mails: &[&str]| mails.iter().map(|mail| vec![(*mail).to_owned()]).collect::<Vec<_>>();
    let book = workbook::of_texts(&[
        ("Notes", Vec::new()),
        ("Leads", rows(&["email", "a@x.example", "b@x.example"])),
        ("Old", rows(&["c@x.example"])),
    ]);
    let dry = async |query: &str| {
        client
            .post_bytes(&format!("/v1/tasks?dry_run=true{query}"), workbook::KIND, book.clone())
            .await
    };
    let first = dry("").await.expect(200).json();
    assert_eq!(
        first["workbook"],
        json!({"sheet": "Leads", "sheets": ["Notes", "Leads", "Old"], "column": 1})
    );
    assert_eq!(first["counts"]["submitted"], 2);
    assert_eq!(dry("&sheet=old").await.expect(200).json()["counts"]["submitted"], 1);
    let problem = dry("&sheet=New").await.expect(400).expect_problem();
    assert_eq!(problem["code"], "sheet_not_found");
    assert!(problem["detail"].as_str().is_some_and(|why| why.contains("\"Leads\"")), "{problem}");
    assert_eq!(dry("&sheet=Notes").await.expect(400).expect_problem()["code"], "empty_list");
    assert_eq!(dry("&column=7").await.expect(400).expect_problem()["code"], "column_not_found");
    assert_untouched(&client, 100, "dry runs").await;
    app.finish().await;
}

/// What is no workbook is called what it is, and what can be done is said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_workbook() {
    let app = Setup::new(Size::Embedded).start().await;
    let client = app.customer(100).await.client;
    let ole = |inside: &str| {
        let wide: Vec<u8> = inside.encode_utf16().flat_map(u16::to_le_bytes).collect();
        [&b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"[..], &[0; 3000], &wide, &[0; 3000]].concat()
    };
    let book = workbook::of_csv(INPUT);
    let zip = |name: &str| {
        let content: Box<dyn Read> = Box::new(&b"<a/>"[..]);
        workbook::pack(vec![(name, content)])
    };
    let damaged = {
        let mut book = book.clone();
        let middle = book.len() / 3;
        book[middle..middle + 40].fill(0x55);
        book
    };
    for (what, body, status, says) in [
        ("an old workbook", ole("Workbook"), 415, ".xls"),
        ("a password", ole("EncryptedPackage"), 415, "password"),
        ("a PDF", b"%PDF-1.7\n...".to_vec(), 415, "PDF"),
        ("a web page", b"<html><table>".to_vec(), 415, "web page"),
        ("an archive of another file", zip("list.csv"), 400, "No column"),
        ("a document", zip("word/document.xml"), 415, "Word"),
        ("half a workbook", book[..book.len() / 2].to_vec(), 422, "cannot be read"),
        ("a damaged one", damaged, 422, "cannot be read"),
    ] {
        let reply = client.post_bytes("/v1/tasks", workbook::KIND, body).await;
        assert_eq!(reply.status, status, "{what}: {reply}");
        let problem = reply.expect_problem();
        let detail = problem["detail"].as_str().expect("a detail");
        assert!(detail.contains(says), "{what}: {detail}");
    }
    assert_untouched(&client, 100, "no workbook").await;
    app.finish().await;
}

/// What could cost memory or time before it is refused, or without ever being.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bombs() {
    let app = Setup::new(Size::Embedded).weight(Weight::Middle).start().await;
    let client = app.customer(1_000).await.client;
    let mail = "<row r=\"1\"><c r=\"A1\" t=\"inlineStr\"><is><t>a@x.example</t></is></c></row>";
    let far = "<row r=\"1048576\"><c r=\"XFD1048576\"><v>1</v></c></row>";
    let mib = |count: u64| count << 20;
    let strings = |text: &'static str| -> Option<Box<dyn Read>> { Some(Box::new(text.as_bytes())) };
    let wide = (1..5_000).map(|row| {
        format!("<row r=\"{row}\"><c r=\"A{row}\"><v>1</v></c><c r=\"XFD{row}\"><v>1</v></c></row>")
    });
    let wide: String = wide.collect();
    let refused = [
        ("nothing but room", workbook::of_xml(sheet(endless(" ").take(mib(100))), None)),
        (
            "rows",
            workbook::of_xml(sheet(endless("<row><c><v>1</v></c></row>").take(mib(100))), None),
        ),
        (
            "one cell",
            workbook::of_xml(
                sheet((&b"<row><c t=\"inlineStr\"><is><t>"[..]).chain(endless("x").take(mib(40)))),
                None,
            ),
        ),
        (
            "strings",
            workbook::of_xml(
                sheet(mail.as_bytes()),
                Some(Box::new(b"<sst>".chain(endless("<si/>").take(mib(60))))),
            ),
        ),
        (
            "many strings announced",
            workbook::of_xml(
                sheet(mail.as_bytes()),
                strings("<sst uniqueCount=\"9999999999\"></sst>"),
            ),
        ),
        (
            "a document type",
            workbook::of_xml(
                sheet(mail.as_bytes()),
                strings("<!DOCTYPE a [<!ENTITY b \"c\">]><sst></sst>"),
            ),
        ),
        ("wide rows", workbook::of_xml(sheet(wide.as_bytes()), None)),
        (
            "a cell in the corner",
            workbook::of_xml(sheet(mail.as_bytes().chain(far.as_bytes())), None),
        ),
    ];
    for (name, book) in refused {
        assert!(book.len() < 20 << 20, "{name}: {} bytes", book.len());
        let begun = Instant::now();
        let headers = [("content-type", workbook::KIND)];
        let sent = client.post_refused("/v1/tasks", &headers, &book);
        let reply = within(name, Duration::from_secs(60), sent).await;
        // The corner is within what a sheet may have: it costs its blank rows, which are few bytes.
        let fine = name == "a cell in the corner" && reply.status == 201;
        assert!(fine || matches!(reply.status, 400 | 413 | 422), "{name}: {reply}");
        eprintln!("{name}: {} after {:?}", reply.status, begun.elapsed());
    }
    let peak = app.apis[0].process.peak_rss() / MIB;
    assert!(peak < 700, "it grew to {peak} MiB");
    for task in client.tasks().await {
        client.wait_completed(task["id"].as_str().expect("an id")).await;
    }
    assert!(no_files(&app), "no temporary file is left");
    app.finish().await;
}

/// A piece over and over.
fn endless(piece: &str) -> Endless {
    Endless { pieces: piece.repeat(4096).into_bytes(), at: 0 }
}

struct Endless {
    pieces: Vec<u8>,
    at: usize,
}

impl Read for Endless {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let n = out.len().min(self.pieces.len() - self.at);
        out[..n].copy_from_slice(&self.pieces[self.at..self.at + n]);
        self.at = (self.at + n) % self.pieces.len();
        Ok(n)
    }
}

/// Does no process have a temporary file open?
fn no_files(app: &Deployment) -> bool {
    app.apis.iter().all(|api| crate::downloads::open_files(api.process.pid()) == 0)
}

/// Without room for temporary files a workbook is refused with the reason, and a CSV is taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_room() {
    let app = Setup::new(Size::Embedded).env("LISTMILL_MIN_TEMPORARY_FREE", "1000000000000000");
    let app = app.start().await;
    let client = app.customer(100).await.client;
    let reply = client.post_bytes("/v1/tasks", workbook::KIND, workbook::of_csv(INPUT)).await;
    assert_eq!(reply.expect(507).expect_problem()["code"], "storage_full");
    assert_untouched(&client, 100, "no room").await;
    let id = client.submit_csv(INPUT).await.id;
    client.wait_completed(&id).await;
    app.finish().await;
}

/// The dashboard's form takes it without a script, and its check shows what is in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_a_form_of_the_dashboard() {
    let app = Setup::new(Size::Embedded).start().await;
    let login = app.person(100).await;
    let person = login.person(&app).await;
    person.get("/tasks").await.expect(200);
    let form = |csrf: String, file: Vec<u8>, name: &str| {
        let part = Part::bytes(file).file_name(name.to_owned());
        let part = part.mime_str(workbook::KIND).expect("a type");
        Form::new().text("csrf", csrf).text("name", "").text("sheet", "").part("file", part)
    };
    let post = async |path: &str, file: Vec<u8>, name: &str| {
        let form = form(person.csrf(), file, name);
        person.send(person.request(Method::POST, path).multipart(form)).await
    };
    let book = workbook::of_csv(&INPUT.replace("<x & y>", "<b>bold</b>"));
    let seen = post("/tasks/check", book.clone(), "people.xlsx").await.expect(200);
    assert!(seen.words().contains("Sheet that was read: Sheet1"), "{}", seen.words());
    assert!(seen.words().contains("<b>bold</b>"), "{}", seen.words());
    seen.assert_lacks("<b>bold</b>");
    assert!(seen.words().contains("Column 2 (addresses)"), "{}", seen.words());
    let refused = post("/tasks", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1".to_vec(), "old.xls").await;
    assert_eq!(refused.status, 415);
    assert!(refused.words().contains(".xlsx"), "{}", refused.words());
    post("/tasks", book, "people.xlsx").await.expect_redirect("/tasks");
    let client = login.client(&app).await;
    let task = client.tasks().await.remove(0);
    assert_eq!(task["name"], "people.xlsx");
    let by_csv = counted(&client, "text/csv", INPUT.into()).await;
    for count in ["submitted", "unique", "duplicates", "invalid_syntax"] {
        assert_eq!(task["counts"][count], by_csv["counts"][count], "{count}");
    }
    client.wait_completed(task["id"].as_str().expect("an id")).await;
    app.finish().await;
}
