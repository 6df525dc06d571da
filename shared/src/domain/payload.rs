//! The two compressed payloads that a submitted list is stored in (results are in [`super::block`]).
//!
//! Data, both kinds: one byte that names kind and version, the length of the body as a varint,
//! then the body as one zstd frame with a checksum.
//! - **batch** body: count, then one varint per entry (`length << 1 | valid`), then all texts.
//! - **rows** body: count, then one varint per row (`length << 1 | has seq`), then for each row
//!   with a seq its zigzag distance from the next unused seq (0 = first seen here, below = a
//!   duplicate of an earlier one), then all record lines.
//!
//! Columns of one kind side by side compress better and decode into one buffer plus offsets.
//!
//! Invariants: what an encoder made is decoded to the same sequence; anything else is a
//! [`PayloadError`], never a panic; decoding never takes more memory than [`MAX_BODY`] and four
//! bytes per entry, whatever the frame claims.

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::CParameter;

/// The largest body that is written or read.
pub const MAX_BODY: usize = 16 << 20;

const BATCH: u8 = 0xb1;
const ROWS: u8 = 0xa1;
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

/// Collects the entries of a batch. Reusable: [`BatchEncoder::finish`] empties it.
pub struct BatchEncoder {
    lengths: Vec<u8>,
    text: Vec<u8>,
    len: usize,
    frame: Frame,
}

impl BatchEncoder {
    /// An empty encoder.
    pub fn new() -> Result<Self, PayloadError> {
        Ok(Self { lengths: Vec::new(), text: Vec::new(), len: 0, frame: Frame::new()? })
    }

    /// Appends one address and whether its syntax is right.
    pub fn push(&mut self, text: &str, valid: bool) {
        put_varint(&mut self.lengths, (text.len() as u64) << 1 | u64::from(valid));
        self.text.extend_from_slice(text.as_bytes());
        self.len += 1;
    }

    /// Entries pushed since the last finish.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Nothing pushed since the last finish?
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes before compression.
    pub fn bytes_len(&self) -> usize {
        self.lengths.len() + self.text.len()
    }

    /// The payload of everything pushed; the encoder is empty again.
    pub fn finish(&mut self) -> Result<Vec<u8>, PayloadError> {
        let payload = self.frame.seal(BATCH, self.len, |body| {
            body.extend_from_slice(&self.lengths);
            body.extend_from_slice(&self.text);
        });
        self.lengths.clear();
        self.text.clear();
        self.len = 0;
        payload
    }
}

/// One entry of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The canonical address.
    pub text: &'a str,
    /// Is its syntax right?
    pub valid: bool,
}

/// A decoded batch: one text and an offset per entry.
#[derive(Debug, Clone)]
pub struct Batch {
    text: String,
    /// `end << 1 | valid`
    ends: Vec<u32>,
}

impl Batch {
    /// Number of entries.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// No entries?
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The entry at `i`, `None` past the end.
    pub fn get(&self, i: usize) -> Option<Entry<'_>> {
        let end = *self.ends.get(i)?;
        let start = if i == 0 { 0 } else { self.ends[i - 1] >> 1 };
        let text = &self.text[start as usize..(end >> 1) as usize];
        Some(Entry { text, valid: end & 1 == 1 })
    }

    /// All entries in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Entry<'_>> {
        let mut start = 0;
        self.ends.iter().map(move |end| {
            let text = &self.text[start..(end >> 1) as usize];
            start = (end >> 1) as usize;
            Entry { text, valid: end & 1 == 1 }
        })
    }
}

