//! A part of a workbook before it is parsed: is it small enough, and of a kind that cannot make its parser gather
//! more than it should?
//!
//! Data: the part's bytes go through once; what is kept of them is the tag in hand.
//!
//! Invariants: the parser sees markup begin where we do. Within a tag, a comment or an instruction there is no `<`
//! (so that the next one begins markup for both, whoever of us saw the last one end earlier); there is no document
//! type; the text is UTF-8 and says nothing else of itself. What is not so is refused: no program that writes
//! workbooks writes it.

use memchr::memchr;

/// Bytes of a tag.
const TAG: usize = 64 << 10;
/// Bytes between the beginnings of two cells, or of two shared strings: a cell holds 32,767 characters.
const CELL: u64 = 16 << 20;
/// Shared strings: a sheet of a million rows with four columns of texts that are all different.
pub const STRINGS: u64 = 4_000_000;
/// Formats of cells, as many as a spreadsheet program takes.
const FORMATS: u64 = 65_536;
/// What is kept of each format is at most the longest tag: bytes of all of them.
const FORMAT_BYTES: u64 = 128 << 20;
/// Tags of a part that is kept as a whole by its parser.
const TAGS: u64 = 600_000;

/// What a part is to its parser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Cells, read one by one.
    Sheet,
    /// Texts of cells, kept.
    Strings,
    /// Formats of cells, kept.
    Styles,
    /// All else, kept.
    Other,
}

/// What is wrong with a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// No workbook has such a part.
    Broken(&'static str),
    /// It is larger than is taken here.
    TooLarge(String),
}

/// Where in the text we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Text,
    /// Behind `<`: what begins is known after a few bytes.
    Begin,
    /// In an element's tag; the quote that is open.
    Tag(Option<u8>),
    Instruction,
    Comment,
    CData,
}

/// Looks at one part.
pub struct Scan {
    kind: Kind,
    at: At,
    /// The tag, comment or instruction in hand, without `<`.
    tag: Vec<u8>,
    /// The last bytes of character data that may end it.
    tail: [u8; 2],
    begun: bool,
    bom: usize,
    /// In a sheet: behind its cells nothing is read any more.
    done: bool,
    since: u64,
    tags: u64,
    longest: u64,
    formats: u64,
    strings: u64,
}

