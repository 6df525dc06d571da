//! An operator's own rules, which stand above the table.
//!
//! Data: a TOML file of `[[rule]]` (see [`Entry`] for the fields), read into [`OwnRules`]: the rules in
//! their order, and one automaton for all their words.
//!
//! Invariants:
//! - a file holds at most [`MAX_FILE`] octets and [`MAX_RULES`] rules, each at most [`MAX_WORDS`] words
//!   of [`MAX_WORD`] octets;
//! - a rule is for refusals (4xx, 5xx) alone and never makes one `accepted`; about a mailbox it
//!   concludes at RCPT only.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use listmill_shared::domain::verdict::{Reason, Status};
use serde::Deserialize;

use super::super::fault::Stage;
use super::super::reply::Reply;
use super::rules::{Cause, RULES};
use super::text::{Folded, fold_word};
use super::{Certainty, Codes, Meaning, RuleName};

/// Octets of a file.
pub const MAX_FILE: usize = 1 << 20;
/// Rules of a file.
pub const MAX_RULES: usize = 1_000;
/// Words of a rule.
pub const MAX_WORDS: usize = 64;
/// Octets of a word.
pub const MAX_WORD: usize = 200;
/// Octets of a name.
const MAX_NAME: usize = 64;
/// Octets of a reason why.
const MAX_WHY: usize = 500;

/// What a rule may conclude.
const REASONS: &[Reason] = &[
    Reason::MailboxNotFound,
    Reason::MailboxDisabled,
    Reason::MailboxFull,
    Reason::Greylisted,
    Reason::Blocked,
    Reason::SmtpUnavailable,
];

/// Where a rule may look.
const STAGES: &[(&str, &[Stage])] = &[
    ("connect", &[Stage::Connect, Stage::Banner]),
    ("ehlo", &[Stage::Ehlo, Stage::Tls]),
    ("mail", &[Stage::Mail]),
    ("rcpt", &[Stage::Rcpt]),
];

