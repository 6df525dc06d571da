//! What is to be verified: one list, or addresses.
//!
//! A list is what its name says (`.csv .tsv .txt .ndjson .jsonl .json .xlsx .vcf .ldif .eml .mbox`, each also with
//! `.gz`, `.zst` or `.zip`), or else what its bytes say when it is read; whether it is packed, they say alone.

use std::fmt::Display;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use listmill_shared::app::submit::read::{Format, Said, encoding};
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

use crate::args::{InputFormat, VerifyArgs};
use crate::output::complain;

/// Bytes read at once.
const PIECE: usize = 64 << 10;

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
                let said = Said::default();
                let bytes = Source::Text(text.into());
                return Ok(List { format: Format::Text, said, allow_invalid: true, bytes });
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
        let format = in_full(args.input_format.or_else(|| by_name(&name)), args).context(name)?;
        let charset = args.charset.as_deref();
        let known = |charset: &str| {
            encoding(charset).with_context(|| format!("the charset {charset} is not known"))
        };
        let said = Said { encoding: charset.map(known).transpose()?, collapse: args.collapse };
        let bytes = Source::Reader(reader);
        Ok(List { format, said, allow_invalid: args.allow_invalid, bytes })
    }
}

/// A list that was opened.
pub struct List {
    pub format: Format,
    /// What else was said of it.
    pub said: Said,
    /// Take it however much of it is no address.
    pub allow_invalid: bool,
    bytes: Source,
}

enum Source {
    Text(Bytes),
    Reader(Box<dyn AsyncRead + Send + Unpin>),
}

impl List {
    /// Its bytes, as they come.
    pub fn bytes(self) -> impl Stream<Item = std::io::Result<Bytes>> + Send {
        let (text, reader) = match self.bytes {
            Source::Text(text) => (Some(Ok(text)), None),
            Source::Reader(reader) => (None, Some(ReaderStream::with_capacity(reader, PIECE))),
        };
        stream::iter(text).chain(stream::iter(reader).flatten())
    }
}

/// A name without the endings that are known.
pub fn stem(name: &str) -> &str {
    let unpacked = unpacked(name);
    let known = [
        "csv", "tsv", "tab", "txt", "ndjson", "jsonl", "json", "xlsx", "xlsm", "vcf", "ldif",
        "eml", "mbox",
    ];
    known.iter().find_map(|known| strip(unpacked, known)).unwrap_or(unpacked)
}

/// Without the ending of what it is packed with.
fn unpacked(name: &str) -> &str {
    ["gz", "zst", "zip"].iter().find_map(|packed| strip(name, packed)).unwrap_or(name)
}

/// `name` without `.ending`, in any case.
pub fn strip<'a>(name: &'a str, ending: &str) -> Option<&'a str> {
    let (stem, last) = name.rsplit_once('.')?;
    (last.eq_ignore_ascii_case(ending) && !stem.is_empty()).then_some(stem)
}

/// What its name says.
pub fn by_name(name: &str) -> Option<InputFormat> {
    match unpacked(name).rsplit_once('.')?.1.to_ascii_lowercase().as_str() {
        "csv" => Some(InputFormat::Csv),
        "tsv" | "tab" => Some(InputFormat::Tsv),
        "txt" => Some(InputFormat::Text),
        "ndjson" | "jsonl" => Some(InputFormat::Ndjson),
        "json" => Some(InputFormat::Json),
        "xlsx" | "xlsm" | "xls" | "ods" => Some(InputFormat::Xlsx),
        "vcf" | "vcard" => Some(InputFormat::Vcard),
        "ldif" | "ldi" => Some(InputFormat::Ldif),
        "eml" | "mbox" => Some(InputFormat::Mail),
        _ => None,
    }
}

fn in_full(format: Option<InputFormat>, args: &VerifyArgs) -> Result<Format> {
    let (column, sheet) = (args.column.clone(), args.sheet.clone());
    let Some(format) = format else {
        return Ok(Format::Any { column, delimiter: None, sheet });
    };
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
        InputFormat::Vcard => Format::Cards,
        InputFormat::Ldif => Format::Ldif,
        InputFormat::Mail => Format::Mail,
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
            InputFormat::Vcard => "vCard",
            InputFormat::Ldif => "LDIF",
            InputFormat::Mail => "mail",
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
}
