//! A workbook (XLSX), written from its first row to its last: nothing is kept but the row in hand.
//!
//! Every text is an inline string in the format "text": what begins with `=` is no formula, a leading zero
//! stays, a long number is not rounded, a date is not turned. Nothing is lost: what XML cannot hold is written
//! as `_xHHHH_`, and a text that looks like that has its `_` written so. A cell that is too long, or a row that
//! is too wide, is an error, not a shorter one. When a sheet is full the next one begins, with the same head.

use std::io::{Seek, Write};

use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::exports::MakeError;

/// Rows of a sheet, head included.
const ROWS: u32 = 1_048_576;
/// Cells of a row.
const COLUMNS: usize = 16_384;
/// Characters of a cell, as UTF-16 counts them.
const CHARACTERS: usize = 32_767;
/// Bytes of a sheet: more than 4 GiB would need what not every program reads.
const BYTES: u64 = 3 << 30;
/// Bytes that are packed at once.
const FLUSH: usize = 64 << 10;

/// Numbers of the formats in [`STYLES`].
const TEXT: u8 = 1;
const HEAD: u8 = 2;

const MAIN: &str = "http://schemas.openxmlformats.org/spreadsheetml/2006/main";
const PARTS: &str = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";
const PACKAGE: &str = "http://schemas.openxmlformats.org/package/2006";
const TYPE: &str = "application/vnd.openxmlformats-officedocument.spreadsheetml";
const XML: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?>\n";

/// Formats: as it comes, text (49 is `@`), and text in bold.
const STYLES: &str = "<fonts count=\"2\"><font><sz val=\"11\"/><name val=\"Calibri\"/></font>\
    <font><b/><sz val=\"11\"/><name val=\"Calibri\"/></font></fonts>\
    <fills count=\"2\"><fill><patternFill patternType=\"none\"/></fill>\
    <fill><patternFill patternType=\"gray125\"/></fill></fills>\
    <borders count=\"1\"><border><left/><right/><top/><bottom/><diagonal/></border></borders>\
    <cellStyleXfs count=\"1\"><xf numFmtId=\"0\" fontId=\"0\" fillId=\"0\" borderId=\"0\"/></cellStyleXfs>\
    <cellXfs count=\"3\"><xf numFmtId=\"0\" fontId=\"0\" fillId=\"0\" borderId=\"0\" xfId=\"0\"/>\
    <xf numFmtId=\"49\" fontId=\"0\" fillId=\"0\" borderId=\"0\" xfId=\"0\" applyNumberFormat=\"1\"/>\
    <xf numFmtId=\"49\" fontId=\"1\" fillId=\"0\" borderId=\"0\" xfId=\"0\" applyNumberFormat=\"1\" \
    applyFont=\"1\"/></cellXfs>\
    <cellStyles count=\"1\"><cellStyle name=\"Normal\" xfId=\"0\" builtinId=\"0\"/></cellStyles>";

/// A cell.
#[derive(Debug, Clone, Copy)]
pub enum Value<'a> {
    /// As it is.
    Text(&'a str),
    Number(i64),
}

/// See the module.
pub struct Workbook<W: Write + Seek> {
    zip: ZipWriter<W>,
    head: Vec<String>,
    names: Vec<String>,
    rows_of_sheet: u32,
    sheets: u32,
    /// Rows of the sheet in hand.
    rows: u32,
    /// Bytes of the sheet in hand that were packed.
    packed: u64,
    /// Those that were not.
    xml: Vec<u8>,
}

impl<W: Write + Seek> Workbook<W> {
    /// With the head of every sheet.
    pub fn new(out: W, head: Vec<String>) -> Result<Self, MakeError> {
        Self::with_rows(out, head, ROWS)
    }

    fn with_rows(out: W, head: Vec<String>, rows_of_sheet: u32) -> Result<Self, MakeError> {
        let mut workbook = Self {
            zip: ZipWriter::new(out),
            head,
            names: Vec::new(),
            rows_of_sheet,
            sheets: 0,
            rows: 0,
            packed: 0,
            xml: Vec::with_capacity(2 * FLUSH),
        };
        workbook.begin_sheet()?;
        Ok(workbook)
    }

