//! The gate that every byte of a list passes first.
//!
//! Data: one buffer `buf`; `pos..checked` are bytes that were checked and not yet handed out,
//! `checked..end` is at most the beginning of one character.
//!
//! Invariants: what is handed out is UTF-8 in whole characters, without NUL and without a byte
//! order mark in front; a parser behind the guard cannot be made to gather more than one bounded
//! record or token. Checks run over whole chunks, which makes them nearly free.

use std::cell::Cell;
use std::io::{self, Read};

use super::ReadError;

/// Bytes read at once.
pub(super) const CHUNK: usize = 64 << 10;

const BOM: &[u8] = b"\xef\xbb\xbf";

pub(super) struct Guard<R> {
    input: R,
    buf: Vec<u8>,
    pos: usize,
    checked: usize,
    end: usize,
    started: bool,
    ended: bool,
    /// Checked bytes, without the byte order mark.
    total: u64,
    bom: u64,
    /// Line breaks in `total`, and where the last line starts.
    line: u64,
    line_start: u64,
    bound: Bound,
}

/// What a parser behind the guard would gather without an end.
enum Bound {
    /// The consumer counts for itself.
    None,
    /// A record since `start`, which the consumer moves on. `text` is the end of the last byte
    /// that is no line break: empty lines between records do not count.
    Record { limit: u64, start: Cell<u64>, line: Cell<u64>, text: u64 },
    /// A JSON string, number or word.
    Token { limit: usize, run: usize, in_string: bool, escaped: bool },
}

impl<R: Read> Guard<R> {
    pub(super) fn new(input: R) -> Self {
        Self::bounded(input, Bound::None)
    }

    pub(super) fn for_records(input: R, limit: usize) -> Self {
        let (start, line) = (Cell::new(0), Cell::new(1));
        Self::bounded(input, Bound::Record { limit: limit as u64, start, line, text: 0 })
    }

    pub(super) fn for_tokens(input: R, limit: usize) -> Self {
        Self::bounded(input, Bound::Token { limit, run: 0, in_string: false, escaped: false })
    }

    fn bounded(input: R, bound: Bound) -> Self {
        Self {
            input,
            buf: vec![0; CHUNK],
            pos: 0,
            checked: 0,
            end: 0,
            started: false,
            ended: false,
            total: 0,
            bom: 0,
            line: 1,
            line_start: 0,
            bound,
        }
    }

    /// The consumer begins a record at this offset and line.
    pub(super) fn record_starts(&self, at: u64, at_line: u64) {
        if let Bound::Record { start, line, .. } = &self.bound {
            start.set(at);
            line.set(at_line);
        }
    }

    /// At least `want` bytes, or all there are, without consuming them.
    pub(super) fn peek(&mut self, want: usize) -> io::Result<&[u8]> {
        while self.checked - self.pos < want && !self.ended {
            self.fill()?;
        }
        Ok(&self.buf[self.pos..self.checked])
    }

    /// Consumes bytes that were peeked at.
    pub(super) fn skip(&mut self, bytes: usize) {
        self.pos = self.checked.min(self.pos + bytes);
    }

    /// The next piece of text, consumed; empty at the end.
    pub(super) fn next_piece(&mut self) -> io::Result<&str> {
        if self.pos == self.checked {
            self.fill()?;
        }
        let piece = &self.buf[self.pos..self.checked];
        self.pos = self.checked;
        str::from_utf8(piece).map_err(io::Error::other)
    }

    /// Appends checked bytes, unless the input has ended.
    fn fill(&mut self) -> io::Result<()> {
        self.check_record()?;
        self.buf.copy_within(self.pos..self.end, 0);
        self.checked -= self.pos;
        self.end -= self.pos;
        self.pos = 0;
        // Room for the rest of a character at least: reading into nothing looks like the end.
        if self.buf.len() - self.end < 8 {
            self.buf.resize(self.end + CHUNK, 0);
        }
        let before = self.checked;
        while self.checked - self.pos == before && !self.ended {
            match self.input.read(&mut self.buf[self.end..]) {
                Ok(0) => self.ended = true,
                Ok(n) => self.end += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            }
            if !self.started {
                if self.end < BOM.len() && !self.ended {
                    continue;
                }
                self.started = true;
                if self.buf[..self.end].starts_with(BOM) {
                    (self.pos, self.checked, self.bom) = (BOM.len(), BOM.len(), BOM.len() as u64);
                }
            }
            self.check().map_err(ReadError::into_io)?;
        }
        Ok(())
    }

