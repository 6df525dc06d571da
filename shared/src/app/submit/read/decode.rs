//! A list in any encoding becomes UTF-8 as it is read.
//!
//! Data: bytes go in, UTF-8 comes out, and what they were ([`Decoded::manner`]).
//!
//! A byte order mark decides, then what the sender said, then the bytes: as long as all are ASCII, nothing has to be
//! decided; where the first other byte comes, it and what follows it are either UTF-8 or looked at by a detector.
//!
//! Invariants: UTF-8 passes as it is, at no cost but a look for the first byte that is not ASCII; what cannot be
//! decoded is an error and never a replacement character.

use std::io::{self, Read};

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{
    Decoder, DecoderResult, Encoding, SHIFT_JIS, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252,
};

use super::error::ReadError;

/// Bytes that a detector looks at, at most.
const WINDOW: usize = 64 << 10;
/// Bytes that are looked at for a mark, or for what UTF-16 has without one.
const HEAD: usize = 64;
/// Bytes decoded at once.
const CHUNK: usize = 64 << 10;

/// How a text was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Manner {
    /// The encoding's name.
    pub encoding: &'static str,
    /// It began with a byte order mark, or is no UTF-8.
    pub bom: bool,
    /// Its first line ends with CR and LF, or there is but one line.
    pub crlf: bool,
}

/// The encoding of that label, as senders and HTML name it.
pub fn encoding(label: &str) -> Option<&'static Encoding> {
    Encoding::for_label(label.trim().as_bytes()).map(|found| match label.trim() {
        // HTML takes plain ASCII for Windows-1252; here it says nothing.
        label if label.eq_ignore_ascii_case("us-ascii") || label.eq_ignore_ascii_case("ascii") => {
            UTF_8
        }
        _ => found,
    })
}

/// Reads as UTF-8.
pub(super) struct Decoded<R> {
    input: R,
    mode: Mode,
    /// Bytes that were read and not yet passed on or decoded.
    raw: Vec<u8>,
    /// Text that was decoded and not yet passed on: `text[at..]`.
    text: Vec<u8>,
    at: usize,
    /// Bytes before `raw`.
    offset: u64,
    ended: bool,
    bom: bool,
    ends: Ends,
}

enum Mode {
    /// All ASCII so far.
    Ascii,
    /// Passed on as it is.
    Utf8,
    Other(&'static Encoding, Decoder),
}

/// How the first line ends.
#[derive(Clone, Copy)]
enum Ends {
    /// Not seen yet; was the last byte a CR?
    Unknown(bool),
    CrLf,
    Lf,
}

impl<R: Read> Decoded<R> {
    /// `said`: what the sender says it is.
    pub fn new(mut input: R, said: Option<&'static Encoding>) -> Result<Self, ReadError> {
        let mut raw = Vec::with_capacity(CHUNK);
        (&mut input).take(HEAD as u64).read_to_end(&mut raw).map_err(ReadError::from_io)?;
        let marked = Encoding::for_bom(&raw);
        let mode = match (marked.map(|(encoding, _)| encoding), said) {
            (Some(encoding), _) | (None, Some(encoding)) => Mode::of(encoding),
            (None, None) => unmarked_utf16(&raw).map_or(Mode::Ascii, Mode::of),
        };
        let mut offset = 0;
        if let (Some((_, length)), Mode::Other(..)) = (marked, &mode) {
            raw.drain(..length);
            offset = length as u64;
        }
        Ok(Self {
            input,
            mode,
            raw,
            text: Vec::new(),
            at: 0,
            offset,
            ended: false,
            bom: marked.is_some(),
            ends: Ends::Unknown(false),
        })
    }

    /// What it was found to be; complete when all was read.
    pub fn manner(&self) -> Manner {
        let (encoding, bom) = match &self.mode {
            Mode::Ascii | Mode::Utf8 => (UTF_8.name(), self.bom),
            Mode::Other(encoding, _) => (encoding.name(), true),
        };
        Manner { encoding, bom, crlf: !matches!(self.ends, Ends::Lf) }
    }

    fn see(&mut self, bytes: &[u8]) {
        let Ends::Unknown(after_cr) = self.ends else { return };
        self.ends = match memchr::memchr(b'\n', bytes) {
            Some(0) if after_cr => Ends::CrLf,
            Some(at) if at > 0 && bytes[at - 1] == b'\r' => Ends::CrLf,
            Some(_) => Ends::Lf,
            None => Ends::Unknown(bytes.last().map_or(after_cr, |last| *last == b'\r')),
        };
    }

    /// Passes on raw bytes, as many as are ready; reads some where there are none.
    fn pass(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.raw.is_empty() {
            let n = self.input.read(out)?;
            self.offset += n as u64;
            return Ok(n);
        }
        let n = out.len().min(self.raw.len());
        out[..n].copy_from_slice(&self.raw[..n]);
        self.raw.drain(..n);
        self.offset += n as u64;
        Ok(n)
    }

