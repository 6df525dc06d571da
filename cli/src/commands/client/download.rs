//! Brings results from a server into a file, which is there when it is whole.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use futures::StreamExt;
use reqwest::Method;

use super::server::Server;
use crate::args::DownloadFormat;
use crate::commands::verify::input::strip;
use crate::commands::verify::results::Target;
use crate::lifecycle::Shutdown;
use crate::output::complain;

/// Files that are made before they are sent let us wait for so long.
const MAKING: Duration = Duration::from_secs(660);
/// Between two pieces.
pub const PIECE: Duration = Duration::from_secs(120);
/// A download that breaks off begins anew so often.
const TRIES: u32 = 4;

/// Where results go, made ready before anything is asked.
pub struct Place {
    pub format: DownloadFormat,
    path: PathBuf,
    force: bool,
    first: Option<Target>,
}

impl Place {
    /// `-` = stdout.
    pub fn prepare(path: &Path, format: Option<DownloadFormat>, force: bool) -> Result<Self> {
        let format = format.unwrap_or_else(|| by_name(path));
        let first = Target::at(path.to_owned(), force)?;
        ensure!(
            first.path().is_some() || !format.is_packed() || !io::stdout().is_terminal(),
            "{} is nothing for a terminal; name a file with --output",
            format.as_str()
        );
        Ok(Self { format, path: path.to_owned(), force, first: Some(first) })
    }

    /// Does stdout hold the results?
    pub fn is_stdout(&self) -> bool {
        self.path.as_os_str() == "-"
    }

    /// What `--output` says.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Brings them; the number of bytes that came.
    pub async fn fill(
        mut self,
        server: &Server,
        task: &str,
        query: &[(&str, String)],
        shutdown: &Shutdown,
    ) -> Result<u64> {
        let mut query = query.to_vec();
        query.push(("format", self.format.as_str().into()));
        for tried in 1.. {
            let target = match self.first.take() {
                Some(first) => first,
                None => Target::at(self.path.clone(), self.force)?,
            };
            let whole = target.temporary().is_some();
            if let Some(path) = target.temporary() {
                shutdown.remove_when_stopped(path);
            }
            let (bytes, broke) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
            let written = pour(server, task, &query, target, &bytes, &broke).await;
            match written {
                // What is on its way to a reader cannot be taken back.
                Err(error) if whole && tried < TRIES && broke.load(Ordering::Relaxed) => {
                    complain(&format!("{error:#}; beginning anew"));
                }
                written => return written.map(|()| bytes.load(Ordering::Relaxed)),
            }
        }
        Ok(0)
    }
}

/// `broke`: it was the connection's fault.
pub async fn pour(
    server: &Server,
    task: &str,
    query: &[(&str, String)],
    target: Target,
    bytes: &Arc<AtomicU64>,
    broke: &Arc<AtomicBool>,
) -> Result<()> {
    let path = format!("/v1/tasks/{task}/results");
    let response = server.open(MAKING, || server.request(Method::GET, &path, query)).await?;
    let (bytes, broke) = (bytes.clone(), broke.clone());
    let pieces = server.pieces(response, PIECE).map(move |piece| match piece {
        Ok(piece) => {
            bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
            Ok(piece)
        }
        Err(fault) => {
            broke.store(true, Ordering::Relaxed);
            Err(io::Error::other(fault))
        }
    });
    target.write(pieces).await
}

fn by_name(path: &Path) -> DownloadFormat {
    let name = path.to_string_lossy();
    let name = strip(&name, "gz").unwrap_or(&name);
    let is = |ending| strip(name, ending).is_some();
    match () {
        () if is("xlsx") => DownloadFormat::Xlsx,
        () if is("zip") => DownloadFormat::Zip,
        () if is("ndjson") || is("jsonl") => DownloadFormat::Ndjson,
        () if is("json") => DownloadFormat::JsonArray,
        () if is("txt") => DownloadFormat::Txt,
        () => DownloadFormat::Csv,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_says_the_format() {
        for (name, format) in [
            ("a.csv", "csv"),
            ("a.XLSX", "xlsx"),
            ("a.ndjson.gz", "ndjson"),
            ("a.json", "json_array"),
            ("a.txt", "txt"),
            ("a.zip", "zip"),
            ("-", "csv"),
        ] {
            assert_eq!(by_name(Path::new(name)).as_str(), format, "{name}");
        }
    }
}
