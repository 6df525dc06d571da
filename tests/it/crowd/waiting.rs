//! Tasks that wait: none is forgotten, and waiting costs nothing.
//!
//! `LISTMILL_TEST_SOAK=1` lets the queue wait for longer than a message's lease by default.

use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use listmill_tests::{Deployment, Setup, Size, Weight, eventually, for_each_size, lists, sql};
use serde_json::json;

use super::{AT_ONCE, LIMIT, disperse, paused, submit, submit_unpaid};

for_each_size!(a_task_goes_on_after_a_grant_behind_a_thousand);

/// Messages out there, for those who wait and for those who go first.
const STREAMS: [&str; 2] = ["listmill:batches", "listmill:first"];

fn length(app: &mut Deployment, stream: &str) -> i64 {
    let answer = app.redis().command(&format!("XLEN {stream}")).expect("Redis answers");
    let number = answer.trim_end().strip_prefix(':').and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("XLEN {stream}: {answer}"))
}

/// However long a queue waits, its messages are sent once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stream_stays_short() {
    const OUT: &str = "SELECT count(*) FROM batches WHERE state IN (1, 2)";
    let soak = std::env::var_os("LISTMILL_TEST_SOAK").is_some();
    let (ttl, seconds) = if soak { ("30s", 40) } else { ("2s", 13) };
    // 2,560 addresses a second: what is there lasts for a minute.
    let setup = Setup::new(Size::Scaled { apis: 1, workers: 2 }).latency("50ms").concurrency(64);
    let setup = setup.env("LISTMILL_LEASE_TTL", ttl).weight(Weight::Middle);
    let mut app = setup.start().await;
    let customer = app.customer(150_000).await;
    let tasks = submit(&customer.client, std::iter::repeat_n(500, 300)).await;
    let url = app.database_url();
    let (start, mut longest, mut worst) = (Instant::now(), 0, None);
    while start.elapsed() < Duration::from_secs(seconds) {
        // The limit belongs to one moment: what is out before and after, whichever is more.
        let before = sql::number(&url, OUT).await;
        let there: i64 = STREAMS.iter().map(|stream| length(&mut app, stream)).sum();
        let out = before.max(sql::number(&url, OUT).await);
        longest = longest.max(there);
        // 1.2 × what is out, and 100.
        if there * 10 > out * 12 + 1_000 {
            worst = worst.max(Some((there, out)));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    eprintln!("the streams held {longest} messages at the most");
    assert!(longest > 0, "nothing was seen in {STREAMS:?}");
    assert_eq!(worst, None, "messages in the streams, batches out");
    assert!(disperse(&customer.client, &tasks).await > 0, "nobody waited");
    app.finish().await;
}

/// More tasks than any sweep looks at, all of them older and with all out that they may have: the one
/// behind them is not forgotten.
async fn a_task_goes_on_after_a_grant_behind_a_thousand(size: Size) {
    const CROWD: usize = 1_010;
    // 32 addresses a second: the crowd needs a minute.
    let setup = Setup::new(size.with(1, 2)).latency("500ms");
    let setup = setup.concurrency(if size.is_scaled() { 8 } else { 16 });
    let app = setup.weight(Weight::Middle).start().await;
    let crowd = app.customer(0).await;
    let other = app.customer(0).await;
    let tasks = submit_unpaid(&app, &crowd, CROWD, 2).await;
    let body = json!({ "emails": lists::people(5), "allow_partial": true });
    let id = other.client.submit_json(&body).await.id;
    let waits = other.client.wait_for(&id, "paused", LIMIT).await;
    assert_eq!(waits.pause_reason.as_deref(), Some("insufficient_credits"));
    app.grant(&crowd.account, CROWD as u64 * 2).await;
    eventually("the crowd goes on", LIMIT, || async {
        (paused(&app).await <= 1 && app.inflight().await > 8.0).then_some(())
    })
    .await;
    app.grant(&other.account, 5).await;
    let start = Instant::now();
    other.client.wait_for(&id, "completed", Duration::from_secs(5)).await;
    eprintln!("{size:?}: it went on and ended within {:.2?}", start.elapsed());
    let left = disperse(&crowd.client, &tasks).await;
    assert!(left > CROWD as u64, "only {left} addresses were before it");
    app.finish().await;
}

/// One credit wakes one task, not a hundred.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credits_one_by_one() {
    const COMMITS: &str =
        "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()";
    const CREDITS: u64 = 10;
    const MOST_A_SECOND: f64 = 150.0;
    let setup = Setup::new(Size::Scaled { apis: 1, workers: 2 });
    let app = setup.weight(Weight::Middle).start().await;
    let customer = app.customer(0).await;
    let tasks = submit_unpaid(&app, &customer, 100, 20).await;
    let url = app.database_url();
    // Sessions that have nothing to do report what they did after ten seconds.
    tokio::time::sleep(Duration::from_secs(12)).await;
    let (before, start) = (sql::number(&url, COMMITS).await, Instant::now());
    for second in 0..CREDITS {
        app.grant(&customer.account, 1).await;
        let due = Duration::from_secs(second + 1);
        tokio::time::sleep(due.saturating_sub(start.elapsed())).await;
    }
    let commits = sql::number(&url, COMMITS).await - before;
    let a_second = commits as f64 / start.elapsed().as_secs_f64();
    eprintln!("{a_second:.0} commits a second while credits come back one by one");
    let (client, tasks) = (&customer.client, &tasks);
    eventually("each credit was used", LIMIT, || async {
        (processed(client, tasks).await == CREDITS).then_some(())
    })
    .await;
    assert!(a_second < MOST_A_SECOND, "{a_second:.0} commits a second");
    assert_eq!(client.balance().await, 0);
    app.finish().await;
}

async fn processed(client: &listmill_tests::Client, tasks: &[String]) -> u64 {
    let polls = stream::iter(tasks).map(|id| client.task(id)).buffer_unordered(AT_ONCE);
    polls.map(|task| task.counts.processed).collect::<Vec<u64>>().await.iter().sum()
}
