//! The sandbox provider's table, through a task and through the single check.

use std::collections::HashMap;

use listmill_tests::{Setup, Size, for_each_size};
use serde_json::{Value, json};

for_each_size!(follow_the_local_part, single_checks_agree);

struct Case {
    email: &'static str,
    status: &'static str,
    reason: &'static str,
    credit: &'static str,
}

const fn case(
    email: &'static str,
    status: &'static str,
    reason: &'static str,
    credit: &'static str,
) -> Case {
    Case { email, status, reason, credit }
}

const CASES: &[Case] = &[
    case("undeliverable@example.com", "undeliverable", "mailbox_not_found", "charged"),
    case("undeliverable42@example.com", "undeliverable", "mailbox_not_found", "charged"),
    case("undeliverable+tag@example.com", "undeliverable", "mailbox_not_found", "charged"),
    case("risky@example.com", "risky", "catch_all", "charged"),
    case("catchall7@example.com", "risky", "catch_all", "charged"),
    case("full@example.com", "risky", "mailbox_full", "charged"),
    case("full1+x@example.com", "risky", "mailbox_full", "charged"),
    case("unknown@example.com", "unknown", "timeout", "refunded"),
    case("timeout3@example.com", "unknown", "timeout", "refunded"),
    case("slow@example.com", "deliverable", "accepted", "charged"),
    case("flaky@example.com", "deliverable", "accepted", "charged"),
    case("flaky9@example.com", "deliverable", "accepted", "charged"),
    case("anna@example.com", "deliverable", "accepted", "charged"),
    case("anna@disposable.test", "risky", "disposable", "charged"),
    case("info@example.com", "deliverable", "accepted", "charged"),
    case("two@@example.com", "undeliverable", "invalid_syntax", "free"),
    case("@example.com", "undeliverable", "invalid_syntax", "free"),
    case("nobody@", "undeliverable", "invalid_syntax", "free"),
    case("double..dot@example.com", "undeliverable", "invalid_syntax", "free"),
];

fn assert_case(case: &Case, result: &Value) {
    for (field, expected) in
        [("status", case.status), ("reason", case.reason), ("credit", case.credit)]
    {
        assert_eq!(result[field], expected, "{}: {result}", case.email);
    }
}

async fn follow_the_local_part(size: Size) {
    let app = Setup::new(size).start().await;
    let customer = app.customer(100).await;
    let emails: Vec<&str> = CASES.iter().map(|case| case.email).collect();
    let id = customer.client.submit(&emails).await.id;
    let task = customer.client.wait_completed(&id).await;
    let results = customer.client.results(&id).await;
    assert_eq!(results.len(), CASES.len());
    let by_seq: HashMap<u64, &Value> =
        results.iter().map(|r| (r["seq"].as_u64().expect("seq"), r)).collect();
    for (seq, case) in (0..).zip(CASES) {
        assert_case(case, by_seq[&seq]);
    }
    let flaky = results.iter().find(|r| r["email"] == "flaky@example.com").expect("there");
    assert!(flaky["attempts"].as_u64() >= Some(2), "asked again: {flaky}");
    let role = results.iter().find(|r| r["email"] == "info@example.com").expect("there");
    assert_ne!(role["flags"]["role"], false, "role is a flag only: {role}");
    let count = |credit| CASES.iter().filter(|case| case.credit == credit).count() as u64;
    assert_eq!(task.credits.charged, count("charged"));
    assert_eq!(task.counts.unknown, 2);
    assert_eq!(customer.client.balance().await, 100 - count("charged"));
    app.finish().await;
}

async fn single_checks_agree(size: Size) {
    let app = Setup::new(size).start().await;
    let customer = app.customer(100).await;
    let mut spent = 0;
    for case in CASES.iter().filter(|case| !case.email.starts_with("flaky")) {
        let body = json!({ "email": case.email });
        let result = customer.client.post("/v1/verifications", &body).await.expect(200).json();
        assert_case(case, &result);
        spent += u64::from(case.credit == "charged");
        assert_eq!(customer.client.balance().await, 100 - spent, "{}", case.email);
    }
    app.finish().await;
}
