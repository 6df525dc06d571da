//! Keys of the account. Nothing here touches a task, unless the owner asks for it.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use listmill_shared::app::keys::NewKey;
use listmill_shared::domain::clock::Millis;
use listmill_shared::domain::id::KeyId;
use listmill_shared::domain::key::Secret;
use listmill_shared::store::accounts::KeyChange;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::{IntoParams, ToSchema};

use crate::Api;
use crate::cursor::{cursor, cut, limit};
use crate::extract::{Id, Params};
use crate::gate::Caller;
use crate::idempotency::{Answer, Done, Once};
use crate::openapi::{Bad, Conflict, Gate, NoKey};
use crate::problem::Problem;
use crate::view::{KeyView, Page, to_json};

/// Keys on a page, unless asked otherwise, and at most.
const PAGE: i64 = 100;
const MOST: i64 = 1000;
/// Characters of a label.
const LABEL: usize = 100;
/// Requests a minute that a key may be given.
const FASTEST: i64 = 1_000_000;

/// A key to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object with \"label\"")]
pub struct KeyRequest {
    /// A name for it, up to 100 characters.
    #[schema(example = "production")]
    label: String,
    /// When it ends by itself (RFC 3339); never, unless given.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// Requests a minute under `/v1`; the server's default unless given.
    #[schema(minimum = 1, maximum = 1_000_000)]
    rate_limit: Option<i64>,
}

/// A new key, with its secret.
#[derive(Debug, Serialize, ToSchema)]
pub struct NewKeyView {
    /// The secret. It is shown this once and kept nowhere.
    #[schema(example = "VECk7mpq…")]
    key: String,
    #[serde(flatten)]
    view: KeyView,
}

impl KeyRequest {
    fn check(self, caller: &Caller, now: Millis) -> Result<NewKey, Problem> {
        let label = self.label.trim();
        if label.is_empty() || label.chars().count() > LABEL || label.contains(char::is_control) {
            let want = format!("must be 1 to {LABEL} characters, none of them a control character");
            return Err(Problem::field("label", want));
        }
        let expires_at = self.expires_at.as_deref().map(|text| match text.parse::<Timestamp>() {
            Err(_) => {
                let want = "must be a time such as 2030-01-31T12:00:00Z";
                Err(Problem::field("expires_at", want))
            }
            Ok(at) if at.as_millisecond() <= now => {
                Err(Problem::field("expires_at", "must lie in the future"))
            }
            Ok(at) => Ok(at.as_millisecond()),
        });
        if self.rate_limit.is_some_and(|limit| !(1..=FASTEST).contains(&limit)) {
            return Err(Problem::field("rate_limit", format!("must be from 1 to {FASTEST}")));
        }
        Ok(NewKey {
            account: caller.account,
            label: label.to_owned(),
            expires_at: expires_at.transpose()?,
            rate_limit: self.rate_limit,
        })
    }
}

/// What a new secret is made of: the calling key and the request's randomness. So a request that is
/// sent again with its Idempotency-Key is told the same secret, and nobody has to store it.
fn derive(caller: &Secret, salt: &[u8]) -> [u8; 31] {
    let digest = Sha256::new()
        .chain_update(b"listmill: secret of a new key\0")
        .chain_update((salt.len() as u64).to_be_bytes())
        .chain_update(salt)
        .chain_update(caller.reveal())
        .finalize();
    std::array::from_fn(|i| digest[i])
}

/// Create a key
///
/// The answer is the only place where the secret is ever shown. Sent again with the same
/// `Idempotency-Key` and by the same key, it shows the same secret.
#[utoipa::path(post, path = "/v1/keys", tag = "keys",
    params(("Idempotency-Key" = Option<String>, Header, description = "See the introduction.")),
    request_body = KeyRequest,
    responses((status = 201, description = "The key, with its secret.", body = NewKeyView),
        Bad, Conflict, Gate))]
pub async fn create(
    State(api): State<Api>,
    caller: Caller,
    once: Once,
) -> Result<Response, Problem> {
    let request: KeyRequest = once.json()?;
    let (app, by) = (api.app.clone(), caller.clone());
    let mut done: Done = once
        .scoped(&caller)
        .run(&api, &caller, move |place| async move {
            let new = request.check(&by, app.now())?;
            let random = derive(by.secret(), &place.salt);
            let (key, _) = app.create_key(new, &random, &by.origin()).await?;
            tracing::info!(key = %key.id, by = %by.key, "key created");
            // What is remembered holds no secret.
            Ok(Answer { status: 201, ..Answer::ok(to_json(&KeyView::new(&key, app.now()))) })
        })
        .await?;
    if done.answer.status == 201 {
        let random = derive(caller.secret(), &done.salt);
        let secret = Secret::from_random(&api.app.settings.key_prefix, &random);
        // Letters and digits: nothing to escape.
        let rest = done.answer.body.trim_start_matches('{');
        done.answer.body = format!("{{\"key\":\"{}\",{rest}", secret.reveal());
    }
    Ok(done.into_response())
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListParams {
    /// Where the page begins: a `next_cursor` of this list.
    cursor: Option<String>,
    /// Keys on the page, 1 to 1000; 100 unless given.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 1000)]
    limit: Option<String>,
}

/// List keys
///
/// Oldest first, without those that were deleted.
#[utoipa::path(get, path = "/v1/keys", tag = "keys", params(ListParams), responses(
    (status = 200, description = "A page of keys.", body = Page<KeyView>), Bad, Gate))]
