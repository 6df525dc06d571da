//! A network that drops packets: connections stay open and nothing comes.

use std::time::{Duration, Instant};

use futures::future::join_all;
use listmill_tests::client::try_send;
use listmill_tests::deployment::Wires;
use listmill_tests::proxy::Proxy;
use listmill_tests::{Client, Deployment, Reply, Weight, eventually};
use reqwest::Method;

use super::{LIMIT, RATE, running, setup, ten_addresses};

const AWAY: Duration = Duration::from_secs(15);

async fn all_say_not_ready(app: &Deployment) {
    let looks = app.apis.iter().chain(&app.workers).map(|node| async move {
        let what = format!("{} says that it is not ready", node.process.name);
        eventually(&what, Duration::from_secs(10), || async {
            node.probe("/readyz").await.filter(|(status, _)| *status == 503)
        })
        .await
    });
    join_all(looks).await;
}

async fn all_are_alive(app: &mut Deployment) {
    app.assert_all_up();
    for node in app.apis.iter().chain(&app.workers) {
        let alive = node.probe("/healthz").await.map(|(status, _)| status);
        assert_eq!(alive, Some(200), "{} is alive all the same", node.process.name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_drops_packets() {
    let mut app = setup(2, 3).through_proxies().weight(Weight::Middle).start().await;
    let addresses = 3 * RATE * 20;
    let owner = app.customer(addresses).await;
    let other = app.customer(10).await;
    let client = owner.client.clone().patient();
    let id = running(&client, addresses).await;
    let start = Instant::now();
    app.wires().postgres.blackhole();
    app.wires().redis.blackhole();
    all_say_not_ready(&app).await;
    while start.elapsed() < AWAY {
        all_are_alive(&mut app).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    app.wires().postgres.go_on();
    app.wires().redis.go_on();
    app.wait_ready().await;
    ten_addresses(&other, Duration::from_secs(20)).await;
    let task = client.wait_for(&id, "completed", LIMIT).await;
    client.assert_whole(&task, addresses).await;
    assert_eq!(client.balance().await, 0);
    app.finish().await;
}

/// The network is back, the connections are not: whoever waits at one waits in vain.
async fn connections_lost(wire: fn(&Wires) -> &Proxy) {
    let mut app = setup(1, 3).through_proxies().weight(Weight::Middle).start().await;
    let addresses = 3 * RATE * 15;
    let owner = app.customer(addresses).await;
    let other = app.customer(10).await;
    let client = owner.client.clone().patient();
    let id = running(&client, addresses).await;
    wire(app.wires()).blackhole();
    all_say_not_ready(&app).await;
    wire(app.wires()).let_new_ones_through();
    app.wait_ready().await;
    ten_addresses(&other, Duration::from_secs(20)).await;
    let task = client.wait_for(&id, "completed", LIMIT).await;
    client.assert_whole(&task, addresses).await;
    all_are_alive(&mut app).await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_to_postgres_that_never_come_back() {
    connections_lost(|wires| &wires.postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_to_redis_that_never_come_back() {
    connections_lost(|wires| &wires.redis).await;
}

async fn credits(client: &Client) -> Option<Reply> {
    let request = client.request(Method::GET, "/v1/account/credits");
    try_send(request.timeout(Duration::from_secs(5))).await.ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_of_the_connections_dead() {
    const CROWD: usize = 32;
    // The requests of this test are all that uses these connections.
    let app = setup(1, 0).through_proxies().start().await;
    let customer = app.customer(10).await;
    let client = &customer.client;
    for answer in join_all((0..CROWD).map(|_| credits(client))).await {
        answer.expect("all is well").expect(200);
    }
    let wire = &app.wires().postgres;
    let open = wire.connections();
    let dead = wire.blackhole_half();
    eprintln!("{dead} of {open} connections are dead");
    assert!(dead > 0 && dead < open, "some of them are");
    answers_again(client, CROWD).await;
    // Whatever served those requests, now it is dead for certain.
    wire.blackhole();
    wire.let_new_ones_through();
    answers_again(client, CROWD).await;
    app.finish().await;
}

/// Ten seconds in which whoever meets a dead connection may wait; afterwards nobody does.
async fn answers_again(client: &Client, crowd: usize) {
    let start = Instant::now();
    // As long as a request may last is left before the ten seconds end.
    while start.elapsed() < Duration::from_secs(5) {
        join_all((0..crowd).map(|_| credits(client))).await;
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    tokio::time::sleep(Duration::from_secs(10).saturating_sub(start.elapsed())).await;
    for turn in 0..20 {
        let asked = Instant::now();
        let answer = credits(client).await;
        let waited = asked.elapsed();
        answer.unwrap_or_else(|| panic!("request {turn}: no answer in {waited:?}")).expect(200);
    }
}
