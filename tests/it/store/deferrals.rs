//! Addresses set aside cost nothing and hold nothing until they are due; a task ends with the last.

use listmill_shared::domain::batch::{After, BatchRef, Deferral, Lease, Settled};
use listmill_shared::domain::id::TaskId;
use listmill_shared::domain::task::{PauseReason, TaskStatus};
use listmill_shared::domain::verdict::Reason;
use listmill_shared::store::batches::Leasing;

use super::on_both_engines;
use super::world::{BATCH, START, TTL, World, findings, step};

on_both_engines!(
    gives_the_credit_back_and_holds_it_again_when_due,
    a_waiting_batch_leaves_the_window_to_others,
    a_step_that_sets_aside_applies_once,
    survives_the_loss_of_its_worker,
    what_is_due_soon_is_leased_along,
    cancel_ends_what_waits,
    a_paused_task_is_not_woken,
    its_own_source_comes_first,
    an_empty_balance_is_not_mistaken_for_free_work,
    tasks_wait_for_a_provider_and_go_on,
);

/// Settles all of a lease but these `seq`s, which are set aside until `due_at`.
async fn set_aside(world: &World, lease: &Lease, seqs: &[i64], due_at: i64) -> Settled {
    let mut found = findings(lease, |_| Reason::Accepted);
    found.retain(|finding| !seqs.contains(&finding.seq));
    let mut step = step(lease, found, After::Wait(due_at));
    step.deferrals = seqs.iter().map(|&seq| Deferral { seq, attempts: 1, due_at }).collect();
    world.settle(world.number(), &[step]).await.outcomes.remove(0)
}

/// Wakes as the worker that did it would.
async fn wake(world: &World, source: &str) -> Vec<BatchRef> {
    let now = world.app.now();
    world.app.store.wake(source, now - 60_000, 100, now + TTL, now).await.expect("wake")
}

/// A task of 10 addresses, the last two of which are due in a minute.
async fn with_two_aside(world: &World) -> TaskId {
    let task = world.people(10).await;
    let lease = world.lease(task, 0).await;
    let settled = set_aside(world, &lease, &[8, 9], START + 60_000).await;
    assert_eq!(settled, Settled::Stored { batch_done: false, task_done: false });
    task
}

async fn gives_the_credit_back_and_holds_it_again_when_due(world: World) {
    world.grant(100).await;
    let task = with_two_aside(&world).await;
    let now = world.task(task).await;
    assert_eq!((now.tally.processed(), now.held, world.balance().await), (8, 0, 92));
    let aside = world.app.store.set_aside(task).await.expect("set aside");
    assert_eq!(aside, (2, Some(START + 60_000)));
    world.check_books().await;
    assert!(wake(&world, "here").await.is_empty(), "not due");
    assert!(matches!(world.try_lease(task, 0).await, Leasing::Nothing), "a stale message");
    world.app.clock.advance(60_000);
    assert_eq!(wake(&world, "here").await, [BatchRef { task, no: 0 }]);
    let lease = world.lease(task, 0).await;
    assert_eq!((lease.held, lease.done.len(), world.balance().await), (2, 8, 90));
    let attempts: Vec<_> = lease.deferred.iter().map(|one| (one.seq, one.attempts)).collect();
    assert_eq!(attempts, [(8, 1), (9, 1)]);
    // One has its verdict, the other is set aside once more.
    let settled = set_aside(&world, &lease, &[9], START + 400_000).await;
    assert_eq!(settled, Settled::Stored { batch_done: false, task_done: false });
    assert_eq!((world.task(task).await.tally.charged, world.balance().await), (9, 91));
    world.check_books().await;
    world.app.clock.advance(340_000);
    assert_eq!(wake(&world, "here").await.len(), 1);
    let lease = world.lease(task, 0).await;
    assert_eq!(lease.held, 1);
    let settled = world.finish(&lease, Reason::Greylisted).await;
    assert_eq!(settled, Settled::Stored { batch_done: true, task_done: true });
    let ended = world.task(task).await;
    assert_eq!((ended.status, ended.tally.refunded), (TaskStatus::Completed, 1));
    assert_eq!(world.app.store.set_aside(task).await.expect("set aside"), (0, None));
    assert_eq!(world.balance().await, 91);
    world.check_books().await;
}

