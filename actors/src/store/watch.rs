//! The watch over the wall clock: while it is in doubt, expiry, retention and schedules
//! stand still at the last time that was trusted, until an admin confirms the clock.
//!
//! In doubt is a clock that moved by more than an hour against the time that passes, or
//! is more than a week from what the store last knew when it is opened; and any clock at
//! all after a restore, when it is the store that is old. Asked at each
//! expiry, not only now and then: nothing expires between the jump and its discovery.

use std::sync::{Arc, Mutex};

use redb::ReadableTable as _;
use schema::UnixMillis;

use super::tables::{JOURNAL, JournalRow, META, decode, encode};
use super::tail::Published;
use super::{Store, StoreError, lock, restore};
use crate::Clock;

/// The watch.
#[derive(Debug)]
pub(super) struct Watch {
    clock: Clock,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    /// The wall clock when it was last trusted, and the time passed by then.
    trusted: UnixMillis,
    passed: u64,
    doubt: Option<Arc<str>>,
}

impl Watch {
    pub(super) fn new(clock: Clock) -> Self {
        let known = Known {
            trusted: clock.now(),
            passed: clock.passed(),
            doubt: None,
        };
        Self {
            clock,
            known: Mutex::new(known),
        }
    }

    /// Compares the clock with what a store last knew.
    pub(super) fn compare(&self, last: UnixMillis) {
        let now = self.clock.now();
        if now.0.abs_diff(last.0) > WEEK {
            let mut known = lock(&self.known);
            // Whichever of both is wrong: nothing expires before its time.
            known.trusted = now.min(last);
            known.begin_doubt("the clock and what the store last wrote are over a week apart");
        }
    }

    /// The store is from a backup: nothing expires because the backup is old.
    pub(super) fn restored(&self, made: UnixMillis) {
        let mut known = lock(&self.known);
        known.trusted = self.clock.now().min(made);
        known.begin_doubt("the store was restored from a backup");
    }

    /// The time by which things expire.
    pub(super) fn now(&self) -> UnixMillis {
        let (now, passed) = (self.clock.now(), self.clock.passed());
        let mut known = lock(&self.known);
        let expected = known.trusted.0 + passed.saturating_sub(known.passed);
        if known.doubt.is_none() && now.0.abs_diff(expected) > HOUR {
            known.trusted = UnixMillis(expected);
            known.begin_doubt("the clock jumped by more than an hour");
        }
        if known.doubt.is_none() {
            // Small steps of a clock that is being kept do not add up.
            known.trusted = now;
            known.passed = passed;
        }
        known.trusted
    }

    /// Why the clock is in doubt, when it is.
    pub(super) fn doubt(&self) -> Option<Arc<str>> {
        self.now();
        lock(&self.known).doubt.clone()
    }

    fn trust(&self) {
        let mut known = lock(&self.known);
        if known.doubt.take().is_some() {
            tracing::warn!("the clock is confirmed; things expire and are deleted again");
        }
        known.trusted = self.clock.now();
        known.passed = self.clock.passed();
    }
}

impl Known {
    fn begin_doubt(&mut self, why: &str) {
        tracing::error!(
            why,
            "nothing expires and nothing is deleted until an admin confirms the clock"
        );
        self.doubt = Some(why.into());
    }
}

impl Store {
    /// The time by which things expire: it stands still while the wall clock is in doubt.
    #[must_use]
    pub fn expiry_clock(&self) -> UnixMillis {
        self.inner.published.watch.now()
    }

    /// Why the wall clock is in doubt, when it is.
    #[must_use]
    pub fn clock_doubt(&self) -> Option<Arc<str>> {
        self.inner.published.watch.doubt()
    }

    /// The wall clock is right, says an admin: remembered, so that the next start does
    /// not doubt it because of what was written before.
    ///
    /// # Errors
    /// [`StoreError`]: the store's own trouble.
    pub async fn confirm_clock(&self) -> Result<(), StoreError> {
        let now = self.inner.published.clock.now();
        self.write(move |transaction| {
            let journal = transaction.open_table(JOURNAL)?;
            let position = journal.last()?.map_or(0, |(position, _)| position.value());
            let confirmed = encode(&(position, now))?;
            transaction
                .open_table(META)?
                .insert("clock", confirmed.as_slice())?;
            drop(journal);
            restore::confirm(transaction)?;
            Ok(Box::new(|published: &Published| published.watch.trust()))
        })
        .await
    }
}

/// The last time a store knew: its newest entry's, or a later word of an admin.
pub(super) fn last_known(
    transaction: &redb::WriteTransaction,
) -> Result<Option<UnixMillis>, StoreError> {
    let meta = transaction.open_table(META)?;
    let confirmed = meta
        .get("clock")?
        .map(|row| decode::<(u64, UnixMillis)>(row.value()));
    let journal = transaction.open_table(JOURNAL)?;
    let newest = match journal.last()? {
        Some((position, row)) => Some((position.value(), decode::<JournalRow>(row.value())?.at)),
        None => None,
    };
    Ok(match (confirmed.transpose()?, newest) {
        (Some((by, at)), Some((position, _))) if by >= position => Some(at),
        (Some((_, at)), None) => Some(at),
        (_, newest) => newest.map(|(_, at)| at),
    })
}

const HOUR: u64 = 3600 * 1000;
const WEEK: u64 = 7 * 24 * HOUR;
