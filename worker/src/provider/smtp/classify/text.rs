//! A reply's text in the form in which phrases are looked for.
//!
//! Data: [`Folded`] is one buffer: the words, then the links. Words are lower case, without accents,
//! one space apart, without brackets, quotes, dashes and numeric codes. Links are host names and URLs,
//! as they stand.
//!
//! Invariants:
//! - at most [`MAX_READ`] octets of the text are looked at;
//! - nothing of an address, of a host name or of a URL is among the words, so what is asked about
//!   (`full@blocked.example`) cannot pass for what the server says about it;
//! - an address after a word leaves nothing ("user <a@b.c> unknown" reads "user unknown"), else `@`.

/// Octets of a reply's text that are looked at.
pub const MAX_READ: usize = 2048;

/// See the module.
#[derive(Debug, Default)]
pub struct Folded {
    /// Words, a line feed, links.
    pub bytes: Vec<u8>,
    /// Where the links begin.
    pub links: usize,
}

impl Folded {
    /// From a server's text.
    pub fn new(text: &str) -> Self {
        let text = &text[..text.floor_char_boundary(MAX_READ)];
        let mut bytes = Vec::with_capacity(text.len() + 8);
        let mut links = Vec::new();
        for word in text.split_ascii_whitespace() {
            match kind(word) {
                Kind::Word => fold_word(word, &mut bytes),
                Kind::Nothing => {}
                Kind::Link => links.push(word),
                Kind::Address => {
                    if !bytes.trim_ascii_end().last().is_some_and(u8::is_ascii_alphanumeric) {
                        bytes.extend_from_slice(b"@");
                    }
                    // What is glued to it: "<a@b.c>:blocked".
                    if let Some((_, rest)) = word.split_once('>') {
                        fold(rest, &mut bytes);
                    }
                    space(&mut bytes);
                }
            }
        }
        bytes.push(b'\n');
        let start = bytes.len();
        for link in links {
            bytes.extend(link.bytes().map(|b| b.to_ascii_lowercase()));
            bytes.push(b'\n');
        }
        Self { bytes, links: start }
    }

    /// Does a phrase that was found at `start..end` stand between word limits? Phrases begin with a
    /// word; where they end, the word may go on.
    pub fn starts_word(&self, start: usize) -> bool {
        let inside = |i: usize| self.bytes[i].is_ascii_alphanumeric();
        start == 0 || !inside(start) || !inside(start - 1)
    }
}

enum Kind {
    Word,
    Address,
    Link,
    Nothing,
}

fn kind(word: &str) -> Kind {
    let dots = word.bytes().filter(|b| *b == b'.').count();
    if word.contains("://") || word.starts_with("www.") {
        // A query may hold the address itself.
        return if word.contains('@') || word.contains("%40") { Kind::Nothing } else { Kind::Link };
    }
    if word.contains('@') || (word.starts_with('<') && word.contains('>')) {
        return Kind::Address;
    }
    if dots == 0 {
        return Kind::Word;
    }
    let core = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    let (mut digits, mut other) = (false, false);
    for b in core.bytes() {
        digits |= b.is_ascii_digit();
        other |= !b.is_ascii_digit() && b != b'.';
    }
    match (dots > 1 && digits && !other, is_host(core)) {
        (true, _) => Kind::Nothing,
        (_, true) => Kind::Link,
        _ => Kind::Word,
    }
}

/// `mx.example.org`, `example.org[192.0.2.1]`; not the end of one sentence and the start of another
/// ("blocked.For").
fn is_host(word: &str) -> bool {
    let name = word.split(['[', '/', ':', '(']).next().unwrap_or(word);
    let mut labels = name.rsplit('.');
    let top = labels.next().unwrap_or_default();
    let shaped = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    let sentence = top.starts_with(|c: char| c.is_ascii_uppercase())
        && top.bytes().skip(1).any(|b| b.is_ascii_lowercase());
    shaped
        && !sentence
        && (2..=24).contains(&top.len())
        && top.bytes().all(|b| b.is_ascii_alphabetic())
        && labels.next().is_some_and(|label| !label.is_empty())
}

fn space(out: &mut Vec<u8>) {
    if out.last().is_some_and(|b| *b != b' ') {
        out.push(b' ');
    }
}

/// Adds a word and a space. Words that change nothing are left out (articles, "currently"); forms of
/// "to be" become one ("was", "has been" → "is").
pub fn fold_word(word: &str, out: &mut Vec<u8>) {
    let start = out.len();
    fold(word, out);
    match &out[start..] {
        b"a" | b"an" | b"the" | b"now" | b"currently" | b"presently" | b"permanently"
        | b"administratively" => out.truncate(start),
        b"was" | b"are" | b"were" => is_instead(out, start),
        b"been" if out[..start].ends_with(b"has ") => is_instead(out, start - 4),
        b"been" if out[..start].ends_with(b"have ") => is_instead(out, start - 5),
        _ => {}
    }
    space(out);
}

fn is_instead(out: &mut Vec<u8>, start: usize) {
    out.truncate(start);
    out.extend_from_slice(b"is");
}

