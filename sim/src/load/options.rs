//! The options of the `load` verb, as the command line has them.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::error::SimError;
use crate::target::{Proof, Target};

/// Drives simulated devices at a running server and measures it.
#[derive(Args, Clone, Debug)]
pub struct LoadOptions {
    /// What the devices do.
    #[arg(value_enum)]
    pub scenario: Scenario,
    /// The server's device door, plain http on loopback.
    #[arg(long, default_value = "http://127.0.0.1:8443")]
    pub url: String,
    /// The server's admin door: to queue commands (cycle) and to read metrics.
    #[arg(long)]
    pub admin_url: Option<String>,
    /// Bearer token of the admin door.
    #[arg(long, env = "REVEILLE_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// How devices prove who they are.
    #[arg(long, value_enum, default_value = "header")]
    pub proof: Proof,
    /// Directory of the device CA (ca.pem, ca-key.pem), which the server must
    /// trust; made when absent.
    #[arg(long, default_value = "sim-ca")]
    pub ca: PathBuf,
    /// How many devices.
    #[arg(long, default_value_t = 1000)]
    pub devices: usize,
    /// Requests under way at once, each on a connection of its own.
    #[arg(long, default_value_t = 64)]
    pub in_flight: usize,
    /// How long to measure idle and cycle, for example 500ms, 30s, 2m.
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub duration: Duration,
    /// Stop after this many requests (idle) or cycles (cycle).
    #[arg(long)]
    pub count: Option<u64>,
    /// Idle only: send at this fixed rate (requests per second), whatever the
    /// server's pace, and measure latency from the intended start.
    #[arg(long)]
    pub rate: Option<f64>,
    /// Idle only: run this long before measuring.
    #[arg(long, default_value = "1s", value_parser = duration)]
    pub warm_up: Duration,
    /// Cycle only: size of the Acknowledged report in bytes.
    #[arg(long, default_value_t = 1024)]
    pub report_bytes: usize,
    /// Process id of the server, to read its CPU and memory; without it they
    /// are read from the admin door's metrics.
    #[arg(long)]
    pub pid: Option<u32>,
    /// The APNs topic of the devices.
    #[arg(long, default_value = "com.apple.mgmt.External.simulated")]
    pub topic: String,
    /// Path of check-ins.
    #[arg(long, default_value = "/mdm/checkin")]
    pub checkin_path: String,
    /// Path of reports.
    #[arg(long, default_value = "/mdm/connect")]
    pub connect_path: String,
    /// The same seed makes devices with the same ids; random by default.
    #[arg(long)]
    pub seed: Option<u64>,
}

/// What the devices do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scenario {
    /// Idle polls with nothing queued.
    Idle,
    /// Idle, a command, its Acknowledged report, an empty answer.
    Cycle,
    /// Authenticate and TokenUpdate, each with a fresh certificate.
    Enroll,
}

impl LoadOptions {
    /// The server's device door.
    pub(super) fn target(&self) -> Result<Target, SimError> {
        let mut target = Target::new(&self.url, self.proof)?;
        target.checkin_path.clone_from(&self.checkin_path);
        target.connect_path.clone_from(&self.connect_path);
        Ok(target)
    }
}

/// A number with `ms`, `s`, `m` or `h`.
fn duration(text: &str) -> Result<Duration, String> {
    let unit_at = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let number: f64 = number
        .parse()
        .map_err(|_| format!("{text} is no duration: write 500ms, 30s or 2m"))?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "s" | "" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(format!("{unit} is no unit of time: use ms, s, m or h")),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| format!("{text} is too long"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert!(duration("soon").is_err());
        assert!(duration("3 weeks").is_err());
    }
}
