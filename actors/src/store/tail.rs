//! What the store knows beyond the last fold, in memory, for everyone to read.
//!
//! The writer publishes here after each commit; a fold takes out what it made
//! durable in dense form. A reader looks here first and opens its read of the tables
//! afterwards: the other order would show rows again that were already closed.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, OnceLock, RwLock, RwLockReadGuard};

use dashmap::DashMap;
use roaring::RoaringBitmap;
use schema::queue::State;
use schema::{ChannelNo, Seq};
use smallvec::SmallVec;

use super::tables::{CommandRecord, QueueRow, TokenRecord};
use super::watch::Watch;
use crate::bits::Bits;
use crate::clock::Clock;
use crate::wakes::Wakes;

/// How many targets of a command are in each state.
pub type Counts = [u32; State::ALL.len()];

/// Changed queue rows of one channel.
pub(super) type Rows = SmallVec<[(Seq, QueueRow); 2]>;

/// What one channel did since the last fold.
#[derive(Clone, Debug, Default)]
pub(super) struct ChannelTail {
    /// Head of its chain in the journal.
    pub(super) last: u64,
    /// Its rows as they are now.
    pub(super) rows: Rows,
}

/// A command kept as a state plane.
#[derive(Debug)]
pub(super) struct Cohort {
    pub(super) targets: RoaringBitmap,
    pub(super) fresh: QueueRow,
}

impl Cohort {
    pub(super) fn of(command: &CommandRecord) -> Self {
        Self {
            targets: super::batch::targets(command),
            fresh: QueueRow::fresh(command),
        }
    }
}

/// The channels that are enrolled now.
#[derive(Debug, Default)]
pub(super) struct Enrolled {
    /// All of them.
    pub(super) channels: RoaringBitmap,
    /// The device channels among them.
    pub(super) devices: RoaringBitmap,
}

impl Enrolled {
    pub(super) fn put(&mut self, channel: ChannelNo, device: bool, is: bool) {
        let sets = [
            Some(&mut self.channels),
            device.then_some(&mut self.devices),
        ];
        for set in sets.into_iter().flatten() {
            if is {
                set.insert(channel.0);
            } else {
                set.remove(channel.0);
            }
        }
    }
}

/// Everything that is published.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) clock: Clock,
    pub(super) tail: DashMap<ChannelNo, ChannelTail>,
    pub(super) counts: DashMap<Seq, Counts>,
    pub(super) cohorts: RwLock<BTreeMap<Seq, Arc<Cohort>>>,
    pub(super) enrolled: RwLock<Enrolled>,
    pub(super) seen: DashMap<ChannelNo, u32>,
    pub(super) pushed: DashMap<ChannelNo, u32>,
    pub(super) tokens: RwLock<HashMap<[u8; 32], Arc<TokenRecord>>>,
    pub(super) work: Bits,
    pub(super) dead: Bits,
    pub(super) wakes: Arc<Wakes>,
    pub(super) broken: OnceLock<Arc<str>>,
    pub(super) full: AtomicBool,
    /// A backup reads the segment files.
    pub(super) backing_up: AtomicBool,
    pub(super) watch: Watch,
    pub(super) next_channel: AtomicU32,
    pub(super) figures: Figures,
}

impl Published {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            watch: Watch::new(clock.clone()),
            clock,
            tail: DashMap::new(),
            counts: DashMap::new(),
            cohorts: RwLock::default(),
            enrolled: RwLock::default(),
            seen: DashMap::new(),
            pushed: DashMap::new(),
            tokens: RwLock::default(),
            work: Bits::new(true),
            dead: Bits::new(false),
            wakes: Arc::default(),
            broken: OnceLock::new(),
            full: AtomicBool::new(false),
            backing_up: AtomicBool::new(false),
            next_channel: AtomicU32::new(0),
            figures: Figures::default(),
        }
    }

    /// The rows of a channel that the tables do not show yet.
    pub(super) fn rows(&self, channel: ChannelNo) -> Rows {
        self.tail
            .get(&channel)
            .map(|tail| tail.rows.clone())
            .unwrap_or_default()
    }

    pub(super) fn cohorts(&self) -> RwLockReadGuard<'_, BTreeMap<Seq, Arc<Cohort>>> {
        read(&self.cohorts)
    }
}

/// What the writer counts, for metrics.
#[derive(Debug, Default)]
pub struct Figures {
    /// Transactions committed.
    pub batches: AtomicU64,
    /// Operations in them.
    pub operations: AtomicU64,
    /// Microseconds spent from the first operation of a batch to its commit.
    pub commit_micros: AtomicU64,
    /// Head of the journal.
    pub position: AtomicU64,
    /// The journal is folded up to here.
    pub folded: AtomicU64,
    /// When the oldest batch not yet committed was begun, by [`Clock::passed`]; 0 for none.
    pub writing_since: AtomicU64,
    /// Reports that counted before, and replays of check-ins.
    pub repeats: AtomicU64,
    /// Reports on commands that are not addressed to their channel.
    pub strays: AtomicU64,
}

/// Reads a lock whose writers cannot leave it half changed.
pub(super) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    match lock.read() {
        Ok(guard) => guard,
        Err(poisoned) => poisoned.into_inner(),
    }
}

/// Writes a lock whose writers cannot leave it half changed.
pub(super) fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    match lock.write() {
        Ok(guard) => guard,
        Err(poisoned) => poisoned.into_inner(),
    }
}
