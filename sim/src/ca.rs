//! A throw-away device CA: what a SCEP server would be to real devices. The
//! server under test is told to trust its certificate.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use openssl::asn1::{Asn1Integer, Asn1Time};
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, PKeyRef, Private};
use openssl::x509::extension::{BasicConstraints, ExtendedKeyUsage, KeyUsage};
use openssl::x509::{X509, X509Builder, X509Extension, X509Name, X509NameRef};

use crate::der;
use crate::error::SimError;
use crate::identity::Identity;
use crate::keys::{KeyPool, rsa_key};

/// A certificate authority that issues device identities.
pub struct DeviceCa {
    cert: X509,
    key: PKey<Private>,
    name_der: Vec<u8>,
    pool: Arc<KeyPool>,
    leaf_extensions: Vec<X509Extension>,
}

/// The kind of key a `DeviceCa` signs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaKey {
    /// As most device CAs have.
    Rsa2048,
    /// Issues some twenty times faster; for fleets of a hundred thousand.
    P256,
}

impl DeviceCa {
    /// A fresh RSA-2048 CA with a pool of four device keys, made when needed.
    pub fn new() -> Result<Self, SimError> {
        Self::with(CaKey::Rsa2048, Arc::new(KeyPool::growing(4)))
    }

    /// The cheapest CA there is, for tests: it signs with P-256, and its devices
    /// share one RSA key.
    pub fn quick() -> Result<Self, SimError> {
        Self::with(CaKey::P256, Arc::new(KeyPool::growing(1)))
    }

    /// A fresh CA whose devices use the keys of `pool`.
    pub fn with(kind: CaKey, pool: Arc<KeyPool>) -> Result<Self, SimError> {
        let key = match kind {
            CaKey::Rsa2048 => rsa_key()?,
            CaKey::P256 => p256_key()?,
        };
        let cert = self_signed("Reveille Simulated Device CA", &key)?;
        Self::from_parts(cert, key, pool)
    }

    /// The CA kept in `dir` as `ca.pem` and `ca-key.pem`; made there if absent.
    pub fn open_or_create(dir: &Path, kind: CaKey, pool: Arc<KeyPool>) -> Result<Self, SimError> {
        let (cert_path, key_path) = (dir.join("ca.pem"), dir.join("ca-key.pem"));
        if cert_path.exists() {
            let cert = X509::from_pem(&fs::read(cert_path)?)?;
            let key = PKey::private_key_from_pem(&fs::read(key_path)?)?;
            return Self::from_parts(cert, key, pool);
        }
        let ca = Self::with(kind, pool)?;
        fs::create_dir_all(dir)?;
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(key_path)?
            .write_all(&ca.key.private_key_to_pem_pkcs8()?)?;
        fs::write(cert_path, ca.pem())?;
        Ok(ca)
    }

    /// The CA certificate as PEM.
    pub fn pem(&self) -> Vec<u8> {
        self.cert.to_pem().unwrap_or_default()
    }

    /// The CA certificate as DER.
    pub fn der(&self) -> Vec<u8> {
        self.cert.to_der().unwrap_or_default()
    }

    /// A new device identity: own serial and subject, a key from the pool.
    pub fn issue(&self, common_name: &str) -> Result<Identity, SimError> {
        self.issue_for(common_name, ONE_YEAR)
    }

    /// The same, ending `days` from now.
    pub fn issue_for(&self, common_name: &str, days: u32) -> Result<Identity, SimError> {
        let key = self.pool.deal()?;
        let subject = name(common_name)?;
        let mut builder = X509Builder::new()?;
        let serial = describe(&mut builder, &subject, self.cert.subject_name(), &key, days)?;
        for extension in &self.leaf_extensions {
            builder.append_extension2(extension)?;
        }
        builder.sign(&self.key, MessageDigest::sha256())?;
        Ok(Identity {
            cert_der: builder.build().to_der()?.into(),
            key,
            issuer_and_serial: der::sequence(&[&self.name_der, &der::unsigned(&serial.to_vec())])
                .into(),
        })
    }

