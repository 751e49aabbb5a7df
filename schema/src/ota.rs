//! What a device says of itself in Apple's over-the-air enrollment (Profile Service).
//!
//! The signed message of the second and third phase holds a property list; here it is
//! read, bounded. Whether its signer is a device is for the caller to find out first.

use serde::{Deserialize, Serialize};

use crate::ids::{BadId, EnrollId};
use crate::xml::{Scalar, Scan, Unreadable};

/// The attributes of a device, as it was asked for them.
#[derive(Clone, PartialEq, Eq)]
pub struct DeviceAnswer {
    /// The challenge it was handed; a secret. The second phase is nothing without it, in
    /// the third a device need not repeat it.
    pub challenge: Option<String>,
    /// Its model, such as `iPhone15,2`.
    pub product: String,
    /// Its serial number.
    pub serial: String,
    /// Its UDID, where it has told it.
    pub udid: Option<String>,
    /// Its build, where it has told it.
    pub version: Option<String>,
}

/// A device on its way through over-the-air enrollment: every phase must name the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtaDevice {
    /// Its UDID, under which it will enroll.
    pub udid: EnrollId,
    /// Its serial number.
    pub serial: String,
}

impl OtaDevice {
    /// Whether an admin means this one by an id or a serial number.
    #[must_use]
    pub fn is(&self, named: &EnrollId) -> bool {
        *named == self.udid || named.as_str() == self.serial
    }
}

impl std::fmt::Debug for DeviceAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceAnswer")
            .field("product", &self.product)
            .field("serial", &self.serial)
            .field("udid", &self.udid)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// Why a device's answer cannot be used; the device is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// Not a property list we read.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// An attribute that was asked for is missing, or empty.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// An attribute is no text, or longer than any device's.
    #[error("{0} is not a text of at most {LONGEST} bytes")]
    NotText(&'static str),
    /// The UDID could not be one.
    #[error("UDID: {0}")]
    BadUdid(#[from] BadId),
}

impl DeviceAnswer {
    /// Reads the content of a device's signed message.
    ///
    /// # Errors
    /// [`AnswerError`] names what is missing or wrong.
    pub fn parse(content: &[u8]) -> Result<Self, AnswerError> {
        let scan = Scan::new(content)?;
        let must = |key| attribute(&scan, key)?.ok_or(AnswerError::Missing(key));
        Ok(Self {
            challenge: attribute(&scan, "CHALLENGE")?,
            product: must("PRODUCT")?,
            serial: must("SERIAL")?,
            udid: attribute(&scan, "UDID")?,
            version: attribute(&scan, "VERSION")?,
        })
    }

    /// The device it names.
    ///
    /// # Errors
    /// [`AnswerError`]: it names none.
    pub fn device(&self) -> Result<OtaDevice, AnswerError> {
        let udid = self.udid.as_deref().ok_or(AnswerError::Missing("UDID"))?;
        Ok(OtaDevice {
            udid: EnrollId::device(udid)?,
            serial: self.serial.clone(),
        })
    }
}

fn attribute(scan: &Scan<'_>, key: &'static str) -> Result<Option<String>, AnswerError> {
    match scan.get(key) {
        None => Ok(None),
        Some(Scalar::Text(text)) if text.len() <= LONGEST => {
            Ok((!text.is_empty()).then(|| text.to_string()))
        }
        Some(_) => Err(AnswerError::NotText(key)),
    }
}

/// Of an attribute, in bytes.
const LONGEST: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn plist(inside: &str) -> Vec<u8> {
        format!("<plist version=\"1.0\"><dict>{inside}</dict></plist>").into_bytes()
    }

    const WHOLE: &str = "<key>CHALLENGE</key><string>s3cret</string>\
        <key>PRODUCT</key><string>iPhone15,2</string><key>SERIAL</key><string>C02</string>";

    #[test]
    fn a_device_says_what_it_is_and_its_challenge_stays_out_of_logs() {
        let answer = DeviceAnswer::parse(&plist(WHOLE)).unwrap();
        assert_eq!(answer.challenge.as_deref(), Some("s3cret"));
        assert_eq!((&*answer.product, &*answer.serial), ("iPhone15,2", "C02"));
        assert_eq!((&answer.udid, &answer.version), (&None, &None));
        let shown = format!("{answer:?}");
        assert!(
            shown.contains("C02") && !shown.contains("s3cret"),
            "{shown}"
        );
    }

    #[test]
    fn an_answer_that_lacks_something_or_is_no_plist_is_refused_by_name() {
        for key in ["CHALLENGE", "PRODUCT", "SERIAL"] {
            let without = WHOLE.replace(&format!("<key>{key}<"), "<key>OTHER<");
            match DeviceAnswer::parse(&plist(&without)) {
                Ok(answer) => assert!(key == "CHALLENGE" && answer.challenge.is_none()),
                Err(refused) => assert_eq!(refused, AnswerError::Missing(key)),
            }
            let long = plist(&WHOLE.replace(
                &format!("<key>{key}</key><string>"),
                &format!("<key>{key}</key><string>{}", "x".repeat(LONGEST)),
            ));
            assert_eq!(DeviceAnswer::parse(&long), Err(AnswerError::NotText(key)));
        }
        let number = plist(&format!("{WHOLE}<key>UDID</key><integer>1</integer>"));
        assert_eq!(
            DeviceAnswer::parse(&number),
            Err(AnswerError::NotText("UDID"))
        );
        assert_eq!(
            DeviceAnswer::parse(b"bplist00\xd0"),
            Err(Unreadable::Binary.into())
        );
    }

    #[test]
    fn the_device_it_names_has_a_udid_and_is_known_by_either_name() {
        let named = |more: &str| DeviceAnswer::parse(&plist(&format!("{WHOLE}{more}")));
        let missing = named("").unwrap().device();
        assert_eq!(missing, Err(AnswerError::Missing("UDID")));
        let bad = named("<key>UDID</key><string>A B</string>").unwrap();
        assert!(matches!(bad.device(), Err(AnswerError::BadUdid(_))));
        let device = named("<key>UDID</key><string>AB</string>").unwrap();
        let device = device.device().unwrap();
        for (name, is) in [("AB", true), ("C02", true), ("AC", false)] {
            assert_eq!(device.is(&EnrollId::device(name).unwrap()), is, "{name}");
        }
    }
}
