//! TLS towards APNs: our push certificate shown, HTTP/2 offered, nothing else.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use crate::push_certificate::PushCertificate;

pub(super) fn connector(
    roots: RootCertStore,
    certificate: &PushCertificate,
) -> Result<TlsConnector, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let key = PrivatePkcs8KeyDer::from(certificate.key_der().to_vec());
    let key = provider.key_provider.load_private_key(key.into())?;
    let chain = certificate
        .chain_der
        .iter()
        .cloned()
        .map(CertificateDer::from)
        .collect();
    // The resolver takes our certificate as it is: webpki need not understand
    // it, and `PushCertificate` has proved that the key belongs to it.
    let identity = SingleCertAndKey::from(CertifiedKey::new(chain, key));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_cert_resolver(Arc::new(identity));
    config.alpn_protocols = vec![HTTP_2.to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The ALPN name of HTTP/2.
pub(super) const HTTP_2: &[u8] = b"h2";
