//! Email addresses: one canonical text per mailbox, and a syntax verdict.
//!
//! Data: the canonical text is `local@domain`. The local part is kept exactly as given (only
//! needless quotes are dropped); the domain is lower case and in Unicode (U-label) form, so
//! `xn--mller-kva.example` and `MÜLLER.example` are one address.
//!
//! Invariants:
//! - normalising a canonical text gives the same text and the same verdict;
//! - two spellings of one mailbox give one text, which is what deduplication keys on;
//! - an address with broken syntax keeps its trimmed raw text, so its owner recognises it.

use std::borrow::Cow;

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};

/// Octets allowed in a local part (RFC 5321, 4.5.3.1.1).
pub const MAX_LOCAL: usize = 64;
/// Octets allowed in a domain, in its ASCII form (RFC 5321, 4.5.3.1.2).
pub const MAX_DOMAIN: usize = 255;
/// Octets allowed in one label of a domain.
pub const MAX_LABEL: usize = 63;
/// Octets allowed in a whole address, domain in ASCII form (RFC 3696, erratum 1690).
pub const MAX_ADDRESS: usize = 254;

/// A canonical address and whether its syntax is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Normalised {
    /// The canonical text, or the trimmed raw text when the syntax is broken.
    pub text: String,
    /// What is wrong with the syntax, if anything.
    pub syntax: Result<(), SyntaxError>,
}

/// Why a text is not an email address. The messages are for the owner of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum SyntaxError {
    #[error("the address is empty")]
    Empty,
    #[error("there is no @ sign")]
    NoAt,
    #[error("nothing stands before the @ sign")]
    LocalEmpty,
    #[error("the part before the @ sign is longer than 64 octets")]
    LocalTooLong,
    #[error("the part before the @ sign starts or ends with a dot, or has two dots in a row")]
    LocalDot,
    #[error("the part before the @ sign has a character that must not stand there unquoted")]
    LocalCharacter,
    #[error("the quoted part before the @ sign is not quoted correctly")]
    LocalQuoting,
    #[error("nothing stands after the @ sign")]
    DomainEmpty,
    #[error("the domain is longer than 255 octets")]
    DomainTooLong,
    #[error("the domain starts or ends with a dot, or has two dots in a row")]
    DomainDot,
    #[error("the domain has only one label, a dot is missing")]
    DomainSingleLabel,
    #[error("a label of the domain is longer than 63 octets")]
    LabelTooLong,
    #[error("a label of the domain starts or ends with a hyphen")]
    LabelHyphen,
    #[error("the domain has a character that is not allowed in a domain name")]
    DomainCharacter,
    #[error("the domain is not a valid internationalised domain name")]
    DomainIdn,
    #[error("the top-level domain is a number")]
    NumericTopLevel,
    #[error("the domain is an IP address in brackets, which is not accepted")]
    AddressLiteral,
    #[error("the address is longer than 254 octets")]
    TooLong,
}

/// Brings an address into its canonical form. See [`normalise_into`] for many of them.
pub fn normalise(raw: &str) -> Normalised {
    let mut text = String::with_capacity(raw.len());
    let syntax = normalise_into(raw, &mut text);
    Normalised { text, syntax }
}

/// Like [`normalise`], but appends the text to what `out` holds.
pub fn normalise_into(raw: &str, out: &mut String) -> Result<(), SyntaxError> {
    let text = trim(raw);
    let start = out.len();
    let syntax = write_canonical(text, out);
    if syntax.is_err() {
        out.truncate(start);
        out.push_str(text);
    }
    syntax
}

/// Cuts off what people's tools leave around an address: white space and byte order marks.
/// The result is empty for a blank cell.
pub fn trim(raw: &str) -> &str {
    match raw.as_bytes() {
        // Printable ASCII at both ends: nothing to cut. True of nearly every address.
        [first, .., last] if is_visible(*first) && is_visible(*last) => raw,
        _ => raw.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}'),
    }
}

/// Is it an address as it stands, but for white space around it?
pub fn is_valid(raw: &str) -> bool {
    // Most texts that are none have no domain, or one that nothing has to be written for.
    raw.contains('@') && write_canonical(trim(raw), &mut String::new()).is_ok()
}

/// A character that nobody sees and that means nothing in an address: programs leave it behind.
pub(super) fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{2064}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Splits at the last `@`, so that a quoted local part may hold one.
pub fn split(text: &str) -> Option<(&str, &str)> {
    let at = text.bytes().rposition(|b| b == b'@')?;
    Some((&text[..at], &text[at + 1..]))
}

