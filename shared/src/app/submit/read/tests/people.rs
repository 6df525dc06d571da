//! Lists as people and their programs write them.

use super::*;
use crate::domain::payload::decode_batch;

#[track_caller]
fn found_out(text: &str) -> List {
    list(Format::any(), text)
}

fn columns(list: &List) -> Vec<(usize, Option<&str>, &str)> {
    let columns = list.summary.understood.columns.iter();
    columns.map(|column| (column.number, column.name.as_deref(), column.why.as_str())).collect()
}

#[test]
fn a_cell_with_several_addresses_is_as_many_rows() {
    let got = list(csv(), "name,mail\nA,\"a@x.example; B <b@x.example>\"\nC,c@x.example\n");
    assert_eq!(got.texts(), ["a@x.example", "b@x.example", "c@x.example"]);
    assert_eq!(got.lines(), ["A,a@x.example", "A,B <b@x.example>", "C,c@x.example"]);
    assert_eq!(got.summary.submitted, 3);
    let got = list(Format::Text, "a@x.example, b@x.example c@x.example\n<a@x.example>\n");
    assert_eq!(got.texts(), ["a@x.example", "b@x.example", "c@x.example"]);
    assert_eq!(got.seqs(), [Some(0), Some(1), Some(2), Some(0)]);
    // What would be repeated is bounded; what is not repeated is not.
    let many = vec!["a@x.example"; 900].join(",");
    let limits = Limits { line_bytes: 64 << 10, ..small() };
    let wide = format!("note,mail\n{},\"{many}\"\n", "n".repeat(4000));
    let error = read_with(&csv(), wide.as_bytes(), &limits).unwrap_err();
    assert_eq!(error.code(), "crowded_cell", "{error}");
    assert_eq!(read_with(&Format::Text, many.as_bytes(), &limits).unwrap().rows.len(), 900);
}

#[test]
fn what_was_submitted_is_kept() {
    let mut kept = Vec::new();
    let text = "Ada <ada@X.example>\nbob@x.example\n BOB@x.example \nbroken text\nada@x.example\n";
    read(&Format::Text, Said::default(), text.as_bytes(), &small(), [5; 32], &mut |block| {
        if let Block::Batch { payload, .. } = block {
            let batch = decode_batch(&payload).unwrap();
            kept.extend((0..batch.len()).map(|at| {
                let text = batch.get(at).unwrap().text.to_owned();
                (text, batch.submitted(at).map(str::to_owned))
            }));
        }
        Ok(())
    })
    .unwrap();
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(
        kept,
        [
            ("ada@x.example".to_owned(), some("Ada <ada@X.example>")),
            ("bob@x.example".to_owned(), None),
            ("BOB@x.example".to_owned(), some(" BOB@x.example ")),
            ("broken text".to_owned(), None),
        ]
    );
}

#[test]
fn columns_are_named_numbered_lettered_or_several() {
    let text =
        "Name,E-mail,E-mail 2\nA,a@x.example,a2@x.example\nB,,b2@x.example\nC,c@x.example,\n";
    let got = list(csv(), text);
    assert_eq!(columns(&got), [(2, Some("E-mail"), "header")]);
    assert_eq!(got.texts(), ["a@x.example", "c@x.example"]);
    for both in ["E-mail,e-mail 2", "2,3", "B, C", "*"] {
        let got = list(column(both), text);
        assert_eq!(
            got.texts(),
            ["a@x.example", "a2@x.example", "b2@x.example", "c@x.example"],
            "{both}"
        );
        // Each row says which address it is about.
        assert_eq!(
            got.lines(),
            ["A,a@x.example,", "A,,a2@x.example", "B,,b2@x.example", "C,c@x.example,"],
            "{both}"
        );
    }
    assert_eq!(columns(&list(column("c"), text)), [(3, Some("E-mail 2"), "asked")]);
    assert_eq!(columns(&list(csv(), "a@x.example\n")), [(1, None, "only_column")]);
    assert_eq!(columns(&list(csv(), "A;a@x.example\n")), [(2, None, "content")]);
    assert_refused(column("E-mail,nowhere"), text, "column_not_found", "\"nowhere\"");
}

#[test]
fn ragged_rows_keep_their_address() {
    let got = list(
        csv(),
        "name,mail,note\nLovelace, Ada,ada@x.example,x\nB,b@x.example\nC,c@x.example,y,z\n",
    );
    assert_eq!(got.texts(), ["ada@x.example", "b@x.example", "c@x.example"]);
    assert_eq!(got.lines()[1], "B,b@x.example,");
}

#[test]
fn an_open_quote_is_named() {
    let text = "name,mail\n\"A,a@x.example\nB,b@x.example\n";
    assert_refused(csv(), text, "unclosed_quote", "line 2");
    assert_refused(csv(), format!("sep=,\n{text}"), "unclosed_quote", "line 3");
    assert_eq!(list(csv(), "name,mail\n\"two\nlines\",a@x.example\n").rows.len(), 1);
}

