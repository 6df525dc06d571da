//! What things look like outside.
//!
//! A result is written in two ways: as a [`ResultView`], which is also its description in the
//! OpenAPI document, and by [`write_result`], which appends the same JSON by hand, fast enough for
//! downloads of millions. A test holds the two together.

use std::borrow::Cow;
use std::time::Duration;

use listmill_shared::domain::audit::Actor;
use listmill_shared::domain::clock::Millis;
use listmill_shared::domain::id::TaskId;
use listmill_shared::domain::key::Environment;
use listmill_shared::domain::ledger::Entry;
use listmill_shared::domain::task::{PauseReason, Task, TaskStatus};
use listmill_shared::domain::verdict::{Credit, Flags, Reason, Status};
use listmill_shared::store::results::Found;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::openapi;

/// A bulk submission.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Task)]
pub struct TaskView<'a> {
    /// Its id.
    #[schema(value_type = String, example = "task_0199c2f06c5a7a3b8d0e5f4a1b2c3d4e")]
    pub id: TaskId,
    /// The name that it was submitted with.
    pub name: Option<Cow<'a, str>>,
    /// Where it stands.
    #[schema(value_type = openapi::TaskStatus)]
    pub status: TaskStatus,
    /// Why it stands still, while it is paused.
    #[schema(value_type = Option<openapi::PauseReason>)]
    pub pause_reason: Option<&'static str>,
    /// Addresses.
    pub counts: Counts,
    /// Credits.
    pub credits: Credits,
    /// Share of the unique addresses that have a result, 0 to 100; 100 means all.
    #[schema(minimum = 0, maximum = 100)]
    pub progress: i64,
    /// Seconds to go at the pace so far; only while running.
    pub eta_seconds: Option<i64>,
    /// When it was accepted.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// When its first address was started.
    #[schema(format = DateTime)]
    pub started_at: Option<String>,
    /// When it ended.
    #[schema(format = DateTime)]
    pub finished_at: Option<String>,
    /// The key that submitted it; history only, nothing depends on it.
    pub created_by_key: Option<String>,
    /// Who submitted it: a key, a person, or an operator at the server's command line. History only.
    #[schema(value_type = openapi::Actor)]
    pub created_by: Actor,
    /// When it is erased with its results; null before its end, and where results are kept until somebody erases
    /// them.
    #[schema(format = DateTime)]
    pub results_expire_at: Option<String>,
    /// `test`: a test key submitted it, the sandbox verifies, and every result is free.
    #[schema(value_type = openapi::Environment)]
    pub environment: &'static str,
}

/// A task as `/v1` shows it, for the command line.
pub fn task_object(task: &Task, now: Millis, ttl: Duration) -> Result<Value, serde_json::Error> {
    serde_json::to_value(TaskView::new(task, now, ttl))
}

/// An entry of the ledger as `/v1` shows it, likewise.
pub fn entry_object(entry: Entry) -> Result<Value, serde_json::Error> {
    serde_json::to_value(EntryView::from(entry))
}

/// Addresses of a task.
#[derive(Debug, Serialize, ToSchema)]
pub struct Counts {
    /// Rows of the list with an address.
    pub submitted: i64,
    /// Distinct addresses; each gets one result.
    pub unique: i64,
    /// Rows that repeat an address; free.
    pub duplicates: i64,
    /// Distinct addresses with broken syntax; free.
    pub invalid_syntax: i64,
    /// Addresses with a result: the sum of the next four.
    pub processed: i64,
    /// Mail to them arrives.
    pub deliverable: i64,
    /// Mail to them comes back.
    pub undeliverable: i64,
    /// Mail to them may arrive, or arrive nowhere useful.
    pub risky: i64,
    /// Nobody could tell; never charged.
    pub unknown: i64,
}

/// Credits of a task.
#[derive(Debug, Serialize, ToSchema)]
pub struct Credits {
    /// Taken off the balance for addresses that are being verified now.
    pub held: i64,
    /// Used for definitive verdicts.
    pub charged: i64,
    /// Given back for unknown ones.
    pub refunded: i64,
}

impl<'a> TaskView<'a> {
    /// A task as it is shown at `now`, where results are kept for `ttl` (0: for ever).
    pub fn new(task: &'a Task, now: Millis, ttl: Duration) -> Self {
        let (submitted, tally) = (task.submitted, task.tally);
        Self {
            id: task.id,
            name: task.name.as_deref().map(Cow::Borrowed),
            status: task.status,
            pause_reason: task.pause_reason.map(PauseReason::as_str),
            counts: Counts {
                submitted: submitted.submitted,
                unique: submitted.unique,
                duplicates: submitted.duplicates,
                invalid_syntax: submitted.invalid_syntax,
                processed: tally.processed(),
                deliverable: tally.deliverable,
                undeliverable: tally.undeliverable,
                risky: tally.risky,
                unknown: tally.unknown,
            },
            credits: Credits { held: task.held, charged: tally.charged, refunded: tally.refunded },
            progress: task.progress(),
            eta_seconds: task.eta_seconds(now),
            created_at: stamp(task.created_at),
            started_at: task.started_at.map(stamp),
            finished_at: task.finished_at.map(stamp),
            created_by_key: task.created_by_key.map(|key| key.to_string()),
            created_by: task.created_by(),
            results_expire_at: task.results_expire_at(ttl).map(stamp),
            environment: match task.sandbox {
                true => Environment::Test.as_str(),
                false => Environment::Live.as_str(),
            },
        }
    }

