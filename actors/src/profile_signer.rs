//! The profile-signing key: one long-lived key that signs every enrollment profile.
//!
//! Never the TLS key: a device compares the signer when a profile is replaced, and a
//! profile by another signer is refused. Made at the first start and kept as two files
//! in the data directory. Called by the door that hands profiles out.

use std::path::Path;

use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkcs7::{Pkcs7, Pkcs7Flags};
use openssl::stack::Stack;
use openssl::x509::extension::{BasicConstraints, ExtendedKeyUsage, KeyUsage};
use schema::Leaf;

use crate::key_files::{KeyFileError, KeyPair, rsa_key, self_signed};

/// Signs profiles.
#[derive(Clone)]
pub struct ProfileSigner {
    pair: KeyPair,
}

impl std::fmt::Debug for ProfileSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProfileSigner(..)")
    }
}

impl ProfileSigner {
    /// Reads the signer of a data directory, making it (RSA-2048) when there is none.
    ///
    /// # Errors
    /// [`SignerError`] when a file cannot be read or written, one of the two is missing,
    /// or they do not belong together.
    pub fn open(directory: &Path) -> Result<Self, SignerError> {
        let pair = KeyPair::open(directory, "profile", make)?;
        Ok(Self { pair })
    }

    /// Signs a profile: CMS SignedData in DER, the profile and the certificate inside.
    ///
    /// # Errors
    /// Only when OpenSSL itself fails.
    pub fn sign(&self, profile: &[u8]) -> Result<Vec<u8>, SignerError> {
        let flags = Pkcs7Flags::BINARY | Pkcs7Flags::NOSMIMECAP;
        let others = Stack::new()?;
        let signed = Pkcs7::sign(
            &self.pair.certificate,
            &self.pair.key,
            &others,
            profile,
            flags,
        )?;
        Ok(signed.to_der()?)
    }

    /// SHA-256 of the certificate, by which devices tell signers apart.
    ///
    /// # Errors
    /// Only when OpenSSL itself fails.
    pub fn leaf(&self) -> Result<Leaf, SignerError> {
        let digest = self.pair.certificate.digest(MessageDigest::sha256())?;
        let digest = <[u8; 32]>::try_from(&*digest);
        digest.map(Leaf).map_err(|_| SignerError::Hash)
    }

    /// The certificate in PEM, for whoever is to trust profiles.
    ///
    /// # Errors
    /// Only when OpenSSL itself fails.
    pub fn certificate_pem(&self) -> Result<Vec<u8>, SignerError> {
        Ok(self.pair.certificate.to_pem()?)
    }
}

fn make() -> Result<KeyPair, ErrorStack> {
    self_signed(
        "Reveille Profile Signing",
        rsa_key()?,
        VALID_DAYS,
        |builder| {
            builder.append_extension(BasicConstraints::new().critical().build()?)?;
            builder.append_extension(KeyUsage::new().critical().digital_signature().build()?)?;
            let usage = ExtendedKeyUsage::new()
                .email_protection()
                .code_signing()
                .build()?;
            builder.append_extension(usage)
        },
    )
}

/// Why there is no profile signer, or no signature of it.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// Its files are not what they should be; devices would refuse a new signer's profiles.
    #[error("profile signer: {0}")]
    Files(#[from] KeyFileError),
    /// A hash has another length.
    #[error("profile signer: SHA-256 has 32 bytes")]
    Hash,
    /// OpenSSL's word.
    #[error("profile signer: {0}")]
    OpenSsl(#[from] ErrorStack),
}

const VALID_DAYS: u32 = 7300;

#[cfg(test)]
mod tests {
    use openssl::x509::store::X509StoreBuilder;

    use super::*;

    #[test]
    fn a_signed_profile_carries_its_content_and_verifies() {
        let directory = tempfile::tempdir().unwrap();
        let signer = ProfileSigner::open(directory.path()).unwrap();
        let signed = Pkcs7::from_der(&signer.sign(b"<plist/>\r\n\n").unwrap()).unwrap();
        let mut trusted = X509StoreBuilder::new().unwrap();
        trusted.add_cert(signer.pair.certificate.clone()).unwrap();
        let mut content = Vec::new();
        let none = Stack::new().unwrap();
        let flags = Pkcs7Flags::BINARY;
        signed
            .verify(&none, &trusted.build(), None, Some(&mut content), flags)
            .unwrap();
        assert_eq!(content, b"<plist/>\r\n\n");
    }
}
