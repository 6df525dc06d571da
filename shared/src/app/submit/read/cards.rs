//! Address books: vCard (RFC 6350, and the versions that phones write) and LDIF (RFC 2849).
//!
//! Each address is a row with the name of its owner: `name,email`. Lines that go on in the next one are put together
//! first; values in quoted-printable or base64 are decoded.

use std::io::Read;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::ReadError;
use super::guard::Guard;
use super::intake::{Intake, write_field};
use super::lines::for_each_line;

/// The header of what is kept.
pub(super) const HEADER: &[u8] = b"name,email";
/// Names of LDIF attributes that hold addresses.
const LDIF_MAIL: [&str; 6] = [
    "mail",
    "email",
    "rfc822mailbox",
    "mailalternateaddress",
    "mozillasecondemail",
    "othermailbox",
];

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Card,
    Ldif,
}

/// Reads the entries into the intake.
pub(super) fn read<R: Read>(
    kind: Kind,
    guard: Guard<R>,
    intake: &mut Intake,
) -> Result<(), ReadError> {
    let limit = intake.limits.line_bytes;
    let mut entry = Entry::default();
    // A line that may go on.
    let mut whole = String::new();
    for_each_line(guard, limit, |number, line| {
        if goes_on(kind, &whole, line) {
            let more = line.strip_prefix([' ', '\t']).unwrap_or(line);
            let soft = kind == Kind::Card && is_soft(&whole);
            if soft {
                whole.pop();
            }
            whole.push_str(more);
            if whole.len() > limit {
                return Err(ReadError::LineTooLong { line: number, limit });
            }
            return Ok(());
        }
        let before = std::mem::replace(&mut whole, line.to_owned());
        entry.take(kind, &before, intake)
    })?;
    entry.take(kind, &whole, intake)?;
    entry.end(intake)
}

/// Does the line before go on in this one?
fn goes_on(kind: Kind, before: &str, line: &str) -> bool {
    line.starts_with([' ', '\t']) || (kind == Kind::Card && is_soft(before) && !line.is_empty())
}

/// A quoted-printable value that ends in a soft line break.
fn is_soft(line: &str) -> bool {
    let printable = |line: &str| {
        let head = line.split(':').next().unwrap_or_default();
        head.to_ascii_uppercase().contains("QUOTED-PRINTABLE")
    };
    line.ends_with('=') && printable(line)
}

/// One person.
#[derive(Default)]
struct Entry {
    name: String,
    addresses: Vec<String>,
    bytes: usize,
}

impl Entry {
    /// Takes a whole line. An empty one ends an entry of LDIF.
    fn take(&mut self, kind: Kind, line: &str, intake: &mut Intake) -> Result<(), ReadError> {
        let line = line.trim_end();
        if line.is_empty() {
            return match kind {
                Kind::Ldif => self.end(intake),
                Kind::Card => Ok(()),
            };
        }
        let Some((head, value)) = line.split_once(':') else { return Ok(()) };
        match kind {
            Kind::Card => {
                let mut parts = head.split(';');
                // `item1.EMAIL`: a group's name comes first.
                let name = parts.next().unwrap_or_default();
                let name = name.rsplit('.').next().unwrap_or(name).to_ascii_uppercase();
                let printable =
                    |part: &str| part.to_ascii_uppercase().ends_with("QUOTED-PRINTABLE");
                let printable = parts.any(printable);
                let value = || if printable { quoted_printable(value) } else { unescaped(value) };
                match name.as_str() {
                    "BEGIN" | "END" => self.end(intake),
                    "FN" => self.set_name(value(), intake),
                    "EMAIL" => self.add(value(), intake),
                    _ => Ok(()),
                }
            }
            Kind::Ldif => {
                let attribute = head.split(';').next().unwrap_or(head).to_ascii_lowercase();
                let value = match value.strip_prefix(':') {
                    Some(packed) => {
                        let bytes = STANDARD.decode(packed.trim()).unwrap_or_default();
                        String::from_utf8_lossy(&bytes).into_owned()
                    }
                    None => value.trim().to_owned(),
                };
                match attribute.as_str() {
                    "dn" => self.end(intake),
                    "cn" | "displayname" => self.set_name(value, intake),
                    known if LDIF_MAIL.contains(&known) => self.add(value, intake),
                    _ => Ok(()),
                }
            }
        }
    }

    fn set_name(&mut self, name: String, intake: &Intake) -> Result<(), ReadError> {
        self.grow(name.len(), intake)?;
        self.name = name;
        Ok(())
    }

    fn add(&mut self, address: String, intake: &Intake) -> Result<(), ReadError> {
        self.grow(address.len() + size_of::<String>(), intake)?;
        self.addresses.push(address);
        Ok(())
    }

    /// An entry is bounded like a line.
    fn grow(&mut self, more: usize, intake: &Intake) -> Result<(), ReadError> {
        self.bytes += more;
        let limit = intake.limits.line_bytes;
        match self.bytes > limit {
            true => Err(ReadError::EntryTooLong { name: super::error::shorten(&self.name), limit }),
            false => Ok(()),
        }
    }

    /// Its rows.
    fn end(&mut self, intake: &mut Intake) -> Result<(), ReadError> {
        let Self { name, addresses, .. } = std::mem::take(self);
        let delimiter = intake.delimiter;
        for address in addresses {
            super::json::refuse_nul(&address, || "An address".to_owned())?;
            intake.row(&address, |line, part| {
                write_field(line, name.as_bytes(), delimiter);
                line.push(delimiter);
                write_field(line, part.unwrap_or(&address).as_bytes(), delimiter);
            })?;
        }
        Ok(())
    }
}

/// RFC 6350, 3.4: a backslash stands before commas, semicolons and itself, or makes a line break.
fn unescaped(value: &str) -> String {
    let (mut out, mut chars) = (String::with_capacity(value.len()), value.chars());
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => match chars.next() {
                Some('n' | 'N') => out.push(' '),
                Some(escaped) => out.push(escaped),
                None => out.push('\\'),
            },
            (c, false) => out.push(c),
        }
    }
    out
}

/// RFC 2045, 6.7.
fn quoted_printable(value: &str) -> String {
    let (bytes, mut out, mut at) = (value.as_bytes(), Vec::with_capacity(value.len()), 0);
    while let Some(&b) = bytes.get(at) {
        let pair = bytes.get(at + 1..at + 3).and_then(|pair| str::from_utf8(pair).ok());
        match pair.filter(|_| b == b'=').and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(b);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
