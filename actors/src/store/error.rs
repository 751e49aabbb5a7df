//! Why the store did not do what it was asked.

use std::sync::Arc;

use schema::link::LinkId;
use schema::{CommandUuid, EnrollId};

/// A refusal changes nothing; [`StoreError::Broken`] ends the process.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Storage failed. Nothing more is acknowledged; the process must end.
    #[error("storage failed: {0}")]
    Broken(Arc<str>),
    /// Too little room on the disk to write safely.
    #[error("the disk is nearly full; nothing is written until there is room again")]
    Full,
    /// More writes wait than the queue holds.
    #[error("too many writes wait")]
    Overloaded,
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
    /// Another process has the store open.
    #[error("another process has the store open")]
    InUse,
    /// The last process that had it open was cut off; opening it to write repairs it.
    #[error("the store was not closed cleanly")]
    Unclosed,
    /// A backup is being made.
    #[error("another backup is being made; one at a time")]
    BackupRuns,
    /// A backup cannot be begun; the store goes on.
    #[error("no backup can be made: {0}")]
    NoBackup(Arc<str>),
    /// Written by a newer version of this program.
    #[error("the store has schema version {found}, this program knows {known}")]
    Newer {
        /// In the store.
        found: u32,
        /// In this program.
        known: u32,
    },
    /// The sealing key is missing or none.
    #[error("sealing key: {0}")]
    SealingKey(String),
    /// A sealed value does not open with this key.
    #[error("a sealed value does not open with this sealing key")]
    Unsealable,
    /// The identity is bound to another enrollment.
    #[error("the identity certificate is bound to another enrollment than {0}")]
    BoundElsewhere(EnrollId),
    /// The CommandUUID was used before.
    #[error("the CommandUUID {0} was used before")]
    DuplicateUuid(CommandUuid),
    /// The idempotency key came with another request before.
    #[error("the idempotency key was used for another request")]
    IdempotencyMismatch,
    /// The guard threshold of destructive commands would be passed.
    #[error(
        "destructive commands reached {reached} devices in {minutes} minutes, at most {limit} are allowed"
    )]
    Guard {
        /// Devices, with this request.
        reached: usize,
        /// Devices allowed.
        limit: usize,
        /// Length of the window.
        minutes: u64,
    },
    /// An enrollment link with this id is there already.
    #[error("the enrollment link {0} is there already")]
    LinkExists(LinkId),
    /// More cohorts are open than we keep.
    #[error("{0} commands to many devices are open, no more are taken")]
    TooManyOpen(usize),
}

impl StoreError {
    pub(crate) fn broken(why: &str) -> Self {
        Self::Broken(why.into())
    }
}

macro_rules! broken_by {
    ($($error:ty),*) => {$(
        impl From<$error> for StoreError {
            fn from(error: $error) -> Self {
                Self::broken(&error.to_string())
            }
        }
    )*};
}

broken_by!(
    redb::StorageError,
    redb::TableError,
    redb::TransactionError,
    redb::CommitError,
    redb::SetDurabilityError,
    std::io::Error
);

impl From<redb::DatabaseError> for StoreError {
    fn from(error: redb::DatabaseError) -> Self {
        match error {
            redb::DatabaseError::DatabaseAlreadyOpen => Self::InUse,
            redb::DatabaseError::RepairAborted => Self::Unclosed,
            other => Self::broken(&other.to_string()),
        }
    }
}
