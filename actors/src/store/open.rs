//! Opening the store: the sealing key, the tables, migration, and the replay of what
//! the last process had not folded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use redb::{Builder, Database, ReadableTable, WriteTransaction};
use schema::queue::State;
use schema::{ChannelNo, Seq};
use tokio::sync::mpsc;

use super::batch::Batch;
use super::disk::{Disk, LocalDisk, make_directory};
use super::guard::{Guard, GuardLimits};
use super::restore::unconfirmed;
use super::seal::Sealer;
use super::segments::SegmentWriter;
use super::shadow::Shadow;
use super::tables::{
    ANNOTATION, AUDIT, CERTIFICATE, CERTIFICATE_DER, CHALLENGE, CHALLENGE_EXPIRY, CHANNEL,
    CHANNEL_BY_ID, COHORT_STATE, COMMAND, COMMAND_BY_UUID, COMMAND_COUNT, CommandRow, ENROLLED,
    EXPIRY, Entry, GUARD, IDEMPOTENCY, INVENTORY, ISSUED, JOURNAL, JournalRow, LAST_POSITION, LINK,
    LINK_BY_ID, MANAGED_ACCOUNT, META, PUSH_CERTIFICATE, PUSH_DEAD, PUSH_KEY, PUSHED, QUARANTINE,
    QUEUE, QueueRow, RENEWAL, SCHEMA_VERSION, SECRET, SEEN, SEEN_BODY, SEGMENT, TOKEN, TokenRow,
    decode, encode,
};
use super::tail::{Cohort, Counts, Enrolled, Published, write};
use super::watch::last_known;
use super::writer::{Numbers, Writer};
use super::{Inner, Store, StoreError, lock};
use crate::clock::Clock;

/// How to open a store.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The data directory; made (0700) when it is not there.
    pub directory: PathBuf,
    /// The sealing key, outside the store; none means `seal.key` in the data directory.
    pub seal_key_file: Option<PathBuf>,
    /// Memory the tables may cache, in bytes.
    pub cache_bytes: usize,
    /// Writes are refused when the disk has fewer bytes left.
    pub reserve_bytes: u64,
    /// Bytes that report bodies over 1 KiB may hold on the disk; the oldest go first.
    pub body_budget_bytes: u64,
    /// Limits on destructive commands.
    pub guard: GuardLimits,
}

impl StoreOptions {
    /// The defaults, in this directory.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            seal_key_file: None,
            cache_bytes: 64 << 20,
            reserve_bytes: 256 << 20,
            body_budget_bytes: 4096 << 20,
            guard: GuardLimits::default(),
        }
    }

    /// The file of the sealing key.
    pub(super) fn seal_key(&self) -> PathBuf {
        let own = || self.directory.join("seal.key");
        self.seal_key_file.clone().unwrap_or_else(own)
    }
}

impl Store {
    /// Opens the store of a data directory, making what is missing, and starts its writer.
    ///
    /// # Errors
    /// [`StoreError`]: in use, written by a newer version, without its key, or broken.
    pub fn open(options: StoreOptions, clock: Clock) -> Result<Self, StoreError> {
        let (store, writer) = Self::open_on(Arc::new(LocalDisk), options, clock)?;
        store.set_going(writer)
    }

    /// Opens the store on this disk, its writer not yet going.
    pub(super) fn open_on(
        disk: Arc<dyn Disk>,
        options: StoreOptions,
        clock: Clock,
    ) -> Result<(Self, Writer), StoreError> {
        make_directory(&*disk, &options.directory)?;
        let key_file = options.seal_key();
        let mut builder = Database::builder();
        builder.set_cache_size(options.cache_bytes);
        let (shadow, database, sealer) =
            open_files(&*disk, &options.directory, &key_file, &builder)?;
        Self::assemble(disk, (shadow, database), sealer, options, clock)
    }

    /// A store in memory, its segments in `options.directory`: for tests.
    ///
    /// # Errors
    /// [`StoreError`] as for [`Self::open`].
    pub fn in_memory(options: StoreOptions, clock: Clock) -> Result<Self, StoreError> {
        let shadow = Shadow::over(Box::new(redb::backends::InMemoryBackend::new()));
        let database = Database::builder().create_with_backend(shadow.clone())?;
        let sealer = Sealer::new(&[7; super::seal::KEY_BYTES])?;
        let disk = Arc::new(LocalDisk);
        let (store, writer) = Self::assemble(disk, (shadow, database), sealer, options, clock)?;
        store.set_going(writer)
    }

