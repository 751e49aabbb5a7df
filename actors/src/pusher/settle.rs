//! What became of a wake, taken in: who is tried again and when, whose token is dead,
//! whether the topic may go on.
//!
//! A wake that was not taken is tried again within a minute, however long APNs was
//! away: the breaker, not the back-off, spares APNs then.

use std::sync::atomic::Ordering;

use actix::prelude::*;
use schema::{ChannelNo, PushToken, UnixMillis};

use super::Pusher;
use super::topic::Halt;
use crate::apns::Outcome;
use crate::store::StoreError;

/// A wake that ended.
pub(super) struct Settled {
    pub(super) channel: ChannelNo,
    pub(super) token: PushToken,
    pub(super) topic: String,
    /// Of the certificate it went out under.
    pub(super) generation: u64,
    pub(super) outcome: Outcome,
}

impl Pusher {
    pub(super) fn settle(&mut self, settled: Settled, ctx: &mut Context<Self>) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let now = self.clock.now();
        if !matches!(settled.outcome, Outcome::Accepted { .. }) {
            self.wakes.forget_accepted(settled.channel);
        }
        self.count(&settled.outcome);
        let current = self
            .topics
            .get(&settled.topic)
            .map(|topic| topic.generation);
        match settled.outcome {
            Outcome::Accepted { .. } => self.taken(&settled, now),
            Outcome::Unregistered { since_ms } => self.unregistered(settled, since_ms, now, ctx),
            // Said of a certificate that is no longer in use.
            _ if current != Some(settled.generation) => self.wakes.mark([settled.channel], now),
            _ => self.not_taken(settled, now),
        }
        self.figures.under_way.fetch_sub(1, Ordering::Relaxed);
    }

    fn count(&self, outcome: &Outcome) {
        let figures = &self.figures;
        let counter = match outcome {
            Outcome::Accepted { .. } => &figures.accepted,
            Outcome::Unregistered { .. } | Outcome::BadToken => &figures.dead,
            Outcome::Backoff { .. } | Outcome::Unanswered { .. } => &figures.retried,
            Outcome::TopicMismatch
            | Outcome::CertificateRefused { .. }
            | Outcome::OurFault { .. } => &figures.refused,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn taken(&mut self, settled: &Settled, now: UnixMillis) {
        self.tries.remove(&settled.channel);
        self.store.pushed(settled.channel, now);
        if let Some(topic) = self.topics.get_mut(&settled.topic)
            && topic.generation == settled.generation
        {
            topic.taken(now);
        }
        self.answered(settled, now);
    }

    /// APNs answered, whatever it said: who waited for that is woken.
    fn answered(&mut self, settled: &Settled, now: UnixMillis) {
        if let Some(topic) = self.topics.get_mut(&settled.topic)
            && topic.generation == settled.generation
        {
            let woken = topic.answered(settled.channel);
            self.wake_again(woken, now);
        }
    }

    fn wake_again(&self, channels: Vec<ChannelNo>, now: UnixMillis) {
        if !channels.is_empty() {
            self.wakes.mark(channels, now);
        }
    }

    /// A 410 counts against the token it was said of, as it was then.
    fn unregistered(
        &mut self,
        settled: Settled,
        since_ms: Option<u64>,
        now: UnixMillis,
        ctx: &mut Context<Self>,
    ) {
        self.answered(&settled, now);
        let tries = self.tries.get(&settled.channel).copied().unwrap_or(0);
        match self.newer_token(&settled, since_ms.map(UnixMillis)) {
            Ok(false) => self.bury(settled.channel, settled.token, ctx),
            // APNs' clock or ours is wrong, when it goes on saying so.
            Ok(true) if tries >= OUTDATED_AT_MOST => {
                self.bury(settled.channel, settled.token, ctx);
            }
            Ok(true) => self.again(settled.channel, now, None),
            Err(error) => {
                tracing::error!(channel = settled.channel.0, %error, "a channel cannot be looked up");
            }
        }
    }

    /// Whether the channel reported its token, this or another one, after `since`.
    fn newer_token(
        &self,
        settled: &Settled,
        since: Option<UnixMillis>,
    ) -> Result<bool, StoreError> {
        let other = |address: schema::checkin::Push| address.token != settled.token;
        if self.address(settled.channel)?.is_some_and(other) {
            return Ok(true);
        }
        match since {
            Some(since) => self.store.token_reported_after(settled.channel, since),
            None => Ok(false),
        }
    }

    fn not_taken(&mut self, settled: Settled, now: UnixMillis) {
        let (channel, name) = (settled.channel, settled.topic);
        let Some(topic) = self.topics.get_mut(&name) else {
            return;
        };
        match settled.outcome {
            Outcome::BadToken => {
                let woken = topic.answered(channel);
                topic.bad_token(channel, settled.token, now);
                self.wake_again(woken, now);
            }
            Outcome::TopicMismatch => topic.halt(channel, Halt::TopicMismatch),
            Outcome::CertificateRefused { reason } => {
                topic.halt(channel, Halt::Certificate(format!("{reason}")));
            }
            Outcome::OurFault { status, reason } => {
                let woken = topic.answered(channel);
                tracing::error!(topic = name, status, %reason, "apns refuses a push of ours");
                self.wake_again(woken, now);
            }
            Outcome::Backoff {
                status,
                retry_after,
                ..
            } => {
                let pause = retry_after.map(|pause| pause.as_secs().min(PAUSE_AT_MOST));
                // Of one token alone; the others may go on.
                if status != 429 {
                    topic.refused(channel, now, pause);
                }
                self.again(channel, now, pause);
            }
            Outcome::Unanswered { why } => {
                topic.unanswered(channel, now);
                let tries = self.tries.entry(channel).or_insert(0);
                let after = 1_u64 << (*tries).min(4);
                *tries = tries.saturating_add(1);
                tracing::debug!(topic = name, %why, "a push was not answered");
                self.wakes.mark_at(channel, around(now, after));
            }
            Outcome::Accepted { .. } | Outcome::Unregistered { .. } => {}
        }
    }

    /// Tries a channel again: after the pause APNs asked for, or after one of ours.
    fn again(&mut self, channel: ChannelNo, now: UnixMillis, pause: Option<u64>) {
        let tries = self.tries.entry(channel).or_insert(0);
        let ours = if *tries == 0 { 30 } else { 45 };
        *tries = tries.saturating_add(1);
        let at = match pause {
            // Not before it, and not all at once after it.
            Some(pause) => around(now.plus_seconds(pause + pause / 4), pause / 2),
            None => around(now, ours),
        };
        self.wakes.mark_at(channel, at);
    }

    /// Marks a token dead; nothing goes out to it meanwhile. If it is lost, APNs says it
    /// again.
    pub(super) fn bury(&mut self, channel: ChannelNo, token: PushToken, ctx: &mut Context<Self>) {
        self.tries.remove(&channel);
        self.dying.insert(channel, token.clone());
        let store = self.store.clone();
        let noted = async move { store.push_died(channel, &token).await };
        ctx.spawn(noted.into_actor(self).map(move |noted, pusher, _| {
            pusher.dying.remove(&channel);
            if let Err(error) = noted {
                tracing::warn!(channel = channel.0, %error, "a dead push token is not noted");
            }
        }));
    }
}

/// Within a quarter around so many seconds from now.
fn around(now: UnixMillis, seconds: u64) -> UnixMillis {
    let mut byte = [0];
    // Without randomness there is no jitter, which is harmless.
    let _ = aws_lc_rs::rand::fill(&mut byte);
    let span = seconds * 1000;
    UnixMillis(now.0 + span * 3 / 4 + span / 2 * u64::from(byte[0]) / 255)
}

/// The longest pause APNs can impose, in seconds.
const PAUSE_AT_MOST: u64 = 900;
/// How often a 410 that is older than the token is not believed.
const OUTDATED_AT_MOST: u8 = 5;
