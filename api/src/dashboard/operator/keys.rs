//! Keys, whosever they are: found by their beginning, id, label or external id; suspended, and let go again.

use axum::extract::{Path, Query, State};
use axum::response::Response;
use listmill_shared::domain::id::KeyId;
use listmill_shared::domain::key::{Key, Secret, Suspension};
use listmill_shared::store::abuse::Signal;
use listmill_shared::store::abuse_acts::Lifted;
use listmill_shared::store::operators::KeySearch;
use serde::Deserialize;

use super::sheet::{Act, Cell, Dialog, Field, Part, Search, Sheet, Table, shown, titled};
use super::subject::{Subject, ask};
use super::{Operator, PAGE, encoded, ends_at, find_account};
use crate::Api;
use crate::dashboard::page::{Failure, see_other_saying};
use crate::dashboard::session::{Nothing, Posted, Viewer};
use crate::dashboard::text::{filled, text};

/// Signals that are shown.
const SIGNALS: i64 = 20;
/// What begins like a key and is as long as this is taken for one, mistyped or not.
const LIKE_A_KEY: usize = 20;

/// Which keys.
#[derive(Deserialize, Default)]
pub struct Find {
    #[serde(default)]
    q: String,
    #[serde(default)]
    by: String,
    after: Option<String>,
}

/// What is looked for; `None`: there can be no such key.
async fn search(api: &Api, find: &Find) -> Result<Option<KeySearch>, Failure> {
    let q = find.q.trim();
    if q.is_empty() {
        return Ok(Some(KeySearch::All));
    }
    let prefix = &api.app.settings.key_prefix;
    // It would stand in the address, and so in the browser's history and a proxy's log.
    let like = q.starts_with(prefix.as_str()) && q.len() >= LIKE_A_KEY;
    if like || Secret::find_in(prefix, q.as_bytes()).next().is_some() {
        return Err(Failure::Wrong(text("operator.a_whole_key").to_owned()));
    }
    Ok(match find.by.as_str() {
        "id" => q.parse().ok().map(KeySearch::Id),
        "label" => Some(KeySearch::Label(q.to_owned())),
        "external_id" => Some(KeySearch::ExternalId(q.to_owned())),
        "account" => find_account(api, q).await?.map(KeySearch::Account),
        _ if q.starts_with(KeyId::PREFIX) => q.parse().ok().map(KeySearch::Id),
        _ => Some(KeySearch::Start(q.to_owned())),
    })
}

fn badge(key: &Key, now: i64) -> Part {
    let status = key.status(now);
    let class = match status {
        "active" => "badge-ok",
        "suspended" => "badge-bad",
        _ => "badge-idle",
    };
    Part::Badge(class, status.replace('_', " "))
}

fn row(key: &Key, now: i64) -> Vec<Cell> {
    let path = format!("/operator/keys/{}", key.id);
    let start = Part::Code(format!("{}…", key.start));
    let mut state = vec![badge(key, now)];
    state.extend(key.suspended.as_ref().map(|one| Part::Muted(one.reason.clone())));
    let given = key.external_id.clone().map(Part::Muted);
    let label = Part::Link(path.clone(), key.label.clone());
    let act = match key.suspended {
        _ if key.deleted_at.is_some() => Part::text(""),
        None => {
            Part::Button(format!("{path}/suspend"), text("operator.suspend"), key.label.clone())
        }
        Some(_) => {
            Part::Button(format!("{path}/unsuspend"), text("operator.unsuspend"), key.label.clone())
        }
    };
    vec![
        Cell::of([label, start].into_iter().chain(given).collect()),
        Cell::of(state),
        Part::Link(format!("/operator/accounts/{}", key.account), key.account.to_string()).into(),
        key.environment.as_str().into(),
        Part::Time(key.created_at).into(),
        act.into(),
    ]
}