    fn assemble(
        disk: Arc<dyn Disk>,
        (shadow, database): (Shadow, Database),
        sealer: Sealer,
        options: StoreOptions,
        clock: Clock,
    ) -> Result<(Self, Writer), StoreError> {
        let published = Arc::new(Published::new(clock));
        let segments_in = options.directory.join("segments");
        let mut segments = SegmentWriter::open(disk.clone(), &segments_in, SEGMENT_BYTES)?;
        let mut transaction = database.begin_write()?;
        transaction.set_quick_repair(true);
        migrate(&transaction)?;
        if let Some(made) = unconfirmed(&transaction)? {
            published.watch.restored(made);
        } else if let Some(last) = last_known(&transaction)? {
            published.watch.compare(last);
        }
        load(&transaction, &published)?;
        let mut guard = Guard::load(&transaction, options.guard, published.clock.passed())?;
        let numbers = replay(&transaction, &published, &mut segments, &mut guard)?;
        transaction.commit()?;
        published
            .figures
            .position
            .store(numbers.position, Ordering::Release);
        published
            .figures
            .folded
            .store(numbers.folded, Ordering::Release);

        let database = Arc::new(database);
        let (operations, receiver) = mpsc::channel(OPERATIONS_WAITING);
        let writer = Writer {
            database: database.clone(),
            published: published.clone(),
            operations: receiver,
            segments,
            body_budget: options.body_budget_bytes,
            numbers,
            guard,
            shadow: shadow.clone(),
            directory: options.directory.clone(),
        };
        let inner = Inner {
            disk,
            database,
            shadow,
            sealer,
            published,
            segments: segments_in,
            options,
            operations: std::sync::Mutex::new(Some(operations)),
            thread: std::sync::Mutex::default(),
            learned: tokio::sync::Mutex::default(),
            opened: super::pending::opened(),
        };
        let inner = Arc::new(inner);
        Ok((Self { inner }, writer))
    }

    pub(super) fn set_going(self, writer: Writer) -> Result<Self, StoreError> {
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run())?;
        *lock(&self.inner.thread) = Some(thread);
        Ok(self)
    }
}

/// Opens database and key. A new database is made beside its place and moved there once
/// it and its key are durable: a start that is cut off leaves no store, never half of one.
fn open_files(
    disk: &dyn Disk,
    directory: &Path,
    key_file: &Path,
    builder: &Builder,
) -> Result<(Shadow, Database, Sealer), StoreError> {
    let open = |path: &Path, anew| -> Result<_, StoreError> {
        let shadow = Shadow::over(disk.database(path, anew)?);
        let database = builder.create_with_backend(shadow.clone())?;
        Ok((shadow, database))
    };
    let file = directory.join("reveille.redb");
    if !disk.exists(&file)? {
        let beside = directory.join("reveille.redb.new");
        let (shadow, database) = open(&beside, true)?;
        // Looked for again, now that nobody else can be making one.
        if !disk.exists(&file)? {
            let sealer = Sealer::from_file(disk, key_file, true)?;
            disk.rename(&beside, &file)?;
            disk.sync_directory(directory)?;
            return Ok((shadow, database, sealer));
        }
    }
    let sealer = Sealer::from_file(disk, key_file, false)?;
    let (shadow, database) = open(&file, false)?;
    Ok((shadow, database, sealer))
}

/// Brings the tables to this program's version, or refuses a newer one.
fn migrate(transaction: &WriteTransaction) -> Result<(), StoreError> {
    let mut meta = transaction.open_table(META)?;
    let found = meta
        .get("schema")?
        .map(|row| decode::<u32>(row.value()))
        .transpose()?;
    match found {
        Some(SCHEMA_VERSION) => {}
        // Version 2 added tables and a certificate row that stands beside the old one,
        // version 3 a row of links that does, version 4 rows of links, challenges and
        // certificates for over-the-air enrollment, version 5 a row of commands.
        Some(1..=4) => {
            meta.insert("schema", encode(&SCHEMA_VERSION)?.as_slice())?;
        }
        Some(found) => {
            return Err(StoreError::Newer {
                found,
                known: SCHEMA_VERSION,
            });
        }
        None => {
            meta.insert("schema", encode(&SCHEMA_VERSION)?.as_slice())?;
            meta.insert("instance", uuid::Uuid::new_v4().as_bytes().as_slice())?;
        }
    }
    drop(meta);
    // Readers may open any table from the first moment.
    transaction.open_table(CHANNEL)?;
    transaction.open_table(CHANNEL_BY_ID)?;
    transaction.open_table(ENROLLED)?;
    transaction.open_table(CERTIFICATE)?;
    transaction.open_table(CERTIFICATE_DER)?;
    transaction.open_table(ISSUED)?;
    transaction.open_table(CHALLENGE)?;
    transaction.open_table(CHALLENGE_EXPIRY)?;
    transaction.open_table(LINK)?;
    transaction.open_table(LINK_BY_ID)?;
    transaction.open_table(SECRET)?;
    transaction.open_table(COMMAND)?;
    transaction.open_table(COMMAND_BY_UUID)?;
    transaction.open_table(COMMAND_COUNT)?;
    transaction.open_table(EXPIRY)?;
    transaction.open_table(QUEUE)?;
    transaction.open_table(COHORT_STATE)?;
    transaction.open_table(JOURNAL)?;
    transaction.open_table(LAST_POSITION)?;
    transaction.open_table(SEEN)?;
    transaction.open_table(PUSHED)?;
    transaction.open_table(PUSH_DEAD)?;
    transaction.open_table(IDEMPOTENCY)?;
    transaction.open_table(SEEN_BODY)?;
    transaction.open_table(SEGMENT)?;
    transaction.open_table(GUARD)?;
    transaction.open_table(TOKEN)?;
    transaction.open_table(PUSH_CERTIFICATE)?;
    transaction.open_table(PUSH_KEY)?;
    transaction.open_table(INVENTORY)?;
    transaction.open_table(ANNOTATION)?;
    transaction.open_table(QUARANTINE)?;
    transaction.open_table(RENEWAL)?;
    transaction.open_table(MANAGED_ACCOUNT)?;
    transaction.open_table(AUDIT)?;
    Ok(())
}

