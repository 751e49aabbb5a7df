//! Fitness: whether a channel may be given a command, by what is known of its device.
//!
//! Asked when a command is queued and again when it is handed out. It compares a row of
//! the catalog with a [`Standing`]; what is not known of a device never refuses a command,
//! it is only said. Pure: who knows what, the floors above find out.

use std::fmt;

use plist::{Dictionary, Value};

use crate::access::AccessRights;
use crate::catalog::{self, Platform, Row, Support, query_rights};
use crate::command::ENROLLMENT_PROFILE_PREFIX;
use crate::enrollment::Enrollment;
use crate::ids::{ChannelKind, EnrollId};
use crate::inventory::{Fact, Known};

/// What is known of a channel and its device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// By its product name.
    pub platform: Option<Platform>,
    /// The newest known; empty when none is.
    pub os_version: String,
    /// The kind of the channel.
    pub kind: ChannelKind,
    /// What the enrollment granted; none when it is not known, or fixed by Apple.
    pub rights: Option<AccessRights>,
    /// Supervised.
    pub supervised: Option<bool>,
    /// Came through Automated Device Enrollment.
    pub automated: Option<bool>,
    /// An iPad that people share.
    pub shared_ipad: Option<bool>,
}

impl Standing {
    /// What the enrollment alone says of one of its channels.
    #[must_use]
    pub fn of(enrollment: &Enrollment, channel: &EnrollId) -> Option<Self> {
        let kind = enrollment.channel(channel)?.kind;
        let facts = &enrollment.facts;
        let platform = Platform::of(facts.platform());
        let of_person = enrollment.channel.kind == ChannelKind::UserEnrollmentDevice;
        let shared = enrollment
            .channels()
            .any(|channel| channel.kind == ChannelKind::SharedIpad);
        let offered = enrollment.enrolled_with.as_ref();
        let no = |is: bool| is.then_some(false);
        Some(Self {
            platform,
            os_version: facts.os_version.clone(),
            kind,
            rights: offered.and_then(|offered| offered.rights),
            supervised: no(of_person),
            // Only such a device waits in Setup Assistant.
            automated: match enrollment.awaiting_configuration {
                true => Some(true),
                false => no(of_person),
            },
            shared_ipad: match shared {
                true => Some(true),
                false => no(of_person || facts.platform() != "iPadOS" && platform.is_some()),
            },
        })
    }

    /// Adds what the device told: DeviceInformation and SecurityInfo of this enrollment.
    #[must_use]
    pub fn told(mut self, information: Option<&Known>, security: Option<&Known>) -> Self {
        let flag = |key| information.and_then(|known| known.get(key)?.flag());
        self.supervised = self.supervised.or_else(|| flag("IsSupervised"));
        self.shared_ipad = self.shared_ipad.or_else(|| flag("IsMultiUser"));
        let status = security.and_then(|known| known.get("ManagementStatus"));
        let automated = status.and_then(|status| status.get("EnrolledViaDEP")?.flag());
        self.automated = self.automated.or(automated);
        let version = information.and_then(|known| known.get("OSVersion")?.text());
        if let Some(version) = version
            && newer(version, &self.os_version)
        {
            version.clone_into(&mut self.os_version);
        }
        self
    }

    fn is_user_enrollment(&self) -> bool {
        matches!(
            self.kind,
            ChannelKind::UserEnrollmentDevice | ChannelKind::UserEnrollment
        )
    }
}

/// Why a channel cannot be given a command. Only what is known refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// The enrollment did not grant these rights.
    Rights(AccessRights),
    /// No such command on its platform.
    Platform(Platform),
    /// Its OS does not know the command yet; from this version on.
    OsTooOld(&'static str),
    /// Its OS knows the command no longer; from this version on.
    OsTooNew(&'static str),
    /// The command is for another channel of the device.
    Channel,
    /// It must be supervised.
    Unsupervised,
    /// Not in this type of enrollment: User Enrollment, or not an automated one.
    EnrollmentType,
    /// Not on a Shared iPad, or there alone.
    SharedIpad,
}

impl Unfit {
    /// A stable word for programs, of `rejected` and of a command that was rejected.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Rights(_) => "missing_right",
            Self::Platform(_) => "wrong_platform",
            Self::OsTooOld(_) => "os_too_old",
            Self::OsTooNew(_) => "os_too_new",
            Self::Channel => "wrong_channel",
            Self::Unsupervised => "not_supervised",
            Self::EnrollmentType => "wrong_enrollment_type",
            Self::SharedIpad => "shared_ipad",
        }
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rights(rights) => write!(f, "the enrollment did not grant {rights}"),
            Self::Platform(platform) => write!(f, "{} has no such command", platform.name()),
            Self::OsTooOld(from) => write!(f, "it needs version {from} or later"),
            Self::OsTooNew(until) => write!(f, "it is gone since version {until}"),
            Self::Channel => f.write_str("it is for another channel of the device"),
            Self::Unsupervised => f.write_str("the device is not supervised"),
            Self::EnrollmentType => f.write_str("it is not for this type of enrollment"),
            Self::SharedIpad => f.write_str("Shared iPads are the difference"),
        }
    }
}

