//! The push supervisor: wakes out, paced and coalesced; what APNs answers, taken in.
//!
//! It takes what is due from [`Wakes`], looks up where to send it, and hands it to
//! the transport of the channel's topic. Nothing here is durable: after a restart it
//! walks the open commands of the store and marks their channels again. A push is a
//! hint; only a poll proves anything.

mod bad_tokens;
mod breaker;
mod settle;
mod topic;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix::prelude::*;
use schema::checkin::Push as Address;
use schema::expiry::Purpose;
use schema::{ChannelNo, PushToken, UnixMillis};
use tokio::sync::mpsc;

pub use topic::TopicState;

use crate::apns::{Endpoint, Push, SetupError};
use crate::expiry::Expiries;
use crate::push_certificate::{PushCertificate, PushCertificateError};
use crate::store::{Store, StoreError};
use crate::wakes::{ANSWER_WITHIN_SECONDS, Wakes};
use crate::{Clock, Fault};
use settle::Settled;
use topic::Topic;

/// How the supervisor behaves.
#[derive(Clone, Debug)]
pub struct PushOptions {
    /// Where APNs is.
    pub endpoint: Endpoint,
    /// How long APNs keeps a wake for a device that is away.
    pub expiration_hours: u64,
    /// Wakes per second, all topics together.
    pub max_rate: u32,
}

/// What became of wakes, for metrics.
#[derive(Debug, Default)]
pub struct PushFigures {
    /// Taken by APNs.
    pub accepted: AtomicU64,
    /// Refused for the token: dead or bad.
    pub dead: AtomicU64,
    /// To be tried again.
    pub retried: AtomicU64,
    /// Refused for something that is wrong with us.
    pub refused: AtomicU64,
    /// Under way now.
    pub under_way: AtomicU64,
    /// Due, but without a push certificate for their topic.
    pub without_certificate: AtomicU64,
}

/// The actor.
pub struct Pusher {
    store: Store,
    wakes: Arc<Wakes>,
    clock: Clock,
    options: PushOptions,
    figures: Arc<PushFigures>,
    expiries: Expiries,
    topics: HashMap<String, Topic>,
    tries: HashMap<ChannelNo, u8>,
    /// Tokens whose death is on its way to the store.
    dying: HashMap<ChannelNo, PushToken>,
    /// Topics without a certificate that were told of.
    alarmed: HashSet<String>,
    in_flight: usize,
    allowance: f64,
    refilled: Instant,
    settled: mpsc::UnboundedSender<Settled>,
    incoming: Option<mpsc::UnboundedReceiver<Settled>>,
}

impl Pusher {
    /// A supervisor with the certificates the store holds.
    ///
    /// # Errors
    /// [`PusherError`] when a stored certificate cannot be used.
    pub fn new(
        store: Store,
        clock: Clock,
        options: PushOptions,
        figures: Arc<PushFigures>,
        expiries: Expiries,
    ) -> Result<Self, PusherError> {
        let (settled, incoming) = mpsc::unbounded_channel();
        let mut pusher = Self {
            wakes: store.wakes().clone(),
            refilled: Instant::now(),
            allowance: f64::from(options.max_rate),
            store,
            clock,
            options,
            figures,
            expiries,
            topics: HashMap::new(),
            tries: HashMap::new(),
            dying: HashMap::new(),
            alarmed: HashSet::new(),
            in_flight: 0,
            settled,
            incoming: Some(incoming),
        };
        for (topic, stored) in pusher.store.push_certificates()? {
            let certificate = PushCertificate::from_stored(&stored)?;
            let topic_of = Topic::new(certificate, &pusher.options.endpoint)?;
            pusher.watch(&topic_of);
            pusher.topics.insert(topic, topic_of);
        }
        Ok(pusher)
    }

    fn watch(&self, topic: &Topic) {
        let certificate = &topic.certificate;
        self.expiries.watch(
            Purpose::Push,
            certificate.topic.as_str(),
            certificate.not_after,
        );
    }

