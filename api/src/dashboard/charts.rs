//! Charts as text: a donut, a sparkline and an area of days.
//!
//! Data: whole numbers with labels; what is below zero counts as zero. Invariants: every label is escaped, every
//! coordinate is finite and has two decimals at most, nothing is styled inline (a strict page refuses it), and each
//! chart says its numbers twice more: in the name that a screen reader hears, and in a table behind a disclosure.
//! A verdict is told by its colour, by the mark on it, and by its place in the legend.

use std::f64::consts::TAU;
use std::fmt::Write as _;

use super::format::Reader;
use super::query::escaped;
use super::text::text;

/// One part of a whole.
#[derive(Debug, Clone)]
pub struct Slice {
    /// What it is, as a person reads it.
    pub label: String,
    /// How much it is.
    pub value: i64,
    /// Its class in the stylesheet: `deliverable`, `undeliverable`, `risky`, `unknown`, `rest`, or none.
    pub class: &'static str,
}

/// A ring of parts with the sum in its middle, and a legend.
#[must_use]
pub fn donut(slices: &[Slice], title: &str, reader: &Reader) -> String {
    let total = sum(slices);
    let mut svg = format!(
        r#"<svg viewBox="0 0 120 120" role="img" aria-label="{}"><title>{}</title>"#,
        told(slices, title, reader),
        escaped(title)
    );
    if total == 0 {
        svg.push_str(&ring("track", 0.0, 1.0, ""));
    }
    let mut marks = String::new();
    for (slice, start, end) in spans(slices, total) {
        let about = format!(
            "{}: {} ({})",
            escaped(&slice.label),
            reader.number(slice.value),
            percent(end - start)
        );
        svg.push_str(&ring(&format!("slice {}", escaped(slice.class)), start, end, &about));
        if end - start >= 0.06 {
            let (x, y) = on_circle(46.0, f64::midpoint(start, end));
            marks.push_str(&mark(slice.class, &format!("translate({x} {y})")));
        }
    }
    let _ = write!(
        svg,
        r#"{marks}<text class="total" x="60" y="66" text-anchor="middle" aria-hidden="true">{}</text></svg>"#,
        short(total, reader)
    );
    format!(
        r#"<figure class="chart chart-donut">{svg}{}{}</figure>"#,
        legend(slices, reader),
        table(title, slices.iter().map(|slice| (slice.label.as_str(), slice.value)), reader)
    )
}

/// A small line in a row of a table; opening it shows its numbers, oldest first.
#[must_use]
pub fn sparkline(values: &[i64], title: &str, reader: &Reader) -> String {
    let total: i128 = values.iter().map(|value| i128::from((*value).max(0))).sum();
    let mut cells = String::new();
    for value in values {
        let _ = write!(cells, "<td>{}</td>", reader.number(*value));
    }
    format!(
        concat!(
            r#"<details class="chart chart-spark"><summary><svg width="96" height="24" viewBox="0 -2 96 26" role="img" "#,
            r#"aria-label="{title}: {total}"><title>{title}: {total}</title><path class="line" d="{line}"/></svg></summary>"#,
            r#"<div class="scroll" tabindex="0" role="group" aria-label="{title}"><table class="num"><tr>{cells}</tr></table></div></details>"#
        ),
        title = escaped(title),
        total = reader.sum(total),
        line = line(values, 96.0, 22.0),
        cells = cells
    )
}

