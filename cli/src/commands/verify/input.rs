//! What is to be verified: one list, or addresses.
//!
//! A list is what its name says (`.csv .tsv .txt .ndjson .jsonl .json .xlsx`, each also with `.gz`), or
//! else what its beginning looks like; whether it is packed, or a workbook, its first bytes say.

use std::fmt::Display;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use futures::{Stream, StreamExt, stream};
use listmill_shared::app::submit::looks::{Looks, looks};
use listmill_shared::app::submit::read::Format;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::io::ReaderStream;

use crate::args::{InputFormat, VerifyArgs};
use crate::output::complain;

/// Bytes that are looked at to find out what a list is.
pub const HEAD: usize = 16 << 10;
/// Bytes read at once.
const PIECE: usize = 64 << 10;
/// RFC 1952, 2.3.1.
pub const GZIP: &[u8] = &[0x1f, 0x8b];

/// What the arguments name.
#[derive(Debug, PartialEq, Eq)]
pub enum Subject {
    File(PathBuf),
    Stdin,
    Addresses(Vec<String>),
}

impl Subject {
    /// A file that is there, `-`, or addresses; anything else is an error that says what is wanted.
    pub fn find(inputs: &[String]) -> Result<Self> {
        if let [one] = inputs {
            let path = Path::new(one);
            ensure!(!path.is_dir(), "{one} is a folder; name a list in it");
            if one == "-" {
                return Ok(Subject::Stdin);
            }
            if path.exists() {
                return Ok(Subject::File(path.to_owned()));
            }
        }
        for input in inputs {
            let there = input == "-" || Path::new(input).exists();
            ensure!(
                !there || input.contains('@'),
                "{input}: one list at a time, and not together with addresses"
            );
            ensure!(
                input.contains('@'),
                "{input}: there is no such file, and it is no address, which would have an @. Name a \
                 list (listmill verify contacts.csv), - for stdin, or addresses (listmill verify \
                 anna@example.com)"
            );
        }
        Ok(Subject::Addresses(inputs.to_vec()))
    }

    /// For people, and the task's name.
    pub fn name(&self) -> String {
        match self {
            Subject::File(path) => path.file_name().unwrap_or_default().to_string_lossy().into(),
            Subject::Stdin => String::from("stdin"),
            Subject::Addresses(addresses) => format!("{} addresses", addresses.len()),
        }
    }

    /// Opens it, and finds out what it is.
    pub async fn open(self, args: &VerifyArgs) -> Result<List> {
        let reader: Box<dyn AsyncRead + Send + Unpin> = match &self {
            Subject::Addresses(addresses) => {
                let text = addresses.join("\n").into_bytes();
                let format = Format::Text;
                return Ok(List { format, gzip: false, head: text.into(), rest: None });
            }
            Subject::Stdin => {
                if std::io::stdin().is_terminal() {
                    complain("Reading the list from the terminal; Ctrl-D ends it");
                }
                Box::new(tokio::io::stdin())
            }
            Subject::File(path) => {
                let file = tokio::fs::File::open(path).await;
                Box::new(file.with_context(|| format!("cannot read {}", path.display()))?)
            }
        };
        let name = self.name();
        List::begin(&name, reader, args).await.with_context(|| name.clone())
    }
}

/// A list that was opened.
pub struct List {
    pub format: Format,
    pub gzip: bool,
    head: Bytes,
    rest: Option<Box<dyn AsyncRead + Send + Unpin>>,
}

impl List {
    async fn begin(
        name: &str,
        mut reader: Box<dyn AsyncRead + Send + Unpin>,
        args: &VerifyArgs,
    ) -> Result<Self> {
        let mut head = Vec::with_capacity(HEAD);
        while head.len() < HEAD && (&mut reader).take(HEAD as u64).read_buf(&mut head).await? > 0 {}
        let gzip = head.starts_with(GZIP);
        let unpacked = if gzip { unpack(&head) } else { head.clone() };
        let format = match args.input_format.or_else(|| by_name(name)) {
            // Whatever it is called: an archive is no text, and what is in it is looked at when it is read.
            _ if looks(&unpacked) == Looks::Zip => InputFormat::Xlsx,
            Some(format) => format,
            None => by_beginning(&unpacked, args.column.is_some()),
        };
        let format = in_full(format, args)?;
        Ok(Self { format, gzip, head: head.into(), rest: Some(reader) })
    }

    /// Its bytes, as they come.
    pub fn bytes(self) -> impl Stream<Item = std::io::Result<Bytes>> + Send {
        let rest = self.rest.map(|rest| ReaderStream::with_capacity(rest, PIECE));
        stream::iter([Ok(self.head)]).chain(stream::iter(rest).flatten())
    }
}

/// A name without the endings that are known.
pub fn stem(name: &str) -> &str {
    let unpacked = strip(name, "gz").unwrap_or(name);
    let known = ["csv", "tsv", "tab", "txt", "ndjson", "jsonl", "json", "xlsx", "xlsm"];
    known.iter().find_map(|known| strip(unpacked, known)).unwrap_or(unpacked)
}

/// `name` without `.ending`, in any case.
pub fn strip<'a>(name: &'a str, ending: &str) -> Option<&'a str> {
    let (stem, last) = name.rsplit_once('.')?;
    (last.eq_ignore_ascii_case(ending) && !stem.is_empty()).then_some(stem)
}

