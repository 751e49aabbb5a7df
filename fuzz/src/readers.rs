//! The readers that take nothing but octets.

use std::hint::black_box;

use reveille::api::enrollment_links::NewLink;
use reveille::api::push_certificates::NewPushCertificate;
use schema::cms::SignedData;
use schema::command::Command;
use schema::csr::Csr;
use schema::der::{Element, Reader};
use schema::scep::PkiMessage;
use schema::x509::Certificate;
use schema::{CommandUuid, checkin, report, xml};

/// Guard, head scan and parser; what is read is written and read the same again.
pub fn xml(data: &[u8]) {
    if let Ok(scan) = xml::Scan::new(data) {
        for key in ["MessageType", "UDID", "CommandUUID", "Status"] {
            black_box((scan.text(key), scan.get(key)));
        }
    }
    if let Ok(read) = xml::parse(data) {
        let again = xml::parse(&xml::write(read.clone()));
        let again = again.expect("what was written can be read");
        // A NaN is not itself.
        assert!(
            format!("{again:?}") == format!("{read:?}"),
            "{read:?}\n{again:?}"
        );
    }
}

/// A check-in of a device.
pub fn check_in(data: &[u8]) {
    black_box(checkin::parse(data)).ok();
}

/// A report of a device, its errors, and what is left of it when it cannot be read.
pub fn report(data: &[u8]) {
    black_box(report::parse(data)).ok();
    black_box(report::head_of_unreadable(data));
    black_box(report::error_chain(data));
}

/// BER and DER, elements in elements; signed messages and certificates.
pub fn ber(data: &[u8]) {
    walk(Reader::ber(data), 0);
    walk(Reader::der(data), 0);
    if let Ok(signed) = SignedData::parse(data) {
        black_box(signed.to_be_signed(Some(b"body"))).ok();
        black_box(signed.to_be_signed(None)).ok();
        black_box(signed.signer_certificate()).ok();
    }
    if let Ok(certificate) = Certificate::parse(data) {
        black_box(certificate.is_authority()).ok();
        black_box(certificate.may_be_client()).ok();
        black_box(certificate.may_sign_certificates()).ok();
        black_box((certificate.subject_key_id(), certificate.serial_hex()));
    }
}

fn walk(mut reader: Reader<'_>, depth: usize) {
    while let Ok(element) = reader.element() {
        look(&element);
        if depth < 8
            && let Ok(children) = element.children()
        {
            walk(children, depth + 1);
        }
    }
}

fn look(element: &Element<'_>) {
    let tag = element.tag();
    black_box((element.octets().is_ok(), element.to_der(tag).is_ok()));
}

/// A certification request.
pub fn csr(data: &[u8]) {
    black_box(Csr::parse(data)).ok();
}

/// A SCEP message, up to what needs a key.
pub fn scep(data: &[u8]) {
    if let Ok(message) = PkiMessage::parse(data) {
        black_box(message.request());
    }
}

/// What an admin sends: a command as JSON or plist, a link, a push certificate.
pub fn admin_json(data: &[u8]) {
    let uuid = || CommandUuid::parse("fuzz").expect("a name");
    if let Ok(json) = serde_json::from_slice(data)
        && let Ok(command) = Command::from_json(uuid(), &json)
    {
        Command::from_plist(command.raw).expect("what we build we take");
    }
    black_box(Command::from_plist(data.to_vec())).ok();
    black_box(serde_json::from_slice::<NewLink>(data)).ok();
    black_box(serde_json::from_slice::<NewPushCertificate>(data)).ok();
}
