//! Whatever dies, no address and no credit is lost, and none is counted twice.

use std::time::Duration;

use listmill_tests::random::Random;
use listmill_tests::{Deployment, Setup, Size, Weight, lists};

const ADDRESSES: u64 = 50_000;
const KILLS: usize = 20;

#[derive(Debug, Clone, Copy)]
enum Trouble {
    KillWorker,
    FlushRedis,
    RestartRedis,
    RestartPostgres,
}

fn troubles(random: &mut Random) -> Vec<Trouble> {
    let mut all = vec![Trouble::KillWorker; KILLS];
    all.extend([Trouble::FlushRedis, Trouble::RestartRedis, Trouble::RestartPostgres]);
    random.shuffle(&mut all);
    all
}

async fn cause(app: &mut Deployment, trouble: Trouble, random: &mut Random) {
    match trouble {
        Trouble::KillWorker => {
            let which = random.index(app.workers.len());
            app.kill9_and_restart_worker(which);
        }
        Trouble::FlushRedis => app.redis().flush_all(),
        Trouble::RestartRedis => {
            app.redis().stop();
            app.redis().start_again().await;
        }
        Trouble::RestartPostgres => {
            app.postgres().stop_immediate().await;
            app.postgres().start_again().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_workers_redis_and_postgres() {
    let mut random = Random::printed();
    let setup = Setup::new(Size::Scaled { apis: 1, workers: 3 }).own_postgres();
    // About 30 s of work without trouble, so that all the trouble falls into it.
    let setup = setup.latency("50ms").concurrency(28).env("LISTMILL_LEASE_TTL", "2s");
    let mut app = setup.weight(Weight::Middle).start().await;
    let customer = app.customer(ADDRESSES + 7).await;
    let client = customer.client.clone().patient();
    let id = client.submit_stream("text/plain", lists::big_text(ADDRESSES)).await.id;
    let limit = Duration::from_secs(120);
    client.wait_until(&id, "running", limit, |task| task.counts.processed > 0).await;
    for trouble in troubles(&mut random) {
        tokio::time::sleep(Duration::from_millis(200 + random.below(700))).await;
        let what = format!("polled before {trouble:?}");
        let task = client.wait_until(&id, &what, limit, |_| true).await;
        assert!(!task.has_ended(), "the work must outlast the trouble: {task:#?}");
        cause(&mut app, trouble, &mut random).await;
    }
    let task = client.wait_for(&id, "completed", limit).await;
    client.assert_whole(&task, ADDRESSES).await;
    assert_eq!(client.balance().await + ADDRESSES, customer.granted);
    app.finish().await;
}

/// The whole product is one process here: the kill takes API, queue and worker at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_the_embedded_process() {
    let mut random = Random::printed();
    let setup = Setup::new(Size::Embedded).latency("50ms").concurrency(256);
    let setup = setup.env("LISTMILL_LEASE_TTL", "1s").weight(Weight::Middle);
    let mut app = setup.start().await;
    let customer = app.customer(ADDRESSES + 7).await;
    let client = customer.client.clone().patient();
    let id = client.submit_stream("text/plain", lists::big_text(ADDRESSES)).await.id;
    let limit = Duration::from_secs(90);
    for _ in 0..5 {
        let before = client.wait_until(&id, "polled", limit, |_| true).await.counts.processed;
        client
            .wait_until(&id, "progress after a kill", limit, |t| t.counts.processed > before)
            .await;
        tokio::time::sleep(Duration::from_millis(random.below(500))).await;
        app.kill9_and_restart_worker(0);
    }
    let task = client.wait_for(&id, "completed", limit).await;
    client.assert_whole(&task, ADDRESSES).await;
    assert_eq!(client.balance().await + ADDRESSES, customer.granted);
    app.finish().await;
}
