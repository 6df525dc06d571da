//! An answer of the API, read to its end, with the assertions that every test needs.

use reqwest::header::HeaderMap;
use serde_json::Value;

#[derive(Debug, Clone)]
pub struct Reply {
    pub request: String,
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self}"))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self}");
        self
    }

    /// Exactly this status and this JSON body.
    pub fn expect_body(&self, status: u16, body: &Value) {
        assert_eq!(self.status, status, "{self}");
        assert_eq!(&self.json(), body, "{}", self.request);
    }

    /// A problem document (RFC 9457) with our members; gives the object.
    pub fn expect_problem(&self) -> Value {
        let kind = self.header("content-type").unwrap_or_default();
        assert!(kind.starts_with("application/problem+json"), "{kind}: {self}");
        let body = self.json();
        for field in ["type", "title", "detail", "code", "error"] {
            assert!(body[field].as_str().is_some_and(|s| !s.is_empty()), "{field}: {self}");
        }
        assert_eq!(body["status"], self.status, "{self}");
        assert_eq!(body["error"], body["title"], "{self}");
        body
    }

    /// An error of the routes under `/api`: nothing but `error` and perhaps `message`.
    pub fn expect_plain_error(&self) -> Value {
        let body = self.json();
        assert!(body["error"].as_str().is_some_and(|s| !s.is_empty()), "{self}");
        let known = |field: &String| field == "error" || field == "message";
        assert!(body.as_object().is_some_and(|o| o.keys().all(known)), "{self}");
        body
    }
}

impl std::fmt::Display for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text: String = self.text().chars().take(2_000).collect();
        write!(f, "{} answered {}: {text}", self.request, self.status)
    }
}

/// The names of an object's fields, sorted: the exact shape.
pub fn fields(value: &Value) -> Vec<&str> {
    let object = value.as_object().unwrap_or_else(|| panic!("not an object: {value}"));
    let mut names: Vec<&str> = object.keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

/// Asserts the exact set of fields, in any order.
pub fn assert_fields(value: &Value, expected: &[&str]) {
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    assert_eq!(fields(value), expected, "{value}");
}
