//! The dialogs that change a key: each says what it does, and what it does to the tasks of that key that go on now;
//! then it is done.

use std::str::FromStr;

use askama::Template;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use listmill_shared::app::key_pages::KeySight;
use listmill_shared::app::keys::{By, End, KeyError};
use listmill_shared::app::once::Form;
use listmill_shared::app::rotation::Rotation;
use listmill_shared::domain::clock::Millis;
use listmill_shared::domain::id::KeyId;

use super::limits::{self, Limits};
use super::made::Made;
use super::new::{bad_field, number, number_of};
use super::sight::can_rotate;
use super::{Choice, List, Said, confirmed, said};
use crate::Api;
use crate::dashboard::page::{Failure, Page, html_with, see_other, see_other_saying};
use crate::dashboard::query::{Part, escaped, markup};
use crate::dashboard::session::{Posted, Viewer};

/// A key was used minutes ago.
const RECENT_MS: Millis = 3_600_000;
/// How long an old key may open beside the new one: what the form sends, its text, milliseconds.
const GRACES: [(&str, &str, i64); 4] = [
    ("0", "keys.grace_now", 0),
    ("3600", "keys.grace_hour", 3_600_000),
    ("86400", "keys.grace_day", 86_400_000),
    ("604800", "keys.grace_week", 604_800_000),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Disable,
    Enable,
    Rotate,
    Limits,
    Delete,
}

impl FromStr for Action {
    type Err = Failure;

    fn from_str(word: &str) -> Result<Self, Failure> {
        [Self::Disable, Self::Enable, Self::Rotate, Self::Limits, Self::Delete]
            .into_iter()
            .find(|action| action.word() == word)
            .ok_or(Failure::NotFound)
    }
}

impl Action {
    fn word(self) -> &'static str {
        match self {
            Action::Disable => "disable",
            Action::Enable => "enable",
            Action::Rotate => "rotate",
            Action::Limits => "limits",
            Action::Delete => "delete",
        }
    }

    /// Does it ask for the password?
    fn needs_password(self) -> bool {
        matches!(self, Action::Rotate | Action::Delete)
    }

    /// Does it end the key, at once or after a while?
    fn ends(self) -> bool {
        matches!(self, Action::Disable | Action::Delete | Action::Rotate)
    }
}

#[derive(Template)]
#[template(path = "key_action.html")]
struct KeyActionPage {
    page: Page,
    list: List,
    title: String,
    id: String,
    action: &'static str,
    wrong: Option<String>,
    lines: Vec<String>,
    warning: Option<String>,
    open: bool,
    offer_cancel: bool,
    graces: Vec<Choice>,
    limits: Option<Limits>,
    ask_password: bool,
    once: Option<String>,
    button: &'static str,
}

/// What became of the tasks of a key that go on.
fn tasks_text(page: &Page, tasks: i64) -> String {
    match tasks {
        0 => page.t("key_act.tasks_none").to_owned(),
        1 => page.t("key_act.tasks_one").to_owned(),
        many => page.tf("key_act.tasks_many", &[("n", &page.n(many))]),
    }
}

/// Who would notice at once, as HTML.
fn warning(page: &Page, action: Action, sight: &KeySight, now: Millis) -> Option<String> {
    let last = sight.last.as_ref().filter(|last| action.ends() && now - last.at < RECENT_MS)?;
    let from = |ip: &String| page.tf("key_act.recent_from", &[("ip", ip)]);
    let from = last.ip.as_ref().map(from).unwrap_or_default();
    let name = match action {
        Action::Rotate => "key_act.recent_rotate",
        _ => "key_act.recent",
    };
    let time = Part::Html(page.time(last.at).to_string());
    Some(markup(name, &[("time", time), ("from", Part::Text(&from))]))
}

