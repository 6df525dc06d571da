//! Receiving a list: whole, or nothing of it.

use listmill_shared::app::submit::SubmitError;
use listmill_shared::domain::id::TaskId;
use listmill_shared::domain::payload::BatchEncoder;
use listmill_shared::domain::task::{Submitted, TaskStatus};
use listmill_shared::store::receive::{Accept, NewBatch, NewTask};
use listmill_shared::store::tasks::{Start, TaskFilter};
use listmill_tests::sql;

use super::on_both_engines;
use super::world::{START, World};

on_both_engines!(
    counts_and_cuts_batches,
    refuses_a_list_larger_than_the_balance,
    an_abandoned_submission_is_removed,
    what_a_crash_undoes_of_a_submission_is_missed,
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
    let tasks = world
        .app
        .store
        .tasks(world.account, TaskFilter::default(), Start::Newest, 10)
        .await
        .expect("tasks");
    assert!(tasks.is_empty(), "nothing of it is left: {tasks:?}");
    let left = world.app.store.abandoned_ingests(i64::MAX, 10).await.expect("ingests");
    assert!(left.is_empty(), "{left:?}");
    // Bad syntax costs nothing.
    world.submit("a@x.com\nb@x.com\nbad\n", false).await.expect("fits");
    world.check_books().await;
}

async fn an_abandoned_submission_is_removed(world: World) {
    let id = TaskId::new(&world.app.ids, START);
    let new = NewTask {
        id,
        account: world.account,
        created_by_key: None,
        created_by_person: None,
        sandbox: false,
    };
    world.app.store.open_task(&new, START).await.expect("open");
    assert!(world.app.task(id, world.account).await.is_err(), "nobody sees it");
    assert!(world.app.store.abandoned_ingests(START, 10).await.expect("none").is_empty());
    let found = world.app.store.abandoned_ingests(START + 1, 10).await.expect("one");
    assert_eq!(found, [id]);
    world.app.store.drop_ingest(id, START).await.expect("drop");
    // What comes late finds no task any more.
    world.app.store.receive(id, 0, &[], &[], START).await.expect_err("given up");
    assert!(world.app.store.abandoned_ingests(START + 1, 10).await.expect("none").is_empty());
    assert_eq!(world.app.store.erasures(10).await.expect("one"), [id]);
    assert!(!world.app.store.erase_slice(id).await.expect("erase"), "nothing is left");
    assert!(world.app.store.erasures(10).await.expect("none").is_empty());
}

async fn what_a_crash_undoes_of_a_submission_is_missed(world: World) {
    let (store, id) = (&world.app.store, TaskId::new(&world.app.ids, START));
    let new = NewTask {
        id,
        account: world.account,
        created_by_key: None,
        created_by_person: None,
        sandbox: false,
    };
    store.open_task(&new, START).await.expect("open");
    let batch = |no: i32| {
        let mut encoder = BatchEncoder::new().expect("encoder");
        encoder.push("kate@example.com", true, None);
        let payload = encoder.finish().expect("payload");
        NewBatch { no, first_seq: no.into(), addresses: 1, chargeable: 1, payload }
    };
    store.receive(id, 0, &[batch(0)], &[], START).await.expect("stored");
    store.receive(id, 1, &[batch(1)], &[], START).await.expect("stored");
    // The last transaction had not reached the disk.
    sql::execute(&world.url, "DELETE FROM batches WHERE no = 1").await;
    sql::execute(&world.url, "UPDATE tasks SET batches = 1").await;
    store.receive(id, 2, &[batch(2)], &[], START).await.expect_err("there is a gap");
    let accept = Accept {
        key_reserved: None,
        name: None,
        submitted: Submitted { submitted: 2, unique: 2, ..Submitted::default() },
        batches: 2,
        stored: 2,
        header: None,
        delimiter: b',',
        bom: false,
        crlf: true,
    };
    let mut tx = store.begin().await.expect("begin");
    store.accept_task(&mut tx, id, &accept, START).await.expect_err("something is missing");
}
