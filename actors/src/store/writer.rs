//! The writer thread: it owns every write transaction.
//!
//! Operations come in over a bounded channel; all that wait make one commit. After
//! the commit it publishes, marks the wakes, then replies. Any storage error is
//! fatal: nothing is acknowledged from then on and the process is told to end.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use redb::{Database, WriteTransaction};
use schema::{ChannelNo, Seq, UnixMillis};
use tokio::sync::{mpsc, oneshot};

use super::StoreError;
use super::batch::Batch;
use super::guard::Guard;
use super::operations::{
    Cancel, CancelOutcome, CheckedIn, Effect, Enqueued, NewCommand, Rejection, Reported,
};
use super::segments::SegmentWriter;
use super::shadow::{Frozen, Shadow};
use super::tail::Published;
use schema::enrollment::Enrollment;

/// Where the answer to an operation goes, after its commit.
pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// A write of an admin's noun, which touches no table of the batch.
pub(super) type AdminWrite =
    Box<dyn FnOnce(&WriteTransaction) -> Result<AfterCommit, StoreError> + Send>;

/// What an admin's write publishes once it is durable.
pub(super) type AfterCommit = Box<dyn FnOnce(&Published) + Send>;

/// Everything the writer does.
pub(super) enum Operation {
    CheckIn(Box<CheckedIn>, Reply<Enrollment>),
    Report(Reported, Reply<Effect>),
    Sent(ChannelNo, Seq),
    HandOut(ChannelNo, Seq, Reply<bool>),
    Reject(Rejection),
    Enqueue(Box<NewCommand>, Reply<Enqueued>),
    Cancel(Cancel, Reply<CancelOutcome>),
    Expire(UnixMillis, Reply<usize>),
    Retain(UnixMillis, Reply<usize>),
    Admin(AdminWrite, Reply<()>),
    Fold(Option<Reply<()>>),
    /// Folds, then freezes the moment behind the commit.
    Freeze(Reply<Moment>),
}

impl Operation {
    /// May be done although the disk is nearly full: it gives room back, or will.
    pub(super) const fn frees_room(&self) -> bool {
        matches!(
            self,
            Self::Cancel(..) | Self::Expire(..) | Self::Retain(..) | Self::Fold(..)
        )
    }
}

pub(super) struct Writer {
    pub(super) database: Arc<Database>,
    pub(super) published: Arc<Published>,
    pub(super) operations: mpsc::Receiver<Operation>,
    pub(super) segments: SegmentWriter,
    /// Bytes the segment files may hold.
    pub(super) body_budget: u64,
    pub(super) numbers: Numbers,
    pub(super) guard: Guard,
    pub(super) shadow: Shadow,
    /// The data directory.
    pub(super) directory: PathBuf,
}

/// The store at one moment, between two commits.
#[derive(Debug)]
pub(super) struct Moment {
    pub(super) database: Frozen,
    /// Segment files and how long they were.
    pub(super) segments: BTreeMap<u32, u64>,
    pub(super) numbers: Numbers,
    pub(super) at: UnixMillis,
}

/// The numbers only the writer gives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers {
    /// The last Seq given.
    pub(super) seq: u64,
    /// The last journal position given.
    pub(super) position: u64,
    /// The journal is folded up to here.
    pub(super) folded: u64,
}

/// Answers that wait for the commit.
type Answers = Vec<Box<dyn FnOnce() + Send>>;

impl Writer {
    /// Runs until the store is closed or storage fails.
    pub(super) fn run(mut self) {
        let _alarm = PanicAlarm(self.published.clone());
        let mut waiting = Vec::with_capacity(MOST_PER_BATCH);
        while self
            .operations
            .blocking_recv_many(&mut waiting, MOST_PER_BATCH)
            > 0
        {
            if !self.finish(&mut waiting) {
                return;
            }
        }
        self.finish(&mut vec![Operation::Fold(None)]);
    }

    /// One commit for all that waits; false once storage has failed.
    pub(super) fn finish(&mut self, waiting: &mut Vec<Operation>) -> bool {
        let outcome = self.commit(waiting);
        outcome.inspect_err(|error| self.fail(error)).is_ok()
    }

    fn fail(&self, error: &StoreError) {
        let why: Arc<str> = error.to_string().into();
        tracing::error!(error = %why, "storage failed; nothing more is acknowledged");
        let _ = self.published.broken.set(why);
    }

