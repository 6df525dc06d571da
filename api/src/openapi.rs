//! The OpenAPI document: what is not said at the routes themselves. Routes and schemas come from
//! the handlers, so that document and server cannot drift apart.

#![allow(dead_code, reason = "these types describe; nothing makes one")]

use serde::Serialize;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{IntoResponses, Modify, OpenApi, ToSchema};

const ABOUT: &str = "\
Bulk email verification.

Submit a list with `POST /v1/tasks`, follow the task with `GET /v1/tasks/{id}` or its events, and \
read `GET /v1/tasks/{id}/results` as pages, CSV or NDJSON. Tasks, results and credits belong to the \
account: any of its active keys may ask for them, and nothing that happens to a key changes a task.

**Keys** go into `Authorization: Bearer VEC…` or `X-Api-Key: VEC…`. Every request is judged on the \
key's state at that moment. A key that is refused gets the same small JSON on every route: \
`{\"error\": …, \"reason\"?: …}`.

**Test keys** (`environment` `test`) live in a sandbox: the same routes and answers, verdicts that \
are made up by the start of the address (`undeliverable`, `risky`, `full`, `unknown`, `flaky`, …), and \
no credit is touched. Live tasks, results and keys are not there for them (404), as another account's \
are not; a live key sees both. What a test key makes is a test key.

**Errors** under `/v1` are `application/problem+json` (RFC 9457); `code` is stable, `detail` says \
what happened this time. [All codes](/docs/problems).

**Keys for your own programs** are under `/v2`, with a root key in place of a key, and with answers \
and errors of their own shape: `{\"meta\": {\"requestId\"}, \"data\" or \"error\"}`.

**Lists** return `{\"data\": […], \"next_cursor\": …}`; give `next_cursor` as `cursor` to go on.

**Idempotency-Key**: a POST under `/v1` (and `/api/verify-bulk`) that carries one is done once. Sent \
again within 24 hours, it gets the first answer, with the header `Idempotent-Replayed: true`; \
another request with the same key gets 409. Answers of 402 and 5xx are not kept: try again with the \
same key.

**Limits**: answers carry `X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset` \
(seconds since the epoch); over the limit it is 429 with `Retry-After`.

**X-Request-Id**: every answer carries one, and what a request changes is written down with it \
(`GET /v1/audit`). Send your own (1 to 64 visible ASCII characters), or get a new one.

**Times** are RFC 3339 in UTC. **Credits** are whole; one pays for one address with a definitive \
verdict. Unknown verdicts, duplicates and broken syntax are free.";

#[derive(OpenApi)]
#[openapi(
    info(title = "Listmill", description = ABOUT, license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")),
    tags(
        (name = "tasks", description = "Lists: submit, follow, steer, read."),
        (name = "verifications", description = "One address, in the request."),
        (name = "credits", description = "What may be spent, and where it went."),
        (name = "keys", description = "Keys of the account."),
        (name = "audit", description = "What was changed, and by whom."),
        (name = "usage", description = "Requests of the account, and what they add up to."),
        (name = "key service", description = "Keys that are verified for your own programs, in the shapes of \
            Unkey's public API; with a root key (docs/UNKEY.md)."),
        (name = "seed", description = "The routes of the seed system, in its own words and shapes."),
        (name = "operations", description = "For operators; no key needed."),
    ),
    components(schemas(Problem, Refusal, TooMany, EventFormat, Flag, ResultFormat, Escape, crate::v2::describe::Failed)),
    security(("bearer" = []), ("api_key" = [])),
    modifiers(&Schemes),
)]
pub struct Document;

struct Schemes;

impl Modify for Schemes {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_with(Default::default);
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("`Authorization: Bearer VEC…`"))
            .build();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        let root = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some(
                "Under `/v2`: `Authorization: Bearer root_…`. The names at an operation are actions that the \
                 root key's permissions (`api.WHICH.ACTION`) must hold.",
            ))
            .build();
        components.add_security_scheme("root_key", SecurityScheme::Http(root));
        let header = ApiKeyValue::with_description("X-Api-Key", "`X-Api-Key: VEC…`");
        components.add_security_scheme("api_key", SecurityScheme::ApiKey(ApiKey::Header(header)));
    }
}

