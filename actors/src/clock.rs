//! The one clock of the house, handed down from the composition root.
//!
//! Every expiry, schedule and certificate check asks it. Tests set it by hand;
//! pausing tokio's time around a real writer thread would make every timeout fire.
//! What must not be opened by setting a clock is measured by the time that passes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use schema::UnixMillis;

/// A source of time.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The machine's.
    #[default]
    System,
    /// Stands where it was set.
    Manual(Arc<Manual>),
}

/// A clock set by hand.
#[derive(Debug)]
pub struct Manual {
    wall: AtomicU64,
    passed: AtomicU64,
}

impl Clock {
    /// A clock that stands at `now` until it is set.
    #[must_use]
    pub fn manual(now: UnixMillis) -> Self {
        Self::Manual(Arc::new(Manual {
            wall: AtomicU64::new(now.0),
            passed: AtomicU64::new(1),
        }))
    }

    /// The time on the wall.
    #[must_use]
    pub fn now(&self) -> UnixMillis {
        match self {
            Self::System => {
                let since = SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default();
                UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
            }
            Self::Manual(manual) => UnixMillis(manual.wall.load(Ordering::Acquire)),
        }
    }

    /// Milliseconds that passed since the machine was started, asleep or awake, whatever
    /// the wall clock was set to meanwhile. Never 0.
    #[must_use]
    pub fn passed(&self) -> u64 {
        match self {
            Self::System => {
                let since = clock_gettime(ClockId::Boottime);
                let millis = since.tv_sec.saturating_mul(1000) + since.tv_nsec / 1_000_000;
                u64::try_from(millis).unwrap_or(1).max(1)
            }
            Self::Manual(manual) => manual.passed.load(Ordering::Acquire),
        }
    }

    /// Lets time pass until `now` on a manual clock; the machine's own is left alone.
    pub fn set(&self, now: UnixMillis) {
        if let Self::Manual(manual) = self {
            let before = manual.wall.swap(now.0, Ordering::AcqRel);
            let passed = now.0.saturating_sub(before);
            manual.passed.fetch_add(passed, Ordering::AcqRel);
        }
    }

    /// Sets a manual clock to `now` while no time passes.
    pub fn jump(&self, now: UnixMillis) {
        if let Self::Manual(manual) = self {
            manual.wall.store(now.0, Ordering::Release);
        }
    }
}
