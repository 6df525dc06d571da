//! The archive that a workbook is: looked through before anything of it is parsed.
//!
//! Data: a file of bytes that somebody sent goes in; out comes an archive that has nothing in it but parts that were
//! unpacked to their end and looked at ([`Scan`]). Parts that no list is in (pictures, programs, caches) are not
//! unpacked, and left out.
//!
//! Invariants: what its directory can make us keep is known before it is read; what is unpacked is counted as it comes,
//! whatever the directory says of it.

use std::io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom};

use memchr::memmem;
use zip::result::ZipError;
use zip::{ZipArchive, ZipWriter};

use super::super::ReadError;
use super::super::error::shorten;
use super::xml::{Fault, Kind, Scan};
use crate::app::temporary::{Share, TemporaryFile};

/// Parts of a workbook, and bytes of the directory that lists them.
const PARTS: usize = 10_000;
const DIRECTORY: u64 = 16 << 20;
/// Unpacked bytes per packed byte that a real workbook may reach; a bomb reaches a thousand.
const MOST_RATIO: u64 = 200;
/// Unpacked bytes below which the ratio does not matter.
const RATIO_FROM: u64 = 64 << 20;
/// Bytes of a part of any kind but cells and their texts.
const OTHER: u64 = 16 << 20;
/// Bytes of the shared strings: they are kept.
const STRINGS: u64 = 192 << 20;
/// Bytes unpacked at once.
const CHUNK: usize = 64 << 10;

/// What is left to be read, and by whom.
pub(super) type Archive = BufReader<TemporaryFile>;

/// Looks through `file`; gives what may be parsed. `most` is in unpacked bytes.
pub(super) fn inspect(
    mut file: TemporaryFile,
    most: u64,
    temporary: &Share,
) -> Result<Archive, ReadError> {
    let packed = file.length().map_err(ReadError::Io)?;
    file.rewind().map_err(ReadError::Io)?;
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(broken)?;
    let mut names = Vec::with_capacity(archive.len());
    for no in 0..archive.len() {
        let name = archive.name_for_index(no).transpose().map_err(broken)?.unwrap_or_default();
        names.push(name.replace('\\', "/").to_ascii_lowercase());
    }
    if let Some(refused) = what_it_is(&names) {
        return Err(refused);
    }
    let mut budget = Budget { used: 0, most, packed };
    let mut kept = Vec::with_capacity(names.len());
    for (no, name) in names.iter().enumerate() {
        let Some(kind) = kind(name) else { continue };
        let part = archive.by_index(no).map_err(broken)?;
        if look_at(part, kind, &mut budget)? {
            kept.push(no);
        }
    }
    if kept.len() == names.len() {
        let mut all = archive.into_inner();
        all.rewind().map_err(ReadError::Io)?;
        return Ok(all);
    }
    let mut out = ZipWriter::new(temporary.file().map_err(ReadError::Io)?);
    for no in kept {
        let part = archive.by_index_raw(no).map_err(broken)?;
        out.raw_copy_file(part).map_err(broken)?;
    }
    let mut out = out.finish().map_err(broken)?;
    out.rewind().map_err(ReadError::Io)?;
    Ok(BufReader::new(out))
}

/// What the parts may unpack to.
struct Budget {
    used: u64,
    most: u64,
    packed: u64,
}

impl Budget {
    fn take(&mut self, bytes: u64) -> Result<(), ReadError> {
        self.used += bytes;
        if self.used > self.most {
            return Err(too_large(format!("more than {} bytes when unpacked", self.most)));
        }
        if self.used > RATIO_FROM && self.used / self.packed.max(1) > MOST_RATIO {
            return Err(too_large(format!("unpacked more than {MOST_RATIO} times its size")));
        }
        Ok(())
    }
}

/// Reads a part to its end. `false`: it is of no use here, or should not be.
fn look_at(mut part: impl Read, kind: Kind, budget: &mut Budget) -> Result<bool, ReadError> {
    let most = match kind {
        Kind::Sheet => u64::MAX,
        Kind::Strings => STRINGS,
        Kind::Styles | Kind::Other => OTHER,
    };
    let (mut scan, mut bytes, mut buffer) = (Scan::new(kind), 0, vec![0; CHUNK]);
    loop {
        let n = match part.read(&mut buffer) {
            Ok(0) => return Ok(true),
            Ok(n) => n,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(broken(error.into())),
        };
        budget.take(n as u64)?;
        bytes += n as u64;
        if bytes > most {
            return match kind {
                // A cache, a drawing: large, and nothing that a list needs.
                Kind::Other => Ok(false),
                _ => Err(too_large(format!("a part of more than {most} bytes"))),
            };
        }
        match scan.feed(&buffer[..n]) {
            Ok(()) => {}
            Err(_) if kind == Kind::Other => return Ok(false),
            Err(Fault::Broken(why)) => {
                return Err(ReadError::BrokenWorkbook { problem: why.into() });
            }
            Err(Fault::TooLarge(what)) => return Err(too_large(what)),
        }
    }
}

