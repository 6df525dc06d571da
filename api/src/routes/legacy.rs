//! The routes of the seed system, in its own words; errors are in its shape by way of
//! [`crate::problem::plain`].

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use listmill_shared::app::submit::read::Understood;
use listmill_shared::domain::clock::Millis;
use listmill_shared::domain::id::TaskId;
use listmill_shared::domain::task::{Task, TaskStatus};
use listmill_shared::domain::verdict::{Credit, Reason, Status};
use listmill_shared::store::results::Found;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::json;
use super::results::{MOST, PAGE, Wanted, page};
use super::submit::{Intake, ListBody, Plan, Submitter, bytes_of, gzip, prepare};
use super::verifications::Verification;
use crate::Api;
use crate::cursor::{SeqCursor, cursor, limit};
use crate::extract::{Id, Json, Params, linger, require_json};
use crate::gate::Caller;
use crate::openapi::Gate;
use crate::problem::Problem;
use crate::view::{stamp, to_json};

/// An error in the seed system's shape.
#[derive(Debug, Serialize, ToSchema)]
pub struct SeedError {
    /// What is wrong.
    error: String,
    /// What happened this time.
    message: Option<String>,
    /// With 402 only: what may be spent.
    current_balance: Option<i64>,
}

/// A verdict in the seed system's words.
#[derive(Debug, Serialize, ToSchema)]
pub struct SeedResult {
    /// The address, normalised.
    email: String,
    /// `safe`, `role`, `catch_all`, `disposable`, `inbox_full`, `disabled`, `invalid` or `unknown`.
    status: &'static str,
    /// Mail to it arrives.
    is_valid: bool,
    /// A throw-away provider.
    is_disposable: bool,
    /// A function, not a person.
    is_role_account: bool,
    /// The domain accepts every local part.
    is_catch_all: bool,
    /// A free mailbox provider.
    is_free_email: bool,
    /// The domain has a mail host; null = not determined.
    mx_found: Option<bool>,
    /// 0 (none) to 100.
    risk_score: i16,
    /// The status as under `/v1`.
    #[schema(value_type = crate::openapi::Status)]
    deliverability: Status,
    /// 1 or 0.
    credits_used: u8,
    /// When the verdict came.
    #[schema(format = DateTime)]
    verified_at: String,
    /// The reason as under `/v1`.
    #[schema(value_type = crate::openapi::Reason)]
    reason: Reason,
}

impl From<Found> for SeedResult {
    fn from(found: Found) -> Self {
        let status = found.reason.status();
        Self {
            status: seed_status(&found),
            is_valid: status == Status::Deliverable,
            is_disposable: found.reason == Reason::Disposable
                || found.flags.disposable == Some(true),
            is_role_account: found.flags.role == Some(true),
            is_catch_all: found.reason == Reason::CatchAll || found.flags.catch_all == Some(true),
            is_free_email: found.flags.free == Some(true),
            mx_found: match found.reason {
                Reason::NoDomain | Reason::NoMx | Reason::InvalidSyntax => Some(false),
                _ if status == Status::Unknown && found.mx.is_none() => None,
                _ => Some(true),
            },
            risk_score: 100 - found.score,
            deliverability: status,
            credits_used: u8::from(found.credit == Credit::Charged),
            verified_at: stamp(found.checked_at),
            reason: found.reason,
            email: found.address,
        }
    }
}

fn seed_status(found: &Found) -> &'static str {
    match (found.reason, found.reason.status()) {
        (Reason::MailboxDisabled, _) => "disabled",
        (Reason::CatchAll, _) => "catch_all",
        (Reason::MailboxFull, _) => "inbox_full",
        (Reason::Disposable, _) => "disposable",
        (_, Status::Deliverable) if found.flags.role == Some(true) => "role",
        (_, Status::Deliverable) => "safe",
        (_, Status::Undeliverable) => "invalid",
        (_, Status::Risky | Status::Unknown) => "unknown",
    }
}

/// Verify one address (seed system)
///
/// One credit, given back when the status is `unknown`. 60 requests a minute and 10,000 a day.
#[utoipa::path(post, path = "/api/verify-single", tag = "seed", request_body = Verification,
    responses(
        (status = 200, description = "The verdict.", body = SeedResult),
        (status = 400, description = "`Email is required`, or not JSON.", body = SeedError),
        (status = 402, description = "`Insufficient credits`.", body = SeedError),
        Gate))]
