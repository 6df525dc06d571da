//! Revocation is a line: after the call that changes a key has returned, no request that
//! starts later passes with it, on any API process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use listmill_tests::{Client, Setup, Size, Weight};
use tokio::task::JoinHandle;

const POLLERS: usize = 12;

struct Seen {
    started: Instant,
    status: u16,
}

/// Polls without a pause until told to stop; remembers when each request started.
fn poller(client: Client, stop: Arc<AtomicBool>) -> JoinHandle<Vec<Seen>> {
    tokio::spawn(async move {
        let mut seen = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let started = Instant::now();
            let status = client.get("/v1/account/credits").await.status;
            seen.push(Seen { started, status });
        }
        seen
    })
}

#[derive(Clone, Copy)]
enum Change {
    Disable,
    Delete,
}

async fn run(embedded_too: Size, change: Change) {
    let app = Setup::new(embedded_too).weight(Weight::Middle).start().await;
    let owner = app.customer(10).await;
    let apis = app.apis.len();
    for round in 0..5 {
        let victim = app.create_key(&owner.account).await;
        let stop = Arc::new(AtomicBool::new(false));
        let pollers: Vec<_> = (0..POLLERS * apis)
            .map(|n| {
                let client = app.client_of(n % apis, &victim.secret);
                (n % apis, poller(client, stop.clone()))
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(300)).await;
        // The change goes to one process and then to the other.
        let owner_client = app.client_of(round % apis, &owner.key.secret);
        let reply = match change {
            Change::Disable => {
                owner_client.post_empty(&format!("/v1/keys/{}/disable", victim.id)).await
            }
            Change::Delete => owner_client.delete(&format!("/v1/keys/{}", victim.id)).await,
        };
        let returned = Instant::now();
        assert!(matches!(reply.status, 200 | 204), "{reply}");
        tokio::time::sleep(Duration::from_millis(300)).await;
        stop.store(true, Ordering::Relaxed);
        let refusal = match change {
            Change::Disable => 403,
            Change::Delete => 401,
        };
        let mut passed = vec![0; apis];
        let mut refused = vec![0; apis];
        for (api, poller) in pollers {
            for seen in poller.await.expect("the poller ends") {
                assert!(seen.status == 200 || seen.status == refusal, "{}", seen.status);
                let late = seen.started > returned;
                let after = seen.started.saturating_duration_since(returned);
                assert!(!late || seen.status == refusal, "api-{api} let it pass {after:?} later");
                passed[api] += usize::from(seen.status == 200);
                refused[api] += usize::from(late);
            }
        }
        // Otherwise nothing was tested.
        assert!(passed.iter().all(|n| *n > 20), "passed before: {passed:?}");
        assert!(refused.iter().all(|n| *n > 20), "refused after: {refused:?}");
    }
    app.finish().await;
}

const TWO_APIS: Size = Size::Scaled { apis: 2, workers: 1 };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disable_is_a_line_on_two_processes() {
    run(TWO_APIS, Change::Disable).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delete_is_a_line_on_two_processes() {
    run(TWO_APIS, Change::Delete).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disable_is_a_line_embedded() {
    run(Size::Embedded, Change::Disable).await;
}

/// The operator's lever takes effect at once too, though it is another process altogether.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suspension_from_the_shell_is_seen_by_both() {
    let app = Setup::new(TWO_APIS).start().await;
    let owner = app.customer(10).await;
    for _ in 0..4 {
        owner.client.get("/v1/tasks").await.expect(200);
    }
    app.suspend(&owner.key, "Abuse").await;
    for _ in 0..4 {
        owner.client.get("/v1/tasks").await.expect(403);
    }
    app.finish().await;
}
