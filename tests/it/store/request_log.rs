//! The request log on both engines: sums agree with rows whoever writes at the same time, the newest use wins,
//! nothing is written twice, what is old or too much goes.

use std::collections::BTreeMap;
use std::time::Duration;

use listmill_shared::app::request_log::RequestLog;
use listmill_shared::domain::id::{AccountId, KeyId};
use listmill_shared::domain::request::{By, DAY_MS, Decision, HOUR_MS, LastUse, Outcome};
use listmill_shared::store::request_log::{Batch, id_at};
use listmill_shared::store::usage::{Logged, Of, RequestFilter, Split, UsageFilter, Used};
use listmill_tests::{eventually, sql};

use super::on_both_engines;
use super::world::{START, World};

on_both_engines!(
    sums_agree_with_rows_whoever_writes,
    a_batch_is_written_once,
    the_newest_use_wins,
    pages_and_filters,
    what_is_old_or_too_much_goes,
    refusals_since_a_moment,
);

fn decision(world: &World, key: KeyId, at: i64, outcome: Outcome) -> Decision {
    Decision {
        at,
        account: Some(world.account),
        key: Some(key),
        outcome,
        ip: Some("192.0.2.77".parse().expect("an address")),
        route: "/v1/tasks/{id}".into(),
        method: "GET",
        status: 200,
        latency_us: 1_234,
        request_id: format!("r{at}"),
    }
}

/// Through the buffer and the writer, to the end.
async fn log(world: &World, decisions: impl IntoIterator<Item = Decision>) {
    let (log, writer) = RequestLog::new(&world.app);
    for decision in decisions {
        log.note(decision);
    }
    let writing = tokio::spawn(writer.expect("the log is on").run());
    let limit = Duration::from_secs(60);
    eventually("all is written", limit, || async { log.is_written().then_some(()) }).await;
    log.close();
    writing.await.expect("the writer ends");
    assert_eq!(log.lost(), 0);
}

fn all(by: By, split: Split) -> UsageFilter {
    UsageFilter { of: Of::Account, from: START - 10 * DAY_MS, to: START + 10 * DAY_MS, by, split }
}

async fn used(world: &World, by: By, split: Split) -> Vec<Used> {
    world.app.store.usage(world.account, &all(by, split), 10_000).await.expect("usage")
}

async fn rows(world: &World) -> Vec<Logged> {
    let filter = RequestFilter::default();
    world.app.store.requests(world.account, filter, None, 100_000).await.expect("requests")
}

async fn sums_agree_with_rows_whoever_writes(world: World) {
    const WRITERS: usize = 8;
    const EACH: usize = 900;
    let keys: Vec<KeyId> = (0..5).map(|_| KeyId::new(&world.app.ids, START)).collect();
    let writing = (0..WRITERS).map(|writer| {
        let decisions: Vec<Decision> = (0..EACH)
            .map(|i| {
                // The same keys for everybody, in another order for each.
                let key = keys[(i + writer) % keys.len()];
                let outcome = Outcome::ALL[i % 3 * 3];
                decision(&world, key, START + (i as i64 % 3) * HOUR_MS, outcome)
            })
            .collect();
        log(&world, decisions)
    });
    futures::future::join_all(writing).await;
    let rows = rows(&world).await;
    assert_eq!(rows.len(), WRITERS * EACH);
    for by in [By::Hour, By::Day] {
        let mut want: BTreeMap<(i64, KeyId, Outcome), i64> = BTreeMap::new();
        for row in &rows {
            *want
                .entry((by.start_of(row.at), row.key.expect("a key"), row.outcome))
                .or_default() += 1;
        }
        let found: BTreeMap<_, _> = used(&world, by, Split::Key)
            .await
            .into_iter()
            .map(|one| ((one.at, one.key.expect("a key"), one.outcome), one.requests))
            .collect();
        assert_eq!(found, want, "{by:?}");
    }
    let counted = "SELECT CAST(SUM(entries) AS BIGINT) FROM request_log_hours";
    assert_eq!(sql::number(&world.url, counted).await, rows.len() as i64);
    let networks = used(&world, By::Day, Split::Network).await;
    assert!(networks.iter().all(|one| one.name == "192.0.2.0/24"), "{networks:?}");
    let routes = used(&world, By::Day, Split::Route).await;
    assert!(routes.iter().all(|one| one.name == "/v1/tasks/{id}"), "{routes:?}");
}

