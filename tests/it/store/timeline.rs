//! What happened to a task is written down where it happens, and only there.

use listmill_shared::domain::audit::{Actor, Origin};
use listmill_shared::domain::id::TaskId;
use listmill_shared::domain::task::PauseReason;
use listmill_shared::domain::task_event::TaskEvent;
use listmill_shared::domain::verdict::Reason;
use listmill_tests::sql;

use super::world::{BATCH, TTL, World};

super::on_both_engines!(
    what_happens_is_told_in_order,
    what_changes_nothing_is_not_told,
    many_of_a_kind_are_counted,
    workers_lost_together_are_one,
    erased_with_the_task,
    kept_for_so_long,
);

async fn events(world: &World, task: TaskId) -> Vec<TaskEvent> {
    world.app.timeline(&world.task(task).await).await.expect("timeline")
}

async fn kinds(world: &World, task: TaskId) -> Vec<&'static str> {
    events(world, task).await.iter().map(|event| event.what.as_str()).collect()
}

fn person() -> Origin {
    let actor = Actor::Person(String::from("ada@example.com"));
    Origin { actor, ip: None, request_id: None }
}

async fn what_happens_is_told_in_order(world: World) {
    world.grant(5).await;
    let task = world.people(2 * BATCH).await;
    let (app, account, store) = (&world.app, world.account, &world.app.store);
    app.clock.advance(1_000);
    app.pause_by(task, account, &person()).await.expect("pause");
    app.clock.advance(1_000);
    app.resume(task, account).await.expect("resume");
    app.clock.advance(1_000);
    let lease = world.lease(task, 0).await;
    world.finish(&lease, Reason::Accepted).await;
    // The credits end, and come back.
    world.try_lease(task, 1).await;
    app.clock.advance(1_000);
    world.grant(100).await;
    store.resume_funded(account, 10, app.now()).await.expect("resume");
    app.clock.advance(1_000);
    let why = Some("x".repeat(1_000));
    let reason = PauseReason::ProviderUnavailable;
    store.pause_because(task, reason, why, app.now()).await.expect("pause");
    store.resume_all(PauseReason::ProviderUnavailable, 10, app.now()).await.expect("resume");
    app.clock.advance(1_000);
    app.cancel_by(task, account, &person()).await.expect("cancel");
    let all = events(&world, task).await;
    let told: Vec<(&str, Option<&Actor>, Option<&str>)> = all
        .iter()
        .map(|event| {
            (event.what.as_str(), event.who.as_ref(), event.reason.map(PauseReason::as_str))
        })
        .collect();
    let (ada, operator) = (person().actor, Actor::Operator);
    let system = Some(&Actor::System);
    let wanted = [
        ("submitted", Some(&operator), None),
        ("paused", Some(&ada), Some("requested")),
        ("resumed", Some(&operator), None),
        ("started", None, None),
        ("paused", system, Some("insufficient_credits")),
        ("resumed", system, Some("insufficient_credits")),
        ("paused", system, Some("provider_unavailable")),
        ("resumed", system, Some("provider_unavailable")),
        ("cancelled", Some(&ada), None),
    ];
    assert_eq!(told, wanted, "{all:#?}");
    assert_eq!(all[6].detail.as_ref().map(String::len), Some(300), "what is said is bounded");
    assert!(all.is_sorted_by_key(|event| event.at), "{all:#?}");
    world.check_books().await;
}

async fn what_changes_nothing_is_not_told(world: World) {
    world.grant(100).await;
    let task = world.people(BATCH).await;
    let (app, account) = (&world.app, world.account);
    for _ in 0..3 {
        app.pause(task, account).await.expect("pause");
    }
    for _ in 0..3 {
        app.resume(task, account).await.expect("resume");
    }
    let lease = world.lease(task, 0).await;
    world.finish(&lease, Reason::Accepted).await;
    app.pause(task, account).await.expect_err("it has ended");
    let told = kinds(&world, task).await;
    let mut sorted = told.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, ["completed", "paused", "resumed", "started", "submitted"]);
    assert_eq!((told[0], told[4]), ("submitted", "completed"));
}

