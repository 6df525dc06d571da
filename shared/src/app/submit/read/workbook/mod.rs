//! Lists as workbooks (XLSX): the rows of one sheet, as a CSV of it would have them.
//!
//! A workbook cannot be read as it arrives: its directory stands at its end. So it comes as a [`TemporaryFile`]; it is
//! looked through first ([`parts`]), and then read cell by cell. What is kept of it are its shared strings, its formats
//! and one row.
//!
//! A row without anything in it between others is kept, as a row of empty cells; those before the first and behind
//! the last are not.

mod parts;
#[cfg(test)]
mod tests;
mod text;
mod xml;

use std::panic::{AssertUnwindSafe, catch_unwind};

use calamine::{Reader, SheetType, SheetVisible, Xlsx, XlsxCellReader, XlsxError};
use csv::ByteRecord;

pub use self::parts::check_directory;
use self::parts::{Archive, too_large};
use super::ReadError;
use super::error::shorten;
use super::intake::Intake;
use super::table::{self, PADDED_COLUMNS, Records};
use crate::app::temporary::{Share, TemporaryFile};

/// Rows and columns that a sheet has at the most, in every program.
const ROWS: u32 = 1_048_576;
const COLUMNS: u32 = 16_384;
/// Cells of a sheet, those counted that only fill rows up.
const CELLS: u64 = 64_000_000;
/// Sheets that are looked into for the first with rows.
const SHEETS: usize = 256;
/// Sheets that are named to whoever chooses one.
const NAMED: usize = 50;
/// The first rows, for people: rows, cells of each, and characters of each.
const SHOWN: (usize, usize, usize) = (6, 20, 80);

/// What is wanted of a workbook, and how much it may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The address column: its header (any case), its number from 1, or its letter.
    pub column: Option<String>,
    /// The sheet; the first one with rows unless given.
    pub sheet: Option<String>,
    /// Bytes when unpacked.
    pub most: u64,
}

/// What was read of a workbook, for whoever wants to choose otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Book {
    /// The sheet that was read.
    pub sheet: String,
    /// All of them.
    pub sheets: Vec<String>,
    /// The column with the addresses, from 1.
    pub column: usize,
    /// The first rows of the sheet.
    pub first: Vec<Vec<String>>,
}

/// Reads the rows of a sheet into the intake; returns the header, if there is one.
pub(super) fn read(
    wanted: &Wanted,
    file: TemporaryFile,
    temporary: &Share,
    intake: &mut Intake,
) -> Result<(Option<Vec<u8>>, Book), ReadError> {
    let archive = parts::inspect(file, wanted.most, temporary)?;
    let mut xlsx = guarded(|| Xlsx::new(archive))?;
    let sheet = find_sheet(&mut xlsx, wanted.sheet.as_deref())?;
    let sheets = xlsx.sheets_metadata().iter().map(|sheet| shorten(&sheet.name));
    let sheets = sheets.take(NAMED).collect();
    let cells = guarded(|| xlsx.worksheet_cells_reader(&sheet))?;
    let mut rows = Rows::new(cells, intake.limits.line_bytes);
    let header = table::take_all(&mut rows, wanted.column.as_deref(), intake)?;
    let column = intake.understood.columns.first().map_or(0, |column| column.number);
    let book = Book { sheet: shorten(&sheet), sheets, column, first: rows.shown };
    Ok((header, book))
}

/// The sheet of that name, or the first one with something in it; hidden ones come last.
fn find_sheet(xlsx: &mut Xlsx<Archive>, wanted: Option<&str>) -> Result<String, ReadError> {
    if xlsx.sheets_metadata().is_empty() {
        return Err(ReadError::BrokenWorkbook { problem: String::from("it has no sheet") });
    }
    let all = xlsx.sheets_metadata().iter().filter(|sheet| sheet.typ == SheetType::WorkSheet);
    let (seen, hidden): (Vec<_>, Vec<_>) =
        all.partition(|sheet| sheet.visible == SheetVisible::Visible);
    let names: Vec<String> =
        seen.into_iter().chain(hidden).map(|sheet| sheet.name.clone()).collect();
    if let Some(wanted) = wanted.map(str::trim).filter(|wanted| !wanted.is_empty()) {
        let same = |name: &&String| name.trim().to_lowercase() == wanted.to_lowercase();
        return names.iter().find(same).cloned().ok_or_else(|| ReadError::SheetNotFound {
            sheet: shorten(wanted),
            sheets: name_all(&names),
        });
    }
    for name in names.iter().take(SHEETS) {
        let mut cells = match guarded(|| xlsx.worksheet_cells_reader(name)) {
            Err(ReadError::EmptyList) => continue,
            other => other?,
        };
        let mut text = String::new();
        while let Some(cell) = guarded(|| cells.next_cell())? {
            text::write_text(&mut text, cell.get_value());
            if !text.is_empty() {
                return Ok(name.clone());
            }
        }
    }
    match names.len() > SHEETS {
        true => Err(too_large(format!("more than {SHEETS} sheets, the first of them empty"))),
        false => Err(ReadError::EmptyList),
    }
}

