//! The networks that a key is used from.

use axum::extract::State;
use listmill_shared::domain::clock::Millis;
use listmill_shared::domain::id::KeyId;
use listmill_shared::domain::key::Key;
use listmill_shared::domain::request::DAY_MS;
use listmill_shared::store::key_networks::KeyNetwork;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::Api;
use crate::cursor::{NetworkCursor, cursor, cut, limit};
use crate::extract::{Id, Params};
use crate::gate::Caller;
use crate::openapi::{Bad, Gate, NoKey};
use crate::problem::Problem;
use crate::view::{Page, stamp};

/// Networks on a page, unless asked otherwise, and at most.
const PAGE: i64 = 100;
const MOST: i64 = 1000;
/// A network is new for so long, unless the key is as new.
const NEW: Millis = 7 * DAY_MS;

/// A network that a key is used from.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = KeyNetwork)]
pub struct NetworkView {
    /// A /24, or a /64 of IPv6.
    #[schema(example = "192.0.2.0/24")]
    network: String,
    /// The first use.
    #[schema(format = DateTime)]
    first_at: String,
    /// The last use, as of a moment ago.
    #[schema(format = DateTime)]
    last_at: String,
    /// Uses, those included that a limit, a scope or credits refused.
    requests: i64,
    /// First seen within the last 7 days, while the key is older than that: is it one of yours?
    new: bool,
}

impl NetworkView {
    fn new(network: &KeyNetwork, key: &Key, now: Millis) -> Self {
        Self {
            network: network.network.clone(),
            first_at: stamp(network.first_at),
            last_at: stamp(network.last_at),
            requests: network.requests,
            new: is_new(network.first_at, key.created_at, now),
        }
    }
}

fn is_new(first_at: Millis, created_at: Millis, now: Millis) -> bool {
    now - first_at < NEW && now - created_at >= NEW
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct NetworkParams {
    /// Where the page begins: a `next_cursor` of this list.
    cursor: Option<String>,
    /// Networks on the page, 1 to 1000; 100 unless given.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 1000)]
    limit: Option<String>,
}

/// List the networks that a key is used from
///
/// Those that it was first used from last come first. A network that is `new` and none of yours means that somebody
/// else has the key. Up to about 1,000 networks of a key are kept, those that were used last. For deleted keys, too.
#[utoipa::path(get, path = "/v1/keys/{id}/networks", tag = "usage",
    params(("id" = String, Path, description = "Id of the key (not its secret)."), NetworkParams),
    responses((status = 200, description = "A page of networks.", body = Page<NetworkView>),
        Bad, NoKey, Gate))]
pub async fn list(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<KeyId>,
    Params(params): Params<NetworkParams>,
) -> Result<axum::Json<Page<NetworkView>>, Problem> {
    let from = cursor::<NetworkCursor>(params.cursor.as_deref())?;
    let limit = limit(params.limit.as_deref(), PAGE, MOST)?;
    let key = api.app.store.any_key(id, Some(caller.account)).await?;
    let key = key.ok_or_else(Problem::key_not_found)?;
    let from = from.map(|NetworkCursor(at, network)| (at, network));
    let mut rows = api.app.store.key_networks(id, from, limit + 1).await?;
    let next_cursor = cut(&mut rows, limit, |row| NetworkCursor(row.first_at, row.network.clone()));
    let now = api.app.now();
    let data = rows.iter().map(|row| NetworkView::new(row, &key, now)).collect();
    Ok(axum::Json(Page { data, next_cursor }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_new_on_a_key_that_is_not() {
        let now = 1_800_000_000_000;
        let ago = |days: i64| now - days * DAY_MS;
        assert!(is_new(ago(1), ago(30), now));
        assert!(!is_new(ago(8), ago(30), now));
        assert!(!is_new(ago(1), ago(2), now), "all of a new key's are");
    }
}
