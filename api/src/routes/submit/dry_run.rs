//! The answer to a list that is only counted.

use listmill_shared::app::submit::MostlyInvalid;
use listmill_shared::app::submit::read::{Book, Understood};
use listmill_shared::domain::task::Submitted;
use serde::Serialize;
use utoipa::ToSchema;

use super::list_read::ListRead;

/// What a list would come to.
#[derive(Debug, Serialize, ToSchema)]
pub struct DryRun {
    /// Always true.
    dry_run: bool,
    /// What the list holds.
    counts: DryCounts,
    /// What it would cost at most.
    cost: Cost,
    /// What may be spent.
    balance: i64,
    /// Whether the balance covers the cost.
    sufficient: bool,
    /// How the list was understood.
    list: ListRead,
    /// Why it would be refused: so much of it is no address that it is probably another file than was meant.
    doubt: Option<String>,
    /// Of a workbook: what was read of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    workbook: Option<WorkbookRead>,
}

/// What was read of a workbook.
#[derive(Debug, Serialize, ToSchema)]
pub struct WorkbookRead {
    /// The sheet.
    sheet: String,
    /// The workbook's sheets, up to 50.
    sheets: Vec<String>,
    /// The column with the addresses, its number from 1.
    column: usize,
}

/// What a list holds.
#[derive(Debug, Serialize, ToSchema)]
pub struct DryCounts {
    /// Rows with an address.
    submitted: i64,
    /// Distinct addresses.
    unique: i64,
    /// Rows that repeat an address.
    duplicates: i64,
    /// Distinct addresses with broken syntax.
    invalid_syntax: i64,
}

/// What a list costs.
#[derive(Debug, Serialize, ToSchema)]
pub struct Cost {
    /// One for each distinct address with correct syntax; unknown verdicts are given back. 0 for a test key.
    credits: i64,
}

impl DryRun {
    /// Of a list that was counted.
    pub fn new(
        submitted: Submitted,
        credits: i64,
        balance: i64,
        book: Option<Book>,
        understood: &Understood,
        doubt: Option<&MostlyInvalid>,
    ) -> Self {
        let read = |Book { sheet, sheets, column, .. }| WorkbookRead { sheet, sheets, column };
        Self {
            dry_run: true,
            counts: DryCounts {
                submitted: submitted.submitted,
                unique: submitted.unique,
                duplicates: submitted.duplicates,
                invalid_syntax: submitted.invalid_syntax,
            },
            cost: Cost { credits },
            balance,
            sufficient: credits <= balance,
            list: understood.into(),
            doubt: doubt.map(ToString::to_string),
            workbook: book.map(read),
        }
    }
}
