//! The two compressed payloads that a submitted list is stored in (results are in [`super::block`]).
//!
//! Data, both kinds: one byte that names kind and version, the length of the body as a varint,
//! then the body as one zstd frame with a checksum.
//! [`batch`] has its distinct addresses, [`rows`] the records of the file.
//!
//! Columns of one kind side by side compress better and decode into one buffer plus offsets.
//!
//! Invariants: what an encoder made is decoded to the same sequence; anything else is a
//! [`PayloadError`], never a panic; decoding never takes more memory than [`MAX_BODY`] and four
//! bytes per entry, whatever the frame claims.

mod batch;
mod rows;

use std::cell::RefCell;

pub use batch::{Batch, BatchEncoder, Entry, decode_batch};
pub use rows::{Row, Rows, RowsEncoder, decode_rows};
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::CParameter;

/// The largest body that is written or read.
pub const MAX_BODY: usize = 16 << 20;

const BATCH: u8 = 0xb1;
/// Some addresses were submitted in another spelling.
const SUBMITTED_BATCH: u8 = 0xb2;
const ROWS: u8 = 0xa2;
/// Every row has its line.
const OLD_ROWS: u8 = 0xa1;
const LEVEL: i32 = 1;

/// Why a payload could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    #[error("payload has the unknown kind or version {0:#04x}")]
    Version(u8),
    #[error("payload body of {0} bytes is over the limit of {MAX_BODY}")]
    TooLarge(u64),
    #[error("payload is damaged: {0}")]
    Damaged(&'static str),
    #[error("payload could not be compressed or decompressed: {0}")]
    Zstd(#[source] std::io::Error),
}

pub(super) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

pub(super) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn take_varint(bytes: &[u8], at: &mut usize) -> Result<u64, PayloadError> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let Some(&b) = bytes.get(*at) else {
            return Err(PayloadError::Damaged("it ends too early"));
        };
        *at += 1;
        value |= u64::from(b & 0x7f) << shift;
        if b < 0x80 {
            return Ok(value);
        }
    }
    Err(PayloadError::Damaged("a number is too long"))
}

/// A count that the rest of the body can hold (each entry takes a byte at least).
pub(super) fn take_count(body: &[u8], at: &mut usize) -> Result<usize, PayloadError> {
    let count = take_varint(body, at)?;
    if count > (body.len() - *at) as u64 {
        return Err(PayloadError::Damaged("it has more entries than bytes"));
    }
    Ok(count as usize)
}

/// The compressor and the buffer in front of it, kept over many payloads.
pub(super) struct Frame {
    compressor: Compressor<'static>,
    body: Vec<u8>,
}

impl Frame {
    pub(super) fn new() -> Result<Self, PayloadError> {
        let mut compressor = Compressor::new(LEVEL).map_err(PayloadError::Zstd)?;
        compressor.set_parameter(CParameter::ChecksumFlag(true)).map_err(PayloadError::Zstd)?;
        Ok(Self { compressor, body: Vec::new() })
    }

