//! Issuing: the server, not the request, decides what a certificate says.
//!
//! A device gets its key certified and nothing else of what it asked for: the subject
//! is ours, the purpose is TLS client, it is no authority, and it has no alternative
//! names. Called by `scep` for devices and by `ra` for its own certificate.

use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{HasPublic, Id, PKey, PKeyRef, Public};
use openssl::sign::Verifier;
use openssl::x509::extension::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectKeyIdentifier,
};
use openssl::x509::{X509, X509Builder, X509NameBuilder};
use schema::cms::{DigestAlgorithm, KeyAlgorithm};
use schema::x509::Certificate;
use schema::{Leaf, UnixMillis};

use super::{CaError, DeviceCa};

/// A certificate fresh from the CA; nobody has it yet.
#[derive(Clone, Debug)]
pub struct SignedLeaf {
    /// Its hash.
    pub leaf: Leaf,
    /// Its DER.
    pub der: Vec<u8>,
    /// End of its life, seconds since 1970.
    pub not_after: i64,
    /// Its serial number in hex.
    pub serial: String,
}

/// A public key good enough to be certified: RSA of 2048 to 8192 bits, P-256 or P-384.
#[derive(Clone, Debug)]
pub struct PublicKey {
    pub(crate) key: PKey<Public>,
    pub(crate) algorithm: KeyAlgorithm,
}

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo; nothing if it is not a key we certify.
    #[must_use]
    pub fn parse(spki: &[u8]) -> Option<Self> {
        let key = PKey::public_key_from_der(spki).ok()?;
        let algorithm = match key.id() {
            Id::RSA => {
                let rsa = key.rsa().ok()?;
                let exponent = rsa.e();
                let sound = exponent.is_bit_set(0) && (2..=64).contains(&exponent.num_bits());
                (sound && RSA_BITS.contains(&key.bits())).then_some(KeyAlgorithm::Rsa)?
            }
            Id::EC => {
                let ec = key.ec_key().ok()?;
                let curve = ec.group().curve_name()?;
                let sound = matches!(curve, Nid::X9_62_PRIME256V1 | Nid::SECP384R1);
                (sound && ec.check_key().is_ok()).then_some(KeyAlgorithm::Ecdsa)?
            }
            _ => return None,
        };
        Some(Self { key, algorithm })
    }
}

impl DeviceCa {
    /// Certifies a device's key for `days`, or for as long as the CA itself lives.
    ///
    /// # Errors
    /// [`CaError`] when OpenSSL fails.
    pub fn issue(
        &self,
        common_name: &str,
        key: &PublicKey,
        days: u32,
        now: UnixMillis,
    ) -> Result<SignedLeaf, CaError> {
        let mut usage = KeyUsage::new();
        usage.critical().digital_signature();
        if key.algorithm == KeyAlgorithm::Rsa {
            usage.key_encipherment();
        }
        let purpose = ExtendedKeyUsage::new().client_auth().build()?;
        let usage = usage.build()?;
        let certificate = self.certify(common_name, &key.key, days, now, |builder| {
            builder.append_extension(usage)?;
            builder.append_extension(purpose)
        })?;
        let der = certificate.to_der()?;
        let read = Certificate::parse(&der)?;
        Ok(SignedLeaf {
            leaf: Leaf(openssl::sha::sha256(&der)),
            not_after: read.not_after,
            serial: read.serial_hex(),
            der,
        })
    }

    /// What all certificates of this CA have in common; `extend` adds what they are for.
    pub(super) fn certify<K: HasPublic>(
        &self,
        common_name: &str,
        key: &PKeyRef<K>,
        days: u32,
        now: UnixMillis,
        extend: impl FnOnce(&mut X509Builder) -> Result<(), ErrorStack>,
    ) -> Result<X509, CaError> {
        let ca = &self.signer.certificate;
        let mut name = X509NameBuilder::new()?;
        name.append_entry_by_text("O", "Reveille")?;
        name.append_entry_by_text("CN", common_name)?;
        let mut serial = BigNum::new()?;
        serial.rand(127, MsbOption::MAYBE_ZERO, false)?;
        let now = i64::try_from(now.seconds()).unwrap_or(i64::MAX);
        let mut builder = X509::builder()?;
        builder.set_version(2)?;
        builder.set_serial_number(&*serial.to_asn1_integer()?)?;
        builder.set_subject_name(&name.build())?;
        builder.set_issuer_name(ca.subject_name())?;
        builder.set_pubkey(key)?;
        // An hour back, so that a device whose clock is slow takes it.
        builder.set_not_before(&*Asn1Time::from_unix(now.saturating_sub(3600))?)?;
        let end = Asn1Time::from_unix(now.saturating_add(i64::from(days) * 86_400))?;
        if end.as_ref() > ca.not_after() {
            builder.set_not_after(ca.not_after())?;
        } else {
            builder.set_not_after(&end)?;
        }
        builder.append_extension(BasicConstraints::new().critical().build()?)?;
        extend(&mut builder)?;
        let context = builder.x509v3_context(Some(ca), None);
        let own = SubjectKeyIdentifier::new().build(&context)?;
        let authority = AuthorityKeyIdentifier::new().keyid(true).build(&context)?;
        builder.append_extension(own)?;
        builder.append_extension(authority)?;
        builder.sign(&self.signer.key, MessageDigest::sha256())?;
        Ok(builder.build())
    }
}

/// Is this a signature of `signed` by `key`? RSA PKCS#1 v1.5, or ECDSA in DER.
pub(crate) fn verify(
    key: &PKeyRef<Public>,
    digest: DigestAlgorithm,
    signed: &[u8],
    signature: &[u8],
) -> bool {
    Verifier::new(message_digest(digest), key)
        .and_then(|mut verifier| verifier.verify_oneshot(signature, signed))
        .unwrap_or(false)
}

pub(crate) fn message_digest(digest: DigestAlgorithm) -> MessageDigest {
    match digest {
        DigestAlgorithm::Sha1 => MessageDigest::sha1(),
        DigestAlgorithm::Sha256 => MessageDigest::sha256(),
        DigestAlgorithm::Sha384 => MessageDigest::sha384(),
        DigestAlgorithm::Sha512 => MessageDigest::sha512(),
    }
}

const RSA_BITS: std::ops::RangeInclusive<u32> = 2048..=8192;
