//! The JSON body: one object with `emails`, or that array alone, read in passing. No array is ever held; every text
//! goes straight from the parser's buffer to the intake. An element is a text, or an object that has the address in
//! one of its fields ([`email_of`]).
//!
//! serde's errors carry only a message. Ours are put into a [`Failure`] beside the parser, which
//! then only adds the position.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::io::{self, BufReader, Read};

use serde::Deserialize;
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::error::Category;

use super::error::shorten;
use super::guard::Guard;
use super::intake::Intake;
use super::{Options, ReadError, headers};

/// Most characters of a task's name.
const MAX_NAME: usize = 200;

pub(super) fn read<R: Read>(guard: Guard<R>, intake: &mut Intake) -> Result<Options, ReadError> {
    let failure = Cell::new(None);
    let mut options = Options::default();
    let mut emails = None;
    let mut parser = serde_json::Deserializer::from_reader(BufReader::new(guard));
    let body = Body { intake, options: &mut options, emails: &mut emails };
    Expect(body, &failure).deserialize(&mut parser).and_then(|()| parser.end()).map_err(|e| {
        let (line, column) = (e.line() as u64, e.column() as u64);
        clear(e, failure.take()).at(line, column)
    })?;
    match emails {
        None => Err(ReadError::EmailsMissing),
        Some(0) => Err(ReadError::EmailsEmpty),
        Some(_) => Ok(options),
    }
}

/// Where our own error waits until the parser has given up.
pub(super) type Failure = Cell<Option<ReadError>>;

/// Stops the parser with an error of ours.
pub(super) fn fail<E: serde::de::Error>(failure: &Failure, error: ReadError) -> E {
    failure.set(Some(error));
    E::custom("refused")
}

/// What really went wrong: our error, one of the input, or the JSON itself.
pub(super) fn clear(error: serde_json::Error, ours: Option<ReadError>) -> ReadError {
    if let Some(ours) = ours {
        return ours;
    }
    let (line, column) = (error.line() as u64, error.column() as u64);
    let problem = match error.classify() {
        Category::Io => return ReadError::from_io(io::Error::from(error)),
        Category::Eof => "it ends too early, a quote or bracket is not closed".to_owned(),
        Category::Syntax | Category::Data => {
            let text = error.to_string();
            let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
            match text {
                "trailing characters" => "there is something after its end".to_owned(),
                "trailing comma" => "there is a comma with nothing after it".to_owned(),
                "key must be a string" => "a field name must stand in double quotes".to_owned(),
                "expected value" => "a value is missing or not written as JSON".to_owned(),
                "recursion limit exceeded" => "it is nested too deeply".to_owned(),
                other => shorten(other),
            }
        }
    };
    ReadError::InvalidJson { problem, line, column }
}

/// The guard sees bytes; this sees what escapes stand for.
pub(super) fn refuse_nul(text: &str, place: impl FnOnce() -> String) -> Result<(), ReadError> {
    if text.contains('\0') {
        return Err(ReadError::EscapedNul { place: place(), line: 0, column: 0 });
    }
    Ok(())
}

/// A place in a JSON text: it says what it takes; all else is [`Part::wrong`].
pub(super) trait Part<'de>: Sized {
    /// The error for a value of another kind.
    fn wrong(&self, found: &'static str) -> ReadError;

    fn text(self, _: &str) -> Result<(), ReadError> {
        Err(self.wrong("a text"))
    }

    fn flag(self, _: bool) -> Result<(), ReadError> {
        Err(self.wrong("true or false"))
    }

    fn null(self) -> Result<(), ReadError> {
        Err(self.wrong("null"))
    }

    fn array<A: SeqAccess<'de>>(self, _: A, failure: &Failure) -> Result<(), A::Error> {
        Err(fail(failure, self.wrong("an array")))
    }

    fn object<A: MapAccess<'de>>(self, _: A, failure: &Failure) -> Result<(), A::Error> {
        Err(fail(failure, self.wrong("an object")))
    }
}

/// Lets serde drive a [`Part`].
pub(super) struct Expect<'f, P>(pub(super) P, pub(super) &'f Failure);

