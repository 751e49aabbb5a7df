//! A push certificate that only the fake APNs believes: what Apple's portal
//! would give, self-signed.

use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::rsa::Rsa;
use openssl::x509::{X509, X509NameBuilder};

use crate::error::SimError;

/// Certificate and key in PEM for a topic, valid for a year.
pub fn push_certificate(topic: &str) -> Result<Vec<u8>, SimError> {
    certificate(topic, &*Asn1Time::days_from_now(365)?)
}

/// Certificate and key in PEM for a topic, valid until `not_after` (Unix seconds).
pub fn push_certificate_until(topic: &str, not_after: i64) -> Result<Vec<u8>, SimError> {
    certificate(topic, &*Asn1Time::from_unix(not_after)?)
}

fn certificate(topic: &str, not_after: &Asn1TimeRef) -> Result<Vec<u8>, SimError> {
    let key = PKey::from_rsa(Rsa::generate(2048)?)?;
    let mut name = X509NameBuilder::new()?;
    name.append_entry_by_text("UID", topic)?;
    name.append_entry_by_text("CN", "Simulated push certificate")?;
    let name = name.build();
    let mut builder = X509::builder()?;
    builder.set_version(2)?;
    builder.set_subject_name(&name)?;
    builder.set_issuer_name(&name)?;
    builder.set_pubkey(&key)?;
    builder.set_not_before(&*Asn1Time::days_from_now(0)?)?;
    builder.set_not_after(not_after)?;
    builder.sign(&key, MessageDigest::sha256())?;
    let mut pem = builder.build().to_pem()?;
    pem.extend(key.private_key_to_pem_pkcs8()?);
    Ok(pem)
}
