use std::io::{Cursor, Seek, Write};
use std::sync::Arc;

use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::super::{Limits, Summary, read_workbook};
use super::*;
use crate::app::submit::read::Block;
use crate::app::temporary::Temporary;
use crate::domain::id::{AccountId, Ids};
use crate::domain::payload::{Row, decode_rows};

const RELS: &str = "<Relationships><Relationship Id=\"rId1\" Type=\"http://x/relationships/officeDocument\" \
    Target=\"xl/workbook.xml\"/></Relationships>";

fn temporary() -> Share {
    let all = Arc::new(Temporary::new(Ids::system(), 1 << 30, 0));
    all.of(AccountId::new(&Ids::seeded(1), 1))
}

/// Parts by name, packed.
fn pack(parts: &[(&str, &[u8])]) -> TemporaryFile {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in parts {
        zip.start_file(*name, SimpleFileOptions::default()).unwrap();
        zip.write_all(content).unwrap();
    }
    file(zip.finish().unwrap().get_ref())
}

fn file(bytes: &[u8]) -> TemporaryFile {
    let mut file = temporary().file().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

/// A workbook of these sheets: names, and what stands between the tags of its data.
fn book(sheets: &[(&str, &str)], more: &[(&str, &[u8])]) -> TemporaryFile {
    let (mut listed, mut rels) = (String::new(), String::new());
    for (no, (name, _)) in sheets.iter().enumerate() {
        listed += &format!("<sheet name=\"{name}\" sheetId=\"{no}\" r:id=\"r{no}\"/>");
        rels += &format!(
            "<Relationship Id=\"r{no}\" Type=\"http://x/relationships/worksheet\" \
             Target=\"worksheets/sheet{no}.xml\"/>"
        );
    }
    let workbook = format!("<workbook><sheets>{listed}</sheets></workbook>");
    let rels = format!("<Relationships>{rels}</Relationships>");
    let data: Vec<(String, String)> = sheets
        .iter()
        .enumerate()
        .map(|(no, (_, rows))| {
            let xml = format!("<worksheet><sheetData>{rows}</sheetData></worksheet>");
            (format!("xl/worksheets/sheet{no}.xml"), xml)
        })
        .collect();
    let mut parts: Vec<(&str, &[u8])> = vec![
        ("_rels/.rels", RELS.as_bytes()),
        ("xl/workbook.xml", workbook.as_bytes()),
        ("xl/_rels/workbook.xml.rels", rels.as_bytes()),
    ];
    parts.extend(data.iter().map(|(name, xml)| (name.as_str(), xml.as_bytes())));
    parts.extend(more);
    pack(&parts)
}

/// A row of texts.
fn row(no: usize, cells: &[&str]) -> String {
    let cells: String = cells
        .iter()
        .enumerate()
        .filter(|(_, text)| !text.is_empty())
        .map(|(at, text)| {
            let column = char::from(b'A' + at as u8);
            format!("<c r=\"{column}{no}\" t=\"inlineStr\"><is><t>{text}</t></is></c>")
        })
        .collect();
    format!("<row r=\"{no}\">{cells}</row>")
}

/// What was read: the rows as lines, and the rest.
fn read_all(
    file: TemporaryFile,
    column: Option<&str>,
    sheet: Option<&str>,
) -> Result<(Vec<String>, Summary), ReadError> {
    let wanted = Wanted {
        column: column.map(str::to_owned),
        sheet: sheet.map(str::to_owned),
        most: 64 << 20,
    };
    let mut lines = Vec::new();
    let mut sink = |block: Block| -> std::io::Result<()> {
        if let Block::Rows { payload, .. } = block {
            lines.extend(decode_rows(&payload).unwrap().iter().map(|row| match row {
                Row::Blank(line) | Row::Record(_, line) => {
                    String::from_utf8(line.to_vec()).unwrap()
                }
                Row::Address(_) => String::from("(address)"),
            }));
        }
        Ok(())
    };
    let limits = Limits { line_bytes: 4096, ..Limits::default() };
    let summary = read_workbook(&wanted, false, file, &temporary(), &limits, [5; 32], &mut sink)?;
    Ok((lines, summary))
}

fn code(file: TemporaryFile) -> &'static str {
    read_all(file, None, None).expect_err("refused").code()
}

#[test]
fn a_sheet_reads_like_its_csv() {
    let rows = [
        row(3, &["id", "Mail", "note"]),
        row(4, &["007", "anna@x.example", "a, b"]),
        row(7, &["8", "ANNA@X.example", ""]),
        row(9, &["9", "broken", "x &amp; y"]),
    ];
    let (lines, summary) = read_all(book(&[("List", &rows.concat())], &[]), None, None).unwrap();
    let want =
        ["007,anna@x.example,\"a, b\"", ",,", ",,", "8,ANNA@X.example,", ",,", "9,broken,x & y"];
    assert_eq!(lines, want);
    assert_eq!(summary.header.as_deref(), Some(&b"id,Mail,note"[..]));
    assert_eq!((summary.submitted, summary.unique, summary.invalid_syntax), (3, 3, 1));
    let book = summary.book.unwrap();
    assert_eq!((book.sheet.as_str(), book.column), ("List", 2));
    assert_eq!(book.first[0], ["id", "Mail", "note"]);
    assert_eq!(book.first.len(), 6);
}

