//! A task as the API shows it.

use serde::{Deserialize, Deserializer};

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Task {
    pub id: String,
    pub name: Option<String>,
    pub status: String,
    pub pause_reason: Option<String>,
    pub counts: Counts,
    pub credits: Credits,
    pub created_at: String,
    pub started_at: Option<String>,
    pub finished_at: Option<String>,
    pub created_by_key: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Counts {
    pub submitted: u64,
    pub unique: u64,
    pub duplicates: u64,
    pub invalid_syntax: u64,
    pub processed: u64,
    pub deliverable: u64,
    pub undeliverable: u64,
    pub risky: u64,
    pub unknown: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Credits {
    #[serde(deserialize_with = "whole")]
    pub held: u64,
    #[serde(deserialize_with = "whole")]
    pub charged: u64,
    #[serde(deserialize_with = "whole")]
    pub refunded: u64,
}

impl Task {
    pub fn has_ended(&self) -> bool {
        matches!(self.status.as_str(), "completed" | "cancelled" | "failed")
    }

    pub fn processed_at_least(&self, percent: u64) -> bool {
        self.counts.processed * 100 >= self.counts.unique * percent
    }
}

/// The API may show credits with a decimal point; amounts are whole all the same.
fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let number = f64::deserialize(deserializer)?;
    let text = format!("{number:.0}");
    match text.parse() {
        Ok(whole) if number.fract() == 0.0 => Ok(whole),
        _ => Err(serde::de::Error::custom(format!("{number} is not a count of credits"))),
    }
}
