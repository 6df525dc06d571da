mod people;

use std::collections::HashMap;
use std::io::{self, Read};

use proptest::prelude::*;

use super::*;
use crate::domain::address;
use crate::domain::payload::{Row, decode_batch, decode_rows};

/// A list as it was read: addresses by seq, rows in file order.
#[derive(Debug)]
struct List {
    addresses: Vec<(String, bool)>,
    rows: Vec<(Option<u64>, String)>,
    blocks: usize,
    summary: Summary,
}

fn small() -> Limits {
    Limits {
        addresses: 1000,
        line_bytes: 4096,
        batch_size: 3,
        batch_bytes: 200,
        chunk_bytes: 150,
        section_bytes: 40,
    }
}

fn read_with(format: &Format, input: impl Read, limits: &Limits) -> Result<List, ReadError> {
    read_said(format, Said::default(), input, limits)
}

fn read_said(
    format: &Format,
    said: Said,
    input: impl Read,
    limits: &Limits,
) -> Result<List, ReadError> {
    let (mut addresses, mut rows, mut blocks) = (Vec::new(), Vec::new(), 0);
    let (mut batch_no, mut rows_no) = (0, 0);
    let summary = read(format, said, input, limits, [5; 32], &mut |block| {
        blocks += 1;
        match block {
            Block::Batch { no, first_seq, addresses: count, chargeable, payload } => {
                let batch = decode_batch(&payload).unwrap();
                assert_eq!((no, first_seq), (batch_no, addresses.len() as u64));
                assert_eq!(count as usize, batch.len());
                assert!(count <= limits.batch_size);
                assert_eq!(chargeable as usize, batch.iter().filter(|e| e.valid).count());
                addresses.extend(batch.iter().map(|e| (e.text.to_owned(), e.valid)));
                batch_no += 1;
            }
            Block::Rows { no, payload } => {
                assert_eq!(no, rows_no);
                rows_no += 1;
                for row in decode_rows(&payload).unwrap().iter() {
                    let line = match row {
                        Row::Blank(line) | Row::Record(_, line) => Some(line.to_vec()),
                        Row::Address(_) => None,
                    };
                    rows.push((row.seq(), line.map(|line| String::from_utf8(line).unwrap())));
                }
            }
        }
        Ok(())
    })?;
    let rows: Vec<(Option<u64>, String)> = rows
        .into_iter()
        .map(|(seq, line)| {
            let address = || addresses[seq.expect("a seq") as usize].0.clone();
            (seq, line.unwrap_or_else(address))
        })
        .collect();
    assert_eq!(summary.unique, addresses.len() as u64);
    assert_eq!(summary.submitted, summary.unique + summary.duplicates);
    assert_eq!(summary.submitted, rows.iter().filter(|(seq, _)| seq.is_some()).count() as u64);
    assert_eq!(summary.invalid_syntax, addresses.iter().filter(|(_, valid)| !valid).count() as u64);
    Ok(List { addresses, rows, blocks, summary })
}

fn csv() -> Format {
    Format::Csv { column: None, delimiter: None }
}

fn column(name: &str) -> Format {
    Format::Csv { column: Some(name.to_owned()), delimiter: None }
}

#[track_caller]
fn list(format: Format, text: &str) -> List {
    read_with(&format, text.as_bytes(), &small()).unwrap()
}

/// Code and message of the refusal.
#[track_caller]
fn refused(format: Format, bytes: impl AsRef<[u8]>) -> (&'static str, String) {
    let error = read_with(&format, bytes.as_ref(), &small()).unwrap_err();
    (error.code(), error.to_string())
}

#[track_caller]
fn assert_refused(format: Format, bytes: impl AsRef<[u8]>, code: &str, says: &str) {
    let (found, message) = refused(format, bytes);
    assert_eq!(found, code, "{message}");
    assert!(message.contains(says), "{message:?} does not say {says:?}");
}

impl List {
    fn texts(&self) -> Vec<&str> {
        self.addresses.iter().map(|(text, _)| text.as_str()).collect()
    }

    fn seqs(&self) -> Vec<Option<u64>> {
        self.rows.iter().map(|(seq, _)| *seq).collect()
    }

    fn lines(&self) -> Vec<&str> {
        self.rows.iter().map(|(_, line)| line.as_str()).collect()
    }

    fn header(&self) -> Option<&str> {
        self.summary.header.as_deref().map(|line| str::from_utf8(line).unwrap())
    }
}

