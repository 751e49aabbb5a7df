//! Identities as devices and proxies present them, against CAs made here.

use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::cms::{CMSOptions, CmsContentInfo};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::{MessageDigest, hash};
use openssl::nid::Nid;
use openssl::pkcs7::{Pkcs7, Pkcs7Flags};
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::sign::Signer;
use openssl::stack::Stack;
use openssl::x509::extension::{
    BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectKeyIdentifier,
};
use openssl::x509::{X509, X509Name};
use schema::cms::{CONTENT_TYPE, DATA, MESSAGE_DIGEST, SIGNED_DATA};
use schema::der::{Oid, Reader, Tag, Writer};
use schema::x509::{EC_PUBLIC_KEY, RSA_ENCRYPTION};

use super::*;

mod messages;

const BODY: &[u8] = b"<plist><dict><key>Status</key><string>Idle</string></dict></plist>";
const NOW: i64 = 1_800_000_000;
const SHA1: Oid<'static> = Oid(&[0x2b, 0x0e, 0x03, 0x02, 0x1a]);
const SHA256_OID: Oid<'static> = Oid(&[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01]);
const SHA384: Oid<'static> = Oid(&[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02]);
const SHA512: Oid<'static> = Oid(&[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03]);
const SHA256_WITH_RSA: Oid<'static> = Oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b]);
const ECDSA_WITH_SHA256: Oid<'static> = Oid(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02]);

struct Holder {
    certificate: X509,
    key: PKey<Private>,
}

/// What a certificate is made of, where it differs from a plain device's.
struct Wish {
    name: &'static str,
    serial: u32,
    days: u32,
    begins: i64,
    authority: bool,
    server_only: bool,
    client: bool,
    digest: MessageDigest,
}

const DEVICE: fn() -> Wish = || Wish {
    name: "device",
    serial: 0x1ab,
    days: 365,
    begins: NOW,
    authority: false,
    server_only: false,
    client: true,
    digest: MessageDigest::sha256(),
};

fn ec(curve: Nid) -> PKey<Private> {
    let group = EcGroup::from_curve_name(curve).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

fn rsa(bits: u32) -> PKey<Private> {
    PKey::from_rsa(Rsa::generate(bits).unwrap()).unwrap()
}

fn name(common: &str) -> X509Name {
    let mut name = X509Name::builder().unwrap();
    name.append_entry_by_nid(Nid::COMMONNAME, common).unwrap();
    name.build()
}

fn issue(issuer: Option<&Holder>, key: PKey<Private>, wish: &Wish) -> Holder {
    let mut builder = X509::builder().unwrap();
    let subject = name(wish.name);
    builder.set_version(2).unwrap();
    builder.set_subject_name(&subject).unwrap();
    builder
        .set_issuer_name(issuer.map_or(&*subject, |ca| ca.certificate.subject_name()))
        .unwrap();
    let serial = BigNum::from_u32(wish.serial)
        .unwrap()
        .to_asn1_integer()
        .unwrap();
    builder.set_serial_number(&serial).unwrap();
    builder
        .set_not_before(&Asn1Time::from_unix(wish.begins).unwrap())
        .unwrap();
    let end = wish.begins + i64::from(wish.days) * 86_400;
    builder
        .set_not_after(&Asn1Time::from_unix(end).unwrap())
        .unwrap();
    builder.set_pubkey(&key).unwrap();
    if wish.authority {
        builder
            .append_extension(BasicConstraints::new().critical().ca().build().unwrap())
            .unwrap();
        builder
            .append_extension(KeyUsage::new().key_cert_sign().build().unwrap())
            .unwrap();
    } else if wish.server_only {
        builder
            .append_extension(ExtendedKeyUsage::new().server_auth().build().unwrap())
            .unwrap();
    } else if wish.client {
        builder
            .append_extension(ExtendedKeyUsage::new().client_auth().build().unwrap())
            .unwrap();
    }
    let key_id = SubjectKeyIdentifier::new()
        .build(&builder.x509v3_context(None, None))
        .unwrap();
    builder.append_extension(key_id).unwrap();
    builder
        .sign(issuer.map_or(&*key, |ca| &*ca.key), wish.digest)
        .unwrap();
    Holder {
        certificate: builder.build(),
        key,
    }
}

fn authority(issuer: Option<&Holder>, name: &'static str) -> Holder {
    issue(
        issuer,
        ec(Nid::X9_62_PRIME256V1),
        &Wish {
            name,
            authority: true,
            ..DEVICE()
        },
    )
}

fn device(ca: &Holder) -> Holder {
    issue(Some(ca), rsa(2048), &DEVICE())
}

impl Holder {
    fn der(&self) -> Vec<u8> {
        self.certificate.to_der().unwrap()
    }

    fn pem(&self) -> Vec<u8> {
        self.certificate.to_pem().unwrap()
    }
}

fn verifier(ours: &[&Holder], extra: &[&Holder]) -> IdentityVerifier {
    let pems = |list: &[&Holder]| list.iter().map(|ca| ca.pem()).collect::<Vec<_>>();
    IdentityVerifier::new(
        &pems(ours),
        &pems(extra),
        vec!["10.0.0.0/8".parse().unwrap()],
        Some("Client-Cert".to_owned()),
    )
    .unwrap()
}

fn evidence<'a>() -> Evidence<'a> {
    Evidence {
        peer: "192.0.2.1".parse().unwrap(),
        tls_leaf: None,
        signature_header: None,
        proxy_header: None,
        body: BODY,
    }
}

fn from_proxy(header: &[u8]) -> Evidence<'_> {
    Evidence {
        peer: "10.1.2.3".parse().unwrap(),
        proxy_header: Some(header),
        ..evidence()
    }
}