/// Adds `text`, folded.
fn fold(text: &str, out: &mut Vec<u8>) {
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            'A'..='Z' | 'a'..='z' | '0'..='9' | ',' | ';' | '!' | '?' | ':' | '@' | '%' | '$' => {
                out.push(c.to_ascii_lowercase() as u8);
            }
            '.' if chars.as_str().starts_with('.') => {}
            '.' => out.push(b'.'),
            '\'' | '’' | '`' | '´' => {
                if out.last().is_some_and(u8::is_ascii_alphabetic) {
                    out.push(b'\'');
                }
            }
            '-' if is_email(out, chars.as_str()) => {}
            // "account(s)"
            '(' if chars.as_str().starts_with("s)") => {
                chars.nth(1);
            }
            c if c.is_ascii() => space(out),
            '“' | '”' | '«' | '»' | '„' | '–' | '—' | '\u{a0}' => space(out),
            c => fold_other(c, out),
        }
    }
}

/// At the dash of "e-mail", which is the same as "email".
fn is_email(before: &[u8], after: &str) -> bool {
    let alone = !before.len().checked_sub(2).is_some_and(|i| before[i].is_ascii_alphanumeric());
    alone
        && before.last() == Some(&b'e')
        && after.get(..4).is_some_and(|word| word.eq_ignore_ascii_case("mail"))
}

fn fold_other(c: char, out: &mut Vec<u8>) {
    let plain = plain(c);
    if plain.is_empty() {
        let mut utf8 = [0; 4];
        for c in c.to_lowercase() {
            out.extend_from_slice(c.encode_utf8(&mut utf8).as_bytes());
        }
    } else {
        out.extend_from_slice(plain.as_bytes());
    }
}

/// A Latin letter without its accent; empty for other characters.
pub fn plain(c: char) -> &'static str {
    match c {
        'À'..='Å' | 'à'..='å' | 'Ā'..='ą' | 'ạ'..='ặ' => "a",
        'Æ' | 'æ' => "ae",
        'Ç' | 'ç' | 'Ć'..='č' => "c",
        'Ď'..='đ' => "d",
        'È'..='Ë' | 'è'..='ë' | 'Ē'..='ě' | 'ẹ'..='ệ' => "e",
        'Ĝ'..='ģ' => "g",
        'Ì'..='Ï' | 'ì'..='ï' | 'Ĩ'..='ı' | 'ị' => "i",
        'Ĺ'..='ł' => "l",
        'Ñ' | 'ñ' | 'Ń'..='ň' => "n",
        'Ò'..='Ö' | 'ò'..='ö' | 'Ø' | 'ø' | 'Ō'..='ő' | 'ọ'..='ợ' => "o",
        'Œ' | 'œ' => "oe",
        'Ŕ'..='ř' => "r",
        'Ś'..='š' | 'ș' | 'Ș' => "s",
        'ß' => "ss",
        'Ţ'..='ť' | 'ț' | 'Ț' => "t",
        'Ù'..='Ü' | 'ù'..='ü' | 'Ũ'..='ų' | 'ư' | 'ụ'..='ự' => "u",
        'Ý' | 'ý' | 'ÿ' => "y",
        'Ź'..='ž' => "z",
        'ё' | 'Ё' => "е",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> String {
        let folded = Folded::new(text);
        String::from_utf8_lossy(&folded.bytes[..folded.links]).trim().to_owned()
    }

    #[test]
    fn words_are_plain() {
        for (text, want) in [
            ("5.1.1 <full@blocked.example>: User  UNKNOWN", "@: user unknown"),
            ("User [full@blocked.example] does not exist", "user does not exist"),
            ("5.1.1 does not\n5.1.1 exist", "does not exist"),
            ("No E-Mail account_here", "no email account here"),
            ("Boîte pleine, Größe", "boite pleine, grosse"),
            ("sorry, no mailbox here (#5.1.1)", "sorry, no mailbox here"),
            ("The account(s) has been now not a box", "account is not box"),
            ("is_blocked.For assistance", "is blocked.for assistance"),
            ("Your host mx.full.example[192.0.2.1] is listed", "your host is listed"),
            ("doesn’t “exist”", "doesn't exist"),
            ("ПОЛЬЗОВАТЕЛЬ не найден", "пользователь не найден"),
            ("<full>: disabled", "@: disabled"),
            ("Rejected... see", "rejected. see"),
            ("rejected: a@b.c does not exist", "rejected: @ does not exist"),
        ] {
            assert_eq!(words(text), want, "{text}");
        }
    }

    #[test]
    fn links_are_apart() {
        let folded = Folded::new("See http://www.spamhaus.org/query?ip=1 or x.spamcop.net now");
        let links = &folded.bytes[folded.links..];
        assert_eq!(links, b"http://www.spamhaus.org/query?ip=1\nx.spamcop.net\n");
        assert_eq!(words("see https://a.b/?to=full%40blocked.example"), "see");
    }

    #[test]
    fn reads_a_bounded_part() {
        assert!(Folded::new(&"é ".repeat(9_000)).bytes.len() <= MAX_READ + 8);
        assert!(Folded::new(&"İ".repeat(9_000)).bytes.len() <= 2 * MAX_READ);
    }
}
