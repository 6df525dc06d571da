//! What an answer means: the settings `http_map` and `http_fields`, read once, then asked per answer.
//!
//! Data: [`Rule`]s in the order of the setting, each a JSON pointer (RFC 6901), a word and what it
//! means, the first that fits decides; and [`Field`]s, each a pointer to something else worth keeping.
//!
//! Invariant: nothing but a rule makes a verdict. An answer that no rule fits is not understood.

use listmill_shared::domain::verdict::{Flags, Reason, Status, Verdict};
use serde_json::Value;

/// Chance of delivery to an accepted role address, when the service gives none.
const SCORE_ROLE: i16 = 93;
/// Characters of a line of settings that an error shows.
const SHOWN: usize = 80;

/// A setting that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// There are no rules at all.
    #[error(
        "http_map is empty: say what the service's answers mean, one \"POINTER WORD = REASON\" a line, \
         such as \"/status valid = accepted\""
    )]
    NoRules,
    /// No rule leads to a verdict.
    #[error("http_map has no line that leads to a verdict: each is `later`, `down` or unknown")]
    NoVerdict,
    /// A line of `http_map` or `http_fields`.
    #[error("{setting}, {line:?}: {what}")]
    Line {
        /// Which setting.
        setting: &'static str,
        /// Its line.
        line: String,
        /// What is wrong, and what would be right.
        what: String,
    },
}

/// What a rule leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// A verdict.
    Says {
        /// The finding.
        reason: Reason,
        /// Worth asking again later; only with unknown ones.
        temporary: bool,
    },
    /// The service will not answer anybody.
    Down,
}

enum Word {
    /// Anything but null, false and nothing.
    Any,
    Is(String),
}

struct Rule {
    pointer: String,
    word: Word,
    meaning: Meaning,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Name {
    Role,
    Free,
    Disposable,
    CatchAll,
    MailboxFull,
    Disabled,
    Score,
    Mx,
    DidYouMean,
    SmtpCode,
}

const NAMES: &[(&str, Name)] = &[
    ("role", Name::Role),
    ("free", Name::Free),
    ("disposable", Name::Disposable),
    ("catch_all", Name::CatchAll),
    ("mailbox_full", Name::MailboxFull),
    ("disabled", Name::Disabled),
    ("score", Name::Score),
    ("mx", Name::Mx),
    ("did_you_mean", Name::DidYouMean),
    ("smtp_code", Name::SmtpCode),
];

struct Field {
    name: Name,
    pointer: String,
    /// The word that sets a flag, or else the flag's own truth.
    word: Option<String>,
    /// What makes a score 0 to 100.
    factor: f64,
}

/// The rule that decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided<'a> {
    /// Where the word stood.
    pub pointer: &'a str,
    /// The service's word.
    pub word: String,
    /// What it means.
    pub meaning: Meaning,
}

/// See the module.
pub struct Mapping {
    rules: Vec<Rule>,
    fields: Vec<Field>,
}

impl Mapping {
    /// Reads the two settings.
    pub fn new(map: &str, fields: &str) -> Result<Self, MapError> {
        let rules = read("http_map", map, rule)?;
        if rules.is_empty() {
            return Err(MapError::NoRules);
        }
        let verdict = |rule: &Rule| matches!(rule.meaning, Meaning::Says { reason, .. } if reason.status() != Status::Unknown);
        if !rules.iter().any(verdict) {
            return Err(MapError::NoVerdict);
        }
        Ok(Self { rules, fields: read("http_fields", fields, field)? })
    }

