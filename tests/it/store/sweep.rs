//! Repairs: idempotent, safe to run in every worker at once.

use futures::future::join_all;
use listmill_shared::domain::batch::{BatchRef, Capacity, Held};
use listmill_shared::domain::id::CheckId;
use listmill_shared::domain::verdict::Reason;
use listmill_shared::store::checks::{Check, Opened};
use listmill_shared::store::workers::Report;
use listmill_tests::sql;

use super::on_both_engines;
use super::world::{BATCH, START, TTL, World, room};

on_both_engines!(
    only_workers_that_live_and_can_work_count,
    a_lease_renewed_meanwhile_is_not_taken_back,
    a_lease_that_cannot_be_taken_back_keeps_no_other,
    many_sweepers_reclaim_once,
    what_the_dead_held_is_taken_over_at_once,
    a_lost_message_is_sent_again,
    the_window_is_filled_and_never_overfilled,
    a_lost_check_goes_back,
    a_check_resolves_once,
);

async fn many_sweepers_reclaim_once(world: World) {
    world.grant(100).await;
    let task = world.people(30).await;
    for no in 0..3 {
        world.lease(task, no).await;
    }
    assert_eq!(world.balance().await, 70);
    world.app.clock.advance(TTL + 1);
    let now = world.app.now();
    let swept = join_all((0..6).map(|_| world.app.store.reclaim_leases(10, now))).await;
    let mut back: usize = swept.iter().map(|s| s.as_ref().expect("sweep").len()).sum();
    // Each passes by what another has just locked: the next round finds it.
    back += world.app.store.reclaim_leases(10, now).await.expect("sweep").len();
    assert_eq!((back, world.balance().await), (3, 100));
    world.check_books().await;
    let lease = world.lease(task, 0).await;
    assert_eq!(lease.attempt, 2);
}

/// Whoever starts alone on the database does not wait for the ends of leases, however often it was killed.
async fn what_the_dead_held_is_taken_over_at_once(world: World) {
    world.grant(100).await;
    let task = world.people(30).await;
    let (store, capacity) = (&world.app.store, Capacity { concurrency: 8, pace: 0 });
    let mut fenced = Vec::new();
    for time in 1..10 {
        let leases = [world.lease(task, 0).await, world.lease(task, 1).await];
        assert_eq!(leases.each_ref().map(|lease| lease.lost), [0, 0], "no sign of anything");
        assert_eq!(leases[0].attempt, time);
        store.worker_seen(&Report::of("dead", capacity), START).await.expect("seen");
        assert_eq!(store.take_over(START).await.expect("take over"), 2);
        assert_eq!(world.balance().await, 100);
        assert!(store.workers().await.expect("workers").is_empty());
        fenced.extend(leases);
    }
    let held: Vec<Held> = fenced.iter().map(Held::from).collect();
    let renewed = store.renew(&held, START + TTL).await.expect("renew");
    assert_eq!(renewed.lost.len(), held.len(), "their fences hold no more");
    assert_eq!(store.take_over(START).await.expect("nothing"), 0);
    world.check_books().await;
}

async fn a_lost_message_is_sent_again(world: World) {
    world.grant(100).await;
    let task = world.people(10).await;
    let lost = || world.app.store.unheard(10, world.app.now() + TTL, world.app.now());
    assert!(lost().await.expect("none yet").is_empty());
    world.app.clock.advance(TTL + 1);
    assert_eq!(lost().await.expect("one"), [BatchRef { task, no: 0 }]);
    assert!(lost().await.expect("sent again").is_empty());
    // The queue was wiped: everything queued is due at once.
    let now = world.app.now();
    assert_eq!(world.app.store.forget_messages(now - 1).await.expect("forget"), 1);
    assert_eq!(lost().await.expect("one").len(), 1);
}

async fn the_window_is_filled_and_never_overfilled(world: World) {
    world.grant(1_000).await;
    world.people(300).await;
    let out = world.app.room().await.expect("room").addresses / BATCH as i64;
    let rounds =
        join_all((0..4).map(|_| world.app.store.dispatch(room(out + 3), START + TTL, START))).await;
    let more: usize = rounds.iter().map(|r| r.as_ref().expect("dispatch").sent.len()).sum();
    // Several sweepers may overlap by what they saw at the same time, never by more.
    assert!((3..=12).contains(&more), "{more}");
    let full = world.app.store.dispatch(room(out), START, START).await.expect("full");
    assert!(full.sent.is_empty());
}

