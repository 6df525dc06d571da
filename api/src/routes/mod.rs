//! The routes, each described where it is handled.

pub mod account_events;
pub mod audit;
pub mod credits;
pub mod download;
pub mod events;
pub mod forward;
pub mod github;
pub mod keys;
pub mod legacy;
pub mod once;
pub mod report;
pub mod requests;
pub mod results;
pub mod submit;
pub mod tasks;
pub mod timeline;
pub mod usage;
pub mod verifications;

use axum::extract::Request;
use axum::http::header::ACCEPT;
use axum::http::{Method, StatusCode};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Router, response::Redirect};
use bytes::Bytes;
use listmill_shared::app::App;
use utoipa::OpenApi;
use utoipa::openapi::security::SecurityRequirement;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Api;
use crate::dashboard::favicon;
use crate::gate::gate;
use crate::health::{self, observe};
use crate::openapi::Document;
use crate::problem::{METHOD_NOT_ALLOWED, NOT_FOUND, Problem, plain};
use crate::request_id::{self, Source};
use crate::scopes::need;

/// Everything that the API process serves.
pub fn router(api: Api) -> Router {
    let (own, mut document) = own_routes().split_for_parts();
    let (shared, of_shared) = shared_routes().split_for_parts();
    let (seed, of_seed) = seed_routes().split_for_parts();
    let (health, of_health) = health_routes().split_for_parts();
    let (open, of_open) = open_routes().split_for_parts();
    document.merge(of_shared);
    document.merge(of_seed);
    document.merge(of_open);
    document.merge(of_health);
    document.merge(crate::v2::document());
    show_scopes(&mut document);
    // It is made of strings and numbers: there is nothing in it that cannot be written.
    let shown = serde_json::to_value(&document).unwrap_or_default();
    let text = Bytes::from(shown.to_string());
    // The gate stands before every method of a known route; an unknown route has no gate.
    let gate = from_fn_with_state(api.clone(), gate);
    let named = from_fn_with_state(Source::of(&api.app), request_id::name);
    let own = own.method_not_allowed_fallback(wrong_method).route_layer(gate.clone());
    let either = from_fn_with_state(api.clone(), account_events::key_or_session);
    let shared = shared.method_not_allowed_fallback(wrong_method).route_layer(either);
    let seed =
        seed.method_not_allowed_fallback(wrong_method).route_layer(gate).layer(from_fn(plain));
    Router::new()
        .merge(own)
        .merge(shared)
        .merge(seed)
        .merge(open.method_not_allowed_fallback(wrong_method))
        .with_state(api.clone())
        .merge(crate::v2::router(api.clone()))
        .merge(crate::dashboard::router(api.clone()))
        .merge(health.with_state(api.app.clone()))
        .merge(crate::dashboard::reference::router(api.clone(), &shown))
        .route("/openapi.json", get(move || async move { json(StatusCode::OK, text) }))
        .route("/", get(front_page))
        .route("/favicon.ico", get(|| async { Redirect::temporary(favicon()) }))
        .fallback(unknown_route)
        .layer(from_fn(observe))
        .layer(named)
}

/// Says at each operation which scope its key needs.
fn show_scopes(document: &mut utoipa::openapi::OpenApi) {
    for (path, item) in &mut document.paths.paths {
        if !path.starts_with("/v1/") && !path.starts_with("/api/") {
            continue;
        }
        let operations = [
            (Method::GET, &mut item.get),
            (Method::POST, &mut item.post),
            (Method::PATCH, &mut item.patch),
            (Method::PUT, &mut item.put),
            (Method::DELETE, &mut item.delete),
        ];
        for (method, operation) in operations {
            let (Some(operation), Some(scope)) = (operation, need(&method, path).scope) else {
                continue;
            };
            let scheme = |name: &str| SecurityRequirement::new(name, [scope.as_str()]);
            operation.security = Some(vec![scheme("bearer"), scheme("api_key")]);
        }
    }
}

/// The three pages of a worker process.
pub fn health_router(app: App) -> Router {
    let (router, _) = health_routes().split_for_parts();
    let named = from_fn_with_state(Source::of(&app), request_id::name);
    router.with_state(app).fallback(unknown_route).layer(from_fn(observe)).layer(named)
}

