//! What must happen once however often it is asked: charges under an `Idempotency-Key`, migrations, the end of
//! a task; and what a batch remembers of leases that ended without a word.

use futures::future::join_all;
use listmill_shared::app::submit::read::{Format, Said};
use listmill_shared::app::submit::{Accepted, Submission};
use listmill_shared::domain::batch::{After, Held, LOST_ALONE};
use listmill_shared::domain::id::CheckId;
use listmill_shared::domain::task::TaskStatus;
use listmill_shared::domain::verdict::Reason;
use listmill_shared::store::Store;
use listmill_shared::store::checks::{Answered, Check, Closed, Opened};
use listmill_shared::store::idempotency::RequestKey;
use listmill_shared::store::sweep::Ended;
use listmill_tests::postgres::Postgres;
use listmill_tests::{random, scratch};

use super::on_both_engines;
use super::world::{START, World, findings, step};

on_both_engines!(
    a_charge_and_its_answer_are_one,
    who_lost_the_place_of_a_request_charges_nothing,
    an_old_idempotency_key_is_as_good_as_new,
    a_cancelled_task_does_not_fail,
    leases_lost_in_a_row_are_counted,
);

const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;

fn request(world: &World) -> RequestKey {
    let (route, key) = (String::from("POST /v1/verifications"), String::from("k"));
    RequestKey { account: world.account, route, key }
}

/// Takes the request's place, over one that has had no answer for ten minutes.
async fn reserve(world: &World, salt: &[u8]) -> bool {
    let (store, now) = (&world.app.store, world.app.now());
    let (request, dead) = (request(world), now - 10 * MINUTE);
    store.reserve_answer(&request, b"f", salt, now, now - DAY, dead).await.expect("reserve")
}

async fn open(world: &World) -> Check {
    let now = world.app.now();
    let id = CheckId::new(&world.app.ids, now);
    let check = Check {
        id,
        account: world.account,
        step: world.number(),
        key: None,
        key_limited: false,
        fill: false,
    };
    assert_eq!(
        world.app.store.open_check(check, now + 60 * MINUTE, now).await.expect("open"),
        Opened::Held
    );
    check
}

async fn close(world: &World, check: Check, salt: &[u8]) -> Closed {
    let request = request(world);
    let answered = Answered { request: &request, salt, status: 200, body: "{}" };
    let closing = world.app.store.close_check_with(check, true, Some(answered), world.app.now());
    closing.await.expect("close")
}

async fn a_charge_and_its_answer_are_one(world: World) {
    world.grant(5).await;
    assert!(reserve(&world, b"one").await);
    let check = open(&world).await;
    assert_eq!(close(&world, check, b"one").await, Closed::Done);
    assert_eq!(world.balance().await, 4);
    let kept = world.app.store.remembered(&request(&world), START - DAY).await.expect("kept");
    assert_eq!(kept.and_then(|kept| kept.status), Some(200));
    // The process dies before its client hears of it; the client asks again, much later.
    world.app.clock.advance(11 * MINUTE);
    assert!(!reserve(&world, b"two").await, "it has its answer");
    world.check_books().await;
}

async fn who_lost_the_place_of_a_request_charges_nothing(world: World) {
    world.grant(5).await;
    assert!(reserve(&world, b"one").await);
    let frozen = open(&world).await;
    world.app.clock.advance(11 * MINUTE);
    assert!(reserve(&world, b"two").await, "the first counts as dead");
    assert_eq!(close(&world, frozen, b"one").await, Closed::Fenced);
    assert_eq!(world.balance().await, 5, "its credit went back");
    let second = open(&world).await;
    assert_eq!(close(&world, second, b"two").await, Closed::Done);
    assert_eq!(world.balance().await, 4, "charged once");
    world.check_books().await;
}

async fn submit(world: &World) -> Accepted {
    let route = String::from("POST /v1/tasks");
    let request = RequestKey { account: world.account, route, key: String::from("k") };
    let submission = Submission {
        account: world.account,
        key: None,
        by: None,
        key_limited: false,
        sandbox: false,
        format: Format::Text,
        said: Said::default(),
        gzip: false,
        allow_invalid: true,
        name: None,
        allow_partial: false,
        dry_run: false,
        idempotency: Some((request, String::new())),
        answer: |_, _, _| (201, String::new()),
    };
    let body = futures::stream::iter([Ok("anna@example.com\n".to_owned().into())]);
    world.app.submit(submission, body).await.expect("a task")
}

