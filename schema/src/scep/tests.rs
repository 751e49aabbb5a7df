//! Messages of the field and messages made wrong in one place.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::cms::{
    self, CONTENT_TYPE, ContentCipher, DATA, DigestAlgorithm, Enveloped, MESSAGE_DIGEST,
};
use crate::der::Writer;
use crate::x509::RSA_ENCRYPTION;

const SHA256_WITH_RSA: Oid<'static> = Oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b]);

fn written(inside: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::new();
    inside(&mut writer);
    writer.finish()
}

/// A certificate in form only: nobody signed it.
fn certificate() -> Vec<u8> {
    written(|w| {
        w.sequence(|w| {
            w.sequence(|w| {
                w.small_integer(7);
                w.sequence(|w| w.oid(SHA256_WITH_RSA));
                w.sequence(|_| ());
                w.sequence(|w| {
                    w.primitive(Tag::UTC_TIME, b"210528050923Z");
                    w.primitive(Tag::UTC_TIME, b"310528050923Z");
                });
                w.sequence(|_| ());
                w.sequence(|w| {
                    w.sequence(|w| {
                        w.oid(RSA_ENCRYPTION);
                        w.null();
                    });
                    w.bit_string(&[1; 64]);
                });
            });
            w.sequence(|w| w.oid(SHA256_WITH_RSA));
            w.bit_string(b"signature");
        })
    })
}

fn attribute(oid: Oid<'_>, values: &[Vec<u8>]) -> Vec<u8> {
    written(|w| {
        w.sequence(|w| {
            w.oid(oid);
            w.set(|w| values.iter().for_each(|value| w.raw(value)));
        })
    })
}

fn printable(text: &str) -> Vec<u8> {
    written(|w| w.printable_string(text))
}

/// A message whose own attributes are these.
fn message(own: &[Vec<u8>]) -> Vec<u8> {
    let mut attributes = vec![
        attribute(CONTENT_TYPE, &[written(|w| w.oid(DATA))]),
        attribute(MESSAGE_DIGEST, &[written(|w| w.octet_string(&[1; 32]))]),
    ];
    attributes.extend(own.iter().cloned());
    let set = written(|w| w.set_of(attributes));
    let raw = certificate();
    let signer = Certificate::parse(&raw).unwrap();
    cms::signed(
        &signer,
        DigestAlgorithm::Sha256,
        Some(b"envelope"),
        &set,
        b"signature",
    )
}

fn nonce() -> Vec<u8> {
    attribute(SENDER_NONCE, &[written(|w| w.octet_string(&[9; 16]))])
}

fn transaction() -> Vec<u8> {
    attribute(TRANSACTION_ID, &[printable("T=1")])
}

fn of_type(values: &[Vec<u8>]) -> Vec<u8> {
    message(&[attribute(MESSAGE_TYPE, values), transaction(), nonce()])
}

#[test]
fn only_two_message_types_give_their_envelope_away() {
    for number in 0..=255u16 {
        let encoding = of_type(&[printable(&number.to_string())]);
        let message = PkiMessage::parse(&encoding).unwrap();
        assert_eq!(message.message_type, number);
        assert_eq!(message.transaction, "T=1");
        assert_eq!(message.sender_nonce, [9; 16]);
        let kind = message.request().map(|request| {
            assert_eq!(request.enveloped, b"envelope");
            request.kind
        });
        let expected = match number {
            19 => Some(RequestKind::Enroll),
            17 => Some(RequestKind::Renew),
            _ => None,
        };
        assert_eq!(kind, expected, "{number}");
    }
}

#[test]
fn a_message_type_that_is_no_number_is_unreadable() {
    let bad = Unreadable::Attribute("messageType");
    for text in [
        "", "PKCSReq", "019", "+19", "-19", "19 ", " 19", "19.0", "0x13", "70000",
    ] {
        let encoding = of_type(&[printable(text)]);
        assert_eq!(PkiMessage::parse(&encoding).unwrap_err(), bad, "{text}");
    }
    let integer = written(|w| w.small_integer(19));
    assert_eq!(PkiMessage::parse(&of_type(&[integer])).unwrap_err(), bad);
}

