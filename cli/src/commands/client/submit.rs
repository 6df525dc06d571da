//! Sends a list. Every try of one submission has the same Idempotency-Key, so however often a connection breaks,
//! the server makes one task of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Body, Method, Response};
use serde_json::Value;

use super::fault::Fault;
use super::server::{Server, Tries};
use super::source::Source;
use crate::output::{Output, Progress};

/// The server may take so long between two pieces, and to answer after the last one.
const PATIENCE: Duration = Duration::from_secs(600);
/// How often is looked whether it still takes some.
const LOOK: Duration = Duration::from_millis(200);
/// A shorter list needs no progress.
const LONG: u64 = 8 << 20;

/// What is asked of a submission.
#[derive(Default)]
pub struct Wanted {
    /// What the query says.
    pub query: Vec<(&'static str, String)>,
    /// The same for every try.
    pub idempotency_key: String,
}

/// The task, or what the list would come to.
pub async fn send(
    server: &Server,
    out: &Output,
    source: &Source,
    wanted: &Wanted,
) -> Result<Value> {
    let mut tries = Tries::of_submission();
    let mut told = (source.length >= LONG).then(|| {
        out.aside().progress(&format!("{}: sending", source.name), source.length, "bytes")
    });
    let answer = loop {
        let answered = match once(server, source, wanted, told.as_mut()).await? {
            Ok(response) => server.value(response).await,
            Err(fault) => Err(fault),
        };
        match answered {
            Ok(answer) => break answer,
            Err(fault) => tries.again(fault).await.map_err(|fault| explain(fault, wanted))?,
        }
    };
    if let Some(bar) = told {
        bar.finish();
    }
    Ok(answer)
}

/// One try; an error is of our own list, a fault of the way.
async fn once(
    server: &Server,
    source: &Source,
    wanted: &Wanted,
    mut told: Option<&mut Progress>,
) -> Result<Result<Response, Fault>> {
    let sent = Arc::new(AtomicU64::new(0));
    let request = server
        .request(Method::POST, "/v1/tasks", &wanted.query)
        .header(CONTENT_TYPE, source.kind)
        .header("idempotency-key", &wanted.idempotency_key);
    let patience = server.patience(PATIENCE);
    let mut sending = std::pin::pin!(
        // It watches over itself, piece by piece.
        server.once(Duration::MAX, request.body(Body::wrap_stream(source.bytes(sent.clone())?)))
    );
    let (mut seen, mut news) = (0, Instant::now());
    loop {
        tokio::select! {
            answered = &mut sending => return Ok(answered),
            () = tokio::time::sleep(LOOK) => {}
        }
        let now = sent.load(Ordering::Relaxed);
        if now != seen {
            (seen, news) = (now, Instant::now());
        } else if news.elapsed() > patience {
            return Ok(Err(server.silent(patience)));
        }
        if let Some(bar) = &mut told {
            bar.set(now.min(source.length));
        }
    }
}

/// What to do about it, where that is known.
fn explain(fault: Fault, wanted: &Wanted) -> anyhow::Error {
    let key = &wanted.idempotency_key;
    match &fault {
        Fault::Broken { .. } | Fault::Silent { .. } => anyhow!(
            "{fault}. Whether the list was submitted is not known; the same command with \
             --idempotency-key {key} submits it once"
        ),
        Fault::Refused(refusal) => match refusal.code.as_deref() {
            Some("insufficient_credits") => {
                anyhow!("{fault}; --allow-partial begins with what there is")
            }
            _ => fault.into(),
        },
        _ => fault.into(),
    }
}