async fn dialog(
    api: &Api,
    viewer: &Viewer,
    action: Action,
    sight: &KeySight,
    refused: Option<(&Said, String)>,
) -> Result<Response, Failure> {
    let page = Page::new(viewer, "keys");
    let (key, now) = (&sight.key, api.app.now());
    let mut warned = warning(&page, action, sight, now);
    let mut open = true;
    if action == Action::Enable
        && let Some(suspension) = key.suspension(now)
    {
        let ended = api.app.key_names(viewer.account, &[key.id]).await?;
        let since = ended.get(&key.id).and_then(|name| name.ended_at).unwrap_or(now);
        let time = Part::Html(page.time(since).to_string());
        let reason = Part::Text(&suspension.reason);
        warned = Some(markup("key_act.suspended", &[("time", time), ("reason", reason)]));
        open = false;
    }
    if action == Action::Rotate && !can_rotate(key, now) {
        warned = Some(escaped(page.t("key_act.cannot_rotate")));
        open = false;
    }
    let mut lines = vec![page.t(&format!("key_act.{}_does", action.word())).to_owned()];
    match action {
        Action::Enable => {}
        Action::Limits => lines.push(page.t("key_act.limits_tasks").to_owned()),
        _ => lines.push(tasks_text(&page, sight.tasks)),
    }
    let form = refused.as_ref().map(|(form, _)| *form);
    let kept = form.map_or("0", |form| said(form, "grace"));
    let grace = |(value, name, _): (&'static str, &str, i64)| Choice {
        value,
        text: page.t(name).to_owned(),
        chosen: value == kept,
    };
    let rotates = action == Action::Rotate;
    let graces = if rotates { GRACES.into_iter().map(grace).collect() } else { Vec::new() };
    let limits = (action == Action::Limits).then(|| {
        let limits = Limits::of(&page, key, now);
        match form {
            Some(form) => limits.said(&page, form),
            None => limits,
        }
    });
    let wrong = refused.map(|(_, wrong)| wrong);
    let status = if wrong.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    let title = page.tf(&format!("key_act.{}", action.word()), &[("label", &key.label)]);
    let template = KeyActionPage {
        list: List::first(api, viewer, &page).await?,
        page,
        title,
        id: key.id.to_string(),
        action: action.word(),
        wrong,
        lines,
        warning: warned,
        open,
        offer_cancel: sight.tasks > 0 && matches!(action, Action::Disable | Action::Delete),
        graces,
        limits,
        ask_password: action.needs_password() && !viewer.elevated,
        once: rotates.then(|| number(api)),
        button: if action.ends() { "button-danger" } else { "button-primary" },
    };
    Ok(html_with(status, &template))
}

/// Reads what a path names.
fn named(id: &str, action: &str) -> Result<(KeyId, Action), Failure> {
    Ok((id.parse().map_err(|_| Failure::NotFound)?, action.parse()?))
}

/// `GET /keys/{id}/{action}`
pub async fn ask(
    State(api): State<Api>,
    viewer: Viewer,
    Path((id, action)): Path<(String, String)>,
) -> Result<Response, Failure> {
    viewer.require_owner()?;
    let (id, action) = named(&id, &action)?;
    if action == Action::Rotate {
        viewer.require_active()?;
    }
    let sight = api.app.key_sight(viewer.account, id).await?.ok_or(Failure::NotFound)?;
    dialog(&api, &viewer, action, &sight, None).await
}

/// `POST /keys/{id}/{action}`
pub async fn confirm(
    State(api): State<Api>,
    mut viewer: Viewer,
    Path((id, action)): Path<(String, String)>,
    Posted(form): Posted<Said>,
) -> Result<Response, Failure> {
    viewer.require_owner()?;
    let (id, action) = named(&id, &action)?;
    if action == Action::Rotate {
        viewer.require_active()?;
    }
    let Some(sight) = api.app.key_sight(viewer.account, id).await? else {
        return gone(&api, &viewer, id).await;
    };
    if action.needs_password()
        && let Err(wrong) = confirmed(&api, &mut viewer, &form).await?
    {
        return dialog(&api, &viewer, action, &sight, Some((&form, wrong))).await;
    }
    let done = match action {
        Action::Disable => end(&api, &viewer, &sight, &End::Disable, &form).await,
        Action::Delete => end(&api, &viewer, &sight, &End::Delete, &form).await,
        Action::Enable => enable(&api, &viewer, &sight).await,
        Action::Limits => limit(&api, &viewer, &sight, &form).await,
        Action::Rotate => rotate(&api, &viewer, &sight, &form).await,
    };
    match done {
        Ok(response) => Ok(response),
        Err(Undone::Say(wrong)) => {
            dialog(&api, &viewer, action, &sight, Some((&form, wrong))).await
        }
        Err(Undone::Failed(failure)) => Err(failure),
    }
}

/// A key that is not there any more was deleted by the same form, sent twice; or it never was.
async fn gone(api: &Api, viewer: &Viewer, id: KeyId) -> Result<Response, Failure> {
    api.app.any_key(viewer.account, id).await?.ok_or(Failure::NotFound)?;
    Ok(see_other(&format!("/keys/{id}/receipt")))
}

/// Why nothing was done.
enum Undone {
    /// The dialog says why.
    Say(String),
    Failed(Failure),
}

impl<E: Into<Failure>> From<E> for Undone {
    fn from(error: E) -> Self {
        Undone::Failed(error.into())
    }
}

/// What a refusal means for the form.
fn undone(page: &Page, error: KeyError) -> Undone {
    match error {
        KeyError::Field(bad) => Undone::Say(bad_field(page, bad.field, &bad.want)),
        KeyError::State(why) => Undone::Say(why),
        other => Undone::Failed(other.into()),
    }
}

