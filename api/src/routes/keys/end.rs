//! The end of keys, each with a receipt.

use axum::extract::State;
use listmill_shared::app::keys::{End, Receipt};
use listmill_shared::domain::id::KeyId;
use listmill_shared::domain::key::Environment;
use listmill_shared::store::keys::Filter;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::used;
use super::view::ReceiptView;
use crate::Api;
use crate::extract::{Id, Params};
use crate::gate::Caller;
use crate::idempotency::{Answer, Done, Once};
use crate::openapi::{Bad, Conflict, Gate, NoKey};
use crate::problem::Problem;
use crate::sandbox::Nothing;
use crate::view::to_json;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct EndParams {
    /// `cancel` also cancels the tasks that this key submitted, uploads under way included. `keep`, which is
    /// what happens without it: they go on, and charge.
    #[param(example = "cancel")]
    tasks: Option<String>,
}

/// Are the tasks to be cancelled, too?
fn cancels(tasks: Option<&str>) -> Option<bool> {
    match tasks {
        None | Some("keep") => Some(false),
        Some("cancel") => Some(true),
        Some(_) => None,
    }
}

impl EndParams {
    fn cancels(&self) -> Result<bool, Problem> {
        cancels(self.tasks.as_deref())
            .ok_or_else(|| Problem::query("tasks", "can only be keep or cancel."))
    }
}

async fn receipts(api: &Api, receipts: &[Receipt]) -> Result<Vec<ReceiptView>, Problem> {
    let ids: Vec<KeyId> = receipts.iter().map(|receipt| receipt.key.id).collect();
    let (used, now) = (used(api, &ids).await?, api.app.now());
    let mut views = Vec::with_capacity(receipts.len());
    for receipt in receipts {
        let key = &receipt.key;
        let refused = match receipt.effective_at {
            Some(since) => api.app.store.refused_since(key.account, key.id, since).await?,
            None => 0,
        };
        let used = used.get(&key.id).cloned().unwrap_or_default();
        let reminder = api.app.rotation_reminder();
        let view = ReceiptView::new(receipt, &used, refused, reminder, now);
        views.push(view.with_support(api.app.settings.support_contact.as_deref()));
    }
    Ok(views)
}

async fn receipt(api: &Api, one: Receipt) -> Result<ReceiptView, Problem> {
    receipts(api, &[one]).await?.pop().ok_or_else(Problem::key_not_found)
}

/// Delete a key
///
/// For good. When this has answered, no request that starts later passes with it, on any server.
/// Its tasks go on, unless `tasks=cancel`.
#[utoipa::path(delete, path = "/v1/keys/{id}", tag = "keys",
    params(("id" = String, Path, description = "Id of the key (not its secret)."), EndParams),
    responses((status = 200, description = "Its receipt; the key is `deleted`.", body = ReceiptView),
        Bad, NoKey, Gate))]
pub async fn delete(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<KeyId>,
    Params(params): Params<EndParams>,
) -> Result<axum::Json<ReceiptView>, Problem> {
    let cancel = params.cancels()?;
    let done = api.app.end_key(id, Some(caller.account), &End::Delete, cancel, caller.by()).await?;
    Ok(axum::Json(receipt(&api, done).await?))
}

/// Disable a key
///
/// When this has answered, no request that starts later passes with it, on any server. Its tasks go
/// on, unless `tasks=cancel`. Lifted by `enable`.
#[utoipa::path(post, path = "/v1/keys/{id}/disable", tag = "keys",
    params(("id" = String, Path, description = "Id of the key (not its secret)."), EndParams,
        ("Idempotency-Key" = Option<String>, Header, description = "See the introduction.")),
    responses((status = 200, description = "Its receipt; the key is `disabled`.", body = ReceiptView),
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
        let done = inner.app.end_key(id, Some(by.account), &End::Disable, cancel, by.by()).await?;
        Ok(Answer::ok(to_json(&receipt(&inner, done).await?)))
    })
    .await
}

