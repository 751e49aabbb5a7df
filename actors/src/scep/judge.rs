//! Judging a request: is it whole, may it have a certificate, and which.
//!
//! Up to the proof that the request is whole, every failure is the same
//! badMessageCheck: whoever sends us ciphertexts learns nothing of what is in them.

use openssl::hash::hash;
use openssl::pkey::{Id, PKey, Public};
use openssl::sha::{Sha256, sha256};
use openssl::symm::decrypt;
use openssl::x509::X509;
use schema::cms::{CmsError, ContentCipher, Enveloped, KeyAlgorithm, ToBeSigned};
use schema::csr::{CHALLENGE_PASSWORD, Csr};
use schema::scep::{FailInfo, PkiMessage, RequestKind};
use schema::x509::Certificate;
use schema::{EnrollId, Leaf};

use super::{Inner, ScepError, openssl_cipher};
use crate::ca::{CaError, PublicKey, message_digest, verify};
use crate::store::{GoodFor, IssuedCertificate, Refusal};
use crate::{Store, StoreError};

/// What a whole request may have, and the cipher to hand it over in.
#[derive(Debug)]
pub(super) struct Granted {
    pub(super) cipher: ContentCipher,
    pub(super) certificate: Grant,
}

/// The certificate for a request.
#[derive(Debug)]
pub(super) enum Grant {
    /// The request is a resend: the one it got before (DER).
    Before(Vec<u8>),
    /// A new one, to be recorded before it is handed over.
    Fresh(PaidWith, IssuedCertificate),
}

/// What a certificate is issued on.
#[derive(Clone, Copy, Debug)]
pub(super) enum PaidWith {
    /// A challenge, by its hash.
    Challenge([u8; 32]),
    /// The bound identity of an enrollment.
    Identity(Leaf),
}

/// Why a request fails: what its sender hears, and what the log says.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) info: FailInfo,
    pub(super) why: String,
}

/// Why a request gets no certificate.
#[derive(Debug)]
pub(super) enum Stop {
    /// Its sender's fault.
    Failed(Failed),
    /// Our own trouble.
    Ours(ScepError),
}

impl Inner {
    pub(super) fn judge(&self, message: &PkiMessage<'_>) -> Result<Granted, Stop> {
        let request = message
            .request()
            .ok_or_else(|| bad_request("its messageType is not served"))?;
        check_signature(message)?;
        let identity = Leaf(sha256(message.signer.raw));
        let renewed = match request.kind {
            RequestKind::Enroll => None,
            RequestKind::Renew => {
                let bound = self.store.enrollment_bound_to(identity)?;
                Some(bound.ok_or(Refusal::NotBound)?)
            }
        };
        let (opened, cipher) = self.open_envelope(request.enveloped)?;
        let (csr, key) = check_csr(&opened)?;
        let (paid_with, id) = match renewed {
            Some(id) => (PaidWith::Identity(identity), Some(id)),
            None => {
                let challenge = challenge(&csr, message).ok_or(Refusal::Unknown)?;
                let hash = Store::challenge_hash(&challenge);
                let row = self.store.challenge(&hash)?;
                let id = row.as_ref().and_then(|row| row.named()).cloned();
                (PaidWith::Challenge(hash), id)
            }
        };
        let request = request_hash(&message.transaction, csr.spki);
        let certificate = match self.store.issued_on(&paid_with.hash(), &request)? {
            Some(der) => Grant::Before(der),
            None => {
                let days = self.check_challenge(paid_with)?;
                let name = common_name(id.as_ref(), csr.spki);
                self.issue(paid_with, request, (&name, days), key)?
            }
        };
        Ok(Granted {
            cipher,
            certificate,
        })
    }

    /// Decrypts; what does not decrypt to a request fails like what is none.
    fn open_envelope(&self, encoding: &[u8]) -> Result<(Vec<u8>, ContentCipher), Stop> {
        let enveloped = Enveloped::parse(encoding).map_err(|error| match error {
            CmsError::Unsupported("content cipher") => failed(FailInfo::BadAlg, error),
            other => failed(FailInfo::BadMessageCheck, other),
        })?;
        let ra = self.ra()?;
        let own = Certificate::parse(&ra.certificate_der).map_err(CaError::from)?;
        let ours = |at: &&schema::cms::Recipient<'_>| at.id.names(&own);
        // A request made just before the RA was renewed names its older certificate.
        let recipient = match enveloped.recipients.as_slice() {
            [only] => Some(only),
            several => several.iter().find(ours),
        };
        let recipient = recipient.ok_or_else(garbled)?;
        let cipher = enveloped.cipher;
        let key = ra.content_key(&recipient.encrypted_key, cipher.key_len());
        let cipher_of = openssl_cipher(cipher);
        let opened = decrypt(cipher_of, &key, Some(&enveloped.iv), &enveloped.ciphertext);
        Ok((opened.map_err(|_| garbled())?, cipher))
    }

    /// Looks at a challenge before the CA signs; what counts is the writer's word later.
    /// How many days the certificate is to live.
    fn check_challenge(&self, paid_with: PaidWith) -> Result<u32, Stop> {
        let PaidWith::Challenge(hash) = paid_with else {
            return Ok(self.validity_days);
        };
        let challenge = self.store.challenge(&hash)?.ok_or(Refusal::Unknown)?;
        challenge.check(self.store.expiry_clock())?;
        match challenge.good_for().ok_or(Refusal::Unknown)? {
            GoodFor::Enrollment { .. } => Ok(self.validity_days),
            GoodFor::Proof { .. } => Ok(PROOF_DAYS),
        }
    }

