//! Values of settings as they are written: durations, switches, texts that may be empty.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

pub(super) fn empty_is_none<'de, D, T>(d: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: From<String>,
{
    Ok(Some(String::deserialize(d)?).filter(|text| !text.is_empty()).map(T::from))
}

pub(super) fn switch<'de, D: Deserializer<'de>>(d: D) -> Result<bool, D::Error> {
    match String::deserialize(d)?.as_str() {
        "on" | "true" => Ok(true),
        "off" | "false" => Ok(false),
        other => Err(de::Error::custom(format!("{other:?} is neither `on` nor `off`"))),
    }
}

pub(super) fn duration<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(d)?;
    parse_duration(&text).ok_or_else(|| {
        de::Error::custom(format!("{text:?} is no duration such as 250ms, 30s, 5m, 30d"))
    })
}

pub(super) fn durations<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Duration>, D::Error> {
    let text = String::deserialize(d)?;
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| {
            parse_duration(part).ok_or_else(|| {
                de::Error::custom(format!("{part:?} is no duration; wanted are such as 1m,5m,15m"))
            })
        })
        .collect()
}

/// Reads `250ms`, `30s`, `5m`, `24h`, `30d`, and `0`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    match text[digits..].trim() {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3600).map(Duration::from_secs),
        "d" => number.checked_mul(86_400).map(Duration::from_secs),
        "" if number == 0 => Some(Duration::ZERO),
        _ => None,
    }
}
