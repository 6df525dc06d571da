//! How a list was understood, for whoever wants to say otherwise.

use listmill_shared::app::submit::read::{Column, Sample, Understood};
use serde::Serialize;
use utoipa::ToSchema;

/// How the list was understood.
#[derive(Debug, Serialize, ToSchema)]
pub struct ListRead {
    /// `csv`, `text`, `json`, `ndjson`, `xlsx`, `vcard`, `ldif` or `mail`.
    #[schema(example = "csv")]
    format: &'static str,
    /// Its encoding, as the WHATWG names it.
    #[schema(example = "windows-1252")]
    encoding: &'static str,
    /// What it was packed with: `gzip`, `zstd`, `zip`, or null.
    packed: Option<&'static str>,
    /// Of a table: what is between its cells.
    delimiter: Option<String>,
    /// Of a table: the columns with the addresses.
    columns: Vec<ColumnRead>,
    /// Distinct addresses that differ from another one of the list by letter case or a tag (`anna+news@`) alone. Each
    /// is verified, unless `collapse=true`.
    likely_duplicates: u64,
    /// The first addresses.
    first: Vec<AddressRead>,
}

/// A column that addresses were taken from.
#[derive(Debug, Serialize, ToSchema)]
struct ColumnRead {
    /// Its number, from 1.
    number: usize,
    /// Its header, if the list has one.
    name: Option<String>,
    /// Why it was taken: `asked`, `header` (it is called as such columns are), `content` (most addresses are there) or
    /// `only_column`.
    why: &'static str,
}

/// An address, as it was read.
#[derive(Debug, Serialize, ToSchema)]
struct AddressRead {
    /// What stands in the list.
    submitted: String,
    /// What was made of it.
    email: String,
    /// Is its syntax right?
    valid: bool,
}

impl From<&Understood> for ListRead {
    fn from(understood: &Understood) -> Self {
        let column = |Column { number, name, why }: &Column| ColumnRead {
            number: *number,
            name: name.clone(),
            why: why.as_str(),
        };
        let address = |Sample { submitted, email, valid }: &Sample| AddressRead {
            submitted: submitted.clone(),
            email: email.clone(),
            valid: *valid,
        };
        Self {
            format: understood.format,
            encoding: understood.encoding,
            packed: understood.packed,
            delimiter: understood.delimiter.map(|b| char::from(b).to_string()),
            columns: understood.columns.iter().map(column).collect(),
            likely_duplicates: understood.likely_duplicates,
            first: understood.first.iter().map(address).collect(),
        }
    }
}
