//! What waits for a channel: the queue rows merged with the open cohorts.

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use redb::ReadableDatabase as _;
use schema::queue::Waiting;
use schema::{ChannelNo, CommandUuid, Seq, UnixMillis};

use super::dense;
use super::renewals::RENEWAL_PRINCIPAL;
use super::seal::Place;
use super::tables::{COHORT_STATE, COMMAND, CommandRow, QUEUE, QueueRow, decode};
use super::{Store, StoreError};

/// A command as it is handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandOut {
    /// Its number.
    pub seq: Seq,
    /// Its identity.
    pub uuid: CommandUuid,
    /// It is a template whose profile is made when it is handed out; see
    /// [`Store::renewal`].
    pub renews: bool,
    /// Its bytes.
    pub plist: Bytes,
    /// It needs the writer's leave first.
    pub destructive: bool,
    /// Its kind.
    pub request_type: String,
    /// No fitness is asked for.
    pub forced: bool,
}

/// Commands of many that were opened for one of them. A row never changes and its
/// number is never given again, so nothing here goes stale.
pub(super) type Opened = Cache<Seq, HandOut, ByBytes>;

pub(super) fn opened() -> Opened {
    Cache::with_weighter(OPENED_COMMANDS, OPENED_BYTES, ByBytes)
}

/// Weighs a command by its body.
#[derive(Clone, Debug)]
pub(super) struct ByBytes;

impl Weighter<Seq, HandOut> for ByBytes {
    fn weight(&self, _: &Seq, command: &HandOut) -> u64 {
        u64::try_from(command.plist.len())
            .unwrap_or(u64::MAX)
            .max(256)
    }
}

const OPENED_COMMANDS: usize = 256;
const OPENED_BYTES: u64 = 4 << 20;

impl Store {
    /// May something wait for this channel? Never a false no.
    #[must_use]
    pub fn may_have_work(&self, channel: ChannelNo) -> bool {
        self.inner.published.work.has(channel)
    }

    /// The open commands of a channel behind its epoch. Finding none clears the
    /// may-have-work bit.
    ///
    /// # Errors
    /// [`StoreError::Broken`] when the tables cannot be read.
    pub fn pending(&self, channel: ChannelNo, epoch: Seq) -> Result<Vec<Waiting>, StoreError> {
        let published = &self.inner.published;
        // Cleared before the read: what is queued meanwhile sets it again.
        published.work.clear(channel);
        // The tail first, then the tables: the other order shows closed rows again.
        let changed = published.rows(channel);
        let transaction = self.inner.database.begin_read()?;
        let mut waiting = Vec::new();
        let mut note = |seq: Seq, row: QueueRow| {
            let row = changed
                .iter()
                .find(|(s, _)| *s == seq)
                .map_or(row, |(_, row)| *row);
            if row.state.is_open() {
                waiting.push(Waiting {
                    seq,
                    rank: row.rank,
                    state: row.state,
                    attempts: row.attempts,
                    expires: UnixMillis::from_minutes(row.expires),
                    barrier: row.barrier,
                });
            }
        };
        let queue = transaction.open_table(QUEUE)?;
        for row in queue.range((channel.0, epoch.0 + 1)..=(channel.0, u64::MAX))? {
            let (key, row) = row?;
            note(Seq(key.value().1), QueueRow::unpack(row.value())?);
        }
        let cohorts = published.cohorts();
        let open: Vec<_> = cohorts
            .range(Seq(epoch.0 + 1)..)
            .filter(|(_, cohort)| cohort.targets.contains(channel.0))
            .map(|(seq, cohort)| (*seq, cohort.fresh))
            .collect();
        drop(cohorts);
        if !open.is_empty() {
            let planes = transaction.open_table(COHORT_STATE)?;
            for (seq, fresh) in open {
                let chunk = planes.get((seq.0, channel.0 / dense::PLANE))?;
                let state = chunk.and_then(|chunk| dense::nibble(chunk.value(), channel));
                let state = state.unwrap_or(fresh.state);
                note(seq, QueueRow { state, ..fresh });
            }
        }
        if !waiting.is_empty() {
            published.work.set(channel);
        }
        Ok(waiting)
    }

    /// How many NotNows a command got on a channel since the last fold of its row.
    ///
    /// # Errors
    /// [`StoreError::Broken`] when the tables cannot be read.
    pub fn not_nows(&self, channel: ChannelNo, seq: Seq) -> Result<u8, StoreError> {
        let changed = self.inner.published.rows(channel);
        if let Some((_, row)) = changed.iter().find(|(s, _)| *s == seq) {
            return Ok(row.not_now);
        }
        let queue = self.inner.database.begin_read()?.open_table(QUEUE)?;
        let row = queue
            .get((channel.0, seq.0))?
            .map(|row| QueueRow::unpack(row.value()));
        Ok(row.transpose()?.map_or(0, |row| row.not_now))
    }

    /// The bytes of a command.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read or opened.
    pub fn command_bytes(&self, seq: Seq) -> Result<Option<HandOut>, StoreError> {
        if let Some(command) = self.inner.opened.get(&seq) {
            return Ok(Some(command));
        }
        let table = self.inner.database.begin_read()?.open_table(COMMAND)?;
        let Some(row) = table.get(seq.0)? else {
            return Ok(None);
        };
        let command = decode::<CommandRow>(row.value())?.into_record();
        let plist = self
            .inner
            .sealer
            .open(Place::Command(command.uuid.as_str()), &command.sealed)?;
        let handed = HandOut {
            seq,
            renews: command.principal == RENEWAL_PRINCIPAL,
            uuid: command.uuid,
            plist: plist.into(),
            destructive: command.destructive,
            request_type: command.request_type,
            forced: command.forced,
        };
        if command.target_count > 1 {
            self.inner.opened.insert(seq, handed.clone());
        }
        Ok(Some(handed))
    }
}