    /// `rest` begins with a byte that is not ASCII: it and what follows tell the encoding.
    fn decide(&mut self, rest: &[u8]) -> io::Result<()> {
        let mut window = rest.to_vec();
        window.append(&mut self.raw);
        self.offset -= rest.len() as u64;
        let more = WINDOW.saturating_sub(window.len());
        (&mut self.input).take(more as u64).read_to_end(&mut window)?;
        let whole = window.len() < WINDOW;
        self.mode = match str::from_utf8(&window) {
            Ok(_) => Mode::Utf8,
            // The window ends inside a character.
            Err(error) if error.error_len().is_none() && !whole => Mode::Utf8,
            // UTF-8 but for a broken place: its line is named by who checks.
            Err(error) if mostly_utf8(&window[..error.valid_up_to()]) => Mode::Utf8,
            Err(_) => Mode::of(detect(&window, whole)),
        };
        self.raw = window;
        Ok(())
    }

    /// Decodes some more.
    fn decode(&mut self) -> io::Result<()> {
        self.text.clear();
        self.at = 0;
        let Mode::Other(encoding, decoder) = &mut self.mode else { return Ok(()) };
        while self.text.is_empty() && !self.ended {
            if self.raw.is_empty() {
                self.raw.resize(CHUNK, 0);
                let n = self.input.read(&mut self.raw)?;
                self.raw.truncate(n);
            }
            let last = self.raw.is_empty();
            let most = decoder.max_utf8_buffer_length_without_replacement(self.raw.len());
            self.text.resize(most.unwrap_or(4 * CHUNK), 0);
            let (result, read, written) =
                decoder.decode_to_utf8_without_replacement(&self.raw, &mut self.text, last);
            self.text.truncate(written);
            if let DecoderResult::Malformed(..) = result {
                let (encoding, offset) = (encoding.name(), self.offset + read as u64);
                return Err(ReadError::NotDecoded { encoding, offset }.into_io());
            }
            self.raw.drain(..read);
            self.offset += read as u64;
            self.ended = last && result == DecoderResult::InputEmpty;
        }
        Ok(())
    }
}

impl Mode {
    fn of(encoding: &'static Encoding) -> Self {
        match encoding == UTF_8 {
            true => Self::Utf8,
            false => Self::Other(encoding, encoding.new_decoder_without_bom_handling()),
        }
    }
}

impl<R: Read> Read for Decoded<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.at < self.text.len() {
                let n = out.len().min(self.text.len() - self.at);
                out[..n].copy_from_slice(&self.text[self.at..self.at + n]);
                self.at += n;
                self.see(&out[..n]);
                return Ok(n);
            }
            match &self.mode {
                Mode::Utf8 => {
                    let n = self.pass(out)?;
                    self.see(&out[..n]);
                    return Ok(n);
                }
                Mode::Ascii => {
                    let n = self.pass(out)?;
                    let ascii = match out[..n].is_ascii() {
                        true => n,
                        false => out[..n].iter().position(|b| !b.is_ascii()).unwrap_or(n),
                    };
                    if ascii < n {
                        let rest = out[ascii..n].to_vec();
                        self.decide(&rest)?;
                    }
                    self.see(&out[..ascii]);
                    if ascii > 0 || n == 0 {
                        return Ok(ascii);
                    }
                }
                Mode::Other(..) => {
                    if self.ended {
                        return Ok(0);
                    }
                    self.decode()?;
                }
            }
        }
    }
}

/// Is there UTF-8 with more than ASCII in it, enough that no other encoding looks like it?
fn mostly_utf8(valid: &[u8]) -> bool {
    str::from_utf8(valid).is_ok_and(|text| text.chars().filter(|c| !c.is_ascii()).count() >= 3)
}

/// UTF-16 without a mark: texts are full of ASCII, whose other byte is zero.
fn unmarked_utf16(head: &[u8]) -> Option<&'static Encoding> {
    let (pairs, _) = head.as_chunks::<2>();
    let zeros = |at: usize| pairs.iter().filter(|pair| pair[at] == 0).count();
    let (high, low) = (zeros(0), zeros(1));
    let most = pairs.len() - pairs.len() / 4;
    match pairs.len() >= 2 {
        true if low >= most && high == 0 => Some(UTF_16LE),
        true if high >= most && low == 0 => Some(UTF_16BE),
        _ => None,
    }
}