fn by_tls(
    verifier: &IdentityVerifier,
    holder: &Holder,
) -> Result<Arc<DeviceIdentity>, IdentityError> {
    verifier.verify(&Evidence {
        tls_leaf: Some(&holder.der()),
        ..evidence()
    })
}

fn by_signature(
    verifier: &IdentityVerifier,
    cms: &[u8],
    body: &[u8],
) -> Result<Arc<DeviceIdentity>, IdentityError> {
    let header = BASE64.encode(cms);
    verifier.verify(&Evidence {
        signature_header: Some(header.as_bytes()),
        body,
        ..evidence()
    })
}

/// A CMS signature as some sender would write it.
#[derive(Clone, Copy)]
struct Form {
    digest: Oid<'static>,
    algorithm: Oid<'static>,
    attributes: bool,
    signers: usize,
}

const PLAIN: Form = Form {
    digest: SHA256_OID,
    algorithm: RSA_ENCRYPTION,
    attributes: false,
    signers: 1,
};

fn message_digest(oid: Oid<'_>) -> MessageDigest {
    match oid {
        SHA1 => MessageDigest::sha1(),
        SHA384 => MessageDigest::sha384(),
        SHA512 => MessageDigest::sha512(),
        _ => MessageDigest::sha256(),
    }
}

fn sign(holder: &Holder, body: &[u8], form: Form) -> Vec<u8> {
    let digest = message_digest(form.digest);
    let mut attributes = Writer::new();
    attributes.set(|w| {
        w.sequence(|w| {
            w.oid(CONTENT_TYPE);
            w.set(|w| w.oid(DATA));
        });
        w.sequence(|w| {
            w.oid(MESSAGE_DIGEST);
            w.set(|w| w.octet_string(&hash(digest, body).unwrap()));
        });
    });
    let attributes = attributes.finish();
    let signed = if form.attributes {
        &attributes[..]
    } else {
        body
    };
    let mut signer = Signer::new(digest, &holder.key).unwrap();
    let signature = signer.sign_oneshot_to_vec(signed).unwrap();

    let der = holder.der();
    let certificate = Certificate::parse(&der).unwrap();
    let mut writer = Writer::new();
    writer.sequence(|w| {
        w.oid(SIGNED_DATA);
        w.context(0, |w| {
            w.sequence(|w| {
                w.small_integer(1);
                w.set(|w| w.sequence(|w| w.oid(form.digest)));
                w.sequence(|w| w.oid(DATA));
                w.context(0, |w| w.raw(&der));
                w.set(|w| {
                    for _ in 0..form.signers {
                        w.sequence(|w| {
                            w.small_integer(1);
                            w.sequence(|w| {
                                w.raw(certificate.issuer);
                                w.integer(certificate.serial);
                            });
                            w.sequence(|w| w.oid(form.digest));
                            if form.attributes {
                                w.context(0, |w| w.raw(&attributes[2..]));
                            }
                            w.sequence(|w| w.oid(form.algorithm));
                            w.octet_string(&signature);
                        });
                    }
                });
            });
        });
    });
    writer.finish()
}

