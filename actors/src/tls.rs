//! The TLS root of our own, and the server certificates it issues to our listeners.
//!
//! Apart from the device CA: one says who devices are, the other who we are, and only
//! this one is carried to devices as a trust anchor. Made at the first start and kept in
//! the data directory; the door that serves the certificate asks when to renew it.

mod challenge;

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::bn::{BigNum, MsbOption};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::x509::extension::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName,
    SubjectKeyIdentifier,
};
use openssl::x509::{X509, X509Builder, X509Name, X509NameBuilder, X509NameRef};
use rustls::pki_types::ServerName;
use schema::UnixMillis;

pub use self::challenge::ChallengeCertificate;
use crate::key_files::{KeyFileError, KeyPair, p256_key};
use crate::private_file;

/// The root, with its key: it signs rarely, but by itself.
#[derive(Clone)]
pub struct TlsRoot {
    /// The certificate in PEM, for whoever is to trust us.
    pub certificate_pem: Vec<u8>,
    /// Last moment of its validity, in Unix seconds.
    pub not_after: i64,
    certificate: X509,
    key: PKey<Private>,
    directory: PathBuf,
}

/// A server certificate with its key.
#[derive(Clone)]
pub struct ServerCertificate {
    /// DER of the leaf, then of the root.
    pub chain: [Vec<u8>; 2],
    /// The key as PKCS#8 DER.
    pub key: Vec<u8>,
    /// First moment of validity, in Unix seconds.
    pub not_before: i64,
    /// Last moment of validity, in Unix seconds.
    pub not_after: i64,
}