pub async fn list(
    State(api): State<Api>,
    caller: Caller,
    Params(params): Params<ListParams>,
) -> Result<axum::Json<Page<KeyView>>, Problem> {
    let from = cursor::<KeyId>(params.cursor.as_deref())?;
    let limit = limit(params.limit.as_deref(), PAGE, MOST)?;
    let mut keys = api.app.store.keys(Some(caller.account), from, limit + 1).await?;
    let next_cursor = cut(&mut keys, limit, |key| key.id);
    let now = api.app.now();
    let data = keys.iter().map(|key| KeyView::new(key, now)).collect();
    Ok(axum::Json(Page { data, next_cursor }))
}

/// Show a key
#[utoipa::path(get, path = "/v1/keys/{id}", tag = "keys",
    params(("id" = String, Path, description = "Id of the key (not its secret).")),
    responses((status = 200, description = "The key.", body = KeyView), NoKey, Gate))]
pub async fn show(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<KeyId>,
) -> Result<axum::Json<KeyView>, Problem> {
    let key = api.app.store.key(id, Some(caller.account)).await?;
    let key = key.ok_or_else(Problem::key_not_found)?;
    Ok(axum::Json(KeyView::new(&key, api.app.now())))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct EndParams {
    /// `cancel` also cancels the tasks that this key submitted. Without it they go on, and charge.
    #[param(example = "cancel")]
    tasks: Option<String>,
}

impl EndParams {
    fn cancels(&self) -> Result<bool, Problem> {
        match self.tasks.as_deref() {
            None => Ok(false),
            Some("cancel") => Ok(true),
            Some(_) => Err(Problem::query("tasks", "can only be cancel.")),
        }
    }
}

/// Changes a key and, if asked to, cancels its tasks; what it looks like then.
async fn end(
    api: &Api,
    caller: &Caller,
    id: KeyId,
    change: KeyChange,
    cancel: bool,
) -> Result<KeyView, Problem> {
    let mut cancelled = None;
    if cancel {
        // Switched off first, so that it submits no more; deleted last, so that a caller who met an
        // error in between can ask again.
        changed(api, caller, id, KeyChange::Disable).await?;
        let tasks = api.app.cancel_tasks_of_key(id, caller.account).await?;
        cancelled = Some(tasks.iter().map(ToString::to_string).collect());
    }
    let mut view = changed(api, caller, id, change).await?;
    view.cancelled_tasks = cancelled;
    Ok(view)
}

async fn changed(
    api: &Api,
    caller: &Caller,
    id: KeyId,
    change: KeyChange,
) -> Result<KeyView, Problem> {
    let now = api.app.now();
    let key =
        api.app.store.change_key(id, Some(caller.account), &change, &caller.origin(), now).await?;
    let key = key.ok_or_else(Problem::key_not_found)?;
    tracing::info!(key = %id, by = %caller.key, ?change, "key changed");
    Ok(KeyView::new(&key, now))
}

/// Delete a key
///
/// For good. When this has answered, no request that starts later passes with it, on any server.
/// Its tasks go on, unless `tasks=cancel`.
#[utoipa::path(delete, path = "/v1/keys/{id}", tag = "keys",
    params(("id" = String, Path, description = "Id of the key (not its secret)."), EndParams),
    responses((status = 200, description = "The key as it was, now `deleted`.", body = KeyView),
        Bad, NoKey, Gate))]
pub async fn delete(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<KeyId>,
    Params(params): Params<EndParams>,
) -> Result<axum::Json<KeyView>, Problem> {
    let cancel = params.cancels()?;
    Ok(axum::Json(end(&api, &caller, id, KeyChange::Delete, cancel).await?))
}

/// Disable a key
///
/// When this has answered, no request that starts later passes with it, on any server. Its tasks go
/// on, unless `tasks=cancel`. Lifted by `enable`.
#[utoipa::path(post, path = "/v1/keys/{id}/disable", tag = "keys",
    params(("id" = String, Path, description = "Id of the key (not its secret)."), EndParams,
        ("Idempotency-Key" = Option<String>, Header, description = "See the introduction.")),
    responses((status = 200, description = "The key, now `disabled`.", body = KeyView),
        Bad, NoKey, Conflict, Gate))]
pub async fn disable(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<KeyId>,
    Params(params): Params<EndParams>,
    once: Once,
) -> Result<Done, Problem> {
    let cancel = params.cancels()?;
    let (inner, by) = (api.clone(), caller.clone());
    once.run(&api, &caller, move |_| async move {
        Ok(Answer::ok(to_json(&end(&inner, &by, id, KeyChange::Disable, cancel).await?)))
    })
    .await
}

/// Enable a key
///
/// Lifts `disable`. A key that an operator suspended stays suspended, and an expired one expired.
#[utoipa::path(post, path = "/v1/keys/{id}/enable", tag = "keys",
    params(("id" = String, Path, description = "Id of the key (not its secret)."),
        ("Idempotency-Key" = Option<String>, Header, description = "See the introduction.")),
    responses((status = 200, description = "The key.", body = KeyView), NoKey, Conflict, Gate))]
pub async fn enable(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<KeyId>,
    once: Once,
) -> Result<Done, Problem> {
    let (inner, by) = (api.clone(), caller.clone());
    once.run(&api, &caller, move |_| async move {
        Ok(Answer::ok(to_json(&changed(&inner, &by, id, KeyChange::Enable).await?)))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use listmill_shared::domain::id::Ids;

    #[test]
    fn the_same_request_gives_the_same_secret_and_no_other_does() {
        let ids = Ids::seeded(1);
        let (one, two) = (Secret::generate("VEC", &ids), Secret::generate("VEC", &ids));
        assert_eq!(derive(&one, &[1; 32]), derive(&one, &[1; 32]));
        assert_ne!(derive(&one, &[1; 32]), derive(&one, &[2; 32]));
        assert_ne!(derive(&one, &[1; 32]), derive(&two, &[1; 32]));
    }
}