/// The same encoding with indefinite lengths and split strings wherever BER
/// allows them; certificates and names stay as they are.
fn loosen(der: &[u8], level: u8) -> Vec<u8> {
    let mut out = Vec::new();
    let mut reader = Reader::der(der);
    while !reader.is_empty() {
        let element = reader.element().unwrap();
        // Only these two are SEQUENCEs that begin with a SEQUENCE.
        let certificate_or_signer_id = level >= 4
            && element.tag() == Tag::SEQUENCE
            && element.content().starts_with(&[Tag::SEQUENCE.0]);
        if certificate_or_signer_id {
            out.extend_from_slice(element.raw());
        } else if element.tag().is_constructed() {
            out.extend([element.tag().0, 0x80]);
            out.extend(loosen(element.content(), level + 1));
            out.extend([0, 0]);
        } else if element.tag() == Tag::OCTET_STRING {
            out.extend([0x24, 0x80]);
            for part in element.content().chunks(10) {
                let mut writer = Writer::new();
                writer.octet_string(part);
                out.extend(writer.finish());
            }
            out.extend([0, 0]);
        } else {
            out.extend_from_slice(element.raw());
        }
    }
    out
}

/// A signature of a real device, and the body it signs.
fn device_vector() -> Option<(Vec<u8>, Vec<u8>)> {
    let crate_folder = env!("CARGO_MANIFEST_DIR");
    for shared in ["../shared", "../../shared"] {
        let read = |name: &str| {
            std::fs::read(format!(
                "{crate_folder}/{shared}/vectors/mdm-signature/{name}"
            ))
            .ok()
        };
        if let (Some(header), Some(body)) = (
            read("mdmsig__pair2__header.b64"),
            read("mdmsig__pair2__body.plist"),
        ) {
            return Some((header, body));
        }
    }
    println!("skipped: no device vectors in shared/vectors/mdm-signature");
    None
}

#[test]
fn a_real_devices_signature_verifies_over_its_body_only() {
    let Some((header, mut body)) = device_vector() else {
        return;
    };
    let encoding = proxy_header::base64(&header).unwrap();
    let signed = SignedData::parse(&encoding).unwrap();
    let key = signed.signer_certificate().unwrap().key;
    assert_eq!(
        PreparedKey::default().check_cms(&key, &signed, &body),
        Ok(())
    );
    body[40] ^= 1;
    assert_eq!(
        PreparedKey::default().check_cms(&key, &signed, &body),
        Err(IdentityError::BadSignature)
    );

    let ca = authority(None, "ca");
    let stranger = Evidence {
        signature_header: Some(&header),
        body: &body,
        ..evidence()
    };
    assert_eq!(
        verifier(&[&ca], &[]).verify(&stranger),
        Err(IdentityError::ForeignIssuer)
    );
}