/// The ASCII (A-label) form of a canonical domain, as DNS and SMTP without SMTPUTF8 want it.
/// `None` if the text is not a domain name.
pub fn domain_to_ascii(domain: &str) -> Option<Cow<'_, str>> {
    if domain.is_ascii() {
        return Some(Cow::Borrowed(domain));
    }
    to_ascii(domain).ok()
}

const ATEXT: u8 = 1;
const LDH: u8 = 2;

/// What an octet may be part of: an unquoted local part, a label of a domain.
const CLASS: [u8; 256] = {
    let mut table = [0; 256];
    let mut b = 0;
    while b < 128 {
        let c = b as u8;
        if c.is_ascii_alphanumeric() || c == b'-' {
            table[b] = ATEXT | LDH;
        } else if matches!(
            c,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'/' | b'=' | b'?' | b'^'
        ) || matches!(c, b'_' | b'`' | b'{' | b'|' | b'}' | b'~')
        {
            table[b] = ATEXT;
        }
        b += 1;
    }
    table
};

const fn is_visible(b: u8) -> bool {
    b > b' ' && b < 0x7f
}

fn write_canonical(text: &str, out: &mut String) -> Result<(), SyntaxError> {
    if text.is_empty() {
        return Err(SyntaxError::Empty);
    }
    let (local, domain) = split(text).ok_or(SyntaxError::NoAt)?;
    let start = out.len();
    write_local(local, out)?;
    let local_octets = out.len() - start;
    if local_octets > MAX_LOCAL {
        return Err(SyntaxError::LocalTooLong);
    }
    out.push('@');
    let domain_octets = write_domain(domain, out)?;
    if local_octets + 1 + domain_octets > MAX_ADDRESS {
        return Err(SyntaxError::TooLong);
    }
    Ok(())
}

fn write_local(local: &str, out: &mut String) -> Result<(), SyntaxError> {
    if local.starts_with('"') {
        return write_quoted(local, out);
    }
    check_dot_atom(local)?;
    out.push_str(local);
    Ok(())
}

fn check_dot_atom(local: &str) -> Result<(), SyntaxError> {
    if local.is_empty() {
        return Err(SyntaxError::LocalEmpty);
    }
    let mut after_dot = true;
    let mut ascii = true;
    for &b in local.as_bytes() {
        if b == b'.' {
            if after_dot {
                return Err(SyntaxError::LocalDot);
            }
            after_dot = true;
        } else {
            after_dot = false;
            if b >= 0x80 {
                ascii = false;
            } else if CLASS[usize::from(b)] & ATEXT == 0 {
                return Err(SyntaxError::LocalCharacter);
            }
        }
    }
    if after_dot {
        return Err(SyntaxError::LocalDot);
    }
    let is_utf8_local = || local.chars().all(is_local_char) && joins_letters(local);
    if !(ascii || is_utf8_local()) {
        return Err(SyntaxError::LocalCharacter);
    }
    Ok(())
}

/// SMTPUTF8 allows all of Unicode; controls and white space are typing errors all the same.
fn is_local_char(c: char) -> bool {
    c.is_ascii() || !(c.is_control() || c.is_whitespace() || is_invisible(c))
}

/// Joiners shape letters of some scripts; among Latin ones they are left behind by mistake.
fn joins_letters(local: &str) -> bool {
    let is_joiner = |c: char| matches!(c, '\u{200c}' | '\u{200d}');
    !local.contains(is_joiner) || local.chars().any(|c| !c.is_ascii() && !is_joiner(c))
}

/// RFC 5321 Quoted-string. Written back without quotes where they change nothing, else with only
/// the escapes that are needed, so that every spelling of a mailbox gives one text.
fn write_quoted(local: &str, out: &mut String) -> Result<(), SyntaxError> {
    let inner = match local.strip_prefix('"').and_then(|l| l.strip_suffix('"')) {
        Some(inner) if local.len() >= 2 => inner,
        _ => return Err(SyntaxError::LocalQuoting),
    };
    let mut content = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        let c = match c {
            '"' => return Err(SyntaxError::LocalQuoting),
            '\\' => match chars.next() {
                Some(escaped @ ' '..='~') => escaped,
                _ => return Err(SyntaxError::LocalQuoting),
            },
            plain => plain,
        };
        if c.is_ascii_control() || !is_local_char(c) {
            return Err(SyntaxError::LocalCharacter);
        }
        content.push(c);
    }
    if check_dot_atom(&content).is_ok() {
        out.push_str(&content);
        return Ok(());
    }
    out.push('"');
    for c in content.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    Ok(())
}

