//! Messages that devices sign with their content inside: over-the-air enrollment.
//!
//! Tells who signed one: a device of a manufacturer whose CAs are configured, or one
//! that our own CA knows. Every configured CA is an issuer of its own: certificates a
//! message brings along lead nowhere, for a path to a manufacturer's root ends at more
//! than devices. Looks at names and signatures, never at dates: Apple's devices carry
//! certificates that have run out.

use schema::cms::{CmsError, SignedData};
use schema::x509::Certificate;
use thiserror::Error;

use super::authorities::Authorities;
use super::signature::PreparedKey;
use super::{AuthorityError, IdentityError, IssuedBy, sha256};

/// Reads signed messages, and knows whose devices may send them.
#[derive(Debug)]
pub struct MessageVerifier(Authorities);

/// A message whose signature is genuine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedMessage {
    /// What was signed.
    pub content: Vec<u8>,
    /// SHA-256 of the signer's certificate.
    pub leaf: [u8; 32],
    /// [`IssuedBy::Ours`]: our device CA, [`IssuedBy::Extra`]: a manufacturer's.
    pub issued_by: IssuedBy,
}

/// Why a message proves nothing; its sender is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MessageError {
    /// Not a SignedData of exactly one signer with its content inside.
    #[error("the message is not a signed one: {0}")]
    Unreadable(#[from] CmsError),
    /// Not signed by a device we can tell.
    #[error(transparent)]
    Signer(#[from] IdentityError),
}

impl MessageVerifier {
    /// Takes our device CAs and the manufacturers', as PEM files.
    ///
    /// # Errors
    /// [`AuthorityError`] if a file is no PEM or holds something other than authorities.
    pub fn new(ours: &[Vec<u8>], manufacturers: &[Vec<u8>]) -> Result<Self, AuthorityError> {
        Authorities::new(ours, manufacturers).map(Self)
    }

    /// Reads a message (BER or DER) and verifies its signature and its signer's issuer.
    ///
    /// # Errors
    /// [`MessageError`] says what is wrong.
    pub fn open(&self, encoding: &[u8]) -> Result<SignedMessage, MessageError> {
        let signed = SignedData::parse(encoding)?;
        let content = signed.content.as_deref().ok_or(CmsError::NoContent)?;
        let signer = signed.signer_certificate()?;
        let issued_by = self.device(&signer)?;
        PreparedKey::default().check_cms(&signer.key, &signed, content)?;
        Ok(SignedMessage {
            content: content.to_vec(),
            leaf: sha256(signer.raw),
            issued_by,
        })
    }

    /// Who issued a device's certificate; an authority is no device.
    ///
    /// # Errors
    /// [`IdentityError`]: none that is configured, or not to a device.
    pub fn device(&self, certificate: &Certificate<'_>) -> Result<IssuedBy, IdentityError> {
        let authority = certificate.is_authority();
        if authority.map_err(|_| IdentityError::Malformed {
            what: "signer's certificate",
        })? {
            return Err(IdentityError::NotClient);
        }
        self.0.issuer_of(certificate)
    }
}
