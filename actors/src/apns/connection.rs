//! One HTTP/2 connection to APNs: opened, used for pushes, judged.
//!
//! A connection counts as open once the server's SETTINGS are read, so a refused
//! certificate shows as a failed attempt and the number of streams is known
//! before the first push.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::header::RETRY_AFTER;
use hyper::{Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::fault::Fault;
use super::outcome::{Outcome, Reason};
use super::push::PushRequest;
use super::watched::Watched;
use super::{Timing, tls};

/// How to reach the server.
pub(super) struct Dial {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) server_name: ServerName<'static>,
    pub(super) tls: TlsConnector,
    pub(super) timing: Timing,
}

/// An open connection. Dropping it lets running pushes end and closes it.
pub(super) struct Connection {
    sender: http2::SendRequest<Full<Bytes>>,
    /// Streams the server grants.
    limit: Arc<AtomicUsize>,
    /// Pushes under way; changed under the lock of the pool.
    pub(super) load: AtomicUsize,
    /// Failures in a row that speak against this connection.
    strikes: AtomicU32,
    /// Whether a push was ever answered here.
    proved: AtomicBool,
    fault: Arc<OnceLock<Fault>>,
}

/// What became of a request given to a connection.
pub(super) enum Sent {
    /// It has an outcome.
    Ended(Outcome),
    /// It has not left this process and may go elsewhere.
    Unsent(Box<PushRequest>),
}

/// An HTTP/2 connection that someone has yet to drive.
type Driver = http2::Connection<Io, Full<Bytes>, TokioExecutor>;
/// Boxed, because hyper spawns a task per request whose size includes it.
type Io = TokioIo<Watched<Box<TlsStream<TcpStream>>>>;

impl Dial {
    /// Opens a connection; tells `changed` when its limit rises and when it ends.
    pub(super) async fn open(&self, changed: Arc<Notify>) -> Result<Connection, Fault> {
        let opening = timeout(self.timing.connect, self.connect());
        let (connection, driver) = opening.await.map_err(|_| Fault::ConnectTimeout)??;
        let limit = Arc::clone(&connection.limit);
        tokio::spawn(async move {
            let mut driver = pin!(driver);
            let ended = poll_fn(|cx| {
                let polled = driver.as_mut().poll(cx);
                let granted = driver.as_ref().current_max_send_streams();
                if limit.swap(granted, Relaxed) < granted {
                    changed.notify_waiters();
                }
                polled
            });
            if let Err(error) = ended.await {
                tracing::debug!(%error, "apns connection ended");
            }
            changed.notify_waiters();
        });
        Ok(connection)
    }

    async fn connect(&self) -> Result<(Connection, Driver), Fault> {
        let refused =
            |error: std::io::Error| Fault::Connect(format!("{}:{}: {error}", self.host, self.port));
        let tcp = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(refused)?;
        tcp.set_nodelay(true).map_err(refused)?;
        let stream = self.tls.connect(self.server_name.clone(), tcp).await;
        let stream = stream.map_err(|error| Fault::from_io(&error))?;
        if stream.get_ref().1.alpn_protocol() != Some(tls::HTTP_2) {
            return Err(Fault::Tls("the server does not speak http/2".to_owned()));
        }
        let fault = Arc::new(OnceLock::new());
        let io = TokioIo::new(Watched::new(Box::new(stream), Arc::clone(&fault)));
        let (sender, driver) = self
            .http2()
            .handshake(io)
            .await
            .map_err(|e| lost(&fault, &e))?;
        let (driver, granted) = settle(driver, &fault).await?;
        let connection = Connection {
            sender,
            limit: Arc::new(AtomicUsize::new(granted)),
            load: AtomicUsize::new(0),
            strikes: AtomicU32::new(0),
            proved: AtomicBool::new(false),
            fault,
        };
        Ok((connection, driver))
    }

    fn http2(&self) -> http2::Builder<TokioExecutor> {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(self.timing.ping_interval)
            .keep_alive_timeout(self.timing.ping_timeout)
            // No streams until the server's SETTINGS are read: see `settle`.
            .initial_max_send_streams(0);
        builder
    }
}

impl Connection {
    /// Whether a push may be given to it.
    pub(super) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Whether it stood the test of at least one answer.
    pub(super) fn is_proved(&self) -> bool {
        self.proved.load(Relaxed)
    }

