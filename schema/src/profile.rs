//! The enrollment profile: what a device installs to become managed.
//!
//! One `Configuration` with a trust root (when the server has one of its own), the
//! device's identity, which it fetches by SCEP or finds inside, and the MDM payload. Identifiers and UUIDs
//! are constant per instance, so that a profile sent again replaces the one before.
//! The doors build it and have it signed. Sources: Apple, Device Management, Profile
//! Specific Payload Keys; protocol.md 6.1 and 6.2. The profiles that come before it in
//! over-the-air enrollment are in `profile/ota.rs`.

mod ota;

use plist::{Dictionary, Value};

use crate::access::AccessRights;
use crate::command::ENROLLMENT_PROFILE_PREFIX;
use crate::xml;

pub use self::ota::{ProfileService, ProofProfile};

/// An enrollment profile, before it is written and signed.
#[derive(Clone, PartialEq, Eq)]
pub struct EnrollmentProfile {
    /// The server's instance id: identifiers and UUIDs follow from it.
    pub instance: [u8; 16],
    /// Who runs the server, as the device shows it.
    pub organization: String,
    /// The root the device is to trust for TLS, DER.
    pub trust_root: Option<Vec<u8>>,
    /// How the device comes to its identity.
    pub identity: IdentityPayload,
    /// The management itself.
    pub mdm: MdmPayload,
}

/// How a device comes to its identity.
#[derive(Clone, PartialEq, Eq)]
pub enum IdentityPayload {
    /// It fetches it.
    Scep(ScepPayload),
    /// It is in the profile.
    Pkcs12(Pkcs12Payload),
}

/// An identity inside the profile (`com.apple.security.pkcs12`).
#[derive(Clone, PartialEq, Eq)]
pub struct Pkcs12Payload {
    /// The PKCS#12, DER.
    pub der: Vec<u8>,
    /// What opens it; a secret.
    pub password: String,
}

/// The identity a device fetches by SCEP (`com.apple.security.scep`).
#[derive(Clone, PartialEq, Eq)]
pub struct ScepPayload {
    /// Where it asks.
    pub url: String,
    /// What it proves its right with; a secret.
    pub challenge: String,
    /// SHA-1 of the CA's certificate: the device stops when GetCACert gives another.
    pub ca_fingerprint: [u8; 20],
}

/// The management (`com.apple.mdm`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MdmPayload {
    /// Push topic.
    pub topic: String,
    /// Where it polls.
    pub server_url: String,
    /// Where it checks in.
    pub check_in_url: String,
    /// Whose device it is.
    pub ownership: Ownership,
    /// What the server can do: [`CAPABILITIES`], or what an earlier profile said.
    pub capabilities: Vec<String>,
    /// The device signs each message (`Mdm-Signature`).
    pub sign_message: bool,
}

/// Whose device it is, and so what the server may do to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// The organisation's: it may do what these rights say.
    Device(AccessRights),
    /// A person's (User Enrollment, iOS 13 to 17): rights are Apple's to fix.
    User {
        /// Whose Managed Apple Account it is.
        managed_apple_id: String,
    },
}

impl EnrollmentProfile {
    /// The profile as an XML plist.
    #[must_use]
    pub fn to_plist(&self) -> Vec<u8> {
        let mut payloads = Vec::with_capacity(3);
        payloads.extend(self.trust_root.as_ref().map(|root| self.root(root)));
        payloads.push(self.identity());
        payloads.push(self.management());
        let payloads = payloads.into_iter().map(Value::Dictionary).collect();
        let mut profile = self.payload("Configuration", None);
        let scope = match self.mdm.ownership {
            Ownership::Device(_) => "System",
            Ownership::User { .. } => "User",
        };
        put(&mut profile, "PayloadScope", scope);
        put(&mut profile, "PayloadOrganization", &*self.organization);
        put(&mut profile, "PayloadDisplayName", "Device management");
        let description = format!(
            "Lets {} manage this device. Removing this profile ends the management.",
            self.organization
        );
        put(&mut profile, "PayloadDescription", description);
        put(&mut profile, "PayloadContent", Value::Array(payloads));
        xml::write(profile)
    }

    fn root(&self, der: &[u8]) -> Dictionary {
        let mut payload = self.payload("com.apple.security.root", Some(Part::Root));
        put(&mut payload, "PayloadDisplayName", "Server trust root");
        put(&mut payload, "PayloadCertificateFileName", "root.cer");
        put(&mut payload, "PayloadContent", Value::Data(der.to_vec()));
        payload
    }

