//! A list on its way to a server: whatever it comes from, it can be sent more than once.
//!
//! A file is opened anew for each try. What can be read once only (stdin, a pipe) is put into a temporary file
//! first, so neither its length nor a slow server grows this process.

use std::io::{IsTerminal, Seek};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use tempfile::NamedTempFile;
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

use crate::args::InputFormat;
use crate::commands::verify::input::{Subject, by_name};
use crate::lifecycle::Shutdown;
use crate::output::complain;

/// Bytes read at once.
const PIECE: usize = 64 << 10;
/// Characters of a task's name.
const NAME: usize = 200;

/// See the module.
pub struct Source {
    /// What the task is called, unless it is named.
    pub name: String,
    /// `Content-Type`.
    pub kind: &'static str,
    /// Bytes.
    pub length: u64,
    place: Place,
}

enum Place {
    File(PathBuf),
    Kept(NamedTempFile),
    Text(Bytes),
}

impl Source {
    /// Opens it and finds out what it is.
    pub async fn open(
        subject: Subject,
        given: Option<InputFormat>,
        shutdown: &Shutdown,
    ) -> Result<Self> {
        let name = subject.name();
        let place = match subject {
            Subject::Addresses(addresses) => Place::Text(addresses.join("\n").into()),
            Subject::Stdin => {
                if std::io::stdin().is_terminal() {
                    complain("Reading the list from the terminal; Ctrl-D ends it");
                }
                keep(tokio::io::stdin(), shutdown).await.context("stdin")?
            }
            Subject::File(path) => {
                let file = tokio::fs::File::open(&path).await;
                let file = file.with_context(|| format!("cannot read {}", path.display()))?;
                match file.metadata().await?.is_file() {
                    true => Place::File(path),
                    false => keep(file, shutdown).await.with_context(|| name.clone())?,
                }
            }
        };
        let given = match &place {
            Place::Text(_) => Some(InputFormat::Text),
            _ => given,
        };
        let kind = media_type(&name, given);
        let length = place.length()?;
        // Whatever a file is called, it must not stand in the way.
        let name = name.chars().filter(|c| !c.is_control()).take(NAME).collect();
        Ok(Self { name, kind, length, place })
    }

    /// Its bytes, from the first one; `sent` grows as they are taken.
    pub fn bytes(
        &self,
        sent: Arc<AtomicU64>,
    ) -> Result<impl Stream<Item = std::io::Result<Bytes>> + Send + use<>> {
        let pieces = ReaderStream::with_capacity(self.place.reader()?, PIECE);
        Ok(pieces.inspect(move |piece| {
            let bytes = piece.as_ref().map_or(0, |piece| piece.len() as u64);
            sent.fetch_add(bytes, Ordering::Relaxed);
        }))
    }
}

impl Place {
    fn reader(&self) -> Result<Box<dyn AsyncRead + Send + Unpin>> {
        Ok(match self {
            Place::File(path) => {
                let file = std::fs::File::open(path);
                let file = file.with_context(|| format!("cannot read {}", path.display()))?;
                Box::new(tokio::fs::File::from_std(file))
            }
            Place::Kept(file) => {
                let mut file = file.reopen().context("the temporary file is gone")?;
                file.rewind()?;
                Box::new(tokio::fs::File::from_std(file))
            }
            Place::Text(text) => Box::new(std::io::Cursor::new(text.clone())),
        })
    }

    fn length(&self) -> Result<u64> {
        Ok(match self {
            Place::File(path) => std::fs::metadata(path)?.len(),
            Place::Kept(file) => file.as_file().metadata()?.len(),
            Place::Text(text) => text.len() as u64,
        })
    }
}

async fn keep(mut from: impl AsyncRead + Unpin, shutdown: &Shutdown) -> Result<Place> {
    let kept = tempfile::Builder::new().prefix("listmill-submit-").tempfile();
    let kept = kept.context("cannot make a temporary file")?;
    shutdown.remove_when_stopped(kept.path());
    let mut into = tokio::fs::File::from_std(kept.reopen()?);
    tokio::io::copy(&mut from, &mut into).await.context("cannot keep the list")?;
    into.sync_data().await.context("cannot keep the list")?;
    Ok(Place::Kept(kept))
}

/// What a list is called when it is sent. Where its name says nothing, its bytes say it to the server.
fn media_type(name: &str, given: Option<InputFormat>) -> &'static str {
    match given.or_else(|| by_name(name)) {
        None => "application/octet-stream",
        Some(InputFormat::Csv) => "text/csv",
        Some(InputFormat::Tsv) => "text/tab-separated-values",
        Some(InputFormat::Text) => "text/plain",
        Some(InputFormat::Ndjson) => "application/x-ndjson",
        Some(InputFormat::Json) => "application/json",
        Some(InputFormat::Xlsx) => {
            "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
        }
        Some(InputFormat::Vcard) => "text/vcard",
        Some(InputFormat::Ldif) => "text/ldif",
        Some(InputFormat::Mail) => "message/rfc822",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sent_as_what_they_are() {
        for (name, kind) in [
            ("a.csv", "text/csv"),
            ("a.TSV.gz", "text/tab-separated-values"),
            ("a.txt.zip", "text/plain"),
            ("a.jsonl", "application/x-ndjson"),
            ("a.json", "application/json"),
            ("a.vcf", "text/vcard"),
            ("a.dat", "application/octet-stream"),
            ("stdin", "application/octet-stream"),
        ] {
            assert_eq!(media_type(name, None), kind, "{name}");
        }
        let given = Some(InputFormat::Ndjson);
        assert_eq!(media_type("a.csv", given), "application/x-ndjson");
    }
}
