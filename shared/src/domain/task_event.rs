//! What happened to a task, from its submission to its end.
//!
//! Its beginning, its start and its end stand in the task itself; what came in between is stored as it happens, in
//! the transaction that does it. [`timeline`] puts the two together, so neither can disagree with the task.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::audit::Actor;
use super::clock::Millis;
use super::task::{PauseReason, Task, TaskStatus};

/// What can happen to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happened {
    /// It was accepted.
    Submitted,
    /// Its first address was started.
    Started,
    /// It stands still.
    Paused,
    /// It goes on.
    Resumed,
    /// A worker did not come back; what it had goes back to work.
    WorkerLost,
    /// Its owner ended it.
    Cancelled,
    /// Every address has its result.
    Completed,
    /// It was ended because its stored list is damaged.
    Failed,
}

impl Happened {
    /// All of them.
    pub const ALL: &[Happened] = &[
        Happened::Submitted,
        Happened::Started,
        Happened::Paused,
        Happened::Resumed,
        Happened::WorkerLost,
        Happened::Cancelled,
        Happened::Completed,
        Happened::Failed,
    ];

    /// The name, outside and in SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Happened::Submitted => "submitted",
            Happened::Started => "started",
            Happened::Paused => "paused",
            Happened::Resumed => "resumed",
            Happened::WorkerLost => "worker_lost",
            Happened::Cancelled => "cancelled",
            Happened::Completed => "completed",
            Happened::Failed => "failed",
        }
    }

    const fn end(status: TaskStatus) -> Option<Self> {
        match status {
            TaskStatus::Cancelled => Some(Happened::Cancelled),
            TaskStatus::Completed => Some(Happened::Completed),
            TaskStatus::Failed => Some(Happened::Failed),
            TaskStatus::Ingesting
            | TaskStatus::Queued
            | TaskStatus::Running
            | TaskStatus::Paused => None,
        }
    }
}

impl fmt::Display for Happened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Happened {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}

/// A text that names nothing that can happen.
#[derive(Debug, thiserror::Error)]
#[error("nothing of the kind happens to tasks")]
pub struct BadEvent;

impl FromStr for Happened {
    type Err = BadEvent;

    fn from_str(text: &str) -> Result<Self, BadEvent> {
        Self::ALL.iter().copied().find(|one| one.as_str() == text).ok_or(BadEvent)
    }
}

/// Something that happened to a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskEvent {
    /// What.
    pub what: Happened,
    /// When; of several, the first.
    pub at: Millis,
    /// The last of several; else the same.
    pub last_at: Millis,
    /// How many it stands for, as a task has only so many events of a kind.
    pub times: i64,
    /// Batches that a lost worker had.
    pub batches: i64,
    /// Who did it; none where that is not known, or where several did.
    pub who: Option<Actor>,
    /// Of a pause, why; of a resumption by itself, what is over.
    pub reason: Option<PauseReason>,
    /// More about that, for people; what others have said may be in it.
    pub detail: Option<String>,
}

impl TaskEvent {
    /// Once, at this time.
    pub fn new(what: Happened, at: Millis, who: Option<Actor>) -> Self {
        Self { what, at, last_at: at, times: 1, batches: 0, who, reason: None, detail: None }
    }
}

/// All that happened to a task, in order; `stored`: what happened between its start and its end.
pub fn timeline(task: &Task, stored: Vec<TaskEvent>) -> Vec<TaskEvent> {
    let mut events = stored;
    if let Some(at) = task.started_at {
        // It may have been paused before.
        let place = events.iter().position(|event| event.at >= at).unwrap_or(events.len());
        events.insert(place, TaskEvent::new(Happened::Started, at, None));
    }
    events.insert(0, TaskEvent::new(Happened::Submitted, task.created_at, Some(task.created_by())));
    if let (Some(end), Some(at)) = (Happened::end(task.status), task.finished_at)
        && events.iter().all(|event| event.what != end)
    {
        events.push(TaskEvent::new(end, at, None));
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::{AccountId, TaskId};
    use crate::domain::task::{Submitted, Tally};

    fn task() -> Task {
        Task {
            id: TaskId::FIRST,
            account: AccountId::FIRST,
            created_by_key: None,
            created_by_person: Some(String::from("ada@example.com")),
            sandbox: false,
            name: None,
            status: TaskStatus::Running,
            pause_reason: None,
            submitted: Submitted::default(),
            tally: Tally::default(),
            held: 0,
            released: 0,
            created_at: 10,
            started_at: Some(30),
            finished_at: None,
            batches: 1,
        }
    }

    fn kinds(events: &[TaskEvent]) -> Vec<(&str, Millis)> {
        events.iter().map(|event| (event.what.as_str(), event.at)).collect()
    }

    #[test]
    fn it_begins_with_the_submission_and_ends_with_the_end() {
        let early = TaskEvent::new(Happened::Paused, 20, None);
        let late = TaskEvent::new(Happened::WorkerLost, 40, None);
        let events = timeline(&task(), vec![early.clone(), late.clone()]);
        let first = [("submitted", 10), ("paused", 20), ("started", 30), ("worker_lost", 40)];
        assert_eq!(kinds(&events), first);
        assert_eq!(events[0].who, Some(Actor::Person(String::from("ada@example.com"))));
        let done = Task { status: TaskStatus::Completed, finished_at: Some(50), ..task() };
        assert_eq!(kinds(&timeline(&done, vec![late])).last(), Some(&("completed", 50)));
        // Who cancelled it is stored; of a task from before that, nothing is known.
        let ended = Task { status: TaskStatus::Cancelled, finished_at: Some(50), ..task() };
        let by = TaskEvent::new(Happened::Cancelled, 50, Some(Actor::Operator));
        assert_eq!(timeline(&ended, vec![by.clone()]).last(), Some(&by));
        assert_eq!(timeline(&ended, Vec::new()).last().map(|event| &event.who), Some(&None));
    }

    #[test]
    fn names_come_back() {
        for one in Happened::ALL {
            assert_eq!(one.as_str().parse::<Happened>().unwrap(), *one);
        }
    }
}
