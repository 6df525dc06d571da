//! Request limits: which budget a route has, and how a judgement is told.

use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::Response;
use listmill_shared::domain::clock::Millis;
use listmill_shared::domain::factor::Factor;
use listmill_shared::domain::key::Key;
use listmill_shared::throttle::requests::{Allowance, Bucket, Judged};
use listmill_shared::throttle::windows::{Standing, Window};
use serde_json::json;

use crate::refusals::plain;

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const DAILY: HeaderName = HeaderName::from_static("x-dailylimit-remaining");

/// Requests a UTC day on each route of the seed system.
const PER_DAY: u32 = 10_000;

/// What a request is counted against.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Whose, and for which routes.
    pub bucket: Bucket,
    /// How much.
    pub allowance: Allowance,
}

/// The budget of a key on a route. The routes of the seed system have one each; all others share
/// one, which is `default` a minute unless the key has its own figure. `left`: what an operator has
/// left of every rate. The counts of a day stay as they are: who has used up a tenth of their day would
/// be shut out until the lever is lifted, and told midnight.
pub fn budget(route: &str, key: &Key, default: u32, left: Factor) -> Budget {
    let (name, per_minute, per_day) = match route {
        "/api/verify-single" => ("verify-single", 60, Some(PER_DAY)),
        "/api/verify-bulk" => ("verify-bulk", 60, Some(PER_DAY)),
        "/api/get-results/{task_id}" => ("get-results", 120, Some(PER_DAY)),
        _ => {
            let own = key.rate_limit.map(|limit| u32::try_from(limit).unwrap_or(u32::MAX));
            ("v1", own.unwrap_or(default), None)
        }
    };
    Budget {
        bucket: Bucket { key: key.family, route: name },
        allowance: Allowance { per_minute: left.of(per_minute), per_day },
    }
}

/// What a request that passes is told of its budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitHeaders {
    limit: u32,
    remaining: u32,
    /// Seconds since the epoch.
    reset: i64,
    daily_remaining: Option<u32>,
}

impl LimitHeaders {
    /// Adds the headers.
    pub fn write(self, headers: &mut HeaderMap) {
        headers.insert(LIMIT, self.limit.into());
        headers.insert(REMAINING, self.remaining.into());
        headers.insert(RESET, self.reset.into());
        if let Some(left) = self.daily_remaining {
            headers.insert(DAILY, left.into());
        }
    }
}

/// The name of the limit that counts every request.
const REQUESTS: &str = "requests";

/// The sliding window that counts every request with a key, if the key has one.
pub fn window(key: &Key, left: Factor) -> Option<Window<'_>> {
    let limit = key.limits.iter().find(|limit| limit.name == REQUESTS)?;
    let window_ms = limit.window_seconds.saturating_mul(1_000);
    Some(Window { name: REQUESTS, limit: left.of(limit.limit), window_ms, cost: 1 })
}

/// The refusal where a window holds no further request.
pub fn full(window: &Window<'_>, standing: &Standing, now: Millis) -> Option<Response> {
    if !standing.exceeded {
        return None;
    }
    let wait = seconds(standing.retry_ms).max(1);
    let body = json!({
        "error": "Rate limit exceeded",
        "limit": window.limit,
        "window": in_words(window.window_ms / 1_000),
        "current": i64::from(window.limit) + 1,
        "retry_after_seconds": wait,
    });
    let (limit, reset) = (window.limit, seconds(now + standing.reset_ms));
    let headers = LimitHeaders { limit, remaining: 0, reset, daily_remaining: None };
    Some(refusal(&body, wait, headers))
}