pub async fn verify_single(
    State(api): State<Api>,
    caller: Caller,
    Json(body): Json<Verification>,
) -> Result<axum::Json<SeedResult>, Problem> {
    let email = body.email()?;
    let verified = api.app.verify(caller.payer(), &email, &*api.provider, None).await?;
    let found = verified.found;
    Ok(axum::Json(found.into()))
}

/// An accepted list, in the seed system's shape.
#[derive(Debug, Serialize, ToSchema)]
pub struct SeedTask {
    /// Ask for results with it.
    task_id: String,
    /// Always `processing`.
    status: &'static str,
    /// Addresses in the list, repeated ones included.
    total_emails: i64,
    /// Whether the list is worked on in more than one part.
    is_chunked: bool,
    /// Parts.
    total_chunks: i64,
    /// Always false: a list is taken whole or not at all.
    partial_failure: bool,
    /// Always 0.
    failed_emails_count: i64,
    /// Always 0: nothing is charged yet.
    credits_refunded: i64,
    /// For people.
    message: String,
}

/// Verify a list (seed system)
///
/// Refused whole when the balance is too low. 60 requests a minute and 10,000 a day.
#[utoipa::path(post, path = "/api/verify-bulk", tag = "seed", request_body = ListBody,
    params(("Idempotency-Key" = Option<String>, Header, description = "See the introduction.")),
    responses(
        (status = 200, description = "The list is accepted.", body = SeedTask),
        (status = 400, description = "The list cannot be taken.", body = SeedError),
        (status = 402, description = "`Insufficient credits`.", body = SeedError),
        (status = 413, description = "The list is too long.", body = SeedError),
        Gate))]
pub async fn verify_bulk(
    State(api): State<Api>,
    caller: Caller,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let headers = &parts.headers;
    let prepared = require_json(headers).and_then(|()| {
        let (permit, idempotency, _) = prepare(&api, headers)?;
        Ok((permit, idempotency, gzip(headers)?))
    });
    match prepared {
        Err(problem) => {
            linger(body).await;
            Err(problem)
        }
        Ok((permit, idempotency, gzip)) => {
            let plan = Plan {
                gzip,
                // Its clients know no way to say it, and answer for each address on its own.
                allow_invalid: true,
                ..Plan::of_json()
            };
            let route = "POST /api/verify-bulk";
            let who = Submitter::from(&caller);
            let intake = Intake { api, who, permit, idempotency, route, answer };
            intake.receive(plan, bytes_of(body)).await
        }
    }
}

fn answer(task: &Task, _: &Understood, _: Millis) -> (i16, String) {
    let total = task.submitted.submitted;
    let body = SeedTask {
        task_id: task.id.to_string(),
        status: "processing",
        total_emails: total,
        is_chunked: task.batches > 1,
        total_chunks: task.batches,
        partial_failure: false,
        failed_emails_count: 0,
        credits_refunded: 0,
        message: format!(
            "{total} emails are being verified. Ask /api/get-results/{} for the results.",
            task.id
        ),
    };
    (200, to_json(&body))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageParams {
    /// Where the page begins: a `next_cursor` of this list.
    cursor: Option<String>,
    /// Results on the page, 1 to 10000; 1000 unless given.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 10000)]
    limit: Option<String>,
}

/// Results so far, in the seed system's shape.
#[derive(Debug, Serialize, ToSchema)]
pub struct SeedResults {
    /// The task's id.
    task_id: String,
    /// The name that it was submitted with.
    name: Option<String>,
    /// `processing`, `paused`, `cancelled` or `completed`.
    status: &'static str,
    /// Addresses in the list, repeated ones included.
    total_emails: i64,
    /// Distinct addresses with a result.
    processed: i64,
    /// Share of the distinct addresses that have a result, 0 to 100.
    progress: i64,
    /// Credits used for definitive verdicts.
    credits_used: i64,
    /// Credits given back: unknown verdicts, and what a cancellation released.
    credits_refunded: i64,
    /// A page of them, in the order of submission.
    results: Vec<SeedResult>,
    /// Give it as `cursor` to get the next page; null = nothing more at this moment.
    next_cursor: Option<String>,
}

/// Results of a list (seed system)
///
/// Also while it is worked on; cursors and pages are those of `GET /v1/tasks/{id}/results`. 120
/// requests a minute and 10,000 a day.
#[utoipa::path(get, path = "/api/get-results/{task_id}", tag = "seed",
    params(("task_id" = String, Path, description = "Id of the task."), PageParams),
    responses(
        (status = 200, description = "Results so far.", body = SeedResults),
        (status = 400, description = "A bad cursor or limit.", body = SeedError),
        (status = 404, description = "No such task of this account.", body = SeedError),
        Gate))]
