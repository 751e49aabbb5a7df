//! The device actor: one per enrolled device, its device channel and user channels
//! inside.
//!
//! It serialises its device: check-ins wait inside it (compute, commit, become,
//! reply), reports travel on tickets the door waits for. Its memory is a cache of the
//! store; what waits for a channel it asks the store, so that queueing a command
//! never has to reach it. It knows nothing of HTTP.

mod answer;
mod report;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use actix::prelude::*;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use schema::enrollment::{Claim, Enrollment, Reenroll};
use schema::queue::Skip;
use schema::{ChannelNo, CommandUuid, EnrollId, Leaf, Seq, UnixMillis};
use smallvec::SmallVec;

pub use answer::{Answer, CheckedIn};
pub use report::{Reported, Turn};

use crate::registry::Live;
use crate::store::{GoodFor, Identity, Store, StoreError, Ticket};
use crate::{Clock, Fault};

/// What every device actor needs.
#[derive(Clone, Debug)]
pub struct House {
    /// The store.
    pub store: Store,
    /// The clock.
    pub clock: Clock,
    /// Who may come back while they still count as enrolled.
    pub reenroll: Reenroll,
}

/// An identity that proved itself at the door.
#[derive(Clone, Debug)]
pub struct Presented {
    /// The certificate.
    pub identity: Identity,
    /// Issued by our own device CA.
    pub ours: bool,
    /// Proved by a signature over the body alone, which a thief could send again.
    pub replayable: bool,
    /// Not proved: an admin hands the device over from another server.
    pub handed_over: bool,
}

/// What is known of an actor from outside, also after it is gone.
#[derive(Debug, Default)]
pub struct Life {
    /// It ended by a panic.
    pub panicked: AtomicBool,
    /// Its panic is counted.
    pub counted: AtomicBool,
    /// It is gone.
    pub ended: AtomicBool,
    /// Its last message, in milliseconds since 1970.
    pub last: AtomicU64,
}

/// The actor.
pub struct DeviceActor {
    house: House,
    pub(crate) id: EnrollId,
    live: Arc<Live>,
    pub(crate) life: Arc<Life>,
    enrollment: Option<Enrollment>,
    sessions: SmallVec<[Session; 1]>,
    newest: Option<Durable>,
}

/// A write under way that several may wait for.
pub(crate) type Durable = Shared<BoxFuture<'static, Result<(), StoreError>>>;

/// What one channel is in the middle of: from one Idle to the next.
struct Session {
    channel: ChannelNo,
    /// Not to be offered again before the next Idle.
    skip: Skip,
    /// Reported on, but the report is not published yet.
    closing: SmallVec<[(Seq, Durable); 2]>,
    /// Handed out last.
    given: Option<(CommandUuid, Seq)>,
    /// Minute of the last contact that was noted.
    seen: u32,
    /// Hand-outs without a report and NotNows of commands whose row cannot count them.
    tallies: SmallVec<[Tally; 2]>,
}

/// What a device did with one command while its actor lived.
struct Tally {
    seq: Seq,
    attempts: u8,
    not_now: u8,
}

impl Session {
    fn tally(&mut self, seq: Seq) -> &mut Tally {
        let place = self
            .tallies
            .iter()
            .position(|t| t.seq == seq)
            .unwrap_or_else(|| {
                self.tallies.push(Tally {
                    seq,
                    attempts: 0,
                    not_now: 0,
                });
                self.tallies.len() - 1
            });
        &mut self.tallies[place]
    }
}

impl DeviceActor {
    /// The actor of a device, its enrollment read from the store when there is one.
    pub(crate) fn new(
        house: House,
        id: EnrollId,
        live: Arc<Live>,
        life: Arc<Life>,
        enrollment: Option<Enrollment>,
    ) -> Self {
        Self {
            house,
            id,
            live,
            life,
            enrollment,
            sessions: SmallVec::new(),
            newest: None,
        }
    }

