//! What a request says of its list: parameters and headers come down to a [`Plan`].

use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use encoding_rs::Encoding;
use listmill_shared::app::submit::read::{Format, Said, encoding};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::extract::{MediaType, flag};
use crate::problem::{Problem, UNSUPPORTED_ENCODING, UNSUPPORTED_MEDIA_TYPE};

/// Characters of a task's name.
const NAME: usize = 200;

#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SubmitParams {
    /// A name for the task, up to 200 characters. A name in a JSON body wins.
    pub(super) name: Option<String>,
    /// CSV and workbooks: the column with the addresses, by its header (any case), its number from 1 or its letter;
    /// several with commas between them, or `*` for all that hold addresses. Found out unless given.
    pub(super) column: Option<String>,
    /// Workbooks: the sheet, by its name (any case). The first one with rows unless given.
    pub(super) sheet: Option<String>,
    /// CSV: the delimiter, one character, or `tab`. Found out among comma, semicolon, tab and `|`
    /// unless given.
    pub(super) delimiter: Option<String>,
    /// The list's encoding, as `charset` of a content type would say it. Found out unless given.
    pub(super) charset: Option<String>,
    /// Addresses that differ by letter case or a tag (`anna+news@`) alone are verified and charged once.
    #[param(value_type = Option<bool>)]
    pub(super) collapse: Option<String>,
    /// Take the list however much of it is no address. Without it, a list with more than 20 % of such entries (and ten
    /// at least) is refused: it is probably another file than was meant.
    #[param(value_type = Option<bool>)]
    pub(super) allow_invalid: Option<String>,
    /// Run until the credits end, pause, and go on by itself after a top-up, instead of refusing a
    /// list that costs more than there is.
    #[param(value_type = Option<bool>)]
    pub(super) allow_partial: Option<String>,
    /// Count and price only; nothing is stored.
    #[param(value_type = Option<bool>)]
    pub(super) dry_run: Option<String>,
}

/// How a list is to be read.
#[derive(Debug)]
pub struct Plan {
    /// How it is written.
    pub format: Format,
    /// What else was said of it.
    pub said: Said,
    /// Whether it is packed on its way.
    pub gzip: bool,
    /// Take it however much of it is no address.
    pub allow_invalid: bool,
    /// What the task is called.
    pub name: Option<String>,
    /// Run until credits end.
    pub allow_partial: bool,
    /// Count only.
    pub dry_run: bool,
}

impl Plan {
    pub(super) fn new(
        kind: &MediaType,
        headers: &HeaderMap,
        params: &SubmitParams,
    ) -> Result<Self, Problem> {
        let format = format(&kind.essence, params)?.ok_or_else(unsupported)?;
        Self::of(format, kind.charset.as_deref(), gzip(headers)?, params)
    }

    /// A JSON body of which nothing more is said.
    pub fn of_json() -> Self {
        Self {
            format: Format::Json,
            said: Said::default(),
            gzip: false,
            allow_invalid: false,
            name: None,
            allow_partial: false,
            dry_run: false,
        }
    }

    pub(super) fn of(
        format: Format,
        charset: Option<&str>,
        gzip: bool,
        params: &SubmitParams,
    ) -> Result<Self, Problem> {
        let charset =
            params.charset.as_deref().filter(|charset| !charset.trim().is_empty()).or(charset);
        let collapse = flag("collapse", params.collapse.as_deref())?;
        Ok(Self {
            format,
            said: Said { encoding: charset.map(known_encoding).transpose()?.flatten(), collapse },
            gzip,
            allow_invalid: flag("allow_invalid", params.allow_invalid.as_deref())?,
            name: name(params.name.as_deref())?,
            allow_partial: flag("allow_partial", params.allow_partial.as_deref())?,
            dry_run: flag("dry_run", params.dry_run.as_deref())?,
        })
    }
}

/// `None`: ASCII, which says nothing that the bytes do not.
fn known_encoding(charset: &str) -> Result<Option<&'static Encoding>, Problem> {
    let charset = charset.trim();
    if charset.eq_ignore_ascii_case("us-ascii") || charset.eq_ignore_ascii_case("ascii") {
        return Ok(None);
    }
    encoding(charset).map(Some).ok_or_else(|| {
        let detail = format!(
            "The charset {charset:.40} is not known. Known are utf-8, utf-16le, utf-16be, windows-1252, iso-8859-1, \
             shift_jis, gb18030 and the others of the WHATWG Encoding Standard; without one it is found out."
        );
        Problem::new(UNSUPPORTED_MEDIA_TYPE, detail)
    })
}

/// Types that workbooks have; the bytes decide.
pub(super) const WORKBOOKS: [&str; 4] = [
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "application/vnd.ms-excel.sheet.macroenabled.12",
    "application/vnd.oasis.opendocument.spreadsheet",
    "application/vnd.ms-excel",
];
/// What programs say that know no better, or of what is packed; the bytes decide.
pub(super) const ANY: [&str; 6] = [
    "application/octet-stream",
    "application/zip",
    "application/x-zip-compressed",
    "application/gzip",
    "application/x-gzip",
    "application/zstd",
];

