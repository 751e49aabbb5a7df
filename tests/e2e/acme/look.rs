//! A TLS client that trusts whatever it is shown, as a CA that looks for a challenge does.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use openssl::hash::MessageDigest;
use openssl::sign::Verifier;
use openssl::x509::X509;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme, SupportedProtocolVersion,
};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// What there was to see.
pub(super) struct Seen {
    /// DER of the leaf.
    pub(super) leaf: Vec<u8>,
    /// The protocol that was agreed on.
    pub(super) alpn: Option<Vec<u8>>,
    /// All that came until the server hung up, or a second passed without a byte.
    pub(super) answer: Vec<u8>,
}

/// Connects to a port of this machine and shakes hands. `request` is sent in one flight
/// with the end of the handshake; nothing is read when it is empty.
pub(super) async fn look(
    port: u16,
    name: &str,
    protocols: &[&str],
    version: &'static SupportedProtocolVersion,
    request: &[u8],
) -> std::io::Result<Seen> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Credulous))
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
    let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let connecting = connector.connect_with(name, tcp, |session| {
        session.writer().write_all(request).unwrap();
    });
    let mut stream = connecting.await?;
    let mut answer = Vec::new();
    while !request.is_empty() {
        let read = stream.read_buf(&mut answer);
        match tokio::time::timeout(Duration::from_secs(1), read).await {
            Ok(Ok(1..)) => {}
            _ => break,
        }
    }
    let session = stream.get_ref().1;
    Ok(Seen {
        leaf: session.peer_certificates().unwrap()[0].to_vec(),
        alpn: session.alpn_protocol().map(<[u8]>::to_vec),
        answer,
    })
}

/// Whether the server has the key of what it shows. By OpenSSL, as webpki does not read
/// the certificate of a challenge.
fn holds_its_key(
    message: &[u8],
    leaf: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    assert_eq!(signature.scheme, SignatureScheme::ECDSA_NISTP256_SHA256);
    let key = X509::from_der(leaf).unwrap().public_key().unwrap();
    let mut verifier = Verifier::new(MessageDigest::sha256(), &key).unwrap();
    let holds = verifier.verify_oneshot(signature.signature(), message);
    assert!(holds.unwrap());
    Ok(HandshakeSignatureValid::assertion())
}

#[derive(Debug)]
struct Credulous;

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        holds_its_key(message, leaf, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        holds_its_key(message, leaf, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let known = aws_lc_rs::default_provider().signature_verification_algorithms;
        known.supported_schemes()
    }
}
