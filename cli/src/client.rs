//! The API as `demo` and `bench` use it: plain HTTP, one call at a time.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use reqwest::{Body, Method, Response};
use serde::Deserialize;
use serde_json::Value;

/// Longer than any answer but a stream takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Speaks to one API.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
}

/// A task, as much of it as is used here.
#[derive(Debug, Clone, Deserialize)]
pub struct TaskView {
    pub id: String,
    pub status: String,
    pub pause_reason: Option<String>,
    pub counts: Counts,
    pub credits: Credits,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Counts {
    pub submitted: u64,
    pub unique: u64,
    pub duplicates: u64,
    pub invalid_syntax: u64,
    pub processed: u64,
    pub deliverable: u64,
    pub undeliverable: u64,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Credits {
    pub charged: i64,
    pub refunded: i64,
}

impl TaskView {
    /// Does it never change again?
    pub fn has_ended(&self) -> bool {
        matches!(self.status.as_str(), "completed" | "cancelled" | "failed")
    }

    /// Share of its addresses that are done, in percent.
    pub fn percent(&self) -> u64 {
        self.counts.processed * 100 / self.counts.unique.max(1)
    }
}

/// An answer, whatever its status.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Answer {
    /// The body of a success; any other status is an error that shows it.
    pub fn success(self, what: &str) -> Result<Value> {
        ensure!(
            (200..300).contains(&self.status),
            "{what}: the server answered {} {}",
            self.status,
            self.body.trim()
        );
        if self.body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&self.body).with_context(|| format!("{what}: unreadable answer"))
    }
}

impl Client {
    /// `base`: such as `http://127.0.0.1:8080`.
    pub fn new(base: &str) -> Result<Self> {
        let base = base.trim_end_matches('/');
        if base.starts_with("https://") {
            bail!(
                "{base}: https is not spoken here; name the API's own address (http://host:port)"
            );
        }
        ensure!(base.starts_with("http://"), "{base:?} is no address such as http://host:port");
        let http = reqwest::Client::builder()
            // Ours is near: a proxy meant for the outside would only stand in the way.
            .no_proxy()
            .gzip(false)
            .connect_timeout(Duration::from_secs(5))
            .tcp_nodelay(true)
            .build()
            .context("cannot make an HTTP client")?;
        Ok(Self { http, base: base.to_owned() })
    }

    /// The API's address.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// One call without a body; any status is an answer.
    pub async fn call(&self, method: Method, path: &str, key: &str) -> Result<Answer> {
        self.call_within(PATIENCE, method, path, key).await
    }

    /// Likewise, for what may take longer.
    pub async fn call_within(
        &self,
        patience: Duration,
        method: Method,
        path: &str,
        key: &str,
    ) -> Result<Answer> {
        let response = self
            .request(method, path, key)
            .timeout(patience)
            .send()
            .await
            .map_err(reqwest::Error::without_url)
            .with_context(|| format!("no answer from {}{path}", self.base))?;
        let status = response.status().as_u16();
        let body = response.text().await.context("the answer broke off")?;
        Ok(Answer { status, body })
    }

    /// One call with a JSON body; any status is an answer.
    pub async fn post(&self, path: &str, key: &str, body: &Value) -> Result<Answer> {
        let sending = self.request(Method::POST, path, key).timeout(PATIENCE).json(body).send();
        let response = sending
            .await
            .map_err(reqwest::Error::without_url)
            .with_context(|| format!("no answer from {}{path}", self.base))?;
        let status = response.status().as_u16();
        let body = response.text().await.context("the answer broke off")?;
        Ok(Answer { status, body })
    }

    /// Submits a CSV list and returns its task.
    pub async fn submit(&self, name: &str, key: &str, body: Body) -> Result<TaskView> {
        self.submit_with(&format!("name={name}"), key, body).await
    }

    /// Likewise, with whatever else the query says.
    pub async fn submit_with(&self, query: &str, key: &str, body: Body) -> Result<TaskView> {
        let path = format!("/v1/tasks?{query}");
        let response = self
            .request(Method::POST, &path, key)
            .header("content-type", "text/csv")
            .body(body)
            .send()
            .await
            .map_err(reqwest::Error::without_url)
            .with_context(|| format!("no answer from {}{path}", self.base))?;
        let status = response.status().as_u16();
        let body = response.text().await.context("the answer broke off")?;
        let task = Answer { status, body }.success("submission")?;
        serde_json::from_value(task).context("submission: the answer is no task")
    }

    /// One task.
    pub async fn task(&self, id: &str, key: &str) -> Result<TaskView> {
        let answer = self.call(Method::GET, &format!("/v1/tasks/{id}"), key).await?;
        serde_json::from_value(answer.success("poll")?).context("poll: the answer is no task")
    }

    /// A GET whose body is read as it comes.
    pub async fn stream(&self, path: &str, key: &str) -> Result<Response> {
        let response = self
            .request(Method::GET, path, key)
            .send()
            .await
            .map_err(reqwest::Error::without_url)
            .with_context(|| format!("no answer from {}{path}", self.base))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        bail!("{path}: the server answered {status} {}", response.text().await.unwrap_or_default())
    }

    /// Every page of a list, oldest page last as the server gives them.
    pub async fn pages(&self, path: &str, limit: u32, key: &str) -> Result<Vec<Value>> {
        let mut all = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = format!("{path}?limit={limit}{cursor}");
            let mut body = self.call(Method::GET, &page, key).await?.success(path)?;
            match body["data"].take() {
                Value::Array(rows) => all.extend(rows),
                _ => bail!("{path}: the answer is no list"),
            }
            match body["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(all),
            }
        }
    }

    fn request(&self, method: Method, path: &str, key: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base)).bearer_auth(key)
    }
}
