//! Brings results from a server into a file, which is there when it is whole.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use futures::{StreamExt, stream};
use reqwest::Method;

use super::server::Server;
use crate::args::DownloadFormat;
use crate::commands::verify::input::strip;
use crate::commands::whole_file::WholeFile;
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
    first: Option<WholeFile>,
}

impl Place {
    /// `-` = stdout.
    pub fn prepare(
        path: &Path,
        format: Option<DownloadFormat>,
        force: bool,
        shutdown: &Shutdown,
    ) -> Result<Self> {
        let format = format.unwrap_or_else(|| by_name(path));
        let first = target(path, force, shutdown)?;
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
        let mut tried = 0;
        loop {
            tried += 1;
            let target = match self.first.take() {
                Some(first) => first,
                None => target(&self.path, self.force, shutdown)?,
            };
            let whole = target.temporary().is_some();
            let flow = Flow::default();
            match pour(server, task, &query, target, &flow, shutdown).await {
                // What is on its way to a reader cannot be taken back.
                Err(error) if whole && tried < TRIES && flow.broke.load(Ordering::Relaxed) => {
                    complain(&format!("{error:#}; beginning anew"));
                }
                written => return written.map(|()| flow.bytes.load(Ordering::Relaxed)),
            }
        }
    }
}

fn target(path: &Path, force: bool, shutdown: &Shutdown) -> Result<WholeFile> {
    let target = WholeFile::at(path.to_owned(), force)?;
    if let Some(path) = target.temporary() {
        shutdown.remove_when_stopped(path);
    }
    Ok(target)
}

/// A download on its way.
#[derive(Clone, Default)]
pub struct Flow {
    /// What came.
    bytes: Arc<AtomicU64>,
    /// It ended by the connection's fault.
    broke: Arc<AtomicBool>,
}

/// One try. A signal breaks it off, and nothing half-written is left.
pub async fn pour(
    server: &Server,
    task: &str,
    query: &[(&str, String)],
    target: WholeFile,
    flow: &Flow,
    shutdown: &Shutdown,
) -> Result<()> {
    let path = format!("/v1/tasks/{task}/results");
    let open = server.open(MAKING, || server.request(Method::GET, &path, query));
    let response = shutdown.or_interrupted(async { Ok(open.await?) }).await?;
    let flow = flow.clone();
    let pieces = server.pieces(response, PIECE).map(move |piece| match piece {
        Ok(piece) => {
            flow.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
            Ok(piece)
        }
        Err(fault) => {
            flow.broke.store(true, Ordering::Relaxed);
            Err(io::Error::other(fault))
        }
    });
    let drain = shutdown.drain.clone();
    let until = pieces.take_until(drain.clone().cancelled_owned());
    let stopped = stream::once(async move { drain.is_cancelled() })
        .filter(|stopped| std::future::ready(*stopped))
        .map(|_| Err(io::Error::other("interrupted")));
    target.write(until.chain(stopped), |_| Ok(())).await
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