/// The format that a media type stands for.
pub(super) fn format(essence: &str, params: &SubmitParams) -> Result<Option<Format>, Problem> {
    let delimiter = delimiter(params.delimiter.as_deref())?;
    let column = params.column.clone();
    Ok(match essence {
        "application/json" => Some(Format::Json),
        // Who names a sheet has a workbook, whatever else is said of it.
        "text/csv" | "application/csv" | "text/plain" if params.sheet.is_some() => {
            Some(Format::Workbook { column, sheet: params.sheet.clone() })
        }
        "text/csv" | "application/csv" => Some(Format::Csv { column, delimiter }),
        "text/tab-separated-values" => {
            Some(Format::Csv { column, delimiter: delimiter.or(Some(b'\t')) })
        }
        "text/plain" => Some(Format::Text),
        "application/x-ndjson"
        | "application/ndjson"
        | "application/jsonl"
        | "application/x-jsonlines" => Some(Format::Ndjson),
        "text/vcard" | "text/x-vcard" | "text/directory" => Some(Format::Cards),
        "text/ldif" | "text/x-ldif" | "application/x-ldif" | "application/ldif" => {
            Some(Format::Ldif)
        }
        "message/rfc822" | "application/mbox" => Some(Format::Mail),
        essence if ANY.contains(&essence) => {
            Some(Format::Any { column, delimiter, sheet: params.sheet.clone() })
        }
        essence if WORKBOOKS.contains(&essence) => {
            Some(Format::Workbook { column, sheet: params.sheet.clone() })
        }
        _ => None,
    })
}

fn delimiter(given: Option<&str>) -> Result<Option<u8>, Problem> {
    match given.map(str::as_bytes) {
        None | Some(b"") => Ok(None),
        Some(b"tab" | b"\\t") => Ok(Some(b'\t')),
        Some([one]) => Ok(Some(*one)),
        Some(_) => Err(Problem::query("delimiter", "must be one ASCII character, or tab.")),
    }
}

pub(super) fn name(given: Option<&str>) -> Result<Option<String>, Problem> {
    let Some(name) = given.map(str::trim).filter(|name| !name.is_empty()) else { return Ok(None) };
    if name.chars().count() > NAME || name.contains(char::is_control) {
        let want = format!("must be up to {NAME} characters, none of them a control character.");
        return Err(Problem::query("name", want));
    }
    Ok(Some(name.to_owned()))
}

/// Is the body packed with gzip?
pub fn gzip(headers: &HeaderMap) -> Result<bool, Problem> {
    let mut all = headers.get_all(CONTENT_ENCODING).iter();
    let first = all.next().map(|value| value.to_str().unwrap_or("?").trim().to_ascii_lowercase());
    match (first.as_deref(), all.next()) {
        (None | Some("" | "identity"), None) => Ok(false),
        (Some("gzip" | "x-gzip"), None) => Ok(true),
        _ => Err(Problem::new(
            UNSUPPORTED_ENCODING,
            "Only Content-Encoding: gzip (or none at all) is taken here.",
        )),
    }
}

/// No list is sent as this.
pub(super) fn unsupported() -> Problem {
    Problem::new(
        UNSUPPORTED_MEDIA_TYPE,
        "Send the list as application/json, text/csv, text/tab-separated-values, text/plain, \
         application/x-ndjson, text/vcard, text/ldif, message/rfc822, multipart/form-data, a workbook (.xlsx: \
         application/vnd.openxmlformats-officedocument.spreadsheetml.sheet), or application/octet-stream where its \
         bytes shall say what it is; and say so in Content-Type.",
    )
}

/// The text of the header, for what reads it as a whole.
pub(super) fn content_type(headers: &HeaderMap) -> &str {
    headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_stand_for_formats() {
        let params = SubmitParams { column: Some(String::from("mail")), ..Default::default() };
        let of = |essence| format(essence, &params).unwrap();
        assert_eq!(of("application/json"), Some(Format::Json));
        assert_eq!(of("application/jsonl"), Some(Format::Ndjson));
        assert_eq!(of("text/plain"), Some(Format::Text));
        let column = params.column.clone();
        assert_eq!(of("text/csv"), Some(Format::Csv { column: column.clone(), delimiter: None }));
        let tab = Some(Format::Csv { column, delimiter: Some(b'\t') });
        assert_eq!(of("text/tab-separated-values"), tab);
        assert_eq!(of("application/xml"), None);
        let workbook = Some(Format::Workbook { column: params.column.clone(), sheet: None });
        assert!(WORKBOOKS.iter().all(|essence| of(essence) == workbook));
    }

    #[test]
    fn parameters_have_their_bounds() {
        assert_eq!(delimiter(Some("tab")).unwrap(), Some(b'\t'));
        assert_eq!(delimiter(Some(";")).unwrap(), Some(b';'));
        assert!(delimiter(Some("ab")).is_err());
        assert_eq!(name(Some("  March ")).unwrap().as_deref(), Some("March"));
        assert_eq!(name(Some(" ")).unwrap(), None);
        assert!(name(Some("a\0b")).is_err());
        assert!(name(Some(&"x".repeat(201))).is_err());
    }

    #[test]
    fn only_gzip_is_unpacked() {
        let of = |value: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert(CONTENT_ENCODING, value.parse().unwrap());
            }
            gzip(&headers).ok()
        };
        assert_eq!(of(None), Some(false));
        assert_eq!(of(Some("identity")), Some(false));
        assert_eq!(of(Some("GZIP")), Some(true));
        assert_eq!(of(Some("br")), None);
        assert_eq!(of(Some("gzip, gzip")), None);
    }
}
