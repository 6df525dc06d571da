//! SMTP replies (RFC 5321, 4.2) from a stream of bytes that nobody vouches for.
//!
//! Data: a [`Reply`] is a code, the lines' texts joined with `\n`, and the enhanced status code
//! (RFC 2034, RFC 3463) when there is one.
//!
//! Invariants, whatever is fed:
//! - the parser holds at most one line plus one read of input, and one reply of [`MAX_REPLY`];
//! - a reply comes out only when it is well formed: three digits from 2xx to 5xx, the same on every
//!   line; after an error the connection is of no further use;
//! - the text of a reply is printable.

use std::fmt;

/// Octets of one line, its end included. RFC 5321 allows 512; real servers go beyond.
pub const MAX_LINE: usize = 1000;
/// Octets of one reply, over all its lines.
pub const MAX_REPLY: usize = 64 * 1024;

/// Why bytes are not a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    #[error("a line of the reply is longer than {MAX_LINE} octets")]
    LineTooLong,
    #[error("the reply is longer than {MAX_REPLY} octets")]
    TooLong,
    #[error("a line does not start with a reply code")]
    NoCode,
    #[error("the lines of one reply have different codes")]
    CodesDiffer,
}

/// Enhanced status code: class, subject, detail (RFC 3463).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enhanced(pub u8, pub u16, pub u16);

/// One reply of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// 200 to 599.
    pub code: u16,
    /// The enhanced status code.
    pub enhanced: Option<Enhanced>,
    /// The lines without codes, joined with `\n`.
    pub text: String,
}

impl Reply {
    /// A reply from its code and text, as the parser would build it.
    pub fn new(code: u16, text: String) -> Self {
        Self { code, enhanced: enhanced(code, &text), text }
    }

    /// Did the server agree (2xx)?
    pub fn is_positive(&self) -> bool {
        self.code / 100 == 2
    }

    /// Code and text on one line of at most `octets`, for people.
    pub fn excerpt(&self, octets: usize) -> String {
        let mut line = format!("{} {}", self.code, self.text.replace('\n', " / "));
        line.truncate(line.floor_char_boundary(octets));
        line
    }
}

impl fmt::Display for Enhanced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// Turns bytes into replies. Ask [`Parser::next`] until it is `None` before feeding more: that is
/// what bounds its buffer.
#[derive(Default)]
pub struct Parser {
    input: Vec<u8>,
    /// Octets of `input` already used up.
    used: usize,
    partial: Option<(u16, String)>,
}

impl Parser {
    /// More input.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.input.drain(..self.used);
        self.used = 0;
        self.input.extend_from_slice(bytes);
    }

    /// Octets held: input, and the lines of a reply that is not complete yet.
    pub fn held(&self) -> usize {
        self.input.len() + self.partial.as_ref().map_or(0, |(_, text)| text.len())
    }

    /// Forgets everything that was not asked for yet. What came in clear text before a TLS
    /// handshake must not be taken for what was said under it (RFC 3207, 6; CVE-2011-0411).
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// The next complete reply, `None` if more input is needed.
    #[expect(clippy::should_implement_trait, reason = "`None` does not mean the end")]
    pub fn next(&mut self) -> Result<Option<Reply>, ReplyError> {
        loop {
            let rest = &self.input[self.used..];
            let Some(end) = rest.iter().take(MAX_LINE).position(|b| *b == b'\n') else {
                return match rest.len() < MAX_LINE {
                    true => Ok(None),
                    false => Err(ReplyError::LineTooLong),
                };
            };
            let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
            let (code, last, text) = split_line(line)?;
            let reply = match self.partial.take() {
                None => (code, printable(text)),
                Some((first, _)) if first != code => return Err(ReplyError::CodesDiffer),
                Some((_, mut so_far)) => {
                    so_far.push('\n');
                    so_far.push_str(&printable(text));
                    (code, so_far)
                }
            };
            self.used += end + 1;
            if reply.1.len() > MAX_REPLY {
                return Err(ReplyError::TooLong);
            }
            if last {
                return Ok(Some(Reply::new(reply.0, reply.1)));
            }
            self.partial = Some(reply);
        }
    }
}

/// Code, is it the reply's last line, text.
fn split_line(line: &[u8]) -> Result<(u16, bool, &[u8]), ReplyError> {
    let &[a @ b'2'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9', ref rest @ ..] = line else {
        return Err(ReplyError::NoCode);
    };
    let code = u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0');
    match rest {
        [] => Ok((code, true, rest)),
        [b' ', text @ ..] => Ok((code, true, text)),
        [b'-', text @ ..] => Ok((code, false, text)),
        _ => Err(ReplyError::NoCode),
    }
}

fn printable(text: &[u8]) -> String {
    String::from_utf8_lossy(text)
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect::<String>()
        .trim_end()
        .to_owned()
}

/// At the start of the text, where RFC 2034 wants it, or anywhere after a `#`, as qmail and IronPort
/// write it. Its class must be that of the code.
fn enhanced(code: u16, text: &str) -> Option<Enhanced> {
    let after_hash = text.find('#').map(|at| &text[at + 1..]);
    [Some(text), after_hash]
        .into_iter()
        .flatten()
        .find_map(read_enhanced)
        .filter(|found| u16::from(found.0) == code / 100)
}

