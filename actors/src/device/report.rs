//! Reports: one append, and the next command in the same breath.
//!
//! The next command is chosen while the report is still being written; the door
//! sends the reply only when it is durable. A repeated report is answered like the
//! first and changes nothing.

use actix::prelude::*;
use schema::enrollment::{Misbehaved, Voice};
use schema::fitness::Unfit;
use schema::queue::{self, Skip};
use schema::renewal;
use schema::report::{Report, Status, error_chain};
use schema::{ChannelNo, EnrollId, Seq, UnixMillis};

use super::{DeviceActor, Durable, Presented, Raw, durable};
use crate::Fault;
use crate::store::{self, HandOut, Packed, Rejection, Ticket};

/// A report that came through the door.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Turn, Fault>")]
pub struct Reported {
    /// Its head.
    pub report: Report,
    /// Under which identity.
    pub presented: Presented,
    /// The body.
    pub raw: Raw,
    /// The body packed, when it is a large one and the door had that done elsewhere.
    pub packed: Option<Packed>,
    /// A destructive command the writer has just not let out: passed over this time.
    pub held: Option<Seq>,
}

/// What the device is told, and what must be durable before it is.
#[derive(Debug, Default)]
pub struct Turn {
    /// The next command, or none.
    pub command: Option<HandOut>,
    /// To be awaited before any reply.
    pub durable: Option<Durable>,
    /// The writer's leave to hand this command out, and its number.
    pub leave: Option<(Ticket<bool>, Seq)>,
}

impl Handler<Reported> for DeviceActor {
    type Result = Result<Turn, Fault>;

    fn handle(&mut self, said: Reported, ctx: &mut Self::Context) -> Self::Result {
        self.settle(ctx)?;
        let Some(channel) = self.speaker(&said)? else {
            return Ok(Turn::default());
        };
        let now = self.house.clock.now();
        self.contact(channel, now);
        if said.held.is_none() {
            self.take_report(channel, &said)?;
        }
        self.turn(channel, &said, now)
    }
}

impl DeviceActor {
    /// The enrolled channel that speaks; none when it is to be answered with nothing.
    fn speaker(&mut self, said: &Reported) -> Result<Option<ChannelNo>, Fault> {
        let claim = self.claim(&said.presented)?;
        let id = &said.report.sender.channel;
        let Some(enrollment) = &self.enrollment else {
            return Err(Fault::Unknown(id.clone()));
        };
        match enrollment.voice(&claim) {
            Voice::Stranger => return Err(Misbehaved::NotBound(id.clone()).into()),
            Voice::Pending => return Ok(None),
            Voice::Bound => {}
            Voice::Renewed if claim.bound_elsewhere => {
                return Err(Misbehaved::BoundElsewhere(id.clone()).into());
            }
            Voice::Renewed => self.rebind(said)?,
        }
        let enrollment = self.enrollment.as_ref();
        let channel = enrollment
            .and_then(|e| e.channel(id))
            .ok_or_else(|| Fault::Unknown(id.clone()))?;
        Ok(channel.state.push().map(|_| channel.no))
    }

    /// The first message under a renewed identity makes it the bound one.
    fn rebind(&mut self, said: &Reported) -> Result<(), Fault> {
        let Some(enrollment) = self.enrollment.clone() else {
            return Ok(());
        };
        let change = enrollment.rebound(said.presented.identity.leaf);
        let channel = change.enrollment.channel.no;
        self.enrollment = Some(change.enrollment.clone());
        let store = self.house.store.clone();
        let checked_in = store::CheckedIn {
            channel,
            message: "Renewed",
            body: store.seal_body(channel, &Packed::of(b""))?,
            body_hash: None,
            identity: said.presented.identity.clone(),
            secrets: Vec::new(),
            change,
        };
        let ticket = store.check_in_ticket(checked_in)?;
        self.newest = Some(durable(&store, ticket));
        Ok(())
    }

    /// Hands what was reported to the writer.
    fn take_report(&mut self, channel: ChannelNo, said: &Reported) -> Result<(), Fault> {
        let report = &said.report;
        if report.status == Status::Idle {
            let session = self.session(channel);
            session.skip.clear();
            self.house.store.wakes().polled(channel);
            return Ok(());
        }
        let Some(uuid) = report.uuid.clone() else {
            return Ok(());
        };
        let store = self.house.store.clone();
        let given = self.session(channel).given.as_ref();
        let seq = match given.filter(|(given, _)| *given == uuid) {
            Some((_, seq)) => Some(*seq),
            None => store.seq_of(&uuid)?,
        };
        let Some(seq) = seq else {
            store.count_stray();
            return Ok(());
        };
        let epoch = self.enrollment.as_ref().map_or(Seq(0), |e| e.epoch);
        let packed = || said.packed.clone().unwrap_or_else(|| Packed::of(&said.raw));
        let (errors, body) = match report.status {
            Status::NotNow => (Vec::new(), None),
            Status::Error | Status::CommandFormatError => (
                error_chain(&said.raw),
                Some(store.seal_body(channel, &packed())?),
            ),
            _ => (Vec::new(), Some(store.seal_body(channel, &packed())?)),
        };
        let ticket = store.report(store::Reported {
            channel,
            epoch,
            uuid,
            seq: Some(seq),
            status: report.status,
            errors,
            body,
        })?;
        let durable = durable(&store, ticket);
        self.newest = Some(durable.clone());
        let session = self.session(channel);
        let tally = session.tally(seq);
        tally.attempts = 0;
        if report.status == Status::NotNow {
            tally.not_now = tally.not_now.saturating_add(1);
            session.skip.push(seq);
        } else {
            session.tallies.retain(|tally| tally.seq != seq);
            session.closing.push((seq, durable));
        }
        Ok(())
    }

