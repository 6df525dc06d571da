//! Changes of keys are linearizable: no answer by a state that no order of the changes allows.
//!
//! Each key has one changer, which changes it again and again, and remembers when each change began and ended.
//! Many clients ask with the keys meanwhile, on every API process, and remember when they asked, when they were
//! answered, and what. An answer must be that of a state from between: not older than the last change that had
//! ended before the question, nor than what an earlier question was already answered by; not newer than the
//! last change that had begun before the answer.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use listmill_tests::random::Random;
use listmill_tests::{Client, Deployment, Reply, Setup, Size, Weight};
use serde_json::{Value, json};

use super::{Made, make, patch};

/// What a key answers by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Passes,
    Disabled,
    NoScope,
    Elsewhere,
    TooEarly,
    /// For good.
    Deleted,
    /// For good.
    Rotated,
}

/// A change and its time; the first is the making.
#[derive(Debug, Clone, Copy)]
struct Change {
    began: Instant,
    ended: Instant,
    then: State,
}

/// A question and its time.
#[derive(Debug, Clone, Copy)]
struct Seen {
    asked: Instant,
    answered: Instant,
    state: State,
}

fn state_of(reply: &Reply) -> State {
    if reply.status == 200 {
        return State::Passes;
    }
    let body = reply.json();
    match (body["error"].as_str().unwrap_or_default(), body["reason"].as_str()) {
        ("API key is suspended", Some("This API key has been suspended")) => State::Disabled,
        ("Insufficient permissions", _) => State::NoScope,
        ("Access denied", Some(_)) => State::Elsewhere,
        ("Invalid or inactive API key", Some("This API key is not valid yet")) => State::TooEarly,
        ("Invalid or inactive API key", Some("This API key has expired")) => State::Rotated,
        ("Invalid or inactive API key", None) => State::Deleted,
        _ => panic!("{reply}"),
    }
}

/// A history is right, or what is wrong with it.
fn check(changes: &[Change], seen: &[Seen]) -> Result<(), String> {
    let mut seen = seen.to_vec();
    seen.sort_by_key(|one| one.asked);
    // Answers that are still to come when the next question is asked, and which change each has shown at least;
    // then the latest that an answer before it has shown.
    let mut to_come: BinaryHeap<Reverse<(Instant, usize)>> = BinaryHeap::new();
    let mut known = 0;
    for one in &seen {
        while let Some(Reverse((answered, index))) = to_come.peek().copied() {
            if answered >= one.asked {
                break;
            }
            known = known.max(index);
            to_come.pop();
        }
        let ended = changes.iter().rposition(|change| change.ended < one.asked).unwrap_or(0);
        let begun = changes.iter().rposition(|change| change.began < one.answered).unwrap_or(0);
        let from = ended.max(known);
        match (from..=begun).find(|index| changes[*index].then == one.state) {
            Some(index) => to_come.push(Reverse((one.answered, index))),
            None => {
                let allowed: Vec<State> =
                    changes[from.min(begun)..=begun].iter().map(|change| change.then).collect();
                return Err(format!("{one:?}: only {allowed:?} is allowed"));
            }
        }
    }
    Ok(())
}

/// Changes a key at random until it is gone or the time is up.
async fn change(
    app: &Deployment,
    owner: &str,
    (key, made): &(Made, Change),
    until: Instant,
    mut random: Random,
) -> Vec<Change> {
    let made = *made;
    let mut changes = vec![made];
    while Instant::now() < until {
        let owner = app.client_of(random.index(app.apis.len()), owner);
        let now = changes[changes.len() - 1].then;
        let set = |body: Value| {
            let (owner, path) = (owner.clone(), key.path(""));
            async move { patch(&owner, &path, &body).await.expect(200) }
        };
        let began = Instant::now();
        let then = match (now, random.below(100)) {
            (State::Disabled, _) => {
                owner.post_empty(&key.path("/enable")).await.expect(200);
                State::Passes
            }
            (State::NoScope, _) => {
                set(json!({ "scopes": ["*"] })).await;
                State::Passes
            }
            (State::Elsewhere, _) => {
                set(json!({ "allow": null })).await;
                State::Passes
            }
            (State::TooEarly, _) => {
                set(json!({ "not_before": null })).await;
                State::Passes
            }
            (State::Deleted | State::Rotated, _) => break,
            (State::Passes, 0..2) => {
                owner.delete(&key.path("")).await.expect(200);
                State::Deleted
            }
            (State::Passes, 2..4) => {
                let reply = owner.post_empty(&key.path("/rotate")).await.expect(201);
                super::made(app, &reply);
                State::Rotated
            }
            (State::Passes, 4..30) => {
                set(json!({ "scopes": ["verify"] })).await;
                State::NoScope
            }
            (State::Passes, 30..55) => {
                set(json!({ "allow": ["203.0.113.0/24"] })).await;
                State::Elsewhere
            }
            (State::Passes, 55..75) => {
                set(json!({ "not_before": "2100-01-01T00:00:00Z" })).await;
                State::TooEarly
            }
            (State::Passes, _) => {
                owner.post_empty(&key.path("/disable")).await.expect(200);
                State::Disabled
            }
        };
        changes.push(Change { began, ended: Instant::now(), then });
    }
    changes
}

