//! What happened to a task, who made it, and how long it is kept: by the API and on its page.

use std::time::Duration;

use listmill_tests::{Client, Person, Setup, Size, Weight, eventually, for_each_size, lists};
use serde_json::{Value, json};

use crate::key_life::make;

for_each_size!(tells_who_did_what, is_told_to_its_account_alone, results_expire);

const LIMIT: Duration = Duration::from_secs(60);

async fn events(client: &Client, task: &str) -> Vec<Value> {
    let page = client.get(&format!("/v1/tasks/{task}/events?format=json")).await.expect(200).json();
    assert!(page["next_cursor"].is_null(), "{page}");
    page["data"].as_array().expect("data").clone()
}

/// Presses a button on the list of tasks.
async fn steer(person: &Person, task: &str, action: &str) {
    person.get("/tasks").await.expect(200);
    let page = person.post(&format!("/tasks/{task}/{action}"), &[]).await;
    assert_eq!(page.status, 303, "{}", page.reply);
}

async fn tells_who_did_what(size: Size) {
    let app = Setup::new(size).latency("50ms").concurrency(4).start().await;
    let login = app.person(25).await;
    let person = login.person(&app).await;
    let owner = login.client(&app).await;
    let label = "<b>nightly</b> \"run\"";
    let key = make(&app, &owner, &json!({ "label": label, "scopes": ["*"] })).await;
    let client = app.client(&key.secret);
    // Credits for some of it; more come while it stands still.
    let body = json!({ "name": "half", "emails": lists::people(600), "allow_partial": true });
    let id = client.submit_json(&body).await.id;
    let poor = "insufficient_credits";
    client
        .wait_until(&id, "it is broke", LIMIT, |task| task.pause_reason.as_deref() == Some(poor))
        .await;
    app.grant(&login.account, 1_000).await;
    client.wait_until(&id, "it goes on", LIMIT, |task| task.status == "running").await;
    steer(&person, &id, "pause").await;
    client.resume(&id).await.expect(200);
    steer(&person, &id, "cancel").await;
    let told = events(&client, &id).await;
    let by_key = json!({ "key": key.id });
    let (by_person, by_itself) = (json!({ "person": login.email }), json!({ "system": true }));
    let short: Vec<(&Value, &Value, &Value)> =
        told.iter().map(|event| (&event["event"], &event["actor"], &event["reason"])).collect();
    let wanted = [
        (json!("submitted"), by_key.clone(), Value::Null),
        (json!("started"), Value::Null, Value::Null),
        (json!("paused"), by_itself.clone(), json!(poor)),
        (json!("resumed"), by_itself, json!(poor)),
        (json!("paused"), by_person.clone(), json!("requested")),
        (json!("resumed"), by_key.clone(), Value::Null),
        (json!("cancelled"), by_person.clone(), Value::Null),
    ];
    assert_eq!(short, wanted.iter().map(|(a, b, c)| (a, b, c)).collect::<Vec<_>>(), "{told:#?}");
    let shown = client.get(&format!("/v1/tasks/{id}")).await.expect(200).json();
    assert_eq!(shown["created_by"], by_key, "{shown}");
    assert_eq!((&told[0]["at"], &told[6]["at"]), (&shown["created_at"], &shown["finished_at"]));
    let accept = client.request(reqwest::Method::GET, &format!("/v1/tasks/{id}/events"));
    let reply = listmill_tests::client::send(accept.header("accept", "application/json")).await;
    assert_eq!(reply.expect(200).json()["data"], Value::Array(told));
    client.get(&format!("/v1/tasks/{id}/events?format=xml")).await.expect(400).expect_problem();

    // On the page, in words; a label is text.
    let page = person.get(&format!("/tasks/{id}")).await.expect(200);
    page.assert_lacks("<b>nightly");
    let words = page.words();
    for said in [
        format!("Submitted by API key {label}"),
        "the credits had run out".to_owned(),
        format!("Paused by {}", login.email),
        format!("Resumed by API key {label}"),
        format!("Cancelled by {}", login.email),
        "Results are kept".to_owned(),
    ] {
        assert!(words.contains(&said), "{said:?} is not in {words}");
    }

    // A filter that there is none of: said on the page.
    let page = person.get(&format!("/tasks/{id}?flag=paid")).await.expect(400);
    page.assert_has("role=\"alert\"");
    assert!(page.words().contains("unknown flag \"paid\""), "{}", page.words());
    let page = person.get(&format!("/tasks/{id}?flag=catch_all")).await.expect(200);
    assert!(page.words().contains("No result fits"), "{}", page.words());

    // What a person submits is theirs, and says so.
    let seen = person.get("/tasks").await.expect(200);
    let form = reqwest::multipart::Form::new()
        .text("csrf", seen.csrf().expect("a token"))
        .text("name", "by hand")
        .text("addresses", "person1@example.com");
    let post = person.request(reqwest::Method::POST, "/tasks").multipart(form);
    assert_eq!(person.send(post).await.status, 303);
    let mine = client.tasks().await.into_iter().find(|task| task["name"] == "by hand");
    let mine = mine.expect("the task");
    assert_eq!((&mine["created_by"], &mine["created_by_key"]), (&by_person, &Value::Null));
    app.finish().await;
}

