//! A connection that is made, and what its requests are told of it.

use std::any::Any;
use std::sync::Arc;

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::dev::Extensions;
use rustix::net::Shutdown;
use tokio::net::TcpStream;

/// The client certificate of a connection, as it was shown in the handshake.
#[derive(Clone, Debug)]
pub(crate) struct PeerLeaf(pub(crate) Arc<[u8]>);

/// Takes the client certificate of a new connection along, for the requests that come
/// over it; rustls gives it for resumed sessions too. A connection of `acme-tls/1` is over
/// with its handshake: nothing may be said on it (RFC 8737, section 3).
pub(crate) fn on_connect(connection: &dyn Any, extensions: &mut Extensions) {
    let Some(stream) = connection.downcast_ref::<TlsStream<TcpStream>>() else {
        return;
    };
    let (tcp, session) = stream.get_ref();
    if session.alpn_protocol() == Some(ACME_TLS) {
        // What fails is gone already.
        let _ = rustix::net::shutdown(tcp, Shutdown::Both);
        extensions.insert(Validation);
        return;
    }
    let chain = session.peer_certificates();
    if let Some(leaf) = chain.and_then(<[_]>::first) {
        extensions.insert(PeerLeaf(leaf.as_ref().into()));
    }
}

/// Marks a connection that was for a CA to look at. It is shut, but a request may have
/// come with the end of the handshake: it must reach no handler.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Validation;

/// The protocol by which a CA comes to look.
pub(super) const ACME_TLS: &[u8] = b"acme-tls/1";