    /// The rule's view of an identity.
    fn claim(&self, presented: &Presented) -> Result<Claim, Fault> {
        let leaf = presented.identity.leaf;
        let mut claim = Claim {
            leaf,
            ours: presented.ours,
            issued_for: None,
            only_for: None,
            proof: false,
            bound_elsewhere: false,
        };
        let bound = self.enrollment.as_ref().and_then(|e| e.bound);
        if bound != Some(leaf) {
            self.look_up(leaf, &mut claim)?;
        }
        Ok(claim)
    }

    fn look_up(&self, leaf: Leaf, claim: &mut Claim) -> Result<(), Fault> {
        if let Some(record) = self.house.store.certificate(leaf)? {
            let here = self.enrollment.as_ref().map(|e| e.channel.no);
            claim.bound_elsewhere = record.bound_to.is_some() && record.bound_to != here;
            claim.issued_for = record.issued_for;
            match record.good_for {
                GoodFor::Enrollment { only_for } => claim.only_for = only_for,
                GoodFor::Proof { .. } => claim.proof = true,
            }
        }
        Ok(())
    }

    fn session(&mut self, channel: ChannelNo) -> &mut Session {
        let place = self
            .sessions
            .iter()
            .position(|s| s.channel == channel)
            .unwrap_or_else(|| {
                self.sessions.push(Session {
                    channel,
                    skip: Skip::new(),
                    closing: SmallVec::new(),
                    given: None,
                    seen: 0,
                    tallies: SmallVec::new(),
                });
                self.sessions.len() - 1
            });
        &mut self.sessions[place]
    }

    /// Notes a contact, at most every ten minutes, and revives a channel whose push
    /// token APNs had called dead.
    fn contact(&mut self, channel: ChannelNo, now: UnixMillis) {
        self.house.store.revive(channel);
        let minutes = now.minutes();
        let session = self.session(channel);
        if minutes < session.seen + 10 {
            return;
        }
        session.seen = minutes;
        self.house.store.seen(channel, now);
    }

    /// Forgets the reports that are published; a failed one ends this actor.
    fn settle(&mut self, ctx: &mut Context<Self>) -> Result<(), Fault> {
        let mut failed = None;
        // Asked, not peeked at: whoever waited for it may have gone.
        let mut done = |durable: &Durable| match durable.clone().now_or_never() {
            None => false,
            Some(Ok(())) => true,
            Some(Err(error)) => {
                failed = Some(error);
                true
            }
        };
        for session in &mut self.sessions {
            session.closing.retain(|(_, durable)| !done(durable));
        }
        if self.newest.as_ref().is_some_and(&mut done) {
            self.newest = None;
        }
        match failed {
            Some(error) => {
                ctx.stop();
                Err(error.into())
            }
            None => Ok(()),
        }
    }
}

/// Lets several wait for one ticket.
pub(crate) fn durable<T: Send + 'static>(store: &Store, ticket: Ticket<T>) -> Durable {
    let store = store.clone();
    async move { store.redeem(ticket).await.map(drop) }
        .boxed()
        .shared()
}

impl Actor for DeviceActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(64);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.live.forget(&self.id, &self.life);
    }
}

impl Drop for DeviceActor {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.life.panicked.store(true, Ordering::Release);
            self.live.forget(&self.id, &self.life);
        }
        self.life.ended.store(true, Ordering::Release);
    }
}

/// Asks an actor to go when nothing is under way.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Passivate;

impl Handler<Passivate> for DeviceActor {
    type Result = ();

    fn handle(&mut self, _: Passivate, ctx: &mut Self::Context) {
        let busy = self.settle(ctx).is_ok()
            && (self.newest.is_some() || self.sessions.iter().any(|s| !s.closing.is_empty()));
        if !busy {
            ctx.stop();
        }
    }
}

/// Lets the device enroll again under a new identity, once.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<(), Fault>")]
pub struct AllowReenroll;

/// A message body kept as it came.
pub type Raw = Bytes;
