//! Numbers and dates as the reader writes them.
//!
//! The locale comes from `Accept-Language` and decides how digits are grouped; the zone comes from the cookie
//! `listmill_zone`, which the browser's script sets, and is UTC until then.

use std::fmt;

use axum::http::HeaderMap;
use axum::http::header::ACCEPT_LANGUAGE;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use listmill_shared::domain::clock::Millis;

use super::session::cookie;
use crate::view::stamp;

/// How a reader writes numbers and times.
#[derive(Debug, Clone)]
pub struct Reader {
    /// As the browser names it; `en` where it says nothing.
    pub locale: String,
    group: &'static str,
    zone: TimeZone,
}

impl Reader {
    /// Of a request.
    pub fn of(headers: &HeaderMap) -> Self {
        let first = headers.get(ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
        let first = first.and_then(|list| list.split([',', ';']).next()).map(str::trim);
        let fits = |text: &&str| {
            (2..=20).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        let locale = first.filter(fits).unwrap_or("en").to_owned();
        let zone = cookie(headers, "listmill_zone").filter(|name| name.len() <= 64);
        let zone = zone.and_then(|name| TimeZone::get(&name.replace("%2F", "/")).ok());
        Self { group: group(&locale), locale, zone: zone.unwrap_or(TimeZone::UTC) }
    }

    /// A whole number, its digits in groups.
    pub fn number(&self, number: i64) -> String {
        self.sum(number.into())
    }

    /// A sum of such, which may be wider.
    pub fn sum(&self, number: i128) -> String {
        let digits = number.unsigned_abs().to_string();
        let mut out = String::from(if number < 0 { "\u{2212}" } else { "" });
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                out.push_str(self.group);
            }
            out.push(digit);
        }
        out
    }

    /// A moment.
    pub fn time(&self, at: Millis) -> Time {
        let shown = self.zoned(at).map(|time| time.strftime("%-d %b %Y, %H:%M").to_string());
        Time { at, shown: shown.unwrap_or_default() }
    }

    /// A time of today, or else the day with it.
    pub fn clock(&self, at: Millis, now: Millis) -> String {
        let near = (at - now).abs() < 86_400_000;
        let form = if near { "%H:%M" } else { "%-d %b, %H:%M" };
        self.zoned(at).map(|time| time.strftime(form).to_string()).unwrap_or_default()
    }

    /// A day.
    pub fn day(&self, at: Millis) -> String {
        self.zoned(at).map(|time| time.strftime("%-d %b").to_string()).unwrap_or_default()
    }

    /// An hour of a day.
    pub fn hour(&self, at: Millis) -> String {
        self.zoned(at).map(|time| time.strftime("%-d %b, %H:%M").to_string()).unwrap_or_default()
    }

    /// The name of the zone that times are in.
    pub fn zone(&self) -> &str {
        self.zone.iana_name().unwrap_or("UTC")
    }

    fn zoned(&self, at: Millis) -> Option<jiff::Zoned> {
        Some(Timestamp::from_millisecond(at).ok()?.to_zoned(self.zone.clone()))
    }
}

/// What stands between groups of digits (Unicode CLDR, `group` of the latn numbers).
fn group(locale: &str) -> &'static str {
    let language = locale.split('-').next().unwrap_or_default().to_ascii_lowercase();
    match language.as_str() {
        _ if locale.eq_ignore_ascii_case("de-ch") => "\u{2019}",
        "de" | "es" | "it" | "nl" | "pt" | "id" | "tr" | "da" | "el" | "ro" | "hr" | "sl"
        | "vi" => ".",
        "fr" => "\u{202f}",
        "ru" | "uk" | "pl" | "cs" | "sk" | "sv" | "nb" | "nn" | "no" | "fi" | "hu" | "bg" => {
            "\u{a0}"
        }
        _ => ",",
    }
}

/// A moment as HTML: `<time datetime="…">28 Nov 2026, 17:05</time>`.
#[derive(Debug, Clone)]
pub struct Time {
    at: Millis,
    shown: String,
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Digits, punctuation and names of months: nothing to escape.
        write!(f, "<time datetime=\"{}\">{}</time>", stamp(self.at), self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(language: &str, zone: &str) -> Reader {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_LANGUAGE, language.parse().unwrap());
        headers.insert("cookie", format!("a=b; listmill_zone={zone}").parse().unwrap());
        Reader::of(&headers)
    }

    #[test]
    fn numbers_are_grouped_as_the_reader_does() {
        for (language, shown) in
            [("en", "1,234,567"), ("de-DE,de;q=0.9", "1.234.567"), ("de-CH", "1’234’567")]
        {
            assert_eq!(reader(language, "UTC").number(1_234_567), shown);
        }
        assert_eq!(reader("fr", "UTC").number(-1_000), "\u{2212}1\u{202f}000");
        assert_eq!(reader("<script>", "UTC").locale, "en");
        assert_eq!(reader("en", "UTC").number(999), "999");
    }

    #[test]
    fn times_are_the_readers() {
        let at = 1_764_349_500_000;
        let shown = |zone| reader("en", zone).time(at).to_string();
        assert_eq!(
            shown("UTC"),
            "<time datetime=\"2025-11-28T17:05:00.000Z\">28 Nov 2025, 17:05</time>"
        );
        assert!(shown("Europe/Berlin").ends_with(">28 Nov 2025, 18:05</time>"));
        assert!(shown("Asia%2FTokyo").ends_with(">29 Nov 2025, 02:05</time>"));
        assert_eq!(shown("Nowhere/Else"), shown("UTC"));
    }
}
