//! The certificates of the CA: its root, its own listener's, and what it issues.

use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private, Public};
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509Name, X509Req};

/// The CA's root with its key.
pub(super) struct Root {
    pub(super) certificate: X509,
    key: PKey<Private>,
    /// All certificates begin an hour before the CA does: they are shown to clients whose
    /// clock nobody sets.
    begin: i64,
}

impl Root {
    pub(super) fn new(now: i64) -> Self {
        let key = key();
        let begin = now - 3600;
        let certificate = certificate("ACME test root", None, &key, &[], [begin, now + YEAR], &key);
        Self {
            certificate,
            key,
            begin,
        }
    }

    pub(super) fn pem(&self) -> Vec<u8> {
        self.certificate.to_pem().unwrap()
    }

    /// A leaf for these names, in PEM, with the root behind it.
    pub(super) fn issue(&self, names: &[String], key: &PKey<Public>, end: i64) -> Vec<u8> {
        let issuer = Some(&self.certificate);
        let leaf = certificate("", issuer, key, names, [self.begin, end], &self.key);
        [leaf.to_pem().unwrap(), self.pem()].concat()
    }

    /// The CA's own listener's, with its key.
    pub(super) fn own(&self) -> (Vec<u8>, PKey<Private>) {
        let key = key();
        let public = PKey::public_key_from_der(&key.public_key_to_der().unwrap()).unwrap();
        let end = self.begin + YEAR;
        (self.issue(&["localhost".to_owned()], &public, end), key)
    }
}

/// The names a request is for, with its key, once its signature is checked.
pub(super) fn requested(csr: &[u8]) -> (Vec<String>, PKey<Public>) {
    let request = X509Req::from_der(csr).unwrap();
    let key = request.public_key().unwrap();
    assert!(request.verify(&key).unwrap());
    let text = String::from_utf8(request.to_text().unwrap()).unwrap();
    let names = text.split("DNS:").skip(1);
    let names = names.map(|name| name.split([',', '\n']).next().unwrap().trim().to_owned());
    (names.collect(), key)
}

fn certificate<T: openssl::pkey::HasPublic>(
    name: &str,
    issuer: Option<&X509>,
    key: &PKey<T>,
    names: &[String],
    [begin, end]: [i64; 2],
    signer: &PKey<Private>,
) -> X509 {
    let mut subject = X509Name::builder().unwrap();
    if !name.is_empty() {
        subject.append_entry_by_text("CN", name).unwrap();
    }
    let subject = subject.build();
    let mut serial = BigNum::new().unwrap();
    serial.rand(127, MsbOption::ONE, false).unwrap();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    builder
        .set_serial_number(&serial.to_asn1_integer().unwrap())
        .unwrap();
    let issued_by = issuer.map_or(&*subject, |issuer| issuer.subject_name());
    builder.set_issuer_name(issued_by).unwrap();
    builder.set_subject_name(&subject).unwrap();
    builder.set_pubkey(key).unwrap();
    let time = |unix| Asn1Time::from_unix(unix).unwrap();
    builder.set_not_before(&time(begin)).unwrap();
    builder.set_not_after(&time(end)).unwrap();
    let mut basic = BasicConstraints::new();
    if issuer.is_none() {
        basic.critical().ca();
    }
    builder.append_extension(basic.build().unwrap()).unwrap();
    if !names.is_empty() {
        let mut alternatives = SubjectAlternativeName::new();
        for name in names {
            alternatives.dns(name);
        }
        let alternatives = alternatives
            .critical()
            .build(&builder.x509v3_context(issuer.map(|issuer| &**issuer), None));
        builder.append_extension(alternatives.unwrap()).unwrap();
    }
    builder.sign(signer, MessageDigest::sha256()).unwrap();
    builder.build()
}

fn key() -> PKey<Private> {
    let curve = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    PKey::from_ec_key(EcKey::generate(&curve).unwrap()).unwrap()
}

const YEAR: i64 = 366 * 86_400;
