//! Quotes of a CSV that are never closed.
//!
//! A parser that is patient with quotes takes everything up to the next one for a single cell, line breaks and other
//! people's addresses included. This reader passes the text on and looks at its quotes alone: one that opens a cell
//! must close it before a delimiter, a line break or the end. Where it does so in the same line, or where nothing
//! but a stray quote is the matter in one line, nobody is hurt; else the line is named where it began.

use std::io::{self, Read};

use super::ReadError;

/// Looks at the quotes of what it reads.
pub(super) struct Quotes<R> {
    input: R,
    delimiter: u8,
    state: State,
    /// The last byte of what was read before.
    before: u8,
    /// Line of the next byte, and of the quote that opened the cell, from 1.
    line: u64,
    opened: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Outside,
    Inside,
    /// Inside, behind a quote that closes the cell or is the first of two.
    Quote,
}

impl<R: Read> Quotes<R> {
    /// `line`: of the first byte.
    pub fn new(input: R, delimiter: u8, line: u64) -> Self {
        Self { input, delimiter, state: State::Outside, before: b'\n', line, opened: 0 }
    }

    pub fn get_ref(&self) -> &R {
        &self.input
    }

    /// Looks at the next bytes, of which there are some.
    fn look(&mut self, bytes: &[u8]) -> Result<(), ReadError> {
        let mut at = 0;
        if self.state == State::Quote {
            match bytes[0] {
                b'"' => (self.state, at) = (State::Inside, 1),
                next => self.close(next)?,
            }
        }
        // From quote to quote: what is between them does not matter.
        while let Some(found) = memchr::memchr(b'"', &bytes[at..]) {
            let quote = at + found;
            self.line += breaks(&bytes[at..quote]);
            at = quote + 1;
            if self.state == State::Outside {
                let before = if quote == 0 { self.before } else { bytes[quote - 1] };
                if before == self.delimiter || matches!(before, b'\n' | b'\r') {
                    (self.state, self.opened) = (State::Inside, self.line);
                }
                continue;
            }
            match bytes.get(at) {
                None => self.state = State::Quote,
                Some(b'"') => at += 1,
                Some(next) => self.close(*next)?,
            }
        }
        self.line += breaks(&bytes[at..]);
        self.before = bytes[bytes.len() - 1];
        Ok(())
    }

    /// A quote inside a cell, before a byte that is no quote.
    fn close(&mut self, next: u8) -> Result<(), ReadError> {
        self.state = State::Outside;
        let closes = next == self.delimiter || matches!(next, b'\n' | b'\r');
        match closes || self.line == self.opened {
            true => Ok(()),
            false => Err(ReadError::UnclosedQuote { line: self.opened }),
        }
    }
}

fn breaks(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

impl<R: Read> Read for Quotes<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(out)?;
        match n {
            0 if self.state == State::Inside && !out.is_empty() => {
                Err(ReadError::UnclosedQuote { line: self.opened }.into_io())
            }
            0 => Ok(0),
            n => {
                self.look(&out[..n]).map_err(ReadError::into_io)?;
                Ok(n)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The line of the quote that is not closed; read in pieces of every length.
    fn unclosed(text: &str) -> Option<u64> {
        let mut found = Vec::new();
        for step in 1..=text.len() {
            let (mut reader, mut some) = (Quotes::new(text.as_bytes(), b',', 1), vec![0; step]);
            found.push(loop {
                match reader.read(&mut some) {
                    Ok(0) => break None,
                    Ok(_) => {}
                    Err(error) => match ReadError::from_io(error) {
                        ReadError::UnclosedQuote { line } => break Some(line),
                        other => panic!("{other}"),
                    },
                }
            });
        }
        found.dedup();
        assert_eq!(found.len(), 1, "{text:?}: {found:?}");
        found[0]
    }

    #[test]
    fn a_quote_that_is_never_closed_is_named_where_it_begins() {
        for (text, line) in [
            ("a,b\n\"c,d\ne,f\n", Some(2)),
            ("a,b\n\"c,d\n\"e\",f\n", Some(2)),
            ("a,b\n\"c\",d\ne,\"f", Some(3)),
            ("\"a\n\n\nb,c", Some(1)),
            ("x\n\"a \"\"b\nc,d", Some(2)),
            ("\"a\nb\"c,d", Some(1)),
            ("a,\"b\nc\",d\n\"e\"\"\nf\"\r\n", None),
            ("\"a\",\"\",\"b\"\"\"\n", None),
            ("5\" pipe,6\" pipe\nx,y\n", None),
            ("\"nick\" name,x\ny,z\n", None),
            ("a \"b\" c,d\n", None),
            ("\"\"", None),
            ("plain,text\n", None),
        ] {
            assert_eq!(unclosed(text), line, "{text:?}");
        }
    }
}
