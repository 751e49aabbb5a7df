//! A device's HTTP client: one keep-alive HTTP/1.1 connection, the identity in
//! a header or in the TLS handshake. Knows nothing of what the messages mean.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use hyper::{Request, Response, StatusCode, body::Incoming};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;

use crate::cms::SignatureForm;
use crate::dial::{Stream, dial};
use crate::error::SimError;
use crate::identity::Identity;
use crate::target::{Proof, Target};

/// A connection to one server, opened when needed.
pub struct Client {
    target: Arc<Target>,
    form: SignatureForm,
    connection: Option<SendRequest<Full<Bytes>>>,
}

/// Which door a message goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    CheckIn,
    Connect,
}

/// What the server answered.
#[derive(Clone, Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: StatusCode,
    /// Body.
    pub body: Bytes,
    /// `Retry-After`, in seconds.
    pub retry_after: Option<u64>,
}

impl Client {
    /// A client of `target`, not yet connected.
    pub fn new(target: Arc<Target>) -> Self {
        Self {
            target,
            form: SignatureForm::default(),
            connection: None,
        }
    }

    /// Writes its `Mdm-Signature` in this form from now on.
    pub fn sign_as(&mut self, form: SignatureForm) {
        self.form = form;
    }

    /// PUTs a check-in.
    pub async fn check_in(&mut self, as_: &Identity, body: Vec<u8>) -> Result<Reply, SimError> {
        self.put(Door::CheckIn, as_, body).await
    }

    /// PUTs a report.
    pub async fn report(&mut self, as_: &Identity, body: Vec<u8>) -> Result<Reply, SimError> {
        self.put(Door::Connect, as_, body).await
    }

    /// Sends a report whole on a connection of its own and drops that before
    /// any answer: the server may or may not have seen it.
    pub async fn report_and_vanish(
        &mut self,
        as_: &Identity,
        body: Vec<u8>,
    ) -> Result<(), SimError> {
        self.disconnect();
        let bytes = plain_request(&self.target, Door::Connect, as_, &body, self.form)?;
        let mut stream = dial(&self.target, as_).await?;
        stream.write_all(&bytes).await?;
        stream.shutdown().await?;
        Ok(())
    }

    /// Drops the connection; the next message opens a new one.
    pub fn disconnect(&mut self) {
        self.connection = None;
    }

    async fn put(&mut self, door: Door, as_: &Identity, body: Vec<u8>) -> Result<Reply, SimError> {
        let mut request = Request::put(door.path(&self.target))
            .header(HOST, &self.target.host)
            .header(USER_AGENT, "MDM/1.0")
            .header(CONTENT_TYPE, door.content_type());
        if let Some((name, proof)) = proof(self.target.proof, as_, &body, self.form)? {
            request = request.header(name, proof);
        }
        let request = request.body(Full::new(Bytes::from(body)))?;
        let response = match self.send(as_, request).await {
            Ok(response) => response,
            Err(error) => {
                self.disconnect();
                return Err(error);
            }
        };
        let (head, body) = response.into_parts();
        let body = body
            .collect()
            .await
            .inspect_err(|_| self.connection = None)?;
        let retry_after = head.headers.get(RETRY_AFTER);
        Ok(Reply {
            status: head.status,
            body: body.to_bytes(),
            retry_after: retry_after.and_then(|value| value.to_str().ok()?.parse().ok()),
        })
    }

    /// Sends on the kept connection; on a new one when the server had closed
    /// the kept one before the request was written.
    async fn send(
        &mut self,
        as_: &Identity,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, SimError> {
        let mut request = request;
        if let Some(kept) = self.connection.as_mut()
            && kept.ready().await.is_ok()
        {
            match kept.try_send_request(request).await {
                Ok(response) => return Ok(response),
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(failed.into_error().into()),
                },
            }
        }
        let stream = dial(&self.target, as_).await?;
        let connection = self.connection.insert(converse(stream).await?);
        Ok(connection.send_request(request).await?)
    }
}

impl Door {
    pub(crate) fn path(self, target: &Target) -> &str {
        match self {
            Self::CheckIn => &target.checkin_path,
            Self::Connect => &target.connect_path,
        }
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::CheckIn => "application/x-apple-aspen-mdm-checkin",
            Self::Connect => "application/x-apple-aspen-mdm",
        }
    }
}

/// A whole PUT as bytes, for whoever writes to the socket itself.
pub(crate) fn plain_request(
    target: &Target,
    door: Door,
    as_: &Identity,
    body: &[u8],
    form: SignatureForm,
) -> Result<Vec<u8>, SimError> {
    let proof = match proof(target.proof, as_, body, form)? {
        Some((name, value)) => format!("{name}: {value}\r\n"),
        None => String::new(),
    };
    let mut request = format!(
        "PUT {} HTTP/1.1\r\nhost: {}\r\nuser-agent: MDM/1.0\r\ncontent-type: {}\r\n\
         {proof}content-length: {}\r\n\r\n",
        door.path(target),
        target.host,
        door.content_type(),
        body.len(),
    )
    .into_bytes();
    request.extend_from_slice(body);
    Ok(request)
}

async fn converse(stream: Box<dyn Stream>) -> Result<SendRequest<Full<Bytes>>, SimError> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    // Ends when the sender is dropped; its error reaches the sender too.
    tokio::spawn(connection);
    Ok(sender)
}

/// The header that proves the identity; none where TLS does.
fn proof(
    proof: Proof,
    as_: &Identity,
    body: &[u8],
    form: SignatureForm,
) -> Result<Option<(&'static str, String)>, SimError> {
    Ok(match proof {
        Proof::Signature => Some(("mdm-signature", as_.sign_as(body, form)?)),
        Proof::Header => Some(("client-cert", as_.header_rfc9440())),
        Proof::Tls => None,
    })
}
