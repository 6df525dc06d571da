//! Parts of bodies that several methods share.

use listmill_shared::domain::clock::Millis;
use listmill_shared::domain::id::AccountId;
use listmill_shared::domain::key::fields::RefillDraft;
use listmill_shared::domain::key::service::{self, RateLimit};
use listmill_shared::domain::key::{CreditLimit, Interval, Key};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::answer::fault;
use crate::client_ip::parse_network;
use crate::problem::Problem;

/// A field that is absent, null, or there.
pub type Patch<T> = Option<Option<T>>;

/// Tells null from absent, together with `#[serde(default)]`.
pub fn patch<'de, D: Deserializer<'de>, T: Deserialize<'de>>(d: D) -> Result<Patch<T>, D::Error> {
    Option::deserialize(d).map(Some)
}

/// A refill of credits.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ServiceRefillRequest)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RefillBody {
    interval: IntervalBody,
    /// Credits that are added.
    amount: i64,
    /// Day of the month, 1 to 31; only with `monthly`.
    refill_day: Option<i64>,
}

/// How often.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[schema(as = ServiceInterval)]
#[serde(rename_all = "lowercase")]
pub enum IntervalBody {
    Daily,
    Monthly,
}

/// What is said of credits.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ServiceCreditsRequest)]
#[serde(deny_unknown_fields)]
pub struct CreditsBody {
    /// What is left; null = nothing is limited.
    #[schema(value_type = Option<i64>)]
    #[serde(default, deserialize_with = "patch")]
    remaining: Patch<i64>,
    /// How it is filled again; null = it is not.
    #[schema(value_type = Option<RefillBody>)]
    #[serde(default, deserialize_with = "patch")]
    refill: Patch<RefillBody>,
}

impl CreditsBody {
    pub fn read(self) -> service::Credits {
        let refill = |body: RefillBody| RefillDraft {
            interval: match body.interval {
                IntervalBody::Daily => Interval::Daily,
                IntervalBody::Monthly => Interval::Monthly,
            },
            amount: body.amount,
            day: body.refill_day,
        };
        service::Credits {
            remaining: self.remaining,
            refill: self.refill.map(|body| body.map(refill)),
        }
    }
}

/// A rate limit of a key.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ServiceRateLimitRequest)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RateLimitBody {
    /// Its name, 3 characters or more.
    name: String,
    /// Uses in a window.
    limit: u32,
    /// Length of the window in milliseconds, 1000 or more.
    duration: u32,
    /// Judged at every verification?
    #[serde(default)]
    auto_apply: bool,
}

/// The rate limits of a key.
pub fn rate_limits(bodies: Vec<RateLimitBody>) -> Vec<RateLimit> {
    let read = |body: RateLimitBody| RateLimit {
        name: body.name,
        limit: body.limit,
        duration_ms: body.duration,
        auto_apply: body.auto_apply,
    };
    bodies.into_iter().map(read).collect()
}

/// Meta as it is stored.
pub fn meta(meta: Map<String, Value>) -> String {
    Value::Object(meta).to_string()
}

/// Networks that a key may be used from.
pub fn networks(texts: &[String]) -> Result<Vec<ipnet::IpNet>, Problem> {
    let network = |text: &String| {
        let want = format!("must be networks such as 203.0.113.0/24, not {text:.60?}");
        parse_network(text).map(|network| network.trunc()).ok_or_else(|| fault("allow", &want))
    };
    texts.iter().map(network).collect()
}

/// Credits as they are shown.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ServiceCredits)]
pub struct CreditsView {
    /// What is left; null = nothing is limited.
    remaining: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refill: Option<RefillView>,
}

/// How credits are filled again.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ServiceRefill)]
#[serde(rename_all = "camelCase")]
struct RefillView {
    /// `daily` or `monthly`.
    #[schema(value_type = IntervalBody)]
    interval: &'static str,
    /// Credits that are added.
    amount: i64,
    /// Day of the month.
    #[serde(skip_serializing_if = "Option::is_none")]
    refill_day: Option<i16>,
}

impl CreditsView {
    pub fn new(limit: Option<CreditLimit>, now: Millis) -> Self {
        let refill = limit.and_then(|limit| limit.refill).map(|refill| RefillView {
            interval: refill.interval.as_str(),
            amount: refill.amount,
            refill_day: (refill.interval == Interval::Monthly).then_some(refill.day),
        });
        Self { remaining: service::remaining(limit, now), refill }
    }
}

