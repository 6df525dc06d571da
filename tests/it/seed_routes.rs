//! The routes of the seed system under `/api`, in its own words.

use std::time::Duration;

use listmill_tests::reply::assert_fields;
use listmill_tests::{Setup, Size, eventually, for_each_size, lists};
use serde_json::{Value, json};

for_each_size!(verify_single, verify_bulk_and_get_results, results_while_processing, refusals);

const SINGLE: &[&str] = &[
    "email",
    "status",
    "is_valid",
    "is_disposable",
    "is_role_account",
    "is_catch_all",
    "is_free_email",
    "mx_found",
    "risk_score",
    "deliverability",
    "credits_used",
    "verified_at",
    "reason",
];
const BULK: &[&str] = &[
    "task_id",
    "status",
    "total_emails",
    "is_chunked",
    "total_chunks",
    "partial_failure",
    "failed_emails_count",
    "credits_refunded",
    "message",
];
const RESULTS: &[&str] = &[
    "task_id",
    "name",
    "status",
    "total_emails",
    "processed",
    "progress",
    "credits_used",
    "credits_refunded",
    "results",
    "next_cursor",
];

/// Address, `status`, credits.
const VERDICTS: &[(&str, &str, u64)] = &[
    ("anna@example.com", "safe", 1),
    ("undeliverable@example.com", "invalid", 1),
    ("catchall@example.com", "catch_all", 1),
    ("full@example.com", "inbox_full", 1),
    ("anna@disposable.test", "disposable", 1),
    ("timeout@example.com", "unknown", 0),
    ("not an address", "invalid", 0),
];

async fn verify_single(size: Size) {
    let app = Setup::new(size).start().await;
    let client = app.customer(100).await.client;
    let mut spent = 0;
    for (email, status, credits) in VERDICTS {
        let reply = client.post("/api/verify-single", &json!({ "email": email })).await;
        let body = reply.expect(200).json();
        assert_fields(&body, SINGLE);
        assert_eq!(body["email"], *email);
        assert_eq!(body["status"], *status, "{body}");
        // In between, the word "valid" is a matter of taste.
        match *status {
            "safe" => assert_eq!(body["is_valid"], true, "{body}"),
            "invalid" => assert_eq!(body["is_valid"], false, "{body}"),
            _ => assert!(body["is_valid"].is_boolean(), "{body}"),
        }
        assert_eq!(body["credits_used"].as_u64(), Some(*credits), "{body}");
        spent += credits;
        assert_eq!(client.balance().await, 100 - spent, "{email}");
    }
    app.finish().await;
}

async fn verify_bulk_and_get_results(size: Size) {
    let app = Setup::new(size).start().await;
    let client = app.customer(100).await.client;
    let emails: Vec<&str> = VERDICTS.iter().map(|verdict| verdict.0).collect();
    let request = json!({ "name": "Spring", "emails": emails });
    let body = client.post("/api/verify-bulk", &request).await.expect(200).json();
    assert_fields(&body, BULK);
    assert_eq!(body["status"], "processing");
    assert_eq!(body["total_emails"], emails.len());
    assert_eq!(body["partial_failure"], false);
    let id = body["task_id"].as_str().expect("task_id").to_owned();
    client.wait_completed(&id).await;
    let results = client.get(&format!("/api/get-results/{id}")).await.expect(200).json();
    let mut expected = RESULTS.to_vec();
    if results.get("next_cursor").is_none() {
        expected.retain(|field| *field != "next_cursor");
    }
    assert_fields(&results, &expected);
    assert_eq!(results["status"], "completed");
    assert_eq!(results["name"], "Spring");
    assert_eq!(results["credits_used"].as_u64(), Some(5), "{results}");
    assert_eq!(results["credits_refunded"].as_u64(), Some(1), "{results}");
    let rows = results["results"].as_array().expect("results");
    for (row, verdict) in rows.iter().zip(VERDICTS) {
        assert_fields(row, SINGLE);
        assert_eq!((&row["email"], &row["status"]), (&json!(verdict.0), &json!(verdict.1)));
    }
    assert_eq!(rows.len(), VERDICTS.len());
    app.finish().await;
}