#[test]
fn every_form_of_signature_verifies_and_a_changed_body_does_not() {
    let ca = authority(None, "ca");
    let verifier = verifier(&[&ca], &[]);
    let rsa_device = device(&ca);
    let small = issue(Some(&ca), rsa(1024), &DEVICE());
    let p256 = issue(Some(&ca), ec(Nid::X9_62_PRIME256V1), &DEVICE());
    let p384 = issue(Some(&ca), ec(Nid::SECP384R1), &DEVICE());
    let p521 = issue(Some(&ca), ec(Nid::SECP521R1), &DEVICE());
    for (device, digest, algorithm) in [
        (&rsa_device, SHA1, RSA_ENCRYPTION),
        (&rsa_device, SHA256_OID, SHA256_WITH_RSA),
        (&rsa_device, SHA384, RSA_ENCRYPTION),
        (&rsa_device, SHA512, RSA_ENCRYPTION),
        (&small, SHA1, RSA_ENCRYPTION),
        (&small, SHA256_OID, RSA_ENCRYPTION),
        (&p256, SHA1, EC_PUBLIC_KEY),
        (&p256, SHA256_OID, ECDSA_WITH_SHA256),
        (&p384, SHA384, EC_PUBLIC_KEY),
        (&p384, SHA256_OID, ECDSA_WITH_SHA256),
        (&p521, SHA512, EC_PUBLIC_KEY),
    ] {
        for attributes in [false, true] {
            let der = sign(
                device,
                BODY,
                Form {
                    digest,
                    algorithm,
                    attributes,
                    signers: 1,
                },
            );
            for cms in [loosen(&der, 0), der] {
                let shown = format!("{digest} {algorithm} attributes: {attributes}");
                let identity = by_signature(&verifier, &cms, BODY).expect(&shown);
                assert_eq!(identity.leaf, sha256(&device.der()), "{shown}");
                assert_eq!(identity.source, Source::Signature);
                assert_eq!(
                    by_signature(&verifier, &cms, b"<plist/>"),
                    Err(IdentityError::BadSignature),
                    "{shown}"
                );
            }
        }
    }
}

#[test]
fn what_openssl_signs_verifies() {
    let ca = authority(None, "ca");
    let verifier = verifier(&[&ca], &[]);
    for device in [
        device(&ca),
        issue(Some(&ca), ec(Nid::X9_62_PRIME256V1), &DEVICE()),
    ] {
        let (certificate, key) = (&device.certificate, &device.key);
        for bare in [false, true] {
            let mut flags = CMSOptions::DETACHED | CMSOptions::BINARY;
            flags.set(CMSOptions::NOATTR, bare);
            for flags in [flags, flags | CMSOptions::USE_KEYID] {
                let cms =
                    CmsContentInfo::sign(Some(certificate), Some(key), None, Some(BODY), flags);
                let der = cms.unwrap().to_der().unwrap();
                assert!(
                    by_signature(&verifier, &der, BODY).is_ok(),
                    "CMS, bare: {bare}"
                );
            }
            let mut flags = Pkcs7Flags::DETACHED | Pkcs7Flags::BINARY;
            flags.set(Pkcs7Flags::NOATTR, bare);
            let others = Stack::new().unwrap();
            let cms = Pkcs7::sign(certificate, key, &others, BODY, flags).unwrap();
            let der = cms.to_der().unwrap();
            assert!(
                by_signature(&verifier, &der, BODY).is_ok(),
                "PKCS#7, bare: {bare}"
            );
            assert!(by_signature(&verifier, &der, b"other").is_err());
        }
        let attached = CmsContentInfo::sign(
            Some(certificate),
            Some(key),
            None,
            Some(BODY),
            CMSOptions::BINARY,
        );
        let der = attached.unwrap().to_der().unwrap();
        assert!(by_signature(&verifier, &der, BODY).is_ok());
        assert_eq!(
            by_signature(&verifier, &der, b"other"),
            Err(IdentityError::BadSignature)
        );
    }
}

#[test]
fn a_device_may_change_its_hash_between_requests() {
    let ca = authority(None, "ca");
    let (verifier, device) = (verifier(&[&ca], &[]), device(&ca));
    for digest in [SHA1, SHA256_OID, SHA1, SHA512] {
        let cms = sign(&device, BODY, Form { digest, ..PLAIN });
        assert!(by_signature(&verifier, &cms, BODY).is_ok(), "{digest}");
    }
}

