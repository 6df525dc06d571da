//! A list of keys, read row by row on a thread of its own.
//!
//! Rows go through a channel of bounded length, [`AT_ONCE`] of them or [`BYTES`] at a time, and no row is longer
//! than [`LONGEST`]: memory does not grow with the list. What is wrong with a row is told without its values;
//! the first sign of secrets ends it all.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, bail, ensure};
use listmill_shared::app::key_import::AT_ONCE;
use listmill_shared::domain::key::import::{Row, WORDS, cell, names_secret};
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use crate::args::ImportFormat;

/// Bytes of a row.
const LONGEST: u64 = 64 << 10;
/// Bytes of rows that go through the channel together, about.
const BYTES: u64 = 1 << 20;
/// Bytes read at once.
const PIECE: usize = 64 << 10;

/// What to do with a list of secrets.
pub const ADVICE: &str = "a list of keys holds no key, only the SHA-256 of each, in a column \"sha256\". Hash them where \
    they are, and remove the list of secrets: docs/KEYS.md, \"Bring keys from another system\", has the line";

/// A row, or what is wrong with it.
pub type Line = (u64, Result<Row, String>);

/// Some rows in their order.
#[derive(Debug, Default)]
pub struct Part {
    pub rows: Vec<Line>,
    /// Bytes of the list up to here.
    pub read: u64,
}

/// Reads a list to its end, unless nobody listens any more.
pub fn read(
    input: impl Read,
    format: Option<ImportFormat>,
    parts: mpsc::Sender<Part>,
) -> Result<()> {
    let read = Arc::new(AtomicU64::new(0));
    let mut input = BufReader::with_capacity(PIECE, Counted { input, read: read.clone() });
    let head = input.fill_buf().context("the list cannot be read")?;
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    ensure!(!head.is_empty(), "the list is empty");
    let begins = head.iter().find(|byte| !byte.is_ascii_whitespace());
    let format = format.unwrap_or(match begins {
        Some(b'{') => ImportFormat::Ndjson,
        _ => ImportFormat::Csv,
    });
    let sink = Sink { parts, part: Part::default(), begun: 0, read };
    match format {
        ImportFormat::Csv => csv(input, sink),
        ImportFormat::Ndjson => ndjson(input, sink),
    }
}

/// Counts what is read.
struct Counted<R> {
    input: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buf)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// Nobody listens any more.
struct Gone;

struct Sink {
    parts: mpsc::Sender<Part>,
    part: Part,
    /// Bytes of the list before this part.
    begun: u64,
    read: Arc<AtomicU64>,
}

impl Sink {
    /// A row that was read up to here.
    fn take(&mut self, line: u64, row: Result<Row, String>) -> Result<(), Gone> {
        self.part.rows.push((line, row));
        let read = self.read.load(Ordering::Relaxed);
        if self.part.rows.len() >= AT_ONCE || read - self.begun >= BYTES {
            self.send()?;
        }
        Ok(())
    }

    fn send(&mut self) -> Result<(), Gone> {
        let mut part = std::mem::take(&mut self.part);
        part.read = self.read.load(Ordering::Relaxed);
        self.begun = part.read;
        self.parts.blocking_send(part).map_err(|_| Gone)
    }
}

