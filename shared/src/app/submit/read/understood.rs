//! How a list was understood: what people are told of it, so that they can say otherwise.

/// What was found out of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Understood {
    /// How it is written: `csv`, `text`, …
    pub format: &'static str,
    /// Its encoding, by the name that the WHATWG gives it.
    pub encoding: &'static str,
    /// What it was packed with.
    pub packed: Option<&'static str>,
    /// It began with a byte order mark, or came in an encoding that needs none to be known.
    pub bom: bool,
    /// Its lines end with CR and LF.
    pub crlf: bool,
    /// Of a table: what is between its cells.
    pub delimiter: Option<u8>,
    /// Of a table: the columns that the addresses were taken from.
    pub columns: Vec<Column>,
    /// The first addresses.
    pub first: Vec<Sample>,
    /// The first texts that are no address.
    pub broken: Vec<String>,
    /// Of a table: another column that looks as if the addresses were there.
    pub better: Option<String>,
    /// Distinct addresses that differ from an earlier one by letter case or a tag alone.
    pub likely_duplicates: u64,
}

/// A column that addresses were taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its number, from 1.
    pub number: usize,
    /// Its header.
    pub name: Option<String>,
    /// Why it was taken.
    pub why: Why,
}

/// Why a column was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It was asked for.
    Asked,
    /// By its header.
    Header,
    /// Most of the first rows have an address there.
    Content,
    /// There is no other.
    Only,
}

impl Why {
    /// As it is shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Header => "header",
            Self::Content => "content",
            Self::Only => "only_column",
        }
    }
}

/// One address, as it was read and as it was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// What stands in the list, shortened.
    pub submitted: String,
    /// What was made of it, likewise.
    pub email: String,
    /// Is its syntax right?
    pub valid: bool,
}

impl Sample {
    pub(super) fn new(submitted: &str, email: &str, valid: bool) -> Self {
        Self { submitted: Self::cut(submitted), email: Self::cut(email), valid }
    }

    /// Short enough to be shown.
    pub(super) fn cut(text: &str) -> String {
        const MOST: usize = 120;
        let mut cut: String = text.chars().take(MOST).collect();
        if cut.len() < text.len() {
            cut.push('…');
        }
        cut
    }
}
