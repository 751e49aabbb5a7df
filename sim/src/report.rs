//! What a load run found: a table for people, JSON for scripts.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::load::{Exactness, Latency, Scenario};

/// The findings of one run.
#[derive(Clone, Debug, Serialize)]
pub struct LoadReport {
    /// What the devices did.
    pub scenario: Scenario,
    /// How they proved who they are: `header` or `signature`.
    pub proof: String,
    /// How many there were.
    pub devices: usize,
    /// Requests under way at once.
    pub in_flight: usize,
    /// The fixed rate asked for, in requests per second.
    pub rate: Option<f64>,
    /// Makes the same devices again.
    pub seed: u64,
    /// The measured time.
    pub seconds: f64,
    /// Requests within it, failed ones included.
    pub requests: u64,
    /// The same per second.
    pub requests_per_second: f64,
    /// Of the requests answered with 200.
    pub latency: Latency,
    /// Failed requests by kind: a status, or what broke.
    pub errors: BTreeMap<String, u64>,
    /// Cycle only.
    pub exactness: Option<Exactness>,
    /// What the server spent; `None` when its counters could not be read.
    pub server: Option<ServerCost>,
    /// What the generator spent while measuring.
    pub generator_cpu_seconds: f64,
    /// The same per request, in microseconds.
    pub generator_cpu_us_per_request: f64,
}

/// What the server spent, by its own counters.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ServerCost {
    /// User and system time within the measured time.
    pub cpu_seconds: f64,
    /// The same per request, in microseconds.
    pub cpu_us_per_request: f64,
    /// Resident memory at the end.
    pub rss_bytes: u64,
}

impl LoadReport {
    /// No request failed and, for cycle, each command was done exactly once.
    pub fn is_clean(&self) -> bool {
        self.errors.is_empty() && self.exactness.is_none_or(|exact| exact.is_exact())
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |f: &mut fmt::Formatter<'_>, name: &str, value: String| {
            writeln!(f, "{name:<22}{value}")
        };
        let scenario = format!("{:?}", self.scenario).to_lowercase();
        line(
            f,
            "scenario",
            format!("{scenario}, proof by {}", self.proof),
        )?;
        line(
            f,
            "devices",
            format!(
                "{} (seed {}), {} in flight",
                self.devices, self.seed, self.in_flight
            ),
        )?;
        if let Some(rate) = self.rate {
            line(f, "rate asked for", format!("{rate:.0} requests/s"))?;
        }
        line(
            f,
            "requests",
            format!("{} in {:.2} s", self.requests, self.seconds),
        )?;
        line(
            f,
            "throughput",
            format!("{:.0} requests/s", self.requests_per_second),
        )?;
        let Latency {
            p50_us,
            p90_us,
            p99_us,
            max_us,
        } = self.latency;
        line(
            f,
            "latency",
            format!(
                "p50 {}  p90 {}  p99 {}  max {}",
                millis(p50_us),
                millis(p90_us),
                millis(p99_us),
                millis(max_us)
            ),
        )?;
        match &self.server {
            Some(server) => {
                line(
                    f,
                    "server CPU",
                    format!(
                        "{:.1} us/request ({:.2} s)",
                        server.cpu_us_per_request, server.cpu_seconds
                    ),
                )?;
                let mebibytes = server.rss_bytes as f64 / (1024.0 * 1024.0);
                line(f, "server memory", format!("{mebibytes:.1} MiB resident"))?;
            }
            None => line(
                f,
                "server CPU",
                "unknown: give --pid or --admin-url".to_owned(),
            )?,
        }
        line(
            f,
            "generator CPU",
            format!(
                "{:.1} us/request ({:.2} s)",
                self.generator_cpu_us_per_request, self.generator_cpu_seconds
            ),
        )?;
        if let Some(exact) = &self.exactness {
            let verdict = if exact.is_exact() {
                "exact"
            } else {
                "NOT EXACT"
            };
            let counts = format!(
                "{verdict}: {} of {} exactly once",
                exact.exactly_once, exact.queued
            );
            line(f, "exactness", counts)?;
            if !exact.is_exact() {
                line(
                    f,
                    "",
                    format!(
                        "missing {}, repeated {}, foreign {}, abandoned {}, left over {}",
                        exact.missing,
                        exact.repeated,
                        exact.foreign,
                        exact.abandoned,
                        exact.left_over
                    ),
                )?;
            }
        }
        if self.errors.is_empty() {
            return line(f, "errors", "none".to_owned());
        }
        for (kind, count) in &self.errors {
            line(f, "errors", format!("{count} x {kind}"))?;
        }
        Ok(())
    }
}

fn millis(micros: u64) -> String {
    format!("{:.2} ms", micros as f64 / 1000.0)
}