/// Whom a key was given to.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ServiceIdentity)]
#[serde(rename_all = "camelCase")]
pub struct IdentityView {
    /// Of the external id, the same every time.
    id: String,
    /// The owner's id.
    external_id: String,
}

/// A rate limit as it is shown.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ServiceRateLimit)]
#[serde(rename_all = "camelCase")]
pub struct RateLimitView {
    /// Of the name, the same every time.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Uses in a window.
    pub limit: u32,
    /// Length of the window in milliseconds.
    pub duration: u32,
    /// Judged at every verification?
    pub auto_apply: bool,
}

impl RateLimitView {
    pub fn new(key: &Key, limit: &RateLimit) -> Self {
        Self {
            id: made_id("rl", key.family.0.as_bytes(), &limit.name),
            name: limit.name.clone(),
            limit: limit.limit,
            duration: limit.duration_ms,
            auto_apply: limit.auto_apply,
        }
    }
}

/// A key as it is shown.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ServiceKey)]
#[serde(rename_all = "camelCase")]
pub struct KeyView {
    /// Its id.
    #[schema(example = "key_0199c2f06c5a7a3b8d0e5f4a1b2c3d4e")]
    key_id: String,
    /// The first characters of its secret.
    start: String,
    /// Neither switched off nor suspended.
    enabled: bool,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// What is said of it.
    #[schema(value_type = Option<Object>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<Value>,
    /// When it was made, in milliseconds since 1970, as all times here.
    #[schema(value_type = i64)]
    created_at: Millis,
    /// When it was changed last.
    #[schema(value_type = Option<i64>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    updated_at: Option<Millis>,
    /// When it was last found valid, as of a moment ago.
    #[schema(value_type = Option<i64>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used_at: Option<Millis>,
    /// When it ends by itself.
    #[schema(value_type = Option<i64>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<Millis>,
    /// What it may do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    permissions: Vec<String>,
    /// Its roles.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    roles: Vec<String>,
    /// Its limit of credits.
    #[serde(skip_serializing_if = "Option::is_none")]
    credits: Option<CreditsView>,
    /// Whom it was given to.
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<IdentityView>,
    /// Its rate limits.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ratelimits: Vec<RateLimitView>,
    /// Ours: where it may be used from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    allow: Vec<String>,
}

impl KeyView {
    /// `last_used_at`: when it was last found valid.
    pub fn new(key: Key, last_used_at: Option<Millis>, now: Millis) -> Self {
        Self {
            last_used_at,
            key_id: key.id.to_string(),
            start: key.start.clone(),
            // A suspended key is as good as disabled.
            enabled: enabled(&key, now),
            name: name(&key),
            meta: stored_meta(&key),
            created_at: key.created_at,
            updated_at: key.service.updated_at,
            expires: key.expires_at,
            credits: key.credit_limit.map(|limit| CreditsView::new(Some(limit), now)),
            identity: identity(key.account, key.external_id.as_deref()),
            ratelimits: key
                .service
                .rate_limits
                .iter()
                .map(|one| RateLimitView::new(&key, one))
                .collect(),
            allow: key.allow.iter().map(ToString::to_string).collect(),
            permissions: key.service.permissions,
            roles: key.service.roles,
        }
    }
}

/// Neither switched off nor suspended.
pub fn enabled(key: &Key, now: Millis) -> bool {
    !key.disabled && key.suspension(now).is_none()
}

/// Its name, should it have one.
pub fn name(key: &Key) -> Option<String> {
    Some(key.label.clone()).filter(|name| !name.is_empty())
}

/// Its meta, should it have any.
pub fn stored_meta(key: &Key) -> Option<Value> {
    // It was JSON when it was stored.
    serde_json::from_str(key.meta.as_deref()?).ok()
}

/// Whom it was given to. Identities are not kept as such: one is its external id, and its own id follows from that.
pub fn identity(account: AccountId, external_id: Option<&str>) -> Option<IdentityView> {
    let external_id = external_id?.to_owned();
    Some(IdentityView { id: made_id("id", account.0.as_bytes(), &external_id), external_id })
}

/// An id for what has none of its own: the same whenever it is asked for.
pub fn made_id(prefix: &str, owner: &[u8], name: &str) -> String {
    let digest = Sha256::new().chain_update(owner).chain_update(name.as_bytes()).finalize();
    let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("{prefix}_{hex}")
}
