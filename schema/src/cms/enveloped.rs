//! Reads CMS EnvelopedData (RFC 5652, 6): content under a symmetric key, that key
//! under the public key of each recipient.
//!
//! Only key transport by RSA PKCS#1 v1.5 and the CBC ciphers SCEP clients use are
//! read. Decrypts nothing: no cryptography lives here.

use std::borrow::Cow;

use super::{CmsError, SignerId};
use crate::der::{Oid, Reader, Tag};
use crate::x509::RSA_ENCRYPTION;

/// An EnvelopedData, borrowed from its encoding.
#[derive(Debug, Clone)]
pub struct Enveloped<'a> {
    /// Whom it is for.
    pub recipients: Vec<Recipient<'a>>,
    /// What the content is encrypted with.
    pub cipher: ContentCipher,
    /// The cipher's initialisation vector, of its block length.
    pub iv: Cow<'a, [u8]>,
    /// The encrypted content.
    pub ciphertext: Cow<'a, [u8]>,
}

/// One recipient of an [`Enveloped`].
#[derive(Debug, Clone)]
pub struct Recipient<'a> {
    /// Which certificate is the recipient's.
    pub id: SignerId<'a>,
    /// The content key under the recipient's RSA key, PKCS#1 v1.5.
    pub encrypted_key: Cow<'a, [u8]>,
}

/// A cipher for content, in CBC mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContentCipher {
    /// AES with a key of 128 bits.
    Aes128,
    /// AES with a key of 192 bits.
    Aes192,
    /// AES with a key of 256 bits.
    Aes256,
    /// Triple DES with three keys.
    Des3,
}

impl<'a> Enveloped<'a> {
    /// Reads a ContentInfo holding an EnvelopedData that fills `encoding` to its end.
    ///
    /// # Errors
    /// [`CmsError`] if it is not one, or uses an algorithm that is not read here.
    pub fn parse(encoding: &'a [u8]) -> Result<Self, CmsError> {
        let mut outer = Reader::ber(encoding);
        let mut info = outer.sequence()?;
        outer.finish()?;
        if info.oid()? != ENVELOPED_DATA {
            return Err(CmsError::Unsupported("content type"));
        }
        let mut explicit = info.expect(Tag::context(0))?.children()?;
        info.finish()?;
        let mut body = explicit.sequence()?;
        explicit.finish()?;

        body.small_integer()?;
        body.optional(Tag::context(0))?;
        let recipients = recipients(body.set()?)?;
        let mut content = body.sequence()?;
        body.optional(Tag::context(1))?;
        body.finish()?;

        content.oid()?;
        let mut algorithm = content.sequence()?;
        let cipher = ContentCipher::from_oid(algorithm.oid()?)
            .ok_or(CmsError::Unsupported("content cipher"))?;
        let iv = algorithm.octet_string()?;
        algorithm.finish()?;
        if iv.len() != cipher.block_len() {
            return Err(CmsError::Unsupported("initialisation vector"));
        }
        let encrypted = content.element()?;
        if encrypted.tag().primitive() != Tag::context_primitive(0) {
            return Err(CmsError::NoContent);
        }
        content.finish()?;
        Ok(Self {
            recipients,
            cipher,
            iv,
            ciphertext: encrypted.octets()?,
        })
    }
}

impl ContentCipher {
    fn from_oid(oid: Oid<'_>) -> Option<Self> {
        [Self::Aes128, Self::Aes192, Self::Aes256, Self::Des3]
            .into_iter()
            .find(|cipher| cipher.oid() == oid)
    }

    /// Its name.
    #[must_use]
    pub const fn oid(self) -> Oid<'static> {
        match self {
            Self::Aes128 => Oid(&[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x02]),
            Self::Aes192 => Oid(&[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x16]),
            Self::Aes256 => Oid(&[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x2a]),
            Self::Des3 => Oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x03, 0x07]),
        }
    }

    /// Length of its key in octets.
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Self::Aes128 => 16,
            Self::Aes192 | Self::Des3 => 24,
            Self::Aes256 => 32,
        }
    }

    /// Length of its block and so of its initialisation vector in octets.
    #[must_use]
    pub const fn block_len(self) -> usize {
        match self {
            Self::Des3 => 8,
            _ => 16,
        }
    }
}

/// The recipients that take part by RSA; other kinds are passed over.
fn recipients<'a>(mut set: Reader<'a>) -> Result<Vec<Recipient<'a>>, CmsError> {
    let mut found = Vec::new();
    let mut count = 0;
    while !set.is_empty() {
        let element = set.element()?;
        count += 1;
        if count > MAX_RECIPIENTS {
            return Err(CmsError::Unsupported("number of recipients"));
        }
        if element.tag() != Tag::SEQUENCE {
            continue;
        }
        let mut info = element.children()?;
        info.small_integer()?;
        let id = SignerId::parse(&info.element()?)?;
        if info.sequence()?.oid()? != RSA_ENCRYPTION {
            continue;
        }
        let encrypted_key = info.octet_string()?;
        info.finish()?;
        found.push(Recipient { id, encrypted_key });
    }
    Ok(found)
}

/// id-envelopedData, 1.2.840.113549.1.7.3.
pub(super) const ENVELOPED_DATA: Oid<'static> =
    Oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x03]);

/// How many recipients are read.
const MAX_RECIPIENTS: usize = 8;
