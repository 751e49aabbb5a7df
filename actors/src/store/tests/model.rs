//! What the store must remember, kept by the test: the same rules, written once more
//! in the plainest way, and the comparison of a store with them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use redb::{ReadableDatabase as _, ReadableTable as _};
use schema::enrollment::{Change, Enrollment, Epoch};
use schema::queue::State;
use schema::report::Status;
use schema::{ChannelNo, CommandUuid, Seq, UnixMillis};

use crate::store::seal::Place;
use crate::store::tables::{COMMAND, JOURNAL, JournalRow, decode};
use crate::store::{Body, Counts, Entry, Store, segments};

/// A state of the store.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    pub(super) position: u64,
    pub(super) seq: u64,
    pub(super) journal: Vec<Line>,
    pub(super) commands: BTreeMap<u64, Command>,
    pub(super) enrollments: BTreeMap<u32, Arc<Enrollment>>,
    /// (ChannelNo, kind) -> what the device handed over last.
    pub(super) secrets: BTreeMap<(u32, u8), Option<Vec<u8>>>,
    pub(super) certificates: BTreeMap<String, Vec<u8>>,
    pub(super) tokens: BTreeSet<[u8; 32]>,
    pub(super) links: BTreeMap<String, u32>,
    /// Retention was allowed to take what is older.
    pub(super) retained: UnixMillis,
}

/// An entry of the journal.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    pub(super) position: u64,
    pub(super) channel: u32,
    pub(super) at: UnixMillis,
    pub(super) what: String,
    pub(super) body: Option<Vec<u8>>,
}

/// A command.
#[derive(Clone, Debug)]
pub(super) struct Command {
    pub(super) uuid: String,
    pub(super) body: Vec<u8>,
    pub(super) created: UnixMillis,
    pub(super) expires: UnixMillis,
    pub(super) cohort: bool,
    pub(super) states: BTreeMap<u32, State>,
}

impl Model {
    /// Channels that are enrolled.
    pub(super) fn enrolled(&self) -> BTreeSet<u32> {
        let all = self.enrollments.iter();
        all.filter(|(_, enrollment)| enrollment.channel.state.push().is_some())
            .map(|(no, _)| *no)
            .collect()
    }

    /// A check-in is made durable; gives the enrollment from then on.
    pub(super) fn check_in(
        &mut self,
        change: &Change,
        message: &str,
        body: &[u8],
        now: UnixMillis,
    ) -> Enrollment {
        let mut enrollment = change.enrollment.clone();
        let channel = enrollment.channel.no.0;
        let what = format!("check-in {message}");
        self.log(channel, now, what, Some(body.to_vec()));
        let position = self.position;
        if change.epoch != Epoch::Stays {
            self.close_all(channel, now);
            enrollment.epoch = Seq(self.seq);
            enrollment.epoch_position = position;
        }
        if change.bind.is_some() {
            enrollment.enrolled_with = None;
        }
        for (kind, secret) in &change.secrets {
            self.secrets.insert((channel, *kind as u8), secret.clone());
        }
        self.enrollments
            .insert(channel, Arc::new(enrollment.clone()));
        enrollment
    }

    /// A command is queued; says for how many and under which number.
    pub(super) fn enqueue(
        &mut self,
        uuid: &str,
        body: &[u8],
        targets: &[u32],
        expires: UnixMillis,
        now: UnixMillis,
    ) -> (Option<Seq>, u32) {
        let enrolled = self.enrolled();
        let accepted = targets.iter().filter(|channel| enrolled.contains(channel));
        let states: BTreeMap<_, _> = accepted.map(|no| (*no, State::Released)).collect();
        let count = u32::try_from(states.len()).unwrap();
        if states.is_empty() {
            return (None, 0);
        }
        self.seq += 1;
        let command = Command {
            uuid: uuid.to_owned(),
            body: body.to_vec(),
            created: now,
            expires,
            cohort: states.len() > 1000,
            states,
        };
        self.commands.insert(self.seq, command);
        (Some(Seq(self.seq)), count)
    }