/// What would have to be known to be sure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// The rights it granted.
    Rights,
    /// Its platform.
    Platform,
    /// Its OS version.
    OsVersion,
    /// Supervised or not.
    Supervision,
    /// Whether it came through Automated Device Enrollment.
    EnrollmentType,
    /// Whether people share it.
    SharedIpad,
}

impl Unknown {
    /// A stable word for programs, of `warnings`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Rights => "rights_unknown",
            Self::Platform => "platform_unknown",
            Self::OsVersion => "os_version_unknown",
            Self::Supervision => "supervision_unknown",
            Self::EnrollmentType => "enrollment_type_unknown",
            Self::SharedIpad => "shared_ipad_unknown",
        }
    }
}

/// A command as the rule sees it.
#[derive(Clone, Debug)]
pub struct Demand<'c> {
    row: &'static Row,
    command: Option<&'c Dictionary>,
}

impl<'c> Demand<'c> {
    /// What a command asks of a device; nothing when the catalog does not know it. Without
    /// its dictionary, what its keys ask for is left out.
    #[must_use]
    pub fn of(request_type: &str, command: Option<&'c Dictionary>) -> Option<Self> {
        let row = catalog::find(request_type)?;
        Some(Self { row, command })
    }

    /// The rights it needs on a platform: the command's, its Settings items', its queries'.
    #[must_use]
    pub fn rights(&self, platform: Platform) -> AccessRights {
        let Some(command) = self.command else {
            return self.row.rights_on(platform);
        };
        let text = |key| command.get(key).and_then(Value::as_string);
        // A device always lets its management go.
        if self.row.request_type == "RemoveProfile"
            && text("Identifier").is_some_and(|id| id.starts_with(ENROLLMENT_PROFILE_PREFIX))
        {
            return AccessRights::NONE;
        }
        let queries = match self.row.request_type {
            "DeviceInformation" => command.get("Queries").and_then(Value::as_array),
            _ => None,
        };
        let queries = queries.into_iter().flatten().filter_map(Value::as_string);
        queries.fold(self.row.rights_for(platform, command), |rights, query| {
            rights | query_rights(query)
        })
    }

    /// Compares it with a channel: refused for what is known, and what is not known of it.
    ///
    /// # Errors
    /// The first thing that makes the channel unfit.
    pub fn check(&self, standing: &Standing) -> Result<Vec<Unknown>, Unfit> {
        let Some(platform) = standing.platform else {
            return self.check_anywhere(standing);
        };
        let support = self.row.support(platform);
        let support = support.ok_or(Unfit::Platform(platform))?;
        let mut unknown = Vec::new();
        channel(self.row, platform, standing, &mut unknown)?;
        enrollment_type(support, standing, &mut unknown)?;
        version(support, standing, &mut unknown)?;
        let needed = self.rights(platform);
        match standing.rights {
            Some(granted) if !granted.contains(needed) => {
                return Err(Unfit::Rights(granted.missing(needed)));
            }
            None if !needed.is_empty() && !standing.is_user_enrollment() => {
                unknown.push(Unknown::Rights);
            }
            _ => {}
        }
        Ok(unknown)
    }

    /// Whether a later OS no longer knows the command.
    #[must_use]
    pub fn ends(&self, standing: &Standing) -> bool {
        let support = standing.platform.and_then(|on| self.row.support(on));
        support.is_some_and(|support| support.removed_in.is_some())
    }

