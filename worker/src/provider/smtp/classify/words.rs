//! Sets of phrases, and the automaton that finds all of them in one pass.
//!
//! Data: [`Set`] names what a group of phrases speaks of; `english` and `languages` hold the phrases.
//! In a phrase, `{box}` stands for each of [`BOX`], `{is}` for each of [`IS`]. Phrases are folded as
//! texts are (see [`super::text`]); `ä`, `ö`, `ü` also match `ae`, `oe`, `ue`, and any accented letter
//! also what a server's Latin-1 turns into.
//!
//! Invariants:
//! - a phrase begins where a word begins; it may end inside one ("greylist" finds "greylisting"),
//!   unless it ends in `|`;
//! - only the sets of [`IN_LINKS`] are looked for in host names and URLs, and they nowhere else.

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

use super::text::{Folded, fold_word, plain};
use super::{english, languages};

/// What phrases speak of: first whom, then what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Set {
    /// Mailbox: there is none.
    Missing,
    /// Mailbox: cannot be used, whatever that means.
    Unavailable,
    /// Mailbox: switched off.
    Disabled,
    /// Mailbox: over its quota.
    Full,
    /// The recipient was turned away, no reason said.
    RecipientRejected,
    /// Sender: turned away.
    SenderRefused,
    /// Sender: spoken of.
    Sender,
    /// The caller's own account or quota.
    Yours,
    /// Host: on a block list.
    BlockList,
    /// Host: its address, its name, its reverse DNS.
    Host,
    /// Rate: about one session or transaction.
    TooMany,
    /// Rate: about the host as a whole.
    TooMuch,
    /// Rate: any other.
    Rate,
    /// Greylisting.
    Grey,
    /// The server's own trouble.
    Trouble,
    /// Content: spam, viruses, size, headers.
    Content,
    /// Content: the message is spoken of.
    Message,
    /// Sender: SPF, DKIM, DMARC.
    Authentication,
    /// Policy: relaying, authentication, access.
    Policy,
    /// A link to a block list.
    BlockLink,
    /// A link to the page "no such user".
    MissingLink,
    /// A link to the page "account disabled".
    DisabledLink,
    /// A link to the page "over quota".
    FullLink,
}

use Set::{BlockLink, DisabledLink, FullLink, MissingLink};

/// Sets that are looked for in links.
pub const IN_LINKS: u64 = mask(&[BlockLink, MissingLink, DisabledLink, FullLink]);

/// Sets whose phrases say nothing after "not" ("user not listed in the directory").
const NOT_AFTER_NOT: u64 = mask(&[Set::BlockList]);

/// A bit for each set.
pub const fn mask(sets: &[Set]) -> u64 {
    let (mut bits, mut i) = (0, 0);
    while i < sets.len() {
        bits |= 1 << sets[i] as u8;
        i += 1;
    }
    bits
}

/// Phrases of one set.
pub type Phrases = (Set, &'static [&'static str]);

/// Words for a mailbox and for whom it belongs to.
pub const BOX: &[&str] = &[
    "user",
    "username",
    "user name",
    "userid",
    "recipient",
    "recipient's address",
    "mailbox",
    "mail box",
    "inbox",
    "account",
    "address",
    "addressee",
    "alias",
    "person",
    "customer",
    "subscriber",
    "local part",
    "destination",
    "rcpt",
    "maildrop",
    "email",
    "mailuser",
    "mailaddress",
];

/// "To be", of which texts have one form only, and none.
pub const IS: &[&str] = &["", "is "];

struct Finder {
    automaton: AhoCorasick,
    /// Of each pattern: the bits of its sets, and whether the word must end with it.
    patterns: Vec<(u64, bool)>,
}

static FINDER: LazyLock<Finder> = LazyLock::new(Finder::new);

/// Bits of the sets that have a phrase in `text`.
pub fn sets_in(text: &Folded) -> u64 {
    FINDER.find(text)
}

impl Finder {
    fn new() -> Self {
        let mut phrases = Vec::new();
        for (set, words) in english::PHRASES.iter().chain(languages::PHRASES) {
            for word in *words {
                for phrase in forms_of(*set, word) {
                    phrases.push((phrase, mask(&[*set])));
                }
            }
        }
        phrases.sort_unstable();
        phrases.dedup_by(|later, first| {
            let same = later.0 == first.0;
            if same {
                first.1 |= later.1;
            }
            same
        });
        let patterns = phrases.iter().map(|(p, bits)| (*bits, p.ends_with('|'))).collect();
        let texts = phrases.iter().map(|(p, _)| p.trim_end_matches('|'));
        Self { automaton: automaton(texts), patterns }
    }