/// Ends a record that does not end by itself: a quote that was left open.
struct Bounded<R> {
    input: R,
    left: Arc<AtomicU64>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.left.load(Ordering::Relaxed);
        if left == 0 {
            let what = format!("a row is longer than {LONGEST} bytes: was a quote left open?");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        let most = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let count = self.input.read(&mut buf[..most])?;
        self.left.store(left - count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

fn csv(input: impl Read, mut sink: Sink) -> Result<()> {
    let left = Arc::new(AtomicU64::new(LONGEST));
    let bounded = Bounded { input, left: left.clone() };
    let mut rows = csv::ReaderBuilder::new().flexible(true).from_reader(bounded);
    let header = rows.byte_headers().context("the first line cannot be read")?.clone();
    let words: Vec<String> =
        header.iter().map(|name| String::from_utf8_lossy(name).trim().to_owned()).collect();
    check_header(&words)?;
    let mut record = csv::ByteRecord::new();
    loop {
        left.store(LONGEST, Ordering::Relaxed);
        let line = rows.position().line();
        let more = rows.read_byte_record(&mut record);
        if !more.with_context(|| format!("line {line} cannot be read"))? {
            break;
        }
        let line = record.position().map_or(line, csv::Position::line);
        let row = map_of(&words, &record).and_then(Row::read);
        if sink.take(line, row).is_err() {
            return Ok(());
        }
    }
    let _ = sink.send();
    Ok(())
}

fn check_header(words: &[String]) -> Result<()> {
    for (at, word) in words.iter().enumerate() {
        ensure!(!names_secret(word), "the list has a column {word:?}: {ADVICE}");
        let known = || WORDS.join(", ");
        // What stands there may be a key, where a list has no line of names.
        ensure!(
            WORDS.contains(&word.as_str()),
            "column {} of the first line is none of: {}",
            at + 1,
            known()
        );
        ensure!(!words[..at].contains(word), "the column {word:?} is there twice");
    }
    for needed in ["sha256", "label"] {
        ensure!(
            words.iter().any(|word| word == needed),
            "the list has no column {needed:?}; its first line names its columns: sha256, label, …"
        );
    }
    Ok(())
}

fn map_of(words: &[String], record: &csv::ByteRecord) -> Result<Map<String, Value>, String> {
    if record.len() != words.len() {
        let (has, wants) = (record.len(), words.len());
        return Err(format!("the row has {has} cells, and the first line {wants}"));
    }
    let mut map = Map::new();
    for (word, cell_text) in words.iter().zip(record) {
        let text = std::str::from_utf8(cell_text).map_err(|_| format!("{word} must be UTF-8"))?;
        if let Some(value) = cell(word, text)? {
            map.insert(word.clone(), value);
        }
    }
    Ok(map)
}

fn ndjson(mut input: impl BufRead, mut sink: Sink) -> Result<()> {
    let mut text = Vec::new();
    let mut line = 0;
    loop {
        line += 1;
        text.clear();
        let some = (&mut input).take(LONGEST + 1).read_until(b'\n', &mut text);
        if some.with_context(|| format!("line {line} cannot be read"))? == 0 {
            break;
        }
        let too_long = text.len() as u64 > LONGEST && text.last() != Some(&b'\n');
        let row = match too_long {
            true => {
                skip_line(&mut input).with_context(|| format!("line {line} cannot be read"))?;
                Err(format!("the row is longer than {LONGEST} bytes"))
            }
            false => {
                let bytes =
                    text.strip_prefix(b"\xef\xbb\xbf").filter(|_| line == 1).unwrap_or(&text);
                if bytes.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                object(bytes)
            }
        };
        let row = match row {
            Ok(map) => {
                if let Some(name) = map.keys().find(|name| names_secret(name)) {
                    bail!("line {line} has a field {name:?}: {ADVICE}");
                }
                Row::read(map)
            }
            Err(what) => Err(what),
        };
        if sink.take(line, row).is_err() {
            return Ok(());
        }
    }
    let _ = sink.send();
    Ok(())
}

fn object(bytes: &[u8]) -> Result<Map<String, Value>, String> {
    serde_json::from_slice(bytes).map_err(|error| {
        // What serde_json says of a wrong type quotes it.
        match error.is_syntax() || error.is_eof() {
            true => format!("the row is no JSON, from column {} on", error.column()),
            false => String::from("the row must be a JSON object"),
        }
    })
}

fn skip_line(input: &mut impl BufRead) -> io::Result<()> {
    loop {
        let piece = input.fill_buf()?;
        let end = piece.iter().position(|byte| *byte == b'\n');
        let (used, done) = match end {
            Some(at) => (at + 1, true),
            None => (piece.len(), piece.is_empty()),
        };
        input.consume(used);
        if done {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    fn rows(text: &str, format: Option<ImportFormat>) -> Result<Vec<Line>> {
        let (sender, mut parts) = mpsc::channel(1_000);
        read(text.as_bytes(), format, sender)?;
        let mut all = Vec::new();
        while let Some(part) = parts.blocking_recv() {
            all.extend(part.rows);
        }
        Ok(all)
    }

    #[test]
    fn both_forms_say_the_same() {
        let csv = format!(
            "\u{feff}sha256,label,scopes,meta\n{HASH},shop,verify tasks:read,\"{{\"\"a\"\":1}}\"\n"
        );
        let json = format!(
            "\n{{\"sha256\":\"{HASH}\",\"label\":\"shop\",\"scopes\":[\"verify\",\"tasks:read\"],\
             \"meta\":{{\"a\":1}}}}"
        );
        let (one, other) = (rows(&csv, None).unwrap(), rows(&json, None).unwrap());
        assert_eq!((one[0].0, other[0].0), (2, 2));
        assert_eq!(one[0].1, other[0].1);
        assert_eq!(one[0].1.as_ref().unwrap().rest["label"], "shop");
    }

    #[test]
    fn a_bad_row_is_named_and_the_next_one_read() {
        let long = "x".repeat(LONGEST as usize);
        let text = format!(
            "{{\"sha256\":\"{HASH}\"}}\n[1]\n{{\"sha256\":\nrubbish\n{{\"note\":\"{long}\"}}\n\
             {{\"sha256\":\"12\"}}\n{{\"sha256\":\"{HASH}\"}}"
        );
        let all = rows(&text, Some(ImportFormat::Ndjson)).unwrap();
        let good: Vec<u64> = all.iter().filter(|row| row.1.is_ok()).map(|row| row.0).collect();
        assert_eq!((good, all.len()), (vec![1, 7], 7));
        let csv =
            format!("sha256,label,rate_limit\n{HASH},a,1\n{HASH},b\n{HASH},c,many\n{HASH},d,2\n");
        let all = rows(&csv, None).unwrap();
        let bad: Vec<_> =
            all.iter().filter_map(|row| Some((row.0, row.1.as_ref().err()?))).collect();
        assert_eq!(bad.len(), 2, "{bad:?}");
        assert_eq!((bad[0].0, bad[1].0), (3, 4));
        assert!(bad[0].1.contains("2 cells") && bad[1].1.contains("rate_limit"), "{bad:?}");
    }

    #[test]
    fn secrets_end_it_all_and_are_not_repeated() {
        for text in [
            "key,label\nhunter2,a\n",
            "Secret,label\nhunter2,a\n",
            "{\"sha256\":\"x\"}\n{\"token\":\"hunter2\"}\n",
            "hunter2,label\n",
        ] {
            let error = format!("{:#}", rows(text, None).unwrap_err());
            assert!(!error.contains("hunter2"), "{error}");
            assert!(error.contains("sha256"), "{error}");
        }
    }

    #[test]
    fn a_quote_that_is_left_open_does_not_take_all_memory() {
        let csv = format!("sha256,label\n{HASH},\"a\n{}", format!("{HASH},b\n").repeat(5_000));
        let error = format!("{:#}", rows(&csv, None).unwrap_err());
        assert!(error.contains("quote"), "{error}");
    }

    #[test]
    fn headers_name_what_is_known_once() {
        for header in ["sha256", "label", "sha256,label,label", "sha256,label,colour", ""] {
            assert!(rows(&format!("{header}\nx\n"), Some(ImportFormat::Csv)).is_err(), "{header}");
        }
    }
}