#[test]
fn a_malformed_signature_header_is_refused() {
    let ca = authority(None, "ca");
    let (verifier, device) = (verifier(&[&ca], &[]), device(&ca));
    let two = sign(
        &device,
        BODY,
        Form {
            signers: 2,
            ..PLAIN
        },
    );
    assert_eq!(
        by_signature(&verifier, &two, BODY),
        Err(IdentityError::UnreadableSignature(CmsError::SignerCount(2)))
    );
    let good = sign(&device, BODY, PLAIN);
    let trailing = [&good[..], &[0]].concat();
    let unreadable = by_signature(&verifier, &trailing, BODY);
    assert!(
        matches!(unreadable, Err(IdentityError::UnreadableSignature(_))),
        "{unreadable:?}"
    );
    // An ECDSA algorithm over an RSA key.
    let crossed = sign(
        &device,
        BODY,
        Form {
            algorithm: ECDSA_WITH_SHA256,
            ..PLAIN
        },
    );
    let crossed = by_signature(&verifier, &crossed, BODY);
    assert!(
        matches!(crossed, Err(IdentityError::Malformed { .. })),
        "{crossed:?}"
    );

    let malformed = Err(IdentityError::Malformed {
        what: "Mdm-Signature",
    });
    let long = vec![b'A'; MAX_HEADER + 1];
    for header in [&b"not base64!"[..], &long] {
        let one = Evidence {
            signature_header: Some(header),
            ..evidence()
        };
        assert_eq!(verifier.verify(&one), malformed);
    }
    let mut folded = BASE64.encode(&good).into_bytes();
    for at in (0..folded.len()).step_by(64).rev() {
        folded.splice(at..at, *b"\r\n ");
    }
    let one = Evidence {
        signature_header: Some(&folded),
        ..evidence()
    };
    assert!(verifier.verify(&one).is_ok());
}

#[test]
fn the_tls_leaf_is_described_in_full() {
    let ca = authority(None, "ca");
    let device = device(&ca);
    let identity = by_tls(&verifier(&[&ca], &[]), &device).unwrap();
    assert_eq!(identity.source, Source::ClientCertificate);
    assert_eq!(identity.issued_by, IssuedBy::Ours);
    assert_eq!(identity.serial, "01AB");
    assert_eq!(identity.not_after, NOW + 365 * 86_400);
    assert_eq!(&identity.der[..], device.der());
    assert_eq!(identity.leaf, sha256(&device.der()));
}

#[test]
fn an_expired_leaf_is_accepted_and_flagged() {
    let ca = issue(
        None,
        ec(Nid::X9_62_PRIME256V1),
        &Wish {
            name: "ca",
            authority: true,
            begins: 0,
            days: 1,
            ..DEVICE()
        },
    );
    let old = issue(
        Some(&ca),
        rsa(2048),
        &Wish {
            begins: 1_000_000_000,
            days: 10,
            ..DEVICE()
        },
    );
    let identity = by_tls(&verifier(&[&ca], &[]), &old).unwrap();
    assert!(identity.expired(NOW));
    assert!(!identity.expired(identity.not_after));
    assert!(identity.expired(identity.not_after + 1));
}

#[test]
fn only_the_configured_authorities_are_believed() {
    let (ours, extra, foreign) = (
        authority(None, "ca"),
        authority(None, "former"),
        authority(None, "foreign"),
    );
    let verifier = verifier(&[&ours], &[&extra]);
    assert_eq!(
        by_tls(&verifier, &device(&ours)).unwrap().issued_by,
        IssuedBy::Ours
    );
    assert_eq!(
        by_tls(&verifier, &device(&extra)).unwrap().issued_by,
        IssuedBy::Extra
    );
    assert_eq!(
        by_tls(&verifier, &device(&foreign)),
        Err(IdentityError::ForeignIssuer)
    );
    let own = issue(None, rsa(2048), &DEVICE());
    assert_eq!(by_tls(&verifier, &own), Err(IdentityError::ForeignIssuer));
}

#[test]
fn a_foreign_ca_of_the_same_name_cannot_pass_its_leaf_for_ours() {
    let (ours, impostor) = (authority(None, "ca"), authority(None, "ca"));
    let (genuine, forged) = (device(&ours), device(&impostor));
    let verifier = verifier(&[&ours], &[]);
    assert!(by_tls(&verifier, &genuine).is_ok());
    assert_eq!(
        by_tls(&verifier, &forged),
        Err(IdentityError::ForeignIssuer)
    );
    let cms = sign(&forged, BODY, PLAIN);
    assert_eq!(
        by_signature(&verifier, &cms, BODY),
        Err(IdentityError::ForeignIssuer)
    );

    // The forger's key under the genuine certificate of equal issuer and serial.
    let genuine = Holder {
        certificate: genuine.certificate,
        key: forged.key,
    };
    let cms = sign(&genuine, BODY, PLAIN);
    assert_eq!(
        by_signature(&verifier, &cms, BODY),
        Err(IdentityError::BadSignature)
    );
    let header = BASE64.encode(forged.certificate.to_der().unwrap());
    assert_eq!(
        verifier.verify(&from_proxy(header.as_bytes())),
        Err(IdentityError::ForeignIssuer)
    );
}

