//! Cursors: where the next page of a list begins. Opaque outside; one letter says of which list it
//! is, so that the cursor of one list is none of another.

use std::fmt::Write;

use listmill_shared::domain::id::{KeyId, TaskId};

use crate::problem::{BAD_CURSOR, BAD_LIMIT, Problem};

/// A place in a list.
pub trait Cursor: Sized {
    /// Its text.
    fn write(&self) -> String;
    /// From its text.
    fn read(text: &str) -> Option<Self>;
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $letter:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name(pub i64);

        impl Cursor for $name {
            fn write(&self) -> String {
                let mut text = String::from($letter);
                // Writing to a String cannot fail.
                let _ = write!(text, "{:x}", self.0);
                text
            }

            fn read(text: &str) -> Option<Self> {
                let digits = text.strip_prefix($letter).filter(|d| hex(d))?;
                i64::from_str_radix(digits, 16).ok().map(Self)
            }
        }
    };
}

macro_rules! id {
    ($type:ident, $letter:literal) => {
        impl Cursor for $type {
            fn write(&self) -> String {
                self.to_string().replacen($type::PREFIX, $letter, 1)
            }

            fn read(text: &str) -> Option<Self> {
                let digits = text.strip_prefix($letter).filter(|d| hex(d))?;
                format!("{}{digits}", $type::PREFIX).parse().ok()
            }
        }
    };
}

number!(/// The first `seq` of the next page of results.
    SeqCursor, "r");
number!(/// The last entry of a page of the ledger.
    EntryCursor, "l");
number!(/// The last row of a page of the audit log.
    AuditCursor, "a");
number!(/// The last row of a page of the request log.
    RequestCursor, "q");
id!(TaskId, "t");
id!(KeyId, "k");

/// The last network of a page: its first use, and itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkCursor(pub i64, pub String);

impl Cursor for NetworkCursor {
    fn write(&self) -> String {
        let mut text = format!("n{:x}.", self.0);
        for byte in self.1.bytes() {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        text
    }

    fn read(text: &str) -> Option<Self> {
        let (at, network) = text.strip_prefix('n')?.split_once('.')?;
        let fits = hex(at) && hex(network) && network.len() % 2 == 0 && network.len() <= 128;
        if !fits {
            return None;
        }
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let bytes: Option<Vec<u8>> = network.as_bytes().chunks(2).map(byte).collect();
        let network = String::from_utf8(bytes?).ok()?;
        Some(Self(i64::from_str_radix(at, 16).ok()?, network))
    }
}

fn hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Reads the query parameter `cursor`.
pub fn cursor<C: Cursor>(given: Option<&str>) -> Result<Option<C>, Problem> {
    given
        .map(|text| {
            C::read(text).ok_or_else(|| {
                Problem::new(
                    BAD_CURSOR,
                    "The query parameter \"cursor\" must be a \"next_cursor\" of this list.",
                )
            })
        })
        .transpose()
}

/// Reads the query parameter `limit`.
pub fn limit(given: Option<&str>, default: i64, most: i64) -> Result<i64, Problem> {
    let Some(text) = given else { return Ok(default) };
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|n| digits && (1..=most).contains(n)).ok_or_else(|| {
        let want = format!("The query parameter \"limit\" must be a number from 1 to {most}.");
        Problem::new(BAD_LIMIT, want)
    })
}

/// Cuts what was read beyond the page (one more than `limit`) and gives the next page's cursor.
pub fn cut<T, C: Cursor>(rows: &mut Vec<T>, limit: i64, at: impl Fn(&T) -> C) -> Option<String> {
    let limit = limit as usize;
    if rows.len() <= limit {
        return None;
    }
    rows.truncate(limit);
    rows.last().map(|row| at(row).write())
}

#[cfg(test)]
mod tests {
    use super::*;
    use listmill_shared::domain::id::Ids;

    #[test]
    fn cursors_survive_their_text_and_belong_to_one_list() {
        for number in [0, 41, i64::MAX] {
            assert_eq!(SeqCursor::read(&SeqCursor(number).write()), Some(SeqCursor(number)));
            assert_eq!(EntryCursor::read(&SeqCursor(number).write()), None);
        }
        let task = TaskId::new(&Ids::seeded(3), 1_700_000_000_000);
        assert_eq!(TaskId::read(&task.write()), Some(task));
        assert!(KeyId::read(&task.write()).is_none());
        assert!(!task.write().contains('_'));
        let network = NetworkCursor(41, String::from("2001:db8::/64"));
        assert_eq!(NetworkCursor::read(&network.write()), Some(network));
        for text in ["n29", "n29.", "n29.f", "n.31", "n29.zz", "n29.ff", "r29.31"] {
            assert_eq!(NetworkCursor::read(text), None, "{text}");
        }
    }

    #[test]
    fn rubbish_is_no_cursor() {
        for text in ["", "r", "rubbish", "r-1", "r+1", "rFF", "\0", "💩", "r10000000000000000"] {
            assert!(cursor::<SeqCursor>(Some(text)).is_err(), "{text}");
        }
        assert!(cursor::<SeqCursor>(None).unwrap().is_none());
    }

    #[test]
    fn limits_have_a_range() {
        assert_eq!(limit(None, 5, 10).unwrap(), 5);
        assert_eq!(limit(Some("10"), 5, 10).unwrap(), 10);
        for text in ["0", "-1", "+1", "11", "ten", "", "99999999999999999999"] {
            assert!(limit(Some(text), 5, 10).is_err(), "{text}");
        }
    }
}
