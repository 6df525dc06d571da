//! The harness tried on itself: servers start, stop, come back and go away.

use std::time::Duration;

use crate::postgres::Postgres;
use crate::process::{Launch, Process};
use crate::redis::Redis;
use crate::{scratch, sql};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_keeps_its_data_over_an_immediate_restart() {
    let mut server = Postgres::start().await;
    let url = server.url("postgres");
    sql::execute(&url, "CREATE TABLE kept (n BIGINT)").await;
    assert_eq!(sql::execute(&url, "INSERT INTO kept VALUES (1), (2)").await, 2);
    server.stop_immediate().await;
    server.start_again().await;
    assert_eq!(sql::execute(&url, "DELETE FROM kept").await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_flushes_stalls_and_forgets() {
    let mut redis = Redis::start().await;
    redis.command("SET a 1").expect("answers");
    redis.flush_all();
    assert!(redis.command("GET a").expect("answers").starts_with("$-1"));
    redis.stall();
    redis.resume();
    redis.stop();
    assert!(redis.command("PING").is_err());
    redis.start_again().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn process_is_signalled_and_measured() {
    let folder = scratch::folder("selftest");
    let script = "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.05; done";
    let launch = Launch::new("sh", &folder).args(["-c", script]);
    let mut process = Process::start("shell", launch, folder.join("shell.log"));
    crate::eventually("it is ready", Duration::from_secs(5), || async {
        process.output().contains("ready").then_some(())
    })
    .await;
    assert!(process.rss() > 0 && process.peak_rss() >= process.rss());
    assert!(process.ended().is_none());
    assert_eq!(process.sigterm(Duration::from_secs(5)).await.code(), Some(7));
    assert!(process.tail(1).contains("bye"));
    process.start_again();
    process.kill9();
    scratch::remove(&folder);
}