/// What a part is, by its name as its parser looks for it; `None`: nothing to be parsed.
fn kind(name: &str) -> Option<Kind> {
    if name.ends_with(".rels") {
        return Some(Kind::Other);
    }
    if !name.ends_with(".xml") {
        return None;
    }
    Some(match () {
        () if name.ends_with("sharedstrings.xml") => Kind::Strings,
        () if name.ends_with("styles.xml") => Kind::Styles,
        () if name.contains("worksheets/") => Kind::Sheet,
        () => Kind::Other,
    })
}

/// Is it something else that is packed like a workbook?
fn what_it_is(names: &[String]) -> Option<ReadError> {
    let has = |wanted: &str| names.iter().any(|name| name == wanted);
    let begins = |wanted: &str| names.iter().any(|name| name.starts_with(wanted));
    let refused = |what: &str, hint| Some(ReadError::NotAList { what: what.to_owned(), hint });
    const SAVE: &str = "Open it and save it as a workbook (.xlsx) or as CSV (UTF-8).";
    match () {
        () if has("content.xml") && has("mimetype") => {
            refused("an OpenDocument file, such as .ods or .odt", SAVE)
        }
        () if has("xl/workbook.bin") => refused("a binary workbook (.xlsb)", SAVE),
        () if begins("index/") && begins("data/") => refused("a Numbers document", SAVE),
        () if begins("word/") => refused("a Word document", "Send a list, not a letter."),
        () if begins("ppt/") => refused("a presentation", "Send the list itself."),
        () if !has("_rels/.rels") => refused(
            "a ZIP archive that is no workbook",
            "Unpack it, and send the list that is in it.",
        ),
        () => None,
    }
}

/// Reading the directory keeps all of it, so its size is looked at first: wherever entries of one may stand.
pub fn check_directory(file: &mut TemporaryFile) -> Result<(), ReadError> {
    const ENTRY: &[u8] = b"PK\x01\x02";
    const END: &[u8] = b"PK\x06\x06";
    /// From the first byte of either to the last that is looked at.
    const SPAN: usize = 46;
    file.seek(SeekFrom::Start(0)).map_err(ReadError::Io)?;
    let length = file.length().map_err(ReadError::Io)?;
    let (mut window, mut held) = (vec![0; CHUNK + SPAN], 0);
    let (mut entries, mut bytes) = (0, 0);
    loop {
        let n = file.read(&mut window[held..held + CHUNK]).map_err(ReadError::Io)?;
        let end = held + n;
        // What begins in the last bytes is looked at with the next ones, or else is not whole.
        let whole = |at: &usize| at + SPAN <= end;
        for at in memmem::find_iter(&window[..end], ENTRY).take_while(whole) {
            let number = |from: usize| {
                u64::from(u16::from_le_bytes([window[at + from], window[at + from + 1]]))
            };
            entries += 1;
            bytes += 46 + number(28) + number(30) + number(32);
        }
        for at in memmem::find_iter(&window[..end], END).take_while(whole) {
            let mut count = [0; 8];
            count.copy_from_slice(&window[at + 32..at + 40]);
            let count = u64::from_le_bytes(count);
            if (PARTS as u64 + 1..=length).contains(&count) {
                entries = PARTS + 1;
            }
        }
        if entries > PARTS || bytes > DIRECTORY {
            return Err(too_large(format!("more than {PARTS} parts, or too long names of them")));
        }
        if n == 0 {
            return Ok(());
        }
        // One that was counted begins before these.
        let keep = end.min(SPAN - 1);
        window.copy_within(end - keep..end, 0);
        held = keep;
    }
}

pub(super) fn too_large(what: String) -> ReadError {
    ReadError::WorkbookTooLarge { what }
}

/// What is wrong with the archive; the machine's own faults stay what they are.
fn broken(error: ZipError) -> ReadError {
    let problem = match error {
        ZipError::Io(error) => match error.kind() {
            ErrorKind::InvalidData
            | ErrorKind::InvalidInput
            | ErrorKind::UnexpectedEof
            | ErrorKind::Other => error.to_string(),
            _ => return ReadError::Io(error),
        },
        error => io::Error::from(error).to_string(),
    };
    ReadError::BrokenWorkbook { problem: shorten(&problem) }
}
