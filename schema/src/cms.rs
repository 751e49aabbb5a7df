//! Reads CMS SignedData (RFC 5652): the form of `Mdm-Signature` and of SCEP
//! messages. EnvelopedData, what SCEP hides its requests in, is read in
//! `enveloped.rs`; both are written in `writer.rs`.
//!
//! Takes what devices really send: BER with indefinite lengths, SHA-1, with
//! and without signed attributes. It decides *what* has to be verified
//! ([`SignedData::to_be_signed`]) and with which certificate, and leaves the
//! arithmetic to its caller: no cryptography lives here.

mod algorithm;
mod enveloped;
mod writer;

use std::borrow::Cow;

use thiserror::Error;

pub use self::algorithm::{DigestAlgorithm, KeyAlgorithm, signature_algorithm};
pub use self::enveloped::{ContentCipher, Enveloped, Recipient};
pub use self::writer::{certificates_only, enveloped, signed};
use crate::der::{DerError, Element, Oid, Reader, Tag};
use crate::x509::Certificate;

/// A SignedData with exactly one signer, borrowed from its encoding.
#[derive(Debug, Clone)]
pub struct SignedData<'a> {
    /// What kind of content is signed; [`DATA`] for plain octets.
    pub content_type: Oid<'a>,
    /// The signed content, absent when it is detached.
    pub content: Option<Cow<'a, [u8]>>,
    /// The embedded certificates, each a whole encoding, at most
    /// [`MAX_CERTIFICATES`].
    pub certificates: Vec<&'a [u8]>,
    /// The one signer.
    pub signer: SignerInfo<'a>,
}

/// Who signed, and how.
#[derive(Debug, Clone)]
pub struct SignerInfo<'a> {
    /// Which certificate is the signer's.
    pub id: SignerId<'a>,
    /// What the content is hashed with.
    pub digest: DigestAlgorithm,
    /// What kind of key made the signature.
    pub key: KeyAlgorithm,
    /// What the octets under the signature are hashed with.
    pub signature_digest: DigestAlgorithm,
    /// The signature: RSA PKCS#1 v1.5, or the DER of an ECDSA signature.
    pub signature: Cow<'a, [u8]>,
    attributes: Option<Attributes<'a>>,
}

/// How a SignerInfo names its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignerId<'a> {
    /// By issuer name (whole encoding) and serial (content of the INTEGER).
    IssuerAndSerial {
        /// Issuer name, whole encoding.
        issuer: &'a [u8],
        /// Serial number, content octets.
        serial: &'a [u8],
    },
    /// By subjectKeyIdentifier.
    SubjectKeyId(Cow<'a, [u8]>),
}

/// What the signature of a [`SignedData`] covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToBeSigned<'a> {
    /// The content itself is signed.
    Content(&'a [u8]),
    /// Attributes are signed, one of which holds the digest of the content.
    Attributes {
        /// The octets under the signature.
        signed: &'a [u8],
        /// The content to be hashed with [`SignerInfo::digest`].
        content: &'a [u8],
        /// What that hash must be.
        expected_digest: &'a [u8],
    },
}

