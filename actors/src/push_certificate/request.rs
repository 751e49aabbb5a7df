//! A key of ours that waits for its push certificate, and the request for it.
//!
//! Made once and kept sealed until Apple's answer comes back: the certificate alone,
//! which [`PendingKey::certify`] joins with the key. The request is signed by an MDM
//! vendor (see `vendor.rs`) before Apple's portal takes it.

use std::fmt;

use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{HasPublic, PKey, PKeyRef};
use openssl::rsa::Rsa;
use openssl::x509::{X509NameBuilder, X509Req};

use super::{PushCertificate, PushCertificateError, SecretBytes, pem};

/// SHA-256 of a public key (SubjectPublicKeyInfo): which key a certificate is for.
pub type KeyHash = [u8; 32];

/// A private key without a certificate, and the request made with it.
///
/// `Debug` shows the request, never the key.
#[derive(Clone)]
pub struct PendingKey {
    /// The PKCS#10 request in PEM.
    pub csr_pem: String,
    /// Its public key.
    pub hash: KeyHash,
    key_pem: SecretBytes,
}

impl PendingKey {
    /// Makes an RSA-2048 key and its request: the kind Apple's portal takes. Takes a
    /// noticeable part of a second.
    ///
    /// # Errors
    /// Only when OpenSSL itself fails.
    pub fn make() -> Result<Self, PushCertificateError> {
        let key = PKey::from_rsa(Rsa::generate(2048)?)?;
        let mut name = X509NameBuilder::new()?;
        // Apple replaces the subject; a person reads it in the portal at most.
        name.append_entry_by_nid(Nid::COMMONNAME, "Reveille MDM push")?;
        let mut request = X509Req::builder()?;
        request.set_version(0)?;
        request.set_subject_name(&name.build())?;
        request.set_pubkey(&key)?;
        request.sign(&key, MessageDigest::sha256())?;
        Ok(Self {
            csr_pem: text(request.build().to_pem()?)?,
            hash: key_hash(&key)?,
            key_pem: SecretBytes(key.private_key_to_pem_pkcs8()?),
        })
    }

    /// Reads back what [`PendingKey::to_stored`] wrote.
    ///
    /// # Errors
    /// When it is something else.
    pub fn from_stored(stored: &[u8]) -> Result<Self, PushCertificateError> {
        let (mut csr, mut key) = (None, None);
        for block in pem::blocks(stored) {
            let block = block?;
            if block.is_key() {
                key = Some(block);
            } else if block.is_request() {
                csr = Some(block);
            }
        }
        let (Some(csr), Some(key)) = (csr, key) else {
            return Err(PushCertificateError::NoKey);
        };
        let key_pem = SecretBytes(key.whole().to_vec());
        let private = key.key(None)?;
        Ok(Self {
            csr_pem: text(csr.whole().to_vec())? + "\n",
            hash: key_hash(&private)?,
            key_pem,
        })
    }

    /// The request and the unencrypted key as PEM: seal it before storing.
    #[must_use]
    pub fn to_stored(&self) -> SecretBytes {
        let (csr, key) = (self.csr_pem.as_bytes(), &self.key_pem.0);
        let mut stored = SecretBytes(Vec::with_capacity(csr.len() + key.len()));
        stored.0.extend_from_slice(csr);
        stored.0.extend_from_slice(key);
        stored
    }

    /// Joins the key with the certificate Apple made for it, in PEM.
    ///
    /// # Errors
    /// As [`PushCertificate::from_pem`]; [`PushCertificateError::KeyMismatch`] when the
    /// certificate was made for another key.
    pub fn certify(&self, certificate_pem: &[u8]) -> Result<PushCertificate, PushCertificateError> {
        PushCertificate::from_parts(certificate_pem, &self.key_pem)
    }
}

impl fmt::Debug for PendingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingKey")
            .field("csr_pem", &self.csr_pem)
            .finish_non_exhaustive()
    }
}

/// Which key this is.
pub(super) fn key_hash<T: HasPublic>(key: &PKeyRef<T>) -> Result<KeyHash, PushCertificateError> {
    let public = key.public_key_to_der()?;
    Ok(openssl::sha::sha256(&public))
}

fn text(pem: Vec<u8>) -> Result<String, PushCertificateError> {
    String::from_utf8(pem).map_err(|_| PushCertificateError::NotPem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_is_signed_with_its_own_rsa_2048_key() {
        let pending = PendingKey::make().unwrap();
        let request = X509Req::from_pem(pending.csr_pem.as_bytes()).unwrap();
        let key = request.public_key().unwrap();
        assert_eq!(key.rsa().unwrap().size(), 256);
        assert!(request.verify(&key).unwrap());
        assert_eq!(key_hash(&key).unwrap(), pending.hash);
        let shown = format!("{pending:?}");
        assert!(!shown.contains("PRIVATE"), "{shown}");
    }

    #[test]
    fn the_stored_form_reads_back() {
        let pending = PendingKey::make().unwrap();
        let again = PendingKey::from_stored(&pending.to_stored()).unwrap();
        assert_eq!(again.csr_pem, pending.csr_pem);
        assert_eq!(again.hash, pending.hash);
        assert!(PendingKey::from_stored(again.csr_pem.as_bytes()).is_err());
    }
}
