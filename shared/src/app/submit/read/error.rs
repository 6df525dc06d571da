//! What can be wrong with a submitted list, said so that its owner can repair it.

use std::io;

use crate::domain::payload::PayloadError;

/// Fields that a JSON body may have.
pub(super) const KNOWN_FIELDS: &str = "emails, name, allow_partial, webhook_url";

/// Why a list was refused.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("This is not valid JSON: {problem} (line {line}, column {column}).")]
    InvalidJson { problem: String, line: u64, column: u64 },
    #[error(
        "The field \"emails\" is missing. Send an object such as {{\"emails\": [\"kate@example.com\"]}}."
    )]
    EmailsMissing,
    #[error(
        "The field \"emails\" is {found} (line {line}, column {column}), but must be an array of \
         texts."
    )]
    EmailsNotArray { found: &'static str, line: u64, column: u64 },
    #[error("The array \"emails\" is empty. Send at least one address.")]
    EmailsEmpty,
    #[error(
        "{place} is {found} (line {line}, column {column}), but must be a text such as \
         \"kate@example.com\"."
    )]
    EmailNotString { place: String, found: &'static str, line: u64, column: u64 },
    #[error(
        "Line {line} has no field with an address. Each line must be a text, or an object with a field such as \"email\"."
    )]
    EmailMissing { line: u64 },
    #[error(
        "The field \"{name}\" is not known (line {line}, column {column}). Known fields: \
         {KNOWN_FIELDS}."
    )]
    UnknownField { name: String, line: u64, column: u64 },
    #[error("\"{name}\" {problem}.")]
    InvalidField { name: &'static str, problem: String },
    #[error(
        "The list is not UTF-8 text: byte 0x{byte:02x} in line {line}, byte {column} of the line \
         (offset {offset}). Save it with the encoding UTF-8 and send it again."
    )]
    NotUtf8 { byte: u8, line: u64, column: u64, offset: u64 },
    #[error(
        "The list cannot be read as {encoding}: the bytes at offset {offset} mean nothing in it. Say which encoding it \
         has (charset=), or save it as UTF-8."
    )]
    NotDecoded { encoding: &'static str, offset: u64 },
    #[error(
        "The quote that opens a cell in line {line} is not closed where that cell ends. Close it, or write it twice \
         (\"\") where it is part of the text."
    )]
    UnclosedQuote { line: u64 },
    #[error(
        "One cell holds {addresses} addresses, and its row cannot be repeated for each of them within {limit} bytes. \
         Put each address in a row of its own."
    )]
    CrowdedCell { addresses: usize, limit: usize },
    #[error("The entry \"{name}\" is longer than {limit} bytes.")]
    EntryTooLong { name: String, limit: usize },
    #[error(
        "There is a NUL byte in line {line}, byte {column} of the line (offset {offset}). Is this \
         a text file? If it was saved as UTF-16, save it as UTF-8."
    )]
    NulByte { line: u64, column: u64, offset: u64 },
    #[error("{place} has a NUL character in it (line {line}, column {column}). Remove it.")]
    EscapedNul { place: String, line: u64, column: u64 },
    #[error(
        "What starts in line {line} is longer than {limit} bytes. Is a line break or a closing \
         quote missing?"
    )]
    LineTooLong { line: u64, limit: usize },
    #[error("The list has more than {limit} addresses. Split it into smaller lists.")]
    TooManyAddresses { limit: u64 },
    #[error(
        "No column with email addresses was found. Name it with \"column\". Columns seen: \
         {columns}."
    )]
    NoAddressColumn { columns: String },
    #[error("There is no column \"{column}\". Columns seen: {columns}.")]
    ColumnNotFound { column: String, columns: String },
    #[error("The list has no address.")]
    EmptyList,
    #[error("This is {what}. {hint}")]
    NotAList { what: String, hint: &'static str },
    #[error(
        "The workbook cannot be read: {problem}. Open it in a spreadsheet program, save it as .xlsx again or as CSV \
         (UTF-8), and send that."
    )]
    BrokenWorkbook { problem: String },
    #[error("The workbook is too large: {what}. Save the sheet as CSV (UTF-8), or split it.")]
    WorkbookTooLarge { what: String },
    #[error("There is no sheet \"{sheet}\". Sheets of the workbook: {sheets}.")]
    SheetNotFound { sheet: String, sheets: String },
    #[error("Row {row} of the sheet is longer than {limit} bytes.")]
    RowTooLong { row: u64, limit: usize },
    #[error("The list could not be read to its end: {0}")]
    Io(#[source] io::Error),
}

impl ReadError {
    /// A stable name of the kind of error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidJson { .. } => "invalid_json",
            Self::EmailsMissing => "emails_missing",
            Self::EmailsNotArray { .. } => "emails_not_array",
            Self::EmailsEmpty => "emails_empty",
            Self::EmailNotString { .. } => "email_not_string",
            Self::EmailMissing { .. } => "email_missing",
            Self::UnknownField { .. } => "unknown_field",
            Self::InvalidField { .. } => "invalid_field",
            Self::NotUtf8 { .. } => "not_utf8",
            Self::NotDecoded { .. } => "not_decoded",
            Self::UnclosedQuote { .. } => "unclosed_quote",
            Self::CrowdedCell { .. } => "crowded_cell",
            Self::EntryTooLong { .. } => "line_too_long",
            Self::NulByte { .. } | Self::EscapedNul { .. } => "nul_byte",
            Self::LineTooLong { .. } => "line_too_long",
            Self::TooManyAddresses { .. } => "too_many_addresses",
            Self::NoAddressColumn { .. } => "no_address_column",
            Self::ColumnNotFound { .. } => "column_not_found",
            Self::EmptyList => "empty_list",
            Self::NotAList { .. } => "not_a_list",
            Self::BrokenWorkbook { .. } => "broken_workbook",
            Self::WorkbookTooLarge { .. } => "workbook_too_large",
            Self::SheetNotFound { .. } => "sheet_not_found",
            Self::RowTooLong { .. } => "line_too_long",
            Self::Io(_) => "io",
        }
    }

    /// Our own errors travel through `csv` and `serde_json` inside an `io::Error`.
    pub(super) fn into_io(self) -> io::Error {
        io::Error::other(self)
    }

    /// The way back of [`ReadError::into_io`]; errors of the caller stay what they are.
    pub(super) fn from_io(error: io::Error) -> Self {
        error.downcast().unwrap_or_else(Self::Io)
    }

    /// Fills in the position, which only the JSON parser knows.
    pub(super) fn at(mut self, at_line: u64, at_column: u64) -> Self {
        match &mut self {
            Self::InvalidJson { line, column, .. }
            | Self::EmailsNotArray { line, column, .. }
            | Self::EmailNotString { line, column, .. }
            | Self::EscapedNul { line, column, .. }
            | Self::UnknownField { line, column, .. } => {
                (*line, *column) = (at_line, at_column);
            }
            _ => {}
        }
        self
    }
}

/// Blocks are bounded far below what a payload can hold, so this is a fault of the machine.
impl From<PayloadError> for ReadError {
    fn from(error: PayloadError) -> Self {
        Self::Io(io::Error::other(error))
    }
}

/// A text from the list, short enough for a message.
pub(super) fn shorten(text: &str) -> String {
    const MOST: usize = 60;
    let mut short: String =
        text.chars().take(MOST).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(MOST).is_some() {
        short.push('…');
    }
    short
}
