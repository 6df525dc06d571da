//! What the OpenAPI document says of `/v2` and is not said at the methods: frames, errors, and names of values.

#![allow(dead_code, reason = "these types describe; nothing makes one")]

use utoipa::{IntoResponses, ToSchema};

/// Names a request.
#[derive(ToSchema)]
#[schema(as = ServiceMeta)]
pub struct Meta {
    /// The request's `X-Request-Id`.
    #[schema(example = "req_0199c2f06c5a7a3b8d0e5f4a1b2c3d4e")]
    #[schema(rename = "requestId")]
    request_id: String,
}

/// A success.
#[derive(ToSchema)]
pub struct ServiceAnswer<T> {
    meta: Meta,
    data: T,
}

/// A page of a list.
#[derive(ToSchema)]
pub struct ServiceList<T> {
    meta: Meta,
    data: Vec<T>,
    pagination: Pagination,
}

/// Where the next page begins.
#[derive(ToSchema)]
#[schema(as = ServicePagination)]
pub struct Pagination {
    /// Is there more?
    #[schema(rename = "hasMore")]
    has_more: bool,
    /// Give it as `cursor` to get the next page; left out where there is none.
    #[schema(required = false, nullable = false)]
    cursor: Option<String>,
}

/// Nothing to say but that it is done.
#[derive(ToSchema)]
#[schema(as = ServiceNothing)]
pub struct Nothing {}

/// An error under `/v2`.
#[derive(ToSchema)]
#[schema(as = ServiceError)]
pub struct Failed {
    meta: Meta,
    error: Failure,
}

/// What went wrong.
#[derive(ToSchema)]
#[schema(as = ServiceFailure)]
pub struct Failure {
    /// What kind of error it is.
    title: String,
    /// What happened this time.
    detail: String,
    /// The HTTP status.
    #[schema(example = 400)]
    status: u16,
    /// Where the kind of error is described.
    #[schema(rename = "type", example = "/docs/problems#invalid_field")]
    kind: String,
    /// Faults of the body; only with 400.
    #[schema(required = false, nullable = false)]
    errors: Option<Vec<Fault>>,
}

/// A fault at one place of the body.
#[derive(ToSchema)]
#[schema(as = ServiceFault)]
pub struct Fault {
    /// Where.
    #[schema(example = "body.credits.remaining")]
    location: String,
    /// What it must be.
    message: String,
    /// What to do about it.
    #[schema(required = false, nullable = false)]
    fix: Option<String>,
}

/// What any method may answer.
#[derive(IntoResponses)]
pub enum Errors {
    /// The body is not JSON, or a field cannot be so: `errors` names the place.
    #[response(status = 400)]
    Bad(Failed),
    /// No root key, or none that is there.
    #[response(status = 401)]
    Unauthorized(Failed),
    /// The root key lacks the permission, or the caller's address is blocked.
    #[response(status = 403)]
    Forbidden(Failed),
    /// The body is too large.
    #[response(status = 413)]
    TooLarge(Failed),
    /// The body is not `application/json`.
    #[response(status = 415)]
    WrongType(Failed),
    /// Too many requests with this root key; see `Retry-After`.
    #[response(status = 429, content_type = "application/problem+json")]
    TooMany(Failed),
    /// The database cannot be reached; see `Retry-After`.
    #[response(status = 503)]
    Away(Failed),
}

/// An api or a key that is not there.
#[derive(IntoResponses)]
#[response(status = 404, description = "No such api or key of this account.")]
pub struct Missing(Failed);

/// A state that does not allow it.
#[derive(IntoResponses)]
#[response(status = 409, description = "The key's state does not allow that.")]
pub struct Conflict(Failed);

/// The answer in one word.
#[derive(ToSchema)]
#[schema(as = ServiceCode, rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    Valid,
    NotFound,
    Forbidden,
    InsufficientPermissions,
    UsageExceeded,
    RateLimited,
    Disabled,
    Expired,
}

/// What is said of a key that was presented: with `NOT_FOUND`, `valid` and `code` alone.
#[derive(ToSchema)]
#[schema(as = ServiceVerified, rename_all = "camelCase")]
pub struct Verified {
    /// May it be used?
    valid: bool,
    code: Code,
    /// Id of the key.
    #[schema(required = false, nullable = false)]
    key_id: Option<String>,
    /// Its name.
    #[schema(required = false, nullable = false)]
    name: Option<String>,
    /// What was said of it.
    #[schema(required = false, nullable = false, value_type = Option<Object>)]
    meta: Option<serde_json::Value>,
    /// When it ends by itself, in milliseconds since 1970.
    #[schema(required = false, nullable = false)]
    expires: Option<i64>,
    /// Credits that are left; left out where nothing is limited.
    #[schema(required = false, nullable = false)]
    credits: Option<i64>,
    /// Neither switched off nor suspended.
    #[schema(required = false, nullable = false)]
    enabled: Option<bool>,
    /// What it may do.
    #[schema(required = false, nullable = false)]
    permissions: Option<Vec<String>>,
    /// Its roles.
    #[schema(required = false, nullable = false)]
    roles: Option<Vec<String>>,
    /// Whom it was given to.
    #[schema(required = false, nullable = false)]
    identity: Option<super::fields::IdentityView>,
    /// The rate limits that were judged.
    #[schema(required = false, nullable = false)]
    ratelimits: Option<Vec<JudgedLimit>>,
}

/// How a rate limit stands.
#[derive(ToSchema)]
#[schema(as = ServiceJudgedLimit, rename_all = "camelCase")]
pub struct JudgedLimit {
    /// Of the name, the same every time.
    id: String,
    /// Its name.
    name: String,
    /// Uses in a window.
    limit: u32,
    /// Length of the window in milliseconds.
    duration: u32,
    /// Is it judged at every verification?
    auto_apply: bool,
    /// Is it exceeded?
    exceeded: bool,
    /// Uses that are left.
    remaining: u32,
    /// When its oldest use leaves the window, in milliseconds since 1970.
    reset: i64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use listmill_shared::app::key_service::verify;
    use utoipa::PartialSchema;

    #[test]
    fn described_codes_are_the_real_ones() {
        let schema = serde_json::to_value(Code::schema()).unwrap();
        let real = [
            verify::Code::Valid,
            verify::Code::NotFound,
            verify::Code::Forbidden,
            verify::Code::InsufficientPermissions,
            verify::Code::UsageExceeded,
            verify::Code::RateLimited,
            verify::Code::Disabled,
            verify::Code::Expired,
        ];
        assert_eq!(schema["enum"], serde_json::json!(real.map(verify::Code::as_str)));
    }
}
