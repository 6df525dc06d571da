//! Addresses as people and their programs write them: taken out of what stands around them.
//!
//! Data: the text of a cell or line goes in; out come [`Piece`]s, one for each address that it
//! holds, in order.
//!
//! Invariants:
//! - a text that is a valid address as it stands is that address and nothing else: no rule turns
//!   one valid address into another (RFC 5321 quoted forms stay what they are);
//! - a text in which no address is found is one broken piece, the text itself;
//! - every text with something in it gives at least one piece, and a piece never holds more than
//!   one valid address.
//!
//! What is known: angle brackets with a name before them, quotes, brackets and comments around an
//! address (RFC 5322, 3.4), lists with `,` `;` `|` `/` and white space between addresses, `mailto:`
//! (RFC 6068) and its like, marks at the end, characters that nobody sees, full-width forms, HTML
//! entities and percent-encoding.

use std::borrow::Cow;
use std::collections::HashSet;

use percent_encoding::percent_decode_str;

use super::address::{is_invisible, is_valid, split, trim};

/// Wrappers may be around each other so many times.
const DEPTH: usize = 4;
/// Characters of an HTML entity, `&` and `;` left out.
const ENTITY: usize = 8;

/// Words that programs write before an address, with a colon.
const PREFIXES: [&str; 6] = ["mailto", "smtp", "email", "e-mail", "mail", "sip"];
/// Quotes that close what they open.
const QUOTES: [(char, char); 9] = [
    ('"', '"'),
    ('\'', '\''),
    ('`', '`'),
    ('\u{2018}', '\u{2019}'),
    ('\u{201c}', '\u{201d}'),
    ('\u{201e}', '\u{201c}'),
    ('\u{ab}', '\u{bb}'),
    ('[', ']'),
    ('{', '}'),
];

/// One address of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece<'a> {
    /// What stood in the text; all of it where there is one address.
    pub stood: Cow<'a, str>,
    /// What is to be judged.
    pub address: Cow<'a, str>,
}

/// The addresses of a text that is not blank.
pub fn pieces(text: &str) -> Vec<Piece<'_>> {
    let whole = || vec![Piece { stood: Cow::Borrowed(text), address: Cow::Borrowed(trim(text)) }];
    if is_valid(text) {
        return whole();
    }
    let plain = plain(trim(text));
    if is_valid(&plain) {
        let address = Cow::Owned(plain.into_owned());
        return vec![Piece { stood: Cow::Borrowed(text), address }];
    }
    let mut found = Vec::new();
    take_all(&plain, DEPTH, &mut found);
    match found.len() {
        0 => whole(),
        1 => {
            let Found { address, .. } = found.remove(0);
            match is_valid(&address) {
                true => vec![Piece { stood: Cow::Borrowed(text), address: Cow::Owned(address) }],
                false => whole(),
            }
        }
        _ => found
            .into_iter()
            .map(|Found { stood, address }| {
                // What cannot be repaired is shown as it stood.
                let address = if is_valid(&address) { address } else { stood.clone() };
                Piece { stood: Cow::Owned(stood), address: Cow::Owned(address) }
            })
            .collect(),
    }
}

/// The one address of a text; `None` where it holds several.
pub fn one(text: &str) -> Option<Cow<'_, str>> {
    let mut pieces = pieces(text);
    match pieces.len() {
        1 => pieces.pop().map(|piece| piece.address),
        _ => None,
    }
}

/// Is it a comment, as people write them into lists? An address that begins like one is none.
pub fn is_comment(text: &str) -> bool {
    let text = trim(text);
    let marked = |mark: &str| {
        text.strip_prefix(mark)
            .is_some_and(|rest| !rest.contains('@') || rest.starts_with(char::is_whitespace))
    };
    ["#", "//", "--"].into_iter().any(marked) && !is_valid(text)
}

/// An address that was found: what stood there, and what it is without what is around it.
struct Found {
    stood: String,
    address: String,
}

/// Without what nobody sees and what stands for other characters.
fn plain(text: &str) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(text);
    if text.contains('&')
        && text.contains(';')
        && let Some(decoded) = decode_entities(&text)
    {
        text = Cow::Owned(decoded);
    }
    if !text.is_ascii() {
        text = Cow::Owned(visible(&text));
    }
    match mailto(&text) {
        Some(list) => Cow::Owned(list),
        None if !text.contains('@') && text.contains("%40") => {
            percent(&text).map_or(text, Cow::Owned)
        }
        None => text,
    }
}

/// Without invisible characters, no-break spaces beside an `@`, and with ASCII for full-width forms.
fn visible(text: &str) -> String {
    let seen = text.chars().filter(|c| !is_invisible(*c) && !matches!(c, '\u{200c}' | '\u{200d}'));
    let mut out: String = seen
        .map(|c| match c {
            '\u{ff20}' | '\u{fe6b}' => '@',
            '\u{ff0e}' | '\u{3002}' => '.',
            '\u{ff0c}' | '\u{3001}' => ',',
            '\u{ff1b}' => ';',
            '\u{ff1c}' => '<',
            '\u{ff1e}' => '>',
            '\u{ff08}' => '(',
            '\u{ff09}' => ')',
            '\u{ff3b}' => '[',
            '\u{ff3d}' => ']',
            c => c,
        })
        .collect();
    for space in ['\u{a0}', '\u{202f}', '\u{2007}'] {
        if out.contains(space) {
            out = out.replace(&format!("{space}@"), "@").replace(&format!("@{space}"), "@");
        }
    }
    out
}

