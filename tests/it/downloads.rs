//! Results as files.

use std::collections::BTreeSet;
use std::time::Duration;

use listmill_tests::disk::Disk;
use listmill_tests::random::Random;
use listmill_tests::{Client, Setup, Size, archive, eventually, for_each_size, lists, scratch};
use reqwest::Method;
use serde_json::Value;

for_each_size!(
    csv_gives_the_file_back,
    ndjson_has_every_result,
    while_it_runs,
    followed_piece_by_piece,
    every_format_has_the_same_rows,
    what_a_spreadsheet_cannot_hold,
    who_hangs_up_leaves_nothing
);

const INPUT: &str = "id,Email,note\n\
    1,person1@example.com,\"a, b\"\n\
    2,broken,\n\
    3,undeliverable@example.com,\"line\nbreak\"\n\
    4,person1@EXAMPLE.com,again\n\
    5,timeout@example.com,\"say \"\"hi\"\"\"\n";

async fn csv_gives_the_file_back(size: Size) {
    let app = Setup::new(size).start().await;
    let client = app.customer(100).await.client;
    let id = client.submit_csv(INPUT).await.id;
    client.wait_completed(&id).await;
    let reply = client.get(&format!("/v1/tasks/{id}/results?format=csv")).await.expect(200);
    let kind = reply.header("content-type").unwrap_or_default();
    assert!(kind.starts_with("text/csv"), "{kind}");
    let (head, rows) = read_csv(&reply.text());
    let (input_head, input_rows) = read_csv(INPUT);
    assert_eq!(head[..3], input_head[..], "their columns first, as they were");
    assert!(head.len() > 3, "and ours added: {head:?}");
    assert_eq!(rows.len(), input_rows.len(), "duplicates are kept");
    for (row, input) in rows.iter().zip(&input_rows) {
        assert_eq!(row[..3], input[..], "order and content are kept");
    }
    let ours = |name: &str| {
        let found = head.iter().skip(3).position(|column| column.ends_with(name));
        found.unwrap_or_else(|| panic!("no column {name} in {head:?}")) + 3
    };
    let reasons: Vec<&str> = rows.iter().map(|row| row[ours("reason")].as_str()).collect();
    let expected = ["accepted", "invalid_syntax", "mailbox_not_found", "accepted", "timeout"];
    assert_eq!(reasons, expected, "a duplicate carries the verdict of its address");
    assert_eq!(rows[2][ours("status")], "undeliverable");
    app.finish().await;
}

fn read_csv(text: &str) -> (Vec<String>, Vec<Vec<String>>) {
    let text = text.trim_start_matches('\u{feff}');
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let cells = |record: &csv::StringRecord| record.iter().map(str::to_owned).collect();
    let head = cells(reader.headers().expect("a header"));
    let rows = reader.records().map(|row| cells(&row.expect("a row"))).collect();
    (head, rows)
}

async fn ndjson_has_every_result(size: Size) {
    let app = Setup::new(size).env("LISTMILL_BATCH_SIZE", "100").start().await;
    let client = app.customer(5_000).await.client;
    let id = client.submit(&lists::people(3_000)).await.id;
    client.wait_completed(&id).await;
    let reply = client.get(&format!("/v1/tasks/{id}/results?format=ndjson")).await.expect(200);
    let kind = reply.header("content-type").unwrap_or_default();
    assert!(kind.contains("ndjson"), "{kind}");
    let text = reply.text();
    let rows: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect();
    assert_eq!(rows, client.results(&id).await, "the same objects as the pages show");
    let path = format!("/v1/tasks/{id}/results?format=ndjson&status=risky");
    assert_eq!(client.get(&path).await.expect(200).text().lines().count(), 0);
    app.finish().await;
}

/// Results so far are served, whole pages of them, while the task runs.
async fn while_it_runs(size: Size) {
    let setup = Setup::new(size).latency("100ms").concurrency(20);
    let app = setup.env("LISTMILL_BATCH_SIZE", "20").start().await;
    let client = app.customer(5_000).await.client;
    let id = client.submit(&lists::people(2_000)).await.id;
    let limit = Duration::from_secs(20);
    client.wait_until(&id, "some results", limit, |task| task.counts.processed >= 40).await;
    let rows = client.results(&id).await;
    assert!(rows.len() >= 40 && rows.len() < 2_000, "{} rows", rows.len());
    let seqs: Vec<u64> = rows.iter().map(|r| r["seq"].as_u64().expect("seq")).collect();
    assert!(seqs.windows(2).all(|pair| pair[0] < pair[1]), "in seq order, none twice");
    client.cancel(&id).await;
    app.finish().await;
}

