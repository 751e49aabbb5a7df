//! The fake APNs' connections: accepts, counts streams, answers as scripted,
//! and breaks what the script wants broken.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{CONTENT_TYPE, RETRY_AFTER};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use super::Shared;
use super::request::{Push, Refusal};
use super::script::Answer;
use crate::error::SimError;

/// Accepts connections for ever.
pub(super) async fn accept(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(serve(stream, acceptor.clone(), shared.clone()));
            }
            // Out of descriptors: give others time to close theirs.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let mut hang_up = shared.hang_up.subscribe();
    // A handshake that fails is the client's business; it is not counted.
    let Ok(()) = stream.set_nodelay(true) else {
        return;
    };
    shared.log.change(|log| log.attempts.push(Instant::now()));
    let (hole, delay) = shared
        .script
        .read(|script| (script.black_hole, script.handshake_delay));
    if hole {
        // Held open until the client gives up or all are hung up.
        let _ = hang_up.changed().await;
        return;
    }
    tokio::time::sleep(delay).await;
    let Ok(tls) = acceptor.accept(stream).await else {
        return;
    };
    let certified = tls.get_ref().1.peer_certificates().is_some();
    shared.log.change(|log| {
        log.connections.opened += 1;
        log.connections.open += 1;
        log.connections.with_certificate += u64::from(certified);
    });

    let (orders, mut ordered) = mpsc::unbounded_channel();
    let line = Arc::new(Line {
        shared: shared.clone(),
        certified,
        streams: AtomicU64::new(0),
        orders,
    });
    let service = service_fn(|request| answer(line.clone(), request));
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(shared.script.read(|script| script.max_concurrent_streams))
        .serve_connection(TokioIo::new(tls), service);
    let mut connection = pin!(connection);
    loop {
        tokio::select! {
            _ = connection.as_mut() => break,
            _ = hang_up.changed() => break,
            Some(order) = ordered.recv() => match order {
                Order::GoAway => connection.as_mut().graceful_shutdown(),
                Order::Drop => break,
            },
        }
    }
    shared.log.change(|log| log.connections.open -= 1);
}

/// What the streams of one connection share.
struct Line {
    shared: Arc<Shared>,
    certified: bool,
    streams: AtomicU64,
    orders: mpsc::UnboundedSender<Order>,
}

/// What a stream asks of its connection.
enum Order {
    GoAway,
    Drop,
}

impl Line {
    /// Counts a stream and breaks the connection where the script says so.
    fn count_stream(&self) {
        let streams = self.streams.fetch_add(1, Ordering::Relaxed) + 1;
        let (go_away, drop) = self
            .shared
            .script
            .read(|script| (script.go_away_after, script.drop_after));
        if go_away == Some(streams) {
            let _ = self.orders.send(Order::GoAway);
        }
        if drop == Some(streams) {
            let _ = self.orders.send(Order::Drop);
        }
    }
}

/// An error from here becomes RST_STREAM.
async fn answer(
    line: Arc<Line>,
    request: Request<Incoming>,
) -> Result<Response<Reply>, Box<dyn std::error::Error + Send + Sync>> {
    line.count_stream();
    let shared = &line.shared;
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    shared.note_arrived();
    let delay = shared.script.read(|script| script.delay);
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    let push = match Push::read(&head, &body) {
        Ok(push) => push,
        Err(refusal) => return Ok(malformed(shared, &refusal)?),
    };
    shared.note_received(&push);
    let uncertified = !line.certified && shared.script.read(|script| script.certificate_required);
    if uncertified {
        let missing = Answer::refuse(403, "MissingProviderToken");
        return Ok(reply(&push.apns_id, &missing)?);
    }
    let answer = shared.script.change(|script| script.take(&push.token_hex));
    match answer {
        Answer::Accept => {
            let id = push.apns_id.clone();
            shared.note_accepted(push);
            Ok(reply(&id, &answer)?)
        }
        Answer::Refuse { .. } | Answer::StallBody { .. } | Answer::ResetBody { .. } => {
            Ok(reply(&push.apns_id, &answer)?)
        }
        Answer::Reset => Err("scripted reset".into()),
        Answer::Drop => {
            let _ = line.orders.send(Order::Drop);
            std::future::pending().await
        }
        Answer::Stall => std::future::pending().await,
    }
}

fn malformed(shared: &Shared, refusal: &Refusal) -> Result<Response<Reply>, SimError> {
    shared.note_malformed(refusal);
    let id = uuid::Uuid::new_v4().to_string();
    reply(&id, &Answer::refuse(refusal.status, refusal.reason))
}

/// The response an answer has, in Apple's form.
fn reply(apns_id: &str, answer: &Answer) -> Result<Response<Reply>, SimError> {
    let mut response = Response::builder().header("apns-id", apns_id);
    let body = match answer {
        Answer::Refuse {
            status,
            reason,
            timestamp,
            retry_after,
        } => {
            response = response
                .status(*status)
                .header(CONTENT_TYPE, "application/json");
            if let Some(seconds) = retry_after {
                response = response.header(RETRY_AFTER, *seconds);
            }
            let body = match timestamp {
                Some(at) => serde_json::json!({"reason": reason, "timestamp": at}),
                None => serde_json::json!({"reason": reason}),
            };
            Reply::whole(body.to_string())
        }
        Answer::StallBody { status } | Answer::ResetBody { status } => {
            response = response
                .status(*status)
                .header(CONTENT_TYPE, "application/json");
            Reply {
                chunk: Some(Bytes::from_static(b"{\"reason\":")),
                end: match answer {
                    Answer::StallBody { .. } => End::Stall,
                    _ => End::Reset,
                },
            }
        }
        _ => Reply::whole(String::new()),
    };
    Ok(response.body(body)?)
}

/// A body that is whole, or stops in the middle.
struct Reply {
    chunk: Option<Bytes>,
    end: End,
}

/// What comes after the chunk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Whole,
    Stall,
    Reset,
}

impl Reply {
    fn whole(text: String) -> Self {
        Self {
            chunk: (!text.is_empty()).then(|| Bytes::from(text)),
            end: End::Whole,
        }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match (self.chunk.take(), self.end) {
            (Some(chunk), _) => Poll::Ready(Some(Ok(Frame::data(chunk)))),
            (None, End::Whole) => Poll::Ready(None),
            (None, End::Stall) => Poll::Pending,
            (None, End::Reset) => Poll::Ready(Some(Err(io::Error::other("scripted reset")))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.chunk.is_none() && self.end == End::Whole
    }
}
