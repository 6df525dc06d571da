//! Lists with one address per line: plain text and NDJSON. Blank lines are skipped, LF and CRLF
//! are both fine. Of a text, a first line that names what follows is its header, and a comment is a row without an
//! address.

use std::cell::Cell;
use std::io::Read;

use serde::de::{DeserializeSeed, MapAccess};

use super::guard::Guard;
use super::intake::{Intake, write_field};
use super::json::{self, Expect, Failure, Part};
use super::{ReadError, headers};
use crate::domain::spelling::is_comment;

/// Reads the addresses into the intake; returns the header, if there is one.
pub(super) fn read_text<R: Read>(
    guard: Guard<R>,
    intake: &mut Intake,
) -> Result<Option<Vec<u8>>, ReadError> {
    let limit = intake.limits.line_bytes;
    let delimiter = intake.delimiter;
    let (mut header, mut begun) = (None, false);
    for_each_line(guard, limit, |_, line| {
        if line.trim().is_empty() {
            return Ok(());
        }
        if !begun && !is_comment(line) {
            begun = true;
            if !line.contains('@') && headers::is_known(line) {
                write_field(header.insert(Vec::new()), line.as_bytes(), delimiter);
                return Ok(());
            }
        }
        intake.address(line)
    })?;
    Ok(header)
}

pub(super) fn read_ndjson<R: Read>(guard: Guard<R>, intake: &mut Intake) -> Result<(), ReadError> {
    let limit = intake.limits.line_bytes;
    let mut email = String::new();
    for_each_line(guard, limit, |number, line| {
        if line.trim().is_empty() {
            return Ok(());
        }
        read_line(line, number, &mut email)?;
        intake.address(&email)
    })
}

/// Calls `take` with number and text of every line.
pub(super) fn for_each_line<R: Read>(
    mut guard: Guard<R>,
    limit: usize,
    mut take: impl FnMut(u64, &str) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    let mut number = 1;
    let mut take = |number, line: &str| {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.len() > limit {
            return Err(ReadError::LineTooLong { line: number, limit });
        }
        take(number, line)
    };
    // The line that the last piece broke off in.
    let mut begun = String::new();
    loop {
        let mut piece = guard.next_piece().map_err(ReadError::from_io)?;
        if piece.is_empty() {
            return take(number, &begun);
        }
        while let Some((line, rest)) = piece.split_once('\n') {
            if begun.is_empty() {
                take(number, line)?;
            } else {
                begun.push_str(line);
                take(number, &begun)?;
                begun.clear();
            }
            number += 1;
            piece = rest;
        }
        begun.push_str(piece);
        if begun.len() > limit + 1 {
            return Err(ReadError::LineTooLong { line: number, limit });
        }
    }
}

fn read_line(line: &str, number: u64, email: &mut String) -> Result<(), ReadError> {
    let failure = Cell::new(None);
    let mut found = false;
    let mut parser = serde_json::Deserializer::from_str(line);
    let part = Line { email: &mut *email, found: &mut found, number };
    let outcome = Expect(part, &failure).deserialize(&mut parser).and_then(|()| parser.end());
    if let Err(e) = outcome {
        let column = e.column() as u64;
        return Err(json::clear(e, failure.take()).at(number, column));
    }
    if !found {
        return Err(ReadError::EmailMissing { line: number });
    }
    json::refuse_nul(email, || "The address".to_owned()).map_err(|e| e.at(number, 1))
}

/// A whole line: the address itself, or an object that has it.
struct Line<'a> {
    email: &'a mut String,
    found: &'a mut bool,
    number: u64,
}

impl<'de> Part<'de> for Line<'_> {
    fn wrong(&self, found: &'static str) -> ReadError {
        let place = format!("Line {}", self.number);
        ReadError::EmailNotString { place, found, line: 0, column: 0 }
    }

    fn text(self, text: &str) -> Result<(), ReadError> {
        self.email.clear();
        self.email.push_str(text);
        *self.found = true;
        Ok(())
    }

    fn object<A: MapAccess<'de>>(self, map: A, failure: &Failure) -> Result<(), A::Error> {
        let place = || format!("line {}", self.number);
        *self.found = json::email_of(map, failure, self.email, place)?;
        Ok(())
    }
}
