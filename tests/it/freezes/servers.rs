//! Servers that are stopped: a process of PostgreSQL, whose limits then cannot end what it has
//! locked; and Redis, without which requests are answered all the same.

use std::time::{Duration, Instant};

use listmill_tests::freeze::{Frozen, still_waits, stop_inside_a_transaction};
use listmill_tests::random::Random;
use listmill_tests::sessions::Sessions;
use listmill_tests::{Deployment, Weight, lists, within};

use super::{RATE, cancel, ends_exactly, freeze, running, setup, ten_addresses};

/// The backend of a worker's session that has rows locked and waits for its client. The worker
/// stands still while its backend is stopped, so that it cannot speak in between.
async fn stop_a_backend_with_locks(app: &Deployment, random: &mut Random) -> Frozen {
    const TRIES: usize = 5;
    for _ in 0..TRIES {
        let stopped = stop_inside_a_transaction(app, &app.workers[0].process, random).await;
        let (worker, session) = stopped.expect("a worker that settles is caught at it");
        let backend = Frozen::stop(session.backend);
        let mut sessions = Sessions::connect(app).await;
        let caught = still_waits(&mut sessions, &session).await;
        worker.go_on();
        if caught {
            return backend;
        }
    }
    panic!("no backend was caught with rows locked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_of_postgres_stopped() {
    let mut random = Random::printed();
    let mut app = setup(1, 3).weight(Weight::Middle).start().await;
    let addresses = 3 * RATE * (freeze().as_secs() + 5);
    let owner = app.customer(2 * addresses).await;
    let other = app.customer(10).await;
    let client = &owner.client;
    let big = running(client, addresses).await;
    let second = running(client, addresses).await;
    let backend = stop_a_backend_with_locks(&app, &mut random).await;
    let stopped = Instant::now();
    ten_addresses(&other, Duration::from_secs(10)).await;
    let answer = cancel(client, &second, Duration::from_secs(5)).await;
    // It may have that very task locked.
    assert!(matches!(answer.status, 200 | 503), "{answer}");
    assert!(answer.status == 200 || answer.json()["error"].is_string(), "it says why: {answer}");
    tokio::time::sleep(freeze().saturating_sub(stopped.elapsed())).await;
    app.assert_all_up();
    backend.go_on();
    cancel(client, &second, Duration::from_secs(10)).await.expect(200);
    ends_exactly(&mut app, &owner, (&big, addresses), &second).await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_stopped() {
    const PROMPT: Duration = Duration::from_secs(5);
    let mut app = setup(2, 2).start().await;
    let addresses = 2 * RATE * 15;
    let owner = app.customer(2 * addresses).await;
    let other = app.customer(1_000).await;
    let client = &owner.client;
    let big = running(client, addresses).await;
    let second = running(client, addresses).await;
    let redis = Frozen::stop(app.redis().pid());
    let stopped = Instant::now();
    cancel(client, &second, PROMPT).await.expect(200);
    let list = lists::people(10);
    // Requests take the APIs in turn; each of them has met the silence after a few.
    for _ in 0..4 {
        let submitted = within("a submission", PROMPT, other.client.submit(&list)).await;
        within("a poll", PROMPT, other.client.task(&submitted.id)).await;
        within("a poll of the balance", PROMPT, other.client.balance()).await;
        cancel(&other.client, &submitted.id, PROMPT).await.expect(200);
    }
    let span = freeze().min(Duration::from_secs(10));
    tokio::time::sleep(span.saturating_sub(stopped.elapsed())).await;
    redis.go_on();
    ten_addresses(&other, Duration::from_secs(10)).await;
    ends_exactly(&mut app, &owner, (&big, addresses), &second).await;
    app.finish().await;
}
