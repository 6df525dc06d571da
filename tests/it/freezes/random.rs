//! Anybody stopped at any moment for a random while, over and over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use listmill_tests::client::{parse, try_send};
use listmill_tests::freeze::{Frozen, stop_a_backend, stop_inside_a_transaction};
use listmill_tests::random::Random;
use listmill_tests::{Client, Deployment, Weight, lists, sql};
use reqwest::Method;
use serde_json::json;

use super::{LIMIT, number, setup};

const ADDRESSES: u64 = 20_000;
const WORKERS: usize = 3;

/// What an operator may set, whatever the product asks for: sessions of who is stopped are ended.
async fn end_idle_transactions(app: &Deployment) {
    let url = app.database_url();
    sql::execute(&url, "ALTER SYSTEM SET idle_in_transaction_session_timeout = '2s'").await;
    sql::execute(&url, "SELECT pg_reload_conf()").await;
}

#[derive(Debug, Clone, Copy)]
enum Victim {
    Worker(usize),
    /// With rows locked, if it is caught at it.
    WorkerInside(usize),
    Api,
    Redis,
    Backend,
}

fn victim(random: &mut Random) -> Victim {
    let worker = random.index(WORKERS);
    match random.below(8) {
        0 => Victim::Worker(worker),
        1..=3 => Victim::WorkerInside(worker),
        4 => Victim::Api,
        5 => Victim::Redis,
        _ => Victim::Backend,
    }
}

async fn stop(app: &mut Deployment, victim: Victim, random: &mut Random) -> Frozen {
    match victim {
        Victim::Worker(which) => Frozen::stop(app.workers[which].process.pid()),
        Victim::WorkerInside(which) => {
            let process = &app.workers[which].process;
            let inside = stop_inside_a_transaction(app, process, random).await;
            inside.map_or_else(|| Frozen::stop(process.pid()), |(frozen, _)| frozen)
        }
        Victim::Api => Frozen::stop(app.apis[0].process.pid()),
        Victim::Redis => Frozen::stop(app.redis().pid()),
        Victim::Backend => stop_a_backend(app, random).await,
    }
}

/// One task after another, at least three, until there is enough. A submission may fail under way.
async fn keep_busy(client: Client, enough: Arc<AtomicBool>) {
    const LEAST: usize = 3;
    let mut done = 0;
    let list = json!({ "emails": lists::people(usize::try_from(ADDRESSES).expect("a count")) });
    while done < LEAST || !enough.load(Ordering::Relaxed) {
        let request = client.request(Method::POST, "/v1/tasks").json(&list).timeout(LIMIT);
        match try_send(request).await {
            Ok(reply) if reply.status == 201 => {
                let id = parse(&reply.json()).id;
                client.wait_for(&id, "completed", LIMIT * 5).await;
                done += 1;
            }
            Ok(reply) => assert_eq!(reply.status, 503, "{reply}"),
            Err(error) => eprintln!("a submission without an answer: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_freezes() {
    let mut random = Random::printed();
    let freezes = number("LISTMILL_TEST_FREEZES", 12);
    let longest = number("LISTMILL_TEST_LONGEST_FREEZE", 5);
    let mut app = setup(1, WORKERS).weight(Weight::Middle).start().await;
    end_idle_transactions(&app).await;
    let owner = app.customer(ADDRESSES * (4 + freezes)).await;
    let client = owner.client.clone().patient();
    let enough = Arc::new(AtomicBool::new(false));
    let work = tokio::spawn(keep_busy(client.clone(), Arc::clone(&enough)));
    tokio::time::sleep(Duration::from_secs(1)).await;
    for turn in 1..=freezes {
        let victim = victim(&mut random);
        let span = Duration::from_millis(1_000 + random.below(1_000 * longest.max(2) - 999));
        eprintln!("freeze {turn} of {freezes}: {victim:?} for {span:?}");
        let frozen = stop(&mut app, victim, &mut random).await;
        tokio::time::sleep(span).await;
        frozen.go_on();
        app.reconcile().await;
        app.assert_all_up();
        assert!(!work.is_finished(), "the work goes on");
        tokio::time::sleep(Duration::from_millis(random.below(1_000))).await;
    }
    enough.store(true, Ordering::Relaxed);
    work.await.expect("every task that was answered for is completed");
    app.wait_ready().await;
    let mut charged = 0;
    for listed in client.tasks().await {
        let id = parse(&listed).id;
        let task = client.wait_for(&id, "completed", LIMIT).await;
        client.assert_whole(&task, ADDRESSES).await;
        charged += task.credits.charged;
    }
    assert_eq!(client.balance().await + charged, owner.granted);
    app.finish().await;
}