    /// A device reports; says `counted`, `late`, `repeated` or `stray`.
    pub(super) fn report(
        &mut self,
        channel: u32,
        seq: u64,
        status: Status,
        body: Option<&[u8]>,
        now: UnixMillis,
    ) -> &'static str {
        let epoch = self.epoch(channel);
        let Some(state) = self.state(channel, seq).filter(|_| seq > epoch) else {
            return "stray";
        };
        let late = !state.is_open();
        if state.is_final() || (late && status == Status::NotNow) {
            return "repeated";
        }
        let what = format!("report {seq} {status:?} {late}");
        self.log(channel, now, what, body.map(<[u8]>::to_vec));
        let next = match status {
            Status::Acknowledged => State::Acknowledged,
            Status::NotNow => State::NotNow,
            _ => State::Error,
        };
        self.set(channel, seq, next);
        if late { "late" } else { "counted" }
    }

    /// A command is handed out.
    pub(super) fn sent(&mut self, channel: u32, seq: u64, now: UnixMillis) {
        if self.state(channel, seq).is_some_and(State::is_open) {
            self.log(channel, now, format!("sent {seq}"), None);
            self.set(channel, seq, State::Sent);
        }
    }

    /// A command is taken back wherever it is open; says where that was.
    pub(super) fn cancel(&mut self, seq: u64, now: UnixMillis) -> usize {
        self.close_open(seq, State::Cancelled, now)
    }

    /// What is open on a channel is taken back; says how much that was.
    pub(super) fn close_all(&mut self, channel: u32, now: UnixMillis) -> usize {
        // Direct commands first, then those to many.
        let mut open: Vec<_> = self
            .commands
            .iter()
            .filter(|(_, command)| command.states.get(&channel).is_some_and(|s| s.is_open()))
            .map(|(seq, command)| (command.cohort, *seq))
            .collect();
        open.sort_unstable();
        for (_, seq) in &open {
            self.log(channel, now, format!("closed {seq} cancelled"), None);
            self.set(channel, *seq, State::Cancelled);
        }
        open.len()
    }

    /// What is past its time is closed.
    pub(super) fn expire(&mut self, now: UnixMillis) {
        let due = |command: &Command| command.expires.minutes() < now.minutes();
        let mut seqs: Vec<_> = self
            .commands
            .iter()
            .filter(|(_, command)| due(command))
            .map(|(seq, command)| (command.expires.minutes(), *seq))
            .collect();
        seqs.sort_unstable();
        for (_, seq) in seqs {
            self.close_open(seq, State::Expired, now);
        }
    }

    /// One slice of what ended before is dropped.
    pub(super) fn retain(&mut self, before: UnixMillis) {
        let old = |line: &&Line| line.at < before && line.position < self.position;
        let slice = self.journal.iter().take(SLICE);
        let gone = slice.take_while(old).count();
        self.journal.drain(..gone);
        let mut gone = Vec::new();
        for (seq, command) in &self.commands {
            if command.created >= before {
                break;
            }
            if !command.states.values().any(|state| state.is_open()) {
                gone.push(*seq);
            }
        }
        self.commands.retain(|seq, _| !gone.contains(seq));
        self.retained = self.retained.max(before);
    }

    /// Open commands of a channel in its epoch.
    pub(super) fn open(&self, channel: u32) -> Vec<(u64, State)> {
        let epoch = self.epoch(channel);
        let here = self.commands.iter().filter(|(seq, _)| **seq > epoch);
        here.filter_map(|(seq, command)| Some((*seq, *command.states.get(&channel)?)))
            .filter(|(_, state)| state.is_open())
            .collect()
    }

    pub(super) fn epoch(&self, channel: u32) -> u64 {
        self.enrollments.get(&channel).map_or(0, |e| e.epoch.0)
    }

    fn close_open(&mut self, seq: u64, to: State, now: UnixMillis) -> usize {
        let command = &self.commands[&seq];
        let open = command.states.iter().filter(|(_, state)| state.is_open());
        let open: Vec<_> = open.map(|(channel, _)| *channel).collect();
        for channel in &open {
            self.log(*channel, now, format!("closed {seq} {}", to.name()), None);
            self.set(*channel, seq, to);
        }
        open.len()
    }

    fn state(&self, channel: u32, seq: u64) -> Option<State> {
        self.commands.get(&seq)?.states.get(&channel).copied()
    }

    fn set(&mut self, channel: u32, seq: u64, state: State) {
        let command = self.commands.get_mut(&seq).unwrap();
        command.states.insert(channel, state);
    }

    fn log(&mut self, channel: u32, at: UnixMillis, what: String, body: Option<Vec<u8>>) {
        self.position += 1;
        self.journal.push(Line {
            position: self.position,
            channel,
            at,
            what,
            body,
        });
    }

    /// Is the store in exactly this state?
    pub(super) fn is_state_of(&self, store: &Store) -> Result<(), String> {
        self.compare_journal(store)?;
        self.compare_commands(store)?;
        self.compare_channels(store)?;
        self.compare_nouns(store)
    }

    fn compare_journal(&self, store: &Store) -> Result<(), String> {
        let transaction = store.inner.database.begin_read().map_err(text)?;
        let journal = transaction.open_table(JOURNAL).map_err(text)?;
        let mut lines = self.journal.iter();
        for row in journal.iter().map_err(text)? {
            let (position, row) = row.map_err(text)?;
            let row: JournalRow = decode(row.value()).map_err(text)?;
            let Some(line) = lines.next() else {
                return Err(format!("never submitted: {row:?}"));
            };
            let (what, body) = told(&row.entry);
            let at = (position.value(), row.channel.0, row.at);
            if (at, &what) != ((line.position, line.channel, line.at), &line.what) {
                return Err(format!(
                    "journal: {at:?} {what} instead of {} {}",
                    line.position, line.what
                ));
            }
            self.compare_body(store, line, body)?;
        }
        match lines.next() {
            None => Ok(()),
            Some(lost) => Err(format!("lost: {} {}", lost.position, lost.what)),
        }
    }

    fn compare_body(&self, store: &Store, line: &Line, body: Option<&Body>) -> Result<(), String> {
        let sealed = match body {
            None | Some(Body::None) => None,
            Some(Body::Inline(sealed)) => Some(sealed.clone()),
            Some(Body::Segment(at)) => {
                match segments::read(&*store.inner.disk, &store.inner.segments, at.0) {
                    Ok(sealed) => Some(sealed),
                    Err(_) if line.at < self.retained => return Ok(()),
                    Err(error) => return Err(format!("body of {}: {error}", line.position)),
                }
            }
        };
        let place = Place::Journal(line.channel);
        let plain = sealed
            .map(|sealed| store.inner.sealer.open(place, &sealed))
            .transpose()
            .map_err(|error| format!("body of {}: {error}", line.position))?;
        if plain == line.body {
            Ok(())
        } else {
            Err(format!("another body at {}", line.position))
        }
    }

    fn compare_commands(&self, store: &Store) -> Result<(), String> {
        let transaction = store.inner.database.begin_read().map_err(text)?;
        let table = transaction.open_table(COMMAND).map_err(text)?;
        let rows = table.iter().map_err(text)?;
        let seqs: Result<Vec<_>, _> = rows.map(|row| row.map(|(seq, _)| seq.value())).collect();
        same(
            "commands",
            seqs.map_err(text)?,
            self.commands.keys().copied().collect(),
        )?;
        for (seq, command) in &self.commands {
            let found = store.command(Seq(*seq)).map_err(text)?;
            let found = found.ok_or_else(|| format!("command {seq} is lost"))?;
            let mut counts = Counts::default();
            for state in command.states.values() {
                counts[*state as usize] += 1;
            }
            same(&format!("counts of {seq}"), found.counts, counts)?;
            let bytes = store.command_bytes(Seq(*seq)).map_err(text)?.unwrap();
            same(
                "command's bytes",
                bytes.plist.to_vec(),
                command.body.clone(),
            )?;
            let uuid = CommandUuid::parse(&command.uuid).unwrap();
            same(
                "seq of a uuid",
                store.seq_of(&uuid).map_err(text)?,
                Some(Seq(*seq)),
            )?;
        }
        Ok(())
    }

    fn compare_channels(&self, store: &Store) -> Result<(), String> {
        same("enrolled", store.enrolled(), self.enrolled().len() as u64)?;
        let recent = self.journal.iter().map(|line| line.channel);
        for channel in recent.collect::<BTreeSet<_>>() {
            let no = ChannelNo(channel);
            let enrollment = store.enrollment(no).map_err(text)?;
            let expected = self.enrollments.get(&channel).map(|e| Enrollment::clone(e));
            same(&format!("enrollment {channel}"), enrollment, expected)?;
            let pending = store.pending(no, Seq(self.epoch(channel))).map_err(text)?;
            let mut pending: Vec<_> = pending.iter().map(|w| (w.seq.0, w.state)).collect();
            pending.sort_unstable();
            same(
                &format!("pending on {channel}"),
                pending,
                self.open(channel),
            )?;
            let past = store.history(no, None, usize::MAX).map_err(text)?;
            let chain: Vec<_> = past.iter().rev().map(|h| h.position).collect();
            let mine = self.journal.iter().filter(|line| line.channel == channel);
            let mine = mine.map(|line| line.position).collect();
            same(&format!("chain of {channel}"), chain, mine)?;
        }
        Ok(())
    }

    fn compare_nouns(&self, store: &Store) -> Result<(), String> {
        for ((channel, kind), expected) in &self.secrets {
            let kinds = [
                schema::enrollment::SecretKind::UnlockToken,
                schema::enrollment::SecretKind::BootstrapToken,
            ];
            let kind = kinds.into_iter().find(|k| *k as u8 == *kind).unwrap();
            let secret = store.secret(ChannelNo(*channel), kind, 0).map_err(text)?;
            same("secret", secret, expected.clone())?;
        }
        let certificates = store.push_certificates().map_err(text)?;
        same(
            "push certificates",
            certificates.into_iter().collect(),
            self.certificates.clone(),
        )?;
        let tokens = store.tokens().into_iter().map(|(hash, _)| hash).collect();
        same("tokens", tokens, self.tokens.clone())?;
        let links = store.links(None, usize::MAX).map_err(text)?.into_iter();
        let links = links.map(|(_, link)| (link.id.0, link.max_uses)).collect();
        same("links", links, self.links.clone())
    }
}

/// An entry in the words of [`Line::what`], and its body.
fn told(entry: &Entry) -> (String, Option<&Body>) {
    match entry {
        Entry::CheckIn { message, body } => (format!("check-in {message}"), Some(body)),
        Entry::Report {
            seq,
            status,
            late,
            body,
            ..
        } => (format!("report {} {status:?} {late}", seq.0), Some(body)),
        Entry::Sent { seq } => (format!("sent {}", seq.0), None),
        Entry::Closed { seq, state } => (format!("closed {} {}", seq.0, state.name()), None),
        Entry::Rejected { seq, code, .. } => (format!("rejected {} {code}", seq.0), None),
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, is: T, should_be: T) -> Result<(), String> {
    if is == should_be {
        Ok(())
    } else {
        Err(format!("{what}: {is:?} instead of {should_be:?}"))
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Rows retention takes at once.
const SLICE: usize = 2000;
