//! The store: everything Reveille remembers, behind methods in domain words.
//!
//! An append-shaped redb with segment files for large bodies, one writer thread and
//! many readers. No type of the database leaves this folder. `tables.rs` is the
//! on-disk format on one page.

mod admin;
mod archive;
mod backup;
mod batch;
mod challenges;
mod checkins;
mod commands;
mod compact;
mod dense;
mod disk;
mod error;
mod fitness;
mod fold;
mod guard;
mod history;
mod inspect;
mod inventory;
mod links;
mod open;
mod operations;
mod ota;
mod pending;
mod push_keys;
mod read;
mod renewals;
mod restore;
mod retention;
mod seal;
mod segments;
mod shadow;
mod tables;
mod tail;
mod watch;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};

use redb::Database;
use schema::enrollment::{Enrollment, SecretKind};
use schema::{ChannelNo, Seq, UnixMillis};
use tokio::sync::{mpsc, oneshot};

pub use admin::Device;
pub use archive::{BackupError, FileEntry, Manifest};
pub use backup::{Backup, Steady};
pub use challenges::{IssuedCertificate, NewChallenge, Refusal, Spent};
pub use commands::{COHORTS_OPEN, DIRECT_UP_TO};
pub use compact::{Compacted, compact};
pub use error::StoreError;
pub use fitness::Fitness;
pub use guard::GuardLimits;
pub use history::{ChannelCommand, Happening, StoredReport};
pub use inspect::{Fit, Inspection};
pub use links::PublicUrls;
pub use open::StoreOptions;
pub use operations::{
    Cancel, CancelOutcome, CheckedIn, Effect, Enqueued, Idempotency, Identity, NewCommand,
    Rejection, Reported,
};
pub use ota::OtaStep;
pub use pending::HandOut;
pub use read::CommandSummary;
pub use renewals::{RENEWAL_PRINCIPAL, Renewing};
pub use restore::{Proved, RestoredBackup, restore, verify};
pub use seal::Packed;
pub use tables::{
    Annotation, AuditEntry, Body, BodyAddress, Buys, CertificateRecord, ChallengeRecord,
    CommandRecord, Entry, GoodFor, OtaCaller, RenewalRecord, Restored, TokenRecord,
};
pub use tail::{Counts, Figures};

use crate::wakes::Wakes;
use disk::Disk;
use seal::{Place, Sealer};
use shadow::Shadow;
use tail::Published;
use writer::{Operation, Reply};

/// The store. Cheap to clone; the last clone closes it.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    disk: Arc<dyn Disk>,
    database: Arc<Database>,
    shadow: Shadow,
    sealer: Sealer,
    published: Arc<Published>,
    segments: PathBuf,
    options: StoreOptions,
    operations: Mutex<Option<mpsc::Sender<Operation>>>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
    learned: tokio::sync::Mutex<inventory::Cursor>,
    opened: pending::Opened,
}

/// The outcome of a write, once it is durable.
pub type Ticket<T> = oneshot::Receiver<Result<T, StoreError>>;

impl Store {
    /// Makes a check-in durable; answers with the enrollment as it is from now on.
    ///
    /// # Errors
    /// [`StoreError::BoundElsewhere`] when the identity belongs to another enrollment;
    /// otherwise the store's own trouble.
    pub async fn check_in(&self, checked_in: CheckedIn) -> Result<Enrollment, StoreError> {
        self.ask(|reply| Operation::CheckIn(Box::new(checked_in), reply))
            .await
    }

    /// As [`Self::check_in`], but not waited for here.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot even be taken.
    pub fn check_in_ticket(&self, checked_in: CheckedIn) -> Result<Ticket<Enrollment>, StoreError> {
        self.submit(|reply| Operation::CheckIn(Box::new(checked_in), reply))
    }

    /// Hands a report to the writer; the ticket says when it is durable.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot even be taken.
    pub fn report(&self, reported: Reported) -> Result<Ticket<Effect>, StoreError> {
        self.submit(|reply| Operation::Report(reported, reply))
    }

    /// Notes that a command was handed out. Not waited for: a crash before the next
    /// commit only forgets that it was, and the command is handed out again.
    pub fn sent(&self, channel: ChannelNo, seq: Seq) {
        if let Ok(operations) = self.operations() {
            let _ = operations.try_send(Operation::Sent(channel, seq));
        }
    }

    /// Closes a command a device is not fit for. Not waited for: one that gets lost is
    /// found again when the device comes back.
    pub fn reject(&self, rejection: Rejection) {
        if let Ok(operations) = self.operations() {
            let _ = operations.try_send(Operation::Reject(rejection));
        }
    }

