//! The results file: written under another name and moved to its place when it is whole, so that a file of that
//! name is a whole one. Never over one that is there, unless asked to.

use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use bytes::Bytes;
use futures::Stream;

use super::input::{Subject, stem, strip};
use super::place::{Place as Folder, parent_of};
use super::record::Mark;
use crate::args::{ResultsFormat, VerifyArgs};
use crate::commands::whole_file::{WholeFile, taken};

/// Where the results are to go.
#[derive(Debug)]
pub struct Target {
    path: PathBuf,
    pub format: ResultsFormat,
}

impl Target {
    /// `None`: nothing is written (single addresses, no `--output`).
    pub fn of(subject: &Subject, args: &VerifyArgs) -> Option<Self> {
        let by_name = |path: &Path| {
            let name = path.to_string_lossy();
            let name = strip(&name, "gz").unwrap_or(&name);
            match strip(name, "ndjson").or(strip(name, "jsonl")).is_some() {
                true => ResultsFormat::Ndjson,
                false => ResultsFormat::Csv,
            }
        };
        let path = match (&args.output, subject) {
            (Some(path), _) => path.clone(),
            (None, Subject::Addresses(_)) => return None,
            (None, subject) => default_path(subject, args.format.unwrap_or(ResultsFormat::Csv)),
        };
        let format = args.format.unwrap_or_else(|| by_name(&path));
        // A link stays one, and what it points to is replaced.
        let path = match path.is_symlink() {
            true => std::fs::canonicalize(&path).unwrap_or(path),
            false => path,
        };
        Some(Self { path, format })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn is_stdout(&self) -> bool {
        self.path.as_os_str() == "-"
    }

    /// A device or a pipe.
    fn is_open(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|there| !there.is_file() && !there.is_dir())
    }

    /// Where the progress of a list is kept: beside its results, unless another folder is named. `None`: nowhere.
    pub fn progress(&self, subject: &Subject, args: &VerifyArgs) -> Option<PathBuf> {
        match (&args.progress, subject) {
            (_, Subject::Addresses(_)) => None,
            (Some(folder), _) => Some(folder.clone()),
            (None, _) if self.is_stdout() || self.is_open() || self.path.is_dir() => None,
            (None, _) => {
                let mut path = self.path.clone().into_os_string();
                path.push(".progress");
                Some(path.into())
            }
        }
    }

    /// Fails where a file is that is not to be replaced.
    pub fn must_be_free(&self, force: bool) -> Result<()> {
        let free = force || self.is_stdout() || self.is_open() || !self.path.exists();
        ensure!(free || self.path.is_dir(), "{}", taken(&self.path));
        Ok(())
    }
}

/// Where the results go, made ready before anything is verified.
pub struct ResultsFile {
    pub format: ResultsFormat,
    file: WholeFile,
}

impl ResultsFile {
    /// Half-written, they stand in the run's folder or beside their place. `umask`: what their owner does not
    /// allow others.
    pub fn prepare(
        target: Target,
        args: &VerifyArgs,
        folder: &mut Folder,
        umask: u32,
    ) -> Result<Self> {
        let Target { path, format } = target;
        // One that is named may be on another disk.
        let inside = folder.can_be_kept() && args.progress.is_none();
        let half = if inside { folder.path() } else { parent_of(&path) }.to_owned();
        let force = args.force || folder.may_replace(&path);
        let file = WholeFile::with(path, &half, force, Some(0o666 & !umask))?;
        if let (false, Some(part)) = (inside, file.temporary()) {
            let part = std::path::absolute(part)?;
            folder.note(|record| record.part = Some(part))?;
        }
        Ok(Self { format, file })
    }

    /// `None` = stdout.
    pub fn path(&self) -> Option<&Path> {
        self.file.path()
    }

    /// What stands in its place until it is whole.
    pub fn temporary(&self) -> Option<&Path> {
        self.file.temporary()
    }

    /// Writes everything, then moves the file to its place; before that, `folder` hears of it.
    pub async fn write(
        self,
        rows: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
        folder: &mut Folder,
    ) -> Result<()> {
        let whole = |there: &Metadata| {
            let mark = Mark::of(there);
            folder.note(|record| record.written = Some(mark))
        };
        self.file.write(rows, whole).await
    }
}

/// Next to the list; those of stdin in the current folder.
fn default_path(subject: &Subject, format: ResultsFormat) -> PathBuf {
    let ending = format.as_str();
    match subject {
        Subject::File(path) => {
            path.with_file_name(format!("{}-results.{ending}", stem(&subject.name())))
        }
        _ => PathBuf::from(format!("listmill-results.{ending}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_stand_next_to_their_list() {
        let of = |path: &str, format| default_path(&Subject::File(path.into()), format);
        assert_eq!(of("a/b.csv.gz", ResultsFormat::Csv), Path::new("a/b-results.csv"));
        assert_eq!(of("b.txt", ResultsFormat::Ndjson), Path::new("b-results.ndjson"));
        let stdin = default_path(&Subject::Stdin, ResultsFormat::Csv);
        assert_eq!(stdin, Path::new("listmill-results.csv"));
    }
}