    /// Appends a row.
    pub fn row<'a>(
        &mut self,
        cells: impl Iterator<Item = Option<Value<'a>>>,
    ) -> Result<(), MakeError> {
        if self.rows >= self.rows_of_sheet || self.packed >= BYTES {
            self.end_sheet()?;
            self.begin_sheet()?;
        }
        self.write_row(cells, TEXT)
    }

    /// Writes what is left; gives back what it wrote to.
    pub fn finish(mut self) -> Result<W, MakeError> {
        self.end_sheet()?;
        let sheets = 1..=self.sheets;
        let name =
            |no: u32| if no == 1 { String::from("Results") } else { format!("Results {no}") };
        let of_book =
            |no: u32| format!("<sheet name=\"{}\" sheetId=\"{no}\" r:id=\"rId{no}\"/>", name(no));
        let book: String = sheets.clone().map(of_book).collect();
        let book = format!(
            "{XML}<workbook xmlns=\"{MAIN}\" xmlns:r=\"{PARTS}\"><bookViews><workbookView/>\
             </bookViews><sheets>{book}</sheets></workbook>"
        );
        let part = |no: u32, kind: &str, target: &str| {
            format!("<Relationship Id=\"rId{no}\" Type=\"{PARTS}/{kind}\" Target=\"{target}\"/>")
        };
        let links = |parts: String| {
            format!("{XML}<Relationships xmlns=\"{PACKAGE}/relationships\">{parts}</Relationships>")
        };
        let of_sheet = |no: u32| part(no, "worksheet", &format!("worksheets/sheet{no}.xml"));
        let mut parts: String = sheets.clone().map(of_sheet).collect();
        parts.push_str(&part(self.sheets + 1, "styles", "styles.xml"));
        let of_types = |no: u32| override_type(&format!("worksheets/sheet{no}.xml"), "worksheet");
        let types = format!(
            "{XML}<Types xmlns=\"{PACKAGE}/content-types\">\
             <Default Extension=\"rels\" ContentType=\"application/vnd.openxmlformats-package.relationships+xml\"/>\
             <Default Extension=\"xml\" ContentType=\"application/xml\"/>{}{}{}</Types>",
            override_type("workbook.xml", "sheet.main"),
            override_type("styles.xml", "styles"),
            sheets.map(of_types).collect::<String>(),
        );
        let styles = format!("{XML}<styleSheet xmlns=\"{MAIN}\">{STYLES}</styleSheet>");
        let root = links(part(1, "officeDocument", "xl/workbook.xml"));
        for (name, text) in [
            ("xl/workbook.xml", book),
            ("xl/styles.xml", styles),
            ("xl/_rels/workbook.xml.rels", links(parts)),
            ("_rels/.rels", root),
            ("[Content_Types].xml", types),
        ] {
            self.zip.start_file(name, options())?;
            self.zip.write_all(text.as_bytes())?;
        }
        Ok(self.zip.finish()?)
    }

    fn begin_sheet(&mut self) -> Result<(), MakeError> {
        self.sheets += 1;
        (self.rows, self.packed) = (0, 0);
        self.zip.start_file(format!("xl/worksheets/sheet{}.xml", self.sheets), options())?;
        // The head stays where it is while the rows are scrolled.
        let begin = format!(
            "{XML}<worksheet xmlns=\"{MAIN}\"><sheetViews><sheetView workbookViewId=\"0\">\
             <pane ySplit=\"1\" topLeftCell=\"A2\" activePane=\"bottomLeft\" state=\"frozen\"/>\
             </sheetView></sheetViews><sheetFormatPr defaultColWidth=\"18\" defaultRowHeight=\"15\"/>\
             <sheetData>"
        );
        self.xml.extend_from_slice(begin.as_bytes());
        let head = std::mem::take(&mut self.head);
        let written = self.write_row(head.iter().map(|name| Some(Value::Text(name))), HEAD);
        self.head = head;
        written
    }

    fn end_sheet(&mut self) -> Result<(), MakeError> {
        self.xml.extend_from_slice(b"</sheetData></worksheet>");
        self.pack()
    }

    fn pack(&mut self) -> Result<(), MakeError> {
        self.zip.write_all(&self.xml)?;
        self.packed += self.xml.len() as u64;
        self.xml.clear();
        Ok(())
    }

    fn write_row<'a>(
        &mut self,
        cells: impl Iterator<Item = Option<Value<'a>>>,
        style: u8,
    ) -> Result<(), MakeError> {
        self.rows += 1;
        let mut number = itoa::Buffer::new();
        let row = number.format(self.rows);
        let out = &mut self.xml;
        extend(out, &["<row r=\"", row, "\">"]);
        for (at, cell) in cells.enumerate() {
            if self.names.len() == at {
                if at == COLUMNS {
                    return Err(MakeError::Unfit(format!(
                        "Row {row} of sheet {} has more than {COLUMNS} cells, which is what a \
                         spreadsheet holds. CSV holds more.",
                        self.sheets
                    )));
                }
                self.names.push(column_name(at));
            }
            let Some(cell) = cell else { continue };
            extend(out, &["<c r=\"", &self.names[at], row]);
            match cell {
                Value::Number(number) => {
                    extend(out, &["\"><v>", itoa::Buffer::new().format(number), "</v></c>"]);
                }
                Value::Text(text) => {
                    // A character has a byte or more.
                    if text.len() > CHARACTERS && text.encode_utf16().count() > CHARACTERS {
                        return Err(MakeError::Unfit(format!(
                            "Cell {}{row} of sheet {} has more than {CHARACTERS} characters, which \
                             is what a spreadsheet holds. CSV holds more.",
                            self.names[at], self.sheets
                        )));
                    }
                    let style = if style == HEAD { "2" } else { "1" };
                    extend(out, &["\" s=\"", style, "\" t=\"inlineStr\"><is><t"]);
                    let space = |c: char| matches!(c, ' ' | '\t' | '\n');
                    if text.starts_with(space) || text.ends_with(space) {
                        extend(out, &[" xml:space=\"preserve\""]);
                    }
                    out.push(b'>');
                    write_text(out, text);
                    extend(out, &["</t></is></c>"]);
                }
            }
        }
        extend(out, &["</row>"]);
        if self.xml.len() >= FLUSH { self.pack() } else { Ok(()) }
    }
}