    /// As JSON.
    pub fn json(&self) -> String {
        to_json(self)
    }
}

/// JSON of something that always has one.
pub fn to_json(value: &impl Serialize) -> String {
    // Strings, numbers and structs with fixed names: this cannot fail.
    serde_json::to_string(value).unwrap_or_default()
}

/// The verdict on one address, and what it rests on.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ResultWithEvidence)]
pub struct Evident<'a> {
    #[serde(flatten)]
    pub result: ResultView<'a>,
    /// What the verdict rests on: the server that was asked, what it said, at which stage, and the rule
    /// (`docs/VERDICTS.md`) that says what that means. Its fields differ by provider; null where nothing
    /// was kept.
    pub evidence: Option<serde_json::Value>,
}

/// The verdict on one address.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Result)]
pub struct ResultView<'a> {
    /// Its number in the task, from 0, in the order of submission; 0 for a single verification.
    pub seq: i64,
    /// The address, normalised: the domain in lower case and Unicode.
    #[schema(example = "anna@example.com")]
    pub email: &'a str,
    /// The text as it stood in the list, up to 320 bytes of it; only where that differs from `email`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "Anna <anna@Example.com>")]
    pub submitted: Option<&'a str>,
    /// What to do with it.
    #[schema(value_type = openapi::Status)]
    pub status: Status,
    /// Why.
    #[schema(value_type = openapi::Reason)]
    pub reason: Reason,
    /// Chance of delivery, 0 to 100.
    #[schema(minimum = 0, maximum = 100)]
    pub score: i16,
    /// What else is known; null = not determined. They never change the status.
    #[schema(value_type = openapi::Flags)]
    pub flags: Flags,
    /// An address that may have been meant.
    pub did_you_mean: Option<&'a str>,
    /// The mail host that was asked.
    pub mx: Option<&'a str>,
    /// Its last reply code.
    pub smtp_code: Option<i16>,
    /// How often it was asked.
    pub attempts: i16,
    /// How it ended in the books.
    #[schema(value_type = openapi::Credit)]
    pub credit: Credit,
    /// When the verdict came.
    #[schema(format = DateTime)]
    pub checked_at: String,
}

impl<'a> ResultView<'a> {
    /// A stored result as it is shown.
    pub fn new(found: &'a Found) -> Self {
        Self {
            seq: found.seq,
            email: &found.address,
            submitted: found.submitted.as_deref(),
            status: found.reason.status(),
            reason: found.reason,
            score: found.score,
            flags: found.flags,
            did_you_mean: found.did_you_mean.as_deref(),
            mx: found.mx.as_deref(),
            smtp_code: found.smtp_code,
            attempts: found.attempts,
            credit: found.credit,
            checked_at: stamp(found.checked_at),
        }
    }
}

/// Appends a result's JSON, the same as [`ResultView`] gives.
pub fn write_result(out: &mut Vec<u8>, found: &Found) {
    out.extend_from_slice(b"{\"seq\":");
    write_number(out, found.seq);
    out.extend_from_slice(b",\"email\":");
    write_text(out, &found.address);
    if let Some(submitted) = &found.submitted {
        out.extend_from_slice(b",\"submitted\":");
        write_text(out, submitted);
    }
    out.extend_from_slice(b",\"status\":\"");
    out.extend_from_slice(found.reason.status().as_str().as_bytes());
    out.extend_from_slice(b"\",\"reason\":\"");
    out.extend_from_slice(found.reason.as_str().as_bytes());
    out.extend_from_slice(b"\",\"score\":");
    write_number(out, found.score);
    let flags = found.flags;
    let named: [(&[u8], Option<bool>); 6] = [
        (b",\"flags\":{\"role\":", flags.role),
        (b",\"free\":", flags.free),
        (b",\"disposable\":", flags.disposable),
        (b",\"catch_all\":", flags.catch_all),
        (b",\"mailbox_full\":", flags.mailbox_full),
        (b",\"disabled\":", flags.disabled),
    ];
    for (name, flag) in named {
        out.extend_from_slice(name);
        out.extend_from_slice(match flag {
            None => b"null",
            Some(true) => b"true",
            Some(false) => b"false",
        });
    }
    out.extend_from_slice(b"},\"did_you_mean\":");
    write_optional(out, found.did_you_mean.as_deref());
    out.extend_from_slice(b",\"mx\":");
    write_optional(out, found.mx.as_deref());
    out.extend_from_slice(b",\"smtp_code\":");
    match found.smtp_code {
        Some(code) => write_number(out, code),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"attempts\":");
    write_number(out, found.attempts);
    out.extend_from_slice(b",\"credit\":\"");
    out.extend_from_slice(found.credit.as_str().as_bytes());
    out.extend_from_slice(b"\",\"checked_at\":\"");
    write_stamp(out, found.checked_at);
    out.extend_from_slice(b"\"}");
}

