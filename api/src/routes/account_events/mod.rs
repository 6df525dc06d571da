//! An account's tasks and balance as server-sent events: one stream, however many tasks there are.
//!
//! The `id` of an event is a time in milliseconds, on the database's clock: whoever knows it has been told of
//! everything that ended or was erased before. A listener that comes back with it is told what has ended or was
//! erased since, and how every open task stands; so each of them at least once. Where several things are told
//! together, the last of them brings the new `id`.

mod hub;

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{FromRequestParts, Request, State as Shared};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use listmill_shared::domain::clock::Millis;
use listmill_shared::domain::id::{AccountId, KeyId, TaskId};
use listmill_shared::domain::key::Scope;
use listmill_shared::store::StoreError;
use listmill_shared::store::live::{Mark, Money};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

pub use self::hub::Hub;
use self::hub::{Past, Seat, State, Told, join};
use super::events::{ALIVE, RETRY, Snapshot};
use crate::Api;
use crate::dashboard::page::Failure;
use crate::dashboard::session::{Viewer, from_elsewhere, session_token};
use crate::gate::{Caller, gate};
use crate::openapi::Gate;
use crate::problem::{Problem, TOO_MANY_STREAMS};
use crate::view::{TaskView, to_json};

/// Events that may wait for the connection.
const AHEAD: usize = 16;
/// How often is it asked whether a listener may still listen?
const ASK: Duration = Duration::from_secs(5);

type Sender = mpsc::Sender<Result<Event, Infallible>>;

/// Says whether a listener may still listen.
pub type Still = Box<dyn Fn() -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>;

/// Who listens, and what for.
pub struct Listener {
    /// To whose tasks.
    pub account: AccountId,
    /// Only those that a key of this family submitted.
    pub family: Option<KeyId>,
    /// Only sandbox tasks, or only the others.
    pub sandbox: Option<bool>,
    /// Also to the balance.
    pub money: bool,
    /// Asked every few seconds; the stream ends when it says no.
    pub still: Still,
}

impl Listener {
    fn hears(&self, mark: &Mark) -> bool {
        self.family.is_none_or(|family| mark.family == Some(family))
            && self.sandbox.is_none_or(|sandbox| mark.sandbox == sandbox)
    }
}

/// Follow an account
///
/// Server-sent events about all tasks that the key may see; a session of the dashboard opens it too. (Keys with `tasks:own` see their
/// own, test keys those of test keys.)
///
/// - `task`: `data` is the task as `GET /v1/tasks/{id}` gives it; whenever it changed (looked at twice a second);
/// - `balance`: `{"balance": …, "held": …}`, email credits, whenever they changed; for keys with `account:read`;
/// - `gone`: `{"id": …}`, the task was erased.
///
/// At first it tells how the open tasks stand (the newest 200) and the balance. A listener that comes back with
/// `Last-Event-ID` is also told of every task that ended or was erased meanwhile; some things are told twice. A
/// listener that reads slowly is told the newest state and not what came before. The stream ends when the server
/// shuts down, and within seconds when the key may not listen any longer. An account may have 100 streams at a
/// server process; one more is refused (429).
#[utoipa::path(get, path = "/v1/events", tag = "tasks",
    params(("Last-Event-ID" = Option<String>, Header, description = "The last `id` that was seen.")),
    responses((status = 200, description = "The events.", body = String,
        content_type = "text/event-stream"), Gate))]
pub async fn account_events(
    Shared(api): Shared<Api>,
    viewer: Option<Extension<Viewer>>,
    mut request: Parts,
) -> Result<Response, Problem> {
    if let Some(Extension(viewer)) = viewer {
        return stream(api.clone(), of_viewer(api, viewer), &request.headers);
    }
    let caller = Caller::from_request_parts(&mut request, &api).await?;
    let listener = Listener {
        account: caller.account,
        family: caller.own_only(),
        // A test key sees the sandbox alone; a live one both.
        sandbox: caller.is_test().then_some(true),
        money: caller.door.permit(Scope::AccountRead).is_ok(),
        still: still(&api, &caller),
    };
    stream(api, listener, &request.headers)
}

/// A person at their dashboard hears everything of the account, for as long as they are logged in and look at it.
fn of_viewer(api: Api, viewer: Viewer) -> Listener {
    let account = viewer.account;
    let still: Still = Box::new(move || {
        let (api, token) = (api.clone(), viewer.token().clone());
        Box::pin(async move {
            match api.app.session(&token).await {
                Ok(session) => session.is_some_and(|session| session.account == account),
                Err(_) => true,
            }
        })
    });
    Listener { account, family: None, sandbox: None, money: true, still }
}

