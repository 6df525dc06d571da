//! A task as a row of the list, and as the head of its page: state, progress and verdicts in the reader's words.

use askama::Template;
use listmill_shared::app::task_pages::Waiting;
use listmill_shared::domain::clock::Millis;
use listmill_shared::domain::task::{PauseReason, Task, TaskStatus};
use listmill_shared::store::deferrals::COUNTED;
use listmill_shared::store::live::Money;

use super::format::Reader;
use super::page::Page;
use super::text::{filled, text};

/// A verdict's part of a bar, in percent of its width.
#[derive(Debug)]
pub struct Part {
    /// Its name; the class in the stylesheet, too.
    pub name: &'static str,
    /// In words.
    pub label: String,
    /// How many.
    pub count: String,
    /// Where it begins.
    pub x: String,
    /// How wide it is.
    pub width: String,
}

/// A row.
#[derive(Debug)]
pub struct Row {
    /// The task.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Where it stands, and what the scripts know it by.
    pub status: &'static str,
    /// Why it stands still, likewise.
    pub pause: &'static str,
    /// Where it stands, in words.
    pub state: String,
    /// The class of the words.
    pub badge: &'static str,
    /// What else there is to say about that.
    pub notes: Vec<String>,
    /// Addresses with a result.
    pub done: i64,
    /// Addresses.
    pub all: i64,
    /// Both as numbers for people.
    pub done_shown: String,
    pub all_shown: String,
    /// How fast it is.
    pub rate: String,
    /// How long it takes.
    pub left: String,
    /// The verdicts.
    pub parts: Vec<Part>,
    /// When it was accepted; safe HTML.
    pub created: String,
    /// A sandbox task.
    pub test: bool,
    /// Which buttons it has.
    pub pauses: bool,
    pub resumes: bool,
    pub cancels: bool,
}

/// A row alone, for the script that puts it in the place of the one before.
#[derive(Template)]
#[template(path = "task_row.html")]
pub struct RowAlone {
    /// As every page has it.
    pub page: Page,
    /// The row.
    pub row: Row,
}

/// A task's name; one of its own where its owner gave none.
pub fn name(task: &Task) -> String {
    task.name.clone().unwrap_or_else(|| text("tasks.unnamed").to_owned())
}

impl Row {
    /// A task as it is at `now`.
    pub fn new(
        page: &Page,
        task: &Task,
        waiting: Option<Waiting>,
        money: Money,
        now: Millis,
    ) -> Self {
        let reader = &page.reader;
        let (done, all) = (task.tally.processed(), task.submitted.unique);
        let open = !task.status.has_ended() && page.may_write();
        Self {
            id: task.id.to_string(),
            name: name(task),
            status: task.status.as_str(),
            pause: task.pause_reason.map_or("", PauseReason::as_str),
            state: text(state(task.status)).to_owned(),
            badge: badge(task.status),
            notes: notes(reader, task, waiting, money, now),
            done,
            all,
            done_shown: reader.number(done),
            all_shown: reader.number(all),
            rate: rate(task, now)
                .map_or(String::new(), |rate| filled("tasks.rate", &[("n", &reader.number(rate))])),
            left: task
                .eta_seconds(now)
                .map_or(String::new(), |seconds| filled("tasks.left", &[("time", &span(seconds))])),
            parts: parts(reader, task),
            created: reader.time(task.created_at).to_string(),
            test: task.sandbox,
            pauses: open && task.status != TaskStatus::Paused,
            resumes: open && page.may_begin() && task.status == TaskStatus::Paused,
            cancels: open,
        }
    }
}

fn state(status: TaskStatus) -> &'static str {
    match status {
        TaskStatus::Ingesting | TaskStatus::Queued => "tasks.queued",
        TaskStatus::Running => "tasks.running",
        TaskStatus::Paused => "tasks.paused",
        TaskStatus::Cancelled => "tasks.cancelled",
        TaskStatus::Completed => "tasks.completed",
        TaskStatus::Failed => "tasks.failed",
    }
}

fn badge(status: TaskStatus) -> &'static str {
    match status {
        TaskStatus::Completed | TaskStatus::Running => "badge-ok",
        TaskStatus::Paused => "badge-warn",
        TaskStatus::Failed => "badge-bad",
        TaskStatus::Ingesting | TaskStatus::Queued | TaskStatus::Cancelled => "badge-idle",
    }
}

