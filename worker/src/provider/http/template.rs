//! Texts with places for the address and the key: URL, body, headers.
//!
//! Data: the text cut at `{email}`; the key stands in it already. What is put in is escaped for its
//! surroundings, and is not looked at for places again.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

const EMAIL: &str = "{email}";
const KEY: &str = "{key}";

/// Everything but the unreserved characters of RFC 3986, 2.3: right in every part of a URL.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// How a text is escaped before it is put in.
pub type Escape = fn(&str) -> String;

/// For a URL.
pub fn percent(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// For the inside of a JSON string.
pub fn json(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// See the module.
pub struct Template {
    parts: Vec<String>,
    escape: Escape,
}

impl Template {
    /// Puts `key` in, and keeps the places of the address.
    pub fn new(text: &str, key: &str, escape: Escape) -> Self {
        let key = escape(key);
        Self { parts: text.split(EMAIL).map(|part| part.replace(KEY, &key)).collect(), escape }
    }

    /// Has it a place for the address?
    pub fn takes_email(&self) -> bool {
        self.parts.len() > 1
    }

    /// The text for one address.
    pub fn fill(&self, email: &str) -> String {
        self.parts.join(&(self.escape)(email))
    }
}

/// Has the text a place for the key?
pub fn takes_key(text: &str) -> bool {
    text.contains(KEY)
}

/// The first `{…}` that stands for nothing.
pub fn unknown_place(text: &str) -> Option<&str> {
    text.match_indices('{')
        .map(|(at, _)| &text[at..])
        .find(|rest| !rest.starts_with(EMAIL) && !rest.starts_with(KEY))
        .map(|rest| &rest[..rest.find('}').map_or(rest.len(), |end| end + 1)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_in_is_escaped() {
        let url = Template::new("http://x.test/{key}?e={email}&f={email}", "k/1", percent);
        assert_eq!(
            url.fill("a+b&c@ü.test"),
            "http://x.test/k%2F1?e=a%2Bb%26c%40%C3%BC.test&f=a%2Bb%26c%40%C3%BC.test"
        );
        let body = Template::new(r#"{"email":"{email}","key":"{key}"}"#, "a\\b", json);
        let filled = body.fill("\"a\\\" b\"@x.test");
        let value: serde_json::Value = serde_json::from_str(&filled).unwrap();
        assert_eq!(value["email"], "\"a\\\" b\"@x.test");
        assert_eq!(value["key"], "a\\b");
    }

    #[test]
    fn what_is_put_in_has_no_places() {
        let both = Template::new("{key} {email}", "{email}", str::to_owned);
        assert_eq!(both.fill("{key}@x.test"), "{email} {key}@x.test");
    }

    #[test]
    fn tells_misspelt_places() {
        assert_eq!(unknown_place("http://x/{email}/{key}"), None);
        assert_eq!(unknown_place("http://x/{email}/{mail}?a"), Some("{mail}"));
        assert_eq!(unknown_place("http://x/{"), Some("{"));
    }
}