fn own_routes() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(submit::submit, tasks::list))
        .routes(routes!(tasks::show, tasks::erase))
        .routes(routes!(tasks::cancel))
        .routes(routes!(tasks::pause))
        .routes(routes!(tasks::resume))
        .routes(routes!(results::results))
        .routes(routes!(results::result))
        .routes(routes!(events::events))
        .routes(routes!(verifications::verify))
        .routes(routes!(credits::credits))
        .routes(routes!(credits::ledger))
        .routes(routes!(keys::create, keys::list))
        .routes(routes!(keys::end::several))
        .routes(routes!(keys::show, keys::update, keys::end::delete))
        .routes(routes!(keys::end::disable))
        .routes(routes!(keys::enable))
        .routes(routes!(keys::rotate::rotate))
        .routes(routes!(keys::end::show))
        .routes(routes!(keys::networks::list))
        .routes(routes!(audit::audit))
        .routes(routes!(requests::list))
        .routes(routes!(usage::usage))
        .routes(routes!(usage::of_key))
        .routes(routes!(forward::gate))
        // Proxies pass on the method, and one of them the path, that they were asked with.
        .route("/v1/gate", any(forward::gate))
        .route("/v1/gate/", any(forward::below))
        .route("/v1/gate/{*path}", any(forward::below))
}

/// A session of the dashboard opens these as well as a key.
fn shared_routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(account_events::account_events))
}

/// No gate stands before these: what they take is proof enough.
fn open_routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(report::report)).routes(routes!(once::show, once::open))
}

fn seed_routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(legacy::verify_single))
        .routes(routes!(legacy::verify_bulk))
        .routes(routes!(legacy::get_results))
}

fn health_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics_page))
}

/// Everybody begins at their tasks; who is not logged in is sent to log in.
async fn front_page() -> Redirect {
    Redirect::to("/tasks")
}

async fn unknown_route(request: Request) -> Response {
    let path = request.uri().path();
    let accept = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok());
    if accept.is_some_and(|kinds| kinds.contains("text/html")) && !path.starts_with("/api/") {
        return crate::dashboard::page::unknown();
    }
    let problem = Problem::new(NOT_FOUND, "The routes are listed at /docs.");
    if path.starts_with("/api/") { problem.into_plain() } else { problem.into_response() }
}

async fn wrong_method() -> Problem {
    Problem::new(METHOD_NOT_ALLOWED, "The header Allow lists the methods that it takes.")
}

/// An answer of JSON that was written already.
pub fn json(status: StatusCode, body: impl Into<axum::body::Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let kind = axum::http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(axum::http::header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Building the document walks every route and schema.
    #[test]
    fn the_document_holds_the_routes() {
        let (_, mut document) = own_routes().split_for_parts();
        document.merge(shared_routes().split_for_parts().1);
        document.merge(seed_routes().split_for_parts().1);
        document.merge(health_routes().split_for_parts().1);
        document.merge(open_routes().split_for_parts().1);
        document.merge(crate::v2::document());
        let document = serde_json::to_value(&document).unwrap();
        let has = |method: &str, path: &str| document["paths"][path].get(method).is_some();
        for (method, path) in [
            ("post", "/v1/tasks"),
            ("get", "/v1/tasks"),
            ("delete", "/v1/tasks/{id}"),
            ("get", "/v1/tasks/{id}/events"),
            ("get", "/v1/events"),
            ("post", "/v1/keys/{id}/disable"),
            ("post", "/v1/keys/report"),
            ("post", "/once/{token}"),
            ("get", "/v1/keys/{id}/networks"),
            ("get", "/v1/gate"),
            ("post", "/api/verify-bulk"),
            ("get", "/api/get-results/{task_id}"),
            ("get", "/readyz"),
            ("post", "/v2/keys.verifyKey"),
            ("get", "/v2/liveness"),
        ] {
            assert!(has(method, path), "{method} {path}");
        }
        for reference in references(&document) {
            let pointer = reference.trim_start_matches('#');
            assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
        }
    }

    fn references(value: &serde_json::Value) -> Vec<String> {
        match value {
            serde_json::Value::Object(map) => map
                .iter()
                .flat_map(|(name, value)| match value.as_str() {
                    Some(text) if name == "$ref" => vec![text.to_owned()],
                    _ => references(value),
                })
                .collect(),
            serde_json::Value::Array(list) => list.iter().flat_map(references).collect(),
            _ => Vec::new(),
        }
    }
}
