//! What a text is by its first lines, where that was not said or says little.

use super::error::ReadError;
use super::{Format, headers};
use crate::domain::address::trim;
use crate::domain::spelling::is_comment;

/// Bytes of text that are looked at.
pub(super) const HEAD: usize = 4 << 10;
/// Headers of a mail that say that it is one.
const MAIL: [&str; 13] = [
    "from",
    "to",
    "cc",
    "date",
    "subject",
    "received",
    "return-path",
    "message-id",
    "mime-version",
    "delivered-to",
    "reply-to",
    "x-mozilla-status",
    "content-type",
];

/// The format of a text that begins like this.
pub(super) fn format(head: &str, said: &Format) -> Result<Format, ReadError> {
    let Some((column, delimiter)) = loose(said) else { return Ok(said.clone()) };
    let text = head.trim_start_matches('\u{feff}').trim_start();
    refuse_markup(text)?;
    let lines = || text.lines().map(str::trim_end).filter(|line| !line.is_empty());
    let first = lines().next().unwrap_or_default();
    if first.eq_ignore_ascii_case("begin:vcard") {
        return Ok(Format::Cards);
    }
    if is_ldif(lines()) {
        return Ok(Format::Ldif);
    }
    if is_mail(text) {
        return Ok(Format::Mail);
    }
    let table = |delimiter: Option<u8>| Format::Csv { column: column.clone(), delimiter };
    if matches!(said, Format::Csv { .. }) {
        return Ok(said.clone());
    }
    if matches!(said, Format::Any { .. }) && first.starts_with(['{', '[']) {
        return Ok(json(first));
    }
    let separated = || first.bytes().any(|b| b",;\t|".contains(&b));
    Ok(match delimiter.or_else(|| is_table(lines())) {
        Some(delimiter) => table(Some(delimiter)),
        None if column.is_some() => table(None),
        // What has its addresses in one column has them in each line.
        None if matches!(said, Format::Any { .. }) && (separated() || first.starts_with('"')) => {
            table(None)
        }
        None => Format::Text,
    })
}

/// Column and delimiter of what may turn out to be another text than it was said to be.
fn loose(said: &Format) -> Option<(Option<String>, Option<u8>)> {
    match said {
        Format::Any { column, delimiter, .. } | Format::Csv { column, delimiter } => {
            Some((column.clone(), *delimiter))
        }
        Format::Text => Some((None, None)),
        _ => None,
    }
}

fn refuse_markup(text: &str) -> Result<(), ReadError> {
    let begins =
        |with: &str| text.get(..with.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(with));
    let what = match () {
        () if ["<!doctype html", "<html", "<table", "<head", "<body", "<div"]
            .into_iter()
            .any(begins) =>
        {
            "a web page (HTML), which some programs save as .xls"
        }
        () if begins("<?xml") => "an XML document",
        () => return Ok(()),
    };
    let hint = "Open it in a spreadsheet program, save it as a workbook (.xlsx) or as CSV (UTF-8), and send that.";
    Err(ReadError::NotAList { what: what.to_owned(), hint })
}

/// The delimiter of a text that is a table: a tab, or one that stands between headers.
fn is_table<'a>(lines: impl Iterator<Item = &'a str>) -> Option<u8> {
    let first = lines.into_iter().find(|line| !is_comment(line))?;
    if let Some(delimiter) = declared_delimiter(first) {
        return Some(delimiter);
    }
    if first.contains('\t') {
        return Some(b'\t');
    }
    if first.contains('@') {
        return None;
    }
    b";,|".iter().copied().find(|delimiter| {
        let mut cells = first.split(char::from(*delimiter));
        first.as_bytes().contains(delimiter)
            && cells.any(|cell| headers::is_known(trim(cell).trim_matches('"')))
    })
}

/// Excel's first line, that names the delimiter: `sep=;`.
pub(super) fn declared_delimiter(line: &str) -> Option<u8> {
    let line = line.trim_start_matches('\u{feff}').trim_end_matches(['\r', '\n']);
    let line = line.strip_prefix('"').and_then(|line| line.strip_suffix('"')).unwrap_or(line);
    let (name, delimiter) = line.split_at_checked("sep=".len())?;
    match delimiter.as_bytes() {
        [one] if name.eq_ignore_ascii_case("sep=") && !one.is_ascii_alphanumeric() => Some(*one),
        _ => None,
    }
}

/// One value over several lines, or a value a line.
fn json(first: &str) -> Format {
    match serde_json::from_str::<serde_json::Value>(first.trim()) {
        // A whole object in the first line: one of many, unless it is the only one that there can be.
        Ok(serde_json::Value::Object(object)) if !object.contains_key("emails") => Format::Ndjson,
        _ => Format::Json,
    }
}

