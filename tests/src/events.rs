//! Server-sent events, read from a stream of bytes.

use std::time::Duration;

use futures::StreamExt;
use reqwest::Method;
use serde_json::Value;

use crate::client::Client;
use crate::poll::within;

#[derive(Debug, Clone, Default)]
pub struct Event {
    pub id: Option<String>,
    pub name: String,
    pub data: String,
}

impl Event {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// One event from its lines; `None` for a comment that keeps the connection alive.
fn parse(block: &str) -> Option<Event> {
    let mut event = Event { name: "message".into(), ..Event::default() };
    let mut seen = false;
    for line in block.lines() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => event.id = Some(value.to_owned()),
            "event" => event.name = value.to_owned(),
            "data" if event.data.is_empty() => event.data = value.to_owned(),
            "data" => event.data = format!("{}\n{value}", event.data),
            _ => continue,
        }
        seen = true;
    }
    seen.then_some(event)
}

impl Client {
    /// Listens until the task's `done` (or the end of the stream).
    pub async fn events_until_done(&self, task: &str, last_id: Option<&str>) -> Vec<Event> {
        let listen = self.listen(task, last_id);
        within("events until done", Duration::from_secs(60), listen).await
    }

    async fn listen(&self, task: &str, last_id: Option<&str>) -> Vec<Event> {
        let mut request = self.request(Method::GET, &format!("/v1/tasks/{task}/events"));
        if let Some(id) = last_id {
            request = request.header("last-event-id", id);
        }
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), 200);
        let kind = answer.headers()["content-type"].to_str().expect("text").to_owned();
        assert!(kind.starts_with("text/event-stream"), "{kind}");
        let mut stream = answer.bytes_stream();
        let mut events = Vec::new();
        let mut text = String::new();
        while let Some(bytes) = stream.next().await {
            text.push_str(std::str::from_utf8(&bytes.expect("no break")).expect("UTF-8"));
            text = text.replace("\r\n", "\n");
            while let Some((block, rest)) = text.split_once("\n\n") {
                events.extend(parse(block));
                text = rest.to_owned();
            }
            if events.last().is_some_and(|event: &Event| event.name == "done") {
                break;
            }
        }
        events
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn reads_an_event_and_skips_a_comment() {
        let event = super::parse("id: 7\nevent: progress\ndata: {\"a\":1}").expect("an event");
        assert_eq!((event.id.as_deref(), event.name.as_str()), (Some("7"), "progress"));
        assert_eq!(event.json()["a"], 1);
        assert!(super::parse(": keep-alive").is_none());
    }
}
