//! Mail servers that say "later": what they are asked about is set aside, and costs and holds
//! nothing until it is asked again.

use std::collections::HashMap;
use std::time::Duration;

use listmill_tests::{Client, Deployment, Setup, Size, Task, for_each_size};
use serde_json::Value;

use super::server::{Script, Server, say};
use super::world::World;

for_each_size!(the_rest_goes_on_and_later_all_have_a_verdict, a_crash_forgets_none, holds_no_slot);

/// Long enough for all to be asked once by then, whatever else the machine does.
const GREY: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(30);

/// For the first seconds, `grey` recipients are told to come later, and `stubborn` ones always.
async fn greylisting(world: &World) -> Server {
    let script = Script::new(|seen| match seen.local {
        local if local.starts_with("grey") && seen.since_first < GREY => {
            say("450 4.2.0 Greylisted, please try again later")
        }
        local if local.starts_with("stubborn") => say("451 4.7.1 Try again later"),
        "random" => say("550 5.1.1 no such user"),
        local if local.starts_with("grey") || local.starts_with("known") => say("250 2.1.5 Ok"),
        _ => say("550 5.1.1 no such user"),
    });
    world.mail("grey.test", "127.0.0.1", script).await
}

async fn start(world: &World, size: Size, delays: &str) -> Deployment {
    let setup = Setup::new(size.with(1, 1)).env("LISTMILL_PROVIDER", "smtp");
    let setup = setup.env("LISTMILL_DNS", world.zone.address.to_string());
    let setup = setup.env("LISTMILL_SMTP_PORT", world.port.to_string());
    setup.env("LISTMILL_PACE", "off").env("LISTMILL_RETRY_DELAYS", delays).start().await
}

fn addresses(grey: usize, known: usize) -> Vec<String> {
    let grey = (0..grey).map(|i| format!("grey{i}@grey.test"));
    grey.chain((0..known).map(|i| format!("known{i}@grey.test"))).collect()
}

async fn stands_still(client: &Client, id: &str, processed: u64) -> Task {
    let what = "the rest done, nothing held";
    let done = |task: &Task| task.counts.processed == processed && task.credits.held == 0;
    client.wait_until(id, what, LIMIT, done).await
}

async fn the_rest_goes_on_and_later_all_have_a_verdict(size: Size) {
    let world = World::new().await;
    let _mx = greylisting(&world).await;
    let app = start(&world, size, "2s,2s,2s").await;
    let customer = app.customer(1_000).await;
    let client = &customer.client;
    let mut list = addresses(60, 40);
    list.push("stubborn@grey.test".into());
    let id = client.submit(&list).await.id;
    let still = stands_still(client, &id, 40).await;
    assert_eq!((still.status.as_str(), still.credits.charged), ("running", 40));
    assert_eq!(client.balance().await, 960, "what is set aside holds no credit");
    let task = client.wait_completed(&id).await;
    assert_eq!((task.counts.deliverable, task.counts.unknown), (100, 1));
    assert_eq!((task.credits.charged, task.credits.refunded), (100, 1));
    let results = client.results(&id).await;
    let attempts: HashMap<&str, u64> = results.iter().map(attempts_of).collect();
    assert_eq!(attempts["known7@grey.test"], 1);
    assert!((2..=3).contains(&attempts["grey7@grey.test"]), "{attempts:?}");
    assert_eq!(attempts["stubborn@grey.test"], 4, "once, and after each delay");
    app.finish().await;
}

fn attempts_of(row: &Value) -> (&str, u64) {
    (row["email"].as_str().expect("email"), row["attempts"].as_u64().expect("attempts"))
}

async fn a_crash_forgets_none(size: Size) {
    let world = World::new().await;
    let _mx = greylisting(&world).await;
    let mut app = start(&world, size, "3s,2s,2s").await;
    let customer = app.customer(1_000).await;
    let client = customer.client.clone().patient();
    let id = client.submit(&addresses(30, 10)).await.id;
    stands_still(&client, &id, 10).await;
    // Everything dies; only the database remembers.
    if size.is_scaled() {
        app.redis().flush_all();
        app.kill9_and_restart_worker(0);
    } else {
        app.apis[0].process.kill9();
        app.apis[0].process.start_again();
    }
    let task = client.wait_completed(&id).await;
    assert_eq!((task.counts.deliverable, task.credits.charged), (40, 40));
    assert_eq!(client.results(&id).await.len(), 40);
    app.finish().await;
}

async fn holds_no_slot(size: Size) {
    let world = World::new().await;
    let _mx = greylisting(&world).await;
    let setup = Setup::new(size.with(1, 1)).env("LISTMILL_PROVIDER", "smtp").concurrency(2);
    let setup = setup.env("LISTMILL_DNS", world.zone.address.to_string());
    let setup = setup.env("LISTMILL_SMTP_PORT", world.port.to_string());
    let app = setup.env("LISTMILL_RETRY_DELAYS", "1h").start().await;
    let customer = app.customer(1_000).await;
    let client = &customer.client;
    let list: Vec<String> = (0..50).map(|i| format!("stubborn{i}@grey.test")).collect();
    let waiting = client.submit(&list).await.id;
    stands_still(client, &waiting, 0).await;
    let task = client.submit(&addresses(0, 20)).await;
    assert_eq!(client.wait_completed(&task.id).await.counts.deliverable, 20);
    let answer = client.cancel(&waiting).await;
    assert_eq!(answer["settlement"]["not_processed"], 50, "{answer}");
    assert_eq!(client.balance().await, 980);
    app.finish().await;
}
