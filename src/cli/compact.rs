//! `compact`: gives the disk back what the database holds and does not need, while no
//! server runs on it.

use std::path::Path;

use actors::StoreError;
use actors::store::{self, compact};
use anyhow::{Context as _, bail, ensure};

use super::output;
use crate::config::Config;

/// Compacts the store of the configuration.
pub(super) fn run(file: Option<&Path>) -> anyhow::Result<()> {
    let config = Config::load(file).context("configuration")?;
    let path = config.store.path.display();
    ensure!(
        store::is_in(&config.store.path),
        "there is no store in {path} (store.path)"
    );
    match compact(&config.store.path) {
        Ok(done) => Ok(output::say(&format!(
            "{} bytes before, {} bytes after",
            done.before, done.after
        ))?),
        Err(StoreError::InUse) => {
            bail!("a server runs on the store in {path}: stop the server first, then compact")
        }
        Err(error) => Err(error).with_context(|| format!("the store in {path}")),
    }
}