    /// Chooses what the device is told.
    fn turn(
        &mut self,
        channel: ChannelNo,
        said: &Reported,
        now: UnixMillis,
    ) -> Result<Turn, Fault> {
        let mut turn = Turn {
            durable: self.newest.clone(),
            ..Turn::default()
        };
        if let Some(held) = said.held {
            self.session(channel).skip.push(held);
        }
        if !self.house.store.may_have_work(channel) {
            return Ok(turn);
        }
        let epoch = self.enrollment.as_ref().map_or(Seq(0), |e| e.epoch);
        let mut waiting = self.house.store.pending(channel, epoch)?;
        let not_after = said.presented.identity.not_after;
        // A device whose enrollment profile is not known can have no other: it goes on.
        let renewable = (self.enrollment.as_ref()).is_some_and(|e| e.enrolled_with.is_some());
        if renewable && renewal::is_over(not_after, self.house.store.expiry_clock()) {
            // Nothing but what gives it a living one.
            let renews = self.house.store.open_renewal(channel)?;
            waiting.retain(|row| Some(row.seq) == renews);
        }
        let session = self.session(channel);
        for row in &mut waiting {
            let counted = session.tallies.iter().find(|tally| tally.seq == row.seq);
            row.attempts = row.attempts.max(counted.map_or(0, |tally| tally.attempts));
        }
        let mut skip: Skip = session.skip.clone();
        skip.extend(session.closing.iter().map(|(seq, _)| *seq));
        loop {
            let expiry = self.house.store.expiry_clock();
            let Some(next) = queue::next(&waiting, &skip, expiry) else {
                self.wake_later(channel, said.report.status, &waiting, now)?;
                return Ok(turn);
            };
            let seq = next.seq;
            let Some(command) = self.house.store.command_bytes(seq)? else {
                // Retention took it between the two reads.
                skip.push(seq);
                continue;
            };
            if let Some(unfit) = self.unfit(&said.report.sender.channel, &command)? {
                self.house.store.reject(Rejection {
                    channel,
                    seq,
                    code: unfit.code().to_owned(),
                    why: unfit.to_string(),
                });
                self.session(channel).skip.push(seq);
                skip.push(seq);
                continue;
            }
            if command.destructive {
                turn.leave = Some((self.house.store.hand_out(channel, seq)?, seq));
            } else {
                self.house.store.sent(channel, seq);
            }
            let session = self.session(channel);
            let tally = session.tally(seq);
            tally.attempts = tally.attempts.saturating_add(1);
            session.given = Some((command.uuid.clone(), seq));
            turn.command = Some(command);
            return Ok(turn);
        }
    }

    /// Why the channel cannot be given a command it was queued for: what it may be told
    /// is less than it was, or it was one of too many to look at.
    fn unfit(&self, id: &EnrollId, command: &HandOut) -> Result<Option<Unfit>, Fault> {
        let Some(enrollment) = &self.enrollment else {
            return Ok(None);
        };
        let store = &self.house.store;
        Ok(store.fitness_to_take(command, enrollment, id)?.err())
    }

    /// A device polls by itself after NotNow only when that was the last thing it
    /// said; otherwise it must be woken for what it postponed.
    fn wake_later(
        &mut self,
        channel: ChannelNo,
        status: Status,
        waiting: &[queue::Waiting],
        now: UnixMillis,
    ) -> Result<(), Fault> {
        if status == Status::NotNow {
            return Ok(());
        }
        let skipped = self.session(channel).skip.clone();
        let postponed = waiting.iter().filter(|w| skipped.contains(&w.seq));
        let mut soonest = None;
        for row in postponed {
            let tally = self.session(channel).tally(row.seq).not_now;
            let tally = self.house.store.not_nows(channel, row.seq)?.max(tally);
            let after = queue::not_now_backoff(tally.max(1));
            soonest = Some(soonest.map_or(after, |soonest: u64| soonest.min(after)));
        }
        if let Some(after) = soonest {
            self.house
                .store
                .wakes()
                .mark_at(channel, now.plus_seconds(after));
        }
        Ok(())
    }
}
