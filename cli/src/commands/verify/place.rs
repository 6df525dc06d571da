//! Where a run works: a folder that is its own, with its database.
//!
//! ```text
//! contacts-results.csv.progress/    0700, the files in it 0600
//!     lock        held by whoever works here; what nobody holds was left by a process that is gone
//!     list.json   what is verified ([`Record`]); without it there is nothing to go on with
//!     verify.db   the list, and every result that was stored
//! ```
//!
//! * A folder gets its name when it is whole and its lock is held, so two runs never share one.
//! * One beside the results stays when its run ends before its list is done, however it ends; one in the folder
//!   of temporary files (single addresses, results to stdout) never stays, and what a process that was killed
//!   leaves there goes with the next run.

use std::ffi::OsStr;
use std::fs::{File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io::{self, BufRead, ErrorKind, IsTerminal, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::fs::Mode;
use tempfile::TempDir;

use super::input::Subject;
use super::record::{Mark, Record};
use super::results::Target;
use crate::args::VerifyArgs;
use crate::commands::Context;
use crate::commands::whole_file::PART;
use crate::output::complain;

const LOCK: &str = "lock";
const RECORD: &str = "list.json";
const DATABASE: &str = "verify.db";
/// How names of folders begin that have no other name (yet).
const TEMPORARY: &str = "listmill-verify-";
const BESIDE: &str = ".listmill-verify-";

/// A run's folder, removed when dropped unless it is to be kept.
pub struct Place {
    path: PathBuf,
    /// Of one beside the results.
    record: Option<Record>,
    resumed: bool,
    kept: bool,
    _lock: File,
}

/// What this process makes is for nobody else from now on; returns what others would have had (the umask).
pub fn be_private() -> u32 {
    rustix::process::umask(Mode::RWXG | Mode::RWXO).as_raw_mode()
}

impl Place {
    /// The place of this run: as an earlier one left it, if the caller or who is at the terminal wants that,
    /// else a new one. `results`: where they go, if anywhere.
    pub async fn open(
        context: &Context,
        args: &VerifyArgs,
        subject: &Subject,
        results: Option<&Target>,
    ) -> Result<Self> {
        let Some((results, path)) = results.and_then(|to| Some((to, to.progress(subject, args)?)))
        else {
            ensure!(
                !args.resume && !args.restart && args.progress.is_none(),
                "--resume, --restart and --progress are for lists. With --output -, or a device, say with \
                 --progress where the progress is kept"
            );
            results.map_or(Ok(()), |results| results.must_be_free(args.force))?;
            return Self::temporary();
        };
        let (found, shown) = (Self::find(&path)?, path.display());
        let asks = io::stdin().is_terminal()
            && io::stderr().is_terminal()
            && !context.output.is_json()
            && !args.resume;
        let left = format!("{shown} holds what an earlier run has found for {}", subject.name());
        let mut new = match &found {
            Some(_) if !args.resume && !args.restart && !asks => bail!(
                "{left}, and it has not come to its end. Go on with --resume, or begin anew with --restart"
            ),
            _ => Record::of(subject, args, &context.settings).await?,
        };
        match found {
            Some(found) if args.restart => new.written = found.end(),
            Some(mut found) => {
                found.fits(&new).with_context(|| format!("{shown} cannot go on"))?;
                if asks {
                    let question = format!("{left}. Go on where it stopped? [Y/n] ");
                    ensure!(
                        agreed(question).await?,
                        "nothing was changed; --restart begins anew, another --output leaves it as it is"
                    );
                }
                found.note(|record| record.force |= args.force)?;
                return Ok(found);
            }
            None => {}
        }
        if !new.may_replace(results.path()) {
            results.must_be_free(args.force)?;
        }
        if args.resume {
            complain(&format!("{shown}: there is nothing to go on with; it begins"));
        }
        let to = args.progress.as_deref().unwrap_or(results.path());
        Self::make(&path, new).with_context(|| format!("cannot write {}", to.display()))
    }

    /// In the folder of temporary files.
    fn temporary() -> Result<Self> {
        let parent = std::env::temp_dir();
        remove_left(&parent);
        let (folder, lock) = locked_folder(&parent, TEMPORARY)
            .with_context(|| format!("cannot make a folder in {}", parent.display()))?;
        let path = folder.keep();
        Ok(Self { path, record: None, resumed: false, kept: false, _lock: lock })
    }

    fn make(path: &Path, record: Record) -> Result<Self> {
        let parent = parent_of(path);
        remove_left(parent);
        let (folder, lock) = locked_folder(parent, BESIDE)?;
        write_record(folder.path(), &record)?;
        let moved = std::fs::rename(folder.path(), path);
        moved.with_context(|| format!("cannot make the folder {}", path.display()))?;
        // It has another name now.
        let _ = folder.keep();
        File::open(parent)?.sync_all()?;
        Ok(Self {
            path: path.to_owned(),
            record: Some(record),
            resumed: false,
            kept: false,
            _lock: lock,
        })
    }

    /// What an earlier run has left.
    fn find(path: &Path) -> Result<Option<Self>> {
        let shown = path.display();
        let lock = match OpenOptions::new().write(true).open(path.join(LOCK)) {
            Ok(lock) => lock,
            Err(error) if error.kind() == ErrorKind::NotFound && is_empty(path) => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| {
                    format!("{shown} is there, and is no progress of listmill verify; --progress names another folder")
                });
            }
        };
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!("another listmill verify is at work on this list ({shown})")
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {shown}"));
            }
        }
        let mut place =
            Self { path: path.to_owned(), record: None, resumed: true, kept: false, _lock: lock };
        let record = match std::fs::read(path.join(RECORD)) {
            Ok(record) => record,
            // It was being removed: what it had to say is in the results.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                place.kept = true;
                return Err(error).with_context(|| format!("cannot read {shown}"));
            }
        };
        place.kept = true;
        let record: Record = serde_json::from_slice(&record).with_context(|| {
            format!("{shown} was written by another version of listmill; --restart begins anew")
        })?;
        place.remove_parts(&record);
        place.record = Some(record);
        Ok(Some(place))
    }

    /// Half-written results of who was killed.
    fn remove_parts(&self, record: &Record) {
        let entries = std::fs::read_dir(&self.path).into_iter().flatten().flatten();
        let inside = entries.map(|entry| entry.path());
        let parts = inside.filter(|path| path.to_string_lossy().ends_with(PART));
        for part in parts.chain(record.part.clone()) {
            let _ = std::fs::remove_file(part);
        }
    }

    fn fits(&self, wanted: &Record) -> Result<()> {
        self.record.as_ref().map_or(Ok(()), |record| record.fits(wanted))
    }

    /// Removes it; returns what its run has written.
    fn end(mut self) -> Option<Mark> {
        self.kept = false;
        self.record.take().and_then(|record| record.written)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The database in it.
    pub fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    /// Was it left by an earlier run?
    pub fn is_resumed(&self) -> bool {
        self.resumed
    }

    /// Does it stay when the process ends now?
    pub fn is_kept(&self) -> bool {
        self.kept
    }

    /// Is it one that can be gone on with?
    pub fn can_be_kept(&self) -> bool {
        self.record.is_some()
    }

    /// The list is in it: from now on it stays until the list is done.
    pub fn keep(&mut self) {
        self.kept = self.can_be_kept();
    }

    /// The list is done.
    pub fn remove(mut self) {
        self.kept = false;
    }

    /// May what is at this path be replaced, as it was written by us or is to be?
    pub fn may_replace(&self, path: &Path) -> bool {
        self.record.as_ref().is_some_and(|record| record.may_replace(path))
    }

    /// Writes down something about the run.
    pub fn note(&mut self, change: impl FnOnce(&mut Record)) -> Result<()> {
        if let Some(record) = &mut self.record {
            change(record);
            write_record(&self.path, record)
                .with_context(|| format!("cannot write to {}", self.path.display()))?;
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.kept {
            remove(&self.path);
        }
    }
}

/// Removes a folder whose lock we hold: first what makes it worth something, so that half of it is taken for
/// none, and the lock last.
fn remove(folder: &Path) {
    let _ = std::fs::remove_file(folder.join(RECORD));
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name() != LOCK) {
        let _ = std::fs::remove_file(entry.path());
    }
    let _ = std::fs::remove_file(folder.join(LOCK));
    let _ = std::fs::remove_dir(folder);
}

