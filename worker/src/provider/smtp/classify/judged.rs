//! The table against replies of real servers that others have labelled (`tests/data/replies.jsonl`
//! of the workspace).
//!
//! Data: one JSON object a line; `expected` holds the statuses and reasons that are right. A strict
//! line must have one of them. Of any line, strict or not, `undeliverable` may be said only if it is
//! right, and `deliverable` never.

use std::fmt::Write;

use listmill_shared::domain::verdict::Status;
use serde_json::Value;

use super::super::fault::Stage;
use super::super::reply::Reply;
use super::{Meaning, of_reply};

/// One labelled reply and what the table says.
pub struct Judged {
    /// The line.
    pub row: Value,
    /// The text as it was seen.
    pub text: String,
    /// What the table says.
    pub meaning: Meaning,
    /// Is the status right?
    pub right: bool,
    /// Are status and reason?
    pub exact: bool,
    /// What is wrong: a = falsely undeliverable, b = falsely deliverable, c = gone but unknown, d =
    /// gone but risky, e = full but unknown, f = other.
    pub harm: Option<char>,
}

impl Judged {
    /// A field of the line.
    pub fn str(&self, key: &str) -> &str {
        self.row[key].as_str().unwrap_or_default()
    }

    /// What it should be.
    pub fn class(&self) -> &str {
        self.row["expected"]["class"].as_str().unwrap_or_default()
    }

    /// Must it be right?
    pub fn strict(&self) -> bool {
        self.str("strictness") == "strict"
    }
}

/// The reply of a line, as it would be seen.
pub fn reply_of(row: &Value) -> (Stage, Reply) {
    let stage = match row["stage"].as_str() {
        Some("connect") => Stage::Banner,
        Some("ehlo") => Stage::Ehlo,
        Some("mail") => Stage::Mail,
        _ => Stage::Rcpt,
    };
    let domain = format!("{}.test", row["id"].as_str().unwrap_or_default());
    let text = row["text"].as_str().unwrap_or_default();
    let text = text
        .replace("{rcpt}", &format!("anna.weber@{domain}"))
        .replace("{local}", "anna.weber")
        .replace("{sender}", "verify@probe.test");
    let code = u16::try_from(row["code"].as_u64().unwrap_or_default()).unwrap_or_default();
    (stage, Reply::new(code, text))
}

/// All lines, judged.
pub fn judge(data: &str) -> Vec<Judged> {
    let rows = data.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    rows.map(|row| {
        let (stage, reply) = reply_of(&row);
        let meaning = of_reply(stage, &reply);
        let status = meaning.reason.status();
        let has = |key: &str, what: &str| {
            row["expected"][key].as_array().is_some_and(|all| all.iter().any(|v| v == what))
        };
        let right = has("status", status.as_str());
        let reasons = row["expected"]["reason"].as_array().map_or(0, Vec::len);
        let exact = right && (reasons == 0 || has("reason", meaning.reason.as_str()));
        let class = row["expected"]["class"].as_str().unwrap_or_default();
        let harm = match status {
            Status::Deliverable => Some('b'),
            _ if right => None,
            Status::Undeliverable => Some('a'),
            _ if row["strictness"] == "strict" && matches!(class, "gone" | "disabled") => {
                Some(if status == Status::Unknown { 'c' } else { 'd' })
            }
            _ => Some(if class == "full" { 'e' } else { 'f' }),
        };
        Judged { text: reply.text, row, meaning, right, exact, harm }
    })
    .collect()
}

/// Expected classes.
const CLASSES: &[&str] = &["gone", "disabled", "full", "blocked", "temporary"];

/// Strict lines, expected class against verdict (Markdown).
pub fn matrix(judged: &[Judged]) -> String {
    let strict: Vec<_> = judged.iter().filter(|j| j.strict()).collect();
    let mut verdicts: Vec<_> = strict.iter().map(|j| j.meaning.reason).collect();
    verdicts.sort_unstable_by_key(|reason| reason.code());
    verdicts.dedup();
    let mut out = String::from("| expected |");
    for reason in &verdicts {
        let _ = write!(out, " {} `{reason}` |", reason.status());
    }
    let _ = writeln!(out, " lines | status right |");
    let _ = writeln!(out, "| --- |{}", " --- |".repeat(verdicts.len() + 2));
    for class in CLASSES {
        let part: Vec<_> = strict.iter().filter(|j| j.class() == *class).collect();
        let _ = write!(out, "| {class} |");
        for reason in &verdicts {
            let n = part.iter().filter(|j| j.meaning.reason == *reason).count();
            let _ = write!(out, " {} |", if n == 0 { "·".into() } else { n.to_string() });
        }
        let right = part.iter().filter(|j| j.right).count();
        let percent = 100 * right / part.len().max(1);
        let _ = writeln!(out, " {} | {right} ({percent} %) |", part.len());
    }
    out
}

/// All lines of the file, judged.
pub fn all() -> Vec<Judged> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/replies.jsonl");
    judge(&std::fs::read_to_string(path).unwrap())
}

#[test]
fn real_replies_are_told_apart() {
    let judged = all();
    assert!(judged.len() > 400);
    let wrong: Vec<_> = judged
        .iter()
        .filter(|j| j.harm.is_some())
        .map(|j| format!("{:?} {} {} {}", j.harm, j.str("id"), j.meaning.rule, j.text))
        .collect();
    let of = |harm| judged.iter().filter(|j| j.harm == Some(harm)).count();
    let shown = wrong.join("\n");
    assert_eq!(of('b'), 0, "deliverable though refused\n{shown}");
    assert!(of('a') <= 2, "falsely undeliverable\n{shown}");
    assert!(of('c') + of('d') <= 6, "gone but not undeliverable\n{shown}");
    for reply_tier in [true, false] {
        let strict =
            || judged.iter().filter(|j| j.strict() && (!reply_tier || j.str("tier") == "reply"));
        let right = strict().filter(|j| j.right).count();
        let exact = strict().filter(|j| j.exact).count();
        assert!(100 * exact >= 95 * strict().count(), "{exact}\n{shown}");
        assert!(100 * right >= 97 * strict().count(), "{right}\n{shown}");
    }
}
