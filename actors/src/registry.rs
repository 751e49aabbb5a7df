//! The registry: from an enrollment id to its live actor.
//!
//! Actors are virtual: the first message activates one, idleness passivates it. One
//! live actor a device; a message that meets one just going is sent again to the
//! next, but one that panicked is not tried again with the same message. Three
//! panics quarantine the device until an admin lifts it.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::sync::atomic::Ordering;
use std::sync::{Arc, RwLock};

use actix::dev::{MessageResponse, ToEnvelope};
use actix::prelude::*;
use dashmap::mapref::entry::Entry;
use dashmap::{DashMap, DashSet};
use schema::EnrollId;

use crate::Fault;
use crate::device::{DeviceActor, House, Life, Passivate};

/// The live actors.
#[derive(Debug, Default)]
pub struct Live {
    actors: DashMap<EnrollId, (Addr<DeviceActor>, Arc<Life>)>,
}

impl Live {
    /// Takes out an actor that is going, unless another took its place already.
    pub(crate) fn forget(&self, id: &EnrollId, life: &Arc<Life>) {
        self.actors
            .remove_if(id, |_, (_, of)| Arc::ptr_eq(of, life));
    }
}

/// Finds, activates and passivates device actors.
#[derive(Clone, Debug)]
pub struct Registry {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    house: House,
    live: Arc<Live>,
    arbiters: RwLock<Vec<ArbiterHandle>>,
    panics: DashMap<EnrollId, u8>,
    quarantined: DashSet<EnrollId>,
}

/// Whether a message may bring an unknown device into being.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opens {
    /// Authenticate may.
    Yes,
    /// Nothing else may.
    No,
}

impl Registry {
    /// A registry without actors; quarantines are read from the store.
    ///
    /// # Errors
    /// [`Fault::Store`] when they cannot be read.
    pub fn new(house: House) -> Result<Self, Fault> {
        let quarantined = DashSet::new();
        for id in house.store.quarantined()? {
            if let Ok(id) = EnrollId::parse(&id) {
                quarantined.insert(id);
            }
        }
        Ok(Self {
            inner: Arc::new(Inner {
                house,
                live: Arc::default(),
                arbiters: RwLock::default(),
                panics: DashMap::new(),
                quarantined,
            }),
        })
    }

    /// Offers an arbiter for actors to live on: a web worker's own.
    pub fn offer(&self, arbiter: ArbiterHandle) {
        match self.inner.arbiters.write() {
            Ok(mut arbiters) => arbiters.push(arbiter),
            Err(poisoned) => poisoned.into_inner().push(arbiter),
        }
    }

    /// Asks the actor of a device, activating it when needed.
    ///
    /// # Errors
    /// [`Fault`]: unknown device, quarantine, a panic, or what the actor says.
    pub async fn ask<M, T>(&self, device: &EnrollId, opens: Opens, message: M) -> Result<T, Fault>
    where
        M: Message<Result = Result<T, Fault>> + Clone + Send + 'static,
        T: Send + 'static,
        DeviceActor: Handler<M>,
        <DeviceActor as Actor>::Context: ToEnvelope<DeviceActor, M>,
        M::Result: MessageResponse<DeviceActor, M>,
    {
        if self.inner.quarantined.contains(device) {
            return Err(Fault::Quarantined(device.clone()));
        }
        for _ in 0..ATTEMPTS {
            let (actor, life) = self.activate(device, opens)?;
            life.last
                .store(self.inner.house.clock.now().0, Ordering::Relaxed);
            match actor.send(message.clone()).await {
                Ok(outcome) => return outcome,
                Err(_) => {
                    // The answer is gone a moment before the actor itself is.
                    for _ in 0..1000 {
                        if life.ended.load(Ordering::Acquire) {
                            break;
                        }
                        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                    }
                    if life.panicked.load(Ordering::Acquire) {
                        // Others may have waited behind the message it fell over.
                        if !life.counted.swap(true, Ordering::AcqRel) {
                            self.panicked(device).await;
                        }
                        return Err(Fault::Panicked(device.clone()));
                    }
                    // It was just going; the next activation serves this message.
                    self.inner.live.forget(device, &life);
                }
            }
        }
        Err(Fault::Overloaded)
    }

