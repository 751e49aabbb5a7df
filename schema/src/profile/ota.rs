//! The profiles that lead to an enrollment profile in over-the-air enrollment.
//!
//! The first asks a device to say, under its manufacturer's certificate, what it is; the
//! second gives it a certificate of ours to say that again under. The third is the
//! enrollment profile. Source: Apple, Over-the-Air Profile Delivery; protocol.md 6.3.

use plist::{Dictionary, Value};

use super::{Part, ScepPayload, payload, put};
use crate::xml;

/// The first profile: `Profile Service`.
#[derive(Clone, PartialEq, Eq)]
pub struct ProfileService {
    /// The server's instance id: identifier and UUID follow from it.
    pub instance: [u8; 16],
    /// Who runs the server, as the device shows it.
    pub organization: String,
    /// Where the device sends what it was asked for.
    pub url: String,
    /// What it sends along; a secret.
    pub challenge: String,
}

/// The second profile: an identity to prove itself with again, and nothing else.
#[derive(Clone, PartialEq, Eq)]
pub struct ProofProfile {
    /// The server's instance id: identifiers and UUIDs follow from it.
    pub instance: [u8; 16],
    /// Who runs the server, as the device shows it.
    pub organization: String,
    /// How it comes to that identity.
    pub scep: ScepPayload,
}

impl ProfileService {
    /// The profile as an XML plist.
    #[must_use]
    pub fn to_plist(&self) -> Vec<u8> {
        let asked = ATTRIBUTES.map(|name| Value::String(name.to_owned()));
        let mut content = Dictionary::new();
        put(&mut content, "URL", &*self.url);
        put(
            &mut content,
            "DeviceAttributes",
            Value::Array(asked.to_vec()),
        );
        put(&mut content, "Challenge", &*self.challenge);
        let mut profile = payload(&self.instance, "Profile Service", Some(Part::Service));
        shown(&mut profile, &self.organization);
        let description = format!(
            "Tells {} which device this is, then lets it manage the device.",
            self.organization
        );
        put(&mut profile, "PayloadDescription", description);
        put(&mut profile, "PayloadContent", Value::Dictionary(content));
        xml::write(profile)
    }
}

impl ProofProfile {
    /// The profile as an XML plist.
    #[must_use]
    pub fn to_plist(&self) -> Vec<u8> {
        let part = Some(Part::ProofIdentity);
        let identity = payload(&self.instance, "com.apple.security.scep", part);
        let identity = Value::Dictionary(self.scep.fill(identity));
        let mut profile = payload(&self.instance, "Configuration", Some(Part::Proof));
        shown(&mut profile, &self.organization);
        put(&mut profile, "PayloadContent", Value::Array(vec![identity]));
        xml::write(profile)
    }
}

fn shown(profile: &mut Dictionary, organization: &str) {
    put(profile, "PayloadOrganization", organization);
    put(profile, "PayloadDisplayName", "Device management");
}

/// What a device is asked to say of itself; what it does not have it leaves out.
const ATTRIBUTES: [&str; 6] = ["UDID", "SERIAL", "PRODUCT", "VERSION", "IMEI", "MEID"];

#[cfg(test)]
mod tests {
    use super::super::profile_identifier;
    use super::*;

    fn text<'a>(of: &'a Dictionary, key: &str) -> &'a str {
        of.get(key).and_then(Value::as_string).unwrap_or_default()
    }

    #[test]
    fn the_first_profile_asks_what_the_device_is() {
        let profile = ProfileService {
            instance: [0xA1; 16],
            organization: "Example & Sons".into(),
            url: "https://mdm.example.org/enroll/ota".into(),
            challenge: "secret".into(),
        };
        let profile = xml::parse(&profile.to_plist()).unwrap();
        assert_eq!(text(&profile, "PayloadType"), "Profile Service");
        assert_eq!(text(&profile, "PayloadOrganization"), "Example & Sons");
        let content = profile["PayloadContent"].as_dictionary().unwrap();
        assert_eq!(text(content, "URL"), "https://mdm.example.org/enroll/ota");
        assert_eq!(text(content, "Challenge"), "secret");
        let asked = content["DeviceAttributes"].as_array().unwrap();
        for name in ["UDID", "SERIAL", "PRODUCT"] {
            assert!(asked.contains(&Value::String(name.into())), "{name}");
        }
    }

    #[test]
    fn the_second_profile_holds_an_identity_that_takes_no_others_place() {
        let profile = ProofProfile {
            instance: [0xA1; 16],
            organization: "Example & Sons".into(),
            scep: ScepPayload {
                url: "https://mdm.example.org/scep".into(),
                challenge: "secret".into(),
                ca_fingerprint: [7; 20],
            },
        };
        let profile = xml::parse(&profile.to_plist()).unwrap();
        assert_eq!(text(&profile, "PayloadType"), "Configuration");
        let payloads = profile["PayloadContent"].as_array().unwrap();
        assert_eq!(payloads.len(), 1);
        let scep = payloads[0].as_dictionary().unwrap();
        assert_eq!(text(scep, "PayloadType"), "com.apple.security.scep");
        let content = scep["PayloadContent"].as_dictionary().unwrap();
        assert_eq!(text(content, "Challenge"), "secret");
        let enrollment = profile_identifier(&[0xA1; 16]);
        for own in [&profile, scep] {
            let identifier = text(own, "PayloadIdentifier");
            assert!(identifier.starts_with(&enrollment) && identifier != enrollment);
        }
        assert_ne!(text(&profile, "PayloadUUID"), text(scep, "PayloadUUID"));
    }
}
