//! What a device says of itself in Apple's over-the-air enrollment (Profile Service).
//!
//! The signed message of the second and third phase holds a property list; here it is
//! read, bounded. Whether its signer is a device is for the caller to find out first.

use crate::xml::{Scalar, Scan, Unreadable};

/// The attributes of a device, as it was asked for them.
#[derive(Clone, PartialEq, Eq)]
pub struct DeviceAnswer {
    /// The challenge it was handed; a secret.
    pub challenge: String,
    /// Its model, such as `iPhone15,2`.
    pub product: String,
    /// Its serial number.
    pub serial: String,
    /// Its UDID, where it has told it.
    pub udid: Option<String>,
    /// Its build, where it has told it.
    pub version: Option<String>,
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
            challenge: must("CHALLENGE")?,
            product: must("PRODUCT")?,
            serial: must("SERIAL")?,
            udid: attribute(&scan, "UDID")?,
            version: attribute(&scan, "VERSION")?,
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
        assert_eq!(answer.challenge, "s3cret");
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
            let refused = DeviceAnswer::parse(&plist(&without));
            assert_eq!(refused, Err(AnswerError::Missing(key)));
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
}
