//! Messages signed with their content inside: of devices made here, and of real ones.

use std::path::Path;

use schema::ota::DeviceAnswer;

use super::*;

fn attached(signer: &Holder, content: &[u8]) -> Vec<u8> {
    let none = Stack::new().unwrap();
    let (certificate, key) = (&signer.certificate, &signer.key);
    let message = Pkcs7::sign(certificate, key, &none, content, Pkcs7Flags::BINARY).unwrap();
    message.to_der().unwrap()
}

fn messages(ours: &[&Holder], makers: &[&Holder]) -> MessageVerifier {
    let pems = |list: &[&Holder]| list.iter().map(|ca| ca.pem()).collect::<Vec<_>>();
    MessageVerifier::new(&pems(ours), &pems(makers)).unwrap()
}

#[test]
fn a_message_is_opened_and_its_issuer_tells_the_phases_apart() {
    let (ours, maker) = (authority(None, "ours"), authority(None, "maker"));
    let verifier = messages(&[&ours], &[&maker]);
    for (ca, issued_by) in [(&ours, IssuedBy::Ours), (&maker, IssuedBy::Extra)] {
        let signer = device(ca);
        let der = attached(&signer, BODY);
        for encoding in [loosen(&der, 0), der] {
            let opened = verifier.open(&encoding).unwrap();
            assert_eq!(opened.content, BODY);
            assert_eq!(opened.leaf, sha256(&signer.der()));
            assert_eq!(opened.issued_by, issued_by);
        }
    }
}

#[test]
fn a_certificate_that_ran_out_still_tells_a_device() {
    let maker = authority(None, "maker");
    let past = Wish {
        begins: 1_000_000_000,
        days: 1,
        ..DEVICE()
    };
    let old = issue(Some(&maker), rsa(2048), &past);
    let opened = messages(&[], &[&maker]).open(&attached(&old, BODY));
    assert_eq!(opened.unwrap().issued_by, IssuedBy::Extra);
}

#[test]
fn what_proves_no_device_is_refused() {
    let (maker, other) = (authority(None, "maker"), authority(None, "maker"));
    let verifier = messages(&[], &[&maker]);
    let signer = device(&maker);
    let good = attached(&signer, BODY);
    let mut changed = good.clone();
    let at = changed.windows(4).position(|window| window == b"Idle");
    changed[at.unwrap()] = b'i';
    let by = |holder: &Holder| attached(holder, BODY);
    let detached = sign(&signer, BODY, PLAIN);
    let two = sign(
        &signer,
        BODY,
        Form {
            signers: 2,
            ..PLAIN
        },
    );
    let none = sign(
        &signer,
        BODY,
        Form {
            signers: 0,
            ..PLAIN
        },
    );
    let intermediate = authority(Some(&maker), "intermediate");
    let foreign = MessageError::Signer(IdentityError::ForeignIssuer);
    for (why, message, refusal) in [
        (
            "the content was changed",
            changed,
            MessageError::Signer(IdentityError::BadSignature),
        ),
        ("another CA of that name", by(&device(&other)), foreign),
        (
            "signed by itself",
            by(&issue(None, rsa(2048), &DEVICE())),
            foreign,
        ),
        (
            "a path is not followed",
            by(&device(&intermediate)),
            foreign,
        ),
        (
            "an authority is no device",
            by(&issue(
                Some(&maker),
                rsa(2048),
                &Wish {
                    authority: true,
                    ..DEVICE()
                },
            )),
            MessageError::Signer(IdentityError::NotClient),
        ),
        ("no content", detached, CmsError::NoContent.into()),
        ("two signers", two, CmsError::SignerCount(2).into()),
        ("no signer", none, CmsError::SignerCount(0).into()),
    ] {
        assert_eq!(verifier.open(&message), Err(refusal), "{why}");
    }
    assert!(verifier.open(b"<plist/>").is_err());
    assert!(verifier.open(&good).is_ok());
}

/// A file of the vectors beside the project.
fn vector(name: &str) -> Option<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../shared/vectors")
        .join(name);
    let read = std::fs::read(&path).ok();
    if read.is_none() {
        println!("skipped: {} is not there", path.display());
    }
    read
}

const CHAIN: &str = "trust-anchor/trust__apple_iphone_device_ca_chain.pem";

#[test]
fn a_real_devices_message_verifies_under_its_makers_ca_and_says_what_it_is() {
    let message = vector("ota-profile-service/zentral__ota_phase2.p7");
    let (Some(chain), Some(message)) = (vector(CHAIN), message) else {
        return;
    };
    let verifier = MessageVerifier::new(&[], &[chain]).unwrap();
    let opened = verifier.open(&message).unwrap();
    assert_eq!(opened.issued_by, IssuedBy::Extra);
    let answer = DeviceAnswer::parse(&opened.content).unwrap();
    assert_eq!(answer.product, "VirtualMac2,1");
    assert_eq!(answer.serial, "ZDL2M9PTJ3");
    let udid = "78897E40-F532-5DE0-A7DC-56BAC5CEEB9C";
    assert_eq!(answer.udid.as_deref(), Some(udid));
    assert_eq!(answer.version.as_deref(), Some("22A380"));
    assert!(
        answer
            .challenge
            .is_some_and(|challenge| !challenge.is_empty())
    );

    let mut changed = message.clone();
    let at = changed
        .windows(10)
        .position(|window| window == b"ZDL2M9PTJ3");
    changed[at.unwrap()] = b'Y';
    let refusal = MessageError::Signer(IdentityError::BadSignature);
    assert_eq!(verifier.open(&changed), Err(refusal));
    let stranger = messages(&[], &[&authority(None, "Apple iPhone Device CA")]);
    let refusal = MessageError::Signer(IdentityError::ForeignIssuer);
    assert_eq!(stranger.open(&message), Err(refusal));
}

#[test]
fn a_real_devices_certificate_was_issued_by_its_makers_ca() {
    let leaf = vector("apple-device-cert/micromdm__appleca_signed.pem");
    let (Some(chain), Some(leaf)) = (vector(CHAIN), leaf) else {
        return;
    };
    let der = X509::from_pem(&leaf).unwrap().to_der().unwrap();
    let leaf = Certificate::parse(&der).unwrap();
    let verifier = MessageVerifier::new(&[], &[chain]).unwrap();
    assert_eq!(verifier.device(&leaf), Ok(IssuedBy::Extra));
    let stranger = messages(&[], &[&authority(None, "maker")]);
    assert_eq!(stranger.device(&leaf), Err(IdentityError::ForeignIssuer));
}

#[test]
fn the_attestation_root_is_an_authority_that_signed_itself() {
    let Some(pem) = vector("trust-anchor/trust__apple_enterprise_attestation_root.pem") else {
        return;
    };
    let root = X509::from_pem(&pem).unwrap();
    let der = root.to_der().unwrap();
    let read = Certificate::parse(&der).unwrap();
    assert_eq!(read.subject, read.issuer);
    assert!(read.is_authority().unwrap() && read.may_sign_certificates().unwrap());
    assert!(root.verify(&root.public_key().unwrap()).unwrap());
    let name = format!("{:?}", root.subject_name());
    assert!(
        name.contains("Apple Enterprise Attestation Root CA"),
        "{name}"
    );
    let trusted = MessageVerifier::new(&[], &[pem]).unwrap();
    assert_eq!(trusted.device(&read), Err(IdentityError::NotClient));
}