    /// The payload of a body that begins with a count; `write` adds the rest.
    pub(super) fn seal(
        &mut self,
        kind: u8,
        count: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Vec<u8>, PayloadError> {
        self.body.clear();
        put_varint(&mut self.body, count as u64);
        write(&mut self.body);
        if self.body.len() > MAX_BODY {
            return Err(PayloadError::TooLarge(self.body.len() as u64));
        }
        let frame = self.compressor.compress(&self.body).map_err(PayloadError::Zstd)?;
        let mut payload = Vec::with_capacity(frame.len() + 6);
        payload.push(kind);
        put_varint(&mut payload, self.body.len() as u64);
        payload.extend_from_slice(&frame);
        Ok(payload)
    }
}

pub(super) fn open(kind: u8, payload: &[u8]) -> Result<Vec<u8>, PayloadError> {
    match payload.first() {
        None => return Err(PayloadError::Damaged("it is empty")),
        Some(&found) if found != kind => return Err(PayloadError::Version(found)),
        Some(_) => {}
    }
    let mut at = 1;
    let claimed = take_varint(payload, &mut at)?;
    if claimed > MAX_BODY as u64 {
        return Err(PayloadError::TooLarge(claimed));
    }
    let body = decompress(&payload[at..], claimed as usize).map_err(PayloadError::Zstd)?;
    if body.len() as u64 != claimed {
        return Err(PayloadError::Damaged("the body has another length than announced"));
    }
    Ok(body)
}

/// With the thread's decompressor: making one costs more than a small body.
fn decompress(frame: &[u8], capacity: usize) -> std::io::Result<Vec<u8>> {
    thread_local! {
        static KEPT: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
    }
    KEPT.with_borrow_mut(|kept| match kept {
        Some(decompressor) => decompressor.decompress(frame, capacity),
        None => kept.insert(Decompressor::new()?).decompress(frame, capacity),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(super) fn batch(entries: &[(String, bool)]) -> Vec<u8> {
        let mut encoder = BatchEncoder::new().unwrap();
        entries.iter().for_each(|(text, valid)| encoder.push(text, *valid, None));
        encoder.finish().unwrap()
    }

    #[test]
    fn limits_and_kinds() {
        assert!(matches!(decode_batch(&[]), Err(PayloadError::Damaged(_))));
        assert!(matches!(decode_batch(&[7, 0]), Err(PayloadError::Version(7))));
        let good = batch(&[("a@example.com".into(), true)]);
        assert!(matches!(decode_rows(&good), Err(PayloadError::Version(BATCH))));
        // A bomb: the frame unpacks to more than announced, or announces too much.
        let bomb = zstd::bulk::compress(&vec![0; MAX_BODY + 1], LEVEL).unwrap();
        for claim in [10, MAX_BODY as u64] {
            let mut payload = vec![ROWS];
            put_varint(&mut payload, claim);
            payload.extend_from_slice(&bomb);
            assert!(matches!(decode_rows(&payload), Err(PayloadError::Zstd(_))));
        }
        let mut payload = vec![ROWS];
        put_varint(&mut payload, u64::MAX);
        assert!(matches!(decode_rows(&payload), Err(PayloadError::TooLarge(_))));
        let mut encoder = RowsEncoder::new().unwrap();
        encoder.push_blank(|lines| lines.resize(MAX_BODY, b'x'));
        assert!(matches!(encoder.finish(), Err(PayloadError::TooLarge(_))));
    }

    proptest! {
        /// Damage inside the frame is found by the checksum, damage of the body by the checks.
        #[test]
        fn damage_is_an_error_or_harmless(
            at in 0usize..64, flip in 1u8.., body in prop::collection::vec(any::<u8>(), 0..60)) {
            let entries: Vec<_> = (0..20).map(|i| (format!("a{i}@example.com"), true)).collect();
            let mut payload = batch(&entries);
            let at = at % payload.len();
            payload[at] ^= flip;
            if let Ok(decoded) = decode_batch(&payload) {
                prop_assert!(decoded.iter().zip(&entries).all(|(e, w)| e.text == w.0));
            }
            let mut frame = Frame::new().unwrap();
            let crafted = frame.seal(BATCH, body.len() / 3, |out| out.extend_from_slice(&body)).unwrap();
            if let Ok(decoded) = decode_batch(&crafted) {
                prop_assert_eq!(decoded.iter().count(), decoded.len());
            }
            let crafted = frame.seal(SUBMITTED_BATCH, body.len() / 3, |out| out.extend_from_slice(&body));
            if let Ok(decoded) = decode_batch(&crafted.unwrap()) {
                let _ = (0..decoded.len()).filter_map(|i| decoded.submitted(i)).count();
            }
            for kind in [ROWS, OLD_ROWS] {
                let crafted = frame.seal(kind, body.len() / 3, |out| out.extend_from_slice(&body));
                if let Ok(decoded) = decode_rows(&crafted.unwrap()) {
                    prop_assert_eq!(decoded.iter().count(), decoded.len());
                }
            }
        }
    }
}