/// Publishes what readers look up in memory: who is enrolled, the open cohorts, the tokens.
fn load(transaction: &WriteTransaction, published: &Published) -> Result<(), StoreError> {
    let mut enrolled = Enrolled::default();
    for row in transaction.open_table(ENROLLED)?.iter()? {
        let (channel, device) = row?;
        enrolled.put(ChannelNo(channel.value()), device.value(), true);
    }
    *write(&published.enrolled) = enrolled;
    for row in transaction.open_table(PUSH_DEAD)?.iter()? {
        published.dead.set(ChannelNo(row?.0.value()));
    }
    let mut tokens = write(&published.tokens);
    for row in transaction.open_table(TOKEN)?.iter()? {
        let (hash, row) = row?;
        let TokenRow::V1(record) = decode(row.value())?;
        if let Ok(hash) = hash.value().try_into() {
            tokens.insert(hash, Arc::new(record));
        }
    }
    drop(tokens);
    let mut cohorts = BTreeMap::new();
    let commands = transaction.open_table(COMMAND)?;
    let counts = transaction.open_table(COMMAND_COUNT)?;
    // Whatever may still be open has not been taken off the expiry list.
    for key in transaction.open_table(EXPIRY)?.iter()? {
        let seq = key?.0.value().1;
        if let Some(row) = commands.get(seq)? {
            let command = decode::<CommandRow>(row.value())?.into_record();
            if command.cohort && has_open(&counts, seq)? {
                cohorts.insert(Seq(seq), Arc::new(Cohort::of(&command)));
            }
        }
    }
    *write(&published.cohorts) = cohorts;
    Ok(())
}

/// Is a command open anywhere, as far as the last fold knows?
fn has_open(counts: &impl ReadableTable<u64, &'static [u8]>, seq: u64) -> Result<bool, StoreError> {
    let counts = counts
        .get(seq)?
        .map(|row| decode::<Counts>(row.value()))
        .transpose()?;
    let open = counts
        .iter()
        .flat_map(|counts| counts.iter().take(State::Acknowledged as usize));
    Ok(open.sum::<u32>() > 0)
}

/// Replays the journal behind the fold cursor, by position, and folds it.
fn replay(
    transaction: &WriteTransaction,
    published: &Published,
    segments: &mut SegmentWriter,
    guard: &mut Guard,
) -> Result<Numbers, StoreError> {
    let stored = transaction
        .open_table(META)?
        .get("numbers")?
        .map(|row| decode(row.value()));
    let [seq, position, folded, channel]: [u64; 4] = stored.transpose()?.unwrap_or_default();
    let channel = u32::try_from(channel).unwrap_or(u32::MAX);
    published.next_channel.store(channel, Ordering::Release);
    let numbers = Numbers {
        seq,
        position,
        folded,
    };
    let mut batch = Batch::open(
        transaction,
        published,
        segments,
        guard,
        numbers,
        published.clock.now(),
    )?;
    let mut rows = Vec::new();
    for row in batch.journal.range(folded + 1..)? {
        let (position, row) = row?;
        rows.push((position.value(), decode::<JournalRow>(row.value())?));
    }
    for (position, row) in rows {
        batch.outcome.last.insert(row.channel, position);
        batch.again(row.channel, &row.entry)?;
    }
    batch.outcome.dirty = true;
    batch.fold()?;
    let (outcome, numbers) = batch.close()?;
    outcome.publish(published, numbers);
    Ok(numbers)
}

impl Batch<'_> {
    /// What an entry did to its command's row, done again.
    fn again(&mut self, channel: ChannelNo, entry: &Entry) -> Result<(), StoreError> {
        let (seq, next): (Seq, Box<dyn Fn(QueueRow) -> QueueRow>) = match *entry {
            Entry::CheckIn { .. } => return Ok(()),
            Entry::Report { seq, status, .. } => (
                seq,
                Box::new(move |row| super::batch::after_report(row, status)),
            ),
            Entry::Sent { seq } => (
                seq,
                Box::new(|row| QueueRow {
                    state: State::Sent,
                    attempts: row.attempts.saturating_add(1),
                    ..row
                }),
            ),
            Entry::Closed { seq, state } => (seq, Box::new(move |row| QueueRow { state, ..row })),
            Entry::Rejected { seq, .. } => {
                let state = State::Rejected;
                (seq, Box::new(move |row| QueueRow { state, ..row }))
            }
        };
        if let Some(row) = self.row(channel, seq)? {
            self.set_row(channel, seq, row, next(row))?;
        }
        Ok(())
    }
}

const SEGMENT_BYTES: u64 = 64 << 20;
const OPERATIONS_WAITING: usize = 16_384;
