//! Many tasks, many accounts: nobody waits for a crowd, and the work is shared out among accounts.
//!
//! - [`behind`]: ten addresses of somebody who has nothing under way, behind crowds of all kinds
//! - [`fleet`]: what many workers ask of the database together
//! - [`parts`]: what each of two accounts gets of endless work
//! - [`waiting`]: what tasks that wait cost the stream, the database, and each other

mod behind;
mod fleet;
mod parts;
mod waiting;

use std::time::Duration;

use futures::{StreamExt, stream};
use listmill_tests::{Client, Customer, Deployment, Setup, Size, eventually, lists};

const LIMIT: Duration = Duration::from_secs(30);
/// Requests on their way at once; well below `max_submissions`.
const AT_ONCE: usize = 8;
const MILLIS: u64 = 50;
const CONCURRENCY: u64 = 256;

/// Two workers (embedded: one) that verify 5,120 addresses a second each, and no more.
fn steady(size: Size) -> Setup {
    let latency = format!("{MILLIS}ms");
    Setup::new(size.with(1, 2)).latency(&latency).concurrency(CONCURRENCY as usize)
}

/// Addresses a second that [`steady`] workers verify at most.
fn most_a_second(size: Size) -> u64 {
    let workers = if size.is_scaled() { 2 } else { 1 };
    workers * CONCURRENCY * 1_000 / MILLIS
}

/// Submits a list of each length; gives the ids of the tasks.
async fn submit(client: &Client, lengths: impl IntoIterator<Item = u64>) -> Vec<String> {
    stream::iter(lengths)
        .map(|count| async move {
            client.submit_stream("text/plain", lists::big_text(count)).await.id
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await
}

/// Cancels whatever of these tasks has not ended; gives the number of addresses that were left.
async fn disperse(client: &Client, tasks: &[String]) -> u64 {
    let cancelled = stream::iter(tasks).map(|id| async move {
        let reply = client.post_empty(&format!("/v1/tasks/{id}/cancel")).await;
        if reply.status == 409 {
            return 0.0;
        }
        reply.expect(200).json()["settlement"]["not_processed"].as_f64().expect("a number")
    });
    let left: Vec<f64> = cancelled.buffer_unordered(AT_ONCE).collect().await;
    left.iter().sum::<f64>() as u64
}

/// Tasks that are paused, of everybody.
async fn paused(app: &Deployment) -> i64 {
    let sql = "SELECT count(*) FROM tasks WHERE status = 'paused'";
    listmill_tests::sql::number(&app.database_url(), sql).await
}

/// Submits small lists that nobody pays for, and waits until each of them is paused for it.
async fn submit_unpaid(
    app: &Deployment,
    customer: &Customer,
    tasks: usize,
    each: usize,
) -> Vec<String> {
    let before = paused(app).await;
    let body = serde_json::json!({ "emails": lists::people(each), "allow_partial": true });
    let ids: Vec<String> = stream::iter(0..tasks)
        .map(|_| async { customer.client.submit_json(&body).await.id })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let all = before + i64::try_from(tasks).expect("few");
    let what = format!("{tasks} tasks wait for credits");
    eventually(&what, LIMIT * 2, || async { (paused(app).await >= all).then_some(()) }).await;
    ids
}