/// Why a SignedData cannot be verified; its sender is at fault, except for
/// [`CmsError::NoContent`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CmsError {
    /// Not the structure called for, in BER or DER.
    #[error("not well formed CMS: {0}")]
    Encoding(#[from] DerError),
    /// A content type, hash or signature other than the ones read here.
    #[error("unsupported {0}")]
    Unsupported(&'static str),
    /// No signer, or more than one.
    #[error("{0} signers where exactly one is expected")]
    SignerCount(usize),
    /// More certificates than [`MAX_CERTIFICATES`].
    #[error("more than {MAX_CERTIFICATES} certificates")]
    TooManyCertificates,
    /// The signer's certificate is not among the embedded ones.
    #[error("the signer's certificate is not embedded")]
    NoSignerCertificate,
    /// A signed attribute that must be there once is missing, repeated or wrong.
    #[error("signed attribute {0} is missing, repeated or wrong")]
    BadAttribute(&'static str),
    /// The embedded content is not the content given.
    #[error("embedded content differs from the content signed")]
    ContentMismatch,
    /// Detached, and the caller gave no content.
    #[error("no content to verify")]
    NoContent,
}

/// The signed attributes, in the encoding that is signed.
#[derive(Debug, Clone)]
struct Attributes<'a> {
    signed: Vec<u8>,
    message_digest: Cow<'a, [u8]>,
}

impl<'a> SignedData<'a> {
    /// Reads a ContentInfo holding a SignedData that fills `encoding` to its
    /// end.
    ///
    /// # Errors
    /// [`CmsError`] if it is not one, has not exactly one signer, or breaks a
    /// rule of RFC 5652 that its signature depends on.
    pub fn parse(encoding: &'a [u8]) -> Result<Self, CmsError> {
        let mut outer = Reader::ber(encoding);
        let mut info = outer.sequence()?;
        outer.finish()?;
        if info.oid()? != SIGNED_DATA {
            return Err(CmsError::Unsupported("content type"));
        }
        let mut explicit = info.expect(Tag::context(0))?.children()?;
        info.finish()?;
        let mut body = explicit.sequence()?;
        explicit.finish()?;

        body.small_integer()?;
        body.set()?;
        let (content_type, content) = encapsulated(body.sequence()?)?;
        let certificates = match body.optional(Tag::context(0))? {
            Some(set) => certificates(set.children()?)?,
            None => Vec::new(),
        };
        body.optional(Tag::context(1))?;
        let signer = SignerInfo::parse(only_signer(body.set()?)?, content_type)?;
        body.finish()?;
        Ok(Self {
            content_type,
            content,
            certificates,
            signer,
        })
    }

    /// What the signature covers, given the content if it is detached. Content
    /// that is both embedded and given must be equal.
    ///
    /// # Errors
    /// [`CmsError::NoContent`] or [`CmsError::ContentMismatch`].
    pub fn to_be_signed<'b>(
        &'b self,
        detached: Option<&'b [u8]>,
    ) -> Result<ToBeSigned<'b>, CmsError> {
        let content = match (self.content.as_deref(), detached) {
            (Some(embedded), Some(given)) if embedded != given => {
                return Err(CmsError::ContentMismatch);
            }
            (Some(content), _) | (None, Some(content)) => content,
            (None, None) => return Err(CmsError::NoContent),
        };
        Ok(match &self.signer.attributes {
            None => ToBeSigned::Content(content),
            Some(attributes) => ToBeSigned::Attributes {
                signed: &attributes.signed,
                content,
                expected_digest: &attributes.message_digest,
            },
        })
    }

    /// The signer's certificate among the embedded ones: the first that the
    /// signer's id names. That it is genuine is for the caller to find out.
    ///
    /// # Errors
    /// [`CmsError::NoSignerCertificate`] if there is none.
    pub fn signer_certificate(&self) -> Result<Certificate<'a>, CmsError> {
        self.certificates
            .iter()
            .filter_map(|raw| Certificate::parse(raw).ok())
            .find(|certificate| self.signer.id.names(certificate))
            .ok_or(CmsError::NoSignerCertificate)
    }
}

impl<'a> SignerInfo<'a> {
    fn parse(mut info: Reader<'a>, content_type: Oid<'_>) -> Result<Self, CmsError> {
        info.small_integer()?;
        let id = SignerId::parse(&info.element()?)?;
        let digest = DigestAlgorithm::from_oid(info.sequence()?.oid()?)
            .ok_or(CmsError::Unsupported("digest algorithm"))?;
        let attributes = match info.optional(Tag::context(0))? {
            Some(element) => Some(Attributes::parse(&element, content_type)?),
            None => None,
        };
        let (key, own_digest) = signature_algorithm(info.sequence()?.oid()?)
            .ok_or(CmsError::Unsupported("signature algorithm"))?;
        let signature = info.octet_string()?;
        info.optional(Tag::context(1))?;
        info.finish()?;

        let signature_digest = own_digest.unwrap_or(digest);
        if attributes.is_none() {
            // RFC 5652, 5.3: attributes may be left out for plain data only;
            // and then there is one hash, so both names must agree.
            if content_type != DATA {
                return Err(CmsError::BadAttribute("content-type"));
            }
            if signature_digest != digest {
                return Err(CmsError::Unsupported("pair of digest algorithms"));
            }
        }
        Ok(Self {
            id,
            digest,
            key,
            signature_digest,
            signature,
            attributes,
        })
    }