fn is_ldif<'a>(lines: impl Iterator<Item = &'a str>) -> bool {
    let mut lines = lines.filter(|line| !line.starts_with('#')).map(str::to_ascii_lowercase);
    let dn = |line: Option<String>| line.is_some_and(|line| line.starts_with("dn:"));
    match lines.next() {
        Some(first) if first.starts_with("version:") => dn(lines.next()),
        first => dn(first),
    }
}

/// Two headers of a mail at least, one of them with an address; or the line that begins each mail of an mbox.
fn is_mail(text: &str) -> bool {
    let mut lines = text.lines();
    let from_line = |line: &str| line.starts_with("From ") && line.split_whitespace().count() >= 4;
    if lines.clone().next().is_some_and(from_line) {
        lines.next();
    }
    let (mut known, mut addresses) = (0, 0);
    for line in lines.take_while(|line| !line.trim().is_empty()) {
        if line.starts_with([' ', '\t']) {
            continue;
        }
        let Some((name, _)) = line.split_once(':') else { return false };
        if name.is_empty() || name.contains(char::is_whitespace) {
            return false;
        }
        let name = name.to_ascii_lowercase();
        known += usize::from(MAIL.contains(&name.as_str()));
        addresses += usize::from(matches!(name.as_str(), "from" | "to" | "return-path"));
    }
    known >= 3 && addresses > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(head: &str) -> Format {
        format(head, &Format::any()).unwrap()
    }

    fn table(delimiter: Option<u8>) -> Format {
        Format::Csv { column: None, delimiter }
    }

    #[test]
    fn a_text_is_what_its_beginning_says() {
        for (head, wanted) in [
            ("anna@x.example\nbert@x.example\n", Format::Text),
            ("\u{feff}\n anna@x.example", Format::Text),
            ("email\nanna@x.example\n", Format::Text),
            ("", Format::Text),
            ("Anna;anna@x.example\n", table(None)),
            ("\"anna@x.example\"\n", table(None)),
            ("Name,Email\nA,a@x.example\n", table(Some(b','))),
            ("sep=;\nName;Email\n", table(Some(b';'))),
            ("Name\tEmail\nA\ta@x.example\n", table(Some(b'\t'))),
            ("# May\nName;E-Mail\n", table(Some(b';'))),
            ("{\"email\": \"anna@x.example\"}\n{", Format::Ndjson),
            ("{\"emails\": [\"anna@x.example\"]}", Format::Json),
            ("{\n\"emails\": [\n", Format::Json),
            ("[\"anna@x.example\"]", Format::Json),
            ("BEGIN:VCARD\r\nVERSION:3.0\r\n", Format::Cards),
            ("version: 1\n\ndn: cn=Ada\nmail: a@x.example\n", Format::Ldif),
            ("dn: cn=Ada\nmail: a@x.example\n", Format::Ldif),
            (
                "From a@x.example Mon May 1 10:00:00 2026\nFrom: a@x.example\nTo: b@x.example\nDate: x\n\n",
                Format::Mail,
            ),
            ("Received: by x\n\tid 1\nFrom: A <a@x.example>\nSubject: hi\n\nHello", Format::Mail),
        ] {
            assert_eq!(any(head), wanted, "{head:?}");
        }
    }

    #[test]
    fn what_was_said_holds_where_it_says_enough() {
        assert_eq!(format("{\"a\":1}", &Format::Text).unwrap(), Format::Text);
        assert_eq!(format("a@x.example;b@x.example", &Format::Text).unwrap(), Format::Text);
        assert_eq!(format("a@x.example", &table(None)).unwrap(), table(None));
        assert_eq!(format("Name\tEmail", &Format::Text).unwrap(), table(Some(b'\t')));
        assert_eq!(format("BEGIN:VCARD\n", &Format::Text).unwrap(), Format::Cards);
        assert_eq!(format("Name: Ada\nTo: b\n", &Format::Text).unwrap(), Format::Text);
        for page in ["<!DOCTYPE html><html>", "  <TABLE>", "<?xml version=\"1.0\"?>"] {
            let Err(ReadError::NotAList { .. }) = format(page, &Format::any()) else {
                panic!("{page}")
            };
        }
        assert!(format("<ada@x.example>", &Format::Text).is_ok());
    }

    #[test]
    fn excel_says_what_is_between_its_cells() {
        for (line, wanted) in [
            ("sep=;", Some(b';')),
            ("SEP=,\r", Some(b',')),
            ("\u{feff}sep=\t", Some(b'\t')),
            ("\"sep=;\"", Some(b';')),
            ("sep=", None),
            ("sep=ab", None),
            ("seq=;", None),
            ("é", None),
        ] {
            assert_eq!(declared_delimiter(line), wanted, "{line:?}");
        }
    }
}
