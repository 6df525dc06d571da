//! `/v2/keys.*`, but for verifyKey: the life of a key of an api.

use axum::extract::State;
use listmill_shared::app::key_service::keys::Form;
use listmill_shared::domain::id::{ApiId, KeyId};
use listmill_shared::domain::key::service::{Change, ServiceFields};
use listmill_shared::domain::key::{Key, Secret};
use listmill_shared::domain::root_key::Action;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::answer::{Body, Data, fault, refuse_plaintext};
use super::describe::{Conflict, Errors, Missing, Nothing, ServiceAnswer};
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

/// A key to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ServiceCreateKey)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct CreateKey {
    /// Id of its api.
    #[schema(example = "api_0199c2f06c5a7a3b8d0e5f4a1b2c3d4e")]
    api_id: String,
    /// What its secret begins with: up to 16 letters, digits and underscores.
    prefix: Option<String>,
    /// Bytes of secret, 16 to 255; 16 unless given.
    byte_length: Option<i64>,
    /// Its name, up to 255 characters.
    name: Option<String>,
    /// The owner's id for whom it was given to.
    external_id: Option<String>,
    /// What is said of it.
    #[schema(value_type = Option<Object>)]
    meta: Option<Map<String, Value>>,
    /// Names that are shown; they give no permission.
    roles: Option<Vec<String>>,
    /// What it may do.
    permissions: Option<Vec<String>>,
    /// When it ends by itself, in milliseconds since 1970.
    expires: Option<i64>,
    /// Its limit of credits.
    credits: Option<CreditsBody>,
    /// Its rate limits, up to 50.
    ratelimits: Option<Vec<RateLimitBody>>,
    /// Switched on, unless false.
    enabled: Option<bool>,
    /// Must be false: only a hash of a key is kept.
    #[serde(default)]
    recoverable: Option<bool>,
    /// Ours: networks that it may be used from.
    allow: Option<Vec<String>>,
}

/// A new secret.
#[derive(Serialize, ToSchema)]
#[schema(as = ServiceMadeKey)]
#[serde(rename_all = "camelCase")]
pub struct Made {
    /// Id of the key.
    #[schema(example = "key_0199c2f06c5a7a3b8d0e5f4a1b2c3d4e")]
    key_id: String,
    /// The key itself, shown this once.
    key: String,
}

fn made(id: KeyId, secret: &Secret) -> Data {
    Data::new(&Made { key_id: id.to_string(), key: secret.reveal().to_owned() })
}

/// Make a key
///
/// Its secret is shown this once, and kept as a hash.
#[utoipa::path(post, path = "/v2/keys.createKey", operation_id = "keys.createKey", tag = "key service",
    request_body = CreateKey, security(("root_key" = ["create_key"])), responses(
    (status = 200, description = "Done.", body = ServiceAnswer<Made>), Errors, Missing))]
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
    let (id, secret) =
        api.app.create_service_key(&root.key, owner, form, fields, &root.origin).await?;
    Ok(made(id, &secret))
}

/// Which key.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ServiceGetKey)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct GetKey {
    /// Id of the key.
    #[schema(example = "key_0199c2f06c5a7a3b8d0e5f4a1b2c3d4e")]
    key_id: String,
    /// Must be false: only a hash of a key is kept.
    decrypt: Option<bool>,
}

/// Show a key
///
/// All that is said of it, without its secret.
#[utoipa::path(post, path = "/v2/keys.getKey", operation_id = "keys.getKey", tag = "key service",
    request_body = GetKey, security(("root_key" = ["read_key"])), responses(
    (status = 200, description = "Done.", body = ServiceAnswer<KeyView>), Errors, Missing))]
pub async fn get(
    State(api): State<Api>,
    root: Root,
    Body(body): Body<GetKey>,
) -> Result<Data, Problem> {
    refuse_plaintext("decrypt", body.decrypt == Some(true))?;
    let id = key_id(&body.key_id)?;
    let key = api.app.service_key(&root.key, id, Action::ReadKey).await?;
    view(&api, key).await
}

async fn view(api: &Api, key: Key) -> Result<Data, Problem> {
    let last = api.app.store.last_used(&[key.id]).await?.remove(&key.id);
    Ok(Data::new(&KeyView::new(key, last.map(|last| last.at), api.app.now())))
}

/// Whose key.
#[derive(Deserialize, ToSchema)]
#[schema(as = ServiceWhoami)]
#[serde(deny_unknown_fields)]
pub struct Whoami {
    /// The key itself.
    #[schema(example = "prod_k7mpq")]
    key: String,
}

/// Show a key by its secret
///
/// Verifies nothing, and takes nothing.
#[utoipa::path(post, path = "/v2/keys.whoami", operation_id = "keys.whoami", tag = "key service",
    request_body = Whoami, security(("root_key" = ["read_key"])), responses(
    (status = 200, description = "Done.", body = ServiceAnswer<KeyView>), Errors, Missing))]
pub async fn whoami(
    State(api): State<Api>,
    root: Root,
    Body(body): Body<Whoami>,
) -> Result<Data, Problem> {
    let key = api.app.whoami(&root.key, &body.key).await?;
    view(&api, key).await
}

