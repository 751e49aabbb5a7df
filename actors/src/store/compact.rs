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
    let mut builder = Database::builder();
    let mut database = builder.set_cache_size(CACHE_BYTES).open(&file)?;
    for _ in 0..ROUNDS {
        if !database.compact()? {
            break;
        }
    }
    drop(database);
    let after = length()?;
    Ok(Compacted { before, after })
}

const CACHE_BYTES: usize = 64 << 20;
/// The first does nearly all; each is complete in itself.
const ROUNDS: usize = 4;

impl From<CompactionError> for StoreError {
    fn from(error: CompactionError) -> Self {
        Self::broken(&error.to_string())
    }
}
