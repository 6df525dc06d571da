//! Leasing: one holder at a time, never more credits than there are.

use futures::future::join_all;
use listmill_shared::domain::batch::BatchRef;
use listmill_shared::domain::task::{PauseReason, TaskStatus};
use listmill_shared::domain::verdict::Reason;
use listmill_shared::store::batches::{Held, Leasing};

use super::on_both_engines;
use super::world::World;

on_both_engines!(
    several_at_once_share_what_there_is,
    one_of_many_gets_the_batch,
    holds_no_more_than_the_balance,
    never_below_zero_with_many_at_once,
    pauses_on_empty_and_goes_on_after_a_grant,
    a_paused_task_gives_no_lease,
    renewing_tells_what_is_lost,
);

async fn one_of_many_gets_the_batch(world: World) {
    world.grant(100).await;
    let task = world.people(10).await;
    let claims = (0..8).map(|_| world.try_lease(task, 0));
    let leased: Vec<Leasing> = join_all(claims).await;
    let winners = leased.iter().filter(|l| matches!(l, Leasing::Leased(_))).count();
    assert_eq!(winners, 1, "{leased:?}");
    assert_eq!(world.balance().await, 90, "held once");
    assert_eq!(world.task(task).await.status, TaskStatus::Running);
    world.check_books().await;
}

async fn several_at_once_share_what_there_is(world: World) {
    world.grant(25).await;
    let first = world.people(20).await;
    world.app.clock.advance(1);
    let tasks = [first, world.people(20).await];
    let claims: Vec<_> =
        [(1, 1), (0, 0), (1, 0), (0, 1)].map(|(t, no)| BatchRef { task: tasks[t], no }).to_vec();
    let claims: Vec<_> = claims.into_iter().map(|batch| world.claim(batch)).collect();
    let leasings = world
        .app
        .store
        .lease(&claims, "here", world.app.now(), world.app.now())
        .await
        .expect("lease");
    let held: Vec<Option<i64>> = leasings
        .iter()
        .map(|leasing| match leasing {
            Leasing::Leased(lease) => Some(lease.held),
            Leasing::Broke => None,
            Leasing::Nothing => panic!("all of them were free: {leasings:?}"),
        })
        .collect();
    assert_eq!(held, [None, Some(10), Some(5), Some(10)], "first task first");
    assert_eq!(world.balance().await, 0);
    assert_eq!(world.task(tasks[0]).await.status, TaskStatus::Running);
    assert_eq!(world.task(tasks[1]).await.status, TaskStatus::Paused);
    world.check_books().await;
}

async fn holds_no_more_than_the_balance(world: World) {
    world.grant(7).await;
    let task = world.people(10).await;
    let lease = world.lease(task, 0).await;
    assert_eq!((lease.held, world.balance().await), (7, 0));
    assert_eq!(world.task(task).await.held, 7);
    world.check_books().await;
}

async fn never_below_zero_with_many_at_once(world: World) {
    world.grant(33).await;
    let task = world.people(120).await;
    let leased = join_all((0..12).map(|no| world.try_lease(task, no))).await;
    let held: i64 = leased
        .iter()
        .map(|leasing| match leasing {
            Leasing::Leased(lease) => lease.held,
            _ => 0,
        })
        .sum();
    assert_eq!((held, world.balance().await), (33, 0));
    world.check_books().await;
}

async fn pauses_on_empty_and_goes_on_after_a_grant(world: World) {
    world.grant(10).await;
    let task = world.people(20).await;
    let lease = world.lease(task, 0).await;
    world.finish(&lease, Reason::Accepted).await;
    assert!(matches!(world.try_lease(task, 1).await, Leasing::Broke));
    let paused = world.task(task).await;
    assert_eq!(paused.status, TaskStatus::Paused);
    assert_eq!(paused.pause_reason, Some(PauseReason::InsufficientCredits));
    assert_eq!((paused.tally.charged, paused.held), (10, 0));
    world.grant(10).await;
    assert_eq!(world.task(task).await.status, TaskStatus::Running);
    let lease = world.lease(task, 1).await;
    world.finish(&lease, Reason::Accepted).await;
    assert_eq!(world.task(task).await.status, TaskStatus::Completed);
    assert_eq!(world.balance().await, 0);
    world.check_books().await;
}

async fn a_paused_task_gives_no_lease(world: World) {
    world.grant(100).await;
    let task = world.people(10).await;
    world.app.pause(task, world.account).await.expect("pause");
    assert!(matches!(world.try_lease(task, 0).await, Leasing::Nothing));
    world.grant(5).await;
    let still = world.task(task).await;
    assert_eq!(still.pause_reason, Some(PauseReason::Requested), "a grant wakes it not");
    world.app.resume(task, world.account).await.expect("resume");
    world.lease(task, 0).await;
    world.check_books().await;
}

async fn renewing_tells_what_is_lost(world: World) {
    world.grant(100).await;
    let task = world.people(20).await;
    let lease = world.lease(task, 0).await;
    let ours = Held { batch: lease.batch, token: lease.token };
    let stale = Held { batch: BatchRef { task, no: 1 }, token: lease.token };
    let until = world.app.now() + 60_000;
    let lost = world.app.store.renew(&[ours, stale], until).await.expect("renew");
    assert_eq!(lost.lost.iter().map(|held| held.batch).collect::<Vec<_>>(), [stale.batch]);
    assert!(lost.later.is_empty());
    // The renewed lease outlives its first end.
    world.app.clock.advance(45_000);
    let back = world.app.store.reclaim_leases(10, world.app.now()).await.expect("reclaim");
    assert!(back.is_empty(), "{back:?}");
}
