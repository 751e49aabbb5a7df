//! Inventory: what devices told about themselves, read out of their reports.
//!
//! Each kind is the answer to one command and is kept whole, as facts, so that a key of a
//! later OS is not lost; what the server itself asks for has a name and a type here.
//! Source: Apple's device-management schema, the responses of the commands.

use std::collections::BTreeMap;

use plist::{Dictionary, Value};
use serde::{Deserialize, Serialize};

use crate::UnixMillis;
use crate::xml;

/// A value of a plist, as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Fact {
    /// `<true/>` or `<false/>`.
    Flag(bool),
    /// `<integer>`.
    Integer(i64),
    /// `<real>`.
    Real(f64),
    /// `<string>`.
    Text(String),
    /// `<date>`, in seconds since 1970.
    Date(i64),
    /// `<data>`.
    Data(Vec<u8>),
    /// `<array>`.
    List(Vec<Fact>),
    /// `<dict>`.
    Dict(BTreeMap<String, Fact>),
}

/// Facts by their keys.
pub type Facts = BTreeMap<String, Fact>;

/// What a report of inventory is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// Answers to queries; a later answer replaces the keys it has.
    DeviceInformation,
    /// Passcode, FileVault, firewall, management.
    SecurityInfo,
    /// Installed apps.
    InstalledApplicationList,
    /// Apps MDM installed.
    ManagedApplicationList,
    /// Configuration profiles.
    ProfileList,
    /// Provisioning profiles.
    ProvisioningProfileList,
    /// Certificates.
    CertificateList,
    /// Restrictions in force.
    Restrictions,
    /// Users of a Mac or a shared iPad.
    UserList,
    /// Updates that could be installed.
    AvailableOsUpdates,
}

/// What is known of one kind, and since when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Known {
    /// When the last report on it came.
    pub at: UnixMillis,
    /// What it said: a list or a dictionary, as the kind has it.
    pub facts: Fact,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::DeviceInformation,
        Self::SecurityInfo,
        Self::InstalledApplicationList,
        Self::ManagedApplicationList,
        Self::ProfileList,
        Self::ProvisioningProfileList,
        Self::CertificateList,
        Self::Restrictions,
        Self::UserList,
        Self::AvailableOsUpdates,
    ];

    /// The kind a command asks for.
    #[must_use]
    pub fn of(request_type: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.request_type() == request_type)
    }

    /// The RequestType of its command.
    #[must_use]
    pub const fn request_type(self) -> &'static str {
        match self {
            Self::DeviceInformation => "DeviceInformation",
            Self::SecurityInfo => "SecurityInfo",
            Self::InstalledApplicationList => "InstalledApplicationList",
            Self::ManagedApplicationList => "ManagedApplicationList",
            Self::ProfileList => "ProfileList",
            Self::ProvisioningProfileList => "ProvisioningProfileList",
            Self::CertificateList => "CertificateList",
            Self::Restrictions => "Restrictions",
            Self::UserList => "UserList",
            Self::AvailableOsUpdates => "AvailableOSUpdates",
        }
    }

    /// Its name in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DeviceInformation => "device_information",
            Self::SecurityInfo => "security_info",
            Self::InstalledApplicationList => "installed_applications",
            Self::ManagedApplicationList => "managed_applications",
            Self::ProfileList => "profiles",
            Self::ProvisioningProfileList => "provisioning_profiles",
            Self::CertificateList => "certificates",
            Self::Restrictions => "restrictions",
            Self::UserList => "users",
            Self::AvailableOsUpdates => "available_os_updates",
        }
    }

    /// Its number on disk.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The keys of its report that hold the answer; more than one stay apart.
    const fn keys(self) -> &'static [&'static str] {
        match self {
            Self::DeviceInformation => &["QueryResponses"],
            Self::SecurityInfo => &["SecurityInfo"],
            Self::InstalledApplicationList => &["InstalledApplicationList"],
            Self::ManagedApplicationList => &["ManagedApplicationList"],
            Self::ProfileList => &["ProfileList"],
            Self::ProvisioningProfileList => &["ProvisioningProfileList"],
            Self::CertificateList => &["CertificateList"],
            Self::Restrictions => &["GlobalRestrictions", "ProfileRestrictions"],
            Self::UserList => &["Users"],
            Self::AvailableOsUpdates => &["AvailableOSUpdates"],
        }
    }

    /// The answer in an acknowledged report; nothing when it holds none.
    #[must_use]
    pub fn read(self, report: &[u8]) -> Option<Fact> {
        let mut report = xml::parse(report).ok()?;
        match self.keys() {
            [one] => report.remove(one).map(Fact::from),
            several => {
                let mut found = Facts::new();
                for key in several {
                    if let Some(value) = report.remove(key) {
                        found.insert((*key).to_owned(), value.into());
                    }
                }
                (!found.is_empty()).then_some(Fact::Dict(found))
            }
        }
    }

    /// What is known after an answer that came at `at`: the newest one, but an answer to a
    /// few queries leaves the others as they were. An older answer changes nothing.
    #[must_use]
    pub fn learn(self, before: Option<Known>, facts: Fact, at: UnixMillis) -> Known {
        match (self, before, facts) {
            (_, Some(before), _) if before.at > at => before,
            (
                Self::DeviceInformation,
                Some(Known {
                    facts: Fact::Dict(mut known),
                    ..
                }),
                Fact::Dict(told),
            ) => {
                known.extend(told);
                Known {
                    at,
                    facts: Fact::Dict(known),
                }
            }
            (_, _, facts) => Known { at, facts },
        }
    }
}

