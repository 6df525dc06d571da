//! The three pages that operators poll, and what is measured of every request.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use listmill_shared::app::App;
use listmill_shared::app::health::Held;
use listmill_shared::queue::Queue;
use listmill_shared::store::sessions::Health;
use serde::Serialize;
use utoipa::ToSchema;

use crate::problem::Problem;
use crate::render_metrics;

/// Name of the latency histogram.
pub const LATENCY: &str = "listmill_http_request_duration_seconds";
const REQUESTS: &str = "listmill_http_requests_total";

/// How long a part may take to say that it is there.
const PATIENCE: Duration = Duration::from_secs(2);

/// Says what the numbers mean, and that this process is here.
pub fn describe_metrics() {
    metrics::describe_counter!(REQUESTS, "Requests by method, route and class of status.");
    metrics::describe_histogram!(LATENCY, "Seconds from request to answer, by method and route.");
    metrics::describe_counter!(
        "listmill_gate_refusals_total",
        "Requests that the gate turned away, by reason."
    );
    metrics::describe_counter!(
        "listmill_key_verifications_total",
        "Keys of apis that were verified, by what was answered."
    );
    metrics::describe_gauge!(
        "listmill_limits_alone",
        "1 while Redis is away and this process counts alone, by what it counts."
    );
    metrics::describe_gauge!(
        "listmill_stuck_seconds",
        "Seconds without progress of the part that has been stuck longest; 0 = none."
    );
    metrics::describe_gauge!(
        "listmill_blocking_sessions",
        "Database sessions that others of ours wait for."
    );
    metrics::describe_gauge!(
        "listmill_clock_offset_seconds",
        "Seconds that this machine's clock is behind the database's; negative: ahead."
    );
    metrics::describe_counter!("listmill_leases_lost_total", "Leases that were taken over.");
    metrics::describe_counter!(
        "listmill_request_log_lost_total",
        "Decisions of the gate that could not be logged, by why; neither in the log nor in the usage."
    );
    metrics::describe_counter!(
        "listmill_request_log_left_out_total",
        "Accepted calls that are counted in the usage and have no row in the request log."
    );
    metrics::describe_gauge!(
        "listmill_request_log_waiting",
        "Decisions of the gate that wait to be logged."
    );
    metrics::describe_counter!(
        listmill_shared::mail::COUNTED,
        "Mails of our own: sent, retried, given up, or lost as there was no room, by outcome."
    );
    metrics::describe_gauge!("listmill_build_info", "1, labelled with the version.");
    metrics::gauge!("listmill_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

/// What is there.
#[derive(Debug, Serialize, ToSchema)]
pub struct Readiness {
    /// `ready`, or `unavailable` (503).
    #[schema(example = "ready")]
    status: &'static str,
    /// `ok`, `away`, `read_only` or `full`; left out when all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    database: Option<&'static str>,
    /// `ok` or `away`; left out when all is well, and where there is no Redis.
    #[serde(skip_serializing_if = "Option::is_none")]
    redis: Option<&'static str>,
    /// Parts of this process that do not get on, longest first; left out when there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stuck: Vec<StuckPart>,
}

/// A part of the process that does not get on, though others may.
#[derive(Debug, Serialize, ToSchema)]
pub struct StuckPart {
    /// `settle`, `lease`, `renew`, `dispatch` or `sweep`.
    #[schema(example = "settle")]
    part: &'static str,
    /// What it is about: an account, a task, a kind of repair.
    about: String,
    /// For how long.
    seconds: f64,
}

/// Is the process up?
///
/// Asks nobody else: a failing database is no reason to restart the process.
#[utoipa::path(get, path = "/healthz", tag = "operations", security(()),
    responses((status = 200, description = "Yes.", body = String, content_type = "text/plain")))]
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// Can it serve?
///
/// Asks the database (that of an embedded deployment is written to) and, where one is set, Redis; each gets
/// two seconds. `stuck` names parts that do not get on while others do, and is no reason for 503.
#[utoipa::path(get, path = "/readyz", tag = "operations", security(()),
    responses(
        (status = 200, description = "Yes.", body = Readiness),
        (status = 503, description = "No; the body says what is away.", body = Readiness),
    ))]
pub async fn readyz(State(app): State<App>) -> Response {
    let database = tokio::time::timeout(PATIENCE, app.database_health());
    let redis = tokio::time::timeout(PATIENCE, app.queue.ping());
    let (database, redis) = tokio::join!(database, redis);
    let (database, redis) = (database.unwrap_or(Health::Away), matches!(redis, Ok(Ok(()))));
    let part = |held: Held| StuckPart {
        part: held.part,
        about: held.about,
        seconds: held.for_ms as f64 / 1_000.0,
    };
    let stuck: Vec<StuckPart> = app.stuck.held(app.now()).into_iter().map(part).collect();
    if database == Health::Ok && redis {
        let ready = Readiness { status: "ready", database: None, redis: None, stuck };
        return axum::Json(ready).into_response();
    }
    let word = if redis { "ok" } else { "away" };
    let away = Readiness {
        status: "unavailable",
        database: Some(database.as_str()),
        redis: matches!(app.queue, Queue::Redis(_)).then_some(word),
        stuck,
    };
    (StatusCode::SERVICE_UNAVAILABLE, axum::Json(away)).into_response()
}

/// What the process has counted, in the text format of Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "operations", security(()),
    responses((status = 200, description = "The numbers.", body = String, content_type = "text/plain")))]
pub async fn metrics_page() -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, render_metrics()).into_response()
}

/// Middleware of every route: measures, and turns a panic into an answer.
pub async fn observe(request: Request, next: Next) -> Response {
    let start = Instant::now();
    let method = method_name(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let under_api = request.uri().path().starts_with("/api/");
    let answered = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    let response = answered.unwrap_or_else(|_| {
        // The panic hook has told where.
        tracing::error!(method, route, "handler panicked; answered 500");
        let problem = Problem::internal();
        if under_api { problem.into_plain() } else { problem.into_response() }
    });
    let class = match response.status().as_u16() {
        100..=199 => "1xx",
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        _ => "5xx",
    };
    let route = route.to_owned();
    metrics::counter!(REQUESTS, "method" => method, "route" => route.clone(), "status" => class)
        .increment(1);
    metrics::histogram!(LATENCY, "method" => method, "route" => route).record(start.elapsed());
    response
}

/// Few names, whatever callers make up.
pub fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
