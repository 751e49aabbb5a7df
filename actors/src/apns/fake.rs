//! A fake APNs for the tests: real TLS, real HTTP/2, answers on order.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::pki::{Pki, TOPIC};
use super::{ApnsClient, Endpoint, Push, Timing};

/// How the server answers one push.
#[derive(Clone, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Bytes,
    pub(super) delay: Duration,
    /// The body never ends.
    pub(super) stalls: bool,
}

impl Answer {
    pub(super) fn ok() -> Self {
        Self {
            status: 200,
            ..Self::default()
        }
    }

    pub(super) fn refusal(status: u16, reason: &str) -> Self {
        let body = Bytes::from(format!(r#"{{"reason":"{reason}"}}"#));
        Self {
            status,
            body,
            ..Self::default()
        }
    }

    pub(super) fn after(self, millis: u64) -> Self {
        Self {
            delay: Duration::from_millis(millis),
            ..self
        }
    }
}

/// What is done to the connections of a running server.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Order {
    Serve,
    GoAway,
    Reset,
}

/// One push as it came in.
pub(super) struct Seen {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

pub(super) struct Fake {
    pub(super) port: u16,
    pub(super) connections: Arc<AtomicUsize>,
    pub(super) seen: Arc<Mutex<Vec<Seen>>>,
    /// The client certificates in DER, one per connection.
    pub(super) peers: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// Everything that differs between fakes.
pub(super) struct Script {
    pub(super) streams: u32,
    /// What is done to all connections at which push.
    pub(super) order: Option<(usize, Order)>,
    /// Whether pushes are kept in `seen`.
    pub(super) records: bool,
    pub(super) answer: Box<dyn Fn(usize) -> Answer + Send + Sync>,
}

impl Script {
    pub(super) fn new(answer: impl Fn(usize) -> Answer + Send + Sync + 'static) -> Self {
        Self {
            streams: 1000,
            order: None,
            records: true,
            answer: Box::new(answer),
        }
    }
}

impl Fake {
    /// Starts a server on a free port that demands certificates of `pki`.
    pub(super) async fn start(pki: &Pki, script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Self {
            port: listener.local_addr().unwrap().port(),
            connections: Arc::default(),
            seen: Arc::default(),
            peers: Arc::default(),
        };
        let accept = Accept {
            tls: pki.acceptor(),
            script: Arc::new(script),
            connections: Arc::clone(&fake.connections),
            seen: Arc::clone(&fake.seen),
            peers: Arc::clone(&fake.peers),
            pushes: Arc::default(),
            orders: watch::Sender::new(Order::Serve),
        };
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                tokio::spawn(accept.clone().serve(tcp));
            }
        });
        fake
    }

    pub(super) fn endpoint(&self, pki: &Pki, max_connections: usize) -> Endpoint {
        let extra_root_pem = Some(pki.ca.to_pem().unwrap());
        Endpoint {
            host: "localhost".to_owned(),
            port: self.port,
            extra_root_pem,
            max_connections,
        }
    }

    pub(super) fn client(&self, pki: &Pki, max_connections: usize) -> ApnsClient {
        let endpoint = self.endpoint(pki, max_connections);
        ApnsClient::with_timing(endpoint, &pki.push_certificate(), quick()).unwrap()
    }
}

#[derive(Clone)]
struct Accept {
    tls: TlsAcceptor,
    script: Arc<Script>,
    connections: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<Seen>>>,
    peers: Arc<Mutex<Vec<Vec<u8>>>>,
    pushes: Arc<AtomicUsize>,
    orders: watch::Sender<Order>,
}

impl Accept {
    async fn serve(self, tcp: TcpStream) {
        let mut orders = self.orders.subscribe();
        tcp.set_nodelay(true).unwrap();
        let Ok(tls) = self.tls.accept(tcp).await else {
            return;
        };
        self.connections.fetch_add(1, SeqCst);
        let peer = tls.get_ref().1.peer_certificates().unwrap()[0].to_vec();
        self.peers.lock().unwrap().push(peer);
        let streams = self.script.streams;
        let service = service_fn(move |request| self.clone().answer(request));
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.max_concurrent_streams(streams);
        let connection = builder.serve_connection(TokioIo::new(tls), service);
        tokio::pin!(connection);
        loop {
            tokio::select! {
                _ = &mut connection => return,
                order = orders.changed() => match order.map(|()| *orders.borrow()) {
                    Ok(Order::GoAway) => connection.as_mut().graceful_shutdown(),
                    Ok(Order::Serve) => {}
                    Ok(Order::Reset) | Err(_) => return,
                }
            }
        }
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Tail>, Infallible> {
        let nth = self.pushes.fetch_add(1, SeqCst);
        let (head, body) = request.into_parts();
        let body = body
            .collect()
            .await
            .map(|body| body.to_bytes())
            .unwrap_or_default();
        if self.script.records {
            let (method, uri, headers) = (head.method, head.uri, head.headers);
            self.seen.lock().unwrap().push(Seen {
                method,
                uri,
                headers,
                body,
            });
        }
        match self.script.order {
            Some((at, order)) if at == nth => drop(self.orders.send(order)),
            _ => {}
        }
        let answer = (self.script.answer)(nth);
        tokio::time::sleep(answer.delay).await;
        let mut response = Response::builder().status(answer.status);
        for (name, value) in answer.headers {
            response = response.header(name, value);
        }
        Ok(response
            .body(Tail {
                rest: Some(answer.body),
                stalls: answer.stalls,
            })
            .unwrap())
    }
}

/// A body that may never end.
struct Tail {
    rest: Option<Bytes>,
    stalls: bool,
}

impl Body for Tail {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.rest.take().filter(|rest| !rest.is_empty()) {
            Some(rest) => Poll::Ready(Some(Ok(Frame::data(rest)))),
            None if self.stalls => Poll::Pending,
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        !self.stalls && self.rest.as_ref().is_none_or(Bytes::is_empty)
    }
}

/// A timing for tests that wait for the end of patience.
pub(super) fn quick() -> Timing {
    Timing {
        connect: Duration::from_secs(5),
        answer: Duration::from_secs(5),
        ping_interval: Duration::from_secs(1),
        ping_timeout: Duration::from_secs(1),
        reconnect_least: Duration::from_millis(20),
        reconnect_most: Duration::from_millis(100),
    }
}

pub(super) fn a_push() -> Push {
    Push {
        token: vec![0x01, 0xAB, 0xFF],
        topic: TOPIC.to_owned(),
        magic: "7B1F9A3E-magic".to_owned(),
        expiration: 0,
        apns_id: None,
    }
}