impl Known {
    /// A key of a dictionary.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Fact> {
        self.facts.get(key)
    }

    /// The items of a list.
    #[must_use]
    pub fn items(&self) -> &[Fact] {
        match &self.facts {
            Fact::List(items) => items,
            _ => &[],
        }
    }

    /// Does the list hold an item with this text under this key?
    #[must_use]
    pub fn has(&self, key: &str, text: &str) -> bool {
        self.items()
            .iter()
            .any(|item| item.get(key).and_then(Fact::text) == Some(text))
    }
}

impl Fact {
    /// A key of a dictionary.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Dict(facts) => facts.get(key),
            _ => None,
        }
    }

    /// A text.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A flag.
    #[must_use]
    pub fn flag(&self) -> Option<bool> {
        match self {
            Self::Flag(flag) => Some(*flag),
            _ => None,
        }
    }

    /// A number, whole or not.
    #[must_use]
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Real(real) => Some(*real),
            #[expect(clippy::cast_precision_loss, reason = "gigabytes, percent: small")]
            Self::Integer(integer) => Some(*integer as f64),
            _ => None,
        }
    }

    /// The octets of a `<data>`.
    #[must_use]
    pub fn data(&self) -> Option<&[u8]> {
        match self {
            Self::Data(data) => Some(data),
            _ => None,
        }
    }
}

impl From<Value> for Fact {
    fn from(value: Value) -> Self {
        match value {
            Value::Boolean(flag) => Self::Flag(flag),
            Value::Integer(integer) => integer
                .as_signed()
                .map_or_else(|| Self::Text(integer.to_string()), Self::Integer),
            Value::Real(real) => Self::Real(real),
            Value::Date(date) => Self::Date(seconds(date.into())),
            Value::Data(data) => Self::Data(data),
            Value::Array(items) => Self::List(items.into_iter().map(Self::from).collect()),
            Value::Dictionary(facts) => Self::Dict(dictionary(facts)),
            Value::String(text) => Self::Text(text),
            // A kind of value no XML plist has.
            other => Self::Text(format!("{other:?}")),
        }
    }
}

fn dictionary(facts: Dictionary) -> Facts {
    let facts = facts.into_iter();
    facts.map(|(key, value)| (key, value.into())).collect()
}

