//! Server-sent events of an account.

use std::time::Duration;

use listmill_tests::events::{Event, Events};
use listmill_tests::poll::within;
use listmill_tests::{Setup, Size, for_each_size, lists};
use reqwest::Method;
use serde_json::{Value, json};

use crate::key_life::make;

for_each_size!(
    tell_of_all_tasks_on_one_stream,
    tell_who_comes_back_what_ended,
    tell_a_key_what_it_may_see,
    end_with_the_key_and_are_bounded,
);

/// Is it a task's event, with this status?
fn says(event: &Event, task: &str, status: &str) -> bool {
    event.name == "task" && event.json()["id"] == task && event.json()["status"] == status
}

/// Reads until each of these tasks has completed.
async fn until_completed(events: &mut Events, tasks: &[&str]) -> Vec<Event> {
    let mut all = Vec::new();
    let mut left: Vec<&str> = tasks.to_vec();
    while !left.is_empty() {
        let more = events
            .until("a task has completed", |event| {
                left.iter().any(|task| says(event, task, "completed"))
            })
            .await;
        left.retain(|task| !more.iter().any(|event| says(event, task, "completed")));
        all.extend(more);
    }
    all
}

fn ids(events: &[Event]) -> Vec<i64> {
    let id = |event: &Event| event.id.as_deref().expect("an id").parse().expect("a time");
    events.iter().map(id).collect()
}

async fn tell_of_all_tasks_on_one_stream(size: Size) {
    let setup = Setup::new(size).latency("100ms").concurrency(50);
    let app = setup.env("LISTMILL_BATCH_SIZE", "50").start().await;
    let (owner, other) = (app.customer(5_000).await, app.customer(5_000).await);
    let client = &owner.client;
    let first = client.submit(&lists::people(500)).await.id;
    let mut events = client.events("/v1/events", None).await;
    let strangers = other.client.submit(&lists::people(200)).await.id;
    let second = client.submit(&lists::people(500)).await.id;
    let told = until_completed(&mut events, &[&first, &second]).await;
    assert!(!told.iter().any(|event| event.data.contains(&strangers)), "another account's task");
    let names = |name: &str| told.iter().filter(|event| event.name == name).count();
    assert!(names("balance") > 1 && names("task") > 4, "{told:?}");
    for event in &told {
        assert!(matches!(event.name.as_str(), "task" | "balance"), "{event:?}");
    }
    let shown = client.get(&format!("/v1/tasks/{first}")).await.expect(200).json();
    let last = told.iter().rfind(|event| says(event, &first, "completed")).expect("it");
    assert_eq!(last.json(), shown, "the data is the task");
    let times = ids(&told);
    assert!(times.is_sorted(), "{times:?}");

    let settled = |event: &Event| {
        event.name == "balance" && event.json() == json!({"balance": 4_000, "held": 0})
    };
    if !told.iter().any(settled) {
        events.until("all is settled", settled).await;
    }
    client.delete(&format!("/v1/tasks/{first}")).await.expect(204);
    let gone = events.until("it is gone", |event| event.name == "gone").await;
    assert_eq!(gone.last().expect("gone").json(), json!({ "id": first }));
    other.client.wait_completed(&strangers).await;
    app.finish().await;
}

async fn tell_who_comes_back_what_ended(size: Size) {
    let app = Setup::new(size).latency("50ms").concurrency(50).start().await;
    let client = app.customer(5_000).await.client;
    let before = client.submit(&lists::people(5)).await.id;
    client.wait_completed(&before).await;
    let mut events = client.events("/v1/events", None).await;
    let told = events.until("the balance", |event| event.name == "balance").await;
    assert!(!told.iter().any(|event| event.name == "task"), "nobody asked for it: {told:?}");
    let seen = told.last().and_then(|event| event.id.clone()).expect("an id");
    drop(events);

    let meanwhile = client.submit(&lists::people(5)).await.id;
    client.wait_completed(&meanwhile).await;
    client.delete(&format!("/v1/tasks/{before}")).await.expect(204);
    let mut events = client.events("/v1/events", Some(&seen)).await;
    let told = events.until("the balance", |event| event.name == "balance").await;
    assert!(told.iter().any(|event| says(event, &meanwhile, "completed")), "{told:?}");
    let gone = |event: &Event| event.name == "gone" && event.json()["id"] == before.as_str();
    assert!(told.iter().any(gone), "{told:?}");

    // A listener of long ago is told of all, from the database.
    let mut events = client.events("/v1/events", Some("1")).await;
    let told = events.until("the balance", |event| event.name == "balance").await;
    assert!(told.iter().any(|event| says(event, &meanwhile, "completed")), "{told:?}");
    assert!(ids(&told).is_sorted(), "{told:?}");
    app.finish().await;
}

async fn tell_a_key_what_it_may_see(size: Size) {
    let app = Setup::new(size).latency("50ms").concurrency(50).start().await;
    let owner = app.customer(5_000).await;
    let own = json!({ "scopes": ["tasks:own", "tasks:write"] });
    let own = app.client(&make(&app, &owner.client, &own).await.secret);
    let test = json!({ "environment": "test", "scopes": ["*"] });
    let test = app.client(&make(&app, &owner.client, &test).await.secret);
    let mut hears_own = own.events("/v1/events", None).await;
    let mut hears_test = test.events("/v1/events", None).await;
    let mut hears_all = owner.client.events("/v1/events", None).await;
    let of_owner = owner.client.submit(&lists::people(20)).await.id;
    let of_test = test.submit(&lists::people(20)).await.id;
    let of_own = own.submit(&lists::people(20)).await.id;
    let all = [of_owner.as_str(), of_test.as_str(), of_own.as_str()];
    until_completed(&mut hears_all, &all).await;
    for (events, task) in [(&mut hears_own, &of_own), (&mut hears_test, &of_test)] {
        let told = until_completed(events, &[task]).await;
        for event in told.iter().filter(|event| event.name == "task") {
            assert_eq!(event.json()["id"], task.as_str(), "another key's task");
        }
    }
    let balance = |told: &[Event]| told.iter().any(|event| event.name == "balance");
    let mut narrow = own.events("/v1/events", None).await;
    let second = own.submit(&lists::people(3)).await.id;
    let told = until_completed(&mut narrow, &[&second]).await;
    assert!(!balance(&told), "it may not read the account: {told:?}");
    app.finish().await;
}

async fn end_with_the_key_and_are_bounded(size: Size) {
    let app = Setup::new(size).start().await;
    let owner = app.customer(100).await;
    let key = make(&app, &owner.client, &json!({ "scopes": ["tasks:read"] })).await;
    let mut events = app.client(&key.secret).events("/v1/events", None).await;
    owner.client.post_empty(&format!("/v1/keys/{}/disable", key.id)).await.expect(200);
    let end = async { while events.next().await.is_some() {} };
    within("the stream ends with its key", Duration::from_secs(15), end).await;

    let client = app.client_of(0, &owner.key.secret);
    let mut open = Vec::new();
    for _ in 0..100 {
        open.push(client.events("/v1/events", None).await);
    }
    let refused = client.get("/v1/events").await.expect(429);
    let problem: Value = refused.json();
    assert_eq!(problem["code"], "too_many_streams");
    // Seats of listeners that went are free.
    open.clear();
    listmill_tests::eventually("a seat is free", Duration::from_secs(30), || async {
        let answer = client.request(Method::GET, "/v1/events").send().await.expect("an answer");
        (answer.status().as_u16() == 200).then_some(())
    })
    .await;
    app.finish().await;
}