fn options() -> SimpleFileOptions {
    // XML repeats itself: the fastest way of packing makes it small.
    SimpleFileOptions::default().compression_level(Some(1))
}

fn override_type(part: &str, kind: &str) -> String {
    format!("<Override PartName=\"/xl/{part}\" ContentType=\"{TYPE}.{kind}+xml\"/>")
}

fn extend(out: &mut Vec<u8>, texts: &[&str]) {
    for text in texts {
        out.extend_from_slice(text.as_bytes());
    }
}

/// A, B, … Z, AA, …
fn column_name(at: usize) -> String {
    let (mut name, mut left) = (Vec::new(), at + 1);
    while left > 0 {
        name.push(char::from(b'A' + ((left - 1) % 26) as u8));
        left = (left - 1) / 26;
    }
    name.iter().rev().collect()
}

/// Appends a text such that whoever reads it gets it back to the last character.
fn write_text(out: &mut Vec<u8>, text: &str) {
    let mut from = 0;
    for (at, c) in text.char_indices() {
        let code = match c {
            '&' => "&amp;",
            '<' => "&lt;",
            '>' => "&gt;",
            '_' if reads_as_code(&text[at..]) => "_x005F_",
            c if needs_code(c) => &format!("_x{:04X}_", u32::from(c)),
            _ => continue,
        };
        extend(out, &[&text[from..at], code]);
        from = at + c.len_utf8();
    }
    extend(out, &[&text[from..]]);
}

/// XML has no such character, or turns it into another.
fn needs_code(c: char) -> bool {
    matches!(c, '\0'..='\u{8}' | '\u{b}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}')
}