    /// The only value of a signed attribute, absent if there is no such
    /// attribute. SCEP keeps its message type and nonces here.
    ///
    /// # Errors
    /// [`CmsError::BadAttribute`] if it is repeated or has more than one value.
    pub fn attribute(&self, name: Oid<'_>) -> Result<Option<Element<'_>>, CmsError> {
        let Some(attributes) = &self.attributes else {
            return Ok(None);
        };
        let mut found = None;
        let mut set = Reader::ber(&attributes.signed).set()?;
        while !set.is_empty() {
            let mut attribute = set.sequence()?;
            if attribute.oid()? == name {
                let value = only_value(attribute.set()?, "asked for", Reader::element)?;
                once(&mut found, value, "asked for")?;
            }
        }
        Ok(found)
    }
}

impl<'a> SignerId<'a> {
    fn parse(element: &Element<'a>) -> Result<Self, CmsError> {
        if element.tag().primitive() == Tag::context_primitive(0) {
            return Ok(Self::SubjectKeyId(element.octets()?));
        }
        if element.tag() != Tag::SEQUENCE {
            return Err(CmsError::Unsupported("signer identifier"));
        }
        let mut id = element.children()?;
        let issuer = id.expect(Tag::SEQUENCE)?.raw();
        let serial = id.integer()?;
        id.finish()?;
        Ok(Self::IssuerAndSerial { issuer, serial })
    }

    /// Whether this is the id of `certificate`.
    #[must_use]
    pub fn names(&self, certificate: &Certificate<'_>) -> bool {
        match self {
            Self::IssuerAndSerial { issuer, serial } => {
                certificate.issuer == *issuer && certificate.serial == *serial
            }
            Self::SubjectKeyId(id) => certificate.subject_key_id() == Some(id.as_ref()),
        }
    }
}

impl<'a> Attributes<'a> {
    /// Reads the `[0] IMPLICIT SET OF Attribute`; what is signed is the same
    /// set under its own tag and in DER (RFC 5652, 5.4).
    fn parse(element: &Element<'a>, content_type: Oid<'_>) -> Result<Self, CmsError> {
        let mut message_digest = None;
        let mut named_type = None;
        let mut set = element.children()?;
        while !set.is_empty() {
            let mut attribute = set.sequence()?;
            let name = attribute.oid()?;
            let values = attribute.set()?;
            attribute.finish()?;
            match name {
                MESSAGE_DIGEST => once(
                    &mut message_digest,
                    only_value(values, "message-digest", Reader::octet_string)?,
                    "message-digest",
                )?,
                CONTENT_TYPE => once(
                    &mut named_type,
                    only_value(values, "content-type", Reader::oid)?,
                    "content-type",
                )?,
                _ => {}
            }
        }
        if named_type != Some(content_type) {
            return Err(CmsError::BadAttribute("content-type"));
        }
        let message_digest = message_digest.ok_or(CmsError::BadAttribute("message-digest"))?;
        Ok(Self {
            signed: element.to_der(Tag::SET)?,
            message_digest,
        })
    }
}

/// Type and octets of an EncapsulatedContentInfo.
type Encapsulated<'a> = (Oid<'a>, Option<Cow<'a, [u8]>>);

fn encapsulated<'a>(mut info: Reader<'a>) -> Result<Encapsulated<'a>, CmsError> {
    let content_type = info.oid()?;
    let content = match info.optional(Tag::context(0))? {
        Some(element) => {
            let mut explicit = element.children()?;
            let octets = explicit.octet_string()?;
            explicit.finish()?;
            Some(octets)
        }
        None => None,
    };
    info.finish()?;
    Ok((content_type, content))
}

