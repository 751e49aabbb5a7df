//! What an enrollment allows its server: Apple's AccessRights, thirteen bits in one number.
//!
//! The number goes into the MDM payload of the enrollment profile and decides which
//! commands a device obeys. Profiles, enrollment links and the catalog use it. It knows
//! nothing of commands: which one needs which right is written in `catalog.rs`.

use std::fmt;
use std::ops::BitOr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A set of rights, as the `AccessRights` integer of a `com.apple.mdm` payload.
///
/// Any sixteen bits can be held, because a profile made elsewhere may carry any number;
/// [`AccessRights::valid`] says whether a device would take them. A user enrollment
/// (BYOD) must leave the key out altogether.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct AccessRights(u16);

impl AccessRights {
    /// No right at all; what a command needs that every enrollment may be sent.
    pub const NONE: Self = Self(0);
    /// List profiles and certificates.
    pub const INSPECT_PROFILES: Self = Self(1);
    /// Install and remove configuration profiles; needs `INSPECT_PROFILES`.
    pub const MANAGE_PROFILES: Self = Self(2);
    /// Lock the device, clear its passcode, restart it, change firmware and recovery locks.
    pub const LOCK_AND_CLEAR_PASSCODE: Self = Self(4);
    /// Erase the device.
    pub const ERASE: Self = Self(8);
    /// Ask for device information.
    pub const DEVICE_INFORMATION: Self = Self(16);
    /// Ask for network information.
    pub const NETWORK_INFORMATION: Self = Self(32);
    /// List provisioning profiles.
    pub const INSPECT_PROVISIONING_PROFILES: Self = Self(64);
    /// Install and remove provisioning profiles; needs `INSPECT_PROVISIONING_PROFILES`.
    pub const MANAGE_PROVISIONING_PROFILES: Self = Self(128);
    /// List installed applications.
    pub const INSPECT_APPLICATIONS: Self = Self(256);
    /// Ask for restrictions.
    pub const INSPECT_RESTRICTIONS: Self = Self(512);
    /// Ask for security information.
    pub const INSPECT_SECURITY: Self = Self(1024);
    /// Change settings.
    pub const MANAGE_SETTINGS: Self = Self(2048);
    /// Install, remove and configure applications and media.
    pub const MANAGE_APPLICATIONS: Self = Self(4096);
    /// Every right: 8191.
    pub const ALL: Self = Self(8191);

    /// Takes the integer as a profile carries it.
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// The union of the named rights, by the admin API's names.
    pub fn from_names<S: AsRef<str>>(names: &[S]) -> Result<Self, UnknownRight> {
        let mut rights = Self::NONE;
        for name in names {
            let name = name.as_ref();
            let known = NAMES.iter().find(|(known, _)| *known == name);
            let (_, right) = known.ok_or_else(|| UnknownRight(name.to_owned()))?;
            rights = rights.with(*right);
        }
        Ok(rights)
    }

    /// The integer as a profile carries it.
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// The admin API's names of the rights held, lowest bit first; unknown bits have none.
    pub fn names(self) -> Vec<&'static str> {
        let held = NAMES.iter().filter(|(_, right)| self.contains(*right));
        held.map(|(name, _)| *name).collect()
    }

    /// Whether every right of `needed` is held.
    pub const fn contains(self, needed: Self) -> bool {
        self.0 & needed.0 == needed.0
    }

    /// The rights of `needed` that are not held.
    pub const fn missing(self, needed: Self) -> Self {
        Self(needed.0 & !self.0)
    }

    /// What both sets hold.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether no right is held.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Both sets together; `|` for constants.
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Checks Apple's rules for the number in a profile: not 0, only known bits, and
    /// managing (2, 128) only together with inspecting (1, 64).
    ///
    /// That an update may only take rights away is the caller's to check, with
    /// [`AccessRights::contains`] of the rights before.
    pub fn valid(self) -> Result<Self, InvalidRights> {
        if self.is_empty() {
            return Err(InvalidRights::Empty);
        }
        if !Self::ALL.contains(self) {
            return Err(InvalidRights::UnknownBits(Self::ALL.missing(self).0));
        }
        for (right, needs) in PAIRS {
            if self.contains(right) && !self.contains(needs) {
                return Err(InvalidRights::Needs { right, needs });
            }
        }
        Ok(self)
    }
}

impl BitOr for AccessRights {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.with(other)
    }
}

impl fmt::Display for AccessRights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            f.write_str("none")
        } else {
            f.write_str(&self.names().join(", "))
        }
    }
}

