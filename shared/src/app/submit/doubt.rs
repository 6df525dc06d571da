//! Is this the right file? A list of which much is no address is probably another one than was meant.

use super::read::Understood;
use crate::domain::task::Submitted;

/// Above this share of distinct addresses with broken syntax, in per cent, a list is doubted…
const MOST: i64 = 20;
/// …if there are so many of them at least: a few typing errors in a short list are its owner's own.
const FEW: i64 = 10;

/// Why a list is doubted. Nothing of it was charged or begun.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{invalid} of {unique} entries are no email addresses, such as {samples}. {reason} Nothing was charged or begun. To \
     submit it all the same, add allow_invalid=true."
)]
pub struct MostlyInvalid {
    /// Distinct entries that are no address.
    pub invalid: i64,
    /// All distinct entries.
    pub unique: i64,
    /// The first of them, for a message.
    pub samples: String,
    /// The likely reason, and what to do: a sentence or two.
    pub reason: String,
}

impl MostlyInvalid {
    /// `None`: nothing against the list.
    pub(super) fn of(counts: Submitted, understood: &Understood) -> Option<Self> {
        let Submitted { unique, invalid_syntax: invalid, .. } = counts;
        if invalid < FEW || invalid * 100 <= unique * MOST {
            return None;
        }
        let quoted = |text: &String| format!("\"{}\"", text.replace(['\n', '\r'], " "));
        let samples: Vec<String> = understood.broken.iter().take(3).map(quoted).collect();
        Some(Self { invalid, unique, samples: samples.join(", "), reason: reason(understood) })
    }
}

fn reason(understood: &Understood) -> String {
    let Understood { columns, better, broken, encoding, .. } = understood;
    let name = |no: usize| {
        let column = columns.get(no)?;
        Some(column.name.clone().unwrap_or_else(|| column.number.to_string()))
    };
    if let (Some(better), Some(taken)) = (better, name(0)) {
        return format!(
            "The addresses were taken from the column \"{taken}\", but more of them are in the column \"{better}\": name \
             it with column={better}."
        );
    }
    if broken.iter().all(|text| !text.contains('@')) && !broken.is_empty() {
        return match name(0) {
            Some(taken) => format!(
                "The column \"{taken}\" is probably not the one with the addresses: name another with column=."
            ),
            None => {
                "There is no @ in them: this is probably another file, or one in another format."
                    .into()
            }
        };
    }
    if *encoding != "UTF-8" {
        return format!(
            "The list was read as {encoding}: if that is wrong, say the right encoding with charset=."
        );
    }
    "Please look at the list: the addresses in it may be cut off or damaged.".into()
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