    /// The first rule that fits.
    pub fn decide(&self, answer: &Value) -> Option<Decided<'_>> {
        self.rules.iter().find_map(|rule| {
            let value = answer.pointer(&rule.pointer)?;
            let fits = match &rule.word {
                Word::Any => is_something(value),
                Word::Is(word) => holds(value, word),
            };
            let word = || match &rule.word {
                Word::Is(word) => word.clone(),
                Word::Any => text_of(value),
            };
            fits.then(|| Decided { pointer: &rule.pointer, word: word(), meaning: rule.meaning })
        })
    }

    /// What stands where the rules look, for an answer that none fits.
    pub fn words(&self, answer: &Value) -> String {
        let mut seen: Vec<&str> = Vec::new();
        let mut words = Vec::new();
        for Rule { pointer, .. } in &self.rules {
            if !seen.contains(&pointer.as_str()) {
                seen.push(pointer);
                words.extend(answer.pointer(pointer).filter(|v| !v.is_null()).map(text_of));
            }
        }
        words.join(" ")
    }

    /// A verdict with everything that the answer tells. An accepted address of a domain that accepts
    /// all, or of a throw-away provider, is risky whatever the rules say.
    pub fn verdict(&self, answer: &Value, reason: Reason, temporary: bool) -> Verdict {
        let mut verdict = Verdict { temporary, ..Verdict::of(reason) };
        let mut score = None;
        for field in &self.fields {
            if let Some(value) = answer.pointer(&field.pointer).filter(|v| !v.is_null()) {
                field.note(value, &mut verdict, &mut score);
            }
        }
        let flags = &mut verdict.flags;
        verdict.reason = match reason {
            Reason::Accepted if flags.disposable == Some(true) => Reason::Disposable,
            Reason::Accepted if flags.catch_all == Some(true) => Reason::CatchAll,
            other => other,
        };
        match verdict.reason {
            Reason::CatchAll => flags.catch_all = Some(true),
            Reason::Disposable => flags.disposable = Some(true),
            Reason::MailboxFull => flags.mailbox_full = Some(true),
            Reason::MailboxDisabled => flags.disabled = Some(true),
            _ => {}
        }
        verdict.score = match (verdict.reason, score) {
            (reason, _) if reason.status() == Status::Unknown => reason.score(),
            (_, Some(score)) => score,
            (Reason::Accepted, None) if flags.role == Some(true) => SCORE_ROLE,
            (reason, None) => reason.score(),
        };
        verdict
    }
}

impl Field {
    fn note(&self, value: &Value, verdict: &mut Verdict, score: &mut Option<i16>) {
        let flags: &mut Flags = &mut verdict.flags;
        let flag = || match &self.word {
            Some(word) => Some(holds(value, word)),
            None => truth(value),
        };
        match self.name {
            Name::Role => note_flag(&mut flags.role, flag()),
            Name::Free => note_flag(&mut flags.free, flag()),
            Name::Disposable => note_flag(&mut flags.disposable, flag()),
            Name::CatchAll => note_flag(&mut flags.catch_all, flag()),
            Name::MailboxFull => note_flag(&mut flags.mailbox_full, flag()),
            Name::Disabled => note_flag(&mut flags.disabled, flag()),
            Name::Score => {
                let given = number(value).map(|given| (given * self.factor).round());
                *score = given.filter(|s| (0.0..=100.0).contains(s)).map(|s| s as i16);
            }
            Name::Mx => verdict.mx = short(value, 255),
            Name::DidYouMean => verdict.did_you_mean = short(value, 254),
            Name::SmtpCode => {
                let code = number(value).filter(|code| (200.0..600.0).contains(code));
                verdict.smtp_code = code.map(|code| code as i16);
            }
        }
    }
}

/// Of several lines for one flag, one that sets it is enough.
fn note_flag(flag: &mut Option<bool>, found: Option<bool>) {
    if *flag != Some(true) {
        *flag = found.or(*flag);
    }
}

/// Reads one item a line; semicolons part lines too, `#` starts a comment line.
fn read<T>(
    setting: &'static str,
    text: &str,
    item: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, MapError> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(|line| line.split(';'))
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(|line| {
            let shown = || line.chars().take(SHOWN).collect();
            item(line).map_err(|what| MapError::Line { setting, line: shown(), what })
        })
        .collect()
}

