//! What operators look up over all accounts: pages in order, nothing twice, nothing left out.

use listmill_shared::app::credits::AccountError;
use listmill_shared::app::operators::Failures;
use listmill_shared::domain::audit::Origin;
use listmill_shared::domain::batch::Capacity;
use listmill_shared::domain::id::KeyId;
use listmill_shared::domain::key::{Key, KeyHash, Suspension};
use listmill_shared::domain::ledger::Kind;
use listmill_shared::domain::verdict::Reason;
use listmill_shared::store::key_edits::Hashed;
use listmill_shared::store::operators::KeySearch;
use listmill_shared::store::workers::Report;

use super::on_both_engines;
use super::world::{BATCH, START, World};

on_both_engines!(
    accounts_are_found_by_the_beginning_of_their_email,
    keys_are_found_whosever_they_are,
    figures_are_what_is_there,
    failures_are_told,
    what_cannot_be_is_refused,
);

const HOUR: i64 = 3_600_000;

async fn make_key(world: &World, label: &str, given: Option<&str>) -> Key {
    let id = KeyId::new(&world.app.ids, START);
    let start = String::from(if given.is_some() { "VECgiven" } else { "VECabcde" });
    let mut key = Key::new(id, world.account, start, label.to_owned(), START);
    key.external_id = given.map(str::to_owned);
    let mut hash: KeyHash = [0; 32];
    hash[..16].copy_from_slice(id.0.as_bytes());
    let hashed = Hashed { hash: &hash, pepper: "p" };
    world.app.store.create_key(&key, hashed, &Origin::operator()).await.expect("a key");
    key
}

async fn accounts_are_found_by_the_beginning_of_their_email(world: World) {
    let by = Origin::operator();
    for email in ["Ada@example.com", "ada_b@example.com", "adb@Example.com"] {
        world.app.create_account(email, None, 5, false, &by).await.expect("an account");
    }
    let twice = world.app.create_account("ADA@example.com", None, 5, false, &by).await;
    assert!(matches!(twice, Err(AccountError::Taken)), "{twice:?}");
    for email in ["ada@example.com", "ADA@Example.com"] {
        let found = world.app.store.account_by_email(email).await.expect("asked");
        assert!(found.is_some(), "{email}");
    }
    world.people(5).await;
    let emails = async |prefix: &str| {
        let (mut all, mut cursor) = (Vec::new(), None);
        loop {
            let page =
                world.app.store.accounts(prefix, cursor.as_deref(), 2).await.expect("a page");
            let Some(last) = page.last() else { return all };
            cursor = Some(last.email.clone());
            all.extend(page.into_iter().map(|account| account.email));
        }
    };
    assert_eq!(emails("ada").await, ["ada@example.com", "ada_b@example.com"]);
    assert_eq!(emails("ADB").await, ["adb@example.com"]);
    assert_eq!(emails("").await.len(), 4);
    assert!(emails("nobody").await.is_empty());
    let own = world.app.store.account(world.account).await.expect("asked").expect("there");
    assert_eq!((own.open_tasks, own.weight, own.active_at), (1, 1, Some(START)));
    let rows = world.app.store.accounts("ada@", None, 9).await.expect("a page");
    assert_eq!((rows[0].balance, rows[0].open_tasks, rows[0].active_at), (5, 0, None));
    assert_eq!(world.app.store.count_accounts(3).await.expect("a count"), 3);
}

async fn keys_are_found_whosever_they_are(world: World) {
    let mut made = Vec::new();
    for label in ["same", "same", "same", "sane", "Same"] {
        made.push(make_key(&world, label, None).await);
    }
    made.push(make_key(&world, "given", Some("customer 7")).await);
    let find = async |search: &KeySearch| {
        let (mut all, mut last) = (Vec::new(), None);
        loop {
            let store = &world.app.store;
            let page = store.search_all_keys(search, last.as_ref(), 2).await.expect("a page");
            let done = page.len() < 2;
            last = page.last().cloned();
            all.extend(page.into_iter().map(|key| key.id));
            if done {
                return all;
            }
        }
    };
    let ids = |keys: &[Key]| keys.iter().map(|key| key.id).collect::<Vec<_>>();
    let sorted = |mut ids: Vec<KeyId>| {
        ids.sort();
        ids
    };
    let label = |text: &str| KeySearch::Label(text.to_owned());
    assert_eq!(sorted(find(&label("sam")).await), sorted(ids(&made[..3])));
    assert_eq!(find(&label("sa")).await.len(), 4);
    assert_eq!(find(&label("sane")).await, ids(&made[3..4]));
    assert_eq!(find(&KeySearch::Start(String::from("VECabc"))).await.len(), 5);
    assert_eq!(find(&KeySearch::Start(String::from("VECz"))).await.len(), 0);
    let given = KeySearch::ExternalId(String::from("customer 7"));
    assert_eq!(find(&given).await, ids(&made[5..]));
    let newest: Vec<KeyId> = sorted(ids(&made)).into_iter().rev().collect();
    assert_eq!(find(&KeySearch::All).await, newest);
    assert_eq!(find(&KeySearch::Account(world.account)).await, newest);
    let one = world.app.store.search_all_keys(&KeySearch::Id(made[1].id), None, 9).await;
    assert_eq!(ids(&one.expect("found")), ids(&made[1..2]));
}

