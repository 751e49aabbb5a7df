//! The push certificate: ours, for APNs, one per Topic.
//!
//! Reads what an administrator has in hand (PEM in any order, PKCS#12 from
//! Keychain, or the certificate Apple made for a key of ours), proves that the
//! key belongs to the certificate and that the certificate is one for MDM, and
//! hands out the parts the APNs client needs. Called by the push supervisor and
//! by the doors that import certificates. Knows nothing of where it is stored:
//! `to_pem` is the form to seal, `from_stored` reads it back.

use std::fmt;

use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::pkcs12::Pkcs12;
use openssl::pkey::{PKey, Private};
use openssl::x509::{X509, X509NameRef, X509Ref};

mod error;
mod legacy;
mod pem;
mod request;
mod vendor;

pub use error::PushCertificateError;
pub use request::{KeyHash, PendingKey};
pub use vendor::{Vendor, VendorError};

/// A push certificate with its private key, checked against each other.
///
/// `Debug` shows the certificate, never the key.
#[derive(Clone)]
pub struct PushCertificate {
    /// The topic: the subject attribute UID, which begins with `com.apple.mgmt.`.
    pub topic: String,
    /// The end of validity in Unix seconds.
    pub not_after: i64,
    /// The serial number in upper-case hexadecimal digits.
    pub serial: String,
    /// The subject in one line, as `UID=…, CN=…, C=…`.
    pub subject: String,
    /// The certificates in DER, the push certificate first.
    pub chain_der: Vec<Vec<u8>>,
    key_der: SecretBytes,
}

impl PushCertificate {
    /// Reads a certificate and its key from PEM blocks in any order.
    ///
    /// A newline missing between two blocks is forgiven. The key may be PKCS#1,
    /// PKCS#8 or either of them encrypted, in which case `passphrase` opens it.
    /// Further certificates are kept as the chain.
    ///
    /// # Errors
    ///
    /// Names what is missing, unreadable or does not belong together.
    pub fn from_pem(bytes: &[u8], passphrase: Option<&str>) -> Result<Self, PushCertificateError> {
        let (mut certificates, mut key) = (Vec::new(), None);
        for block in pem::blocks(bytes) {
            let block = block?;
            if block.is_certificate() {
                certificates.push(block.certificate()?);
            } else if block.is_key() {
                if key.replace(block).is_some() {
                    return Err(PushCertificateError::TwoKeys);
                }
            } else {
                return Err(PushCertificateError::UnexpectedBlock {
                    label: block.label(),
                });
            }
        }
        if certificates.is_empty() && key.is_none() {
            return Err(PushCertificateError::NotPem);
        }
        // A certificate that is not for MDM is refused as such, even without its key.
        if let (None, Some(first)) = (&key, certificates.first()) {
            topic(first)?;
        }
        let key = key.ok_or(PushCertificateError::NoKey)?.key(passphrase)?;
        Self::new(certificates, &key)
    }

    /// Reads a certificate in PEM that belongs to a separately kept key in PEM.
    ///
    /// # Errors
    ///
    /// As [`PushCertificate::from_pem`].
    pub fn from_parts(cert_pem: &[u8], key_pem: &[u8]) -> Result<Self, PushCertificateError> {
        let mut both = SecretBytes(Vec::with_capacity(cert_pem.len() + key_pem.len() + 1));
        both.0.extend_from_slice(cert_pem);
        both.0.push(b'\n');
        both.0.extend_from_slice(key_pem);
        Self::from_pem(&both, None)
    }

    /// Reads a PKCS#12 file, also one exported by Keychain with its old ciphers.
    ///
    /// # Errors
    ///
    /// As [`PushCertificate::from_pem`]; a file with old ciphers needs OpenSSL's
    /// legacy provider on this machine.
    pub fn from_pkcs12(bytes: &[u8], passphrase: &str) -> Result<Self, PushCertificateError> {
        let file = Pkcs12::from_der(bytes).map_err(|_| PushCertificateError::BadPkcs12)?;
        let opened = legacy::with_legacy(|| file.parse2(passphrase)).map_err(|stack| {
            if legacy::has_reason(&stack, "mac verify failure") {
                PushCertificateError::WrongPassphrase
            } else if legacy::has_reason(&stack, "unsupported") {
                PushCertificateError::LegacyCipher
            } else {
                PushCertificateError::BadPkcs12
            }
        })?;
        let certificates: Vec<X509> = opened
            .cert
            .into_iter()
            .chain(opened.ca.into_iter().flatten())
            .collect();
        let key = opened.pkey.ok_or(PushCertificateError::NoKey)?;
        Self::new(certificates, &key)
    }

    /// Reads back what [`PushCertificate::to_pem`] wrote.
    ///
    /// # Errors
    ///
    /// As [`PushCertificate::from_pem`].
    pub fn from_stored(bytes: &[u8]) -> Result<Self, PushCertificateError> {
        Self::from_pem(bytes, None)
    }

