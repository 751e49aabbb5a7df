//! The `bench` verb: the speed table as one command. Starts the real `reveille` for each
//! row, drives it with `load`, and tells medians, the noise and whether the bar is met.
//!
//! A row is a `load` scenario with its figures; a run that was not clean is an error,
//! a bar that was missed is not.

mod machine;
mod row;
mod server;
mod table;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;

pub use machine::Machine;
pub use row::Row;
pub use table::{BenchReport, Figure, RowReport, Spread};

use crate::ca::{CaKey, DeviceCa};
use crate::keys::KeyPool;
use crate::load;
use crate::report::LoadReport;
use server::Server;

/// What to measure, and how often.
#[derive(Args, Clone, Debug)]
pub struct BenchOptions {
    /// The server's binary; the `reveille` beside this one, else that of PATH.
    #[arg(long)]
    pub reveille: Option<PathBuf>,
    /// These rows only.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub rows: Vec<Row>,
    /// Runs of each row, of which the median counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=9))]
    pub runs: u32,
    /// Small counts, to see that it works: the figures mean little.
    #[arg(long)]
    pub quick: bool,
}

/// Measures the rows asked for, one after another.
///
/// # Errors
/// When a server does not start, or something was lost, refused or done twice.
pub async fn run(options: BenchOptions) -> Result<BenchReport> {
    ensure!(options.runs > 0, "at least one run is needed");
    let reveille = options.reveille.clone().unwrap_or_else(beside);
    let chosen = match options.rows.is_empty() {
        true => Row::ALL.to_vec(),
        false => options.rows.clone(),
    };
    let mut rows = Vec::new();
    for row in chosen {
        let measured = measure(row, &reveille, &options).await;
        rows.push(measured.with_context(|| format!("row {}", row.name()))?);
    }
    Ok(BenchReport {
        machine: Machine::here(&reveille),
        runs: options.runs,
        quick: options.quick,
        rows,
    })
}

/// One server for all runs of a row: the later ones find it at its working size.
async fn measure(row: Row, reveille: &Path, options: &BenchOptions) -> Result<RowReport> {
    let directory = tempfile::tempdir()?;
    let ca = directory.path().join("sim-ca");
    let pool = std::sync::Arc::new(KeyPool::growing(1));
    DeviceCa::open_or_create(&ca, CaKey::P256, pool)?;
    let server = Server::start(reveille, directory.path())?;
    let mut runs = Vec::new();
    for _ in 0..options.runs {
        let report = load::run(row.load(&server, &ca, options.quick)).await?;
        ensure!(report.is_clean(), "the run was not clean:\n{report}");
        runs.push(report);
    }
    server.stop()?;
    RowReport::of(row, &runs)
}

/// What `cargo build` and a package lay side by side.
fn beside() -> PathBuf {
    let own = std::env::current_exe().ok();
    let beside = own.and_then(|own| Some(own.parent()?.join(NAME)));
    beside
        .filter(|path| path.is_file())
        .unwrap_or_else(|| NAME.into())
}

/// The server's CPU, which no row does without.
fn server_us(report: &LoadReport) -> Result<f64> {
    let server = report.server.context("the server's CPU cannot be read")?;
    Ok(server.cpu_us_per_request)
}

const NAME: &str = "reveille";
