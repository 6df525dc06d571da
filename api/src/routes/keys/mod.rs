//! Keys of the account: made, shown, changed here; ended and rotated in [`end`] and [`rotate`]. Nothing here
//! touches a task, unless the owner asks for it.

mod draft;
pub mod end;
pub mod networks;
pub mod rotate;
pub mod view;

use std::collections::HashMap;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use listmill_shared::domain::id::KeyId;
use listmill_shared::domain::key::fields::Fields;
use listmill_shared::domain::key::{Environment, Key};
use listmill_shared::store::keys::{Due, Filter};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use self::draft::{KeyRequest, Object};
use self::view::{KeyView, Used};
use crate::Api;
use crate::cursor::{cursor, cut, limit};
use crate::extract::{Id, Json, Params, flag};
use crate::gate::Caller;
use crate::idempotency::{Answer, Done, Once};
use crate::openapi::{Bad, Conflict, Gate, NoKey};
use crate::problem::{KEY_STATE, Problem};
use crate::sandbox::Nothing;
use crate::view::{Page, stamp, to_json};

/// Keys on a page, unless asked otherwise, and at most.
const PAGE: i64 = 100;
const MOST: i64 = 1000;

/// A new key, with its secret.
#[derive(Debug, Serialize, ToSchema)]
pub struct NewKeyView {
    /// The secret. It is shown this once and kept nowhere. Not with `link`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "VECk7mpq…")]
    key: Option<String>,
    /// Where the secret is shown once, to whoever asks first. Only with `link`. A path where the server does
    /// not know its own address.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "https://api.example.com/once/5f1c…")]
    link: Option<String>,
    /// When the link ends unused. Only with `link`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    link_expires_at: Option<String>,
    #[serde(flatten)]
    view: KeyView,
}