async fn a_waiting_batch_leaves_the_window_to_others(world: World) {
    world.grant(1_000).await;
    let window = world.app.room().await.expect("room");
    let first = (window.addresses / window.batch) as i32;
    let task = world.people((first as usize + 8) * BATCH).await;
    for no in 0..first {
        let lease = world.lease(task, no).await;
        let seqs: Vec<i64> = (lease.first_seq..lease.first_seq + 10).collect();
        set_aside(&world, &lease, &seqs, START + 60_000).await;
    }
    let round = world.app.store.dispatch(window, START + TTL, START).await.expect("dispatch");
    let sent: Vec<i32> = round.sent.iter().map(|sent| sent.batch.no).collect();
    assert_eq!(sent, (first..first + 8).collect::<Vec<_>>());
    assert_eq!((world.task(task).await.held, world.balance().await), (0, 1_000));
    world.check_books().await;
}

async fn a_step_that_sets_aside_applies_once(world: World) {
    world.grant(100).await;
    let task = world.people(10).await;
    let lease = world.lease(task, 0).await;
    let aside = |after| {
        let mut step = step(&lease, Vec::new(), after);
        step.deferrals = vec![Deferral { seq: 3, attempts: 1, due_at: START + 60_000 }];
        step
    };
    let number = world.number();
    for _ in 0..2 {
        world.settle(number, &[aside(After::Keep)]).await;
        assert_eq!((world.task(task).await.held, world.balance().await), (9, 91));
        world.check_books().await;
    }
    let mut foreign = aside(After::Keep);
    foreign.token += 1;
    let settled = world.settle(world.number(), &[foreign]).await;
    assert_eq!(settled.outcomes, [Settled::Fenced]);
    assert_eq!(world.balance().await, 91);
}

async fn survives_the_loss_of_its_worker(world: World) {
    world.grant(100).await;
    let task = world.people(10).await;
    let lease = world.lease(task, 0).await;
    let mut keep = step(&lease, Vec::new(), After::Keep);
    keep.deferrals = vec![Deferral { seq: 3, attempts: 1, due_at: START + 120_000 }];
    world.settle(world.number(), &[keep]).await;
    // The worker is gone; its lease runs out, and another takes the batch.
    world.app.clock.advance(TTL + 1);
    let now = world.app.now();
    let back = world.app.store.reclaim_leases(10, now).await.expect("reclaim");
    assert_eq!((back.len(), world.balance().await), (1, 100));
    let lease = world.lease(task, 0).await;
    assert_eq!((lease.held, lease.deferred.len()), (9, 1), "not before it is due");
    assert_eq!(findings(&lease, |_| Reason::Accepted).len(), 9);
    assert_eq!(
        world.finish(&lease, Reason::Accepted).await,
        Settled::Stored { batch_done: false, task_done: false }
    );
    world.check_books().await;
}

async fn what_is_due_soon_is_leased_along(world: World) {
    world.grant(100).await;
    let task = world.people(10).await;
    let lease = world.lease(task, 0).await;
    let mut put_off = step(&lease, Vec::new(), After::Wait(START + 10_000));
    let due = |seq| Deferral { seq, attempts: 0, due_at: START + 10_000 * (seq + 1) };
    put_off.deferrals = (0..10).map(due).collect();
    world.settle(world.number(), &[put_off]).await;
    assert_eq!(world.balance().await, 100);
    world.app.clock.advance(10_000);
    let now = world.app.now();
    let woken = wake(&world, "here").await;
    let claims: Vec<_> = woken.into_iter().map(|batch| world.claim(batch)).collect();
    let leased = world.app.store.lease(&claims, "here", now + 30_000, now).await.expect("lease");
    let [Leasing::Leased(lease)] = &leased[..] else { panic!("{leased:?}") };
    assert_eq!((lease.held, lease.horizon, world.balance().await), (4, now + 30_000, 96));
    assert_eq!(lease.deferred, (0..10).map(due).collect::<Vec<_>>());
    world.settle(world.number(), &[step(lease, Vec::new(), After::Release)]).await;
    assert_eq!(world.balance().await, 100, "who was not asked costs nothing");
    world.check_books().await;
}

