//! What a body is by its first bytes, whatever was said of it.

use std::io::{self, Read};

use memchr::memmem;

use super::read::ReadError;

/// Bytes that are looked at.
const HEAD: usize = 16;
/// Bytes of an OLE file that are searched for what is in it.
const SEARCHED: u64 = 64 << 20;
/// What an encrypted workbook holds, as the directory of the file writes it.
const ENCRYPTED: &[u8] = b"E\0n\0c\0r\0y\0p\0t\0e\0d\0P\0a\0c\0k\0a\0g\0e\0";

/// What the first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looks {
    /// Nothing against its being a text.
    Text,
    /// An archive; a workbook is one.
    Zip,
    /// What Office wrote before 2007, and writes still when there is a password.
    Ole,
    /// Packed with gzip.
    Gzip,
    /// Packed with zstd.
    Zstd,
    /// No list, for sure.
    Other(&'static str),
}

/// Judges the first bytes.
pub fn looks(head: &[u8]) -> Looks {
    const OTHERS: [(&[u8], &str); 10] = [
        (b"%PDF-", "a PDF file"),
        (b"BZh", "a file packed with bzip2"),
        (b"\xfd7zXZ\0", "a file packed with xz"),
        (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
        (b"Rar!\x1a\x07", "a RAR archive"),
        (b"\x89PNG\r\n", "a picture (PNG)"),
        (b"\xff\xd8\xff", "a picture (JPEG)"),
        (b"GIF8", "a picture (GIF)"),
        (b"{\\rtf", "a document (RTF)"),
        (b"SQLite format 3\0", "a SQLite database"),
    ];
    if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
        return Looks::Zip;
    }
    if head.starts_with(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1") {
        return Looks::Ole;
    }
    if head.starts_with(b"\x1f\x8b") {
        return Looks::Gzip;
    }
    if head.starts_with(b"\x28\xb5\x2f\xfd") {
        return Looks::Zstd;
    }
    let known = OTHERS.iter().find(|(begin, _)| head.starts_with(begin));
    known.map_or(Looks::Text, |(_, what)| Looks::Other(what))
}

/// The first bytes of what is read; they are consumed.
pub(super) fn head(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(HEAD);
    input.take(HEAD as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// Why an OLE file is not taken: what is in it is looked for.
pub(super) fn ole(mut input: impl Read) -> ReadError {
    let mut window = vec![0; 64 << 10];
    let (mut held, mut searched) = (0, 0);
    while searched < SEARCHED {
        let n = match input.read(&mut window[held..]) {
            Ok(0) => break,
            Ok(n) => n,
            Err(error) => return ReadError::Io(error),
        };
        searched += n as u64;
        held += n;
        if memmem::find(&window[..held], ENCRYPTED).is_some() {
            return ReadError::NotAList {
                what: "a workbook with a password".into(),
                hint: "Open it, remove the password (File, Info, Protect Workbook), save it, and send it again.",
            };
        }
        let keep = held.min(ENCRYPTED.len() - 1);
        window.copy_within(held - keep..held, 0);
        held = keep;
    }
    ReadError::NotAList {
        what: "a file of an old Office program, such as .xls or .doc".into(),
        hint: "Open it and save it as a workbook (.xlsx) or as CSV (UTF-8).",
    }
}

/// Why a text is not taken where a sheet of a workbook was named.
pub(super) fn no_workbook() -> ReadError {
    ReadError::NotAList {
        what: "a text, which has no sheets".into(),
        hint: "Send a workbook (.xlsx), or name no sheet.",
    }
}

/// What is packed is unpacked once.
pub(super) fn twice_packed() -> ReadError {
    ReadError::NotAList {
        what: "packed more than once".into(),
        hint: "Unpack it once, and send it again.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_tell() {
        assert_eq!(looks(b"email\nanna@x.example"), Looks::Text);
        assert_eq!(looks(b""), Looks::Text);
        assert_eq!(looks(b"PK\x03\x04\x14\0"), Looks::Zip);
        assert_eq!(looks(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0\0"), Looks::Ole);
        assert_eq!(looks(b"%PDF-1.7\n"), Looks::Other("a PDF file"));
        assert_eq!(looks(b"\x1f\x8b\x08"), Looks::Gzip);
        assert_eq!(looks(b"\x28\xb5\x2f\xfd"), Looks::Zstd);
        assert_eq!(looks(b"PK,anna@x.example"), Looks::Text);
    }

    #[test]
    fn a_password_is_found_wherever_it_stands() {
        for before in [0, 65_536 - 5, 200_000] {
            let bytes = [vec![7; before], ENCRYPTED.to_vec(), vec![7; 10]].concat();
            let ReadError::NotAList { what, .. } = ole(&bytes[..]) else { panic!() };
            assert!(what.contains("password"), "{before}");
        }
        let ReadError::NotAList { what, .. } = ole(&[0; 100][..]) else { panic!() };
        assert!(what.contains(".xls"));
    }
}