#[test]
fn each_attribute_stands_exactly_once() {
    let own = [
        ("messageType", attribute(MESSAGE_TYPE, &[printable("19")])),
        ("transactionID", transaction()),
        ("senderNonce", nonce()),
    ];
    let all: Vec<_> = own.iter().map(|(_, encoding)| encoding.clone()).collect();
    assert!(PkiMessage::parse(&message(&all)).is_ok());
    for (at, (name, encoding)) in own.iter().enumerate() {
        let mut missing = all.clone();
        missing.remove(at);
        let mut doubled = all.clone();
        doubled.push(encoding.clone());
        for wrong in [missing, doubled] {
            assert_eq!(
                PkiMessage::parse(&message(&wrong)).unwrap_err(),
                Unreadable::Attribute(name)
            );
        }
    }
    // Two values in one attribute, of which either alone would do.
    let two = of_type(&[printable("17"), printable("19")]);
    assert!(PkiMessage::parse(&two).is_err());
}

#[test]
fn a_transaction_that_cannot_be_echoed_is_unreadable() {
    let long = "a".repeat(257);
    for text in ["", "a_b", "a\u{e9}", long.as_str()] {
        let own = [
            attribute(MESSAGE_TYPE, &[printable("19")]),
            attribute(TRANSACTION_ID, &[written(|w| w.utf8_string(text))]),
            nonce(),
        ];
        let error = PkiMessage::parse(&message(&own)).unwrap_err();
        assert_eq!(error, Unreadable::Attribute("transactionID"), "{text}");
    }
}

#[test]
fn a_reply_echoes_and_is_read_back() {
    let raw = certificate();
    let signer = Certificate::parse(&raw).unwrap();
    for (answer, status, info) in [
        (Answer::Issued(b"envelope".to_vec()), "0", None),
        (Answer::Failed(FailInfo::BadRequest), "2", Some("2")),
        (Answer::Failed(FailInfo::BadMessageCheck), "2", Some("1")),
    ] {
        let reply = Reply {
            transaction: "T=1",
            recipient_nonce: &[9; 16],
            sender_nonce: &[8; 16],
            answer,
        };
        let attributes = reply.attributes(&[1; 32]);
        let encoding = reply.write(&signer, DigestAlgorithm::Sha512, &attributes, b"signature");
        let read = PkiMessage::parse(&encoding).unwrap();
        assert_eq!((read.message_type, read.transaction.as_str()), (3, "T=1"));
        assert_eq!(read.sender_nonce, [8; 16]);
        assert_eq!(read.signed.content.is_some(), info.is_none());
        let value = |oid| {
            let value = read.signed.signer.attribute(oid).unwrap()?;
            assert_eq!(value.tag(), Tag::PRINTABLE_STRING);
            Some(std::str::from_utf8(value.content()).unwrap())
        };
        assert_eq!((value(PKI_STATUS), value(FAIL_INFO)), (Some(status), info));
    }
}

#[test]
fn an_envelope_is_read_back() {
    let raw = certificate();
    let recipient = Certificate::parse(&raw).unwrap();
    for cipher in [
        ContentCipher::Aes128,
        ContentCipher::Aes192,
        ContentCipher::Aes256,
        ContentCipher::Des3,
    ] {
        let iv = vec![3; cipher.block_len()];
        let encoding = cms::enveloped(&recipient, b"key", cipher, &iv, b"secret");
        let read = Enveloped::parse(&encoding).unwrap();
        assert_eq!((read.cipher, &*read.iv), (cipher, &iv[..]));
        assert_eq!(&*read.ciphertext, b"secret");
        assert_eq!(read.recipients.len(), 1);
        assert!(read.recipients[0].id.names(&recipient));
        assert_eq!(&*read.recipients[0].encrypted_key, b"key");
        let short = cms::enveloped(&recipient, b"key", cipher, b"iv", b"secret");
        assert!(Enveloped::parse(&short).is_err());
    }
}