#[test]
fn two_authorities_of_one_name_are_told_apart_by_key() {
    let (old, new) = (authority(None, "ca"), authority(None, "ca"));
    let verifier = verifier(&[&new], &[&old]);
    assert_eq!(
        by_tls(&verifier, &device(&old)).unwrap().issued_by,
        IssuedBy::Extra
    );
    assert_eq!(
        by_tls(&verifier, &device(&new)).unwrap().issued_by,
        IssuedBy::Ours
    );
}

#[test]
fn an_intermediate_counts_when_its_file_holds_it() {
    let root = authority(None, "root");
    let intermediate = authority(Some(&root), "intermediate");
    let device = device(&intermediate);
    assert_eq!(
        by_tls(&verifier(&[&root], &[]), &device),
        Err(IdentityError::ForeignIssuer)
    );
    let bundle = [root.pem(), intermediate.pem()].concat();
    let verifier = IdentityVerifier::new(&[bundle], &[], Vec::new(), None).unwrap();
    assert!(by_tls(&verifier, &device).is_ok());
}

#[test]
fn a_certificate_for_something_else_is_not_a_clients() {
    let ca = authority(None, "ca");
    let verifier = verifier(&[&ca], &[]);
    let server = issue(
        Some(&ca),
        rsa(2048),
        &Wish {
            server_only: true,
            ..DEVICE()
        },
    );
    let unmarked = issue(
        Some(&ca),
        rsa(2048),
        &Wish {
            client: false,
            ..DEVICE()
        },
    );
    assert_eq!(by_tls(&verifier, &server), Err(IdentityError::NotClient));
    assert_eq!(
        by_tls(&verifier, &authority(Some(&ca), "sub")),
        Err(IdentityError::NotClient)
    );
    assert_eq!(by_tls(&verifier, &ca), Err(IdentityError::NotClient));
    assert!(by_tls(&verifier, &unmarked).is_ok());
}

#[test]
fn a_leaf_signed_with_md5_is_foreign_and_with_sha1_is_not() {
    let ca = issue(
        None,
        rsa(2048),
        &Wish {
            name: "ca",
            authority: true,
            ..DEVICE()
        },
    );
    let verifier = verifier(&[], &[&ca]);
    let md5 = issue(
        Some(&ca),
        rsa(2048),
        &Wish {
            digest: MessageDigest::md5(),
            ..DEVICE()
        },
    );
    let sha1 = issue(
        Some(&ca),
        rsa(2048),
        &Wish {
            digest: MessageDigest::sha1(),
            ..DEVICE()
        },
    );
    assert_eq!(by_tls(&verifier, &md5), Err(IdentityError::ForeignIssuer));
    assert!(by_tls(&verifier, &sha1).is_ok());
}

#[test]
fn a_second_encoding_of_a_leaf_is_refused() {
    let ca = authority(None, "ca");
    let verifier = verifier(&[&ca], &[]);
    let der = device(&ca).der();
    let trailing = [&der[..], &[0]].concat();
    let indefinite = [&[0x30, 0x80][..], &der[4..], &[0, 0]].concat();
    for bytes in [&trailing, &indefinite] {
        assert_eq!(
            verifier.verify(&Evidence {
                tls_leaf: Some(bytes),
                ..evidence()
            }),
            Err(IdentityError::Malformed {
                what: "identity certificate"
            })
        );
    }
}

