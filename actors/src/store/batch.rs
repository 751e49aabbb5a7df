//! One write transaction under way: the rows it changes and how commands move.
//!
//! The ground the operations stand on (`checkins.rs`, `commands.rs`, `fold.rs`,
//! `retention.rs`). Nothing here is seen by others until [`Outcome::publish`].

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use redb::{ReadableTable, Table, WriteTransaction};
use roaring::RoaringBitmap;
use schema::queue::State;
use schema::report::Status;
use schema::{ChannelNo, Seq, UnixMillis};

use super::StoreError;
use super::dense;
use super::guard::{Guard, Moment};
use super::operations::{Effect, Rejection, Reported};
use super::segments::SegmentWriter;
use super::tables::{
    Body, BodyAddress, COHORT_STATE, COMMAND, COMMAND_BY_UUID, COMMAND_COUNT, CommandRecord,
    CommandRow, Entry, INLINE_UP_TO, JOURNAL, JournalRow, LAST_POSITION, META, QUEUE, QueueRow,
    SEGMENT, decode, encode,
};
use super::tail::{Cohort, Counts, Published, write};
use super::writer::{Numbers, Overlay};

pub(super) struct Batch<'t> {
    pub(super) transaction: &'t WriteTransaction,
    pub(super) published: &'t Published,
    pub(super) guard: &'t mut Guard,
    pub(super) numbers: Numbers,
    pub(super) now: UnixMillis,
    pub(super) journal: Table<'t, u64, &'static [u8]>,
    pub(super) queue: Table<'t, (u32, u64), u64>,
    pub(super) command: Table<'t, u64, &'static [u8]>,
    pub(super) outcome: Outcome,
    pub(super) segments: &'t mut SegmentWriter,
}

/// What a batch changed, to be published after its commit.
#[derive(Default)]
pub(super) struct Outcome {
    /// Something was written.
    pub(super) dirty: bool,
    /// The whole tail is in the tables now.
    pub(super) folded: bool,
    pub(super) rows: Overlay<QueueRow>,
    pub(super) last: HashMap<ChannelNo, u64>,
    pub(super) counts: HashMap<Seq, Counts>,
    pub(super) cohorts: Vec<(Seq, Arc<Cohort>)>,
    pub(super) closed_cohorts: Vec<Seq>,
    pub(super) work: Vec<RoaringBitmap>,
    pub(super) wake: Vec<RoaringBitmap>,
    /// Segment files below this number go once the batch is committed.
    pub(super) unlink_before: Option<u32>,
    /// Channels that can be woken again and have work.
    pub(super) reachable: Vec<ChannelNo>,
    /// Whether it is a device channel, and whether it is enrolled now.
    pub(super) enrolled: HashMap<ChannelNo, (bool, bool)>,
    pub(super) repeats: u64,
    pub(super) strays: u64,
}