/// A file that is not one of rules.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// The file.
    #[error(transparent)]
    File(#[from] std::io::Error),
    /// Too long.
    #[error("more than {MAX_FILE} octets")]
    TooLong,
    /// No TOML, or an unknown field.
    #[error("{}", .0.to_string().trim_end())]
    Toml(#[from] toml::de::Error),
    /// Too many.
    #[error("{0} rules; at most {MAX_RULES} are allowed")]
    TooMany(usize),
    /// A field.
    #[error("rule {number} ({name:?}), {field}: {what}")]
    Field {
        /// Which rule, from 1.
        number: usize,
        /// Its name.
        name: String,
        /// Its field.
        field: &'static str,
        /// What is wrong, and what is allowed.
        what: String,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RulesFile {
    #[serde(default)]
    rule: Vec<Entry>,
}

/// One `[[rule]]` of the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// Unique; small letters, digits, dashes.
    name: String,
    /// `connect`, `ehlo`, `mail`, `rcpt`.
    #[serde(default = "at_rcpt")]
    stages: Vec<String>,
    /// Three digits; `x` stands for any.
    #[serde(default = "refusal")]
    code: String,
    /// `5.7.x`, or `*` for anything, also none.
    #[serde(default = "anything")]
    enhanced: String,
    /// One of them must be said; none = any text.
    #[serde(default)]
    words: Vec<String>,
    reason: String,
    #[serde(default)]
    temporary: bool,
    /// For those who read the file.
    #[serde(default)]
    why: String,
}

fn at_rcpt() -> Vec<String> {
    vec!["rcpt".into()]
}

fn refusal() -> String {
    "5xx".into()
}

fn anything() -> String {
    "*".into()
}

#[derive(Debug)]
struct OwnRule {
    name: Arc<str>,
    codes: Codes,
    any_text: bool,
    reason: Reason,
    temporary: bool,
}

/// See the module.
#[derive(Debug)]
pub struct OwnRules {
    rules: Vec<OwnRule>,
    automaton: Option<AhoCorasick>,
    /// The rule of each pattern.
    rule_of: Vec<usize>,
}

impl OwnRules {
    /// Reads rules from a file's text.
    pub fn parse(text: &str) -> Result<Self, RulesError> {
        let entries = toml::from_str::<RulesFile>(text)?.rule;
        if entries.len() > MAX_RULES {
            return Err(RulesError::TooMany(entries.len()));
        }
        let (mut rules, mut words, mut rule_of) = (Vec::<OwnRule>::new(), Vec::new(), Vec::new());
        for (index, entry) in entries.iter().enumerate() {
            let wrong = |(field, what): (&'static str, String)| RulesError::Field {
                number: index + 1,
                name: entry.name.chars().take(MAX_NAME).collect(),
                field,
                what,
            };
            if rules.iter().any(|rule| *rule.name == entry.name) {
                return Err(wrong(("name", "another rule has it; names must differ".into())));
            }
            rules.push(read_rule(entry).map_err(wrong)?);
            for word in &entry.words {
                words.push(read_word(word).map_err(|what| wrong(("words", what)))?);
                rule_of.push(index);
            }
        }
        let automaton = match words.is_empty() {
            true => None,
            false => Some(build(&words)?),
        };
        Ok(Self { rules, automaton, rule_of })
    }

    /// Reads rules from a file.
    pub fn load(path: &Path) -> Result<Self, RulesError> {
        let mut text = String::new();
        fs::File::open(path)?.take(MAX_FILE as u64 + 1).read_to_string(&mut text)?;
        match text.len() > MAX_FILE {
            true => Err(RulesError::TooLong),
            false => Self::parse(&text),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The first that matches.
    pub(super) fn find(&self, stage: Stage, reply: &Reply, text: &Folded) -> Option<Meaning> {
        let mut said = [0_u64; MAX_RULES.div_ceil(64)];
        for hit in self.automaton.iter().flat_map(|a| a.find_overlapping_iter(&text.bytes)) {
            if hit.start() < text.links && text.starts_word(hit.start()) {
                let rule = self.rule_of[hit.pattern().as_usize()];
                said[rule / 64] |= 1 << (rule % 64);
            }
        }
        let found = self.rules.iter().enumerate().find(|(i, rule)| {
            rule.codes.match_with(stage, reply)
                && (rule.any_text || said[i / 64] & 1 << (i % 64) != 0)
        });
        found.map(|(_, rule)| Meaning {
            reason: rule.reason,
            temporary: rule.temporary,
            rule: RuleName::Own(rule.name.clone()),
            certainty: Certainty::Sure,
        })
    }
}

fn build(words: &[Vec<u8>]) -> Result<AhoCorasick, RulesError> {
    let built = AhoCorasick::builder()
        .match_kind(MatchKind::Standard)
        .kind(Some(AhoCorasickKind::ContiguousNFA))
        .build(words);
    built.map_err(|error| RulesError::Field {
        number: 0,
        name: String::new(),
        field: "words",
        what: error.to_string(),
    })
}

/// A word as it is looked for.
fn read_word(word: &str) -> Result<Vec<u8>, String> {
    if word.len() > MAX_WORD {
        return Err(format!("{} octets; at most {MAX_WORD} are allowed", word.len()));
    }
    let mut out = Vec::new();
    for part in word.split_ascii_whitespace() {
        fold_word(part, &mut out);
    }
    let out = out.trim_ascii().to_vec();
    match out.iter().any(|b| b.is_ascii_alphanumeric() || !b.is_ascii()) {
        true => Ok(out),
        false => Err(format!("{word:?} holds neither letters nor digits")),
    }
}

/// `Err`: the field, and what is wrong with it.
fn read_rule(entry: &Entry) -> Result<OwnRule, (&'static str, String)> {
    check_name(&entry.name).map_err(|what| ("name", what))?;
    let mut stages = Vec::new();
    for stage in &entry.stages {
        match STAGES.iter().find(|(name, _)| name == stage) {
            Some((_, found)) => stages.extend_from_slice(found),
            None => {
                let what = format!("{stage:?}; allowed are connect, ehlo, mail, rcpt");
                return Err(("stages", what));
            }
        }
    }
    if stages.is_empty() {
        return Err(("stages", "empty; name at least one of connect, ehlo, mail, rcpt".into()));
    }
    let code = entry.code.as_bytes();
    let digit = |b: &u8| b.is_ascii_digit() || *b == b'x';
    if code.len() != 3 || !matches!(code[0], b'4' | b'5') || !code.iter().all(digit) {
        let what = "give three digits that begin with 4 or 5; x stands for any of the others";
        return Err(("code", format!("{:?}; {what}", entry.code)));
    }
    if !is_enhanced(&entry.enhanced) {
        let what = "give three parts as in 5.7.1 or 5.7.x, or * for anything";
        return Err(("enhanced", format!("{:?}; {what}", entry.enhanced)));
    }
    if entry.words.len() > MAX_WORDS {
        let what = format!("{} words; at most {MAX_WORDS} are allowed", entry.words.len());
        return Err(("words", what));
    }
    if entry.why.len() > MAX_WHY {
        return Err(("why", format!("at most {MAX_WHY} octets are allowed")));
    }
    let reason = REASONS.iter().copied().find(|reason| reason.as_str() == entry.reason);
    let Some(reason) = reason else {
        let known: Vec<_> = REASONS.iter().map(|reason| reason.as_str()).collect();
        return Err(("reason", format!("{:?}; allowed are {}", entry.reason, known.join(", "))));
    };
    if reason.status() != Status::Unknown && stages != [Stage::Rcpt] {
        let what = format!("{reason} is about the mailbox, so stages must be [\"rcpt\"]");
        return Err(("stages", what));
    }
    Ok(OwnRule {
        name: entry.name.as_str().into(),
        codes: Codes::new(&stages, &entry.code, &entry.enhanced),
        any_text: entry.words.is_empty(),
        reason,
        temporary: entry.temporary,
    })
}

fn check_name(name: &str) -> Result<(), String> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(fits) {
        return Err(format!("give 1 to {MAX_NAME} of a-z, 0-9 and -"));
    }
    let causes = Cause::ALL.iter().map(|cause| cause.as_str());
    match RULES.iter().map(|rule| rule.name).chain(causes).any(|shipped| shipped == name) {
        true => Err("a rule of the program has this name; choose another".into()),
        false => Ok(()),
    }
}

fn is_enhanced(pattern: &str) -> bool {
    let part = |p: &str| p == "x" || ((1..=3).contains(&p.len()) && p.parse::<u16>().is_ok());
    let parts: Vec<_> = pattern.split('.').collect();
    pattern == "*" || (parts.len() == 3 && parts.into_iter().all(part))
}

#[cfg(test)]
#[path = "own_tests.rs"]
mod tests;
