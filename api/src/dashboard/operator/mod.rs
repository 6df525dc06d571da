//! The operators' pages: everything over all accounts. To everybody else there is no such page.
//!
//! | room | holds |
//! | --- | --- |
//! | [`sheet`], [`subject`] | how such a page is built: facts, tables, forms, a dialog; the page of one thing |
//! | [`overview`] | how it goes, in figures |
//! | [`accounts`], [`keys`], [`networks`] | what operators look up and change |
//! | [`fleet`] | workers, mail hosts, what failed |
//! | [`audit`], [`machine`] | the audit log; settings in force and the doctor |
//!
//! Every list is bounded or a page of the order of an index; every change is posted, stands in the audit log with
//! the person who asked for it, and has a dialog before it.

mod accounts;
mod audit;
mod fleet;
mod keys;
mod machine;
mod networks;
mod overview;
mod sheet;
mod subject;

use axum::Router;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::routing::{get, post};
use listmill_shared::domain::clock::Millis;
use listmill_shared::domain::id::AccountId;
use listmill_shared::domain::key::Key;
use listmill_shared::settings::parse_duration;
use listmill_shared::store::operators::AccountRow;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use self::accounts::{money, suspension};
use super::page::Failure;
use super::session::Viewer;
use super::text::{filled, text};
use crate::Api;

/// Rows on a page.
const PAGE: i64 = 50;
/// Far from where milliseconds overflow: a hundred years, in seconds.
const LONGEST: u64 = 100 * 366 * 86_400;

/// The pages.
pub fn router() -> Router<Api> {
    Router::new()
        .route("/operator", get(overview::show))
        .route("/operator/accounts", get(accounts::list).post(accounts::create))
        .route("/operator/accounts/new", get(accounts::new))
        .route("/operator/accounts/{id}", get(subject::show::<AccountRow>))
        .route("/operator/accounts/{id}/credits", get(money::credits).post(money::book))
        .route("/operator/accounts/{id}/weight", get(money::weight).post(money::set_weight))
        .route(
            "/operator/accounts/{id}/suspend",
            get(suspension::ask_suspend).post(suspension::suspend),
        )
        .route(
            "/operator/accounts/{id}/unsuspend",
            get(suspension::ask_unsuspend).post(suspension::unsuspend),
        )
        .route("/operator/accounts/{id}/reconcile", post(money::reconcile))
        .route("/operator/keys", get(keys::list))
        .route("/operator/keys/{id}", get(subject::show::<Key>))
        .route("/operator/keys/{id}/suspend", get(keys::ask_suspend).post(keys::suspend))
        .route("/operator/keys/{id}/unsuspend", get(keys::ask_unsuspend).post(keys::unsuspend))
        .route("/operator/networks", get(networks::list).post(networks::block))
        .route("/operator/networks/new", get(networks::new))
        .route("/operator/networks/unblock", get(networks::ask).post(networks::unblock))
        .route("/operator/workers", get(fleet::workers))
        .route("/operator/workers/drain", get(fleet::ask_drain).post(fleet::drain))
        .route("/operator/hosts", get(fleet::hosts))
        .route("/operator/failures", get(fleet::failures))
        .route("/operator/audit", get(audit::show))
        .route("/operator/settings", get(machine::settings))
        .route("/operator/doctor", get(machine::doctor))
}

/// Who looks at a page, and is an operator.
pub struct Operator(pub Viewer);

impl FromRequestParts<Api> for Operator {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Failure> {
        let viewer = Viewer::from_request_parts(parts, api).await?;
        viewer.require_operator()?;
        Ok(Self(viewer))
    }
}

/// As a part of an address.
fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// Finds an account by id or email.
async fn find_account(api: &Api, name: &str) -> Result<Option<AccountId>, Failure> {
    let name = name.trim();
    Ok(match name.parse::<AccountId>() {
        Ok(id) => api.app.store.account_exists(id).await?.then_some(id),
        Err(_) => api.app.store.account_by_email(name).await?,
    })
}

/// When something ends that lasts so long from now on; nothing given: when it is lifted.
fn ends_at(lasts: &str, now: Millis) -> Result<Option<Millis>, Failure> {
    let lasts = lasts.trim();
    if lasts.is_empty() {
        return Ok(None);
    }
    let given = parse_duration(lasts).filter(|time| (1..=LONGEST).contains(&time.as_secs()));
    match given.and_then(|time| i64::try_from(time.as_millis()).ok()) {
        Some(lasts) => Ok(Some(now.saturating_add(lasts))),
        None => Err(Failure::Wrong(text("operator.bad_duration").to_owned())),
    }
}

/// A length of time in its largest unit.
fn length(millis: Millis) -> String {
    let seconds = (millis / 1_000).max(0);
    let (count, name) = match seconds {
        ..=119 => (seconds, "operator.seconds"),
        120..=7_199 => (seconds / 60, "operator.minutes"),
        7_200..=172_799 => (seconds / 3_600, "operator.hours"),
        _ => (seconds / 86_400, "operator.days"),
    };
    filled(name, &[("n", &count.to_string())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_read_or_refused() {
        assert_eq!(ends_at(" ", 5).ok(), Some(None));
        assert_eq!(ends_at("1h", 5).ok(), Some(Some(3_600_005)));
        for wrong in ["1", "0s", "-1h", "tomorrow", "999999999d"] {
            assert!(ends_at(wrong, 5).is_err(), "{wrong}");
        }
    }

    #[test]
    fn lengths_are_told_in_their_largest_unit() {
        for (millis, told) in [
            (-1, "0 s"),
            (90_000, "90 s"),
            (240_000, "4 min"),
            (86_400_000, "24 h"),
            (8 * 86_400_000, "8 d"),
        ] {
            assert_eq!(length(millis), told);
        }
    }
}