/// The addresses of a `mailto:` URI (RFC 6068), without its fields.
fn mailto(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_at_checked("mailto:".len())?;
    if !scheme.eq_ignore_ascii_case("mailto:") {
        return None;
    }
    let list = rest.split('?').next().unwrap_or(rest);
    Some(percent(list).unwrap_or_else(|| list.to_owned()))
}

/// Decoded, if what comes out is a text.
fn percent(text: &str) -> Option<String> {
    let decoded = percent_decode_str(text).decode_utf8().ok()?;
    (!decoded.contains(char::is_control)).then(|| decoded.into_owned())
}

/// With its HTML entities decoded; `None` if there is none that is known.
fn decode_entities(text: &str) -> Option<String> {
    let (mut out, mut rest, mut decoded) = (String::with_capacity(text.len()), text, false);
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = rest.bytes().take(ENTITY + 2).position(|b| b == b';');
        match end.and_then(|end| Some((entity(rest.get(1..end)?)?, end))) {
            Some((character, end)) => {
                out.push(character);
                rest = &rest[end + 1..];
                decoded = true;
            }
            None => {
                out.push('&');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    decoded.then_some(out)
}

fn entity(name: &str) -> Option<char> {
    if let Some(number) = name.strip_prefix('#') {
        let code = match number.strip_prefix(['x', 'X']) {
            Some(hex) => u32::from_str_radix(hex, 16),
            None => number.parse(),
        };
        return char::from_u32(code.ok()?).filter(|c| !c.is_control());
    }
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        "nbsp" => '\u{a0}',
        "commat" => '@',
        "period" => '.',
        "plus" => '+',
        "lowbar" => '_',
        "hyphen" | "dash" => '-',
        _ => return None,
    })
}

/// Finds the addresses of a list of mailboxes.
fn take_all(text: &str, depth: usize, found: &mut Vec<Found>) {
    for mailbox in mailboxes(text) {
        take_mailbox(mailbox, depth, found);
    }
}

/// Cuts at commas, semicolons, bars and line breaks that stand in no quotes, brackets or comments.
fn mailboxes(text: &str) -> Vec<&str> {
    let (mut all, mut start, mut at) = (Vec::new(), 0, 0);
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        let skipped = match c {
            '"' if begins_word(&text[start..at]) => quoted(rest),
            '<' => closed(rest, '>'),
            '(' => closed(rest, ')'),
            _ => None,
        };
        if let Some(skipped) = skipped {
            at += skipped;
            continue;
        }
        if matches!(c, ',' | ';' | '|' | '\t' | '\n' | '\r') {
            all.push(&text[start..at]);
            start = at + c.len_utf8();
        }
        at += c.len_utf8();
    }
    all.push(&text[start..]);
    all.retain(|mailbox| !trim(mailbox).is_empty());
    all
}

fn begins_word(before: &str) -> bool {
    before.chars().next_back().is_none_or(|c| c.is_whitespace() || matches!(c, ':' | '<' | '('))
}