/// An error under `/v1`, as `application/problem+json`.
#[derive(Serialize, ToSchema)]
pub struct Problem {
    /// Where the kind of error is described.
    #[serde(rename = "type")]
    #[schema(example = "/docs/problems#bad_limit")]
    kind: String,
    /// What kind of error it is, for people.
    title: String,
    /// The HTTP status.
    #[schema(example = 400)]
    status: u16,
    /// What happened this time.
    detail: String,
    /// What kind of error it is, for programs; stable.
    #[schema(example = "bad_limit")]
    code: String,
    /// The same as `title`.
    error: String,
    /// With 402 only: what may be spent.
    current_balance: Option<i64>,
}

/// The gate's answer to a key that does not pass, the same on every route.
#[derive(Serialize, ToSchema)]
pub struct Refusal {
    /// What is wrong.
    #[schema(example = "API key is suspended")]
    error: String,
    /// Why, where there is more to say.
    #[schema(example = "This API key has been suspended")]
    reason: Option<String>,
}

/// Too many requests.
#[derive(Serialize, ToSchema)]
pub struct TooMany {
    /// `Rate limit exceeded` or `Daily limit exceeded`.
    error: String,
    /// Requests allowed.
    limit: u32,
    /// `1 minute`; not with the daily limit.
    window: Option<String>,
    /// Requests made.
    current: i64,
    /// Seconds until one would pass; not with the daily limit.
    retry_after_seconds: Option<i64>,
    /// `midnight UTC`; only with the daily limit.
    resets_at: Option<String>,
}

/// What any route with a key may answer.
#[derive(IntoResponses)]
pub enum Gate {
    /// No key, not in the right form, unknown, deleted or expired.
    #[response(status = 401)]
    Unauthorized(Refusal),
    /// The key is disabled, it or its account is suspended, or the caller's address is blocked.
    #[response(status = 403)]
    Forbidden(Refusal),
    /// Too many requests with this key; see `Retry-After`.
    #[response(status = 429)]
    TooMany(TooMany),
    /// The database cannot be reached; see `Retry-After`.
    #[response(status = 503, content_type = "application/problem+json")]
    Away(Problem),
}

/// A request that cannot be read.
#[derive(IntoResponses)]
#[response(
    status = 400,
    description = "Something in the request cannot be: `detail` names it.",
    content_type = "application/problem+json"
)]
pub struct Bad(Problem);

/// A task that is not there.
#[derive(IntoResponses)]
#[response(
    status = 404,
    description = "No task of this account has that id.",
    content_type = "application/problem+json"
)]
pub struct NoTask(Problem);

/// A key that is not there.
#[derive(IntoResponses)]
#[response(
    status = 404,
    description = "No key of this account has that id.",
    content_type = "application/problem+json"
)]
pub struct NoKey(Problem);

/// A state that does not allow it.
#[derive(IntoResponses)]
#[response(
    status = 409,
    description = "The task's status does not allow that (`wrong_state`), or the Idempotency-Key was used with another request or is in use.",
    content_type = "application/problem+json"
)]
pub struct Conflict(Problem);

/// Too few credits.
#[derive(IntoResponses)]
#[response(
    status = 402,
    description = "The balance is too low; nothing was stored or deducted.",
    content_type = "application/problem+json"
)]
pub struct Poor(Problem);

/// Where a task stands. `queued`, `running` and `paused` may change; the others are final.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum TaskStatus {
    Queued,
    Running,
    Paused,
    Cancelled,
    Completed,
    Failed,
}

/// Why a task stands still. `insufficient_credits` goes on by itself after a top-up,
/// `provider_unavailable` (outbound SMTP is blocked, say) when a worker can verify again.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum PauseReason {
    InsufficientCredits,
    Requested,
    ProviderUnavailable,
}

/// What to do with an address: `deliverable` = write to it; `undeliverable` = mail comes back;
/// `risky` = it may arrive, or arrive nowhere useful; `unknown` = nobody could tell.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum Status {
    Deliverable,
    Undeliverable,
    Risky,
    Unknown,
}

/// Why an address has its status. deliverable: `accepted`; undeliverable: `invalid_syntax`,
/// `no_domain`, `no_mx`, `mailbox_not_found`, `mailbox_disabled`; risky: `catch_all`,
/// `mailbox_full`, `disposable`; all others: unknown.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum Reason {
    Accepted,
    InvalidSyntax,
    NoDomain,
    NoMx,
    MailboxNotFound,
    MailboxDisabled,
    CatchAll,
    MailboxFull,
    Disposable,
    Timeout,
    NoConnect,
    Greylisted,
    Blocked,
    SmtpUnavailable,
    InternalError,
}

