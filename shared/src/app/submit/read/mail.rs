//! Mails as programs save them: one (`.eml`, RFC 5322) or many (mbox, RFC 4155). The addresses of their headers are
//! taken; what the mails say is not read.

use std::io::Read;

use super::ReadError;
use super::guard::Guard;
use super::intake::Intake;
use super::lines::for_each_line;

/// Headers that hold addresses.
const HEADERS: [&str; 7] = ["from", "to", "cc", "bcc", "reply-to", "sender", "return-path"];

/// Reads the headers' addresses into the intake.
pub(super) fn read<R: Read>(guard: Guard<R>, intake: &mut Intake) -> Result<(), ReadError> {
    let limit = intake.limits.line_bytes;
    let (mut in_head, mut header) = (true, String::new());
    for_each_line(guard, limit, |number, line| {
        if line.trim().is_empty() {
            in_head = false;
            return take(&std::mem::take(&mut header), intake);
        }
        // Between two mails of an mbox.
        if line.starts_with("From ") {
            in_head = true;
            return take(&std::mem::take(&mut header), intake);
        }
        if !in_head {
            return Ok(());
        }
        if line.starts_with([' ', '\t']) {
            header.push_str(line);
            if header.len() > limit {
                return Err(ReadError::LineTooLong { line: number, limit });
            }
            return Ok(());
        }
        take(&std::mem::replace(&mut header, line.to_owned()), intake)
    })?;
    take(&header, intake)
}

fn take(header: &str, intake: &mut Intake) -> Result<(), ReadError> {
    match header.split_once(':') {
        Some((name, value)) if HEADERS.iter().any(|known| name.eq_ignore_ascii_case(known)) => {
            // A header without an address (`To: undisclosed-recipients:;`) is none of the list.
            if value.contains('@') { intake.address(value.trim()) } else { Ok(()) }
        }
        _ => Ok(()),
    }
}
