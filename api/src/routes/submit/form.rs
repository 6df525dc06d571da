//! Lists in forms: `multipart/form-data`, read as it arrives.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderMap;
use axum::response::Response;
use futures::{StreamExt, stream};
use listmill_shared::app::submit::read::{Format, ReadError};
use listmill_shared::app::submit::{Accepted, SubmitError};
use multer::{Constraints, Field, Multipart, SizeLimit};
use utoipa::ToSchema;

use super::plan::{ANY, WORKBOOKS, content_type, format, name};
use super::{Intake, Plan, SubmitParams, gzip};
use crate::extract::{MediaType, linger};
use crate::problem::{
    BODY_IDLE, INVALID_MULTIPART, Problem, UNSUPPORTED_ENCODING, UNSUPPORTED_MEDIA_TYPE,
};

/// Bytes of a field that is not the file.
const FIELD: u64 = 4096;
/// How long the end of a form, behind its file, is waited for.
const TAIL: Duration = Duration::from_secs(1);
const FIELDS: [&str; 9] = [
    "name",
    "column",
    "sheet",
    "delimiter",
    "charset",
    "collapse",
    "allow_invalid",
    "allow_partial",
    "dry_run",
];

/// A list as a form. The other fields, as the query parameters, must stand before the file.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "describes the form")]
pub struct ListForm {
    /// A name for the task; the file's name unless given.
    name: Option<String>,
    /// CSV and workbooks: the column with the addresses.
    column: Option<String>,
    /// Workbooks: the sheet.
    sheet: Option<String>,
    /// CSV: the delimiter.
    delimiter: Option<String>,
    /// The list's encoding.
    charset: Option<String>,
    /// Addresses that differ by letter case or a tag alone are one.
    collapse: Option<bool>,
    /// Take it however much of it is no address.
    allow_invalid: Option<bool>,
    /// Run until the credits end.
    allow_partial: Option<bool>,
    /// Count and price only.
    dry_run: Option<bool>,
    /// The list.
    #[schema(format = Binary)]
    file: String,
}

/// Receives a form.
pub async fn submit(
    intake: Intake,
    mut params: SubmitParams,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let boundary = match check(headers) {
        Ok(boundary) => boundary,
        Err(problem) => {
            linger(body).await;
            return Err(problem);
        }
    };
    let limits =
        FIELDS.iter().fold(SizeLimit::new(), |limits, field| limits.for_field(*field, FIELD));
    let constraints = Constraints::new().size_limit(limits);
    let mut form = Multipart::with_constraints(body.into_data_stream(), boundary, constraints);
    let idle = intake.api.app.settings.body_idle_timeout;
    let found = find_file(&mut form, &mut params, idle).await;
    let outcome = match found.and_then(|file| Ok((plan(&file, &params)?, file))) {
        Ok((plan, file)) => {
            intake.receive(plan, file.map(|piece| piece.map_err(io::Error::other))).await
        }
        Err(problem) => Err(problem),
    };
    // The rest is read for politeness; whether it ends changes nothing.
    let rest = async { while let Ok(Some(_)) = form.next_field().await {} };
    let _ = tokio::time::timeout(TAIL, rest).await;
    outcome
}

/// Why a person's form was not taken.
#[derive(Debug)]
pub enum NotTaken {
    /// It does not begin with the token of their session.
    Csrf,
    /// The list was refused.
    Refused(SubmitError),
    /// The form cannot be read.
    Problem(Problem),
}

