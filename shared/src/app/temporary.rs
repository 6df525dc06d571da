//! Temporary files: what must be whole before it can be read or sent (workbooks, archives).
//!
//! Data: files in the temporary folder (`TMPDIR`, else `/tmp`) that lose their name as soon as they are open, so that
//! they are gone with whoever holds them: the client that hung up, or the process.
//!
//! Invariants: all files of a process together take at most the setting `max_temporary_bytes`, those of one account
//! half of it; none grows while the folder has less than `min_temporary_free` left. Each is
//! [`ErrorKind::StorageFull`], as a full disk is.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::domain::id::{AccountId, Ids};

/// Bytes that a file takes at once.
const STEP: u64 = 1 << 20;

/// Makes temporary files, and knows what they take together.
pub struct Temporary {
    ids: Ids,
    /// Bytes that each account has.
    taken: Mutex<HashMap<AccountId, u64>>,
    most: u64,
    keep_free: u64,
}

impl Temporary {
    /// With what they may take together, and what must stay free in the folder.
    pub fn new(ids: Ids, most: u64, keep_free: u64) -> Self {
        Self { ids, taken: Mutex::default(), most, keep_free }
    }

    /// For files of this account.
    pub fn of(self: &Arc<Self>, account: AccountId) -> Share {
        Share { of: Arc::clone(self), account }
    }

    /// Bytes that all of them take at the moment, rounded up.
    pub fn taken(&self) -> u64 {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }

    fn take(&self, account: AccountId, more: u64) -> bool {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let all = taken.values().sum::<u64>() + more;
        let own = taken.get(&account).copied().unwrap_or_default() + more;
        // The first step of an account is within the half, however small that is.
        let fits = all <= self.most && own <= (self.most / 2).max(STEP);
        if fits {
            taken.insert(account, own);
        }
        fits
    }

    fn give_back(&self, account: AccountId, bytes: u64) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = taken.get_mut(&account) {
            *own -= bytes;
            if *own == 0 {
                taken.remove(&account);
            }
        }
    }
}

/// The part of one account.
#[derive(Clone)]
pub struct Share {
    of: Arc<Temporary>,
    account: AccountId,
}

impl Share {
    /// A new file, empty, that nobody else can open. Refused where there is no room for it.
    pub fn file(&self) -> io::Result<TemporaryFile> {
        let random = u128::from_le_bytes(self.of.ids.bytes());
        let path = std::env::temp_dir().join(format!("listmill-temporary-{random:032x}"));
        let mut open = OpenOptions::new();
        let file = open.read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        std::fs::remove_file(&path)?;
        let room = Room { share: self.clone(), bytes: 0 };
        let mut made = TemporaryFile { file, at: 0, room };
        made.room.grow(&made.file, 1)?;
        Ok(made)
    }
}

/// What a file takes, until it is dropped.
pub struct Room {
    share: Share,
    bytes: u64,
}

impl Room {
    /// Takes what `file` needs to hold `end` bytes.
    fn grow(&mut self, file: &File, end: u64) -> io::Result<()> {
        if end <= self.bytes {
            return Ok(());
        }
        let more = end.next_multiple_of(STEP) - self.bytes;
        let full = |what: &str| io::Error::new(ErrorKind::StorageFull, what);
        let disk = rustix::fs::fstatvfs(file)?;
        let Share { of, account } = &self.share;
        if disk.f_bavail.saturating_mul(disk.f_frsize) < more + of.keep_free {
            return Err(full("the folder of temporary files has too little room left"));
        }
        if !of.take(*account, more) {
            return Err(full("temporary files take all that they may"));
        }
        self.bytes += more;
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.share.of.give_back(self.share.account, self.bytes);
    }
}

/// A file that has no name.
pub struct TemporaryFile {
    file: File,
    /// Where the next byte is read or written.
    at: u64,
    room: Room,
}

impl TemporaryFile {
    /// Its bytes.
    pub fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// For who reads it in another way; its room is given back when the second part is dropped.
    pub fn into_parts(self) -> (File, Room) {
        (self.file, self.room)
    }
}

impl Read for TemporaryFile {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(out)?;
        self.at += n as u64;
        Ok(n)
    }
}

impl Write for TemporaryFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.room.grow(&self.file, self.at + bytes.len() as u64)?;
        let n = self.file.write(bytes)?;
        self.at += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for TemporaryFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = self.file.seek(to)?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn temporary(most: u64, keep_free: u64) -> (Arc<Temporary>, [Share; 2]) {
        let (temporary, ids) =
            (Arc::new(Temporary::new(Ids::system(), most, keep_free)), Ids::seeded(1));
        let shares = [(); 2].map(|()| temporary.of(AccountId::new(&ids, 1)));
        (temporary, shares)
    }

    fn is_full<T>(result: io::Result<T>) -> bool {
        result.err().is_some_and(|error| error.kind() == ErrorKind::StorageFull)
    }

    #[test]
    fn a_file_has_no_name() {
        let mut file = temporary(STEP, 0).1[0].file().unwrap();
        file.write_all(b"text").unwrap();
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "text");
        let (file, _room) = file.into_parts();
        assert_eq!(file.metadata().unwrap().nlink(), 0);
    }

    #[test]
    fn all_files_share_the_room() {
        let (temporary, [one, two]) = temporary(5 * STEP, 0);
        let (mut first, second) = (one.file().unwrap(), one.file().unwrap());
        assert!(is_full(one.file()), "an account has half");
        let mut other = two.file().unwrap();
        other.write_all(&[0; 2 << 20]).unwrap();
        assert_eq!(temporary.taken(), 4 * STEP);
        assert!(is_full(first.write_all(&[0; (1 << 20) + 1])), "no room to grow");
        drop(second);
        first.rewind().unwrap();
        first.write_all(&[0; (1 << 20) + 1]).unwrap();
        let (_file, room) = first.into_parts();
        drop((room, other));
        assert_eq!(temporary.taken(), 0);
        assert!(temporary.taken.lock().unwrap().is_empty());
    }

    #[test]
    fn a_disk_without_room_is_refused_at_once() {
        assert!(is_full(temporary(STEP, u64::MAX / 2).1[0].file()));
    }
}
