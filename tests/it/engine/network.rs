//! Nobody can be reached: the trouble is ours, and a list is not burnt for it.

use std::time::Duration;

use listmill_tests::{Setup, Size, for_each_size};

use super::server::Script;
use super::world::World;

for_each_size!(
    a_dead_network_pauses_tasks_and_concludes_nothing,
    the_fleet_learns_at_once_that_a_provider_is_down,
);

/// So many that asking each host once is enough to suspect the network.
const DOMAINS: usize = 24;
const EACH: usize = 5;

/// The address of the host of a domain.
fn ip(n: usize) -> String {
    format!("127.0.9.{}", n + 1)
}

/// A deployment whose mail hosts have names, and are not there.
fn setup(world: &World, size: Size) -> Setup {
    for n in 0..DOMAINS {
        let (domain, host) = (format!("d{n}.test"), format!("mx.d{n}.test"));
        world.zone.mx(&domain, 10, &host);
        world.zone.ip(&host, &ip(n));
    }
    Setup::new(size.with(1, 1))
        .env("LISTMILL_PROVIDER", "smtp")
        .env("LISTMILL_DNS", world.zone.address.to_string())
        .env("LISTMILL_SMTP_PORT", world.port.to_string())
        .env("LISTMILL_PACE", "off")
        .env("LISTMILL_RETRY_DELAYS", "1s,1s,1s")
}

/// Some addresses of each domain.
fn list() -> Vec<String> {
    (0..DOMAINS * EACH).map(|i| format!("known{i}@d{}.test", i % DOMAINS)).collect()
}

/// A sweep is far away: it is not what tells it.
async fn the_fleet_learns_at_once_that_a_provider_is_down(size: Size) {
    let world = World::new().await;
    let app = setup(&world, size).env("LISTMILL_SWEEP_INTERVAL", "60s").start().await;
    let customer = app.customer(1_000).await;
    let working = async || {
        let sql = "SELECT count(*) FROM workers WHERE concurrency > 0";
        listmill_tests::sql::number(&app.database_url(), sql).await
    };
    assert_eq!(working().await, 1);
    customer.client.submit(&list()).await;
    listmill_tests::eventually("nobody works", Duration::from_secs(45), || async {
        (working().await == 0).then_some(())
    })
    .await;
    app.finish().await;
}

async fn a_dead_network_pauses_tasks_and_concludes_nothing(size: Size) {
    let world = World::new().await;
    let app = setup(&world, size).start().await;
    let customer = app.customer(1_000).await;
    let client = &customer.client;
    let (list, all) = (list(), DOMAINS * EACH);
    let id = client.submit(&list).await.id;
    let limit = Duration::from_secs(60);
    let task = client.wait_for(&id, "paused", limit).await;
    assert_eq!(task.pause_reason.as_deref(), Some("provider_unavailable"));
    assert_eq!((task.counts.processed, client.balance().await), (0, 1_000), "nothing is burnt");
    let worker = if size.is_scaled() { &app.workers[0] } else { &app.apis[0] };
    let loud = worker.process.output().matches("no mail host can be reached").count();
    assert_eq!(loud, 1, "said once");
    // Later submissions say why they stand still, too.
    let late = client.submit(&["known@d0.test"]).await.id;
    let late = client.wait_for(&late, "paused", limit).await;
    assert_eq!(late.pause_reason.as_deref(), Some("provider_unavailable"));
    let mut servers = Vec::new();
    for n in 0..DOMAINS {
        servers.push(world.server(&ip(n), vec![Script::usual()]).await);
    }
    let task = client.wait_for(&id, "completed", limit).await;
    assert_eq!((task.counts.deliverable, task.credits.charged), (all as u64, all as u64));
    client.wait_for(&late.id, "completed", limit).await;
    app.finish().await;
}