/// Why there is no root or no certificate of it.
#[derive(Debug, thiserror::Error)]
pub enum TlsRootError {
    /// Its files are not what they should be; devices would not trust a new root.
    #[error("TLS root: {0}")]
    Files(#[from] KeyFileError),
    /// A file cannot be read or written.
    #[error("TLS root: {0}")]
    Io(#[from] io::Error),
    /// OpenSSL's word.
    #[error("TLS root: {0}")]
    OpenSsl(#[from] ErrorStack),
}

impl TlsRoot {
    /// Reads the root of a data directory, making it (P-256) when there is none.
    ///
    /// # Errors
    /// [`TlsRootError`] when a file cannot be read or written, or they do not fit.
    pub fn open(directory: &Path, now: UnixMillis) -> Result<Self, TlsRootError> {
        let KeyPair { certificate, key } = KeyPair::open(directory, "tls-root", || make_root(now))?;
        Ok(Self {
            certificate_pem: certificate.to_pem()?,
            not_after: unix(certificate.not_after())?,
            certificate,
            key,
            directory: directory.to_owned(),
        })
    }

    /// The certificate for a server of these names: the kept one while it will do, else
    /// a new one, which is then kept.
    ///
    /// # Errors
    /// [`TlsRootError`] when a new one cannot be made or written.
    pub fn certificate_for(
        &self,
        names: &[ServerName<'_>],
        now: UnixMillis,
    ) -> Result<ServerCertificate, TlsRootError> {
        let file = self.directory.join("tls-leaf.pem");
        if let Some((leaf, key)) = read_pair(&file)
            && self.issued(&leaf)
            && same_names(&leaf, names)
        {
            let kept = self.with_chain(&leaf, &key)?;
            if !kept.is_due(now) {
                return Ok(kept);
            }
        }
        let (leaf, key) = self.issue(names, now)?;
        let mut pem = leaf.to_pem()?;
        pem.extend(key.private_key_to_pem_pkcs8()?);
        private_file::replace(&file, &pem)?;
        self.with_chain(&leaf, &key)
    }

    fn issued(&self, leaf: &X509) -> bool {
        leaf.verify(&self.key).unwrap_or(false)
    }

    fn with_chain(
        &self,
        leaf: &X509,
        key: &PKey<Private>,
    ) -> Result<ServerCertificate, TlsRootError> {
        Ok(ServerCertificate {
            chain: [leaf.to_der()?, self.certificate.to_der()?],
            key: key.private_key_to_pkcs8()?,
            not_before: unix(leaf.not_before())?,
            not_after: unix(leaf.not_after())?,
        })
    }

    fn issue(
        &self,
        names: &[ServerName<'_>],
        now: UnixMillis,
    ) -> Result<(X509, PKey<Private>), ErrorStack> {
        let key = p256_key()?;
        // A common name holds 64 characters; what counts are the alternative names.
        let first = names.iter().map(ServerName::to_str);
        let first = first.into_iter().find(|name| name.len() <= 64);
        let subject = common_name(first.as_deref().unwrap_or("Reveille"))?;
        let issuer = self.certificate.subject_name();
        let mut builder = builder(&subject, issuer, &key, now, LEAF_DAYS)?;
        builder.append_extension(BasicConstraints::new().critical().build()?)?;
        builder.append_extension(KeyUsage::new().critical().digital_signature().build()?)?;
        builder.append_extension(ExtendedKeyUsage::new().server_auth().build()?)?;
        let mut alternatives = SubjectAlternativeName::new();
        for name in names {
            match name {
                ServerName::IpAddress(_) => alternatives.ip(&name.to_str()),
                _ => alternatives.dns(&name.to_str()),
            };
        }
        let context = builder.x509v3_context(Some(&self.certificate), None);
        let alternatives = alternatives.build(&context)?;
        let own = SubjectKeyIdentifier::new().build(&context)?;
        let issuers = AuthorityKeyIdentifier::new().keyid(true).build(&context)?;
        for extension in [alternatives, own, issuers] {
            builder.append_extension(extension)?;
        }
        builder.sign(&self.key, MessageDigest::sha256())?;
        Ok((builder.build(), key))
    }
}

impl ServerCertificate {
    /// Whether it is time for another: a third of its life is left, or the clock stands
    /// before it began.
    #[must_use]
    pub fn is_due(&self, now: UnixMillis) -> bool {
        let now = seconds(now);
        let third = (self.not_after - self.not_before) / 3;
        now < self.not_before || now >= self.not_after - third
    }
}

impl std::fmt::Debug for TlsRoot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsRoot(..)")
    }
}

impl std::fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerCertificate")
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

fn make_root(now: UnixMillis) -> Result<KeyPair, ErrorStack> {
    let key = p256_key()?;
    let mut mark = [0; 4];
    openssl::rand::rand_bytes(&mut mark)?;
    // Two servers' roots may meet on one device: each has a name of its own.
    let mark = u32::from_be_bytes(mark);
    let name = common_name(&format!("Reveille TLS Root {mark:08X}"))?;
    let mut builder = builder(&name, &name, &key, now, ROOT_DAYS)?;
    builder.append_extension(BasicConstraints::new().critical().ca().pathlen(0).build()?)?;
    builder.append_extension(
        KeyUsage::new()
            .critical()
            .key_cert_sign()
            .crl_sign()
            .build()?,
    )?;
    let own = SubjectKeyIdentifier::new().build(&builder.x509v3_context(None, None))?;
    builder.append_extension(own)?;
    builder.sign(&key, MessageDigest::sha256())?;
    Ok(KeyPair {
        certificate: builder.build(),
        key,
    })
}

fn builder(
    subject: &X509NameRef,
    issuer: &X509NameRef,
    key: &PKey<Private>,
    now: UnixMillis,
    days: i64,
) -> Result<X509Builder, ErrorStack> {
    let mut serial = BigNum::new()?;
    serial.rand(127, MsbOption::ONE, false)?;
    // A day back: devices' clocks differ.
    let begin = seconds(now) - DAY;
    let mut builder = X509::builder()?;
    builder.set_version(2)?;
    builder.set_serial_number(&*serial.to_asn1_integer()?)?;
    builder.set_subject_name(subject)?;
    builder.set_issuer_name(issuer)?;
    builder.set_pubkey(key)?;
    builder.set_not_before(&*Asn1Time::from_unix(begin)?)?;
    builder.set_not_after(&*Asn1Time::from_unix(begin + days * DAY)?)?;
    Ok(builder)
}

fn common_name(text: &str) -> Result<X509Name, ErrorStack> {
    let mut name = X509NameBuilder::new()?;
    name.append_entry_by_text("O", "Reveille")?;
    name.append_entry_by_text("CN", text)?;
    Ok(name.build())
}

/// What is kept, if it can be read and is a pair; else a new one is made anyway.
fn read_pair(file: &Path) -> Option<(X509, PKey<Private>)> {
    let pem = fs::read(file).ok()?;
    let leaf = X509::from_pem(&pem).ok()?;
    let key = PKey::private_key_from_pem(&pem).ok()?;
    leaf.public_key()
        .ok()?
        .public_eq(&key)
        .then_some((leaf, key))
}

fn same_names(leaf: &X509, names: &[ServerName<'_>]) -> bool {
    let mut wanted: Vec<_> = names
        .iter()
        .map(|name| name.to_str().into_owned())
        .collect();
    let mut held: Vec<_> = leaf
        .subject_alt_names()
        .into_iter()
        .flatten()
        .filter_map(|name| match (name.dnsname(), name.ipaddress()) {
            (Some(dns), _) => Some(dns.to_owned()),
            (_, Some(ip)) => address(ip).map(|ip| ip.to_string()),
            _ => None,
        })
        .collect();
    wanted.sort();
    held.sort();
    wanted == held
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from))
        .ok()
}

pub(crate) fn unix(time: &Asn1TimeRef) -> Result<i64, ErrorStack> {
    let since = Asn1Time::from_unix(0)?.diff(time)?;
    Ok(i64::from(since.days) * DAY + i64::from(since.secs))
}

pub(crate) fn seconds(time: UnixMillis) -> i64 {
    i64::try_from(time.0 / 1000).unwrap_or(i64::MAX)
}

const DAY: i64 = 86_400;
/// Twenty years: devices must be told of a new root, so it outlives them.
const ROOT_DAYS: i64 = 7300;
/// Apple's systems refuse more than 398 days of a public root, and 397 is good custom.
const LEAF_DAYS: i64 = 397;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn names(texts: &[&str]) -> Vec<ServerName<'static>> {
        let name = |text: &&str| ServerName::try_from((*text).to_owned()).unwrap();
        texts.iter().map(name).collect()
    }