async fn many_of_a_kind_are_counted(world: World) {
    let task = world.people(BATCH).await;
    let (app, account) = (&world.app, world.account);
    for turn in 0..30 {
        app.clock.advance(1);
        let by = if turn == 29 { person() } else { Origin::operator() };
        app.pause_by(task, account, &by).await.expect("pause");
        app.clock.advance(1);
        app.resume_by(task, account, &Origin::operator()).await.expect("resume");
    }
    let all = events(&world, task).await;
    assert_eq!(all.len(), 1 + 2 * 20);
    let last = |kind: &str| all.iter().rfind(|event| event.what.as_str() == kind).expect(kind);
    for kind in ["paused", "resumed"] {
        assert_eq!(last(kind).times, 11, "{:?}", last(kind));
        assert!(last(kind).last_at > last(kind).at);
    }
    // It stands for several people by now, for one reason, and for one operator.
    assert_eq!((&last("paused").who, last("paused").reason), (&None, Some(PauseReason::Requested)));
    assert_eq!(last("resumed").who, Some(Actor::Operator));
    app.cancel(task, account).await.expect("cancel");
    assert_eq!(kinds(&world, task).await.last(), Some(&"cancelled"));
}

async fn workers_lost_together_are_one(world: World) {
    world.grant(1_000).await;
    let task = world.people(6 * BATCH).await;
    let (app, store) = (&world.app, &world.app.store);
    let lose = async |batches: std::ops::Range<i32>| {
        for no in batches {
            world.lease(task, no).await;
        }
        app.clock.advance(TTL + 1);
        // One at a time, as sweepers do with many.
        while !store.reclaim_leases(1, app.now()).await.expect("sweep").is_empty() {
            app.clock.advance(10);
        }
    };
    lose(0..3).await;
    let all = events(&world, task).await;
    let lost = all.iter().filter(|event| event.what.as_str() == "worker_lost");
    let lost: Vec<(i64, i64)> = lost.map(|event| (event.batches, event.times)).collect();
    assert_eq!(lost, [(3, 3)], "{all:#?}");
    app.clock.advance(120_000);
    lose(3..5).await;
    let all = events(&world, task).await;
    assert_eq!(all.iter().filter(|event| event.what.as_str() == "worker_lost").count(), 2);
    assert_eq!(all.last().map(|event| event.batches), Some(2));
    world.check_books().await;
}

async fn rows(world: &World) -> i64 {
    sql::number(&world.url, "SELECT count(*) FROM task_events").await
}

async fn erased_with_the_task(world: World) {
    let task = world.people(BATCH).await;
    let (app, account) = (&world.app, world.account);
    app.pause(task, account).await.expect("pause");
    app.cancel(task, account).await.expect("cancel");
    assert_eq!(rows(&world).await, 2);
    app.erase(task, account).await.expect("erase");
    assert_eq!(rows(&world).await, 0);
}

async fn kept_for_so_long(world: World) {
    const DAY: i64 = 86_400_000;
    world.grant(100).await;
    let (app, account) = (&world.app, world.account);
    let (ended, open) = (world.people(BATCH).await, world.people(BATCH).await);
    let lease = world.lease(ended, 0).await;
    world.finish(&lease, Reason::Accepted).await;
    let ttl = app.settings.results_ttl;
    let expires = world.task(ended).await.results_expire_at(ttl).expect("a time");
    assert_eq!(expires, app.now() + 30 * DAY);
    assert_eq!(world.task(open).await.results_expire_at(ttl), None);
    assert_eq!(world.task(ended).await.results_expire_at(std::time::Duration::ZERO), None);
    let expire = async || app.expire_results(std::time::Duration::MAX).await.expect("expire");
    app.clock.advance(30 * DAY);
    assert_eq!(expire().await, 0, "to the last moment");
    app.clock.advance(1);
    assert_eq!(expire().await, 1);
    assert!(app.task(ended, account).await.is_err(), "it is gone");
    assert!(app.task(open, account).await.is_ok(), "what goes on is kept");
    assert_eq!(expire().await, 0);
    world.check_books().await;
}