/// `GET /operator/keys`
pub async fn list(
    State(api): State<Api>,
    Operator(viewer): Operator,
    Query(find): Query<Find>,
) -> Result<Response, Failure> {
    let store = &api.app.store;
    let after = match find.after.as_deref().map(str::parse::<KeyId>) {
        Some(Ok(id)) => store.any_key(id, None).await?,
        _ => None,
    };
    let mut keys = match search(&api, &find).await? {
        Some(search) => store.search_all_keys(&search, after.as_ref(), PAGE + 1).await?,
        None => Vec::new(),
    };
    let more = keys.len() as i64 > PAGE;
    keys.truncate(PAGE as usize);
    let next = keys.last().filter(|_| more).map(|last| {
        let (by, q) = (encoded(&find.by), encoded(find.q.trim()));
        format!("/operator/keys?by={by}&q={q}&after={}", last.id)
    });
    let mut q = Field::typed("q", text("operator.key_search"));
    (q.kind, q.value, q.hint) = ("search", find.q.trim().to_owned(), text("operator.no_whole_key"));
    let mut by = Field::typed("by", text("operator.search_by"));
    by.choices = vec![
        ("start", text("operator.by_start")),
        ("id", text("operator.by_id")),
        ("label", text("operator.by_label")),
        ("external_id", text("operator.by_external_id")),
        ("account", text("operator.by_account")),
    ];
    by.value = find.by;
    let now = api.app.now();
    let sheet = Sheet {
        search: Some(Search { to: "/operator/keys", fields: vec![q, by] }),
        tables: vec![Table {
            title: text("operator.keys").to_owned(),
            head: vec![
                text("operator.key"),
                text("operator.state"),
                text("operator.account"),
                text("operator.environment"),
                text("operator.created"),
                "",
            ],
            rows: keys.iter().map(|key| row(key, now)).collect(),
            empty: text("operator.no_keys"),
        }],
        next,
        ..titled("keys")
    };
    Ok(shown(&viewer, "keys", sheet))
}

fn signal_line(signal: &Signal) -> Vec<Cell> {
    vec![
        Part::Time(signal.at).into(),
        signal.rule.as_str().replace('_', " ").into(),
        signal.action.as_str().replace('_', " ").into(),
        signal.counted.to_string().into(),
        signal.strikes.to_string().into(),
        Part::Time(signal.ends_at).into(),
        Part::Code(signal.detail.clone()).into(),
    ]
}

impl Subject for Key {
    const TAB: &'static str = "keys";

    async fn find(api: &Api, id: &str) -> Result<Self, Failure> {
        let id: KeyId = id.parse().map_err(|_| Failure::NotFound)?;
        api.app.store.any_key(id, None).await?.ok_or(Failure::NotFound)
    }

    fn path(&self) -> String {
        format!("/operator/keys/{}", self.id)
    }

    async fn about(&self, api: &Api, _: &Viewer) -> Result<Sheet, Failure> {
        let store = &api.app.store;
        let signals = store.signals(Some(&self.id.to_string()), None, SIGNALS).await?;
        let last = store.last_used(&[self.id]).await?.remove(&self.id);
        let path = self.path();
        let owner = format!("/operator/accounts/{}", self.account);
        let mut facts: Vec<(&'static str, Cell)> = vec![
            (text("operator.id"), Part::Code(self.id.to_string()).into()),
            (text("operator.begins"), Part::Code(format!("{}…", self.start)).into()),
            (text("operator.state"), badge(self, api.app.now()).into()),
            (text("operator.account"), Part::Link(owner, self.account.to_string()).into()),
            (text("operator.environment"), self.environment.as_str().into()),
            (text("operator.created"), Part::Time(self.created_at).into()),
            (
                text("operator.expires"),
                Part::time_or(self.expires_at, text("operator.never")).into(),
            ),
            (
                text("operator.last_used"),
                Part::time_or(last.map(|last| last.at), text("operator.never")).into(),
            ),
        ];
        if let Some(given) = &self.external_id {
            facts.push((text("operator.external_id"), given.as_str().into()));
        }
        let mut acts = Vec::new();
        if self.deleted_at.is_none() {
            acts.push(Act::open(format!("{path}/suspend"), text("operator.suspend")));
            acts.push(Act::open(format!("{path}/unsuspend"), text("operator.unsuspend")));
        }
        if let Some(one) = &self.suspended {
            facts.push((text("operator.reason"), one.reason.as_str().into()));
            facts.push((text("operator.note"), one.note.clone().unwrap_or_default().into()));
            facts.push((
                text("operator.until"),
                Part::time_or(one.until, text("operator.until_lifted")).into(),
            ));
        }
        Ok(Sheet {
            title: self.label.clone(),
            acts,
            facts,
            tables: vec![Table {
                title: text("operator.signals").to_owned(),
                head: vec![
                    text("operator.when"),
                    text("operator.rule"),
                    text("operator.done"),
                    text("operator.count"),
                    text("operator.strikes"),
                    text("operator.until"),
                    text("operator.detail"),
                ],
                rows: signals.iter().map(signal_line).collect(),
                empty: text("operator.no_signals"),
            }],
            ..Sheet::default()
        })
    }
}

/// A key that something can be done to.
async fn living(api: &Api, id: &str) -> Result<Key, Failure> {
    let key = Key::find(api, id).await?;
    if key.deleted_at.is_some() { Err(Failure::NotFound) } else { Ok(key) }
}

