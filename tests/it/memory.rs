//! Flat memory: neither a long list, nor many results, nor a slow reader grows a process.

use std::time::{Duration, Instant};

use futures::StreamExt;
use listmill_tests::{Client, Deployment, Setup, Size, Weight, eventually, lists};

const MIB: u64 = 1 << 20;
const ROWS: u64 = 5_000_000;
/// Results of some 200 bytes each: more than any of the limits, if it were kept in memory.
const ENOUGH: u64 = 600_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stays_flat() {
    let setup = Setup::new(Size::Scaled { apis: 1, workers: 1 }).weight(Weight::Heavy);
    // 10,000 at once and 200 ms each: the worker is kept full.
    let mut app = setup.latency("200ms").concurrency(10_000).start().await;
    let customer = app.customer(ROWS).await;
    let client = &customer.client;
    let before = app.apis[0].process.rss() / MIB;
    let id = submit_five_million(client).await;
    let peak = app.apis[0].process.peak_rss() / MIB;
    eprintln!("API while it takes {ROWS} rows: {peak} MiB at the most");
    assert!(peak < 250, "the API grew from {before} to {peak} MiB while it took the list");

    let at_once = most_at_once(&app, client, &id).await;
    client.cancel(&id).await;
    let peak = app.workers[0].process.peak_rss() / MIB;
    eprintln!("worker at concurrency 10,000: {peak} MiB at the most");
    assert!(peak < 200, "the worker grew to {peak} MiB");
    assert!(at_once > 8_000.0, "only {at_once} at once: nothing was tested");

    // A process that has taken no list.
    let base = app.start_api().await.base();
    let reader = Client::new(vec![base], Some(&customer.key.secret));
    let path = format!("/v1/tasks/{id}/results?format=ndjson");
    let peak = || app.apis[1].process.peak_rss() / MIB;
    let (read, rate) = read_slowly(&reader, &path, Duration::from_secs(8)).await;
    assert!(read > 2 * MIB, "{read} bytes read");
    assert!(rate < 2.0, "{rate} MB/s is not slow");
    eprintln!("API with a slow reader: {} MiB at the most", peak());
    assert!(peak() < 100, "a slow reader made the API grow to {} MiB", peak());
    app.finish().await;
}

async fn submit_five_million(client: &Client) -> String {
    let rows = lists::lines("id,email,note\n", ROWS, |i| {
        format!("{i},person{i}@d{}.example.com,row {i}", i % 1_000)
    });
    let task = client.submit_stream("text/csv", rows).await;
    assert_eq!(task.counts.submitted, ROWS);
    assert_eq!(task.counts.duplicates, 0, "all are different");
    assert_eq!(task.counts.unique, ROWS);
    task.id
}

/// Waits until enough is processed; gives the most addresses seen in flight meanwhile.
async fn most_at_once(app: &Deployment, client: &Client, id: &str) -> f64 {
    let most = tokio::sync::Mutex::new(0.0_f64);
    let most_ref = &most;
    eventually("enough is processed", Duration::from_secs(90), || async move {
        let now = app.inflight().await;
        let mut most = most_ref.lock().await;
        *most = most.max(now);
        (client.task(id).await.counts.processed >= ENOUGH).then_some(())
    })
    .await;
    most.into_inner()
}

/// Reads about 1 MB/s for a while and hangs up; gives the bytes read and the MB/s.
async fn read_slowly(client: &Client, path: &str, span: Duration) -> (u64, f64) {
    let start = Instant::now();
    let mut stream = client.stream(path).await;
    let mut read = 0_u64;
    while start.elapsed() < span {
        let bytes = stream.next().await.expect("more results").expect("no break");
        read += bytes.as_ref().len() as u64;
        // The pace is what is tested here, not a wait for something.
        let due = Duration::from_secs_f64(read as f64 / 1e6);
        tokio::time::sleep(due.saturating_sub(start.elapsed())).await;
    }
    (read, read as f64 / 1e6 / start.elapsed().as_secs_f64())
}