async fn a_batch_is_written_once(world: World) {
    let store = &world.app.store;
    let key = KeyId::new(&world.app.ids, START);
    let one = decision(&world, key, START, Outcome::Scope);
    let group = listmill_shared::store::request_log::Group {
        account: world.account,
        key,
        at: By::Hour.start_of(START),
        outcome: Outcome::Scope,
        route: one.route.clone(),
        network: listmill_shared::domain::request::Network::None,
    };
    let batch = Batch {
        rows: vec![(id_at(START) + 5, one.clone())],
        counts: vec![(group.at, 1)],
        slot: 1,
        hours: vec![(group, 1)],
        days: Vec::new(),
        last: Vec::new(),
    };
    assert!(!store.has_request(id_at(START) + 5, &one).await.expect("a look"));
    store.write_requests(&batch).await.expect("written");
    let again = store.write_requests(&batch).await.expect_err("written already");
    assert!(again.is_conflict(), "{again}");
    assert!(store.has_request(id_at(START) + 5, &one).await.expect("a look"));
    let other = Decision { request_id: "another".into(), ..one };
    assert!(!store.has_request(id_at(START) + 5, &other).await.expect("a look"));
    assert_eq!(used(&world, By::Hour, Split::None).await[0].requests, 1);
}

async fn the_newest_use_wins(world: World) {
    let store = &world.app.store;
    let [key, other, never] = [(); 3].map(|()| KeyId::new(&world.app.ids, START));
    let call = |key, at, outcome, route: &str| {
        let route = route.into();
        Decision { route, ..decision(&world, key, at, outcome) }
    };
    // Within a batch, and by batches that come late; a refusal is no use.
    log(
        &world,
        [
            call(key, START + 5, Outcome::Accepted, "/new"),
            call(key, START + 4, Outcome::Accepted, "/old"),
            call(other, START, Outcome::Accepted, "/other"),
            call(never, START, Outcome::Disabled, "/never"),
        ],
    )
    .await;
    log(&world, [call(key, START + 1, Outcome::Accepted, "/late")]).await;
    log(&world, [call(key, START + 9, Outcome::RateLimit, "/refused")]).await;
    log(&world, [call(other, START + 7, Outcome::Accepted, "/newer")]).await;
    let last = store.last_used(&[key, other, never]).await.expect("last uses");
    let used = |at, route: &str| LastUse {
        at,
        ip: Some("192.0.2.77".to_owned()),
        route: route.to_owned(),
    };
    assert_eq!(last.len(), 2, "{last:?}");
    assert_eq!(last[&key], used(START + 5, "/new"));
    assert_eq!(last[&other], used(START + 7, "/newer"));
    assert!(store.last_used(&[]).await.expect("none").is_empty());
}

async fn pages_and_filters(world: World) {
    let store = &world.app.store;
    let [key, other] = [(); 2].map(|()| KeyId::new(&world.app.ids, START));
    let mut decisions = Vec::new();
    for i in 0..30 {
        let outcome = if i % 5 == 0 { Outcome::Unknown } else { Outcome::Accepted };
        let key = if i % 2 == 0 { key } else { other };
        decisions.push(decision(&world, key, START + i, outcome));
    }
    // Somebody else's, and nobody's.
    let theirs = AccountId::new(&world.app.ids, START);
    decisions.push(Decision { account: Some(theirs), ..decisions[0].clone() });
    decisions.push(Decision { account: None, key: None, ip: None, ..decisions[0].clone() });
    log(&world, decisions).await;
    let ask = async |key, outcome, before, limit| {
        let filter = RequestFilter { key, outcome };
        store.requests(world.account, filter, before, limit).await.expect("requests")
    };
    let first = ask(None, None, None, 20).await;
    let second = ask(None, None, first.last().map(|row| row.id), 20).await;
    let times: Vec<i64> = first.iter().chain(&second).map(|row| row.at - START).collect();
    assert_eq!(times, (0..30).rev().collect::<Vec<_>>(), "newest first");
    assert_eq!(first[0].request_id, format!("r{}", START + 29));
    assert_eq!((first[0].status, first[0].latency_us), (200, 1_234));
    assert_eq!(first[0].ip.as_deref(), Some("192.0.2.77"));
    assert_eq!(ask(Some(key), None, None, 50).await.len(), 15);
    assert_eq!(ask(None, Some(Outcome::Accepted), None, 50).await.len(), 24);
    assert_eq!(ask(None, Some(Outcome::Unknown), None, 50).await.len(), 6);
    assert_eq!(ask(Some(other), Some(Outcome::Unknown), None, 50).await.len(), 3);
    assert_eq!(ask(None, Some(Outcome::Scope), None, 50).await.len(), 0);
    let filter = RequestFilter::default();
    let of_theirs = store.requests(theirs, filter, None, 50).await.expect("requests");
    assert_eq!(of_theirs.len(), 1);
}

