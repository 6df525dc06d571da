//! `/v2/keys.verifyKey`: 200 for every outcome, which `valid` and `code` tell.

use std::time::Instant;

use axum::extract::State;
use listmill_shared::app::key_service::verify::{Code, JudgedLimit, Named, Verification, Verified};
use listmill_shared::domain::clock::Millis;
use listmill_shared::domain::id::ApiId;
use listmill_shared::domain::key::Key;
use listmill_shared::domain::permission::Question;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::answer::{Body, Data, fault, refuse};
use super::describe::{self, Errors, ServiceAnswer};
use super::fields::{IdentityView, RateLimitView, enabled, identity, made_id, name, stored_meta};
use super::root::Root;
use crate::Api;
use crate::problem::Problem;
use crate::request_log::note_verification;

/// Tags of one verification, and characters of one.
const TAGS: usize = 20;
const TAG: usize = 128;
/// Rate limits that one verification may name.
const LIMITS: usize = 50;
/// Apis that it may be restricted to.
const APIS: usize = 100;
/// Characters of a key.
const KEY: usize = 512;
/// Credits that it may cost.
const COST: i64 = 1_000_000_000_000_000;

/// A key that somebody has presented.
#[derive(Deserialize, ToSchema)]
#[schema(as = ServiceVerifyKey)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct VerifyKey {
    /// The key itself.
    #[schema(example = "prod_k7mpq")]
    key: String,
    /// Up to 20; checked, and not kept.
    tags: Option<Vec<String>>,
    /// Permissions that it must hold: names with `AND`, `OR` and parentheses.
    permissions: Option<String>,
    /// What it costs; 1 unless given.
    credits: Option<CostBody>,
    /// Ids of apis, one of which it must belong to.
    keyspaces: Option<Vec<String>>,
    /// Rate limits besides those that are always judged.
    ratelimits: Option<Vec<NamedBody>>,
    /// Not offered.
    migration_id: Option<String>,
    /// Ours: the address of whoever presented the key.
    ip: Option<String>,
}

/// What a verification costs.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ServiceCost)]
#[serde(deny_unknown_fields)]
struct CostBody {
    /// Credits, 0 or more.
    cost: i64,
}

/// A rate limit that is judged this time.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ServiceNamedLimit)]
#[serde(deny_unknown_fields)]
struct NamedBody {
    /// Its name.
    name: String,
    /// Uses that this one counts for; 1 unless given.
    cost: Option<u32>,
    /// Uses in a window; the key's own figure unless given.
    limit: Option<u32>,
    /// Length of the window in milliseconds; the key's own unless given.
    duration: Option<u32>,
}

impl VerifyKey {
    fn read(self, root: &Root) -> Result<Verification, Problem> {
        if self.key.is_empty() || self.key.len() > KEY {
            return Err(fault("key", &format!("must be 1 to {KEY} characters")));
        }
        let tags = self.tags.unwrap_or_default();
        if tags.len() > TAGS || tags.iter().any(|tag| tag.is_empty() || tag.len() > TAG) {
            return Err(fault(
                "tags",
                &format!("must be at most {TAGS}, of 1 to {TAG} characters"),
            ));
        }
        refuse("migrationId", self.migration_id.is_some())?;
        let permissions = self.permissions.as_deref().map(Question::parse).transpose();
        let permissions = permissions.map_err(|error| fault("permissions", &error.to_string()))?;
        let cost = self.credits.map_or(1, |credits| credits.cost);
        if !(0..=COST).contains(&cost) {
            return Err(fault("credits.cost", &format!("must be from 0 to {COST}")));
        }
        let limits = self.ratelimits.unwrap_or_default();
        if limits.len() > LIMITS {
            return Err(fault("ratelimits", &format!("must be at most {LIMITS}")));
        }
        let apis = self.keyspaces.filter(|ids| !ids.is_empty());
        if apis.as_ref().is_some_and(|apis| apis.len() > APIS) {
            return Err(fault("keyspaces", &format!("must be at most {APIS}")));
        }
        let from = match self.ip.as_deref().map(str::parse::<std::net::IpAddr>) {
            None => root.origin.ip,
            Some(Ok(ip)) => Some(ip.to_canonical()),
            Some(Err(_)) => return Err(fault("ip", "must be an IPv4 or IPv6 address")),
        };
        let named = |one: NamedBody| Named {
            name: one.name,
            cost: one.cost.unwrap_or(1),
            limit: one.limit,
            duration_ms: one.duration,
        };
        // What is no id is the id of nothing.
        let ids = |ids: Vec<String>| ids.iter().filter_map(|id| id.parse::<ApiId>().ok()).collect();
        Ok(Verification {
            secret: self.key,
            apis: apis.map(ids),
            permissions,
            limits: limits.into_iter().map(named).collect(),
            cost,
            from,
        })
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct VerifiedView {
    valid: bool,
    code: &'static str,
    #[serde(flatten)]
    key: Option<VerifiedKey>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct VerifiedKey {
    key_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<Millis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credits: Option<i64>,
    enabled: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    permissions: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    roles: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<IdentityView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ratelimits: Vec<JudgedView>,
}

#[derive(Debug, Serialize)]
struct JudgedView {
    #[serde(flatten)]
    limit: RateLimitView,
    exceeded: bool,
    remaining: u32,
    reset: Millis,
}

fn view(key: Key, remaining: Option<i64>, limits: Vec<JudgedLimit>, now: Millis) -> VerifiedKey {
    let owner = key.family;
    let judged = |one: JudgedLimit| JudgedView {
        limit: RateLimitView {
            id: made_id("rl", owner.0.as_bytes(), &one.limit.name),
            name: one.limit.name,
            limit: one.limit.limit,
            duration: one.limit.duration_ms,
            auto_apply: one.limit.auto_apply,
        },
        exceeded: one.exceeded,
        remaining: one.remaining,
        reset: one.reset_at,
    };
    VerifiedKey {
        key_id: key.id.to_string(),
        name: name(&key),
        meta: stored_meta(&key),
        expires: key.expires_at,
        credits: remaining,
        enabled: enabled(&key, now),
        identity: identity(key.account, key.external_id.as_deref()),
        permissions: key.service.permissions,
        roles: key.service.roles,
        ratelimits: limits.into_iter().map(judged).collect(),
    }
}

/// Verify a key
///
/// Answers 200 whatever comes out; `valid` and `code` say it. The checks and their order: docs/UNKEY.md. Every
/// answer counts as a use of the key: `GET /v1/keys/{id}/usage`.
#[utoipa::path(post, path = "/v2/keys.verifyKey", operation_id = "keys.verifyKey", tag = "key service",
    request_body = VerifyKey, security(("root_key" = ["verify_key"])), responses(
    (status = 200, description = "The verdict.", body = ServiceAnswer<describe::Verified>), Errors))]
pub async fn verify(
    State(api): State<Api>,
    root: Root,
    Body(body): Body<VerifyKey>,
) -> Result<Data, Problem> {
    let began = Instant::now();
    let asked = body.read(&root)?;
    let from = asked.from;
    let verified = api.app.verify_service_key(&root.key, asked).await?;
    note_verification(&api, &root, &verified, from, began);
    let Verified { code, key, remaining, limits, .. } = verified;
    metrics::counter!("listmill_key_verifications_total", "code" => code.as_str()).increment(1);
    let now = api.app.now();
    Ok(Data::new(&VerifiedView {
        valid: code == Code::Valid,
        code: code.as_str(),
        key: key.map(|key| view(key, remaining, limits, now)),
    }))
}