impl<'de, P: Part<'de>> DeserializeSeed<'de> for Expect<'_, P> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, P: Part<'de>> Visitor<'de> for Expect<'_, P> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a value of the right kind")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        self.0.text(text).map_err(|e| fail(self.1, e))
    }

    fn visit_bool<E: serde::de::Error>(self, flag: bool) -> Result<(), E> {
        self.0.flag(flag).map_err(|e| fail(self.1, e))
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.0.null().map_err(|e| fail(self.1, e))
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<(), E> {
        Err(fail(self.1, self.0.wrong("a number")))
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<(), E> {
        Err(fail(self.1, self.0.wrong("a number")))
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<(), E> {
        Err(fail(self.1, self.0.wrong("a number")))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        self.0.array(seq, self.1)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        self.0.object(map, self.1)
    }
}

/// The whole body.
struct Body<'a, 's> {
    intake: &'a mut Intake<'s>,
    options: &'a mut Options,
    /// Elements of `emails`, once it was seen.
    emails: &'a mut Option<u64>,
}

impl<'de> Part<'de> for Body<'_, '_> {
    fn wrong(&self, found: &'static str) -> ReadError {
        let problem =
            format!("it is {found}, but must be an object with the field \"emails\", or an array");
        ReadError::InvalidJson { problem, line: 0, column: 0 }
    }

    fn array<A: SeqAccess<'de>>(self, seq: A, failure: &Failure) -> Result<(), A::Error> {
        Emails { intake: self.intake, count: self.emails.insert(0) }.array(seq, failure)
    }

    fn object<A: MapAccess<'de>>(self, mut map: A, failure: &Failure) -> Result<(), A::Error> {
        const FIELDS: [&str; 4] = ["emails", "name", "allow_partial", "webhook_url"];
        let mut seen = [false; FIELDS.len()];
        while let Some(key) = map.next_key::<String>()? {
            let Some(i) = FIELDS.iter().position(|field| *field == key) else {
                let name = shorten(&key);
                return Err(fail(failure, ReadError::UnknownField { name, line: 0, column: 0 }));
            };
            let name = FIELDS[i];
            if std::mem::replace(&mut seen[i], true) {
                let problem = "is given twice".to_owned();
                return Err(fail(failure, ReadError::InvalidField { name, problem }));
            }
            match name {
                "emails" => {
                    let part = Emails { intake: self.intake, count: self.emails.insert(0) };
                    map.next_value_seed(Expect(part, failure))?;
                }
                "name" => {
                    let part = Text { name, most: MAX_NAME, into: &mut self.options.name };
                    map.next_value_seed(Expect(part, failure))?;
                }
                "webhook_url" => {
                    let into = &mut self.options.webhook_url;
                    let part = Text { name, most: usize::MAX, into };
                    map.next_value_seed(Expect(part, failure))?;
                }
                "allow_partial" => {
                    let part = Flag { name, into: &mut self.options.allow_partial };
                    map.next_value_seed(Expect(part, failure))?;
                }
                _ => return Err(A::Error::custom("a known field is not handled")),
            }
        }
        Ok(())
    }
}

/// The array of addresses.
struct Emails<'a, 's> {
    intake: &'a mut Intake<'s>,
    count: &'a mut u64,
}

impl<'de> Part<'de> for Emails<'_, '_> {
    fn wrong(&self, found: &'static str) -> ReadError {
        ReadError::EmailsNotArray { found, line: 0, column: 0 }
    }

    fn array<A: SeqAccess<'de>>(self, mut seq: A, failure: &Failure) -> Result<(), A::Error> {
        loop {
            let item = Item { intake: self.intake, index: *self.count };
            match seq.next_element_seed(Expect(item, failure))? {
                Some(()) => *self.count += 1,
                None => return Ok(()),
            }
        }
    }
}

/// One element of `emails`.
struct Item<'a, 's> {
    intake: &'a mut Intake<'s>,
    index: u64,
}

impl<'de> Part<'de> for Item<'_, '_> {
    fn wrong(&self, found: &'static str) -> ReadError {
        let place = format!("emails[{}]", self.index);
        ReadError::EmailNotString { place, found, line: 0, column: 0 }
    }

    fn text(self, text: &str) -> Result<(), ReadError> {
        refuse_nul(text, || format!("emails[{}]", self.index))?;
        self.intake.address(text)
    }

    fn object<A: MapAccess<'de>>(self, map: A, failure: &Failure) -> Result<(), A::Error> {
        let (mut email, place) = (String::new(), || format!("emails[{}]", self.index));
        if !email_of(map, failure, &mut email, place)? {
            return Err(fail(failure, self.wrong("an object without a field \"email\"")));
        }
        self.text(&email).map_err(|error| fail(failure, error))
    }
}

