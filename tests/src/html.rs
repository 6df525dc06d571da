//! As much of HTML as the product's own pages need: tags, their attributes, and forms.

/// A tag as it stands in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// In lower case; with a slash before it when it closes.
    pub name: String,
    pub attributes: Vec<(String, String)>,
}

impl Tag {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

/// A form and what it would send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    /// Empty: the page itself.
    pub action: String,
    pub post: bool,
    pub fields: Vec<(String, String)>,
    /// It sends files.
    pub multipart: bool,
}

impl Form {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

/// Every tag of a page, in order.
pub fn tags(text: &str) -> Vec<Tag> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        rest = &rest[start + 1..];
        if let Some(comment) = rest.strip_prefix("!--") {
            rest = comment.split_once("-->").map_or("", |(_, after)| after);
            continue;
        }
        if !rest.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/') {
            continue;
        }
        let (tag, after) = tag(rest);
        rest = after;
        found.push(tag);
    }
    found
}

fn tag(text: &str) -> (Tag, &str) {
    let end = text.find(|c: char| c.is_whitespace() || c == '>').unwrap_or(text.len());
    let name = text[..end].trim_end_matches('/').to_ascii_lowercase();
    let name = if text.starts_with('/') { format!("/{}", name.trim_matches('/')) } else { name };
    let mut tag = Tag { name, attributes: Vec::new() };
    let mut rest = &text[end..];
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '/');
        if rest.is_empty() {
            return (tag, rest);
        }
        if let Some(after) = rest.strip_prefix('>') {
            return (tag, after);
        }
        let end = rest.find(|c: char| c.is_whitespace() || "=>".contains(c)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end.max(1));
        let (value, after) = value(after);
        tag.attributes.push((name.to_ascii_lowercase(), unescape(value)));
        rest = after;
    }
}

fn value(text: &str) -> (&str, &str) {
    let Some(text) = text.trim_start().strip_prefix('=') else { return ("", text) };
    let text = text.trim_start();
    for quote in ['"', '\''] {
        if let Some(quoted) = text.strip_prefix(quote) {
            return quoted.split_once(quote).unwrap_or((quoted, ""));
        }
    }
    text.split_at(text.find(|c: char| c.is_whitespace() || c == '>').unwrap_or(text.len()))
}

/// Entities become what they stand for.
pub fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        let entity = after.split_once(';').filter(|(name, _)| name.len() < 8);
        match entity.and_then(|(name, tail)| Some((entity_of(name)?, tail))) {
            Some((character, tail)) => {
                out.push(character);
                rest = tail;
            }
            None => {
                out.push('&');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

fn entity_of(name: &str) -> Option<char> {
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        "nbsp" => Some('\u{a0}'),
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code)
        }
    }
}

/// The forms of a page, each with the fields that a browser would send unless somebody filled in others.
pub fn forms(text: &str) -> Vec<Form> {
    let mut forms: Vec<Form> = Vec::new();
    let mut inside = false;
    for tag in tags(text) {
        match tag.name.as_str() {
            "form" => {
                inside = true;
                forms.push(Form {
                    action: tag.get("action").unwrap_or_default().to_owned(),
                    post: tag.get("method").is_some_and(|m| m.eq_ignore_ascii_case("post")),
                    fields: Vec::new(),
                    multipart: tag.get("enctype").is_some_and(|kind| kind.contains("multipart")),
                });
            }
            "/form" => inside = false,
            "input" | "select" | "textarea" | "button" if inside => {
                let form = forms.last_mut().expect("inside one");
                let unchecked = matches!(tag.get("type"), Some("checkbox" | "radio"))
                    && tag.get("checked").is_none();
                let Some(name) = tag.get("name").filter(|_| !unchecked) else { continue };
                if tag.name == "button" && form.field(name).is_some() {
                    continue;
                }
                let value = tag.get("value").unwrap_or_default().to_owned();
                form.fields.push((name.to_owned(), value));
            }
            _ => {}
        }
    }
    forms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_forms() {
        let page = r#"<!doctype html><!-- <form> --><p title='a > b'>1 < 2
            <form method=post action="/a?x=1&amp;y=2"><input type="hidden" name="csrf" value="abc">
            <input name=q disabled/><input type="checkbox" name="on"><textarea name="t"></textarea></form>
            <form action="/search"><input name="q" value="&lt;b&gt;&#39;"></form><button name="out">"#;
        let forms = forms(page);
        assert_eq!(forms.len(), 2, "{forms:?}");
        assert_eq!(forms[0].action, "/a?x=1&y=2");
        assert!(forms[0].post && !forms[1].post);
        assert_eq!(forms[0].field("csrf"), Some("abc"));
        let names: Vec<&str> = forms[0].fields.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["csrf", "q", "t"]);
        assert_eq!(forms[1].field("q"), Some("<b>'"));
        assert_eq!(tags("<p title='a > b'>")[0].get("title"), Some("a > b"));
    }
}
