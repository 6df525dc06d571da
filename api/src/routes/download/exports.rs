//! Files that must be whole before they can be sent (XLSX, ZIP): made by a blocking thread in a temporary file
//! ([`Share`]), then streamed.
//!
//! At most [`AT_ONCE`] are made or sent at once, [`OF_AN_ACCOUNT`] of them for one account. Making one and sending it
//! may each take the setting `export_timeout`; a client that takes nothing for [`STALL`] loses its place before. As
//! the file is made first, a full disk, or results that do not fit the format, are an answer and not half a file.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Seek};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use futures::StreamExt;
use listmill_shared::app::temporary::{Share, TemporaryFile};
use listmill_shared::domain::id::AccountId;
use listmill_shared::domain::task::Task;
use listmill_shared::store::{Store, StoreError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::ReaderStream;
use zip::result::ZipError;

use super::rows::{Chunk, chunks};
use crate::Api;
use crate::problem::{BEYOND_XLSX, EXPORT_TOO_SLOW, Problem, STORAGE_FULL, TOO_MANY_EXPORTS};

/// Such files at once, in this process.
const AT_ONCE: usize = 4;
/// Of them for one account.
const OF_AN_ACCOUNT: usize = 2;
/// A client that takes nothing for so long has gone away.
const STALL: Duration = Duration::from_secs(120);
/// Bytes read at once, to be sent.
const PIECE: usize = 64 << 10;

/// Who makes or sends such a file; cheap to clone.
#[derive(Clone)]
pub struct Exports {
    places: Arc<Semaphore>,
    accounts: Arc<Mutex<HashMap<AccountId, usize>>>,
}

impl Default for Exports {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(AT_ONCE)), accounts: Arc::default() }
    }
}

/// A place among them, until it is dropped.
struct Place {
    exports: Exports,
    account: AccountId,
    _permit: OwnedSemaphorePermit,
}

impl Exports {
    /// Nobody waits for a place: who gets none is told to come again.
    fn enter(&self, account: AccountId) -> Result<Place, Problem> {
        let busy = |detail| Problem::new(TOO_MANY_EXPORTS, detail).retry_after(10);
        let permit = self.places.clone().try_acquire_owned().map_err(|_| {
            busy("This server makes four such files at once. CSV and NDJSON are sent at any time.")
        })?;
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        let of_account = accounts.entry(account).or_insert(0);
        if *of_account >= OF_AN_ACCOUNT {
            return Err(busy("Two such files of this account are being made or downloaded."));
        }
        *of_account += 1;
        Ok(Place { exports: self.clone(), account, _permit: permit })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let accounts = &self.exports.accounts;
        let mut accounts = accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = accounts.get_mut(&self.account) {
            *count -= 1;
            if *count == 0 {
                accounts.remove(&self.account);
            }
        }
    }
}

/// Why a file could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// The temporary file.
    #[error("temporary file: {0}")]
    Io(#[from] io::Error),
    /// The format cannot hold this; for people.
    #[error("{0}")]
    Unfit(String),
}

impl From<ZipError> for MakeError {
    fn from(error: ZipError) -> Self {
        Self::Io(error.into())
    }
}

impl From<MakeError> for Problem {
    fn from(error: MakeError) -> Self {
        match error {
            MakeError::Unfit(why) => Self::new(BEYOND_XLSX, why),
            MakeError::Io(error)
                if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) =>
            {
                tracing::error!(%error, "the disk of temporary files is full; answered 507");
                let full = "The server has no room left for temporary files. CSV needs none.";
                Self::new(STORAGE_FULL, full).retry_after(60)
            }
            MakeError::Io(error) => {
                tracing::error!(%error, "a download could not be made; answered 500");
                Self::internal()
            }
        }
    }
}