#[test]
fn what_excel_adds_is_known() {
    let got = list(csv(), "\u{feff}sep=;\r\nName;E-Mail\r\nA,B;a@x.example\r\n");
    assert_eq!((got.header(), got.texts()), (Some("Name;E-Mail"), vec!["a@x.example"]));
    let got = list(csv(), "# Exported in May, 2026\nName,Email\nA,a@x.example\n");
    assert_eq!((got.header(), got.texts()), (Some("Name,Email"), vec!["a@x.example"]));
    let got = list(csv(), "Email,note\n# ours,x\na@x.example,y\n--,z\n");
    assert_eq!(got.seqs(), [None, Some(0), None], "comments are no addresses");
    let got = list(csv(), "#,Email\n1,a@x.example\n");
    assert_eq!(got.header(), Some("#,Email"));
    // "Text (tab delimited)" is called .txt.
    let got = list(Format::Text, "Name\tE-Mail\nA\ta@x.example\n");
    assert_eq!((got.header(), got.texts()), (Some("Name\tE-Mail"), vec!["a@x.example"]));
    let got = list(Format::Text, "E-Mail\n# ours\na@x.example\n\nb@x.example # home\n");
    assert_eq!(got.header(), Some("E-Mail"));
    assert_eq!(got.texts(), ["a@x.example", "b@x.example"]);
    assert_eq!(got.seqs(), [None, Some(0), Some(1)]);
}

#[test]
fn address_books() {
    let card = "BEGIN:VCARD\r\nVERSION:3.0\r\nFN:Ada\\, Countess\r\nEMAIL;TYPE=INTERNET:ada@x.example\r\n\
        item1.EMAIL;type=pref:ada@y.exa\r\n mple\r\nEND:VCARD\r\nBEGIN:VCARD\r\nVERSION:2.1\r\n\
        FN;CHARSET=UTF-8;ENCODING=QUOTED-PRINTABLE:J=C3=B6=\r\nrg\r\nEMAIL;HOME:joerg@x.example\r\nEND:VCARD\r\n\
        BEGIN:VCARD\r\nFN:Nobody\r\nEND:VCARD\r\n";
    let got = found_out(card);
    assert_eq!(got.summary.understood.format, "vcard");
    assert_eq!(got.header(), Some("name,email"));
    assert_eq!(
        got.lines(),
        [
            "\"Ada, Countess\",ada@x.example",
            "\"Ada, Countess\",ada@y.example",
            "Jörg,joerg@x.example"
        ]
    );
    let ldif = "version: 1\n\ndn: cn=Ada,ou=x\ncn: Ada\nmail: ada@x.example\nmail: ada@y.exa\n mple\n\n\
        dn: cn=J\ncn:: SsO2cmc=\nmail:: am9lcmdAeC5leGFtcGxl\n";
    let got = found_out(ldif);
    assert_eq!(got.summary.understood.format, "ldif");
    assert_eq!(got.lines(), ["Ada,ada@x.example", "Ada,ada@y.example", "Jörg,joerg@x.example"]);
}

#[test]
fn mails_give_the_addresses_of_their_headers() {
    let mail = "From a@x.example Mon May  4 10:00:00 2026\nFrom: \"Byron, Ada\" <ada@x.example>\nTo: b@x.example,\n\
        \tC <c@x.example>\nSubject: you@z.example\nDate: now\n\nWrite to d@x.example\nFrom: e@x.example\n\n\
        From b@x.example Tue May  5 10:00:00 2026\nFrom: f@x.example\nTo: undisclosed-recipients:;\n\nBye\n";
    let got = found_out(mail);
    assert_eq!(got.summary.understood.format, "mail");
    assert_eq!(got.texts(), ["ada@x.example", "b@x.example", "c@x.example", "f@x.example"]);
}

#[test]
fn json_in_any_shape() {
    for text in [
        "[\"a@x.example\",\"b@x.example\"]",
        "[{\"id\":1,\"email\":\"a@x.example\"},{\"E-Mail\":\"b@x.example\",\"name\":\"B\"}]",
        "{\"emails\":[{\"contact\":\"a@x.example\",\"more\":{\"email\":\"z@x.example\"}},\"b@x.example\"]}",
        "{\"address\":\"a@x.example\"}\n{\"mail\":\"b@x.example\",\"manager\":\"c@x.example\"}\n",
        "{\"manager\":null,\"n\":1.5,\"list\":[true],\"x\":\"a@x.example\"}\n\"b@x.example\"\n",
    ] {
        assert_eq!(found_out(text).texts(), ["a@x.example", "b@x.example"], "{text}");
    }
}