/// Appends the canonical domain; returns the octets of its ASCII form.
fn write_domain(domain: &str, out: &mut String) -> Result<usize, SyntaxError> {
    if domain.is_empty() {
        return Err(SyntaxError::DomainEmpty);
    }
    if domain.starts_with('[') {
        return Err(SyntaxError::AddressLiteral);
    }
    if domain.is_ascii() && !has_a_label(domain.as_bytes()) {
        check_ascii_domain(domain.as_bytes())?;
        let start = out.len();
        out.push_str(domain);
        out[start..].make_ascii_lowercase();
        return Ok(domain.len());
    }
    // UTS 46 work grows with the text; nothing that long can become a valid domain.
    if domain.len() > 4 * MAX_DOMAIN {
        return Err(SyntaxError::DomainTooLong);
    }
    let ascii = to_ascii(domain)?;
    check_ascii_domain(ascii.as_bytes())?;
    let (unicode, outcome) =
        Uts46::new().to_unicode(ascii.as_bytes(), AsciiDenyList::STD3, Hyphens::CheckFirstLast);
    outcome.map_err(|_| SyntaxError::DomainIdn)?;
    if unicode.contains(is_punctuation) {
        return Err(SyntaxError::DomainCharacter);
    }
    out.push_str(&unicode);
    Ok(ascii.len())
}

/// UTS 46 lets punctuation pass that no domain name may have (RFC 5892, 2.6); quotes are what is seen of it.
fn is_punctuation(c: char) -> bool {
    matches!(c, '\u{ab}' | '\u{bb}' | '\u{2010}'..='\u{2027}' | '\u{2030}'..='\u{205e}')
}

fn to_ascii(domain: &str) -> Result<Cow<'_, str>, SyntaxError> {
    Uts46::new()
        .to_ascii(
            domain.as_bytes(),
            AsciiDenyList::STD3,
            Hyphens::CheckFirstLast,
            // Lengths are checked with everything else, to say exactly what is wrong.
            DnsLength::Ignore,
        )
        .map_err(|_| SyntaxError::DomainIdn)
}

/// Is any label in punycode, so that only UTS 46 can tell what it stands for?
fn has_a_label(domain: &[u8]) -> bool {
    // The cheap test first: "--" is rare.
    domain.windows(2).any(|pair| pair == b"--")
        && domain
            .split(|b| *b == b'.')
            .any(|label| label.get(..4).is_some_and(|prefix| prefix.eq_ignore_ascii_case(b"xn--")))
}