/// What else can be known of an address.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum Flag {
    Role,
    Free,
    Disposable,
    CatchAll,
    MailboxFull,
    Disabled,
}

/// What events come as: a stream, or a list.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum EventFormat {
    Json,
    Sse,
}

/// What can happen to a task.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum Happened {
    Submitted,
    Started,
    Paused,
    Resumed,
    WorkerLost,
    Cancelled,
    Completed,
    Failed,
}

/// What results come as: a page (`json`), everything as one array (`json_array`), one result a line (`ndjson`),
/// one address a line (`txt`), or the submitted rows with columns added (`csv`, `xlsx`, a `zip` of a CSV for each
/// status).
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum ResultFormat {
    Json,
    JsonArray,
    Csv,
    Ndjson,
    Txt,
    Xlsx,
    Zip,
}

/// What is escaped.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum Escape {
    Formulas,
}

/// `charged` = one credit; `refunded` = the held credit went back; `free` = never held (broken syntax, repeated
/// addresses, everything that a test key asks or submits).
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum Credit {
    Charged,
    Refunded,
    Free,
}

/// What else is known of an address; null = not determined.
#[derive(ToSchema)]
#[schema(as = Flags)]
pub struct Flags {
    /// A function, not a person (`info@`).
    role: Option<bool>,
    /// A free mailbox provider.
    free: Option<bool>,
    /// A throw-away provider.
    disposable: Option<bool>,
    /// The domain accepts every local part.
    catch_all: Option<bool>,
    /// The mailbox is over its quota.
    mailbox_full: Option<bool>,
    /// The mailbox exists but is switched off.
    disabled: Option<bool>,
}

/// Who made a change; one of the five.
#[derive(ToSchema)]
pub struct Actor {
    /// With this key.
    #[schema(example = "key_0199c2f06c5a7a3b8d0e5f4a1b2c3d4e")]
    key: Option<String>,
    /// Logged in with this email.
    person: Option<String>,
    /// With this root key.
    #[schema(example = "rootkey_0199c2f06c5a7a3b8d0e5f4a1b2c3d4e")]
    root_key: Option<String>,
    /// An operator of this server, at its command line.
    operator: Option<bool>,
    /// This server by itself.
    system: Option<bool>,
}

/// What a key is for: `live`, or `test` (the sandbox verifies, and nothing is charged).
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum Environment {
    Live,
    Test,
}

/// Whether a key opens the door: `disabled` by its owner, `suspended` by an operator or by abuse
/// protection, `expired` by itself, `deleted` for good.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum KeyStatus {
    Active,
    Disabled,
    Suspended,
    Expired,
    Deleted,
}

/// How the gate ended: `accepted` = past it, whatever came of it afterwards; else the check that
/// refused. `unknown`: no such key, or deleted.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum Outcome {
    Accepted,
    IpBlocked,
    Malformed,
    Unknown,
    Disabled,
    Suspended,
    Expired,
    NotAllowed,
    Scope,
    RateLimit,
    CreditLimit,
}

#[cfg(test)]
mod tests {
    use super::*;
    use listmill_shared::domain::{request, task, verdict};

    /// The names in a schema made from an enum.
    fn names<T: ToSchema + utoipa::PartialSchema>() -> Vec<String> {
        let schema = serde_json::to_value(T::schema()).unwrap();
        let names = schema["enum"].as_array().unwrap();
        names.iter().map(|name| name.as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn described_names_are_the_real_ones() {
        let reasons: Vec<&str> = verdict::Reason::ALL.iter().map(|r| r.as_str()).collect();
        assert_eq!(names::<Reason>(), reasons);
        let statuses: Vec<&str> = verdict::Status::ALL.iter().map(|s| s.as_str()).collect();
        assert_eq!(names::<Status>(), statuses);
        let outcomes: Vec<&str> = request::Outcome::ALL.iter().map(|o| o.as_str()).collect();
        assert_eq!(names::<Outcome>(), outcomes);
        let mut shown: Vec<&str> = task::TaskStatus::SHOWN.iter().map(|s| s.as_str()).collect();
        shown.sort_unstable();
        let mut described = names::<TaskStatus>();
        described.sort_unstable();
        assert_eq!(described, shown);
    }
}