/// Appends a number.
pub fn write_number(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn write_optional(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => write_text(out, text),
        None => out.extend_from_slice(b"null"),
    }
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    if text.bytes().any(|b| b < b' ' || b == b'"' || b == b'\\') {
        // Writing to a Vec cannot fail.
        let _ = serde_json::to_writer(out, text);
        return;
    }
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

/// A time as it is shown: RFC 3339, UTC, milliseconds.
pub fn stamp(at: Millis) -> String {
    let mut out = Vec::with_capacity(24);
    write_stamp(&mut out, at);
    // Digits and punctuation.
    String::from_utf8(out).unwrap_or_default()
}

/// Appends a time. Days to a date: Howard Hinnant, "chrono-compatible low-level date algorithms",
/// `civil_from_days`.
pub fn write_stamp(out: &mut Vec<u8>, at: Millis) {
    // Years 0 to 9999, which is what the format can show.
    let at = at.clamp(-62_167_219_200_000, 253_402_300_799_999);
    let (days, millis) = (at.div_euclid(86_400_000), at.rem_euclid(86_400_000));
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let two = |number: i64| [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8];
    let seconds = millis / 1000;
    let [y1, y2] = two(year / 100);
    let [y3, y4] = two(year % 100);
    let [mo1, mo2] = two(month);
    let [d1, d2] = two(day);
    let [h1, h2] = two(seconds / 3600);
    let [m1, m2] = two(seconds / 60 % 60);
    let [s1, s2] = two(seconds % 60);
    let [f1, f2] = two(millis % 1000 / 10);
    let f3 = b'0' + (millis % 10) as u8;
    out.extend_from_slice(&[
        y1, y2, y3, y4, b'-', mo1, mo2, b'-', d1, d2, b'T', h1, h2, b':', m1, m2, b':', s1, s2,
        b'.', f1, f2, f3, b'Z',
    ]);
}

/// One movement of credits.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LedgerEntry)]
pub struct EntryView {
    /// Its id; later entries of an account sort behind earlier ones.
    #[schema(example = "entry_42")]
    pub id: String,
    /// The kind of credit: `email` or `phone`.
    pub kind: String,
    /// Which way: `grant` (to the balance), `hold` (balance to held), `charge` (held to used),
    /// `refund` (held to balance), `adjust` (a correction, signed).
    #[serde(rename = "type")]
    pub entry: String,
    /// How many; positive but for `adjust`.
    pub amount: i64,
    /// The balance afterwards.
    pub balance_after: i64,
    /// For which task.
    pub task_id: Option<String>,
    /// When.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// For people.
    pub note: Option<String>,
}

impl From<Entry> for EntryView {
    fn from(entry: Entry) -> Self {
        Self {
            id: format!("entry_{}", entry.id),
            kind: entry.kind,
            entry: entry.entry,
            amount: entry.amount,
            balance_after: entry.balance_after,
            task_id: entry.task.map(|task| task.to_string()),
            created_at: stamp(entry.created_at),
            note: entry.note,
        }
    }
}

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// What is on it.
    pub data: Vec<T>,
    /// Give it as `cursor` to get the next page; null = there is none.
    pub next_cursor: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use listmill_shared::domain::clock::rfc3339;

    fn found(address: &str, full: bool) -> Found {
        Found {
            seq: 7,
            address: address.to_owned(),
            submitted: full.then(|| format!("A <{address}>")),
            reason: if full { Reason::CatchAll } else { Reason::Timeout },
            score: 71,
            flags: if full {
                Flags { role: Some(true), free: Some(false), ..Flags::default() }
            } else {
                Flags::default()
            },
            credit: if full { Credit::Charged } else { Credit::Refunded },
            attempts: 2,
            checked_at: 1_700_000_000_123,
            smtp_code: full.then_some(250),
            mx: full.then(|| String::from("mx\u{1}\\.example")),
            did_you_mean: full.then(|| String::from("a\"b@example.com")),
        }
    }

    #[test]
    fn both_ways_of_writing_a_result_agree() {
        for found in [
            found("anna@example.com", true),
            found("用户@例子.example", false),
            found("\"a\\\"b\"@x.example", true),
            found("tab\tand\u{7f}", false),
        ] {
            let mut fast = Vec::new();
            write_result(&mut fast, &found);
            assert_eq!(String::from_utf8(fast).unwrap(), to_json(&ResultView::new(&found)));
        }
    }

    #[test]
    fn stamps_are_those_of_the_clock() {
        let mut at = -10_000_000_000_000;
        while at < 20_000_000_000_000 {
            assert_eq!(stamp(at), rfc3339(at));
            at += 13_579_246_801;
        }
        // Leap days and the ends of years and days.
        for at in [0, -1, 951_782_400_000, 1_709_164_800_000, 1_735_689_599_999, 4_107_542_400_000]
        {
            assert_eq!(stamp(at), rfc3339(at));
        }
    }
}