    pub(super) fn has_room(&self) -> bool {
        self.load.load(Relaxed) < self.limit.load(Relaxed)
    }

    /// Whether it is better left: the server said so, or nothing good comes of it.
    pub(super) fn is_worn(&self) -> bool {
        self.strikes.load(Relaxed) >= STRIKES || !self.is_open()
    }

    /// Sends one request and waits for its answer until `deadline`.
    pub(super) async fn send(&self, request: PushRequest, deadline: Instant) -> Sent {
        let mut sender = self.sender.clone();
        let response = match timeout_at(deadline, sender.try_send_request(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(mut refused)) => {
                return match refused.take_message() {
                    Some(request) => {
                        self.wear(STRIKES);
                        Sent::Unsent(Box::new(request))
                    }
                    None => Sent::Ended(lost(&self.fault, refused.error()).into()),
                };
            }
            Err(_) => {
                self.wear(1);
                return Sent::Ended(Fault::Deadline.into());
            }
        };
        let outcome = read(response, deadline, &self.fault).await;
        self.judge(&outcome);
        Sent::Ended(outcome)
    }

    /// Takes an outcome for or against this connection.
    fn judge(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Unanswered { why: Fault::Idle } => self.wear(STRIKES),
            Outcome::Backoff {
                reason: Reason::Named(a2::ErrorReason::Shutdown),
                ..
            } => {
                self.wear(STRIKES);
            }
            Outcome::Unanswered { .. } | Outcome::Backoff { status: 500.., .. } => self.wear(1),
            _ => {
                self.proved.store(true, Relaxed);
                // A worn connection stays worn.
                let fresh = |strikes| (strikes < STRIKES).then_some(0);
                let _ = self.strikes.fetch_update(Relaxed, Relaxed, fresh);
            }
        }
    }

    fn wear(&self, strikes: u32) {
        self.strikes.fetch_add(strikes, Relaxed);
    }
}

/// Waits for the server's SETTINGS; returns the number of streams it grants.
///
/// Hyper does not tell when they come, so the count, zero until then, is looked
/// at every few milliseconds. A server that grants no stream is no use either.
async fn settle(mut driver: Driver, fault: &OnceLock<Fault>) -> Result<(Driver, usize), Fault> {
    loop {
        match driver.current_max_send_streams() {
            0 => {}
            granted => return Ok((driver, granted)),
        }
        match timeout(SETTINGS_LOOK, &mut driver).await {
            Err(_) => {}
            Ok(Err(error)) => return Err(lost(fault, &error)),
            Ok(Ok(())) => {
                let closed = || Fault::Lost("closed before its settings".to_owned());
                return Err(fault.get().cloned().unwrap_or_else(closed));
            }
        }
    }
}

async fn read(response: Response<Incoming>, deadline: Instant, fault: &OnceLock<Fault>) -> Outcome {
    let (head, body) = response.into_parts();
    if head.status == StatusCode::OK {
        let id = head
            .headers
            .get("apns-id")
            .and_then(|id| id.to_str().ok()?.parse().ok());
        return Outcome::Accepted { apns_id: id };
    }
    let retry_after = head
        .headers
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok());
    let retry_after = retry_after
        .and_then(|value| value.parse().ok())
        .map(Duration::from_secs);
    let body = Limited::new(body, ERROR_BODY).collect();
    let (body, why) = match timeout_at(deadline, body).await {
        Ok(Ok(body)) => (Some(body.to_bytes()), Fault::Deadline),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            (Some(Bytes::new()), Fault::Deadline)
        }
        Ok(Err(error)) => {
            let cut = || Fault::Lost(format!("in the middle of an answer: {error}"));
            (None, fault.get().cloned().unwrap_or_else(cut))
        }
        Err(_) => (None, Fault::Deadline),
    };
    Outcome::refused(head.status.as_u16(), retry_after, body.as_deref(), why)
}

/// The fault of the transport if there is one, else that of HTTP/2.
fn lost(fault: &OnceLock<Fault>, error: &hyper::Error) -> Fault {
    fault
        .get()
        .cloned()
        .unwrap_or_else(|| Fault::from_hyper(error))
}

/// How much of an error body is read.
const ERROR_BODY: usize = 4096;
/// Failures in a row after which a connection is given up.
const STRIKES: u32 = 3;
/// How often to look for the server's SETTINGS while connecting.
const SETTINGS_LOOK: Duration = Duration::from_millis(2);