async fn what_is_old_or_too_much_goes(world: World) {
    let store = &world.app.store;
    let key = KeyId::new(&world.app.ids, START);
    let hour = By::Hour.start_of(START);
    // 40 in each of five hours, evenly spread.
    let decisions =
        (0..200).map(|i| decision(&world, key, hour + i * (HOUR_MS / 40), Outcome::Disabled));
    log(&world, decisions).await;
    let times = async || {
        let rows = rows(&world).await;
        let count = "SELECT CAST(COALESCE(SUM(entries), 0) AS BIGINT) FROM request_log_hours";
        assert_eq!(sql::number(&world.url, count).await, rows.len() as i64, "the count is right");
        rows.iter().map(|row| (row.at - hour) / (HOUR_MS / 40)).collect::<Vec<i64>>()
    };
    let expire = async |since, most| {
        while store.expire_requests(since, most).await.expect("expire") {}
    };
    expire(0, 200).await;
    assert_eq!(times().await.len(), 200, "nothing is old or too much");
    // One hour and a half are too old.
    expire(hour + 3 * HOUR_MS / 2, 1_000).await;
    assert_eq!(times().await, (60..200).rev().collect::<Vec<_>>());
    // The newest 50 stay: all of the last hour, ten of the one before.
    expire(0, 50).await;
    assert_eq!(times().await, (150..200).rev().collect::<Vec<_>>());
    assert!(!store.expire_requests(0, 50).await.expect("expire"), "it comes to rest");
    // The sums stay until they are old themselves.
    let hours = async || used(&world, By::Hour, Split::None).await.len();
    assert_eq!(hours().await, 5);
    while store.expire_usage(hour + 2 * HOUR_MS, 0).await.expect("expire") {}
    assert_eq!(hours().await, 3);
    let days = used(&world, By::Day, Split::None).await;
    assert_eq!(days.iter().map(|one| one.requests).sum::<i64>(), 200);
    while store.expire_usage(0, START + DAY_MS).await.expect("expire") {}
    assert_eq!(used(&world, By::Day, Split::None).await, []);
    // All of it.
    expire(START + DAY_MS, 50).await;
    assert_eq!(times().await, [0_i64; 0]);
    let left = "SELECT COUNT(*) FROM request_log_hours";
    assert_eq!(sql::number(&world.url, left).await, 0);
}

async fn refusals_since_a_moment(world: World) {
    let store = &world.app.store;
    let key = KeyId::new(&world.app.ids, START);
    let hour = By::Hour.start_of(START);
    let decisions = (0..60).map(|i| {
        let outcome = if i % 2 == 0 { Outcome::Unknown } else { Outcome::Accepted };
        decision(&world, key, hour + i * (HOUR_MS / 20), outcome)
    });
    log(&world, decisions).await;
    let since = async |at| store.refused_since(world.account, key, at).await.expect("a count");
    assert_eq!(since(hour).await, 30);
    assert_eq!(since(hour + 1).await, 29);
    assert_eq!(since(hour + HOUR_MS + HOUR_MS / 2).await, 15);
    assert_eq!(since(hour + 3 * HOUR_MS).await, 0);
    let theirs = AccountId::new(&world.app.ids, START);
    assert_eq!(store.refused_since(theirs, key, hour).await.expect("a count"), 0);
}
