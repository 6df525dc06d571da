//! Reports of leaked keys, by anyone who found one.
//!
//! Nobody needs to log in: who sends a key has it. What is answered depends on the form of what was sent and
//! on nothing else, and so does the time it takes; whether there is such a key is not told. Blocked networks
//! are refused, each network has [`PER_MINUTE`] reports a minute at each process, and [`AT_ONCE`] reports
//! are read at once, so what strangers can make a process hold is bounded.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use ipnet::IpNet;
use listmill_shared::app::leaks::{Leak, answer_after};
use listmill_shared::domain::audit::{Actor, Origin};
use listmill_shared::domain::key::Secret;
use listmill_shared::domain::key_scan::mask;
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::github::{BadSignature, PublicKeys, Signed};
use crate::extract::{linger, read_body, require_json};
use crate::gate::stranger;
use crate::openapi::{Bad, Refusal, TooMany};
use crate::problem::{BAD_SIGNATURE, BODY_TOO_LARGE, INVALID_BODY, Problem, TOO_MANY_REPORTS};
use crate::refusals::plain;
use crate::request_id::RequestId;
use crate::{Api, ServeError, openapi};

/// Bytes of a report.
const MAX_BODY: usize = 256 * 1024;
/// Keys in a report.
const MOST: usize = 500;
/// Reports a minute of one network, also at once.
const PER_MINUTE: NonZeroU32 = NonZeroU32::new(60).unwrap();
/// Networks told apart; more share one budget until some have rested.
const NETWORKS: usize = 10_000;
/// Reports read and carried out at once.
const AT_ONCE: usize = 128;
/// The whole of a report must be there within this.
const PATIENCE: Duration = Duration::from_secs(10);

/// What bounds reports.
pub struct Reports {
    rates: DefaultKeyedRateLimiter<IpNet>,
    places: Semaphore,
    clock: DefaultClock,
}

impl Default for Reports {
    fn default() -> Self {
        Self {
            rates: RateLimiter::keyed(Quota::per_minute(PER_MINUTE)),
            places: Semaphore::new(AT_ONCE),
            clock: DefaultClock::default(),
        }
    }
}

impl Reports {
    /// Counts a report of this address; the seconds to wait when it is one too many.
    pub(super) fn judge(&self, caller: Option<IpAddr>) -> Result<(), u64> {
        if self.rates.len() > NETWORKS {
            self.rates.retain_recent();
        }
        let crowded = self.rates.len() > NETWORKS;
        let network = caller.filter(|_| !crowded).map_or_else(IpNet::default, network);
        self.rates.check_key(&network).map_err(|until| {
            let wait = until.wait_time_from(self.clock.now());
            wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
        })
    }
}

/// What counts as one network: an address, or what one customer of IPv6 has at least.
fn network(ip: IpAddr) -> IpNet {
    let bits = if ip.is_ipv4() { 32 } else { 64 };
    IpNet::new(ip, bits).map_or_else(|_| IpNet::from(ip), |network| network.trunc())
}

/// Can signatures be checked, if they are to be?
pub fn check(path: Option<&str>) -> Result<(), ServeError> {
    let Some(path) = path else { return Ok(()) };
    PublicKeys::load(Path::new(path))
        .map(|_| ())
        .map_err(|source| ServeError::GithubKeys { path: path.to_owned(), source })
}

/// A leaked key.
#[derive(Serialize, ToSchema)]
pub struct LeakedKey {
    /// The key.
    #[schema(example = "VECk7mpq…")]
    key: String,
    /// Where it was found.
    #[schema(example = "https://example.com/some/page")]
    url: Option<String>,
    /// In what kind of place.
    source: Option<String>,
}

/// A leaked key, as GitHub's secret scanning reports it.
#[derive(Serialize, ToSchema)]
pub struct LeakedToken {
    /// The key.
    token: String,
    /// What the reporter calls keys of this kind.
    #[serde(rename = "type")]
    kind: String,
    /// Where it was found.
    url: Option<String>,
    /// In what kind of place.
    source: Option<String>,
}

/// One key, or a list of up to 500.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it describes; nothing makes one")]
pub enum ReportRequest {
    One(LeakedKey),
    Several(Vec<LeakedKey>),
    Github(Vec<LeakedToken>),
}

