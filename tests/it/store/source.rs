//! The text of the store's statements, read from its sources: literals, and those that `concat!` and the store's own
//! macros put together.
//!
//! Data: a source without its comments. Read is what the store uses and no more: macros of one arm whose parameters
//! are literals, the last of which may be repeated.

use std::collections::HashMap;

/// A macro of the store: what it takes, and what it becomes.
struct Macro {
    takes: Vec<String>,
    /// The last of them is repeated.
    repeats: bool,
    body: String,
}

/// The macros of one source, or of all.
#[derive(Default)]
pub struct Macros(HashMap<String, Macro>);

/// The source without comments.
pub fn without_comments(source: &str) -> String {
    let mut out = String::new();
    let (mut signs, mut quoted) = (source.chars().peekable(), false);
    while let Some(sign) = signs.next() {
        match sign {
            '\\' if quoted => {
                out.push(sign);
                out.extend(signs.next());
                continue;
            }
            '"' => quoted = !quoted,
            // The character of a quotation mark.
            '\'' if !quoted && signs.peek() == Some(&'"') => {
                signs.next();
                signs.next();
                continue;
            }
            '/' if !quoted && signs.peek() == Some(&'/') => {
                while signs.peek().is_some_and(|sign| *sign != '\n') {
                    signs.next();
                }
                continue;
            }
            _ => {}
        }
        out.push(sign);
    }
    out
}

/// Where `text` first has one of `ends` outside of strings and brackets.
fn end(text: &str, ends: &[char]) -> Option<usize> {
    let (mut depth, mut quoted, mut escaped) = (0_i32, false, false);
    for (at, sign) in text.char_indices() {
        if quoted {
            match sign {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => quoted = false,
                _ => {}
            }
            continue;
        }
        if depth == 0 && ends.contains(&sign) {
            return Some(at);
        }
        match sign {
            '"' => quoted = true,
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// What stands between commas.
fn split(mut text: &str) -> Vec<&str> {
    let mut all = Vec::new();
    while let Some(at) = end(text, &[',']) {
        all.push(text[..at].trim());
        text = &text[at + 1..];
    }
    all.push(text.trim());
    all.retain(|one| !one.is_empty());
    all
}

/// What a string literal holds.
fn literal(text: &str) -> Option<String> {
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    let (mut whole, mut signs) = (String::new(), inner.chars().peekable());
    while let Some(sign) = signs.next() {
        match (sign, signs.peek()) {
            ('"', _) => return None,
            // The rest of the line, and what the next one begins with, are no part of it.
            ('\\', Some('\n')) => {
                while signs.peek().is_some_and(|sign| sign.is_whitespace()) {
                    signs.next();
                }
            }
            ('\\', _) => whole.extend(signs.next()),
            (other, _) => whole.push(other),
        }
    }
    Some(whole)
}

impl Macros {
    /// Adds those of a source. `shadow`: also where there is one of the same name.
    pub fn add(&mut self, source: &str, shadow: bool) {
        for part in source.split("macro_rules! ").skip(1) {
            let Some((name, rest)) = part.split_once(" {") else { continue };
            let Some((head, body)) = rest.split_once("=> {") else { continue };
            let Some(close) = end(body, &['}']) else { continue };
            let takes: Vec<String> = head
                .split('$')
                .filter_map(|one| Some(one.split_once(":literal")?.0.to_owned()))
                .collect();
            let body = body[..close].trim().to_owned();
            let one = Macro { takes, repeats: head.contains("$("), body };
            if shadow || !self.0.contains_key(name) {
                self.0.insert(name.to_owned(), one);
            }
        }
    }

    /// The strings that an expression is: one, or those of an array. `None`: it is something else.
    pub fn strings(&self, expression: &str) -> Option<Vec<String>> {
        let expression = expression.trim();
        if let Some(all) = expression.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let each = split(all).into_iter().map(|one| self.string(one));
            return each.collect();
        }
        match self.expanded(expression) {
            Some(whole) => self.strings(&whole),
            None => Some(vec![self.string(expression)?]),
        }
    }

    fn string(&self, expression: &str) -> Option<String> {
        let expression = expression.trim();
        if expression.starts_with('"') {
            return literal(expression);
        }
        if let Some(rest) = expression.strip_prefix("concat!(") {
            let parts = split(rest.strip_suffix(')')?);
            return parts.into_iter().map(|part| self.string(part)).collect();
        }
        self.string(&self.expanded(expression)?)
    }

    /// A use of one of the macros, as what it becomes.
    fn expanded(&self, expression: &str) -> Option<String> {
        let (name, rest) = expression.split_once("!(")?;
        let found = self.0.get(name.trim())?;
        let given = split(rest.strip_suffix(')')?);
        let once = found.takes.len() - usize::from(found.repeats);
        let mut body = found.body.clone();
        for (name, value) in found.takes.iter().zip(&given).take(once) {
            body = body.replace(&format!("${name}"), value);
        }
        let Some(last) = found.takes.last().filter(|_| found.repeats) else { return Some(body) };
        while let Some((before, rest)) = body.split_once("$(") {
            let close = end(rest, &[')'])?;
            let repeated: String = given
                .iter()
                .skip(once)
                .map(|value| rest[..close].replace(&format!("${last}"), value))
                .collect();
            // Behind the bracket stands `+` or `*`.
            body = format!("{before}{repeated}{}", &rest[close + 2..]);
        }
        Some(body)
    }
}

/// Names of the constants that are a string or several, each with its expression.
pub fn constants(source: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    for part in source.split("const ").skip(1) {
        let Some((name, rest)) = part.split_once(": ") else { continue };
        let array = rest.starts_with("[&str; ");
        let Some((kind, rest)) = rest.split_once('=') else { continue };
        if (array || kind == "&str ")
            && let Some(close) = end(rest, &[';'])
        {
            found.push((name, rest[..close].trim()));
        }
    }
    found
}

#[test]
fn statements_are_put_together() {
    const SOURCE: &str = r#"
        macro_rules! columns {
            ($of:literal) => {
                concat!($of, ".a, ", $of, ".b") // a \"remark\"
            };
        }
        macro_rules! both {
            ($first:literal $(, $rest:literal)+) => {
                [concat!($first $(, "x", $rest)+), concat!($first $(, "y", $rest)+)]
            };
        }
        const ONE: &str = concat!("SELECT ", columns!("k"), " FROM k WHERE a = ';\\'");
        const TWO: [&str; 2] = both!("FROM ", " JOIN ", " ON");
        const NONE: usize = 5;
        const THREE: [&str; 2] = [ONE, ONE];
    "#;
    let source = without_comments(SOURCE);
    assert!(!source.contains("remark"));
    let mut macros = Macros::default();
    macros.add(&source, true);
    let all: Vec<_> =
        constants(&source).into_iter().map(|(name, of)| (name, macros.strings(of))).collect();
    let texts = |texts: &[&str]| Some(texts.iter().map(|text| (*text).to_owned()).collect());
    assert_eq!(
        all,
        [
            ("ONE", texts(&["SELECT k.a, k.b FROM k WHERE a = ';\\'"])),
            ("TWO", texts(&["FROM x JOIN x ON", "FROM y JOIN y ON"])),
            ("THREE", None),
        ]
    );
}