/// What its name says.
pub fn by_name(name: &str) -> Option<InputFormat> {
    let name = strip(name, "gz").unwrap_or(name);
    match name.rsplit_once('.')?.1.to_ascii_lowercase().as_str() {
        "csv" => Some(InputFormat::Csv),
        "tsv" | "tab" => Some(InputFormat::Tsv),
        "txt" => Some(InputFormat::Text),
        "ndjson" | "jsonl" => Some(InputFormat::Ndjson),
        "json" => Some(InputFormat::Json),
        "xlsx" | "xlsm" | "xls" | "ods" => Some(InputFormat::Xlsx),
        _ => None,
    }
}

/// A text has an address and nothing else in its first line; a table has a header or several cells.
pub fn by_beginning(head: &[u8], has_column: bool) -> InputFormat {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    let line = head.split(|b| *b == b'\n').next().unwrap_or(head);
    if line.starts_with(b"{") {
        return match serde_json::from_slice::<serde_json::Value>(line) {
            Ok(object) if object.get("emails").is_none() => InputFormat::Ndjson,
            _ => InputFormat::Json,
        };
    }
    let cells = line.iter().any(|b| b",;\t|\"".contains(b));
    match line.contains(&b'@') && !cells && !has_column {
        true => InputFormat::Text,
        false => InputFormat::Csv,
    }
}

/// As much as its first bytes unpack to.
pub fn unpack(head: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    // It ends in the middle, so an error is certain; what came before it counts.
    let _ = MultiGzDecoder::new(head).take(HEAD as u64).read_to_end(&mut plain);
    plain
}

fn in_full(format: InputFormat, args: &VerifyArgs) -> Result<Format> {
    let (column, sheet) = (args.column.clone(), args.sheet.clone());
    Ok(match format {
        InputFormat::Xlsx => Format::Workbook { column, sheet },
        _ if sheet.is_some() => bail!("--sheet is for workbooks; this list is {format}"),
        InputFormat::Csv => Format::Csv { column, delimiter: None },
        InputFormat::Tsv => Format::Csv { column, delimiter: Some(b'\t') },
        _ if column.is_some() => {
            bail!("--column is for tables (CSV, TSV, XLSX); this list is {format}")
        }
        InputFormat::Text => Format::Text,
        InputFormat::Ndjson => Format::Ndjson,
        InputFormat::Json => Format::Json,
    })
}

impl Display for InputFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            InputFormat::Csv => "CSV",
            InputFormat::Tsv => "TSV",
            InputFormat::Text => "text",
            InputFormat::Ndjson => "NDJSON",
            InputFormat::Json => "JSON",
            InputFormat::Xlsx => "XLSX",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(inputs: &[&str]) -> Result<Subject> {
        let inputs: Vec<String> = inputs.iter().map(|input| (*input).to_owned()).collect();
        Subject::find(&inputs)
    }

    #[test]
    fn arguments_are_one_list_or_addresses() {
        assert_eq!(find(&["-"]).unwrap(), Subject::Stdin);
        assert_eq!(find(&["Cargo.toml"]).unwrap(), Subject::File("Cargo.toml".into()));
        let both = ["a@x.example", "b@x.example"];
        assert_eq!(find(&both).unwrap(), Subject::Addresses(both.map(String::from).to_vec()));
        for (wrong, says) in [
            (&["src"][..], "is a folder"),
            (&["nowhere.csv"], "no such file, and it is no address"),
            (&["a@x.example", "nowhere"], "no such file"),
            (&["a@x.example", "Cargo.toml"], "one list at a time"),
            (&["Cargo.toml", "Cargo.toml"], "one list at a time"),
            (&["a@x.example", "-"], "one list at a time"),
        ] {
            let error = find(wrong).unwrap_err().to_string();
            assert!(error.contains(says), "{wrong:?}: {error}");
        }
    }

    #[test]
    fn a_list_is_what_its_name_says() {
        for (name, format) in [
            ("Contacts.CSV", Some(InputFormat::Csv)),
            ("a.tsv.gz", Some(InputFormat::Tsv)),
            ("a.b.txt", Some(InputFormat::Text)),
            ("a.jsonl", Some(InputFormat::Ndjson)),
            ("a.json", Some(InputFormat::Json)),
            ("a.XLSX", Some(InputFormat::Xlsx)),
            ("list.gz", None),
            ("list", None),
        ] {
            assert_eq!(by_name(name), format, "{name}");
        }
        assert_eq!(
            ["a.csv.gz", "a.b.txt", "a", ".csv", "a.dat"].map(stem),
            ["a", "a.b", "a", ".csv", "a.dat"]
        );
    }

    #[test]
    fn a_list_without_a_name_is_what_it_looks_like() {
        for (head, format) in [
            ("anna@x.example\nbert@x.example\n", InputFormat::Text),
            ("\u{feff}\n anna@x.example", InputFormat::Text),
            ("email\nanna@x.example\n", InputFormat::Csv),
            ("Anna;anna@x.example\n", InputFormat::Csv),
            ("\"anna@x.example\"\n", InputFormat::Csv),
            ("{\"email\": \"anna@x.example\"}\n{", InputFormat::Ndjson),
            ("{\"emails\": [\"anna@x.example\"]}", InputFormat::Json),
            ("{\n\"emails\": [\n", InputFormat::Json),
            ("", InputFormat::Csv),
        ] {
            assert_eq!(by_beginning(head.as_bytes(), false), format, "{head:?}");
        }
        assert_eq!(by_beginning(b"anna@x.example\n", true), InputFormat::Csv);
    }
}