/// What became of a report.
#[derive(Debug, Serialize, ToSchema)]
pub struct Reported {
    /// Entries of the report.
    reported: usize,
    /// Different ones that have the form of a key: it is certain that none of them opens anything from now on.
    ended: usize,
}

/// What became of a token that GitHub reported.
#[derive(Debug, Serialize, ToSchema)]
pub struct Judged {
    /// SHA-256 of the token, in hexadecimal digits.
    token_hash: String,
    /// The type that it was reported with.
    token_type: String,
    /// `true_positive` if it has the form of a key, checksum included; else `false_positive`, though it is looked
    /// up and ended all the same: it may have been brought from another system.
    label: &'static str,
}

#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it describes; nothing makes one")]
pub enum ReportAnswer {
    Ours(Reported),
    Github(Vec<Judged>),
}

/// Report a leaked key
///
/// Needs no login: who sends a key has it. When this has answered, no request that starts later passes
/// with it, on any server; it is suspended, with the reason "This key was reported as leaked". Its tasks
/// go on. A key of an api is suspended likewise: `keys.verifyKey` answers `DISABLED`. A root key is deleted. The answer does not tell whether there is such a key. GitHub's secret scanning may send its
/// reports here as they are; a report with its signature must verify.
#[utoipa::path(post, path = "/v1/keys/report", tag = "keys", security(()),
    params(("Github-Public-Key-Identifier" = Option<String>, Header, description = "Who signed."),
        ("Github-Public-Key-Signature" = Option<String>, Header,
            description = "ECDSA on P-256 with SHA-256 over the body, base64.")),
    request_body = ReportRequest,
    responses((status = 200, description = "None of these keys passes from now on.", body = ReportAnswer),
        (status = 403, description = "The caller's address is blocked, or the signature does not verify.",
            body = Refusal),
        (status = 413, description = "More than 256 KiB or 500 keys.", body = openapi::Problem,
            content_type = "application/problem+json"),
        (status = 429, description = "Too many reports from this network; see `Retry-After`.", body = TooMany),
        Bad))]
pub async fn report(State(api): State<Api>, request: Request) -> Result<Response, Problem> {
    let began = Instant::now();
    let (parts, body) = request.into_parts();
    let caller = match stranger(&api, &parts).await {
        Ok(caller) => caller,
        Err(refusal) => {
            linger(body).await;
            return Ok(refusal);
        }
    };
    if api.app.settings.rate_limits
        && let Err(wait) = api.reports.judge(caller)
    {
        linger(body).await;
        return Ok(too_many(wait));
    }
    let _place = api.reports.places.try_acquire().map_err(|_| {
        Problem::new(TOO_MANY_REPORTS, "Please send this one again in a moment.").retry_after(2)
    })?;
    require_json(&parts.headers)?;
    let signed = Signed::of(&parts.headers).map_err(refused)?;
    let body = read(body).await?;
    if let Some(signed) = signed {
        verify(&api, signed, body.clone()).await?;
    }
    let prefix = &api.app.settings.key_prefix;
    let report = Report::read(prefix, &body)?;
    let answer = report.answer;
    let request_id = parts.extensions.get::<RequestId>().map(|id| id.as_str().to_owned());
    let by = Origin { actor: Actor::System, ip: caller, request_id };
    let app = api.app.clone();
    // A reporter that hangs up leaves no report half carried out.
    let ended = tokio::spawn(async move { app.end_leaked(report.leaks, &by).await }).await;
    let ended = ended.map_err(|error| {
        tracing::error!(%error, "a report of leaked keys was not carried out; answered 500");
        Problem::internal()
    })??;
    tokio::time::sleep_until(began + answer_after(ended.all)).await;
    let ended = ended.formed;
    Ok(match answer {
        Answer::Ours { reported } => axum::Json(Reported { reported, ended }).into_response(),
        Answer::Github(judged) => axum::Json(judged).into_response(),
    })
}

/// Reads the body, without holding more of it than a report may have.
async fn read(body: Body) -> Result<Bytes, Problem> {
    let too_large = || {
        let detail = format!("A report may have up to {MAX_BODY} bytes and {MOST} keys.");
        Problem::new(BODY_TOO_LARGE, detail)
    };
    if body.size_hint().lower() > MAX_BODY as u64 {
        linger(body).await;
        return Err(too_large());
    }
    let body = read_body(body, PATIENCE).await?;
    if body.len() > MAX_BODY { Err(too_large()) } else { Ok(body) }
}