impl<'t> Batch<'t> {
    pub(super) fn open(
        transaction: &'t WriteTransaction,
        published: &'t Published,
        segments: &'t mut SegmentWriter,
        guard: &'t mut Guard,
        numbers: Numbers,
        now: UnixMillis,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            transaction,
            published,
            guard,
            numbers,
            now,
            journal: transaction.open_table(JOURNAL)?,
            queue: transaction.open_table(QUEUE)?,
            command: transaction.open_table(COMMAND)?,
            outcome: Outcome::default(),
            segments,
        })
    }

    /// Ends the batch: the numbers go in, the tables are let go.
    pub(super) fn close(self) -> Result<(Outcome, Numbers), StoreError> {
        if self.outcome.dirty {
            let mut meta = self.transaction.open_table(META)?;
            let numbers = [
                self.numbers.seq,
                self.numbers.position,
                self.numbers.folded,
                u64::from(self.published.next_channel.load(Ordering::Acquire)),
            ];
            meta.insert("numbers", encode(&numbers)?.as_slice())?;
        }
        Ok((self.outcome, self.numbers))
    }

    /// The time, on the wall and passed.
    pub(super) fn time(&self) -> (UnixMillis, u64) {
        (self.now, self.published.clock.passed())
    }

    /// A report of a device.
    pub(super) fn report(&mut self, reported: Reported) -> Result<Effect, StoreError> {
        let seq = match reported.seq {
            Some(seq) => Some(seq),
            None => self.seq_of(reported.uuid.as_str())?,
        };
        let Some(seq) = seq.filter(|seq| *seq > reported.epoch) else {
            self.outcome.strays += 1;
            return Ok(Effect::Stray);
        };
        let channel = reported.channel;
        let Some(row) = self.row(channel, seq)? else {
            let addressed = self
                .command(seq)?
                .is_some_and(|command| targets(&command).contains(channel.0));
            if addressed {
                self.outcome.repeats += 1;
                return Ok(Effect::Repeated);
            }
            self.outcome.strays += 1;
            return Ok(Effect::Stray);
        };
        if row.state.is_final() {
            self.outcome.repeats += 1;
            return Ok(Effect::Repeated);
        }
        let late = !row.state.is_open();
        if late && reported.status == Status::NotNow {
            return Ok(Effect::Repeated);
        }
        let body = self.place_body(reported.body)?;
        self.log(
            channel,
            Entry::Report {
                seq,
                status: reported.status,
                late,
                errors: reported.errors,
                body,
            },
        )?;
        let next = after_report(row, reported.status);
        self.set_row(channel, seq, row, next)?;
        Ok(Effect::Counted { seq, late })
    }

    /// A command was handed out.
    pub(super) fn sent(&mut self, channel: ChannelNo, seq: Seq) -> Result<(), StoreError> {
        let Some(row) = self.row(channel, seq)?.filter(|row| row.state.is_open()) else {
            return Ok(());
        };
        self.log(channel, Entry::Sent { seq })?;
        let next = QueueRow {
            state: State::Sent,
            attempts: row.attempts.saturating_add(1),
            ..row
        };
        self.set_row(channel, seq, row, next)
    }

    /// Asks leave to hand out a destructive command; counted once per channel and command.
    pub(super) fn hand_out(&mut self, channel: ChannelNo, seq: Seq) -> Result<bool, StoreError> {
        if !self
            .row(channel, seq)?
            .is_some_and(|row| row.state.is_deliverable())
        {
            return Ok(false);
        }
        let admitted = self.guard.admit(
            self.transaction,
            Moment::HandedOut,
            &[channel],
            seq,
            self.time(),
        );
        match admitted {
            Ok(()) => {
                self.outcome.dirty = true;
                self.sent(channel, seq)?;
                Ok(true)
            }
            Err(StoreError::Guard { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Closes an open row whose device is not fit for the command.
    pub(super) fn reject(&mut self, rejected: Rejection) -> Result<(), StoreError> {
        let Rejection {
            channel,
            seq,
            code,
            why,
        } = rejected;
        let Some(row) = self.row(channel, seq)?.filter(|row| row.state.is_open()) else {
            return Ok(());
        };
        self.log(channel, Entry::Rejected { seq, code, why })?;
        let state = State::Rejected;
        self.set_row(channel, seq, row, QueueRow { state, ..row })
    }

    /// Closes an open row on the server's word.
    pub(super) fn close_row(
        &mut self,
        channel: ChannelNo,
        seq: Seq,
        row: QueueRow,
        state: State,
    ) -> Result<(), StoreError> {
        self.log(channel, Entry::Closed { seq, state })?;
        self.set_row(channel, seq, row, QueueRow { state, ..row })
    }

    /// The row of a command on a channel as this batch sees it.
    pub(super) fn row(&self, channel: ChannelNo, seq: Seq) -> Result<Option<QueueRow>, StoreError> {
        if let Some(row) = self.outcome.rows.get(&(channel, seq)) {
            return Ok(Some(*row));
        }
        if let Some(tail) = self.published.tail.get(&channel)
            && let Some((_, row)) = tail.rows.iter().find(|(s, _)| *s == seq)
        {
            return Ok(Some(*row));
        }
        if let Some(packed) = self.queue.get((channel.0, seq.0))? {
            return QueueRow::unpack(packed.value()).map(Some);
        }
        let Some(cohort) = self.cohort(seq)?.filter(|c| c.targets.contains(channel.0)) else {
            return Ok(None);
        };
        let planes = self.transaction.open_table(COHORT_STATE)?;
        let chunk = planes.get((seq.0, channel.0 / dense::PLANE))?;
        let state = chunk.and_then(|chunk| dense::nibble(chunk.value(), channel));
        Ok(Some(QueueRow {
            state: state.unwrap_or(cohort.fresh.state),
            ..cohort.fresh
        }))
    }

    /// Every row of a channel as this batch sees it, cohorts included, in order.
    pub(super) fn rows_of(&self, channel: ChannelNo) -> Result<Vec<(Seq, QueueRow)>, StoreError> {
        let mut seqs = Vec::new();
        for row in self.queue.range((channel.0, 0)..=(channel.0, u64::MAX))? {
            seqs.push(Seq(row?.0.value().1));
        }
        let targeted = |(seq, cohort): (&Seq, &Arc<Cohort>)| {
            cohort.targets.contains(channel.0).then_some(*seq)
        };
        seqs.extend(self.published.cohorts().iter().filter_map(targeted));
        seqs.extend(
            self.outcome
                .cohorts
                .iter()
                .filter_map(|(seq, c)| targeted((seq, c))),
        );
        let mut rows = Vec::with_capacity(seqs.len());
        for seq in seqs {
            rows.extend(self.row(channel, seq)?.map(|row| (seq, row)));
        }
        Ok(rows)
    }

    pub(super) fn set_row(
        &mut self,
        channel: ChannelNo,
        seq: Seq,
        from: QueueRow,
        to: QueueRow,
    ) -> Result<(), StoreError> {
        self.outcome.rows.insert((channel, seq), to);
        if from.state != to.state {
            let mut counts = self.counts(seq)?;
            if let Some(count) = counts.get_mut(from.state as usize) {
                *count = count.saturating_sub(1);
            }
            if let Some(count) = counts.get_mut(to.state as usize) {
                *count += 1;
            }
            self.outcome.counts.insert(seq, counts);
        }
        Ok(())
    }

    /// Appends to the journal and to the channel's chain in it.
    pub(super) fn log(&mut self, channel: ChannelNo, entry: Entry) -> Result<u64, StoreError> {
        let previous = match self.outcome.last.get(&channel) {
            Some(last) => *last,
            None => match self.published.tail.get(&channel).map(|tail| tail.last) {
                Some(last) if last != 0 => last,
                _ => {
                    let heads = self.transaction.open_table(LAST_POSITION)?;
                    let chunk = heads.get(channel.0 / dense::HEADS)?;
                    chunk
                        .and_then(|chunk| dense::u64_at(chunk.value(), channel))
                        .unwrap_or(0)
                }
            },
        };
        self.numbers.position += 1;
        let position = self.numbers.position;
        let row = JournalRow {
            channel,
            previous,
            at: self.now,
            entry,
        };
        self.journal.insert(position, encode(&row)?.as_slice())?;
        self.outcome.last.insert(channel, position);
        self.outcome.dirty = true;
        Ok(position)
    }

    /// Puts a sealed body where it belongs: small ones into the entry, others into a segment.
    pub(super) fn place_body(&mut self, sealed: Option<Vec<u8>>) -> Result<Body, StoreError> {
        match sealed {
            None => Ok(Body::None),
            Some(sealed) if sealed.len() <= INLINE_UP_TO => Ok(Body::Inline(sealed)),
            Some(sealed) => {
                let address = self.segments.append(&sealed)?;
                let mut segments = self.transaction.open_table(SEGMENT)?;
                segments.insert(address.segment, self.now.minutes())?;
                Ok(Body::Segment(BodyAddress(address)))
            }
        }
    }

    pub(super) fn command(&self, seq: Seq) -> Result<Option<CommandRecord>, StoreError> {
        let row = self.command.get(seq.0)?;
        let row = row
            .map(|row| decode::<CommandRow>(row.value()))
            .transpose()?;
        Ok(row.map(CommandRow::into_record))
    }

    pub(super) fn seq_of(&self, uuid: &str) -> Result<Option<Seq>, StoreError> {
        let by_uuid = self.transaction.open_table(COMMAND_BY_UUID)?;
        let seq = by_uuid.get(uuid_key(uuid).as_slice())?;
        Ok(seq.map(|seq| Seq(seq.value())))
    }

    pub(super) fn counts(&self, seq: Seq) -> Result<Counts, StoreError> {
        if let Some(counts) = self.outcome.counts.get(&seq) {
            return Ok(*counts);
        }
        if let Some(counts) = self.published.counts.get(&seq) {
            return Ok(*counts);
        }
        let table = self.transaction.open_table(COMMAND_COUNT)?;
        let row = table.get(seq.0)?;
        row.map_or(Ok(Counts::default()), |row| decode(row.value()))
    }

    /// How many entries the tail would hold after this batch.
    pub(super) fn unfolded(&self) -> usize {
        usize::try_from(self.numbers.position - self.numbers.folded).unwrap_or(usize::MAX)
    }

    fn cohort(&self, seq: Seq) -> Result<Option<Arc<Cohort>>, StoreError> {
        let fresh = self.outcome.cohorts.iter().find(|(s, _)| *s == seq);
        let open = || self.published.cohorts().get(&seq).cloned();
        if let Some(cohort) = fresh.map(|(_, cohort)| cohort.clone()).or_else(open) {
            return Ok(Some(cohort));
        }
        // Closed for all: only a late report asks for it.
        let closed = self.command(seq)?.filter(|command| command.cohort);
        Ok(closed.map(|command| Arc::new(Cohort::of(&command))))
    }
}

impl Outcome {
    /// Shows the committed changes to everyone.
    pub(super) fn publish(self, published: &Published, numbers: Numbers) {
        if self.folded {
            published.tail.clear();
            published.counts.clear();
        } else {
            for (channel, last) in self.last {
                published.tail.entry(channel).or_default().last = last;
            }
            for ((channel, seq), row) in self.rows {
                let mut tail = published.tail.entry(channel).or_default();
                match tail.rows.iter_mut().find(|(s, _)| *s == seq) {
                    Some(place) => place.1 = row,
                    None => tail.rows.push((seq, row)),
                }
            }
            for (seq, counts) in self.counts {
                published.counts.insert(seq, counts);
            }
        }
        if !self.cohorts.is_empty() || !self.closed_cohorts.is_empty() {
            let mut cohorts = write(&published.cohorts);
            cohorts.extend(self.cohorts);
            for seq in self.closed_cohorts {
                cohorts.remove(&seq);
            }
        }
        if !self.enrolled.is_empty() {
            let mut enrolled = write(&published.enrolled);
            for (channel, (device, is)) in self.enrolled {
                enrolled.put(channel, device, is);
            }
        }
        for channel in self.work.iter().flatten() {
            published.work.set(ChannelNo(channel));
        }
        let now = published.clock.now();
        for targets in &self.wake {
            published.wakes.mark(targets.iter().map(ChannelNo), now);
        }
        for channel in &self.reachable {
            published.wakes.forget_accepted(*channel);
        }
        published.wakes.mark(self.reachable, now);
        let figures = &published.figures;
        figures.position.store(numbers.position, Ordering::Release);
        figures.folded.store(numbers.folded, Ordering::Release);
        figures.repeats.fetch_add(self.repeats, Ordering::Relaxed);
        figures.strays.fetch_add(self.strays, Ordering::Relaxed);
    }
}

/// The row after a report that counts.
pub(super) fn after_report(row: QueueRow, status: Status) -> QueueRow {
    let state = match status {
        Status::Acknowledged => State::Acknowledged,
        Status::Error | Status::Unreadable => State::Error,
        Status::CommandFormatError => State::FormatError,
        Status::NotNow => State::NotNow,
        Status::Idle => row.state,
    };
    let not_now = row.not_now.saturating_add(u8::from(state == State::NotNow));
    QueueRow {
        state,
        attempts: 0,
        not_now,
        ..row
    }
}

/// The channels a command is addressed to.
pub(super) fn targets(command: &CommandRecord) -> RoaringBitmap {
    RoaringBitmap::deserialize_from(command.targets.as_slice()).unwrap_or_default()
}

/// Key of a CommandUUID: any string of the field's is legal, so its hash is taken.
pub(super) fn uuid_key(uuid: &str) -> [u8; 16] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, uuid.as_bytes());
    let mut key = [0; 16];
    if let Some(start) = digest.as_ref().get(..16) {
        key.copy_from_slice(start);
    }
    key
}