/// Would `_xHHHH_` be read here? Its last `_` may be the first of a code.
fn reads_as_code(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("_x") else { return false };
    let digits = rest.bytes().take(4).filter(u8::is_ascii_hexdigit).count();
    digits == 4 && rest[4..].starts_with(|c| c == '_' || needs_code(c))
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::{Cursor, Read};

    use zip::ZipArchive;

    use super::*;

    /// The sheets of a workbook, each as rows of cells.
    pub fn read(bytes: &[u8]) -> Vec<Vec<Vec<String>>> {
        let mut archive = ZipArchive::new(Cursor::new(bytes)).unwrap();
        let mut sheets = Vec::new();
        for no in 1.. {
            let Ok(mut file) = archive.by_name(&format!("xl/worksheets/sheet{no}.xml")) else {
                break;
            };
            let mut xml = String::new();
            file.read_to_string(&mut xml).unwrap();
            assert!(!xml.contains("<f"), "a formula");
            sheets.push(xml.split("<row ").skip(1).map(read_row).collect());
        }
        sheets
    }

    fn read_row(row: &str) -> Vec<String> {
        let mut cells = Vec::new();
        for cell in row.split("<c r=\"").skip(1) {
            let name: String = cell.chars().take_while(char::is_ascii_uppercase).collect();
            let at = (0..).find(|at| column_name(*at) == name).unwrap();
            cells.resize(at, String::new());
            let text = cell.split_once("<t").or(cell.split_once("<v")).unwrap().1;
            let text = text.split_once('>').unwrap().1.split_once("</").unwrap().0;
            cells.push(decode(text));
        }
        cells
    }

    fn decode(text: &str) -> String {
        let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
        let (mut out, mut rest) = (String::new(), text.as_str());
        while let Some(c) = rest.chars().next() {
            let code = rest.strip_prefix("_x").filter(|code| code.get(4..5) == Some("_"));
            let code = code.and_then(|code| u32::from_str_radix(&code[..4], 16).ok());
            match code.and_then(char::from_u32) {
                Some(c) => (out, rest) = (out + &c.to_string(), &rest[7..]),
                None => (out, rest) = (out + &c.to_string(), &rest[c.len_utf8()..]),
            }
        }
        out
    }

    fn made(rows: &[Vec<Option<Value<'_>>>], most: u32) -> Result<Vec<u8>, MakeError> {
        let head = vec![String::from("a"), String::from("=b")];
        let mut workbook = Workbook::with_rows(Cursor::new(Vec::new()), head, most)?;
        for row in rows {
            workbook.row(row.iter().copied())?;
        }
        workbook.finish().map(Cursor::into_inner)
    }

    #[test]
    fn texts_come_back_to_the_last_character() {
        let texts = [
            "=1+1",
            "+1",
            "-1",
            "@SUM(A1)",
            "\t=1",
            "\r=1",
            "\r\n",
            "007",
            "12345678901234567890",
            "2024-01-02",
            "1/2",
            "TRUE",
            " lead and trail ",
            "a & b <c> \"d\" 'e'",
            "]]>",
            "\u{1}\u{8}\u{b}\u{1f}",
            "_x0041_",
            "_x005F_",
            "_x0041\u{1}",
            "_x_x0041_x0042_",
            "__x0041_",
            "_x00",
            "_x004g_",
            "名单\u{1f600}",
            "\u{fffe}\u{ffff}",
            "é\u{301}",
            "",
        ];
        let row: Vec<_> = texts.iter().map(|text| Some(Value::Text(text))).collect();
        let bytes = made(&[row], ROWS).unwrap();
        let sheets = read(&bytes);
        assert_eq!(sheets[0][0], ["a", "=b"]);
        assert_eq!(sheets[0][1], texts);
    }

    #[test]
    fn a_full_sheet_is_followed_by_another() {
        let rows: Vec<_> = (0..7).map(|no| vec![None, Some(Value::Number(no))]).collect();
        let sheets = read(&made(&rows, 4).unwrap());
        let head = vec![String::from("a"), String::from("=b")];
        assert_eq!(sheets.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 2]);
        assert!(sheets.iter().all(|sheet| sheet[0] == head));
        let numbers = sheets.iter().flat_map(|sheet| &sheet[1..]).map(|row| row[1].as_str());
        assert_eq!(numbers.collect::<Vec<_>>(), ["0", "1", "2", "3", "4", "5", "6"]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let (fits, long) = ("é".repeat(CHARACTERS), "\u{1f600}".repeat(CHARACTERS / 2 + 1));
        assert!(made(&[vec![Some(Value::Text(&fits))]], ROWS).is_ok());
        let refused = made(&[vec![Some(Value::Text(&long))]], ROWS).err().unwrap();
        assert!(refused.to_string().starts_with("Cell A2 of sheet 1 has more"), "{refused}");
        assert!(made(&[vec![None; COLUMNS]], ROWS).is_ok());
        assert!(matches!(made(&[vec![None; COLUMNS + 1]], ROWS), Err(MakeError::Unfit(_))));
    }

    #[test]
    fn columns_have_their_names() {
        let names = [(0, "A"), (25, "Z"), (26, "AA"), (701, "ZZ"), (702, "AAA"), (16_383, "XFD")];
        assert!(names.iter().all(|(at, name)| column_name(*at) == *name));
    }
}
