//! One address, in the request.

use std::sync::Arc;

use axum::extract::State;
use listmill_shared::app::verify::Keep;
use listmill_shared::store::results::Found;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::Api;
use crate::gate::Caller;
use crate::idempotency::{Answer, Done, Once, Place};
use crate::openapi::{Bad, Conflict, Gate, Poor};
use crate::problem::{EMAIL_REQUIRED, Problem};
use crate::view::{ResultView, to_json};

/// The address to verify.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(expecting = "an object with \"email\"")]
pub struct Verification {
    /// The address; white space around it is dropped.
    #[schema(required, example = "anna@example.com")]
    pub email: Option<String>,
}

impl Verification {
    /// The address, if one is there.
    pub fn email(self) -> Result<String, Problem> {
        self.email
            .filter(|email| !email.trim().is_empty())
            .ok_or_else(|| Problem::new(EMAIL_REQUIRED, EMAIL_REQUIRED.title))
    }
}

/// Verify one address
///
/// Answers when the verdict is there. Costs one credit, given back when the verdict is `unknown`;
/// broken syntax is free. `seq` is 0. With a test key the sandbox answers, for nothing.
#[utoipa::path(post, path = "/v1/verifications", tag = "verifications",
    params(("Idempotency-Key" = Option<String>, Header, description = "See the introduction.")),
    request_body = Verification,
    responses((status = 200, description = "The verdict.", body = ResultView<'static>),
        Bad, Poor, Conflict, Gate))]
pub async fn verify(State(api): State<Api>, caller: Caller, once: Once) -> Result<Done, Problem> {
    let email = once.json::<Verification>()?.email()?;
    let (app, provider, payer) = (api.app.clone(), Arc::clone(&api.provider), caller.payer());
    once.run(&api, &caller, move |Place { salt, request }| async move {
        let render = |found: &Found| to_json(&ResultView::new(found));
        let keep = request.as_ref().map(|request| Keep { request, salt: &salt, render: &render });
        let verified = app.verify(payer, &email, &*provider, keep).await?;
        Ok(Answer { kept: verified.kept, ..Answer::ok(render(&verified.found)) })
    })
    .await
}