fn name_all(names: &[String]) -> String {
    let mut all: Vec<String> =
        names.iter().take(NAMED).map(|name| format!("\"{}\"", shorten(name))).collect();
    if names.len() > NAMED {
        all.push(format!("and {} more", names.len() - NAMED));
    }
    all.join(", ")
}

/// What the parser says, or that it panicked, is about the workbook: it was looked through before.
fn guarded<T>(parse: impl FnOnce() -> Result<T, XlsxError>) -> Result<T, ReadError> {
    let broken = |problem: &str| ReadError::BrokenWorkbook { problem: shorten(problem) };
    match catch_unwind(AssertUnwindSafe(parse)) {
        Ok(Ok(parsed)) => Ok(parsed),
        Ok(Err(XlsxError::Io(error))) => Err(ReadError::Io(error)),
        // A sheet of charts, or one that has no cells at all.
        Ok(Err(XlsxError::NotAWorksheet(_))) => Err(ReadError::EmptyList),
        Ok(Err(error)) => Err(broken(&error.to_string())),
        Err(_) => Err(broken("it is damaged in a way that nothing is known of")),
    }
}

/// The rows of a sheet.
struct Rows<'a> {
    cells: XlsxCellReader<'a, Archive>,
    limit: usize,
    /// A cell that was read and belongs to the next row with cells: row, column, text.
    next: Option<(u32, u32, String)>,
    ended: bool,
    /// The row that was given last.
    at: Option<u32>,
    /// The texts of the row in hand, by column.
    row: Vec<String>,
    /// Cells of the first row, as far as others are filled up to it.
    width: usize,
    counted: u64,
    shown: Vec<Vec<String>>,
}

impl<'a> Rows<'a> {
    fn new(cells: XlsxCellReader<'a, Archive>, limit: usize) -> Self {
        Self {
            cells,
            limit,
            next: None,
            ended: false,
            at: None,
            row: Vec::new(),
            width: 0,
            counted: 0,
            shown: Vec::new(),
        }
    }

    /// Reads up to the next cell with something in it.
    fn next_cell(&mut self) -> Result<Option<(u32, u32, String)>, ReadError> {
        while !self.ended {
            let Some(cell) = guarded(|| self.cells.next_cell())? else {
                self.ended = true;
                break;
            };
            let ((row, column), mut text) = (cell.get_position(), String::new());
            text::write_text(&mut text, cell.get_value());
            if text.is_empty() {
                continue;
            }
            if row >= ROWS || column >= COLUMNS {
                let problem = String::from("a cell is where no sheet has one");
                return Err(ReadError::BrokenWorkbook { problem });
            }
            if text.contains('\0') {
                let place = format!("The cell in column {} of row {}", column + 1, row + 1);
                let (line, column) = (u64::from(row) + 1, u64::from(column) + 1);
                return Err(ReadError::EscapedNul { place, line, column });
            }
            return Ok(Some((row, column, text)));
        }
        Ok(None)
    }

    /// Puts the cells of the row that begins with this one into `self.row`.
    fn gather(&mut self, (row, column, text): (u32, u32, String)) -> Result<(), ReadError> {
        let (mut column, mut text) = (column as usize, text);
        let mut bytes = 0;
        loop {
            bytes += text.len();
            if self.row.len() <= column {
                self.row.resize_with(column + 1, String::new);
            }
            self.row[column] = text;
            if bytes + self.row.len() > self.limit {
                return Err(ReadError::RowTooLong { row: u64::from(row) + 1, limit: self.limit });
            }
            match self.next_cell()? {
                Some((same, next, more)) if same == row => (column, text) = (next as usize, more),
                other => {
                    self.next = other;
                    return Ok(());
                }
            }
        }
    }

    fn show(&mut self, record: &ByteRecord) {
        let (rows, cells, characters) = SHOWN;
        if self.shown.len() < rows {
            let cut = |cell: &[u8]| {
                String::from_utf8_lossy(cell).chars().take(characters).collect::<String>()
            };
            self.shown.push(record.iter().take(cells).map(cut).collect());
        }
    }
}

impl Records for Rows<'_> {
    fn next(&mut self, record: &mut ByteRecord) -> Result<bool, ReadError> {
        record.clear();
        if self.next.is_none() {
            self.next = self.next_cell()?;
        }
        let Some((row, ..)) = self.next else { return Ok(false) };
        let gap = self.at.is_some_and(|at| row > at + 1);
        if self.at.is_some_and(|at| row <= at) {
            let problem = format!("row {} comes twice, or in the wrong place", row + 1);
            return Err(ReadError::BrokenWorkbook { problem });
        }
        if gap {
            for _ in 0..self.width.max(1) {
                record.push_field(b"");
            }
            self.at = self.at.map(|at| at + 1);
        } else if let Some(first) = self.next.take() {
            self.row.clear();
            self.gather(first)?;
            self.row.iter().for_each(|cell| record.push_field(cell.as_bytes()));
            if self.at.is_none() {
                self.width = record.len().min(PADDED_COLUMNS);
            }
            self.at = Some(row);
        }
        self.counted += record.len().max(self.width) as u64;
        if self.counted > CELLS {
            return Err(too_large(format!("a sheet of more than {CELLS} cells")));
        }
        self.show(record);
        Ok(true)
    }
}
