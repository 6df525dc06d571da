//! Results in blocks: the verdicts of one settled piece of a batch, packed.
//!
//! Data: one byte that names kind and version, the length of the body as a varint, the body as one zstd
//! frame, then eight bytes of SHA-256 over the block's place and all that comes before them. The body is
//! a count, then a column after the other, each holding one value per result, in the order of the places:
//!
//! | column | value |
//! | --- | --- |
//! | place in the batch | varint: distance from the one before, less one |
//! | reason, score, flags, credit, attempts | varint each |
//! | settlement, time of the verdict | zigzag varint: difference from the one before |
//! | reply code | varint: 0 none, else one more |
//! | mail host | varint: 0 none, 1 a new one (its length and text follow), else an earlier one, from 2 |
//! | intended address, detail | varint: 0 none, else its length and one; then the text |
//!
//! The addresses stay in the batch; they are not stored again.
//!
//! Invariants: what [`encode`] made of a place's results is decoded to the same results, at that place
//! only; anything else is a [`PayloadError`], never a panic, and never takes more memory than
//! [`super::payload::MAX_BODY`] and a [`Packed`] per byte of it, whatever the frame claims.

use std::cell::RefCell;
use std::collections::HashMap;

use sha2::{Digest, Sha256};

use super::batch::BatchRef;
use super::clock::Millis;
use super::payload::{
    Frame, PayloadError, open, put_varint, take_count, take_varint, unzigzag, zigzag,
};
use super::task::Tally;
use super::verdict::{Credit, Flags, Reason};

const BLOCK: u8 = 0xc1;
/// Bytes of the checksum.
const SUM: usize = 8;

/// One result.
#[derive(Debug, Clone, PartialEq)]
pub struct Packed<'a> {
    /// Its place in the batch, from 0.
    pub place: u32,
    /// The finding.
    pub reason: Reason,
    /// Chance of delivery, 0 to 100.
    pub score: i16,
    /// What else is known.
    pub flags: Flags,
    /// How it ended in the books.
    pub credit: Credit,
    /// How often it was asked.
    pub attempts: i16,
    /// The settlement whose entries moved its credit.
    pub step: i64,
    /// When the verdict came.
    pub checked_at: Millis,
    /// Last reply code of the mail host.
    pub smtp_code: Option<i16>,
    /// The mail host that answered.
    pub mx: Option<&'a str>,
    /// A likely intended address.
    pub did_you_mean: Option<&'a str>,
    /// What the verdict rests on, as JSON.
    pub detail: Option<&'a str>,
}

/// What a block holds, without opening it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Results by status, and how they ended in the books.
    pub tally: Tally,
    /// Bit `n`: a result has the reason with code `n`.
    pub reasons: i64,
    /// The bits of the flags that a result has ([`super::verdict::Flag::bit`]).
    pub flags: i16,
}

impl Summary {
    /// Of these results.
    pub fn of<'a>(results: impl IntoIterator<Item = &'a Packed<'a>>) -> Self {
        let mut summary = Self::default();
        for result in results {
            summary.tally.count(result.reason.status(), result.credit);
            summary.reasons |= bit(result.reason);
            summary.flags |= result.flags.mask();
        }
        summary
    }
}

/// The bits of these reasons.
pub fn mask(reasons: &[Reason]) -> i64 {
    reasons.iter().fold(0, |mask, reason| mask | bit(*reason))
}

const fn bit(reason: Reason) -> i64 {
    1 << reason.code()
}

/// The block of a batch's `results`, which are in the order of their places.
pub fn encode(batch: BatchRef, results: &[Packed]) -> Result<Vec<u8>, PayloadError> {
    thread_local! {
        static FRAME: RefCell<Option<Frame>> = const { RefCell::new(None) };
    }
    FRAME.with_borrow_mut(|kept| {
        let frame = match kept {
            Some(frame) => frame,
            None => kept.insert(Frame::new()?),
        };
        let mut payload = frame.seal(BLOCK, results.len(), |body| write_columns(body, results))?;
        let sum = checksum(batch, &payload);
        payload.extend_from_slice(&sum);
        Ok(payload)
    })
}