/// Bytes of a quoted string at the beginning; `None` where it is never closed.
fn quoted(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// Bytes up to the closing bracket, if there is one before the next that opens.
fn closed(text: &str, close: char) -> Option<usize> {
    let open = text.chars().next()?;
    let end = text.char_indices().skip(1).find(|(_, c)| *c == close || *c == open)?;
    (end.1 == close).then(|| end.0 + close.len_utf8())
}

/// A mailbox has its address in angle brackets, or among its words.
fn take_mailbox(mailbox: &str, depth: usize, found: &mut Vec<Found>) {
    let stood = trim(mailbox);
    if is_valid(stood) {
        found.push(Found { stood: stood.to_owned(), address: stood.to_owned() });
        return;
    }
    if take_angles(stood, depth, found) {
        return;
    }
    let words = words(stood);
    let with_at = words.iter().filter(|word| word.contains('@'));
    let with_at: Vec<&str> = with_at.map(String::as_str).collect();
    match with_at[..] {
        [] => {}
        [word] => take_word(word, stood, depth, found),
        _ => with_at.iter().for_each(|word| take_word(word, word, depth, found)),
    }
}

/// What is in each pair of angle brackets that has an `@`, and addresses that stand beside them. The name
/// of one is often the address once more. `false`: there are no such brackets.
fn take_angles(mailbox: &str, depth: usize, found: &mut Vec<Found>) -> bool {
    let (mut inside, mut beside, mut rest) = (Vec::new(), Vec::new(), mailbox);
    while let Some(open) = rest.find('<') {
        let behind = &rest[open + 1..];
        let Some(close) = behind.find('>') else { break };
        if behind[..close].contains('@') {
            beside.extend(words(&rest[..open]).into_iter().map(|word| (inside.len(), word)));
            inside.push(stripped(&behind[..close], depth));
        }
        rest = &behind[close + 1..];
    }
    beside.extend(words(rest).into_iter().map(|word| (inside.len(), word)));
    let known: HashSet<String> =
        inside.iter().map(|address| address.to_ascii_lowercase()).collect();
    beside.retain_mut(|(_, word)| {
        *word = stripped(word, depth).to_owned();
        !known.contains(&word.to_ascii_lowercase()) && is_valid(word)
    });
    if let ([address], []) = (&inside[..], &beside[..]) {
        found.push(Found { stood: mailbox.to_owned(), address: (*address).to_owned() });
        return true;
    }
    let mut beside = beside.into_iter().peekable();
    for (no, address) in inside.iter().enumerate() {
        while let Some((_, word)) = beside.next_if(|(at, _)| *at <= no) {
            found.push(Found { stood: word.clone(), address: word });
        }
        found.push(Found { stood: (*address).to_owned(), address: (*address).to_owned() });
    }
    if !inside.is_empty() {
        found.extend(beside.map(|(_, word)| Found { stood: word.clone(), address: word }));
    }
    !inside.is_empty()
}

/// Cut at white space, without comments; quoted strings stay whole.
fn words(text: &str) -> Vec<String> {
    let (mut all, mut word, mut at) = (Vec::new(), String::new(), 0);
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        let skipped = match c {
            '"' if word.is_empty() || word.ends_with([':', '<', '(']) => quoted(rest),
            _ => None,
        };
        if let Some(skipped) = skipped {
            word.push_str(&rest[..skipped]);
            at += skipped;
            continue;
        }
        if c == '('
            && let Some(skipped) = closed(rest, ')')
        {
            // An address may be in it, where there is none beside it.
            let inside = rest[1..skipped - 1].split_whitespace();
            let inside: Vec<&str> = inside.filter(|word| word.contains('@')).collect();
            if !inside.is_empty() {
                all.push(std::mem::take(&mut word));
                all.extend(inside.into_iter().map(str::to_owned));
            }
            at += skipped;
            continue;
        }
        if c.is_whitespace() {
            all.push(std::mem::take(&mut word));
        } else {
            word.push(c);
        }
        at += c.len_utf8();
    }
    all.push(word);
    all.retain(|word| !word.is_empty());
    all
}

/// A word with an `@` in it.
fn take_word(word: &str, stood: &str, depth: usize, found: &mut Vec<Found>) {
    let address = stripped(word, depth);
    if is_valid(address) {
        found.push(Found { stood: stood.to_owned(), address: address.to_owned() });
        return;
    }
    // Quotes were around a list, or around a name and its address.
    if depth > 0
        && address.len() < word.len()
        && address.contains([' ', ',', ';', '<', '|', '\t', '\n'])
    {
        return take_all(address, depth - 1, found);
    }
    for between in ['/', '|', '&'] {
        let parts: Vec<&str> = address.split(between).map(|part| stripped(part, depth)).collect();
        if parts.len() > 1 && parts.iter().all(|part| is_valid(part)) {
            let parts = parts.into_iter().map(str::to_owned);
            found.extend(parts.map(|part| Found { stood: part.clone(), address: part }));
            return;
        }
    }
    found.push(Found { stood: stood.to_owned(), address: address.to_owned() });
}

/// Without what stands around an address; stops as soon as it is valid.
fn stripped(text: &str, depth: usize) -> &str {
    let mut text = trim(text);
    for _ in 0..2 * DEPTH.min(depth + 1) {
        if is_valid(text) {
            return text;
        }
        let before = text;
        text = trim(unwrapped(text));
        if text == before {
            break;
        }
    }
    text
}

/// Without one wrapper.
fn unwrapped(text: &str) -> &str {
    let prefix = text.split_once(':').filter(|(prefix, _)| {
        let prefix = prefix.trim_start_matches(['<', '"', '\'', '(']);
        PREFIXES.iter().any(|known| prefix.eq_ignore_ascii_case(known))
    });
    if let Some((_, rest)) = prefix {
        return rest;
    }
    for (open, close) in QUOTES {
        let inside = text.strip_prefix(open).and_then(|text| text.strip_suffix(close));
        if let Some(inside) = inside
            && !inside.is_empty()
        {
            return inside;
        }
    }
    let open =
        text.trim_start_matches(['<', '(', '[', '\u{ab}', '\u{201e}', '\u{201c}', '\u{2018}']);
    if open.len() < text.len() {
        return open;
    }
    let closed = text.trim_end_matches([
        ',', ';', '.', ':', '!', '?', '>', ')', ']', '"', '\'', '\u{bb}', '\u{201d}', '\u{2019}',
        '\u{201c}', '\\', '/',
    ]);
    if closed.len() < text.len() {
        return closed;
    }
    // The fields of a mailto: that was cut at its commas.
    match split(text) {
        Some((local, domain)) if domain.contains('?') => {
            let end = domain.find('?').unwrap_or(domain.len());
            &text[..local.len() + 1 + end]
        }
        _ => text,
    }
}

#[cfg(test)]
mod tests;