    /// Looks what is due now, and says when to come again.
    fn pump(&mut self, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        self.look(now, ctx);
        let next = match self.wakes.next_due() {
            Some(at) if at <= now && self.in_flight < MOST_IN_FLIGHT => Duration::from_millis(5),
            Some(at) if at > now => Duration::from_millis(at.since(now).min(1000)),
            _ => Duration::from_millis(1000),
        };
        ctx.run_later(next, |_, ctx| ctx.notify(Pump { timer: true }));
    }

    /// Sends what is due, as far as pace and room allow, and what waited for APNs.
    fn look(&mut self, now: UnixMillis, ctx: &mut Context<Self>) {
        let mut dead = Vec::new();
        for topic in self.topics.values_mut() {
            let judged = topic.judge_bad(now);
            dead.extend(judged.dead);
            let mut again = topic.resume(now);
            again.extend(judged.unclear);
            // Only then: a mark has us look again.
            if !again.is_empty() {
                self.wakes.mark(again, now);
            }
        }
        for (channel, token) in dead {
            self.bury(channel, token, ctx);
        }
        self.send_due(now);
    }

    fn send_due(&mut self, now: UnixMillis) {
        self.refill();
        let room = MOST_IN_FLIGHT
            .saturating_sub(self.in_flight)
            .min(self.allowance as usize);
        let due = self.wakes.take(now, room);
        self.allowance -= due.len() as f64;
        for channel in due {
            if let Err(error) = self.wake(channel, now) {
                tracing::error!(channel = channel.0, %error, "a wake cannot be looked up");
            }
        }
    }

    /// Earns wakes by the time that passes, up to a second's worth.
    fn refill(&mut self) {
        let rate = f64::from(self.options.max_rate.max(1));
        let earned = self.refilled.elapsed().as_secs_f64() * rate;
        if earned >= 1.0 {
            self.allowance = (self.allowance + earned).min(rate);
            self.refilled = Instant::now();
        }
    }

    fn wake(&mut self, channel: ChannelNo, now: UnixMillis) -> Result<(), StoreError> {
        let Some(address) = self.address(channel)? else {
            return Ok(());
        };
        let name = address.topic.certificate_topic().to_owned();
        let Some(topic) = self.topics.get_mut(&name) else {
            self.figures
                .without_certificate
                .fetch_add(1, Ordering::Relaxed);
            return Ok(());
        };
        let dead = self.dying.get(&channel) == Some(&address.token)
            || self.store.push_is_dead(channel, &address.token)?;
        if dead || !topic.may_send(channel, now) {
            return Ok(());
        }
        topic.sent(now);
        let push = Push {
            token: address.token.0.clone(),
            topic: address.topic.0,
            magic: address.magic.0,
            expiration: now
                .plus_seconds(self.options.expiration_hours * 3600)
                .seconds(),
            apns_id: None,
        };
        let (client, settled) = (topic.client.clone(), self.settled.clone());
        let generation = topic.generation;
        self.in_flight += 1;
        self.figures.under_way.fetch_add(1, Ordering::Relaxed);
        // Noted before it goes out: the device may poll before APNs has answered.
        self.wakes.accepted(channel, now);
        actix::spawn(async move {
            let outcome = client.push(push).await;
            // The supervisor outlives its wakes but for a shutdown, when nobody asks.
            let _ = settled.send(Settled {
                channel,
                token: address.token,
                topic: name,
                generation,
                outcome,
            });
        });
        Ok(())
    }

    fn address(&self, channel: ChannelNo) -> Result<Option<Address>, StoreError> {
        let enrollment = self.store.enrollment(channel)?;
        let channels = enrollment
            .iter()
            .flat_map(|enrollment| enrollment.channels());
        let found = channels
            .filter(|c| c.no == channel)
            .find_map(|c| c.state.push().cloned());
        Ok(found)
    }

