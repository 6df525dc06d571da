//! A large fleet: what its workers ask of the database together does not grow with their number.

use std::time::Duration;

use listmill_shared::queue::{Queue, RedisQueue};
use listmill_tests::redis::Redis;
use listmill_tests::{Customer, Deployment, Setup, Size, Weight, lists, sql};

use super::LIMIT;

/// Workers that are there by their own account alone, beside the one that works.
const OTHERS: usize = 99;
/// Until a worker has counted the fleet anew.
const COUNTED: Duration = Duration::from_secs(3);

/// Runs a list; gives how many settlements it took.
async fn settlements(app: &Deployment, customer: &Customer) -> i64 {
    let text = lists::big_text(2_000);
    let id = customer.client.submit_stream("text/plain", text).await.id;
    customer.client.wait_for(&id, "completed", LIMIT).await;
    let sql = "SELECT count(*) FROM ledger_entries
        WHERE type = 'charge' AND task_id = (SELECT id FROM tasks ORDER BY id DESC LIMIT 1)";
    sql::number(&app.database_url(), sql).await
}

/// Transactions of all processes while there is nothing to do, in `seconds`.
async fn idle(app: &Deployment, seconds: u64) -> i64 {
    const COMMITS: &str =
        "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()";
    // Sessions that have nothing to do report what they did after ten seconds.
    tokio::time::sleep(Duration::from_secs(11)).await;
    let before = sql::number(&app.database_url(), COMMITS).await;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    sql::number(&app.database_url(), COMMITS).await - before
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_a_hundred_asks_less_than_one_alone() {
    let setup = Setup::new(Size::Scaled { apis: 1, workers: 1 }).latency("50ms").concurrency(16);
    let app = setup.weight(Weight::Middle).start().await;
    let customer = app.customer(4_000).await;
    let alone = (settlements(&app, &customer).await, idle(&app, 10).await);
    for number in 0..OTHERS {
        // Seen far in the future, so never silent.
        let insert = format!(
            "INSERT INTO workers (name, concurrency, pace, seen_at)
             VALUES ('other-{number}', 1, 0, 9000000000000)"
        );
        assert_eq!(sql::execute(&app.database_url(), &insert).await, 1);
    }
    tokio::time::sleep(COUNTED).await;
    let among = (settlements(&app, &customer).await, idle(&app, 10).await);
    eprintln!("settlements, idle transactions: alone {alone:?}, one of a hundred {among:?}");
    assert!(among.0 * 3 <= alone.0, "settlements of 2,000 addresses");
    assert!(among.1 * 2 <= alone.1, "transactions in ten idle seconds");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_round_of_dispatch_serves_the_whole_fleet() {
    const GATHER: Duration = Duration::from_millis(400);
    let mut redis = Redis::start().await;
    let open = || {
        let queue = RedisQueue::open(&redis.url(), "fleet").expect("a URL");
        Queue::Redis(Box::new(queue))
    };
    let fleet: Vec<Queue> = (0..20).map(|_| open()).collect();
    for round in 0..3 {
        let claims = fleet.iter().map(|queue| queue.claim_round(GATHER));
        let claimed = futures::future::join_all(claims).await;
        assert_eq!(claimed.iter().filter(|claimed| **claimed).count(), 1, "round {round}");
        tokio::time::sleep(GATHER * 2).await;
    }
    redis.stop();
    assert!(fleet[0].claim_round(GATHER).await, "who cannot ask must not wait for ever");
}