#[test]
fn likely_duplicates_are_counted_and_collapsed_on_request() {
    let text = "Ada@x.example\nada@x.example\nada+news@x.example\nbob@x.example\n";
    let got = list(Format::Text, text);
    assert_eq!((got.summary.unique, got.summary.understood.likely_duplicates), (4, 2));
    let said = Said { collapse: true, ..Said::default() };
    let got = read_said(&Format::Text, said, text.as_bytes(), &small()).unwrap();
    assert_eq!(got.texts(), ["Ada@x.example", "bob@x.example"]);
    assert_eq!(
        got.lines(),
        ["Ada@x.example", "ada@x.example", "ada+news@x.example", "bob@x.example"]
    );
    assert_eq!((got.summary.duplicates, got.summary.understood.likely_duplicates), (2, 0));
}

#[test]
fn pages_and_documents_are_named() {
    assert_refused(Format::any(), "<!DOCTYPE html><table>", "not_a_list", "web page");
    assert_refused(csv(), "<html>", "not_a_list", "web page");
    assert_refused(Format::Text, "<?xml version='1.0'?>", "not_a_list", "XML");
}

const LOCAL: &str = "[a-z][a-z0-9._+]{0,5}[a-z0-9]";
const NAME: &str = "[A-Za-zäöüß ]{0,8}";

/// How a random list is laid out.
#[derive(Debug, Clone)]
struct Layout {
    delimiter: char,
    quoted: bool,
    header: bool,
    crlf: bool,
    encoding: &'static str,
    mark: bool,
    wrap: usize,
}

fn layout() -> impl Strategy<Value = Layout> {
    let delimiter = prop::sample::select(vec![',', ';', '\t', '|']);
    let encoding = prop::sample::select(vec!["utf-8", "windows-1252", "utf-16le", "utf-16be"]);
    (delimiter, any::<bool>(), any::<bool>(), any::<bool>(), encoding, any::<bool>(), 0..5_usize)
        .prop_map(|(delimiter, quoted, header, crlf, encoding, mark, wrap)| Layout {
            delimiter,
            quoted,
            header,
            crlf,
            encoding,
            mark,
            wrap,
        })
}

impl Layout {
    fn write(&self, rows: &[(String, String)]) -> Vec<u8> {
        let end = if self.crlf { "\r\n" } else { "\n" };
        let cell = |text: &str| match self.quoted || text.contains([self.delimiter, '"']) {
            true => format!("\"{}\"", text.replace('"', "\"\"")),
            false => text.to_owned(),
        };
        let line = |cells: [&str; 3]| cells.map(cell).join(&self.delimiter.to_string()) + end;
        let mut text = String::new();
        if self.header {
            text += &line(["Näme", "E-Mail", "Note"]);
        }
        for (name, address) in rows {
            let address = match self.wrap {
                0 => address.clone(),
                1 => format!("<{address}>"),
                2 => format!("Someone <{address}>"),
                3 => format!("mailto:{address}"),
                _ => format!(" {address}."),
            };
            text += &line([name, &address, "x"]);
        }
        match self.encoding {
            "utf-16le" => {
                format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect()
            }
            "utf-16be" => {
                format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_be_bytes).collect()
            }
            "utf-8" if self.mark => format!("\u{feff}{text}").into_bytes(),
            name => encoding(name).unwrap().encode(&text).0.into_owned(),
        }
    }
}

proptest! {
    /// A random list in a random layout, encoding and quoting comes back the same.
    #[test]
    fn every_layout_gives_the_same_list(
        rows in prop::collection::vec((NAME, LOCAL), 1..30),
        layout in layout(),
    ) {
        let rows: Vec<(String, String)> = rows.into_iter()
            .filter(|(_, local)| !local.contains(".."))
            .map(|(name, local)| (name, format!("{local}@x.example")))
            .collect();
        prop_assume!(!rows.is_empty());
        let bytes = layout.write(&rows);
        // Said, as a few letters alone do not tell one legacy encoding from another.
        let said = Said {
            encoding: encoding(layout.encoding).filter(|_| layout.encoding == "windows-1252"),
            collapse: false,
        };
        let got = read_said(&csv(), said, &bytes[..], &small()).unwrap();
        let mut first = HashMap::new();
        let mut wanted = Vec::new();
        for (_, address) in &rows {
            let next = first.len() as u64;
            wanted.push(Some(*first.entry(address.as_str()).or_insert(next)));
        }
        prop_assert_eq!(got.seqs(), wanted);
        prop_assert!(got.addresses.iter().all(|(_, valid)| *valid));
        prop_assert_eq!(got.summary.invalid_syntax, 0);
        prop_assert_eq!(got.summary.understood.crlf, layout.crlf);
        let delimiter = layout.delimiter as u8;
        for ((name, _), line) in rows.iter().zip(got.lines()) {
            let mut reader = ::csv::ReaderBuilder::new()
                .has_headers(false).delimiter(delimiter).from_reader(line.as_bytes());
            let record = reader.records().next().unwrap().unwrap();
            prop_assert_eq!(&record[0], name);
            prop_assert_eq!(&record[2], "x");
        }
    }
}
