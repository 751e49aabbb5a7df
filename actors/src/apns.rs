//! Our own thin APNs client: wakes out over HTTP/2, one outcome back for each.
//!
//! One client serves one push certificate with a few long-lived connections.
//! The push supervisor calls [`ApnsClient::ready`] to pace itself by the streams
//! the server grants, and [`Slot::push`] or [`ApnsClient::push`] to wake a
//! channel. Host, port and root are configurable, so a fake APNs can stand in;
//! payload trait, options and error reasons are those of the `a2` API. Knows
//! neither the store nor enrollments, and never sends a push again that may
//! have arrived: that is the supervisor's business.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{InvalidDnsNameError, ServerName};
use tokio::time::{Instant, timeout_at};

use crate::push_certificate::PushCertificate;

mod connection;
mod fault;
mod outcome;
mod pool;
mod push;
mod roots;
mod tls;
mod watched;

pub use fault::Fault;
pub use outcome::{Outcome, Reason};
pub use pool::Slot;
pub use push::Push;
pub use roots::RootsError;

use connection::{Dial, Sent};
use pool::Pool;
use push::Template;

/// A client for the pushes of one certificate. Cloning it is cheap and shares
/// the connections.
///
/// Connections are opened when first needed and closed when the last clone is
/// dropped. The client spawns its connection tasks on the Tokio runtime that
/// calls it, which may be a current-thread one.
#[derive(Clone)]
pub struct ApnsClient {
    inner: Arc<Inner>,
}

/// Where APNs, or the fake in its place, is to be found.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The host name, or an IP address; the server's certificate must be for it.
    pub host: String,
    /// The port, 443 or 2197 at Apple.
    pub port: u16,
    /// Certificates in PEM to trust beside the system's trust store.
    pub extra_root_pem: Option<Vec<u8>>,
    /// How many connections to open at most; at least one.
    pub max_connections: usize,
}

/// How patient the client is. The default suits Apple's servers.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// For TCP, TLS and the server's HTTP/2 settings together: 10 s.
    pub connect: Duration,
    /// For one push as a whole, its error body included: 20 s.
    pub answer: Duration,
    /// Between two PINGs while a push waits for its answer: 5 s.
    pub ping_interval: Duration,
    /// For the answer to a PING, after which the connection is given up: 5 s.
    pub ping_timeout: Duration,
    /// At least this between two reconnects, doubled for each failure: 1 s.
    pub reconnect_least: Duration,
    /// The longest pause before a reconnect, jitter apart: 15 s, so that whoever waits is
    /// woken within a minute of APNs being back.
    pub reconnect_most: Duration,
}

/// Why a client cannot be made at all.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The configured host is neither a DNS name nor an IP address.
    #[error("apns host {host:?} is neither a host name nor an address")]
    Host {
        /// The host as configured.
        host: String,
        /// What is wrong with it.
        source: InvalidDnsNameError,
    },
    /// The trusted certificates cannot be read.
    #[error(transparent)]
    Roots(#[from] RootsError),
    /// The push certificate or its key cannot be used for TLS.
    #[error("the push certificate for {topic} cannot be used for TLS: {source}")]
    Certificate {
        /// Its topic.
        topic: String,
        /// What rustls says.
        source: rustls::Error,
    },
}

struct Inner {
    pool: Arc<Pool>,
    template: Template,
    answer: Duration,
}

impl ApnsClient {
    /// A client for `certificate` with the default timing. Opens no connection yet.
    ///
    /// # Errors
    ///
    /// When the endpoint, the trusted roots or the certificate are unusable.
    pub fn new(endpoint: Endpoint, certificate: &PushCertificate) -> Result<Self, SetupError> {
        Self::with_timing(endpoint, certificate, Timing::default())
    }

    /// A client for `certificate` with a timing of one's own.
    ///
    /// # Errors
    ///
    /// When the endpoint, the trusted roots or the certificate are unusable.
    pub fn with_timing(
        endpoint: Endpoint,
        certificate: &PushCertificate,
        timing: Timing,
    ) -> Result<Self, SetupError> {
        let host = |source| SetupError::Host {
            host: endpoint.host.clone(),
            source,
        };
        let server_name = ServerName::try_from(endpoint.host.clone()).map_err(host)?;
        let template = Template::new(&endpoint.host, endpoint.port, &certificate.topic)
            .ok_or(InvalidDnsNameError)
            .map_err(host)?;
        let roots = roots::load(endpoint.extra_root_pem.as_deref())?;
        let tls = tls::connector(roots, certificate).map_err(|source| SetupError::Certificate {
            topic: certificate.topic.clone(),
            source,
        })?;
        let dial = Dial {
            host: endpoint.host,
            port: endpoint.port,
            server_name,
            tls,
            timing,
        };
        let pool = Pool::new(dial, endpoint.max_connections.max(1));
        let inner = Inner {
            pool: Arc::new(pool),
            template,
            answer: timing.answer,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Waits until a push can go out at once, and reserves its place.
    ///
    /// Opens a connection when there is none, and a further one when all are
    /// full. Dropping the [`Slot`] gives the place back.
    ///
    /// # Errors
    ///
    /// When there is no connection and the attempt to open one failed. It may be
    /// called again at once: attempts are paced here.
    pub async fn ready(&self) -> Result<Slot, Fault> {
        let connection = self.inner.pool.acquire().await?;
        Ok(Slot::new(self.clone(), connection))
    }

    /// Wakes one channel, waiting for a place first; ends within
    /// [`Timing::answer`], whatever happens.
    pub async fn push(&self, push: Push) -> Outcome {
        let deadline = Instant::now() + self.inner.answer;
        self.deliver(None, &push, deadline).await
    }

    /// How many connections are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.inner.pool.len()
    }

    fn answer_deadline(&self) -> Instant {
        Instant::now() + self.inner.answer
    }

    fn pool(&self) -> &Arc<Pool> {
        &self.inner.pool
    }

    /// Sends on `slot` or the next free one; goes on to another only while the
    /// request has provably not left this process.
    async fn deliver(&self, mut slot: Option<Slot>, push: &Push, deadline: Instant) -> Outcome {
        let mut request = match self.inner.template.request(push) {
            Ok(request) => request,
            Err(unsendable) => return unsendable,
        };
        loop {
            let place = match slot.take() {
                Some(place) => place,
                None => match timeout_at(deadline, self.ready()).await {
                    Ok(Ok(place)) => place,
                    Ok(Err(fault)) => return fault.into(),
                    Err(_) => return self.inner.pool.last_fault().unwrap_or(Fault::Busy).into(),
                },
            };
            match place.send(request, deadline).await {
                Sent::Ended(outcome) => return outcome,
                Sent::Unsent(again) => request = *again,
            }
        }
    }
}

impl Endpoint {
    /// Apple's production servers, with the system's trust store.
    #[must_use]
    pub fn production() -> Self {
        Self {
            host: "api.push.apple.com".to_owned(),
            port: 443,
            extra_root_pem: None,
            max_connections: 4,
        }
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(20),
            ping_interval: Duration::from_secs(5),
            ping_timeout: Duration::from_secs(5),
            reconnect_least: Duration::from_secs(1),
            reconnect_most: Duration::from_secs(15),
        }
    }
}

#[cfg(test)]
mod fake;
#[cfg(test)]
mod pki;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod throughput;
