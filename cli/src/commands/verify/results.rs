//! The results file: written beside its place under another name and moved there when it is whole,
//! so that a file of that name is a whole one. Never over one that is there, unless asked to.

use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::{Stream, TryStreamExt};
use tempfile::NamedTempFile;

use super::input::{Subject, stem, strip};
use crate::args::{ResultsFormat, VerifyArgs};

/// Where the results go, made ready before anything is verified.
pub struct ResultsFile {
    pub format: ResultsFormat,
    pub target: Target,
}

/// Where bytes go that are there when they are whole; packed if its name ends in .gz.
pub struct Target {
    packed: bool,
    place: Place,
}

enum Place {
    Stdout,
    /// A device or a pipe.
    Open(File, PathBuf),
    File {
        new: NamedTempFile,
        path: PathBuf,
        force: bool,
    },
}

impl ResultsFile {
    /// `None`: nothing is written (single addresses, no `--output`).
    pub fn prepare(subject: &Subject, args: &VerifyArgs) -> Result<Option<Self>> {
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
            (None, Subject::Addresses(_)) => return Ok(None),
            (None, subject) => default_path(subject, args.format.unwrap_or(ResultsFormat::Csv)),
        };
        let format = args.format.unwrap_or_else(|| by_name(&path));
        Ok(Some(Self { format, target: Target::at(path, args.force)? }))
    }

    /// `None` = stdout.
    pub fn path(&self) -> Option<&Path> {
        self.target.path()
    }

    /// What stands in its place until it is whole.
    pub fn temporary(&self) -> Option<&Path> {
        self.target.temporary()
    }

    /// Writes everything, then moves the file to its place.
    pub async fn write(
        self,
        rows: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<()> {
        self.target.write(rows).await
    }
}

impl Target {
    /// `-` = stdout; a file that is there is replaced only by `force`.
    pub fn at(path: PathBuf, force: bool) -> Result<Self> {
        let packed = strip(&path.to_string_lossy(), "gz").is_some();
        let place = match path.as_os_str() == "-" {
            true => Place::Stdout,
            false => Place::at(path, force)?,
        };
        Ok(Self { packed, place })
    }

    /// `None` = stdout.
    pub fn path(&self) -> Option<&Path> {
        match &self.place {
            Place::Stdout => None,
            Place::Open(_, path) | Place::File { path, .. } => Some(path),
        }
    }

    /// What stands in its place until it is whole.
    pub fn temporary(&self) -> Option<&Path> {
        match &self.place {
            Place::File { new, .. } => Some(new.path()),
            _ => None,
        }
    }

    /// Writes everything, then moves the file to its place.
    pub async fn write(
        self,
        rows: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<()> {
        let shown = self.path().map_or_else(|| "stdout".into(), |path| path.display().to_string());
        let runtime = tokio::runtime::Handle::current();
        let written = tokio::task::spawn_blocking(move || {
            let mut rows = std::pin::pin!(rows);
            let next = || runtime.block_on(rows.try_next());
            match self.place {
                Place::Stdout => match pour(next, io::stdout().lock(), self.packed) {
                    // A reader that has enough (`| head`) is no reason to fail.
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
                    poured => Ok(poured?),
                },
                Place::Open(file, _) => Ok(pour(next, file, self.packed)?),
                Place::File { new, path, force } => {
                    pour(next, new.as_file(), self.packed)?;
                    settle(new, &path, force)
                }
            }
        });
        written.await?.with_context(|| format!("cannot write the results to {shown}"))
    }
}

impl Place {
    fn at(path: PathBuf, force: bool) -> Result<Self> {
        let shown = path.display();
        let there = std::fs::metadata(&path);
        if there.as_ref().is_ok_and(|there| there.is_dir()) {
            bail!("{shown} is a folder; name a file in it");
        }
        if there.as_ref().is_ok_and(|there| !there.is_file()) {
            let file = File::options().write(true).open(&path);
            let file = file.with_context(|| format!("cannot write {shown}"))?;
            return Ok(Place::Open(file, path));
        }
        ensure!(there.is_err() || force, "{}", taken(&path));
        // A link stays one, and what it points to is replaced.
        let path = std::fs::canonicalize(&path).unwrap_or(path);
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut builder = tempfile::Builder::new();
        builder.prefix(".listmill-").suffix(".part");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // Less the umask, as of any file that a command writes.
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let new = builder.tempfile_in(folder.unwrap_or(Path::new(".")));
        let new = new.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Place::File { new, path, force })
    }
}

fn taken(path: &Path) -> String {
    format!(
        "{} is there already; name another file with --output, or replace it with --force",
        path.display()
    )
}

fn settle(new: NamedTempFile, path: &Path, force: bool) -> Result<()> {
    let moved = match force {
        true => new.persist(path),
        false => new.persist_noclobber(path),
    };
    match moved {
        Ok(_) => Ok(()),
        // It came while we worked; what we found is not thrown away.
        Err(error) if error.error.kind() == ErrorKind::AlreadyExists => {
            let (_, kept) = error.file.keep()?;
            Err(anyhow!("{}; they are in {}", taken(path), kept.display()))
        }
        Err(error) => Err(error.error.into()),
    }
}

fn pour(
    mut next: impl FnMut() -> io::Result<Option<Bytes>>,
    into: impl Write,
    packed: bool,
) -> io::Result<()> {
    let mut out = BufWriter::new(into);
    if packed {
        let mut encoder = GzEncoder::new(&mut out, Compression::default());
        while let Some(piece) = next()? {
            encoder.write_all(&piece)?;
        }
        encoder.finish()?;
    } else {
        while let Some(piece) = next()? {
            out.write_all(&piece)?;
        }
    }
    out.flush()
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

    #[test]
    fn a_file_that_came_meanwhile_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.csv");
        let place = Place::at(path.clone(), false).unwrap();
        std::fs::write(&path, "theirs").unwrap();
        let Place::File { new, path, force } = place else { panic!("a file") };
        let error = settle(new, &path, force).unwrap_err().to_string();
        assert!(error.contains("--force") && error.contains(".part"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "theirs");
        assert!(Place::at(path, false).is_err());
    }
}
