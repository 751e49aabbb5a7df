//! The rows of the table: what each drives, and its bars.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;

use super::server::Server;
use super::server_us;
use crate::load::{LoadOptions, Scenario};
use crate::report::LoadReport;
use crate::target::Proof;

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Row {
    /// Idle polls, nothing queued, identity in a proxy's header.
    IdleHeader,
    /// The same with `Mdm-Signature`, signed beforehand.
    IdleSignature,
    /// Idle, a command, a report of 1 KB, an empty answer; durable.
    CycleHeader,
    /// The same with `Mdm-Signature`, signed live.
    CycleSignature,
    /// The same with a report of 32 KB.
    #[value(name = "report-32k")]
    #[serde(rename = "report-32k")]
    Report32k,
    /// Authenticate and TokenUpdate with a fresh certificate; per device.
    Enroll,
    /// 1,000 polls a second, whatever the server's pace.
    OpenLoop,
}

/// How a figure is read out of a run.
pub(super) type Reading = fn(&LoadReport) -> Result<f64>;

impl Row {
    /// All, in the table's order.
    pub const ALL: [Self; 7] = [
        Self::IdleHeader,
        Self::IdleSignature,
        Self::CycleHeader,
        Self::CycleSignature,
        Self::Report32k,
        Self::Enroll,
        Self::OpenLoop,
    ];

    /// Its name, as the command line has it.
    pub fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// What must be borne in mind when its figures are read.
    pub fn note(self) -> &'static str {
        match self {
            Self::CycleSignature => {
                "the generator signs live and bounds the pace: small commits, dearer requests"
            }
            Self::Report32k => "the report and the poll before it, as one pair",
            Self::Enroll => "per device: two requests",
            _ => "",
        }
    }

    /// The run that measures it.
    pub(super) fn load(self, server: &Server, ca: &Path, quick: bool) -> LoadOptions {
        let scenario = match self {
            Self::IdleHeader | Self::IdleSignature | Self::OpenLoop => Scenario::Idle,
            Self::CycleHeader | Self::CycleSignature | Self::Report32k => Scenario::Cycle,
            Self::Enroll => Scenario::Enroll,
        };
        let proof = match self {
            Self::IdleSignature | Self::CycleSignature => Proof::Signature,
            _ => Proof::Header,
        };
        let (devices, in_flight) = match scenario {
            Scenario::Idle => (1000, 64),
            Scenario::Cycle => (2000, 256),
            Scenario::Enroll => (10_000, 256),
        };
        LoadOptions {
            scenario,
            url: server.devices.clone(),
            admin_url: Some(server.admin.clone()),
            token: Some(server.token.clone()),
            proof,
            ca: ca.to_owned(),
            devices: if quick { 40 } else { devices },
            in_flight: if quick { 8 } else { in_flight },
            // Longer than the two seconds between folds, which belong to the price.
            duration: Duration::from_secs(if quick { 2 } else { 6 }),
            count: quick.then_some(200),
            rate: (self == Self::OpenLoop).then_some(1000.0),
            warm_up: Duration::from_millis(if quick { 0 } else { 1000 }),
            report_bytes: if self == Self::Report32k {
                32_000
            } else {
                1000
            },
            pid: Some(server.pid()),
            topic: "com.apple.mgmt.External.simulated".to_owned(),
            checkin_path: "/mdm/checkin".to_owned(),
            connect_path: "/mdm/connect".to_owned(),
            seed: None,
        }
    }

    /// Its figures: what it is called, how it is read, its bar, and whether more is better.
    pub(super) fn figures(self) -> Vec<(&'static str, Reading, Option<f64>, bool)> {
        let cpu = |bar| ("server us/request", server_us as Reading, Some(bar), false);
        let pace = |bar| ("requests/s", per_second as Reading, bar, true);
        let mut figures = match self {
            Self::IdleHeader => vec![cpu(20.0), pace(None)],
            Self::IdleSignature => vec![cpu(50.0), pace(None)],
            Self::CycleHeader => vec![cpu(40.0), pace(Some(15_000.0))],
            Self::CycleSignature => vec![cpu(70.0), pace(None)],
            Self::Report32k => vec![("server us/pair", pair_us as Reading, Some(350.0), false)],
            Self::Enroll => vec![("server us/device", pair_us as Reading, Some(160.0), false)],
            Self::OpenLoop => vec![
                ("p50 us", p50 as Reading, Some(300.0), false),
                ("p99 us", p99 as Reading, Some(2000.0), false),
            ],
        };
        figures.push(("generator us/request", generator_us, None, false));
        figures
    }
}

fn per_second(report: &LoadReport) -> Result<f64> {
    Ok(report.requests_per_second)
}

fn pair_us(report: &LoadReport) -> Result<f64> {
    Ok(server_us(report)? * 2.0)
}

fn generator_us(report: &LoadReport) -> Result<f64> {
    Ok(report.generator_cpu_us_per_request)
}

fn p50(report: &LoadReport) -> Result<f64> {
    Ok(report.latency.p50_us as f64)
}

fn p99(report: &LoadReport) -> Result<f64> {
    Ok(report.latency.p99_us as f64)
}
