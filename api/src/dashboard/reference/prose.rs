//! Descriptions in the little Markdown that ours are written in, as HTML: paragraphs, lists, `code`, **strong** words
//! and links to our own pages. Everything else is text.

use std::fmt::Write as _;

use crate::dashboard::query::escaped;

/// Paragraphs and lists.
pub fn blocks(text: &str) -> String {
    let mut html = String::new();
    for block in text.split("\n\n").map(str::trim).filter(|block| !block.is_empty()) {
        let (before, items) = parted(block);
        if !before.is_empty() {
            let _ = write!(html, "<p>{}</p>", line(&before));
        }
        if !items.is_empty() {
            html.push_str("<ul>");
            for item in items {
                let _ = write!(html, "<li>{}</li>", line(&item));
            }
            html.push_str("</ul>");
        }
    }
    html
}

/// What stands before a block's list, and the items of that.
fn parted(block: &str) -> (String, Vec<String>) {
    let (mut before, mut items) = (String::new(), Vec::<String>::new());
    for line in block.lines().map(str::trim) {
        let to = match line.strip_prefix("- ") {
            Some(item) => {
                items.push(item.to_owned());
                continue;
            }
            None => items.last_mut().unwrap_or(&mut before),
        };
        if !to.is_empty() {
            to.push(' ');
        }
        to.push_str(line);
    }
    (before, items)
}

/// One line, or words that stand in something else.
pub fn line(text: &str) -> String {
    // Every other piece stands between backticks.
    let mut html = String::new();
    for (at, piece) in text.split('`').enumerate() {
        match at % 2 {
            0 => html.push_str(&words(piece)),
            _ => {
                let _ = write!(html, "<code>{}</code>", escaped(piece));
            }
        }
    }
    html
}

fn words(text: &str) -> String {
    let mut html = String::new();
    for (at, piece) in text.split("**").enumerate() {
        match at % 2 {
            0 => html.push_str(&linked(piece)),
            _ => {
                let _ = write!(html, "<b>{}</b>", linked(piece));
            }
        }
    }
    html
}

/// `[words](/path)`; a link that leads elsewhere stays text.
fn linked(text: &str) -> String {
    let Some((before, rest)) = text.split_once('[') else { return escaped(text) };
    let link = rest.split_once("](").and_then(|(words, rest)| {
        let (to, after) = rest.split_once(')')?;
        to.starts_with('/').then_some((words, to, after))
    });
    match link {
        Some((words, to, after)) => format!(
            "{}<a href=\"{}\">{}</a>{}",
            escaped(before),
            escaped(to),
            escaped(words),
            linked(after)
        ),
        None => format!("{}[{}", escaped(before), linked(rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_is_read_and_the_rest_is_text() {
        assert_eq!(blocks("One\ntwo.\n\nThree"), "<p>One two.</p><p>Three</p>");
        assert_eq!(
            blocks("As:\n- `a`: one\n  more\n- **b**"),
            "<p>As:</p><ul><li><code>a</code>: one more</li><li><b>b</b></li></ul>"
        );
        assert_eq!(line("[All](/docs/problems)!"), "<a href=\"/docs/problems\">All</a>!");
        assert_eq!(line("[x](https://e.example)"), "[x](https://e.example)");
        assert_eq!(line("<b> `<i>`"), "&lt;b&gt; <code>&lt;i&gt;</code>");
        assert_eq!(line("a[0] and [{\"x\"}]"), "a[0] and [{&quot;x&quot;}]");
    }
}