impl Scan {
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            at: At::Text,
            tag: Vec::new(),
            tail: [0; 2],
            begun: false,
            bom: 0,
            done: false,
            since: 0,
            tags: 0,
            longest: 0,
            formats: 0,
            strings: 0,
        }
    }

    /// The next bytes of the part.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Fault> {
        let control = |b: &u8| *b < b' ' && !matches!(b, b'\t' | b'\n' | b'\r');
        // No early exit: this way the compiler looks at many bytes at once.
        if bytes.iter().fold(false, |found, b| found | control(b)) {
            return Err(Fault::Broken("a part of it is no XML text in UTF-8"));
        }
        while !self.begun {
            let Some((first, rest)) = bytes.split_first() else { return Ok(()) };
            match (first, b"\xef\xbb\xbf".get(self.bom)) {
                (b'<', _) if matches!(self.bom, 0 | 3) => self.begun = true,
                (b' ' | b'\t' | b'\r' | b'\n', _) if matches!(self.bom, 0 | 3) => bytes = rest,
                (first, Some(want)) if first == want => {
                    self.bom += 1;
                    bytes = rest;
                }
                _ => return Err(Fault::Broken("a part of it is no XML text in UTF-8")),
            }
        }
        while !bytes.is_empty() {
            let used = self.step(bytes)?;
            bytes = &bytes[used..];
            if !self.done && matches!(self.kind, Kind::Sheet | Kind::Strings) {
                self.since += used as u64;
                if self.since > CELL {
                    return Err(Fault::TooLarge(format!("a cell of more than {CELL} bytes")));
                }
            }
        }
        Ok(())
    }

    /// Goes on as far as it is clear where that is; how many bytes it was.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        match self.at {
            At::Text => match memchr(b'<', bytes) {
                Some(at) => {
                    self.tag.clear();
                    self.at = At::Begin;
                    Ok(at + 1)
                }
                None => Ok(bytes.len()),
            },
            At::Begin => {
                self.tag.push(bytes[0]);
                self.at = match self.tag.as_slice() {
                    b"!" | b"!-" => At::Begin,
                    b"!--" => At::Comment,
                    b"![CDATA[" => {
                        self.tail = [0; 2];
                        At::CData
                    }
                    tag if b"![CDATA[".starts_with(tag) => At::Begin,
                    [b'!', ..] => {
                        return Err(Fault::Broken("a part of it has a document type"));
                    }
                    b"?" => At::Instruction,
                    b">" | b"<" => return Err(Fault::Broken("a part of it has an empty tag")),
                    [quote @ (b'"' | b'\'')] => At::Tag(Some(*quote)),
                    _ => At::Tag(None),
                };
                Ok(1)
            }
            At::Tag(quote) => self.tag_goes_on(bytes, quote),
            At::Instruction => self.until(bytes, b"?>"),
            At::Comment => self.until(bytes, b"-->"),
            At::CData => self.character_data(bytes),
        }
    }

    fn tag_goes_on(&mut self, bytes: &[u8], mut quote: Option<u8>) -> Result<usize, Fault> {
        for (no, &b) in bytes.iter().enumerate() {
            match (b, quote) {
                (b'<', _) => return Err(Fault::Broken("a tag in it does not end")),
                (b'>', None) => {
                    self.push(&bytes[..no])?;
                    self.at = At::Text;
                    self.tag_ends()?;
                    return Ok(no + 1);
                }
                (b'"' | b'\'', None) => quote = Some(b),
                (b, Some(open)) if b == open => quote = None,
                _ => {}
            }
        }
        self.push(bytes)?;
        self.at = At::Tag(quote);
        Ok(bytes.len())
    }

    /// A comment or an instruction, up to where it ends.
    fn until(&mut self, bytes: &[u8], end: &[u8]) -> Result<usize, Fault> {
        let last = end[end.len() - 1];
        let found = memchr(last, bytes);
        let used = found.map_or(bytes.len(), |at| at + 1);
        if memchr(b'<', &bytes[..used]).is_some() {
            return Err(Fault::Broken("a comment in it does not end"));
        }
        self.push(&bytes[..used])?;
        if found.is_none() {
            return Ok(used);
        }
        // Its beginning may not be taken for its end.
        let begin = if self.at == At::Comment { 3 } else { 1 };
        let ends = self.tag.ends_with(end);
        if ends && self.tag.len() < begin + end.len() {
            return Err(Fault::Broken("a comment in it does not begin"));
        }
        if ends {
            if self.at == At::Instruction {
                instruction(&self.tag)?;
            }
            self.at = At::Text;
        }
        Ok(used)
    }

    fn character_data(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let found = memchr(b'>', bytes);
        let used = found.map_or(bytes.len(), |at| at + 1);
        let before = &bytes[..found.unwrap_or(used)];
        for &b in &before[before.len().saturating_sub(2)..] {
            self.tail = [self.tail[1], b];
        }
        if found.is_some() {
            if self.tail == *b"]]" {
                self.at = At::Text;
            }
            self.tail = [0, b'>'];
        }
        Ok(used)
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        if self.tag.len() + bytes.len() > TAG {
            return Err(Fault::TooLarge(format!("a tag of more than {TAG} bytes")));
        }
        self.tag.extend_from_slice(bytes);
        Ok(())
    }

    /// An element's tag is whole.
    fn tag_ends(&mut self) -> Result<(), Fault> {
        let (ends, tag) = match self.tag.split_first() {
            Some((b'/', rest)) => (true, rest),
            _ => (false, self.tag.as_slice()),
        };
        let space = |b: &u8| b.is_ascii_whitespace() || *b == b'/';
        let name = &tag[..tag.iter().position(space).unwrap_or(tag.len())];
        let name = name.rsplit(|b| *b == b':').next().unwrap_or(name);
        self.tags += 1;
        self.longest = self.longest.max(self.tag.len() as u64);
        match self.kind {
            Kind::Sheet if self.done => {}
            Kind::Sheet => match name {
                b"sheetData" if ends => self.done = true,
                b"row" | b"c" | b"sheetData" if !ends => self.since = 0,
                b"sheet" | b"definedName" => {
                    return Err(Fault::Broken("a sheet in it is none"));
                }
                _ => {}
            },
            Kind::Strings => {
                if !ends && name == b"si" {
                    self.strings += 1;
                    self.since = 0;
                }
                let announced = if name == b"sst" { announced(tag) } else { 0 };
                if self.strings.max(announced) > STRINGS {
                    return Err(Fault::TooLarge(format!("more than {STRINGS} different texts")));
                }
            }
            Kind::Styles => {
                self.formats += u64::from(!ends && name == b"xf");
                if self.formats > FORMATS || self.formats * self.longest > FORMAT_BYTES {
                    return Err(Fault::TooLarge(format!("more than {FORMATS} formats of cells")));
                }
                self.bounded()?;
            }
            Kind::Other => self.bounded()?,
        }
        Ok(())
    }

    fn bounded(&self) -> Result<(), Fault> {
        match self.tags > TAGS {
            true => Err(Fault::TooLarge(format!("a part with more than {TAGS} tags"))),
            false => Ok(()),
        }
    }
}

