//! The lines that an owner draws through a running task: cancel, pause, resume, erase.

use std::time::{Duration, Instant};

use super::App;
use crate::domain::audit::Origin;
use crate::domain::clock::Millis;
use crate::domain::id::{AccountId, KeyId, TaskId};
use crate::domain::ledger::Kind;
use crate::domain::task::{PauseReason, Task, TaskStatus};
use crate::store::control::Changed;
use crate::store::{self, StoreError};

/// How long the tries of a change wait for each other.
const WAITS: [Duration; 3] =
    [Duration::from_millis(20), Duration::from_millis(100), Duration::from_millis(400)];
/// After this long no further try is begun, and after this long the last one is given up: whoever presses Cancel
/// gets an answer within 5 s. A try may wait for several rows, one after another.
const PATIENCE: Duration = Duration::from_millis(2_500);
const ANSWER: Duration = Duration::from_millis(4_500);

/// So long an erased task is removed while its owner waits.
pub(super) const ERASING: Duration = Duration::from_secs(1);

/// Tasks whose time is over that are looked for at once.
const EXPIRED: i64 = 100;

/// Why a task's course was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No such task of this account.
    #[error("no such task")]
    NotFound,
    /// The task's status does not allow it.
    #[error("the task is {0}")]
    WrongState(TaskStatus),
    /// It paused for want of credits, and there are none.
    #[error("the balance is empty")]
    Insufficient,
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a cancellation came to, in addresses and credits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settlement {
    /// Addresses that cost a credit.
    pub charged: i64,
    /// Addresses whose held credit went back with an unknown verdict.
    pub refunded: i64,
    /// Held credits that the cancellation gave back.
    pub released: i64,
    /// Addresses without a result.
    pub not_processed: i64,
}

impl Settlement {
    /// Of a task that has ended.
    pub fn of(task: &Task) -> Self {
        Self {
            charged: task.tally.charged,
            refunded: task.tally.refunded,
            released: task.released,
            not_processed: task.submitted.unique - task.tally.processed(),
        }
    }
}

impl App {
    /// One task of an account.
    pub async fn task(&self, id: TaskId, account: AccountId) -> Result<Task, ControlError> {
        let task = self.find_task(id).await?;
        task.filter(|task| task.account == account).ok_or(ControlError::NotFound)
    }

    /// Cancels a task for good; the same answer however often it is asked. When this has returned,
    /// no result is added and no credit moves for it.
    pub async fn cancel_by(
        &self,
        id: TaskId,
        account: AccountId,
        by: &Origin,
    ) -> Result<(Task, Settlement), ControlError> {
        check(again(|| self.store.cancel_task(id, account, by, self.now())).await?)?;
        self.tell_stopped(id).await;
        let task = self.task(id, account).await?;
        let settlement = Settlement::of(&task);
        Ok((task, settlement))
    }

    /// Likewise, at the command line.
    pub async fn cancel(
        &self,
        id: TaskId,
        account: AccountId,
    ) -> Result<(Task, Settlement), ControlError> {
        self.cancel_by(id, account, &Origin::operator()).await
    }

    /// Lets a task stand still: what is being verified ends, nothing new is started.
    pub async fn pause_by(
        &self,
        id: TaskId,
        account: AccountId,
        by: &Origin,
    ) -> Result<Task, ControlError> {
        check(again(|| self.store.pause_task(id, account, by, self.now())).await?)?;
        self.tell_stopped(id).await;
        self.task(id, account).await
    }

    /// Likewise, at the command line.
    pub async fn pause(&self, id: TaskId, account: AccountId) -> Result<Task, ControlError> {
        self.pause_by(id, account, &Origin::operator()).await
    }

    /// Lets a paused task go on.
    pub async fn resume_by(
        &self,
        id: TaskId,
        account: AccountId,
        by: &Origin,
    ) -> Result<Task, ControlError> {
        let task = self.task(id, account).await?;
        if self.settings.credits
            && task.pause_reason == Some(PauseReason::InsufficientCredits)
            && self.store.balance(account, Kind::Email).await? == 0
        {
            return Err(ControlError::Insufficient);
        }
        check(again(|| self.store.resume_task(id, account, by, self.now())).await?)?;
        if let Err(error) = self.dispatch().await {
            tracing::warn!(%error, task = %id, "goes on, not dispatched; the sweeper will");
        }
        self.task(id, account).await
    }