fn write_columns(body: &mut Vec<u8>, results: &[Packed]) {
    let mut next = 0;
    for result in results {
        put_varint(body, u64::from(result.place.wrapping_sub(next)));
        next = result.place.wrapping_add(1);
    }
    let mut column = |value: fn(&Packed) -> u64| {
        results.iter().for_each(|result| put_varint(body, value(result)));
    };
    column(|result| result.reason.code() as u64);
    column(|result| zigzag(i64::from(result.score)));
    column(|result| u64::from(result.flags.pack() as u16));
    column(|result| result.credit.code() as u64);
    column(|result| zigzag(i64::from(result.attempts)));
    for value in [|result: &Packed| result.step, |result: &Packed| result.checked_at] {
        let mut before = 0_i64;
        for result in results {
            put_varint(body, zigzag(value(result).wrapping_sub(before)));
            before = value(result);
        }
    }
    for result in results {
        put_varint(body, result.smtp_code.map_or(0, |code| zigzag(i64::from(code)) + 1));
    }
    // By a hash: a list may have a mail host for each address.
    let mut hosts: HashMap<&str, u64> = HashMap::new();
    for host in results.iter().map(|result| result.mx) {
        let next = hosts.len() as u64;
        match host.map(|host| (host, hosts.get(host))) {
            None => put_varint(body, 0),
            Some((_, Some(known))) => put_varint(body, known + 2),
            Some((host, None)) => {
                put_varint(body, 1);
                put_varint(body, host.len() as u64);
                body.extend_from_slice(host.as_bytes());
                hosts.insert(host, next);
            }
        }
    }
    let mut put_optional = |text: Option<&str>| {
        put_varint(body, text.map_or(0, |text| text.len() as u64 + 1));
        body.extend_from_slice(text.unwrap_or("").as_bytes());
    };
    results.iter().for_each(|result| put_optional(result.did_you_mean));
    results.iter().for_each(|result| put_optional(result.detail));
}

/// A block that has been opened.
#[derive(Debug)]
pub struct Block(Vec<u8>);

/// Opens what [`encode`] made for this batch.
pub fn decode(batch: BatchRef, payload: &[u8]) -> Result<Block, PayloadError> {
    let Some((before, sum)) = payload.split_last_chunk::<SUM>() else {
        return Err(PayloadError::Damaged("it is too short"));
    };
    if checksum(batch, before) != *sum {
        return Err(PayloadError::Damaged("its checksum is wrong"));
    }
    open(BLOCK, before).map(Block::of_body)
}

fn checksum(batch: BatchRef, payload: &[u8]) -> [u8; SUM] {
    let hash = Sha256::new().chain_update(batch.to_bytes()).chain_update(payload).finalize();
    let mut sum = [0; SUM];
    sum.copy_from_slice(&hash[..SUM]);
    sum
}

impl Block {
    /// From a body whose checksum was right; any other bytes are refused when its results are read.
    pub fn of_body(body: Vec<u8>) -> Self {
        Self(body)
    }

    /// Its results, in the order of their places.
    pub fn results(&self) -> Result<Vec<Packed<'_>>, PayloadError> {
        let damaged = PayloadError::Damaged;
        let body = self.0.as_slice();
        let mut at = 0;
        let count = take_count(body, &mut at)?;
        let mut results = Vec::with_capacity(count);
        let mut next = 0_u64;
        for _ in 0..count {
            let distance = take_varint(body, &mut at)?;
            let place = next.checked_add(distance).and_then(|place| u32::try_from(place).ok());
            let place = place.ok_or(damaged("a place is too far"))?;
            next = u64::from(place) + 1;
            results.push(Packed { place, ..EMPTY });
        }
        let code = |value: u64| i16::try_from(value).map_err(|_| damaged("a code is too large"));
        let signed = |value: u64| {
            i16::try_from(unzigzag(value)).map_err(|_| damaged("a number is too large"))
        };
        let mut column = |set: &mut dyn FnMut(&mut Packed<'_>, u64) -> Result<(), PayloadError>| {
            results.iter_mut().try_for_each(|result| set(result, take_varint(body, &mut at)?))
        };
        column(&mut |result, value| {
            let reason = Reason::from_code(code(value)?);
            result.reason = reason.ok_or(damaged("a reason is unknown"))?;
            Ok(())
        })?;
        column(&mut |result, value| {
            result.score = signed(value)?;
            Ok(())
        })?;
        column(&mut |result, value| {
            result.flags = Flags::unpack(code(value)?);
            Ok(())
        })?;
        column(&mut |result, value| {
            let credit = Credit::from_code(code(value)?);
            result.credit = credit.ok_or(damaged("a credit is unknown"))?;
            Ok(())
        })?;
        column(&mut |result, value| {
            result.attempts = signed(value)?;
            Ok(())
        })?;
        let mut before = 0_i64;
        column(&mut |result, value| {
            before = before.wrapping_add(unzigzag(value));
            result.step = before;
            Ok(())
        })?;
        before = 0;
        column(&mut |result, value| {
            before = before.wrapping_add(unzigzag(value));
            result.checked_at = before;
            Ok(())
        })?;
        column(&mut |result, value| {
            result.smtp_code = value.checked_sub(1).map(signed).transpose()?;
            Ok(())
        })?;
        let mut hosts: Vec<&str> = Vec::new();
        for result in &mut results {
            result.mx = match take_varint(body, &mut at)? {
                0 => None,
                1 => {
                    let length = take_varint(body, &mut at)?;
                    let host = take_text(body, &mut at, length)?;
                    hosts.push(host);
                    Some(host)
                }
                known => {
                    let host = usize::try_from(known - 2).ok().and_then(|at| hosts.get(at));
                    Some(*host.ok_or(damaged("a mail host is unknown"))?)
                }
            };
        }
        for result in &mut results {
            let length = take_varint(body, &mut at)?;
            result.did_you_mean = take_optional(body, &mut at, length)?;
        }
        for result in &mut results {
            let length = take_varint(body, &mut at)?;
            result.detail = take_optional(body, &mut at, length)?;
        }
        match at == body.len() {
            true => Ok(results),
            false => Err(damaged("something follows the last column")),
        }
    }
}