/// A message of the field, from the folder beside the project.
fn vector(name: &str) -> Option<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors/scep");
    let read = std::fs::read(folder.join(name)).ok();
    if read.is_none() {
        println!("skipped: {name} is not in {}", folder.display());
    }
    read
}

#[test]
fn messages_of_the_field_are_read() {
    // The manifest calls the second message's challengePassword attribute (03DD...) its
    // senderNonce; what stands under senderNonce's own identifier is this.
    for (name, transaction, nonce, digest, country) in [
        (
            "scep__PKCSReq.der",
            "A13090761A30F66664F85D37433D2065E1112BA1",
            [0xae, 0x7f, 0xe8, 0x81, 0x6c, 0xc6, 0xbe, 0xdd],
            DigestAlgorithm::Sha1,
            "US",
        ),
        (
            "scep__mdmclient_PKIOperation.der",
            "140BC832976B3D0300BE8F5C2E35CEDF66E73D7B",
            [0xfa, 0xc5, 0xe2, 0xed, 0xa5, 0xd9, 0x7d, 0x64],
            DigestAlgorithm::Sha512,
            "AU",
        ),
    ] {
        let Some(encoding) = vector(name) else {
            continue;
        };
        let message = PkiMessage::parse(&encoding).unwrap();
        assert_eq!(message.message_type, 19, "{name}");
        assert_eq!(message.transaction, transaction, "{name}");
        assert_eq!(message.sender_nonce, nonce, "{name}");
        assert_eq!(message.signed.signer.digest, digest, "{name}");
        let contains = |text: &str| {
            let subject = message.signer.subject;
            subject.windows(text.len()).any(|w| w == text.as_bytes())
        };
        assert!(contains("MDM SCEP SIGNER") && contains(country), "{name}");
        assert_eq!(message.signer.subject, message.signer.issuer, "{name}");
        let request = message.request().unwrap();
        assert_eq!(request.kind, RequestKind::Enroll, "{name}");
        let enveloped = Enveloped::parse(request.enveloped).unwrap();
        assert_eq!(enveloped.cipher, ContentCipher::Des3, "{name}");
        assert_eq!(enveloped.recipients.len(), 1, "{name}");
        assert!(enveloped.ciphertext.len().is_multiple_of(8), "{name}");
    }
}

#[test]
fn the_first_message_is_addressed_to_its_ca() {
    let (Some(encoding), Some(pem)) = (vector("scep__PKCSReq.der"), vector("scep__testca.pem"))
    else {
        return;
    };
    use base64::Engine as _;
    let pem = String::from_utf8(pem).unwrap();
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = base64::engine::general_purpose::STANDARD
        .decode(body)
        .unwrap();
    let ca = Certificate::parse(&der).unwrap();
    let message = PkiMessage::parse(&encoding).unwrap();
    let enveloped = Enveloped::parse(message.request().unwrap().enveloped).unwrap();
    assert!(enveloped.recipients[0].id.names(&ca));
}

proptest! {
    #[test]
    fn damage_never_panics(at in any::<prop::sample::Index>(), octet in any::<u8>()) {
        let raw = certificate();
        let recipient = Certificate::parse(&raw).unwrap();
        let envelope = cms::enveloped(&recipient, b"key", ContentCipher::Des3, &[3; 8], b"secret");
        for mut encoding in [of_type(&[printable("19")]), envelope] {
            let at = at.index(encoding.len());
            encoding[at] = octet;
            if let Ok(message) = PkiMessage::parse(&encoding) {
                let _ = message.request();
            }
            let _ = Enveloped::parse(&encoding);
        }
    }
}