    /// Likewise, at the command line.
    pub async fn resume(&self, id: TaskId, account: AccountId) -> Result<Task, ControlError> {
        self.resume_by(id, account, &Origin::operator()).await
    }

    /// Erases an ended task and its results. Nobody sees it from now on; what of it cannot be removed in a
    /// moment the sweeper removes.
    pub async fn erase_by(
        &self,
        id: TaskId,
        account: AccountId,
        by: &Origin,
    ) -> Result<(), ControlError> {
        check(self.store.erase_task(id, account, by, self.now()).await?)?;
        self.empty(id, ERASING).await;
        Ok(())
    }

    /// Likewise, at the command line.
    pub async fn erase(&self, id: TaskId, account: AccountId) -> Result<(), ControlError> {
        self.erase_by(id, account, &Origin::operator()).await
    }

    /// Erases tasks whose results have been kept for `results_ttl`, for about so long. Returns how many.
    pub async fn expire_results(&self, patience: Duration) -> Result<u64, StoreError> {
        let Some(ttl) = self.results_ttl() else { return Ok(0) };
        let (began, mut erased) = (Instant::now(), 0);
        loop {
            let now = self.now();
            let due = self.store.tasks_ended_before(now - ttl, EXPIRED).await?;
            for &(task, account) in &due {
                let by = Origin::system();
                if self.store.erase_task(task, account, &by, now).await? == Changed::Done {
                    erased += 1;
                }
                if began.elapsed() > patience {
                    return Ok(erased);
                }
            }
            if (due.len() as i64) < EXPIRED {
                return Ok(erased);
            }
        }
    }

    fn results_ttl(&self) -> Option<Millis> {
        i64::try_from(self.settings.results_ttl.as_millis()).ok().filter(|ttl| *ttl > 0)
    }

    /// Removes what a marked task holds, for about so long. What is left stays marked.
    pub async fn empty(&self, id: TaskId, patience: Duration) {
        let began = Instant::now();
        loop {
            match self.store.erase_slice(id).await {
                Ok(true) if began.elapsed() < patience => {}
                Ok(_) => return,
                Err(error) => {
                    tracing::warn!(%error, task = %id, "not all of it is removed yet; the sweeper tries on");
                    return;
                }
            }
        }
    }

    /// Cancels every task that a key submitted, uploads under way included: only when its owner asks for it
    /// along with the key's end.
    pub async fn cancel_tasks_of_key(
        &self,
        key: KeyId,
        account: AccountId,
        by: &Origin,
    ) -> Result<Vec<TaskId>, ControlError> {
        // Uploads first: one that ends in between is a task by then.
        for upload in self.store.uploads_of_key(key).await? {
            self.store.drop_ingest(upload, self.now()).await?;
            self.empty(upload, ERASING).await;
        }
        let tasks = self.store.unended_tasks_of_key(account, key).await?;
        for task in &tasks {
            match self.cancel_by(*task, account, by).await {
                // It ended or vanished by itself in between.
                Ok(_) | Err(ControlError::WrongState(_) | ControlError::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(tasks)
    }

    async fn tell_stopped(&self, task: TaskId) {
        if let Err(error) = self.queue.tell_stopped(task).await {
            tracing::warn!(%error, %task, "workers not told; they look at the database every second");
        }
    }
}

/// Tries a change that may be repeated a few times when the database asks for that: whoever presses
/// Cancel should not have to press twice because a connection broke.
async fn again<F: Future<Output = store::Result<Changed>>>(
    change: impl Fn() -> F,
) -> store::Result<Changed> {
    let started = Instant::now();
    // Given up on the way, it is undone, or is done without a word: to ask again harms nobody.
    let one = async || {
        let left = ANSWER.saturating_sub(started.elapsed());
        tokio::time::timeout(left, change()).await.unwrap_or(Err(StoreError::Slow(ANSWER)))
    };
    for wait in WAITS {
        match one().await {
            Err(error) if error.is_transient() && started.elapsed() < PATIENCE => {
                tracing::warn!(%error, "not changed yet; trying again");
                tokio::time::sleep(wait).await;
            }
            outcome => return outcome,
        }
    }
    one().await
}

fn check(changed: Changed) -> Result<(), ControlError> {
    match changed {
        Changed::Done => Ok(()),
        Changed::Refused(status) => Err(ControlError::WrongState(status)),
        Changed::Missing => Err(ControlError::NotFound),
    }
}