/// What is filled in to suspend.
fn suspension_fields() -> Vec<Field> {
    let mut reason = Field::typed("reason", text("operator.reason"));
    (reason.required, reason.hint) = (true, text("operator.reason_hint"));
    let mut note = Field::typed("note", text("operator.note"));
    note.hint = text("operator.note_for_operators");
    let mut lasts = Field::typed("lasts", text("operator.lasts"));
    lasts.hint = text("operator.lasts_hint");
    vec![reason, note, lasts]
}

/// `GET /operator/keys/{id}/suspend`
pub async fn ask_suspend(
    State(api): State<Api>,
    Operator(viewer): Operator,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let key = living(&api, &id).await?;
    let dialog = Dialog {
        title: filled("operator.suspend_key", &[("label", &key.label)]),
        lines: vec![text("operator.suspend_why").to_owned()],
        fields: suspension_fields(),
        button: text("operator.suspend"),
        danger: true,
        ..Dialog::default()
    };
    ask(&api, &viewer, &key, "suspend", dialog).await
}

/// A suspension.
#[derive(Deserialize)]
pub struct Suspend {
    #[serde(default)]
    reason: String,
    note: Option<String>,
    #[serde(default)]
    lasts: String,
}

/// `POST /operator/keys/{id}/suspend`
pub async fn suspend(
    State(api): State<Api>,
    Operator(viewer): Operator,
    Path(id): Path<String>,
    Posted(form): Posted<Suspend>,
) -> Result<Response, Failure> {
    let key = Key::find(&api, &id).await?;
    let until = ends_at(&form.lasts, api.app.now())?;
    let suspension = Suspension { reason: form.reason, until, note: form.note };
    let receipt = api.app.suspend_key(key.id, suspension, &viewer.origin).await?;
    let tasks = viewer.reader.number(receipt.tasks.len() as i64);
    let said = filled("operator.key_suspended", &[("label", &key.label), ("tasks", &tasks)]);
    Ok(see_other_saying(&key.path(), &said))
}

/// `GET /operator/keys/{id}/unsuspend`
pub async fn ask_unsuspend(
    State(api): State<Api>,
    Operator(viewer): Operator,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let key = living(&api, &id).await?;
    let mut lines = vec![match &key.suspended {
        None => text("operator.not_suspended").to_owned(),
        Some(one) => filled(
            "operator.suspended_for",
            &[("reason", &one.reason), ("note", one.note.as_deref().unwrap_or_default())],
        ),
    }];
    let subject = key.id.to_string();
    let newest = api.app.store.signals(Some(&subject), None, 1).await?;
    lines.extend(newest.first().map(|signal| {
        filled(
            "operator.signal_resets",
            &[
                ("rule", &signal.rule.as_str().replace('_', " ")),
                ("n", &signal.counted.to_string()),
                ("strikes", &signal.strikes.to_string()),
            ],
        )
    }));
    lines.push(text("operator.unsuspend_why").to_owned());
    let dialog = Dialog {
        title: filled("operator.unsuspend_key", &[("label", &key.label)]),
        lines,
        button: text("operator.unsuspend"),
        ..Dialog::default()
    };
    ask(&api, &viewer, &key, "unsuspend", dialog).await
}

/// `POST /operator/keys/{id}/unsuspend`
pub async fn unsuspend(
    State(api): State<Api>,
    Operator(viewer): Operator,
    Path(id): Path<String>,
    Posted(Nothing {}): Posted<Nothing>,
) -> Result<Response, Failure> {
    let key = Key::find(&api, &id).await?;
    let lifted = api.app.lift_suspension(key.id, &viewer.origin).await?;
    let lifted = lifted.ok_or(Failure::NotFound)?;
    Ok(see_other_saying(&key.path(), &told(&lifted)))
}

/// What was lifted and reset.
fn told(lifted: &Lifted) -> String {
    let (was, key) = &*lifted.keys;
    let by = match (&was.suspended, &lifted.signal) {
        (None, _) => text("operator.not_suspended").to_owned(),
        (Some(_), None) => text("operator.was_by_operator").to_owned(),
        (Some(_), Some(signal)) => filled(
            "operator.was_by_rule",
            &[
                ("rule", &signal.rule.as_str().replace('_', " ")),
                ("n", &signal.counted.to_string()),
            ],
        ),
    };
    let strikes: i64 = lifted.strikes.iter().map(|(_, strikes)| i64::from(*strikes)).sum();
    let reset = filled(
        "operator.reset",
        &[
            ("strikes", &strikes.to_string()),
            ("counts", &lifted.counts.to_string()),
            ("networks", &lifted.networks.to_string()),
        ],
    );
    let lifted = filled("operator.key_unsuspended", &[("label", &key.label)]);
    format!("{lifted} {by} {reset}")
}
