use std::path::Path;

use openssl::asn1::{Asn1Integer, Asn1Time};
use openssl::bn::BigNum;
use openssl::hash::MessageDigest;
use openssl::pkcs12::Pkcs12;
use openssl::provider::Provider;
use openssl::rsa::Rsa;
use openssl::symm::Cipher;
use openssl::x509::{X509, X509NameBuilder};

use super::*;

const TOPIC: &str = "com.apple.mgmt.External.18a16429-886b-41f1-9c30-2bd04ae4fc37";
const PASSPHRASE: &str = "correct horse";
/// 2030-01-01T00:00:00Z.
const NOT_AFTER: i64 = 1_893_456_000;

fn key() -> PKey<Private> {
    PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap()
}

fn certificate(key: &PKey<Private>, uid: Option<&str>) -> X509 {
    let mut name = X509NameBuilder::new().unwrap();
    if let Some(uid) = uid {
        name.append_entry_by_nid(Nid::USERID, uid).unwrap();
    }
    name.append_entry_by_nid(Nid::COMMONNAME, "APSP:test")
        .unwrap();
    let name = name.build();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    let serial = Asn1Integer::from_bn(&BigNum::from_u32(0xBEEF).unwrap()).unwrap();
    builder.set_serial_number(&serial).unwrap();
    builder.set_subject_name(&name).unwrap();
    builder.set_issuer_name(&name).unwrap();
    builder
        .set_not_before(&Asn1Time::from_unix(1_500_000_000).unwrap())
        .unwrap();
    builder
        .set_not_after(&Asn1Time::from_unix(NOT_AFTER).unwrap())
        .unwrap();
    builder.set_pubkey(key).unwrap();
    builder.sign(key, MessageDigest::sha256()).unwrap();
    builder.build()
}

fn pkcs8(key: &PKey<Private>) -> Vec<u8> {
    key.private_key_to_pem_pkcs8().unwrap()
}

fn pkcs1(key: &PKey<Private>) -> Vec<u8> {
    key.rsa().unwrap().private_key_to_pem().unwrap()
}