    fn identity(&self) -> Dictionary {
        match &self.identity {
            IdentityPayload::Scep(scep) => self.scep(scep),
            IdentityPayload::Pkcs12(pkcs12) => self.pkcs12(pkcs12),
        }
    }

    fn pkcs12(&self, pkcs12: &Pkcs12Payload) -> Dictionary {
        let mut payload = self.payload("com.apple.security.pkcs12", Some(Part::Identity));
        put(&mut payload, "PayloadDisplayName", "Device identity");
        put(&mut payload, "PayloadCertificateFileName", "identity.p12");
        put(
            &mut payload,
            "PayloadContent",
            Value::Data(pkcs12.der.clone()),
        );
        put(&mut payload, "Password", &*pkcs12.password);
        // Of use on a Mac only: the key stays in the keychain it was put in.
        put(&mut payload, "KeyIsExtractable", false);
        payload
    }

    fn scep(&self, asked: &ScepPayload) -> Dictionary {
        let payload = self.payload("com.apple.security.scep", Some(Part::Identity));
        asked.fill(payload)
    }

    fn management(&self) -> Dictionary {
        let mdm = &self.mdm;
        let mut payload = self.payload("com.apple.mdm", Some(Part::Management));
        put(&mut payload, "PayloadDisplayName", "Device management");
        let identity = uuid(&self.instance, Some(Part::Identity));
        put(&mut payload, "IdentityCertificateUUID", identity);
        put(&mut payload, "Topic", &*mdm.topic);
        put(&mut payload, "ServerURL", &*mdm.server_url);
        put(&mut payload, "CheckInURL", &*mdm.check_in_url);
        match &mdm.ownership {
            Ownership::Device(rights) => {
                put(&mut payload, "AccessRights", i64::from(rights.bits()));
            }
            // A device cancels a User Enrollment that names rights.
            Ownership::User { managed_apple_id } => {
                put(&mut payload, "ManagedAppleID", &**managed_apple_id);
            }
        }
        put(&mut payload, "SignMessage", mdm.sign_message);
        put(&mut payload, "CheckOutWhenRemoved", true);
        let capabilities = mdm.capabilities.iter().cloned().map(Value::String);
        let capabilities = Value::Array(capabilities.collect());
        put(&mut payload, "ServerCapabilities", capabilities);
        payload
    }

    fn payload(&self, kind: &str, part: Option<Part>) -> Dictionary {
        payload(&self.instance, kind, part)
    }
}

impl ScepPayload {
    /// Completes a payload that was begun.
    fn fill(&self, mut payload: Dictionary) -> Dictionary {
        let name = |kind: &str, value: &str| {
            let pair = [kind, value].map(|text| Value::String(text.to_owned()));
            Value::Array(vec![Value::Array(pair.to_vec())])
        };
        let subject = vec![name("O", "Reveille"), name("CN", "Device identity")];
        let mut scep = Dictionary::new();
        put(&mut scep, "URL", &*self.url);
        put(&mut scep, "Name", "reveille");
        put(&mut scep, "Subject", Value::Array(subject));
        put(&mut scep, "Challenge", &*self.challenge);
        put(&mut scep, "Keysize", 2048);
        put(&mut scep, "Key Type", "RSA");
        put(&mut scep, "Key Usage", SIGN | ENCRYPT);
        let fingerprint = self.ca_fingerprint.to_vec();
        put(&mut scep, "CAFingerprint", Value::Data(fingerprint));
        put(&mut scep, "Retries", 3);
        put(&mut scep, "RetryDelay", 10);
        put(&mut payload, "PayloadDisplayName", "Device identity");
        put(&mut payload, "PayloadContent", Value::Dictionary(scep));
        payload
    }
}

/// What every payload begins with; `None` is the enrollment profile itself.
fn payload(instance: &[u8; 16], kind: &str, part: Option<Part>) -> Dictionary {
    let mut payload = Dictionary::new();
    put(&mut payload, "PayloadType", kind);
    put(&mut payload, "PayloadVersion", 1);
    let identifier = identifier(instance, part);
    put(&mut payload, "PayloadIdentifier", identifier);
    put(&mut payload, "PayloadUUID", uuid(instance, part));
    payload
}

/// The PayloadIdentifier of an instance's enrollment profiles.
#[must_use]
pub fn profile_identifier(instance: &[u8; 16]) -> String {
    identifier(instance, None)
}

