//! `doctor`: whether this installation is sound, and what to do where it is not.
//!
//! Looks at files, ports and the store, and changes nothing. While a server has the
//! store open, what is inside is asked of that server's `/readyz` instead. While doctor
//! looks into a store, for a moment, no server can open it.

use std::path::Path;

use actors::Clock;
use anyhow::ensure;
use schema::UnixMillis;
use serde::Serialize;

use super::check_config::{faults, notes};
use super::output::{self, Format, plain, say};
use crate::config::Config;

mod acme;
mod files;
mod finding;
mod listeners;
mod store;

use finding::{Finding, Outcome};
use listeners::Readiness;
use store::Found;

/// All findings, for programs.
#[derive(Serialize)]
struct Report {
    /// Nothing failed.
    ok: bool,
    checks: Vec<Finding>,
}

/// Checks all there is and prints it; fails when any check does.
pub(super) async fn run(file: Option<&Path>, format: Format) -> anyhow::Result<()> {
    let checks = match Config::load(file) {
        Ok(config) => examine(&config, Clock::System.now()).await,
        Err(why) => vec![Finding::fail(
            CONFIGURATION,
            why.to_string(),
            "nothing else can be checked before",
        )],
    };
    let failed = checks.iter().filter(|f| f.outcome == Outcome::Fail).count();
    if format.json {
        let ok = failed == 0;
        output::json(&Report { ok, checks })?;
    } else {
        for finding in &checks {
            say(&plain(&finding.line()))?;
        }
    }
    ensure!(failed == 0, "{failed} of the checks failed");
    Ok(())
}

async fn examine(config: &Config, now: UnixMillis) -> Vec<Finding> {
    let mut findings = configuration(config);
    findings.extend(files::data_directory(&config.store.path));
    findings.push(files::disk(&config.store.path, config.store.reserve_mb));
    findings.push(files::device_ca(&config.store.path, now));
    findings.extend(files::own_certificates(&config.store.path, now));
    findings.extend(acme::certificate(config, now));
    let mut running = false;
    match store::look(config, now) {
        Found::None => findings.push(Finding::ok("store", "made at the first start")),
        Found::Looked(looked) => findings.extend(looked),
        Found::InUse => {
            findings.push(Finding::ok("store", "in use; its server is asked"));
            match Readiness::ask(&config.admin).await {
                Some(readiness) => {
                    running = true;
                    findings.extend(readiness.findings(now));
                }
                None => findings.push(listeners::silent(&config.admin)),
            }
        }
    }
    if now < OLDEST_NOW {
        findings.push(Finding::fail(
            "clock",
            "stands before this program was written",
            "set the clock (NTP) before the server starts",
        ));
    }
    let (device, admin) = (config.device.listen, config.admin.listen);
    findings.push(listeners::port("device.listen", device, running));
    if let Some(checkin) = config.device.checkin_listen {
        findings.push(listeners::port("device.checkin_listen", checkin, running));
    }
    findings.push(listeners::port("admin.listen", admin, running));
    findings
}

fn configuration(config: &Config) -> Vec<Finding> {
    let wrong = faults(config).into_iter();
    let mut findings: Vec<_> = wrong
        .map(|fault| Finding::fail(CONFIGURATION, fault, "correct it in the configuration"))
        .collect();
    if findings.is_empty() {
        findings.push(Finding::ok(CONFIGURATION, "fine"));
    }
    let notes = notes(config).into_iter();
    findings.extend(notes.map(|note| Finding::warn(CONFIGURATION, note, "")));
    findings
}

const CONFIGURATION: &str = "configuration";
/// 2026-01-01.
const OLDEST_NOW: UnixMillis = UnixMillis(1_767_225_600_000);