async fn end(
    api: &Api,
    viewer: &Viewer,
    sight: &KeySight,
    end: &End,
    form: &Said,
) -> Result<Response, Undone> {
    let page = Page::new(viewer, "keys");
    let (id, by) = (sight.key.id, By::nobody(&viewer.origin));
    let cancel = said(form, "cancel") == "1";
    let ended = api.app.end_key(id, Some(viewer.account), end, cancel, by).await;
    let receipt = ended.map_err(|error| undone(&page, error))?;
    let to = format!("/keys/{id}/receipt");
    Ok(match receipt.cancelled.len() {
        0 => see_other(&to),
        1 => see_other_saying(&to, page.t("keys.said_cancelled_one")),
        many => {
            let many = page.n(i64::try_from(many).unwrap_or(i64::MAX));
            see_other_saying(&to, &page.tf("keys.said_cancelled_many", &[("n", &many)]))
        }
    })
}

async fn enable(api: &Api, viewer: &Viewer, sight: &KeySight) -> Result<Response, Undone> {
    let page = Page::new(viewer, "keys");
    if sight.key.suspension(api.app.now()).is_some() {
        // The dialog says so and has no button: only a form that is older than the suspension gets here.
        return Err(Undone::Say(page.t("key_state.suspended").to_owned()));
    }
    let by = By::nobody(&viewer.origin);
    let key = api.app.enable_key(sight.key.id, Some(viewer.account), by).await;
    let key = key.map_err(|error| undone(&page, error))?;
    Ok(see_other_saying("/keys", &page.tf("keys.said_enabled", &[("label", &key.label)])))
}

async fn limit(
    api: &Api,
    viewer: &Viewer,
    sight: &KeySight,
    form: &Said,
) -> Result<Response, Undone> {
    let page = Page::new(viewer, "keys");
    let fields = limits::read(&page, form, sight.key.is_test()).map_err(Undone::Say)?;
    let by = By::nobody(&viewer.origin);
    let key = api.app.update_key(sight.key.id, Some(viewer.account), fields, by).await;
    let key = key.map_err(|error| undone(&page, error))?;
    Ok(see_other_saying("/keys", &page.tf("keys.said_limits", &[("label", &key.label)])))
}

async fn rotate(
    api: &Api,
    viewer: &Viewer,
    sight: &KeySight,
    form: &Said,
) -> Result<Response, Undone> {
    let page = Page::new(viewer, "keys");
    let (id, grace) = (sight.key.id, said(form, "grace"));
    let chosen = GRACES.into_iter().find(|(value, _, _)| *value == grace);
    let (_, _, grace_ms) = chosen.ok_or(Failure::Form(String::from("grace")))?;
    let what = format!("POST /keys/{id}/rotate {}", viewer.person);
    let once = Form::new(viewer.account, what, &number_of(api, form), &[grace]);
    let (app, account, origin) = (api.app.clone(), viewer.account, viewer.origin.clone());
    let work = move |salt: [u8; 32]| async move {
        let how = Rotation { grace_ms, ..Rotation::default() };
        let rotated = app.rotate_key(id, Some(account), how, By::nobody(&origin), &salt).await?;
        Ok::<_, KeyError>(rotated.key.id.to_string())
    };
    let sent = api.app.send_once(once, work).await.map_err(|error| undone(&page, error))?;
    let (made, new) =
        Made::of(sent, api.app.now()).map_err(|text| Undone::Say(page.t(text).to_owned()))?;
    let new = new.parse::<KeyId>().map_err(|_| Failure::NotFound)?;
    let key = api.app.any_key(account, new).await?.ok_or(Failure::NotFound)?;
    let old = api.app.any_key(account, id).await?.ok_or(Failure::NotFound)?;
    let tasks = tasks_text(&page, sight.tasks);
    let (now, ends_at) = (api.app.now(), old.expires_at.unwrap_or_default());
    let start = ("start", Part::Text(old.start.as_str()));
    let tasks = ("tasks", Part::Text(tasks.as_str()));
    let time = ("time", Part::Html(page.time(ends_at).to_string()));
    let line = match ends_at > now {
        true => markup("key_made.old_later", &[start, time, tasks]),
        false => markup("key_made.old_now", &[start, tasks]),
    };
    let receipt = escaped(page.t("key_made.old_receipt"));
    let lines = vec![line, format!("<a href=\"/keys/{id}/receipt\">{receipt}</a>")];
    let title = page.tf("key_made.rotated", &[("label", &key.label)]);
    Ok(made.show(api, viewer, &key, (title, lines)).await?)
}