/// A name that is none of the thirteen rights.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("unknown access right \"{0}\"")]
pub struct UnknownRight(pub String);

/// Why a device would refuse a number as `AccessRights`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidRights {
    /// Zero is not allowed; leave the key out for a user enrollment.
    #[error("access rights must not be empty")]
    Empty,
    /// Bits above 4096.
    #[error("access rights contain unknown bits {0:#x}")]
    UnknownBits(u16),
    /// A right to manage without the right to inspect.
    #[error("access right {right} needs {needs}")]
    Needs {
        /// The right that was given.
        right: AccessRights,
        /// The right it cannot be without.
        needs: AccessRights,
    },
}

/// The rights by the admin API's names, in the order of their bits.
const NAMES: [(&str, AccessRights); 13] = [
    ("inspect_profiles", AccessRights::INSPECT_PROFILES),
    ("manage_profiles", AccessRights::MANAGE_PROFILES),
    (
        "lock_and_clear_passcode",
        AccessRights::LOCK_AND_CLEAR_PASSCODE,
    ),
    ("erase", AccessRights::ERASE),
    ("device_information", AccessRights::DEVICE_INFORMATION),
    ("network_information", AccessRights::NETWORK_INFORMATION),
    (
        "inspect_provisioning_profiles",
        AccessRights::INSPECT_PROVISIONING_PROFILES,
    ),
    (
        "manage_provisioning_profiles",
        AccessRights::MANAGE_PROVISIONING_PROFILES,
    ),
    ("inspect_applications", AccessRights::INSPECT_APPLICATIONS),
    ("inspect_restrictions", AccessRights::INSPECT_RESTRICTIONS),
    ("inspect_security", AccessRights::INSPECT_SECURITY),
    ("manage_settings", AccessRights::MANAGE_SETTINGS),
    ("manage_applications", AccessRights::MANAGE_APPLICATIONS),
];

/// A right and the one it cannot be without.
const PAIRS: [(AccessRights, AccessRights); 2] = [
    (
        AccessRights::MANAGE_PROFILES,
        AccessRights::INSPECT_PROFILES,
    ),
    (
        AccessRights::MANAGE_PROVISIONING_PROFILES,
        AccessRights::INSPECT_PROVISIONING_PROFILES,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thirteen_names_are_the_bits_from_1_to_4096() {
        for (i, (name, right)) in NAMES.iter().enumerate() {
            assert_eq!(right.bits(), 1 << i, "{name}");
        }
        assert_eq!(
            AccessRights::from_names(&NAMES.map(|(name, _)| name)),
            Ok(AccessRights::ALL)
        );
        assert_eq!(AccessRights::ALL.names(), NAMES.map(|(name, _)| name));
    }

    #[test]
    fn an_unknown_name_is_refused_by_name() {
        let refused = AccessRights::from_names(&["erase", "eraze"]).unwrap_err();
        assert_eq!(refused.to_string(), "unknown access right \"eraze\"");
    }

    #[test]
    fn validity_follows_apples_rules() {
        let cases = [
            (0, Some("access rights must not be empty")),
            (1, None),
            (
                2,
                Some("access right manage_profiles needs inspect_profiles"),
            ),
            (3, None),
            (
                128,
                Some(
                    "access right manage_provisioning_profiles needs inspect_provisioning_profiles",
                ),
            ),
            (192, None),
            (8191, None),
            (8192, Some("access rights contain unknown bits 0x2000")),
        ];
        for (bits, refusal) in cases {
            let valid = AccessRights::from_bits(bits)
                .valid()
                .map_err(|e| e.to_string());
            assert_eq!(valid.err().as_deref(), refusal, "{bits}");
        }
    }

    #[test]
    fn missing_is_what_is_needed_and_not_held() {
        let held = AccessRights::from_bits(4 | 16);
        let needed = AccessRights::ERASE | AccessRights::LOCK_AND_CLEAR_PASSCODE;
        assert!(!held.contains(needed));
        assert_eq!(held.missing(needed), AccessRights::ERASE);
        assert!(held.missing(AccessRights::NONE).is_empty());
    }

    #[test]
    fn json_is_the_bare_integer() {
        assert_eq!(serde_json::to_string(&AccessRights::ALL).unwrap(), "8191");
        assert_eq!(
            serde_json::from_str::<AccessRights>("9").unwrap().names()[1],
            "erase"
        );
        assert!(serde_json::from_str::<AccessRights>("70000").is_err());
    }
}
