//! Links with a query, and texts that hold markup of ours.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::text::filled;

/// A path with those parameters that say something.
pub fn link(path: &str, parameters: &[(&str, &str)]) -> String {
    let mut out = path.to_owned();
    let mut sign = '?';
    for (name, value) in parameters.iter().filter(|(_, value)| !value.is_empty()) {
        out.push(sign);
        out.push_str(name);
        out.push('=');
        out.extend(utf8_percent_encode(value, NON_ALPHANUMERIC));
        sign = '&';
    }
    out
}

/// A text as HTML.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for sign in text.chars() {
        match sign {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

/// What is put into a text of the catalogue.
#[derive(Debug, Clone)]
pub enum Part<'a> {
    /// Text, whoever wrote it.
    Text(&'a str),
    /// HTML that this program wrote.
    Html(String),
}

/// A text of the catalogue as HTML, with parts put into it.
pub fn markup(name: &str, parts: &[(&str, Part<'_>)]) -> String {
    let html: Vec<(&str, String)> = parts
        .iter()
        .map(|(name, part)| match part {
            Part::Text(text) => (*name, escaped(text)),
            Part::Html(html) => (*name, html.clone()),
        })
        .collect();
    let html: Vec<(&str, &str)> = html.iter().map(|(name, html)| (*name, html.as_str())).collect();
    filled(name, &html)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_link_says_is_encoded() {
        let of = |value| link("/keys", &[("q", value), ("state", "")]);
        assert_eq!(of(""), "/keys");
        assert_eq!(of("a&b=\"<é"), "/keys?q=a%26b%3D%22%3C%C3%A9");
        assert_eq!(link("/keys", &[("a", "1"), ("b", "2")]), "/keys?a=1&b=2");
    }

    #[test]
    fn parts_are_text_unless_they_are_ours() {
        let parts = [("name", Part::Text("<b>&'\""))];
        assert!(markup("key_state.replaced", &parts).ends_with("&lt;b&gt;&amp;&#39;&quot;"));
        let parts = [("time", Part::Html(String::from("<time></time>")))];
        assert!(markup("key_state.since", &parts).ends_with("<time></time>"));
    }
}
