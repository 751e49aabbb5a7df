//! Writes the CertRep (RFC 8894, 3.3.2): what a request gets.

use super::{
    FAIL_INFO, FailInfo, MESSAGE_TYPE, PKI_STATUS, RECIPIENT_NONCE, SENDER_NONCE, TRANSACTION_ID,
};
use crate::cms::{self, CONTENT_TYPE, DATA, DigestAlgorithm, MESSAGE_DIGEST};
use crate::der::{Oid, Writer};
use crate::x509::Certificate;

/// A CertRep before it is signed.
#[derive(Debug, Clone)]
pub struct Reply<'a> {
    /// The request's transactionID.
    pub transaction: &'a str,
    /// The request's senderNonce.
    pub recipient_nonce: &'a [u8],
    /// Our own nonce.
    pub sender_nonce: &'a [u8],
    /// What it says.
    pub answer: Answer,
}

/// What a CertRep says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// SUCCESS, with the certificate in an EnvelopedData for the one who asked.
    Issued(Vec<u8>),
    /// FAILURE.
    Failed(FailInfo),
}

impl Reply<'_> {
    /// The content under the signature: empty in a failure, which has none.
    #[must_use]
    pub fn content(&self) -> &[u8] {
        match &self.answer {
            Answer::Issued(enveloped) => enveloped,
            Answer::Failed(_) => &[],
        }
    }

    /// The SET OF Attribute to be signed, given the hash of [`Self::content`].
    #[must_use]
    pub fn attributes(&self, content_digest: &[u8]) -> Vec<u8> {
        let printable = |oid, text: &str| attribute(oid, |w| w.printable_string(text));
        let octets = |oid, octets: &[u8]| attribute(oid, |w| w.octet_string(octets));
        let mut attributes = vec![
            attribute(CONTENT_TYPE, |w| w.oid(DATA)),
            octets(MESSAGE_DIGEST, content_digest),
            printable(TRANSACTION_ID, self.transaction),
            printable(MESSAGE_TYPE, CERT_REP),
            octets(RECIPIENT_NONCE, self.recipient_nonce),
            octets(SENDER_NONCE, self.sender_nonce),
        ];
        match &self.answer {
            Answer::Issued(_) => attributes.push(printable(PKI_STATUS, SUCCESS)),
            Answer::Failed(info) => {
                attributes.push(printable(PKI_STATUS, FAILURE));
                attributes.push(printable(FAIL_INFO, &(*info as u8).to_string()));
            }
        }
        let mut writer = Writer::new();
        writer.set_of(attributes);
        writer.finish()
    }

    /// The whole message, given the signature over `attributes`.
    #[must_use]
    pub fn write(
        &self,
        signer: &Certificate<'_>,
        digest: DigestAlgorithm,
        attributes: &[u8],
        signature: &[u8],
    ) -> Vec<u8> {
        let content = match &self.answer {
            Answer::Issued(enveloped) => Some(enveloped.as_slice()),
            Answer::Failed(_) => None,
        };
        cms::signed(signer, digest, content, attributes, signature)
    }
}

fn attribute(oid: Oid<'_>, value: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.sequence(|w| {
        w.oid(oid);
        w.set(value);
    });
    writer.finish()
}

const CERT_REP: &str = "3";
const SUCCESS: &str = "0";
const FAILURE: &str = "2";
