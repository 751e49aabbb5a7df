//! The certificate that answers a tls-alpn-01 challenge (RFC 8737, section 3).
//!
//! A public CA connects with the protocol `acme-tls/1` and reads from it that whoever
//! holds the ACME account also answers for the name. It is good for nothing else.

use openssl::asn1::{Asn1Object, Asn1OctetString};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::sha::sha256;
use openssl::x509::extension::SubjectAlternativeName;
use openssl::x509::{X509, X509Extension};
use rustls::pki_types::DnsName;
use schema::UnixMillis;

use super::{TlsRootError, builder, common_name};
use crate::key_files::p256_key;

/// A self-signed certificate for one name and one challenge, with its key.
pub struct ChallengeCertificate {
    /// DER of the certificate.
    pub certificate: Vec<u8>,
    /// The key as PKCS#8 DER.
    pub key: Vec<u8>,
}

impl ChallengeCertificate {
    /// Makes the one for `name`, by the key authorization of the challenge.
    ///
    /// # Errors
    /// [`TlsRootError::OpenSsl`].
    pub fn of(
        name: &DnsName<'_>,
        key_authorization: &str,
        now: UnixMillis,
    ) -> Result<Self, TlsRootError> {
        let (certificate, key) = make(name.as_ref(), key_authorization, now)?;
        Ok(Self {
            certificate: certificate.to_der()?,
            key: key.private_key_to_pkcs8()?,
        })
    }
}

impl std::fmt::Debug for ChallengeCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ChallengeCertificate(..)")
    }
}

fn make(
    name: &str,
    key_authorization: &str,
    now: UnixMillis,
) -> Result<(X509, PKey<Private>), ErrorStack> {
    let key = p256_key()?;
    let subject = common_name("ACME challenge")?;
    let mut builder = builder(&subject, &subject, &key, now, DAYS)?;
    let names = SubjectAlternativeName::new()
        .dns(name)
        .build(&builder.x509v3_context(None, None))?;
    builder.append_extension(names)?;
    builder.append_extension(identifier(key_authorization)?)?;
    builder.sign(&key, MessageDigest::sha256())?;
    Ok((builder.build(), key))
}

/// The acmeIdentifier extension: critical, an OCTET STRING of the digest.
fn identifier(key_authorization: &str) -> Result<X509Extension, ErrorStack> {
    let digest = sha256(key_authorization.as_bytes());
    let mut der = vec![0x04, 0x20];
    der.extend(digest);
    let oid = Asn1Object::from_str(ACME_IDENTIFIER)?;
    X509Extension::new_from_der(&oid, true, &*Asn1OctetString::new_from_bytes(&der)?)
}

/// id-pe-acmeIdentifier.
const ACME_IDENTIFIER: &str = "1.3.6.1.5.5.7.1.31";
/// A day of it is before now.
const DAYS: i64 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    #[test]
    fn it_names_the_host_and_carries_the_digest_in_a_critical_extension() {
        let name = DnsName::try_from("mdm.example.org").unwrap();
        let made = ChallengeCertificate::of(&name, "token.thumbprint", NOW).unwrap();
        let read = X509::from_der(&made.certificate).unwrap();
        let names = read.subject_alt_names().unwrap();
        let names: Vec<_> = names.iter().map(|name| name.dnsname()).collect();
        assert_eq!(names, [Some("mdm.example.org")]);
        let key = PKey::private_key_from_pkcs8(&made.key).unwrap();
        assert!(read.verify(&key).unwrap(), "self-signed");

        // 1.3.6.1.5.5.7.1.31, TRUE, OCTET STRING { OCTET STRING { SHA-256 } }
        let mut wanted = vec![0x06, 0x08, 0x2b, 6, 1, 5, 5, 7, 1, 31, 0x01, 0x01, 0xff];
        wanted.extend([0x04, 0x22, 0x04, 0x20]);
        wanted.extend(sha256(b"token.thumbprint"));
        let holds = |der: &[u8]| der.windows(wanted.len()).any(|part| part == wanted);
        assert!(holds(&made.certificate));
        let other = ChallengeCertificate::of(&name, "other.thumbprint", NOW).unwrap();
        assert!(!holds(&other.certificate));
    }
}
