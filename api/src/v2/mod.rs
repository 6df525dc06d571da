//! The key service under `/v2`: routes, fields and errors as the public API of Unkey has them, version 2, so that
//! its published clients work when they are pointed here. `docs/UNKEY.md` says what is offered.
//!
//! A request passes [`root::gate`], which judges its root key on the state of this moment. Handlers answer
//! [`answer::Data`] or a [`Problem`]; [`answer::shape`] writes either in the words of that API, so that no body of
//! `/v1` appears under `/v2`.

mod answer;
mod apis;
pub(crate) mod describe;
mod fields;
mod keys;
pub(crate) mod root;
mod verify;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{any, post};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::answer::{Data, shape};
use self::describe::ServiceAnswer;
use crate::Api;
use crate::problem::{METHOD_NOT_ALLOWED, NOT_FOUND, NOT_OFFERED, Problem};

/// Methods of that API that are not offered.
#[rustfmt::skip]
const NOT_OFFERED_YET: &[&str] = &[
    "keys.addPermissions", "keys.removePermissions", "keys.setPermissions", "keys.addRoles",
    "keys.removeRoles", "keys.setRoles", "keys.migrateKeys",
    "identities.createIdentity", "identities.getIdentity", "identities.listIdentities",
    "identities.updateIdentity", "identities.deleteIdentity",
    "permissions.createPermission", "permissions.getPermission", "permissions.listPermissions",
    "permissions.updatePermission", "permissions.deletePermission", "permissions.createRole",
    "permissions.getRole", "permissions.listRoles", "permissions.updateRole", "permissions.deleteRole",
    "permissions.setRolePermissions",
    "ratelimit.limit", "ratelimit.multiLimit", "ratelimit.setOverride", "ratelimit.getOverride",
    "ratelimit.listOverrides", "ratelimit.deleteOverride",
    "analytics.getVerifications", "analytics.getRatelimits", "analytics.getGatewayRequests",
    "analytics.getRuntimeLogs",
    "portal.createSession", "portal.exchangeCode", "portal.listKeys", "portal.rerollKey",
    "portal.getVerifications", "portal.createPortal", "portal.updatePortal", "portal.getPortal",
    "portal.deletePortal", "portal.listSessions", "portal.revokeSession",
    "rootKeys.createKey", "rootKeys.listKeys", "rootKeys.updateKey", "rootKeys.rerollKey",
    "rootKeys.deleteKey", "workspace.getLimits", "workspace.getUsage",
    "apps.createApp", "apps.deleteApp", "apps.getApp", "apps.listApps", "apps.updateApp",
    "deploy.createDeployment", "deploy.getDeployment",
    "deployments.createDeployment", "deployments.getDeployment", "deployments.listDeployments",
    "deployments.promoteDeployment", "deployments.rollbackDeployment", "deployments.startDeployment",
    "deployments.stopDeployment",
    "domains.createDomain", "domains.deleteDomain", "domains.getDomain", "domains.listDomains",
    "domains.verifyDomain",
    "environments.getEnvironment", "environments.listEnvironmentVariables",
    "environments.listEnvironments", "environments.removeEnvironmentVariables",
    "environments.setEnvironmentVariables", "environments.updateSettings",
    "gateway.listPolicies", "gateway.setPolicies", "gateway.updatePolicy", "github.installApp",
    "projects.createProject", "projects.deleteProject", "projects.getProject", "projects.listProjects",
    "projects.updateProject",
];

/// Everything under `/v2`.
pub fn router(api: Api) -> Router {
    let (mut known, _) = known_routes().split_for_parts();
    for name in NOT_OFFERED_YET {
        known = known.route(&format!("/v2/{name}"), post(not_offered));
    }
    let known = known
        .method_not_allowed_fallback(wrong_method)
        .route_layer(from_fn_with_state(api.clone(), root::gate));
    let (open, _) = open_routes().split_for_parts();
    let open = open
        .method_not_allowed_fallback(wrong_method)
        .route("/v2", any(unknown))
        .route("/v2/", any(unknown))
        .route("/v2/{*rest}", any(unknown));
    known.merge(open).layer(from_fn(shape)).with_state(api)
}

/// What the OpenAPI document says of them.
pub fn document() -> OpenApi {
    let (_, mut document) = known_routes().split_for_parts();
    document.merge(open_routes().split_for_parts().1);
    document
}

/// What needs a root key.
fn known_routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(keys::create))
        .routes(routes!(keys::get))
        .routes(routes!(keys::update))
        .routes(routes!(keys::delete))
        .routes(routes!(keys::reroll))
        .routes(routes!(keys::update_credits))
        .routes(routes!(keys::whoami))
        .routes(routes!(verify::verify))
        .routes(routes!(apis::create))
        .routes(routes!(apis::get))
        .routes(routes!(apis::delete))
        .routes(routes!(apis::list_keys))
}

fn open_routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(liveness))
}

async fn not_offered() -> Problem {
    let detail = "This server does not offer that method yet. What it offers: docs/UNKEY.md.";
    Problem::new(NOT_OFFERED, detail)
}

async fn unknown() -> Problem {
    Problem::new(NOT_FOUND, "There is no such method. What is offered: docs/UNKEY.md.")
}

async fn wrong_method() -> Problem {
    Problem::new(METHOD_NOT_ALLOWED, "Every method is a POST, /v2/liveness a GET.")
}

/// That the service is there.
#[derive(Serialize, ToSchema)]
#[schema(as = ServiceAlive)]
struct Alive {
    #[schema(example = "OK")]
    message: &'static str,
}

/// Ask whether the service is there
///
/// Needs no key.
#[utoipa::path(get, path = "/v2/liveness", operation_id = "liveness", tag = "key service", security(()),
    responses((status = 200, description = "It is.", body = ServiceAnswer<Alive>)))]
async fn liveness() -> Data {
    Data::new(&Alive { message: "OK" })
}
