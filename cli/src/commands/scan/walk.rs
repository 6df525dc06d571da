//! Files and stdin, read a piece at a time.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use listmill_shared::domain::key_scan::{Hit, Scan};
use walkdir::{DirEntry, WalkDir};

use super::{Event, Events, Finding, Gone, Place, shown};

/// Bytes read in one go.
const PIECE: usize = 256 * 1024;
/// A file that says it is shorter is read up to here: those that a kernel makes up say that they are empty.
const AT_LEAST: u64 = 1 << 20;

/// Reads, and tells what it finds.
pub struct Reader {
    pub(super) events: Events,
    pub(super) scan: Scan,
    pub(super) prefixes: Vec<String>,
    pub(super) max_size: Option<u64>,
    piece: Vec<u8>,
}

impl Reader {
    pub fn new(events: Events, prefixes: &[String], max_size: Option<u64>) -> Self {
        let (scan, prefixes) = (Scan::new(prefixes), prefixes.to_vec());
        Self { events, scan, prefixes, max_size, piece: vec![0; PIECE] }
    }

    pub(super) fn is_too_large(&self, bytes: u64) -> bool {
        self.max_size.is_some_and(|most| bytes > most)
    }

    pub(super) fn tell(&self, place: &Place, hits: Vec<Hit>) -> Result<(), Gone> {
        for Hit { line, column, secret, .. } in hits {
            let finding = Finding { place: place.clone(), line, column, secret };
            self.events.send(Event::Found(finding))?;
        }
        Ok(())
    }

    fn trouble(&self, path: &Path, what: impl ToString) -> Result<(), Gone> {
        let path = shown(&self.prefixes, path);
        self.events.send(Event::Trouble { path, what: what.to_string() })
    }

    /// Reads to the end, and tells what stopped it before.
    fn read(&mut self, path: &Path, mut from: impl Read) -> Result<(), Gone> {
        let place = Place { path: shown(&self.prefixes, path), ..Place::default() };
        let stopped = loop {
            match from.read(&mut self.piece) {
                Ok(0) => break None,
                Ok(count) => {
                    let hits = self.scan.push(&self.piece[..count]);
                    self.tell(&place, hits)?;
                    self.events.send(Event::Done(count as u64))?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Some(error),
            }
        };
        self.events.send(Event::Read(self.scan.seen()))?;
        let hits = self.scan.finish();
        self.tell(&place, hits)?;
        match stopped {
            Some(error) => self.trouble(path, error),
            None => Ok(()),
        }
    }

    fn file(&mut self, entry: &DirEntry) -> Result<(), Gone> {
        let path = entry.path();
        let (file, before) = match open(path, entry.depth() > 0) {
            Ok(Some(opened)) => opened,
            // No longer a file.
            Ok(None) => return Ok(()),
            Err(error) => return self.trouble(path, error),
        };
        if self.is_too_large(before.len()) {
            return self.events.send(Event::Skipped);
        }
        // One that grows as fast as it is read has no end.
        self.read(path, (&file).take(before.len().max(AT_LEAST)))?;
        match file.metadata() {
            Ok(after) if has_changed(&before, &after) => {
                self.trouble(path, "changed while it was read; scan it again")
            }
            Ok(_) => Ok(()),
            Err(error) => self.trouble(path, error),
        }
    }
}

/// Scans these paths: folders with all that is below them.
pub fn files(reader: &mut Reader, paths: &[PathBuf]) -> Result<(), Gone> {
    let is_stdin = |path: &Path| path == Path::new("-");
    let total = paths.iter().filter(|path| !is_stdin(path)).map(|path| size(path)).sum();
    if total > 0 {
        reader.events.send(Event::Begins { what: "scanning files", total, unit: "bytes" })?;
    }
    for path in paths {
        if is_stdin(path) {
            reader.read(path, io::stdin().lock())?;
            continue;
        }
        for entry in WalkDir::new(path) {
            match entry {
                Ok(entry) if is_file(&entry) => reader.file(&entry)?,
                // Folders; links, sockets and devices, which are not followed or read.
                Ok(_) => {}
                Err(error) => {
                    let at = error.path().unwrap_or(path).to_owned();
                    match error.io_error() {
                        Some(error) => reader.trouble(&at, error)?,
                        None => reader.trouble(&at, "leads back into itself")?,
                    }
                }
            }
        }
    }
    Ok(())
}

/// A file, or a link to one that was named on purpose.
fn is_file(entry: &DirEntry) -> bool {
    let named = || entry.depth() == 0 && entry.path_is_symlink() && entry.path().is_file();
    entry.file_type().is_file() || named()
}

/// Bytes of the files there; what cannot be read is told when its turn comes.
fn size(path: &Path) -> u64 {
    let entries = WalkDir::new(path).into_iter().filter_map(Result::ok);
    entries.filter(is_file).filter_map(|entry| Some(entry.metadata().ok()?.len())).sum()
}

/// Opens a file, unless something else is there by now: a link is not followed, a pipe not waited for.
fn open(path: &Path, below: bool) -> io::Result<Option<(File, Metadata)>> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;

        use rustix::fs::OFlags;
        let follow = if below { OFlags::NOFOLLOW } else { OFlags::empty() };
        options.custom_flags((OFlags::NONBLOCK | follow).bits() as i32);
    }
    #[cfg(not(unix))]
    let _ = below;
    let file = options.open(path)?;
    let about = file.metadata()?;
    Ok(about.is_file().then_some((file, about)))
}

fn has_changed(before: &Metadata, after: &Metadata) -> bool {
    before.len() != after.len() || before.modified().ok() != after.modified().ok()
}