async fn ask(client: Client, stop: Arc<AtomicBool>) -> Vec<Seen> {
    let mut seen = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let asked = Instant::now();
        let reply = client.get("/v1/tasks?limit=1").await;
        seen.push(Seen { asked, answered: Instant::now(), state: state_of(&reply) });
    }
    seen
}

async fn run(size: Size, time: Duration) {
    const KEYS: usize = 8;
    const CLIENTS: usize = 8;
    let app = Setup::new(size).weight(Weight::Middle).start().await;
    let owner = app.customer(10).await;
    let (mut changed, mut asked) = (0, 0);
    let mut random = Random::printed();
    let until = Instant::now() + time;
    while Instant::now() < until {
        let mut keys = Vec::new();
        for _ in 0..KEYS {
            let began = Instant::now();
            let key = make(&app, &owner.client, &json!({})).await;
            keys.push((key, Change { began, ended: Instant::now(), then: State::Passes }));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let asking: Vec<Vec<_>> = keys
            .iter()
            .enumerate()
            .map(|(n, (key, _))| {
                let one = |client: usize| {
                    let client = app.client_of((n + client) % app.apis.len(), &key.secret);
                    tokio::spawn(ask(client, stop.clone()))
                };
                (0..CLIENTS).map(one).collect()
            })
            .collect();
        // Some rounds: a key that is gone stays gone.
        let round = until.min(Instant::now() + Duration::from_secs(5));
        let changing = keys.iter().map(|key| {
            change(&app, &owner.key.secret, key, round, Random::seeded(random.number()))
        });
        let histories = join_all(changing.collect::<Vec<_>>()).await;
        stop.store(true, Ordering::Relaxed);
        for (changes, asking) in histories.iter().zip(asking) {
            let mut seen = Vec::new();
            for one in asking {
                seen.extend(one.await.expect("it ends"));
            }
            changed += changes.len();
            asked += seen.len();
            check(changes, &seen).unwrap_or_else(|wrong| panic!("{wrong}\n{changes:#?}"));
        }
    }
    println!("{changed} changes, {asked} answers");
    // Otherwise nothing was tested.
    assert!(changed > 100 && asked > 1_000, "{changed} changes, {asked} answers");
    app.finish().await;
}

fn time() -> Duration {
    let soak = std::env::var_os("LISTMILL_TEST_SOAK").is_some();
    Duration::from_secs(if soak { 120 } else { 12 })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_by_a_state_that_no_order_allows_on_three_processes() {
    run(Size::Scaled { apis: 3, workers: 1 }, time()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_by_a_state_that_no_order_allows_embedded() {
    run(Size::Embedded, time()).await;
}

/// The checker itself finds what is wrong.
#[test]
fn a_stale_answer_and_one_that_goes_back_are_found() {
    let start = Instant::now();
    let at = |ms: u64| start + Duration::from_millis(ms);
    let change = |began, ended, then| Change { began: at(began), ended: at(ended), then };
    let seen = |asked, answered, state| Seen { asked: at(asked), answered: at(answered), state };
    let changes = [
        change(0, 1, State::Passes),
        change(10, 20, State::Disabled),
        change(30, 40, State::Passes),
        change(50, 60, State::Deleted),
    ];
    let fine = [
        seen(5, 12, State::Passes),
        seen(11, 19, State::Disabled),
        seen(25, 35, State::Passes),
        seen(51, 59, State::Passes),
        seen(51, 70, State::Deleted),
    ];
    assert_eq!(check(&changes, &fine), Ok(()));
    assert!(check(&changes, &[seen(21, 25, State::Passes)]).is_err(), "stale");
    assert!(check(&changes, &[seen(2, 9, State::Disabled)]).is_err(), "not begun yet");
    let back = [seen(11, 13, State::Disabled), seen(14, 19, State::Passes)];
    assert!(check(&changes, &back).is_err(), "it goes back while the change is under way");
    assert!(check(&changes, &[seen(61, 62, State::Passes)]).is_err(), "deleted");
}
