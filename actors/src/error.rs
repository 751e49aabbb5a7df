//! What can go wrong on this floor, and whose fault it is.

use schema::EnrollId;
use schema::enrollment::Misbehaved;

use crate::store::StoreError;

/// Why a device was not served.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Fault {
    /// The device's: it said what it may not.
    #[error(transparent)]
    Misbehaved(#[from] Misbehaved),
    /// The device's: nobody here has this id.
    #[error("no enrollment {0}")]
    Unknown(EnrollId),
    /// Ours: the store did not take or give it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Ours: more is going on than we admit; to be tried again later.
    #[error("overloaded")]
    Overloaded,
    /// Ours: the actor of this device panicked on a message.
    #[error("the actor of {0} failed")]
    Panicked(EnrollId),
    /// Ours: this device's actor panicked too often; an admin lifts it.
    #[error("{0} is quarantined")]
    Quarantined(EnrollId),
    /// Ours: the server is going down.
    #[error("shutting down")]
    Stopping,
}
