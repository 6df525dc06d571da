//! Sandbox tasks: nothing is held, nothing moves, and they are in nobody's way.

use listmill_shared::domain::batch::{After, BatchRef, Room, Settled};
use listmill_shared::domain::task::TaskStatus;
use listmill_shared::domain::verdict::{Credit, Reason};
use listmill_shared::store::batches::Leasing;
use listmill_shared::store::credits::EntryFilter;
use listmill_shared::store::dispatch::Next;

use super::on_both_engines;
use super::world::{BATCH, START, TTL, World, findings, room, step};

on_both_engines!(
    cost_nothing_and_need_nothing,
    settle_beside_tasks_that_are_paid_for,
    go_on_where_the_balance_is_empty,
    are_cancelled_and_taken_back_without_an_entry,
    wait_apart_in_a_room_of_their_own,
    are_not_paused_for_want_of_a_provider,
);

async fn entries(world: &World) -> Vec<String> {
    let all = world.app.store.entries(world.account, EntryFilter::default(), None, 100).await;
    all.expect("entries").into_iter().map(|entry| entry.entry).collect()
}

async fn cost_nothing_and_need_nothing(world: World) {
    let list = "a@x.com\nbad\nunknown@x.com\nA@X.com\na@x.com\n";
    let task = world.submit_sandbox(list).await.expect("without a credit");
    let lease = world.lease(task, 0).await;
    assert!(lease.sandbox);
    assert_eq!(lease.held, 0);
    let settled = world.finish_with(&lease, |seq| match seq {
        2 => Reason::Timeout,
        _ => Reason::Accepted,
    });
    assert_eq!(settled.await, Settled::Stored { batch_done: true, task_done: true });
    let ended = world.task(task).await;
    assert!(ended.sandbox);
    assert_eq!(ended.status, TaskStatus::Completed);
    assert_eq!((ended.tally.processed(), ended.tally.unknown), (ended.submitted.unique, 1));
    assert_eq!((ended.tally.resolved(), ended.held, ended.released), (0, 0, 0));
    let results = world.app.store.results(task, -1, 10, None).await.expect("results");
    assert_eq!(results.len() as i64, ended.submitted.unique);
    assert!(results.iter().all(|found| found.credit == Credit::Free), "{results:?}");
    assert_eq!(entries(&world).await, Vec::<String>::new());
    world.check_books().await;
}

async fn settle_beside_tasks_that_are_paid_for(world: World) {
    world.grant(100).await;
    let (live, sandbox) = (world.people(BATCH).await, world.sandbox_people(BATCH).await);
    let leases = [world.lease(live, 0).await, world.lease(sandbox, 0).await];
    assert_eq!((leases[0].held, leases[1].held), (10, 0));
    assert_eq!(world.balance().await, 90);
    let found = |seq: i64| if seq < 2 { Reason::Timeout } else { Reason::Accepted };
    let steps: Vec<_> =
        leases.iter().map(|lease| step(lease, findings(lease, found), After::Release)).collect();
    let settled = world.settle(world.number(), &steps).await;
    let done = Settled::Stored { batch_done: true, task_done: true };
    assert_eq!(settled.outcomes, [done.clone(), done]);
    let (live, sandbox) = (world.task(live).await, world.task(sandbox).await);
    assert_eq!((live.tally.charged, live.tally.refunded), (8, 2));
    assert_eq!((sandbox.tally.charged, sandbox.tally.refunded), (0, 0));
    assert_eq!((sandbox.tally.deliverable, sandbox.tally.unknown), (8, 2));
    assert_eq!(world.balance().await, 92);
    world.check_books().await;
}

