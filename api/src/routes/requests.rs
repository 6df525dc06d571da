//! The account's requests, one by one.

use axum::extract::State;
use listmill_shared::domain::id::{KeyId, RootKeyId};
use listmill_shared::domain::request::Outcome;
use listmill_shared::store::usage::{Logged, RequestFilter};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::Api;
use crate::cursor::{RequestCursor, cursor, cut, limit};
use crate::extract::Params;
use crate::gate::Caller;
use crate::openapi::{self, Bad, Gate};
use crate::problem::Problem;
use crate::view::{Page, stamp};

/// Requests on a page, unless asked otherwise, and at most.
const PAGE: i64 = 100;
const MOST: i64 = 1000;

/// A request, as the gate saw it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Request)]
pub struct RequestView {
    /// Its id in this list.
    #[schema(example = "request_62b3a1c00000042")]
    pub id: String,
    /// When it arrived.
    #[schema(format = DateTime)]
    pub at: String,
    /// With which key; deleted ones are told, too.
    #[schema(example = "key_0199c2f06c5a7a3b8d0e5f4a1b2c3d4e")]
    pub key: Option<String>,
    /// With which root key, under `/v2`.
    #[schema(example = "rootkey_0199c2f06c5a7a3b8d0e5f4a1b2c3d4e")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_key: Option<String>,
    /// How the gate ended.
    #[schema(value_type = openapi::Outcome)]
    pub outcome: &'static str,
    /// Where it came from.
    #[schema(example = "192.0.2.77")]
    pub ip: Option<String>,
    /// Its method.
    #[schema(example = "GET")]
    pub method: String,
    /// The route that it took; `verification` = no request of its own, but what `keys.verifyKey` said of a key of
    /// an api, if it refused it.
    #[schema(example = "/v1/tasks/{id}")]
    pub route: String,
    /// The answer's status; 499 = the caller did not wait for it.
    #[schema(example = 200)]
    pub status: i16,
    /// Milliseconds until the answer began.
    #[schema(example = 1.234)]
    pub latency_ms: f64,
    /// The request's `X-Request-Id`, or the name that it was given.
    pub request_id: String,
}

impl From<Logged> for RequestView {
    fn from(row: Logged) -> Self {
        Self {
            id: format!("request_{:x}", row.id),
            at: stamp(row.at),
            key: row.key.map(|key| key.to_string()),
            root_key: row.root_key.map(|root| root.to_string()),
            outcome: row.outcome.as_str(),
            ip: row.ip,
            method: row.method,
            route: row.route,
            status: row.status,
            latency_ms: f64::from(row.latency_us) / 1_000.0,
            request_id: row.request_id,
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RequestParams {
    /// Only requests with this key or root key, deleted or not.
    key: Option<String>,
    /// Only requests that ended so.
    #[param(value_type = Option<openapi::Outcome>, inline)]
    outcome: Option<String>,
    /// Where the page begins: a `next_cursor` of this list.
    cursor: Option<String>,
    /// Requests on the page, 1 to 1000; 100 unless given.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 1000)]
    limit: Option<String>,
}

/// Reads the query parameter `key`; a root key stands in the log with its own id.
pub fn key(given: Option<&str>) -> Result<Option<KeyId>, Problem> {
    let read = |id: &str| match id.parse::<RootKeyId>() {
        Ok(root) => Ok(KeyId(root.0)),
        Err(_) => id.parse().map_err(|error| Problem::query("key", format!("{error}."))),
    };
    given.map(read).transpose()
}

/// List requests
///
/// Every request with a key or root key of this account that the gate accepted or refused, newest first, also
/// those with deleted keys: a leaked key that is dead is seen to be tried. They appear within a second, and are
/// kept for 30 days unless the operator has set it otherwise. Where very many are accepted, some of these
/// have no row here; `GET /v1/usage` counts them all.
#[utoipa::path(get, path = "/v1/requests", tag = "usage", params(RequestParams), responses(
    (status = 200, description = "A page of requests.", body = Page<RequestView>), Bad, Gate))]
pub async fn list(
    State(api): State<Api>,
    caller: Caller,
    Params(params): Params<RequestParams>,
) -> Result<axum::Json<Page<RequestView>>, Problem> {
    let key = key(params.key.as_deref())?;
    let outcome = params
        .outcome
        .map(|name| {
            let unknown = || Problem::query("outcome", "is none of the gate's outcomes.");
            Outcome::from_name(&name).ok_or_else(unknown)
        })
        .transpose()?;
    let before = cursor::<RequestCursor>(params.cursor.as_deref())?.map(|cursor| cursor.0);
    let limit = limit(params.limit.as_deref(), PAGE, MOST)?;
    let filter = RequestFilter { key, outcome };
    let mut rows = api.app.store.requests(caller.account, filter, before, limit + 1).await?;
    let next_cursor = cut(&mut rows, limit, |row| RequestCursor(row.id));
    let data = rows.into_iter().map(RequestView::from).collect();
    Ok(axum::Json(Page { data, next_cursor }))
}