/// Makes a file of the submitted rows with `write`, on a thread where it may block; gives it as a body, and
/// its length. Dropped before that, or out of time, it ends the thread at its next block.
pub async fn make<W>(api: &Api, task: &Task, write: W) -> Result<(Body, u64), Problem>
where
    W: FnOnce(&Share, &mut dyn Iterator<Item = Chunk>) -> Result<TemporaryFile, MakeError>
        + Send
        + 'static,
{
    let place = api.exports.enter(task.account)?;
    let temporary = api.app.temporary.of(task.account);
    let within = api.app.settings.export_timeout;
    let making = async {
        let (sender, mut receiver) = mpsc::channel(1);
        let writing = tokio::task::spawn_blocking(move || {
            let mut blocks = std::iter::from_fn(|| receiver.blocking_recv());
            let mut file = write(&temporary, &mut blocks)?;
            let length = file.length()?;
            file.rewind()?;
            Ok::<_, MakeError>((file, length, place))
        });
        // Where reading fails, what was made of the rest is dropped.
        let read = hand_on(&api.app.store, task, sender).await;
        let made = writing.await.map_err(|error| {
            tracing::error!(%error, "the making of a download panicked; answered 500");
            Problem::internal()
        })?;
        read?;
        Ok::<_, Problem>(made?)
    };
    let (file, length, place) = tokio::time::timeout(within, making).await.map_err(|_| {
        tracing::warn!(task = %task.id, "a download was not made in time; answered 503");
        let late = format!(
            "It was not made within {within:?}. CSV and NDJSON are sent while they are read."
        );
        Problem::new(EXPORT_TOO_SLOW, late)
    })??;
    Ok((body(file, place, within), length))
}

/// Gives the blocks to the thread, until there are no more or it wants no more.
async fn hand_on(store: &Store, task: &Task, to: mpsc::Sender<Chunk>) -> Result<(), StoreError> {
    let mut from = chunks(store, task.id);
    while let Some(chunk) = from.recv().await {
        if to.send(chunk?).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// The file, sent as its reader takes it. Broken off, it is shorter than its length, which the reader sees.
fn body(file: TemporaryFile, place: Place, within: Duration) -> Body {
    let (sender, receiver) = mpsc::channel::<io::Result<_>>(1);
    let end = Instant::now() + within;
    tokio::spawn(async move {
        let (file, _room) = file.into_parts();
        let _place = place;
        let mut pieces = ReaderStream::with_capacity(tokio::fs::File::from_std(file), PIECE);
        while let Some(piece) = pieces.next().await {
            let failed = piece.is_err();
            let until = end.min(Instant::now() + STALL);
            let sent = tokio::time::timeout_at(until, sender.send(piece)).await;
            if failed || !matches!(sent, Ok(Ok(()))) {
                return;
            }
        }
    });
    Body::from_stream(ReceiverStream::new(receiver))
}

#[cfg(test)]
mod tests {
    use listmill_shared::domain::id::Ids;

    use super::*;
    use crate::problem::INTERNAL;

    #[test]
    fn places_are_few_and_shared() {
        let (exports, ids) = (Exports::default(), Ids::seeded(1));
        let [first, second, third] = [(); 3].map(|()| AccountId::new(&ids, 1));
        let enter = |account| exports.enter(account);
        let mut held = vec![enter(first).ok().unwrap(), enter(first).ok().unwrap()];
        assert_eq!(enter(first).err().unwrap().status(), 503, "two of an account");
        held.extend([enter(second).ok().unwrap(), enter(second).ok().unwrap()]);
        assert_eq!(enter(third).err().unwrap().status(), 503, "four in all");
        held.remove(0);
        drop(enter(third).ok().unwrap());
        drop(enter(first).ok().unwrap());
        held.clear();
        assert!(exports.accounts.lock().unwrap().is_empty());
        assert_eq!(exports.places.available_permits(), AT_ONCE);
    }

    #[test]
    fn failures_say_what_can_be_done() {
        let status = |error: MakeError| Problem::from(error).status();
        assert_eq!(status(io::Error::from(ErrorKind::StorageFull).into()), 507);
        assert_eq!(status(ZipError::Io(ErrorKind::StorageFull.into()).into()), 507);
        assert_eq!(status(io::Error::other("x").into()), INTERNAL.status);
        assert_eq!(status(MakeError::Unfit(String::new())), BEYOND_XLSX.status);
    }
}
