//! The machine a table was measured on, in the facts that explain its figures.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

/// What a table was measured on.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// Its cores.
    pub cores: usize,
    /// The kernel.
    pub kernel: String,
    /// What the server's binary says it is.
    pub reveille: String,
}

impl Machine {
    /// This machine, with the server at `reveille`.
    pub(super) fn here(reveille: &Path) -> Self {
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = cpu.lines().find_map(|line| {
            let (key, name) = line.split_once(':')?;
            (key.trim() == "model name").then(|| name.trim().to_owned())
        });
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let version = Command::new(reveille).arg("--version").output();
        let version = version.map(|said| String::from_utf8_lossy(&said.stdout).trim().to_owned());
        Self {
            cpu: cpu.unwrap_or_else(|| "unknown".to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: kernel.trim().to_owned(),
            reveille: version.unwrap_or_default(),
        }
    }
}
