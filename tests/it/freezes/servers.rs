//! A process of PostgreSQL that is stopped: neither of its limits can end what it has locked.

use std::time::{Duration, Instant};

use listmill_tests::freeze::{Frozen, still_waits, stop_inside_a_transaction};
use listmill_tests::random::Random;
use listmill_tests::sessions::Sessions;
use listmill_tests::{Deployment, Weight};

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
