//! `/v2/apis.*`: what keys belong to.

use axum::extract::State;
use listmill_shared::app::key_service::keys::Listing;
use listmill_shared::domain::id::KeyId;
use serde::Deserialize;
use serde_json::json;

use super::answer::{Body, Data, fault, refuse_plaintext};
use super::fields::KeyView;
use super::keys::api_id;
use super::root::Root;
use crate::Api;
use crate::cursor::cut;
use crate::problem::Problem;

/// Keys on a page, unless asked otherwise, and at most.
const PAGE: i64 = 100;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateApi {
    name: String,
}

pub async fn create(
    State(api): State<Api>,
    root: Root,
    Body(body): Body<CreateApi>,
) -> Result<Data, Problem> {
    let id = api.app.create_key_api(&root.key, &body.name).await?;
    Ok(Data::new(&json!({ "apiId": id })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct OneApi {
    api_id: String,
}

pub async fn get(
    State(api): State<Api>,
    root: Root,
    Body(body): Body<OneApi>,
) -> Result<Data, Problem> {
    let found = api.app.key_api(&root.key, api_id(&body.api_id)?).await?;
    Ok(Data::new(&json!({ "id": found.id, "name": found.name })))
}

pub async fn delete(
    State(api): State<Api>,
    root: Root,
    Body(body): Body<OneApi>,
) -> Result<Data, Problem> {
    api.app.delete_key_api(&root.key, api_id(&body.api_id)?).await?;
    Ok(Data::done())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ListKeys {
    api_id: String,
    limit: Option<i64>,
    cursor: Option<String>,
    external_id: Option<String>,
    decrypt: Option<bool>,
    /// Nothing is remembered, so there is nothing to go round.
    #[serde(rename = "revalidateKeysCache")]
    _revalidate: Option<bool>,
}

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
    let now = api.app.now();
    let views: Vec<KeyView> = keys.into_iter().map(|key| KeyView::new(key, now)).collect();
    Ok(Data::page(&views, next))
}