fn check(world: &World) -> Check {
    Check {
        id: CheckId::new(&world.app.ids, START),
        account: world.account,
        step: world.number(),
        key: None,
        key_limited: false,
        fill: false,
    }
}

async fn a_lost_check_goes_back(world: World) {
    world.grant(1).await;
    let first = check(&world);
    assert_eq!(
        world.app.store.open_check(first, START + 10, START).await.expect("open"),
        Opened::Held
    );
    assert_eq!(
        world.app.store.open_check(check(&world), START, START).await.expect("empty"),
        Opened::Poor
    );
    assert_eq!(world.balance().await, 0);
    world.check_books().await;
    let expired = world.app.store.expired_checks(START + 11, 10).await.expect("expired");
    assert_eq!(expired.len(), 1);
    assert!(world.app.store.close_check(first, false, START).await.expect("close"));
    assert!(!world.app.store.close_check(first, true, START).await.expect("late"), "too late");
    assert_eq!(world.balance().await, 1);
    world.check_books().await;
}

async fn a_check_resolves_once(world: World) {
    world.grant(5).await;
    let one = check(&world);
    world.app.store.open_check(one, START + 10, START).await.expect("open");
    let closing = (0..6).map(|i| world.app.store.close_check(one, i % 2 == 0, START));
    let closed = join_all(closing).await;
    assert_eq!(closed.iter().filter(|c| *c.as_ref().expect("close")).count(), 1);
    world.check_books().await;
}

async fn a_lease_renewed_meanwhile_is_not_taken_back(world: World) {
    world.grant(100).await;
    let task = world.people(20).await;
    let (kept, lost) = (world.lease(task, 0).await, world.lease(task, 1).await);
    let (store, later) = (&world.app.store, START + TTL + 1);
    let over = store.expired_leases(10, later).await.expect("leases");
    assert_eq!(over.len(), 2);
    let held = Held::from(&kept);
    store.renew(&[held], later + TTL).await.expect("renew");
    let back = store.take_back_all(&over, Some(later), later).await.expect("take back");
    assert_eq!(back, [lost.batch]);
    assert_eq!(world.balance().await, 90);
    world.finish(&kept, Reason::Accepted).await;
    assert_eq!(world.task(task).await.tally.charged, 10);
    world.check_books().await;
}

async fn a_lease_that_cannot_be_taken_back_keeps_no_other(world: World) {
    world.grant(100).await;
    let task = world.people(30).await;
    let (first, wrong, last) =
        (world.lease(task, 0).await, world.lease(task, 1).await, world.lease(task, 2).await);
    // Its refund is in the books already, which cannot be.
    let again = format!(
        "INSERT INTO ledger_entries
            (account_id, kind, type, amount, balance_after, task_id, step, note, created_at)
         SELECT account_id, kind, 'refund', amount, balance_after, task_id, step, note, created_at
         FROM ledger_entries WHERE type = 'hold' AND step = {}",
        wrong.token
    );
    assert_eq!(sql::execute(&world.url, &again).await, 1);
    let back = world.app.store.reclaim_leases(10, START + TTL + 1).await.expect("reclaim");
    assert_eq!(back, [first.batch, last.batch]);
    assert_eq!(world.balance().await, 90);
}

async fn only_workers_that_live_and_can_work_count(world: World) {
    let (store, slow) = (&world.app.store, Capacity { concurrency: 8, pace: 0 });
    let fast = Capacity { concurrency: 8, pace: 9_000 };
    store.worker_seen(&Report::of("silent", fast), START).await.expect("seen");
    store
        .worker_seen(&Report::of("down", Capacity { concurrency: 0, ..fast }), START + 9)
        .await
        .expect("seen");
    store.worker_seen(&Report::of("quicker by now", slow), START + 8).await.expect("seen");
    store.worker_seen(&Report::of("quicker by now", fast), START + 9).await.expect("seen");
    assert_eq!(store.capacities(START + 1).await.expect("capacities"), [fast]);
    assert_eq!(store.capacities(START).await.expect("capacities").len(), 2);
    store.worker_seen(&Report::of("quicker by now", slow), START + 9).await.expect("seen");
    store.forget_workers(START + 1).await.expect("forget");
    assert_eq!(store.capacities(START).await.expect("capacities"), [slow], "the silent is gone");
}
