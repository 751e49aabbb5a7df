//! SCEP (RFC 8894): the pkiMessage of a device that asks for a certificate, and the
//! CertRep it gets.
//!
//! A message gives away its envelope only as a [`Request`], so nothing is decrypted
//! before its messageType is one we serve. Reads and writes structures; the
//! arithmetic is the device CA's. Called by `actors::scep`.

mod reply;

use std::borrow::Cow;

use thiserror::Error;

pub use self::reply::{Answer, Reply};
use crate::cms::{CmsError, SignedData};
use crate::der::{Oid, Tag};
use crate::x509::Certificate;

/// A pkiMessage, borrowed from its encoding; its signature is not checked yet.
#[derive(Debug, Clone)]
pub struct PkiMessage<'a> {
    /// The number of its messageType.
    pub message_type: u16,
    /// Its transactionID, of PrintableString's characters.
    pub transaction: String,
    /// Its senderNonce.
    pub sender_nonce: Vec<u8>,
    /// The SignedData it is.
    pub signed: SignedData<'a>,
    /// Whose it is: for a first request a certificate it made itself.
    pub signer: Certificate<'a>,
}

/// A message of a type we serve.
#[derive(Debug, Clone, Copy)]
pub struct Request<'m> {
    /// What it asks for.
    pub kind: RequestKind,
    /// The EnvelopedData that holds its certification request.
    pub enveloped: &'m [u8],
}

/// The requests we serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestKind {
    /// PKCSReq (19): a first certificate, paid for with a challenge.
    Enroll,
    /// RenewalReq (17): a next one, signed by the present one.
    Renew,
}

/// Why a request failed, as RFC 8894, 3.2.1.4 numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailInfo {
    /// An algorithm we do not serve.
    BadAlg = 0,
    /// It is not intact, or not for us.
    BadMessageCheck = 1,
    /// It asks for what it may not have.
    BadRequest = 2,
}

/// Why a message cannot even be answered; its sender is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Unreadable {
    /// Not a SignedData with its signer's certificate.
    #[error("not a pkiMessage: {0}")]
    Cms(#[from] CmsError),
    /// An attribute is missing, repeated, or out of form.
    #[error("{0} is missing, repeated or not well formed")]
    Attribute(&'static str),
}

impl<'a> PkiMessage<'a> {
    /// Reads a message that fills `encoding` to its end.
    ///
    /// # Errors
    /// [`Unreadable`] if it is not one, or an attribute it must carry once is not
    /// there once.
    pub fn parse(encoding: &'a [u8]) -> Result<Self, Unreadable> {
        let signed = SignedData::parse(encoding)?;
        let signer = signed.signer_certificate()?;
        Ok(Self {
            message_type: number(&text(&signed, MESSAGE_TYPE, "messageType")?)
                .ok_or(Unreadable::Attribute("messageType"))?,
            transaction: text(&signed, TRANSACTION_ID, "transactionID")?,
            sender_nonce: octets(&signed, SENDER_NONCE, "senderNonce")?,
            signer,
            signed,
        })
    }

    /// The request inside, if its type is one we serve and it has content.
    #[must_use]
    pub fn request(&self) -> Option<Request<'_>> {
        let kind = match self.message_type {
            PKCS_REQ => RequestKind::Enroll,
            RENEWAL_REQ => RequestKind::Renew,
            _ => return None,
        };
        let enveloped = self.signed.content.as_deref()?;
        Some(Request { kind, enveloped })
    }
}

fn attribute<'s>(
    signed: &'s SignedData<'_>,
    oid: Oid<'_>,
    name: &'static str,
    tags: &[Tag],
) -> Result<Cow<'s, [u8]>, Unreadable> {
    const LONGEST: usize = 256;
    let bad = Unreadable::Attribute(name);
    let value = signed.signer.attribute(oid).map_err(|_| bad)?.ok_or(bad)?;
    if !tags.contains(&value.tag()) {
        return Err(bad);
    }
    let octets = value.octets().map_err(|_| bad)?;
    if octets.is_empty() || octets.len() > LONGEST {
        return Err(bad);
    }
    Ok(octets)
}

fn text(signed: &SignedData<'_>, oid: Oid<'_>, name: &'static str) -> Result<String, Unreadable> {
    let tags = [Tag::PRINTABLE_STRING, Tag::UTF8_STRING, Tag::IA5_STRING];
    let octets = attribute(signed, oid, name, &tags)?;
    // It goes back as a PrintableString.
    let printable = |octet: &u8| octet.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(octet);
    if !octets.iter().all(printable) {
        return Err(Unreadable::Attribute(name));
    }
    String::from_utf8(octets.into_owned()).map_err(|_| Unreadable::Attribute(name))
}

fn octets(
    signed: &SignedData<'_>,
    oid: Oid<'_>,
    name: &'static str,
) -> Result<Vec<u8>, Unreadable> {
    Ok(attribute(signed, oid, name, &[Tag::OCTET_STRING])?.into_owned())
}

/// A decimal number as it is written, without leading zeros.
fn number(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|digit| digit.is_ascii_digit());
    let led = text.len() > 1 && text.starts_with('0');
    if plain && !led {
        text.parse().ok()
    } else {
        None
    }
}

const PKCS_REQ: u16 = 19;
const RENEWAL_REQ: u16 = 17;

/// id-messageType, 2.16.840.1.113733.1.9.2.
pub const MESSAGE_TYPE: Oid<'static> = Oid(&[96, 134, 72, 1, 134, 248, 69, 1, 9, 2]);
/// id-pkiStatus, 2.16.840.1.113733.1.9.3.
pub const PKI_STATUS: Oid<'static> = Oid(&[96, 134, 72, 1, 134, 248, 69, 1, 9, 3]);
/// id-failInfo, 2.16.840.1.113733.1.9.4.
pub const FAIL_INFO: Oid<'static> = Oid(&[96, 134, 72, 1, 134, 248, 69, 1, 9, 4]);
/// id-senderNonce, 2.16.840.1.113733.1.9.5.
pub const SENDER_NONCE: Oid<'static> = Oid(&[96, 134, 72, 1, 134, 248, 69, 1, 9, 5]);
/// id-recipientNonce, 2.16.840.1.113733.1.9.6.
pub const RECIPIENT_NONCE: Oid<'static> = Oid(&[96, 134, 72, 1, 134, 248, 69, 1, 9, 6]);
/// id-transactionID, 2.16.840.1.113733.1.9.7.
pub const TRANSACTION_ID: Oid<'static> = Oid(&[96, 134, 72, 1, 134, 248, 69, 1, 9, 7]);

#[cfg(test)]
mod tests;
