//! Results on a task's page: those that fit a filter, one address that is looked for, and one result with what it
//! rests on.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::Response;
use listmill_shared::app::task_pages::{SEEKING, Sought};
use listmill_shared::domain::result_filter::ResultFilter;
use listmill_shared::domain::task::Task;
use listmill_shared::domain::verdict::{Flag, Flags, Reason, Status};
use listmill_shared::store::results::Found;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::page::{Failure, Page, html};
use super::session::Viewer;
use super::task_row::{name, verdict};
use super::tasks::id_of;
use super::text::{filled, text};
use crate::Api;
use crate::routes::results::{Wanted, filter, page as results_page};

/// Results on a page.
const PAGE: i64 = 50;
/// Characters of an address that is looked for.
const ADDRESS: usize = 320;

/// Which results.
#[derive(Debug, Default, Deserialize)]
pub struct ResultQuery {
    #[serde(default)]
    status: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    flag: String,
    #[serde(default)]
    address: String,
    /// The first `seq` of the page.
    from: Option<i64>,
    /// Where a search goes on.
    batch: Option<i32>,
}

/// Something to choose, or a line of the table of reasons.
pub struct Choice {
    pub value: &'static str,
    pub label: String,
    pub chosen: bool,
    pub count: String,
    pub group: &'static str,
}

/// A line of the table of results.
pub struct Line {
    pub seq: i64,
    pub email: String,
    pub status_label: &'static str,
    pub badge: &'static str,
    pub reason: String,
    pub score: String,
    pub credit: &'static str,
    pub checked: String,
}

/// The part of a task's page that has its results.
pub struct Results {
    pub lines: Vec<Line>,
    pub statuses: Vec<Choice>,
    pub reasons: Vec<Choice>,
    pub flags: Vec<Choice>,
    pub address: String,
    pub filtered: bool,
    /// A filter that there is none of, in words.
    pub wrong: Option<String>,
    /// What a search has come to, in words.
    pub sought: Option<String>,
    pub next: Option<String>,
    pub first: Option<String>,
    /// All that fits, as a file.
    pub file: Option<String>,
}

impl ResultQuery {
    /// The filter, as a link has it.
    fn chosen(&self) -> String {
        let coded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let (status, reason, flag) = (coded(&self.status), coded(&self.reason), coded(&self.flag));
        format!("status={status}&reason={reason}&flag={flag}")
    }

    fn link(&self, task: &Task, rest: &str) -> String {
        let address = utf8_percent_encode(&self.address, NON_ALPHANUMERIC);
        format!("/tasks/{}?{}&address={address}{rest}#results", task.id, self.chosen())
    }
}

