//! Where the rows of all formats come together, and become addresses.
//!
//! A cell that is blank, or a comment, is a row without an address. A cell with one address is one row. A cell with several gives as many rows: each has the other cells of its
//! record once more, and of this one its own part.

use super::cut::{Cell, Section};
use super::understood::{Sample, Understood};
use super::{Limits, ReadError};
use crate::domain::address::{normalise_into, trim};
use crate::domain::spelling::{Piece, is_comment, pieces};

/// The first addresses, and the first with broken syntax, that are shown to people.
const SHOWN: usize = 6;
/// Bytes that the records of one cell with several addresses may come to.
const REPEATED: usize = 1 << 20;

/// Takes rows, and hands them on in sections.
pub(super) struct Intake<'s> {
    pub limits: Limits,
    pub delimiter: u8,
    pub submitted: u64,
    pub section: Section,
    /// For people.
    pub understood: Understood,
    /// Takes full sections.
    hand_on: &'s mut dyn FnMut(Section) -> Result<(), ReadError>,
}

impl<'s> Intake<'s> {
    pub fn new(
        limits: Limits,
        hand_on: &'s mut dyn FnMut(Section) -> Result<(), ReadError>,
    ) -> Self {
        Self {
            limits,
            delimiter: b',',
            submitted: 0,
            section: Section::default(),
            understood: Understood::default(),
            hand_on,
        }
    }

    /// Takes a row that is nothing but the text of an address, or of several.
    pub fn address(&mut self, raw: &str) -> Result<(), ReadError> {
        let delimiter = self.delimiter;
        self.row(raw, |line, part| write_field(line, part.unwrap_or(raw).as_bytes(), delimiter))
    }

    /// Takes a row without an address.
    pub fn blank(&mut self, write_line: impl FnOnce(&mut Vec<u8>)) -> Result<(), ReadError> {
        self.section.push_blank(write_line);
        self.pass_on()
    }

    /// Takes a row with the raw text of its address cell. `write_line` appends its record, with a part of that text
    /// in the cell where there is one.
    pub fn row(
        &mut self,
        raw: &str,
        mut write_line: impl FnMut(&mut Vec<u8>, Option<&str>),
    ) -> Result<(), ReadError> {
        if trim(raw).is_empty() {
            return self.blank(|line| write_line(line, None));
        }
        // Nearly every cell is an address and nothing else.
        let plain = self.section.push(raw, |addresses| match normalise_into(raw, addresses) {
            Ok(()) => Some(Cell::Valid),
            Err(_) => None,
        });
        if plain {
            self.count()?;
            self.section.close(|line| write_line(line, None));
            self.show(raw, Cell::Valid);
            return self.pass_on();
        }
        if is_comment(raw) {
            return self.blank(|line| write_line(line, None));
        }
        let pieces = pieces(raw);
        let several = pieces.len() > 1;
        let mut repeated = 0;
        for Piece { stood, address } in &pieces {
            self.count()?;
            let mut cell = Cell::Valid;
            self.section.push(stood, |addresses| {
                if normalise_into(address, addresses).is_err() {
                    cell = Cell::Broken;
                }
                Some(cell)
            });
            repeated += self.section.close(|line| write_line(line, several.then_some(&**stood)));
            if repeated > REPEATED.max(self.limits.line_bytes) {
                let (addresses, limit) = (pieces.len(), REPEATED);
                return Err(ReadError::CrowdedCell { addresses, limit });
            }
            self.show(stood, cell);
            self.pass_on()?;
        }
        Ok(())
    }

    fn count(&mut self) -> Result<(), ReadError> {
        if self.submitted == self.limits.addresses {
            return Err(ReadError::TooManyAddresses { limit: self.limits.addresses });
        }
        self.submitted += 1;
        Ok(())
    }

    fn show(&mut self, stood: &str, cell: Cell) {
        let Understood { first, broken, .. } = &mut self.understood;
        if cell == Cell::Broken && broken.len() < SHOWN {
            broken.push(Sample::cut(stood));
        }
        if first.len() < SHOWN {
            first.push(Sample::new(stood, self.section.last_address(), cell == Cell::Valid));
        }
    }

    fn pass_on(&mut self) -> Result<(), ReadError> {
        if self.section.is_full(self.limits.section_bytes) {
            let next = Section::as_large_as(&self.section);
            (self.hand_on)(std::mem::replace(&mut self.section, next))?;
        }
        Ok(())
    }
}

/// Appends one CSV field, quoted where it must be.
pub(super) fn write_field(line: &mut Vec<u8>, field: &[u8], delimiter: u8) {
    if !needs_quotes(field, delimiter) {
        line.extend_from_slice(field);
        return;
    }
    line.push(b'"');
    for &b in field {
        if b == b'"' {
            line.push(b'"');
        }
        line.push(b);
    }
    line.push(b'"');
}

pub(super) fn needs_quotes(bytes: &[u8], delimiter: u8) -> bool {
    // No early exit: this way the compiler looks at many bytes at once.
    bytes.iter().fold(false, |found, &b| {
        found | (b == delimiter) | (b == b'"') | (b == b'\n') | (b == b'\r')
    })
}
