//! Wrong clocks of workers: leases and due times are judged on the database's, so that nobody takes
//! another's work or loses their own, and who is wrong says so.

use std::time::{Duration, Instant};

use listmill_tests::deployment::Node;
use listmill_tests::{Client, Deployment, Setup, Size, Weight, lists};

/// 600 a second: about 15 s, three lives of a lease. Mostly waiting, so that a slow machine changes little.
const ADDRESSES: u64 = 9_000;
const WORKERS: usize = 6;
const OFF: i32 = 60;
const LIMIT: Duration = Duration::from_secs(60);

fn setup(workers: usize) -> Setup {
    let setup = Setup::new(Size::Scaled { apis: 1, workers });
    let setup = setup.latency("200ms").concurrency(20).env("LISTMILL_BATCH_SIZE", "200");
    setup.env("LISTMILL_LEASE_TTL", "5s")
}

/// Addresses a second, between a tenth and nine tenths of a task: neither start nor end of it.
async fn rate(client: &Client) -> (String, f64) {
    let id = client.submit_stream("text/plain", lists::big_text(ADDRESSES)).await.id;
    let at_least = async |part: u64| {
        let what = format!("{part} processed");
        let task = client.wait_until(&id, &what, LIMIT, |t| t.counts.processed >= part).await;
        (Instant::now(), task.counts.processed)
    };
    let (from, first) = at_least(ADDRESSES / 10).await;
    let (to, last) = at_least(ADDRESSES / 10 * 9).await;
    let rate = (last - first) as f64 / (to - from).as_secs_f64();
    client.wait_for(&id, "completed", LIMIT).await;
    (id, rate)
}

async fn assert_no_lease_lost(app: &Deployment) {
    for node in &app.workers {
        let lost = node.metric("listmill_leases_lost_total").await.unwrap_or_default();
        let taken = node.process.output().contains("leases expired");
        let (name, tail) = (&node.process.name, node.process.tail(20));
        assert!(lost == 0.0 && !taken, "{name}: {lost} leases lost, others taken: {taken}\n{tail}");
    }
}

/// A warning that names the clock and how much it is off by.
fn assert_warned(node: &Node, seconds: i32) {
    let output = node.process.output();
    let warned = output.lines().filter_map(|line| line.split_once("WARN")).any(|(_, said)| {
        let about = (seconds.abs() - 1)..=(seconds.abs() + 1);
        said.contains("clock") && about.clone().any(|number| said.contains(&number.to_string()))
    });
    assert!(warned, "{} does not warn of its clock\n{}", node.process.name, node.process.tail(20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_six_workers_are_a_minute_off() {
    let mut app = setup(WORKERS - 2).weight(Weight::Heavy).start().await;
    app.start_worker_off_by(OFF).await;
    app.start_worker_off_by(-OFF).await;
    let client = app.customer(ADDRESSES).await.client;
    // The same without wrong clocks, at the same time: what the machine does meanwhile, it does to both.
    let sane = setup(WORKERS).weight(Weight::Beside).start().await;
    let compared = sane.customer(ADDRESSES).await.client;
    let ((id, off), (_, right)) = tokio::join!(rate(&client), rate(&compared));
    let share = off / right * 100.0;
    eprintln!(
        "six right clocks: {right:.0}/s; two of them a minute off: {off:.0}/s ({share:.1} %)"
    );

    assert_no_lease_lost(&app).await;
    let results = client.results(&id).await;
    assert_eq!(results.len() as u64, ADDRESSES);
    let again = results.iter().filter(|result| result["attempts"] != 1).count();
    assert_eq!(again, 0, "asked more than once");
    for (which, seconds) in [(WORKERS - 2, OFF), (WORKERS - 1, -OFF)] {
        let node = &app.workers[which];
        assert_warned(node, seconds);
        // What is added to its own clock to know the database's.
        let offset = node.metric("listmill_clock_offset_seconds").await.expect("the metric");
        let error = (offset + f64::from(seconds)).abs();
        assert!(error < 2.0, "{}: off by {seconds} s, says {offset}", node.process.name);
    }
    // 95 % is promised on a machine that does nothing else.
    assert!(share >= 90.0, "{share:.1} % of what six right clocks do");
    assert_eq!(client.balance().await, 0);
    app.finish().await;
    sane.finish().await;
}
