//! The renewer: queues the renewal of identities before half of their life is over.
//!
//! It walks the devices in slices, round after round: an identity that is due and has no
//! renewal waiting gets one, after a back-off when the one before renewed nothing. The
//! command is a row of the device's queue, behind all others; the profile in it is made
//! when it is handed out. Called by housekeeping, and not while the clock is in doubt.

use futures_util::future::try_join_all;
use schema::renewal::{self, Obstacle, renewable};
use schema::{ChannelNo, CommandUuid, UnixMillis, queue};

use crate::store::{Cancel, NewCommand, RENEWAL_PRINCIPAL, RenewalRecord, Renewing};
use crate::{Store, StoreError};

/// The renewer.
#[derive(Debug)]
pub struct Renewer {
    store: Store,
    instance: [u8; 16],
    /// How long an identity issued now lives, and the end of the CA in Unix seconds.
    life: (u32, i64),
    after: Option<ChannelNo>,
    /// Devices of this walk that cannot be renewed, and of the one before.
    skipped: u64,
    told: u64,
}

impl Renewer {
    /// A renewer of a store's devices: identities live for so many days, at most until the
    /// CA's own end (Unix seconds).
    ///
    /// # Errors
    /// [`StoreError`] when the store's instance cannot be read.
    pub fn new(store: Store, validity_days: u32, ca_ends: i64) -> Result<Self, StoreError> {
        Ok(Self {
            instance: store.instance()?,
            store,
            life: (validity_days, ca_ends),
            after: None,
            skipped: 0,
            told: 0,
        })
    }

    /// Looks at the next `most` channels; says how many renewals it queued.
    ///
    /// # Errors
    /// [`StoreError`]: the store's own trouble.
    pub async fn round(&mut self, most: usize) -> Result<usize, StoreError> {
        let now = self.store.expiry_clock();
        if self.store.clock_doubt().is_some() {
            return Ok(0);
        }
        let (devices, next) = self.store.renewing(self.after, most)?;
        self.after = next;
        let (mut due, mut skipped) = (Vec::new(), 0);
        for device in &devices {
            match self.decide(device, now)? {
                Decision::Renew(attempts) => due.push(self.renew(device, attempts, now)),
                Decision::Withdraw(uuid) => self.withdraw(device, &uuid).await?,
                Decision::Skip => skipped += 1,
                Decision::Leave => {}
            }
        }
        let queued = try_join_all(due).await?.len();
        self.skipped += skipped;
        if self.after.is_none() {
            self.tell();
        }
        Ok(queued)
    }

    /// One line whenever the number changes: no news every walk.
    fn tell(&mut self) {
        if self.skipped != self.told && self.skipped > 0 {
            tracing::warn!(
                devices = self.skipped,
                "identities cannot be renewed: what their enrollment profile said is not known \
                 here; let these devices enroll again through a link that names them"
            );
        }
        self.told = std::mem::take(&mut self.skipped);
    }

    fn decide(&self, device: &Renewing, now: UnixMillis) -> Result<Decision, StoreError> {
        let account = device.managed_apple_id.as_deref();
        let validity = match renewable(&device.enrollment, &self.instance, account) {
            Err(Obstacle::NotEnrolled) => return Ok(Decision::Leave),
            Err(_) => return Ok(Decision::Skip),
            Ok(_) => device.validity,
        };
        let Some((not_before, not_after)) = validity else {
            return Ok(Decision::Skip);
        };
        let attempt = device.attempt.as_ref();
        let attempt = attempt.map(|attempt| (attempt, attempt.leaf == device.leaf));
        if !renewal::is_due(not_before, not_after, now) || !self.gains(not_after, now) {
            // It got a new identity by another way: what waits would only renew it again.
            return Ok(match attempt {
                Some((attempt, false)) => Decision::Withdraw(attempt.uuid.clone()),
                _ => Decision::Leave,
            });
        }
        let Some((attempt, true)) = attempt else {
            return Ok(Decision::Renew(1));
        };
        let no = device.enrollment.channel.no;
        let rests = now.since(attempt.at) < renewal::retry_after(attempt.attempts) * 1000;
        if rests || self.store.still_open(no, &attempt.uuid)?.is_some() {
            return Ok(Decision::Leave);
        }
        Ok(Decision::Renew(attempt.attempts.saturating_add(1)))
    }

    /// Whether an identity issued now outlives the one that is there.
    fn gains(&self, not_after: i64, now: UnixMillis) -> bool {
        let (days, ca_ends) = self.life;
        let now = i64::try_from(now.seconds()).unwrap_or(i64::MAX);
        let end = now.saturating_add(i64::from(days) * 86_400).min(ca_ends);
        end > not_after.saturating_add(3600)
    }

    async fn renew(
        &self,
        device: &Renewing,
        attempts: u32,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let channel = &device.enrollment.channel;
        let uuid = uuid::Uuid::new_v4().to_string().to_uppercase();
        let uuid = CommandUuid::parse(&uuid).ok_or_else(|| StoreError::broken("no uuid"))?;
        let record = RenewalRecord {
            leaf: device.leaf,
            uuid: uuid.clone(),
            attempts,
            at: now,
        };
        self.store.put_renewal(channel.no, record).await?;
        let template = renewal::command(&uuid, &[]);
        let command = NewCommand {
            sealed: self.store.seal_command(uuid.as_str(), &template)?,
            uuid,
            request_type: renewal::REQUEST_TYPE.to_owned(),
            rank: queue::rank(false, LAST),
            destructive: false,
            expires: now.plus_seconds(OPEN_SECONDS),
            targets: std::iter::once(channel.no.0).collect(),
            wake: true,
            principal: RENEWAL_PRINCIPAL.to_owned(),
            reason: String::new(),
            idempotency: None,
            // The device's own rights may not cover it; it decides.
            forced: true,
        };
        self.store.enqueue(command).await?;
        tracing::info!(device = %channel.id, attempts, "the renewal of an identity is queued");
        Ok(())
    }

    async fn withdraw(&self, device: &Renewing, uuid: &CommandUuid) -> Result<(), StoreError> {
        let no = device.enrollment.channel.no;
        if let Some(seq) = self.store.still_open(no, uuid)? {
            self.store.cancel(Cancel::On(no, seq)).await?;
        }
        Ok(())
    }
}

/// What a device needs.
enum Decision {
    /// A renewal, the n-th of this identity.
    Renew(u32),
    /// The renewal that may wait is of no use any more.
    Withdraw(CommandUuid),
    /// It is to be counted: it cannot be renewed.
    Skip,
    /// Nothing.
    Leave,
}

/// Priority of a renewal: behind all that people order.
const LAST: i8 = -100;
/// Then it is queued anew.
const OPEN_SECONDS: u64 = 30 * 86_400;
