//! Latencies counted in buckets: flat memory, however many there are, and 1.6 % precise.
//!
//! Bucket edges grow like a floating-point number's: below 128 µs one bucket a microsecond, above
//! it 64 buckets for each doubling. A percentile is the upper edge of its bucket, never above the
//! true maximum.

use std::time::Duration;

use serde_json::{Value, json};

use crate::output::{millis, readable};

/// Buckets for each doubling.
const STEPS: u64 = 64;
/// Longest that is told apart: about 19 hours in microseconds.
const LONGEST: u64 = 1 << 36;

#[derive(Debug, Clone, Default)]
pub struct Latencies {
    buckets: Vec<u64>,
    count: u64,
    max: u64,
}

impl Latencies {
    /// Counts one.
    pub fn add(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(LONGEST).min(LONGEST);
        let bucket = bucket(micros);
        if bucket >= self.buckets.len() {
            self.buckets.resize(bucket + 1, 0);
        }
        self.buckets[bucket] += 1;
        self.count += 1;
        self.max = self.max.max(micros);
    }

    /// Adds another's counts.
    pub fn merge(&mut self, other: &Self) {
        if other.buckets.len() > self.buckets.len() {
            self.buckets.resize(other.buckets.len(), 0);
        }
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The longest.
    pub fn max(&self) -> Duration {
        Duration::from_micros(self.max)
    }

    /// At most this for `percent` of them (nearest rank).
    pub fn percentile(&self, percent: f64) -> Duration {
        let rank =
            ((percent / 100.0 * self.count as f64).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        for (bucket, n) in self.buckets.iter().enumerate() {
            seen += n;
            if seen >= rank {
                return Duration::from_micros(upper_edge(bucket as u64).min(self.max));
            }
        }
        Duration::ZERO
    }

    /// For people.
    pub fn text(&self) -> String {
        format!(
            "p50 {}, p90 {}, p99 {}, max {}",
            readable(self.percentile(50.0)),
            readable(self.percentile(90.0)),
            readable(self.percentile(99.0)),
            readable(self.max())
        )
    }

    /// For programs.
    pub fn object(&self) -> Value {
        json!({
            "count": self.count(),
            "p50_ms": millis(self.percentile(50.0)),
            "p90_ms": millis(self.percentile(90.0)),
            "p99_ms": millis(self.percentile(99.0)),
            "p999_ms": millis(self.percentile(99.9)),
            "max_ms": millis(self.max()),
        })
    }
}

fn bucket(micros: u64) -> usize {
    if micros < 2 * STEPS {
        return micros as usize;
    }
    // The leading 7 bits choose the step, the rest how often it was doubled.
    let doubled = u64::from(micros.ilog2()) - u64::from(STEPS.ilog2());
    ((doubled + 1) * STEPS + (micros >> doubled) - STEPS) as usize
}

fn upper_edge(bucket: u64) -> u64 {
    if bucket < 2 * STEPS {
        return bucket;
    }
    let doubled = bucket / STEPS - 1;
    ((bucket % STEPS + STEPS + 1) << doubled) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(n: u64) -> Duration {
        Duration::from_micros(n)
    }

    #[test]
    fn every_value_lies_in_its_bucket_and_edges_touch() {
        let mut last = 0;
        for value in (0..5_000).chain([65_535, 65_536, 1 << 20, (1 << 30) + 7, LONGEST]) {
            let edge = upper_edge(bucket(value) as u64);
            assert!(value <= edge, "{value} is above its edge {edge}");
            assert!(edge - value <= value / 64, "{value}: edge {edge} is too far");
            assert!(bucket(value) >= last);
            last = bucket(value);
            assert_eq!(bucket(edge + 1), bucket(value) + 1, "edges touch at {edge}");
        }
    }

    #[test]
    fn percentiles_are_of_nearest_rank() {
        let mut all = Latencies::default();
        assert_eq!((all.percentile(50.0), all.max()), (Duration::ZERO, Duration::ZERO));
        for n in 1..=100 {
            all.add(micros(n));
        }
        assert_eq!(all.percentile(50.0), micros(50));
        assert_eq!(all.percentile(99.0), micros(99));
        assert_eq!(all.percentile(100.0), micros(100));
        assert_eq!(all.percentile(0.0), micros(1));
    }

    #[test]
    fn a_percentile_is_never_above_the_maximum() {
        let mut one = Latencies::default();
        one.add(micros(1_000_001));
        assert_eq!(one.percentile(50.0), micros(1_000_001));
    }

    #[test]
    fn merged_counts_are_those_of_both() {
        let (mut one, mut other) = (Latencies::default(), Latencies::default());
        one.add(micros(10));
        other.add(micros(20));
        other.add(micros(30_000));
        one.merge(&other);
        assert_eq!((one.count(), one.max()), (3, micros(30_000)));
        assert_eq!(one.percentile(50.0), micros(20));
    }
}