    /// Marks every channel with open work; one woken just now gets its time to answer.
    fn recover(&mut self) -> Result<usize, StoreError> {
        let now = self.clock.now();
        let channels = self.store.channels_with_work()?;
        // Of a backup, many may be done that still seem open: no hurry.
        let rate = u64::from(self.options.max_rate / AFTER_RESTORE).max(1);
        let spread = self.store.fresh_from_backup();
        for (nth, channel) in (0_u64..).zip(&channels) {
            let now = match spread {
                true => UnixMillis(now.0 + nth * 1000 / rate),
                false => now,
            };
            let pushed = self.store.last_pushed(*channel)?.filter(|at| *at <= now);
            let until = pushed.map(|at| at.plus_seconds(ANSWER_WITHIN_SECONDS));
            self.wakes.mark_at(*channel, until.unwrap_or(now).max(now));
        }
        Ok(channels.len())
    }

    /// Marks, spread over an hour, whoever has open work and was silent for a day.
    fn sweep(&mut self) -> Result<(), StoreError> {
        let now = self.clock.now();
        let day_ago = now.minus_seconds(24 * 3600);
        for channel in self.store.channels_with_work()? {
            let seen = self.store.last_seen(channel)?.unwrap_or_default();
            let pushed = self.store.last_pushed(channel)?.unwrap_or_default();
            if seen < day_ago && pushed < day_ago {
                let after = u64::from(channel.0.wrapping_mul(2_654_435_761) % 3600);
                self.wakes.mark_at(channel, now.plus_seconds(after));
            }
        }
        Ok(())
    }
}

impl Actor for Pusher {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if let Some(mut incoming) = self.incoming.take() {
            ctx.add_stream(futures_util::stream::poll_fn(move |cx| {
                incoming.poll_recv(cx)
            }));
        }
        let (wakes, pusher) = (self.wakes.clone(), ctx.address());
        actix::spawn(async move {
            loop {
                wakes.changed().await;
                if pusher.send(Pump::default()).await.is_err() {
                    return;
                }
            }
        });
        ctx.run_interval(Duration::from_secs(3600), |pusher, _| {
            if let Err(error) = pusher.sweep() {
                tracing::error!(%error, "the silent-device sweep failed");
            }
        });
        match self.recover() {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "channels with open commands are woken again"),
            Err(error) => tracing::error!(%error, "open commands cannot be read"),
        }
        ctx.notify(Pump { timer: true });
    }
}

impl StreamHandler<Settled> for Pusher {
    fn handle(&mut self, settled: Settled, ctx: &mut Self::Context) {
        let was_full = self.in_flight >= MOST_IN_FLIGHT;
        self.settle(settled, ctx);
        if was_full {
            ctx.notify(Pump::default());
        }
    }
}

/// Look what is due, now rather than when the timer says: the clock may have been set.
#[derive(Clone, Copy, Debug, Default, Message)]
#[rtype(result = "()")]
pub struct Pump {
    /// From the one timer that keeps itself going.
    timer: bool,
}

impl Handler<Pump> for Pusher {
    type Result = ();

    fn handle(&mut self, pump: Pump, ctx: &mut Self::Context) {
        if pump.timer {
            self.pump(ctx);
        } else {
            self.look(self.clock.now(), ctx);
        }
    }
}

/// Put a push certificate to use: stored first, then every halted wake of its topic
/// goes out under it.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), PusherError>")]
pub struct PutCertificate(pub PushCertificate);

impl Handler<PutCertificate> for Pusher {
    type Result = AtomicResponse<Self, Result<(), PusherError>>;