/// Reads what [`BatchEncoder`] wrote.
pub fn decode_batch(payload: &[u8]) -> Result<Batch, PayloadError> {
    let mut body = open(BATCH, payload)?;
    let mut at = 0;
    let count = take_count(&body, &mut at)?;
    let mut ends = Vec::with_capacity(count);
    let mut end = 0u64;
    for _ in 0..count {
        let word = take_varint(&body, &mut at)?;
        // No overflow: each length is below 2^63, and a sum over MAX_BODY ends the loop.
        end += word >> 1;
        if end > MAX_BODY as u64 {
            return Err(PayloadError::Damaged("lengths exceed the body"));
        }
        ends.push((end << 1) as u32 | (word & 1) as u32);
    }
    body.drain(..at);
    if body.len() as u64 != end {
        return Err(PayloadError::Damaged("lengths do not add up"));
    }
    let text = String::from_utf8(body).map_err(|_| PayloadError::Damaged("text is not UTF-8"))?;
    if !ends.iter().all(|end| text.is_char_boundary((end >> 1) as usize)) {
        return Err(PayloadError::Damaged("an entry ends inside a character"));
    }
    Ok(Batch { text, ends })
}

/// Collects rows of the submitted file. Reusable: [`RowsEncoder::finish`] empties it.
pub struct RowsEncoder {
    lengths: Vec<u8>,
    seqs: Vec<u8>,
    lines: Vec<u8>,
    len: usize,
    next: u64,
    frame: Frame,
}

impl RowsEncoder {
    /// An empty encoder.
    pub fn new() -> Result<Self, PayloadError> {
        let frame = Frame::new()?;
        Ok(Self {
            lengths: Vec::new(),
            seqs: Vec::new(),
            lines: Vec::new(),
            len: 0,
            next: 0,
            frame,
        })
    }

    /// Appends one row: the seq of its address (`None` = it has none) and its record as one CSV
    /// line without terminator.
    pub fn push(&mut self, seq: Option<u64>, record_line: &[u8]) {
        self.push_with(seq, |lines| lines.extend_from_slice(record_line));
    }

    /// Like [`RowsEncoder::push`], with the line appended in place by `write`.
    pub fn push_with(&mut self, seq: Option<u64>, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.lines.len();
        write(&mut self.lines);
        let length = self.lines.len().saturating_sub(start) as u64;
        put_varint(&mut self.lengths, length << 1 | u64::from(seq.is_some()));
        if let Some(seq) = seq {
            put_varint(&mut self.seqs, zigzag(seq.wrapping_sub(self.next) as i64));
            self.next = advance(self.next, seq);
        }
        self.len += 1;
    }

    /// Rows pushed since the last finish.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Nothing pushed since the last finish?
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes before compression.
    pub fn bytes_len(&self) -> usize {
        self.lengths.len() + self.seqs.len() + self.lines.len()
    }

    /// The payload of everything pushed; the encoder is empty again.
    pub fn finish(&mut self) -> Result<Vec<u8>, PayloadError> {
        let payload = self.frame.seal(ROWS, self.len, |body| {
            [&self.lengths, &self.seqs, &self.lines]
                .into_iter()
                .for_each(|column| body.extend_from_slice(column));
        });
        self.lengths.clear();
        self.seqs.clear();
        self.lines.clear();
        self.len = 0;
        // Every payload stands alone.
        self.next = 0;
        payload
    }
}

/// Decoded rows; the columns were checked when they were decoded.
#[derive(Debug, Clone)]
pub struct Rows {
    body: Vec<u8>,
    count: usize,
    lengths_at: usize,
    seqs_at: usize,
    lines_at: usize,
}

impl Rows {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.count
    }

    /// No rows?
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// All rows in file order: seq and record line.
    pub fn iter(&self) -> impl Iterator<Item = (Option<u64>, &[u8])> {
        let mut columns = Columns {
            length: self.lengths_at,
            seq: self.seqs_at,
            line: self.lines_at as u64,
            next: 0,
        };
        (0..self.count).map_while(move |_| columns.step(&self.body).ok())
    }
}