/// The parts of the profile, and the profiles before it with theirs; the numbers are part of their UUIDs and never change.
#[derive(Clone, Copy)]
enum Part {
    Root = 1,
    Identity = 2,
    Management = 3,
    Service = 4,
    Proof = 5,
    ProofIdentity = 6,
}

fn identifier(instance: &[u8; 16], part: Option<Part>) -> String {
    let part = match part {
        None => "",
        Some(Part::Root) => ".root",
        Some(Part::Identity) => ".identity",
        Some(Part::Management) => ".mdm",
        Some(Part::Service) => ".ota",
        Some(Part::Proof) => ".proof",
        Some(Part::ProofIdentity) => ".proof.identity",
    };
    let instance = uuid(instance, None).to_ascii_lowercase();
    format!("{ENROLLMENT_PROFILE_PREFIX}.{instance}{part}")
}

/// The instance id is a random UUID; its parts differ from it in the last byte alone.
fn uuid(instance: &[u8; 16], part: Option<Part>) -> String {
    let mut number = u128::from_be_bytes(*instance);
    number ^= part.map_or(0, |part| part as u128);
    let hex = format!("{number:032X}");
    let groups = [0..8, 8..12, 12..16, 16..20, 20..32];
    let groups = groups.map(|range| hex.get(range).unwrap_or_default());
    groups.join("-")
}

fn put(dictionary: &mut Dictionary, key: &str, value: impl Into<Value>) {
    dictionary.insert(key.to_owned(), value.into());
}

/// What the server can do, in Apple's words: `ServerCapabilities`.
pub const CAPABILITIES: [&str; 2] = [
    "com.apple.mdm.per-user-connections",
    "com.apple.mdm.bootstraptoken",
];