impl From<Problem> for NotTaken {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

/// Receives the dashboard's form: the field `csrf` comes first, then those of the API, then the file or, where none
/// was chosen, the addresses that were typed (`addresses`, one a line).
pub async fn submit_by_person(
    intake: Intake,
    is_csrf: impl Fn(&str) -> bool,
    dry_run: bool,
    headers: &HeaderMap,
    body: Body,
) -> Result<Accepted, NotTaken> {
    let boundary = match check(headers) {
        Ok(boundary) => boundary,
        Err(problem) => {
            linger(body).await;
            return Err(problem.into());
        }
    };
    let limits = FIELDS.iter().chain(&["csrf"]);
    let limits = limits.fold(SizeLimit::new(), |limits, field| limits.for_field(*field, FIELD));
    let constraints = Constraints::new().size_limit(limits);
    let mut form = Multipart::with_constraints(body.into_data_stream(), boundary, constraints);
    let outcome = take(intake, is_csrf, dry_run, &mut form).await;
    let rest = async { while let Ok(Some(_)) = form.next_field().await {} };
    let _ = tokio::time::timeout(TAIL, rest).await;
    outcome
}

async fn take(
    intake: Intake,
    is_csrf: impl Fn(&str) -> bool,
    dry_run: bool,
    form: &mut Multipart<'static>,
) -> Result<Accepted, NotTaken> {
    let idle = intake.api.app.settings.body_idle_timeout;
    let mut params = SubmitParams::default();
    match in_time(idle, form.next_field()).await? {
        Some(field) if field.name() == Some("csrf") => {
            if !is_csrf(&in_time(idle, field.text()).await?) {
                return Err(NotTaken::Csrf);
            }
        }
        _ => return Err(NotTaken::Csrf),
    }
    while let Some(mut field) = in_time(idle, form.next_field()).await? {
        let list = match field.name() {
            Some("file") => {
                let chosen = field.file_name().is_some_and(|name| !name.is_empty());
                match chosen {
                    true => Some(plan(&field, &params)?),
                    false => None,
                }
            }
            Some("addresses") => Some(Plan::of(Format::Text, None, false, &params)?),
            _ => None,
        };
        let Some(mut plan) = list else {
            let place = match field.name() {
                Some("name") => &mut params.name,
                Some("column") => &mut params.column,
                Some("sheet") => &mut params.sheet,
                Some("delimiter") => &mut params.delimiter,
                Some("charset") => &mut params.charset,
                Some("collapse") => &mut params.collapse,
                Some("allow_invalid") => &mut params.allow_invalid,
                Some("allow_partial") => &mut params.allow_partial,
                _ => continue,
            };
            // An empty field of a form was left out.
            *place = Some(in_time(idle, field.text()).await?).filter(|text| !text.is_empty());
            continue;
        };
        plan.dry_run = dry_run;
        let first = in_time(idle, field.chunk()).await?.unwrap_or_default();
        let all = stream::once(async move { Ok(first) })
            .chain(field.map(|piece| piece.map_err(io::Error::other)));
        return intake.accept(plan, all).await.map_err(NotTaken::Refused);
    }
    Err(NotTaken::Refused(SubmitError::Read(ReadError::EmailsEmpty)))
}

fn check(headers: &HeaderMap) -> Result<String, Problem> {
    if gzip(headers)? {
        return Err(Problem::new(
            UNSUPPORTED_ENCODING,
            "A form is not taken with Content-Encoding. Pack the file in it instead (list.csv.gz).",
        ));
    }
    multer::parse_boundary(content_type(headers)).map_err(invalid)
}

fn invalid(error: multer::Error) -> Problem {
    Problem::new(INVALID_MULTIPART, format!("The form cannot be read: {error}."))
}

/// Reads up to the file; the fields before it override the query.
async fn find_file(
    form: &mut Multipart<'static>,
    params: &mut SubmitParams,
    idle: Duration,
) -> Result<Field<'static>, Problem> {
    loop {
        let Some(field) = in_time(idle, form.next_field()).await? else {
            return Err(Problem::new(
                INVALID_MULTIPART,
                "The form has no field \"file\" with the list in it.",
            ));
        };
        let place = match field.name() {
            Some("file") => return Ok(field),
            Some("name") => &mut params.name,
            Some("column") => &mut params.column,
            Some("sheet") => &mut params.sheet,
            Some("delimiter") => &mut params.delimiter,
            Some("charset") => &mut params.charset,
            Some("collapse") => &mut params.collapse,
            Some("allow_invalid") => &mut params.allow_invalid,
            Some("allow_partial") => &mut params.allow_partial,
            Some("dry_run") => &mut params.dry_run,
            _ => continue,
        };
        *place = Some(in_time(idle, field.text()).await?);
    }
}

