//! The one clock of the house, handed down from the composition root.
//!
//! Every expiry, schedule and certificate check asks it. Tests set it by hand;
//! pausing tokio's time around a real writer thread would make every timeout fire.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use schema::UnixMillis;

/// A source of wall-clock time.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The machine's.
    #[default]
    System,
    /// Stands where it was set.
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// A clock that stands at `now` until it is set.
    #[must_use]
    pub fn manual(now: UnixMillis) -> Self {
        Self::Manual(Arc::new(AtomicU64::new(now.0)))
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> UnixMillis {
        match self {
            Self::System => {
                let since = SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default();
                UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
            }
            Self::Manual(at) => UnixMillis(at.load(Ordering::Acquire)),
        }
    }

    /// Sets a manual clock; the machine's own is left alone.
    pub fn set(&self, now: UnixMillis) {
        if let Self::Manual(at) = self {
            at.store(now.0, Ordering::Release);
        }
    }
}