    /// On a platform that is not known, only a right that is needed on all of them refuses.
    fn check_anywhere(&self, standing: &Standing) -> Result<Vec<Unknown>, Unfit> {
        let missing = |platform| {
            let granted = standing.rights.unwrap_or(AccessRights::ALL);
            granted.missing(self.rights(platform))
        };
        let mut missing = self
            .row
            .platforms
            .iter()
            .map(|support| missing(support.platform));
        let everywhere = missing.clone().all(|missing| !missing.is_empty());
        match missing.next().filter(|_| everywhere) {
            Some(missing) => Err(Unfit::Rights(missing)),
            None => Ok(vec![Unknown::Platform]),
        }
    }
}

fn channel(
    row: &Row,
    platform: Platform,
    standing: &Standing,
    unknown: &mut Vec<Unknown>,
) -> Result<(), Unfit> {
    let takes = |shared| {
        let channels = row.channels(platform, shared);
        match standing.kind.is_device() {
            true => channels.device,
            false => channels.user,
        }
    };
    let (shared, alone) = (takes(true), takes(false));
    match standing.shared_ipad {
        Some(true) if shared => Ok(()),
        Some(false) if alone => Ok(()),
        None if shared || alone => {
            if shared != alone {
                unknown.push(Unknown::SharedIpad);
            }
            Ok(())
        }
        // It is the sharing that makes the difference, not the channel.
        Some(is) if platform == Platform::Ios && takes(!is) => Err(Unfit::SharedIpad),
        Some(true) if row.channels(platform, true) == catalog::Channels::NONE => {
            Err(Unfit::SharedIpad)
        }
        _ => Err(Unfit::Channel),
    }
}

fn enrollment_type(
    support: &Support,
    standing: &Standing,
    unknown: &mut Vec<Unknown>,
) -> Result<(), Unfit> {
    if standing.is_user_enrollment() {
        return match support.user_enrollment {
            true => Ok(()),
            false => Err(Unfit::EnrollmentType),
        };
    }
    if support.supervised {
        match standing.supervised {
            Some(true) => {}
            Some(false) => return Err(Unfit::Unsupervised),
            None => unknown.push(Unknown::Supervision),
        }
    }
    if support.ade_only {
        match standing.automated {
            Some(true) => {}
            Some(false) => return Err(Unfit::EnrollmentType),
            None => unknown.push(Unknown::EnrollmentType),
        }
    }
    Ok(())
}

fn version(
    support: &Support,
    standing: &Standing,
    unknown: &mut Vec<Unknown>,
) -> Result<(), Unfit> {
    if numbers(&standing.os_version).is_none() {
        unknown.push(Unknown::OsVersion);
        return Ok(());
    }
    if newer(support.min_os, &standing.os_version) {
        return Err(Unfit::OsTooOld(support.min_os));
    }
    match support.removed_in {
        Some(gone) if !newer(gone, &standing.os_version) => Err(Unfit::OsTooNew(gone)),
        _ => Ok(()),
    }
}

/// Whether one OS version is later than another; one that is none is the earliest.
#[must_use]
pub fn newer(one: &str, other: &str) -> bool {
    let (mut one, mut other) = (
        numbers(one).unwrap_or_default(),
        numbers(other).unwrap_or_default(),
    );
    let length = one.len().max(other.len());
    one.resize(length, 0);
    other.resize(length, 0);
    one > other
}

fn numbers(version: &str) -> Option<Vec<u64>> {
    version.split('.').map(|part| part.parse().ok()).collect()
}