    /// Asks leave to hand out a destructive command.
    ///
    /// # Errors
    /// [`StoreError`] when the question cannot be taken.
    pub fn hand_out(&self, channel: ChannelNo, seq: Seq) -> Result<Ticket<bool>, StoreError> {
        self.submit(|reply| Operation::HandOut(channel, seq, reply))
    }

    /// Queues a command.
    ///
    /// # Errors
    /// [`StoreError::DuplicateUuid`], [`StoreError::IdempotencyMismatch`],
    /// [`StoreError::Guard`], [`StoreError::TooManyOpen`], or the store's own trouble.
    pub async fn enqueue(&self, command: NewCommand) -> Result<Enqueued, StoreError> {
        self.ask(|reply| Operation::Enqueue(Box::new(command), reply))
            .await
    }

    /// Takes commands back.
    ///
    /// # Errors
    /// [`StoreError`]: the store's own trouble.
    pub async fn cancel(&self, cancel: Cancel) -> Result<CancelOutcome, StoreError> {
        self.ask(|reply| Operation::Cancel(cancel, reply)).await
    }

    /// Closes commands past their time, a bounded number; says how many were looked at.
    ///
    /// # Errors
    /// [`StoreError`]: the store's own trouble.
    pub async fn expire(&self, now: UnixMillis) -> Result<usize, StoreError> {
        self.ask(|reply| Operation::Expire(now, reply)).await
    }

    /// Drops one slice of what ended before `before`; says how many rows went.
    ///
    /// # Errors
    /// [`StoreError`]: the store's own trouble.
    pub async fn retain(&self, before: UnixMillis) -> Result<usize, StoreError> {
        self.ask(|reply| Operation::Retain(before, reply)).await
    }

    /// Folds the journal now.
    ///
    /// # Errors
    /// [`StoreError`]: the store's own trouble.
    pub async fn fold(&self) -> Result<(), StoreError> {
        self.ask(|reply| Operation::Fold(Some(reply))).await
    }

    /// Notes a contact of a channel; written with the next fold.
    pub fn seen(&self, channel: ChannelNo, now: UnixMillis) {
        self.inner.published.seen.insert(channel, now.minutes());
    }

    /// Notes an accepted wake of a channel; written with the next fold.
    pub fn pushed(&self, channel: ChannelNo, now: UnixMillis) {
        self.inner.published.pushed.insert(channel, now.minutes());
    }

    /// The wakes this store marks.
    #[must_use]
    pub fn wakes(&self) -> &Arc<Wakes> {
        &self.inner.published.wakes
    }

    /// A number for a new channel.
    #[must_use]
    pub fn fresh_channel(&self) -> ChannelNo {
        ChannelNo(
            self.inner
                .published
                .next_channel
                .fetch_add(1, Ordering::AcqRel),
        )
    }

    /// Milliseconds the oldest write has been under way.
    #[must_use]
    pub fn writing_for(&self) -> u64 {
        let published = &self.inner.published;
        match published.figures.writing_since.load(Ordering::Acquire) {
            0 => 0,
            since => published.clock.passed().saturating_sub(since),
        }
    }