    fn handle(
        &mut self,
        PutCertificate(certificate): PutCertificate,
        _: &mut Self::Context,
    ) -> Self::Result {
        let store = self.store.clone();
        let prepared = Topic::new(certificate.clone(), &self.options.endpoint)
            .map_err(PusherError::from)
            .and_then(|topic| Ok((topic, certificate.to_pem()?, certificate.key_hash()?)));
        let commit = async move {
            let (topic, stored, key) = prepared?;
            store
                .put_push_certificate(&topic.certificate.topic, stored.as_ref(), key)
                .await?;
            Ok::<_, PusherError>(topic)
        };
        AtomicResponse::new(Box::pin(commit.into_actor(self).map(
            |outcome, pusher, _| {
                let mut topic = outcome?;
                let name = topic.certificate.topic.clone();
                pusher.alarmed.remove(&name);
                pusher.watch(&topic);
                if let Some(former) = pusher.topics.remove(&name) {
                    let held = topic.succeed(former);
                    pusher.wakes.mark(held, pusher.clock.now());
                }
                pusher.topics.insert(name, topic);
                pusher.tries.clear();
                pusher.recover()?;
                Ok(())
            },
        )))
    }
}

/// Ask how the topics stand.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Vec<TopicState>")]
pub struct Topics;

impl Handler<Topics> for Pusher {
    type Result = MessageResult<Topics>;

    fn handle(&mut self, _: Topics, _: &mut Self::Context) -> Self::Result {
        let mut states: Vec<_> = self.topics.values().map(Topic::state).collect();
        states.sort_by(|a, b| a.topic.cmp(&b.topic));
        MessageResult(states)
    }
}

/// Wake channels now, also those whose last wake is young, and say which can be.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Vec<Result<(), NotWoken>>, Fault>")]
pub struct Wake(pub Vec<ChannelNo>);

/// Why a channel cannot be woken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotWoken {
    /// It has no push data.
    #[error("the channel is not enrolled")]
    NotEnrolled,
    /// Its topic has no push certificate.
    #[error("there is no push certificate for topic {0}")]
    NoCertificate(String),
    /// APNs called its token dead.
    #[error("APNs says the push token is no longer valid")]
    Dead,
    /// Its topic is halted.
    #[error("pushes for topic {topic} are halted: {why}")]
    Halted {
        /// The topic.
        topic: String,
        /// Why.
        why: String,
    },
}

impl Handler<Wake> for Pusher {
    type Result = Result<Vec<Result<(), NotWoken>>, Fault>;

    fn handle(&mut self, Wake(channels): Wake, _: &mut Self::Context) -> Self::Result {
        let now = self.clock.now();
        let mut answers = Vec::with_capacity(channels.len());
        for channel in channels {
            let answer = self.may_wake(channel)?;
            if answer.is_ok() {
                self.wakes.forget_accepted(channel);
                self.wakes.mark([channel], now);
            }
            answers.push(answer);
        }
        Ok(answers)
    }
}

impl Pusher {
    fn may_wake(&self, channel: ChannelNo) -> Result<Result<(), NotWoken>, StoreError> {
        let Some(address) = self.address(channel)? else {
            return Ok(Err(NotWoken::NotEnrolled));
        };
        let name = address.topic.certificate_topic();
        let Some(topic) = self.topics.get(name) else {
            return Ok(Err(NotWoken::NoCertificate(name.to_owned())));
        };
        if let Some(why) = topic.halted() {
            return Ok(Err(NotWoken::Halted {
                topic: name.to_owned(),
                why,
            }));
        }
        if self.store.push_is_dead(channel, &address.token)? {
            return Ok(Err(NotWoken::Dead));
        }
        Ok(Ok(()))
    }
}

/// Why the supervisor cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum PusherError {
    /// The store's trouble.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The certificate cannot be read or written.
    #[error(transparent)]
    Certificate(#[from] PushCertificateError),
    /// The transport cannot be set up with it.
    #[error(transparent)]
    Setup(#[from] SetupError),
}

const MOST_IN_FLIGHT: usize = 4096;
/// After a restore wakes go at this part of the pace.
const AFTER_RESTORE: u32 = 10;
