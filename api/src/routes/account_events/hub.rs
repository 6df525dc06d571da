//! Rooms: an account that somebody in this process listens to has one, in which one task looks at the database for
//! all of them.
//!
//! A room shows its newest [`State`] and no other, so a listener that is slow is led past what it missed; nothing
//! waits for it in memory. A state holds the open tasks (the newest [`OPEN`]) and whatever ended or was erased
//! within [`KEEP`]; who has missed more asks the database. The last listener to leave closes the room.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use listmill_shared::app::App;
use listmill_shared::domain::clock::Millis;
use listmill_shared::domain::id::{AccountId, TaskId};
use listmill_shared::domain::task::Task;
use listmill_shared::store::StoreError;
use listmill_shared::store::live::{Mark, Money};
use tokio::sync::watch;

use super::super::events::{LOOK, Snapshot};
use crate::Api;
use crate::view::TaskView;

/// Open tasks that are told of, the newest.
const OPEN: i64 = 200;
/// Tasks read by one statement.
pub const AT_ONCE: i64 = 200;
/// Listeners in a room.
const MOST: usize = 100;
/// What is stored late, or by a clock that is a little off, is no later than that.
const LATE: Millis = 30_000;
/// So long what has ended stays in the state.
const KEEP: Millis = 2 * LATE;
/// A room that takes long to look at is looked at less often: this many times as long lies between.
const REST: u32 = 9;

/// A task as listeners are told of it.
#[derive(Debug, Clone)]
pub struct Told {
    /// Who may hear of it, and since when it is what it is.
    pub mark: Mark,
    /// What a change of it is told by.
    pub now: Snapshot,
    /// The task as JSON.
    pub data: Arc<str>,
}

/// What an account's listeners are told of.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// Which change this is; no two of a room have the same.
    pub turn: u64,
    /// What ended or was erased since then is in here.
    pub floor: Millis,
    /// Who knows this state has missed nothing that happened before then.
    pub at: Millis,
    /// Open tasks, and those that ended since `floor`.
    pub tasks: BTreeMap<TaskId, Told>,
    /// Those that were erased since `floor`.
    pub gone: BTreeMap<TaskId, Mark>,
    /// What there is to spend.
    pub money: Option<Money>,
}

impl State {
    /// Is there anything to tell to who knows `other`?
    fn differs(&self, other: &State) -> bool {
        let same = |a: &Told, b: &Told| a.now == b.now;
        let tasks = |(id, told): (&TaskId, &Told)| {
            other.tasks.get(id).is_some_and(|known| same(told, known))
        };
        self.money != other.money
            || !self.tasks.iter().all(tasks)
            || !self.gone.keys().all(|id| other.gone.contains_key(id))
    }
}

/// The newest state; none before the first look.
pub type Seat = watch::Receiver<Option<Arc<State>>>;
type Room = watch::Sender<Option<Arc<State>>>;

/// The rooms of this process.
#[derive(Default)]
pub struct Hub(Mutex<HashMap<AccountId, Room>>);

impl Hub {
    fn rooms(&self) -> MutexGuard<'_, HashMap<AccountId, Room>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes a room unless somebody is in it.
    fn close(&self, account: AccountId) -> bool {
        let mut rooms = self.rooms();
        let empty = rooms.get(&account).is_none_or(|room| room.receiver_count() == 0);
        if empty {
            rooms.remove(&account);
        }
        empty
    }
}

/// A seat in an account's room, which is opened for the first; `None`: it is full.
pub fn join(api: &Api, account: AccountId) -> Option<Seat> {
    let mut rooms = api.live.rooms();
    if let Some(room) = rooms.get(&account) {
        return (room.receiver_count() < MOST).then(|| room.subscribe());
    }
    let (room, seat) = watch::channel(None);
    rooms.insert(account, room.clone());
    tokio::spawn(attend(Attendant { api: api.clone(), account, room, closed: false }));
    Some(seat)
}

/// Who looks for a room. Should it end before the room is closed, the room ends with it, and listeners come back.
struct Attendant {
    api: Api,
    account: AccountId,
    room: Room,
    closed: bool,
}

impl Drop for Attendant {
    fn drop(&mut self) {
        if !self.closed {
            self.api.live.rooms().remove(&self.account);
        }
    }
}