/// How many strings the part says that it has: its parser makes room for them before it sees one.
fn announced(tag: &[u8]) -> u64 {
    const NAME: &[u8] = b"uniqueCount";
    let mut most = 0;
    for at in memchr::memmem::find_iter(tag, NAME) {
        let rest = tag[at + NAME.len()..].trim_ascii_start();
        let rest = rest.strip_prefix(b"=").unwrap_or(rest).trim_ascii_start();
        let rest = rest.strip_prefix(b"\"").or(rest.strip_prefix(b"'")).unwrap_or(rest);
        let rest = rest.trim_ascii_start();
        let rest = rest.strip_prefix(b"+").unwrap_or(rest);
        let digits = rest.iter().take_while(|b| b.is_ascii_digit());
        let number = digits.fold(0u64, |number, digit| {
            number.saturating_mul(10).saturating_add(u64::from(digit - b'0'))
        });
        most = most.max(number);
    }
    most
}

/// What a part says of its own encoding must be what it is.
fn instruction(tag: &[u8]) -> Result<(), Fault> {
    const NAME: &[u8] = b"encoding";
    let lower = tag.to_ascii_lowercase();
    let Some(at) = memchr::memmem::find(&lower, NAME).filter(|_| lower.starts_with(b"?xml")) else {
        return Ok(());
    };
    let value: Vec<u8> = lower[at + NAME.len()..]
        .iter()
        .copied()
        .filter(|b| b.is_ascii_alphanumeric() || *b == b'-')
        .collect();
    let fits = [&b"utf-8"[..], b"utf8", b"us-ascii", b"ascii"];
    match fits.iter().any(|fit| value.starts_with(fit)) {
        true => Ok(()),
        false => Err(Fault::Broken("a part of it is not in UTF-8")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(kind: Kind, text: &str) -> Result<(), Fault> {
        let mut whole = Scan::new(kind);
        let at_once = whole.feed(text.as_bytes());
        let mut pieces = Scan::new(kind);
        let one_by_one = text.as_bytes().chunks(1).try_for_each(|byte| pieces.feed(byte));
        assert_eq!(at_once, one_by_one, "{text}");
        assert_eq!(whole.strings, pieces.strings);
        at_once
    }

    #[test]
    fn what_programs_write_is_fine() {
        for text in [
            "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?>\r\n<a b=\"c > d\"/>",
            "\u{feff}<?xml version='1.0'?><!-- made by --><a><![CDATA[Tom <tom@x> ]] >]]></a>",
            "<a>x &amp; y &gt; z > </a>",
            "  <!----><a/>",
        ] {
            assert_eq!(scan(Kind::Other, text), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_a_parser_may_take_for_something_else_is_refused() {
        for text in [
            "<!DOCTYPE x><a/>",
            "<a b='<!-- '>",
            "</a '><!-- '> <b/> -->",
            "<!--><a/>-->",
            "<!---><a/>-->",
            "<!-- <a/> -->",
            "<?><a/>?>",
            "<?xml version='1.0' encoding='UTF-16'?><a/>",
            "<><a/>",
            "text <a/>",
            "<a>\u{1b}</a>",
            "\u{feff}\u{feff}<a/>",
        ] {
            assert!(matches!(scan(Kind::Other, text), Err(Fault::Broken(_))), "{text}");
        }
    }

    #[test]
    fn strings_and_formats_are_counted() {
        let mut strings = Scan::new(Kind::Strings);
        strings.feed(b"<sst><si><t>a</t></si><x:si/><si >").unwrap();
        assert_eq!(strings.strings, 3);
        for count in ["uniqueCount=\"99999999999\"", "a=\"1\" uniqueCount = '+4000001'"] {
            let text = format!("<x:sst {count}>");
            assert!(matches!(scan(Kind::Strings, &text), Err(Fault::TooLarge(_))), "{count}");
        }
        assert_eq!(scan(Kind::Strings, "<sst count=\"5\" uniqueCount=\"4000000\">"), Ok(()));
        let many = "<xf/>".repeat(FORMATS as usize + 1);
        let mut styles = Scan::new(Kind::Styles);
        assert!(matches!(styles.feed(many.as_bytes()), Err(Fault::TooLarge(_))));
        let long = format!("<font name=\"{}\"/>{}", "x".repeat(60_000), "<xf/>".repeat(3_000));
        assert!(matches!(scan(Kind::Styles, &long), Err(Fault::TooLarge(_))));
    }

    #[test]
    fn a_cell_has_an_end() {
        let mut scan = Scan::new(Kind::Sheet);
        scan.feed(b"<worksheet><sheetData><row><c t=\"inlineStr\"><is>").unwrap();
        let piece = format!("<r><t>{}</t></r>", "text ".repeat(12_000)).into_bytes();
        let fault = (0..300).find_map(|_| scan.feed(&piece).err());
        assert!(matches!(fault, Some(Fault::TooLarge(_))));
        let mut scan = Scan::new(Kind::Sheet);
        scan.feed(b"<worksheet><sheetData><row><c/></row></sheetData>").unwrap();
        for _ in 0..300 {
            scan.feed(&piece).unwrap();
        }
    }
}