#[test]
fn every_proxys_form_of_header_gives_the_same_leaf() {
    let ca = authority(None, "ca");
    let device = device(&ca);
    let bare = BASE64.encode(device.der());
    let pem = String::from_utf8(device.pem()).unwrap();
    let escape = |text: &str| {
        text.bytes().fold(String::new(), |out, octet| match octet {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => out + &char::from(octet).to_string(),
            _ => out + &format!("%{octet:02X}"),
        })
    };
    let second = BASE64.encode(ca.der());
    let verifier = verifier(&[&ca], &[]);
    for header in [
        format!(":{bare}:"),
        escape(&pem),
        escape(&pem).replace("%20", "+"),
        escape(&[pem.clone(), String::from_utf8(ca.pem()).unwrap()].concat()),
        bare.clone(),
        bare.trim_end_matches('=').to_owned(),
        format!("  {bare} "),
        format!("{bare},{second}"),
        escape(&format!("{bare},{second}")),
        pem.replace('\n', " "),
    ] {
        for _ in 0..2 {
            let identity = verifier
                .verify(&from_proxy(header.as_bytes()))
                .expect(&header);
            assert_eq!(identity.leaf, sha256(&device.der()), "{header}");
            assert_eq!(identity.source, Source::ProxyHeader);
        }
    }
    for header in ["::", "AAAA", "%", ":AAAA:", &"A".repeat(MAX_HEADER + 1)] {
        let outcome = verifier.verify(&from_proxy(header.as_bytes()));
        assert!(
            matches!(outcome, Err(IdentityError::Malformed { .. })),
            "{outcome:?}"
        );
    }
}

#[test]
fn a_header_counts_only_from_a_listed_proxy() {
    let ca = authority(None, "ca");
    let device = device(&ca);
    let header = BASE64.encode(device.der());
    let header = header.as_bytes();
    let listed = verifier(&[&ca], &[]);
    for (peer, believed) in [
        ("10.1.2.3", true),
        ("::ffff:10.1.2.3", true),
        ("192.0.2.1", false),
        ("::1", false),
    ] {
        let one = Evidence {
            peer: peer.parse().unwrap(),
            ..from_proxy(header)
        };
        let outcome = listed.verify(&one).map(|identity| identity.source);
        let expected = if believed {
            Ok(Source::ProxyHeader)
        } else {
            Err(IdentityError::Missing)
        };
        assert_eq!(outcome, expected, "{peer}");
    }
    let unnamed =
        IdentityVerifier::new(&[ca.pem()], &[], vec!["10.0.0.0/8".parse().unwrap()], None).unwrap();
    assert_eq!(
        unnamed.verify(&from_proxy(header)),
        Err(IdentityError::Missing)
    );
    for nothing in [&b""[..], b"  ", b"(null)"] {
        assert_eq!(
            listed.verify(&from_proxy(nothing)),
            Err(IdentityError::Missing)
        );
    }
}

#[test]
fn several_proofs_must_name_one_leaf() {
    let ca = authority(None, "ca");
    let verifier = verifier(&[&ca], &[]);
    let (one, other) = (
        device(&ca),
        issue(
            Some(&ca),
            rsa(2048),
            &Wish {
                serial: 2,
                ..DEVICE()
            },
        ),
    );
    let (leaf, header) = (one.der(), BASE64.encode(one.der()));
    let signature = BASE64.encode(sign(&one, BODY, PLAIN));
    let all = Evidence {
        tls_leaf: Some(&leaf),
        signature_header: Some(signature.as_bytes()),
        ..from_proxy(header.as_bytes())
    };
    assert_eq!(
        verifier.verify(&all).unwrap().source,
        Source::ClientCertificate
    );

    let (leaf, header) = (other.der(), BASE64.encode(other.der()));
    let signature = BASE64.encode(sign(&other, BODY, PLAIN));
    for mixed in [
        Evidence {
            tls_leaf: Some(&leaf),
            ..all
        },
        Evidence {
            signature_header: Some(signature.as_bytes()),
            ..all
        },
        Evidence {
            proxy_header: Some(header.as_bytes()),
            ..all
        },
    ] {
        assert_eq!(verifier.verify(&mixed), Err(IdentityError::Disagree));
    }
    // A proof that fails is not made up for by one that holds.
    let body = b"<plist/>";
    assert_eq!(
        verifier.verify(&Evidence { body, ..all }),
        Err(IdentityError::BadSignature)
    );
    assert_eq!(verifier.verify(&evidence()), Err(IdentityError::Missing));
}

