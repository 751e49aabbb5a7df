//! The request Apple's Push Certificates Portal takes: a CSR with the signature of an
//! MDM vendor (Apple, "Setting up push notifications for your MDM customers").
//!
//! Base64 of an XML plist with three strings. The shape only: `actors` signs, the
//! command line writes the file.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use plist::{Dictionary, Value};

use crate::xml;

/// A certificate signing request, vouched for by a vendor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VendorRequest {
    /// The PKCS#10 request in DER.
    pub csr: Vec<u8>,
    /// The vendor's certificate and its issuers in PEM, leaf to root.
    pub chain_pem: String,
    /// The vendor's signature over `csr`: RSA PKCS#1 v1.5 with SHA-256.
    pub signature: Vec<u8>,
}

impl VendorRequest {
    /// The file to upload.
    #[must_use]
    pub fn encode(&self) -> String {
        let text = |bytes: &[u8]| Value::String(STANDARD.encode(bytes));
        let mut fields = Dictionary::new();
        fields.insert(CSR.into(), text(&self.csr));
        fields.insert(CHAIN.into(), Value::String(self.chain_pem.clone()));
        fields.insert(SIGNATURE.into(), text(&self.signature));
        STANDARD.encode(xml::write(fields))
    }

    /// Reads such a file, line breaks and all.
    ///
    /// # Errors
    /// [`NoVendorRequest`] says which part is missing or unreadable.
    pub fn decode(file: &[u8]) -> Result<Self, NoVendorRequest> {
        let plist = bytes(file).ok_or(NoVendorRequest("the file"))?;
        let fields = xml::parse(&plist).map_err(|_| NoVendorRequest("the property list"))?;
        let text = |key| {
            let value = fields.get(key).and_then(Value::as_string);
            value.ok_or(NoVendorRequest(key))
        };
        let decoded = |key| bytes(text(key)?.as_bytes()).ok_or(NoVendorRequest(key));
        Ok(Self {
            csr: decoded(CSR)?,
            chain_pem: text(CHAIN)?.to_owned(),
            signature: decoded(SIGNATURE)?,
        })
    }
}

/// What is no vendor request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is missing or not what the push portal takes")]
pub struct NoVendorRequest(&'static str);

fn bytes(base64: &[u8]) -> Option<Vec<u8>> {
    let mut compact = base64.to_vec();
    compact.retain(|byte| !byte.is_ascii_whitespace());
    STANDARD.decode(compact).ok()
}

const CSR: &str = "PushCertRequestCSR";
const CHAIN: &str = "PushCertCertificateChain";
const SIGNATURE: &str = "PushCertSignature";

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> VendorRequest {
        VendorRequest {
            csr: vec![0x30, 0, 0xff],
            chain_pem: "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n".into(),
            signature: vec![7; 256],
        }
    }

    #[test]
    fn the_file_is_base64_of_an_xml_plist_of_three_strings() {
        let file = request().encode();
        assert!(
            file.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b))
        );
        let plist = String::from_utf8(STANDARD.decode(&file).unwrap()).unwrap();
        assert!(
            plist.starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?>"),
            "{plist}"
        );
        assert!(
            plist.contains("<key>PushCertRequestCSR</key>\n\t<string>MAD/</string>"),
            "{plist}"
        );
        for key in [CSR, CHAIN, SIGNATURE] {
            assert_eq!(plist.matches(key).count(), 1, "{plist}");
        }
        assert!(!plist.contains("<data>"), "{plist}");
    }

    #[test]
    fn what_was_written_reads_back_also_with_line_breaks() {
        let file = request().encode();
        assert_eq!(VendorRequest::decode(file.as_bytes()), Ok(request()));
        let lines: Vec<_> = file.as_bytes().chunks(64).map(<[u8]>::to_vec).collect();
        assert_eq!(
            VendorRequest::decode(&lines.join(&b"\r\n"[..])),
            Ok(request())
        );
    }

    #[test]
    fn what_is_no_request_names_its_part() {
        let plist = |inside: &str| {
            STANDARD.encode(format!(
                "<plist version=\"1.0\"><dict>{inside}</dict></plist>"
            ))
        };
        let cases = [
            ("-----BEGIN".to_owned(), "the file"),
            (STANDARD.encode("hello"), "the property list"),
            (plist(""), CSR),
            (
                plist("<key>PushCertRequestCSR</key><string>!</string>"),
                CSR,
            ),
            (
                plist("<key>PushCertRequestCSR</key><string>AA==</string>"),
                CHAIN,
            ),
        ];
        for (file, part) in cases {
            assert_eq!(
                VendorRequest::decode(file.as_bytes()),
                Err(NoVendorRequest(part))
            );
        }
    }
}
