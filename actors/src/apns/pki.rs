//! Certificates for the fake APNs and its clients.

use std::sync::{Arc, LazyLock};

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509NameBuilder};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;
use uuid::Uuid;

use crate::push_certificate::PushCertificate;

/// A CA with a server certificate for `localhost` and a push certificate.
pub(super) struct Pki {
    pub(super) ca: X509,
    server: (X509, PKey<Private>),
    push: X509,
}

impl Pki {
    pub(super) fn new() -> Self {
        let ca_key = key();
        let name = format!("fake root {}", Uuid::new_v4());
        let ca = issue(&name, None, &ca_key, None);
        let server_key = key();
        let server = issue("localhost", Some(&ca), &server_key, Some(&ca_key));
        let push = issue(TOPIC, Some(&ca), &PUSH_KEY, Some(&ca_key));
        Self {
            server: (server, server_key),
            push,
            ca,
        }
    }

    pub(super) fn push_certificate(&self) -> PushCertificate {
        let key = PUSH_KEY.private_key_to_pem_pkcs8().unwrap();
        PushCertificate::from_parts(&self.push.to_pem().unwrap(), &key).unwrap()
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from(self.ca.to_der().unwrap()))
            .unwrap();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let chain = vec![CertificateDer::from(self.server.0.to_der().unwrap())];
        let key = PrivatePkcs8KeyDer::from(self.server.1.private_key_to_pkcs8().unwrap());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(chain, key.into())
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }
}

fn key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

/// The one RSA key of all tests, since making one takes long.
static PUSH_KEY: LazyLock<PKey<Private>> =
    LazyLock::new(|| PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap());

fn issue(
    name: &str,
    ca: Option<&X509>,
    key: &PKey<Private>,
    ca_key: Option<&PKey<Private>>,
) -> X509 {
    let mut subject = X509NameBuilder::new().unwrap();
    if name.starts_with("com.apple") {
        subject.append_entry_by_nid(Nid::USERID, name).unwrap();
    }
    subject.append_entry_by_nid(Nid::COMMONNAME, name).unwrap();
    let subject = subject.build();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    let serial = BigNum::from_u32(name.len().try_into().unwrap()).unwrap();
    builder
        .set_serial_number(&serial.to_asn1_integer().unwrap())
        .unwrap();
    builder.set_subject_name(&subject).unwrap();
    builder
        .set_issuer_name(ca.map_or(&*subject, |ca| ca.subject_name()))
        .unwrap();
    builder
        .set_not_before(&Asn1Time::days_from_now(0).unwrap())
        .unwrap();
    builder
        .set_not_after(&Asn1Time::days_from_now(2).unwrap())
        .unwrap();
    builder.set_pubkey(key).unwrap();
    if ca.is_none() {
        builder
            .append_extension(BasicConstraints::new().critical().ca().build().unwrap())
            .unwrap();
    } else {
        let context = builder.x509v3_context(ca.map(|ca| &**ca), None);
        let name = SubjectAlternativeName::new()
            .dns(name)
            .build(&context)
            .unwrap();
        builder.append_extension(name).unwrap();
    }
    builder
        .sign(ca_key.unwrap_or(key), MessageDigest::sha256())
        .unwrap();
    builder.build()
}

pub(super) const TOPIC: &str = "com.apple.mgmt.External.fake";
