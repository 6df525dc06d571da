//! `/v2/keys.*`, but for verifyKey: the life of a key of an api.

use axum::extract::State;
use listmill_shared::app::key_service::keys::Form;
use listmill_shared::domain::id::{ApiId, KeyId};
use listmill_shared::domain::key::Secret;
use listmill_shared::domain::key::service::{Change, ServiceFields};
use listmill_shared::domain::root_key::Action;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::answer::{Body, Data, fault, refuse_plaintext};
use super::fields::{
    CreditsBody, CreditsView, KeyView, Patch, RateLimitBody, meta, networks, patch, rate_limits,
};
use super::root::Root;
use crate::Api;
use crate::problem::{API_NOT_FOUND, Problem};

/// Bytes of secret, unless asked otherwise.
const BYTES: i64 = 16;
/// Milliseconds that a rerolled key may stay valid: ten years.
const LONGEST: i64 = 10 * 366 * 86_400_000;

/// The id of a key; what is none is one that nothing has.
pub fn key_id(text: &str) -> Result<KeyId, Problem> {
    text.parse().map_err(|_| Problem::key_not_found())
}

/// The id of an api, likewise.
pub fn api_id(text: &str) -> Result<ApiId, Problem> {
    text.parse().map_err(|_| Problem::new(API_NOT_FOUND, "No api of this account has that id."))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct CreateKey {
    api_id: String,
    prefix: Option<String>,
    byte_length: Option<i64>,
    name: Option<String>,
    external_id: Option<String>,
    meta: Option<Map<String, Value>>,
    roles: Option<Vec<String>>,
    permissions: Option<Vec<String>>,
    expires: Option<i64>,
    credits: Option<CreditsBody>,
    ratelimits: Option<Vec<RateLimitBody>>,
    enabled: Option<bool>,
    #[serde(default)]
    recoverable: Option<bool>,
    /// Ours.
    allow: Option<Vec<String>>,
}

/// A new secret.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Made<'a> {
    key_id: String,
    key: &'a str,
}

fn made(id: KeyId, secret: &Secret) -> Data {
    Data::new(&Made { key_id: id.to_string(), key: secret.reveal() })
}