fn seconds(time: std::time::SystemTime) -> i64 {
    let epoch = std::time::UNIX_EPOCH;
    match time.duration_since(epoch) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |s| -s),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(inside: &str) -> Vec<u8> {
        format!(
            "<plist version=\"1.0\"><dict><key>CommandUUID</key><string>u</string>\
             <key>Status</key><string>Acknowledged</string>{inside}</dict></plist>"
        )
        .into_bytes()
    }

    #[test]
    fn every_kind_is_found_by_its_command_and_has_a_number_of_its_own() {
        for (n, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(Kind::of(kind.request_type()), Some(kind));
            assert_eq!(usize::from(kind.code()), n);
            assert!(crate::catalog::find(kind.request_type()).is_some());
        }
        assert_eq!(Kind::of("DeviceLock"), None);
    }

    #[test]
    fn an_answer_to_a_few_queries_leaves_the_others_as_they_were() {
        let kind = Kind::DeviceInformation;
        let told = |inside: &str| {
            let body = report(&format!("<key>QueryResponses</key><dict>{inside}</dict>"));
            kind.read(&body).unwrap()
        };
        let first = told(
            "<key>OSVersion</key><string>17.1</string>\
             <key>AvailableDeviceCapacity</key><real>12.5</real>\
             <key>IsSupervised</key><true/>",
        );
        let known = kind.learn(None, first, UnixMillis(1000));
        let later = told("<key>OSVersion</key><string>17.2</string>");
        let known = kind.learn(Some(known), later.clone(), UnixMillis(2000));
        assert_eq!(known.get("OSVersion").and_then(Fact::text), Some("17.2"));
        let free = known.get("AvailableDeviceCapacity").and_then(Fact::number);
        assert_eq!(free, Some(12.5));
        assert_eq!(known.get("IsSupervised").and_then(Fact::flag), Some(true));
        let older = kind.learn(Some(known.clone()), later, UnixMillis(1500));
        assert_eq!(older, known, "an answer that was overtaken");
    }

    #[test]
    fn a_list_is_what_the_last_report_says() {
        let kind = Kind::InstalledApplicationList;
        let app = |id: &str| format!("<dict><key>Identifier</key><string>{id}</string></dict>");
        let told = |apps: &str| {
            let body = report(&format!(
                "<key>InstalledApplicationList</key><array>{apps}</array>"
            ));
            kind.read(&body).unwrap()
        };
        let known = kind.learn(None, told(&(app("a") + &app("b"))), UnixMillis(1));
        assert!(known.has("Identifier", "a") && !known.has("Identifier", "c"));
        let known = kind.learn(Some(known), told(&app("c")), UnixMillis(2));
        assert!(known.has("Identifier", "c") && !known.has("Identifier", "a"));
    }

    #[test]
    fn what_comes_in_two_keys_stays_apart_and_what_does_not_come_is_nothing() {
        let body = report(
            "<key>GlobalRestrictions</key><dict><key>a</key><integer>1</integer></dict>\
             <key>ProfileRestrictions</key><dict/>",
        );
        let read = Kind::Restrictions.read(&body).unwrap();
        let a = read
            .get("GlobalRestrictions")
            .and_then(|both| both.get("a"));
        assert_eq!(a, Some(&Fact::Integer(1)));
        assert!(read.get("ProfileRestrictions").is_some());
        assert_eq!(Kind::SecurityInfo.read(&body), None);
        assert_eq!(Kind::SecurityInfo.read(b"torn"), None);
    }

    #[test]
    fn dates_and_data_keep_what_they_are() {
        let body = report(
            "<key>CertificateList</key><array><dict><key>Data</key><data>AQI=</data>\
             <key>d</key><date>1969-12-31T23:59:59Z</date>\
             <key>n</key><integer>18446744073709551615</integer></dict></array>",
        );
        let read = Kind::CertificateList.read(&body).unwrap();
        let known = Kind::CertificateList.learn(None, read, UnixMillis(1));
        let item = &known.items()[0];
        assert_eq!(item.get("Data").and_then(Fact::data), Some(&[1, 2][..]));
        assert_eq!(item.get("d"), Some(&Fact::Date(-1)));
        let large = item.get("n").and_then(Fact::text);
        assert_eq!(large, Some("18446744073709551615"));
    }
}