/// Is nothing there, or a folder with nothing in it?
fn is_empty(path: &Path) -> bool {
    match std::fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == ErrorKind::NotFound,
    }
}

/// The folder that a path is in.
pub fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A new folder with its lock, held. Whoever finds the lock by its name finds it held, or its holder gone.
fn locked_folder(parent: &Path, prefix: &str) -> Result<(TempDir, File)> {
    let mode = Permissions::from_mode(0o700);
    let folder = tempfile::Builder::new().prefix(prefix).permissions(mode).tempdir_in(parent)?;
    let new = folder.path().join("lock.new");
    let lock = OpenOptions::new().write(true).create_new(true).open(&new)?;
    lock.try_lock().context("this file system knows no locks; --progress names another folder")?;
    std::fs::rename(new, folder.path().join(LOCK))?;
    Ok((folder, lock))
}

fn write_record(folder: &Path, record: &Record) -> Result<()> {
    let new = folder.join("list.json.new");
    let mut file = File::create(&new)?;
    file.write_all(&serde_json::to_vec_pretty(record)?)?;
    file.sync_all()?;
    Ok(std::fs::rename(new, folder.join(RECORD))?)
}

/// Removes what processes that are gone have left in this folder.
fn remove_left(parent: &Path) {
    let ours = rustix::process::geteuid().as_raw();
    let temporary = |name: &OsStr| {
        let name = name.as_encoded_bytes();
        name.starts_with(TEMPORARY.as_bytes()) || name.starts_with(BESIDE.as_bytes())
    };
    let is_ours = |found: Metadata| found.is_dir() && found.uid() == ours;
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        if temporary(&entry.file_name()) && entry.metadata().is_ok_and(is_ours) {
            let lock = OpenOptions::new().write(true).open(entry.path().join(LOCK));
            if lock.is_ok_and(|lock| lock.try_lock().is_ok()) {
                remove(&entry.path());
            }
        }
    }
}