async fn figures_are_what_is_there(world: World) {
    world.grant(100).await;
    let task = world.people(3 * BATCH).await;
    let store = &world.app.store;
    let capacity = Capacity { concurrency: 8, pace: 5 };
    let report = Report { verified: 30, version: "1.2.3", leases: 2, ..Report::of("a", capacity) };
    store.worker_seen(&report, START - HOUR).await.expect("seen");
    store.worker_seen(&report, START).await.expect("seen");
    store
        .worker_seen(&Report { verified: 4, ..Report::of("b", capacity) }, START)
        .await
        .expect("seen");
    let workers = store.workers().await.expect("workers");
    assert_eq!((workers.len(), workers[0].version.as_str(), workers[0].leases), (2, "1.2.3", 2));
    world.lease(task, 0).await;
    let seen = world.app.overview().await.expect("figures");
    assert_eq!(seen.accounts, 1);
    assert_eq!(seen.verified.len(), 25);
    assert_eq!(seen.verified[23].1, 30);
    assert_eq!(seen.verified[24].1, 34);
    let (batches, open) = (seen.batches, &seen.unended);
    assert_eq!(batches.pending + batches.queued + batches.leased, 3, "{batches:?}");
    assert_eq!(batches.leased, 1);
    assert_eq!(open.iter().map(|(.., count)| count).sum::<i64>(), 1, "{open:?}");
    assert_eq!(seen.day.iter().map(|(_, count)| count).sum::<i64>(), 1);
    assert_eq!(seen.workers, (2, 2));
    assert!(seen.refusals.is_empty() && seen.stuck.is_empty() && seen.answers.is_none());
    let leased = store.leases_by_source().await.expect("leases");
    assert_eq!((leased.len(), leased[0].source.as_str(), leased[0].leases), (1, "here", 1));
    // What was verified long ago is forgotten with the workers.
    store.forget_workers(START + 9 * 24 * HOUR).await.expect("forget");
    assert!(store.workers().await.expect("workers").is_empty());
    assert!(store.verified_since(0).await.expect("hours").is_empty());
}

async fn failures_are_told(world: World) {
    world.grant(100).await;
    let task = world.people(2 * BATCH).await;
    let (good, bad) = (world.lease(task, 0).await, world.lease(task, 1).await);
    world.finish(&good, Reason::Accepted).await;
    let Failures { results, tasks } = world.app.failures().await.expect("failures");
    assert!(results.is_empty() && tasks.is_empty());
    let failed = bad.first_seq + 3;
    let verdict = |seq| if seq == failed { Reason::InternalError } else { Reason::Accepted };
    world.finish_with(&bad, verdict).await;
    let found = world.app.failures().await.expect("failures").results;
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].task, found[0].seq, found[0].account), (task, failed, world.account));
    world.check_books().await;
}

async fn what_cannot_be_is_refused(world: World) {
    let (app, by) = (&world.app, Origin::operator());
    let key = make_key(&world, "k", None).await;
    let suspension = |reason: &str, until| Suspension {
        reason: reason.to_owned(),
        until,
        note: Some(String::from(" ")),
    };
    for wrong in [suspension(" ", None), suspension("abuse", Some(START))] {
        assert!(app.suspend_key(key.id, wrong, &by).await.is_err());
    }
    let suspended = app.suspend_key(key.id, suspension(" abuse ", None), &by).await.expect("done");
    let kept = suspended.key.suspended.expect("suspended");
    assert_eq!((kept.reason.as_str(), kept.note), ("abuse", None));
    assert!(app.block_network("nonsense", None, None, &by).await.is_err());
    assert!(app.block_network("10.1.2.3/8", None, Some(START), &by).await.is_err());
    let blocked = app.block_network("10.1.2.3/8", None, Some(START + 1), &by).await;
    assert_eq!(blocked.expect("blocked"), (String::from("10.0.0.0/8"), true));
    let lifted = app.unblock_network(" 10.0.0.0/8", None, &by).await;
    assert_eq!(lifted.expect("lifted"), (String::from("10.0.0.0/8"), true));
    for amount in [0, -1, i64::MIN] {
        assert!(app.book(world.account, Kind::Email, amount, None, &by).await.is_err());
    }
    assert_eq!(app.book(world.account, Kind::Phone, 7, None, &by).await.expect("booked"), 7);
    world.check_books().await;
}
