//! ZIP: a CSV for each verdict, and `rest.csv` for the rows that have none of their own (duplicates, rows
//! without an address or without a result yet). Each row of the file is in exactly one of them, in its order.
//!
//! The rows are read once: each part is packed into a temporary file of its own, and then copied as it is.

use std::io::{self, Read, Seek, Write};

use listmill_shared::domain::verdict::Status;
use zip::write::SimpleFileOptions;
use zip::{ZipArchive, ZipWriter};

use super::csv::Table;
use super::exports::MakeError;
use super::rows::{Chunk, Line, Walk};

/// The parts, by [`part`].
pub const PARTS: [&str; 5] =
    ["deliverable.csv", "undeliverable.csv", "risky.csv", "unknown.csv", "rest.csv"];

/// Writes all that `blocks` gives into a file that `file` makes, with others beside it for a while.
pub fn write<W: Read + Write + Seek>(
    mut file: impl FnMut() -> io::Result<W>,
    table: &Table,
    mut walk: Walk,
    blocks: &mut dyn Iterator<Item = Chunk>,
) -> Result<W, MakeError> {
    // A part may have more than 4 GiB; its texts repeat themselves.
    let options = SimpleFileOptions::default().large_file(true).compression_level(Some(3));
    let mut out = ZipWriter::new(file()?);
    let mut parts = Vec::with_capacity(PARTS.len());
    for name in PARTS {
        let mut part = ZipWriter::new(file()?);
        part.start_file(name, options)?;
        part.write_all(&table.head())?;
        parts.push(part);
    }
    let mut lines = [const { Vec::new() }; PARTS.len()];
    for chunk in blocks {
        for line in walk.lines(&chunk) {
            table.line(&mut lines[part(&line)], &line);
        }
        for (part, lines) in parts.iter_mut().zip(&mut lines) {
            part.write_all(lines)?;
            lines.clear();
        }
    }
    for part in parts {
        let mut archive = ZipArchive::new(part.finish()?)?;
        out.raw_copy_file(archive.by_index_raw(0)?)?;
    }
    Ok(out.finish()?)
}

/// Which part a row belongs to.
fn part(line: &Line<'_>) -> usize {
    match line.found.filter(|_| line.first).map(|found| found.reason.status()) {
        Some(Status::Deliverable) => 0,
        Some(Status::Undeliverable) => 1,
        Some(Status::Risky) => 2,
        Some(Status::Unknown) => 3,
        None => 4,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::sync::Arc;

    use listmill_shared::domain::result_filter::ResultFilter;
    use listmill_shared::domain::verdict::Reason;

    use super::*;
    use crate::routes::download::csv::Formulas;
    use crate::routes::download::rows::Head;
    use crate::routes::download::tests::{chunk, found};

    const REASONS: [Reason; 5] = [
        Reason::Accepted,
        Reason::NoMx,
        Reason::CatchAll,
        Reason::Timeout,
        Reason::MailboxNotFound,
    ];

    fn blocks() -> Vec<Chunk> {
        let rows: Vec<(Option<u64>, String)> = (0..40_u64)
            .map(|no| match no % 8 {
                7 => (None, format!("{no},,\"no\n\"\"address\"\"\"")),
                // The last two have no result yet.
                at => (Some(at), format!("{no},a{at}@example.com,")),
            })
            .collect();
        let results = || REASONS.iter().zip(0..).map(|(reason, seq)| found(seq, *reason)).collect();
        let some = |rows: &[(Option<u64>, String)]| {
            let rows: Vec<_> = rows.iter().map(|(seq, line)| (*seq, line.as_str())).collect();
            chunk(&rows, results())
        };
        rows.chunks(16).map(some).collect()
    }

    fn table() -> Table {
        let head = Arc::new(Head::new(b"no,mail,note".to_vec(), b','));
        Table { head, formulas: Formulas::Kept }
    }

    fn unpacked(walk: Walk) -> Vec<(String, Vec<csv::ByteRecord>)> {
        let file = || Ok(Cursor::new(Vec::new()));
        let made = write(file, &table(), walk, &mut blocks().into_iter()).unwrap();
        let mut archive = ZipArchive::new(Cursor::new(made.into_inner())).unwrap();
        let mut parts = Vec::new();
        for at in 0..archive.len() {
            let file = archive.by_index(at).unwrap();
            let name = file.name().unwrap().into_owned();
            let mut reader = csv::Reader::from_reader(file);
            assert_eq!(&reader.byte_headers().unwrap()[3], b"listmill_status");
            parts.push((name, reader.byte_records().map(Result::unwrap).collect()));
        }
        parts
    }

    #[test]
    fn the_parts_together_are_the_file() {
        let parts = unpacked(Walk::new(None));
        let names: Vec<&str> = parts.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, PARTS);
        let counts: Vec<usize> = parts.iter().map(|(_, rows)| rows.len()).collect();
        assert_eq!(counts, [1, 2, 1, 1, 35]);
        for (name, rows) in &parts {
            let status = name.trim_end_matches(".csv").as_bytes();
            assert!(name == "rest.csv" || rows.iter().all(|row| &row[3] == status), "{name}");
            let no =
                |row: &csv::ByteRecord| str::from_utf8(&row[0]).unwrap().parse::<u64>().unwrap();
            assert!(rows.windows(2).all(|pair| no(&pair[0]) < no(&pair[1])), "{name} in order");
        }
        let mut together: Vec<csv::ByteRecord> =
            parts.into_iter().flat_map(|(_, rows)| rows).collect();
        together.sort_by_key(|row| str::from_utf8(&row[0]).unwrap().parse::<u64>().unwrap());
        let (mut walk, mut plain) = (Walk::new(None), Vec::new());
        for block in blocks() {
            for line in walk.lines(&block) {
                table().line(&mut plain, &line);
            }
        }
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(&plain[..]);
        let wanted: Vec<csv::ByteRecord> = reader.byte_records().map(Result::unwrap).collect();
        assert_eq!(together, wanted);
    }

    #[test]
    fn filters_leave_parts_empty() {
        let parts = unpacked(Walk::new(Some(ResultFilter::of_reasons([Reason::NoMx]))));
        let counts: Vec<usize> = parts.iter().map(|(_, rows)| rows.len()).collect();
        assert_eq!(counts, [0, 1, 0, 0, 4], "the duplicates are in the rest");
    }
}
