//! What was measured: a worker's own counts, and the window in which both
//! processes' counters are read.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::histogram::Histogram;
use super::process::{Gauge, Usage, own};
use super::wire::{Wire, WireError};

/// The counts of one worker, merged at the end.
pub(super) struct Tally {
    pub(super) requests: u64,
    pub(super) latency: Histogram,
    pub(super) errors: BTreeMap<String, u64>,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            requests: 0,
            latency: Histogram::new(),
            errors: BTreeMap::new(),
        }
    }

    /// Sends a request, counts its answer, and says whether it was a 200.
    pub(super) async fn ask(&mut self, wire: &mut Wire, request: &[u8]) -> bool {
        let start = Instant::now();
        let outcome = wire.ask(request).await;
        self.count(start, &outcome)
    }

    /// Counts an answer whose request was meant to start at `start`.
    pub(super) fn count(&mut self, start: Instant, outcome: &Result<u16, WireError>) -> bool {
        self.requests += 1;
        match outcome {
            Ok(200) => {
                self.latency.add(start.elapsed());
                return true;
            }
            Ok(status) => self.note(format!("status {status}")),
            Err(error) => self.note(error.kind()),
        }
        false
    }

    pub(super) fn note(&mut self, kind: String) {
        *self.errors.entry(kind).or_default() += 1;
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.latency.merge(&other.latency);
        for (kind, count) in &other.errors {
            *self.errors.entry(kind.clone()).or_default() += count;
        }
    }
}

/// Sums over the measured windows.
pub(super) struct Meter<'a> {
    gauge: &'a Gauge,
    pub(super) elapsed: Duration,
    pub(super) own_cpu: f64,
    /// `None` when the server's counters could not be read at both ends.
    pub(super) server_cpu: Option<f64>,
    pub(super) server_rss: u64,
}

/// The counters at the start of a window.
pub(super) struct Opened {
    at: Instant,
    own: Usage,
    server: Option<Usage>,
}

impl<'a> Meter<'a> {
    pub(super) fn new(gauge: &'a Gauge) -> Self {
        Self {
            gauge,
            elapsed: Duration::ZERO,
            own_cpu: 0.0,
            server_cpu: Some(0.0),
            server_rss: 0,
        }
    }

    /// Begins a window.
    pub(super) async fn open(&self) -> Opened {
        let server = self.gauge.read().await;
        Opened {
            server,
            own: own(),
            at: Instant::now(),
        }
    }

    /// Ends a window.
    pub(super) async fn close(&mut self, opened: Opened) {
        self.elapsed += opened.at.elapsed();
        self.own_cpu += own().cpu_seconds - opened.own.cpu_seconds;
        let now = self.gauge.read().await;
        self.server_rss = now.map_or(0, |usage| usage.rss_bytes);
        self.server_cpu = self
            .server_cpu
            .zip(opened.server.zip(now))
            .map(|(sum, (before, after))| sum + after.cpu_seconds - before.cpu_seconds);
    }
}
