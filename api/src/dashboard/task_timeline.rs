//! What happened to a task, in words.

use std::collections::HashMap;

use askama::filters::{Html, escape};
use listmill_shared::domain::audit::Actor;
use listmill_shared::domain::id::KeyId;
use listmill_shared::domain::task::{PauseReason, Task};
use listmill_shared::domain::task_event::{Happened, TaskEvent};

use super::page::{Failure, Page};
use super::text::{filled, text};
use crate::Api;

/// Keys whose labels are looked up for a page; of more, the ids are shown.
const LABELS: usize = 16;

/// A line of the timeline.
pub struct Moment {
    /// When; safe HTML.
    pub at: String,
    /// What happened.
    pub words: String,
    /// More about that.
    pub more: Vec<String>,
}

/// How keys are called.
pub struct Names(HashMap<KeyId, String>);

impl Names {
    /// Somebody, in words; what others chose is in it.
    pub fn of(&self, who: &Actor) -> String {
        match who {
            Actor::Key(id) => self.0.get(id).cloned().unwrap_or_else(|| {
                filled("task.by_key", &[("label", &id.to_string()), ("start", "")])
            }),
            Actor::Person(email) => email.clone(),
            Actor::Root(id) => id.to_string(),
            Actor::Operator => text("task.by_nobody").to_owned(),
            Actor::System => text("task.by_itself").to_owned(),
        }
    }

    /// Likewise, as safe HTML.
    pub fn safe(&self, who: &Actor) -> String {
        escape(self.of(who), Html).map_or(String::new(), |safe| safe.to_string())
    }
}

/// What happened to a task, and how the keys in it are called.
pub async fn timeline(api: &Api, task: &Task) -> Result<(Names, Vec<TaskEvent>), Failure> {
    let events = api.app.timeline(task).await?;
    let mut names = HashMap::new();
    let keys = events.iter().filter_map(|event| match event.who {
        Some(Actor::Key(id)) => Some(id),
        _ => None,
    });
    for id in keys {
        if names.len() >= LABELS || names.contains_key(&id) {
            continue;
        }
        if let Some(key) = api.app.store.any_key(id, Some(task.account)).await? {
            let name = filled("task.by_key", &[("label", &key.label), ("start", &key.start)]);
            names.insert(id, name);
        }
    }
    Ok((Names(names), events))
}

/// The lines of the timeline.
pub fn moments(page: &Page, names: &Names, events: &[TaskEvent]) -> Vec<Moment> {
    let moment = |event: &TaskEvent| Moment {
        at: page.time(event.at).to_string(),
        words: words(page, names, event),
        more: more(page, event),
    };
    events.iter().map(moment).collect()
}

fn words(page: &Page, names: &Names, event: &TaskEvent) -> String {
    let by = |with: &str, without: &'static str| match &event.who {
        Some(who) => filled(with, &[("who", &names.of(who))]),
        None => text(without).to_owned(),
    };
    let itself = event.who == Some(Actor::System);
    let plain = |name: &'static str| text(name).to_owned();
    match (event.what, event.reason) {
        (Happened::Submitted, _) => by("timeline.submitted_by", "timeline.submitted"),
        (Happened::Started, _) => plain("timeline.started"),
        (Happened::Paused, Some(PauseReason::InsufficientCredits)) => plain("timeline.broke"),
        (Happened::Paused, Some(PauseReason::ProviderUnavailable)) => plain("timeline.unavailable"),
        (Happened::Paused, _) => by("timeline.paused_by", "timeline.paused"),
        (Happened::Resumed, Some(PauseReason::InsufficientCredits)) => plain("timeline.funded"),
        (Happened::Resumed, Some(PauseReason::ProviderUnavailable)) => plain("timeline.available"),
        (Happened::Resumed, _) if itself => plain("timeline.resumed"),
        (Happened::Resumed, _) => by("timeline.resumed_by", "timeline.resumed"),
        (Happened::WorkerLost, _) => {
            filled("timeline.worker_lost", &[("n", &page.n(event.batches))])
        }
        (Happened::Cancelled, _) => by("timeline.cancelled_by", "timeline.cancelled"),
        (Happened::Completed, _) => plain("timeline.completed"),
        (Happened::Failed, _) => plain("timeline.failed"),
    }
}

fn more(page: &Page, event: &TaskEvent) -> Vec<String> {
    let mut more: Vec<String> = event.detail.iter().cloned().collect();
    if event.times > 1 && event.what != Happened::WorkerLost {
        let last = page.reader.clock(event.last_at, event.at);
        let times = page.n(event.times - 1);
        more.push(filled("timeline.times", &[("n", &times), ("time", &last)]));
    }
    more
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_happens_has_words() {
        for name in [
            "submitted_by",
            "submitted",
            "started",
            "broke",
            "unavailable",
            "paused_by",
            "paused",
            "funded",
            "available",
            "resumed_by",
            "resumed",
            "worker_lost",
            "cancelled_by",
            "cancelled",
            "completed",
            "failed",
            "times",
        ] {
            let name = format!("timeline.{name}");
            assert_ne!(text(&name), name);
        }
    }

    #[test]
    fn a_label_is_text() {
        let id = KeyId::FIRST;
        let names = Names(HashMap::from([(id, String::from("<b>x</b>"))]));
        assert!(!names.safe(&Actor::Key(id)).contains('<'));
        assert_eq!(names.of(&Actor::Person(String::from("a@b.example"))), "a@b.example");
    }
}
