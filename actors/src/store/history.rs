//! The past of a channel: its chain in the journal, read backwards, and the commands
//! it tells of.

use std::collections::HashSet;

use redb::{ReadableDatabase as _, ReadableTable as _};
use schema::queue::{STUCK_AFTER, State};
use schema::report::{ErrorItem, Status};
use schema::{ChannelNo, Seq, UnixMillis};

use super::batch::after_report;
use super::dense;
use super::seal::Place;
use super::segments;
use super::tables::{
    Body, COHORT_STATE, COMMAND, CommandRecord, CommandRow, Entry, JOURNAL, JournalRow,
    LAST_POSITION, QUEUE, QueueRow, decode,
};
use super::{Store, StoreError};

/// One entry of a channel's past.
#[derive(Clone, Debug)]
pub struct Happening {
    /// Its position in the journal.
    pub position: u64,
    /// When.
    pub at: UnixMillis,
    /// What.
    pub entry: Entry,
}

/// A command as it stands on one channel.
#[derive(Clone, Debug)]
pub struct ChannelCommand {
    /// Its number.
    pub seq: Seq,
    /// The command.
    pub command: CommandRecord,
    /// Where it stands here.
    pub state: State,
    /// Hand-outs since the last report.
    pub attempts: u8,
    /// Handed out too often without a report; it steps behind the others.
    pub stuck: bool,
    /// When it was last handed out.
    pub sent_at: Option<UnixMillis>,
    /// When it was closed.
    pub completed_at: Option<UnixMillis>,
    /// The ErrorChain of its report.
    pub errors: Vec<ErrorItem>,
    /// Why it was rejected: a word, and why for people.
    pub rejected: Option<(String, String)>,
}

/// A report as it is kept.
#[derive(Clone, Debug)]
pub struct StoredReport {
    /// When it came.
    pub at: UnixMillis,
    /// What it said.
    pub status: Status,
    /// The server had closed the command before.
    pub late: bool,
    /// The ErrorChain.
    pub errors: Vec<ErrorItem>,
    /// The bytes as sent; none when retention took them.
    pub body: Option<Vec<u8>>,
}

impl Store {
    /// A channel's past, newest first, from before `before` (a position) on.
    ///
    /// # Errors
    /// [`StoreError::Broken`] when the tables cannot be read.
    pub fn history(
        &self,
        channel: ChannelNo,
        before: Option<u64>,
        most: usize,
    ) -> Result<Vec<Happening>, StoreError> {
        let mut past = Vec::new();
        self.walk_back(channel, |happening| {
            if before.is_none_or(|before| happening.position < before) {
                past.push(happening);
            }
            past.len() < most
        })?;
        Ok(past)
    }

    /// Whether a channel reported its push token after `at`.
    ///
    /// # Errors
    /// [`StoreError::Broken`] when the tables cannot be read.
    pub fn token_reported_after(
        &self,
        channel: ChannelNo,
        at: UnixMillis,
    ) -> Result<bool, StoreError> {
        let mut reported = false;
        self.walk_back(channel, |happening| {
            let later = happening.at > at;
            let token = matches!(&happening.entry, Entry::CheckIn { message, .. } if message == "TokenUpdate");
            reported = later && token;
            later && !reported
        })?;
        Ok(reported)
    }

    /// Shows the past of a channel, newest first, for as long as `on` says to go on.
    fn walk_back(
        &self,
        channel: ChannelNo,
        mut on: impl FnMut(Happening) -> bool,
    ) -> Result<(), StoreError> {
        let head = self
            .inner
            .published
            .tail
            .get(&channel)
            .map(|tail| tail.last);
        let transaction = self.inner.database.begin_read()?;
        let mut at = match head.filter(|head| *head != 0) {
            Some(head) => head,
            None => {
                let heads = transaction.open_table(LAST_POSITION)?;
                let chunk = heads.get(channel.0 / dense::HEADS)?;
                chunk
                    .and_then(|chunk| dense::u64_at(chunk.value(), channel))
                    .unwrap_or(0)
            }
        };
        let journal = transaction.open_table(JOURNAL)?;
        while at != 0 {
            // Retention took the rest of the chain.
            let Some(row) = journal.get(at)? else { break };
            let row: JournalRow = decode(row.value())?;
            let happening = Happening {
                position: std::mem::replace(&mut at, row.previous),
                at: row.at,
                entry: row.entry,
            };
            if !on(happening) {
                break;
            }
        }
        Ok(())
    }

