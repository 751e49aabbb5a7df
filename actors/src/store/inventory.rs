//! The inventory: read out of reports some time after they were acknowledged.
//!
//! A cursor into the journal, like that of a hook: nothing of it is on the way of a
//! report, and a crash goes on where it stopped. What was told is sealed like the reports
//! themselves and stays when they go.

use std::collections::{BTreeMap, HashMap};

use redb::{ReadableDatabase as _, ReadableTable};
use schema::inventory::{Fact, Kind, Known};
use schema::report::Status;
use schema::{ChannelNo, Seq, UnixMillis};

use super::seal::Place;
use super::tables::{
    Body, COMMAND, CommandRow, Entry, INVENTORY, InventoryRow, JOURNAL, JournalRow, META, decode,
    encode,
};
use super::tail::Published;
use super::{Store, StoreError};

/// What is known of one kind on one channel, as it will be written.
type Learned = BTreeMap<(ChannelNo, u8), Known>;

/// How far the journal was read for the inventory.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    /// The last position that was looked at; what is on disk may be behind it.
    read: Option<u64>,
    /// That is on disk.
    kept: u64,
}

/// An answer in the journal, still in its report.
struct Answer {
    channel: ChannelNo,
    kind: Kind,
    at: UnixMillis,
    body: Body,
}