/// Reads what is said of a key, as `POST /v1/keys` does; `Err`: what cannot be so, for people.
pub fn key_fields(said: serde_json::Map<String, serde_json::Value>) -> Result<Fields, String> {
    let read = |said| KeyRequest::deserialize(serde_json::Value::Object(said));
    for (name, value) in &said {
        let alone = serde_json::Map::from_iter([(name.clone(), value.clone())]);
        if let Err(error) = read(alone) {
            let text = error.to_string();
            // Of a value nothing is told: where columns are shifted, it may be a key.
            let known = !text.starts_with("unknown field");
            return Err(if known { format!("{name} has a value of the wrong type") } else { text });
        }
    }
    let request = read(said).map_err(|_| String::from("the fields do not go together"))?;
    if request.link {
        return Err(String::from("link is for a key that is made"));
    }
    request.fields().map_err(|problem| problem.parts("").1.trim_end_matches('.').to_owned())
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

/// Reads the query parameter `environment`.
pub fn read_environment(name: Option<&str>) -> Result<Option<Environment>, Problem> {
    let read = |name| {
        Environment::parse(name)
            .ok_or_else(|| Problem::query("environment", "must be live or test."))
    };
    name.map(read).transpose()
}

/// Keys as they are shown, with what they were used for.
async fn views(api: &Api, keys: &[Key]) -> Result<Vec<KeyView>, Problem> {
    let ids: Vec<KeyId> = keys.iter().map(|key| key.id).collect();
    let (mut used, now) = (used(api, &ids).await?, api.app.now());
    let reminder = api.app.rotation_reminder();
    let support = api.app.settings.support_contact.as_deref();
    let view = |key: &Key| {
        let used = used.remove(&key.id).unwrap_or_default();
        KeyView::new(key, &used, reminder, now).with_support(support)
    };
    Ok(keys.iter().map(view).collect())
}

async fn view(api: &Api, key: Key) -> Result<KeyView, Problem> {
    views(api, &[key]).await?.pop().ok_or_else(Problem::key_not_found)
}

/// Puts the secret, or the link that shows it, before an answer that was remembered without it.
fn reveal(api: &Api, done: &mut Done) -> Result<(), Problem> {
    #[derive(Deserialize)]
    struct Start {
        start: String,
        link_expires_at: Option<String>,
    }
    let start: Option<Start> = serde_json::from_str(&done.answer.body).ok();
    let start = start.ok_or_else(Problem::internal)?;
    let (name, told) = match start.link_expires_at {
        None => {
            let secret = api.app.secret_again(&done.salt, &start.start)?;
            ("key", secret.map(|secret| secret.reveal().to_owned()))
        }
        Some(_) => {
            let token = api.app.token_again(&done.salt, &start.start)?;
            ("link", token.map(|token| api.app.link_url(&token)))
        }
    };
    let told = told.ok_or_else(|| {
        Problem::new(
            KEY_STATE,
            "This request was done before, and its secret cannot be told again: rotate the key.",
        )
    })?;
    let rest = done.answer.body.trim_start_matches('{');
    done.answer.body = format!("{{\"{name}\":{},{rest}", to_json(&told));
    Ok(())
}

/// Create a key
///
/// The answer is the only place where the secret is ever shown. Sent again with the same `Idempotency-Key` and
/// by the same key, it shows the same secret. A key never gives more than it has: scopes, networks, end, rate;
/// what is left out is as the calling key has it. What a key with a limit of credits makes spends from the same
/// limit. With `environment` `test` it makes a test key: what that asks and submits the sandbox verifies, nothing is
/// charged, and live tasks, results and keys are out of its reach. What a test key makes is a test key.
/// With `"link": true` the answer holds no secret but a link that shows it once (`POST /once/{token}`).
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
            let (app, linked) = (&inner.app, request.link);
            let fields = request.fields()?;
            let (account, by, salt) = (by.account, by.by(), &place.salt);
            let (key, ends_at) = match linked {
                true => {
                    let (key, link) = app.create_key_with_link(account, fields, by, salt).await?;
                    (key, Some(link.ends_at))
                }
                false => (app.create_key(account, fields, by, salt).await?.0, None),
            };
            // What is remembered holds no secret.
            let view = NewKeyView {
                key: None,
                link: None,
                link_expires_at: ends_at.map(stamp),
                view: KeyView::new(&key, &Used::default(), app.rotation_reminder(), app.now()),
            };
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
    /// `true`: only those that are due for rotation.
    #[param(value_type = Option<bool>)]
    rotation_due: Option<String>,
    /// Where the page begins: a `next_cursor` of this list.
    cursor: Option<String>,
    /// Keys on the page, 1 to 1000; 100 unless given.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 1000)]
    limit: Option<String>,
}

/// List keys
///
/// Oldest first, without those that were deleted. A test key sees test keys alone.
#[utoipa::path(get, path = "/v1/keys", tag = "keys", params(ListParams), responses(
    (status = 200, description = "A page of keys.", body = Page<KeyView>), Bad, Gate))]
pub async fn list(
    State(api): State<Api>,
    caller: Caller,
    Params(params): Params<ListParams>,
) -> Result<axum::Json<Page<KeyView>>, Problem> {
    let from = cursor::<KeyId>(params.cursor.as_deref())?;
    let limit = limit(params.limit.as_deref(), PAGE, MOST)?;
    let environment = read_environment(params.environment.as_deref())?;
    let made_by =
        params.made_by.map(|id| id.parse::<KeyId>().map_err(|e| Problem::query("made_by", e)));
    let due = flag("rotation_due", params.rotation_due.as_deref())?;
    let due = due.then(|| Due { reminder: api.app.rotation_reminder(), now: api.app.now() });
    if due.is_some_and(|due| due.reminder == 0) {
        return Ok(axum::Json(Page { data: Vec::new(), next_cursor: None }));
    }
    let filter = Filter {
        account: Some(caller.account),
        external_id: params.external_id,
        environment,
        stage: params.stage,
        made_by: made_by.transpose()?,
        api: None,
        due,
    };
    let mut keys = match caller.narrow(filter) {
        Ok(filter) => api.app.store.keys(&filter, from, limit + 1).await?,
        Err(Nothing) => Vec::new(),
    };
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
/// than the calling key has. `environment` cannot be changed: make a new key.
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
    if request.link {
        return Err(Problem::field("link", "is for a key that is made"));
    }
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
