//! Leasing: one holder at a time, never more credits than there are.

use std::time::Duration;

use futures::future::join_all;
use listmill_shared::domain::batch::{After, BatchRef, Held, Lease, Settled};
use listmill_shared::domain::task::{PauseReason, TaskStatus};
use listmill_shared::domain::verdict::Reason;
use listmill_shared::store::Store;
use listmill_shared::store::batches::{Claim, Leasing};
use listmill_shared::store::credits::EntryFilter;
use sqlx::{Connection as _, PgConnection};

use super::on_both_engines;
use super::world::{World, findings, step};

on_both_engines!(
    several_at_once_share_what_there_is,
    one_of_many_gets_the_batch,
    leases_with_one_number_keep_to_their_batches,
    a_batch_that_is_claimed_twice_at_once_is_leased_once,
    holds_no_more_than_the_balance,
    never_below_zero_with_many_at_once,
    pauses_on_empty_and_goes_on_after_a_grant,
    a_paused_task_gives_no_lease,
    a_pause_in_the_middle_gives_no_lease,
    renewing_tells_what_is_lost,
    each_entry_says_the_balance_after_it,
);

async fn each_entry_says_the_balance_after_it(world: World) {
    world.grant(100).await;
    let tasks = [world.people(10).await, world.people(7).await];
    let claims = tasks.map(|task| world.claim(BatchRef { task, no: 0 }));
    let (store, now) = (&world.app.store, world.app.now());
    // Two holds in one transfer, then a charge and a refund in each.
    for leasing in store.lease(&claims, "here", now, now).await.expect("leases") {
        let Leasing::Leased(lease) = leasing else { panic!("not leased: {leasing:?}") };
        let reason = |seq| if seq % 2 == 0 { Reason::Accepted } else { Reason::Timeout };
        world.finish_with(&lease, reason).await;
    }
    let mut entries =
        store.entries(world.account, EntryFilter::default(), None, 100).await.expect("entries");
    entries.reverse();
    let mut balance = 0;
    for entry in &entries {
        balance += match entry.entry.as_str() {
            "grant" | "refund" => entry.amount,
            "hold" => -entry.amount,
            _ => 0,
        };
        assert_eq!(entry.balance_after, balance, "{entry:?}");
    }
    let types: Vec<&str> = entries.iter().map(|entry| entry.entry.as_str()).collect();
    assert_eq!(types, ["grant", "hold", "hold", "charge", "refund", "charge", "refund"]);
    assert_eq!(balance, world.balance().await);
}

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

/// Two processes may hit upon the same number, and nothing of one batch may become another's.
async fn leases_with_one_number_keep_to_their_batches(world: World) {
    world.grant(100).await;
    let task = world.people(30).await;
    let first = world.claim(BatchRef { task, no: 0 });
    let claims = [2, 0, 1].map(|no| Claim { batch: BatchRef { task, no }, ..first });
    let (store, now) = (&world.app.store, world.app.now());
    let leasings = store.lease(&claims, "here", now, now).await.expect("lease");
    let mut steps = Vec::new();
    for (claim, leasing) in claims.iter().zip(leasings) {
        let Leasing::Leased(lease) = leasing else { panic!("{claim:?}: {leasing:?}") };
        assert_eq!((lease.batch, lease.first_seq), (claim.batch, i64::from(claim.batch.no) * 10));
        let reason = [Reason::Accepted, Reason::CatchAll, Reason::MailboxFull];
        let found = findings(&lease, |seq| reason[seq as usize / 10]);
        steps.push(step(&lease, found, After::Release));
    }
    let settlement = world.settle(world.number(), &steps).await;
    let stored = |outcome: &Settled| matches!(outcome, Settled::Stored { batch_done: true, .. });
    assert!(settlement.outcomes.iter().all(stored), "{settlement:?}");
    let found = store.results(task, -1, 100, None).await.expect("results");
    let seqs: Vec<i64> = found.iter().map(|found| found.seq).collect();
    assert_eq!(seqs, (0..30).collect::<Vec<_>>());
    assert_eq!(found[12].reason, Reason::CatchAll);
    assert_eq!(store.audit_task(task).await.expect("audit"), [""; 0]);
    world.check_books().await;
}

/// As where its message was doubled, and both came in one go.
async fn a_batch_that_is_claimed_twice_at_once_is_leased_once(world: World) {
    world.grant(100).await;
    let task = world.people(10).await;
    let batch = BatchRef { task, no: 0 };
    let claims = [world.claim(batch), world.claim(batch)];
    let (store, now) = (&world.app.store, world.app.now());
    let leasings = store.lease(&claims, "here", now, now).await.expect("lease");
    let leased: Vec<(i64, &Box<Lease>)> = claims
        .iter()
        .zip(&leasings)
        .filter_map(|(claim, leasing)| match leasing {
            Leasing::Leased(lease) => Some((claim.token, lease)),
            _ => None,
        })
        .collect();
    let [(token, lease)] = leased[..] else { panic!("{leasings:?}") };
    assert_eq!(lease.token, token);
    assert_eq!(world.balance().await, 90, "held once");
    world.finish(lease, Reason::Accepted).await;
    assert_eq!(world.task(task).await.status, TaskStatus::Completed);
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
    let ours = Held::from(&lease);
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

/// A pause that has not committed yet when a worker looks at the task, and has when it takes the batch.
async fn a_pause_in_the_middle_gives_no_lease(world: World) {
    // SQLite has one writer: nothing comes in the middle.
    if !matches!(world.app.store, Store::Pg(_)) {
        return;
    }
    world.grant(100).await;
    let task = world.people(20).await;
    let mut owner = PgConnection::connect(&world.url).await.expect("PostgreSQL");
    for no in 0..2 {
        let mut pause = owner.begin().await.expect("a transaction");
        for sql in [
            "UPDATE tasks SET status = 'paused', pause_reason = 'requested' WHERE id = $1",
            "UPDATE batches SET state = 0 WHERE task_id = $1 AND state IN (0, 1)",
        ] {
            sqlx::query(sql).bind(task.0).execute(&mut *pause).await.expect(sql);
        }
        let (leasing, committed) = tokio::join!(world.try_lease(task, no), async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            pause.commit().await
        });
        committed.expect("the pause");
        assert!(matches!(leasing, Leasing::Nothing), "batch {no}: {leasing:?}");
        let still = world.task(task).await;
        let of_the_first = i64::from(no) * 10;
        assert_eq!((still.status, still.held), (TaskStatus::Paused, of_the_first));
        world.app.resume(task, world.account).await.expect("resume");
        // Queued the first time, running the second.
        world.lease(task, no).await;
    }
    world.check_books().await;
}
