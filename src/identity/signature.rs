//! Verifies signatures with aws-lc, by keys kept ready for the next one.
//!
//! Called by the identity verifier for an `Mdm-Signature` over a request body,
//! and by its authorities for the signature on a leaf. Whose a key is, it does
//! not ask.

use std::sync::OnceLock;

use aws_lc_rs::digest::{self, digest};
use aws_lc_rs::signature::{self, ParsedPublicKey, VerificationAlgorithm};
use schema::cms::{DigestAlgorithm, KeyAlgorithm, SignedData, ToBeSigned};
use schema::x509::{self, SubjectPublicKey};

use super::IdentityError;

/// One public key, parsed for the kind of signature that it verified first;
/// whoever holds the private key is all but certain to stay with that kind.
#[derive(Debug, Default)]
pub(super) struct PreparedKey(OnceLock<Prepared>);

/// A kind of signature: what key, over which hash.
pub(super) type Kind = (KeyAlgorithm, DigestAlgorithm);

#[derive(Debug)]
struct Prepared {
    kind: Kind,
    key: ParsedPublicKey,
}

impl PreparedKey {
    /// Checks that `signed` is a signature of `body` by this key, which the
    /// certificate has as `spki`.
    pub(super) fn check_cms(
        &self,
        spki: &SubjectPublicKey<'_>,
        signed: &SignedData<'_>,
        body: &[u8],
    ) -> Result<(), IdentityError> {
        let signer = &signed.signer;
        let to_be_signed = signed
            .to_be_signed(Some(body))
            .map_err(|_| IdentityError::BadSignature)?;
        let octets = match to_be_signed {
            ToBeSigned::Content(content) => content,
            ToBeSigned::Attributes {
                signed,
                content,
                expected_digest,
            } => {
                if digest(hash(signer.digest), content).as_ref() != expected_digest {
                    return Err(IdentityError::BadSignature);
                }
                signed
            }
        };
        let kind = (signer.key, signer.signature_digest);
        match self.verify(spki, kind, octets, &signer.signature) {
            Some(true) => Ok(()),
            Some(false) => Err(IdentityError::BadSignature),
            None => Err(IdentityError::Malformed {
                what: "signature: unsupported algorithm",
            }),
        }
    }

    /// Whether `signature` is one of `octets`; `None` if the key cannot make
    /// such a signature or aws-lc cannot verify it.
    pub(super) fn verify(
        &self,
        spki: &SubjectPublicKey<'_>,
        kind: Kind,
        octets: &[u8],
        signature: &[u8],
    ) -> Option<bool> {
        let ready = self.0.get();
        if let Some(ready) = ready.filter(|ready| ready.kind == kind) {
            return Some(ready.key.verify_sig(octets, signature).is_ok());
        }
        let key = ParsedPublicKey::new(algorithm(spki, kind)?, spki.bytes).ok()?;
        let genuine = key.verify_sig(octets, signature).is_ok();
        if genuine && ready.is_none() {
            // Lost only if another thread was faster.
            let _ = self.0.set(Prepared { kind, key });
        }
        Some(genuine)
    }
}

/// The algorithm for a kind of signature by this key, absent if they do not
/// belong together or the pair is not one of ours.
fn algorithm(
    spki: &SubjectPublicKey<'_>,
    (key, digest): Kind,
) -> Option<&'static dyn VerificationAlgorithm> {
    use DigestAlgorithm::{Sha1, Sha256, Sha384, Sha512};
    if key == KeyAlgorithm::Rsa {
        return (spki.algorithm == x509::RSA_ENCRYPTION).then_some(match digest {
            Sha1 => &signature::RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY,
            Sha256 => &signature::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
            Sha384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            Sha512 => &signature::RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
        });
    }
    if spki.algorithm != x509::EC_PUBLIC_KEY {
        return None;
    }
    Some(match (spki.curve?, digest) {
        (x509::SECP256R1, Sha1) => &signature::ECDSA_P256_SHA1_ASN1,
        (x509::SECP256R1, Sha256) => &signature::ECDSA_P256_SHA256_ASN1,
        (x509::SECP256R1, Sha384) => &signature::ECDSA_P256_SHA384_ASN1,
        (x509::SECP256R1, Sha512) => &signature::ECDSA_P256_SHA512_ASN1,
        (x509::SECP384R1, Sha256) => &signature::ECDSA_P384_SHA256_ASN1,
        (x509::SECP384R1, Sha384) => &signature::ECDSA_P384_SHA384_ASN1,
        (x509::SECP384R1, Sha512) => &signature::ECDSA_P384_SHA512_ASN1,
        (x509::SECP521R1, Sha256) => &signature::ECDSA_P521_SHA256_ASN1,
        (x509::SECP521R1, Sha384) => &signature::ECDSA_P521_SHA384_ASN1,
        (x509::SECP521R1, Sha512) => &signature::ECDSA_P521_SHA512_ASN1,
        _ => return None,
    })
}

fn hash(digest: DigestAlgorithm) -> &'static digest::Algorithm {
    match digest {
        DigestAlgorithm::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        DigestAlgorithm::Sha256 => &digest::SHA256,
        DigestAlgorithm::Sha384 => &digest::SHA384,
        DigestAlgorithm::Sha512 => &digest::SHA512,
    }
}
