//! Keys of the account: made, shown, changed here; ended and rotated in [`end`] and [`rotate`]. Nothing here
//! touches a task, unless the owner asks for it.

mod draft;
pub mod end;
pub mod rotate;
mod view;

use std::collections::HashMap;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use listmill_shared::domain::id::KeyId;
use listmill_shared::domain::key::{Environment, Key};
use listmill_shared::store::keys::Filter;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use self::draft::{KeyRequest, Object};
use self::view::{KeyView, Used};
use crate::Api;
use crate::cursor::{cursor, cut, limit};
use crate::extract::{Id, Json, Params};
use crate::gate::Caller;
use crate::idempotency::{Answer, Done, Once};
use crate::openapi::{Bad, Conflict, Gate, NoKey};
use crate::problem::{KEY_STATE, Problem};
use crate::view::{Page, to_json};

/// Keys on a page, unless asked otherwise, and at most.
const PAGE: i64 = 100;
const MOST: i64 = 1000;

/// A new key, with its secret.
#[derive(Debug, Serialize, ToSchema)]
pub struct NewKeyView {
    /// The secret. It is shown this once and kept nowhere.
    #[schema(example = "VECk7mpq…")]
    key: String,
    #[serde(flatten)]
    view: KeyView,
}

/// What these keys were used for.
async fn used(api: &Api, ids: &[KeyId]) -> Result<HashMap<KeyId, Used>, Problem> {
    let credits = api.app.store.credits_by_key(ids).await?;
    let mut last = api.app.store.last_used(ids).await?;
    let used = |id: &KeyId| {
        let credits = credits.get(id).copied().unwrap_or(0);
        (*id, Used { credits, last: last.remove(id) })
    };
    Ok(ids.iter().map(used).collect())
}

/// Keys as they are shown, with what they were used for.
async fn views(api: &Api, keys: &[Key]) -> Result<Vec<KeyView>, Problem> {
    let ids: Vec<KeyId> = keys.iter().map(|key| key.id).collect();
    let (mut used, now) = (used(api, &ids).await?, api.app.now());
    let view = |key: &Key| KeyView::new(key, &used.remove(&key.id).unwrap_or_default(), now);
    Ok(keys.iter().map(view).collect())
}

async fn view(api: &Api, key: Key) -> Result<KeyView, Problem> {
    views(api, &[key]).await?.pop().ok_or_else(Problem::key_not_found)
}

/// Puts the secret before an answer that was remembered without it.
fn reveal(api: &Api, done: &mut Done) -> Result<(), Problem> {
    #[derive(Deserialize)]
    struct Start {
        start: String,
    }
    let start: Option<Start> = serde_json::from_str(&done.answer.body).ok();
    let start = start.ok_or_else(Problem::internal)?.start;
    let secret = api.app.secret_again(&done.salt, &start)?.ok_or_else(|| {
        Problem::new(
            KEY_STATE,
            "This request was done before, and its secret cannot be told again: rotate the key.",
        )
    })?;
    // Letters and digits: nothing to escape.
    let rest = done.answer.body.trim_start_matches('{');
    done.answer.body = format!("{{\"key\":\"{}\",{rest}", secret.reveal());
    Ok(())
}

/// Create a key
///
/// The answer is the only place where the secret is ever shown. Sent again with the same `Idempotency-Key` and
/// by the same key, it shows the same secret. A key never gives more than it has: scopes, networks, end, rate;
/// what is left out is as the calling key has it. What a key with a limit of credits makes spends from the same
/// limit.
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
    let Object(request): Object<KeyRequest> = once.json()?;
    let (inner, by) = (api.clone(), caller.clone());
    let mut done: Done = once
        .scoped(&caller)
        .run(&api, &caller, move |place| async move {
            let fields = request.fields()?;
            let made = inner.app.create_key(by.account, fields, by.by(), &place.salt).await;
            let (key, _) = made?;
            // What is remembered holds no secret.
            let view = KeyView::new(&key, &Used::default(), inner.app.now());
            Ok(Answer { status: 201, ..Answer::ok(to_json(&view)) })
        })
        .await?;
    if done.answer.status == 201 {
        reveal(&api, &mut done)?;
    }
    Ok(done.into_response())
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListParams {
    /// Only those given to this external id.
    external_id: Option<String>,
    /// Only `live` or `test` ones.
    #[param(value_type = Option<crate::openapi::Environment>)]
    environment: Option<String>,
    /// Only those of this stage.
    stage: Option<String>,
    /// Only those that this key made.
    made_by: Option<String>,
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
    let environment = params.environment.map(|name| {
        Environment::parse(&name).ok_or_else(|| Problem::query("environment", "live or test."))
    });
    let made_by =
        params.made_by.map(|id| id.parse::<KeyId>().map_err(|e| Problem::query("made_by", e)));
    let filter = Filter {
        account: Some(caller.account),
        external_id: params.external_id,
        environment: environment.transpose()?,
        stage: params.stage,
        made_by: made_by.transpose()?,
        api: None,
    };
    let mut keys = api.app.store.keys(&filter, from, limit + 1).await?;
    let next_cursor = cut(&mut keys, limit, |key| key.id);
    Ok(axum::Json(Page { data: views(&api, &keys).await?, next_cursor }))
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
    Ok(axum::Json(view(&api, key).await?))
}

/// Change a key
///
/// A field that is absent keeps its value, and one that is null is cleared. When this has answered, every
/// request that starts later is judged by what was changed, on any server. The changed key may not have more
/// than the calling key has.
#[utoipa::path(patch, path = "/v1/keys/{id}", tag = "keys",
    params(("id" = String, Path, description = "Id of the key (not its secret).")),
    request_body = KeyRequest,
    responses((status = 200, description = "The key, changed.", body = KeyView), Bad, NoKey, Gate))]
pub async fn update(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<KeyId>,
    Json(Object(request)): Json<Object<KeyRequest>>,
) -> Result<axum::Json<KeyView>, Problem> {
    let fields = request.fields()?;
    let key = api.app.update_key(id, Some(caller.account), fields, caller.by()).await?;
    Ok(axum::Json(view(&api, key).await?))
}

/// Enable a key
///
/// Lifts `disable`. A key that an operator suspended stays suspended, and an expired one expired.
#[utoipa::path(post, path = "/v1/keys/{id}/enable", tag = "keys",
    params(("id" = String, Path, description = "Id of the key (not its secret)."),
        ("Idempotency-Key" = Option<String>, Header, description = "See the introduction.")),
    responses((status = 200, description = "The key.", body = KeyView), Bad, NoKey, Conflict, Gate))]
pub async fn enable(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<KeyId>,
    once: Once,
) -> Result<Done, Problem> {
    let (inner, by) = (api.clone(), caller.clone());
    once.run(&api, &caller, move |_| async move {
        let key = inner.app.enable_key(id, Some(by.account), by.by()).await?;
        Ok(Answer::ok(to_json(&view(&inner, key).await?)))
    })
    .await
}