impl Store {
    /// Reads what reports told into the inventory, at most so many slices of the journal;
    /// false when something may be left. On a full disk it waits for room.
    ///
    /// # Errors
    /// [`StoreError`]: the store's own trouble.
    pub async fn learn(&self, slices: usize) -> Result<bool, StoreError> {
        let mut cursor = self.inner.learned.lock().await;
        for _ in 0..slices {
            if self.full() {
                return Ok(false);
            }
            if !self.learn_slice(&mut cursor).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reads one slice; false when nothing was left to read.
    async fn learn_slice(&self, cursor: &mut Cursor) -> Result<bool, StoreError> {
        let from = match cursor.read {
            Some(read) => read,
            None => {
                cursor.kept = self.inventory_cursor()?;
                cursor.kept
            }
        };
        let reader = self.clone();
        let work = tokio::task::spawn_blocking(move || reader.learned_after(from));
        let (learned, end) = work.await.map_err(|_| StoreError::Closed)??;
        let far = end.saturating_sub(cursor.kept) > KEPT_EVERY;
        if !learned.is_empty() || far {
            self.keep_inventory(learned, end).await?;
            cursor.kept = end;
        }
        cursor.read = Some(end);
        Ok(end > from)
    }

    /// Everything known of a channel.
    ///
    /// # Errors
    /// [`StoreError`] when the table cannot be read or a row not be opened.
    pub fn inventory(&self, channel: ChannelNo) -> Result<Vec<(Kind, Known)>, StoreError> {
        let table = self.inner.database.begin_read()?.open_table(INVENTORY)?;
        let known = |kind: Kind| {
            let known = self.known_in(&table, channel, kind).transpose()?;
            Some(known.map(|known| (kind, known)))
        };
        Kind::ALL.into_iter().filter_map(known).collect()
    }

    /// What is known of one kind.
    ///
    /// # Errors
    /// [`StoreError`] when the table cannot be read or the row not be opened.
    pub fn known(&self, channel: ChannelNo, kind: Kind) -> Result<Option<Known>, StoreError> {
        let table = self.inner.database.begin_read()?.open_table(INVENTORY)?;
        self.known_in(&table, channel, kind)
    }

    fn known_in(
        &self,
        table: &impl ReadableTable<(u32, u8), &'static [u8]>,
        channel: ChannelNo,
        kind: Kind,
    ) -> Result<Option<Known>, StoreError> {
        let place = Place::Inventory(channel.0, kind.code());
        let Some(row) = table.get((channel.0, kind.code()))? else {
            return Ok(None);
        };
        let InventoryRow::V1(known) = decode(&self.inner.sealer.open(place, row.value())?)?;
        Ok(Some(known))
    }

    /// The position up to which the journal was read for the inventory.
    fn inventory_cursor(&self) -> Result<u64, StoreError> {
        let meta = self.inner.database.begin_read()?.open_table(META)?;
        let row = meta.get(CURSOR)?;
        let cursor = row.and_then(|row| row.value().try_into().ok());
        Ok(cursor.map_or(0, u64::from_le_bytes))
    }

    /// What a slice behind `cursor` tells, and where it ends.
    fn learned_after(&self, cursor: u64) -> Result<(Learned, u64), StoreError> {
        let (answers, end) = self.answers_after(cursor)?;
        let mut told: Vec<(Answer, Fact)> = Vec::with_capacity(answers.len());
        for answer in answers {
            // A body that retention took tells nothing, nor does one that cannot be read:
            // what comes behind it must not wait for it for ever.
            let body = match self.body(answer.channel, &answer.body) {
                Err(error @ StoreError::Unsealable) => {
                    let channel = answer.channel.0;
                    tracing::warn!(channel, %error, "a report is left out of the inventory");
                    None
                }
                body => body?,
            };
            if let Some(facts) = body.and_then(|body| answer.kind.read(&body)) {
                told.push((answer, facts));
            }
        }
        let table = self.inner.database.begin_read()?.open_table(INVENTORY)?;
        let mut learned = Learned::new();
        for (
            Answer {
                channel, kind, at, ..
            },
            facts,
        ) in told
        {
            let key = (channel, kind.code());
            let before = match learned.remove(&key) {
                Some(before) => Some(before),
                None => self.known_in(&table, channel, kind)?,
            };
            learned.insert(key, kind.learn(before, facts, at));
        }
        Ok((learned, end))
    }

    fn answers_after(&self, cursor: u64) -> Result<(Vec<Answer>, u64), StoreError> {
        let transaction = self.inner.database.begin_read()?;
        let journal = transaction.open_table(JOURNAL)?;
        let commands = transaction.open_table(COMMAND)?;
        let mut kinds: HashMap<Seq, Option<Kind>> = HashMap::new();
        let (mut answers, mut end) = (Vec::new(), cursor);
        for row in journal.range(cursor.saturating_add(1)..)?.take(SLICE) {
            let (position, row) = row?;
            end = position.value();
            let row: JournalRow = decode(row.value())?;
            let Entry::Report {
                seq,
                status: Status::Acknowledged,
                body,
                ..
            } = row.entry
            else {
                continue;
            };
            let kind = match kinds.get(&seq) {
                Some(kind) => *kind,
                None => {
                    let command = commands.get(seq.0)?;
                    let command = command.map(|row| decode::<CommandRow>(row.value()));
                    let kind = command
                        .transpose()?
                        .and_then(|command| Kind::of(&command.into_record().request_type));
                    kinds.insert(seq, kind);
                    kind
                }
            };
            if let Some(kind) = kind {
                answers.push(Answer {
                    channel: row.channel,
                    kind,
                    at: row.at,
                    body,
                });
            }
        }
        Ok((answers, end))
    }

    async fn keep_inventory(&self, learned: Learned, end: u64) -> Result<(), StoreError> {
        let mut rows = Vec::with_capacity(learned.len());
        for ((channel, kind), known) in learned {
            let row = encode(&InventoryRow::V1(known))?;
            let sealed = self
                .inner
                .sealer
                .seal(Place::Inventory(channel.0, kind), &row)?;
            rows.push(((channel.0, kind), sealed));
        }
        self.write(move |transaction| {
            let mut table = transaction.open_table(INVENTORY)?;
            for (key, sealed) in rows {
                table.insert(key, sealed.as_slice())?;
            }
            let mut meta = transaction.open_table(META)?;
            meta.insert(CURSOR, end.to_le_bytes().as_slice())?;
            Ok(Box::new(|_: &Published| {}))
        })
        .await
    }
}

/// Entries of the journal that are read at once: a read transaction is short.
const SLICE: usize = 500;
/// A cursor with nothing to keep beside it is kept this often, in entries.
const KEPT_EVERY: u64 = 10_000;
/// Name in `meta`.
const CURSOR: &str = "inventory";