    /// The commands of a channel, newest first: those in its queue and those its past
    /// tells of.
    ///
    /// # Errors
    /// [`StoreError::Broken`] when the tables cannot be read.
    pub fn commands_of(&self, channel: ChannelNo) -> Result<Vec<ChannelCommand>, StoreError> {
        let past = self.history(channel, None, HISTORY_DEPTH)?;
        let mut seqs: HashSet<Seq> = past.iter().filter_map(|h| command_of(&h.entry)).collect();
        let changed = self.inner.published.rows(channel);
        let transaction = self.inner.database.begin_read()?;
        for row in transaction
            .open_table(QUEUE)?
            .range((channel.0, 0)..=(channel.0, u64::MAX))?
        {
            seqs.insert(Seq(row?.0.value().1));
        }
        seqs.extend(changed.iter().map(|(seq, _)| *seq));
        let cohorts = self.inner.published.cohorts();
        seqs.extend(
            cohorts
                .iter()
                .filter(|(_, c)| c.targets.contains(channel.0))
                .map(|(s, _)| *s),
        );
        drop(cohorts);
        let mut seqs: Vec<_> = seqs.into_iter().collect();
        seqs.sort_unstable_by(|a, b| b.cmp(a));
        let mut commands = Vec::with_capacity(seqs.len());
        for seq in seqs {
            commands.extend(self.channel_command(channel, seq, &past)?);
        }
        Ok(commands)
    }

    /// One command as it stands on a channel; `None` when it is not addressed to it.
    ///
    /// # Errors
    /// [`StoreError::Broken`] when the tables cannot be read.
    pub fn command_on(
        &self,
        channel: ChannelNo,
        seq: Seq,
    ) -> Result<Option<ChannelCommand>, StoreError> {
        let past = self.history(channel, None, HISTORY_DEPTH)?;
        self.channel_command(channel, seq, &past)
    }

    /// When the newest entry of the journal was written.
    ///
    /// # Errors
    /// [`StoreError::Broken`] when the tables cannot be read.
    pub fn last_written(&self) -> Result<Option<UnixMillis>, StoreError> {
        let journal = self.inner.database.begin_read()?.open_table(JOURNAL)?;
        let last = journal.iter()?.next_back().transpose()?;
        last.map(|(_, row)| decode::<JournalRow>(row.value()).map(|row| row.at))
            .transpose()
    }

    /// The device's report on a command, the one that counted.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read or opened.
    pub fn result(&self, channel: ChannelNo, seq: Seq) -> Result<Option<StoredReport>, StoreError> {
        for happening in self.history(channel, None, HISTORY_DEPTH)? {
            let Entry::Report {
                seq: of,
                status,
                late,
                errors,
                body,
            } = happening.entry
            else {
                continue;
            };
            if of == seq && status != Status::NotNow {
                return Ok(Some(StoredReport {
                    at: happening.at,
                    status,
                    late,
                    errors,
                    body: self.body(channel, &body)?,
                }));
            }
        }
        Ok(None)
    }

    pub(super) fn body(
        &self,
        channel: ChannelNo,
        body: &Body,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let sealed = match body {
            Body::None => return Ok(None),
            Body::Inline(sealed) => sealed.clone(),
            Body::Segment(address) => {
                match segments::read(&*self.inner.disk, &self.inner.segments, address.0) {
                    Ok(sealed) => sealed,
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                    Err(error) => return Err(error.into()),
                }
            }
        };
        self.inner
            .sealer
            .open(Place::Journal(channel.0), &sealed)
            .map(Some)
    }