#[test]
fn csv_keeps_rows_and_numbers_addresses() {
    let got = list(
        csv(),
        "\u{feff}Name;E-Mail\r\n\"Smith; \"\"K\"\"\";K@Example.com\r\n\r\nLee; \r\n\
         Short\r\nA;K@example.COM;more\r\n\"two\nlines\";bad\r\n",
    );
    assert_eq!(got.header(), Some("Name;E-Mail"));
    assert_eq!(got.summary.delimiter, b';');
    assert_eq!(got.addresses, [("K@example.com".into(), true), ("bad".into(), false)]);
    assert_eq!(got.seqs(), [Some(0), None, None, Some(0), Some(1)]);
    assert_eq!(
        got.lines(),
        [
            "\"Smith; \"\"K\"\"\";K@Example.com",
            "Lee; ",
            "Short;",
            "A;K@example.COM;more",
            "\"two\nlines\";bad",
        ]
    );
    assert_eq!((got.summary.submitted, got.summary.duplicates), (3, 1));
}

#[test]
fn csv_finds_delimiter_header_and_column() {
    for (text, want) in [
        ("id\temail\n1\ta@x.example\n", "a@x.example"),
        ("id|name|mail\n1|b@no.example|a@x.example\n", "a@x.example"),
        ("a@x.example\nb@x.example", "a@x.example"),
        ("1,a@x.example\n2,\n", "a@x.example"),
        ("x,Kontakt\nb@y.example,a@x.example\n,c@x.example\n", "a@x.example"),
        ("\"a,b\";\"c,d\";Email\n1;2;a@x.example", "a@x.example"),
        ("\n\n\"email\"\n\"a@x.example\"\n", "a@x.example"),
        ("email\ra@x.example\r", "a@x.example"),
    ] {
        assert_eq!(list(csv(), text).texts()[0], want, "{text}");
    }
    let text = "One,Two,3\na@x.example,b@x.example,c@x.example\n";
    assert_eq!(list(column(" two "), text).texts(), ["b@x.example"]);
    assert_eq!(list(column("3"), text).texts(), ["c@x.example"]);
    assert_eq!(list(column("1"), text).texts(), ["a@x.example"]);
    assert_eq!(list(column("2"), "x,a@x.example\n").header(), None);
    assert_eq!(list(column("a@x.example"), "a@x.example\nb@x.example").texts(), ["b@x.example"]);
    let given = Format::Csv { column: None, delimiter: Some(b':') };
    assert_eq!(list(given, "a,b:a@x.example").texts(), ["a@x.example"]);
    assert_refused(column("four"), text, "column_not_found", "\"One\", \"Two\", \"3\"");
    assert_refused(column("4"), text, "column_not_found", "no column \"4\"");
    assert_refused(csv(), "One,Two\nx,y\n", "no_address_column", "\"One\", \"Two\"");
    assert_refused(csv(), "", "empty_list", "no address");
    assert_refused(csv(), "email\n\n", "empty_list", "no address");
    assert_refused(csv(), "email,x\n ,1\n", "empty_list", "no address");
    let bad = Format::Csv { column: None, delimiter: Some(b'"') };
    assert_refused(bad, text, "invalid_field", "delimiter");
}

#[test]
fn text_and_ndjson() {
    let got = list(Format::Text, "\u{feff}#a@x.example\r\n\n  \n b,c@x.example\n#a@X.example");
    assert_eq!(got.texts(), ["#a@x.example", "c@x.example"]);
    assert_eq!(got.seqs(), [Some(0), Some(1), Some(0)]);
    assert_eq!(got.lines()[1], "\" b,c@x.example\"");
    let got = list(
        Format::Ndjson,
        "\"a\\u0040x.example\"\r\n\n{\"id\":[1,{}],\"EMAIL\":\"b@x.example\"}\n{\"email\":\"\"}",
    );
    assert_eq!(got.texts(), ["a@x.example", "b@x.example"]);
    assert_eq!(got.seqs(), [Some(0), Some(1), None]);
    for (line, code, says) in [
        ("{\"email\":1}", "email_not_string", "\"email\" in line 2 is a number"),
        ("{\"email\":null}", "email_not_string", "is null (line 2, column"),
        ("[]", "email_not_string", "Line 2 is an array"),
        ("{\"mail\":\"\"}", "email_missing", "Line 2 has no field"),
        ("{\"email\":\"a\",\"Email\":\"b\"}", "invalid_field", "twice in line 2"),
        ("a@x.example", "invalid_json", "(line 2, column 1)"),
        ("{\"email\":\"a\"", "invalid_json", "not closed (line 2, column"),
        ("\"a\" \"b\"", "invalid_json", "something after its end"),
        ("\"a\\u0000\"", "nul_byte", "NUL character in it (line 2"),
    ] {
        assert_refused(Format::Ndjson, format!("\"a@x.example\"\n{line}\n"), code, says);
    }
    assert_refused(Format::Text, "\n \n", "empty_list", "");
    assert_refused(Format::Ndjson, "", "empty_list", "");
}