/// Bits of `Key Usage`.
const SIGN: i64 = 1;
const ENCRYPT: i64 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(ownership: Ownership) -> EnrollmentProfile {
        EnrollmentProfile {
            instance: [0xA1; 16],
            organization: "Example & Sons".into(),
            trust_root: Some(vec![0x30, 3]),
            identity: IdentityPayload::Scep(ScepPayload {
                url: "https://mdm.example.org/scep".into(),
                challenge: "secret".into(),
                ca_fingerprint: [7; 20],
            }),
            mdm: MdmPayload {
                topic: "com.apple.mgmt.x".into(),
                server_url: "https://mdm.example.org/mdm/connect".into(),
                check_in_url: "https://mdm.example.org/mdm/checkin".into(),
                ownership,
                capabilities: CAPABILITIES.map(str::to_owned).to_vec(),
                sign_message: false,
            },
        }
    }

    fn read(profile: &EnrollmentProfile) -> (Dictionary, Vec<Dictionary>) {
        let outer = xml::parse(&profile.to_plist()).unwrap();
        let payloads = outer["PayloadContent"].as_array().unwrap().iter();
        let payloads = payloads.map(|p| p.as_dictionary().unwrap().clone());
        let payloads = payloads.collect();
        (outer, payloads)
    }

    fn text<'a>(of: &'a Dictionary, key: &str) -> &'a str {
        of.get(key).and_then(Value::as_string).unwrap_or_default()
    }

    #[test]
    fn certificates_come_first_then_the_identity_then_the_management() {
        let (outer, payloads) = read(&profile(Ownership::Device(AccessRights::ALL)));
        assert_eq!(text(&outer, "PayloadType"), "Configuration");
        assert_eq!(text(&outer, "PayloadScope"), "System");
        assert_eq!(text(&outer, "PayloadOrganization"), "Example & Sons");
        let kinds: Vec<_> = payloads.iter().map(|p| text(p, "PayloadType")).collect();
        let expected = [
            "com.apple.security.root",
            "com.apple.security.scep",
            "com.apple.mdm",
        ];
        assert_eq!(kinds, expected);
        let without = EnrollmentProfile {
            trust_root: None,
            ..profile(Ownership::Device(AccessRights::ALL))
        };
        assert_eq!(read(&without).1.len(), 2);
    }

    #[test]
    fn identifiers_and_uuids_are_constant_distinct_and_ours() {
        let once = profile(Ownership::Device(AccessRights::ALL));
        let (outer, mut payloads) = read(&once);
        let again = EnrollmentProfile {
            organization: "Other".into(),
            ..once
        };
        assert_eq!(
            text(&read(&again).0, "PayloadUUID"),
            text(&outer, "PayloadUUID")
        );
        assert_eq!(
            text(&outer, "PayloadIdentifier"),
            profile_identifier(&[0xA1; 16])
        );
        payloads.push(outer);
        for payload in &payloads {
            assert!(text(payload, "PayloadIdentifier").starts_with(ENROLLMENT_PROFILE_PREFIX));
            assert_eq!(text(payload, "PayloadUUID").len(), 36);
            assert_eq!(payload["PayloadVersion"].as_signed_integer(), Some(1));
        }
        let mut uuids: Vec<_> = payloads.iter().map(|p| text(p, "PayloadUUID")).collect();
        uuids.sort_unstable();
        uuids.dedup();
        assert_eq!(uuids.len(), 4);
    }

    #[test]
    fn the_scep_payload_says_all_a_device_needs() {
        let (_, payloads) = read(&profile(Ownership::Device(AccessRights::ALL)));
        let scep = payloads[1]["PayloadContent"].as_dictionary().unwrap();
        assert_eq!(text(scep, "URL"), "https://mdm.example.org/scep");
        assert_eq!(text(scep, "Challenge"), "secret");
        assert_eq!(text(scep, "Key Type"), "RSA");
        for (key, value) in [
            ("Keysize", 2048),
            ("Key Usage", 5),
            ("Retries", 3),
            ("RetryDelay", 10),
        ] {
            assert_eq!(scep[key].as_signed_integer(), Some(value), "{key}");
        }
        assert_eq!(scep["CAFingerprint"].as_data(), Some(&[7; 20][..]));
        let common_name = scep["Subject"].as_array().unwrap()[1].as_array().unwrap();
        let pair = common_name[0].as_array().unwrap();
        assert_eq!(pair[0].as_string(), Some("CN"));
    }

    #[test]
    fn an_identity_in_the_profile_takes_the_place_of_scep() {
        let scep = profile(Ownership::Device(AccessRights::ALL));
        let uuid_of_scep = text(&read(&scep).1[1], "PayloadUUID").to_owned();
        let (_, payloads) = read(&EnrollmentProfile {
            identity: IdentityPayload::Pkcs12(Pkcs12Payload {
                der: vec![0x30, 0],
                password: "secret".into(),
            }),
            ..scep
        });
        let kinds: Vec<_> = payloads.iter().map(|p| text(p, "PayloadType")).collect();
        let expected = [
            "com.apple.security.root",
            "com.apple.security.pkcs12",
            "com.apple.mdm",
        ];
        assert_eq!(kinds, expected);
        let identity = &payloads[1];
        assert_eq!(identity["PayloadContent"].as_data(), Some(&[0x30, 0][..]));
        assert_eq!(text(identity, "Password"), "secret");
        assert_eq!(text(identity, "PayloadUUID"), uuid_of_scep);
        assert_eq!(text(&payloads[2], "IdentityCertificateUUID"), uuid_of_scep);
    }

    #[test]
    fn the_mdm_payload_names_its_identity_and_its_rights() {
        let rights = AccessRights::INSPECT_PROFILES | AccessRights::ERASE;
        let (_, payloads) = read(&profile(Ownership::Device(rights)));
        let mdm = &payloads[2];
        assert_eq!(
            text(mdm, "IdentityCertificateUUID"),
            text(&payloads[1], "PayloadUUID")
        );
        assert_eq!(mdm["AccessRights"].as_signed_integer(), Some(9));
        assert_eq!(mdm["SignMessage"].as_boolean(), Some(false));
        assert_eq!(mdm["CheckOutWhenRemoved"].as_boolean(), Some(true));
        assert_eq!(text(mdm, "Topic"), "com.apple.mgmt.x");
        assert!(text(mdm, "ServerURL").ends_with("/mdm/connect"));
        assert!(text(mdm, "CheckInURL").ends_with("/mdm/checkin"));
        let capabilities = mdm["ServerCapabilities"].as_array().unwrap();
        assert_eq!(capabilities.len(), 2);
        assert!(!mdm.contains_key("ManagedAppleID"));
    }

    #[test]
    fn a_user_enrollment_names_no_rights() {
        let (outer, payloads) = read(&profile(Ownership::User {
            managed_apple_id: "anne@example.org".into(),
        }));
        assert!(!payloads[2].contains_key("AccessRights"));
        assert_eq!(text(&payloads[2], "ManagedAppleID"), "anne@example.org");
        assert_eq!(text(&outer, "PayloadScope"), "User");
    }
}
