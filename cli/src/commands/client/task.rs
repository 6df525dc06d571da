//! A task as a server shows it, and what is said of it.

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::fault::printable;
use crate::output::{Output, grouped};

/// As much of a task as is used here, and all of it as it came.
#[derive(Debug, Clone, Deserialize)]
pub struct Task {
    pub id: String,
    pub name: Option<String>,
    pub status: String,
    pub pause_reason: Option<String>,
    pub counts: Counts,
    pub credits: Credits,
    pub created_at: String,
    /// For programs.
    #[serde(skip)]
    pub raw: Value,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Counts {
    pub unique: u64,
    pub duplicates: u64,
    pub processed: u64,
    pub deliverable: u64,
    pub undeliverable: u64,
    pub risky: u64,
    pub unknown: u64,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Credits {
    pub held: i64,
    pub charged: i64,
}

impl Task {
    /// From an answer.
    pub fn read(raw: Value) -> Result<Self> {
        let mut task = Self::deserialize(&raw).context("the server's answer is no task")?;
        // It comes back in paths and on the terminal.
        check_id(&task.id)?;
        task.name = task.name.map(|name| printable(&name));
        task.status = printable(&task.status);
        task.created_at = printable(&task.created_at);
        task.raw = raw;
        Ok(task)
    }

    /// Does it never change again?
    pub fn has_ended(&self) -> bool {
        matches!(self.status.as_str(), "completed" | "cancelled" | "failed")
    }

    /// Has every address its result?
    pub fn is_completed(&self) -> bool {
        self.status == "completed"
    }

    /// For people, who may not have given it a name.
    pub fn title(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.id)
    }

    /// Why it stands still; empty when it does not.
    pub fn pause(&self) -> String {
        let why = match (self.status.as_str(), self.pause_reason.as_deref()) {
            ("paused", Some("insufficient_credits")) => {
                "paused: the credits are used up; it goes on after a top-up"
            }
            ("paused", Some("requested")) => "paused by its owner",
            ("paused", Some("provider_unavailable")) => "paused: no worker can verify just now",
            ("paused", _) => "paused",
            _ => "",
        };
        String::from(why)
    }

    /// How it stands, in words.
    pub fn tell(&self, out: &Output) {
        let Counts { unique, duplicates, processed, .. } = self.counts;
        out.say(format!("{}  {}  {}", self.id, self.status, self.title()));
        match self.pause().as_str() {
            "" => {}
            pause => out.say(format!("  {pause}")),
        }
        out.say(format!(
            "  {} of {} unique addresses have a result, {} duplicates; {} credits charged",
            grouped(processed),
            grouped(unique),
            grouped(duplicates),
            grouped(self.credits.charged.unsigned_abs()),
        ));
        if self.credits.held > 0 {
            out.say(format!("  {} credits held", grouped(self.credits.held.unsigned_abs())));
        }
        out.table("  ", 1, &self.by_status());
    }

    fn by_status(&self) -> Vec<Vec<String>> {
        let Counts { deliverable, undeliverable, risky, unknown, .. } = self.counts;
        [
            ("deliverable", deliverable),
            ("undeliverable", undeliverable),
            ("risky", risky),
            ("unknown", unknown),
        ]
        .map(|(status, count)| vec![status.to_owned(), grouped(count)])
        .into()
    }
}

/// Tasks as a table.
pub fn table(out: &Output, tasks: &[Task]) {
    let head = ["TASK", "STATUS", "CREATED", "NAME", "DONE", "DELIVERABLE", "UNDELIVERABLE"];
    let head = head.iter().chain(&["RISKY", "UNKNOWN"]).map(|text| (*text).to_owned());
    let mut rows = vec![head.collect::<Vec<_>>()];
    rows.extend(tasks.iter().map(|task| {
        let Counts { unique, processed, deliverable, undeliverable, risky, unknown, .. } =
            task.counts;
        let name = task.name.as_deref().unwrap_or("-").chars().take(40).collect();
        let done = format!("{}/{}", grouped(processed), grouped(unique));
        let texts = [task.id.clone(), task.status.clone(), task.created_at.clone(), name, done];
        let counts = [deliverable, undeliverable, risky, unknown].map(grouped);
        texts.into_iter().chain(counts).collect()
    }));
    out.table("", 4, &rows);
}

/// Ids are opaque, but none has a slash in it.
pub fn check_id(id: &str) -> Result<()> {
    let fits = !id.is_empty() && id.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_');
    ensure!(fits, "{:?} is no task's id, such as task_0199c2f0…", printable(id));
    Ok(())
}