fn read_enhanced(text: &str) -> Option<Enhanced> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let mut parts = text[..end].trim_end_matches('.').split('.');
    let (class, subject, detail) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || class.len() != 1 || subject.len() > 3 || detail.len() > 3 {
        return None;
    }
    let class = class.parse().ok().filter(|c| matches!(c, 2 | 4 | 5))?;
    Some(Enhanced(class, subject.parse().ok()?, detail.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8], step: usize) -> Result<Vec<Reply>, ReplyError> {
        let (mut parser, mut out) = (Parser::default(), Vec::new());
        for chunk in bytes.chunks(step) {
            parser.feed(chunk);
            while let Some(reply) = parser.next()? {
                out.push(reply);
            }
        }
        Ok(out)
    }

    #[test]
    fn reads_the_same_in_any_pieces() {
        let bytes = b"250-mx.example\r\n250-SIZE 1\r\n250 PIPELINING\r\n550 5.1.1 no\n250\r\n";
        let whole = all(bytes, bytes.len()).unwrap();
        assert_eq!(whole.len(), 3);
        assert_eq!(whole[0].text, "mx.example\nSIZE 1\nPIPELINING");
        assert_eq!((whole[1].code, whole[1].enhanced), (550, Some(Enhanced(5, 1, 1))));
        assert_eq!((whole[2].code, whole[2].text.as_str()), (250, ""));
        for step in 1..bytes.len() {
            assert_eq!(all(bytes, step).unwrap(), whole, "in pieces of {step}");
        }
    }

    #[test]
    fn refuses_what_is_no_reply() {
        for (bytes, error) in [
            (&b"HTTP/1.1 400 Bad Request\r\n"[..], ReplyError::NoCode),
            (b"\r\n", ReplyError::NoCode),
            (b"999 what\r\n", ReplyError::NoCode),
            (b"2500 what\r\n", ReplyError::NoCode),
            (b"250-a\r\n550 b\r\n", ReplyError::CodesDiffer),
            (&[b'2'; MAX_LINE], ReplyError::LineTooLong),
            (&b"250-x\r\n".repeat(MAX_REPLY), ReplyError::TooLong),
        ] {
            assert_eq!(all(bytes, 512).unwrap_err(), error);
        }
    }

    #[test]
    fn a_flood_is_refused_within_a_bounded_buffer() {
        let mut parser = Parser::default();
        let flood = [b'2'; 512];
        let mut fed = 0;
        let error = loop {
            parser.feed(&flood);
            fed += flood.len();
            if let Err(error) = parser.next() {
                break error;
            }
        };
        assert_eq!(error, ReplyError::LineTooLong);
        assert!(fed <= MAX_LINE + flood.len());
    }

    #[test]
    fn random_bytes_never_break_its_bounds() {
        let ids = listmill_shared::domain::id::Ids::seeded(3);
        let pieces: [&[u8]; 8] = [
            b"250-",
            b"250 ",
            b"550 5.1.1",
            b"\r\n",
            b"\n",
            b"#5.",
            b"\xff\x00",
            b"aaaaaaaaaaaaaaaa",
        ];
        for _ in 0..5_000 {
            let mut parser = Parser::default();
            'connection: for _ in 0..40 {
                let choice = ids.bytes::<16>();
                let chunk: Vec<u8> =
                    choice.iter().flat_map(|b| pieces[usize::from(b % 8)]).copied().collect();
                parser.feed(&chunk);
                assert!(parser.input.len() <= MAX_LINE + chunk.len());
                loop {
                    match parser.next() {
                        Err(_) => break 'connection,
                        Ok(None) => break,
                        Ok(Some(reply)) => {
                            assert!((200..600).contains(&reply.code));
                            assert!(!reply.text.chars().any(|c| c.is_control() && c != '\n'));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn finds_enhanced_codes_where_servers_put_them() {
        for (code, text, want) in [
            (550, "5.1.1 no such user", Some(Enhanced(5, 1, 1))),
            (550, "5.1.1", Some(Enhanced(5, 1, 1))),
            (550, "5.7.606 Access denied", Some(Enhanced(5, 7, 606))),
            (550, "#5.1.0 Address rejected.", Some(Enhanced(5, 1, 0))),
            (550, "sorry, no mailbox here by that name. (#5.1.1)", Some(Enhanced(5, 1, 1))),
            (550, "5.1.1.7 is blocked", None),
            (550, "4.7.1 class does not match", None),
            (550, "no code", None),
            (451, "4.7.1: greylisted", Some(Enhanced(4, 7, 1))),
        ] {
            assert_eq!(Reply::new(code, text.into()).enhanced, want, "{text}");
        }
    }

    #[test]
    fn text_is_printable_and_bounded() {
        let reply = &all(b"550 a\x07b\xff\x1b[31m\r\n", 99).unwrap()[0];
        assert_eq!(reply.text, "a?b\u{fffd}?[31m");
        assert_eq!(Reply::new(550, "é".repeat(400)).excerpt(500).len(), 500);
    }
}