const EMPTY: Packed<'static> = Packed {
    place: 0,
    reason: Reason::InternalError,
    score: 0,
    flags: Flags {
        role: None,
        free: None,
        disposable: None,
        catch_all: None,
        mailbox_full: None,
        disabled: None,
    },
    credit: Credit::Free,
    attempts: 0,
    step: 0,
    checked_at: 0,
    smtp_code: None,
    mx: None,
    did_you_mean: None,
    detail: None,
};

fn take_optional<'a>(
    body: &'a [u8],
    at: &mut usize,
    length: u64,
) -> Result<Option<&'a str>, PayloadError> {
    length.checked_sub(1).map(|length| take_text(body, at, length)).transpose()
}

fn take_text<'a>(body: &'a [u8], at: &mut usize, length: u64) -> Result<&'a str, PayloadError> {
    let end = usize::try_from(length).ok().and_then(|length| at.checked_add(length));
    let bytes = end.and_then(|end| body.get(*at..end));
    let bytes = bytes.ok_or(PayloadError::Damaged("a text ends past the body"))?;
    *at += bytes.len();
    std::str::from_utf8(bytes).map_err(|_| PayloadError::Damaged("text is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::id::{Ids, TaskId};

    fn batch() -> BatchRef {
        BatchRef { task: TaskId::new(&Ids::seeded(3), 1), no: 7 }
    }

    /// A result whose texts are owned.
    #[derive(Debug, Clone)]
    struct Owned(Packed<'static>, [Option<String>; 3]);

    impl Owned {
        fn packed(&self, place: u32) -> Packed<'_> {
            let [mx, did_you_mean, detail] = &self.1;
            Packed {
                place,
                mx: mx.as_deref(),
                did_you_mean: did_you_mean.as_deref(),
                detail: detail.as_deref(),
                ..self.0.clone()
            }
        }
    }

    fn result() -> impl Strategy<Value = (u32, Owned)> {
        let text = || proptest::option::of("[a-zé{}\"]{0,12}");
        let host = proptest::option::of("mx[1-3]\\.example");
        let numbers = (0..=100_i16, 0..4096_i16, any::<i16>(), any::<i64>(), any::<i64>());
        let reason = proptest::sample::select(Reason::ALL);
        let code = proptest::option::of(any::<i16>());
        (0..9_u32, reason, numbers, code, host, text(), text()).prop_map(
            |(gap, reason, (score, flags, attempts, step, checked_at), smtp_code, mx, a, b)| {
                let flags = Flags::unpack(flags);
                let credit = reason.credit();
                let bare = Packed {
                    reason,
                    score,
                    flags,
                    credit,
                    attempts,
                    step,
                    checked_at,
                    smtp_code,
                    ..EMPTY
                };
                (gap, Owned(bare, [mx, a, b]))
            },
        )
    }

    proptest! {
        #[test]
        fn results_survive(all in proptest::collection::vec(result(), 0..40)) {
            let mut next = 0;
            let packed: Vec<Packed> = all.iter().map(|(gap, owned)| {
                let place = next + gap;
                next = place + 1;
                owned.packed(place)
            }).collect();
            let payload = encode(batch(), &packed).unwrap();
            let block = decode(batch(), &payload).unwrap();
            prop_assert_eq!(block.results().unwrap(), packed);
        }

        #[test]
        fn one_flipped_bit_is_found(all in proptest::collection::vec(result(), 0..9), at in any::<prop::sample::Index>(), bit in 0..8_u32) {
            let packed: Vec<Packed> =
                all.iter().zip(0..).map(|((_, owned), place)| owned.packed(place)).collect();
            let mut payload = encode(batch(), &packed).unwrap();
            let at = at.index(payload.len());
            payload[at] ^= 1 << bit;
            prop_assert!(decode(batch(), &payload).is_err());
        }

        #[test]
        fn any_bytes_are_refused_or_read(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Block::of_body(body).results();
        }
    }

    #[test]
    fn a_block_is_of_one_place() {
        let payload = encode(batch(), &[EMPTY]).unwrap();
        assert!(decode(batch(), &payload).is_ok());
        assert!(decode(BatchRef { no: 8, ..batch() }, &payload).is_err());
    }

    #[test]
    fn plain_verdicts_take_less_than_a_byte_each() {
        let results: Vec<Packed> = (0..500)
            .map(|place| Packed {
                place,
                checked_at: 1_700_000_000_000 + i64::from(place / 50),
                ..EMPTY
            })
            .collect();
        let payload = encode(batch(), &results).unwrap();
        assert!(payload.len() < 500, "{} bytes", payload.len());
    }
}
