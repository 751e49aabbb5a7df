//! Check-ins: compute, commit, become, reply.

use actix::prelude::*;
use aws_lc_rs::digest::{self, SHA256};
use plist::{Dictionary, Value};
use schema::checkin::{CheckIn, Message as Said};
use schema::enrollment::{
    Change, Claim, Enrollment, Misbehaved, Reenroll, Reply, SecretKind, Voice,
};
use schema::queue::State;
use schema::{Leaf, xml};

use super::{AllowReenroll, DeviceActor, Presented, Raw};
use crate::Fault;
use crate::store::{self, Packed, StoreError};

/// A check-in that came through the door.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Answer, Fault>")]
pub struct CheckedIn {
    /// What it says.
    pub checkin: CheckIn,
    /// Under which identity.
    pub presented: Presented,
    /// The body.
    pub raw: Raw,
}

/// The answer to a check-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 200, nothing in it.
    Empty,
    /// 200 with an XML plist.
    Plist(Vec<u8>),
    /// 200 with a JSON document.
    Json(String),
    /// There is no such declaration.
    NotFound,
    /// This user is not managed.
    NotManaged,
}

impl Handler<CheckedIn> for DeviceActor {
    type Result = AtomicResponse<Self, Result<Answer, Fault>>;

    fn handle(&mut self, said: CheckedIn, _: &mut Self::Context) -> Self::Result {
        match self.compute(&said) {
            Ok(Computed::Answer(answer)) => ready(Ok(answer)),
            Ok(Computed::Commit(checked_in, answer)) => self.commit(*checked_in, answer),
            Err(fault) => ready(Err(fault)),
        }
    }
}

impl Handler<AllowReenroll> for DeviceActor {
    type Result = AtomicResponse<Self, Result<(), Fault>>;

    fn handle(&mut self, _: AllowReenroll, _: &mut Self::Context) -> Self::Result {
        let Some(enrollment) = self.enrollment.clone() else {
            return ready(Err(Fault::Unknown(self.id.clone())));
        };
        let change = enrollment.reenroll_allowed();
        let channel = change.enrollment.channel.no;
        let body = match self.house.store.seal_body(channel, &Packed::of(b"")) {
            Ok(body) => body,
            Err(error) => return ready(Err(error.into())),
        };
        let identity = store::Identity {
            leaf: change.enrollment.bound.unwrap_or(Leaf([0; 32])),
            not_after: 0,
            serial: String::new(),
        };
        let checked_in = store::CheckedIn {
            change,
            channel,
            message: "ReenrollAllowed",
            body,
            body_hash: None,
            identity,
            secrets: Vec::new(),
        };
        self.commit(checked_in, ())
    }
}

/// What a check-in comes to.
enum Computed {
    Answer(Answer),
    Commit(Box<store::CheckedIn>, Answer),
}

impl DeviceActor {
    fn compute(&mut self, said: &CheckedIn) -> Result<Computed, Fault> {
        let now = self.house.clock.now();
        let claim = self.claim(&said.presented)?;
        let store = self.house.store.clone();
        let hash = body_hash(claim.leaf, &said.raw);
        if let Some(enrollment) = &self.enrollment {
            let known = enrollment.voice(&claim) != Voice::Stranger;
            let changes = changes_something(&said.checkin.message);
            let device = enrollment.channel.no;
            if said.presented.replayable && known && changes && store.body_was_seen(device, hash)? {
                store.count_repeat();
                return Ok(Computed::Answer(Answer::Empty));
            }
            if said.presented.handed_over {
                self.must_be_handed_over(enrollment)?;
            }
        }
        let change = match self.enrollment.clone() {
            Some(enrollment) => {
                let reenroll = self.reenroll(&enrollment, &said.checkin, &claim)?;
                enrollment.apply(&said.checkin, &claim, reenroll, now, || {
                    store.fresh_channel()
                })?
            }
            None => Enrollment::open(&said.checkin, &claim, store.fresh_channel())?,
        };
        let speaks = change.enrollment.channel(&said.checkin.sender.channel);
        let channel = speaks.map_or(change.enrollment.channel.no, |channel| channel.no);
        self.contact(channel, now);
        let answer = self.answer(&change)?;
        if !change.commit {
            return Ok(Computed::Answer(answer));
        }
        let device = change.enrollment.channel.no;
        let secrets = change.secrets.iter().map(|(kind, secret)| {
            let sealed = secret
                .as_ref()
                .map(|plain| store.seal_secret(device, *kind, plain));
            Ok((*kind, sealed.transpose()?))
        });
        let checked_in = store::CheckedIn {
            channel,
            message: said.checkin.message.name(),
            body: store.seal_body(channel, &Packed::of(&said.raw))?,
            body_hash: said.presented.replayable.then_some(hash),
            identity: said.presented.identity.clone(),
            secrets: secrets.collect::<Result<_, StoreError>>()?,
            change,
        };
        Ok(Computed::Commit(Box::new(checked_in), answer))
    }