/// Middleware of a route that a session opens as well as a key; a key that is presented goes first.
pub async fn key_or_session(Shared(api): Shared<Api>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let headers = &parts.headers;
    let key = headers.contains_key(AUTHORIZATION) || headers.contains_key("x-api-key");
    if !key && session_token(headers).is_some() && !from_elsewhere(headers) {
        match Viewer::from_request_parts(&mut parts, &api).await {
            Ok(viewer) => {
                parts.extensions.insert(viewer);
                return next.run(Request::from_parts(parts, body)).await;
            }
            // Nobody is logged in any more: refused as one who shows no key.
            Err(Failure::Login(_)) => {}
            Err(failure) => return failure.into_response(),
        }
    }
    gate(Shared(api), Request::from_parts(parts, body), next).await
}

/// May the key that opened the door still do so?
fn still(api: &Api, caller: &Caller) -> Still {
    let (api, key, account) = (api.clone(), caller.key, caller.account);
    let ip = caller.origin.ip;
    Box::new(move || {
        let api = api.clone();
        Box::pin(async move {
            let store = &api.app.store;
            let found = async {
                let suspended = store.suspension_of(account).await?;
                Ok::<_, StoreError>((store.any_key(key, Some(account)).await?, suspended))
            };
            match found.await {
                Ok((Some(key), suspended)) => {
                    let admitted = key.admit_in(suspended.as_ref(), api.app.now(), ip);
                    admitted.is_ok() && key.permit(Scope::TasksRead).is_ok()
                }
                Ok((None, _)) => false,
                // Nobody can be asked at the moment, and nothing new is told meanwhile.
                Err(_) => true,
            }
        })
    })
}

/// The stream of an account, for whoever was let in.
pub fn stream(api: Api, listener: Listener, headers: &HeaderMap) -> Result<Response, Problem> {
    let seen =
        headers.get("last-event-id").and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let Some(seat) = join(&api, listener.account) else {
        return Err(Problem::new(
            TOO_MANY_STREAMS,
            "The account has 100 streams here already. One of them tells of all its tasks.",
        )
        .retry_after(5));
    };
    let (sender, receiver) = mpsc::channel(AHEAD);
    let known = Known::new(seen);
    tokio::spawn(Following { api, listener, known, sender }.follow(seat));
    let alive = KeepAlive::new().interval(ALIVE);
    Ok(Sse::new(ReceiverStream::new(receiver)).keep_alive(alive).into_response())
}

/// Something to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
enum News {
    Task(Arc<str>),
    Gone(TaskId),
    Balance(Money),
}

impl News {
    fn event(&self) -> Event {
        match self {
            News::Task(data) => Event::default().event("task").data(data),
            News::Gone(id) => {
                Event::default().event("gone").data(to_json(&serde_json::json!({ "id": id })))
            }
            News::Balance(Money { balance, held }) => {
                let data = serde_json::json!({ "balance": balance, "held": held });
                Event::default().event("balance").data(to_json(&data))
            }
        }
    }
}

/// What a listener knows.
#[derive(Debug, Default)]
struct Known {
    /// The change of the room that it was told last.
    turn: Option<u64>,
    /// It has been told of everything that ended or was erased before then; `None`: it never listened.
    since: Option<Millis>,
    tasks: HashMap<TaskId, Snapshot>,
    gone: HashMap<TaskId, Mark>,
    money: Option<Money>,
}

impl Known {
    fn new(since: Option<Millis>) -> Self {
        Self { since, ..Self::default() }
    }

    /// What it has missed that the state does not tell: it begins then.
    fn missed(&self, state: &State) -> Option<Millis> {
        let next = self.turn.is_some_and(|turn| state.turn <= turn + 1);
        self.since.filter(|since| !next && *since < state.floor)
    }