/// One value for each day (or other step), as an area under a line.
#[must_use]
pub fn area(days: &[(String, i64)], title: &str, reader: &Reader) -> String {
    let values: Vec<i64> = days.iter().map(|(_, value)| *value).collect();
    let total: i128 = values.iter().map(|value| i128::from((*value).max(0))).sum();
    let top = values.iter().copied().max().unwrap_or(0).max(0);
    let over = line(&values, 1000.0, 100.0);
    let mut svg = format!(
        concat!(
            r#"<svg width="100%" height="160" role="img" aria-label="{title}: {total}"><title>{title}: {total}</title>"#,
            r#"<text x="0" y="10" aria-hidden="true">{top}</text>"#,
            r#"<svg y="18" width="100%" height="120" viewBox="0 0 1000 100" preserveAspectRatio="none" overflow="visible">"#,
            r#"<path class="under" d="{over}V100H0Z"/><path class="axis" d="M0 100H1000"/><path class="line" d="{over}"/></svg>"#
        ),
        title = escaped(title),
        total = reader.sum(total),
        top = reader.number(top),
        over = over
    );
    let wide = 100.0 / count(days.len().max(1));
    for (at, (label, value)) in days.iter().enumerate() {
        let _ = write!(
            svg,
            r#"<rect x="{}%" y="18" width="{}%" height="120" fill="none" pointer-events="all"><title>{}: {}</title></rect>"#,
            coordinate(count(at) * wide),
            coordinate(wide),
            escaped(label),
            reader.number(*value)
        );
    }
    if let Some((first, _)) = days.first() {
        let _ = write!(svg, r#"<text x="0" y="156" aria-hidden="true">{}</text>"#, escaped(first));
    }
    if let [_, .., (last, _)] = days {
        let _ = write!(
            svg,
            r#"<text x="100%" y="156" text-anchor="end" aria-hidden="true">{}</text>"#,
            escaped(last)
        );
    }
    format!(
        r#"<figure class="chart">{svg}</svg>{}</figure>"#,
        table(title, days.iter().map(|(label, value)| (label.as_str(), *value)), reader)
    )
}

/// The sum of what is above zero; wider than any of its parts.
fn sum(slices: &[Slice]) -> i128 {
    slices.iter().map(|slice| i128::from(slice.value.max(0))).sum()
}

/// Each part that is not empty with where it starts and ends, of one.
fn spans(slices: &[Slice], total: i128) -> Vec<(&Slice, f64, f64)> {
    let mut before: i128 = 0;
    let mut all = Vec::with_capacity(slices.len());
    for slice in slices.iter().filter(|slice| slice.value > 0) {
        let after = before + i128::from(slice.value);
        all.push((slice, share(before, total), share(after, total)));
        before = after;
    }
    all
}

/// `part` of `whole`, from zero to one: exact enough, as charts are drawn to a hundredth of a pixel.
fn share(part: i128, whole: i128) -> f64 {
    if whole <= 0 { 0.0 } else { (part as f64 / whole as f64).clamp(0.0, 1.0) }
}

/// How many, for a coordinate.
fn count(number: usize) -> f64 {
    number as f64
}

/// A coordinate with two decimals at most.
fn coordinate(value: f64) -> String {
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// The point at `turn` (0 to 1, from the top, clockwise) of a circle round the middle of the donut.
fn on_circle(radius: f64, turn: f64) -> (String, String) {
    let (sin, cos) = (turn * TAU).sin_cos();
    (coordinate(60.0 + radius * sin), coordinate(60.0 - radius * cos))
}

/// A piece of the donut's ring. A whole ring is two circles, as an arc from a point to itself is nothing.
fn ring(class: &str, start: f64, end: f64, about: &str) -> String {
    const WHOLE: &str =
        "M60 4A56 56 0 1 1 60 116A56 56 0 1 1 60 4ZM60 24A36 36 0 1 0 60 96A36 36 0 1 0 60 24Z";
    let path = if end - start > 0.9999 {
        WHOLE.to_owned()
    } else {
        let large = i32::from(end - start > 0.5);
        let ((x1, y1), (x2, y2)) = (on_circle(56.0, start), on_circle(56.0, end));
        let ((x3, y3), (x4, y4)) = (on_circle(36.0, end), on_circle(36.0, start));
        format!("M{x1} {y1}A56 56 0 {large} 1 {x2} {y2}L{x3} {y3}A36 36 0 {large} 0 {x4} {y4}Z")
    };
    let about = if about.is_empty() { String::new() } else { format!("<title>{about}</title>") };
    format!(r#"<path class="{class}" d="{path}">{about}</path>"#)
}

/// A line through `values`, from the left to the right of its room.
fn line(values: &[i64], wide: f64, high: f64) -> String {
    let top = i128::from(values.iter().copied().max().unwrap_or(0).max(0));
    let level = |value: i64| coordinate(high - high * share(i128::from(value.max(0)), top));
    match values {
        [] => format!("M0 {high}H{wide}"),
        [only] => format!("M0 {}H{wide}", level(*only)),
        _ => {
            let step = wide / count(values.len() - 1);
            let mut path = String::with_capacity(values.len() * 12);
            for (at, value) in values.iter().enumerate() {
                let _ = write!(
                    path,
                    "{}{} {}",
                    if at == 0 { 'M' } else { 'L' },
                    coordinate(count(at) * step),
                    level(*value)
                );
            }
            path
        }
    }
}

/// What tells a verdict without its colour: a tick, a cross, an exclamation mark, a question mark.
fn mark(class: &str, transform: &str) -> String {
    let path = match class {
        "deliverable" => "M-4 .5L-1 3.5L4-3",
        "undeliverable" => "M-3-3L3 3M3-3L-3 3",
        "risky" => "M0-4.5V1M0 4.2V4.3",
        "unknown" => "M-2.5-2.2C-2.5-5.2 2.5-5.2 2.5-2.2C2.5-.2 0-.4 0 1.6M0 4.4V4.5",
        _ => return String::new(),
    };
    format!(r#"<path class="mark" transform="{transform}" d="{path}"/>"#)
}

/// The chart's name with its numbers, escaped: what a screen reader says.
fn told(slices: &[Slice], title: &str, reader: &Reader) -> String {
    let parts: Vec<String> = slices
        .iter()
        .map(|slice| format!("{} {}", slice.label, reader.number(slice.value)))
        .collect();
    escaped(&format!("{title}: {}", parts.join(", ")))
}

/// Colours, marks, labels and numbers of all parts.
fn legend(slices: &[Slice], reader: &Reader) -> String {
    let mut list = String::from(r#"<ul class="legend">"#);
    for slice in slices {
        let _ = write!(
            list,
            r#"<li><svg width="16" height="16" aria-hidden="true"><rect class="slice {}" width="16" height="16" rx="4"/>{}</svg>{} <span class="num">{}</span></li>"#,
            escaped(slice.class),
            mark(slice.class, "translate(8 8)"),
            escaped(&slice.label),
            reader.number(slice.value)
        );
    }
    list.push_str("</ul>");
    list
}

/// The numbers of a chart, behind a disclosure.
fn table<'a>(title: &str, rows: impl Iterator<Item = (&'a str, i64)>, reader: &Reader) -> String {
    let mut html = format!(
        r#"<details><summary>{}</summary><table><caption class="visually-hidden">{}</caption><tbody>"#,
        escaped(text("charts.table")),
        escaped(title)
    );
    for (label, value) in rows {
        let _ = write!(
            html,
            r#"<tr><th scope="row">{}</th><td class="num">{}</td></tr>"#,
            escaped(label),
            reader.number(value)
        );
    }
    html.push_str("</tbody></table></details>");
    html
}

/// A sum that fits into the middle of the donut: exact below a million, then to three digits.
fn short(number: i128, reader: &Reader) -> String {
    const NAMES: [(&str, i128); 4] =
        [("T", 1_000_000_000_000), ("G", 1_000_000_000), ("M", 1_000_000), ("", 1)];
    let (name, unit) = NAMES.into_iter().find(|(_, unit)| number >= *unit).unwrap_or(("", 1));
    if name.is_empty() || number / unit >= 1000 {
        return format!("{}{}", reader.sum(number / unit), name);
    }
    let hundredths = number * 100 / unit;
    let (whole, rest) = (hundredths / 100, hundredths % 100);
    match whole {
        0..=9 => format!("{whole}.{rest:02}\u{202f}{name}"),
        10..=99 => format!("{whole}.{}\u{202f}{name}", rest / 10),
        _ => format!("{whole}\u{202f}{name}"),
    }
}

/// A share of one in per cent, with one decimal.
fn percent(share: f64) -> String {
    format!("{:.1}\u{a0}%", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderMap;

    fn reader() -> Reader {
        Reader::of(&HeaderMap::new())
    }

    fn slice(label: &str, value: i64, class: &'static str) -> Slice {
        Slice { label: label.to_owned(), value, class }
    }

    /// What must hold for every chart, whatever is in it.
    fn sound(html: &str) {
        assert!(!html.contains("NaN") && !html.contains("inf"), "{html}");
        assert!(!html.contains("style=") && !html.contains("<script"), "{html}");
        assert!(
            html.contains(r#"role="img""#)
                && html.contains("aria-label=")
                && html.contains("<title>"),
            "{html}"
        );
        assert!(html.contains("<details") && html.contains("<table"), "{html}");
        for piece in html.split('"').skip(1).step_by(2).filter(|piece| piece.starts_with('M')) {
            for number in piece.split(|letter: char| !(letter.is_ascii_digit() || letter == '.')) {
                assert!(
                    number.split_once('.').is_none_or(|(_, rest)| rest.len() <= 2),
                    "{number} in {piece}"
                );
            }
        }
    }

    #[test]
    fn parts_fill_the_whole() {
        let slices = [
            slice("Deliverable", 1, "deliverable"),
            slice("Risky", 2, "risky"),
            slice("Unknown", 3, "unknown"),
        ];
        let all = spans(&slices, sum(&slices));
        assert_eq!(all.len(), 3);
        assert!(all.windows(2).all(|pair| pair[0].2.to_bits() == pair[1].1.to_bits()));
        assert!(all[0].1.abs() < f64::EPSILON && (all[2].2 - 1.0).abs() < f64::EPSILON);
        let html = donut(&slices, "Verdicts", &reader());
        sound(&html);
        assert!(html.contains("Verdicts: Deliverable 1, Risky 2, Unknown 3"));
        assert!(html.contains("Risky: 2 (33.3\u{a0}%)"));
        assert!(html.contains(r#">6</text>"#));
    }

    #[test]
    fn nothing_is_a_chart_too() {
        for html in
            [donut(&[], "t", &reader()), sparkline(&[], "t", &reader()), area(&[], "t", &reader())]
        {
            sound(&html);
        }
        let none = [slice("Risky", 0, "risky"), slice("Unknown", -5, "unknown")];
        let html = donut(&none, "t", &reader());
        sound(&html);
        assert!(html.contains(r#"class="track""#) && html.contains(">0</text>"));
        sound(&sparkline(&[0, 0, 0], "t", &reader()));
        assert!(sparkline(&[0, 0, 0], "t", &reader()).contains("M0 22L48 22L96 22"));
        sound(&area(&[("a".to_owned(), 0), ("b".to_owned(), 0)], "t", &reader()));
    }

    #[test]
    fn one_value_is_a_whole_ring_and_a_level_line() {
        let html = donut(
            &[slice("Deliverable", 7, "deliverable"), slice("Risky", 0, "risky")],
            "t",
            &reader(),
        );
        sound(&html);
        assert_eq!(html.matches("M60 4A56").count(), 1);
        assert!(sparkline(&[5], "t", &reader()).contains("M0 0H96"));
        sound(&area(&[("28 Nov".to_owned(), 5)], "t", &reader()));
        assert_eq!(
            area(&[("28 Nov".to_owned(), 5)], "t", &reader()).matches("y=\"156\"").count(),
            1
        );
    }

    #[test]
    fn huge_values_stay_finite() {
        let slices = [
            slice("a", i64::MAX, "deliverable"),
            slice("b", i64::MAX, "risky"),
            slice("c", i64::MIN, "unknown"),
        ];
        sound(&donut(&slices, "t", &reader()));
        sound(&sparkline(&[i64::MAX, 1, i64::MIN], "t", &reader()));
        sound(&area(&[("a".to_owned(), i64::MAX), ("b".to_owned(), i64::MAX)], "t", &reader()));
    }

    #[test]
    fn labels_are_text() {
        let bad = "</title><script>alert(\"1\" & '2')</script>";
        let named = [slice(bad, 3, "deliverable")];
        for html in [
            donut(&named, bad, &reader()),
            sparkline(&[1, 2], bad, &reader()),
            area(&[(bad.to_owned(), 1)], bad, &reader()),
        ] {
            sound(&html);
            assert!(
                html.contains("&lt;/title&gt;&lt;script&gt;alert(&quot;1&quot; &amp; &#39;2&#39;)"),
                "{html}"
            );
        }
    }

    #[test]
    fn numbers_are_read_alike_everywhere() {
        assert_eq!(short(999_999, &reader()), "999,999");
        assert_eq!(short(1_234_567, &reader()), "1.23\u{202f}M");
        assert_eq!(short(10_000_000, &reader()), "10.0\u{202f}M");
        assert_eq!(short(5_000_000_000_000_000, &reader()), "5,000T");
        assert_eq!(coordinate(-0.001), "0");
        assert_eq!(coordinate(1.005_1), "1.01");
        assert_eq!(coordinate(100.0), "100");
    }
}