/// The X.509 certificates of a CertificateSet; its other choices are passed
/// over.
fn certificates<'a>(mut set: Reader<'a>) -> Result<Vec<&'a [u8]>, CmsError> {
    let mut certificates = Vec::new();
    while !set.is_empty() {
        let element = set.element()?;
        if element.tag() != Tag::SEQUENCE {
            continue;
        }
        if certificates.len() >= MAX_CERTIFICATES {
            return Err(CmsError::TooManyCertificates);
        }
        certificates.push(element.raw());
    }
    Ok(certificates)
}

fn only_signer<'a>(mut set: Reader<'a>) -> Result<Reader<'a>, CmsError> {
    let mut only = None;
    let mut count = 0;
    while !set.is_empty() {
        only = Some(set.sequence()?);
        count += 1;
    }
    match only {
        Some(signer) if count == 1 => Ok(signer),
        _ => Err(CmsError::SignerCount(count)),
    }
}

fn only_value<'a, T>(
    mut values: Reader<'a>,
    name: &'static str,
    take: impl FnOnce(&mut Reader<'a>) -> Result<T, DerError>,
) -> Result<T, CmsError> {
    let value = take(&mut values)?;
    values.finish().map_err(|_| CmsError::BadAttribute(name))?;
    Ok(value)
}

fn once<T>(place: &mut Option<T>, value: T, name: &'static str) -> Result<(), CmsError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(CmsError::BadAttribute(name)),
    }
}

/// id-data, 1.2.840.113549.1.7.1: plain octets.
pub const DATA: Oid<'static> = Oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01]);
/// id-signedData, 1.2.840.113549.1.7.2.
pub const SIGNED_DATA: Oid<'static> = Oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02]);
/// id-contentType, 1.2.840.113549.1.9.3: the attribute.
pub const CONTENT_TYPE: Oid<'static> = Oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x03]);
/// id-messageDigest, 1.2.840.113549.1.9.4: the attribute.
pub const MESSAGE_DIGEST: Oid<'static> =
    Oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x04]);

/// How many embedded certificates are read.
pub const MAX_CERTIFICATES: usize = 16;

#[cfg(test)]
mod tests {
    use base64::Engine;
    use proptest::prelude::*;

    use super::*;
    use crate::der::Writer;
    use crate::x509::{EC_PUBLIC_KEY, RSA_ENCRYPTION};

