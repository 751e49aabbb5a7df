//! Latencies in log-linear buckets: 1.6 % exact at any size, merged for free.

use std::time::Duration;

use serde::Serialize;

/// Counts of latencies.
pub(super) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max: Duration,
}

/// The percentiles people ask for, in microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Latency {
    /// Half were faster.
    pub p50_us: u64,
    /// Nine in ten were faster.
    pub p90_us: u64,
    /// All but one in a hundred were faster.
    pub p99_us: u64,
    /// The slowest.
    pub max_us: u64,
}

impl Histogram {
    pub(super) fn new() -> Self {
        Self {
            buckets: vec![0; bucket(u64::MAX) + 1],
            count: 0,
            max: Duration::ZERO,
        }
    }

    pub(super) fn add(&mut self, latency: Duration) {
        self.buckets[bucket(latency.as_nanos() as u64)] += 1;
        self.count += 1;
        self.max = self.max.max(latency);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    pub(super) fn latency(&self) -> Latency {
        Latency {
            p50_us: self.percentile(0.50),
            p90_us: self.percentile(0.90),
            p99_us: self.percentile(0.99),
            max_us: self.max.as_micros() as u64,
        }
    }

    fn percentile(&self, share: f64) -> u64 {
        let rank = (self.count as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (at, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank && *count > 0 {
                return middle(at).min(self.max.as_nanos() as u64) / 1000;
            }
        }
        0
    }
}

/// Values below 64 have a bucket each, each further octave has 32.
fn bucket(nanos: u64) -> usize {
    let octave = (u64::BITS - nanos.leading_zeros()).saturating_sub(BITS);
    ((octave as usize) << (BITS - 1)) + (nanos >> octave) as usize
}

fn middle(bucket: usize) -> u64 {
    let octave = (bucket >> (BITS - 1)).saturating_sub(1);
    let start = ((bucket - (octave << (BITS - 1))) as u64) << octave;
    start + (1 << octave) / 2
}

const BITS: u32 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_narrow_and_in_order() {
        let mut last = 0;
        for shift in 0..58 {
            for step in 0..37u64 {
                let value = (1u64 << shift) + step * (1u64 << shift) / 37;
                let bucket = bucket(value);
                assert!(bucket >= last, "{value}");
                last = bucket;
                let error = middle(bucket).abs_diff(value) as f64 / value as f64;
                assert!(error < 0.017, "{value} read as {}", middle(bucket));
            }
        }
    }

    #[test]
    fn percentiles_survive_a_merge() {
        let (mut low, mut high) = (Histogram::new(), Histogram::new());
        (1..=500).for_each(|n| low.add(Duration::from_micros(n)));
        (501..=1000).for_each(|n| high.add(Duration::from_micros(n)));
        low.merge(&high);
        let latency = low.latency();
        assert!((490..=510).contains(&latency.p50_us), "{latency:?}");
        assert!((975..=1000).contains(&latency.p99_us), "{latency:?}");
        assert_eq!(latency.max_us, 1000);
    }
}
