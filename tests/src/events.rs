//! Server-sent events, read from a stream of bytes.

use std::pin::Pin;
use std::time::Duration;

use futures::{Stream, StreamExt};
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

/// Events as they arrive.
pub struct Events {
    stream: Pin<Box<dyn Stream<Item = reqwest::Result<Vec<u8>>> + Send>>,
    text: String,
}

impl Events {
    /// The next one; `None`: the stream has ended.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let event = parse(block);
                self.text = rest.to_owned();
                if event.is_some() {
                    return event;
                }
            }
            let bytes = self.stream.next().await?.expect("no break");
            self.text.push_str(std::str::from_utf8(&bytes).expect("UTF-8"));
            self.text = self.text.replace("\r\n", "\n");
        }
    }

    /// All up to the first that fits, which must come within a minute.
    pub async fn until(&mut self, what: &str, fits: impl Fn(&Event) -> bool) -> Vec<Event> {
        let mut all: Vec<Event> = Vec::new();
        let reading = async {
            while !all.last().is_some_and(&fits) {
                all.push(self.next().await.expect("the stream goes on"));
            }
        };
        within(what, Duration::from_secs(60), reading).await;
        all
    }
}

impl Client {
    /// Listens until the task's `done` (or the end of the stream).
    pub async fn events_until_done(&self, task: &str, last_id: Option<&str>) -> Vec<Event> {
        let listen = async {
            let mut stream = self.events(&format!("/v1/tasks/{task}/events"), last_id).await;
            let mut events = Vec::new();
            while let Some(event) = stream.next().await {
                let done = event.name == "done";
                events.push(event);
                if done {
                    break;
                }
            }
            events
        };
        within("events until done", Duration::from_secs(60), listen).await
    }

    /// Listens at a path.
    pub async fn events(&self, path: &str, last_id: Option<&str>) -> Events {
        let mut request = self.request(Method::GET, path);
        if let Some(id) = last_id {
            request = request.header("last-event-id", id);
        }
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), 200);
        let kind = answer.headers()["content-type"].to_str().expect("text").to_owned();
        assert!(kind.starts_with("text/event-stream"), "{kind}");
        let stream = answer.bytes_stream().map(|bytes| bytes.map(|bytes| bytes.to_vec()));
        Events { stream: Box::pin(stream), text: String::new() }
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