fn check_ascii_domain(domain: &[u8]) -> Result<(), SyntaxError> {
    if domain.len() > MAX_DOMAIN {
        return Err(SyntaxError::DomainTooLong);
    }
    let mut labels = 0;
    let mut numeric = false;
    for label in domain.split(|b| *b == b'.') {
        let (Some(first), Some(last)) = (label.first(), label.last()) else {
            return Err(SyntaxError::DomainDot);
        };
        if label.iter().any(|b| CLASS[usize::from(*b)] & LDH == 0) {
            return Err(SyntaxError::DomainCharacter);
        }
        if *first == b'-' || *last == b'-' {
            return Err(SyntaxError::LabelHyphen);
        }
        if label.len() > MAX_LABEL {
            return Err(SyntaxError::LabelTooLong);
        }
        numeric = last.is_ascii_digit() && label.iter().all(u8::is_ascii_digit);
        labels += 1;
    }
    match (labels, numeric) {
        (1, _) => Err(SyntaxError::DomainSingleLabel),
        (_, true) => Err(SyntaxError::NumericTopLevel),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(raw: &str) -> String {
        let n = normalise(raw);
        assert_eq!(n.syntax, Ok(()), "{raw}");
        n.text
    }

    fn error(raw: &str) -> SyntaxError {
        let n = normalise(raw);
        assert_eq!(n.text, trim(raw));
        n.syntax.expect_err(raw)
    }

    #[test]
    fn canonical_forms() {
        for (raw, want) in [
            ("Kate@Example.COM", "Kate@example.com"),
            (" \u{feff}kate+tag@example.com\t\r\n", "kate+tag@example.com"),
            ("\u{a0}kate@example.com\u{3000}", "kate@example.com"),
            ("o'hara_{x}@r3---sn.example.com", "o'hara_{x}@r3---sn.example.com"),
            ("\"kate\"@example.com", "kate@example.com"),
            ("\"k\\ate\"@example.com", "kate@example.com"),
            ("\"a\\\"b\\c@d\"@example.com", "\"a\\\"bc@d\"@example.com"),
            ("\" \"@example.com", "\" \"@example.com"),
            ("\"a..b\"@example.com", "\"a..b\"@example.com"),
            ("\"\"@example.com", "\"\"@example.com"),
            ("用户@例子.example", "用户@例子.example"),
            ("a@XN--MLLER-KVA.example", "a@müller.example"),
            ("a@MÜLLER.Example", "a@müller.example"),
            ("a@mu\u{308}ller.example", "a@müller.example"),
            ("a@ＥＸＡＭＰＬＥ。com", "a@example.com"),
            ("a@faß.example", "a@faß.example"),
            ("a@1.2.example", "a@1.2.example"),
        ] {
            assert_eq!(text(raw), want);
            assert_eq!(text(want), want);
        }
    }

    #[test]
    fn broken_syntax() {
        use SyntaxError::*;
        for (raw, want) in [
            ("  ", Empty),
            ("example.com", NoAt),
            ("@example.com", LocalEmpty),
            (".a@example.com", LocalDot),
            ("a.@example.com", LocalDot),
            ("a..b@example.com", LocalDot),
            ("a b@example.com", LocalCharacter),
            ("a@b@example.com", LocalCharacter),
            ("<a@example.com>", LocalCharacter),
            ("ä\u{200}\u{a0}b@example.com", LocalCharacter),
            ("\"a@example.com", LocalQuoting),
            ("\"@example.com", LocalQuoting),
            ("\"a\"b\"@example.com", LocalQuoting),
            ("\"a\\\"@example.com", LocalQuoting),
            ("\"a\u{7f}\"@example.com", LocalCharacter),
            ("a@", DomainEmpty),
            ("a@localhost", DomainSingleLabel),
            ("a@example.com.", DomainDot),
            ("a@.example.com", DomainDot),
            ("a@example..com", DomainDot),
            ("a@-x.example", LabelHyphen),
            ("a@x-.example", LabelHyphen),
            ("a@ex_ample.com", DomainCharacter),
            ("a@example.com>", DomainCharacter),
            ("a@exa mple.com", DomainCharacter),
            ("a@xn--\u{7c}.example", DomainIdn),
            ("a@xn--zzzzzzzz99999.example", DomainIdn),
            ("a@ü\u{3000}.example", DomainIdn),
            ("a@192.0.2.1", NumericTopLevel),
            ("a@[192.0.2.1]", AddressLiteral),
        ] {
            assert_eq!(error(raw), want, "{raw}");
        }
    }

    #[test]
    fn lengths() {
        let local = "l".repeat(64);
        let label = "d".repeat(63);
        text(&format!("{local}@example.com"));
        text(&format!("\"{local}\"@example.com"));
        assert_eq!(error(&format!("{local}l@example.com")), SyntaxError::LocalTooLong);
        text(&format!("a@{label}.example"));
        assert_eq!(error(&format!("a@{label}d.example")), SyntaxError::LabelTooLong);
        assert_eq!(error(&format!("a@{}.example", "ü".repeat(63))), SyntaxError::LabelTooLong);
        let domain = format!("{label}.{label}.{}.example", "d".repeat(53));
        assert_eq!(domain.len(), 189);
        text(&format!("{local}@{domain}"));
        assert_eq!(error(&format!("{local}@d{domain}")), SyntaxError::LabelTooLong);
        assert_eq!(error(&format!("{local}@d.{domain}")), SyntaxError::TooLong);
        let long = format!("{label}.{label}.{label}.{label}.example");
        assert_eq!(error(&format!("a@{long}")), SyntaxError::DomainTooLong);
        assert_eq!(error(&format!("a@{}.example", "ü".repeat(9_999))), SyntaxError::DomainTooLong);
    }

    #[test]
    fn helpers() {
        assert_eq!(split("\"a@b\"@c"), Some(("\"a@b\"", "c")));
        assert_eq!(split("abc"), None);
        assert_eq!(domain_to_ascii("müller.example").as_deref(), Some("xn--mller-kva.example"));
        assert_eq!(domain_to_ascii("example.com").as_deref(), Some("example.com"));
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing(raw in prop_oneof![
            "\\PC{0,40}",
            "[a-zA-Z.+\"\\\\ @]{0,12}@[a-zA-Z0-9ÄöÜßİſ。.-]{1,20}\\.[a-zA-Z]{2,4}",
            "\"[ -~é]{0,12}\"@(xn--[a-z0-9-]{1,8}|[α-ωא-ת٠-٩a-z]{1,6})\\.example",
        ]) {
            let once = normalise(&raw);
            prop_assert_eq!(&normalise(&once.text), &once);
            if once.syntax.is_ok() {
                let (_, domain) = split(&once.text).unwrap();
                let ascii = domain_to_ascii(domain).unwrap();
                prop_assert!(check_ascii_domain(ascii.as_bytes()).is_ok());
                let (local, _) = split(&once.text).unwrap();
                prop_assert_eq!(&normalise(&format!("{local}@{ascii}")).text, &once.text);
                prop_assert_eq!(
                    &normalise(&format!("{local}@{}", ascii.to_uppercase())).text, &once.text);
            }
        }
    }
}
