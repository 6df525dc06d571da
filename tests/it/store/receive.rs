//! Receiving a list: whole, or nothing of it.

use listmill_shared::app::submit::SubmitError;
use listmill_shared::domain::task::TaskStatus;
use listmill_shared::store::tasks::NewTask;

use super::on_both_engines;
use super::world::{START, World};

on_both_engines!(
    counts_and_cuts_batches,
    refuses_a_list_larger_than_the_balance,
    an_abandoned_submission_is_removed,
);

async fn counts_and_cuts_batches(world: World) {
    world.grant(100).await;
    let list = "a@example.com\nA@example.com\na@EXAMPLE.com\nnot an address\nb@example.com\n";
    let task = world.task(world.submit(list, false).await.expect("task")).await;
    assert_eq!(task.status, TaskStatus::Queued);
    let counts = task.submitted;
    // The local part is exact, the domain is not; bad syntax is an address too.
    assert_eq!((counts.submitted, counts.unique), (5, 4));
    assert_eq!((counts.duplicates, counts.invalid_syntax), (1, 1));
    let big = world.people(35).await;
    assert_eq!(world.task(big).await.batches, 4);
    world.check_books().await;
}

async fn refuses_a_list_larger_than_the_balance(world: World) {
    world.grant(2).await;
    let refused = world.submit("a@x.com\nb@x.com\nc@x.com\nbad\n", false).await;
    assert!(
        matches!(refused, Err(SubmitError::Insufficient { needed: 3, balance: 2 })),
        "{refused:?}"
    );
    assert_eq!(world.balance().await, 2);
    let tasks = world.app.store.tasks(world.account, None, None, 10).await.expect("tasks");
    assert!(tasks.is_empty(), "nothing of it is left: {tasks:?}");
    let left = world.app.store.abandoned_ingests(i64::MAX, 10).await.expect("ingests");
    assert!(left.is_empty(), "{left:?}");
    // Bad syntax costs nothing.
    world.submit("a@x.com\nb@x.com\nbad\n", false).await.expect("fits");
    world.check_books().await;
}

async fn an_abandoned_submission_is_removed(world: World) {
    let id = listmill_shared::domain::id::TaskId::new(&world.app.ids, START);
    let new = NewTask { id, account: world.account, created_by_key: None };
    world.app.store.open_task(&new, START).await.expect("open");
    assert!(world.app.task(id, world.account).await.is_err(), "nobody sees it");
    assert!(world.app.store.abandoned_ingests(START, 10).await.expect("none").is_empty());
    let found = world.app.store.abandoned_ingests(START + 1, 10).await.expect("one");
    assert_eq!(found, [id]);
    world.app.store.drop_ingest(id).await.expect("drop");
    // What comes late finds no task any more.
    world.app.store.store_blocks(id, &[], START).await.expect_err("gone");
}