pub(super) fn too_many(wait: u64) -> Response {
    let limit = PER_MINUTE.get();
    let mut response = plain(
        StatusCode::TOO_MANY_REQUESTS,
        &json!({
            "error": "Rate limit exceeded",
            "limit": limit,
            "window": "1 minute",
            "current": limit + 1,
            "retry_after_seconds": wait,
        }),
    );
    response.headers_mut().insert(RETRY_AFTER, wait.into());
    response
}

fn refused(bad: BadSignature) -> Problem {
    tracing::warn!(%bad, "a signed report of leaked keys was refused");
    Problem::new(BAD_SIGNATURE, bad.to_string())
}

/// Holds the signature against the keys of the file, as they are now.
async fn verify(api: &Api, signed: Signed, body: Bytes) -> Result<(), Problem> {
    let Some(path) = api.app.settings.github_keys_file.clone() else {
        tracing::warn!("a signed report of leaked keys was refused: github_keys_file is not set");
        return Err(Problem::new(BAD_SIGNATURE, "Signed reports are not taken here."));
    };
    let verified = tokio::task::spawn_blocking(move || match PublicKeys::load(Path::new(&path)) {
        Ok(keys) => signed.verify(&keys, &body).map_err(refused),
        Err(error) => {
            tracing::error!(%error, path, "github_keys_file cannot be used; answered 503");
            let detail = "The signature cannot be checked for the moment.";
            Err(Problem::new(crate::problem::UNAVAILABLE, detail).retry_after(60))
        }
    });
    verified.await.unwrap_or_else(|error| {
        tracing::error!(%error, "a signature was not checked; answered 500");
        Err(Problem::internal())
    })
}

/// A report, read.
struct Report {
    leaks: Vec<Leak>,
    answer: Answer,
}

enum Answer {
    Ours { reported: usize },
    Github(Vec<Judged>),
}

impl Report {
    /// Faults are told by place, never with what stands there: that may be a key.
    fn read(prefix: &str, body: &[u8]) -> Result<Self, Problem> {
        let entries = match serde_json::from_slice(body)? {
            Value::Array(entries) => entries,
            one @ Value::Object(_) if one.get("key").is_some() => vec![one],
            _ => return Err(wrong("Send {\"key\": …}, a list of these, or GitHub's list.")),
        };
        if entries.len() > MOST {
            let detail =
                format!("A report may have up to {MOST} keys; these are {}.", entries.len());
            return Err(Problem::new(BODY_TOO_LARGE, detail));
        }
        let github =
            !entries.is_empty() && entries.iter().all(|entry| entry.get("token").is_some());
        let field = if github { "token" } else { "key" };
        let reported = entries.len();
        let (mut leaks, mut judged) = (Vec::new(), Vec::new());
        for (at, entry) in entries.iter().enumerate() {
            let text = entry.get(field).and_then(Value::as_str);
            let text = text
                .ok_or_else(|| wrong(&format!("Entry {} has no text in \"{field}\".", at + 1)))?;
            let key = text.trim();
            let formed = Secret::parse(prefix, key).is_ok() || Secret::is_shaped(key);
            if github {
                judged.push(Judged::new(prefix, text, entry, formed));
            }
            let place = |name| entry.get(name).and_then(Value::as_str).map(str::to_owned);
            let leak = |secret| Leak { secret, formed, url: place("url"), source: place("source") };
            leaks.extend(Secret::foreign(key).map(leak));
        }
        let answer = if github { Answer::Github(judged) } else { Answer::Ours { reported } };
        Ok(Self { leaks, answer })
    }
}

impl Judged {
    fn new(prefix: &str, token: &str, entry: &Value, is_key: bool) -> Self {
        let digest = Sha256::digest(token.as_bytes());
        let kind = entry.get("type").and_then(Value::as_str).unwrap_or_default();
        Self {
            token_hash: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
            token_type: mask(prefix, kind).into_owned(),
            label: if is_key { "true_positive" } else { "false_positive" },
        }
    }
}