/// What is given of a form: an empty field is none.
pub fn given(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

fn reason_label(reason: Reason) -> String {
    text(&format!("reasons.{}", reason.as_str())).to_owned()
}

/// A reason with its count.
pub fn counted(page: &Page, reason: Reason, count: i64) -> Choice {
    Choice {
        value: reason.as_str(),
        label: reason_label(reason),
        chosen: false,
        count: page.n(count),
        group: text(verdict(reason.status().as_str())),
    }
}

/// The results that are asked for, and how to ask for others.
pub async fn results(
    api: &Api,
    page: &Page,
    task: &Task,
    query: &ResultQuery,
) -> Result<Results, Failure> {
    let wanted = filter(given(&query.status), given(&query.reason), given(&query.flag));
    let address = query.address.trim();
    let mut seen = Seen::default();
    let mut wrong = None;
    match wanted {
        Err(problem) => wrong = Some(Failure::from(problem).detail()),
        Ok(wanted) if address.is_empty() => {
            seen = fitting(api, page, task, query, wanted.as_ref()).await?;
        }
        Ok(_) => seen = seek(api, page, task, query, address).await?,
    }
    let flag_choice = |flag: &Flag| Choice {
        value: flag.as_str(),
        label: flag_label(*flag).to_owned(),
        chosen: flag.as_str() == query.flag,
        count: String::new(),
        group: "",
    };
    let status_choice = |status: &Status| Choice {
        value: status.as_str(),
        label: text(verdict(status.as_str())).to_owned(),
        chosen: status.as_str() == query.status,
        count: String::new(),
        group: "",
    };
    let reason_choice = |reason: &Reason| Choice {
        chosen: reason.as_str() == query.reason,
        ..counted(page, *reason, 0)
    };
    let chosen = [&query.status, &query.reason, &query.flag].iter().any(|text| !text.is_empty());
    let first = query.from.is_some_and(|from| from > 0);
    let file = format!("/tasks/{}/download?format=csv&{}", task.id, query.chosen());
    Ok(Results {
        lines: seen.lines,
        statuses: Status::ALL.iter().map(status_choice).collect(),
        reasons: Reason::ALL.iter().map(reason_choice).collect(),
        flags: Flag::ALL.iter().map(flag_choice).collect(),
        filtered: chosen || !address.is_empty(),
        address: query.address.clone(),
        sought: seen.sought,
        next: seen.next,
        first: first.then(|| query.link(task, "")),
        file: (chosen && address.is_empty() && wrong.is_none()).then_some(file),
        wrong,
    })
}

/// What was found.
#[derive(Default)]
struct Seen {
    lines: Vec<Line>,
    sought: Option<String>,
    next: Option<String>,
}

/// A page of those that fit.
async fn fitting(
    api: &Api,
    page: &Page,
    task: &Task,
    query: &ResultQuery,
    filter: Option<&ResultFilter>,
) -> Result<Seen, Failure> {
    let after = query.from.unwrap_or(0).max(0) - 1;
    let wanted = Wanted { after, limit: PAGE, follow: false, patience: SEEKING };
    let found = results_page(&api.app.store, task, wanted, filter).await?;
    let looked = found.next.filter(|_| found.cut).map(|seq| {
        let done = page.n((seq + 1) * 100 / task.submitted.unique.max(1));
        filled("task.looking", &[("percent", &done)])
    });
    Ok(Seen {
        lines: found.rows.iter().map(|found| line(page, found)).collect(),
        sought: looked,
        next: found.next.map(|seq| query.link(task, &format!("&from={}", seq + 1))),
    })
}

/// Exactly this address.
async fn seek(
    api: &Api,
    page: &Page,
    task: &Task,
    query: &ResultQuery,
    address: &str,
) -> Result<Seen, Failure> {
    let said = |sought: String| Seen { sought: Some(sought), ..Seen::default() };
    if address.chars().count() > ADDRESS {
        return Ok(said(text("task.not_found").to_owned()));
    }
    Ok(match api.app.seek(task, address, query.batch.unwrap_or(0).max(0)).await? {
        Sought::Found(_, Some(found)) => {
            Seen { lines: vec![line(page, &found)], ..Seen::default() }
        }
        Sought::Found(_, None) => said(text("task.no_result_yet").to_owned()),
        Sought::Nowhere => said(text("task.not_found").to_owned()),
        Sought::On(batch) => {
            let done = page.n(i64::from(batch) * 100 / task.batches.max(1));
            let next = Some(query.link(task, &format!("&batch={batch}")));
            Seen { next, ..said(filled("task.seeking", &[("percent", &done)])) }
        }
    })
}

fn flag_label(flag: Flag) -> &'static str {
    match flag {
        Flag::Role => text("task.flag_role"),
        Flag::Free => text("task.flag_free"),
        Flag::Disposable => text("task.flag_disposable"),
        Flag::CatchAll => text("task.flag_catch_all"),
        Flag::MailboxFull => text("task.flag_mailbox_full"),
        Flag::Disabled => text("task.flag_disabled"),
    }
}

fn badge(status: Status) -> &'static str {
    match status {
        Status::Deliverable => "badge-ok",
        Status::Undeliverable => "badge-bad",
        Status::Risky => "badge-warn",
        Status::Unknown => "badge-idle",
    }
}

