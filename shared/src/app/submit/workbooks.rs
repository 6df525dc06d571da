//! Workbooks that come in: each is a file first, and then read by one of few.
//!
//! What is kept of a workbook while it is read is bounded, but large, and reading it keeps a core busy. So
//! [`AT_ONCE`] of a process are read at once, [`OF_AN_ACCOUNT`] of one account; who comes later waits for at most
//! [`WAIT`], with nothing in memory but the file's handle.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::read::ReadError;
use super::source::BodyError;
use crate::app::temporary::{Share, TemporaryFile};
use crate::domain::id::AccountId;

/// Workbooks that a process reads at once.
const AT_ONCE: usize = 2;
/// Of them for one account.
const OF_AN_ACCOUNT: usize = 1;
/// A received workbook waits this long for its turn.
const WAIT: Duration = Duration::from_secs(60);
/// Bytes taken over at once.
const PIECE: usize = 64 << 10;

/// Who reads workbooks at the moment, and who waits.
pub struct Workbooks {
    places: Arc<Semaphore>,
    /// Accounts that have one, or wait.
    lines: Mutex<HashMap<AccountId, Arc<Semaphore>>>,
}

impl Default for Workbooks {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(AT_ONCE)), lines: Mutex::default() }
    }
}

/// A place among them, or in the line, until it is dropped.
pub(super) struct Turn {
    of: Arc<Workbooks>,
    /// The account's own, and one of all; in this order.
    permits: Vec<OwnedSemaphorePermit>,
}

impl Workbooks {
    /// Waits for a turn.
    pub(super) async fn enter(self: &Arc<Self>, account: AccountId) -> Result<Turn, BodyError> {
        let line = {
            let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            let new = || Arc::new(Semaphore::new(OF_AN_ACCOUNT));
            Arc::clone(lines.entry(account).or_insert_with(new))
        };
        let mut turn = Turn { of: Arc::clone(self), permits: Vec::with_capacity(2) };
        let waiting = async {
            for semaphore in [line, Arc::clone(&self.places)] {
                turn.permits.extend(semaphore.acquire_owned().await);
            }
        };
        let waited = tokio::time::timeout(WAIT, waiting).await;
        waited.map_err(|_| BodyError::Busy)?;
        Ok(turn)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.permits.clear();
        let mut lines = self.of.lines.lock().unwrap_or_else(PoisonError::into_inner);
        // A permit, or a wait for one, holds on to its line.
        lines.retain(|_, line| Arc::strong_count(line) > 1);
    }
}

/// Writes what is read into a file; `most` is in bytes.
pub(super) fn spool(
    mut input: impl Read,
    temporary: &Share,
    most: u64,
) -> Result<TemporaryFile, ReadError> {
    let mut file = temporary.file().map_err(no_room)?;
    let (mut buffer, mut total) = (vec![0; PIECE], 0);
    loop {
        let n = match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(ReadError::Io(error)),
        };
        total += n as u64;
        if total > most {
            let what = format!("more than {most} bytes");
            return Err(ReadError::WorkbookTooLarge { what });
        }
        file.write_all(&buffer[..n]).map_err(no_room)?;
    }
    file.rewind().map_err(ReadError::Io)?;
    Ok(file)
}

/// A full disk is told from other faults of the machine.
pub(super) fn no_room(error: io::Error) -> ReadError {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            tracing::error!(%error, "no room for a workbook in the folder of temporary files");
            ReadError::Io(io::Error::other(BodyError::NoRoom))
        }
        _ => ReadError::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;
    use crate::app::temporary::Temporary;
    use crate::domain::id::Ids;

    #[tokio::test]
    async fn an_account_has_one_turn_and_leaves_room_for_others() {
        let (books, ids) = (Arc::new(Workbooks::default()), Ids::seeded(1));
        let [first, second, third] = [(); 3].map(|()| AccountId::new(&ids, 1));
        let one = books.enter(first).await.unwrap();
        assert!(books.enter(first).now_or_never().is_none(), "one of an account");
        let two = books.enter(second).await.unwrap();
        assert!(books.enter(third).now_or_never().is_none(), "two at once");
        drop(one);
        drop(books.enter(third).await.unwrap());
        drop(books.enter(first).await.unwrap());
        drop(two);
        assert!(books.lines.lock().unwrap().is_empty(), "nothing is left of them");
        assert_eq!(books.places.available_permits(), AT_ONCE);
    }

    #[test]
    fn a_file_is_bounded() {
        let temporary = Arc::new(Temporary::new(Ids::system(), 4 << 20, 0));
        let temporary = temporary.of(AccountId::new(&Ids::seeded(1), 1));
        let mut file = spool(&b"some bytes"[..], &temporary, 10).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "some bytes");
        let more = spool(&b"some bytes."[..], &temporary, 10);
        assert!(matches!(more, Err(ReadError::WorkbookTooLarge { .. })));
        let full = spool(io::repeat(1), &temporary, u64::MAX).err().unwrap();
        let ReadError::Io(cause) = full else { panic!("{full}") };
        assert!(matches!(cause.get_ref().unwrap().downcast_ref(), Some(BodyError::NoRoom)));
    }
}
