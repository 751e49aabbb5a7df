//! The device CA: the root that identity certificates of devices chain to.
//!
//! Made at the first start and kept as two files in the data directory. The door
//! trusts its certificate; what it issues is in `issue.rs`, the certificate that
//! answers SCEP clients in its place in `ra.rs`.

mod issue;
mod ra;

use std::io;
use std::path::Path;
use std::sync::Arc;

use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::Id;
use openssl::x509::extension::{BasicConstraints, KeyUsage, SubjectKeyIdentifier};

use crate::key_files::{self, KeyFileError, KeyPair, self_signed};

pub use issue::{PublicKey, SignedLeaf};
pub(crate) use issue::{message_digest, verify};
pub(crate) use ra::Ra;

/// The device CA. Cheap to clone; never shows its key.
#[derive(Clone)]
pub struct DeviceCa {
    /// The certificate in PEM.
    pub certificate_pem: Vec<u8>,
    signer: Arc<KeyPair>,
}

/// The kind of key a CA is made with; it has it for life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaKey {
    /// RSA of 2048 bits, which every device takes.
    Rsa2048,
    /// ECDSA on P-256.
    P256,
}

impl std::fmt::Debug for DeviceCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DeviceCa(..)")
    }
}

impl DeviceCa {
    /// Reads the CA of a data directory, making one with such a key when there is none.
    ///
    /// # Errors
    /// [`CaError`] when a file cannot be read or written, or one of the two is missing.
    pub fn open(directory: &Path, key: CaKey, valid_days: u32) -> Result<Self, CaError> {
        Self::of(KeyPair::open(directory, NAME, || make(key, valid_days))?)
    }

    /// Reads the CA of a data directory that must have one: devices enrolled already.
    ///
    /// # Errors
    /// [`CaError`] when a file cannot be read, or is missing.
    pub fn reopen(directory: &Path) -> Result<Self, CaError> {
        let pair = KeyPair::reopen(directory, NAME)?;
        Self::of(pair.ok_or(CaError::Lost)?)
    }

    fn of(pair: KeyPair) -> Result<Self, CaError> {
        Ok(Self {
            certificate_pem: pair.certificate.to_pem()?,
            signer: Arc::new(pair),
        })
    }

    /// The kind of its key, if it is one we make.
    #[must_use]
    pub fn key(&self) -> Option<CaKey> {
        match self.signer.key.id() {
            Id::RSA => Some(CaKey::Rsa2048),
            Id::EC => Some(CaKey::P256),
            _ => None,
        }
    }

    /// The certificate in DER.
    ///
    /// # Errors
    /// [`CaError`] when OpenSSL cannot write it.
    pub fn certificate_der(&self) -> Result<Vec<u8>, CaError> {
        Ok(self.signer.certificate.to_der()?)
    }

    /// SHA-1 of the certificate: the `CAFingerprint` of a SCEP payload.
    ///
    /// # Errors
    /// [`CaError`] when OpenSSL cannot hash it.
    pub fn fingerprint(&self) -> Result<Vec<u8>, CaError> {
        Ok(self
            .signer
            .certificate
            .digest(MessageDigest::sha1())?
            .to_vec())
    }
}

/// Why there is no device CA.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// There is none where devices have certificates of one.
    #[error(
        "ca.pem and ca.key are missing from the data directory, though its store knows devices: \
         put both back; a new CA would shut every device out"
    )]
    Lost,
    /// Its files are not what they should be; a new CA would shut all devices out.
    #[error("device CA: {0}")]
    Files(#[from] KeyFileError),
    /// A file of the RA cannot be read or written.
    #[error("device CA: {0}")]
    Io(#[from] io::Error),
    /// A key is not one to certify.
    #[error("device CA: a key of its own cannot be certified")]
    BadKey,
    /// OpenSSL's word.
    #[error("device CA: {0}")]
    OpenSsl(#[from] ErrorStack),
    /// The machine gives none.
    #[error("device CA: no randomness")]
    NoRandomness,
    /// A certificate OpenSSL made does not read back.
    #[error("device CA: {0}")]
    Der(#[from] schema::der::DerError),
}

fn make(key: CaKey, valid_days: u32) -> Result<KeyPair, ErrorStack> {
    let key = match key {
        CaKey::Rsa2048 => key_files::rsa_key()?,
        CaKey::P256 => key_files::p256_key()?,
    };
    self_signed("Reveille Device CA", key, valid_days, |builder| {
        builder.append_extension(BasicConstraints::new().critical().ca().build()?)?;
        let usage = KeyUsage::new()
            .critical()
            .key_cert_sign()
            .crl_sign()
            .build()?;
        builder.append_extension(usage)?;
        let key_id = SubjectKeyIdentifier::new().build(&builder.x509v3_context(None, None))?;
        builder.append_extension(key_id)
    })
}

/// Its files are `ca.pem` and `ca.key`.
const NAME: &str = "ca";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_keeps_the_key_it_was_made_with() {
        for (made_with, asked_later) in
            [(CaKey::Rsa2048, CaKey::P256), (CaKey::P256, CaKey::Rsa2048)]
        {
            let directory = tempfile::tempdir().unwrap();
            let made = DeviceCa::open(directory.path(), made_with, 3650).unwrap();
            let read = DeviceCa::open(directory.path(), asked_later, 3650).unwrap();
            assert_eq!(made.certificate_pem, read.certificate_pem);
            assert_eq!(read.key(), Some(made_with));
        }
    }

    #[test]
    fn where_devices_are_known_no_other_is_made() {
        let directory = tempfile::tempdir().unwrap();
        let none = DeviceCa::reopen(directory.path());
        assert!(matches!(none, Err(CaError::Lost)));
        let made = DeviceCa::open(directory.path(), CaKey::P256, 3650).unwrap();
        let read = DeviceCa::reopen(directory.path()).unwrap();
        assert_eq!(made.certificate_pem, read.certificate_pem);
    }
}
