//! `/v2/apis.*`: what keys belong to.

use axum::extract::State;
use listmill_shared::app::key_service::keys::Listing;
use listmill_shared::domain::id::KeyId;
use listmill_shared::domain::key::Key;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::{Body, Data, fault, refuse_plaintext};
use super::describe::{Errors, Missing, Nothing, ServiceAnswer, ServiceList};
use super::fields::KeyView;
use super::keys::api_id;
use super::root::Root;
use crate::Api;
use crate::cursor::cut;
use crate::problem::Problem;

/// Keys on a page, unless asked otherwise, and at most.
const PAGE: i64 = 100;

/// What a new api is called.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ServiceCreateApi)]
#[serde(deny_unknown_fields)]
pub struct CreateApi {
    /// 1 to 255 characters.
    #[schema(example = "payments")]
    name: String,
}

/// A new api.
#[derive(Serialize, ToSchema)]
#[schema(as = ServiceMadeApi)]
#[serde(rename_all = "camelCase")]
pub struct MadeApi {
    /// Its id.
    api_id: String,
}

/// Make an api
///
/// Keys belong to an api, which is gone with all of them when it is deleted.
#[utoipa::path(post, path = "/v2/apis.createApi", operation_id = "apis.createApi", tag = "key service",
    request_body = CreateApi, security(("root_key" = ["create_api"])), responses(
    (status = 200, description = "Done.", body = ServiceAnswer<MadeApi>), Errors))]
pub async fn create(
    State(api): State<Api>,
    root: Root,
    Body(body): Body<CreateApi>,
) -> Result<Data, Problem> {
    let id = api.app.create_key_api(&root.key, &body.name, &root.origin).await?;
    Ok(Data::new(&MadeApi { api_id: id.to_string() }))
}

/// Which api.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ServiceOneApi)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct OneApi {
    /// Its id.
    #[schema(example = "api_0199c2f06c5a7a3b8d0e5f4a1b2c3d4e")]
    api_id: String,
}

/// An api.
#[derive(Serialize, ToSchema)]
#[schema(as = ServiceApi)]
pub struct ApiView {
    /// Its id.
    id: String,
    /// What it is called.
    name: String,
}

/// Show an api
///
/// What it is called.
#[utoipa::path(post, path = "/v2/apis.getApi", operation_id = "apis.getApi", tag = "key service",
    request_body = OneApi, security(("root_key" = ["read_api"])), responses(
    (status = 200, description = "Done.", body = ServiceAnswer<ApiView>), Errors, Missing))]
pub async fn get(
    State(api): State<Api>,
    root: Root,
    Body(body): Body<OneApi>,
) -> Result<Data, Problem> {
    let found = api.app.key_api(&root.key, api_id(&body.api_id)?).await?;
    Ok(Data::new(&ApiView { id: found.id.to_string(), name: found.name }))
}

/// Delete an api
///
/// When this has answered, none of its keys is found any more.
#[utoipa::path(post, path = "/v2/apis.deleteApi", operation_id = "apis.deleteApi", tag = "key service",
    request_body = OneApi, security(("root_key" = ["delete_api"])), responses(
    (status = 200, description = "Done.", body = ServiceAnswer<Nothing>), Errors, Missing))]
pub async fn delete(
    State(api): State<Api>,
    root: Root,
    Body(body): Body<OneApi>,
) -> Result<Data, Problem> {
    api.app.delete_key_api(&root.key, api_id(&body.api_id)?, &root.origin).await?;
    Ok(Data::done())
}

/// Which keys of an api.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ServiceListKeys)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ListKeys {
    /// Id of the api.
    #[schema(example = "api_0199c2f06c5a7a3b8d0e5f4a1b2c3d4e")]
    api_id: String,
    /// Keys on the page, 1 to 100; 100 unless given.
    limit: Option<i64>,
    /// Where the page begins: a `cursor` of this list.
    cursor: Option<String>,
    /// Only those that were given to this external id.
    external_id: Option<String>,
    /// Must be false: only a hash of a key is kept.
    decrypt: Option<bool>,
    /// Nothing is remembered, so there is nothing to go round.
    #[serde(rename = "revalidateKeysCache")]
    _revalidate: Option<bool>,
}

/// List the keys of an api
///
/// Oldest first, without their secrets.
#[utoipa::path(post, path = "/v2/apis.listKeys", operation_id = "apis.listKeys", tag = "key service",
    request_body = ListKeys, security(("root_key" = ["read_key", "read_api"])), responses(
    (status = 200, description = "Done.", body = ServiceList<KeyView>), Errors, Missing))]
pub async fn list_keys(
    State(api): State<Api>,
    root: Root,
    Body(body): Body<ListKeys>,
) -> Result<Data, Problem> {
    refuse_plaintext("decrypt", body.decrypt == Some(true))?;
    let limit = body.limit.unwrap_or(PAGE);
    if !(1..=PAGE).contains(&limit) {
        return Err(fault("limit", &format!("must be from 1 to {PAGE}")));
    }
    let cursor = body.cursor.map(|cursor| cursor.parse::<KeyId>()).transpose();
    let cursor = cursor.map_err(|_| fault("cursor", "must be a cursor of this list"))?;
    let listing = Listing {
        api: api_id(&body.api_id)?,
        external_id: body.external_id,
        cursor,
        limit: limit + 1,
    };
    let mut keys = api.app.service_keys(&root.key, listing).await?;
    // The last key of the page, as that is where the next one begins.
    let more = cut(&mut keys, limit, |key| key.id);
    let next = more.and(keys.last().map(|key| key.id.to_string()));
    let ids: Vec<KeyId> = keys.iter().map(|key| key.id).collect();
    let (now, last) = (api.app.now(), api.app.store.last_used(&ids).await?);
    let view = |key: Key| {
        let last = last.get(&key.id).map(|last| last.at);
        KeyView::new(key, last, now)
    };
    let views: Vec<KeyView> = keys.into_iter().map(view).collect();
    Ok(Data::page(&views, next))
}