async fn results_while_processing(size: Size) {
    let setup = Setup::new(size).latency("100ms").concurrency(20);
    let app = setup.env("LISTMILL_BATCH_SIZE", "20").start().await;
    let client = app.customer(5_000).await.client;
    let emails = lists::people(1_500);
    let reply = client.post("/api/verify-bulk", &json!({ "emails": emails })).await.expect(200);
    let id = reply.json()["task_id"].as_str().expect("task_id").to_owned();
    let path = format!("/api/get-results/{id}");
    let running = eventually("some results", Duration::from_secs(20), || async {
        let body = client.get(&path).await.expect(200).json();
        let rows = body["results"].as_array().map_or(0, Vec::len);
        (rows > 0).then_some(body)
    })
    .await;
    assert_eq!(running["status"], "processing", "{}", running["processed"]);
    client.pause(&id).await.expect(200);
    assert_eq!(client.get(&path).await.json()["status"], "paused");
    client.resume(&id).await.expect(200);
    client.wait_completed(&id).await;
    assert_eq!(pages(&client, &path).await, emails);
    let cancelled = client.submit(&lists::people(1_500)).await.id;
    client.cancel(&cancelled).await;
    let body = client.get(&format!("/api/get-results/{cancelled}")).await.json();
    assert_eq!(body["status"], "cancelled");
    app.finish().await;
}

/// The addresses of all pages, 1000 a page unless asked otherwise.
async fn pages(client: &listmill_tests::Client, path: &str) -> Vec<String> {
    let first = client.get(path).await.expect(200).json();
    assert_eq!(first["results"].as_array().map(Vec::len), Some(1_000), "the default page");
    let mut emails = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let from = cursor.map(|c| format!("&cursor={c}")).unwrap_or_default();
        let body = client.get(&format!("{path}?limit=400{from}")).await.expect(200).json();
        let rows = body["results"].as_array().expect("results");
        emails.extend(rows.iter().map(|row| row["email"].as_str().expect("email").to_owned()));
        match &body["next_cursor"] {
            Value::String(next) => cursor = Some(next.clone()),
            _ => return emails,
        }
    }
}

async fn refusals(size: Size) {
    let app = Setup::new(size).start().await;
    let customer = app.customer(2).await;
    let client = &customer.client;
    let required = json!({ "error": "Email is required" });
    client.post("/api/verify-single", &json!({})).await.expect_body(400, &required);
    client.post("/api/verify-single", &json!({ "email": "" })).await.expect_body(400, &required);
    for body in [json!({}), json!({ "emails": "x" }), json!({ "emails": [] }), json!([1])] {
        let reply = client.post("/api/verify-bulk", &body).await;
        assert!(matches!(reply.status, 400 | 422), "{reply}");
        reply.expect_plain_error();
    }
    let broken = client.post_bytes("/api/verify-bulk", "application/json", "{\"emails\": [").await;
    broken.expect(400).expect_plain_error();
    let kind = client.post_bytes("/api/verify-single", "application/xml", "<a/>").await;
    kind.expect(415).expect_plain_error();
    let refused = |balance: u64| {
        json!({
            "error": "Insufficient credits",
            "current_balance": balance,
            "message": "Please purchase more credits to continue",
        })
    };
    let bulk = json!({ "emails": lists::people(3) });
    client.post("/api/verify-bulk", &bulk).await.expect_body(402, &refused(2));
    assert_eq!(client.balance().await, 2, "refused whole");
    assert!(client.tasks().await.is_empty());
    for email in ["person1@example.com", "person2@example.com"] {
        client.post("/api/verify-single", &json!({ "email": email })).await.expect(200);
    }
    let single = client.post("/api/verify-single", &json!({ "email": "anna@example.com" })).await;
    single.expect_body(402, &refused(0));
    app.finish().await;
}