/// Show the receipt of a key's end
///
/// Since when it opens nothing, which of its tasks go on, and which keys it had made. For deleted keys, too.
#[utoipa::path(get, path = "/v1/keys/{id}/receipt", tag = "keys",
    params(("id" = String, Path, description = "Id of the key (not its secret).")),
    responses((status = 200, description = "Its receipt.", body = ReceiptView), NoKey, Gate))]
pub async fn show(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<KeyId>,
) -> Result<axum::Json<ReceiptView>, Problem> {
    let done = api.app.receipt(id, caller.account, caller.by()).await?;
    Ok(axum::Json(receipt(&api, done).await?))
}

/// Which keys to end, and how.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EndRequest {
    /// Which: exactly one of these.
    by: Which,
    /// `disable` or `delete`.
    #[schema(example = "disable")]
    how: String,
    /// `keep` (unless given) or `cancel`.
    tasks: Option<String>,
}

/// Which keys: exactly one field.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Which {
    /// Those given to this external id.
    external_id: Option<String>,
    /// Those of this environment.
    #[schema(value_type = Option<crate::openapi::Environment>)]
    environment: Option<String>,
    /// Those of this stage.
    stage: Option<String>,
    /// Those that this key made.
    made_by: Option<String>,
}

impl Which {
    fn filter(self, caller: &Caller) -> Result<Filter, Problem> {
        const ONE: &str = "must name exactly one of external_id, environment, stage, made_by";
        let of = Filter { account: Some(caller.account), ..Filter::default() };
        match self {
            Which { external_id: Some(id), environment: None, stage: None, made_by: None } => {
                Ok(Filter { external_id: Some(id), ..of })
            }
            Which { external_id: None, environment: Some(name), stage: None, made_by: None } => {
                let environment = Environment::parse(&name);
                let wrong = || Problem::field("by", "takes an environment of live or test");
                Ok(Filter { environment: Some(environment.ok_or_else(wrong)?), ..of })
            }
            Which { external_id: None, environment: None, stage: Some(stage), made_by: None } => {
                Ok(Filter { stage: Some(stage), ..of })
            }
            Which { external_id: None, environment: None, stage: None, made_by: Some(id) } => {
                let maker = id.parse().map_err(|_| Problem::field("by", "takes a key's id"))?;
                Ok(Filter { made_by: Some(maker), ..of })
            }
            _ => Err(Problem::field("by", ONE)),
        }
    }
}

/// What ending several keys came to.
#[derive(Debug, Serialize, ToSchema)]
pub struct EndedView {
    /// A receipt for each.
    keys: Vec<ReceiptView>,
}

/// End several keys
///
/// All keys of an external id, an environment, a stage or a maker, in one transaction: all of them are ended
/// when this answers, or none. Their tasks, if asked, afterwards. Up to 10,000 keys. A test key ends test keys
/// alone.
#[utoipa::path(post, path = "/v1/keys/end", tag = "keys",
    params(("Idempotency-Key" = Option<String>, Header, description = "See the introduction.")),
    request_body = EndRequest,
    responses((status = 200, description = "Their receipts.", body = EndedView), Bad, Conflict, Gate))]
pub async fn several(State(api): State<Api>, caller: Caller, once: Once) -> Result<Done, Problem> {
    let request: EndRequest = once.json()?;
    let filter = caller.narrow(request.by.filter(&caller)?);
    let end = match request.how.as_str() {
        "disable" => End::Disable,
        "delete" => End::Delete,
        _ => return Err(Problem::field("how", "must be disable or delete")),
    };
    let cancel = cancels(request.tasks.as_deref())
        .ok_or_else(|| Problem::field("tasks", "must be keep or cancel"))?;
    let (inner, by) = (api.clone(), caller.clone());
    once.run(&api, &caller, move |_| async move {
        let done = match filter {
            Ok(filter) => inner.app.end_keys(&filter, &end, cancel, by.by()).await?,
            Err(Nothing) => Vec::new(),
        };
        let keys = receipts(&inner, &done).await?;
        Ok(Answer::ok(to_json(&EndedView { keys })))
    })
    .await
}
