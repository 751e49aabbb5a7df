//! Commands inside a write transaction: queue, cancel, expire.

use std::sync::Arc;

use redb::ReadableTable;
use roaring::RoaringBitmap;
use schema::queue::State;
use schema::{ChannelNo, Seq, UnixMillis};

use super::StoreError;
use super::batch::{Batch, targets, uuid_key};
use super::guard::Moment;
use super::operations::{Cancel, CancelOutcome, Enqueued, Idempotency, NewCommand};
use super::tables::{
    COMMAND_BY_UUID, COMMAND_COUNT, CommandRecord, CommandRow, EXPIRY, IDEMPOTENCY, IdempotencyRow,
    QueueRow, decode, encode,
};
use super::tail::{Cohort, Counts, read};

/// Up to this many targets a command has a queue row each; beyond, a state plane.
pub const DIRECT_UP_TO: u64 = 1000;
/// Commands to many devices that may be open at once.
pub const COHORTS_OPEN: usize = 1024;

impl Batch<'_> {
    /// Queues a command for those of its targets that are enrolled.
    pub(super) fn enqueue(&mut self, command: NewCommand) -> Result<Enqueued, StoreError> {
        if let Some(earlier) = self.earlier(&command)? {
            return Ok(earlier);
        }
        if self.seq_of(command.uuid.as_str())?.is_some() {
            return Err(StoreError::DuplicateUuid(command.uuid));
        }
        let mut accepted = &command.targets & &read(&self.published.enrolled).channels;
        for (channel, (_, is)) in &self.outcome.enrolled {
            if !is {
                accepted.remove(channel.0);
            } else if command.targets.contains(channel.0) {
                accepted.insert(channel.0);
            }
        }
        let rejected: Vec<_> = (&command.targets - &accepted)
            .iter()
            .map(ChannelNo)
            .collect();
        if accepted.is_empty() {
            return Ok(Enqueued {
                uuid: command.uuid,
                seq: None,
                accepted: 0,
                rejected,
                repeated: false,
            });
        }
        let cohort = accepted.len() > DIRECT_UP_TO;
        let open = self.published.cohorts().len() + self.outcome.cohorts.len();
        if cohort && open >= COHORTS_OPEN {
            return Err(StoreError::TooManyOpen(COHORTS_OPEN));
        }
        let seq = Seq(self.numbers.seq + 1);
        if command.destructive {
            let channels: Vec<_> = accepted.iter().map(ChannelNo).collect();
            self.guard.admit(
                self.transaction,
                Moment::Enqueued,
                &channels,
                seq,
                self.time(),
            )?;
        }
        self.numbers.seq = seq.0;
        self.outcome.dirty = true;
        self.put_command(seq, command, accepted, cohort, rejected)
    }

    fn put_command(
        &mut self,
        seq: Seq,
        command: NewCommand,
        accepted: RoaringBitmap,
        cohort: bool,
        rejected: Vec<ChannelNo>,
    ) -> Result<Enqueued, StoreError> {
        let count = u32::try_from(accepted.len()).unwrap_or(u32::MAX);
        let mut serialised = Vec::with_capacity(accepted.serialized_size());
        accepted.serialize_into(&mut serialised)?;
        let record = CommandRecord {
            uuid: command.uuid.clone(),
            request_type: command.request_type,
            sealed: command.sealed,
            targets: serialised,
            target_count: count,
            cohort,
            created: self.now,
            expires: command.expires,
            rank: command.rank,
            barrier: false,
            destructive: command.destructive,
            principal: command.principal,
            reason: command.reason,
            forced: command.forced,
        };
        let fresh = QueueRow::fresh(&record);
        let by_uuid = uuid_key(command.uuid.as_str());
        self.transaction
            .open_table(COMMAND_BY_UUID)?
            .insert(by_uuid.as_slice(), seq.0)?;
        self.transaction
            .open_table(EXPIRY)?
            .insert((fresh.expires, seq.0), ())?;
        let mut counts = Counts::default();
        if let Some(released) = counts.get_mut(State::Released as usize) {
            *released = count;
        }
        self.transaction
            .open_table(COMMAND_COUNT)?
            .insert(seq.0, encode(&counts)?.as_slice())?;
        if let Some(Idempotency { key, request }) = command.idempotency {
            let row = IdempotencyRow {
                request,
                seq,
                accepted: count,
                rejected: rejected.clone(),
                until: self.published.watch.now().plus_seconds(IDEMPOTENCY_SECONDS),
            };
            let mut table = self.transaction.open_table(IDEMPOTENCY)?;
            table.insert(key.as_slice(), encode(&row)?.as_slice())?;
        }
        if cohort {
            self.outcome
                .cohorts
                .push((seq, Arc::new(Cohort::of(&record))));
        } else {
            for channel in &accepted {
                self.queue.insert((channel, seq.0), fresh.pack())?;
            }
        }
        self.command
            .insert(seq.0, encode(&CommandRow::V2(record))?.as_slice())?;
        if command.wake {
            self.outcome.wake.push(accepted.clone());
        }
        self.outcome.work.push(accepted);
        Ok(Enqueued {
            uuid: command.uuid,
            seq: Some(seq),
            accepted: count,
            rejected,
            repeated: false,
        })
    }

    /// The outcome of the same request, when it came before.
    fn earlier(&self, command: &NewCommand) -> Result<Option<Enqueued>, StoreError> {
        let Some(Idempotency { key, request }) = command.idempotency else {
            return Ok(None);
        };
        let table = self.transaction.open_table(IDEMPOTENCY)?;
        let row = table.get(key.as_slice())?;
        let Some(row) = row
            .map(|row| decode::<IdempotencyRow>(row.value()))
            .transpose()?
        else {
            return Ok(None);
        };
        if row.until <= self.published.watch.now() {
            return Ok(None);
        }
        if row.request != request {
            return Err(StoreError::IdempotencyMismatch);
        }
        let uuid = self
            .command(row.seq)?
            .map_or(command.uuid.clone(), |earlier| earlier.uuid);
        Ok(Some(Enqueued {
            uuid,
            seq: Some(row.seq),
            accepted: row.accepted,
            rejected: row.rejected,
            repeated: true,
        }))
    }

    /// Takes back what has not been handed out.
    pub(super) fn cancel(&mut self, cancel: &Cancel) -> Result<CancelOutcome, StoreError> {
        let places = match *cancel {
            Cancel::On(channel, seq) => vec![(channel, seq)],
            Cancel::Channel(channel) => {
                let rows = self.rows_of(channel)?.into_iter();
                rows.map(|(seq, _)| (channel, seq)).collect()
            }
            Cancel::Command(seq) => {
                let command = self.command(seq)?;
                let channels = command.iter().flat_map(targets).map(ChannelNo);
                channels.map(|channel| (channel, seq)).collect()
            }
        };
        let mut outcome = CancelOutcome::default();
        for (channel, seq) in places {
            match self.row(channel, seq)? {
                Some(row) if row.state == State::Sent => {
                    // Not offered again; should the device act on it, its report still counts.
                    self.close_row(channel, seq, row, State::Cancelled)?;
                    outcome.already_sent += 1;
                }
                Some(row) if row.state.is_open() => {
                    self.close_row(channel, seq, row, State::Cancelled)?;
                    outcome.cancelled += 1;
                }
                _ => outcome.closed += 1,
            }
        }
        Ok(outcome)
    }

    /// Closes what is past its time, a bounded number of rows at once; says how many
    /// commands were looked at.
    pub(super) fn expire(&mut self, now: UnixMillis) -> Result<usize, StoreError> {
        let mut due = Vec::new();
        let table = self.transaction.open_table(EXPIRY)?;
        for key in table
            .range(..(now.minutes(), u64::MAX))?
            .take(COMMANDS_PER_SWEEP)
        {
            due.push(key?.0.value());
        }
        drop(table);
        let mut rows = 0;
        for key in &due {
            let seq = Seq(key.1);
            let command = self.command(seq)?;
            for channel in command.iter().flat_map(targets).map(ChannelNo) {
                let row = self.row(channel, seq)?.filter(|row| row.state.is_open());
                if let Some(row) = row {
                    self.close_row(channel, seq, row, State::Expired)?;
                    rows += 1;
                }
                if rows >= ROWS_PER_SWEEP {
                    return Ok(due.len());
                }
            }
            self.transaction.open_table(EXPIRY)?.remove(*key)?;
            self.outcome.dirty = true;
        }
        Ok(due.len())
    }
}

const IDEMPOTENCY_SECONDS: u64 = 24 * 3600;
const COMMANDS_PER_SWEEP: usize = 100;
const ROWS_PER_SWEEP: usize = 20_000;