    fn find(&self, text: &Folded) -> u64 {
        let mut found = 0;
        for hit in self.automaton.find_overlapping_iter(&text.bytes) {
            let (bits, whole) = self.patterns[hit.pattern().as_usize()];
            let in_links = hit.start() >= text.links;
            let bits = if in_links { bits & IN_LINKS } else { bits & !IN_LINKS };
            if found & bits != bits
                && (in_links || text.starts_word(hit.start()))
                && !(bits & NOT_AFTER_NOT != 0 && text.bytes[..hit.start()].ends_with(b"not "))
                && (!whole || !text.bytes.get(hit.end()).is_some_and(u8::is_ascii_alphanumeric))
            {
                found |= bits;
            }
        }
        found
    }
}

/// An automaton that finds `phrases`. (A DFA would be as fast, and take a hundred times the memory.)
fn automaton<'a>(phrases: impl Iterator<Item = &'a str>) -> AhoCorasick {
    AhoCorasick::builder()
        .match_kind(MatchKind::Standard)
        .kind(Some(AhoCorasickKind::ContiguousNFA))
        .build(phrases)
        .unwrap_or_else(|error| unreachable!("phrases are few and short: {error}"))
}

/// What is looked for. Links are not folded, so neither are phrases for them.
fn forms_of(set: Set, phrase: &str) -> Vec<String> {
    match IN_LINKS & mask(&[set]) != 0 {
        true => vec![phrase.to_owned()],
        false => expand(phrase),
    }
}

/// The forms of `phrase` that are looked for, folded.
fn expand(phrase: &str) -> Vec<String> {
    let mut forms = vec![phrase.to_owned()];
    if phrase.contains("{box}") {
        // Behind it, an address may stand for the word.
        let alone = phrase.starts_with("{box}").then_some("@");
        let names = BOX.iter().copied().chain(alone);
        forms = names.map(|name| phrase.replace("{box}", name)).collect();
    }
    if phrase.contains("{is}") {
        let with = |form: &String| {
            let form = form.clone();
            IS.iter().map(move |is| form.replace("{is} ", is)).collect::<Vec<_>>()
        };
        forms = forms.iter().flat_map(with).collect();
    }
    if !phrase.is_ascii() {
        let umlauts = |form: &String| form.replace('ä', "ae").replace('ö', "oe").replace('ü', "ue");
        let latin = |form: &String| -> String {
            form.chars().map(|c| if plain(c).is_empty() { c } else { '\u{fffd}' }).collect()
        };
        let more: Vec<_> = forms.iter().flat_map(|form| [umlauts(form), latin(form)]).collect();
        forms.extend(more);
    }
    forms.iter().map(|form| folded(form)).collect()
}

/// A phrase as it is looked for.
fn folded(phrase: &str) -> String {
    let whole = phrase.ends_with('|');
    let mut out = Vec::new();
    for word in phrase.trim_end_matches('|').split(' ') {
        fold_word(word, &mut out);
    }
    let mut out = String::from_utf8_lossy(&out).trim_end().to_owned();
    if whole {
        out.push('|');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> u64 {
        sets_in(&Folded::new(text))
    }

    #[test]
    fn every_phrase_is_found_as_it_is_written() {
        for (set, words) in english::PHRASES.iter().chain(languages::PHRASES) {
            for word in *words {
                for form in forms_of(*set, word) {
                    let form = form.trim_end_matches('|');
                    let link = IN_LINKS & mask(&[*set]) != 0;
                    let text = if link { format!("http://{form}") } else { format!("so: {form}") };
                    assert!(found(&text) & mask(&[*set]) != 0, "{set:?} {form}");
                }
            }
        }
    }

    #[test]
    fn accents_may_be_there_or_not() {
        for text in [
            "Empfänger unbekannt",
            "Empfaenger unbekannt",
            "Empfanger unbekannt",
            "EMPFÄNGER UNBEKANNT",
            "Empf\u{fffd}nger unbekannt",
            "пользователь не найден",
            "ПОЛЬЗОВАТЕЛЬ НЕ НАЙДЕН",
            "kullanıcı bulunamadı",
            "kullanici bulunamadi",
        ] {
            assert_eq!(found(text), mask(&[Set::Missing]), "{text}");
        }
    }

    #[test]
    fn what_is_asked_about_says_nothing() {
        for text in [
            "<full@blocked.example>: no",
            "disabled.example[192.0.2.1] said no to user-unknown@x.y",
            "https://x.example/user_unknown?to=mailbox+full",
            "terrible marble scripture",
        ] {
            assert_eq!(found(text), 0, "{text}");
        }
    }
}
