//! Which batches have a message out.
//!
//! What is out in the whole fleet is bounded by what its workers can have in hand, and shared fairly among
//! accounts and their tasks ([`crate::store::dispatch`]). Whoever makes room (a batch ends) or brings work
//! (a task is accepted, goes on, comes back) starts a round; the sweeper starts one every second. Sandbox tasks
//! have rounds and a room of their own, after those of the others.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::App;
use crate::domain::batch::{BatchRef, Room, Sent};
use crate::domain::clock::Millis;
use crate::domain::id::TaskId;
use crate::queue::Queue;
use crate::store::StoreError;
use crate::store::dispatch::Next;

/// A worker that has not been seen for this long does not count.
pub(super) const SILENT_MS: Millis = 30_000;
/// The fleet is counted so often, and a large one so often at the least.
const COUNTED: Duration = Duration::from_millis(250);
const COUNTED_LATE: Duration = Duration::from_secs(2);
/// So many workers load the database little, each on its own.
const FEW: i64 = 4;
/// A message that has been out for so long is looked for in the queue.
const UNHEARD_MS: Millis = 10_000;
/// Rounds in a row; then somebody else goes on.
const ROUNDS: usize = 64;
/// Where another round serves the same accounts, this one looks again after so long, then twice as long, until
/// the other may be trusted with it.
const FIRST_BACK_OFF: Duration = Duration::from_millis(2);
const LAST_BACK_OFF: Duration = Duration::from_millis(64);
/// A worker that was told to wait with its round asks again after so long, times the workers.
const ASK_AGAIN: Duration = Duration::from_millis(8);
const ASK_AGAIN_LATE: Duration = Duration::from_millis(500);

/// The room that was counted last, and when.
#[derive(Default)]
pub(super) struct KnownRoom(Mutex<Option<(Millis, Room)>>);

impl App {
    /// What may be out in the whole fleet.
    pub async fn room(&self) -> Result<Room, StoreError> {
        let now = self.now();
        let counted = self.spread(COUNTED, COUNTED_LATE).as_millis() as Millis;
        if let Some((at, room)) = self.known_room()
            && (0..counted).contains(&(now - at))
        {
            return Ok(room);
        }
        let batch = i64::from(self.settings.batch_size);
        let room = Room::of(&self.store.capacities(now - SILENT_MS).await?, batch);
        *self.room.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, room));
        Ok(room)
    }

    fn known_room(&self) -> Option<(Millis, Room)> {
        *self.room.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long to wait between what every process does again and again: `alone` where there are few workers,
    /// longer the more there are, so that what they ask of the database together does not grow with them.
    pub fn spread(&self, alone: Duration, most: Duration) -> Duration {
        let workers = self.known_room().map_or(1, |(_, room)| room.workers);
        let times = u32::try_from(workers / FEW).unwrap_or(u32::MAX).max(1);
        alone.saturating_mul(times).min(most.max(alone))
    }

    /// Addresses that all living workers verify at once; 0 also when no provider works.
    pub async fn working_concurrency(&self) -> Result<i64, StoreError> {
        self.store.concurrency(self.now() - SILENT_MS).await
    }

    /// When the queue is asked whether it still has a message that is sent now.
    pub fn resend_at(&self) -> Millis {
        self.now() + UNHEARD_MS
    }

    /// A worker has made room, or found work: a round, unless the fleet has had one just now. Returns how long
    /// to wait with the next, and whether this one is still to come.
    pub async fn refill(&self) -> Result<(Duration, bool), StoreError> {
        let room = self.room().await?;
        let gather = room.gather();
        if !self.queue.claim_round(gather).await {
            let workers = u32::try_from(room.workers).unwrap_or(u32::MAX);
            let again = ASK_AGAIN.saturating_mul(workers).min(ASK_AGAIN_LATE);
            return Ok((gather.max(again), true));
        }
        let full = self.dispatch().await? == Next::Full;
        Ok((if full { gather } else { Duration::ZERO }, false))
    }

    /// Sends what there is room for; tells what the next round would find. An operator's command beside an
    /// embedded deployment leaves that to the deployment, within a second: the queue is in that process.
    pub async fn dispatch(&self) -> Result<Next, StoreError> {
        if self.settings.role == "admin" && matches!(self.queue, Queue::Memory(_)) {
            return Ok(Next::Nothing);
        }
        let next = self.dispatch_kind(false).await?;
        // Most of the time there are no sandbox tasks, and nobody looks who could work on them.
        let sandbox = match self.store.has_ready(true).await? {
            true => self.dispatch_kind(true).await?,
            false => Next::Nothing,
        };
        Ok(if next == Next::Nothing { sandbox } else { next })
    }

    async fn dispatch_kind(&self, sandbox: bool) -> Result<Next, StoreError> {
        let mut back_off = FIRST_BACK_OFF;
        for _ in 0..ROUNDS {
            let round = match sandbox {
                false => {
                    let room = self.room().await?;
                    self.store.dispatch(room, self.resend_at(), self.now()).await?
                }
                true => {
                    let workers = self.store.living(self.now() - SILENT_MS).await?;
                    let room = Room::of_sandbox(workers, i64::from(self.settings.batch_size));
                    self.store.dispatch_sandbox(room, self.resend_at(), self.now()).await?
                }
            };
            if !self.send(&round.sent).await {
                break;
            }
            match round.next {
                Next::Nothing | Next::Full => return Ok(round.next),
                // Another round is serving the same accounts, and will go on with them.
                Next::Work if round.sent.is_empty() => {
                    if back_off > LAST_BACK_OFF {
                        break;
                    }
                    tokio::time::sleep(back_off).await;
                    back_off *= 2;
                }
                Next::Work => back_off = FIRST_BACK_OFF,
            }
        }
        Ok(Next::Work)
    }

    /// Sends references; tells whether the queue took them. A failure is only logged: the sweeper looks for
    /// them in the queue at once, and sends what is not there.
    pub async fn send(&self, batches: &[Sent]) -> bool {
        let Err(error) = self.queue.send(batches).await else { return true };
        tracing::warn!(%error, batches = batches.len(), "messages not sent; the sweeper will");
        let unsent: Vec<BatchRef> = batches.iter().map(|sent| sent.batch).collect();
        if let Err(error) = self.store.not_sent(&unsent, self.now()).await {
            tracing::debug!(%error, "they are looked for a little later");
        }
        false
    }

    /// Sends again what the queue has lost. A message that is merely waiting is left alone, however long.
    /// Returns how many were lost.
    pub async fn send_lost(&self, limit: i64) -> Result<usize, StoreError> {
        let unheard = self.store.unheard(limit, self.resend_at(), self.now()).await?;
        if unheard.is_empty() {
            return Ok(0);
        }
        let lost: Vec<Sent> = match self.queue.waiting().await {
            Ok(waiting) => {
                let lost = |batch: &BatchRef| !waiting.contains(batch);
                let lost: Vec<BatchRef> = unheard.into_iter().filter(lost).collect();
                let tasks: Vec<TaskId> = lost.iter().map(|batch| batch.task).collect();
                let sandbox = self.store.sandbox_among(&tasks).await?;
                let sent = |batch: BatchRef| Sent {
                    batch,
                    first: false,
                    sandbox: sandbox.contains(&batch.task),
                };
                lost.into_iter().map(sent).collect()
            }
            Err(error) => {
                tracing::debug!(%error, "cannot look what the queue holds");
                self.store.not_sent(&unheard, self.now()).await?;
                return Ok(0);
            }
        };
        self.send(&lost).await;
        Ok(lost.len())
    }
}