fn notes(
    reader: &Reader,
    task: &Task,
    waiting: Option<Waiting>,
    money: Money,
    now: Millis,
) -> Vec<String> {
    let mut notes = Vec::new();
    match task.pause_reason {
        Some(PauseReason::InsufficientCredits) => {
            let missing = reader.number(task.missing(money).max(1));
            notes.push(filled("tasks.credits_missing", &[("n", &missing)]));
        }
        Some(PauseReason::Requested) => notes.push(text("tasks.requested").to_owned()),
        Some(PauseReason::ProviderUnavailable) => notes.push(text("tasks.unavailable").to_owned()),
        None => {}
    }
    if task.status == TaskStatus::Failed {
        notes.push(text("tasks.failed_why").to_owned());
    }
    if let Some(Waiting { addresses, due }) = waiting {
        let count = reader.number(addresses.min(COUNTED));
        let words = if addresses > COUNTED { "tasks.more_wait" } else { "tasks.wait" };
        notes.push(filled(words, &[("n", &count), ("time", &reader.clock(due.max(now), now))]));
    }
    notes
}

/// Addresses a second since it began.
fn rate(task: &Task, now: Millis) -> Option<i64> {
    let began = task.started_at.filter(|_| task.status == TaskStatus::Running)?;
    let done = task.tally.processed();
    (done > 0).then(|| (done * 1_000 / (now - began).max(1_000)).max(1))
}

/// A length of time, roughly.
pub fn span(seconds: i64) -> String {
    let n = |name, n: i64| filled(name, &[("n", &n.to_string())]);
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match seconds {
        ..60 => text("tasks.under_a_minute").to_owned(),
        60..3_600 => n("tasks.minutes", minutes),
        3_600..86_400 => {
            format!("{} {}", n("tasks.hours", hours), n("tasks.minutes", minutes % 60))
        }
        _ => format!("{} {}", n("tasks.days", days), n("tasks.hours", hours % 24)),
    }
}

/// The verdicts as parts of the whole list.
fn parts(reader: &Reader, task: &Task) -> Vec<Part> {
    let tally = task.tally;
    let all = task.submitted.unique.max(1);
    let percent = |count: i64| format!("{:.2}%", count as f64 * 100.0 / all as f64);
    let mut before = 0;
    [
        ("deliverable", tally.deliverable),
        ("undeliverable", tally.undeliverable),
        ("risky", tally.risky),
        ("unknown", tally.unknown),
    ]
    .into_iter()
    .map(|(name, count)| {
        let label = text(verdict(name)).to_owned();
        let (x, width) = (percent(before), percent(count));
        before += count;
        Part { name, label, count: reader.number(count), x, width }
    })
    .collect()
}

/// A verdict's text.
pub fn verdict(name: &str) -> &'static str {
    match name {
        "deliverable" => "verdicts.deliverable",
        "undeliverable" => "verdicts.undeliverable",
        "risky" => "verdicts.risky",
        _ => "verdicts.unknown",
    }
}

/// Texts and figures that the script writes by itself.
pub fn script_texts(page: &Page) -> String {
    let names = [
        "rate",
        "left",
        "under_a_minute",
        "minutes",
        "hours",
        "days",
        "lost",
        "live_again",
        "new_task",
        "new_tasks",
        "uploading",
        "received",
        "no_preview",
        "book_preview",
        "found_out",
        "column_no",
        "failed_send",
        "shown_rows",
    ];
    let texts: serde_json::Map<String, serde_json::Value> = names
        .iter()
        .map(|name| ((*name).to_owned(), text(&format!("tasks.{name}")).into()))
        .collect();
    serde_json::json!({ "locale": page.reader.locale, "texts": texts }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_rough() {
        assert_eq!(span(59), "less than a minute");
        assert_eq!(span(60), "1 min");
        assert_eq!(span(3_599), "59 min");
        assert_eq!(span(3_660), "1 h 1 min");
        assert_eq!(span(90_000), "1 d 1 h");
    }

    #[test]
    fn texts_of_the_script_are_there() {
        let names = ["lost", "new_tasks", "column_no", "shown_rows", "failed_send"];
        assert!(names.iter().all(|name| {
            let name = format!("tasks.{name}");
            text(&name) != name
        }));
    }
}
