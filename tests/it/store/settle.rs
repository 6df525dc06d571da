//! Settling: each address once, behind its fence, however often it is tried.

use futures::future::join_all;
use listmill_shared::domain::batch::{After, Settled};
use listmill_shared::domain::task::TaskStatus;
use listmill_shared::domain::verdict::{Credit, Reason};

use super::on_both_engines;
use super::world::{BATCH, TTL, World, findings, step};

on_both_engines!(
    charges_definitive_and_refunds_unknown,
    a_step_applies_once_however_often_it_is_tried,
    a_taken_over_lease_writes_nothing,
    one_lost_fence_does_not_stop_the_others,
    steps_add_up_and_a_released_rest_goes_back,
    many_settle_at_once,
    completes_only_with_every_result,
);

async fn charges_definitive_and_refunds_unknown(world: World) {
    world.grant(100).await;
    let list = "a@x.com\nbad\nunknown@x.com\nb@x.com\n";
    let task = world.submit(list, false).await.expect("task");
    let lease = world.lease(task, 0).await;
    assert_eq!(lease.held, 3, "bad syntax is never held");
    let found = findings(&lease, |seq| if seq == 2 { Reason::Timeout } else { Reason::Accepted });
    let release = step(&lease, found, After::Release);
    let settled = world.settle(world.number(), &[release]).await;
    assert_eq!(settled.outcomes, [Settled::Stored { batch_done: true, task_done: true }]);
    assert_eq!(world.balance().await, 98);
    let ended = world.task(task).await;
    assert_eq!(ended.status, TaskStatus::Completed);
    assert_eq!((ended.tally.charged, ended.tally.refunded, ended.held), (2, 1, 0));
    let results = world.app.store.results(task, -1, 10, None).await.expect("results");
    let credits: Vec<Credit> = results.iter().map(|found| found.credit).collect();
    assert_eq!(credits, [Credit::Charged, Credit::Free, Credit::Refunded, Credit::Charged]);
    world.check_books().await;
}

async fn a_step_applies_once_however_often_it_is_tried(world: World) {
    world.grant(100).await;
    let task = world.people(25).await;
    for (no, after) in [(0, After::Keep), (1, After::Release)] {
        let lease = world.lease(task, no).await;
        let number = world.number();
        let make = || [step(&lease, findings(&lease, |_| Reason::Accepted), after)];
        let first = world.settle(number, &make()).await;
        let before = world.task(task).await;
        let again = world.settle(number, &make()).await;
        assert_eq!(first.outcomes, again.outcomes, "{after:?}");
        assert!(!again.room);
        assert_eq!(world.task(task).await.tally, before.tally);
        world.check_books().await;
    }
}

async fn a_taken_over_lease_writes_nothing(world: World) {
    world.grant(100).await;
    let task = world.people(10).await;
    let slow = world.lease(task, 0).await;
    world.app.clock.advance(TTL + 1);
    let now = world.app.now();
    let back = world.app.store.reclaim_leases(10, now).await.expect("reclaim");
    assert_eq!(back, [slow.batch]);
    assert_eq!(world.balance().await, 100, "its hold went back");
    let quick = world.lease(task, 0).await;
    assert_eq!(world.finish(&slow, Reason::MailboxNotFound).await, Settled::Fenced);
    let before = world.task(task).await;
    assert_eq!((before.tally.processed(), before.held), (0, 10));
    world.finish(&quick, Reason::Accepted).await;
    assert_eq!(world.finish(&slow, Reason::MailboxNotFound).await, Settled::Fenced);
    let ended = world.task(task).await;
    assert_eq!((ended.tally.deliverable, ended.tally.charged), (10, 10));
    world.check_books().await;
}

async fn one_lost_fence_does_not_stop_the_others(world: World) {
    world.grant(100).await;
    let task = world.people(30).await;
    let mut leases = Vec::new();
    for no in 0..3 {
        leases.push(world.lease(task, no).await);
    }
    leases[1].token += 1;
    let steps: Vec<_> =
        leases.iter().map(|l| step(l, findings(l, |_| Reason::Accepted), After::Release)).collect();
    let settled = world.settle(world.number(), &steps).await;
    let done = Settled::Stored { batch_done: true, task_done: false };
    assert_eq!(settled.outcomes, [done.clone(), Settled::Fenced, done]);
    assert_eq!(world.task(task).await.tally.charged, 20);
    world.check_books().await;
}

async fn steps_add_up_and_a_released_rest_goes_back(world: World) {
    world.grant(100).await;
    let task = world.people(10).await;
    let mut lease = world.lease(task, 0).await;
    let mut all = findings(&lease, |seq| if seq < 3 { Reason::Timeout } else { Reason::Accepted });
    let rest = all.split_off(4);
    let keep = step(&lease, all, After::Keep);
    world.settle(world.number(), &[keep]).await;
    let during = world.task(task).await;
    assert_eq!((during.held, during.tally.charged, during.tally.refunded), (6, 1, 3));
    assert_eq!(world.balance().await, 93);
    world.check_books().await;
    (0..4).for_each(|place| assert!(lease.done.insert(place)));
    let release = step(&lease, rest[..2].to_vec(), After::Release);
    let settled = world.settle(world.number(), &[release]).await;
    assert_eq!(settled.outcomes, [Settled::Stored { batch_done: false, task_done: false }]);
    assert_eq!((world.task(task).await.held, world.balance().await), (0, 97));
    world.check_books().await;
    // The next holder knows what is done and pays for the rest alone.
    let next = world.lease(task, 0).await;
    assert_eq!((next.done.len(), next.held), (6, 4));
    world.finish(&next, Reason::Accepted).await;
    let ended = world.task(task).await;
    assert_eq!(ended.status, TaskStatus::Completed);
    assert_eq!((ended.tally.charged, ended.tally.refunded), (7, 3));
    world.check_books().await;
}

async fn many_settle_at_once(world: World) {
    world.grant(1_000).await;
    let tasks = [world.people(90).await, world.people(90).await];
    let work = (0..18).map(|i| {
        let world = &world;
        async move {
            let lease = world.lease(tasks[i % 2], (i / 2) as i32).await;
            world.finish(&lease, Reason::Accepted).await
        }
    });
    let settled = join_all(work).await;
    assert!(settled.iter().all(|s| matches!(s, Settled::Stored { .. })), "{settled:?}");
    for task in tasks {
        assert_eq!(world.task(task).await.status, TaskStatus::Completed);
    }
    assert_eq!(world.balance().await, 820);
    world.check_books().await;
}

async fn completes_only_with_every_result(world: World) {
    world.grant(100).await;
    let task = world.people(3 * BATCH).await;
    for no in [2, 0, 1] {
        assert_eq!(world.task(task).await.finished_at, None);
        let lease = world.lease(task, no).await;
        world.finish(&lease, Reason::Accepted).await;
    }
    let results = world.app.store.results(task, -1, 100, None).await.expect("results");
    let seqs: Vec<i64> = results.iter().map(|found| found.seq).collect();
    assert_eq!(seqs, (0..30).collect::<Vec<_>>());
    assert_eq!(world.task(task).await.status, TaskStatus::Completed);
}