fn rule(line: &str) -> Result<Rule, String> {
    let form = "must be POINTER WORD = REASON, such as /status valid = accepted";
    let (left, right) = line.rsplit_once('=').ok_or(form)?;
    let (pointer, word) = left.trim().split_once(char::is_whitespace).ok_or(form)?;
    let word = match word.trim() {
        "" => return Err(form.into()),
        "*" => Word::Any,
        word => Word::Is(word.to_owned()),
    };
    Ok(Rule { pointer: checked(pointer)?, word, meaning: meaning(right.trim())? })
}

fn meaning(text: &str) -> Result<Meaning, String> {
    let (name, later) = match text.split_once(char::is_whitespace) {
        Some((name, rest)) if rest.trim() == "later" => (name, true),
        _ => (text, false),
    };
    match name {
        "down" if !later => return Ok(Meaning::Down),
        "later" if !later => {
            return Ok(Meaning::Says { reason: Reason::SmtpUnavailable, temporary: true });
        }
        _ => {}
    }
    let reason: Reason = name.parse().map_err(|e| format!("{e}, later, down"))?;
    if later && reason.status() != Status::Unknown {
        return Err(format!("{reason} is definitive: `later` goes with unknown reasons only"));
    }
    Ok(Meaning::Says { reason, temporary: later })
}

fn field(line: &str) -> Result<Field, String> {
    let form = "must be NAME = POINTER, such as role = /is_role";
    let (name, right) = line.split_once('=').ok_or(form)?;
    let known = NAMES.iter().find(|(known, _)| *known == name.trim());
    let Some((_, name)) = known else {
        let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
        return Err(format!("unknown name {:?}; known: {}", name.trim(), names.join(", ")));
    };
    let (pointer, rest) = match right.trim().split_once(char::is_whitespace) {
        Some((pointer, rest)) => (pointer, Some(rest.trim())),
        None => (right.trim(), None),
    };
    let mut field = Field { name: *name, pointer: checked(pointer)?, word: None, factor: 1.0 };
    match (*name, rest) {
        (_, None) => {}
        (Name::Score, Some(factor)) => {
            let positive = factor.parse().ok().filter(|f: &f64| f.is_finite() && *f > 0.0);
            field.factor =
                positive.ok_or_else(|| format!("{factor:?} is no factor such as 100"))?;
        }
        (Name::Mx | Name::DidYouMean | Name::SmtpCode, Some(_)) => {
            return Err("takes nothing after the pointer".into());
        }
        (_, Some(word)) => field.word = Some(word.to_owned()),
    }
    Ok(field)
}

/// RFC 6901, 3: `/` before every part, `~` only as `~0` and `~1`.
fn checked(pointer: &str) -> Result<String, String> {
    let escaped = pointer.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    match pointer.starts_with('/') && escaped {
        true => Ok(pointer.to_owned()),
        false => Err(format!("{pointer:?} is no JSON pointer such as /data/status")),
    }
}

fn is_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(set) => *set,
        Value::Number(_) => true,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
    }
}

/// Is it the word, or a list with the word?
fn holds(value: &Value, word: &str) -> bool {
    match value {
        Value::String(text) => text.eq_ignore_ascii_case(word),
        Value::Bool(_) | Value::Number(_) => value.to_string().eq_ignore_ascii_case(word),
        Value::Array(items) => items.iter().any(|item| !item.is_array() && holds(item, word)),
        Value::Null | Value::Object(_) => false,
    }
}

fn truth(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(set) => Some(*set),
        Value::Number(number) => match number.as_i64() {
            Some(0) => Some(false),
            Some(1) => Some(true),
            _ => None,
        },
        Value::String(text) => match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "1" => Some(true),
            "false" | "no" | "0" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::String(text) => text.trim().parse().ok().filter(|n: &f64| n.is_finite()),
        value => value.as_f64(),
    }
}

/// A text that is there and not absurd.
fn short(value: &Value, most: usize) -> Option<String> {
    let text = value.as_str()?.trim();
    let fits = !text.is_empty() && text.len() <= most && !text.chars().any(char::is_control);
    fits.then(|| text.to_owned())
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests;
