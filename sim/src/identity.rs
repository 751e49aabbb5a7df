//! A device's identity: its certificate and key, and the two ways a proxy
//! carries it in a header. Made by `DeviceCa`, used by `Client` and `load`.

use std::sync::Arc;

use base64::prelude::*;
use openssl::pkey::{PKey, Private};
use openssl::sha::sha256;

use crate::cms::{self, SignatureForm};
use crate::der;
use crate::error::SimError;

/// An identity certificate with its key.
#[derive(Clone)]
pub struct Identity {
    /// The leaf certificate.
    pub cert_der: Arc<[u8]>,
    /// Its RSA-2048 key, shared with other devices of the same pool.
    pub key: PKey<Private>,
    /// `IssuerAndSerialNumber`, as CMS names the signer.
    pub(crate) issuer_and_serial: Arc<[u8]>,
}

impl Identity {
    /// An identity whose certificate came from elsewhere.
    pub fn new(cert_der: &[u8], key: PKey<Private>) -> Result<Self, SimError> {
        let cert = openssl::x509::X509::from_der(cert_der)?;
        let issuer = cert.issuer_name().to_der()?;
        let serial = cert.serial_number().to_bn()?.to_vec();
        Ok(Self {
            cert_der: cert_der.into(),
            key,
            issuer_and_serial: der::sequence(&[&issuer, &der::unsigned(&serial)]).into(),
        })
    }

    /// The value of `Client-Cert` (RFC 9440): `:<base64 DER>:`.
    pub fn header_rfc9440(&self) -> String {
        format!(":{}:", BASE64_STANDARD.encode(&self.cert_der))
    }

    /// The value of `Mdm-Signature` over `body`, in the compact form.
    pub fn sign(&self, body: &[u8]) -> Result<String, SimError> {
        self.sign_as(body, SignatureForm::COMPACT)
    }

    /// The value of `Mdm-Signature` over `body`, in the given form.
    pub fn sign_as(&self, body: &[u8], form: SignatureForm) -> Result<String, SimError> {
        Ok(BASE64_STANDARD.encode(cms::detached(self, body, form)?))
    }

    /// A CMS message with `body` inside, in the given form.
    pub fn wrap(&self, body: &[u8], form: SignatureForm) -> Result<Vec<u8>, SimError> {
        cms::attached(self, body, form)
    }

    /// SHA-256 of the leaf certificate: what a server binds an enrollment to.
    pub fn leaf_hash(&self) -> [u8; 32] {
        sha256(&self.cert_der)
    }

    /// The certificate as PEM.
    pub fn cert_pem(&self) -> Result<Vec<u8>, SimError> {
        Ok(openssl::x509::X509::from_der(&self.cert_der)?.to_pem()?)
    }

    /// The key as PKCS#8 DER, for a TLS client.
    pub fn key_pkcs8_der(&self) -> Result<Vec<u8>, SimError> {
        Ok(self.key.private_key_to_pkcs8()?)
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({} bytes)", self.cert_der.len())
    }
}