/// Asks who is at the terminal.
async fn agreed(question: String) -> Result<bool> {
    let asked = tokio::task::spawn_blocking(move || {
        let mut terminal = io::stderr();
        terminal.write_all(question.as_bytes())?;
        terminal.flush()?;
        let mut answer = String::new();
        // The end of the input is no consent.
        let read = io::stdin().lock().read_line(&mut answer)?;
        let answer = answer.trim().to_lowercase();
        Ok(read > 0 && (answer.is_empty() || "yes".starts_with(&answer)))
    });
    let answer: io::Result<bool> = asked.await?;
    answer.context("cannot ask")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record { name: "list.csv".into(), provider: "smtp".into(), ..Record::default() }
    }

    #[test]
    fn one_run_at_a_time_and_nothing_left_of_one_that_did_not_begin() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.csv.progress");
        assert!(Place::find(&path).unwrap().is_none());
        let mut place = Place::make(&path, record()).unwrap();
        let error = Place::find(&path).err().unwrap().to_string();
        assert!(error.contains("another listmill verify"), "{error}");
        assert!(Place::make(&path, record()).is_err(), "two that begin at once");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        place.keep();
        std::fs::write(path.join("x.part"), "half").unwrap();
        drop(place);
        let again = Place::find(&path).unwrap().unwrap();
        assert!(again.is_resumed() && again.is_kept() && !path.join("x.part").exists());
        again.remove();
        drop(Place::make(&path, record()).unwrap());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn half_a_folder_is_none_and_another_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.csv.progress");
        let mut place = Place::make(&path, record()).unwrap();
        place.keep();
        std::fs::remove_file(path.join(RECORD)).unwrap();
        drop(place);
        assert!(Place::find(&path).unwrap().is_none());
        assert!(!path.exists());
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("mine"), "precious").unwrap();
        assert!(Place::find(&path).is_err());
        assert!(path.join("mine").exists());
    }

    #[test]
    fn what_the_dead_left_is_removed_and_what_the_living_have_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (living, lock) = locked_folder(folder.path(), TEMPORARY).unwrap();
        let (dead, gone) = locked_folder(folder.path(), BESIDE).unwrap();
        drop(gone);
        let dead = dead.keep();
        let other = folder.path().join("listmill-verify-other");
        std::fs::create_dir(&other).unwrap();
        remove_left(folder.path());
        assert!(living.path().exists() && !dead.exists() && other.exists());
        drop(lock);
    }
}
