//! Compaction: gives the room back that a database file holds and does not need. Only
//! while nobody has the store open.

use std::path::Path;

use redb::{CompactionError, Database};

use super::StoreError;
use super::archive::DATABASE;

/// What compaction did, in bytes of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// Before.
    pub before: u64,
    /// Now.
    pub after: u64,
}

/// Compacts the store of a data directory. Cut off, it leaves the store as it was.
///
/// # Errors
/// [`StoreError::InUse`] while a server runs on it; [`StoreError::Broken`] when it cannot
/// be read or written.
pub fn compact(directory: &Path) -> Result<Compacted, StoreError> {
    let file = directory.join(DATABASE);
    let length = || std::fs::metadata(&file).map(|found| found.len());
    let before = length()?;
    let mut database = Database::builder().open(&file)?;
    while database.compact()? {}
    drop(database);
    let after = length()?;
    Ok(Compacted { before, after })
}

impl From<CompactionError> for StoreError {
    fn from(error: CompactionError) -> Self {
        Self::broken(&error.to_string())
    }
}
