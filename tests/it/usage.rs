//! Usage by external id, with the credits that were charged, and of the keys that a rotation joined.

use std::time::Duration;

use listmill_tests::client::send;
use listmill_tests::{Client, Deployment, Key, Setup, Size, eventually, for_each_size, lists};
use reqwest::Method;
use serde_json::{Value, json};

for_each_size!(goes_by_external_id, is_that_of_a_family);

/// The sweeper counts what an ended task has charged.
const SOON: Duration = Duration::from_secs(60);

async fn make(app: &Deployment, client: &Client, external_id: &str) -> Key {
    let body = json!({ "label": "given away", "external_id": external_id });
    kept(app, &client.post("/v1/keys", &body).await.expect(201).json())
}

fn kept(app: &Deployment, answer: &Value) -> Key {
    let text = |field: &str| answer[field].as_str().expect(field).to_owned();
    let key = Key { id: text("id"), secret: text("key") };
    app.keep_secret(&key.secret);
    key
}

/// Requests that ended so, and credits, over all periods.
fn total(page: &Value, outcome: &str, fits: impl Fn(&Value) -> bool) -> (i64, i64) {
    let rows = || page["data"].as_array().expect("data").iter().filter(|row| fits(row));
    let requests = rows().filter_map(|row| row["requests"][outcome].as_i64()).sum();
    (requests, rows().map(|row| row["credits"].as_i64().expect("credits")).sum())
}

/// Likewise, of a file.
fn total_of_lines(file: &str, outcome: &str, external_id: &str) -> (i64, i64) {
    let number = |text: &str| text.parse::<i64>().expect("a number");
    let mut sums = (0, 0);
    for line in file.lines().skip(1) {
        let cells: Vec<&str> = line.split(',').collect();
        let [_, whose, how, requests, credits] = cells[..] else { panic!("{line}") };
        if whose == external_id {
            sums.0 += if how == outcome { number(requests) } else { 0 };
            sums.1 += number(credits);
        }
    }
    sums
}

async fn goes_by_external_id(size: Size) {
    let app = Setup::new(size).start().await;
    let owner = app.customer(1_000).await;
    let client = &owner.client;
    let (one, two) = (make(&app, client, "ada").await, make(&app, client, "ada").await);
    let bob = make(&app, client, "bob").await;
    let of = |key: &Key| app.client(&key.secret);
    for _ in 0..3 {
        of(&one).get("/v1/tasks").await.expect(200);
    }
    of(&one).post("/v1/verifications", &json!({ "email": "a@example.com" })).await.expect(200);
    let task = of(&two).submit(&lists::people(5)).await.id;
    client.wait_completed(&task).await;
    of(&bob).get("/v1/tasks").await.expect(200);
    // A key that is deleted counts on.
    client.delete(&format!("/v1/keys/{}", two.id)).await.expect(200);
    of(&two).get("/v1/tasks").await.expect(401);

    let named = |id: &'static str| move |row: &Value| row["external_id"] == id;
    for by in ["hour", "day"] {
        let path = format!("/v1/usage?group_by=external_id&by={by}");
        let page = eventually("all are counted", SOON, || async {
            let page = client.get(&path).await.expect(200).json();
            let ada = total(&page, "accepted", named("ada"));
            let rest =
                (total(&page, "unknown", named("ada")).0, total(&page, "accepted", named("bob")));
            (ada == (5, 6) && rest == (1, (1, 0))).then_some(page)
        })
        .await;
        // What has none is told apart.
        let none = total(&page, "accepted", |row| row["external_id"].is_null());
        assert!(none.0 >= 3 && none.1 == 0, "{page}");
    }
    let ask = async |query: &str| client.get(&format!("/v1/usage?{query}")).await.expect(200);
    let page = ask("external_id=ada").await.json();
    assert_eq!(total(&page, "accepted", |_| true), (5, 6), "{page}");
    let page = ask("external_id=ada&group_by=key").await.json();
    let key = |key: &Key| {
        let id = key.id.clone();
        move |row: &Value| row["key"] == id.as_str()
    };
    assert_eq!(total(&page, "accepted", key(&one)), (4, 1), "{page}");
    assert_eq!(total(&page, "accepted", key(&two)), (1, 5), "{page}");
    assert_eq!(total(&page, "accepted", key(&bob)), (0, 0), "{page}");
    let page = ask("external_id=ada&group_by=outcome").await.json();
    let unknown = |row: &&Value| row["outcome"] == "unknown";
    let rows = page["data"].as_array().expect("data");
    assert_eq!(rows.iter().filter(unknown).count(), 1, "{page}");
    assert!(rows.iter().all(|row| row.get("credits").is_none()), "{page}");
    // The same as a file, all together and of one.
    for query in
        ["group_by=external_id&format=csv", "group_by=external_id&external_id=ada&format=csv"]
    {
        let file = ask(query).await.text();
        assert_eq!(file.lines().next(), Some("at,external_id,outcome,requests,credits"), "{file}");
        assert_eq!(total_of_lines(&file, "accepted", "ada"), (5, 6), "{file}");
        assert_eq!(total_of_lines(&file, "unknown", "ada").0, 1, "{file}");
        assert_eq!(file.contains(",bob,"), !query.contains("=ada"), "{file}");
    }
    // Given to somebody else, a key takes its past along.
    let body = json!({ "external_id": "ada" });
    let patch = client.request(Method::PATCH, &format!("/v1/keys/{}", bob.id)).json(&body);
    send(patch).await.expect(200);
    let page = ask("external_id=ada").await.json();
    assert_eq!(total(&page, "accepted", |_| true), (6, 6), "{page}");
    assert_eq!(ask("external_id=bob").await.json(), json!({ "data": [] }));
    // Somebody else's ada is another one.
    let stranger = app.customer(0).await.client;
    let theirs = stranger.get("/v1/usage?external_id=ada").await.expect(200).json();
    assert_eq!(theirs, json!({ "data": [] }));
    for wrong in ["external_id=", "external_id=%00", &format!("external_id={}", "x".repeat(1_025))]
    {
        client.get(&format!("/v1/usage?{wrong}")).await.expect(400).expect_problem();
    }
    app.finish().await;
}

async fn is_that_of_a_family(size: Size) {
    let app = Setup::new(size).start().await;
    let owner = app.customer(10).await;
    let client = &owner.client;
    let old = make(&app, client, "ada").await;
    let body = json!({ "grace_seconds": 3_600 });
    let answer = client.post(&format!("/v1/keys/{}/rotate", old.id), &body).await.expect(201);
    let new = kept(&app, &answer.json());
    for (key, count) in [(&old, 3), (&new, 2)] {
        for _ in 0..count {
            app.client(&key.secret).get("/v1/tasks").await.expect(200);
        }
    }
    let body = json!({ "email": "a@example.com" });
    app.client(&old.secret).post("/v1/verifications", &body).await.expect(200);
    for (key, alone) in [(&old, (4, 1)), (&new, (2, 0))] {
        for (query, want) in [("family=true", (6, 1)), ("family=false", alone), ("", alone)] {
            let path = format!("/v1/keys/{}/usage?{query}", key.id);
            eventually(&path, SOON, || async {
                let page = client.get(&path).await.expect(200).json();
                (total(&page, "accepted", |_| true) == want).then_some(())
            })
            .await;
        }
    }
    let wrong = format!("/v1/keys/{}/usage?family=all", old.id);
    client.get(&wrong).await.expect(400).expect_problem();
    app.finish().await;
}
