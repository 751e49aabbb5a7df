//! Retention inside a write transaction: what is older than the admin keeps goes, a
//! slice at a time, oldest first. Open commands and what is not folded stay.

use std::sync::atomic::Ordering;

use redb::ReadableTable;
use schema::queue::State;
use schema::{Seq, UnixMillis};

use super::StoreError;
use super::batch::{Batch, targets, uuid_key};
use super::tables::{
    COHORT_STATE, COMMAND_BY_UUID, COMMAND_COUNT, EXPIRY, IDEMPOTENCY, IdempotencyRow, JournalRow,
    QueueRow, SEGMENT, decode,
};

impl Batch<'_> {
    /// Drops one slice of what ended before `before`; says how many rows went.
    pub(super) fn retain(&mut self, before: UnixMillis, budget: u64) -> Result<usize, StoreError> {
        self.fold()?;
        let mut gone = self.retain_journal(before)?;
        gone += self.retain_commands(before)?;
        gone += self.retain_idempotency()?;
        self.retain_segments(before, budget)?;
        if gone > 0 {
            self.outcome.dirty = true;
        }
        Ok(gone)
    }

    fn retain_journal(&mut self, before: UnixMillis) -> Result<usize, StoreError> {
        let mut old = Vec::new();
        // The last entry stays, so that a position is never given twice.
        for row in self
            .journal
            .range(..self.numbers.folded)?
            .take(ROWS_PER_SLICE)
        {
            let (position, row) = row?;
            let row: JournalRow = decode(row.value())?;
            if row.at >= before {
                break;
            }
            old.push(position.value());
        }
        for position in &old {
            self.journal.remove(position)?;
        }
        Ok(old.len())
    }

    fn retain_commands(&mut self, before: UnixMillis) -> Result<usize, StoreError> {
        let mut seqs = Vec::new();
        for row in self.command.iter()?.take(ROWS_PER_SLICE) {
            seqs.push(Seq(row?.0.value()));
        }
        let mut gone = 0;
        for seq in seqs {
            let Some(command) = self
                .command(seq)?
                .filter(|command| command.created < before)
            else {
                break;
            };
            let counts = self.counts(seq)?;
            let open: u32 = counts.iter().take(State::Acknowledged as usize).sum();
            if open > 0 {
                continue;
            }
            for channel in &targets(&command) {
                self.queue.remove((channel, seq.0))?;
            }
            let expiry = (QueueRow::fresh(&command).expires, seq.0);
            self.transaction.open_table(EXPIRY)?.remove(expiry)?;
            if command.cohort {
                self.outcome.closed_cohorts.push(seq);
                let mut planes = self.transaction.open_table(COHORT_STATE)?;
                planes.retain_in((seq.0, 0)..=(seq.0, u32::MAX), |_, _| false)?;
            }
            let by_uuid = uuid_key(command.uuid.as_str());
            self.transaction
                .open_table(COMMAND_BY_UUID)?
                .remove(by_uuid.as_slice())?;
            self.transaction.open_table(COMMAND_COUNT)?.remove(seq.0)?;
            self.command.remove(seq.0)?;
            gone += 1;
        }
        Ok(gone)
    }

    fn retain_idempotency(&mut self) -> Result<usize, StoreError> {
        let now = self.published.watch.now();
        let mut gone = 0;
        self.transaction.open_table(IDEMPOTENCY)?.retain(|_, row| {
            let keep = decode::<IdempotencyRow>(row).is_ok_and(|row| row.until > now);
            gone += usize::from(!keep);
            keep
        })?;
        Ok(gone)
    }

    /// Unlinks the segments that hold nothing younger, then the oldest until the rest
    /// fits the budget. Reports that name one show without their body.
    fn retain_segments(&mut self, before: UnixMillis, budget: u64) -> Result<(), StoreError> {
        if self.published.backing_up.load(Ordering::Acquire) {
            return Ok(());
        }
        let sizes = self.segments.sizes()?;
        let mut held: u64 = sizes.values().sum();
        let mut table = self.transaction.open_table(SEGMENT)?;
        let mut old = Vec::new();
        for row in table.iter()? {
            let (number, newest) = row?;
            let young = UnixMillis::from_minutes(newest.value().saturating_add(1)) >= before;
            let being_written = number.value() >= self.segments.current();
            if being_written || (young && held <= budget) {
                break;
            }
            held -= sizes.get(&number.value()).copied().unwrap_or(0).min(held);
            old.push(number.value());
        }
        for number in &old {
            table.remove(number)?;
            self.outcome.dirty = true;
        }
        if let Some(last) = old.last() {
            self.outcome.unlink_before = Some(last + 1);
        }
        Ok(())
    }
}

const ROWS_PER_SLICE: usize = 2000;
