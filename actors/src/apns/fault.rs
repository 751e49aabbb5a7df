//! What can go wrong between us and APNs below the level of an answer.
//!
//! A fault is shared by all pushes that waited on one connection, so it is
//! cheap to clone and holds text rather than the errors themselves.

use std::io;

use rustls::AlertDescription;

/// Why no answer came. The push may be sent again: wakes are idempotent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The host has no address, or no connection was accepted.
    #[error("cannot connect to apns: {0}")]
    Connect(String),
    /// Connecting took too long.
    #[error("connecting to apns timed out")]
    ConnectTimeout,
    /// TLS failed: an untrusted server certificate, or no HTTP/2.
    #[error("tls with apns failed: {0}")]
    Tls(String),
    /// The server refused our push certificate in a TLS alert.
    #[error("apns refused the push certificate: tls alert {0:?}")]
    CertificateRefused(AlertDescription),
    /// The connection ended or was reset before the answer.
    #[error("the connection to apns was lost: {0}")]
    Lost(String),
    /// The server closes the connection as idle and did not take the push.
    #[error("apns closed the connection as idle")]
    Idle,
    /// No stream came free in time.
    #[error("no free stream to apns in time")]
    Busy,
    /// The server took the push and did not answer in time.
    #[error("apns did not answer in time")]
    Deadline,
}

impl Fault {
    /// Reads an error of TCP or, inside of it, one of rustls.
    pub(super) fn from_io(error: &io::Error) -> Self {
        match error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        {
            Some(rustls::Error::AlertReceived(alert)) if blames_certificate(*alert) => {
                Self::CertificateRefused(*alert)
            }
            Some(tls) => Self::Tls(tls.to_string()),
            None => Self::Lost(error.to_string()),
        }
    }

    /// Reads an error of hyper with the errors beneath it.
    pub(super) fn from_hyper(error: &hyper::Error) -> Self {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(source) = cause {
            text = format!("{text}: {source}");
            cause = source.source();
        }
        Self::Lost(text)
    }
}

/// Whether a server says by this alert that it does not take our certificate.
fn blames_certificate(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::CertificateRequired
    )
}