    /// Checks what came in, up to the last whole character.
    fn check(&mut self) -> Result<(), ReadError> {
        let fresh = &self.buf[self.checked..self.end];
        let whole = match str::from_utf8(fresh) {
            Ok(_) => fresh.len(),
            Err(e) if e.error_len().is_none() && !self.ended => e.valid_up_to(),
            Err(e) => {
                let (line, column, offset) = self.place(e.valid_up_to());
                let byte = fresh[e.valid_up_to()];
                return Err(ReadError::NotUtf8 { byte, line, column, offset });
            }
        };
        let fresh = &fresh[..whole];
        if fresh.contains(&0) {
            let at = fresh.iter().position(|b| *b == 0).unwrap_or_default();
            let (line, column, offset) = self.place(at);
            return Err(ReadError::NulByte { line, column, offset });
        }
        match &mut self.bound {
            Bound::None => {}
            Bound::Record { text, .. } => {
                if let Some(last) = fresh.iter().rposition(|b| !matches!(b, b'\r' | b'\n')) {
                    *text = self.total + last as u64 + 1;
                }
            }
            Bound::Token { limit, run, in_string, escaped } => {
                for (i, &b) in fresh.iter().enumerate() {
                    let boundary = if *in_string {
                        let closes = b == b'"' && !*escaped;
                        *escaped = b == b'\\' && !*escaped;
                        *in_string = !closes;
                        closes
                    } else {
                        *in_string = b == b'"';
                        matches!(b, b'"' | b',' | b':' | b'[' | b']' | b'{' | b'}' | b' ' | ..=13)
                    };
                    *run = if boundary { 0 } else { *run + 1 };
                    if *run > *limit {
                        let limit = *limit;
                        let (line, ..) = self.place(i);
                        return Err(ReadError::LineTooLong { line, limit });
                    }
                }
            }
        }
        let breaks = fresh.iter().filter(|b| **b == b'\n').count() as u64;
        if breaks > 0 {
            let last = fresh.iter().rposition(|b| *b == b'\n').unwrap_or_default();
            self.line += breaks;
            self.line_start = self.total + last as u64 + 1;
        }
        self.total += whole as u64;
        self.checked += whole;
        Ok(())
    }

    /// Line, byte of the line and offset in the input of a byte in the unchecked part.
    fn place(&self, at: usize) -> (u64, u64, u64) {
        let before = &self.buf[self.checked..self.checked + at];
        let breaks = before.iter().filter(|b| **b == b'\n').count() as u64;
        let column = match before.iter().rposition(|b| *b == b'\n') {
            Some(last) => (at - last) as u64,
            None => self.total + at as u64 - self.line_start + 1,
        };
        (self.line + breaks, column, self.bom + self.total + at as u64)
    }

    /// The consumer wants more of a record: is it too long already?
    fn check_record(&self) -> io::Result<()> {
        let Bound::Record { limit, start, line, text } = &self.bound else { return Ok(()) };
        if *text <= start.get() {
            // Nothing but empty lines since the last record.
            start.set(self.total);
        }
        if self.total - start.get() > limit + CHUNK as u64 {
            let limit = *limit as usize;
            return Err(ReadError::LineTooLong { line: line.get(), limit }.into_io());
        }
        Ok(())
    }
}

impl<R: Read> Read for Guard<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.pos == self.checked {
            self.fill()?;
        }
        let n = out.len().min(self.checked - self.pos);
        out[..n].copy_from_slice(&self.buf[self.pos..self.pos + n]);
        self.pos += n;
        Ok(n)
    }
}
