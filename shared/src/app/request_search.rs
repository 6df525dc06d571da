//! Requests of an account that a person looks for: by key, by how they ended, by network, by time.
//!
//! The log has an index by account, by key, and by refusal. A search walks the narrowest of these, newest first,
//! and looks at each row; after [`MOST`] rows it stops where it is and says so, so that what is rare in a long log
//! makes nobody wait: whoever wants more goes on from there.

use ipnet::IpNet;

use super::App;
use crate::domain::clock::Millis;
use crate::domain::id::{AccountId, KeyId, RootKeyId};
use crate::domain::request::Outcome;
use crate::store::StoreError;
use crate::store::key_pages::KeySearch;
use crate::store::request_log::id_at;
use crate::store::usage::{Logged, RequestFilter};

/// Rows that one search looks at.
const MOST: usize = 10_000;
/// Of those, in one statement.
const CHUNK: i64 = 1_000;
/// Keys that one text may name.
const NAMED: i64 = 100;

/// What is looked for.
#[derive(Debug, Clone, Default)]
pub struct RequestSearch {
    /// With one of these keys, root keys by their own id; `None` = with any.
    pub keys: Option<Vec<KeyId>>,
    /// That ended so.
    pub outcome: Option<Outcome>,
    /// From this network.
    pub network: Option<IpNet>,
    /// From this moment on.
    pub from: Option<Millis>,
    /// Before this moment.
    pub to: Option<Millis>,
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct RequestsFound {
    /// The requests, newest first.
    pub rows: Vec<Logged>,
    /// Goes on before this row; `None` = there are no more.
    pub next: Option<i64>,
    /// The search stopped before the page was full: there may be more further on.
    pub stopped: bool,
}

impl RequestSearch {
    fn holds(&self, row: &Logged) -> bool {
        let key = row.key.or(row.root_key.map(|root| KeyId(root.0)));
        let of_network = |network: &IpNet| {
            let ip = row.ip.as_deref().and_then(|ip| ip.parse().ok());
            ip.is_some_and(|ip: std::net::IpAddr| network.contains(&ip.to_canonical()))
        };
        self.keys.as_ref().is_none_or(|keys| key.is_some_and(|key| keys.contains(&key)))
            && self.outcome.is_none_or(|outcome| outcome == row.outcome)
            && self.network.as_ref().is_none_or(of_network)
    }

    /// What an index can do: refusals first, as they are rare.
    fn by_index(&self) -> RequestFilter {
        let outcome = self.outcome.filter(|outcome| *outcome != Outcome::Accepted);
        let key = match self.keys.as_deref() {
            Some([key]) if outcome.is_none() => Some(*key),
            _ => None,
        };
        RequestFilter { key, outcome }
    }

    /// Does the index alone find it, so that every row read is one of the page?
    fn is_by_index(&self, filter: RequestFilter) -> bool {
        self.network.is_none()
            && filter.outcome == self.outcome
            && self.keys.as_ref().is_none_or(|_| filter.key.is_some())
    }
}

impl App {
    /// Requests that a search finds, newest first, before the row `before`.
    pub async fn search_requests(
        &self,
        account: AccountId,
        search: &RequestSearch,
        before: Option<i64>,
        limit: usize,
    ) -> Result<RequestsFound, StoreError> {
        let mut found = RequestsFound::default();
        if search.keys.as_ref().is_some_and(Vec::is_empty) {
            return Ok(found);
        }
        let end = search.to.map_or(i64::MAX, id_at);
        let mut before = before.unwrap_or(i64::MAX).min(end);
        let filter = search.by_index();
        let whole = limit as i64 + 1;
        let step = if search.is_by_index(filter) { whole } else { CHUNK };
        let mut seen = 0;
        while seen < MOST {
            let rows = self.store.requests(account, filter, Some(before), step).await?;
            let last = (rows.len() as i64) < step;
            seen += rows.len();
            for row in rows {
                if search.from.is_some_and(|from| row.at < from) {
                    return Ok(found);
                }
                if search.holds(&row) {
                    if found.rows.len() == limit {
                        found.next = Some(before);
                        return Ok(found);
                    }
                    before = row.id;
                    found.rows.push(row);
                } else {
                    before = row.id;
                }
            }
            if last {
                return Ok(found);
            }
        }
        Ok(RequestsFound { next: Some(before), stopped: true, ..found })
    }

    /// The keys of an account that a text names, deleted ones included: by id, start, label or external id.
    pub async fn keys_named(
        &self,
        account: AccountId,
        text: &str,
    ) -> Result<Vec<KeyId>, StoreError> {
        if let Ok(id) = text.parse::<KeyId>() {
            return Ok(vec![id]);
        }
        if let Ok(root) = text.parse::<RootKeyId>() {
            return Ok(vec![KeyId(root.0)]);
        }
        let search = KeySearch { text: text.to_owned(), state: None, deleted: true };
        let keys = self.store.page_of_keys(account, &search, self.now(), None, NAMED).await?;
        Ok(keys.into_iter().map(|key| key.id).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::Ids;

    fn row(ip: &str, outcome: Outcome, key: KeyId) -> Logged {
        Logged {
            id: 1,
            at: 1,
            key: Some(key),
            root_key: None,
            outcome,
            ip: Some(ip.to_owned()),
            method: String::from("GET"),
            route: String::from("/v1/tasks"),
            status: 200,
            latency_us: 1,
            request_id: String::new(),
        }
    }

    #[test]
    fn what_an_index_cannot_do_is_looked_at() {
        let ids = Ids::seeded(1);
        let (one, other) = (KeyId::new(&ids, 1), KeyId::new(&ids, 2));
        let of_one = RequestSearch { keys: Some(vec![one]), ..RequestSearch::default() };
        assert_eq!(of_one.by_index().key, Some(one));
        assert!(of_one.is_by_index(of_one.by_index()));
        let refused =
            RequestSearch { outcome: Some(Outcome::Expired), keys: Some(vec![one]), ..of_one };
        let filter = refused.by_index();
        assert_eq!((filter.key, filter.outcome), (None, Some(Outcome::Expired)));
        assert!(!refused.is_by_index(filter));
        assert!(refused.holds(&row("192.0.2.1", Outcome::Expired, one)));
        assert!(!refused.holds(&row("192.0.2.1", Outcome::Expired, other)));
        assert!(!refused.holds(&row("192.0.2.1", Outcome::Scope, one)));
    }

    #[test]
    fn a_network_holds_its_addresses_however_they_are_written() {
        let key = KeyId::FIRST;
        let of = |network: &str| RequestSearch {
            network: crate::domain::network::parse_network(network),
            ..RequestSearch::default()
        };
        for (network, ip, is) in [
            ("192.0.2.0/24", "192.0.2.77", true),
            ("192.0.2.0/24", "::ffff:192.0.2.77", true),
            ("192.0.2.0/24", "192.0.3.1", false),
            ("2001:db8::/64", "2001:db8:0:0:1::", true),
            ("2001:db8::1", "2001:db8::2", false),
        ] {
            let row = row(ip, Outcome::Accepted, key);
            assert_eq!(of(network).holds(&row), is, "{network} {ip}");
        }
        let nowhere = Logged { ip: None, ..row("::1", Outcome::Accepted, key) };
        assert!(!of("::/0").holds(&nowhere));
    }
}