async fn go_on_where_the_balance_is_empty(world: World) {
    let (live, sandbox) = (world.people(BATCH).await, world.sandbox_people(BATCH).await);
    let claims = [live, sandbox].map(|task| world.claim(BatchRef { task, no: 0 }));
    let now = world.app.now();
    let leasings = world.app.store.lease(&claims, "here", now, now).await.expect("lease");
    let [Leasing::Broke, Leasing::Leased(lease)] = &leasings[..] else { panic!("{leasings:?}") };
    assert_eq!(world.task(live).await.status, TaskStatus::Paused);
    assert_eq!(world.task(sandbox).await.status, TaskStatus::Running);
    world.finish(lease, Reason::Accepted).await;
    assert_eq!(world.task(sandbox).await.status, TaskStatus::Completed);
    world.check_books().await;
}

async fn are_cancelled_and_taken_back_without_an_entry(world: World) {
    let task = world.sandbox_people(2 * BATCH).await;
    let (lost, late) = (world.lease(task, 0).await, world.lease(task, 1).await);
    let half = findings(&late, |_| Reason::Accepted)[..5].to_vec();
    let keep = step(&late, half, After::Keep);
    world.settle(world.number(), &[keep]).await;
    world.app.clock.advance(TTL + 1);
    let now = world.app.now();
    let back = world.app.store.reclaim_leases(10, now).await.expect("reclaim");
    assert_eq!(back.len(), 2);
    assert_eq!(world.finish(&lost, Reason::Accepted).await, Settled::Fenced);
    let again = world.lease(task, 1).await;
    assert_eq!((again.done.len(), again.held), (5, 0));
    let (task, settlement) = world.app.cancel(task, world.account).await.expect("cancel");
    assert_eq!(task.status, TaskStatus::Cancelled);
    let moved = (settlement.charged, settlement.refunded, settlement.released);
    assert_eq!((moved, settlement.not_processed), ((0, 0, 0), 15));
    assert_eq!(world.finish(&again, Reason::Accepted).await, Settled::Fenced);
    assert_eq!(entries(&world).await, Vec::<String>::new());
    world.check_books().await;
}

async fn wait_apart_in_a_room_of_their_own(world: World) {
    world.grant(1_000).await;
    let store = &world.app.store;
    // Submitting sends as much as there is room for: 4 batches of the one kind and 12 of the other.
    let sandbox = world.sandbox_people(20 * BATCH).await;
    let own = Room::of_sandbox(1, BATCH as i64);
    let full = store.dispatch_sandbox(own, START + TTL, START).await.expect("dispatch");
    assert_eq!((full.sent.len(), full.next), (0, Next::Full));
    let live = world.people(30 * BATCH).await;
    let full = store.dispatch(room(12), START + TTL, START).await.expect("dispatch");
    assert_eq!((full.sent.len(), full.next), (0, Next::Full));
    let round = store.dispatch(room(13), START + TTL, START).await.expect("dispatch");
    assert_eq!(round.sent.len(), 1, "nothing of the sandbox counts: {round:?}");
    assert!(round.sent.iter().all(|sent| sent.batch.task == live && !sent.sandbox), "{round:?}");
    let round = store.dispatch_sandbox(room(6), START + TTL, START).await.expect("dispatch");
    assert_eq!(round.sent.len(), 2, "nothing of the others counts: {round:?}");
    assert!(round.sent.iter().all(|sent| sent.batch.task == sandbox && sent.sandbox), "{round:?}");
    // The one kind has nothing left, and the other is still found.
    world.app.cancel(live, world.account).await.expect("cancel");
    let none = store.dispatch(room(99), START + TTL, START).await.expect("dispatch");
    assert_eq!((none.sent.len(), none.next), (0, Next::Nothing));
    let rest = store.dispatch_sandbox(room(99), START + TTL, START).await.expect("dispatch");
    assert_eq!(rest.sent.len(), 14, "{rest:?}");
    let ids = [live, sandbox];
    let among = store.sandbox_among(&ids).await.expect("which");
    assert_eq!(among.into_iter().collect::<Vec<_>>(), [sandbox]);
}

async fn are_not_paused_for_want_of_a_provider(world: World) {
    world.grant(100).await;
    let (live, _) = (world.people(BATCH).await, world.sandbox_people(BATCH).await);
    assert_eq!(world.app.store.active_tasks(10).await.expect("active"), [live]);
}