    fn issue(
        &self,
        paid_with: PaidWith,
        request: [u8; 32],
        (name, days): (&str, u32),
        key: Option<PublicKey>,
    ) -> Result<Grant, Stop> {
        let key = key.ok_or_else(|| bad_request("its key is not one we certify"))?;
        let now = self.clock.now();
        let signed = self.ca.issue(name, &key, days, now)?;
        let certificate = IssuedCertificate {
            request,
            leaf: signed.leaf,
            der: signed.der,
            not_after: signed.not_after,
            serial: signed.serial,
        };
        Ok(Grant::Fresh(paid_with, certificate))
    }
}

impl PaidWith {
    fn hash(self) -> [u8; 32] {
        match self {
            Self::Challenge(hash) | Self::Identity(Leaf(hash)) => hash,
        }
    }
}

/// The message is its signer's, and the answer can be sealed for that one.
fn check_signature(message: &PkiMessage<'_>) -> Result<(), Stop> {
    let signer = &message.signed.signer;
    let key = X509::from_der(message.signer.raw)
        .and_then(|certificate| certificate.public_key())
        .map_err(|_| garbled())?;
    if key.id() != Id::RSA || signer.key != KeyAlgorithm::Rsa || !SIGNER_BITS.contains(&key.bits())
    {
        return Err(failed(FailInfo::BadAlg, "its signer's key is not RSA").into());
    }
    let octets = match message.signed.to_be_signed(None).map_err(|_| garbled())? {
        ToBeSigned::Content(content) => content,
        ToBeSigned::Attributes {
            signed,
            content,
            expected_digest,
        } => {
            let digest = hash(message_digest(signer.digest), content).map_err(CaError::from)?;
            if *digest != *expected_digest {
                return Err(garbled().into());
            }
            signed
        }
    };
    if verify(&key, signer.signature_digest, octets, &signer.signature) {
        Ok(())
    } else {
        Err(garbled().into())
    }
}

/// The request proves that it has its key; the key itself is judged later, so that a
/// broken request never looks like a weak one.
fn check_csr(opened: &[u8]) -> Result<(Csr<'_>, Option<PublicKey>), Stop> {
    let csr = Csr::parse(opened).map_err(|_| garbled())?;
    let key: PKey<Public> = PKey::public_key_from_der(csr.spki).map_err(|_| garbled())?;
    let fits = match csr.signature_key {
        KeyAlgorithm::Rsa => key.id() == Id::RSA && key.bits() <= *SIGNER_BITS.end(),
        // A curve by name only: one spelled out could be anything.
        KeyAlgorithm::Ecdsa => key.id() == Id::EC && csr.key.curve.is_some(),
    };
    if !fits || !verify(&key, csr.signature_digest, csr.signed, csr.signature) {
        return Err(garbled().into());
    }
    let key = PublicKey::parse(csr.spki);
    Ok((csr, key))
}

/// The challenge of a request; some devices put it beside the envelope instead.
fn challenge(csr: &Csr<'_>, message: &PkiMessage<'_>) -> Option<Vec<u8>> {
    if let Some(challenge) = csr.challenge {
        return Some(challenge.to_vec());
    }
    let beside = message.signed.signer.attribute(CHALLENGE_PASSWORD).ok()??;
    Some(beside.content().to_vec())
}

/// The same for a resend and for nothing else.
fn request_hash(transaction: &str, spki: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(&(transaction.len() as u64).to_be_bytes());
    hash.update(transaction.as_bytes());
    hash.update(spki);
    hash.finish()
}

/// The name we give: the enrollment's, or one made from the key.
pub(super) fn common_name(id: Option<&EnrollId>, spki: &[u8]) -> String {
    match id {
        Some(id) if id.as_str().len() <= LONGEST_NAME => id.as_str().to_owned(),
        _ => {
            let hash = sha256(spki);
            let digits = hash.iter().take(8).map(|octet| format!("{octet:02x}"));
            format!("device-{}", digits.collect::<String>())
        }
    }
}

fn failed(info: FailInfo, why: impl ToString) -> Failed {
    Failed {
        info,
        why: why.to_string(),
    }
}

fn garbled() -> Failed {
    failed(FailInfo::BadMessageCheck, "it is not whole, or not for us")
}

fn bad_request(why: &str) -> Failed {
    failed(FailInfo::BadRequest, why)
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        failed(FailInfo::BadRequest, refusal)
    }
}

impl From<Failed> for Stop {
    fn from(failed: Failed) -> Self {
        Self::Failed(failed)
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Failed(refusal.into())
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Ours(error.into())
    }
}

impl From<CaError> for Stop {
    fn from(error: CaError) -> Self {
        Self::Ours(error.into())
    }
}

/// How long a device has for the last step of over-the-air enrollment.
const PROOF_DAYS: u32 = 1;
const SIGNER_BITS: std::ops::RangeInclusive<u32> = 1024..=8192;
/// Of a commonName (RFC 5280, appendix A: ub-common-name).
const LONGEST_NAME: usize = 64;
