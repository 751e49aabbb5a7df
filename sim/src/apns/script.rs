//! What a fake APNs answers: per token, for all, or for the next few, plus
//! how its connections behave. Plain facts; `connection` acts on them.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// How a fake APNs behaves. Change it while running with `rescript`.
#[derive(Clone, Debug)]
pub struct Script {
    /// Wait this long before each answer: the round trip to Apple.
    pub delay: Duration,
    /// The answer when nothing below says otherwise.
    pub answer: Answer,
    /// The next answers to a token (hex), used up one by one.
    pub next_for: HashMap<String, VecDeque<Answer>>,
    /// The next answers to anyone, used up one by one.
    pub next: VecDeque<Answer>,
    /// The standing answer to a token (hex).
    pub always_for: HashMap<String, Answer>,
    /// SETTINGS_MAX_CONCURRENT_STREAMS of new connections.
    pub max_concurrent_streams: u32,
    /// Send GOAWAY on a connection at this many streams: those are answered.
    pub go_away_after: Option<u64>,
    /// Drop a connection at this many streams: what is open goes unanswered.
    pub drop_after: Option<u64>,
    /// Take new connections and never say a word on them.
    pub black_hole: bool,
    /// Let new connections wait this long for their TLS handshake.
    pub handshake_delay: Duration,
    /// Refuse connections without a client certificate, as Apple does:
    /// 403 MissingProviderToken. The certificate itself is never checked.
    pub certificate_required: bool,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            answer: Answer::Accept,
            next_for: HashMap::new(),
            next: VecDeque::new(),
            always_for: HashMap::new(),
            max_concurrent_streams: 1000,
            go_away_after: None,
            drop_after: None,
            black_hole: false,
            handshake_delay: Duration::ZERO,
            certificate_required: false,
        }
    }
}

impl Script {
    /// The answer to the next push for `token_hex`: first what is queued for
    /// the token, then what is queued for anyone, then the standing answers.
    pub(crate) fn take(&mut self, token_hex: &str) -> Answer {
        let queued = self
            .next_for
            .get_mut(token_hex)
            .and_then(VecDeque::pop_front)
            .or_else(|| self.next.pop_front());
        queued.unwrap_or_else(|| {
            self.always_for
                .get(token_hex)
                .unwrap_or(&self.answer)
                .clone()
        })
    }
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 200.
    Accept,
    /// An error with Apple's JSON body.
    Refuse {
        /// HTTP status.
        status: u16,
        /// Apple's reason.
        reason: String,
        /// With 410: milliseconds since 1970 when the token was last valid.
        timestamp: Option<u64>,
        /// Seconds for a `Retry-After` header.
        retry_after: Option<u64>,
    },
    /// Nothing, ever; the stream stays open.
    Stall,
    /// The status and half of an error body, then nothing, ever.
    StallBody {
        /// HTTP status.
        status: u16,
    },
    /// RST_STREAM.
    Reset,
    /// The status and half of an error body, then RST_STREAM.
    ResetBody {
        /// HTTP status.
        status: u16,
    },
    /// Drop the whole connection.
    Drop,
}

impl Answer {
    /// An error without extras.
    pub fn refuse(status: u16, reason: &str) -> Self {
        Self::Refuse {
            status,
            reason: reason.to_owned(),
            timestamp: None,
            retry_after: None,
        }
    }

    /// 410 Unregistered, last valid at `timestamp` (milliseconds since 1970).
    pub fn unregistered(timestamp: u64) -> Self {
        Self::Refuse {
            status: 410,
            reason: "Unregistered".to_owned(),
            timestamp: Some(timestamp),
            retry_after: None,
        }
    }

    /// 400 BadDeviceToken.
    pub fn bad_device_token() -> Self {
        Self::refuse(400, "BadDeviceToken")
    }

    /// 429 TooManyRequests.
    pub fn too_many_requests() -> Self {
        Self::refuse(429, "TooManyRequests")
    }

    /// 503 ServiceUnavailable, to be retried after so many seconds.
    pub fn unavailable(retry_after: u64) -> Self {
        Self::Refuse {
            status: 503,
            reason: "ServiceUnavailable".to_owned(),
            timestamp: None,
            retry_after: Some(retry_after),
        }
    }
}