/// What is changed of a key: what is left out stays, null clears.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ServiceUpdateKey)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct UpdateKey {
    /// Id of the key.
    #[schema(example = "key_0199c2f06c5a7a3b8d0e5f4a1b2c3d4e")]
    key_id: String,
    /// Its name.
    #[schema(value_type = Option<String>)]
    #[serde(default, deserialize_with = "patch")]
    name: Patch<String>,
    /// The owner's id for whom it was given to.
    #[schema(value_type = Option<String>)]
    #[serde(default, deserialize_with = "patch")]
    external_id: Patch<String>,
    /// What is said of it.
    #[schema(value_type = Option<Object>)]
    #[serde(default, deserialize_with = "patch")]
    meta: Patch<Map<String, Value>>,
    /// When it ends by itself, in milliseconds since 1970.
    #[schema(value_type = Option<i64>)]
    #[serde(default, deserialize_with = "patch")]
    expires: Patch<i64>,
    /// Its limit of credits.
    #[schema(value_type = Option<CreditsBody>)]
    #[serde(default, deserialize_with = "patch")]
    credits: Patch<CreditsBody>,
    /// Its rate limits.
    #[schema(value_type = Option<Vec<RateLimitBody>>)]
    #[serde(default, deserialize_with = "patch")]
    ratelimits: Patch<Vec<RateLimitBody>>,
    /// Switched on, or off.
    enabled: Option<bool>,
    /// Its roles.
    #[schema(value_type = Option<Vec<String>>)]
    #[serde(default, deserialize_with = "patch")]
    roles: Patch<Vec<String>>,
    /// What it may do.
    #[schema(value_type = Option<Vec<String>>)]
    #[serde(default, deserialize_with = "patch")]
    permissions: Patch<Vec<String>>,
    /// Ours: networks that it may be used from.
    #[schema(value_type = Option<Vec<String>>)]
    #[serde(default, deserialize_with = "patch")]
    allow: Patch<Vec<String>>,
}

/// Change a key
///
/// When this has answered, every verification that starts later goes by it.
#[utoipa::path(post, path = "/v2/keys.updateKey", operation_id = "keys.updateKey", tag = "key service",
    request_body = UpdateKey, security(("root_key" = ["update_key"])), responses(
    (status = 200, description = "Done.", body = ServiceAnswer<Nothing>), Errors, Missing))]
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
    api.app.update_service_key(&root.key, id, fields, &root.origin).await?;
    Ok(Data::done())
}

/// Which key ends.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ServiceDeleteKey)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct DeleteKey {
    /// Id of the key.
    #[schema(example = "key_0199c2f06c5a7a3b8d0e5f4a1b2c3d4e")]
    key_id: String,
    /// Erases also what is said of it.
    permanent: Option<bool>,
}

/// Delete a key
///
/// When this has answered, it is not found any more.
#[utoipa::path(post, path = "/v2/keys.deleteKey", operation_id = "keys.deleteKey", tag = "key service",
    request_body = DeleteKey, security(("root_key" = ["delete_key"])), responses(
    (status = 200, description = "Done.", body = ServiceAnswer<Nothing>), Errors, Missing))]
pub async fn delete(
    State(api): State<Api>,
    root: Root,
    Body(body): Body<DeleteKey>,
) -> Result<Data, Problem> {
    let id = key_id(&body.key_id)?;
    let erase = body.permanent == Some(true);
    api.app.delete_service_key(&root.key, id, erase, &root.origin).await?;
    Ok(Data::done())
}

/// Which key gets a new secret.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ServiceRerollKey)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RerollKey {
    /// Id of the key.
    #[schema(example = "key_0199c2f06c5a7a3b8d0e5f4a1b2c3d4e")]
    key_id: String,
    /// Milliseconds that the old one stays valid; 0 = it ends now.
    #[schema(example = 60000)]
    expiration: i64,
}

/// Put a new key in the place of one
///
/// It has the same settings, and both share one limit of credits and one budget of uses.
#[utoipa::path(post, path = "/v2/keys.rerollKey", operation_id = "keys.rerollKey", tag = "key service",
    request_body = RerollKey, security(("root_key" = ["create_key"])), responses(
    (status = 200, description = "Done.", body = ServiceAnswer<Made>), Errors, Missing, Conflict))]
pub async fn reroll(
    State(api): State<Api>,
    root: Root,
    Body(body): Body<RerollKey>,
) -> Result<Data, Problem> {
    if !(0..=LONGEST).contains(&body.expiration) {
        return Err(fault("expiration", &format!("must be from 0 to {LONGEST} milliseconds")));
    }
    let id = key_id(&body.key_id)?;
    let grace = body.expiration;
    let (id, secret) = api.app.reroll_service_key(&root.key, id, grace, &root.origin).await?;
    Ok(made(id, &secret))
}

/// What is changed of what is left.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ServiceUpdateCredits)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct UpdateCredits {
    /// Id of the key.
    #[schema(example = "key_0199c2f06c5a7a3b8d0e5f4a1b2c3d4e")]
    key_id: String,
    operation: Operation,
    /// Credits; with `set`, null = nothing is limited, and nothing is refilled.
    #[schema(example = 100)]
    value: Option<i64>,
}

/// How.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[schema(as = ServiceOperation)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    Set,
    Increment,
    Decrement,
}

/// Change what is left of a key's credits
///
/// Answers what is left then.
#[utoipa::path(post, path = "/v2/keys.updateCredits", operation_id = "keys.updateCredits", tag = "key service",
    request_body = UpdateCredits, security(("root_key" = ["update_key"])), responses(
    (status = 200, description = "Done.", body = ServiceAnswer<CreditsView>), Errors, Missing))]
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
    let key = api.app.change_credits(&root.key, id, how, &root.origin).await?;
    Ok(Data::new(&CreditsView::new(key.credit_limit, api.app.now())))
}