/// `follow=true`: page by page as the task goes, none missed and none twice, until its end.
async fn followed_piece_by_piece(size: Size) {
    let setup = Setup::new(size).latency("20ms").concurrency(40);
    let app = setup.env("LISTMILL_BATCH_SIZE", "20").start().await;
    let client = app.customer(5_000).await.client;
    let id = client.submit(&lists::people(1_000)).await.id;
    let mut cursor = String::new();
    let (mut seqs, mut while_running) = (Vec::new(), 0);
    loop {
        let path = format!("/v1/tasks/{id}/results?follow=true&limit=150{cursor}");
        let page = client.get(&path).await.expect(200).json();
        let rows = page["data"].as_array().expect("data");
        seqs.extend(rows.iter().map(|row| row["seq"].as_u64().expect("seq")));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
        while_running += rows.len();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(seqs, (0..1_000).collect::<Vec<u64>>());
    assert!(while_running > 0, "something came before the end");
    app.finish().await;
}

/// What spreadsheets like to change: formulas, leading zeros, long numbers, dates, spaces, characters that XML
/// has not, and texts that look like the codes for them.
const NASTY: &str = "id;E-mail;=note\n\
    007;person1@example.com;=1+1\n\
    12345678901234567890;undeliverable@example.com;\"=HYPERLINK(\"\"http://x.example\"\";1)\"\n\
    2024-01-02;timeout@example.com;+1\n\
    1e5;broken;-2\n\
    ;;@SUM(A1)\n\
    TRUE;person1@EXAMPLE.com;\"\ttab\"\n\
    9;person2@example.com;\" a & b <c> _x0041_ \u{1} \u{8}\"\n\
    10;catchall@example.com;\"two\r\nlines\"\n";

/// The results that fit a query.
fn fitting(results: &[Value], query: &str) -> Vec<Value> {
    let fits = |result: &&Value| {
        query.split('&').all(|part| match part.split_once('=').expect("a filter") {
            ("flag", flag) => result["flags"][flag] == true,
            (field, wanted) => result[field] == wanted,
        })
    };
    results.iter().filter(fits).cloned().collect()
}

async fn every_format_has_the_same_rows(size: Size) {
    let app = Setup::new(size).start().await;
    let client = app.customer(100).await.client;
    let id = client.submit_csv(NASTY).await.id;
    client.wait_completed(&id).await;
    let (head, rows) = read_semicolons(&file(&client, &id, "csv", "csv").await);
    assert_eq!(rows.len(), 8);

    let sheets = archive::sheets(&file(&client, &id, "xlsx", "xlsx").await);
    let [sheet] = &sheets[..] else { panic!("{} sheets", sheets.len()) };
    let padded = |row: &Vec<String>| {
        let mut row = row.clone();
        row.resize(head.len(), String::new());
        row
    };
    assert_eq!(sheet[0], head);
    assert_eq!(sheet[1..].iter().map(padded).collect::<Vec<_>>(), rows, "the same texts");

    let parts = archive::unpack(&file(&client, &id, "zip", "zip").await);
    let names: Vec<&str> = parts.iter().map(|(name, _)| name.as_str()).collect();
    let statuses = ["deliverable", "undeliverable", "risky", "unknown", "rest"];
    assert_eq!(names, statuses.map(|status| format!("{status}.csv")));
    let mut together = Vec::new();
    for (name, text) in &parts {
        let (part_head, part) = read_semicolons(text);
        assert_eq!(part_head, head, "{name}");
        let status = |row: &Vec<String>| format!("{}.csv", row[3]);
        assert!(name == "rest.csv" || part.iter().all(|row| &status(row) == name), "{part:?}");
        together.extend(part);
    }
    let mut sorted = rows.clone();
    sorted.sort();
    together.sort();
    assert_eq!(together, sorted, "each row is in one part");

    let array = file(&client, &id, "json_array", "json").await;
    let array: Vec<Value> = serde_json::from_slice(&array).expect("an array");
    let results = client.results(&id).await;
    assert_eq!(array, results);
    let addresses = |results: &[Value]| -> String {
        let lines = results.iter().map(|result| format!("{}\n", result["email"].as_str().unwrap()));
        lines.collect()
    };
    assert_eq!(text(file(&client, &id, "txt", "txt").await), addresses(&results));

    let filters = [
        "status=undeliverable",
        "reason=timeout",
        "status=risky&reason=timeout",
        "flag=catch_all",
        "status=deliverable&flag=catch_all",
        "flag=disabled",
    ];
    for filter in filters {
        let wanted = client.results_with(&id, filter).await;
        assert_eq!(wanted, fitting(&results, filter), "{filter}");
        let get = async |format: &str, extension| {
            file(&client, &id, &format!("{format}&{filter}"), extension).await
        };
        assert_eq!(text(get("txt", "txt").await), addresses(&wanted), "{filter}");
        let array: Vec<Value> = serde_json::from_slice(&get("json_array", "json").await).unwrap();
        assert_eq!(array, wanted, "{filter}");
        let (_, rows) = read_semicolons(&get("csv", "csv").await);
        let emails: BTreeSet<&str> = rows.iter().map(|row| row[1].as_str()).collect();
        let some = wanted.iter().map(|result| result["email"].as_str().expect("an email"));
        assert_eq!(emails.len(), some.collect::<BTreeSet<_>>().len(), "{filter}: {emails:?}");
        let sheets = archive::sheets(&get("xlsx", "xlsx").await);
        assert_eq!(sheets[0].len(), rows.len() + 1, "{filter}");
    }

    let (escaped_head, escaped) =
        read_semicolons(&file(&client, &id, "csv&escape=formulas", "csv").await);
    assert_eq!(escaped_head[2], "'=note");
    let notes: Vec<&str> = escaped.iter().map(|row| row[2].as_str()).collect();
    assert_eq!(notes[..4], ["'=1+1", "'=HYPERLINK(\"http://x.example\";1)", "'+1", "'-2"]);
    assert_eq!(notes[4..6], ["'@SUM(A1)", "'\ttab"]);
    assert_eq!(notes[6..], [&rows[6][2], &rows[7][2]], "all else is as it was");
    for refused in
        ["xls", "ndjson&escape=formulas", "csv&escape=all", "csv&flag=paid", "json&flag="]
    {
        let path = format!("/v1/tasks/{id}/results?format={refused}");
        client.get(&path).await.expect(400).expect_problem();
    }
    app.finish().await;
}

/// A download, which is to be saved under a name that ends so.
async fn file(client: &Client, id: &str, format: &str, extension: &str) -> Vec<u8> {
    let reply = client.get(&format!("/v1/tasks/{id}/results?format={format}")).await.expect(200);
    let name = reply.header("content-disposition").unwrap_or_default();
    assert!(name.ends_with(&format!("-results.{extension}\"")), "{name}");
    reply.body
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("UTF-8")
}

fn read_semicolons(bytes: &[u8]) -> (Vec<String>, Vec<Vec<String>>) {
    let mut reader = csv::ReaderBuilder::new().delimiter(b';').from_reader(bytes);
    let cells = |record: &csv::StringRecord| record.iter().map(str::to_owned).collect();
    let head = cells(reader.headers().expect("a header"));
    (head, reader.records().map(|row| cells(&row.expect("a row"))).collect())
}

/// It is said before anything is sent; the CSV has it.
async fn what_a_spreadsheet_cannot_hold(size: Size) {
    let app = Setup::new(size).start().await;
    let client = app.customer(100).await.client;
    let long = "x".repeat(32_768);
    let list = format!("email,note\nperson1@example.com,{long}\n");
    let id = client.submit_csv(&list).await.id;
    client.wait_completed(&id).await;
    let path = |format: &str| format!("/v1/tasks/{id}/results?format={format}");
    let problem = client.get(&path("xlsx")).await.expect(422).expect_problem();
    assert_eq!(problem["code"], "beyond_xlsx");
    assert!(problem["detail"].as_str().is_some_and(|why| why.contains("B2")), "{problem}");
    assert!(client.get(&path("csv")).await.expect(200).text().contains(&long));
    app.finish().await;
}

/// Neither a temporary file nor a place: the next ones are served.
async fn who_hangs_up_leaves_nothing(size: Size) {
    let app = Setup::new(size).start().await;
    let client = app.customer(10_000).await.client;
    let id = client.submit(&lists::people(10_000)).await.id;
    client.wait_completed(&id).await;
    let path = format!("/v1/tasks/{id}/results?format=xlsx");
    for hang_up_after in [1, 5, 20, 50, 100] {
        let asked = tokio::time::timeout(Duration::from_millis(hang_up_after), client.get(&path));
        drop(asked.await);
    }
    eventually("the files are gone", Duration::from_secs(10), async || {
        app.apis.iter().all(|api| open_files(api.process.pid()) == 0).then_some(())
    })
    .await;
    for format in ["xlsx", "zip"] {
        let path = format!("/v1/tasks/{id}/results?format={format}");
        eventually("there is a place", Duration::from_secs(10), async || {
            (client.get(&path).await.status == 200).then_some(())
        })
        .await;
    }
    app.finish().await;
}

/// Without room in the folder of temporary files there is a clear answer at once, or as soon as it is full; what
/// needs no file is served, and nothing is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_room_for_files() {
    let mut setups = vec![
        (
            "no room on the disk",
            Setup::new(Size::Embedded).env("LISTMILL_MIN_TEMPORARY_FREE", "1000000000000000"),
        ),
        (
            "all room taken",
            Setup::new(Size::Embedded).env("LISTMILL_MAX_TEMPORARY_BYTES", "1048576"),
        ),
    ];
    let folder = scratch::folder("exports");
    let disk = Disk::can_be_mounted().then(|| Disk::mount(&folder.join("small"), 2));
    if let Some(disk) = &disk {
        let setup = Setup::new(Size::Embedded).env("TMPDIR", disk.path().display().to_string());
        setups.push(("a full disk", setup.env("LISTMILL_MIN_TEMPORARY_FREE", "0")));
    }
    for (name, setup) in setups {
        let app = setup.start().await;
        let client = app.customer(1_000).await.client;
        let id = client.submit_csv(&bulky(200)).await.id;
        client.wait_completed(&id).await;
        let path = |format: &str| format!("/v1/tasks/{id}/results?format={format}");
        for _ in 0..5 {
            for format in ["xlsx", "zip"] {
                let reply = client.get(&path(format)).await;
                assert_eq!(reply.status, 507, "{name}, {format}: {reply}");
                assert_eq!(reply.expect_problem()["code"], "storage_full", "{name}");
            }
        }
        client.get(&path("csv")).await.expect(200);
        assert_eq!(open_files(app.apis[0].process.pid()), 0, "{name}");
        app.finish().await;
    }
    drop(disk);
    scratch::remove(&folder);
}

