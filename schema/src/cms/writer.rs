//! Writes the CMS structures SCEP answers with, in DER.
//!
//! Signatures and ciphertexts come from the caller: no cryptography lives here.

use super::enveloped::ENVELOPED_DATA;
use super::{ContentCipher, DATA, DigestAlgorithm, SIGNED_DATA};
use crate::der::{Oid, Writer};
use crate::x509::{Certificate, RSA_ENCRYPTION};

/// A SignedData without content and signer: a way to carry certificates.
#[must_use]
pub fn certificates_only(certificates: &[&[u8]]) -> Vec<u8> {
    content_info(SIGNED_DATA, |w| {
        w.sequence(|w| {
            w.small_integer(1);
            w.set(|_| ());
            w.sequence(|w| w.oid(DATA));
            w.context(0, |w| certificates.iter().for_each(|der| w.raw(der)));
            w.set(|_| ());
        });
    })
}

/// A SignedData of one RSA signer, whose certificate goes along. `attributes` is the
/// SET OF Attribute that `signature` covers.
#[must_use]
pub fn signed(
    signer: &Certificate<'_>,
    digest: DigestAlgorithm,
    content: Option<&[u8]>,
    attributes: &[u8],
    signature: &[u8],
) -> Vec<u8> {
    content_info(SIGNED_DATA, |w| {
        w.sequence(|w| {
            w.small_integer(1);
            w.set(|w| algorithm(w, digest.oid()));
            w.sequence(|w| {
                w.oid(DATA);
                if let Some(content) = content {
                    w.context(0, |w| w.octet_string(content));
                }
            });
            w.context(0, |w| w.raw(signer.raw));
            w.set(|w| {
                w.sequence(|w| {
                    w.small_integer(1);
                    issuer_and_serial(w, signer);
                    algorithm(w, digest.oid());
                    // [0] IMPLICIT in place of the SET's own tag.
                    let mut implicit = attributes.to_vec();
                    if let Some(tag) = implicit.first_mut() {
                        *tag = 0xa0;
                    }
                    w.raw(&implicit);
                    algorithm(w, RSA_ENCRYPTION);
                    w.octet_string(signature);
                });
            });
        });
    })
}

/// An EnvelopedData for one recipient, its content key under that one's RSA key.
#[must_use]
pub fn enveloped(
    recipient: &Certificate<'_>,
    encrypted_key: &[u8],
    cipher: ContentCipher,
    iv: &[u8],
    ciphertext: &[u8],
) -> Vec<u8> {
    content_info(ENVELOPED_DATA, |w| {
        w.sequence(|w| {
            w.small_integer(0);
            w.set(|w| {
                w.sequence(|w| {
                    w.small_integer(0);
                    issuer_and_serial(w, recipient);
                    algorithm(w, RSA_ENCRYPTION);
                    w.octet_string(encrypted_key);
                });
            });
            w.sequence(|w| {
                w.oid(DATA);
                w.sequence(|w| {
                    w.oid(cipher.oid());
                    w.octet_string(iv);
                });
                w.context_primitive(0, ciphertext);
            });
        });
    })
}

fn content_info(content_type: Oid<'_>, content: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.sequence(|w| {
        w.oid(content_type);
        w.context(0, content);
    });
    writer.finish()
}

fn algorithm(writer: &mut Writer, oid: Oid<'_>) {
    writer.sequence(|w| {
        w.oid(oid);
        w.null();
    });
}

fn issuer_and_serial(writer: &mut Writer, certificate: &Certificate<'_>) {
    writer.sequence(|w| {
        w.raw(certificate.issuer);
        w.primitive(crate::der::Tag::INTEGER, certificate.serial);
    });
}