fn in_words(seconds: u32) -> String {
    let (count, unit) = match seconds {
        s if s > 0 && s % 86_400 == 0 => (s / 86_400, "day"),
        s if s > 0 && s % 3_600 == 0 => (s / 3_600, "hour"),
        s if s > 0 && s % 60 == 0 => (s / 60, "minute"),
        s => (s, "second"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// The headers of a request that passes, or the refusal.
#[expect(clippy::result_large_err, reason = "the refusal is the answer itself, made once")]
pub fn render(budget: &Budget, judged: Judged, now: Millis) -> Result<LimitHeaders, Response> {
    let limit = budget.allowance.per_minute;
    let epoch = |in_ms: i64| seconds(now + in_ms);
    match judged {
        Judged::Pass { remaining, daily_remaining, reset_ms } => {
            Ok(LimitHeaders { limit, remaining, reset: epoch(reset_ms), daily_remaining })
        }
        Judged::TooMany { retry_ms, reset_ms } => {
            let wait = seconds(retry_ms).max(1);
            let body = json!({
                "error": "Rate limit exceeded",
                "limit": limit,
                "window": "1 minute",
                "current": i64::from(limit) + 1,
                "retry_after_seconds": wait,
            });
            let headers =
                LimitHeaders { limit, remaining: 0, reset: epoch(reset_ms), daily_remaining: None };
            Err(refusal(&body, wait, headers))
        }
        Judged::DayUsedUp { retry_ms } => {
            let daily = budget.allowance.per_day.unwrap_or(PER_DAY);
            let body = json!({
                "error": "Daily limit exceeded",
                "limit": daily,
                "current": i64::from(daily) + 1,
                "resets_at": "midnight UTC",
            });
            let headers = LimitHeaders {
                limit: daily,
                remaining: 0,
                reset: epoch(retry_ms),
                daily_remaining: Some(0),
            };
            Err(refusal(&body, seconds(retry_ms).max(1), headers))
        }
    }
}

fn refusal(body: &serde_json::Value, wait: i64, headers: LimitHeaders) -> Response {
    let mut response = plain(StatusCode::TOO_MANY_REQUESTS, body);
    response.headers_mut().insert(RETRY_AFTER, wait.into());
    headers.write(response.headers_mut());
    response
}

/// Whole seconds, rounded up.
fn seconds(ms: i64) -> i64 {
    (ms.max(0) + 999) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;
    use listmill_shared::domain::id::{AccountId, Ids, KeyId};

    fn key(rate_limit: Option<i64>) -> Key {
        let ids = Ids::seeded(1);
        let (id, account) = (KeyId::new(&ids, 1), AccountId::new(&ids, 1));
        let key = Key::new(id, account, String::from("VECabcde"), String::from("x"), 1);
        Key { rate_limit, ..key }
    }

    #[test]
    fn a_window_is_told_in_words() {
        for (seconds, words) in
            [(10, "10 seconds"), (60, "1 minute"), (7_200, "2 hours"), (86_400, "1 day")]
        {
            assert_eq!(in_words(seconds), words);
        }
    }

    #[test]
    fn budgets_by_route() {
        let of = |route, own| budget(route, &key(own), 1200, Factor::ONE);
        assert_eq!(of("/api/verify-single", Some(5)).allowance.per_minute, 60);
        assert_eq!(of("/api/get-results/{task_id}", None).allowance.per_minute, 120);
        assert_eq!(of("/api/verify-bulk", None).allowance.per_day, Some(10_000));
        assert_eq!(of("/v1/tasks", None).allowance, Allowance { per_minute: 1200, per_day: None });
        assert_eq!(of("/v1/keys", Some(5)).allowance.per_minute, 5);
        assert_eq!(of("/v1/tasks", None).bucket, of("/v1/keys", None).bucket);
        let (single, bulk) = (of("/api/verify-single", None), of("/api/verify-bulk", None));
        assert_ne!(single.bucket, bulk.bucket);
        let tight = |route, own| {
            budget(route, &key(own), 1200, Factor::from_thousandths(100)).allowance.per_minute
        };
        assert_eq!(tight("/api/verify-single", None), 6);
        assert_eq!([None, Some(5), Some(0)].map(|own| tight("/v1/tasks", own)), [120, 1, 0]);
    }

    #[test]
    fn a_refusal_says_when_to_come_back() {
        let budget = budget("/api/verify-single", &key(None), 1200, Factor::ONE);
        let judged = Judged::TooMany { retry_ms: 44_100, reset_ms: 60_000 };
        let response = render(&budget, judged, 1_000_000).unwrap_err();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["retry-after"], "45");
        assert_eq!(response.headers()["x-ratelimit-remaining"], "0");
        assert_eq!(response.headers()["x-ratelimit-reset"], "1060");
        let passing = Judged::Pass { remaining: 59, daily_remaining: Some(9_999), reset_ms: 1_000 };
        let mut headers = HeaderMap::new();
        render(&budget, passing, 0).unwrap().write(&mut headers);
        assert_eq!(headers["x-dailylimit-remaining"], "9999");
        assert_eq!(headers["x-ratelimit-remaining"], "59");
    }
}