    /// What the state tells that the listener does not know: what ended first, the balance last. Nobody is told
    /// what had ended when it came.
    fn learn(&mut self, listener: &Listener, state: &State) -> Vec<News> {
        let new = self.turn.is_none();
        let told = |mark: &Mark| !new || self.since.is_some_and(|since| since <= mark.at);
        let mut news = Vec::new();
        for (id, mark) in &state.gone {
            if listener.hears(mark) && told(mark) && !self.gone.contains_key(id) {
                news.push(News::Gone(*id));
            }
        }
        let mut ended = Vec::new();
        let mut open = Vec::new();
        for (id, task) in &state.tasks {
            let Told { mark, now, data } = task;
            let (list, due) = match now.has_ended() {
                true => (&mut ended, told(mark)),
                false => (&mut open, true),
            };
            if due && listener.hears(mark) && self.tasks.get(id) != Some(now) {
                list.push(News::Task(data.clone()));
            }
        }
        news.append(&mut ended);
        news.append(&mut open);
        if let Some(money) = state.money.filter(|_| listener.money)
            && self.money != Some(money)
        {
            news.push(News::Balance(money));
        }
        self.turn = Some(state.turn);
        self.tasks = state.tasks.iter().map(|(id, task)| (*id, task.now)).collect();
        self.gone = state.gone.iter().map(|(id, mark)| (*id, *mark)).collect();
        self.money = state.money;
        news
    }
}

/// The listener has gone away, or the server goes.
struct Over;

struct Following {
    api: Api,
    listener: Listener,
    known: Known,
    sender: Sender,
}

impl Following {
    async fn follow(mut self, mut seat: Seat) {
        let mut ask = tokio::time::interval(ASK);
        // The first is at once, and it has just been let in.
        ask.tick().await;
        loop {
            let state = seat.borrow_and_update().clone();
            if let Some(state) = state
                && self.tell(&state).await.is_err()
            {
                return;
            }
            loop {
                tokio::select! {
                    changed = seat.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => return,
                    },
                    _ = ask.tick() => {
                        if !(self.listener.still)().await {
                            return;
                        }
                    }
                    () = self.sender.closed() => return,
                    () = self.api.drain.cancelled() => return,
                }
            }
        }
    }

    /// Tells what the state has that the listener does not know.
    async fn tell(&mut self, state: &State) -> Result<(), Over> {
        if let Some(since) = self.known.missed(state) {
            self.catch_up(since, state.floor).await?;
            self.known.since = Some(state.floor);
        }
        let before = self.known.since.unwrap_or(state.at);
        let news = self.known.learn(&self.listener, state);
        let last = news.len().saturating_sub(1);
        for (no, one) in news.iter().enumerate() {
            self.send(one, if no == last { state.at } else { before }).await?;
        }
        self.known.since = Some(state.at.max(before));
        Ok(())
    }

    /// Tells what was erased or ended from `since` on until `floor`, page by page, in the order of time.
    async fn catch_up(&mut self, since: Millis, floor: Millis) -> Result<(), Over> {
        for what in [Past::Erased, Past::Ended] {
            let mut from = (since, TaskId::FIRST);
            loop {
                // It comes back, and may find the database there.
                let found = hub::since(&self.api.app, self.listener.account, from, what).await;
                let page = found.map_err(|_| Over)?;
                let end = page.len() < hub::AT_ONCE as usize;
                let last = page.last().map(|mark| (mark.at, mark.id));
                let heard: Vec<Mark> =
                    page.into_iter().filter(|m| m.at < floor && self.listener.hears(m)).collect();
                match what {
                    Past::Erased => {
                        for mark in heard {
                            self.send(&News::Gone(mark.id), since).await?;
                        }
                    }
                    Past::Ended => self.tell_ended(&heard).await?,
                }
                match last.filter(|(at, _)| !end && *at < floor) {
                    Some(last) => from = last,
                    None => break,
                }
            }
        }
        Ok(())
    }

    async fn tell_ended(&mut self, marks: &[Mark]) -> Result<(), Over> {
        let ids: Vec<TaskId> = marks.iter().map(|mark| mark.id).collect();
        let tasks = self.api.app.store.tasks_by_id(&ids).await.map_err(|_| Over)?;
        let (now, ttl) = (self.api.app.now(), self.api.app.settings.results_ttl);
        let tasks: HashMap<TaskId, Arc<str>> = tasks
            .iter()
            .map(|task| (task.id, Arc::from(TaskView::new(task, now, ttl).json())))
            .collect();
        for mark in marks {
            // Erased meanwhile, it will be told of as gone.
            if let Some(data) = tasks.get(&mark.id) {
                self.send(&News::Task(data.clone()), mark.at).await?;
            }
        }
        Ok(())
    }

    async fn send(&self, news: &News, id: Millis) -> Result<(), Over> {
        let event = news.event().id(id.to_string()).retry(RETRY);
        tokio::select! {
            sent = self.sender.send(Ok(event)) => sent.map_err(|_| Over),
            () = self.api.drain.cancelled() => Err(Over),
        }
    }
}

#[cfg(test)]
mod tests;
