//! Slowness instead of death: whoever is stopped, stalled or cut off stops neither its neighbours
//! nor other accounts, nothing exits, and afterwards the books are exact.
//!
//! Settings (`tests/soak` sets them higher): `LISTMILL_TEST_FREEZE` (seconds that one freeze lasts,
//! 20), `LISTMILL_TEST_FREEZES` (random ones, 12), `LISTMILL_TEST_LONGEST_FREEZE` (seconds, 5).

mod network;
mod processes;
mod random;
mod servers;

use std::time::Duration;

use listmill_tests::client::send;
use listmill_tests::{Client, Customer, Deployment, Reply, Setup, Size, lists, within};
use reqwest::Method;

/// Addresses a second that one worker does: the sandbox's latency bounds it, not the machine.
const RATE: u64 = 320;
const LIMIT: Duration = Duration::from_secs(60);

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| {
        text.parse().unwrap_or_else(|_| panic!("{name} is a whole number, not {text}"))
    })
}

fn freeze() -> Duration {
    Duration::from_secs(number("LISTMILL_TEST_FREEZE", 20))
}

/// Small batches: much is settled and leased, so that a stop at random falls into a transaction.
fn setup(apis: usize, workers: usize) -> Setup {
    let setup = Setup::new(Size::Scaled { apis, workers }).own_postgres();
    let setup = setup.latency("50ms").concurrency(16);
    setup.env("LISTMILL_LEASE_TTL", "5s").env("LISTMILL_BATCH_SIZE", "100")
}

/// A task of so many addresses, of which some have results.
async fn running(client: &Client, addresses: u64) -> String {
    let id = client.submit_stream("text/plain", lists::big_text(addresses)).await.id;
    client.wait_until(&id, "running", LIMIT, |task| task.counts.processed > 0).await;
    id
}

/// Ten addresses of somebody else, from their submission to the last result.
async fn ten_addresses(customer: &Customer, limit: Duration) {
    let client = customer.client.clone().patient();
    let work = async {
        let id = client.submit(&lists::people(10)).await.id;
        client.wait_for(&id, "completed", limit).await
    };
    let task = within("ten addresses of another account", limit, work).await;
    assert_eq!(task.credits.charged, 10, "{task:#?}");
}

/// A cancellation that answers in time, whatever the answer.
async fn cancel(client: &Client, id: &str, limit: Duration) -> Reply {
    let request = client.request(Method::POST, &format!("/v1/tasks/{id}/cancel"));
    within("the answer to a cancellation", limit, send(request)).await
}

/// A cancelled task: as many results are charged as it says, nothing is held.
async fn assert_cancelled(client: &Client, id: &str) -> u64 {
    let task = client.task(id).await;
    assert_eq!((task.status.as_str(), task.credits.held), ("cancelled", 0), "{task:#?}");
    let results = client.results(id).await;
    let charged = results.iter().filter(|result| result["credit"] == "charged").count();
    assert_eq!(charged as u64, task.credits.charged, "results and charges agree");
    task.credits.charged
}

/// The end of a test with one big task and one that was cancelled.
async fn ends_exactly(app: &mut Deployment, owner: &Customer, big: (&str, u64), cancelled: &str) {
    let (id, addresses) = big;
    let client = owner.client.clone().patient();
    let task = client.wait_for(id, "completed", LIMIT * 3).await;
    app.assert_all_up();
    client.assert_whole(&task, addresses).await;
    let charged = assert_cancelled(&client, cancelled).await;
    assert_eq!(client.balance().await + addresses + charged, owner.granted);
}