#[test]
fn the_column_has_a_name_a_number_or_a_letter() {
    let rows = [row(1, &["a@x.example", "b@x.example", "c"]), row(2, &["d@x.example", "", ""])];
    for (column, header, submitted) in
        [("B", false, 1), ("2", false, 1), ("a", false, 2), ("c", true, 0), ("Z", false, 0)]
    {
        let read = read_all(book(&[("S", &rows.concat())], &[]), Some(column), None);
        match submitted {
            0 => assert!(read.is_err(), "{column}"),
            count => {
                let summary = read.unwrap().1;
                assert_eq!(
                    (summary.header.is_some(), summary.submitted),
                    (header, count),
                    "{column}"
                );
            }
        }
    }
}

#[test]
fn sheets_are_found_by_name_or_by_having_rows() {
    let mails = row(1, &["a@x.example"]);
    let sheets = [("Empty", "<row r=\"1\"><c r=\"A1\" s=\"0\"/></row>"), ("Leads", mails.as_str())];
    let (_, summary) = read_all(book(&sheets, &[]), None, None).unwrap();
    let read = summary.book.unwrap();
    assert_eq!((read.sheet.as_str(), read.sheets.len()), ("Leads", 2));
    assert!(read_all(book(&sheets, &[]), None, Some(" leads ")).is_ok());
    let error = read_all(book(&sheets, &[]), None, Some("Nowhere")).unwrap_err();
    assert_eq!(error.code(), "sheet_not_found");
    assert!(error.to_string().contains("\"Empty\", \"Leads\""), "{error}");
    assert_eq!(code(book(&sheets[..1], &[])), "empty_list");
}

#[test]
fn shared_strings_numbers_and_dates_are_texts() {
    let strings = "<sst uniqueCount=\"2\"><si><t>a@x.example</t></si>\
        <si><r><t>b</t></r><r><t>@x.example</t></r></si></sst>";
    let styles =
        "<styleSheet><cellXfs><xf numFmtId=\"0\"/><xf numFmtId=\"14\"/></cellXfs></styleSheet>";
    let rows = "<row r=\"1\"><c r=\"A1\" t=\"s\"><v>0</v></c><c r=\"B1\"><v>42</v></c>\
        <c r=\"C1\" s=\"1\"><v>45943</v></c><c r=\"D1\" t=\"b\"><v>1</v></c></row>\
        <row r=\"2\"><c r=\"A2\" t=\"s\"><v>1</v></c><c r=\"B2\"><f>1/10+2/10</f><v>0.30000000000000004</v></c>\
        <c r=\"D2\" t=\"e\"><v>#N/A</v></c></row>";
    let more: [(&str, &[u8]); 3] = [
        ("xl/sharedStrings.xml", strings.as_bytes()),
        ("xl/styles.xml", styles.as_bytes()),
        ("xl/media/image1.png", b"\x89PNG\0\0"),
    ];
    let (lines, summary) = read_all(book(&[("S", rows)], &more), None, None).unwrap();
    assert_eq!(lines, ["a@x.example,42,2025-10-13,TRUE", "b@x.example,0.3,,#N/A"]);
    assert_eq!(summary.submitted, 2);
}

#[test]
fn a_cell_in_the_far_corner_is_cheap() {
    let far = |no: u32| {
        let mail = "<c r=\"A1\" t=\"inlineStr\"><is><t>a@x.example</t></is></c>";
        let cell = format!("<c r=\"XFD{no}\"><v>1</v></c>");
        format!("<row r=\"1\">{mail}</row><row r=\"{no}\">{cell}</row>")
    };
    // A row with so many columns is longer than a line may be here.
    assert_eq!(code(book(&[("S", &far(1_048_576))], &[])), "line_too_long");
    assert_eq!(code(book(&[("S", &far(1_048_577))], &[])), "broken_workbook");
    let dimension = "</sheetData></worksheet><!-- -->";
    assert!(
        read_all(book(&[("S", &(row(1, &["a@x.example"]) + dimension))], &[]), None, None).is_ok()
    );
}

#[test]
fn what_is_no_workbook_is_said_to_be_what_it_is() {
    let ods = pack(&[("mimetype", b"x"), ("content.xml", b"<a/>")]);
    let error = read_all(ods, None, None).unwrap_err();
    assert!(error.to_string().contains(".ods"), "{error}");
    let word = pack(&[("_rels/.rels", b"<a/>"), ("word/document.xml", b"<a/>")]);
    assert_eq!(code(word), "not_a_list");
    assert_eq!(code(pack(&[("list.csv", b"a@x.example")])), "not_a_list");
    assert_eq!(code(file(b"PK\x03\x04 and then nothing of the kind")), "broken_workbook");
    assert_eq!(
        code(book(&[("S", "<row r=\"1\"><c r=\"A1\" t=\"s\"><v>7</v></c></row>")], &[])),
        "broken_workbook"
    );
    let twice = row(2, &["a@x.example"]) + &row(1, &["b@x.example"]);
    assert_eq!(code(book(&[("S", &twice)], &[])), "broken_workbook");
}

#[test]
fn bombs_are_refused() {
    let spaces = " ".repeat(17 << 20);
    assert_eq!(code(book(&[("S", &spaces)], &[])), "workbook_too_large");
    let strings = b"<sst uniqueCount=\"99999999999999\"></sst>";
    let many = book(&[("S", &row(1, &["a@x.example"]))], &[("xl/sharedStrings.xml", strings)]);
    assert_eq!(code(many), "workbook_too_large");
    let entries: Vec<String> = (0..10_001).map(|no| format!("{no}.xml")).collect();
    let entries: Vec<(&str, &[u8])> =
        entries.iter().map(|name| (name.as_str(), &b""[..])).collect();
    // It is looked at before anything of the archive is read.
    let refused = check_directory(&mut pack(&entries)).unwrap_err();
    assert_eq!(refused.code(), "workbook_too_large");
}
