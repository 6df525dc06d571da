//! From the network to the reader thread: bounded, counted, unpacked.

use std::io::{self, Read};
use std::time::Duration;

use bytes::{Buf, Bytes};
use flate2::read::MultiGzDecoder;
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;

use super::read::ReadError;

/// Unpacked bytes per packed byte that a real list may reach; a bomb reaches a thousand.
const MOST_RATIO: u64 = 200;
/// Unpacked bytes below which the ratio does not matter.
const RATIO_FROM: u64 = 8 << 20;

/// How long, and how far, the rest of a refused body is read and thrown away.
const LINGER: Duration = Duration::from_secs(10);
const LINGER_BYTES: u64 = 64 << 20;

/// Why a body could not be taken.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BodyError {
    /// The client went away, or broke the protocol.
    #[error("The request ended before its body was complete: {0}.")]
    Broken(String),
    /// Nothing came for too long.
    #[error("Nothing was received for {0:?}; the submission was given up.")]
    Idle(Duration),
    /// More bytes than allowed.
    #[error("The list is larger than {0} bytes when unpacked. Split it into smaller lists.")]
    TooLarge(u64),
    /// Unpacks to absurdly more than was sent.
    #[error("The gzip body unpacks to over {MOST_RATIO} times its size; no list does that.")]
    Bomb,
    /// Not gzip, though it says so.
    #[error("The body says Content-Encoding: gzip, but cannot be unpacked: {0}.")]
    NotGzip(String),
    /// Others are read, for too long.
    #[error(
        "The server reads as many workbooks as it can, and this one has waited for its turn for too long."
    )]
    Busy,
    /// The folder of temporary files is full.
    #[error(
        "The server has no room left for temporary files, which a workbook needs. CSV needs none."
    )]
    NoRoom,
}

/// Passes the body on to the reader thread, showing every piece to `see`. A body that fails is
/// passed on as an error; a reader that has gone away ends it.
pub(super) async fn feed(
    body: impl Stream<Item = io::Result<Bytes>> + Send,
    pieces: mpsc::Sender<io::Result<Bytes>>,
    idle: Duration,
    mut see: impl FnMut(&[u8]),
) {
    let mut body = std::pin::pin!(body);
    loop {
        let piece = match tokio::time::timeout(idle, body.next()).await {
            Err(_) => Err(io::Error::other(BodyError::Idle(idle))),
            Ok(None) => return,
            Ok(Some(Ok(piece))) => Ok(piece),
            Ok(Some(Err(error))) => Err(io::Error::other(BodyError::Broken(error.to_string()))),
        };
        if let Ok(piece) = &piece {
            see(piece);
        }
        let failed = piece.is_err();
        if pieces.send(piece).await.is_err() {
            // Refused. Most clients read the answer only after sending all they have.
            let _ = tokio::time::timeout(LINGER, drain(body, idle, LINGER_BYTES, |_| {})).await;
            return;
        }
        if failed {
            return;
        }
    }
}

/// Reads a body to its end for its bytes alone.
pub(super) async fn drain(
    body: impl Stream<Item = io::Result<Bytes>> + Send,
    idle: Duration,
    most: u64,
    mut see: impl FnMut(&[u8]),
) -> Result<(), BodyError> {
    let mut body = std::pin::pin!(body);
    let mut total = 0;
    loop {
        match tokio::time::timeout(idle, body.next()).await {
            Err(_) => return Err(BodyError::Idle(idle)),
            Ok(None) => return Ok(()),
            Ok(Some(Err(error))) => return Err(BodyError::Broken(error.to_string())),
            Ok(Some(Ok(piece))) => {
                total += piece.len() as u64;
                if total > most {
                    return Err(BodyError::TooLarge(most));
                }
                see(&piece);
            }
        }
    }
}

/// The typed cause inside a reader's failure, if the body is to blame.
pub(super) fn body_error(error: &ReadError) -> Option<BodyError> {
    match error {
        ReadError::Io(io) => io.get_ref()?.downcast_ref::<BodyError>().cloned(),
        _ => None,
    }
}

/// The reader thread's end of the channel.
pub(super) struct ChunkReader {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl ChunkReader {
    pub(super) fn new(pieces: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Self { pieces, current: Bytes::new() }
    }
}

impl Read for ChunkReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.pieces.blocking_recv() {
                None => return Ok(0),
                Some(piece) => self.current = piece?,
            }
        }
        let n = out.len().min(self.current.len());
        self.current.copy_to_slice(&mut out[..n]);
        Ok(n)
    }
}

/// Counts what passes.
struct Counted<R> {
    inner: R,
    bytes: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(out)?;
        self.bytes += n as u64;
        Ok(n)
    }
}

/// The list's own bytes: unpacked if need be, and never more than allowed.
pub(super) struct Unpacked {
    input: Input,
    bytes: u64,
    most: u64,
}

enum Input {
    Plain(ChunkReader),
    Gzip(Box<MultiGzDecoder<Counted<ChunkReader>>>),
}

impl Unpacked {
    pub(super) fn new(reader: ChunkReader, gzip: bool, most: u64) -> Self {
        let input = match gzip {
            false => Input::Plain(reader),
            true => Input::Gzip(Box::new(MultiGzDecoder::new(Counted { inner: reader, bytes: 0 }))),
        };
        Self { input, bytes: 0, most }
    }
}

impl Read for Unpacked {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = match &mut self.input {
            Input::Plain(reader) => reader.read(out)?,
            Input::Gzip(decoder) => match decoder.read(out) {
                Ok(n) => n,
                // The channel's own errors pass; the decoder's are about the format.
                Err(error) if error.get_ref().is_some_and(|e| e.is::<BodyError>()) => {
                    return Err(error);
                }
                Err(error) => {
                    return Err(io::Error::other(BodyError::NotGzip(error.to_string())));
                }
            },
        };
        self.bytes += n as u64;
        if self.bytes > self.most {
            return Err(io::Error::other(BodyError::TooLarge(self.most)));
        }
        if let Input::Gzip(decoder) = &self.input {
            let packed = decoder.get_ref().bytes;
            if self.bytes > RATIO_FROM && self.bytes / packed.max(1) > MOST_RATIO {
                return Err(io::Error::other(BodyError::Bomb));
            }
        }
        Ok(n)
    }
}
