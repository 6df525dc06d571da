//! The API as a holder of one key sees it.
//!
//! Requests take the API processes in turn, so that whatever one process keeps to itself is
//! missed by the next request.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::{Stream, StreamExt};
use reqwest::{Body, Method, RequestBuilder};
use serde_json::{Value, json};

use crate::poll::eventually;
use crate::reply::Reply;
use crate::task::Task;

#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    bases: Arc<Vec<String>>,
    next: Arc<AtomicUsize>,
    key: Option<String>,
    patient: bool,
}

impl Client {
    pub fn new(bases: Vec<String>, key: Option<&str>) -> Self {
        let http = http().timeout(Duration::from_secs(120));
        // A server that is stopped for a minute is not given up by the system in between.
        #[cfg(target_os = "linux")]
        let http = http.tcp_user_timeout(None::<Duration>);
        Self {
            http: http.build().expect("a client"),
            bases: Arc::new(bases),
            next: Arc::default(),
            key: key.map(str::to_owned),
            patient: false,
        }
    }

    /// Polls go on through 503 and broken connections: a server is away on purpose.
    pub fn patient(mut self) -> Self {
        self.patient = true;
        self
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.bases.len();
        let request = self.http.request(method, format!("{}{path}", self.bases[turn]));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    pub async fn get(&self, path: &str) -> Reply {
        send(self.request(Method::GET, path)).await
    }

    pub async fn try_get(&self, path: &str) -> Result<Reply, reqwest::Error> {
        try_send(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        send(self.request(Method::POST, path).json(body)).await
    }

    pub async fn post_empty(&self, path: &str) -> Reply {
        send(self.request(Method::POST, path)).await
    }

    pub async fn post_bytes(&self, path: &str, kind: &str, body: impl Into<Body>) -> Reply {
        let request = self.request(Method::POST, path).header("content-type", kind).body(body);
        send(request).await
    }

    /// Sends what will be refused. A server may hang up on a sender that still sends, and the
    /// hang-up may overtake the answer; a few tries get to see it.
    pub async fn post_refused(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        const TRIES: usize = 5;
        let mut lost = None;
        for _ in 0..TRIES {
            let mut request = self.request(Method::POST, path);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            match try_send(request.body(body.to_vec())).await {
                Ok(reply) => return reply,
                Err(error) => lost = Some(error),
            }
        }
        panic!("no answer in {TRIES} tries: {lost:?}");
    }

    pub async fn delete(&self, path: &str) -> Reply {
        send(self.request(Method::DELETE, path)).await
    }

    /// A streamed body: the list is never in the test's memory as a whole.
    pub async fn post_stream<S>(&self, path: &str, kind: &str, stream: S) -> Reply
    where
        S: Stream<Item = std::io::Result<Vec<u8>>> + Send + 'static,
    {
        let request = self.request(Method::POST, path).header("content-type", kind);
        let patience = Duration::from_secs(300);
        send(request.timeout(patience).body(Body::wrap_stream(stream))).await
    }

    pub async fn submit<A: AsRef<str>>(&self, emails: &[A]) -> Task {
        let emails: Vec<&str> = emails.iter().map(AsRef::as_ref).collect();
        self.submit_json(&json!({ "name": "list", "emails": emails })).await
    }

    pub async fn submit_json(&self, body: &Value) -> Task {
        created(&self.post("/v1/tasks", body).await)
    }

    pub async fn submit_csv(&self, csv: &str) -> Task {
        created(&self.post_bytes("/v1/tasks?name=list", "text/csv", csv.to_owned()).await)
    }

    pub async fn submit_stream<S>(&self, kind: &str, stream: S) -> Task
    where
        S: Stream<Item = std::io::Result<Vec<u8>>> + Send + 'static,
    {
        created(&self.post_stream("/v1/tasks?name=list", kind, stream).await)
    }

    pub async fn task(&self, id: &str) -> Task {
        parse(&self.get(&format!("/v1/tasks/{id}")).await.expect(200).json())
    }

    async fn poll(&self, id: &str) -> Option<Task> {
        let path = format!("/v1/tasks/{id}");
        if !self.patient {
            return Some(self.task(id).await);
        }
        let request = self.request(Method::GET, &path).timeout(Duration::from_secs(5));
        let reply = try_send(request).await.ok().filter(|reply| reply.status != 503)?;
        Some(parse(&reply.expect(200).json()))
    }

    /// Polls until `condition` holds; a task that ended otherwise fails at once.
    pub async fn wait_until<F>(&self, id: &str, what: &str, limit: Duration, condition: F) -> Task
    where
        F: Fn(&Task) -> bool,
    {
        let condition = &condition;
        eventually(&format!("task: {what}"), limit, || async move {
            let task = self.poll(id).await?;
            if condition(&task) {
                return Some(task);
            }
            assert!(!task.has_ended(), "waited for: {what}; the task ended as {task:#?}");
            None
        })
        .await
    }

    pub async fn wait_for(&self, id: &str, status: &str, limit: Duration) -> Task {
        self.wait_until(id, status, limit, |task| task.status == status).await
    }

    pub async fn wait_completed(&self, id: &str) -> Task {
        self.wait_for(id, "completed", Duration::from_secs(60)).await
    }

    /// All pages, in the order in which they come.
    pub async fn results(&self, id: &str) -> Vec<Value> {
        self.all_pages(&format!("/v1/tasks/{id}/results"), 10_000).await
    }

    pub async fn results_with(&self, id: &str, filter: &str) -> Vec<Value> {
        self.all_pages(&format!("/v1/tasks/{id}/results?{filter}"), 10_000).await
    }

    /// Follows `next_cursor` to the end of a list.
    pub async fn all_pages(&self, path: &str, limit: usize) -> Vec<Value> {
        let mut rows = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let join = if path.contains('?') { '&' } else { '?' };
            let from = cursor.map(|c| format!("&cursor={c}")).unwrap_or_default();
            let reply = self.get(&format!("{path}{join}limit={limit}{from}")).await.expect(200);
            let page = reply.json();
            let data = page["data"].as_array().unwrap_or_else(|| panic!("no data: {reply}"));
            assert!(data.len() <= limit, "{} rows with limit={limit}", data.len());
            rows.extend(data.iter().cloned());
            match page.get("next_cursor").expect("next_cursor is always there") {
                Value::Null => return rows,
                Value::String(next) => cursor = Some(next.clone()),
                other => panic!("next_cursor is {other}"),
            }
        }
    }

    pub async fn cancel(&self, id: &str) -> Value {
        self.post_empty(&format!("/v1/tasks/{id}/cancel")).await.expect(200).json()
    }

    pub async fn pause(&self, id: &str) -> Reply {
        self.post_empty(&format!("/v1/tasks/{id}/pause")).await
    }

    pub async fn resume(&self, id: &str) -> Reply {
        self.post_empty(&format!("/v1/tasks/{id}/resume")).await
    }

    pub async fn ledger(&self, filter: &str) -> Vec<Value> {
        self.all_pages(&format!("/v1/ledger?{filter}"), 1_000).await
    }

    /// A task of as many deliverable addresses is complete: one result for each seq, each charged once,
    /// nothing held. The results, by seq.
    pub async fn assert_whole(&self, task: &Task, addresses: u64) -> Vec<Value> {
        let c = task.counts;
        assert_eq!(task.status, "completed", "{task:#?}");
        let all = (addresses, addresses, addresses);
        assert_eq!((c.unique, c.processed, c.deliverable), all, "{task:#?}");
        assert_eq!((task.credits.charged, task.credits.held), (addresses, 0), "{task:#?}");
        let results = self.results(&task.id).await;
        let seqs = results.iter().map(|result| result["seq"].as_u64().expect("seq"));
        assert!(seqs.eq(0..addresses), "one result for each seq");
        assert!(results.iter().all(|result| result["credit"] == "charged"));
        results
    }

    /// The balance of the kind `email`.
    pub async fn balance(&self) -> u64 {
        let body = self.get("/v1/account/credits").await.expect(200).json();
        let balance = body["email_credit"].as_f64().expect("email_credit");
        assert!(balance >= 0.0 && balance.fract() == 0.0, "{body}");
        format!("{balance:.0}").parse().expect("whole credits")
    }

    pub async fn tasks(&self) -> Vec<Value> {
        self.all_pages("/v1/tasks", 100).await
    }

    /// The answer as it arrives.
    pub async fn stream(
        &self,
        path: &str,
    ) -> impl Stream<Item = reqwest::Result<impl AsRef<[u8]> + use<>>> + Unpin + use<> {
        let request = self.request(Method::GET, path).timeout(Duration::from_secs(600));
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), 200, "{path}");
        answer.bytes_stream().boxed()
    }
}

/// How requests go out: past no proxy, and with TLS by the library that the product has.
pub fn http() -> reqwest::ClientBuilder {
    // Whoever comes second finds it done.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy()
}

pub fn parse(task: &Value) -> Task {
    serde_json::from_value(task.clone()).unwrap_or_else(|e| panic!("{e}: {task}"))
}

fn created(reply: &Reply) -> Task {
    assert_eq!(reply.status, 201, "{reply}");
    parse(&reply.json())
}

pub async fn send(request: RequestBuilder) -> Reply {
    try_send(request).await.unwrap_or_else(|e| panic!("no answer: {e:?}"))
}

pub async fn try_send(request: RequestBuilder) -> Result<Reply, reqwest::Error> {
    let (client, request) = request.build_split();
    let request = request?;
    let line = format!("{} {}", request.method(), request.url());
    let answer = client.execute(request).await?;
    let status = answer.status().as_u16();
    let headers = answer.headers().clone();
    // Events have no end: that they are there is the answer.
    let endless = headers.get("content-type").is_some_and(|kind| kind == "text/event-stream");
    let body = if endless { Vec::new() } else { answer.bytes().await?.to_vec() };
    Ok(Reply { request: line, status, headers, body })
}