#[test]
fn json() {
    let got = list(
        Format::Json,
        "\u{feff} {\"webhook_url\":null,\"emails\":[\"a@x.example\",\" \",\"b\\u0040x.example\",\n\
         \"a@X.example\",\"x\"],\"allow_partial\":true,\"name\":\"N\"} \n",
    );
    assert_eq!(got.texts(), ["a@x.example", "b@x.example", "x"]);
    assert_eq!(got.seqs(), [Some(0), None, Some(1), Some(0), Some(2)]);
    let options = Options { name: Some("N".into()), allow_partial: true, webhook_url: None };
    assert_eq!(got.summary.options, options);
    let long = format!("{{\"name\":\"{}\",\"emails\":[\"a\"]}}", "ü".repeat(201));
    for (body, code, says) in [
        ("", "invalid_json", "ends too early"),
        ("{\"emails\":[\"a\"", "invalid_json", "not closed (line 1, column 14)"),
        ("{\"emails\":[\"a\",]}", "invalid_json", "comma"),
        ("{\"emails\":[\"a\"]} x", "invalid_json", "after its end"),
        ("{\"emails\":[\"a\"],}", "invalid_json", "line 1"),
        ("{emails:[]}", "invalid_json", "double quotes"),
        ("[7]", "email_not_string", "emails[0] is a number"),
        ("[{\"name\":\"a\"}]", "email_not_string", "without a field \"email\""),
        ("null", "invalid_json", "it is null"),
        ("a@x.example", "invalid_json", "line 1, column 1"),
        ("{}", "emails_missing", "\"emails\""),
        ("{\"name\":\"x\"}", "emails_missing", "missing"),
        ("{\"emails\":\"a\"}", "emails_not_array", "is a text (line 1, column"),
        ("{\"emails\":null}", "emails_not_array", "is null"),
        ("{\"emails\":{\"a\":[]}}", "emails_not_array", "an object"),
        ("{\"emails\":[]}", "emails_empty", "empty"),
        ("{\"emails\":[\"\",\" \"]}", "empty_list", "no address"),
        (
            "{\"emails\":[\"a\",\n7]}",
            "email_not_string",
            "emails[1] is a number (line 2, column 2)",
        ),
        ("{\"emails\":[[\"a\"]]}", "email_not_string", "emails[0] is an array"),
        ("{\"emails\":[{}]}", "email_not_string", "an object"),
        ("{\"emails\":[true]}", "email_not_string", "true or false"),
        ("{\"emails\":[\"a\\u0000\"]}", "nul_byte", "emails[0]"),
        ("{\"emails\":[\"a\"],\"emails\":[]}", "invalid_field", "\"emails\" is given twice"),
        ("{\"email\":[\"a\"]}", "unknown_field", "\"email\" is not known (line 1"),
        ("{\"x\":1}", "unknown_field", "emails, name, allow_partial, webhook_url"),
        ("{\"name\":7}", "invalid_field", "\"name\" is a number"),
        ("{\"allow_partial\":\"yes\"}", "invalid_field", "\"allow_partial\" is a text"),
        ("{\"webhook_url\":[]}", "invalid_field", "\"webhook_url\" is an array"),
        (&long, "invalid_field", "longer than 200"),
    ] {
        assert_refused(Format::Json, body, code, says);
    }
}

#[test]
fn encoding_errors_say_where() {
    for format in [csv(), Format::Text, Format::Ndjson, Format::Json] {
        let said = Said { encoding: encoding("utf-8"), ..Said::default() };
        let error = read_said(&format, said, &b"ab\nc\xe9@x"[..], &small()).unwrap_err();
        assert_eq!(error.code(), "not_utf8");
        assert!(error.to_string().contains("0xe9 in line 2, byte 2"), "{error}");
        assert_refused(
            format.clone(),
            b"ab\nc\0",
            "nul_byte",
            "line 2, byte 2 of the line (offset 4)",
        );
        let error = read_said(&format, said, &b"\"b\xe2\x82"[..], &small()).unwrap_err();
        assert!(error.to_string().contains("line 1, byte 3"), "{error}");
    }
}