fn error(result: Result<PushCertificate, PushCertificateError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn every_form_of_the_key_in_any_order_is_read() {
    let key = key();
    let cert = certificate(&key, Some(TOPIC)).to_pem().unwrap();
    let encrypted_pkcs8 =
        key.private_key_to_pem_pkcs8_passphrase(Cipher::aes_256_cbc(), PASSPHRASE.as_bytes());
    let encrypted_pkcs1 = key
        .rsa()
        .unwrap()
        .private_key_to_pem_passphrase(Cipher::des_ede3_cbc(), PASSPHRASE.as_bytes());
    let forms = [
        (pkcs8(&key), None),
        (pkcs1(&key), None),
        (encrypted_pkcs8.unwrap(), Some(PASSPHRASE)),
        (encrypted_pkcs1.unwrap(), Some(PASSPHRASE)),
    ];
    for (key_pem, passphrase) in forms {
        for order in [[&cert, &key_pem], [&key_pem, &cert]] {
            for between in ["", "\n", "\r\nBag Attributes\n  friendlyName: MDM\n"] {
                let [first, second] = order.map(|pem| pem.trim_ascii_end());
                let pem = [first, between.as_bytes(), second].concat();
                let read = PushCertificate::from_pem(&pem, passphrase).unwrap();
                assert_eq!(read.topic, TOPIC);
                assert_eq!(read.not_after, NOT_AFTER);
                assert_eq!(read.serial, "BEEF");
                assert_eq!(read.subject, format!("UID={TOPIC}, CN=APSP:test"));
                assert_eq!(read.key_der(), key.private_key_to_pkcs8().unwrap());
                assert_eq!(read.chain_der.len(), 1);
            }
        }
    }
}

#[test]
fn the_chain_begins_with_the_certificate_of_the_key() {
    let (key, other) = (key(), key());
    let (leaf, ca) = (certificate(&key, Some(TOPIC)), certificate(&other, None));
    let pem = [ca.to_pem().unwrap(), pkcs8(&key), leaf.to_pem().unwrap()].concat();
    let read = PushCertificate::from_pem(&pem, None).unwrap();
    assert_eq!(
        read.chain_der,
        [leaf.to_der().unwrap(), ca.to_der().unwrap()]
    );
}

#[test]
fn the_stored_form_reads_back_and_shows_no_secret() {
    let key = key();
    let cert = certificate(&key, Some(TOPIC)).to_pem().unwrap();
    let read = PushCertificate::from_parts(&cert, &pkcs1(&key)).unwrap();
    let stored = read.to_pem().unwrap();
    let again = PushCertificate::from_stored(&stored).unwrap();
    assert_eq!(again.key_der(), read.key_der());
    assert_eq!(again.chain_der, read.chain_der);
    assert!(format!("{stored:?}").starts_with("SecretBytes("));
    assert!(format!("{read:?}").len() < 250, "{read:?}");
}

#[test]
fn an_expired_certificate_is_read_and_flagged() {
    let key = key();
    let cert = certificate(&key, Some(TOPIC)).to_pem().unwrap();
    let read = PushCertificate::from_parts(&cert, &pkcs8(&key)).unwrap();
    assert!(!read.expired(NOT_AFTER));
    assert!(read.expired(NOT_AFTER + 1));
}

/// PEM blocks, a passphrase, and what the refusal must say.
type Refusal<'a> = (&'a [&'a [u8]], Option<&'a str>, &'a str);

#[test]
fn a_refusal_names_what_is_wrong_and_holds_no_secret() {
    let (key, other) = (key(), key());
    let cert = certificate(&key, Some(TOPIC)).to_pem().unwrap();
    let without_uid = certificate(&key, None).to_pem().unwrap();
    let wrong_uid = certificate(&key, Some("com.apple.mgmtX")).to_pem().unwrap();
    let sealed = key
        .private_key_to_pem_pkcs8_passphrase(Cipher::aes_256_cbc(), PASSPHRASE.as_bytes())
        .unwrap();
    let public = key.public_key_to_pem().unwrap();
    let key = pkcs8(&key);
    let cut = key.get(..key.len() - 30).unwrap();
    let cases: &[Refusal<'_>] = &[
        (&[], None, "not PEM"),
        (&[b"hello"], None, "not PEM"),
        (&[&cert], None, "no private key"),
        (&[&key], None, "no certificate"),
        (&[&cert, &key, &key], None, "more than one private key"),
        (
            &[&cert, &pkcs8(&other)],
            None,
            "does not belong to the certificate",
        ),
        (&[&without_uid, &key], None, "has no UID"),
        (&[&without_uid], None, "has no UID"),
        (
            &[&wrong_uid, &key],
            None,
            "does not begin with com.apple.mgmt.",
        ),
        (&[&cert, &sealed], None, "a passphrase is needed"),
        (
            &[&cert, &sealed],
            Some("battery"),
            "the passphrase does not open",
        ),
        (
            &[&cert, &sealed],
            Some(&"x".repeat(5000)),
            "the passphrase does not open",
        ),
        (&[&cert, cut], None, "block PRIVATE KEY is damaged"),
        (&[&cert, &public], None, "unexpected PEM block PUBLIC KEY"),
        (
            &[b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"],
            None,
            "block CERTIFICATE is damaged",
        ),
    ];
    for (blocks, passphrase, expected) in cases {
        let message = error(PushCertificate::from_pem(&blocks.concat(), *passphrase));
        assert!(
            message.contains(expected),
            "{message} should contain {expected}"
        );
    }
}

#[test]
fn pkcs12_is_read_in_new_and_keychain_ciphers() {
    let (key, other) = (key(), key());
    let cert = certificate(&key, Some(TOPIC));
    let new = Pkcs12::builder()
        .pkey(&key)
        .cert(&cert)
        .build2(PASSPHRASE)
        .unwrap()
        .to_der()
        .unwrap();
    let mut files = vec![new];
    if let Ok(_while_held) = Provider::try_load(None, "legacy", true) {
        let keychain = Pkcs12::builder()
            .key_algorithm(Nid::PBE_WITHSHA1AND3_KEY_TRIPLEDES_CBC)
            .cert_algorithm(Nid::PBE_WITHSHA1AND40BITRC2_CBC)
            .mac_md(MessageDigest::sha1())
            .pkey(&key)
            .cert(&cert)
            .build2(PASSPHRASE);
        files.push(keychain.unwrap().to_der().unwrap());
    } else {
        println!("skipped: no legacy provider on this machine");
    }
    for file in files {
        let read = PushCertificate::from_pkcs12(&file, PASSPHRASE).unwrap();
        assert_eq!(read.topic, TOPIC);
        assert_eq!(read.key_der(), key.private_key_to_pkcs8().unwrap());
        assert!(error(PushCertificate::from_pkcs12(&file, "battery")).contains("does not open"));
    }
    assert!(error(PushCertificate::from_pkcs12(b"0", "")).contains("PKCS#12"));
    let keyless = Pkcs12::builder()
        .cert(&cert)
        .build2(PASSPHRASE)
        .unwrap()
        .to_der()
        .unwrap();
    assert!(error(PushCertificate::from_pkcs12(&keyless, PASSPHRASE)).contains("no private key"));
    let certless = Pkcs12::builder()
        .pkey(&other)
        .build2(PASSPHRASE)
        .unwrap()
        .to_der()
        .unwrap();
    assert!(error(PushCertificate::from_pkcs12(&certless, PASSPHRASE)).contains("no certificate"));
}

#[test]
fn recorded_certificates_that_are_not_for_mdm_are_refused() {
    let vectors = Path::new("/work/shared/vectors/push-cert");
    let cases = [
        ("micromdm__mock_push_cert_no_uid.pem", "has no UID"),
        (
            "micromdm__mock_push_cert_wrong_uid_prefix.pem",
            "\"wrong.prefix.",
        ),
    ];
    for (name, expected) in cases {
        let Ok(pem) = std::fs::read(vectors.join(name)) else {
            println!("skipped: {name} is not on this machine");
            continue;
        };
        let with_key = [pem.clone(), pkcs8(&key())].concat();
        for pem in [pem, with_key] {
            let message = error(PushCertificate::from_pem(&pem, None));
            assert!(message.contains(expected), "{message}");
        }
    }
}