/// Reads what [`RowsEncoder`] wrote.
pub fn decode_rows(payload: &[u8]) -> Result<Rows, PayloadError> {
    let body = open(ROWS, payload)?;
    let mut at = 0;
    let count = take_count(&body, &mut at)?;
    let lengths_at = at;
    let (mut with_seq, mut bytes) = (0usize, 0u64);
    for _ in 0..count {
        let word = take_varint(&body, &mut at)?;
        with_seq += (word & 1) as usize;
        bytes += word >> 1;
        if bytes > MAX_BODY as u64 {
            return Err(PayloadError::Damaged("lengths exceed the body"));
        }
    }
    let seqs_at = at;
    for _ in 0..with_seq {
        take_varint(&body, &mut at)?;
    }
    if (body.len() - at) as u64 != bytes {
        return Err(PayloadError::Damaged("lengths do not add up"));
    }
    Ok(Rows { body, count, lengths_at, seqs_at, lines_at: at })
}

/// Where the next row stands in each column.
struct Columns {
    length: usize,
    seq: usize,
    line: u64,
    next: u64,
}

impl Columns {
    fn step<'a>(&mut self, body: &'a [u8]) -> Result<(Option<u64>, &'a [u8]), PayloadError> {
        let word = take_varint(body, &mut self.length)?;
        let mut seq = None;
        if word & 1 == 1 {
            let distance = unzigzag(take_varint(body, &mut self.seq)?);
            let value = self.next.wrapping_add(distance as u64);
            self.next = advance(self.next, value);
            seq = Some(value);
        }
        let start = self.line;
        self.line += word >> 1;
        let line = body.get(start as usize..self.line as usize);
        Ok((seq, line.ok_or(PayloadError::Damaged("a line ends past the body"))?))
    }
}

/// The next unused seq after `seq` was seen. Wrapping, so that every u64 survives the way.
fn advance(next: u64, seq: u64) -> u64 {
    if (seq.wrapping_sub(next) as i64) < 0 { next } else { seq.wrapping_add(1) }
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
    let body = Decompressor::new()
        .and_then(|mut d| d.decompress(&payload[at..], claimed as usize))
        .map_err(PayloadError::Zstd)?;
    if body.len() as u64 != claimed {
        return Err(PayloadError::Damaged("the body has another length than announced"));
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn batch(entries: &[(String, bool)]) -> Vec<u8> {
        let mut encoder = BatchEncoder::new().unwrap();
        entries.iter().for_each(|(text, valid)| encoder.push(text, *valid));
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
        encoder.push(None, &vec![b'x'; MAX_BODY]);
        assert!(matches!(encoder.finish(), Err(PayloadError::TooLarge(_))));
    }

    proptest! {
        #[test]
        fn batch_round_trip(entries in prop::collection::vec((".{0,20}", any::<bool>()), 0..50)) {
            let decoded = decode_batch(&batch(&entries)).unwrap();
            prop_assert_eq!(decoded.len(), entries.len());
            for (i, (entry, (text, valid))) in decoded.iter().zip(&entries).enumerate() {
                prop_assert_eq!(entry, Entry { text, valid: *valid });
                prop_assert_eq!(decoded.get(i), Some(entry));
            }
            prop_assert_eq!(decoded.get(entries.len()), None);
        }

        #[test]
        fn rows_round_trip(rows in prop::collection::vec(
            (prop::option::of(prop_oneof![0..100u64, any::<u64>()]), ".{0,20}"), 0..50)) {
            let mut encoder = RowsEncoder::new().unwrap();
            for _ in 0..2 {
                rows.iter().for_each(|(seq, line)| encoder.push(*seq, line.as_bytes()));
                prop_assert_eq!(encoder.len(), rows.len());
                let decoded = decode_rows(&encoder.finish().unwrap()).unwrap();
                let got: Vec<_> = decoded.iter().collect();
                let want: Vec<_> = rows.iter().map(|(s, l)| (*s, l.as_bytes())).collect();
                prop_assert_eq!(got, want);
            }
        }

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
            let crafted = frame.seal(ROWS, body.len() / 3, |out| out.extend_from_slice(&body)).unwrap();
            if let Ok(decoded) = decode_rows(&crafted) {
                prop_assert_eq!(decoded.iter().count(), decoded.len());
            }
        }
    }
}