async fn an_old_idempotency_key_is_as_good_as_new(world: World) {
    world.grant(5).await;
    let is_new = |accepted: &Accepted| matches!(accepted, Accepted::Task { replayed: false, .. });
    assert!(is_new(&submit(&world).await));
    assert!(!is_new(&submit(&world).await), "the first answer again");
    // Forgotten, and not yet removed.
    world.app.clock.advance(DAY + 5_000);
    assert!(is_new(&submit(&world).await));
}

async fn a_cancelled_task_does_not_fail(world: World) {
    world.grant(100).await;
    let task = world.people(20).await;
    world.lease(task, 0).await;
    world.app.cancel(task, world.account).await.expect("cancel");
    world.app.store.fail_task(task, world.account, START).await.expect("no fault");
    assert_eq!(world.task(task).await.status, TaskStatus::Cancelled);
    let other = world.people(20).await;
    world.lease(other, 0).await;
    world.app.store.fail_task(other, world.account, START).await.expect("fail");
    assert_eq!(world.task(other).await.status, TaskStatus::Failed);
    assert_eq!(world.balance().await, 100);
    world.check_books().await;
}

async fn leases_lost_in_a_row_are_counted(world: World) {
    world.grant(100).await;
    let task = world.people(10).await;
    for lost in 0..LOST_ALONE {
        let lease = world.lease(task, 0).await;
        assert_eq!(lease.lost, lost);
        let ended =
            Ended { task_id: task, no: 0, lease_token: lease.token, account_id: world.account };
        let store = &world.app.store;
        assert!(store.take_back(&ended, START).await.expect("take back"));
        assert!(!store.take_back(&ended, START).await.expect("once"));
        assert_eq!(world.balance().await, 100);
    }
    // From now on it counts only what began: what waits to be alone says nothing by falling silent.
    for (begins, lost) in [(false, LOST_ALONE), (true, LOST_ALONE), (false, LOST_ALONE + 1)] {
        let lease = world.lease(task, 0).await;
        assert_eq!(lease.lost, lost);
        let held = Held::from(&lease);
        let store = &world.app.store;
        if begins {
            assert!(store.begin_alone(held, lost).await.expect("begin"));
        }
        let ended =
            Ended { task_id: task, no: 0, lease_token: lease.token, account_id: world.account };
        assert!(store.take_back(&ended, START).await.expect("take back"));
        assert!(!store.begin_alone(held, lost).await.expect("its lease is over"));
    }
    let suspect = world.lease(task, 0).await;
    assert_eq!(suspect.lost, LOST_ALONE + 1);
    // What it got done is kept; it stays under suspicion until it is done.
    let some = findings(&suspect, |_| Reason::Accepted)[..4].to_vec();
    world.settle(world.number(), &[step(&suspect, some, After::Release)]).await;
    let next = world.lease(task, 0).await;
    assert_eq!((next.lost, next.done.len(), next.held), (LOST_ALONE, 4, 6));
    world.finish(&next, Reason::Accepted).await;
    assert_eq!(world.task(task).await.status, TaskStatus::Completed);
    world.check_books().await;
}

async fn migrate_at_once(url: &str) {
    let migrations = (0..6).map(|_| async {
        let store = Store::connect(url, 2, "listmill test").await.expect("the database");
        store.migrate().await.expect("migrate");
        store.check_schema().await.expect("the schema");
    });
    join_all(migrations).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_migrate_a_new_file_at_once() {
    for _ in 0..5 {
        let path = scratch::folder("migrate").join("listmill.db");
        migrate_at_once(&format!("sqlite://{}", path.display())).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_migrate_a_new_database_at_once() {
    let server = Postgres::shared().await;
    let name = format!("migrate_{:016x}", random::Random::fresh().number());
    server.execute(format!("CREATE DATABASE {name}")).await;
    migrate_at_once(&server.url(&name)).await;
}