    /// The chain and the unencrypted PKCS#8 key as PEM: seal it before storing.
    ///
    /// # Errors
    ///
    /// Only when OpenSSL itself fails.
    pub fn to_pem(&self) -> Result<SecretBytes, PushCertificateError> {
        let key = PKey::private_key_from_pkcs8(&self.key_der)?;
        let key_pem = SecretBytes(key.private_key_to_pem_pkcs8()?);
        let mut chain = Vec::new();
        for der in &self.chain_der {
            chain.extend(X509::from_der(der)?.to_pem()?);
        }
        let mut pem = SecretBytes(Vec::with_capacity(chain.len() + key_pem.len()));
        pem.0.extend_from_slice(&chain);
        pem.0.extend_from_slice(&key_pem);
        Ok(pem)
    }

    /// Whether the certificate is past its end at `now`, in Unix seconds.
    #[must_use]
    pub fn expired(&self, now: i64) -> bool {
        now > self.not_after
    }

    /// The private key as PKCS#8 DER.
    #[must_use]
    pub fn key_der(&self) -> &[u8] {
        &self.key_der
    }

    /// Which key the certificate is for.
    ///
    /// # Errors
    ///
    /// Only when OpenSSL itself fails.
    pub fn key_hash(&self) -> Result<KeyHash, PushCertificateError> {
        let key = PKey::private_key_from_pkcs8(&self.key_der)?;
        request::key_hash(&key)
    }

    /// Joins a renewed certificate, in PEM, with the key of this one.
    ///
    /// # Errors
    ///
    /// As [`PushCertificate::from_pem`].
    pub fn renewed(&self, certificate_pem: &[u8]) -> Result<Self, PushCertificateError> {
        let key = PKey::private_key_from_pkcs8(&self.key_der)?;
        let key_pem = SecretBytes(key.private_key_to_pem_pkcs8()?);
        Self::from_parts(certificate_pem, &key_pem)
    }

    fn new(mut certificates: Vec<X509>, key: &PKey<Private>) -> Result<Self, PushCertificateError> {
        let leaf = certificates
            .iter()
            .position(|certificate| belongs(certificate, key))
            .unwrap_or_default();
        if leaf >= certificates.len() {
            return Err(PushCertificateError::NoCertificate);
        }
        let leaf = certificates.remove(leaf);
        let topic = topic(&leaf)?;
        if !belongs(&leaf, key) {
            return Err(PushCertificateError::KeyMismatch { topic });
        }
        let mut chain_der = vec![leaf.to_der()?];
        for certificate in certificates {
            chain_der.push(certificate.to_der()?);
        }
        Ok(Self {
            topic,
            not_after: unix_seconds(leaf.not_after())?,
            serial: leaf.serial_number().to_bn()?.to_hex_str()?.to_string(),
            subject: one_line(leaf.subject_name()),
            chain_der,
            key_der: SecretBytes(key.private_key_to_pkcs8()?),
        })
    }
}

impl fmt::Debug for PushCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushCertificate")
            .field("topic", &self.topic)
            .field("not_after", &self.not_after)
            .field("serial", &self.serial)
            .finish_non_exhaustive()
    }
}

/// Bytes that hold a private key: overwritten when dropped, never printed.
#[derive(Clone)]
pub struct SecretBytes(Vec<u8>);

impl std::ops::Deref for SecretBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for SecretBytes {
    fn drop(&mut self) {
        self.0.fill(0);
        // Keeps the compiler from dropping a write to memory about to be freed.
        std::hint::black_box(&mut self.0);
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretBytes({} bytes)", self.0.len())
    }
}

fn belongs(certificate: &X509Ref, key: &PKey<Private>) -> bool {
    certificate
        .public_key()
        .is_ok_and(|public| public.public_eq(key))
}

fn topic(certificate: &X509Ref) -> Result<String, PushCertificateError> {
    let subject = certificate.subject_name();
    let uids: Vec<String> = subject
        .entries_by_nid(Nid::USERID)
        .filter_map(|entry| entry.data().to_string().ok())
        .collect();
    let Some(first) = uids.first() else {
        return Err(PushCertificateError::NoTopic {
            subject: one_line(subject),
        });
    };
    // The topic goes into an HTTP header, so it must be printable ASCII.
    let is_topic =
        |uid: &&String| uid.starts_with(TOPIC_PREFIX) && uid.bytes().all(|b| b.is_ascii_graphic());
    match uids.iter().find(is_topic) {
        Some(uid) => Ok(uid.clone()),
        None => Err(PushCertificateError::WrongTopic { uid: first.clone() }),
    }
}

fn one_line(name: &X509NameRef) -> String {
    let entries = name.entries().map(|entry| {
        let attribute = entry.object().nid().short_name().unwrap_or("?");
        format!(
            "{attribute}={}",
            entry.data().to_string().unwrap_or_default()
        )
    });
    entries.collect::<Vec<_>>().join(", ")
}

pub(crate) fn unix_seconds(time: &Asn1TimeRef) -> Result<i64, ErrorStack> {
    let since = Asn1Time::from_unix(0)?.diff(time)?;
    Ok(i64::from(since.days) * 86_400 + i64::from(since.secs))
}

/// What the topic of every MDM push certificate begins with.
const TOPIC_PREFIX: &str = "com.apple.mgmt.";

#[cfg(test)]
mod tests;