async fn is_told_to_its_account_alone(size: Size) {
    let app = Setup::new(size).start().await;
    let owner = app.customer(100).await;
    let id = owner.client.submit(&lists::people(3)).await.id;
    owner.client.wait_completed(&id).await;
    let kinds: Vec<Value> =
        events(&owner.client, &id).await.iter().map(|event| event["event"].clone()).collect();
    assert_eq!(kinds, ["submitted", "started", "completed"]);
    let stranger = app.customer(1).await.client;
    let path = format!("/v1/tasks/{id}/events?format=json");
    stranger.get(&path).await.expect(404).expect_problem();
    let person = app.person(1).await.person(&app).await;
    person.get(&format!("/tasks/{id}")).await.expect(404);
    person.get(&format!("/tasks/{id}?flag=free")).await.expect(404);
    app.finish().await;
}

/// A task is erased so long after its end, and says when.
async fn results_expire(size: Size) {
    let app = Setup::new(size).env("LISTMILL_RESULTS_TTL", "3s").start().await;
    let client = app.customer(100).await.client;
    let id = client.submit(&lists::people(3)).await.id;
    client.wait_completed(&id).await;
    let shown = client.get(&format!("/v1/tasks/{id}")).await;
    if shown.status == 200 {
        let shown = shown.json();
        let (end, until) = (&shown["finished_at"], &shown["results_expire_at"]);
        let text = |at: &Value| at.as_str().expect("a time").to_owned();
        assert!(text(until) > text(end), "{shown}");
        assert_eq!(text(until)[19..], text(end)[19..], "whole seconds later");
    }
    eventually("it is gone", LIMIT, || async {
        let reply = client.get(&format!("/v1/tasks/{id}")).await;
        (reply.status == 404).then_some(())
    })
    .await;
    assert!(client.tasks().await.is_empty());
    assert_eq!(client.balance().await, 97, "what it cost stays");
    app.finish().await;
}

/// A worker that is killed is told of, with what it had.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_worker_is_told() {
    let setup = Setup::new(Size::Scaled { apis: 1, workers: 1 }).latency("200ms").concurrency(20);
    let setup = setup.env("LISTMILL_BATCH_SIZE", "10").env("LISTMILL_LEASE_TTL", "1s");
    let mut app = setup.weight(Weight::Light).start().await;
    let client = app.customer(1_000).await.client;
    let id = client.submit(&lists::people(200)).await.id;
    client.wait_until(&id, "at work", LIMIT, |task| task.credits.held > 0).await;
    app.kill9_and_restart_worker(0);
    client.wait_completed(&id).await;
    let told = events(&client, &id).await;
    let lost: Vec<&Value> = told.iter().filter(|event| event["event"] == "worker_lost").collect();
    assert!(!lost.is_empty() && lost.len() <= 20, "{told:#?}");
    assert!(lost[0]["batches"].as_i64() > Some(0) && lost[0]["actor"].is_null(), "{told:#?}");
    assert_eq!(told.last().expect("an end")["event"], "completed");
    app.finish().await;
}