fn wrong(detail: &str) -> Problem {
    Problem::new(INVALID_BODY, detail.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use listmill_shared::domain::id::Ids;

    fn key(seed: u64) -> String {
        Secret::generate("VEC", &Ids::seeded(seed)).reveal().to_owned()
    }

    fn read(body: &Value) -> Result<Report, Problem> {
        Report::read("VEC", body.to_string().as_bytes())
    }

    #[test]
    fn one_key_or_a_list_of_them() {
        let (one, two) = (key(1), key(2));
        let report = read(&json!({ "key": one, "url": "https://example.com" })).unwrap();
        assert!(matches!(report.answer, Answer::Ours { reported: 1 }));
        assert_eq!(report.leaks[0].url.as_deref(), Some("https://example.com"));
        let list = json!([{ "key": one }, { "key": "VECnot" }, { "key": format!(" {two}\n") }]);
        let report = read(&list).unwrap();
        assert!(matches!(report.answer, Answer::Ours { reported: 3 }));
        let formed: Vec<&str> = report
            .leaks
            .iter()
            .filter(|leak| leak.formed)
            .map(|leak| leak.secret.reveal())
            .collect();
        assert_eq!((formed, report.leaks.len()), (vec![one.as_str(), two.as_str()], 3));
        let foreign =
            ["x".repeat(513), String::from("a b"), String::new()].map(|key| json!({ "key": key }));
        assert!(read(&json!(foreign)).unwrap().leaks.is_empty(), "that can be nobody's key");
    }

    #[test]
    fn the_list_of_github_is_judged_one_by_one() {
        let one = key(1);
        let list = json!([
            { "token": one, "type": "listmill_key", "url": "", "source": "commit" },
            { "token": "NMIfyYncKcRALEXAMPLE", "type": "listmill_key" },
        ]);
        let report = read(&list).unwrap();
        let formed: Vec<bool> = report.leaks.iter().map(|leak| leak.formed).collect();
        assert_eq!(formed, [true, false]);
        let Answer::Github(judged) = report.answer else { panic!("another form") };
        assert_eq!(judged.len(), 2);
        assert_eq!((judged[0].label, judged[1].label), ("true_positive", "false_positive"));
        let hash = Secret::parse("VEC", &one).unwrap().hash();
        let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(judged[0].token_hash, hash);
        assert!(!serde_json::to_string(&judged).unwrap().contains(&one));
    }

    #[test]
    fn what_is_wrong_is_told_without_the_key() {
        let one = key(1);
        for body in [
            json!(one),
            json!({ "keys": [one] }),
            json!([one]),
            json!([{ "key": [one] }]),
            json!([{ "key": one }, { "token": one }]),
            json!([{ "token": { "x": one } }]),
        ] {
            let problem = read(&body).map(|_| ()).unwrap_err();
            assert_eq!(problem.status(), 400);
            assert!(!problem.json().contains(&one[3..]), "{body}");
        }
        let text = format!("{{\"key\": {one}}}");
        let problem = Report::read("VEC", text.as_bytes()).map(|_| ()).unwrap_err();
        assert!(!problem.json().contains(&one[3..]));
        let many = Value::Array(vec![json!({ "key": "x" }); MOST + 1]);
        assert_eq!(read(&many).map(|_| ()).unwrap_err().status(), 413);
        assert!(read(&Value::Array(vec![json!({ "key": "x" }); MOST])).is_ok());
    }

    #[test]
    fn a_network_has_sixty_reports_a_minute_for_itself() {
        let reports = Reports::default();
        let judge = |ip: &str| reports.judge(Some(ip.parse().unwrap()));
        for _ in 0..60 {
            assert_eq!(judge("2001:db8::1"), Ok(()));
        }
        assert_eq!(judge("2001:db8::2"), Err(1));
        assert_eq!(judge("2001:db8:0:1::1"), Ok(()));
        assert_eq!(judge("192.0.2.1"), Ok(()));
    }

    #[test]
    fn a_crowd_of_networks_takes_no_more_room() {
        let reports = Reports::default();
        for number in 0..2 * NETWORKS as u32 {
            let _ = reports.judge(Some(IpAddr::from(number.to_be_bytes())));
        }
        assert!(reports.rates.len() <= NETWORKS + 2, "{}", reports.rates.len());
    }
}