    fn channel_command(
        &self,
        channel: ChannelNo,
        seq: Seq,
        past: &[Happening],
    ) -> Result<Option<ChannelCommand>, StoreError> {
        let changed = self.inner.published.rows(channel);
        let transaction = self.inner.database.begin_read()?;
        let commands = transaction.open_table(COMMAND)?;
        let Some(row) = commands.get(seq.0)? else {
            return Ok(None);
        };
        let command = decode::<CommandRow>(row.value())?.into_record();
        if !super::batch::targets(&command).contains(channel.0) {
            return Ok(None);
        }
        let fresh = QueueRow::fresh(&command);
        let row = match changed.iter().find(|(s, _)| *s == seq) {
            Some((_, row)) => *row,
            None => {
                let queue = transaction.open_table(QUEUE)?;
                let stored = queue.get((channel.0, seq.0))?;
                match stored
                    .map(|row| QueueRow::unpack(row.value()))
                    .transpose()?
                {
                    Some(row) => row,
                    None if command.cohort => {
                        let planes = transaction.open_table(COHORT_STATE)?;
                        let chunk = planes.get((seq.0, channel.0 / dense::PLANE))?;
                        let state = chunk.and_then(|chunk| dense::nibble(chunk.value(), channel));
                        QueueRow {
                            state: state.unwrap_or(fresh.state),
                            ..fresh
                        }
                    }
                    // A direct row that is gone was closed by its report.
                    None => {
                        past.iter()
                            .rev()
                            .fold(fresh, |row, happening| match &happening.entry {
                                Entry::Report {
                                    seq: of, status, ..
                                } if *of == seq => after_report(row, *status),
                                _ => row,
                            })
                    }
                }
            }
        };
        let mut standing = ChannelCommand {
            seq,
            command,
            state: self.shown(row),
            attempts: row.attempts,
            stuck: row.state.is_open() && row.attempts >= STUCK_AFTER,
            sent_at: None,
            completed_at: None,
            errors: Vec::new(),
            rejected: None,
        };
        for happening in past.iter().rev() {
            match &happening.entry {
                Entry::Sent { seq: of } if *of == seq => standing.sent_at = Some(happening.at),
                Entry::Closed { seq: of, .. } if *of == seq => {
                    standing.completed_at = Some(happening.at);
                }
                Entry::Rejected { seq: of, code, why } if *of == seq => {
                    standing.completed_at = Some(happening.at);
                    standing.rejected = Some((code.clone(), why.clone()));
                }
                Entry::Report {
                    seq: of,
                    status,
                    errors,
                    ..
                } if *of == seq => {
                    standing.errors.clone_from(errors);
                    if *status != Status::NotNow {
                        standing.completed_at = Some(happening.at);
                    }
                }
                _ => {}
            }
        }
        if let Some(pushed) = self.last_pushed(channel)?
            && standing.state == State::Released
            && pushed.plus_seconds(60) >= standing.command.created
        {
            standing.state = State::Pushed;
        }
        Ok(Some(standing))
    }
}

impl Store {
    /// An open row past its time shows as expired even before the sweep has been there.
    fn shown(&self, row: QueueRow) -> State {
        let past_its_time = UnixMillis::from_minutes(row.expires) <= self.expiry_clock();
        if row.state.is_open() && past_its_time {
            State::Expired
        } else {
            row.state
        }
    }
}

fn command_of(entry: &Entry) -> Option<Seq> {
    match entry {
        Entry::CheckIn { .. } => None,
        Entry::Report { seq, .. }
        | Entry::Sent { seq }
        | Entry::Closed { seq, .. }
        | Entry::Rejected { seq, .. } => Some(*seq),
    }
}

/// How far back a channel's chain is read for one answer.
const HISTORY_DEPTH: usize = 4000;