pub async fn get_results(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<TaskId>,
    Params(params): Params<PageParams>,
) -> Result<Response, Problem> {
    let after = cursor::<SeqCursor>(params.cursor.as_deref())?.map_or(-1, |cursor| cursor.0 - 1);
    let limit = limit(params.limit.as_deref(), PAGE, MOST)?;
    let task = caller.task(&api, id).await?;
    let wanted = Wanted { after, limit, follow: false, patience: Duration::MAX };
    let page = page(&api.app.store, &task, wanted, None).await?;
    let body = SeedResults {
        task_id: task.id.to_string(),
        status: task_status(task.status),
        total_emails: task.submitted.submitted,
        processed: task.tally.processed(),
        progress: task.progress(),
        credits_used: task.tally.charged,
        credits_refunded: task.tally.refunded + task.released,
        next_cursor: page.next_cursor(),
        results: page.rows.into_iter().map(SeedResult::from).collect(),
        name: task.name,
    };
    Ok(json(StatusCode::OK, to_json(&body)))
}

fn task_status(status: TaskStatus) -> &'static str {
    match status {
        TaskStatus::Ingesting | TaskStatus::Queued | TaskStatus::Running => "processing",
        TaskStatus::Paused => "paused",
        // Ended without all its results, either way.
        TaskStatus::Cancelled | TaskStatus::Failed => "cancelled",
        TaskStatus::Completed => "completed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use listmill_shared::domain::verdict::Flags;

    fn seed(reason: Reason, role: Option<bool>, mx: Option<&str>) -> SeedResult {
        SeedResult::from(Found {
            seq: 0,
            address: String::from("a@b.example"),
            submitted: None,
            reason,
            score: reason.score(),
            flags: Flags { role, ..Flags::default() },
            credit: reason.credit(),
            attempts: 1,
            checked_at: 0,
            smtp_code: None,
            mx: mx.map(str::to_owned),
            did_you_mean: None,
        })
    }

    #[test]
    fn verdicts_in_the_words_of_the_seed_system() {
        let word = |reason, role| seed(reason, role, None).status;
        assert_eq!(word(Reason::Accepted, None), "safe");
        assert_eq!(word(Reason::Accepted, Some(true)), "role");
        assert_eq!(word(Reason::MailboxNotFound, Some(true)), "invalid");
        assert_eq!(word(Reason::MailboxDisabled, None), "disabled");
        assert_eq!(word(Reason::MailboxFull, None), "inbox_full");
        assert_eq!(word(Reason::CatchAll, None), "catch_all");
        assert_eq!(word(Reason::Disposable, None), "disposable");
        assert_eq!(word(Reason::Greylisted, None), "unknown");
        let accepted = seed(Reason::Accepted, None, None);
        assert_eq!((accepted.risk_score, accepted.credits_used), (2, 1));
        assert!(accepted.is_valid && !seed(Reason::MailboxFull, None, None).is_valid);
        assert_eq!(seed(Reason::Timeout, None, None).credits_used, 0);
    }

    #[test]
    fn a_mail_host_is_there_or_not_or_nobody_knows() {
        let found = |reason, mx| seed(reason, None, mx).mx_found;
        assert_eq!(found(Reason::Accepted, None), Some(true));
        assert_eq!(found(Reason::NoMx, None), Some(false));
        assert_eq!(found(Reason::InvalidSyntax, None), Some(false));
        assert_eq!(found(Reason::Timeout, None), None);
        assert_eq!(found(Reason::Timeout, Some("mx.example")), Some(true));
    }
}
