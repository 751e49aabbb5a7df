//! The certificate a listener shows: one at a time, swapped while connections come. A CA
//! that comes to look (RFC 8737) is shown another, and no one else is.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use actors::acme::Stage;
use actors::tls::ChallengeCertificate;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, DnsName, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::connection::ACME_TLS;

/// What new connections are shown; those that exist keep what they have.
#[derive(Debug, Default)]
pub(super) struct Served {
    /// None until the first was issued; no handshake succeeds before that.
    certificate: RwLock<Option<Arc<CertifiedKey>>>,
    challenges: RwLock<BTreeMap<String, Arc<CertifiedKey>>>,
}

impl Served {
    pub(super) fn new(certificate: Option<CertifiedKey>) -> Arc<Self> {
        Arc::new(Self {
            certificate: RwLock::new(certificate.map(Arc::new)),
            challenges: RwLock::default(),
        })
    }

    pub(super) fn swap(&self, certificate: CertifiedKey) {
        *write(&self.certificate) = Some(Arc::new(certificate));
    }

    pub(super) fn now(&self) -> Option<Arc<CertifiedKey>> {
        read(&self.certificate).clone()
    }
}

impl ResolvesServerCert for Served {
    /// The same whatever name the client asks for: some ask by address, some through a
    /// name only their network knows, and each checks what it is shown. Only who speaks
    /// `acme-tls/1` and nothing else is shown the challenge of the name it asks for.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asked = hello.alpn();
        if asked.is_some_and(|mut asked| asked.next() == Some(ACME_TLS) && asked.next().is_none()) {
            let name = hello.server_name()?.to_ascii_lowercase();
            return read(&self.challenges).get(&name).cloned();
        }
        self.now()
    }
}

impl Stage for Served {
    fn show(
        &self,
        name: &DnsName<'static>,
        certificate: &ChallengeCertificate,
    ) -> Result<(), rustls::Error> {
        // Not checked against each other: webpki does not read a certificate with an
        // extension that is critical and unknown to it, as this one's must be.
        let key = PrivatePkcs8KeyDer::from(certificate.key.clone());
        let key = aws_lc_rs::sign::any_supported_type(&key.into())?;
        let chain = vec![CertificateDer::from(certificate.certificate.clone())];
        let certificate = CertifiedKey::new(chain, key);
        let name = name.as_ref().to_ascii_lowercase();
        write(&self.challenges).insert(name, Arc::new(certificate));
        Ok(())
    }

    fn clear(&self) {
        write(&self.challenges).clear();
    }
}

fn read<T>(slot: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    slot.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(slot: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    slot.write().unwrap_or_else(PoisonError::into_inner)
}