async fn attend(mut of: Attendant) {
    while !of.closed {
        let began = Instant::now();
        let known = of.room.borrow().clone();
        // Where it failed is logged there; the next look may go better.
        if let Ok(mut state) = look(&of.api.app, of.account, known.as_deref()).await {
            of.room.send_if_modified(|shown| {
                let news = shown.as_ref().is_none_or(|known| state.differs(known));
                state.turn = known.as_ref().map_or(0, |known| known.turn) + u64::from(news);
                *shown = Some(Arc::new(state));
                news
            });
        }
        let rest = LOOK.max(began.elapsed().saturating_mul(REST)).min(Duration::from_secs(5));
        tokio::select! {
            () = tokio::time::sleep(rest) => {}
            () = of.room.closed() => {}
        }
        of.closed = of.api.live.close(of.account);
    }
}

async fn look(app: &App, account: AccountId, known: Option<&State>) -> Result<State, StoreError> {
    let now = app.now();
    let (floor, at) = (now - KEEP, now - LATE);
    let mut marks: BTreeMap<TaskId, Mark> = BTreeMap::new();
    for mark in app.store.open_tasks(account, OPEN).await? {
        marks.insert(mark.id, mark);
    }
    let open = marks.clone();
    // Those that were open and are so no longer, whenever they say that they ended.
    let were = known.into_iter().flat_map(|state| state.tasks.values());
    let were = were.filter(|told| !told.now.has_ended()).map(|told| (told.mark.id, told.mark));
    for (id, mark) in were {
        marks.entry(id).or_insert(mark);
    }
    for mark in all_since(app, account, floor, Past::Ended).await? {
        marks.insert(mark.id, mark);
    }
    let tell = |task: &Task, mark: Mark| {
        let snapshot = Snapshot::of(task);
        let same = known.and_then(|state| state.tasks.get(&task.id)).filter(|t| t.now == snapshot);
        let data = match same {
            Some(told) => told.data.clone(),
            None => TaskView::new(task, now, app.settings.results_ttl).json().into(),
        };
        Told { mark, now: snapshot, data }
    };
    let mut tasks: BTreeMap<TaskId, Told> = BTreeMap::new();
    let mut ask = Vec::new();
    for (id, mark) in &marks {
        match known.and_then(|state| state.tasks.get(id)).filter(|told| told.now.has_ended()) {
            Some(told) => _ = tasks.insert(*id, told.clone()),
            None => ask.push((*id, *mark)),
        }
    }
    for some in ask.chunks(AT_ONCE as usize) {
        let ids: Vec<TaskId> = some.iter().map(|(id, _)| *id).collect();
        for task in app.store.tasks_by_id(&ids).await? {
            // One that is open and not among the newest any more is left to itself.
            if (task.status.has_ended() || open.contains_key(&task.id))
                && let Some(mark) = marks.get(&task.id)
            {
                tasks.insert(task.id, tell(&task, *mark));
            }
        }
    }
    let gone = all_since(app, account, floor, Past::Erased).await?;
    let gone: BTreeMap<TaskId, Mark> = gone.into_iter().map(|mark| (mark.id, mark)).collect();
    tasks.retain(|id, _| !gone.contains_key(id));
    let money = app.store.money(account).await?;
    Ok(State { turn: 0, floor, at, tasks, gone, money })
}

/// What has become of a task.
#[derive(Debug, Clone, Copy)]
pub enum Past {
    /// It ended.
    Ended,
    /// It was erased.
    Erased,
}

/// A page of the tasks that ended or were erased at or after a time, in this order.
pub async fn since(
    app: &App,
    account: AccountId,
    from: (Millis, TaskId),
    what: Past,
) -> Result<Vec<Mark>, StoreError> {
    match what {
        Past::Ended => app.store.ended_tasks(account, from, AT_ONCE).await,
        Past::Erased => app.store.erased_tasks(account, from, AT_ONCE).await,
    }
}

/// All of them: for a time that is not long ago.
async fn all_since(
    app: &App,
    account: AccountId,
    from: Millis,
    what: Past,
) -> Result<Vec<Mark>, StoreError> {
    let mut all: Vec<Mark> = Vec::new();
    loop {
        let from = all.last().map_or((from, TaskId::FIRST), |last| (last.at, last.id));
        let page = since(app, account, from, what).await?;
        let more = page.len() as i64 == AT_ONCE;
        all.extend(page);
        if !more {
            return Ok(all);
        }
    }
}
