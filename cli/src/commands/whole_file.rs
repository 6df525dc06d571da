//! A file that is there when it is whole: written under another name, then moved to its place. Never over one that is
//! there, unless asked to. Packed if its name ends in .gz.

use std::fs::{File, Metadata, Permissions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::{Stream, TryStreamExt};
use tempfile::NamedTempFile;

use super::verify::input::strip;

/// How the name of what is half-written ends.
pub const PART: &str = ".part";

/// Where bytes go.
pub struct WholeFile {
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
        /// Its permissions when it is whole; `None`: those that any new file has.
        mode: Option<u32>,
    },
}

impl WholeFile {
    /// Half-written, it stands beside its place. `-` = stdout.
    pub fn at(path: PathBuf, force: bool) -> Result<Self> {
        // A link stays one, and what it points to is replaced.
        let path = std::fs::canonicalize(&path).unwrap_or(path);
        let half = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let half = half.unwrap_or(Path::new(".")).to_owned();
        Self::with(path, &half, force, None)
    }

    /// `half`: the folder in which it is written.
    pub fn with(path: PathBuf, half: &Path, force: bool, mode: Option<u32>) -> Result<Self> {
        let packed = is_packed(&path);
        let place = match path.as_os_str() == "-" {
            true => Place::Stdout,
            false => Place::at(path, half, force, mode)?,
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

    /// Writes everything, then moves the file to its place; before that, `whole` hears of it.
    pub async fn write(
        self,
        rows: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
        whole: impl FnOnce(&Metadata) -> Result<()>,
    ) -> Result<()> {
        let shown = self.path().map_or_else(|| "stdout".into(), |path| path.display().to_string());
        let runtime = tokio::runtime::Handle::current();
        let written = tokio::task::spawn_blocking(move || {
            let mut rows = std::pin::pin!(rows);
            let next = || runtime.block_on(rows.try_next());
            match self.place {
                Place::Stdout => match pour(next, io::stdout().lock(), self.packed) {
                    // A reader that has enough (`| head`) is no reason to fail.
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(None),
                    poured => poured.map(|()| None),
                },
                Place::Open(file, _) => pour(next, file, self.packed).map(|()| None),
                Place::File { new, path, force, mode } => {
                    pour(next, new.as_file(), self.packed)?;
                    new.as_file().sync_all()?;
                    let there = new.as_file().metadata()?;
                    Ok(Some((new, path, force, mode, there)))
                }
            }
        });
        let failed = || format!("cannot write the results to {shown}");
        if let Some((new, path, force, mode, there)) = written.await?.with_context(failed)? {
            whole(&there)?;
            settle(new, &path, force, mode).with_context(failed)?;
        }
        Ok(())
    }
}

/// Does the name say that it is packed?
pub fn is_packed(path: &Path) -> bool {
    strip(&path.to_string_lossy(), "gz").is_some()
}

impl Place {
    fn at(path: PathBuf, half: &Path, force: bool, mode: Option<u32>) -> Result<Self> {
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
        let mut builder = tempfile::Builder::new();
        builder.prefix(".listmill-").suffix(PART);
        if mode.is_none() {
            // Less the umask, as of any file that a command writes.
            builder.permissions(Permissions::from_mode(0o666));
        }
        let new = builder.tempfile_in(half);
        let new = new.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Place::File { new, path, force, mode })
    }
}

/// Why a file is not written.
pub fn taken(path: &Path) -> String {
    format!(
        "{} is there already; name another file with --output, or replace it with --force",
        path.display()
    )
}

fn settle(new: NamedTempFile, path: &Path, force: bool, mode: Option<u32>) -> Result<()> {
    let moved = match force {
        true => new.persist(path),
        false => new.persist_noclobber(path),
    };
    match moved {
        Ok(whole) => match mode {
            Some(mode) => Ok(whole.set_permissions(Permissions::from_mode(mode))?),
            None => Ok(()),
        },
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_came_meanwhile_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.csv");
        let place = Place::at(path.clone(), folder.path(), false, Some(0o600)).unwrap();
        std::fs::write(&path, "theirs").unwrap();
        let Place::File { new, path, force, mode } = place else { panic!("a file") };
        let error = settle(new, &path, force, mode).unwrap_err().to_string();
        assert!(error.contains("--force") && error.contains(".part"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "theirs");
        assert!(Place::at(path, folder.path(), false, None).is_err());
    }
}
