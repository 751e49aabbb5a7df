//! The device CA: the root that identity certificates of devices chain to.
//!
//! Made at the first start and kept as two files in the data directory. The door
//! trusts its certificate; what it issues is in `issue.rs`, the certificate that
//! answers SCEP clients in its place in `ra.rs`.

mod issue;
mod ra;

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{BasicConstraints, KeyUsage, SubjectKeyIdentifier};
use openssl::x509::{X509, X509NameBuilder};

pub use issue::{PublicKey, SignedLeaf};
pub(crate) use issue::{message_digest, verify};
pub(crate) use ra::Ra;

/// The device CA. Cheap to clone; never shows its key.
#[derive(Clone)]
pub struct DeviceCa {
    /// The certificate in PEM.
    pub certificate_pem: Vec<u8>,
    signer: Arc<Signer>,
}

struct Signer {
    certificate: X509,
    key: PKey<Private>,
}

impl std::fmt::Debug for DeviceCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DeviceCa(..)")
    }
}

impl DeviceCa {
    /// Reads the CA of a data directory, making it (RSA-2048) when there is none.
    ///
    /// # Errors
    /// [`CaError`] when a file cannot be read or written, or one of the two is missing.
    pub fn open(directory: &Path, valid_days: u32) -> Result<Self, CaError> {
        let (certificate, key) = (directory.join("ca.pem"), directory.join("ca.key"));
        match (certificate.exists(), key.exists()) {
            (true, true) => Self::of(fs::read(&certificate)?, &fs::read(&key)?),
            (false, false) => {
                let (certificate_pem, key_pem) = make(valid_days)?;
                write_private(&key, &key_pem)?;
                write_private(&certificate, &certificate_pem)?;
                fs::File::open(directory)?.sync_all()?;
                Self::of(certificate_pem, &key_pem)
            }
            (_, false) => Err(CaError::Missing("ca.key")),
            (false, _) => Err(CaError::Missing("ca.pem")),
        }
    }

    fn of(certificate_pem: Vec<u8>, key_pem: &[u8]) -> Result<Self, CaError> {
        let certificate = X509::from_pem(&certificate_pem)?;
        let key = PKey::private_key_from_pem(key_pem)?;
        if !certificate.public_key()?.public_eq(&key) {
            return Err(CaError::NotAPair);
        }
        Ok(Self {
            certificate_pem,
            signer: Arc::new(Signer { certificate, key }),
        })
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
    /// Only one of the two files is there; a new CA would shut all devices out.
    #[error("{0} is missing from the data directory while its counterpart is there")]
    Missing(&'static str),
    /// The two files are not a pair.
    #[error("ca.pem and ca.key in the data directory do not belong together")]
    NotAPair,
    /// A file cannot be read or written.
    #[error("device CA: {0}")]
    Io(#[from] io::Error),
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

fn make(valid_days: u32) -> Result<(Vec<u8>, Vec<u8>), ErrorStack> {
    let key = PKey::from_rsa(Rsa::generate(2048)?)?;
    let mut name = X509NameBuilder::new()?;
    name.append_entry_by_text("O", "Reveille")?;
    name.append_entry_by_text("CN", "Reveille Device CA")?;
    let name = name.build();
    let mut serial = BigNum::new()?;
    serial.rand(127, MsbOption::MAYBE_ZERO, false)?;
    let mut builder = X509::builder()?;
    builder.set_version(2)?;
    builder.set_serial_number(&*serial.to_asn1_integer()?)?;
    builder.set_subject_name(&name)?;
    builder.set_issuer_name(&name)?;
    builder.set_pubkey(&key)?;
    builder.set_not_before(&*Asn1Time::days_from_now(0)?)?;
    builder.set_not_after(&*Asn1Time::days_from_now(valid_days)?)?;
    builder.append_extension(BasicConstraints::new().critical().ca().build()?)?;
    builder.append_extension(
        KeyUsage::new()
            .critical()
            .key_cert_sign()
            .crl_sign()
            .build()?,
    )?;
    let key_id = SubjectKeyIdentifier::new().build(&builder.x509v3_context(None, None))?;
    builder.append_extension(key_id)?;
    builder.sign(&key, MessageDigest::sha256())?;
    Ok((builder.build().to_pem()?, key.private_key_to_pem_pkcs8()?))
}

/// Writes a file that only we may read, and that must not be there yet.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ca_is_made_once_and_half_a_ca_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let made = DeviceCa::open(directory.path(), 3650).unwrap();
        let read = DeviceCa::open(directory.path(), 3650).unwrap();
        assert_eq!(made.certificate_pem, read.certificate_pem);
        fs::remove_file(directory.path().join("ca.key")).unwrap();
        let half = DeviceCa::open(directory.path(), 3650);
        assert!(matches!(half, Err(CaError::Missing("ca.key"))));
    }
}
