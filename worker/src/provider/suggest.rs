//! `did_you_mean`: the well-known domain that a misspelt one probably stands for.
//!
//! Data: [`WELL_KNOWN`], the domains that many people type by hand. Never suggests anything for one
//! of them. Names of up to four letters have too many honest neighbours (`ge.com`, `love.com`), so
//! there only the part after the name may differ. A domain on the lists of free and disposable
//! providers may be an honest neighbour (`email.com`, `yahoo.be`) or live from others' slips
//! (`gmial.com`): there only two letters swapped or one left out count.

use strsim::damerau_levenshtein;

use crate::provider::lists::Lists;

/// Where most mailboxes are.
pub const WELL_KNOWN: &[&str] = &[
    "126.com",
    "163.com",
    "aim.com",
    "aol.com",
    "att.net",
    "bellsouth.net",
    "bigpond.com",
    "bluewin.ch",
    "bol.com.br",
    "btinternet.com",
    "charter.net",
    "comcast.net",
    "cox.net",
    "earthlink.net",
    "fastmail.com",
    "free.fr",
    "freenet.de",
    "gmail.com",
    "gmx.at",
    "gmx.ch",
    "gmx.com",
    "gmx.de",
    "gmx.net",
    "googlemail.com",
    "hotmail.co.uk",
    "hotmail.com",
    "hotmail.de",
    "hotmail.es",
    "hotmail.fr",
    "hotmail.it",
    "icloud.com",
    "laposte.net",
    "libero.it",
    "live.com",
    "mac.com",
    "mail.com",
    "mail.ru",
    "me.com",
    "msn.com",
    "naver.com",
    "optonline.net",
    "orange.fr",
    "outlook.com",
    "outlook.de",
    "proton.me",
    "protonmail.com",
    "qq.com",
    "rambler.ru",
    "rediffmail.com",
    "rocketmail.com",
    "sbcglobal.net",
    "seznam.cz",
    "sfr.fr",
    "sina.com",
    "t-online.de",
    "tiscali.it",
    "uol.com.br",
    "verizon.net",
    "wanadoo.fr",
    "web.de",
    "wp.pl",
    "yahoo.co.uk",
    "yahoo.com",
    "yahoo.de",
    "yahoo.es",
    "yahoo.fr",
    "yahoo.it",
    "yandex.ru",
    "ymail.com",
    "zoho.com",
];

/// Edits at most between a misspelt domain and the one that was meant.
const MAX_EDITS: usize = 2;

/// The domain that `domain` (canonical) probably stands for.
pub fn suggest(domain: &str, lists: &Lists) -> Option<&'static str> {
    if WELL_KNOWN.contains(&domain) {
        return None;
    }
    let listed = lists.is_free(domain) || lists.is_disposable(domain);
    WELL_KNOWN
        .iter()
        .copied()
        .filter(|known| known.len().abs_diff(domain.len()) <= MAX_EDITS)
        .filter(|known| if listed { is_slip(domain, known) } else { may_be_meant(domain, known) })
        .map(|known| (damerau_levenshtein(domain, known), known))
        .filter(|(edits, _)| (1..=MAX_EDITS).contains(edits))
        // Ties go to the first in the alphabet, so that the answer is always the same.
        .min()
        .map(|(_, known)| known)
}

fn may_be_meant(domain: &str, known: &str) -> bool {
    let (name, rest) = domain.split_once('.').unwrap_or((domain, ""));
    let (known_name, known_rest) = known.split_once('.').unwrap_or((known, ""));
    match (name == known_name, rest == known_rest) {
        // `gmail.con`, but not `yahoo.pl` or `gmail.dev`: those may well be meant as they are.
        (true, _) => damerau_levenshtein(rest, known_rest) <= 1,
        (false, true) => known_name.chars().count() > 4,
        (false, false) => {
            known_name.chars().count() > 4 && damerau_levenshtein(name, known_name) <= 1
        }
    }
}

/// Same ending, and the name has two neighbours swapped or one letter missing.
fn is_slip(domain: &str, known: &str) -> bool {
    let (Some((name, rest)), Some((known_name, known_rest))) =
        (domain.split_once('.'), known.split_once('.'))
    else {
        return false;
    };
    let letters = |text: &str| {
        let mut letters: Vec<char> = text.chars().collect();
        letters.sort_unstable();
        letters
    };
    rest == known_rest
        && known_name.chars().count() > 4
        && damerau_levenshtein(name, known_name) == 1
        && (name.len() < known_name.len() || letters(name) == letters(known_name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_what_was_probably_meant() {
        let lists = Lists::shipped();
        for (domain, want) in [
            ("gmial.com", Some("gmail.com")),
            ("gmai.com", Some("gmail.com")),
            ("gmaill.com", Some("gmail.com")),
            ("gamil.com", Some("gmail.com")),
            ("gmail.con", Some("gmail.com")),
            ("gmail.cm", Some("gmail.com")),
            ("gnail.con", Some("gmail.com")),
            ("hotmial.com", Some("hotmail.com")),
            ("hotmal.com", Some("hotmail.com")),
            ("yaho.com", Some("yahoo.com")),
            ("yahooo.com", Some("yahoo.com")),
            ("outlok.com", Some("outlook.com")),
            ("iclud.com", Some("icloud.com")),
            ("aol.con", Some("aol.com")),
            ("gmail.com", None),
            ("mail.com", None),
            ("ymail.com", None),
            ("email.com", None),
            ("qmail.com", None),
            ("yahoo.be", None),
            ("hotmail.se", None),
            ("yopmail.com", None),
            ("ge.com", None),
            ("love.com", None),
            ("abb.com", None),
            ("example.com", None),
            ("münchen.example", None),
            ("", None),
        ] {
            assert_eq!(suggest(domain, &lists), want, "{domain}");
        }
    }

    #[test]
    fn never_for_a_well_known_domain() {
        let lists = Lists::shipped();
        for domain in WELL_KNOWN {
            assert_eq!(suggest(domain, &lists), None, "{domain}");
        }
    }
}
