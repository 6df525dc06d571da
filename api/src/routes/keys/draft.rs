//! A key as a caller describes it: to make one, or to change one.

use ipnet::IpNet;
use jiff::Timestamp;
use listmill_shared::domain::clock::Millis;
use listmill_shared::domain::key::fields::{CreditDraft, Fields, RefillDraft};
use listmill_shared::domain::key::{Environment, Interval, Limit, Scopes};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::client_ip::parse_network;
use crate::problem::Problem;

/// A key to be made, or what to change of one. A field that is absent keeps its value, and one that is null is
/// cleared.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default, expecting = "an object with \"label\"")]
pub struct KeyRequest {
    /// When a key is made: its secret is not told in the answer, but shown once by the link that is.
    pub link: bool,
    /// A name for it, up to 100 characters; needed to make one.
    #[schema(example = "production")]
    label: Option<String>,
    /// A note for the account's own people, up to 1,000 characters.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    note: Option<Option<String>>,
    /// `live` or `test`; as the calling key's, unless given. Set when the key is made, and never changed.
    #[schema(value_type = Option<crate::openapi::Environment>)]
    environment: Option<String>,
    /// A free name of where it is used.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>, example = "staging")]
    stage: Option<Option<String>>,
    /// What it may do: `verify`, `tasks:write`, `tasks:read`, `tasks:cancel`, `tasks:own`, `keys:read`,
    /// `keys:write`, `account:read`, `webhooks:read`, `webhooks:write`, `*`. No more than the calling key has.
    #[schema(example = json!(["tasks:write", "tasks:read"]))]
    scopes: Option<Vec<String>>,
    /// When it ends by itself (RFC 3339); never, unless given.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Option<String>>,
    /// Before this it opens nothing (RFC 3339).
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>, format = DateTime)]
    not_before: Option<Option<String>>,
    /// Networks that it may be used from; empty = anywhere.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<Vec<String>>, example = json!(["203.0.113.0/24", "2001:db8::/32"]))]
    allow: Option<Option<Vec<String>>>,
    /// Requests a minute under `/v1`; the server's default unless given.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 1_000_000_000)]
    rate_limit: Option<Option<i64>>,
    /// Sliding windows. One named `requests` counts every request; others are named by callers of `verifyKey`.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<Vec<LimitView>>)]
    limits: Option<Option<Vec<Limit>>>,
    /// Its own limit of credits. What running tasks may come to is reserved of it.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<CreditRequest>)]
    credit_limit: Option<Option<CreditRequest>>,
    /// Your id for whom it was given to.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>, example = "customer-42")]
    external_id: Option<Option<String>>,
    /// A JSON object of your own, up to 4,096 bytes.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<Object>)]
    meta: Option<Option<serde_json::Map<String, serde_json::Value>>>,
}

/// A sliding window.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Limit)]
pub struct LimitView {
    /// Its name.
    #[schema(example = "requests")]
    pub name: String,
    /// Uses in a window.
    #[schema(example = 100)]
    pub limit: u32,
    /// Its length.
    #[schema(example = 10)]
    pub window_seconds: u32,
}

/// A key's own limit of credits.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreditRequest {
    /// Credits.
    limit: i64,
    /// How it is filled again.
    #[serde(default)]
    refill: Option<RefillRequest>,
}

/// How a limit of credits is filled again: at midnight (UTC) its amount is taken off what is used.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Refill)]
pub struct RefillRequest {
    /// `daily` or `monthly`.
    #[schema(example = "monthly")]
    pub interval: String,
    /// How much.
    pub amount: i64,
    /// Day of the month, 1 to 31; the last one where a month is shorter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub day: Option<i64>,
}

/// An object and nothing else: without this, `[]` would be a request that says nothing.
#[derive(Debug, Default)]
pub struct Object<T>(pub T);

impl<'de, T: DeserializeOwned> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let map = serde_json::Map::deserialize(d)?;
        T::deserialize(serde_json::Value::Object(map)).map(Self).map_err(serde::de::Error::custom)
    }
}

/// `null` is something that is said.
fn given<'de, D, T>(d: D) -> Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(d).map(Some)
}

impl KeyRequest {
    /// Reads it.
    pub fn fields(self) -> Result<Fields, Problem> {
        let environment = self.environment.map(|name| {
            Environment::parse(&name)
                .ok_or_else(|| Problem::field("environment", "must be live or test"))
        });
        let scopes = self.scopes.map(|names| {
            Scopes::parse(names.iter().map(String::as_str)).map_err(|no| {
                Problem::field("scopes", format!("holds {:?}, which is no scope", no.0))
            })
        });
        let allow = self.allow.map(|list| read_networks(list.unwrap_or_default()));
        let credit_limit =
            self.credit_limit.map(|credit| credit.map(CreditRequest::read).transpose());
        Ok(Fields {
            label: self.label,
            note: self.note,
            environment: environment.transpose()?,
            stage: self.stage,
            scopes: scopes.transpose()?,
            expires_at: time("expires_at", self.expires_at)?,
            not_before: time("not_before", self.not_before)?,
            allow: allow.transpose()?,
            rate_limit: self.rate_limit,
            limits: self.limits.map(Option::unwrap_or_default),
            credit_limit: credit_limit.transpose()?,
            external_id: self.external_id,
            meta: self.meta.map(|meta| meta.map(|map| serde_json::Value::Object(map).to_string())),
        })
    }
}

impl CreditRequest {
    fn read(self) -> Result<CreditDraft, Problem> {
        let refill = self.refill.map(|refill| match Interval::parse(&refill.interval) {
            Some(interval) => Ok(RefillDraft { interval, amount: refill.amount, day: refill.day }),
            None => Err(Problem::field("credit_limit", "must be filled again daily or monthly")),
        });
        Ok(CreditDraft { limit: self.limit, used: None, refill: refill.transpose()? })
    }
}

fn time(
    field: &'static str,
    text: Option<Option<String>>,
) -> Result<Option<Option<Millis>>, Problem> {
    let read = |text: String| match text.parse::<Timestamp>() {
        Ok(at) => Ok(at.as_millisecond()),
        Err(_) => Err(Problem::field(field, "must be a time such as 2030-01-31T12:00:00Z")),
    };
    text.map(|text| text.map(read).transpose()).transpose()
}

fn read_networks(list: Vec<String>) -> Result<Vec<IpNet>, Problem> {
    let read = |text: String| match parse_network(&text) {
        Some(network) => Ok(network.trunc()),
        None => Err(Problem::field(
            "allow",
            format!("must be networks such as 203.0.113.0/24, not {text:?}"),
        )),
    };
    list.into_iter().map(read).collect()
}