    fn from_parts(cert: X509, key: PKey<Private>, pool: Arc<KeyPool>) -> Result<Self, SimError> {
        Ok(Self {
            name_der: cert.subject_name().to_der()?,
            cert,
            key,
            pool,
            leaf_extensions: vec![
                BasicConstraints::new().critical().build()?,
                KeyUsage::new()
                    .critical()
                    .digital_signature()
                    .key_encipherment()
                    .build()?,
                ExtendedKeyUsage::new().client_auth().build()?,
            ],
        })
    }
}

/// A self-signed CA certificate; the fake APNs makes its root with it too.
pub(crate) fn self_signed(common_name: &str, key: &PKeyRef<Private>) -> Result<X509, SimError> {
    let name = name(common_name)?;
    let mut builder = X509Builder::new()?;
    describe(&mut builder, &name, &name, key, TEN_YEARS)?;
    builder.append_extension(BasicConstraints::new().critical().ca().build()?)?;
    builder.append_extension(
        KeyUsage::new()
            .critical()
            .key_cert_sign()
            .crl_sign()
            .digital_signature()
            .build()?,
    )?;
    builder.sign(key, MessageDigest::sha256())?;
    Ok(builder.build())
}

/// A subject of just a common name.
pub(crate) fn name(common_name: &str) -> Result<X509Name, SimError> {
    let mut name = X509Name::builder()?;
    name.append_entry_by_nid(Nid::COMMONNAME, common_name)?;
    Ok(name.build())
}

/// Fills in all but the extensions; gives back the random serial.
pub(crate) fn describe(
    builder: &mut X509Builder,
    subject: &X509NameRef,
    issuer: &X509NameRef,
    key: &PKeyRef<Private>,
    days: u32,
) -> Result<BigNum, SimError> {
    let mut serial = BigNum::new()?;
    // 127 random bits: 16 bytes of DER, positive.
    serial.rand(127, MsbOption::ONE, false)?;
    builder.set_version(2)?;
    let number: Asn1Integer = serial.to_asn1_integer()?;
    builder.set_serial_number(&number)?;
    builder.set_subject_name(subject)?;
    builder.set_issuer_name(issuer)?;
    builder.set_pubkey(key)?;
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs() as i64);
    // An hour back, so that a clock slightly behind still accepts it.
    let start = Asn1Time::from_unix(now - 3600)?;
    let end = Asn1Time::from_unix(now + i64::from(days) * 86_400)?;
    builder.set_not_before(&start)?;
    builder.set_not_after(&end)?;
    Ok(serial)
}

/// A fresh P-256 key.
pub(crate) fn p256_key() -> Result<PKey<Private>, SimError> {
    let curve = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    Ok(PKey::from_ec_key(EcKey::generate(&curve)?)?)
}

const ONE_YEAR: u32 = 365;
const TEN_YEARS: u32 = 3650;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn devices_share_keys_but_never_certificates() {
        let ca = DeviceCa::quick().unwrap();
        let leaves: HashSet<_> = (0..20)
            .map(|n| ca.issue(&format!("device {n}")).unwrap().leaf_hash())
            .collect();
        assert_eq!(leaves.len(), 20);
    }

    #[test]
    fn a_leaf_is_signed_by_the_ca_and_is_no_ca() {
        let ca = DeviceCa::new().unwrap();
        let leaf = X509::from_der(&ca.issue("device").unwrap().cert_der).unwrap();
        assert!(leaf.verify(&ca.cert.public_key().unwrap()).unwrap());
        let text = String::from_utf8(leaf.to_text().unwrap()).unwrap();
        assert!(text.contains("CA:FALSE"), "{text}");
        assert!(text.contains("TLS Web Client Authentication"), "{text}");
    }

    #[test]
    fn a_kept_ca_is_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let pool = Arc::new(KeyPool::growing(1));
        let first = DeviceCa::open_or_create(dir.path(), CaKey::P256, pool.clone()).unwrap();
        let again = DeviceCa::open_or_create(dir.path(), CaKey::P256, pool).unwrap();
        assert_eq!(first.pem(), again.pem());
    }
}