    /// Counts a message that came before and changed nothing.
    pub fn count_repeat(&self) {
        self.figures().repeats.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a report on a command nobody here knows.
    pub fn count_stray(&self) {
        self.figures().strays.fetch_add(1, Ordering::Relaxed);
    }

    /// A channel was in contact: a push token APNs called dead may live after all.
    /// Not waited for.
    pub fn revive(&self, channel: ChannelNo) {
        if !self.inner.published.dead.clear(channel) {
            return;
        }
        let (reply, _) = oneshot::channel();
        let revive = Operation::Admin(admin::dead(channel, None), reply);
        let taken = self
            .operations()
            .is_ok_and(|operations| operations.try_send(revive).is_ok());
        if !taken {
            self.inner.published.dead.set(channel);
        }
    }

    /// What the writer counts.
    #[must_use]
    pub fn figures(&self) -> &Figures {
        &self.inner.published.figures
    }

    /// Why storage failed, once it did: the process must end.
    #[must_use]
    pub fn broken(&self) -> Option<Arc<str>> {
        self.inner.published.broken.get().cloned()
    }

    /// Are writes refused because the disk is nearly full?
    #[must_use]
    pub fn full(&self) -> bool {
        self.inner.published.full.load(Ordering::Acquire)
    }

    /// Looks how much room the disk has and refuses or takes writes accordingly. A
    /// ballast file is given up first, so that what was taken can still be finished.
    ///
    /// # Errors
    /// [`StoreError::Broken`] when the file system does not say.
    pub fn check_room(&self) -> Result<u64, StoreError> {
        let directory = &self.inner.options.directory;
        let disk = &self.inner.disk;
        let free = disk.free_bytes(directory)?;
        let reserve = self.inner.options.reserve_bytes;
        let full = free < reserve;
        if self.inner.published.full.swap(full, Ordering::AcqRel) != full {
            tracing::warn!(free, reserve, full, "room on the disk changed");
        }
        let ballast = directory.join("ballast");
        if full {
            let _ = disk.remove(&ballast);
            self.inner.shadow.give_up("the disk is nearly full");
        } else if !disk.exists(&ballast)? && free > reserve.saturating_mul(2) + BALLAST {
            // Only a help: a quota may forbid it.
            let written = disk
                .append(&ballast)
                .and_then(|mut file| file.append(&vec![0; BALLAST as usize]));
            if let Err(error) = written {
                tracing::warn!(%error, "the ballast file cannot be written");
            }
        }
        Ok(free)
    }

    /// Folds, then closes: what was taken is finished, nothing more is.
    pub fn close(&self) {
        let operations = lock(&self.inner.operations).take();
        drop(operations);
        if let Some(thread) = lock(&self.inner.thread).take() {
            let _ = thread.join();
        }
    }

    /// Seals a command's body.
    ///
    /// # Errors
    /// [`StoreError::Broken`] when sealing fails.
    pub fn seal_command(&self, uuid: &str, plain: &[u8]) -> Result<Vec<u8>, StoreError> {
        self.inner.sealer.seal(Place::Command(uuid), plain)
    }

    /// Seals the body of a check-in or a report.
    ///
    /// # Errors
    /// [`StoreError::Broken`] when sealing fails.
    pub fn seal_body(&self, channel: ChannelNo, body: &Packed) -> Result<Vec<u8>, StoreError> {
        self.inner
            .sealer
            .seal_packed(Place::Journal(channel.0), body)
    }

    /// Seals a secret of a device.
    ///
    /// # Errors
    /// [`StoreError::Broken`] when sealing fails.
    pub fn seal_secret(
        &self,
        device: ChannelNo,
        kind: SecretKind,
        plain: &[u8],
    ) -> Result<Vec<u8>, StoreError> {
        self.inner
            .sealer
            .seal(Place::Secret(device.0, kind as u8), plain)
    }

    fn operations(&self) -> Result<mpsc::Sender<Operation>, StoreError> {
        if let Some(why) = self.broken() {
            return Err(StoreError::Broken(why));
        }
        lock(&self.inner.operations)
            .clone()
            .ok_or(StoreError::Closed)
    }

    fn submit<T>(
        &self,
        operation: impl FnOnce(Reply<T>) -> Operation,
    ) -> Result<Ticket<T>, StoreError> {
        let (reply, ticket) = oneshot::channel();
        let operation = operation(reply);
        if self.full() && !operation.frees_room() {
            return Err(StoreError::Full);
        }
        self.operations()?
            .try_send(operation)
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => StoreError::Overloaded,
                mpsc::error::TrySendError::Closed(_) => self.gone(),
            })?;
        Ok(ticket)
    }

    async fn ask<T>(&self, operation: impl FnOnce(Reply<T>) -> Operation) -> Result<T, StoreError> {
        self.redeem(self.submit(operation)?).await
    }

    /// Waits for a ticket; one that is never answered means the writer ended.
    ///
    /// # Errors
    /// [`StoreError`]: as the operation says.
    pub async fn redeem<T>(&self, ticket: Ticket<T>) -> Result<T, StoreError> {
        ticket.await.unwrap_or_else(|_| Err(self.gone()))
    }

    fn gone(&self) -> StoreError {
        self.broken().map_or(StoreError::Closed, StoreError::Broken)
    }
}

/// Is there a store in a data directory?
#[must_use]
pub fn is_in(directory: &Path) -> bool {
    directory.join(archive::DATABASE).exists()
}

/// How many bytes the disk of a directory has left for us.
///
/// # Errors
/// What the file system says.
pub fn free_bytes(directory: &Path) -> std::io::Result<u64> {
    let room = rustix::fs::statvfs(directory)?;
    Ok(room.f_bavail.saturating_mul(room.f_frsize))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    match mutex.lock() {
        Ok(guard) => guard,
        Err(poisoned) => poisoned.into_inner(),
    }
}

/// Length of the ballast file: room for it and for twice the reserve is there, or it is
/// not made, so that it never brings about what it is given up for.
const BALLAST: u64 = 16 << 20;

#[cfg(test)]
mod tests;
