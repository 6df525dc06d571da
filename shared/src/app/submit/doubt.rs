//! Is this the right file? A list of which much is no address is probably another one than was meant.

use std::fmt::{self, Display};

use super::read::Understood;
use crate::domain::task::Submitted;

/// Above this share of distinct addresses with broken syntax, in per cent, a list is doubted…
const MOST: i64 = 20;
/// …if there are so many of them at least: a few typing errors in a short list are its owner's own.
const FEW: i64 = 10;
/// Texts that are named.
const NAMED: usize = 3;

/// Why a list is doubted. Nothing of it was charged or begun.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{invalid} of {unique} entries are no email addresses, such as {}. {likely} Nothing was charged or begun. To submit it \
     all the same, add allow_invalid=true.",
    self.samples()
)]
pub struct MostlyInvalid {
    /// Distinct entries that are no address.
    pub invalid: i64,
    /// All distinct entries.
    pub unique: i64,
    /// The first of them.
    pub broken: Vec<String>,
    /// What the matter is.
    pub likely: Likely,
}

/// What the matter is with such a list, as far as can be told. Shown in the words of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Likely {
    /// More addresses are in another column.
    OtherColumn {
        /// The column that was read.
        taken: String,
        /// The other one.
        better: String,
    },
    /// There is no `@` in the column that was read.
    WrongColumn {
        /// The column.
        taken: String,
    },
    /// There is no `@` in it at all.
    WrongFile,
    /// The encoding that was found out may be wrong.
    Encoding(&'static str),
    /// Nothing but the addresses themselves.
    Damaged,
}

impl MostlyInvalid {
    /// `None`: nothing against the list.
    pub(super) fn of(counts: Submitted, understood: &Understood) -> Option<Self> {
        let Submitted { unique, invalid_syntax: invalid, .. } = counts;
        if invalid < FEW || invalid * 100 <= unique * MOST {
            return None;
        }
        let broken = understood.broken.iter().take(NAMED).cloned().collect();
        Some(Self { invalid, unique, broken, likely: Likely::of(understood) })
    }

    /// The first entries that are no address, for a message.
    pub fn samples(&self) -> String {
        let quoted = |text: &String| format!("\"{}\"", text.replace(['\n', '\r'], " "));
        self.broken.iter().map(quoted).collect::<Vec<_>>().join(", ")
    }
}

impl Likely {
    fn of(understood: &Understood) -> Self {
        let Understood { columns, better, broken, encoding, .. } = understood;
        let column = columns.first();
        let taken = column.map(|column| column.name.clone().unwrap_or(column.number.to_string()));
        let no_at = !broken.is_empty() && broken.iter().all(|text| !text.contains('@'));
        match (taken, better) {
            (Some(taken), Some(better)) => Self::OtherColumn { taken, better: better.clone() },
            (Some(taken), None) if no_at => Self::WrongColumn { taken },
            (None, _) if no_at => Self::WrongFile,
            _ if *encoding != "UTF-8" => Self::Encoding(encoding),
            _ => Self::Damaged,
        }
    }
}

impl Display for Likely {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherColumn { taken, better } => write!(
                f,
                "The addresses were taken from the column \"{taken}\", but more of them are in the column \"{better}\": \
                 name it with column={better}."
            ),
            Self::WrongColumn { taken } => write!(
                f,
                "The column \"{taken}\" is probably not the one with the addresses: name another with column=."
            ),
            Self::WrongFile => f.write_str(
                "There is no @ in them: this is probably another file, or one in another format.",
            ),
            Self::Encoding(encoding) => write!(
                f,
                "The list was read as {encoding}: if that is wrong, say the right encoding with charset=."
            ),
            Self::Damaged => f.write_str(
                "Please look at the list: the addresses in it may be cut off or damaged.",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::submit::read::{Column, Why};

    fn counts(unique: i64, invalid_syntax: i64) -> Submitted {
        Submitted { submitted: unique, unique, duplicates: 0, invalid_syntax }
    }

    fn broken(texts: &[&str]) -> Understood {
        let broken = texts.iter().map(ToString::to_string).collect();
        Understood { broken, encoding: "UTF-8", ..Understood::default() }
    }

    #[test]
    fn a_fifth_is_the_line() {
        let understood = broken(&["x"]);
        let doubted =
            |unique, invalid| MostlyInvalid::of(counts(unique, invalid), &understood).is_some();
        assert!(!doubted(100, 20));
        assert!(doubted(100, 21));
        assert!(!doubted(9, 9), "a few are their owner's own");
        assert!(doubted(10, 10));
    }

    #[test]
    fn the_likely_reason_is_named() {
        let column = Column { number: 2, name: Some("Name".into()), why: Why::Header };
        let columns = vec![column];
        let wrong = Understood {
            columns: columns.clone(),
            better: Some("Contact".into()),
            ..broken(&["Ada", "Bob"])
        };
        let said = |understood: &Understood| {
            MostlyInvalid::of(counts(20, 20), understood).unwrap().to_string()
        };
        assert!(said(&wrong).contains("column=Contact"), "{}", said(&wrong));
        assert!(said(&wrong).contains("\"Ada\", \"Bob\""));
        let none = Understood { columns, ..broken(&["Ada"]) };
        assert!(said(&none).contains("\"Name\" is probably not"));
        assert!(said(&broken(&["Ada"])).contains("another file"));
        let encoding = Understood { encoding: "Shift_JIS", ..broken(&["a@b"]) };
        assert!(said(&encoding).contains("charset="));
        assert!(said(&broken(&["a@b"])).contains("cut off"));
    }
}
