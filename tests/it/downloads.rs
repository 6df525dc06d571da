//! Results as files.

use listmill_tests::{Setup, Size, for_each_size, lists};
use serde_json::Value;

for_each_size!(
    csv_gives_the_file_back,
    ndjson_has_every_result,
    while_it_runs,
    followed_piece_by_piece
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
    let limit = std::time::Duration::from_secs(20);
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
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(seqs, (0..1_000).collect::<Vec<u64>>());
    assert!(while_running > 0, "something came before the end");
    app.finish().await;
}
