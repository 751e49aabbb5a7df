//! A TLS server that demands a certificate of the device CA, says 200 to
//! everything, and remembers whose leaves it was shown.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use openssl::asn1::Asn1Time;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::extension::SubjectAlternativeName;
use openssl::x509::{X509, X509Builder};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use sim::DeviceCa;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A running server.
pub(crate) struct TlsServer {
    pub(crate) url: String,
    pub(crate) root_pem: Vec<u8>,
    pub(crate) leaves: Arc<Mutex<BTreeSet<Vec<u8>>>>,
}

impl TlsServer {
    pub(crate) async fn start(ca: &DeviceCa) -> Self {
        let (cert, key) = self_signed();
        let acceptor = acceptor(ca, &cert, &key);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!(
            "https://localhost:{}",
            listener.local_addr().unwrap().port()
        );
        let leaves = Arc::new(Mutex::new(BTreeSet::new()));
        let shown = leaves.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let tls = acceptor.accept(stream).await.unwrap();
                let chain = tls.get_ref().1.peer_certificates().unwrap();
                shown.lock().unwrap().insert(chain[0].to_vec());
                let service =
                    http1::Builder::new().serve_connection(TokioIo::new(tls), service_fn(approve));
                tokio::spawn(service);
            }
        });
        Self {
            url,
            root_pem: cert.to_pem().unwrap(),
            leaves,
        }
    }
}

async fn approve(request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, Infallible> {
    assert!(!request.headers().contains_key("client-cert"));
    request.into_body().collect().await.unwrap();
    Ok(Response::new(Empty::new()))
}

fn acceptor(ca: &DeviceCa, cert: &X509, key: &PKey<Private>) -> TlsAcceptor {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(ca.der())).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let chain = vec![CertificateDer::from(cert.to_der().unwrap())];
    let key = PrivatePkcs8KeyDer::from(key.private_key_to_pkcs8().unwrap());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(chain, PrivateKeyDer::from(key))
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// A certificate for localhost that is its own root.
fn self_signed() -> (X509, PKey<Private>) {
    let curve = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let key = PKey::from_ec_key(EcKey::generate(&curve).unwrap()).unwrap();
    let mut builder = X509Builder::new().unwrap();
    builder.set_version(2).unwrap();
    builder.set_pubkey(&key).unwrap();
    let now = Asn1Time::days_from_now(0).unwrap();
    let tomorrow = Asn1Time::days_from_now(1).unwrap();
    builder.set_not_before(&now).unwrap();
    builder.set_not_after(&tomorrow).unwrap();
    let name = SubjectAlternativeName::new()
        .dns("localhost")
        .build(&builder.x509v3_context(None, None))
        .unwrap();
    builder.append_extension(name).unwrap();
    builder.sign(&key, MessageDigest::sha256()).unwrap();
    (builder.build(), key)
}
