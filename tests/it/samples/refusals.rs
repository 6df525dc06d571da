use std::time::Duration;

use reqwest::{Client, StatusCode, header::RETRY_AFTER};
use serde_json::Value;

#[derive(Debug)]
pub enum CallError {
    /// The key, or where it is used, is refused: a person must look. Do not try again.
    KeyRefused(String),
    /// Anything else.
    Failed(String),
}

pub async fn get(http: &Client, url: &str, key: &str) -> Result<Value, CallError> {
    let failed = |error: reqwest::Error| CallError::Failed(error.to_string());
    for attempt in 0..5 {
        let answer = http.get(url).bearer_auth(key).send().await.map_err(failed)?;
        let status = answer.status();
        let wait = answer.headers().get(RETRY_AFTER).and_then(|w| w.to_str().ok()?.parse().ok());
        let body: Value = answer.json().await.map_err(failed)?;
        match status {
            StatusCode::OK => return Ok(body),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                tokio::time::sleep(Duration::from_secs(wait.unwrap_or(1 << attempt))).await;
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let why = body["reason"].as_str().or(body["error"].as_str());
                return Err(CallError::KeyRefused(why.unwrap_or_default().to_owned()));
            }
            _ => return Err(CallError::Failed(format!("{status}: {body}"))),
        }
    }
    Err(CallError::Failed(String::from("still refused after five tries")))
}
