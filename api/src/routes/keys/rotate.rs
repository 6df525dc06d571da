//! A new secret in the place of an old one.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use listmill_shared::domain::id::KeyId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::draft::Object;
use super::reveal;
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
}

/// A key that was put in another's place.
#[derive(Debug, Serialize, ToSchema)]
pub struct RotatedView {
    /// The new secret. It is shown this once and kept nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "VECk7mpq…")]
    key: Option<String>,
    /// Id of the new key.
    id: String,
    /// The first characters of the new secret.
    start: String,
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
}

/// Rotate a key
///
/// Makes a new key with the same settings, the same end, and one limit of credits and one budget of requests
/// for both. The old one opens for `grace_seconds` more; without them it ends at once. To cut the grace, disable
/// or delete the old one. Sent again with the same `Idempotency-Key`, it shows the same secret.
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
    let (inner, by) = (api.clone(), caller.clone());
    let mut done: Done = once
        .scoped(&caller)
        .run(&api, &caller, move |place| async move {
            let grace_ms = request.grace_seconds * 1_000;
            let rotated =
                inner.app.rotate_key(id, Some(by.account), grace_ms, by.by(), &place.salt).await?;
            let old = OldView {
                id: rotated.old.id.to_string(),
                ends_at: rotated.old.expires_at.map(stamp),
            };
            // What is remembered holds no secret.
            let view = RotatedView {
                key: None,
                id: rotated.key.id.to_string(),
                start: rotated.key.start,
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