/// The OS version a device told, when it is newer than the one it enrolled with.
#[must_use]
pub fn newest_version<'v>(enrolled: &'v str, information: Option<&'v Known>) -> &'v str {
    let told = information
        .and_then(|known| known.get("OSVersion"))
        .and_then(Fact::text);
    told.filter(|told| newer(told, enrolled))
        .unwrap_or(enrolled)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::catalog::build;

    fn standing() -> Standing {
        Standing {
            platform: Some(Platform::Ios),
            os_version: "18.3".into(),
            kind: ChannelKind::Device,
            rights: Some(AccessRights::ALL),
            supervised: Some(true),
            automated: Some(true),
            shared_ipad: Some(false),
        }
    }

    fn check(json: serde_json::Value, standing: &Standing) -> Result<Vec<Unknown>, Unfit> {
        let built = build(json.as_object().unwrap()).unwrap();
        let demand = Demand::of(built.request_type, Some(&built.command)).unwrap();
        demand.check(standing)
    }

    #[test]
    fn each_reason_has_its_name() {
        let person = Standing {
            kind: ChannelKind::UserEnrollmentDevice,
            rights: None,
            ..standing()
        };
        let mac = Standing {
            platform: Some(Platform::MacOs),
            os_version: "15.3".into(),
            ..standing()
        };
        let cases = [
            ("ProfileList", standing(), None),
            (
                "RestartDevice",
                Standing {
                    os_version: "10.2.9".into(),
                    ..standing()
                },
                Some(Unfit::OsTooOld("10.3")),
            ),
            (
                "AvailableOSUpdates",
                Standing {
                    os_version: "27.0".into(),
                    ..standing()
                },
                Some(Unfit::OsTooNew("27.0")),
            ),
            (
                "ContentCachingInformation",
                standing(),
                Some(Unfit::Platform(Platform::Ios)),
            ),
            ("UserList", standing(), Some(Unfit::SharedIpad)),
            (
                "RestartDevice",
                Standing {
                    supervised: Some(false),
                    ..standing()
                },
                Some(Unfit::Unsupervised),
            ),
            (
                "DeviceConfigured",
                Standing {
                    automated: Some(false),
                    ..standing()
                },
                Some(Unfit::EnrollmentType),
            ),
            ("EraseDevice", person.clone(), Some(Unfit::EnrollmentType)),
            ("ProfileList", person, None),
            (
                "DeviceLock",
                Standing {
                    kind: ChannelKind::User,
                    ..mac.clone()
                },
                Some(Unfit::Channel),
            ),
            ("ActiveNSExtensions", mac.clone(), Some(Unfit::Channel)),
            (
                "EraseDevice",
                Standing {
                    rights: Some(AccessRights::from_bits(7)),
                    ..mac
                },
                Some(Unfit::Rights(AccessRights::ERASE)),
            ),
        ];
        for (name, standing, expected) in cases {
            let outcome = check(json!({"request_type": name}), &standing);
            assert_eq!(outcome.err(), expected, "{name} {standing:?}");
        }
    }

    #[test]
    fn what_is_not_known_is_said_and_refuses_nothing() {
        let blank = Standing {
            os_version: String::new(),
            rights: None,
            supervised: None,
            automated: None,
            shared_ipad: None,
            ..standing()
        };
        assert_eq!(
            check(json!({"request_type": "RestartDevice"}), &blank),
            Ok(vec![
                Unknown::Supervision,
                Unknown::OsVersion,
                Unknown::Rights
            ])
        );
        assert_eq!(
            check(json!({"request_type": "UserList"}), &blank),
            Ok(vec![Unknown::SharedIpad, Unknown::OsVersion])
        );
        let nothing = Standing {
            platform: None,
            ..blank
        };
        assert_eq!(
            check(json!({"request_type": "EraseDevice"}), &nothing),
            Ok(vec![Unknown::Platform])
        );
        let granted = Standing {
            rights: Some(AccessRights::ERASE.missing(AccessRights::ALL)),
            ..nothing
        };
        assert_eq!(
            check(json!({"request_type": "EraseDevice"}), &granted),
            Err(Unfit::Rights(AccessRights::ERASE))
        );
        assert!(check(json!({"request_type": "ProfileList"}), &granted).is_ok());
    }

    #[test]
    fn queries_and_settings_items_bring_rights_of_their_own() {
        let without = |right: AccessRights| Standing {
            rights: Some(right.missing(AccessRights::ALL)),
            ..standing()
        };
        let ask =
            |queries: &[&str]| json!({"request_type": "DeviceInformation", "queries": queries});
        let network = without(AccessRights::NETWORK_INFORMATION);
        assert_eq!(check(ask(&["UDID", "OSVersion"]), &network), Ok(vec![]));
        assert_eq!(
            check(ask(&["OSVersion", "WiFiMAC"]), &network),
            Err(Unfit::Rights(AccessRights::NETWORK_INFORMATION))
        );
        let hotspot = json!({"request_type": "Settings", "settings":
            [{"item": "PersonalHotspot", "enabled": true}]});
        assert!(check(hotspot, &network).is_err());
        let profiles = without(AccessRights::MANAGE_PROFILES);
        let remove = |id: &str| json!({"request_type": "RemoveProfile", "identifier": id});
        assert!(check(remove("com.example.wifi"), &profiles).is_err());
        assert!(check(remove("dev.reveille.enrollment.x"), &profiles).is_ok());
    }

    #[test]
    fn versions_compare_by_their_numbers() {
        assert!(newer("10.10", "10.9") && newer("18.0.1", "18") && newer("1", ""));
        assert!(!newer("18", "18.0") && !newer("17.9", "18"));
    }
}
