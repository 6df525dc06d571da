//! Changes of keys are linearizable: no answer by a state that no order of the changes allows.
//!
//! Each key has one changer, which changes it again and again, and remembers when each change began and ended.
//! Many clients ask with the keys meanwhile, on every API process, and remember when they asked, when they were
//! answered, and what. An answer must be that of a state from between: not older than the last change that had
//! ended before the question, nor than what an earlier question was already answered by; not newer than the
//! last change that had begun before the answer. 503 tells nothing of a key; a change that was answered so is
//! tried again, and began with the first try.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use listmill_tests::random::Random;
use listmill_tests::{Client, Deployment, Reply, Setup, Size, Weight};
use serde_json::{Value, json};

use super::{Made, patch};

/// What a key answers by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Passes,
    Disabled,
    Suspended,
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

/// The reason that the shell gives.
const REASON: &str = "Suspended on trial";

/// `None`: the answer tells nothing.
fn state_of(reply: &Reply) -> Option<State> {
    match reply.status {
        200 => return Some(State::Passes),
        503 => return None,
        _ => {}
    }
    let body = reply.json();
    let state = match (body["error"].as_str().unwrap_or_default(), body["reason"].as_str()) {
        ("API key is suspended", Some("This API key has been suspended")) => State::Disabled,
        ("API key is suspended", Some(REASON)) => State::Suspended,
        ("Insufficient permissions", _) => State::NoScope,
        ("Access denied", Some(_)) => State::Elsewhere,
        ("Invalid or inactive API key", Some("This API key is not valid yet")) => State::TooEarly,
        ("Invalid or inactive API key", Some("This API key has expired")) => State::Rotated,
        ("Invalid or inactive API key", None) => State::Deleted,
        _ => panic!("{reply}"),
    };
    Some(state)
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

/// Tries again what was answered 503.
async fn insist(call: impl AsyncFn() -> Reply) -> Reply {
    loop {
        let reply = call().await;
        if reply.status != 503 {
            return reply;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Tries again what the shell could not do.
async fn insist_in_the_shell(app: &Deployment, args: &[&str]) {
    while app.cli(args).await.code != Some(0) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
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
        let (whole, disable, enable) = (key.path(""), key.path("/disable"), key.path("/enable"));
        let set = async |body: Value| insist(async || patch(&owner, &whole, &body).await).await;
        let began = Instant::now();
        let then = match (now, random.below(100)) {
            (State::Disabled, _) => {
                insist(async || owner.post_empty(&enable).await).await.expect(200);
                State::Passes
            }
            (State::Suspended, _) => {
                insist_in_the_shell(app, &["admin", "key", "unsuspend", &key.id]).await;
                State::Passes
            }
            (State::NoScope, _) => {
                set(json!({ "scopes": ["*"] })).await.expect(200);
                State::Passes
            }
            (State::Elsewhere, _) => {
                set(json!({ "allow": null })).await.expect(200);
                State::Passes
            }
            (State::TooEarly, _) => {
                set(json!({ "not_before": null })).await.expect(200);
                State::Passes
            }
            (State::Deleted | State::Rotated, _) => break,
            (State::Passes, 0..2) => {
                // A try that was answered 503 may have done it.
                let reply = insist(async || owner.delete(&whole).await).await;
                assert!(matches!(reply.status, 200 | 404), "{reply}");
                State::Deleted
            }
            (State::Passes, 2..4) => {
                let rotate = key.path("/rotate");
                let reply = insist(async || owner.post_empty(&rotate).await).await;
                match reply.status {
                    // Likewise.
                    409 => {}
                    _ => drop(super::made(app, &reply.expect(201))),
                }
                State::Rotated
            }
            (State::Passes, 4..12) => {
                let suspend = ["admin", "key", "suspend", &key.id, "--reason", REASON];
                insist_in_the_shell(app, &suspend).await;
                State::Suspended
            }
            (State::Passes, 12..35) => {
                set(json!({ "scopes": ["verify"] })).await.expect(200);
                State::NoScope
            }
            (State::Passes, 35..58) => {
                set(json!({ "allow": ["203.0.113.0/24"] })).await.expect(200);
                State::Elsewhere
            }
            (State::Passes, 58..76) => {
                set(json!({ "not_before": "2100-01-01T00:00:00Z" })).await.expect(200);
                State::TooEarly
            }
            (State::Passes, _) => {
                insist(async || owner.post_empty(&disable).await).await.expect(200);
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
        if let Some(state) = state_of(&reply) {
            seen.push(Seen { asked, answered: Instant::now(), state });
        }
    }
    seen
}

/// What happens meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    None,
    RedisAway,
    PostgresRestarts,
}

const KEYS: usize = 8;
const CLIENTS: usize = 8;
const MOST_ROUNDS: usize = 20;

async fn run(size: Size, trouble: Trouble) {
    let mut setup = Setup::new(size).weight(Weight::Middle);
    if trouble == Trouble::PostgresRestarts {
        setup = setup.own_postgres();
    }
    let mut app = setup.start().await;
    let owner = app.customer(10).await;
    let (mut changed, mut asked) = (0, 0);
    let mut random = Random::printed();
    let until = Instant::now() + time();
    // Some rounds, as a key that is gone stays gone; more where a slow machine got little done.
    let enough = |changed, asked| changed > 100 && asked > 1_000;
    for _ in 0..MOST_ROUNDS {
        if Instant::now() >= until && enough(changed, asked) {
            break;
        }
        let round = round(&mut app, &owner.key.secret, trouble, &mut random).await;
        changed += round.0;
        asked += round.1;
    }
    println!("{changed} changes, {asked} answers, {trouble:?}");
    // Otherwise nothing was tested.
    assert!(enough(changed, asked), "{changed} changes, {asked} answers");
    app.finish().await;
}

/// How many changes and answers there were; each history is checked.
async fn round(
    app: &mut Deployment,
    owner: &str,
    trouble: Trouble,
    random: &mut Random,
) -> (usize, usize) {
    const LASTS: Duration = Duration::from_secs(6);
    let mut keys = Vec::new();
    for _ in 0..KEYS {
        let began = Instant::now();
        // PostgreSQL may have come back this very moment.
        let client = app.client(owner);
        let reply = insist(async || client.post("/v1/keys", &json!({ "label": "x" })).await).await;
        let key = super::made(app, &reply.expect(201));
        keys.push((key, Change { began, ended: Instant::now(), then: State::Passes }));
    }
    if trouble == Trouble::RedisAway {
        app.redis().stop();
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
    let until = Instant::now() + LASTS;
    let histories = if trouble == Trouble::PostgresRestarts {
        restart_meanwhile(app, owner, &keys, until, random).await
    } else {
        change_all(app, owner, &keys, until, random).await
    };
    stop.store(true, Ordering::Relaxed);
    if trouble == Trouble::RedisAway {
        app.redis().start_again().await;
    }
    let (mut changed, mut asked) = (0, 0);
    for (changes, asking) in histories.iter().zip(asking) {
        let mut seen = Vec::new();
        for one in asking {
            seen.extend(one.await.expect("it ends"));
        }
        changed += changes.len();
        asked += seen.len();
        check(changes, &seen).unwrap_or_else(|wrong| panic!("{wrong}\n{changes:#?}"));
    }
    (changed, asked)
}

async fn change_all(
    app: &Deployment,
    owner: &str,
    keys: &[(Made, Change)],
    until: Instant,
    random: &mut Random,
) -> Vec<Vec<Change>> {
    let changing =
        keys.iter().map(|key| change(app, owner, key, until, Random::seeded(random.number())));
    join_all(changing.collect::<Vec<_>>()).await
}

/// Changes before PostgreSQL goes, while it is away, and after it is back, in one history.
async fn restart_meanwhile(
    app: &mut Deployment,
    owner: &str,
    keys: &[(Made, Change)],
    until: Instant,
    random: &mut Random,
) -> Vec<Vec<Change>> {
    let mut server = app.lend_postgres();
    let restarting = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        server.stop_immediate().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        server.start_again().await;
    };
    let (histories, ()) = tokio::join!(change_all(app, owner, keys, until, random), restarting);
    app.give_back(server);
    histories
}

fn time() -> Duration {
    let soak = std::env::var_os("LISTMILL_TEST_SOAK").is_some();
    Duration::from_secs(if soak { 120 } else { 12 })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_by_a_state_that_no_order_allows_on_three_processes() {
    run(Size::Scaled { apis: 3, workers: 1 }, Trouble::None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_by_a_state_that_no_order_allows_embedded() {
    run(Size::Embedded, Trouble::None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_while_redis_is_away() {
    run(Size::Scaled { apis: 3, workers: 1 }, Trouble::RedisAway).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_while_postgresql_restarts() {
    run(Size::Scaled { apis: 3, workers: 1 }, Trouble::PostgresRestarts).await;
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
