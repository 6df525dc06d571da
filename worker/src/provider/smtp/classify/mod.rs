//! From what a server said to what it means: the one place where that is decided.
//!
//! ```text
//! reply ─▶ text: words, links ─▶ one pass: sets of phrases ─▶ rules from the top ─▶ meaning
//! ```
//!
//! Data: a [`Meaning`] names the rule that gave it. The operator's own rules ([`own`]) stand above the
//! table ([`rules`]). A text is told apart by whom it is about (mailbox, sender, host, content) before
//! what it says. What needs no reply (DNS, faults, hosts that are not asked) is a [`Cause`].
//!
//! Invariants:
//! - every reply matches a rule, and looking for it allocates nothing that the text does not bound;
//! - `undeliverable` needs a permanent answer about the *recipient*; whatever may be about us (policy,
//!   block lists, the sender) is `unknown`: to bury a living mailbox is worse than not to know;
//! - nothing but RCPT can conclude about a mailbox, and no refusal is ever `accepted`.

mod english;
mod languages;
pub mod own;
pub mod rules;
mod text;
mod words;

use std::fmt;
use std::sync::{Arc, LazyLock};

use listmill_shared::domain::verdict::{Reason, Status};
use serde::{Serialize, Serializer};

use super::fault::{Fault, FaultKind, Stage};
use super::reply::{Enhanced, Reply};
use own::OwnRules;
use rules::{Cause, RULES, Rule};
use text::Folded;
use words::{Set, mask, sets_in};

/// How safe a conclusion is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Certainty {
    /// A code alone, which servers use for several things.
    Guess,
    /// A code with a defined meaning, or words that most servers use so.
    Likely,
    /// Words or a code that leave no doubt.
    Sure,
}

impl Certainty {
    /// The name shown outside.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Guess => "guess",
            Self::Likely => "likely",
            Self::Sure => "sure",
        }
    }

    /// Chance of delivery for a verdict of this certainty: the reason's own when sure, else nearer to
    /// the middle. `unknown` is always 0.
    pub fn score(self, reason: Reason) -> i16 {
        let (base, step) = (reason.score(), 2 - self as i16);
        match reason.status() {
            Status::Unknown => 0,
            Status::Deliverable => base - 6 * step,
            Status::Undeliverable => base + 5 * step,
            Status::Risky => base + (50 - base) / 8 * step,
        }
    }
}

/// The name of a rule: of the table, or the operator's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleName {
    /// Of the program.
    Shipped(&'static str),
    /// Of the operator's file.
    Own(Arc<str>),
}

impl RuleName {
    /// The name shown outside.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Shipped(name) => name,
            Self::Own(name) => name,
        }
    }
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for RuleName {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}

/// What an answer means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meaning {
    /// The finding.
    pub reason: Reason,
    /// Worth asking again later.
    pub temporary: bool,
    /// The rule that says so.
    pub rule: RuleName,
    /// How safe that is.
    pub certainty: Certainty,
}

impl Meaning {
    /// Is it a refusal that says nothing of anybody? It may be about the mailbox as well as about us.
    pub fn is_bare(&self) -> bool {
        matches!(self.rule, RuleName::Shipped("bare-550" | "bare-552" | "bare-553"))
    }

    /// Does the server say that it does not want to be asked by us?
    pub fn is_about_us(&self) -> bool {
        self.reason == Reason::Blocked && !self.is_bare()
    }
}

impl From<Cause> for RuleName {
    fn from(cause: Cause) -> Self {
        Self::Shipped(cause.as_str())
    }
}

impl From<Cause> for Meaning {
    fn from(cause: Cause) -> Self {
        let (reason, temporary) = cause.finding();
        Self { reason, temporary, rule: cause.into(), certainty: Certainty::Sure }
    }
}

/// Rules to go by: the operator's, then the table.
#[derive(Debug, Default)]
pub struct Classifier {
    own: Option<OwnRules>,
}

static SHIPPED: LazyLock<Classifier> = LazyLock::new(Classifier::default);

impl Classifier {
    /// The table alone.
    pub fn shipped() -> &'static Self {
        &SHIPPED
    }

    /// With an operator's rules above the table.
    pub fn with(own: OwnRules) -> Self {
        Self { own: Some(own).filter(|own| !own.is_empty()) }
    }

    /// How many rules are the operator's.
    pub fn own_rules(&self) -> usize {
        self.own.as_ref().map_or(0, OwnRules::len)
    }

    /// What `reply` at `stage` means.
    pub fn of_reply(&self, stage: Stage, reply: &Reply) -> Meaning {
        let mut seen = Seen::new(stage, reply);
        if let Some(own) = &self.own
            && !reply.is_positive()
            && let Some(meaning) = own.find(stage, reply, seen.text())
        {
            return meaning;
        }
        match find(&mut seen) {
            Some(index) => {
                let Rule { reason, temporary, name, certainty, .. } = RULES[index];
                Meaning { reason, temporary, rule: RuleName::Shipped(name), certainty }
            }
            // Not reached: the last rule matches any.
            None => Cause::Garbled.into(),
        }
    }

    /// What it means that there was no usable reply.
    pub fn of_fault(&self, fault: &Fault) -> Meaning {
        let cause = match (&fault.kind, fault.stage) {
            (FaultKind::Refused(reply), stage) => return self.of_reply(stage, reply),
            // Nobody there, or nobody lets us through: the same whether refused, unreachable or silent.
            (_, Stage::Dns | Stage::Connect) => Cause::NoConnect,
            (FaultKind::Timeout, _) => Cause::NoAnswer,
            (FaultKind::NoSmtpUtf8, _) => Cause::NoSmtpUtf8,
            (FaultKind::Closed, _) => Cause::HungUp,
            (FaultKind::Io(_), _) => Cause::BrokenOff,
            (FaultKind::Garbled(_), _) => Cause::Garbled,
        };
        cause.into()
    }
}

