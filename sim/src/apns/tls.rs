//! The fake APNs' certificates: a root of its own, a leaf for loopback and
//! Apple's names, and a verifier that asks for a client certificate and
//! believes any.

use std::sync::Arc;

use openssl::hash::MessageDigest;
use openssl::x509::X509Builder;
use openssl::x509::extension::{ExtendedKeyUsage, SubjectAlternativeName};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use tokio_rustls::TlsAcceptor;

use crate::ca::{describe, name, p256_key, self_signed};
use crate::error::SimError;

/// A fresh root (PEM) and an acceptor under it.
pub(super) fn authority() -> Result<(Vec<u8>, TlsAcceptor), SimError> {
    let root_key = p256_key()?;
    let root = self_signed("Reveille Fake APNs Root", &root_key)?;
    let leaf_key = p256_key()?;
    let mut builder = X509Builder::new()?;
    describe(
        &mut builder,
        &*name("localhost")?,
        root.subject_name(),
        &leaf_key,
        ONE_YEAR,
    )?;
    let names = SubjectAlternativeName::new()
        .dns("localhost")
        .dns("api.push.apple.com")
        .dns("api.development.push.apple.com")
        .ip("127.0.0.1")
        .ip("::1")
        .build(&builder.x509v3_context(Some(&root), None))?;
    builder.append_extension(names)?;
    builder.append_extension(ExtendedKeyUsage::new().server_auth().build()?)?;
    builder.sign(&root_key, MessageDigest::sha256())?;

    let chain = vec![
        CertificateDer::from(builder.build().to_der()?),
        CertificateDer::from(root.to_der()?),
    ];
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(leaf_key.private_key_to_pkcs8()?));
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(AnyCertificate(provider)))
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok((root.to_pem()?, TlsAcceptor::from(Arc::new(config))))
}

/// Asks for a client certificate; takes any chain, and none. The client must
/// still prove that it holds the key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ClientCertVerifier for AnyCertificate {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

const ONE_YEAR: u32 = 365;
