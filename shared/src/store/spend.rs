//! Credits that verifications take from the limits of keys: many takings, few transactions.
//!
//! * Takings that arrive while a transaction is under way are gathered into the next one, which locks each
//!   limit once, grants in the order of arrival while there is enough, and writes each limit once.
//! * A taking is answered after the commit, never before: what was granted survives whatever happens to the
//!   process. A taking whose commit failed is not granted, though it may have been counted.
//! * Limits are locked in the order of their ids, as everywhere.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sqlx::FromRow;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::timeout;

use super::keys::{CreditRow, write_limit};
use super::{Result, Store, StoreError, Tx, on};
use crate::domain::clock::Millis;
use crate::domain::id::KeyId;
use crate::domain::key::CreditLimit;

/// Takings in one transaction.
const MOST: usize = 128;
/// Takings that may wait; more wait before they are taken up.
const WAITING: usize = 4_096;
/// Transactions under way at once on PostgreSQL; more than one only where one is slow. SQLite has one writer.
const LANES: usize = 4;
/// A transaction has the takings to itself for so long. The fewer there are at once, the more each one does.
const ALONE: Duration = Duration::from_millis(10);

/// What is to be taken.
#[derive(Debug, Clone, Copy)]
pub struct Taking {
    /// The key whose row holds the limit (`budget`).
    pub key: KeyId,
    /// How much, 0 or more.
    pub credits: i64,
    /// Now.
    pub now: Millis,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Was it granted?
    pub granted: bool,
    /// What is left; `None` = nothing is limited.
    pub left: Option<i64>,
}

type Asked = (Taking, oneshot::Sender<Result<Taken>>);

/// Gathers takings into few transactions.
pub struct Spender(mpsc::Sender<Asked>);

impl Spender {
    /// Starts its tasks; they end when it is dropped.
    pub fn new(store: &Store) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        let receiver = Arc::new(Mutex::new(receiver));
        let lanes = if matches!(store, Store::Pg(_)) { LANES } else { 1 };
        for _ in 0..lanes {
            tokio::spawn(lane(store.clone(), receiver.clone()));
        }
        Self(sender)
    }

    /// Takes credits, if so many are left.
    pub async fn take(&self, taking: Taking) -> Result<Taken> {
        let (answer, wait) = oneshot::channel();
        self.0.send((taking, answer)).await.map_err(|_| StoreError::Away)?;
        wait.await.map_err(|_| StoreError::Away)?
    }
}

async fn lane(store: Store, receiver: Arc<Mutex<mpsc::Receiver<Asked>>>) {
    let mut asked: Vec<Asked> = Vec::with_capacity(MOST);
    loop {
        let mut turn = receiver.lock().await;
        if turn.recv_many(&mut asked, MOST).await == 0 {
            return;
        }
        let takings: Vec<Taking> = asked.iter().map(|(taking, _)| *taking).collect();
        let mut working = Box::pin(store.spend(&takings));
        let quick = timeout(ALONE, &mut working).await;
        drop(turn);
        let done = match quick {
            Ok(done) => done,
            Err(_) => working.await,
        };
        if let Err(error) = &done {
            tracing::warn!(%error, takings = asked.len(), "credits were not taken");
        }
        let taken = done.unwrap_or_default();
        for (at, (_, answer)) in asked.drain(..).enumerate() {
            // A caller that has gone away needs no answer.
            let _ = answer.send(taken.get(at).copied().ok_or(StoreError::Away));
        }
    }
}

impl Store {
    /// Takes what is left for, in their order; all in one transaction.
    pub async fn spend(&self, takings: &[Taking]) -> Result<Vec<Taken>> {
        let mut by_key: BTreeMap<KeyId, Vec<usize>> = BTreeMap::new();
        for (at, taking) in takings.iter().enumerate() {
            by_key.entry(taking.key).or_default().push(at);
        }
        let mut taken = vec![Taken { granted: true, left: None }; takings.len()];
        let mut changed = false;
        let mut tx = self.begin().await?;
        for (key, places) in by_key {
            let now = places.iter().map(|at| takings[*at].now).max().unwrap_or_default();
            let Some(mut limit) = lock_limit(&mut tx, key).await?.map(|limit| limit.at(now)) else {
                continue;
            };
            let mut granted = false;
            for at in places {
                let (left, want) = (limit.left(now), takings[at].credits);
                let fits = want <= left;
                if fits {
                    limit.used = limit.used.saturating_add(want);
                    granted |= want > 0;
                }
                taken[at] = Taken { granted: fits, left: Some(limit.left(now)) };
            }
            if granted {
                write_limit(&mut tx, key, Some(limit)).await?;
                changed = true;
            }
        }
        if changed {
            tx.commit().await?;
        }
        Ok(taken)
    }
}

async fn lock_limit(tx: &mut Tx, key: KeyId) -> Result<Option<CreditLimit>> {
    // SQLite has one writer, and we are it.
    const LITE: &str =
        "SELECT credit_limit, credit_used, refill_interval, refill_amount, refill_day, refill_at
        FROM api_keys WHERE id = $1";
    const PG: &str =
        "SELECT credit_limit, credit_used, refill_interval, refill_amount, refill_day, refill_at
        FROM api_keys WHERE id = $1 FOR NO KEY UPDATE";
    #[derive(FromRow)]
    struct Row {
        #[sqlx(flatten)]
        credit: CreditRow,
    }
    let sql = if matches!(tx, Tx::Pg(_)) { PG } else { LITE };
    let row: Option<Row> =
        on!(&mut *tx, c => sqlx::query_as(sql).bind(key).fetch_optional(c).await)?;
    Ok(row.and_then(|row| row.credit.read()))
}
