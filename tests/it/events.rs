//! Server-sent events of a task.

use listmill_tests::{Setup, Size, for_each_size, lists};

for_each_size!(tell_progress_and_done);

async fn tell_progress_and_done(size: Size) {
    let setup = Setup::new(size).latency("100ms").concurrency(50);
    let app = setup.env("LISTMILL_BATCH_SIZE", "50").start().await;
    let client = app.customer(5_000).await.client;
    let id = client.submit(&lists::people(1_000)).await.id;
    let events = client.events_until_done(&id, None).await;
    let names: Vec<&str> = events.iter().map(|event| event.name.as_str()).collect();
    assert!(names.contains(&"progress"), "{names:?}");
    assert_eq!(names.last(), Some(&"done"), "{names:?}");
    let known = |name: &&str| matches!(*name, "progress" | "status" | "done");
    assert!(names.iter().all(known), "{names:?}");
    events.iter().for_each(|event| assert!(event.json().is_object(), "{event:?}"));
    assert_eq!(client.task(&id).await.status, "completed", "done is said when it is done");

    let ids: Vec<&str> = events.iter().filter_map(|event| event.id.as_deref()).collect();
    let first = *ids.first().expect("events carry ids, so that a listener can come back");
    let missed = client.events_until_done(&id, Some(first)).await;
    assert_eq!(missed.last().map(|event| event.name.as_str()), Some("done"));
    let late = client.events_until_done(&id, None).await;
    assert_eq!(late.last().map(|event| event.name.as_str()), Some("done"));
    client.get("/v1/tasks/task_unknown/events").await.expect(404).expect_problem();
    app.finish().await;
}
