//! Names the hashes and signatures that devices and authorities use.
//!
//! Read by `cms` for signers and by the identity door for certificates; a name
//! missing here is refused.

use crate::der::Oid;
use crate::x509::{EC_PUBLIC_KEY, RSA_ENCRYPTION};

/// A hash function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DigestAlgorithm {
    /// SHA-1, what devices of today still sign with.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

/// A kind of signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyAlgorithm {
    /// RSA PKCS#1 v1.5.
    Rsa,
    /// ECDSA.
    Ecdsa,
}

impl DigestAlgorithm {
    /// The hash's own name.
    #[must_use]
    pub const fn oid(self) -> Oid<'static> {
        match self {
            Self::Sha1 => Oid(&[0x2b, 0x0e, 0x03, 0x02, 0x1a]),
            Self::Sha256 => Oid(&[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01]),
            Self::Sha384 => Oid(&[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02]),
            Self::Sha512 => Oid(&[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03]),
        }
    }

    pub(super) fn from_oid(oid: Oid<'_>) -> Option<Self> {
        match oid.0 {
            [0x2b, 0x0e, 0x03, 0x02, 0x1a] => Some(Self::Sha1),
            [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, last] => match last {
                1 => Some(Self::Sha256),
                2 => Some(Self::Sha384),
                3 => Some(Self::Sha512),
                _ => None,
            },
            _ => None,
        }
    }
}

/// Which key a signature algorithm needs, and the hash it names, if it does;
/// absent for one that is not read here.
#[must_use]
pub fn signature_algorithm(oid: Oid<'_>) -> Option<(KeyAlgorithm, Option<DigestAlgorithm>)> {
    use DigestAlgorithm::{Sha1, Sha256, Sha384, Sha512};
    use KeyAlgorithm::{Ecdsa, Rsa};
    match oid {
        RSA_ENCRYPTION => return Some((Rsa, None)),
        EC_PUBLIC_KEY => return Some((Ecdsa, None)),
        _ => {}
    }
    match oid.0 {
        // sha*WithRSAEncryption (RFC 8017), and OIW's older name for the first.
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, last] => match last {
            5 => Some((Rsa, Some(Sha1))),
            11 => Some((Rsa, Some(Sha256))),
            12 => Some((Rsa, Some(Sha384))),
            13 => Some((Rsa, Some(Sha512))),
            _ => None,
        },
        [0x2b, 0x0e, 0x03, 0x02, 0x1d] => Some((Rsa, Some(Sha1))),
        // ecdsa-with-SHA* (RFC 5758).
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01] => Some((Ecdsa, Some(Sha1))),
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, last] => match last {
            2 => Some((Ecdsa, Some(Sha256))),
            3 => Some((Ecdsa, Some(Sha384))),
            4 => Some((Ecdsa, Some(Sha512))),
            _ => None,
        },
        _ => None,
    }
}