/// The likely encoding of bytes that are no UTF-8.
fn detect(window: &[u8], whole: bool) -> &'static Encoding {
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
    detector.feed(window, whole);
    let found = detector.guess(None, Utf8Detection::Deny);
    // A few accented letters are more often Western than Japanese half-width forms.
    match found == SHIFT_JIS && window.iter().filter(|b| !b.is_ascii()).count() < 4 {
        true => WINDOWS_1252,
        false => found,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The text, and what was found of it; read in pieces of so many bytes.
    fn decoded(bytes: &[u8], said: Option<&str>, step: usize) -> Result<(String, Manner), String> {
        let said = said.map(|said| encoding(said).unwrap());
        let mut reader = Decoded::new(bytes, said).map_err(|error| error.to_string())?;
        let (mut all, mut some) = (Vec::new(), vec![0; step]);
        loop {
            match reader.read(&mut some).map_err(|error| error.to_string())? {
                0 => break,
                n => all.extend_from_slice(&some[..n]),
            }
        }
        Ok((String::from_utf8_lossy(&all).into_owned(), reader.manner()))
    }

    fn found(bytes: &[u8]) -> (String, &'static str) {
        let (text, manner) = decoded(bytes, None, 7).unwrap();
        (text, manner.encoding)
    }

    const GERMAN: &str = "Name;Straße;E-Mail\r\nJörg Müller;Königsallee 7;joerg@x.example\r\nBärbel Groß;Grüner Weg;b@x.example\r\n";
    const POLISH: &str = "Imię,Nazwisko,Miasto,Email\nŁukasz,Wiśniewski,Łódź,l@x.example\nZofia,Wójcik,Gdańsk,z@x.example\nŻaneta,Źrebiec,Częstochowa,z2@x.example\n";
    const RUSSIAN: &str = "Имя;Почта\nИван Петров;ivan@x.example\nМария Смирнова;maria@x.example\n";
    const JAPANESE: &str =
        "名前,メール\n田中太郎,tanaka@x.example\n鈴木花子さん,suzuki@x.example\n";
    const CHINESE: &str =
        "姓名,城市,邮箱\n王小明,北京,wang@x.example\n李华的地址是,上海,li@x.example\n";

    #[test]
    fn encodings_are_found() {
        for (text, name) in [
            (GERMAN, "windows-1252"),
            (POLISH, "windows-1250"),
            (RUSSIAN, "windows-1251"),
            (JAPANESE, "Shift_JIS"),
            (CHINESE, "gb18030"),
        ] {
            let encoding = Encoding::for_label(name.as_bytes()).unwrap();
            let (bytes, _, lossy) = encoding.encode(text);
            assert!(!lossy);
            let (back, found) = found(&bytes);
            assert_eq!(back, text);
            // The detector knows GB18030 by its older name, which is a part of it.
            assert!(found == name || (name == "gb18030" && found == "GBK"), "{name}: {found}");
            assert_eq!(super::tests::found(text.as_bytes()), (text.to_owned(), "UTF-8"));
            let (back, manner) = decoded(&bytes, Some(name), 5).unwrap();
            assert_eq!((back.as_str(), manner.encoding, manner.bom), (text, name, true));
        }
    }

    #[test]
    fn utf_16_with_and_without_a_mark() {
        for mark in [true, false] {
            let text = format!("{}{GERMAN}", if mark { "\u{feff}" } else { "" });
            let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
            assert_eq!(found(&little), (GERMAN.to_owned(), "UTF-16LE"));
            assert_eq!(found(&big), (GERMAN.to_owned(), "UTF-16BE"));
        }
    }

    #[test]
    fn marks_and_line_ends_are_known() {
        let manner = |bytes: &[u8]| decoded(bytes, None, 1).unwrap().1;
        let utf8 = |bom, crlf| Manner { encoding: "UTF-8", bom, crlf };
        assert_eq!(manner(b"a\r\nb\n"), utf8(false, true));
        assert_eq!(manner(b"a\nb\r\n"), utf8(false, false));
        assert_eq!(manner("\u{feff}é\n".as_bytes()), utf8(true, false));
        assert_eq!(manner(b"a"), utf8(false, true));
        assert_eq!(manner(b""), utf8(false, true));
    }

    #[test]
    fn what_cannot_be_decoded_is_named() {
        // Plain UTF-8 with one broken byte stays what it is: the guard names the line.
        let broken = [GERMAN.as_bytes(), b"J\xf6rg\n"].concat();
        assert_eq!(decoded(&broken, None, 9).unwrap().1.encoding, "UTF-8");
        let error = decoded(b"ab\x81", Some("shift_jis"), 9).unwrap_err();
        assert!(error.contains("Shift_JIS"), "{error}");
        assert_eq!(encoding("US-ASCII"), Some(UTF_8));
        assert_eq!(encoding("utf-9"), None);
    }

    /// A byte that is not ASCII may come anywhere, also far behind what is looked at first.
    #[test]
    fn the_first_byte_that_tells_may_come_late() {
        let long = "plain,plain@x.example\n".repeat(20_000);
        for (tail, name) in [("Jörg,j@x.example\n", "UTF-8"), (GERMAN, "windows-1252")] {
            let encoding = Encoding::for_label(name.as_bytes()).unwrap();
            let text = format!("{long}{tail}");
            let (bytes, ..) = encoding.encode(&text);
            let (back, manner) = decoded(&bytes, None, 4096).unwrap();
            assert!(back == text);
            assert_eq!(manner.encoding, name);
        }
    }

    proptest! {
        #[test]
        fn utf_8_passes_as_it_is(text in "\\PC{0,60}", step in 1..20_usize) {
            prop_assume!(!text.contains('\0'));
            let (back, manner) = decoded(text.as_bytes(), None, step).unwrap();
            prop_assert_eq!(back, text);
            prop_assert_eq!(manner.encoding, "UTF-8");
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), step in 1..20_usize) {
            let _ = decoded(&bytes, None, step);
        }
    }
}