    /// Sends the actors home that had no message since `before` (milliseconds since 1970).
    pub fn passivate_idle(&self, before: u64) {
        let idle: Vec<_> = self
            .inner
            .live
            .actors
            .iter()
            .filter(|entry| entry.1.last.load(Ordering::Relaxed) < before)
            .map(|entry| entry.0.clone())
            .collect();
        for actor in idle {
            // A full mailbox means it is not idle.
            let _ = actor.try_send(Passivate);
        }
    }

    /// How many actors live.
    #[must_use]
    pub fn live(&self) -> usize {
        self.inner.live.actors.len()
    }

    /// Lifts a quarantine.
    ///
    /// # Errors
    /// [`Fault::Store`] when it cannot be made durable.
    pub async fn lift_quarantine(&self, device: &EnrollId) -> Result<bool, Fault> {
        self.inner.house.store.put_quarantine(device, None).await?;
        self.inner.panics.remove(device);
        Ok(self.inner.quarantined.remove(device).is_some())
    }

    fn activate(
        &self,
        device: &EnrollId,
        opens: Opens,
    ) -> Result<(Addr<DeviceActor>, Arc<Life>), Fault> {
        let inner = &self.inner;
        if let Some(entry) = inner.live.actors.get(device)
            && entry.0.connected()
        {
            return Ok((entry.0.clone(), entry.1.clone()));
        }
        let channel = inner.house.store.find(device)?;
        if channel.is_none() && opens == Opens::No {
            return Err(Fault::Unknown(device.clone()));
        }
        match inner.live.actors.entry(device.clone()) {
            Entry::Occupied(entry) if entry.get().0.connected() => Ok(entry.get().clone()),
            entry => {
                // Read under the entry's lock: an actor that is gone has committed all it will.
                let channel = inner.house.store.find(device)?;
                let enrollment = channel
                    .map(|no| inner.house.store.enrollment(no))
                    .transpose()?
                    .flatten();
                let life = Arc::<Life>::default();
                let actor = self.start(device, &life, enrollment)?;
                entry.insert((actor.clone(), life.clone()));
                Ok((actor, life))
            }
        }
    }

    fn start(
        &self,
        device: &EnrollId,
        life: &Arc<Life>,
        enrollment: Option<schema::enrollment::Enrollment>,
    ) -> Result<Addr<DeviceActor>, Fault> {
        let mut hasher = DefaultHasher::new();
        device.hash(&mut hasher);
        let arbiters = match self.inner.arbiters.read() {
            Ok(arbiters) => arbiters,
            Err(poisoned) => poisoned.into_inner(),
        };
        let count = u64::try_from(arbiters.len()).unwrap_or(0);
        let place = hasher
            .finish()
            .checked_rem(count)
            .and_then(|p| usize::try_from(p).ok());
        let arbiter = place
            .and_then(|place| arbiters.get(place))
            .ok_or(Fault::Stopping)?;
        let (house, live) = (self.inner.house.clone(), self.inner.live.clone());
        let (id, life) = (device.clone(), life.clone());
        Ok(DeviceActor::start_in_arbiter(arbiter, move |_| {
            DeviceActor::new(house, id, live, life, enrollment)
        }))
    }

    async fn panicked(&self, device: &EnrollId) {
        let mut count = self.inner.panics.entry(device.clone()).or_insert(0);
        *count = count.saturating_add(1);
        let reached = *count >= PANICS_ALLOWED;
        drop(count);
        tracing::error!(%device, reached, "a device actor panicked");
        if reached && self.inner.quarantined.insert(device.clone()) {
            let now = self.inner.house.clock.now();
            if let Err(error) = self
                .inner
                .house
                .store
                .put_quarantine(device, Some(now))
                .await
            {
                tracing::error!(%device, %error, "a quarantine is not durable");
            }
        }
    }
}

const ATTEMPTS: usize = 3;
const PANICS_ALLOWED: u8 = 3;

#[cfg(test)]
mod tests;