    fn days_later(days: u64) -> UnixMillis {
        UnixMillis(NOW.0 + days * 86_400_000)
    }

    #[test]
    fn a_certificate_is_what_apples_systems_ask_of_a_server() {
        let directory = tempfile::tempdir().unwrap();
        let root = TlsRoot::open(directory.path(), NOW).unwrap();
        let all = names(&["mdm.example.org", "127.0.0.1", "::1"]);
        let made = root.certificate_for(&all, NOW).unwrap();
        let leaf = X509::from_der(&made.chain[0]).unwrap();
        assert!(
            leaf.verify(&root.certificate.public_key().unwrap())
                .unwrap()
        );
        assert_eq!(made.chain[1], root.certificate.to_der().unwrap());
        let text = String::from_utf8(leaf.to_text().unwrap()).unwrap();
        for part in [
            "DNS:mdm.example.org, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1",
            "TLS Web Server Authentication",
            "CA:FALSE",
            "prime256v1",
            "ecdsa-with-SHA256",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("Client Authentication"), "{text}");
        assert!(made.not_after - made.not_before <= 397 * DAY);
        assert!(made.not_before <= seconds(NOW));
        let root = String::from_utf8(root.certificate.to_text().unwrap()).unwrap();
        assert!(root.contains("CA:TRUE, pathlen:0"), "{root}");
    }

    #[test]
    fn a_certificate_is_kept_until_a_third_is_left_or_the_names_change() {
        let directory = tempfile::tempdir().unwrap();
        let root = TlsRoot::open(directory.path(), NOW).unwrap();
        let (one, other) = (names(&["a.example", "10.0.0.1"]), names(&["b.example"]));
        let leaf = |names: &[ServerName<'_>], now| {
            let [leaf, _] = root.certificate_for(names, now).unwrap().chain;
            leaf
        };
        let first = leaf(&one, NOW);
        assert_eq!(first, leaf(&one, days_later(260)), "more than a third left");
        let second = leaf(&one, days_later(270));
        assert_ne!(first, second, "renewed");
        assert_eq!(second, leaf(&one, days_later(271)));
        assert_ne!(second, leaf(&one, NOW), "not yet valid by a clock set back");
        let third = leaf(&other, NOW);
        assert_eq!(third, leaf(&other, NOW));
        fs::write(directory.path().join("tls-leaf.pem"), "torn").unwrap();
        assert_ne!(third, leaf(&other, NOW), "an unreadable one is made anew");
    }
}
