//! **rows** body: count, then one varint per row (`length << 1 | has seq`), then for each row with a seq
//! its zigzag distance from the next unused seq (0 = first seen here, below = a duplicate of an earlier
//! one), then all record lines. A row with a seq and without a line is its address and nothing else: a
//! plain list is not stored twice. The version before stored that line as well.

use std::ops::Range;

use super::{
    Frame, MAX_BODY, OLD_ROWS, PayloadError, ROWS, open, put_varint, take_count, take_varint,
    unzigzag, zigzag,
};

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

    /// Appends a row without an address: its record as one CSV line without terminator.
    pub fn push_blank(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let length = self.write(write).len() as u64;
        put_varint(&mut self.lengths, length << 1);
        self.len += 1;
    }

    /// Appends a row: the seq of its address, that address, and its record, likewise. A record that is
    /// nothing but the address is not stored.
    pub fn push(&mut self, seq: u64, address: &str, write: impl FnOnce(&mut Vec<u8>)) {
        let line = self.write(write);
        let mut length = line.len();
        if &self.lines[line.clone()] == address.as_bytes() {
            self.lines.truncate(line.start);
            length = 0;
        }
        put_varint(&mut self.lengths, (length as u64) << 1 | 1);
        put_varint(&mut self.seqs, zigzag(seq.wrapping_sub(self.next) as i64));
        self.next = advance(self.next, seq);
        self.len += 1;
    }

    fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Range<usize> {
        let start = self.lines.len();
        write(&mut self.lines);
        start..self.lines.len()
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

/// One row of the submitted file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Row<'a> {
    /// It has no address: its record line.
    Blank(&'a [u8]),
    /// The seq of its address, and its record line.
    Record(u64, &'a [u8]),
    /// It is nothing but the address with this seq.
    Address(u64),
}

impl Row<'_> {
    /// The seq of its address.
    pub fn seq(&self) -> Option<u64> {
        match *self {
            Row::Blank(_) => None,
            Row::Record(seq, _) | Row::Address(seq) => Some(seq),
        }
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

    /// All rows in file order.
    pub fn iter(&self) -> impl Iterator<Item = Row<'_>> {
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
    let kind = if payload.first() == Some(&OLD_ROWS) { OLD_ROWS } else { ROWS };
    let body = open(kind, payload)?;
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
    fn step<'a>(&mut self, body: &'a [u8]) -> Result<Row<'a>, PayloadError> {
        let word = take_varint(body, &mut self.length)?;
        let start = self.line;
        self.line += word >> 1;
        let line = body.get(start as usize..self.line as usize);
        let line = line.ok_or(PayloadError::Damaged("a line ends past the body"))?;
        if word & 1 == 0 {
            return Ok(Row::Blank(line));
        }
        let distance = unzigzag(take_varint(body, &mut self.seq)?);
        let seq = self.next.wrapping_add(distance as u64);
        self.next = advance(self.next, seq);
        Ok(if line.is_empty() { Row::Address(seq) } else { Row::Record(seq, line) })
    }
}

/// The next unused seq after `seq` was seen. Wrapping, so that every u64 survives the way.
fn advance(next: u64, seq: u64) -> u64 {
    if (seq.wrapping_sub(next) as i64) < 0 { next } else { seq.wrapping_add(1) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn rows_round_trip(rows in prop::collection::vec(
            (prop::option::of(prop_oneof![0..100u64, any::<u64>()]), ".{1,20}", any::<bool>()),
            0..50)) {
            let mut encoder = RowsEncoder::new().unwrap();
            for _ in 0..2 {
                let mut want = Vec::new();
                for (seq, text, plain) in &rows {
                    let line = text.as_bytes();
                    let write = |lines: &mut Vec<u8>| lines.extend_from_slice(line);
                    let Some(seq) = *seq else {
                        encoder.push_blank(write);
                        want.push(Row::Blank(line));
                        continue;
                    };
                    let address = if *plain { text.clone() } else { format!("{text}x") };
                    encoder.push(seq, &address, write);
                    want.push(if *plain { Row::Address(seq) } else { Row::Record(seq, line) });
                }
                prop_assert_eq!(encoder.len(), rows.len());
                let decoded = decode_rows(&encoder.finish().unwrap()).unwrap();
                prop_assert_eq!(decoded.iter().collect::<Vec<_>>(), want);
            }
        }
    }
}
