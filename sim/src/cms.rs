//! CMS signatures as devices make them, detached for `Mdm-Signature`, or with the content
//! inside: RSA with PKCS#1 v1.5, the signer's certificate embedded. Written by hand because
//! OpenSSL's own writer costs more than the signature and cannot be told the
//! forms that old devices use.

use openssl::hash::{MessageDigest, hash};
use openssl::sign::Signer;

use crate::der::{self, CONTEXT_0, OCTET_STRING, SEQUENCE, SET};
use crate::error::SimError;
use crate::identity::Identity;

/// How a signature is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignatureForm {
    /// The digest over the body.
    pub digest: Digest,
    /// Sign contentType and messageDigest attributes instead of the body.
    pub signed_attributes: bool,
    /// BER with indefinite lengths instead of DER.
    pub indefinite_lengths: bool,
}

impl SignatureForm {
    /// SHA-256, no attributes, DER: the shortest.
    pub const COMPACT: Self = Self {
        digest: Digest::Sha256,
        signed_attributes: false,
        indefinite_lengths: false,
    };
    /// What real devices send: SHA-1, no attributes, indefinite lengths.
    pub const APPLE: Self = Self {
        digest: Digest::Sha1,
        signed_attributes: false,
        indefinite_lengths: true,
    };
    /// What most libraries send: SHA-256 over signed attributes, DER.
    pub const ATTRIBUTES: Self = Self {
        digest: Digest::Sha256,
        signed_attributes: true,
        indefinite_lengths: false,
    };
}

impl Default for SignatureForm {
    fn default() -> Self {
        Self::COMPACT
    }
}

/// A digest algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Digest {
    /// As real devices do.
    Sha1,
    /// The default.
    Sha256,
    /// Seen from newer systems.
    Sha384,
    /// Seen from macOS.
    Sha512,
}

impl Digest {
    pub(crate) fn openssl(self) -> MessageDigest {
        match self {
            Self::Sha1 => MessageDigest::sha1(),
            Self::Sha256 => MessageDigest::sha256(),
            Self::Sha384 => MessageDigest::sha384(),
            Self::Sha512 => MessageDigest::sha512(),
        }
    }

    pub(crate) fn algorithm(self) -> Vec<u8> {
        let oid: &[u8] = match self {
            Self::Sha1 => &[0x06, 5, 0x2b, 0x0e, 3, 2, 0x1a],
            Self::Sha256 => &[0x06, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1],
            Self::Sha384 => &[0x06, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2],
            Self::Sha512 => &[0x06, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 3],
        };
        der::sequence(&[oid, NULL])
    }
}

/// A CMS `SignedData` over `body`, which is not inside it.
pub(crate) fn detached(
    signer: &Identity,
    body: &[u8],
    form: SignatureForm,
) -> Result<Vec<u8>, SimError> {
    signed(signer, body, form, false)
}

/// A CMS `SignedData` with `body` inside.
pub(crate) fn attached(
    signer: &Identity,
    body: &[u8],
    form: SignatureForm,
) -> Result<Vec<u8>, SimError> {
    signed(signer, body, form, true)
}

fn signed(
    signer: &Identity,
    body: &[u8],
    form: SignatureForm,
    inside: bool,
) -> Result<Vec<u8>, SimError> {
    let wrap = if form.indefinite_lengths {
        der::indefinite
    } else {
        der::value
    };
    let algorithm = form.digest.algorithm();
    let signer_info = signer_info(signer, body, form, &algorithm)?;
    let octets = der::value(OCTET_STRING, &[body]);
    let content = match inside {
        true => wrap(CONTEXT_0, &[&octets]),
        false => Vec::new(),
    };
    let signed_data = wrap(
        SEQUENCE,
        &[
            VERSION_1,
            &der::value(SET, &[&algorithm]),
            &wrap(SEQUENCE, &[DATA, &content]),
            &wrap(CONTEXT_0, &[&signer.cert_der]),
            &der::value(SET, &[&signer_info]),
        ],
    );
    let content = wrap(CONTEXT_0, &[&signed_data]);
    Ok(wrap(SEQUENCE, &[SIGNED_DATA, &content]))
}

