//! A new secret in the place of an old one, at once or at a planned time.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use listmill_shared::app::rotation::Rotation;
use listmill_shared::domain::clock::Millis;
use listmill_shared::domain::id::KeyId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::draft::Object;
use super::view::{LastUsedView, LiveTask};
use super::{reveal, used};
use crate::Api;
use crate::extract::Id;
use crate::gate::Caller;
use crate::idempotency::{Answer, Done, Once};
use crate::openapi::{Bad, Conflict, Gate, NoKey};
use crate::problem::Problem;
use crate::view::{stamp, to_json};

/// Seconds of grace, at most: 90 days.
const LONGEST: i64 = 90 * 86_400;

/// How to rotate.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RotateRequest {
    /// The old secret opens for so many seconds more, and never longer than it would have; up to 90 days.
    #[schema(minimum = 0, maximum = 7_776_000)]
    grace_seconds: i64,
    /// When the new secret begins to open, up to 365 days ahead (RFC 3339); at once, unless given. The grace
    /// counts from then on.
    #[schema(format = DateTime)]
    at: Option<String>,
    /// The secret is not told in the answer, but shown once by the link that is.
    link: bool,
}

/// A key that was put in another's place.
#[derive(Debug, Serialize, ToSchema)]
pub struct RotatedView {
    /// The new secret. It is shown this once and kept nowhere. Not with `link`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "VECk7mpq…")]
    key: Option<String>,
    /// Where the new secret is shown once, to whoever asks first. Only with `link`. A path where the server
    /// does not know its own address.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "https://api.example.com/once/5f1c…")]
    link: Option<String>,
    /// When the link ends unused. Only with `link`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    link_expires_at: Option<String>,
    /// Id of the new key.
    id: String,
    /// The first characters of the new secret.
    start: String,
    /// Before this the new one opens nothing.
    #[schema(format = DateTime)]
    not_before: Option<String>,
    /// The old one.
    old: OldView,
}

/// A key that another was put in the place of.
#[derive(Debug, Serialize, ToSchema)]
pub struct OldView {
    /// Its id.
    id: String,
    /// When it ends.
    #[schema(format = DateTime)]
    ends_at: Option<String>,
    /// By whom it is still used: its last accepted request, as of a moment ago.
    last_used: Option<LastUsedView>,
    /// Tasks that it submitted and that go on.
    tasks: Vec<LiveTask>,
}

fn time(text: Option<String>) -> Result<Option<Millis>, Problem> {
    let read = |text: String| match text.parse::<Timestamp>() {
        Ok(at) => Ok(at.as_millisecond()),
        Err(_) => Err(Problem::field("at", "must be a time such as 2030-01-31T12:00:00Z")),
    };
    text.map(read).transpose()
}

/// Rotate a key
///
/// Makes a new key with the same settings, the same end, and one limit of credits and one budget of requests
/// for both. The old one opens for `grace_seconds` more; without them it ends at once. `old` says by whom it is
/// still used; `GET /v1/keys/{id}/receipt` says so later. To cut the grace, disable or delete the old one.
///
/// With `at`, the new key is made now and opens from then on; the old one ends `grace_seconds` after it. Until
/// then, deleting the new key takes the rotation back: the old one's end is what it was before, unless that
/// would be later than the calling key's own.
///
/// With `link`, the answer holds no secret but a link that shows it once. Sent again with the same
/// `Idempotency-Key`, it shows the same secret or link.
#[utoipa::path(post, path = "/v1/keys/{id}/rotate", tag = "keys",
    params(("id" = String, Path, description = "Id of the key (not its secret)."),
        ("Idempotency-Key" = Option<String>, Header, description = "See the introduction.")),
    request_body = RotateRequest,
    responses((status = 201, description = "The new key, with its secret.", body = RotatedView),
        Bad, NoKey, Conflict, Gate))]
pub async fn rotate(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<KeyId>,
    once: Once,
) -> Result<Response, Problem> {
    let Object(request): Object<RotateRequest> =
        if once.is_empty() { Object::default() } else { once.json()? };
    if !(0..=LONGEST).contains(&request.grace_seconds) {
        return Err(Problem::field("grace_seconds", format!("must be from 0 to {LONGEST}")));
    }
    let grace_ms = request.grace_seconds * 1_000;
    let how = Rotation { grace_ms, at: time(request.at)?, link: request.link };
    let (inner, by) = (api.clone(), caller.clone());
    let mut done: Done = once
        .scoped(&caller)
        .run(&api, &caller, move |place| async move {
            let rotated =
                inner.app.rotate_key(id, Some(by.account), how, by.by(), &place.salt).await?;
            let last = used(&inner, &[rotated.old.id]).await?.remove(&rotated.old.id);
            let old = OldView {
                id: rotated.old.id.to_string(),
                ends_at: rotated.old.expires_at.map(stamp),
                last_used: last.and_then(|used| used.last).as_ref().map(LastUsedView::from),
                tasks: rotated.tasks.iter().map(LiveTask::from).collect(),
            };
            // What is remembered holds no secret.
            let view = RotatedView {
                key: None,
                link: None,
                link_expires_at: rotated.link.map(|link| stamp(link.ends_at)),
                id: rotated.key.id.to_string(),
                start: rotated.key.start,
                not_before: rotated.key.not_before.map(stamp),
                old,
            };
            Ok(Answer { status: 201, ..Answer::ok(to_json(&view)) })
        })
        .await?;
    if done.answer.status == 201 {
        reveal(&api, &mut done)?;
    }
    Ok(done.into_response())
}
