//! Reads a PKCS#10 certification request (RFC 2986): whose key, the proof of its
//! possession, and the challenge that came along.
//!
//! What else it asks for (subject, alternative names, extensions) is read by nobody:
//! the server decides what a certificate says. Called by the device CA; checks no
//! signature.

use crate::cms::{CmsError, DigestAlgorithm, KeyAlgorithm, signature_algorithm};
use crate::der::{Oid, Reader, Tag};
use crate::x509::SubjectPublicKey;

/// A request, borrowed from its DER.
#[derive(Debug, Clone)]
pub struct Csr<'a> {
    /// The public key.
    pub key: SubjectPublicKey<'a>,
    /// The same, as the whole SubjectPublicKeyInfo.
    pub spki: &'a [u8],
    /// The challengePassword (RFC 2985, 5.4.1); its octets, whatever string holds them.
    pub challenge: Option<&'a [u8]>,
    /// What kind of key made the signature.
    pub signature_key: KeyAlgorithm,
    /// What the signed octets are hashed with.
    pub signature_digest: DigestAlgorithm,
    /// What the signature covers.
    pub signed: &'a [u8],
    /// The signature by the very key that asks.
    pub signature: &'a [u8],
}

impl<'a> Csr<'a> {
    /// Reads a request that fills `encoding` to its end.
    ///
    /// # Errors
    /// [`CmsError`] if it is not one in DER, its signature algorithm is not known, or
    /// its challengePassword is repeated.
    pub fn parse(encoding: &'a [u8]) -> Result<Self, CmsError> {
        let mut reader = Reader::der(encoding);
        let mut outer = reader.sequence()?;
        reader.finish()?;
        let signed = outer.expect(Tag::SEQUENCE)?;
        let (signature_key, digest) = signature_algorithm(outer.sequence()?.oid()?)
            .ok_or(CmsError::Unsupported("signature algorithm"))?;
        let signature_digest = digest.ok_or(CmsError::Unsupported("signature algorithm"))?;
        let signature = outer.bit_string()?;
        outer.finish()?;

        let mut info = signed.children()?;
        info.small_integer()?;
        info.expect(Tag::SEQUENCE)?;
        let spki = info.expect(Tag::SEQUENCE)?;
        let challenge = match info.optional(Tag::context(0))? {
            Some(attributes) => challenge(attributes.children()?)?,
            None => None,
        };
        info.finish()?;
        Ok(Self {
            key: SubjectPublicKey::parse(spki.children()?)?,
            spki: spki.raw(),
            challenge,
            signature_key,
            signature_digest,
            signed: signed.raw(),
            signature,
        })
    }
}

fn challenge<'a>(mut attributes: Reader<'a>) -> Result<Option<&'a [u8]>, CmsError> {
    const BAD: CmsError = CmsError::BadAttribute("challengePassword");
    let mut found = None;
    while !attributes.is_empty() {
        let mut attribute = attributes.sequence()?;
        if attribute.oid()? != CHALLENGE_PASSWORD {
            continue;
        }
        let mut values = attribute.set()?;
        let value = values.element()?;
        let text = matches!(
            value.tag(),
            Tag::PRINTABLE_STRING | Tag::UTF8_STRING | Tag::IA5_STRING | Tag::T61_STRING
        );
        if !values.is_empty() || !text || found.replace(value.content()).is_some() {
            return Err(BAD);
        }
    }
    Ok(found)
}

/// challengePassword, 1.2.840.113549.1.9.7.
pub const CHALLENGE_PASSWORD: Oid<'static> =
    Oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x07]);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::der::Writer;
    use crate::x509::{EC_PUBLIC_KEY, SECP256R1};

    const ECDSA_SHA256: Oid<'static> = Oid(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02]);

    fn request(challenges: &[&[&str]]) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.sequence(|w| {
            w.sequence(|w| {
                w.small_integer(0);
                w.sequence(|_| ());
                w.sequence(|w| {
                    w.sequence(|w| {
                        w.oid(EC_PUBLIC_KEY);
                        w.oid(SECP256R1);
                    });
                    w.bit_string(&[4; 65]);
                });
                w.context(0, |w| {
                    for values in challenges {
                        w.sequence(|w| {
                            w.oid(CHALLENGE_PASSWORD);
                            w.set(|w| values.iter().for_each(|text| w.printable_string(text)));
                        });
                    }
                });
            });
            w.sequence(|w| w.oid(ECDSA_SHA256));
            w.bit_string(b"signature");
        });
        writer.finish()
    }

    #[test]
    fn key_challenge_and_signature_are_read() {
        let encoding = request(&[&["secret"]]);
        let csr = Csr::parse(&encoding).unwrap();
        assert_eq!(csr.challenge, Some(&b"secret"[..]));
        assert_eq!(csr.key.curve, Some(SECP256R1));
        assert_eq!(csr.signature, b"signature");
        assert_eq!(csr.signature_digest, DigestAlgorithm::Sha256);
        assert_eq!(csr.signature_key, KeyAlgorithm::Ecdsa);
        assert!(encoding.windows(csr.spki.len()).any(|w| w == csr.spki));
    }

    #[test]
    fn a_request_has_one_challenge_or_none() {
        assert_eq!(Csr::parse(&request(&[])).unwrap().challenge, None);
        for wrong in [
            &[&["one"][..], &["two"]][..],
            &[&["one", "two"]],
            &[&["one"], &["one"]],
        ] {
            let error = Csr::parse(&request(wrong)).unwrap_err();
            assert_eq!(error, CmsError::BadAttribute("challengePassword"));
        }
        assert!(Csr::parse(&request(&[&[]])).is_err());
        assert!(Csr::parse(&[request(&[]), vec![0]].concat()).is_err());
    }

    proptest! {
        #[test]
        fn damage_never_panics(at in any::<prop::sample::Index>(), octet in any::<u8>()) {
            let mut encoding = request(&[&["secret"]]);
            let at = at.index(encoding.len());
            encoding[at] = octet;
            let _ = Csr::parse(&encoding);
        }
    }
}
