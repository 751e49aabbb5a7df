//! Holds the authorities that device identities may come from, and finds the
//! one that issued a leaf.
//!
//! Called by the identity verifier for leaves it has not met. Looks at names
//! and signatures, never at dates: an expired authority must not lock out the
//! devices it enrolled.

use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Public};
use openssl::x509::{X509, X509Ref};
use schema::cms::signature_algorithm;
use schema::x509::Certificate;
use thiserror::Error;

use super::signature::PreparedKey;
use super::{IdentityError, IssuedBy};

/// Why a configured CA file cannot be used; its administrator is at fault.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AuthorityError {
    /// Not PEM, or a certificate in it cannot be read.
    #[error("CA file {place} is not a PEM file of certificates")]
    Unreadable {
        /// Which list and which place in it, from 0.
        place: String,
    },
    /// A certificate that basicConstraints or keyUsage keep from issuing.
    #[error("CA file {place} holds a certificate that may not issue: {subject}")]
    NotAnAuthority {
        /// Which list and which place in it, from 0.
        place: String,
        /// The certificate's subject.
        subject: String,
    },
}

#[derive(Debug)]
pub(super) struct Authorities(Vec<Authority>);

#[derive(Debug)]
struct Authority {
    certificate: X509,
    der: Vec<u8>,
    key: PKey<Public>,
    prepared: PreparedKey,
    issued_by: IssuedBy,
}

impl Authorities {
    /// Every certificate in the files is an authority of its own, so an
    /// intermediate needs no path to its root. Ours come first: a CA in both
    /// lists is ours.
    pub(super) fn new(ours: &[Vec<u8>], extra: &[Vec<u8>]) -> Result<Self, AuthorityError> {
        let mut authorities = Vec::new();
        let lists = [
            ("our", IssuedBy::Ours, ours),
            ("extra", IssuedBy::Extra, extra),
        ];
        for (list, issued_by, files) in lists {
            for (index, pem) in files.iter().enumerate() {
                let place = || format!("{list}[{index}]");
                let unreadable = || AuthorityError::Unreadable { place: place() };
                let certificates = X509::stack_from_pem(pem).map_err(|_| unreadable())?;
                if certificates.is_empty() {
                    return Err(unreadable());
                }
                for certificate in certificates {
                    let authority =
                        Authority::new(certificate, issued_by).ok_or_else(unreadable)?;
                    if authority.may_issue() != Some(true) {
                        let subject = format!("{:?}", authority.certificate.subject_name());
                        return Err(AuthorityError::NotAnAuthority {
                            place: place(),
                            subject,
                        });
                    }
                    authorities.push(authority);
                }
            }
        }
        Ok(Self(authorities))
    }

    /// Their names, each once.
    pub(super) fn names(&self) -> Vec<Vec<u8>> {
        let mut names: Vec<Vec<u8>> = Vec::new();
        for authority in &self.0 {
            if let Ok(own) = Certificate::parse(&authority.der)
                && !names.iter().any(|name| name == own.subject)
            {
                names.push(own.subject.to_vec());
            }
        }
        names
    }

    /// Which list the issuer of the leaf is in. A name proves nothing, so each
    /// authority of the issuer's name is tried by its key.
    pub(super) fn issuer_of(&self, leaf: &Certificate<'_>) -> Result<IssuedBy, IdentityError> {
        if let Some(authority) = self.0.iter().find(|authority| authority.issued(leaf)) {
            return Ok(authority.issued_by);
        }
        let leaf = X509::from_der(leaf.raw).map_err(|_| IdentityError::Malformed {
            what: "identity certificate",
        })?;
        if signed_with_broken_hash(&leaf) {
            return Err(IdentityError::ForeignIssuer);
        }
        self.0
            .iter()
            .find(|authority| authority.issued_loosely(&leaf))
            .map(|authority| authority.issued_by)
            .ok_or(IdentityError::ForeignIssuer)
    }
}

impl Authority {
    fn new(certificate: X509, issued_by: IssuedBy) -> Option<Self> {
        let (der, key) = (certificate.to_der().ok()?, certificate.public_key().ok()?);
        Some(Self {
            certificate,
            der,
            key,
            prepared: PreparedKey::default(),
            issued_by,
        })
    }

    /// Whether basicConstraints and keyUsage allow it to issue.
    fn may_issue(&self) -> Option<bool> {
        let own = Certificate::parse(&self.der).ok()?;
        Some(own.is_authority().ok()? && own.may_sign_certificates().ok()?)
    }

    /// The quick way, which all but odd leaves take: the name octet for octet,
    /// the signature by aws-lc, a fifth of OpenSSL's time.
    fn issued(&self, leaf: &Certificate<'_>) -> bool {
        let Ok(own) = Certificate::parse(&self.der) else {
            return false;
        };
        let Some((key, Some(digest))) = signature_algorithm(leaf.signature_algorithm) else {
            return false;
        };
        let kind = (key, digest);
        own.subject == leaf.issuer
            && self
                .prepared
                .verify(&own.key, kind, leaf.tbs, leaf.signature)
                == Some(true)
    }

    /// OpenSSL's way: names equal but for case and string type, and whatever
    /// signature it knows (RSASSA-PSS, Ed25519).
    fn issued_loosely(&self, leaf: &X509Ref) -> bool {
        let same_name = leaf.issuer_name().try_cmp(self.certificate.subject_name());
        if !same_name.is_ok_and(|order| order.is_eq()) {
            return false;
        }
        let genuine = leaf.verify(&self.key).unwrap_or(false);
        if !genuine {
            // OpenSSL leaves its reason in this thread's queue, where a later
            // call would find it and take it for its own.
            drop(ErrorStack::get());
        }
        genuine
    }
}

/// MD2, MD4 and MD5 no longer bind a signature to one certificate. SHA-1 stays:
/// a former server's CA may have known nothing better.
fn signed_with_broken_hash(leaf: &X509Ref) -> bool {
    let broken = [
        Nid::MD2WITHRSAENCRYPTION,
        Nid::MD4WITHRSAENCRYPTION,
        Nid::MD5WITHRSAENCRYPTION,
        Nid::MD5WITHRSA,
    ];
    broken.contains(&leaf.signature_algorithm().object().nid())
}
