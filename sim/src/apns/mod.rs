//! A fake APNs: HTTP/2 over TLS on loopback, under its own root certificate,
//! checking requests as strictly as Apple and answering as scripted.

mod connection;
mod request;
mod script;
mod tls;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

pub use request::{Push, Refusal};
pub use script::{Answer, Script};

use crate::error::SimError;
use crate::watched::Watched;

/// A running fake APNs; stops when shut down or dropped.
pub struct FakeApns {
    shared: Arc<Shared>,
    address: SocketAddr,
    root_pem: Vec<u8>,
    listener: JoinHandle<()>,
}

impl FakeApns {
    /// Starts on 127.0.0.1, on a free port.
    pub async fn start(script: Script) -> Result<Self, SimError> {
        Self::start_on(script, 0).await
    }

    /// Starts on 127.0.0.1 and the given port.
    pub async fn start_on(script: Script, port: u16) -> Result<Self, SimError> {
        let (root_pem, acceptor) = tls::authority()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            script: Watched::new(script),
            log: Watched::new(Log::default()),
            hang_up: watch::Sender::new(0),
        });
        Ok(Self {
            listener: tokio::spawn(connection::accept(listener, acceptor, shared.clone())),
            shared,
            address,
            root_pem,
        })
    }

    /// The port it listens on, at 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The root certificate the server under test must trust.
    pub fn root_pem(&self) -> &[u8] {
        &self.root_pem
    }

    /// Changes the script while running. Limits that HTTP/2 fixes when a
    /// connection begins hold for new connections only.
    pub fn rescript<R>(&self, change: impl FnOnce(&mut Script) -> R) -> R {
        self.shared.script.change(change)
    }

    /// Every push accepted from now on, without bound, in order.
    pub fn pushes(&self) -> mpsc::UnboundedReceiver<Push> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.shared.log.change(|log| log.subscribers.push(sender));
        receiver
    }

    /// Well-formed pushes received for `token_hex`, however answered.
    pub fn received(&self, token_hex: &str) -> u64 {
        self.shared
            .log
            .read(|log| log.received.get(token_hex).copied().unwrap_or(0))
    }

    /// Totals over all tokens.
    pub fn counts(&self) -> Counts {
        self.shared.log.read(|log| log.counts)
    }

    /// Malformed requests, which Apple would have refused: a bug of the
    /// server under test. At most the first thousand are kept.
    pub fn refusals(&self) -> Vec<Refusal> {
        self.shared.log.read(|log| log.refusals.clone())
    }

    /// Connections so far.
    pub fn connections(&self) -> Connections {
        self.shared.log.read(|log| log.connections)
    }

    /// When each connection was asked for, also those that came to nothing.
    pub fn attempts(&self) -> Vec<Instant> {
        self.shared.log.read(|log| log.attempts.clone())
    }

    /// Waits until `condition` holds for the totals, at most `deadline`.
    pub async fn wait_until(
        &self,
        deadline: Duration,
        mut condition: impl FnMut(&Counts) -> bool,
    ) -> Result<(), SimError> {
        self.shared
            .log
            .until("pushes at the fake APNs", deadline, |log| {
                condition(&log.counts)
            })
            .await
    }

    /// Drops all open connections without a goodbye; keeps listening.
    pub fn drop_connections(&self) {
        self.shared.hang_up.send_modify(|times| *times += 1);
    }

    /// Stops listening and drops all connections.
    pub fn shutdown(&self) {
        self.listener.abort();
        self.drop_connections();
    }
}

impl Drop for FakeApns {
    fn drop(&mut self) {
        self.shutdown();
    }
}

/// Totals of a fake APNs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that came whole; their answer may still be due.
    pub arrived: u64,
    /// Well-formed pushes, however answered.
    pub received: u64,
    /// Of these, answered with 200.
    pub accepted: u64,
    /// Malformed requests.
    pub malformed: u64,
}

/// The connections of a fake APNs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connections {
    /// Opened so far.
    pub opened: u64,
    /// Open now.
    pub open: u64,
    /// Of those opened, how many showed a client certificate.
    pub with_certificate: u64,
}

/// What the handle and its connections share.
struct Shared {
    script: Watched<Script>,
    log: Watched<Log>,
    hang_up: watch::Sender<u64>,
}

#[derive(Default)]
struct Log {
    counts: Counts,
    received: HashMap<String, u64>,
    refusals: Vec<Refusal>,
    connections: Connections,
    attempts: Vec<Instant>,
    subscribers: Vec<mpsc::UnboundedSender<Push>>,
}

impl Shared {
    fn note_arrived(&self) {
        self.log.change(|log| log.counts.arrived += 1);
    }

    fn note_received(&self, push: &Push) {
        self.log.change(|log| {
            log.counts.received += 1;
            *log.received.entry(push.token_hex.clone()).or_default() += 1;
        });
    }

    fn note_accepted(&self, push: Push) {
        self.log.change(|log| {
            log.counts.accepted += 1;
            log.subscribers
                .retain(|subscriber| subscriber.send(push.clone()).is_ok());
        });
    }

    fn note_malformed(&self, refusal: &Refusal) {
        self.log.change(|log| {
            log.counts.malformed += 1;
            if log.refusals.len() < 1000 {
                log.refusals.push(refusal.clone());
            }
        });
    }
}