async fn in_time<T>(
    idle: Duration,
    reading: impl Future<Output = multer::Result<T>>,
) -> Result<T, Problem> {
    match tokio::time::timeout(idle, reading).await {
        Ok(read) => read.map_err(invalid),
        Err(_) => Err(Problem::new(BODY_IDLE, format!("Nothing was received for {idle:?}."))),
    }
}

fn plan(file: &Field<'_>, params: &SubmitParams) -> Result<Plan, Problem> {
    let kind = MediaType::of(file.headers());
    let essence = kind.as_ref().map(|kind| kind.essence.as_str());
    let charset = kind.as_ref().and_then(|kind| kind.charset.as_deref());
    let format = file_format(essence, file.file_name(), params)?;
    let mut plan = Plan::of(format, charset, false, params)?;
    if plan.name.is_none() {
        // A name that will not do is none.
        plan.name = name(file.file_name()).unwrap_or_default();
    }
    Ok(plan)
}

/// What a file is. A content type that says little (many programs say `text/plain` or
/// `octet-stream` of everything) gives way to the file name's extension, and where that says nothing, to the bytes.
/// Whether it is packed, its bytes say.
fn file_format(
    essence: Option<&str>,
    file_name: Option<&str>,
    params: &SubmitParams,
) -> Result<Format, Problem> {
    let lower = file_name.unwrap_or("").to_ascii_lowercase();
    let stem = [".gz", ".zst", ".zip"].iter().find_map(|packed| lower.strip_suffix(packed));
    let by_name = match stem.unwrap_or(&lower).rsplit_once('.').map(|(_, extension)| extension) {
        Some("csv") => Some("text/csv"),
        Some("tsv" | "tab") => Some("text/tab-separated-values"),
        Some("txt") => Some("text/plain"),
        Some("ndjson" | "jsonl") => Some("application/x-ndjson"),
        Some("json") => Some("application/json"),
        Some("vcf" | "vcard") => Some("text/vcard"),
        Some("ldif" | "ldi") => Some("text/ldif"),
        Some("eml" | "mbox") => Some("message/rfc822"),
        // What is in them, their bytes say.
        Some("xlsx" | "xlsm" | "xls" | "ods") => Some(WORKBOOKS[0]),
        _ => None,
    };
    let telling = essence.filter(|essence| {
        let said_of_all = ["text/plain", "application/vnd.ms-excel"];
        !said_of_all.contains(essence) && !ANY.contains(essence)
    });
    let essence = telling.or(by_name).or(essence).unwrap_or(ANY[0]);
    format(essence, params)?.ok_or_else(|| {
        let detail = format!(
            "Lists are not sent as {essence:.60}. Give the file a content type such as text/csv, a name that ends in \
             .csv, .txt, .json or .xlsx, or application/octet-stream where its bytes shall say what it is."
        );
        Problem::new(UNSUPPORTED_MEDIA_TYPE, detail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_what_its_type_or_name_says() {
        let of = |essence, name| file_format(essence, name, &SubmitParams::default()).ok();
        let csv = Some(Format::Csv { column: None, delimiter: None });
        assert_eq!(of(Some("text/csv"), Some("list.txt")), csv);
        assert_eq!(of(Some("text/plain"), Some("List.CSV")), csv);
        assert_eq!(of(None, Some("list.csv")), csv);
        assert_eq!(of(Some("application/gzip"), Some("list.csv.gz")), csv);
        assert_eq!(of(None, Some("list.csv.zst")), csv);
        assert_eq!(of(None, Some("list.txt")), Some(Format::Text));
        assert_eq!(of(Some("text/plain"), None), Some(Format::Text));
        assert_eq!(of(None, Some("list.jsonl")), Some(Format::Ndjson));
        assert_eq!(of(None, Some("contacts.vcf")), Some(Format::Cards));
        let workbook = Some(Format::Workbook { column: None, sheet: None });
        assert_eq!(of(Some("application/octet-stream"), Some("list.XLSX")), workbook);
        assert_eq!(of(None, Some("list.xls")), workbook);
        assert_eq!(of(Some(WORKBOOKS[0]), Some("list")), workbook);
        assert_eq!(of(None, None), Some(Format::any()));
        assert_eq!(of(Some("application/zip"), Some("list.zip")), Some(Format::any()));
        assert_eq!(of(Some("image/png"), None), None);
    }
}