/// How sure it is that a field has the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Sure {
    /// There is an `@` in it.
    Content,
    /// It is called as such columns are.
    Header,
    /// It is called `email`.
    Email,
}

/// Finds the address of an object: the field `email` (any case), else one with another known name, else the first text
/// with an `@`. `false`: it has none.
pub(super) fn email_of<'de, A: MapAccess<'de>>(
    mut map: A,
    failure: &Failure,
    email: &mut String,
    place: impl Fn() -> String,
) -> Result<bool, A::Error> {
    let mut best = None;
    while let Some(key) = map.next_key::<Cow<'de, str>>()? {
        if key.eq_ignore_ascii_case("email") {
            if best == Some(Sure::Email) {
                let problem = format!("is given twice in {}", place());
                return Err(fail(failure, ReadError::InvalidField { name: "email", problem }));
            }
            let part = Email { email: &mut *email, place: &place };
            map.next_value_seed(Expect(part, failure))?;
            best = Some(Sure::Email);
            continue;
        }
        let MaybeText(value) = map.next_value()?;
        let sure = match &value {
            Some(value) if headers::is_known(&key) && !value.trim().is_empty() => {
                Some(Sure::Header)
            }
            Some(value) if value.contains('@') => Some(Sure::Content),
            _ => None,
        };
        if let (Some(value), true) = (value, sure > best) {
            best = sure;
            *email = value;
        }
    }
    Ok(best.is_some())
}

/// The `email` of an object.
struct Email<'a, F> {
    email: &'a mut String,
    place: F,
}

impl<F: Fn() -> String> Part<'_> for Email<'_, &F> {
    fn wrong(&self, found: &'static str) -> ReadError {
        let place = format!("\"email\" in {}", (self.place)());
        ReadError::EmailNotString { place, found, line: 0, column: 0 }
    }

    fn text(self, text: &str) -> Result<(), ReadError> {
        self.email.clear();
        self.email.push_str(text);
        Ok(())
    }
}

/// A text, or anything else, which is passed over.
struct MaybeText(Option<String>);

impl<'de> Deserialize<'de> for MaybeText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Look;
        impl<'de> Visitor<'de> for Look {
            type Value = MaybeText;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_str<E>(self, text: &str) -> Result<MaybeText, E> {
                Ok(MaybeText(Some(text.to_owned())))
            }

            fn visit_bool<E>(self, _: bool) -> Result<MaybeText, E> {
                Ok(MaybeText(None))
            }

            fn visit_unit<E>(self) -> Result<MaybeText, E> {
                Ok(MaybeText(None))
            }

            fn visit_i64<E>(self, _: i64) -> Result<MaybeText, E> {
                Ok(MaybeText(None))
            }

            fn visit_u64<E>(self, _: u64) -> Result<MaybeText, E> {
                Ok(MaybeText(None))
            }

            fn visit_f64<E>(self, _: f64) -> Result<MaybeText, E> {
                Ok(MaybeText(None))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<MaybeText, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(MaybeText(None))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<MaybeText, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(MaybeText(None))
            }
        }
        deserializer.deserialize_any(Look)
    }
}

/// An optional text.
struct Text<'a> {
    name: &'static str,
    most: usize,
    into: &'a mut Option<String>,
}

impl Part<'_> for Text<'_> {
    fn wrong(&self, found: &'static str) -> ReadError {
        let problem = format!("is {found}, but must be a text");
        ReadError::InvalidField { name: self.name, problem }
    }

    fn text(self, text: &str) -> Result<(), ReadError> {
        if text.chars().nth(self.most).is_some() {
            let problem = format!("is longer than {} characters", self.most);
            return Err(ReadError::InvalidField { name: self.name, problem });
        }
        refuse_nul(text, || format!("\"{}\"", self.name))?;
        *self.into = Some(text.to_owned());
        Ok(())
    }

    fn null(self) -> Result<(), ReadError> {
        Ok(())
    }
}

/// An optional flag.
struct Flag<'a> {
    name: &'static str,
    into: &'a mut bool,
}

impl Part<'_> for Flag<'_> {
    fn wrong(&self, found: &'static str) -> ReadError {
        let problem = format!("is {found}, but must be true or false");
        ReadError::InvalidField { name: self.name, problem }
    }

    fn flag(self, flag: bool) -> Result<(), ReadError> {
        *self.into = flag;
        Ok(())
    }

    fn null(self) -> Result<(), ReadError> {
        Ok(())
    }
}
