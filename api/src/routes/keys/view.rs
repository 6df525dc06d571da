//! A key as it is shown, never with its secret, and the receipt of its end.

use listmill_shared::app::keys::Receipt;
use listmill_shared::domain::audit::Actor;
use listmill_shared::domain::clock::Millis;
use listmill_shared::domain::id::TaskId;
use listmill_shared::domain::key::{CreditLimit, Interval, Key, Limit};
use listmill_shared::domain::request::LastUse;
use listmill_shared::domain::task::TaskStatus;
use serde::Serialize;
use utoipa::ToSchema;

use super::draft::{LimitView, RefillRequest};
use crate::openapi;
use crate::view::stamp;

/// What a key was used for.
#[derive(Debug, Clone, Default)]
pub struct Used {
    /// Credits charged through it, ever.
    pub credits: i64,
    /// Its last accepted request.
    pub last: Option<LastUse>,
}

/// A key, without its secret.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Key)]
pub struct KeyView {
    /// Its id.
    #[schema(example = "key_0199c2f06c5a7a3b8d0e5f4a1b2c3d4e")]
    pub id: String,
    /// The first characters of its secret, to tell keys apart.
    #[schema(example = "VECk7mpq")]
    pub start: String,
    /// The owner's name for it.
    pub label: String,
    /// A note for the account's own people.
    pub note: Option<String>,
    /// `live` or `test`.
    #[schema(value_type = openapi::Environment)]
    pub environment: &'static str,
    /// A free name of where it is used.
    pub stage: Option<String>,
    /// What it may do; `*` = everything.
    pub scopes: Vec<&'static str>,
    /// Whether it opens the door.
    #[schema(value_type = openapi::KeyStatus)]
    pub status: &'static str,
    /// Why it is suspended, if it is.
    pub suspended_reason: Option<String>,
    /// When its suspension ends by itself, if it does.
    #[schema(format = DateTime)]
    pub suspended_until: Option<String>,
    /// Whom to ask about its suspension: an email address or a link. Only while it is suspended, and only where the
    /// operator has named somebody.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "support@example.com")]
    pub support: Option<String>,
    /// When it was made.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// Who made it.
    pub created_by: MakerView,
    /// When it ends by itself.
    #[schema(format = DateTime)]
    pub expires_at: Option<String>,
    /// Before this it opens nothing.
    #[schema(format = DateTime)]
    pub not_before: Option<String>,
    /// Networks that it may be used from; empty = anywhere.
    pub allow: Vec<String>,
    /// Requests a minute under `/v1`; null = the default.
    pub rate_limit: Option<i64>,
    /// Sliding windows.
    pub limits: Vec<LimitView>,
    /// Its own limit of credits.
    pub credit_limit: Option<CreditView>,
    /// Credits charged through it, ever.
    pub credits_used: i64,
    /// Its last accepted request, as of a moment ago.
    pub last_used: Option<LastUsedView>,
    /// The owner's id for whom it was given to.
    pub external_id: Option<String>,
    /// JSON that is the owner's own.
    #[schema(value_type = Option<Object>)]
    pub meta: Option<serde_json::Value>,
    /// When it has been the same for so long that it should be rotated; null for keys that end by themselves
    /// until then, were rotated, are for tests or deleted.
    #[schema(format = DateTime)]
    pub rotation_due_at: Option<String>,
    /// The key that a rotation put in its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaced_by: Option<String>,
}

/// An accepted request.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LastUsed)]
pub struct LastUsedView {
    /// When.
    #[schema(format = DateTime)]
    at: String,
    /// From where, if that is known.
    #[schema(example = "203.0.113.9")]
    ip: Option<String>,
    /// The path that matched.
    #[schema(example = "/v1/tasks/{id}")]
    route: String,
}

impl From<&LastUse> for LastUsedView {
    fn from(last: &LastUse) -> Self {
        Self { at: stamp(last.at), ip: last.ip.clone(), route: last.route.clone() }
    }
}

/// Who made a key: one of these.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Maker)]
pub struct MakerView {
    /// Id of a key.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// Email of a person of the account.
    #[serde(skip_serializing_if = "Option::is_none")]
    person: Option<String>,
    /// An operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    operator: Option<bool>,
}

/// A key's own limit of credits.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CreditLimit)]
pub struct CreditView {
    /// Credits.
    limit: i64,
    /// Of those, charged, or reserved for what its tasks may still come to.
    used: i64,
    /// How it is filled again.
    refill: Option<RefillRequest>,
}

impl From<&Actor> for MakerView {
    fn from(maker: &Actor) -> Self {
        let none = Self { key: None, person: None, operator: None };
        match maker {
            Actor::Key(id) => Self { key: Some(id.to_string()), ..none },
            Actor::Person(email) => Self { person: Some(email.clone()), ..none },
            Actor::Root(_) | Actor::Operator | Actor::System => {
                Self { operator: Some(true), ..none }
            }
        }
    }
}

