//! The harness tried on itself: servers start, stop, come back and go away.

use std::time::Duration;

use sqlx::{Connection, PgConnection};

use crate::postgres::Postgres;
use crate::process::{Launch, Process};
use crate::proxy::Proxy;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wire_goes_dead_and_goes_on() {
    const MOMENT: Duration = Duration::from_millis(300);
    let server = Postgres::start().await;
    let wire = Proxy::start(server.port()).await;
    let url = server.url_at(wire.port(), "postgres");
    let mut first = PgConnection::connect(&url).await.expect("through the proxy");
    let mut second = PgConnection::connect(&url).await.expect("through the proxy");
    assert_eq!(wire.connections(), 2);

    wire.blackhole();
    let mut answer = Box::pin(first.ping());
    assert!(tokio::time::timeout(MOMENT, &mut answer).await.is_err(), "nothing comes");
    assert!(tokio::time::timeout(MOMENT, PgConnection::connect(&url)).await.is_err());
    wire.go_on();
    answer.await.expect("it was only late");

    // The one that gave up is passed on, its end too.
    crate::eventually("two are left", Duration::from_secs(5), || async {
        (wire.connections() == 2).then_some(())
    })
    .await;
    assert_eq!(wire.blackhole_half(), 1, "of two");
    let mut alive = 0;
    for connection in [&mut first, &mut second] {
        alive += usize::from(tokio::time::timeout(MOMENT, connection.ping()).await.is_ok());
    }
    assert_eq!(alive, 1);
    wire.blackhole();
    wire.let_new_ones_through();
    let mut third = PgConnection::connect(&url).await.expect("new ones are heard");
    third.ping().await.expect("it answers");
    assert!(tokio::time::timeout(MOMENT, second.ping()).await.is_err(), "old ones are not");
}
