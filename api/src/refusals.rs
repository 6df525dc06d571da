//! How the gate says no: the same status and body on every route.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use listmill_shared::domain::key::Refusal;
use listmill_shared::domain::request::Outcome;
use serde_json::{Value, json};

/// The gate's word for a refusal, for metrics and the request log.
pub fn outcome(refusal: &Refusal) -> Outcome {
    match refusal {
        Refusal::IpBlocked => Outcome::IpBlocked,
        Refusal::Malformed => Outcome::Malformed,
        Refusal::Unknown => Outcome::Unknown,
        Refusal::Disabled => Outcome::Disabled,
        Refusal::Suspended(_) => Outcome::Suspended,
        // A key whose time has not come is as outside its life as one whose time is over.
        Refusal::Expired | Refusal::NotYet => Outcome::Expired,
        Refusal::NotAllowed(_) => Outcome::NotAllowed,
        Refusal::Scope(_) => Outcome::Scope,
        Refusal::CreditLimit(_) => Outcome::CreditLimit,
    }
}

/// Status and body of a refusal. `prefix`: what keys begin with.
pub fn body(prefix: &str, refusal: &Refusal) -> (StatusCode, Value) {
    const SUSPENDED: &str = "API key is suspended";
    const INACTIVE: &str = "Invalid or inactive API key";
    match refusal {
        Refusal::IpBlocked => (StatusCode::FORBIDDEN, json!({ "error": "Access denied" })),
        Refusal::Malformed => {
            let text = format!(
                "Missing or invalid Authorization header. Use: Authorization: Bearer {prefix}..."
            );
            (StatusCode::UNAUTHORIZED, json!({ "error": text }))
        }
        Refusal::Unknown => (StatusCode::UNAUTHORIZED, json!({ "error": INACTIVE })),
        Refusal::Disabled => (
            StatusCode::FORBIDDEN,
            json!({ "error": SUSPENDED, "reason": "This API key has been suspended" }),
        ),
        Refusal::Suspended(reason) => {
            (StatusCode::FORBIDDEN, json!({ "error": SUSPENDED, "reason": reason }))
        }
        Refusal::Expired => (
            StatusCode::UNAUTHORIZED,
            json!({ "error": INACTIVE, "reason": "This API key has expired" }),
        ),
        Refusal::NotYet => (
            StatusCode::UNAUTHORIZED,
            json!({ "error": INACTIVE, "reason": "This API key is not valid yet" }),
        ),
        Refusal::NotAllowed(from) => {
            let reason = match from {
                Some(ip) => format!("This API key may not be used from {ip}"),
                None => String::from("This API key may not be used from an unknown address"),
            };
            (StatusCode::FORBIDDEN, json!({ "error": "Access denied", "reason": reason }))
        }
        Refusal::Scope(scope) => {
            let reason = format!("This API key lacks the scope {scope}");
            (
                StatusCode::FORBIDDEN,
                json!({ "error": "Insufficient permissions", "reason": reason }),
            )
        }
        Refusal::CreditLimit(limit) => {
            let reason = format!("This API key has used up its own limit of {limit} credits");
            (StatusCode::FORBIDDEN, json!({ "error": "Usage limit exceeded", "reason": reason }))
        }
    }
}

/// An answer of the gate: the same JSON on every route.
pub fn plain(status: StatusCode, body: &Value) -> Response {
    let mut response = axum::Json(body).into_response();
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_what_the_contract_says() {
        let of = |refusal| body("VEC", &refusal);
        let (status, text) = of(Refusal::Malformed);
        assert_eq!(status, 401);
        assert_eq!(
            text["error"],
            "Missing or invalid Authorization header. Use: Authorization: Bearer VEC..."
        );
        let (status, text) = of(Refusal::Suspended(String::from("Abuse")));
        assert_eq!(status, 403);
        assert_eq!(text, json!({ "error": "API key is suspended", "reason": "Abuse" }));
        assert_eq!(of(Refusal::Unknown).1, json!({ "error": "Invalid or inactive API key" }));
        assert_eq!(of(Refusal::IpBlocked).0, 403);
        assert_eq!(of(Refusal::Expired).0, 401);
        assert_eq!(of(Refusal::Disabled).0, 403);
        let (status, text) = of(Refusal::NotAllowed(None));
        assert_eq!((status.as_u16(), &text["error"]), (403, &json!("Access denied")));
        let scope = listmill_shared::domain::key::Scope::TasksRead;
        let (status, text) = of(Refusal::Scope(scope));
        assert_eq!((status.as_u16(), &text["error"]), (403, &json!("Insufficient permissions")));
        assert_eq!(text["reason"], "This API key lacks the scope tasks:read");
        let (status, text) = of(Refusal::CreditLimit(5));
        assert_eq!((status.as_u16(), &text["error"]), (403, &json!("Usage limit exceeded")));
    }
}
