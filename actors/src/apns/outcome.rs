//! What became of a push: the status table of APNs as a type.
//!
//! The supervisor decides what an outcome means for a channel, a topic and the
//! pace; here each answer is only read. Source: Apple, "Handling notification
//! responses from APNs".

use std::fmt;
use std::time::Duration;

use a2::{ErrorBody, ErrorReason};
use rustls::AlertDescription;
use serde_json::Value;
use uuid::Uuid;

use super::fault::Fault;

/// The end of one push.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    /// 200: APNs has taken the push.
    Accepted {
        /// The identity APNs gave the push, when it is a UUID as documented.
        apns_id: Option<Uuid>,
    },
    /// 410 `Unregistered` or `ExpiredToken`: the token is dead for this topic,
    /// unless a newer one has come since.
    Unregistered {
        /// When APNs found the token invalid, in milliseconds since 1970.
        since_ms: Option<u64>,
    },
    /// 400 `BadDeviceToken`: the token is wrong or of the other environment.
    BadToken,
    /// 400 `DeviceTokenNotForTopic`: certificate and token belong to two topics.
    TopicMismatch,
    /// 403, or a TLS alert: our push certificate is expired, revoked or of the
    /// wrong environment.
    CertificateRefused {
        /// What APNs or TLS says.
        reason: Reason,
    },
    /// 429 (this token only) or 5xx (the server): to be sent again later.
    Backoff {
        /// The HTTP status.
        status: u16,
        /// The pause the server asks for, if it gives one in seconds.
        retry_after: Option<Duration>,
        /// What APNs says.
        reason: Reason,
    },
    /// Any other refusal: a bug of ours, not to be sent again as it is.
    OurFault {
        /// The HTTP status; 0 when the push cannot even be made a request.
        status: u16,
        /// What APNs says.
        reason: Reason,
    },
    /// No answer. The push may have arrived and is to be sent again.
    Unanswered {
        /// What happened instead.
        why: Fault,
    },
}

/// The reason given with a refusal. Displays as the word on the wire.
#[derive(Debug, PartialEq, Eq)]
pub enum Reason {
    /// One that Apple documents.
    Named(ErrorReason),
    /// Another word, cut to 64 characters; empty when the body gave none.
    Other(String),
    /// A TLS alert of the server.
    Alert(AlertDescription),
}

impl Outcome {
    /// Reads an answer that is not 200. `body` is None if it did not arrive; then
    /// only a status that says all by itself is taken as an answer.
    pub(super) fn refused(
        status: u16,
        retry_after: Option<Duration>,
        body: Option<&[u8]>,
        lost: Fault,
    ) -> Self {
        let backs_off = status == 429 || status >= 500;
        let (reason, since_ms) = match body {
            Some(body) => parse(body),
            None if backs_off => (Reason::Other(String::new()), None),
            None => return Self::Unanswered { why: lost },
        };
        match (status, reason) {
            (400, Reason::Named(ErrorReason::BadDeviceToken)) => Self::BadToken,
            (400, Reason::Named(ErrorReason::DeviceTokenNotForTopic)) => Self::TopicMismatch,
            (400, Reason::Named(ErrorReason::IdleTimeout)) => Self::Unanswered { why: Fault::Idle },
            (403, reason) => Self::CertificateRefused { reason },
            (410, _) => Self::Unregistered { since_ms },
            (_, reason) if backs_off => Self::Backoff {
                status,
                retry_after,
                reason,
            },
            (_, reason) => Self::OurFault { status, reason },
        }
    }
}

impl From<Fault> for Outcome {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::CertificateRefused(alert) => Self::CertificateRefused {
                reason: Reason::Alert(alert),
            },
            why => Self::Unanswered { why },
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // The variants are spelt as on the wire; a2's own Display is prose.
            Self::Named(reason) => write!(f, "{reason:?}"),
            Self::Other(reason) if reason.is_empty() => f.write_str("no reason given"),
            Self::Other(reason) => f.write_str(reason),
            Self::Alert(alert) => write!(f, "tls alert {alert:?}"),
        }
    }
}

/// Reads reason and timestamp, also when the reason is new to us.
fn parse(body: &[u8]) -> (Reason, Option<u64>) {
    if let Ok(ErrorBody { reason, timestamp }) = serde_json::from_slice(body) {
        return (Reason::Named(reason), timestamp);
    }
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let reason = body
        .get("reason")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let timestamp = body.get("timestamp").and_then(Value::as_u64);
    (Reason::Other(reason.chars().take(64).collect()), timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: u16, body: &str) -> Outcome {
        Outcome::refused(status, None, Some(body.as_bytes()), Fault::Deadline)
    }

    #[test]
    fn an_unknown_or_unreadable_reason_is_classed_by_its_status() {
        let other = |reason: &str| Reason::Other(reason.to_owned());
        let body = r#"{"reason":"NewReason","timestamp":5}"#;
        assert_eq!(read(410, body), Outcome::Unregistered { since_ms: Some(5) });
        assert_eq!(
            read(410, "<html>"),
            Outcome::Unregistered { since_ms: None }
        );
        assert_eq!(
            read(400, body),
            Outcome::OurFault {
                status: 400,
                reason: other("NewReason")
            }
        );
        assert_eq!(
            read(403, ""),
            Outcome::CertificateRefused { reason: other("") }
        );
        assert_eq!(
            read(302, "[]"),
            Outcome::OurFault {
                status: 302,
                reason: other("")
            }
        );
        let long = format!(r#"{{"reason":"{}"}}"#, "x".repeat(100));
        assert_eq!(
            read(404, &long),
            Outcome::OurFault {
                status: 404,
                reason: other(&"x".repeat(64))
            }
        );
    }

    #[test]
    fn without_its_body_only_a_wait_is_an_answer() {
        let none = |status| Outcome::refused(status, None, None, Fault::Deadline);
        for status in [400, 403, 404, 410, 413] {
            assert_eq!(
                none(status),
                Outcome::Unanswered {
                    why: Fault::Deadline
                }
            );
        }
        for status in [429, 500, 502, 503, 504] {
            assert!(matches!(none(status), Outcome::Backoff { .. }));
        }
    }

    #[test]
    fn a_reason_displays_as_on_the_wire() {
        let named = Reason::Named(ErrorReason::TooManyRequests);
        assert_eq!(named.to_string(), "TooManyRequests");
        let alert = Reason::Alert(AlertDescription::CertificateRevoked);
        assert_eq!(alert.to_string(), "tls alert CertificateRevoked");
    }
}