fn credit_label(found: &Found) -> &'static str {
    match found.credit.as_str() {
        "charged" => text("task.credit_charged"),
        "refunded" => text("task.credit_refunded"),
        _ => text("task.credit_free"),
    }
}

fn line(page: &Page, found: &Found) -> Line {
    let status = found.reason.status();
    Line {
        seq: found.seq,
        email: found.address.clone(),
        status_label: text(verdict(status.as_str())),
        badge: badge(status),
        reason: reason_label(found.reason),
        score: page.n(i64::from(found.score)),
        credit: credit_label(found),
        checked: page.time(found.checked_at).to_string(),
    }
}

#[derive(Template)]
#[template(path = "task_result.html")]
struct ResultPage {
    page: Page,
    id: String,
    task: String,
    line: Line,
    facts: Vec<(&'static str, String)>,
    evidence: Vec<(String, String)>,
}

/// `GET /tasks/{id}/results/{seq}`: one result, and what it rests on.
pub async fn result(
    State(api): State<Api>,
    viewer: Viewer,
    Path((id, seq)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let task = api.app.task(id_of(&id)?, viewer.account).await?;
    let seq: i64 = seq.parse().map_err(|_| Failure::NotFound)?;
    let found = api.app.store.result(task.id, seq).await?;
    let (found, detail) = found.ok_or(Failure::NotFound)?;
    let page = Page::new(&viewer, "tasks");
    Ok(html(&ResultPage {
        id: task.id.to_string(),
        task: name(&task),
        line: line(&page, &found),
        facts: result_facts(&page, &found),
        evidence: detail.map(|detail| evidence(&detail)).unwrap_or_default(),
        page,
    }))
}

fn result_facts(page: &Page, found: &Found) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    let mut fact = |name, value: Option<String>| {
        facts.extend(value.map(|value| (text(name), value)));
    };
    fact("task.score", Some(page.n(i64::from(found.score))));
    fact("task.credit", Some(credit_label(found).to_owned()));
    fact("task.attempts", Some(page.n(i64::from(found.attempts))));
    fact("task.mx", found.mx.clone());
    fact("task.smtp_code", found.smtp_code.map(|code| code.to_string()));
    fact("task.did_you_mean", found.did_you_mean.clone());
    fact("task.flags", flags(found.flags));
    facts
}

fn flags(flags: Flags) -> Option<String> {
    let set = Flag::ALL.iter().filter(|flag| flags.has(**flag));
    let set: Vec<&str> = set.map(|flag| flag_label(*flag)).collect();
    (!set.is_empty()).then(|| set.join(", "))
}

/// What a verdict rests on, field by field. What others have written stays text.
fn evidence(detail: &str) -> Vec<(String, String)> {
    let shown = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Array(_) | serde_json::Value::Object(_) => {
            serde_json::to_string_pretty(value).unwrap_or_default()
        }
        plain => plain.to_string(),
    };
    match serde_json::from_str(detail) {
        Ok(serde_json::Value::Object(fields)) => fields
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.replace('_', " "), shown(value)))
            .collect(),
        _ => vec![(text("task.evidence").to_owned(), detail.to_owned())],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_is_shown_field_by_field() {
        let fields =
            evidence(r#"{"rule":"no <such> user","code":550,"replies":["a","b"],"tls":null}"#);
        let of = |name: &str| fields.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        assert_eq!(of("rule"), Some("no <such> user"));
        assert_eq!(of("code"), Some("550"));
        assert_eq!(of("replies"), Some("[\n  \"a\",\n  \"b\"\n]"));
        assert_eq!(of("tls"), None);
        assert_eq!(evidence("not json")[0].1, "not json");
    }

    #[test]
    fn every_reason_and_verdict_has_words() {
        for reason in Reason::ALL {
            assert!(!reason_label(*reason).starts_with("reasons."), "{reason:?}");
        }
        for status in Status::ALL {
            let name = verdict(status.as_str());
            assert_ne!(text(name), name);
        }
        for flag in Flag::ALL {
            assert!(!flag_label(*flag).starts_with("task."), "{flag:?}");
        }
    }
}
