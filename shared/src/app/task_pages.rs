//! What the pages about tasks show: reads alone, each of them bounded.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::App;
use crate::domain::address;
use crate::domain::clock::Millis;
use crate::domain::id::{AccountId, TaskId};
use crate::domain::task::{Task, TaskStatus};
use crate::domain::task_event::{TaskEvent, timeline};
use crate::store::StoreError;
use crate::store::live::Money;
use crate::store::results::Found;
use crate::store::tasks::{Start, TaskFilter};

/// Batches that a search looks through at once.
const SEEK: i64 = 32;
/// For so long a page looks for results that no index leads to; then it has a link that goes on.
pub const SEEKING: Duration = Duration::from_millis(40);

/// Addresses of a task that are set aside, and when the first of them is due.
#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    /// How many, counted up to [`crate::store::deferrals::COUNTED`].
    pub addresses: i64,
    /// When.
    pub due: Millis,
}

/// A page of tasks.
#[derive(Debug)]
pub struct TaskList {
    /// Newest first.
    pub tasks: Vec<Task>,
    /// Addresses set aside, of tasks that have some.
    pub waiting: HashMap<TaskId, Waiting>,
    /// What there is to spend.
    pub money: Money,
    /// There are newer ones.
    pub newer: bool,
    /// There are older ones.
    pub older: bool,
}

/// Where an address is in a task.
#[derive(Debug)]
pub enum Sought {
    /// Here; without a result yet, its number alone.
    Found(i64, Option<Box<Found>>),
    /// Nowhere.
    Nowhere,
    /// Not before this batch; the search goes on from there.
    On(i32),
}

impl App {
    /// A page of an account's tasks, of `limit` at the most.
    pub async fn task_list(
        &self,
        account: AccountId,
        filter: TaskFilter<'_>,
        from: Start,
        limit: i64,
    ) -> Result<TaskList, StoreError> {
        let mut tasks = self.store.tasks(account, filter, from, limit + 1).await?;
        let more = tasks.len() as i64 > limit;
        let (newer, older) = match from {
            Start::Newest => (false, more),
            Start::Before(_) => (true, more),
            Start::After(_) => (more, true),
        };
        match from {
            // The one too many is the newest of those that are newer.
            Start::After(_) if more => drop(tasks.remove(0)),
            _ => tasks.truncate(limit as usize),
        }
        let open = tasks.iter().filter(|task| !task.status.has_ended());
        let open: Vec<TaskId> = open.map(|task| task.id).collect();
        let waiting = self.waiting(&open).await?;
        let money = self.money(account).await?;
        Ok(TaskList { tasks, waiting, money, newer, older })
    }

    /// Email credits of an account.
    pub async fn money(&self, account: AccountId) -> Result<Money, StoreError> {
        let money = self.store.money(account).await?;
        Ok(money.unwrap_or(Money { balance: 0, held: 0 }))
    }

    /// Addresses of one task that are set aside.
    pub async fn waiting_of(&self, task: &Task) -> Result<Option<Waiting>, StoreError> {
        if task.status.has_ended() {
            return Ok(None);
        }
        Ok(self.waiting(&[task.id]).await?.remove(&task.id))
    }

    async fn waiting(&self, tasks: &[TaskId]) -> Result<HashMap<TaskId, Waiting>, StoreError> {
        let all = self.store.waiting_of(tasks).await?;
        Ok(all.into_iter().map(|(id, addresses, due)| (id, Waiting { addresses, due })).collect())
    }

    /// What happened to a task, in order.
    pub async fn timeline(&self, task: &Task) -> Result<Vec<TaskEvent>, StoreError> {
        Ok(timeline(task, self.store.task_events(task.id).await?))
    }

    /// Looks for exactly this address in a task, from a batch on, for a moment: no index has the addresses.
    pub async fn seek(&self, task: &Task, address: &str, from: i32) -> Result<Sought, StoreError> {
        let (began, mut from) = (Instant::now(), from);
        let address = address::normalise(address).text;
        loop {
            match self.store.seek_address(task.id, &address, from, SEEK).await? {
                Ok(Some(seq)) => {
                    let found = self.store.result(task.id, seq).await?;
                    return Ok(Sought::Found(seq, found.map(|(found, _)| Box::new(found))));
                }
                Ok(None) => return Ok(Sought::Nowhere),
                Err(next) if began.elapsed() < SEEKING => from = next,
                Err(next) => return Ok(Sought::On(next)),
            }
        }
    }
}

impl Task {
    /// Credits that are missing for a task to come to its end, where `money` is what the account has.
    pub fn missing(&self, money: Money) -> i64 {
        let left = self.submitted.chargeable() - self.tally.resolved() - self.held;
        if self.sandbox || self.status == TaskStatus::Completed {
            return 0;
        }
        (left - money.balance).max(0)
    }
}