#[test]
fn a_ca_file_must_hold_authorities() {
    let ca = authority(None, "ca");
    let leaf = device(&ca);
    let new = |file: Vec<u8>| {
        IdentityVerifier::new(&[ca.pem(), file], &[], Vec::new(), None)
            .map(|_| ())
            .unwrap_err()
    };
    let unreadable = AuthorityError::Unreadable {
        place: "our[1]".to_owned(),
    };
    assert_eq!(new(Vec::new()), unreadable);
    assert_eq!(new(b"no pem".to_vec()), unreadable);
    assert!(matches!(
        new(leaf.pem()),
        AuthorityError::NotAnAuthority { .. }
    ));
}

/// Prints what one verification costs, the best of ten batches;
/// `cargo test --release timings -- --nocapture`.
#[test]
fn timings_are_printed() {
    let ca = issue(
        None,
        rsa(2048),
        &Wish {
            name: "ca",
            authority: true,
            ..DEVICE()
        },
    );
    let verifier = verifier(&[&ca], &[]);
    let time = |what: &str, rounds: u32, run: &mut dyn FnMut()| {
        let batch = || {
            let start = Instant::now();
            (0..rounds).for_each(|_| run());
            start.elapsed()
        };
        let best = std::iter::repeat_with(batch)
            .take(10)
            .min()
            .unwrap_or_default();
        println!(
            "{what}: {:.2} us",
            best.as_secs_f64() * 1e6 / f64::from(rounds)
        );
    };
    let device = device(&ca);
    let leaf = device.der();
    let escaped = String::from_utf8(device.pem())
        .unwrap()
        .replace('\n', "%0A")
        .replace(' ', "%20");
    let body = [BODY; 16].concat();
    let sha1 = Form {
        digest: SHA1,
        ..PLAIN
    };
    let plain = BASE64.encode(loosen(&sign(&device, &body, sha1), 0));
    let attributes = BASE64.encode(sign(
        &device,
        &body,
        Form {
            attributes: true,
            ..sha1
        },
    ));
    let p256 = issue(Some(&ca), ec(Nid::X9_62_PRIME256V1), &DEVICE());
    let ecdsa = BASE64.encode(sign(
        &p256,
        &body,
        Form {
            algorithm: EC_PUBLIC_KEY,
            ..PLAIN
        },
    ));
    let rounds = if cfg!(debug_assertions) { 10 } else { 1_000 };

    let tls = Evidence {
        tls_leaf: Some(&leaf),
        ..evidence()
    };
    time("TLS leaf, cached", rounds, &mut || {
        drop(verifier.verify(&tls).unwrap())
    });
    let proxy = from_proxy(escaped.as_bytes());
    time("proxy header, cached", rounds, &mut || {
        drop(verifier.verify(&proxy).unwrap())
    });
    for (what, header) in [
        ("signature RSA-2048 SHA-1 BER, cached", &plain),
        (
            "signature RSA-2048 SHA-1 with attributes, cached",
            &attributes,
        ),
        ("signature P-256, cached", &ecdsa),
    ] {
        let one = Evidence {
            signature_header: Some(header.as_bytes()),
            body: &body,
            ..evidence()
        };
        time(what, rounds, &mut || drop(verifier.verify(&one).unwrap()));
    }
    time("leaf judged anew", rounds, &mut || {
        drop(verifier.judge(&leaf, sha256(&leaf)).unwrap());
    });
    time("header decoded anew", rounds, &mut || {
        drop(proxy_header::certificate(escaped.as_bytes()).unwrap());
    });
    let encoding = BASE64.decode(&plain).unwrap();
    time("CMS parsed, signer found", rounds, &mut || {
        let signed = SignedData::parse(&encoding).unwrap();
        signed.signer_certificate().unwrap();
    });
    let signed = SignedData::parse(&encoding).unwrap();
    let key = signed.signer_certificate().unwrap().key;
    time("signature, key parsed each time", rounds, &mut || {
        PreparedKey::default()
            .check_cms(&key, &signed, &body)
            .unwrap();
    });
    let kept = PreparedKey::default();
    time("signature, key kept", rounds, &mut || {
        kept.check_cms(&key, &signed, &body).unwrap()
    });
}