/// Counts what is read, so that a test sees how far reading went.
struct Endless<'a>(&'a [u8], usize);

impl Read for Endless<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let from = self.1 % self.0.len();
        let n = out.len().min(self.0.len() - from);
        out[..n].copy_from_slice(&self.0[from..from + n]);
        self.1 += n;
        assert!(self.1 < 4096 + 4 * (64 << 10), "reads on after the bound");
        Ok(n)
    }
}

#[test]
fn nothing_grows_without_bound() {
    let cases: [(Format, &[u8], &[u8]); 8] = [
        (csv(), b"email\n", &[b'x'; 4096]),
        (csv(), b"email\n\"", b"quoted\nlines\n"),
        (csv(), b"", &[b'x'; 4096]),
        (Format::Text, b"", &[b'x'; 4096]),
        (Format::Ndjson, b"\"", &[b'x'; 4096]),
        (Format::Json, b"{\"emails\":[\"", b"\\\"x"),
        (Format::Json, b"{\"", &[b'x'; 4096]),
        (Format::Json, b"{\"emails\":[", &[b'1'; 4096]),
    ];
    for (format, start, filler) in cases {
        let error = read_with(&format, start.chain(Endless(filler, 0)), &small()).unwrap_err();
        assert_eq!(error.code(), "line_too_long", "{format:?} {error}");
    }
    let long = "x".repeat(5000);
    assert_refused(csv(), format!("email\na@b.c\n{long}\na@b.c\n"), "line_too_long", "line 3");
    assert_refused(Format::Text, format!("a@b.c\n{long}\na@b.c\n"), "line_too_long", "line 2");
    assert_refused(
        Format::Json,
        format!("{{\"emails\":[\n\"{long}\"]}}"),
        "line_too_long",
        "line 2",
    );
    // Not long: many empty lines, a long array in one line.
    assert_eq!(list(csv(), &format!("email\n{}a@b.c", "\r\n".repeat(200_000))).rows.len(), 1);
    let array = vec!["\"a@x.example\""; 900].join(",");
    assert_eq!(list(Format::Json, &format!("{{\"emails\":[{array}]}}")).summary.unique, 1);
    let many = "a@x.example\n".repeat(1000);
    assert_eq!(list(Format::Text, &many).summary.duplicates, 999);
    assert_eq!(list(Format::Text, &(many.clone() + "# the end")).summary.submitted, 1000);
    assert_refused(Format::Text, many + "b@x.example", "too_many_addresses", "more than 1000");
}

#[derive(Debug, thiserror::Error)]
#[error("the client went away")]
struct Gone;

struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::new(io::ErrorKind::ConnectionReset, Gone))
    }
}

#[test]
fn errors_of_input_and_sink_keep_their_source() {
    let gone = |error: ReadError| match error {
        ReadError::Io(e) => {
            assert_eq!(e.kind(), io::ErrorKind::ConnectionReset);
            assert!(e.get_ref().is_some_and(|e| e.is::<Gone>()));
        }
        other => panic!("{other:?}"),
    };
    let cases = [
        (csv(), "email\na@x.example\n", ""),
        (Format::Text, "a@x.example\n", ""),
        (Format::Ndjson, "\"a@x.example\"\n", ""),
        (Format::Json, "{\"emails\":[\"a@x.example\"", "]}"),
    ];
    for (format, start, end) in cases {
        gone(read_with(&format, start.as_bytes().chain(Broken), &small()).unwrap_err());
        // In the reader's own thread, and beside it.
        for section_bytes in [4096, 1] {
            let limits = Limits { batch_size: 1, section_bytes, ..small() };
            let mut sink = |_| Err(io::Error::new(io::ErrorKind::ConnectionReset, Gone));
            let whole = start.as_bytes().chain(end.as_bytes());
            gone(read(&format, Said::default(), whole, &limits, [0; 32], &mut sink).unwrap_err());
        }
    }
}