fn signer_info(
    signer: &Identity,
    body: &[u8],
    form: SignatureForm,
    algorithm: &[u8],
) -> Result<Vec<u8>, SimError> {
    let attributes = if form.signed_attributes {
        attributes(&hash(form.digest.openssl(), body)?)
    } else {
        Vec::new()
    };
    let mut rsa = Signer::new(form.digest.openssl(), &signer.key)?;
    let signature = if form.signed_attributes {
        rsa.sign_oneshot_to_vec(&der::value(SET, &[&attributes]))?
    } else {
        rsa.sign_oneshot_to_vec(body)?
    };
    let tagged = match form.signed_attributes {
        true => der::value(CONTEXT_0, &[&attributes]),
        false => Vec::new(),
    };
    Ok(der::sequence(&[
        VERSION_1,
        &signer.issuer_and_serial,
        algorithm,
        &tagged,
        &der::sequence(&[RSA_ENCRYPTION, NULL]),
        &der::value(OCTET_STRING, &[&signature]),
    ]))
}

/// contentType and messageDigest, in DER's order for a SET OF.
pub(crate) fn attributes(digest: &[u8]) -> Vec<u8> {
    let content_type = der::sequence(&[CONTENT_TYPE, &der::value(SET, &[DATA])]);
    let digest = der::value(OCTET_STRING, &[digest]);
    let message_digest = der::sequence(&[MESSAGE_DIGEST, &der::value(SET, &[&digest])]);
    [content_type, message_digest].concat()
}

pub(crate) const NULL: &[u8] = &[0x05, 0];
pub(crate) const VERSION_1: &[u8] = &[0x02, 1, 1];
pub(crate) const DATA: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1];
pub(crate) const SIGNED_DATA: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2];
pub(crate) const RSA_ENCRYPTION: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
const CONTENT_TYPE: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 3];
const MESSAGE_DIGEST: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 4];

#[cfg(test)]
mod tests {
    use base64::prelude::*;
    use openssl::cms::{CMSOptions, CmsContentInfo};
    use openssl::pkcs7::{Pkcs7, Pkcs7Flags};
    use openssl::stack::Stack;
    use openssl::x509::X509;
    use openssl::x509::store::{X509Store, X509StoreBuilder};

    use super::*;
    use crate::ca::DeviceCa;

    const FORMS: [SignatureForm; 4] = [
        SignatureForm::COMPACT,
        SignatureForm::APPLE,
        SignatureForm::ATTRIBUTES,
        SignatureForm {
            digest: Digest::Sha512,
            signed_attributes: true,
            indefinite_lengths: true,
        },
    ];

    fn trust(ca: &DeviceCa) -> X509Store {
        let mut store = X509StoreBuilder::new().unwrap();
        store.add_cert(X509::from_pem(&ca.pem()).unwrap()).unwrap();
        store
            .set_purpose(openssl::x509::X509PurposeId::ANY)
            .unwrap();
        store.build()
    }

    #[test]
    fn every_form_verifies_with_openssl() {
        let ca = DeviceCa::new().unwrap();
        let identity = ca.issue("device").unwrap();
        for form in FORMS {
            let header = identity.sign_as(b"the body", form).unwrap();
            let cms = BASE64_STANDARD.decode(header).unwrap();

            let none = Stack::new().unwrap();
            Pkcs7::from_der(&cms)
                .unwrap()
                .verify(
                    &none,
                    &trust(&ca),
                    Some(b"the body"),
                    None,
                    Pkcs7Flags::BINARY,
                )
                .unwrap_or_else(|error| panic!("{form:?}: {error}"));

            CmsContentInfo::from_der(&cms)
                .unwrap()
                .verify(
                    None,
                    Some(&trust(&ca)),
                    Some(b"the body"),
                    None,
                    CMSOptions::BINARY,
                )
                .unwrap_or_else(|error| panic!("{form:?}: {error}"));
        }
    }

    #[test]
    fn another_body_does_not_verify() {
        let ca = DeviceCa::new().unwrap();
        let identity = ca.issue("device").unwrap();
        for form in FORMS {
            let cms = detached(&identity, b"the body", form).unwrap();
            let none = Stack::new().unwrap();
            let verdict = Pkcs7::from_der(&cms).unwrap().verify(
                &none,
                &trust(&ca),
                Some(b"another body"),
                None,
                Pkcs7Flags::BINARY,
            );
            assert!(verdict.is_err(), "{form:?}");
        }
    }
}
