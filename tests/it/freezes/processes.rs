//! Processes of the product that are stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::{Stream, stream};
use listmill_tests::client::{parse, try_send};
use listmill_tests::freeze::{Frozen, stop_inside_a_transaction};
use listmill_tests::random::Random;
use listmill_tests::{Client, Weight, lists, within};
use reqwest::{Body, Method};

use super::{LIMIT, RATE, cancel, ends_exactly, freeze, running, setup, ten_addresses};

const PROMPT: Duration = Duration::from_secs(5);

/// What the others have after this, they must have.
const SETTLED: Duration = Duration::from_secs(10);

async fn processed(client: &Client, tasks: &[&str]) -> f64 {
    let mut sum = 0;
    for id in tasks {
        sum += within("a poll", PROMPT, client.task(id)).await.counts.processed;
    }
    sum as f64
}

/// Results a second from now until `end`.
async fn rate(client: &Client, tasks: &[&str], start: Instant, from: f64) -> f64 {
    (processed(client, tasks).await - from) / start.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_stopped_inside_a_transaction() {
    let mut random = Random::printed();
    let mut app = setup(2, 4).weight(Weight::Heavy).start().await;
    let addresses = 4 * RATE * (freeze().as_secs() + 10);
    let owner = app.customer(2 * addresses).await;
    let other = app.customer(10).await;
    let client = &owner.client;
    let big = running(client, addresses).await;
    let second = running(client, addresses).await;
    let both = [big.as_str(), second.as_str()];
    let (start, from) = (Instant::now(), processed(client, &both).await);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = rate(client, &both, start, from).await;
    let stopped = stop_inside_a_transaction(&app, &app.workers[0].process, &mut random).await;
    let (frozen, _) = stopped.expect("a worker that settles is caught at it");
    let stopped = Instant::now();
    tokio::time::sleep(SETTLED).await;
    let (start, from) = (Instant::now(), processed(client, &both).await);
    ten_addresses(&other, PROMPT).await;
    cancel(client, &second, PROMPT).await.expect(200);
    tokio::time::sleep(freeze().saturating_sub(stopped.elapsed())).await;
    let during = rate(client, &both, start, from).await;
    let share = before * 3.0 / 4.0;
    eprintln!("results a second: {before:.0} by four workers, {during:.0} by the three others");
    assert!(during >= 0.8 * share, "the others do {during:.0}/s of their {share:.0}/s");
    frozen.go_on();
    ends_exactly(&mut app, &owner, (&big, addresses), &second).await;
    app.finish().await;
}

/// Lines in small pieces, until it is told that there are enough; then a few more.
fn slow_list(enough: Arc<AtomicBool>, sent: Arc<AtomicU64>) -> impl Stream<Item = Piece> {
    const LINES: u64 = 1_000;
    const LAST: u64 = 40;
    stream::unfold(LAST, move |left| {
        let (enough, sent) = (Arc::clone(&enough), Arc::clone(&sent));
        async move {
            let left = if enough.load(Ordering::Relaxed) { left.checked_sub(1)? } else { left };
            tokio::time::sleep(Duration::from_millis(20)).await;
            let first = sent.fetch_add(LINES, Ordering::Relaxed);
            let lines = (first..first + LINES).map(|i| format!("person{i}@example.com\n"));
            Some((Ok(lines.collect::<String>().into_bytes()), left))
        }
    })
}

type Piece = std::io::Result<Vec<u8>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_process_stopped_in_the_middle_of_a_submission() {
    const CREDITS: u64 = 3_000_000;
    let mut random = Random::printed();
    let mut app = setup(2, 2).weight(Weight::Middle).start().await;
    let uploader = app.customer(CREDITS).await;
    let other = app.customer(CREDITS).await;
    let (enough, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let list = Body::wrap_stream(slow_list(Arc::clone(&enough), Arc::clone(&sent)));
    let request =
        app.client_of(0, &uploader.key.secret).request(Method::POST, "/v1/tasks?name=slow");
    let request = request.header("content-type", "text/plain").body(list);
    let submission = tokio::spawn(try_send(request.timeout(freeze() + LIMIT)));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let process = &app.apis[0].process;
    // Most of a submission's time passes outside of transactions: then just anywhere.
    let frozen = match stop_inside_a_transaction(&app, process, &mut random).await {
        Some((frozen, _)) => {
            eprintln!("stopped inside a transaction");
            frozen
        }
        None => Frozen::stop(process.pid()),
    };
    enough.store(true, Ordering::Relaxed);
    let stopped = Instant::now();
    let neighbour = app.client_of(1, &other.key.secret);
    let list = lists::people(2_000);
    while stopped.elapsed() < freeze() {
        let submitted = neighbour.submit(&list);
        let id = within("a submission to the other API", PROMPT, submitted).await.id;
        within("a poll at the other API", PROMPT, neighbour.task(&id)).await;
        cancel(&neighbour, &id, PROMPT).await.expect(200);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(!submission.is_finished(), "it was stopped in the middle");
    frozen.go_on();
    let answer = within("the submission's end", LIMIT, submission).await.expect("no panic");
    let tasks = neighbour_tasks(&app.client_of(1, &uploader.key.secret)).await;
    match answer {
        Ok(reply) if reply.status == 201 => {
            let task = parse(&reply.json());
            assert_eq!(task.counts.submitted, sent.load(Ordering::Relaxed), "{task:#?}");
            assert_eq!(tasks, std::slice::from_ref(&task.id));
            uploader.client.cancel(&task.id).await;
            let charged = super::assert_cancelled(&uploader.client, &task.id).await;
            assert_eq!(uploader.client.balance().await + charged, CREDITS);
        }
        failed => {
            eprintln!("the submission failed: {failed:?}");
            let clean =
                failed.is_err() || failed.is_ok_and(|reply| reply.json()["error"].is_string());
            assert!(clean && tasks.is_empty(), "nothing is left of it, not {tasks:?}");
            assert_eq!(uploader.client.balance().await, CREDITS);
        }
    }
    app.assert_all_up();
    app.finish().await;
}

async fn neighbour_tasks(client: &Client) -> Vec<String> {
    let tasks = client.tasks().await;
    tasks.iter().map(|task| task["id"].as_str().expect("id").to_owned()).collect()
}
