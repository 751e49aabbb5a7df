//! One push topic: its certificate and transport, and whether it may send at all.
//!
//! A wrong host or certificate must not kill the fleet: a topic that meets one halts
//! and marks nobody dead.

use std::collections::HashSet;

use schema::{ChannelNo, PushToken, UnixMillis};

use super::bad_tokens::{BadTokens, Judged};
use super::breaker::Breaker;
use crate::apns::{ApnsClient, Endpoint, SetupError};
use crate::push_certificate::PushCertificate;

/// A topic as the supervisor holds it.
pub(super) struct Topic {
    pub(super) certificate: PushCertificate,
    pub(super) client: ApnsClient,
    /// Counts the certificates of this topic: what an earlier one was told says nothing
    /// of this one.
    pub(super) generation: u64,
    halt: Option<Halt>,
    /// Held back while the topic is halted.
    parked: HashSet<ChannelNo>,
    breaker: Breaker,
    tokens: BadTokens,
}

/// Why a topic does not send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Halt {
    /// APNs says certificate and token are of two topics.
    TopicMismatch,
    /// APNs refuses the certificate.
    Certificate(String),
    /// The certificate has expired, by our clock; lifted when that is set right.
    Expired,
    /// Too many tokens are bad at once: probably a wrong host or certificate.
    BadTokens,
}

/// A topic as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicState {
    /// The topic.
    pub topic: String,
    /// End of the certificate's validity, seconds since 1970.
    pub not_after: i64,
    /// Serial number of the certificate.
    pub serial: String,
    /// Why nothing is sent, when it is so.
    pub halted: Option<String>,
    /// Wakes held back.
    pub parked: usize,
}

impl Topic {
    pub(super) fn new(
        certificate: PushCertificate,
        endpoint: &Endpoint,
    ) -> Result<Self, SetupError> {
        Ok(Self {
            client: ApnsClient::new(endpoint.clone(), &certificate)?,
            certificate,
            generation: 0,
            halt: None,
            parked: HashSet::new(),
            breaker: Breaker::default(),
            tokens: BadTokens::default(),
        })
    }

    /// Takes the place of the topic's former certificate; gives back whom that one held.
    pub(super) fn succeed(&mut self, former: Self) -> Vec<ChannelNo> {
        self.generation = former.generation + 1;
        let mut held = former.tokens;
        let bad = held.take();
        let waiting = former.breaker.into_waiting();
        former
            .parked
            .into_iter()
            .chain(bad)
            .chain(waiting)
            .collect()
    }

    /// May a wake go out now? One that may not is kept for later.
    pub(super) fn may_send(&mut self, channel: ChannelNo, now: UnixMillis) -> bool {
        if self.expired(now) && self.halt.is_none() {
            self.stop(Halt::Expired);
        }
        if self.halt.is_some() {
            self.parked.insert(channel);
            return false;
        }
        self.breaker.lets(channel, now)
    }

    pub(super) fn sent(&mut self, now: UnixMillis) {
        self.tokens.sent(now);
    }

    /// APNs took a token.
    pub(super) fn taken(&mut self, now: UnixMillis) {
        self.tokens.taken(now);
    }

    /// APNs answered: it is there. Whom to wake for that.
    pub(super) fn answered(&mut self, channel: ChannelNo) -> Vec<ChannelNo> {
        let woken = self.breaker.answered(channel);
        self.or_parked(woken)
    }

    /// APNs is in trouble; after many of these in a row it is left alone for a while.
    pub(super) fn refused(&mut self, channel: ChannelNo, now: UnixMillis, pause: Option<u64>) {
        if self.breaker.refused(channel, now, pause) {
            tracing::warn!(
                topic = self.certificate.topic,
                "apns is in trouble; pushes pause"
            );
        }
    }

    /// No answer came.
    pub(super) fn unanswered(&mut self, channel: ChannelNo, now: UnixMillis) {
        self.breaker.unanswered(channel, now);
    }

    /// Whom to wake because time passed: the next probe, or all who were held by a clock
    /// that has been set right.
    pub(super) fn resume(&mut self, now: UnixMillis) -> Vec<ChannelNo> {
        if self.halt == Some(Halt::Expired) && !self.expired(now) {
            self.halt = None;
            return self.parked.drain().collect();
        }
        if self.halt.is_some() {
            return Vec::new();
        }
        self.breaker.next_probe(now).into_iter().collect()
    }

    /// Stops sending until another certificate comes; the channel is kept for then.
    pub(super) fn halt(&mut self, channel: ChannelNo, why: Halt) {
        self.parked.insert(channel);
        self.stop(why);
    }

    /// A token APNs calls bad. Once that is too many's fate it is the topic's.
    pub(super) fn bad_token(&mut self, channel: ChannelNo, token: PushToken, now: UnixMillis) {
        if self.halt.is_some() {
            self.parked.insert(channel);
            return;
        }
        let too_many = self.tokens.note(channel, token, now);
        if !too_many.is_empty() {
            self.parked.extend(too_many);
            self.stop(Halt::BadTokens);
        }
    }

    /// The bad tokens whose minute is over.
    pub(super) fn judge_bad(&mut self, now: UnixMillis) -> Judged {
        self.tokens.judge(now)
    }

    /// Why nothing is sent, when it is so.
    pub(super) fn halted(&self) -> Option<String> {
        self.halt.as_ref().map(|halt| match halt {
            Halt::TopicMismatch => "certificate and push tokens are of different topics".to_owned(),
            Halt::Certificate(why) => format!("the push certificate is refused: {why}"),
            Halt::Expired => "the push certificate has expired".to_owned(),
            Halt::BadTokens => {
                "too many push tokens are bad at once: wrong host or certificate".to_owned()
            }
        })
    }

    pub(super) fn state(&self) -> TopicState {
        TopicState {
            topic: self.certificate.topic.clone(),
            not_after: self.certificate.not_after,
            serial: self.certificate.serial.clone(),
            halted: self.halted(),
            parked: self.parked.len() + self.breaker.held(),
        }
    }

    fn expired(&self, now: UnixMillis) -> bool {
        self.certificate
            .expired(i64::try_from(now.seconds()).unwrap_or(i64::MAX))
    }

    /// These, unless the topic is halted: then they are kept.
    fn or_parked(&mut self, channels: Vec<ChannelNo>) -> Vec<ChannelNo> {
        if self.halt.is_none() {
            return channels;
        }
        self.parked.extend(channels);
        Vec::new()
    }

    fn stop(&mut self, why: Halt) {
        // Whoever was called bad before is no exception either.
        let bad = self.tokens.take();
        self.parked.extend(bad);
        if self.halt.replace(why).is_none() {
            let why = self.halted().unwrap_or_default();
            tracing::error!(
                topic = self.certificate.topic,
                why,
                "pushes for this topic are halted"
            );
        }
    }
}