    /// One transaction for all that waits.
    fn commit(&mut self, waiting: &mut Vec<Operation>) -> Result<(), StoreError> {
        let begun = Instant::now();
        let now = self.published.clock.now();
        let figures = &self.published.figures;
        figures
            .writing_since
            .store(self.published.clock.passed(), Ordering::Release);
        let operations = waiting.len() as u64;

        let mut transaction = self.database.begin_write()?;
        transaction.set_quick_repair(true);
        let mut answers = Answers::with_capacity(waiting.len());
        let mut after = Vec::new();
        let mut batch = Batch::open(
            &transaction,
            &self.published,
            &mut self.segments,
            &mut self.guard,
            self.numbers,
            now,
        )?;
        let mut fold = false;
        let mut admin = Vec::new();
        let mut retain = Vec::new();
        let mut freeze = Vec::new();
        for operation in waiting.drain(..) {
            match operation {
                Operation::Admin(write, reply) => admin.push((write, reply)),
                Operation::Fold(reply) => {
                    fold = true;
                    answers.extend(reply.map(|reply| answer(reply, Ok(()))));
                }
                Operation::Freeze(reply) => {
                    fold = true;
                    freeze.push(reply);
                }
                Operation::CheckIn(checked_in, reply) => {
                    answers.push(answer(reply, refused(batch.check_in(*checked_in))?));
                }
                Operation::Report(reported, reply) => {
                    answers.push(answer(reply, refused(batch.report(reported))?));
                }
                Operation::Sent(channel, seq) => batch.sent(channel, seq)?,
                Operation::Reject(rejection) => batch.reject(rejection)?,
                Operation::HandOut(channel, seq, reply) => {
                    answers.push(answer(reply, refused(batch.hand_out(channel, seq))?));
                }
                Operation::Enqueue(command, reply) => {
                    answers.push(answer(reply, refused(batch.enqueue(*command))?));
                }
                Operation::Cancel(cancel, reply) => {
                    answers.push(answer(reply, refused(batch.cancel(&cancel))?));
                }
                Operation::Expire(now, reply) => {
                    answers.push(answer(reply, refused(batch.expire(now))?));
                }
                // Folds in the middle of a batch would hide what comes behind them.
                Operation::Retain(before, reply) => retain.push((before, reply)),
            }
        }
        if fold || batch.unfolded() >= FOLD_AT {
            batch.fold()?;
        }
        for (before, reply) in retain {
            let outcome = batch.retain(before, self.body_budget);
            answers.push(answer(reply, refused(outcome)?));
        }
        let (outcome, numbers) = batch.close()?;
        let mut dirty = outcome.dirty;
        for (write, reply) in admin {
            match refused(write(&transaction))? {
                Ok(publish) => {
                    dirty = true;
                    after.push(publish);
                    answers.push(answer(reply, Ok(())));
                }
                Err(error) => answers.push(answer(reply, Err(error))),
            }
        }
        if dirty {
            self.segments.sync()?;
            transaction.commit()?;
        } else {
            transaction.abort()?;
        }
        self.numbers = numbers;
        if let Some(keep_from) = outcome.unlink_before {
            self.segments.unlink_before(keep_from)?;
        }
        outcome.publish(&self.published, numbers);
        after
            .into_iter()
            .for_each(|publish| publish(&self.published));
        for reply in freeze {
            answers.push(answer(reply, self.freeze()));
        }
        let figures = &self.published.figures;
        figures.batches.fetch_add(1, Ordering::Relaxed);
        figures.operations.fetch_add(operations, Ordering::Relaxed);
        let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        figures.commit_micros.fetch_add(micros, Ordering::Relaxed);
        figures.writing_since.store(0, Ordering::Release);
        answers.into_iter().for_each(|reply| reply());
        Ok(())
    }
}

impl Writer {
    /// The store as it is now; from here on no segment file is taken away.
    fn freeze(&self) -> Result<Moment, StoreError> {
        let moment = Moment {
            database: self.shadow.freeze(&self.directory)?,
            segments: self.segments.sizes()?,
            numbers: self.numbers,
            at: self.published.clock.now(),
        };
        self.published.backing_up.store(true, Ordering::Release);
        Ok(moment)
    }
}

/// A panic of the writer is a failure of storage like any other.
struct PanicAlarm(Arc<Published>);

impl Drop for PanicAlarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.0.broken.set("the writer panicked".into());
        }
    }
}

/// Tells a refusal, which one caller hears, from a failure, which ends everything.
fn refused<T>(outcome: Result<T, StoreError>) -> Result<Result<T, StoreError>, StoreError> {
    match outcome {
        Err(StoreError::Broken(why)) => Err(StoreError::Broken(why)),
        other => Ok(other),
    }
}

fn answer<T: Send + 'static>(
    reply: Reply<T>,
    outcome: Result<T, StoreError>,
) -> Box<dyn FnOnce() + Send> {
    Box::new(move || {
        // A caller that went away has no use for the answer.
        let _ = reply.send(outcome);
    })
}

const MOST_PER_BATCH: usize = 4096;
const FOLD_AT: usize = 20_000;

/// Rows changed in a batch, by channel and command.
pub(super) type Overlay<T> = HashMap<(ChannelNo, Seq), T>;