impl CreditView {
    fn new(limit: CreditLimit, now: Millis) -> Self {
        let limit = limit.at(now);
        let refill = limit.refill.map(|refill| RefillRequest {
            interval: refill.interval.as_str().to_owned(),
            amount: refill.amount,
            day: (refill.interval == Interval::Monthly).then_some(i64::from(refill.day)),
        });
        Self { limit: limit.limit, used: limit.used, refill }
    }
}

impl KeyView {
    /// A key as it is shown at `now`, with a reminder to rotate it at the age `reminder` (milliseconds, 0 = none).
    pub fn new(key: &Key, used: &Used, reminder: Millis, now: Millis) -> Self {
        let suspension = key.suspension(now);
        let limit = |limit: &Limit| LimitView {
            name: limit.name.clone(),
            limit: limit.limit,
            window_seconds: limit.window_seconds,
        };
        Self {
            id: key.id.to_string(),
            start: key.start.clone(),
            label: key.label.clone(),
            note: key.note.clone(),
            environment: key.environment.as_str(),
            stage: key.stage.clone(),
            scopes: key.scopes.names(),
            status: key.status(now),
            suspended_reason: suspension.map(|one| one.reason.clone()),
            suspended_until: suspension.and_then(|one| one.until).map(stamp),
            support: None,
            created_at: stamp(key.created_at),
            created_by: (&key.maker).into(),
            expires_at: key.expires_at.map(stamp),
            not_before: key.not_before.map(stamp),
            allow: key.allow.iter().map(ToString::to_string).collect(),
            rate_limit: key.rate_limit,
            limits: key.limits.iter().map(limit).collect(),
            credit_limit: key.credit_limit.map(|limit| CreditView::new(limit, now)),
            credits_used: used.credits,
            last_used: used.last.as_ref().map(LastUsedView::from),
            external_id: key.external_id.clone(),
            meta: key.meta.as_deref().and_then(|text| serde_json::from_str(text).ok()),
            rotation_due_at: key.rotation_due_at(reminder).map(stamp),
            replaced_by: key.replaced_by.map(|id| id.to_string()),
        }
    }

    /// Names whom to ask, if it is suspended.
    pub fn with_support(self, contact: Option<&str>) -> Self {
        let support = self.suspended_reason.as_ref().and(contact).map(str::to_owned);
        Self { support, ..self }
    }
}

/// The end of a key: since when, and what goes on. With the key's own fields.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Receipt)]
pub struct ReceiptView {
    /// The key as it is now.
    #[serde(flatten)]
    view: KeyView,
    /// Its id.
    #[schema(example = "key_0199c2f06c5a7a3b8d0e5f4a1b2c3d4e")]
    key: String,
    /// Since when it opens nothing; null while it does.
    #[schema(format = DateTime)]
    effective_at: Option<String>,
    /// The last request that the gate accepted with it, as of a moment ago.
    last_accepted: Option<LastUsedView>,
    /// Requests with it that were let in and are not over, on all servers; they run to their end. The request that
    /// asks does not count. Null: not all servers have answered.
    in_flight: Option<u32>,
    /// Tasks that it submitted and that go on.
    tasks: Vec<LiveTask>,
    /// Tasks that were cancelled along with it.
    cancelled_tasks: Vec<String>,
    /// Keys that it had made and that are not deleted: end these, too?
    made_keys: Vec<MadeKey>,
    /// Requests with it that were refused since then; 0 while it opens the door.
    refused_since: i64,
}

/// A task that goes on.
#[derive(Debug, Serialize, ToSchema)]
pub struct LiveTask {
    /// Its id.
    id: String,
    /// Its status.
    #[schema(value_type = openapi::TaskStatus)]
    status: &'static str,
}

impl From<&(TaskId, TaskStatus)> for LiveTask {
    fn from((id, status): &(TaskId, TaskStatus)) -> Self {
        Self { id: id.to_string(), status: status.as_str() }
    }
}

/// A key that another had made.
#[derive(Debug, Serialize, ToSchema)]
pub struct MadeKey {
    /// Its id.
    id: String,
    /// The owner's name for it.
    label: String,
    /// Whether it opens the door.
    #[schema(value_type = openapi::KeyStatus)]
    status: &'static str,
}

impl ReceiptView {
    /// Names whom to ask, if the key is suspended.
    pub fn with_support(self, contact: Option<&str>) -> Self {
        Self { view: self.view.with_support(contact), ..self }
    }

    /// A receipt as it is shown at `now`.
    pub fn new(
        receipt: &Receipt,
        used: &Used,
        refused_since: i64,
        reminder: Millis,
        now: Millis,
    ) -> Self {
        let made = |key: &Key| MadeKey {
            id: key.id.to_string(),
            label: key.label.clone(),
            status: key.status(now),
        };
        Self {
            view: KeyView::new(&receipt.key, used, reminder, now),
            key: receipt.key.id.to_string(),
            effective_at: receipt.effective_at.map(stamp),
            in_flight: receipt.in_flight,
            tasks: receipt.tasks.iter().map(LiveTask::from).collect(),
            cancelled_tasks: receipt.cancelled.iter().map(ToString::to_string).collect(),
            made_keys: receipt.made.iter().map(made).collect(),
            last_accepted: used.last.as_ref().map(LastUsedView::from),
            refused_since,
        }
    }
}