async fn cancel_ends_what_waits(world: World) {
    world.grant(100).await;
    let task = with_two_aside(&world).await;
    let (cancelled, settlement) = world.app.cancel(task, world.account).await.expect("cancel");
    assert_eq!((cancelled.status, settlement.charged), (TaskStatus::Cancelled, 8));
    assert_eq!((settlement.not_processed, settlement.released), (2, 0));
    world.app.clock.advance(120_000);
    assert!(wake(&world, "here").await.is_empty());
    assert!(matches!(world.try_lease(task, 0).await, Leasing::Nothing));
    assert_eq!(world.app.store.set_aside(task).await.expect("set aside"), (0, None));
    assert_eq!(world.balance().await, 92);
    world.check_books().await;
}

async fn a_paused_task_is_not_woken(world: World) {
    world.grant(100).await;
    let task = with_two_aside(&world).await;
    world.app.pause(task, world.account).await.expect("pause");
    world.app.clock.advance(60_000);
    assert!(wake(&world, "here").await.is_empty());
    world.app.resume(task, world.account).await.expect("resume");
    // It was due meanwhile: it is sent with the others of its task.
    let room = world.app.room().await.expect("room");
    let out = world.app.store.dispatch(room, START, START).await.expect("dispatch");
    assert!(out.sent.is_empty() && wake(&world, "here").await.is_empty(), "sent once");
    assert_eq!(world.lease(task, 0).await.held, 2);
}

async fn its_own_source_comes_first(world: World) {
    world.grant(100).await;
    with_two_aside(&world).await;
    world.app.clock.advance(60_000);
    assert!(wake(&world, "elsewhere").await.is_empty());
    world.app.clock.advance(60_001);
    assert_eq!(wake(&world, "elsewhere").await.len(), 1, "its worker does not come back");
}

async fn an_empty_balance_is_not_mistaken_for_free_work(world: World) {
    world.grant(8).await;
    let list: String = (0..10).map(|i| format!("person{i}@example.com\n")).collect();
    let task = world.submit(&list, true).await.expect("a task");
    let lease = world.lease(task, 0).await;
    assert_eq!(lease.held, 8);
    let found = findings(&lease, |_| Reason::Accepted)[..7].to_vec();
    let mut release = step(&lease, found, After::Release);
    release.deferrals = vec![Deferral { seq: 7, attempts: 1, due_at: START + 60_000 }];
    world.settle(world.number(), &[release]).await;
    let lease = world.lease(task, 0).await;
    assert_eq!((lease.held, world.balance().await), (1, 0), "one credit, two addresses to go");
    let found = findings(&lease, |_| Reason::Accepted);
    assert_eq!(found.iter().map(|f| f.seq).collect::<Vec<_>>(), [8]);
    world.settle(world.number(), &[step(&lease, found, After::Release)]).await;
    assert!(matches!(world.try_lease(task, 0).await, Leasing::Broke));
    assert_eq!(world.task(task).await.pause_reason, Some(PauseReason::InsufficientCredits));
    world.check_books().await;
}

async fn tasks_wait_for_a_provider_and_go_on(world: World) {
    world.grant(100).await;
    let (task, asked) = (world.people(10).await, world.people(10).await);
    world.app.pause(asked, world.account).await.expect("pause");
    let store = &world.app.store;
    let reason = PauseReason::ProviderUnavailable;
    assert_eq!(store.active_tasks(10).await.expect("active"), [task]);
    for _ in 0..2 {
        store.pause_for(task, reason, START).await.expect("pause");
        assert_eq!(world.task(task).await.pause_reason, Some(reason));
    }
    store.pause_for(asked, reason, START).await.expect("pause");
    assert_eq!(world.task(asked).await.pause_reason, Some(PauseReason::Requested));
    assert_eq!(
        store.resume_all(PauseReason::ProviderUnavailable, 10, START).await.expect("resume"),
        1
    );
    assert_eq!(world.task(task).await.status, TaskStatus::Queued);
    assert_eq!(world.task(asked).await.status, TaskStatus::Paused);
}
