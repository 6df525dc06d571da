//! What must never be shown: a service may repeat our key in its answer, and answers are kept as
//! evidence and told in logs.

use hyper::header::HeaderMap;
use serde_json::Value;

/// Shorter values are no secrets, and would tear holes into harmless texts.
const SHORTEST: usize = 6;

/// See the module.
pub struct Secrets(Vec<String>);

impl Secrets {
    /// The key; values of headers; values of a URL's query; texts of a body.
    pub fn new(key: &str, headers: &HeaderMap, url: &str, body: &str) -> Self {
        let mut found = vec![key.to_owned()];
        for value in headers.values().filter_map(|value| value.to_str().ok()) {
            found.push(value.to_owned());
            // `Bearer …` may be repeated without its first word.
            found.extend(value.rsplit_once(' ').map(|(_, last)| last.to_owned()));
        }
        let query = url.split_once('?').map_or("", |(_, query)| query);
        found.extend(query.split('&').filter_map(|pair| Some(pair.split_once('=')?.1.to_owned())));
        texts(&serde_json::from_str(body).unwrap_or_default(), &mut found);
        found.retain(|text| text.len() >= SHORTEST && !text.contains('{'));
        // The longest first, so that none leaves a rest of another.
        found.sort_by_key(|text| std::cmp::Reverse(text.len()));
        found.dedup();
        Self(found)
    }

    /// The text without them.
    pub fn hide(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "[hidden]"))
    }
}

fn texts(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::String(text) => into.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| texts(item, into)),
        Value::Object(members) => members.values().for_each(|member| texts(member, into)),
        _ => {}
    }
}
