//! Which scope a route needs, and whether it spends: one table, which the gate goes by and the OpenAPI document
//! shows.

use axum::http::Method;
use listmill_shared::domain::key::Scope;

/// What a route asks of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// The scope; `None` = any key will do.
    pub scope: Option<Scope>,
    /// It spends credits, so the key's own limit must not be used up.
    pub spends: bool,
}

/// What a route, as it stands in the router, asks for. One that is not named here asks for the strongest scope,
/// so that a new route is closed to most keys until somebody thinks of it.
pub fn need(method: &Method, route: &str) -> Need {
    use Scope::{AccountRead, KeysRead, KeysWrite, TasksCancel, TasksRead, TasksWrite, Verify};
    // A wrong method is answered behind the gate; HEAD is GET.
    let read = matches!(*method, Method::GET | Method::HEAD);
    let (scope, spends) = match route {
        "/api/verify-single" | "/v1/verifications" => (Verify, true),
        "/api/verify-bulk" => (TasksWrite, true),
        "/api/get-results/{task_id}" => (TasksRead, false),
        "/v1/tasks" if !read => (TasksWrite, true),
        "/v1/tasks/{id}" if *method == Method::DELETE => (TasksWrite, false),
        "/v1/tasks/{id}/cancel" | "/v1/tasks/{id}/pause" | "/v1/tasks/{id}/resume" => {
            (TasksCancel, false)
        }
        route if route.starts_with("/v1/tasks") || route == "/v1/events" => (TasksRead, false),
        // No gate stands before it: the key that it is told of is proof enough.
        "/v1/keys/report" => return Need { scope: None, spends: false },
        route if route.starts_with("/v1/keys") => (if read { KeysRead } else { KeysWrite }, false),
        // Answers who the key is; a scope can be asked for there.
        route if route.starts_with("/v1/gate") => return Need { scope: None, spends: false },
        "/v1/account/credits"
        | "/v1/account/limits"
        | "/v1/ledger"
        | "/v1/usage"
        | "/v1/requests"
        | "/v1/audit" => (AccountRead, false),
        _ => (KeysWrite, false),
    };
    Need { scope: Some(scope), spends }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_need_their_scopes() {
        let of = |method: Method, route| need(&method, route).scope.map(Scope::as_str);
        assert_eq!(of(Method::POST, "/v1/tasks"), Some("tasks:write"));
        assert_eq!(of(Method::GET, "/v1/tasks"), Some("tasks:read"));
        assert_eq!(of(Method::HEAD, "/v1/tasks/{id}"), Some("tasks:read"));
        assert_eq!(of(Method::DELETE, "/v1/tasks/{id}"), Some("tasks:write"));
        assert_eq!(of(Method::POST, "/v1/tasks/{id}/cancel"), Some("tasks:cancel"));
        assert_eq!(of(Method::GET, "/v1/tasks/{id}/results"), Some("tasks:read"));
        assert_eq!(of(Method::POST, "/v1/keys/{id}/rotate"), Some("keys:write"));
        assert_eq!(of(Method::GET, "/v1/keys/{id}/receipt"), Some("keys:read"));
        assert_eq!(of(Method::GET, "/v1/ledger"), Some("account:read"));
        assert_eq!(of(Method::POST, "/v1/verifications"), Some("verify"));
        assert!(need(&Method::POST, "/v1/tasks").spends);
        assert!(!need(&Method::GET, "/v1/tasks").spends);
    }
}