    /// A device that proved a certificate here is past being handed over: what another
    /// server says of it is old. Of one that was handed over only the hash is known.
    fn must_be_handed_over(&self, enrollment: &Enrollment) -> Result<(), Fault> {
        let Some(bound) = enrollment.bound else {
            return Ok(());
        };
        let record = self.house.store.certificate(bound)?;
        if record.is_some_and(|record| !record.is_hash_alone()) {
            return Err(Misbehaved::StillEnrolled(self.id.clone()).into());
        }
        Ok(())
    }

    /// A device that acknowledged its erasure is gone, whatever its state says: it
    /// cannot check out any more, and comes back through any link.
    fn reenroll(
        &self,
        enrollment: &Enrollment,
        checkin: &CheckIn,
        claim: &Claim,
    ) -> Result<Reenroll, Fault> {
        let asks = matches!(checkin.message, Said::Authenticate { .. })
            && claim.ours
            && enrollment.voice(claim) == Voice::Stranger;
        if !asks || self.house.reenroll == Reenroll::AnyLink {
            return Ok(self.house.reenroll);
        }
        let commands = self.house.store.commands_of(enrollment.channel.no)?;
        let erased = commands.iter().any(|command| {
            command.seq > enrollment.epoch
                && command.state == State::Acknowledged
                && command.command.request_type == "EraseDevice"
        });
        Ok(if erased {
            Reenroll::AnyLink
        } else {
            Reenroll::Approve
        })
    }

    fn answer(&self, change: &Change) -> Result<Answer, Fault> {
        Ok(match &change.reply {
            Reply::Empty => Answer::Empty,
            Reply::Json(text) => Answer::Json(text.clone()),
            Reply::NotFound => Answer::NotFound,
            Reply::NotManaged => Answer::NotManaged,
            Reply::BootstrapToken => {
                let enrollment = &change.enrollment;
                let token = self.house.store.secret(
                    enrollment.channel.no,
                    SecretKind::BootstrapToken,
                    enrollment.epoch_position,
                )?;
                let mut dictionary = Dictionary::new();
                if let Some(token) = token {
                    dictionary.insert("BootstrapToken".into(), Value::Data(token));
                }
                Answer::Plist(xml::write(dictionary))
            }
        })
    }

    /// Commits, then becomes what was committed; this actor takes no other message
    /// meanwhile.
    fn commit<T: 'static>(
        &self,
        checked_in: store::CheckedIn,
        answer: T,
    ) -> AtomicResponse<Self, Result<T, Fault>> {
        let store = self.house.store.clone();
        let commit = async move { store.check_in(checked_in).await };
        AtomicResponse::new(Box::pin(commit.into_actor(self).map(
            |outcome, actor, ctx| {
                match outcome {
                    Ok(enrollment) => {
                        actor.sessions.retain(|session| {
                            enrollment
                                .channels()
                                .any(|channel| channel.no == session.channel)
                        });
                        actor.enrollment = Some(enrollment);
                        Ok(answer)
                    }
                    Err(refusal @ StoreError::BoundElsewhere(_)) => Err(refusal.into()),
                    Err(error) => {
                        // What the store holds is not known here; the next message reads it.
                        ctx.stop();
                        Err(error.into())
                    }
                }
            },
        )))
    }
}

fn ready<T: 'static>(outcome: Result<T, Fault>) -> AtomicResponse<DeviceActor, Result<T, Fault>> {
    AtomicResponse::new(Box::pin(fut::ready(outcome)))
}

/// Messages a thief's copy of which must have no effect.
fn changes_something(message: &Said) -> bool {
    matches!(
        message,
        Said::Authenticate { .. }
            | Said::TokenUpdate { .. }
            | Said::CheckOut
            | Said::SetBootstrapToken { .. }
    )
}

/// What tells a replay: the same words under the same identity. A device that comes back
/// under a new one may well say what it said before.
fn body_hash(leaf: Leaf, raw: &[u8]) -> [u8; 16] {
    let mut context = digest::Context::new(&SHA256);
    context.update(&leaf.0);
    context.update(raw);
    let digest = context.finish();
    let mut hash = [0; 16];
    hash.iter_mut()
        .zip(digest.as_ref())
        .for_each(|(to, from)| *to = *from);
    hash
}
