//! **batch** body: count, then one varint per entry (`length << 1 | valid`), then all texts.

use super::{BATCH, Frame, MAX_BODY, PayloadError, open, put_varint, take_count, take_varint};

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::batch;
    use super::*;

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
    }
}
