//! Cancel is a line, also for whoever is settling or leasing at that moment.

use futures::future::join_all;
use listmill_shared::app::control::ControlError;
use listmill_shared::domain::audit::Origin;
use listmill_shared::domain::batch::{After, BatchRef, Settled};
use listmill_shared::domain::task::TaskStatus;
use listmill_shared::domain::verdict::Reason;
use listmill_shared::store::batches::Leasing;

use super::on_both_engines;
use super::world::{START, TTL, World, findings, room, step};

on_both_engines!(
    releases_holds_and_fences_everybody,
    is_a_line_while_others_settle,
    never_waits_in_a_circle_with_leases,
    an_ended_task_cannot_be_cancelled,
    erasing_keeps_the_books,
);

async fn releases_holds_and_fences_everybody(world: World) {
    world.grant(100).await;
    let task = world.people(30).await;
    let (done, partly, idle) =
        (world.lease(task, 0).await, world.lease(task, 1).await, world.lease(task, 2).await);
    world.finish(&done, Reason::Accepted).await;
    let some = findings(&partly, |_| Reason::Accepted)[..4].to_vec();
    world.settle(world.number(), &[step(&partly, some, After::Keep)]).await;
    let (cancelled, settlement) = world.app.cancel(task, world.account).await.expect("cancel");
    assert_eq!(cancelled.status, TaskStatus::Cancelled);
    assert_eq!((settlement.charged, settlement.refunded), (14, 0));
    assert_eq!((settlement.released, settlement.not_processed), (16, 16));
    assert_eq!((cancelled.held, world.balance().await), (0, 86));
    for lease in [&partly, &idle] {
        assert_eq!(world.finish(lease, Reason::Accepted).await, Settled::Fenced);
    }
    assert!(matches!(world.try_lease(task, 2).await, Leasing::Nothing));
    let (_, again) = world.app.cancel(task, world.account).await.expect("again");
    assert_eq!(again, settlement);
    assert_eq!(world.balance().await, 86);
    world.check_books().await;
}

async fn is_a_line_while_others_settle(world: World) {
    world.grant(10_000).await;
    for round in 0..10 {
        let task = world.people(80).await;
        let work = join_all((0..8).map(|no| {
            let world = &world;
            async move {
                if let Leasing::Leased(lease) = world.try_lease(task, no).await {
                    world.finish(&lease, Reason::Accepted).await;
                }
            }
        }));
        let cancel = async {
            tokio::time::sleep(std::time::Duration::from_millis(round)).await;
            let cancelled = world.app.cancel(task, world.account).await;
            (cancelled, world.balance().await)
        };
        let ((cancelled, balance), _) = futures::join!(cancel, work);
        match cancelled {
            Ok((_, settlement)) => {
                let now = world.task(task).await;
                assert_eq!((now.tally.charged, now.held), (settlement.charged, 0));
                assert_eq!(world.balance().await, balance, "no credit moves after the line");
                let results = world.app.store.results(task, -1, 100, None).await.expect("results");
                assert_eq!(results.len() as i64, settlement.charged);
            }
            Err(ControlError::WrongState(TaskStatus::Completed)) => {}
            Err(error) => panic!("{error}"),
        }
        world.check_books().await;
    }
}

/// Leases of several batches take no lock of the task: pause, dispatch and cancel have to take the
/// batches in the same order, or the database ends one of them.
async fn never_waits_in_a_circle_with_leases(world: World) {
    world.grant(100_000).await;
    for _ in 0..5 {
        let task = world.people(400).await;
        // Taken and put back from the last to the first, the rows lie in the table backwards.
        for no in (0..40).rev() {
            let lease = world.lease(task, no).await;
            world.settle(world.number(), &[step(&lease, Vec::new(), After::Release)]).await;
        }
        let leases = join_all((0..4).map(|_| async {
            for _ in 0..10 {
                let claims: Vec<_> = (0..40).map(|no| world.claim(BatchRef { task, no })).collect();
                let leasings =
                    world.app.store.lease(&claims, "here", world.app.now(), world.app.now()).await;
                for leasing in leasings.expect("lease") {
                    if let Leasing::Leased(lease) = leasing {
                        let step = step(&lease, Vec::new(), After::Release);
                        world.settle(world.number(), &[step]).await;
                    }
                }
            }
        }));
        let turns = async {
            for _ in 0..10 {
                let store = &world.app.store;
                store
                    .pause_task(task, world.account, &Origin::operator(), START)
                    .await
                    .expect("pause");
                store
                    .resume_task(task, world.account, &Origin::operator(), START)
                    .await
                    .expect("resume");
                store.dispatch(room(40), START + TTL, START).await.expect("dispatch");
            }
            world
                .app
                .store
                .cancel_task(task, world.account, &Origin::operator(), START)
                .await
                .expect("cancel");
        };
        futures::join!(leases, turns);
        world.check_books().await;
    }
}

async fn an_ended_task_cannot_be_cancelled(world: World) {
    world.grant(100).await;
    let task = world.people(5).await;
    let lease = world.lease(task, 0).await;
    world.finish(&lease, Reason::Accepted).await;
    let refused = world.app.cancel(task, world.account).await;
    assert!(matches!(refused, Err(ControlError::WrongState(TaskStatus::Completed))));
    let by = Origin::operator();
    let other = world.app.create_account("other@example.com", None, 0, false, &by).await;
    let other = other.expect("other");
    let foreign = world.app.cancel(task, other).await;
    assert!(matches!(foreign, Err(ControlError::NotFound)));
}

async fn erasing_keeps_the_books(world: World) {
    world.grant(100).await;
    let task = world.people(15).await;
    let lease = world.lease(task, 0).await;
    world.finish(&lease, Reason::Accepted).await;
    let running = world.app.erase(task, world.account).await;
    assert!(matches!(running, Err(ControlError::WrongState(TaskStatus::Running))));
    world.app.cancel(task, world.account).await.expect("cancel");
    world.app.erase(task, world.account).await.expect("erase");
    assert!(matches!(world.app.task(task, world.account).await, Err(ControlError::NotFound)));
    assert!(world.app.store.results(task, -1, 10, None).await.expect("results").is_empty());
    assert_eq!(world.balance().await, 90);
    world.check_books().await;
}
