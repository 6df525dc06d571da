//! From the network to the reader thread: bounded, counted, unpacked.

use std::io::{self, BufReader, Read};
use std::time::Duration;

use bytes::{Buf, Bytes};
use flate2::read::MultiGzDecoder;
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use zstd::stream::read::Decoder;

use super::read::ReadError;

/// Unpacked bytes per packed byte that a real list may reach; a bomb reaches a thousand.
const MOST_RATIO: u64 = 200;
/// Unpacked bytes below which the ratio does not matter.
const RATIO_FROM: u64 = 8 << 20;

/// Bytes of what zstd may refer back to, as a power of two.
const ZSTD_WINDOW: u32 = 27;

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
    #[error("The list unpacks to over {MOST_RATIO} times its size; no list does that.")]
    Bomb,
    /// Packed, but not well.
    #[error("The list is packed with {0}, but cannot be unpacked: {1}.")]
    NotUnpacked(Packing, String),
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

/// How a list is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
    /// An archive with one list in it.
    Zip,
}

impl Packing {
    /// As it is shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Zip => "zip",
        }
    }
}

impl std::fmt::Display for Packing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The list's own bytes: unpacked if need be, and never more than allowed.
pub(super) struct Unpacked<R: Read> {
    input: Input<R>,
    bytes: u64,
    most: u64,
}

enum Input<R: Read> {
    Plain(R),
    Gzip(Box<MultiGzDecoder<Counted<R>>>),
    Zstd(Box<Decoder<'static, BufReader<Counted<R>>>>),
    /// Unpacked by who gives it, and of so many bytes when packed.
    Unzipped(R, u64),
}

impl<R: Read> Unpacked<R> {
    /// As it comes.
    pub(super) fn plain(reader: R, most: u64) -> Self {
        Self { input: Input::Plain(reader), bytes: 0, most }
    }

    pub(super) fn gzip(reader: R, most: u64) -> Self {
        let decoder = MultiGzDecoder::new(Counted { inner: reader, bytes: 0 });
        Self { input: Input::Gzip(Box::new(decoder)), bytes: 0, most }
    }

    pub(super) fn zstd(reader: R, most: u64) -> io::Result<Self> {
        let mut decoder = Decoder::new(Counted { inner: reader, bytes: 0 })?;
        decoder.window_log_max(ZSTD_WINDOW)?;
        Ok(Self { input: Input::Zstd(Box::new(decoder)), bytes: 0, most })
    }

    /// A part of an archive, which unpacks itself.
    pub(super) fn unzipped(part: R, packed: u64, most: u64) -> Self {
        Self { input: Input::Unzipped(part, packed), bytes: 0, most }
    }

    /// Bytes that were taken of what is packed.
    fn packed(&self) -> Option<u64> {
        match &self.input {
            Input::Plain(_) => None,
            Input::Gzip(decoder) => Some(decoder.get_ref().bytes),
            Input::Zstd(decoder) => Some(decoder.get_ref().get_ref().bytes),
            Input::Unzipped(_, packed) => Some(*packed),
        }
    }
}

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let (read, packing) = match &mut self.input {
            Input::Plain(reader) => {
                let n = reader.read(out)?;
                return self.count(n);
            }
            Input::Gzip(decoder) => (decoder.read(out), Packing::Gzip),
            Input::Zstd(decoder) => (decoder.read(out), Packing::Zstd),
            Input::Unzipped(part, _) => (part.read(out), Packing::Zip),
        };
        match read {
            Ok(n) => self.count(n),
            // The channel's own errors pass, as do the machine's; the decoder's are about the format.
            Err(error) if error.get_ref().is_some_and(|e| e.is::<BodyError>()) => Err(error),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => Err(io::Error::other(BodyError::NotUnpacked(packing, error.to_string()))),
        }
    }
}

impl<R: Read> Unpacked<R> {
    /// Counts what was read, and ends where it is too much.
    fn count(&mut self, n: usize) -> io::Result<usize> {
        self.bytes += n as u64;
        if self.bytes > self.most {
            return Err(io::Error::other(BodyError::TooLarge(self.most)));
        }
        let bomb = |packed: u64| self.bytes / packed.max(1) > MOST_RATIO;
        if self.bytes > RATIO_FROM && self.packed().is_some_and(bomb) {
            return Err(io::Error::other(BodyError::Bomb));
        }
        Ok(n)
    }
}