pub async fn create(
    State(api): State<Api>,
    root: Root,
    Body(body): Body<CreateKey>,
) -> Result<Data, Problem> {
    refuse_plaintext("recoverable", body.recoverable == Some(true))?;
    let form =
        Form { prefix: body.prefix.unwrap_or_default(), bytes: body.byte_length.unwrap_or(BYTES) };
    let fields = ServiceFields {
        name: body.name.map(Some),
        external_id: body.external_id.map(Some),
        meta: body.meta.map(|object| Some(meta(object))),
        expires: body.expires.map(Some),
        credits: body.credits.map(|credits| Some(credits.read())),
        rate_limits: body.ratelimits.map(rate_limits),
        enabled: body.enabled,
        permissions: body.permissions,
        roles: body.roles,
        allow: body.allow.as_deref().map(networks).transpose()?,
    };
    let owner = api_id(&body.api_id)?;
    let (id, secret) = api.app.create_service_key(&root.key, owner, form, fields).await?;
    Ok(made(id, &secret))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct GetKey {
    key_id: String,
    decrypt: Option<bool>,
}

pub async fn get(
    State(api): State<Api>,
    root: Root,
    Body(body): Body<GetKey>,
) -> Result<Data, Problem> {
    refuse_plaintext("decrypt", body.decrypt == Some(true))?;
    let id = key_id(&body.key_id)?;
    let key = api.app.service_key(&root.key, id, Action::ReadKey).await?;
    Ok(Data::new(&KeyView::new(key, api.app.now())))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Whoami {
    key: String,
}

pub async fn whoami(
    State(api): State<Api>,
    root: Root,
    Body(body): Body<Whoami>,
) -> Result<Data, Problem> {
    let key = api.app.whoami(&root.key, &body.key).await?;
    Ok(Data::new(&KeyView::new(key, api.app.now())))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct UpdateKey {
    key_id: String,
    #[serde(default, deserialize_with = "patch")]
    name: Patch<String>,
    #[serde(default, deserialize_with = "patch")]
    external_id: Patch<String>,
    #[serde(default, deserialize_with = "patch")]
    meta: Patch<Map<String, Value>>,
    #[serde(default, deserialize_with = "patch")]
    expires: Patch<i64>,
    #[serde(default, deserialize_with = "patch")]
    credits: Patch<CreditsBody>,
    #[serde(default, deserialize_with = "patch")]
    ratelimits: Patch<Vec<RateLimitBody>>,
    enabled: Option<bool>,
    #[serde(default, deserialize_with = "patch")]
    roles: Patch<Vec<String>>,
    #[serde(default, deserialize_with = "patch")]
    permissions: Patch<Vec<String>>,
    /// Ours.
    #[serde(default, deserialize_with = "patch")]
    allow: Patch<Vec<String>>,
}

pub async fn update(
    State(api): State<Api>,
    root: Root,
    Body(body): Body<UpdateKey>,
) -> Result<Data, Problem> {
    let id = key_id(&body.key_id)?;
    let fields = ServiceFields {
        name: body.name,
        external_id: body.external_id,
        meta: body.meta.map(|object| object.map(meta)),
        expires: body.expires,
        credits: body.credits.map(|credits| credits.map(CreditsBody::read)),
        rate_limits: body.ratelimits.map(|limits| rate_limits(limits.unwrap_or_default())),
        enabled: body.enabled,
        permissions: body.permissions.map(Option::unwrap_or_default),
        roles: body.roles.map(Option::unwrap_or_default),
        allow: body.allow.map(|allow| networks(&allow.unwrap_or_default())).transpose()?,
    };
    api.app.update_service_key(&root.key, id, fields).await?;
    Ok(Data::done())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct DeleteKey {
    key_id: String,
    permanent: Option<bool>,
}

pub async fn delete(
    State(api): State<Api>,
    root: Root,
    Body(body): Body<DeleteKey>,
) -> Result<Data, Problem> {
    let id = key_id(&body.key_id)?;
    api.app.delete_service_key(&root.key, id, body.permanent == Some(true)).await?;
    Ok(Data::done())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RerollKey {
    key_id: String,
    expiration: i64,
}

pub async fn reroll(
    State(api): State<Api>,
    root: Root,
    Body(body): Body<RerollKey>,
) -> Result<Data, Problem> {
    if !(0..=LONGEST).contains(&body.expiration) {
        return Err(fault("expiration", &format!("must be from 0 to {LONGEST} milliseconds")));
    }
    let id = key_id(&body.key_id)?;
    let (id, secret) = api.app.reroll_service_key(&root.key, id, body.expiration).await?;
    Ok(made(id, &secret))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct UpdateCredits {
    key_id: String,
    operation: Operation,
    value: Option<i64>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Operation {
    Set,
    Increment,
    Decrement,
}

pub async fn update_credits(
    State(api): State<Api>,
    root: Root,
    Body(body): Body<UpdateCredits>,
) -> Result<Data, Problem> {
    if body.value.is_some_and(|value| value < 0) {
        return Err(fault("value", "must be 0 or more"));
    }
    let how = match (body.operation, body.value) {
        (Operation::Set, value) => Change::Set(value),
        (Operation::Increment, Some(by)) => Change::Increment(by),
        (Operation::Decrement, Some(by)) => Change::Decrement(by),
        (_, None) => return Err(fault("value", "must be given, unless the operation is \"set\"")),
    };
    let id = key_id(&body.key_id)?;
    let key = api.app.change_credits(&root.key, id, how).await?;
    Ok(Data::new(&CreditsView::new(key.credit_limit, api.app.now())))
}
