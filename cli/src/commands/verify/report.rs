//! What was found, in words and as JSON.

use anyhow::{Context as _, Result};
use futures::TryStreamExt;
use listmill_shared::app::App;
use listmill_shared::domain::task::Task;
use listmill_shared::domain::verdict::{Reason, Status};
use serde_json::{Map, Value, json};

use crate::output::{Output, grouped};

/// How many of each, by reason; the most frequent first.
pub struct Counts(Vec<(Reason, i64)>);

impl Counts {
    pub async fn of(app: &App, task: &Task) -> Result<Self> {
        let mut reasons = app.store.reasons(task.id).await?;
        reasons.sort_by_key(|(reason, count)| (-count, reason.code()));
        Ok(Self(reasons))
    }

    /// Addresses with this status.
    pub fn with(&self, status: Status) -> i64 {
        self.0.iter().filter(|(reason, _)| reason.status() == status).map(|(_, n)| n).sum()
    }

    /// Addresses whose mail servers could not be reached.
    pub fn unreached(&self) -> i64 {
        let unreached = self.0.iter().find(|(reason, _)| *reason == Reason::NoConnect);
        unreached.map_or(0, |(_, count)| *count)
    }

    /// For people.
    pub fn show(&self, out: &Output) {
        let mut rows = vec![["STATUS", "REASON", "ADDRESSES"].map(String::from).to_vec()];
        for status in Status::ALL {
            rows.extend(self.0.iter().filter(|(reason, _)| reason.status() == *status).map(
                |(reason, count)| {
                    vec![status.to_string(), reason.to_string(), grouped(count.unsigned_abs())]
                },
            ));
        }
        out.table("  ", 2, &rows);
    }

    /// For programs.
    pub fn object(&self) -> Value {
        let reasons = self.0.iter().map(|(reason, count)| (reason.to_string(), json!(count)));
        Value::Object(reasons.collect::<Map<_, _>>())
    }
}

/// Counters of the task, for programs.
pub fn counts_object(task: &Task) -> Value {
    let (submitted, tally) = (task.submitted, task.tally);
    json!({
        "submitted": submitted.submitted,
        "unique": submitted.unique,
        "duplicates": submitted.duplicates,
        "invalid_syntax": submitted.invalid_syntax,
        "processed": tally.processed(),
        "deliverable": tally.deliverable,
        "undeliverable": tally.undeliverable,
        "risky": tally.risky,
        "unknown": tally.unknown,
    })
}

/// Every result as the API shows it, with what it rests on as `evidence`.
pub async fn results(app: &App, task: &Task) -> Result<Vec<Value>> {
    let mut lines = Vec::new();
    let mut file = std::pin::pin!(listmill_api::ndjson_file(&app.store, task, None));
    while let Some(piece) = file.try_next().await.context("cannot read the results")? {
        lines.extend_from_slice(&piece);
    }
    let rows = serde_json::Deserializer::from_slice(&lines).into_iter();
    let mut rows = rows.collect::<Result<Vec<Value>, _>>()?;
    let mut details = app.store.details(task.id, 0, i64::MAX).await?.into_iter().peekable();
    for row in &mut rows {
        let detail = details.next_if(|(seq, _)| row["seq"] == *seq).map(|(_, detail)| detail);
        row["evidence"] = match detail {
            Some(detail) => serde_json::from_str(&detail)?,
            None => Value::Null,
        };
    }
    Ok(rows)
}

/// One result in words.
pub fn show(out: &Output, row: &Value) {
    let text = |field: &str| row[field].as_str();
    let reason = text("reason").and_then(|reason| reason.parse().ok());
    let reason = reason.unwrap_or(Reason::InternalError);
    out.say(format!(
        "{}: {} ({reason}, score {})",
        text("email").unwrap_or("?"),
        reason.status(),
        row["score"]
    ));
    out.say(format!("  {}", meaning(reason)));
    let evidence = &row["evidence"];
    if let Some(mx) = text("mx") {
        let ip = evidence["ip"].as_str().map(|ip| format!(" [{ip}]")).unwrap_or_default();
        let tls = if evidence["tls"] == true { ", encrypted" } else { "" };
        out.say(format!("  asked: {mx}{ip}{tls}"));
    }
    match (evidence["text"].as_str(), row["smtp_code"].as_i64()) {
        (Some(words), Some(_)) => out.say(format!("  it said: {words}")),
        (Some(words), None) => out.say(format!("  what happened: {words}")),
        (None, Some(code)) => out.say(format!("  it said: {code}")),
        (None, None) => {}
    }
    if let Some(rule) = evidence["rule"].as_str() {
        out.say(format!("  rule: {rule}"));
    }
    if let Some(random) = evidence["random"].as_str() {
        out.say(format!("  a made-up name at this domain: {random}"));
    }
    let flags = [
        ("role", "belongs to a function, not to a person"),
        ("free", "a free provider"),
        ("disposable", "a throw-away domain"),
    ];
    for (flag, words) in flags {
        if row["flags"][flag] == true {
            out.say(format!("  note: {words}"));
        }
    }
    if let Some(meant) = text("did_you_mean") {
        out.say(format!("  did you mean {meant}?"));
    }
}

/// A reason in a sentence.
fn meaning(reason: Reason) -> &'static str {
    match reason {
        Reason::Accepted => "The mail server takes mail for it.",
        Reason::InvalidSyntax => "This is not a valid email address.",
        Reason::NoDomain => "Its domain does not exist.",
        Reason::NoMx => "Its domain takes no mail.",
        Reason::MailboxNotFound => "The mail server says that there is no such mailbox.",
        Reason::MailboxDisabled => "The mail server says that the mailbox is closed.",
        Reason::CatchAll => {
            "The mail server takes any name at this domain; whether the mailbox is there, only a \
             mail would tell."
        }
        Reason::MailboxFull => "The mailbox is there, but full.",
        Reason::Disposable => "Its domain hands out throw-away addresses.",
        Reason::Timeout => "Its mail server did not answer in time.",
        Reason::NoConnect => {
            "None of its mail servers could be reached. If that is so for every domain, it is this \
             machine: `listmill doctor` tells."
        }
        Reason::Greylisted => "Its mail server wants to be asked again later.",
        Reason::Blocked => {
            "Its mail server turned us away, which says nothing about the mailbox. `listmill doctor` \
             looks for the cause."
        }
        Reason::SmtpUnavailable => "Its mail server had trouble of its own.",
        Reason::InternalError => "Something went wrong here; the log says what.",
    }
}
