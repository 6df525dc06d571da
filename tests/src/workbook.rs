//! Workbooks (XLSX) as a spreadsheet program writes them, and as only somebody with bad intent does.

use std::io::{Read, Write};

use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};

/// Media type of a workbook.
pub const KIND: &str = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet";

/// An archive of these files.
pub fn pack(files: Vec<(&str, Box<dyn Read + '_>)>) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    let count = files.len() as u16;
    for (name, mut content) in files {
        let (mut crc, mut buffer) = (Crc::new(), vec![0; 64 << 10]);
        let mut deflate = DeflateEncoder::new(Vec::new(), Compression::fast());
        loop {
            let n = content.read(&mut buffer).expect("a content");
            if n == 0 {
                break;
            }
            crc.update(&buffer[..n]);
            deflate.write_all(&buffer[..n]).expect("writes to memory");
        }
        let size = deflate.total_in() as u32;
        let packed = deflate.finish().expect("writes to memory");
        // Version, flags, method 8, time and date, sums and lengths.
        let mut head = vec![20, 0, 0, 0, 8, 0, 0, 0, 0x21, 0];
        for number in [crc.sum(), packed.len() as u32, size] {
            head.extend(number.to_le_bytes());
        }
        head.extend((name.len() as u16).to_le_bytes());
        head.extend([0, 0]);
        directory.extend(b"PK\x01\x02\x14\x00");
        directory.extend(&head);
        directory.extend([0; 10]);
        directory.extend((out.len() as u32).to_le_bytes());
        directory.extend(name.as_bytes());
        out.extend(b"PK\x03\x04");
        out.extend(&head);
        out.extend(name.as_bytes());
        out.extend(packed);
    }
    let (from, length) = (out.len() as u32, directory.len() as u32);
    out.extend(directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend([count.to_le_bytes(), count.to_le_bytes()].concat());
    out.extend([length.to_le_bytes(), from.to_le_bytes()].concat());
    out.extend([0, 0]);
    out
}

/// A workbook whose sheets have this XML between the tags of their data.
pub fn of_xml(
    sheets: Vec<(&str, Box<dyn Read + '_>)>,
    strings: Option<Box<dyn Read + '_>>,
) -> Vec<u8> {
    const PARTS: &str = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";
    const MAIN: &str = "http://schemas.openxmlformats.org/spreadsheetml/2006/main";
    let link = |no: usize, kind: &str, target: &str| {
        format!("<Relationship Id=\"rId{no}\" Type=\"{PARTS}/{kind}\" Target=\"{target}\"/>")
    };
    let links = |inner: String| format!("<Relationships>{inner}</Relationships>");
    let named = |(no, (name, _)): (usize, &(&str, _))| {
        format!("<sheet name=\"{name}\" sheetId=\"{0}\" r:id=\"rId{0}\"/>", no + 1)
    };
    let listed: String = sheets.iter().enumerate().map(named).collect();
    let book = format!(
        "<workbook xmlns=\"{MAIN}\" xmlns:r=\"{PARTS}\"><sheets>{listed}</sheets></workbook>"
    );
    let of_sheet = |no: usize| link(no, "worksheet", &format!("worksheets/sheet{no}.xml"));
    let of_book = links((1..=sheets.len()).map(of_sheet).collect());
    let root = links(link(1, "officeDocument", "xl/workbook.xml"));
    let types = "<Types/>";
    let begin = format!("<worksheet xmlns=\"{MAIN}\"><sheetData>");
    let paths: Vec<String> =
        (1..=sheets.len()).map(|no| format!("xl/worksheets/sheet{no}.xml")).collect();
    let mut files: Vec<(&str, Box<dyn Read + '_>)> = vec![
        ("[Content_Types].xml", Box::new(types.as_bytes())),
        ("_rels/.rels", Box::new(root.as_bytes())),
        ("xl/workbook.xml", Box::new(book.as_bytes())),
        ("xl/_rels/workbook.xml.rels", Box::new(of_book.as_bytes())),
    ];
    for (path, (_, rows)) in paths.iter().zip(sheets) {
        let all = begin.as_bytes().chain(rows).chain(&b"</sheetData></worksheet>"[..]);
        files.push((path, Box::new(all)));
    }
    if let Some(strings) = strings {
        files.push(("xl/sharedStrings.xml", strings));
    }
    pack(files)
}

/// A workbook of texts, which its sheets share.
pub fn of_texts(sheets: &[(&str, Vec<Vec<String>>)]) -> Vec<u8> {
    let (mut strings, mut count) = (String::from("<sst>"), 0);
    let mut all = Vec::new();
    for (_, rows) in sheets {
        let mut xml = String::new();
        for (no, row) in rows.iter().enumerate() {
            xml += &format!("<row r=\"{}\">", no + 1);
            for (at, text) in row.iter().enumerate().filter(|(_, text)| !text.is_empty()) {
                let column = char::from(b'A' + u8::try_from(at).expect("few columns"));
                xml += &format!("<c r=\"{column}{}\" t=\"s\"><v>{count}</v></c>", no + 1);
                count += 1;
                let text = text.replace('&', "&amp;").replace('<', "&lt;");
                strings += &format!("<si><t xml:space=\"preserve\">{text}</t></si>");
            }
            xml += "</row>";
        }
        all.push(xml);
    }
    strings += "</sst>";
    let sheets = sheets.iter().zip(&all);
    let sheets = sheets.map(|((name, _), xml)| {
        let xml: Box<dyn Read + '_> = Box::new(xml.as_bytes());
        (*name, xml)
    });
    of_xml(sheets.collect(), Some(Box::new(strings.as_bytes())))
}

/// The rows of a CSV as a workbook with one sheet.
pub fn of_csv(text: &str) -> Vec<u8> {
    let mut reader =
        csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
    let row = |row: csv::StringRecord| row.iter().map(str::to_owned).collect();
    let rows = reader.records().map(|record| row(record.expect("a row"))).collect();
    of_texts(&[("Sheet1", rows)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive;

    #[test]
    fn an_archive_unpacks() {
        let bytes = of_csv("email,note\na@x.example,\"x, y\"\n");
        let files = archive::unpack(&bytes);
        assert_eq!(files.len(), 6);
        let (name, strings) = files.last().expect("strings");
        assert_eq!(name, "xl/sharedStrings.xml");
        assert!(str::from_utf8(strings).expect("UTF-8").contains(">x, y<"));
    }
}
