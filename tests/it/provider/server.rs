//! An HTTP service that does what a script says, and keeps what it was asked.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use listmill_tests::eventually;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

/// A request as the service sees it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    /// Path and query, as sent.
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
    /// From 1.
    pub number: usize,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Is somebody's address asked about, rather than the provider's probe?
    pub fn is_probe(&self) -> bool {
        self.path.contains("probe%40example.com") || self.body.contains("probe@example.com")
    }
}

/// What the service does.
pub enum Act {
    Say(u16, String),
    /// With one header.
    Head(u16, &'static str, String),
    /// Answers after a while.
    Late(Duration, u16, String),
    /// Never answers.
    Hang,
    /// Hangs up.
    Drop,
}

/// A JSON answer.
pub fn say(status: u16, body: impl Into<String>) -> Act {
    Act::Say(status, body.into())
}

#[derive(Default)]
pub struct Counts {
    pub seen: Mutex<Vec<Seen>>,
    /// Requests being answered, and the most that were at once.
    open: AtomicUsize,
    most_open: AtomicUsize,
}

/// A request under way; dropped when it is answered, or when the asker is gone.
struct Open(Arc<Counts>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, SeqCst);
    }
}

pub struct Upstream {
    pub address: SocketAddr,
    scheme: &'static str,
    counts: Arc<Counts>,
    _task: AbortOnDropHandle<()>,
}

impl Upstream {
    pub async fn start(script: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Self {
        Self::serve(script, None).await
    }

    /// The same over TLS.
    pub async fn encrypted(
        script: impl Fn(&Seen) -> Act + Send + Sync + 'static,
        tls: TlsAcceptor,
    ) -> Self {
        Self::serve(script, Some(tls)).await
    }

    async fn serve(
        script: impl Fn(&Seen) -> Act + Send + Sync + 'static,
        tls: Option<TlsAcceptor>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (counts, script) = (Arc::new(Counts::default()), Arc::new(script));
        let scheme = if tls.is_some() { "https" } else { "http" };
        let shared = counts.clone();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (counts, script) = (shared.clone(), script.clone());
                let service = service_fn(move |request| {
                    let (counts, script) = (counts.clone(), script.clone());
                    async move { answer(request, counts, &*script).await }
                });
                let tls = tls.clone();
                connections.spawn(async move {
                    let http = hyper::server::conn::http1::Builder::new();
                    match tls {
                        None => http.serve_connection(TokioIo::new(stream), service).await.ok(),
                        Some(tls) => {
                            let stream = tls.accept(stream).await.ok()?;
                            http.serve_connection(TokioIo::new(stream), service).await.ok()
                        }
                    }
                });
            }
        });
        Self { address, scheme, counts, _task: AbortOnDropHandle::new(task) }
    }

    pub fn base(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// What was asked about addresses; probes are not counted.
    pub fn seen(&self) -> Vec<Seen> {
        let seen = self.counts.seen.lock().expect("not poisoned");
        seen.iter().filter(|seen| !seen.is_probe()).cloned().collect()
    }

    pub fn asked(&self) -> usize {
        self.seen().len()
    }

    pub fn probes(&self) -> usize {
        let all = self.counts.seen.lock().expect("not poisoned").len();
        all - self.asked()
    }

    pub fn most_open(&self) -> usize {
        self.counts.most_open.load(SeqCst)
    }

    pub async fn wait_open(&self, count: usize) {
        let counts = &self.counts;
        eventually("requests under way", Duration::from_secs(10), || async move {
            (counts.open.load(SeqCst) == count).then_some(())
        })
        .await;
    }
}

async fn answer(
    request: Request<Incoming>,
    counts: Arc<Counts>,
    script: &(impl Fn(&Seen) -> Act + ?Sized),
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let now = counts.open.fetch_add(1, SeqCst) + 1;
    counts.most_open.fetch_max(now, SeqCst);
    let _open = Open(counts.clone());
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    let headers = head.headers.iter().map(|(name, value)| {
        (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    });
    let mut seen = Seen {
        method: head.method.to_string(),
        path: head.uri.to_string(),
        headers: headers.collect(),
        body: String::from_utf8_lossy(&body).into_owned(),
        number: 0,
    };
    {
        let mut all = counts.seen.lock().expect("not poisoned");
        seen.number = all.len() + 1;
        all.push(seen.clone());
    }
    let reply = Response::builder().header("content-type", "application/json");
    let full = |reply: hyper::http::response::Builder, body: String| {
        Ok(reply.body(Full::from(body)).expect("a response"))
    };
    match script(&seen) {
        Act::Say(status, body) => full(reply.status(status), body),
        Act::Head(status, name, value) => {
            full(reply.status(status).header(name, value), "{}".into())
        }
        Act::Late(pause, status, body) => {
            tokio::time::sleep(pause).await;
            full(reply.status(status), body)
        }
        Act::Drop => Err(std::io::Error::other("hung up")),
        Act::Hang => match std::future::pending::<Infallible>().await {},
    }
}
