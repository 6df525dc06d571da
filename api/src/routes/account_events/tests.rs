use listmill_shared::domain::id::Ids;
use listmill_shared::domain::task::{Tally, TaskStatus};

use super::*;

const T: Millis = 1_700_000_000_000;

fn listener() -> Listener {
    let account = AccountId::new(&Ids::seeded(1), T);
    let still: Still = Box::new(|| Box::pin(async { true }));
    Listener { account, family: None, sandbox: None, money: true, still }
}

fn told(id: TaskId, status: TaskStatus, done: i64, at: Millis) -> Told {
    let mark = Mark { id, at, family: None, sandbox: false };
    let tally = Tally { deliverable: done, ..Tally::default() };
    let data = format!("{id} {status} {done}").into();
    Told { mark, now: Snapshot::new(status, tally), data }
}

fn state(turn: u64, now: Millis, tasks: &[Told]) -> State {
    let tasks = tasks.iter().map(|told| (told.mark.id, told.clone())).collect();
    let money = Some(Money { balance: 10, held: 0 });
    State { turn, floor: now - 60_000, at: now - 30_000, tasks, money, ..State::default() }
}

fn words(news: Vec<News>) -> Vec<String> {
    let word = |one: &News| match one {
        News::Task(data) => data.split_once(' ').map_or("", |(_, rest)| rest).to_owned(),
        News::Gone(_) => String::from("gone"),
        News::Balance(money) => format!("balance {}", money.balance),
    };
    news.iter().map(word).collect()
}

#[test]
fn a_listener_is_told_what_it_does_not_know() {
    use TaskStatus::{Completed, Running};
    let ids = Ids::seeded(2);
    let (a, b) = (TaskId::new(&ids, T), TaskId::new(&ids, T));
    let (listener, mut known) = (listener(), Known::new(None));
    let first = state(1, T, &[told(a, Completed, 9, T - 40_000), told(b, Running, 5, T)]);
    assert_eq!(words(known.learn(&listener, &first)), ["running 5", "balance 10"]);
    assert!(known.learn(&listener, &first).is_empty());
    let next = state(2, T, &[told(b, Completed, 6, T)]);
    assert_eq!(words(known.learn(&listener, &next)), ["completed 6"]);
    let mut last = state(3, T, &[]);
    last.gone.insert(b, Mark { id: b, at: T, family: None, sandbox: false });
    last.money = Some(Money { balance: 11, held: 0 });
    assert_eq!(words(known.learn(&listener, &last)), ["gone", "balance 11"]);
}

#[test]
fn one_that_comes_back_is_told_what_ended_since() {
    use TaskStatus::Completed;
    let ids = Ids::seeded(2);
    let (a, b) = (TaskId::new(&ids, T), TaskId::new(&ids, T));
    let shown =
        state(8, T, &[told(a, Completed, 1, T - 40_000), told(b, Completed, 2, T - 10_000)]);
    let mut known = Known::new(Some(T - 20_000));
    assert_eq!(known.missed(&shown), None);
    assert_eq!(words(known.learn(&listener(), &shown)), ["completed 2", "balance 10"]);
    let late = Known::new(Some(T - 100_000));
    assert_eq!(late.missed(&shown), Some(T - 100_000), "older than what the room shows");
}

#[test]
fn only_who_was_led_past_something_has_missed_it() {
    let mut known = Known::new(None);
    known.learn(&listener(), &state(1, T, &[]));
    known.since = Some(T);
    let hour = 3_600_000;
    assert_eq!(known.missed(&state(2, T + hour, &[])), None, "it was quiet for an hour");
    assert_eq!(known.missed(&state(3, T + hour, &[])), Some(T));
    assert_eq!(known.missed(&state(3, T + 1_000, &[])), None, "the state still has it");
}

#[test]
fn a_listener_hears_of_its_own() {
    let ids = Ids::seeded(3);
    let (own, other) = (KeyId::new(&ids, T), KeyId::new(&ids, T));
    let narrow = Listener { family: Some(own), sandbox: Some(true), money: false, ..listener() };
    let mark = Mark { id: TaskId::new(&ids, T), at: T, family: Some(own), sandbox: true };
    assert!(narrow.hears(&mark));
    assert!(!narrow.hears(&Mark { family: Some(other), ..mark }));
    assert!(!narrow.hears(&Mark { family: None, ..mark }));
    assert!(!narrow.hears(&Mark { sandbox: false, ..mark }));
    assert!(Known::new(None).learn(&narrow, &state(1, T, &[])).is_empty(), "nor of the balance");
}
