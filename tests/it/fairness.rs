//! A small task does not wait for a big one.

use std::time::{Duration, Instant};

use listmill_tests::{Setup, Size, Weight, for_each_size, lists};

for_each_size!(ten_behind_a_million);

async fn ten_behind_a_million(size: Size) {
    let setup = Setup::new(size.with(1, 1)).latency("50ms").concurrency(256);
    let app = setup.weight(Weight::Heavy).start().await;
    let big = app.customer(1_000_000).await;
    let small = app.customer(10).await;
    let list = lists::big_text(1_000_000);
    let big_id = big.client.submit_stream("text/plain", list).await.id;
    let limit = Duration::from_secs(30);
    big.client.wait_until(&big_id, "running", limit, |task| task.counts.processed > 1_000).await;
    let start = Instant::now();
    let id = small.client.submit(&lists::people(10)).await.id;
    small.client.wait_for(&id, "completed", Duration::from_secs(5)).await;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let behind = big.client.task(&big_id).await;
    assert_eq!(behind.status, "running", "the big one was there all the time");
    let answer = big.client.cancel(&big_id).await;
    assert_eq!(answer["task"]["status"], "cancelled");
    assert_eq!(small.client.balance().await, 0);
    app.finish().await;
}
