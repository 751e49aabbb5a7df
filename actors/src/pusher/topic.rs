//! One push topic: its certificate and transport, and whether it may send at all.
//!
//! A wrong host or certificate must not kill the fleet: a topic that meets one halts
//! and marks nobody dead.

use std::collections::{HashSet, VecDeque};

use schema::{ChannelNo, PushToken, UnixMillis};

use crate::apns::{ApnsClient, Endpoint, SetupError};
use crate::push_certificate::PushCertificate;

/// A topic as the supervisor holds it.
pub(super) struct Topic {
    pub(super) certificate: PushCertificate,
    pub(super) client: ApnsClient,
    halt: Option<Halt>,
    /// Held back while the topic is halted or its breaker is open.
    parked: HashSet<ChannelNo>,
    breaker: Breaker,
    sent: VecDeque<UnixMillis>,
    bad: VecDeque<(UnixMillis, ChannelNo, PushToken)>,
}

/// Why a topic does not send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Halt {
    /// APNs says certificate and token are of two topics.
    TopicMismatch,
    /// APNs refuses the certificate.
    Certificate(String),
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

/// Opens after many failures in a row, for half a minute.
#[derive(Debug, Default)]
struct Breaker {
    failures: u32,
    open_until: Option<UnixMillis>,
    /// Waiting for a further try, to be cut short when the breaker closes.
    retrying: HashSet<ChannelNo>,
}

impl Topic {
    pub(super) fn new(
        certificate: PushCertificate,
        endpoint: &Endpoint,
    ) -> Result<Self, SetupError> {
        Ok(Self {
            client: ApnsClient::new(endpoint.clone(), &certificate)?,
            certificate,
            halt: None,
            parked: HashSet::new(),
            breaker: Breaker::default(),
            sent: VecDeque::new(),
            bad: VecDeque::new(),
        })
    }

    /// May a wake go out now? One that may not is kept for later.
    pub(super) fn may_send(&mut self, channel: ChannelNo, now: UnixMillis) -> bool {
        let expired = self
            .certificate
            .expired(i64::try_from(now.seconds()).unwrap_or(i64::MAX));
        if expired && self.halt.is_none() {
            self.stop(Halt::Certificate("it has expired".into()));
        }
        let open = self.breaker.open_until.is_some_and(|until| until > now);
        if self.halt.is_some() || open {
            self.parked.insert(channel);
            return false;
        }
        true
    }

    pub(super) fn sent(&mut self, now: UnixMillis) {
        self.sent.push_back(now);
        let minute_ago = now.minus_seconds(60);
        while self.sent.front().is_some_and(|at| *at < minute_ago) {
            self.sent.pop_front();
        }
    }

    /// APNs answered: it is there.
    pub(super) fn answered(&mut self, channel: ChannelNo) {
        self.breaker.failures = 0;
        self.breaker.retrying.remove(&channel);
    }

    pub(super) fn retrying(&mut self, channel: ChannelNo) {
        self.breaker.retrying.insert(channel);
    }

    /// APNs is in trouble; after many of these in a row it is left alone for a while.
    pub(super) fn unanswered(&mut self, now: UnixMillis) {
        self.breaker.failures = self.breaker.failures.saturating_add(1);
        if self.breaker.failures >= BREAKER_AT && self.breaker.open_until.is_none() {
            self.breaker.open_until = Some(now.plus_seconds(BREAKER_SECONDS));
            tracing::warn!(
                topic = self.certificate.topic,
                "apns is in trouble; pushes pause"
            );
        }
    }

    /// Closes the breaker when its time is over; gives back whom it held.
    pub(super) fn resume(&mut self, now: UnixMillis) -> Vec<ChannelNo> {
        match self.breaker.open_until {
            Some(until) if until <= now => {
                self.breaker.open_until = None;
                self.breaker.failures = 0;
                let retrying = std::mem::take(&mut self.breaker.retrying);
                if self.halt.is_some() {
                    return Vec::new();
                }
                self.parked.drain().chain(retrying).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Stops sending until another certificate comes; the channel is kept for then.
    pub(super) fn halt(&mut self, channel: ChannelNo, why: Halt) {
        self.parked.insert(channel);
        self.stop(why);
    }

    /// A token APNs calls bad. It counts as dead only when it stays an exception for a
    /// minute.
    pub(super) fn bad_token(&mut self, channel: ChannelNo, token: PushToken, now: UnixMillis) {
        self.bad.push_back((now, channel, token));
        let share = self.bad.len() * 100 / self.sent.len().max(1);
        if self.bad.len() >= BAD_AT_LEAST && share > BAD_PERCENT {
            self.parked
                .extend(self.bad.drain(..).map(|(_, channel, _)| channel));
            self.stop(Halt::BadTokens);
        }
    }

    /// The tokens whose minute is over.
    pub(super) fn take_confirmed_bad(&mut self, now: UnixMillis) -> Vec<(ChannelNo, PushToken)> {
        let mut confirmed = Vec::new();
        let minute_ago = now.minus_seconds(60);
        while self.bad.front().is_some_and(|(at, ..)| *at < minute_ago) {
            confirmed.extend(
                self.bad
                    .pop_front()
                    .map(|(_, channel, token)| (channel, token)),
            );
        }
        confirmed
    }

    /// Why nothing is sent, when it is so.
    pub(super) fn halted(&self) -> Option<String> {
        self.halt.as_ref().map(|halt| match halt {
            Halt::TopicMismatch => "certificate and push tokens are of different topics".to_owned(),
            Halt::Certificate(why) => format!("the push certificate is refused: {why}"),
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
            parked: self.parked.len(),
        }
    }

    fn stop(&mut self, why: Halt) {
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

const BREAKER_AT: u32 = 20;
const BREAKER_SECONDS: u64 = 30;
const BAD_AT_LEAST: usize = 10;
const BAD_PERCENT: usize = 5;