/// The shipped sample: counts agree with a reading of its own in plain steps.
#[test]
fn the_sample_list() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../cli/sample/contacts.csv");
    let bytes = std::fs::read(path).unwrap();
    let got = read_with(&csv(), &bytes[..], &Limits::default()).unwrap();
    assert_eq!(got.header(), Some("Id,First Name,Last Name,E-mail Address,Company,Notes"));
    let s = &got.summary;
    // One cell has two addresses.
    assert_eq!(got.rows.len(), 1019);
    assert_eq!((s.submitted, s.unique, s.duplicates, s.invalid_syntax), (1002, 935, 67, 20));
    let count = |prefix: &str| got.texts().iter().filter(|t| t.starts_with(prefix)).count();
    assert!((1..=6).contains(&count("slow")));
    for prefix in ["undeliverable", "risky", "catchall", "full", "unknown", "timeout", "flaky"] {
        assert!(count(prefix) >= 5, "{prefix}");
    }
    assert!(got.texts().iter().filter(|t| t.ends_with("@disposable.test")).count() >= 10);
    for (text, valid) in &got.addresses {
        let domain = address::split(text).map_or("", |(_, domain)| domain);
        let reserved = ["example.com", "example.org", "example.net"]
            .iter()
            .any(|d| domain == *d || domain.ends_with(&format!(".{d}")))
            || [".example", ".test", ".invalid"].iter().any(|tld| domain.ends_with(tld));
        assert!(reserved || !valid, "{text} is not in a reserved domain");
    }
}

/// Hands out bytes in the given portions, over and over.
struct Portions<'a>(&'a [u8], &'a [usize], usize);

impl Read for Portions<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.1[self.2 % self.1.len()].min(out.len());
        self.2 += 1;
        self.0.read(&mut out[..n])
    }
}

proptest! {
    /// Whatever the cells and however the bytes arrive: rows come back as they were, and each
    /// points at the canonical form of its address.
    #[test]
    fn csv_round_trip(
        cells in prop::collection::vec(("[ -~ü\n\"]{0,8}", "[ab]{1,2}@[xXü]\\.example| {0,2}"), 1..40),
        portions in prop::collection::vec(1usize..50, 1..5),
        section_bytes in prop::sample::select(&[1, 40, 4096][..]),
    ) {
        let limits = Limits { section_bytes, ..small() };
        let mut writer = ::csv::WriterBuilder::new().delimiter(b';').from_writer(Vec::new());
        writer.write_record(["note", "email"]).unwrap();
        cells.iter().for_each(|(note, email)| writer.write_record([note, email]).unwrap());
        let file = writer.into_inner().unwrap();
        match read_with(&csv(), Portions(&file, &portions, 0), &limits) {
            Err(e) => {
                prop_assert_eq!(e.code(), "empty_list");
                prop_assert!(cells.iter().all(|(_, email)| email.trim().is_empty()));
            }
            Ok(got) => {
                let mut first = HashMap::new();
                prop_assert_eq!(got.rows.len(), cells.len());
                for ((seq, line), (note, email)) in got.rows.iter().zip(&cells) {
                    let mut parser = ::csv::ReaderBuilder::new()
                        .has_headers(false).delimiter(b';').from_reader(line.as_bytes());
                    let record = parser.records().next().unwrap().unwrap();
                    prop_assert_eq!((&record[0], &record[1]), (note.as_str(), email.as_str()));
                    let want = (!email.trim().is_empty()).then(|| {
                        let next = first.len() as u64;
                        *first.entry(address::normalise(email).text).or_insert(next)
                    });
                    prop_assert_eq!(*seq, want);
                }
                prop_assert_eq!(first.len(), got.addresses.len());
                prop_assert!(got.addresses.iter().enumerate()
                    .all(|(i, (text, _))| first[text] == i as u64));
                prop_assert!(got.blocks > 1);
            }
        }
    }

    /// No input makes it panic or loop, and how the bytes arrive changes nothing.
    #[test]
    fn any_bytes(
        bytes in prop::collection::vec(
            prop_oneof![any::<u8>(), prop::sample::select(&b"a@x.e,;\"\\\n\r{}[]:"[..])], 0..200),
        portions in prop::collection::vec(1usize..20, 1..4),
    ) {
        for format in [csv(), Format::Text, Format::Ndjson, Format::Json] {
            let whole = read_with(&format, &bytes[..], &small());
            let parts = read_with(&format, Portions(&bytes, &portions, 0), &small());
            match (whole, parts) {
                (Ok(a), Ok(b)) => prop_assert_eq!((a.addresses, a.rows), (b.addresses, b.rows)),
                // Which of several errors is met first may depend on the portions.
                (Err(_), Err(_)) => {}
                (a, b) => prop_assert!(false, "{:?} but {:?}", a, b),
            }
        }
    }
}
