//! Housekeeping: what has to be done again and again, whoever is there.
//!
//! Folds, expiry, retention, the renewal of identities, room on the disk, idle actors,
//! certificates that end. While the wall clock is in doubt nothing expires and nothing is
//! deleted.

use std::time::Duration;

use schema::UnixMillis;

use crate::expiry::Expiries;
use crate::registry::Registry;
use crate::renewer::Renewer;
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
    renewer: Renewer,
    retention_days: u64,
    round: u64,
    /// When certificates were last looked at.
    told: Option<UnixMillis>,
}

impl Housekeeper {
    /// A housekeeper for a store and its actors.
    #[must_use]
    pub fn new(
        store: Store,
        registry: Registry,
        clock: Clock,
        expiries: Expiries,
        scep: Scep,
        renewer: Renewer,
        retention_days: u64,
    ) -> Self {
        Self {
            store,
            registry,
            clock,
            expiries,
            scep,
            renewer,
            told: None,
            retention_days,
            round: 0,
        }
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
        // Asked for, a jump is seen although nobody comes.
        let _ = self.store.expiry_clock();
        if self.told.is_none_or(|told| apart(now, told) >= HOUR) {
            self.told = Some(now);
            // Why it could not be is told below, with the rest.
            let _ = self.scep.keep_ra().await;
            self.expiries.tell(now);
        }
        self.store.check_room()?;
        let folded = self.store.fold().await;
        let learned = self.store.learn(LEARNED_AT_ONCE).await;
        if self.round.is_multiple_of(15) {
            self.registry
                .passivate_idle(now.minus_seconds(IDLE_SECONDS).0);
            self.expire_and_retain().await?;
            self.renewer.round(RENEWED_AT_ONCE).await?;
        }
        folded.and(learned.map(drop))
    }

    async fn expire_and_retain(&self) -> Result<(), StoreError> {
        let now = self.store.expiry_clock();
        if self.store.clock_doubt().is_some() {
            return Ok(());
        }
        while self.store.expire(now).await? > 0 {}
        let before = now.minus_seconds(self.retention_days * 24 * 3600);
        for _ in 0..SLICES_AT_ONCE {
            if self.store.retain(before).await? == 0 {
                break;
            }
        }
        while self.store.forget_links(before).await? > 0 {}
        Ok(())
    }
}

fn apart(a: UnixMillis, b: UnixMillis) -> u64 {
    a.0.abs_diff(b.0)
}

const IDLE_SECONDS: u64 = 300;
const SLICES_AT_ONCE: usize = 20;
/// Slices of the journal read for the inventory each time, so that a mass rollout keeps
/// the machine.
const LEARNED_AT_ONCE: usize = 20;
/// Channels looked at for renewal each half minute: 100,000 in under an hour.
const RENEWED_AT_ONCE: usize = 1000;
const HOUR: u64 = 3600 * 1000;
