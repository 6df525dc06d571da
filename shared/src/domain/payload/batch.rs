//! **batch** body: count, then one varint per entry (`length << 1 | valid`), then all texts.
//!
//! Where an address was written otherwise in the list than it is judged, a second kind keeps that as
//! well. Behind the lengths it has the number of such entries, then two varints for each (distance
//! from the one before, less one; length), and behind all texts those as submitted.

use super::{
    BATCH, Frame, MAX_BODY, PayloadError, SUBMITTED_BATCH, open, put_varint, take_count,
    take_varint,
};

/// Bytes of a text as submitted that are kept; a longer one ends in an ellipsis.
const MAX_SUBMITTED: usize = 320;

/// Collects the entries of a batch. Reusable: [`BatchEncoder::finish`] empties it.
pub struct BatchEncoder {
    lengths: Vec<u8>,
    text: Vec<u8>,
    len: usize,
    /// Distances and lengths of what was submitted otherwise.
    spelt: Vec<u8>,
    submitted: Vec<u8>,
    /// How many these are, and the first entry that none of them is.
    spellings: usize,
    next: usize,
    frame: Frame,
}

impl BatchEncoder {
    /// An empty encoder.
    pub fn new() -> Result<Self, PayloadError> {
        Ok(Self {
            lengths: Vec::new(),
            text: Vec::new(),
            len: 0,
            spelt: Vec::new(),
            submitted: Vec::new(),
            spellings: 0,
            next: 0,
            frame: Frame::new()?,
        })
    }

    /// Appends one address, whether its syntax is right, and how the list has it where that differs.
    pub fn push(&mut self, text: &str, valid: bool, submitted: Option<&str>) {
        put_varint(&mut self.lengths, (text.len() as u64) << 1 | u64::from(valid));
        self.text.extend_from_slice(text.as_bytes());
        if let Some(submitted) = submitted {
            let start = self.submitted.len();
            write_shortened(&mut self.submitted, submitted);
            put_varint(&mut self.spelt, (self.len - self.next) as u64);
            put_varint(&mut self.spelt, (self.submitted.len() - start) as u64);
            self.spellings += 1;
            self.next = self.len + 1;
        }
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
        self.lengths.len() + self.text.len() + self.spelt.len() + self.submitted.len()
    }

    /// The payload of everything pushed; the encoder is empty again.
    pub fn finish(&mut self) -> Result<Vec<u8>, PayloadError> {
        let kind = if self.spellings == 0 { BATCH } else { SUBMITTED_BATCH };
        let payload = self.frame.seal(kind, self.len, |body| {
            body.extend_from_slice(&self.lengths);
            if kind == SUBMITTED_BATCH {
                put_varint(body, self.spellings as u64);
                body.extend_from_slice(&self.spelt);
            }
            body.extend_from_slice(&self.text);
            body.extend_from_slice(&self.submitted);
        });
        for column in [&mut self.lengths, &mut self.text, &mut self.spelt, &mut self.submitted] {
            column.clear();
        }
        (self.len, self.spellings, self.next) = (0, 0, 0);
        payload
    }
}

/// Appends a text, cut where it is longer than what is kept.
fn write_shortened(out: &mut Vec<u8>, text: &str) {
    if text.len() <= MAX_SUBMITTED {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    let end = text.floor_char_boundary(MAX_SUBMITTED - '…'.len_utf8());
    out.extend_from_slice(&text.as_bytes()[..end]);
    out.extend_from_slice("…".as_bytes());
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
    /// All addresses, then what was submitted otherwise.
    text: String,
    /// `end << 1 | valid`
    ends: Vec<u32>,
    /// Entry and end of each text as submitted, ascending.
    submitted: Vec<(u32, u32)>,
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

    /// How the list has the address at `i`, where that differs.
    pub fn submitted(&self, i: usize) -> Option<&str> {
        let at = self.submitted.binary_search_by_key(&i, |(entry, _)| *entry as usize).ok()?;
        let start = match at.checked_sub(1) {
            Some(before) => self.submitted[before].1,
            None => self.ends.last()? >> 1,
        };
        self.text.get(start as usize..self.submitted[at].1 as usize)
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
    let kind = if payload.first() == Some(&SUBMITTED_BATCH) { SUBMITTED_BATCH } else { BATCH };
    let mut body = open(kind, payload)?;
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
    let mut submitted = Vec::new();
    if kind == SUBMITTED_BATCH {
        let (spellings, mut next) = (take_count(&body, &mut at)?, 0u64);
        for _ in 0..spellings {
            let entry = next.saturating_add(take_varint(&body, &mut at)?);
            next = entry.saturating_add(1);
            end = end.saturating_add(take_varint(&body, &mut at)?);
            if entry >= count as u64 || end > MAX_BODY as u64 {
                return Err(PayloadError::Damaged("a text as submitted is out of bounds"));
            }
            submitted.push((entry as u32, end as u32));
        }
    }
    body.drain(..at);
    if body.len() as u64 != end {
        return Err(PayloadError::Damaged("lengths do not add up"));
    }
    let text = String::from_utf8(body).map_err(|_| PayloadError::Damaged("text is not UTF-8"))?;
    let mut all_ends = ends.iter().map(|end| end >> 1).chain(submitted.iter().map(|(_, end)| *end));
    if !all_ends.all(|end| text.is_char_boundary(end as usize)) {
        return Err(PayloadError::Damaged("an entry ends inside a character"));
    }
    Ok(Batch { text, ends, submitted })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::batch;
    use super::*;

    proptest! {
        #[test]
        fn batch_round_trip(entries in prop::collection::vec(
            (".{0,20}", any::<bool>(), prop::option::of(".{0,12}")), 0..50)) {
            let mut encoder = BatchEncoder::new().unwrap();
            for _ in 0..2 {
                for (text, valid, submitted) in &entries {
                    encoder.push(text, *valid, submitted.as_deref());
                }
                let decoded = decode_batch(&encoder.finish().unwrap()).unwrap();
                prop_assert_eq!(decoded.len(), entries.len());
                for (i, (entry, (text, valid, submitted))) in decoded.iter().zip(&entries).enumerate() {
                    prop_assert_eq!(entry, Entry { text, valid: *valid });
                    prop_assert_eq!(decoded.get(i), Some(entry));
                    prop_assert_eq!(decoded.submitted(i), submitted.as_deref());
                }
                prop_assert_eq!(decoded.get(entries.len()), None);
                prop_assert_eq!(decoded.submitted(entries.len()), None);
            }
        }
    }

    /// Versions before know this kind alone, and most lists need no other.
    #[test]
    fn what_is_submitted_as_it_is_judged_takes_no_room() {
        let plain = batch(&[("a@example.com".into(), true)]);
        assert_eq!(plain[0], BATCH);
        let mut encoder = BatchEncoder::new().unwrap();
        let long = "é".repeat(MAX_SUBMITTED);
        encoder.push("a@example.com", true, Some(&long));
        let payload = encoder.finish().unwrap();
        assert_eq!(payload[0], SUBMITTED_BATCH);
        let decoded = decode_batch(&payload).unwrap();
        let kept = decoded.submitted(0).unwrap();
        assert!(kept.len() <= MAX_SUBMITTED && kept.ends_with("é…"), "{kept}");
        encoder.push("a@example.com", true, None);
        assert_eq!(encoder.finish().unwrap(), plain, "nothing is left of the batch before");
    }
}
