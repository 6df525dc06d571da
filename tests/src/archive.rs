//! ZIP archives and the workbooks that are made of them (XLSX), as somebody else would read them.

use std::io::Read;

use flate2::read::DeflateDecoder;

/// The files in an archive: name and content, by its directory.
pub fn unpack(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let end = memchr::memmem::rfind(bytes, b"PK\x05\x06").expect("an archive has an end");
    let count = number(bytes, end + 10, 2);
    let mut at = number(bytes, end + 16, 4);
    let mut files = Vec::with_capacity(count);
    for _ in 0..count {
        assert_eq!(&bytes[at..at + 4], b"PK\x01\x02", "an entry of the directory");
        let [packed, size] = [20, 24].map(|place| number(bytes, at + place, 4));
        let [name, extra, comment] = [28, 30, 32].map(|place| number(bytes, at + place, 2));
        let text = String::from_utf8(bytes[at + 46..at + 46 + name].to_vec()).expect("a name");
        let local = number(bytes, at + 42, 4);
        let begin = local + 30 + number(bytes, local + 26, 2) + number(bytes, local + 28, 2);
        let mut content = Vec::new();
        let mut reader: Box<dyn Read> = match number(bytes, at + 10, 2) {
            0 => Box::new(&bytes[begin..begin + packed]),
            8 => Box::new(DeflateDecoder::new(&bytes[begin..begin + packed])),
            other => panic!("{text} is packed by method {other}"),
        };
        reader.read_to_end(&mut content).expect("whole");
        assert_eq!(content.len(), size, "{text}");
        files.push((text, content));
        at += 46 + name + extra + comment;
    }
    files
}

/// A number of so many bytes, the lowest first.
fn number(bytes: &[u8], at: usize, length: usize) -> usize {
    bytes[at..at + length].iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

/// The sheets of a workbook, each as rows of texts. There may be no formula in it.
pub fn sheets(bytes: &[u8]) -> Vec<Vec<Vec<String>>> {
    let files = unpack(bytes);
    let named = |name: &str| files.iter().find(|(known, _)| known == name);
    for part in ["[Content_Types].xml", "_rels/.rels", "xl/workbook.xml", "xl/styles.xml"] {
        assert!(named(part).is_some(), "{part} is missing");
    }
    let sheet = |no: usize| named(&format!("xl/worksheets/sheet{no}.xml"));
    let sheets = (1..).map_while(sheet).map(|(_, xml)| {
        let xml = str::from_utf8(xml).expect("UTF-8");
        assert!(!xml.contains("<f>") && !xml.contains("<f "), "a formula");
        let allowed = |b: &u8| *b >= b' ' || matches!(b, b'\t' | b'\n' | b'\r');
        assert!(xml.as_bytes().iter().all(allowed), "a character that XML has not");
        xml.split("<row ").skip(1).map(row).collect()
    });
    sheets.collect()
}

fn row(xml: &str) -> Vec<String> {
    let mut cells: Vec<String> = Vec::new();
    for cell in xml.split("<c r=\"").skip(1) {
        let letters = cell.bytes().take_while(u8::is_ascii_uppercase);
        let column = letters.fold(0, |at, letter| at * 26 + usize::from(letter - b'A') + 1);
        cells.resize(column - 1, String::new());
        let begin = cell.find("<t").or(cell.find("<v")).expect("a value");
        let text = cell[begin..].split_once('>').expect("it begins").1;
        cells.push(decode(text.split_once("</").expect("it ends").0));
    }
    cells
}

/// What XML and the codes `_xHHHH_` stand for.
fn decode(xml: &str) -> String {
    let text = xml.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    let (mut out, mut rest) = (String::new(), text.as_str());
    while let Some(c) = rest.chars().next() {
        let code = rest.strip_prefix("_x").filter(|code| code.get(4..5) == Some("_"));
        let code = code.and_then(|code| u32::from_str_radix(&code[..4], 16).ok());
        let (c, length) = code.and_then(char::from_u32).map_or((c, c.len_utf8()), |c| (c, 7));
        out.push(c);
        rest = &rest[length..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_characters() {
        assert_eq!(decode("a_x0001_b&lt;_x005F_x0041_ _x004g_"), "a\u{1}b<_x0041_ _x004g_");
    }
}