/// Builds what is built once (some 20 ms), so that no address waits for it.
pub fn warm() {
    of_reply(Stage::Rcpt, &Reply::new(550, String::new()));
}

/// What `reply` at `stage` means by the table alone.
pub fn of_reply(stage: Stage, reply: &Reply) -> Meaning {
    Classifier::shipped().of_reply(stage, reply)
}

/// Is this about how many recipients a session or transaction may have, not about this one?
pub fn is_limit(reply: &Reply) -> bool {
    matches!(reply.enhanced, Some(e) if (e.1, e.2) == (5, 3))
        || sets_in(&Folded::new(&reply.text)) & mask(&[Set::TooMany]) != 0
}

/// Does this say that we are too much for the host just now: too many connections, too fast?
/// (Exchange Online's words for that are codes from 4.7.500 to 4.7.699.)
pub fn is_too_much(reply: &Reply) -> bool {
    let throttled =
        matches!(reply.enhanced, Some(e) if (e.0, e.1) == (4, 7) && (500..700).contains(&e.2));
    reply.code == 421
        || throttled
        || (!reply.is_positive() && sets_in(&Folded::new(&reply.text)) & mask(&[Set::TooMuch]) != 0)
}

/// A reply as rules look at it; its text is read when the first rule asks for words.
struct Seen<'a> {
    stage: Stage,
    reply: &'a Reply,
    text: Option<Folded>,
    sets: Option<u64>,
}

impl<'a> Seen<'a> {
    fn new(stage: Stage, reply: &'a Reply) -> Self {
        Self { stage, reply, text: None, sets: None }
    }

    fn text(&mut self) -> &Folded {
        self.text.get_or_insert_with(|| Folded::new(&self.reply.text))
    }

    fn sets(&mut self) -> u64 {
        if let Some(sets) = self.sets {
            return sets;
        }
        let sets = sets_in(self.text());
        *self.sets.insert(sets)
    }
}

/// Which codes a rule is for, ready to compare. `None` = any.
#[derive(Debug, Clone, Copy)]
struct Codes {
    stages: u16,
    code: [Option<u16>; 3],
    enhanced: Option<[Option<u16>; 3]>,
}

impl Codes {
    fn new(stages: &[Stage], code: &str, enhanced: &str) -> Self {
        let digit = |i: usize| code.as_bytes().get(i).and_then(|b| char::from(*b).to_digit(10));
        let digit = |i| digit(i).and_then(|d| u16::try_from(d).ok());
        let mut parts = enhanced.split('.').map(|part| part.parse().ok());
        let mut part = || parts.next().flatten();
        Self {
            stages: stages.iter().fold(0, |bits, stage| bits | 1 << *stage as u16),
            code: [digit(0), digit(1), digit(2)],
            enhanced: (enhanced != "*").then(|| [part(), part(), part()]),
        }
    }

    fn match_with(&self, stage: Stage, reply: &Reply) -> bool {
        let all = |pattern: [Option<u16>; 3], found: [u16; 3]| {
            pattern.iter().zip(found).all(|(want, is)| want.is_none_or(|want| want == is))
        };
        let code = reply.code;
        self.stages & 1 << stage as u16 != 0
            && all(self.code, [code / 100, code / 10 % 10, code % 10])
            && match (self.enhanced, reply.enhanced) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(want), Some(Enhanced(class, subject, detail))) => {
                    all(want, [u16::from(class), subject, detail])
                }
            }
    }
}

/// A rule of the table, ready to compare.
struct Ready {
    codes: Codes,
    any: u64,
    unless: u64,
}

static READY: LazyLock<Vec<Ready>> = LazyLock::new(|| {
    let ready = |rule: &Rule| Ready {
        codes: Codes::new(rule.stages, rule.code, rule.enhanced),
        any: mask(rule.any),
        unless: mask(rule.unless),
    };
    RULES.iter().map(ready).collect()
});

fn find(seen: &mut Seen<'_>) -> Option<usize> {
    READY.iter().position(|rule| {
        rule.codes.match_with(seen.stage, seen.reply)
            && (rule.any == 0 || seen.sets() & rule.any != 0)
            && (rule.unless == 0 || seen.sets() & rule.unless == 0)
    })
}

#[cfg(test)]
mod judged;
#[cfg(test)]
mod page;
#[cfg(test)]
mod tests;