/// Who stops reading loses their place when the time is up, and sees that the file is not whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stops_reading_loses_the_place() {
    let app = Setup::new(Size::Embedded).env("LISTMILL_EXPORT_TIMEOUT", "3s").start().await;
    let client = app.customer(2_000).await.client;
    let id = client.submit_csv(&bulky(1_200)).await.id;
    client.wait_completed(&id).await;
    let path = format!("/v1/tasks/{id}/results?format=xlsx");
    let mut stalled = Vec::new();
    for _ in 0..2 {
        let answer = client.request(Method::GET, &path).send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), 200);
        assert!(answer.content_length() > Some(10 << 20), "{:?}", answer.content_length());
        stalled.push(answer);
    }
    let refused = client.get(&path).await.expect(503);
    assert_eq!(refused.expect_problem()["code"], "too_many_exports");
    eventually("the places are free", Duration::from_secs(20), async || {
        (open_files(app.apis[0].process.pid()) == 0).then_some(())
    })
    .await;
    client.get(&path).await.expect(200);
    for answer in stalled {
        assert!(answer.bytes().await.is_err(), "it is broken off, not short");
    }
    app.finish().await;
}

/// A list of so many rows, each with 20,000 characters that do not pack well.
fn bulky(rows: usize) -> String {
    let mut random = Random::seeded(7);
    let mut list = String::from("email,note\n");
    for no in 0..rows {
        let note: String = (0..1_250).map(|_| format!("{:016x}", random.number())).collect();
        list += &format!("person{no}@example.com,{note}\n");
    }
    list
}

/// Temporary files that a process has open.
pub(crate) fn open_files(pid: u32) -> usize {
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("its files").flatten();
    let names = open.filter_map(|file| std::fs::read_link(file.path()).ok());
    names.filter(|name| name.to_string_lossy().contains("listmill-temporary-")).count()
}
