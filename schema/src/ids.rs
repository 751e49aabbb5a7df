//! The identifiers of the protocol and of our store, each its own type.
//!
//! The grammar of an enrollment id is checked here, once; whoever holds an
//! [`EnrollId`] holds a valid one. Ids are compared as given, no case folding.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Our normalised key of one channel: `UDID`, `EnrollmentID`, or either of them
/// with `:` and the user part behind.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EnrollId(String);

impl EnrollId {
    /// Takes an id of a device channel (no `:`).
    ///
    /// # Errors
    /// [`BadId`] when it is empty, longer than 128 bytes, or holds white space,
    /// control characters or a colon.
    pub fn device(id: &str) -> Result<Self, BadId> {
        check_part(id, 128, ':')?;
        Ok(Self(id.to_owned()))
    }

    /// Takes the id of a user channel of `device`.
    ///
    /// # Errors
    /// [`BadId`] when the user part breaks the grammar.
    pub fn user(device: &str, user: &str) -> Result<Self, BadId> {
        check_part(device, 128, ':')?;
        check_part(user, 255, '\0')?;
        Ok(Self(format!("{device}:{user}")))
    }

    /// Reads an id as it stands in a path or a body: `DEVICE` or `DEVICE:USER`.
    ///
    /// # Errors
    /// [`BadId`] as for the two constructors.
    pub fn parse(text: &str) -> Result<Self, BadId> {
        match text.split_once(':') {
            Some((device, user)) => Self::user(device, user),
            None => Self::device(text),
        }
    }

    /// The whole id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The device's part.
    #[must_use]
    pub fn device_part(&self) -> &str {
        self.0.split_once(':').map_or(&self.0, |(device, _)| device)
    }

    /// The user's part, on a user channel.
    #[must_use]
    pub fn user_part(&self) -> Option<&str> {
        self.0.split_once(':').map(|(_, user)| user)
    }

    /// The id of the device channel this one belongs to (itself, for a device channel).
    #[must_use]
    pub fn parent(&self) -> Self {
        Self(self.device_part().to_owned())
    }
}

impl fmt::Display for EnrollId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EnrollId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EnrollId({})", self.0)
    }
}

/// Why a text is not an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadId {
    /// Nothing there.
    #[error("an enrollment id is empty")]
    Empty,
    /// Longer than any device sends.
    #[error("an enrollment id is longer than {0} bytes")]
    TooLong(usize),
    /// White space, a control character, or a colon where none may be.
    #[error("an enrollment id contains white space, a control character or a stray colon")]
    Character,
}

fn check_part(part: &str, longest: usize, forbidden: char) -> Result<(), BadId> {
    if part.is_empty() {
        return Err(BadId::Empty);
    }
    if part.len() > longest {
        return Err(BadId::TooLong(longest));
    }
    if part
        .chars()
        .any(|c| c.is_whitespace() || c.is_control() || c == forbidden)
    {
        return Err(BadId::Character);
    }
    Ok(())
}

/// Which of the kinds of channel an id names (contracts.md 2a has the names of the field).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ChannelKind {
    /// The device channel of a device enrollment: UDID.
    Device,
    /// A macOS user channel: UDID and UserID.
    User,
    /// The device channel of a User Enrollment: EnrollmentID.
    UserEnrollmentDevice,
    /// The user channel of a User Enrollment: EnrollmentID and EnrollmentUserID.
    UserEnrollment,
    /// A Shared iPad user: UDID and UserShortName.
    SharedIpad,
}

impl ChannelKind {
    /// The name other servers of this field use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Device => "Device",
            Self::User => "User",
            Self::UserEnrollmentDevice => "User Enrollment (Device)",
            Self::UserEnrollment => "User Enrollment",
            Self::SharedIpad => "Shared iPad",
        }
    }

    /// True for the two kinds of device channel.
    #[must_use]
    pub const fn is_device(self) -> bool {
        matches!(self, Self::Device | Self::UserEnrollmentDevice)
    }
}

/// The dense number of a channel, given at enrollment and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChannelNo(pub u32);

/// The number that orders all commands, given by the writer in commit order.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Seq(pub u64);

/// A command's `CommandUUID`: any string of 1 to 128 bytes without control characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CommandUuid(String);

impl CommandUuid {
    /// Takes a CommandUUID as given.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fits = !text.is_empty() && text.len() <= 128 && !text.chars().any(char::is_control);
        fits.then(|| Self(text.to_owned()))
    }

    /// The string.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CommandUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The push topic a channel reported: `com.apple.mgmt.` and more.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Topic(pub String);

impl Topic {
    /// The topic whose push certificate serves this one: macOS user channels may
    /// report it with `.user` behind.
    #[must_use]
    pub fn certificate_topic(&self) -> &str {
        self.0.strip_suffix(".user").unwrap_or(&self.0)
    }
}

/// The opaque token APNs knows a device by. Not printed by `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushToken(pub Vec<u8>);

impl fmt::Debug for PushToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PushToken({} bytes)", self.0.len())
    }
}

/// The string that makes a push ours. Not printed by `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushMagic(pub String);

impl fmt::Debug for PushMagic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PushMagic(..)")
    }
}

/// SHA-256 over the DER of an identity certificate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Leaf(pub [u8; 32]);

impl fmt::Display for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Leaf({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_kept_as_given_and_split_at_its_first_colon() {
        let id = EnrollId::parse("00008030-001A:user@example.org:x").unwrap();
        assert_eq!(id.device_part(), "00008030-001A");
        assert_eq!(id.user_part(), Some("user@example.org:x"));
        assert_eq!(id.parent().as_str(), "00008030-001A");
    }

    #[test]
    fn white_space_and_emptiness_are_refused() {
        for bad in ["", "a b", "a\n", "\u{a0}x", "a:", ":b", "a:b c"] {
            assert!(EnrollId::parse(bad).is_err(), "{bad:?}");
        }
        assert!(EnrollId::device("a:b").is_err());
    }

    #[test]
    fn a_user_topic_is_served_by_the_certificate_of_its_device_topic() {
        let topic = Topic("com.apple.mgmt.x.user".into());
        assert_eq!(topic.certificate_topic(), "com.apple.mgmt.x");
    }
}