    const SHA1: Oid<'static> = Oid(&[0x2b, 0x0e, 0x03, 0x02, 0x1a]);
    const SHA256: Oid<'static> = Oid(&[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01]);
    const SHA256_WITH_RSA: Oid<'static> =
        Oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b]);

    struct Made {
        signers: usize,
        content_type: Oid<'static>,
        content: Option<&'static [u8]>,
        digest: Oid<'static>,
        signature: Oid<'static>,
        attributes: Vec<(Oid<'static>, Vec<u8>)>,
        key_id: bool,
    }

    impl Default for Made {
        fn default() -> Self {
            Self {
                signers: 1,
                content_type: DATA,
                content: None,
                digest: SHA256,
                signature: RSA_ENCRYPTION,
                attributes: Vec::new(),
                key_id: false,
            }
        }
    }

    impl Made {
        fn encode(&self) -> Vec<u8> {
            let mut writer = Writer::new();
            writer.sequence(|w| {
                w.oid(SIGNED_DATA);
                w.context(0, |w| w.sequence(|w| self.body(w)));
            });
            writer.finish()
        }

        fn body(&self, w: &mut Writer) {
            w.small_integer(1);
            w.set(|w| w.sequence(|w| w.oid(self.digest)));
            w.sequence(|w| {
                w.oid(self.content_type);
                if let Some(content) = self.content {
                    w.context(0, |w| w.octet_string(content));
                }
            });
            w.set(|w| (0..self.signers).for_each(|_| w.sequence(|w| self.signer(w))));
        }

        fn signer(&self, w: &mut Writer) {
            w.small_integer(1);
            if self.key_id {
                w.context_primitive(0, b"key");
            } else {
                w.sequence(|w| {
                    w.sequence(|_| ());
                    w.small_integer(34);
                });
            }
            w.sequence(|w| w.oid(self.digest));
            if !self.attributes.is_empty() {
                w.context(0, |w| {
                    for (name, value) in &self.attributes {
                        w.sequence(|w| {
                            w.oid(*name);
                            w.set(|w| w.raw(value));
                        });
                    }
                });
            }
            w.sequence(|w| w.oid(self.signature));
            w.octet_string(b"signature");
        }
    }

    fn written(inside: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut writer = Writer::new();
        inside(&mut writer);
        writer.finish()
    }

    fn attributes() -> Vec<(Oid<'static>, Vec<u8>)> {
        vec![
            (CONTENT_TYPE, written(|w| w.oid(DATA))),
            (MESSAGE_DIGEST, written(|w| w.octet_string(b"digest"))),
        ]
    }

    fn refusal(made: &Made) -> CmsError {
        SignedData::parse(&made.encode()).map(|_| ()).unwrap_err()
    }

    /// A signature of a real device, and the body it signs.
    fn device_vector() -> Option<(Vec<u8>, Vec<u8>)> {
        let folder = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../shared/vectors/mdm-signature"
        );
        let read = |name: &str| std::fs::read(format!("{folder}/{name}")).ok();
        let header = read("mdmsig__pair2__header.b64");
        let (Some(header), Some(body)) = (header, read("mdmsig__pair2__body.plist")) else {
            println!("skipped: no device vectors in {folder}");
            return None;
        };
        let text: Vec<u8> = header
            .into_iter()
            .filter(|o| !o.is_ascii_whitespace())
            .collect();
        Some((
            base64::engine::general_purpose::STANDARD
                .decode(text)
                .unwrap(),
            body,
        ))
    }

    #[test]
    fn a_real_devices_signature_is_read() {
        let Some((encoding, body)) = device_vector() else {
            return;
        };
        let signed = SignedData::parse(&encoding).unwrap();
        assert_eq!(signed.content, None);
        assert_eq!(signed.signer.digest, DigestAlgorithm::Sha1);
        assert_eq!(signed.signer.key, KeyAlgorithm::Rsa);
        let certificate = signed.signer_certificate().unwrap();
        assert_eq!(certificate.serial_hex(), "22");
        assert_eq!(certificate.subject, [0x30, 0]);
        assert_eq!(certificate.not_after, 1_937_538_563);
        assert_eq!(
            signed.to_be_signed(Some(&body)),
            Ok(ToBeSigned::Content(&body))
        );
        assert_eq!(signed.to_be_signed(None), Err(CmsError::NoContent));
    }

    #[test]
    fn without_attributes_the_content_is_signed() {
        let encoding = Made {
            content: Some(b"body"),
            ..Made::default()
        }
        .encode();
        let signed = SignedData::parse(&encoding).unwrap();
        assert_eq!(signed.to_be_signed(None), Ok(ToBeSigned::Content(b"body")));
        assert_eq!(
            signed.to_be_signed(Some(b"body")),
            Ok(ToBeSigned::Content(b"body"))
        );
        assert_eq!(
            signed.to_be_signed(Some(b"other")),
            Err(CmsError::ContentMismatch)
        );
        assert_eq!(
            signed.signer_certificate().map(|_| ()),
            Err(CmsError::NoSignerCertificate)
        );
    }

    #[test]
    fn with_attributes_their_set_is_signed() {
        let made = Made {
            attributes: attributes(),
            key_id: true,
            ..Made::default()
        };
        let encoding = made.encode();
        let signed = SignedData::parse(&encoding).unwrap();
        assert_eq!(
            signed.signer.id,
            SignerId::SubjectKeyId(Cow::Borrowed(b"key"))
        );
        let Ok(ToBeSigned::Attributes {
            signed: octets,
            content,
            expected_digest,
        }) = signed.to_be_signed(Some(b"body"))
        else {
            panic!("attributes are signed");
        };
        assert_eq!((content, expected_digest), (&b"body"[..], &b"digest"[..]));
        assert_eq!(octets.first(), Some(&0x31));
        let digest = signed.signer.attribute(MESSAGE_DIGEST).unwrap().unwrap();
        assert_eq!(digest.content(), b"digest");
        assert!(signed.signer.attribute(SIGNED_DATA).unwrap().is_none());
    }

    #[test]
    fn exactly_one_signer_is_accepted() {
        for (signers, outcome) in [
            (0, Err(CmsError::SignerCount(0))),
            (1, Ok(())),
            (2, Err(CmsError::SignerCount(2))),
        ] {
            let encoding = Made {
                signers,
                ..Made::default()
            }
            .encode();
            assert_eq!(SignedData::parse(&encoding).map(|_| ()), outcome);
        }
    }

    #[test]
    fn octets_around_the_encoding_are_refused() {
        let encoding = Made::default().encode();
        let mut after = encoding.clone();
        after.push(0);
        assert_eq!(
            SignedData::parse(&after).map(|_| ()),
            Err(CmsError::Encoding(DerError::Trailing))
        );
        let before = [&[0][..], &encoding].concat();
        assert!(SignedData::parse(&before).is_err());
    }

    #[test]
    fn attributes_that_do_not_bind_the_content_are_refused() {
        let [named_type, digest] = attributes().try_into().unwrap();
        let wrong_type = (CONTENT_TYPE, written(|w| w.oid(SIGNED_DATA)));
        let two_values = (
            MESSAGE_DIGEST,
            [digest.1.clone(), digest.1.clone()].concat(),
        );
        for (attributes, name) in [
            (vec![named_type.clone()], "message-digest"),
            (vec![digest.clone()], "content-type"),
            (vec![wrong_type, digest.clone()], "content-type"),
            (
                vec![named_type.clone(), digest.clone(), digest.clone()],
                "message-digest",
            ),
            (vec![named_type.clone(), two_values], "message-digest"),
            (vec![named_type.clone(), named_type, digest], "content-type"),
        ] {
            let made = Made {
                attributes,
                ..Made::default()
            };
            assert_eq!(refusal(&made), CmsError::BadAttribute(name));
        }
        let bare = Made {
            content_type: SIGNED_DATA,
            ..Made::default()
        };
        assert_eq!(refusal(&bare), CmsError::BadAttribute("content-type"));
    }

    #[test]
    fn algorithms_must_be_known_and_agree() {
        for (digest, signature, passes) in [
            (SHA256, RSA_ENCRYPTION, true),
            (SHA256, SHA256_WITH_RSA, true),
            (SHA256, EC_PUBLIC_KEY, true),
            (SHA1, SHA256_WITH_RSA, false),
            (DATA, RSA_ENCRYPTION, false),
            (SHA256, DATA, false),
        ] {
            let encoding = Made {
                digest,
                signature,
                ..Made::default()
            }
            .encode();
            assert_eq!(
                SignedData::parse(&encoding).is_ok(),
                passes,
                "{digest} {signature}"
            );
        }
    }

    proptest! {
        #[test]
        fn damage_never_panics(at in any::<prop::sample::Index>(), octets in proptest::collection::vec(any::<u8>(), 1..4)) {
            let made = Made { attributes: attributes(), content: Some(b"body"), ..Made::default() };
            let mut encodings = vec![made.encode()];
            encodings.extend(device_vector().map(|(encoding, _)| encoding));
            for mut encoding in encodings {
                let at = at.index(encoding.len());
                let end = encoding.len().min(at + octets.len());
                encoding.splice(at..end, octets.iter().copied());
                if let Ok(signed) = SignedData::parse(&encoding) {
                    let _ = signed.signer_certificate();
                    let _ = signed.to_be_signed(Some(b"body"));
                    let _ = signed.signer.attribute(MESSAGE_DIGEST);
                }
            }
        }

        #[test]
        fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = SignedData::parse(&bytes);
        }
    }
}
