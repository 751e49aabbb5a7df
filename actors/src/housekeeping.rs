//! Housekeeping: what has to be done again and again, whoever is there.
//!
//! Folds, expiry, retention, room on the disk, idle actors, certificates that end, and
//! the watch over the wall clock: while it is in doubt nothing expires and nothing is deleted.

use std::time::{Duration, Instant};

use schema::UnixMillis;

use crate::expiry::Expiries;
use crate::registry::Registry;
use crate::scep::Scep;
use crate::{Clock, Store, StoreError};

/// The housekeeper.
#[derive(Debug)]
pub struct Housekeeper {
    store: Store,
    registry: Registry,
    clock: Clock,
    expiries: Expiries,
    scep: Scep,
    retention_days: u64,
    watch: Watch,
    round: u64,
    /// When certificates were last looked at.
    told: Option<UnixMillis>,
}

/// Compares the wall clock with the time that passes.
#[derive(Debug)]
struct Watch {
    wall: UnixMillis,
    passing: Instant,
}

impl Housekeeper {
    /// A housekeeper for a store and its actors. A clock that disagrees with the last
    /// entry of the journal by more than a week is in doubt from the start.
    ///
    /// # Errors
    /// [`StoreError`] when the journal cannot be read.
    pub fn new(
        store: Store,
        registry: Registry,
        clock: Clock,
        expiries: Expiries,
        scep: Scep,
        retention_days: u64,
    ) -> Result<Self, StoreError> {
        let now = clock.now();
        if let Some(last) = store.last_written()?
            && apart(now, last) > WEEK
        {
            doubt(
                &store,
                "the clock and the last entry of the journal are more than a week apart",
            );
        }
        Ok(Self {
            watch: Watch {
                wall: now,
                passing: Instant::now(),
            },
            store,
            registry,
            clock,
            expiries,
            scep,
            told: None,
            retention_days,
            round: 0,
        })
    }

    /// Runs until storage fails, and says why it did.
    pub async fn run(mut self) -> StoreError {
        let mut ticks = tokio::time::interval(Duration::from_secs(2));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Some(why) = self.store.broken() {
                return StoreError::Broken(why);
            }
            if let Err(error) = self.tick().await {
                tracing::warn!(%error, "housekeeping was not finished");
            }
        }
    }

    async fn tick(&mut self) -> Result<(), StoreError> {
        self.round += 1;
        let now = self.clock.now();
        self.watch_clock(now);
        if self.told.is_none_or(|told| apart(now, told) >= HOUR) {
            self.told = Some(now);
            // Why it could not be is told below, with the rest.
            let _ = self.scep.keep_ra().await;
            self.expiries.tell(now);
        }
        self.store.check_room()?;
        let folded = self.store.fold().await;
        if self.round.is_multiple_of(15) {
            self.registry
                .passivate_idle(now.minus_seconds(IDLE_SECONDS).0);
            if !self.store.clock_is_doubted() {
                self.expire_and_retain(now).await?;
            }
        }
        folded
    }

    async fn expire_and_retain(&self, now: UnixMillis) -> Result<(), StoreError> {
        while self.store.expire(now).await? > 0 {}
        let before = now.minus_seconds(self.retention_days * 24 * 3600);
        for _ in 0..SLICES_AT_ONCE {
            if self.store.retain(before).await? == 0 {
                break;
            }
        }
        Ok(())
    }

    fn watch_clock(&mut self, now: UnixMillis) {
        let passed = u64::try_from(self.watch.passing.elapsed().as_millis()).unwrap_or(u64::MAX);
        let expected = UnixMillis(self.watch.wall.0.saturating_add(passed));
        if apart(now, expected) > HOUR {
            doubt(&self.store, "the clock jumped by more than an hour");
        }
        self.watch = Watch {
            wall: now,
            passing: Instant::now(),
        };
    }
}

fn apart(a: UnixMillis, b: UnixMillis) -> u64 {
    a.0.abs_diff(b.0)
}

fn doubt(store: &Store, why: &str) {
    tracing::error!(
        why,
        "nothing expires and nothing is deleted until an admin confirms the clock"
    );
    store.doubt_clock(true);
}

const IDLE_SECONDS: u64 = 300;
const SLICES_AT_ONCE: usize = 20;
const HOUR: u64 = 3600 * 1000;
const WEEK: u64 = 7 * 24 * HOUR;
