//! The words the catalog is written in: a row, its keys, and where a command is allowed.
//!
//! Everything is `'static` and built by `const` functions, so that the table in
//! `catalog.rs` reads as a table. These types describe; `build.rs` acts on them.

use serde::Serialize;

use crate::access::AccessRights;

/// One MDM command: what goes into it, who may be sent it, and how much it can break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Apple's name, matched exactly.
    pub request_type: &'static str,
    /// The keys of the `Command` dictionary besides `RequestType`.
    pub keys: &'static [Key],
    /// Names of keys of which at least one must be there; empty if there is no such rule.
    pub one_of: &'static [&'static str],
    /// The platforms that know the command; a platform not listed does not.
    pub platforms: &'static [Support],
    /// The channels on macOS; means nothing when macOS is not among the platforms.
    pub mac_channels: Channels,
    /// What holds on a Shared iPad.
    pub shared_ipad: SharedIpad,
    /// The rights the enrollment must have granted; see [`Row::rights_on`].
    pub rights: AccessRights,
    /// The worst thing it does when it does what it should.
    pub danger: Danger,
}

impl Row {
    /// What is stated for `platform`, or `None` when the command does not exist there.
    pub fn support(&self, platform: Platform) -> Option<&'static Support> {
        self.platforms
            .iter()
            .find(|support| support.platform == platform)
    }

    /// The rights an enrollment on `platform` must have granted for the command as such.
    pub fn rights_on(&self, platform: Platform) -> AccessRights {
        match self.support(platform) {
            Some(support) if support.needs_rights => self.rights,
            _ => AccessRights::NONE,
        }
    }

    /// The rights this very command needs: [`Row::rights_on`] plus those of its Settings
    /// items. Works on any `Command` dictionary, also one that came as raw plist.
    pub fn rights_for(&self, platform: Platform, command: &plist::Dictionary) -> AccessRights {
        let mut rights = self.rights_on(platform);
        for key in self.keys {
            let Kind::Array(Kind::Items(items)) = key.kind else {
                continue;
            };
            let given = command.get(key.name).and_then(plist::Value::as_array);
            for value in given.into_iter().flatten() {
                let name = value
                    .as_dictionary()
                    .and_then(|item| item.get("Item")?.as_string());
                let item = items.iter().find(|item| Some(item.name) == name);
                rights = rights | item.map_or(AccessRights::NONE, |item| item.rights);
            }
        }
        rights
    }

    /// The channels that take the command on `platform`; none when it does not exist there.
    pub fn channels(&self, platform: Platform, on_shared_ipad: bool) -> Channels {
        match (self.support(platform), platform) {
            (None, _) => Channels::NONE,
            (Some(_), Platform::MacOs) => self.mac_channels,
            (Some(_), Platform::Ios) => match (self.shared_ipad, on_shared_ipad) {
                (SharedIpad::Allowed(channels) | SharedIpad::Only(channels), true) => channels,
                (SharedIpad::Forbidden, true) | (SharedIpad::Only(_), false) => Channels::NONE,
                (SharedIpad::Allowed(_) | SharedIpad::Forbidden, false) => Channels::DEVICE,
            },
            (Some(_), _) => Channels::DEVICE,
        }
    }

    /// Whether sending it to the wrong devices wipes them, locks people out, or loses
    /// data or a secret for good. Such a command needs its own scope and passes the guard.
    ///
    /// `RemoveProfile` is not among them although it ends the enrollment when it names the
    /// MDM profile: only the caller knows that identifier and must check it.
    pub fn destructive(&self) -> bool {
        self.danger.destructive()
    }

    /// Whether it goes before everything else in a queue: a device that is lost or
    /// must be wiped may be reachable only this once.
    pub fn urgent(&self) -> bool {
        URGENT.contains(&self.request_type)
    }
}

/// A key of a dictionary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Apple's name.
    pub name: &'static str,
    /// What its value must be.
    pub kind: Kind,
    /// Whether it must be there.
    pub required: bool,
}

/// What a value must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    String,
    /// One of these texts, exactly.
    Choice(&'static [&'static str]),
    /// That many decimal digits, as text.
    Digits(usize),
    /// An integer from `min` to `max`, both included.
    Integer {
        /// The least value.
        min: i64,
        /// The greatest value.
        max: i64,
    },
    /// One of these integers.
    IntegerChoice(&'static [i64]),
    /// True or false.
    Boolean,
    /// A floating-point number.
    Real,
    /// A point in time; RFC 3339 in JSON.
    Date,
    /// Bytes; base64 in JSON.
    Data,
    /// At most that many bytes; base64 in JSON.
    DataUpTo(usize),
    /// A list of values of one kind.
    Array(&'static Kind),
    /// A dictionary with exactly these keys.
    Dict(&'static [Key]),
    /// A dictionary whose keys are the caller's affair and are passed on as written.
    Open,
    /// A dictionary whose `Item` says which of these it is.
    Items(&'static [Item]),
    /// Whatever a property list can hold.
    Any,
}

/// One item of the `Settings` command, told apart by its `Item` key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item {
    /// The value of `Item`.
    pub name: &'static str,
    /// The keys besides `Item`.
    pub keys: &'static [Key],
    /// Rights it needs on top of the command's.
    pub rights: AccessRights,
}

/// What one platform asks of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Support {
    /// The platform.
    pub platform: Platform,
    /// The first OS version that knows the command.
    pub min_os: &'static str,
    /// The first OS version that no longer knows it.
    pub removed_in: Option<&'static str>,
    /// Whether the device must be supervised.
    pub supervised: bool,
    /// Whether the device must have come through Automated Device Enrollment.
    pub ade_only: bool,
    /// Whether a user enrollment (BYOD) may be sent it.
    pub user_enrollment: bool,
    /// Whether the row's rights are needed here.
    pub needs_rights: bool,
}

/// An Apple operating system; iPadOS counts as iOS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum Platform {
    /// iOS and iPadOS.
    #[serde(rename = "iOS")]
    Ios,
    /// macOS.
    #[serde(rename = "macOS")]
    MacOs,
    /// tvOS.
    #[serde(rename = "tvOS")]
    TvOs,
    /// visionOS.
    #[serde(rename = "visionOS")]
    VisionOs,
    /// watchOS.
    #[serde(rename = "watchOS")]
    WatchOs,
}

impl Platform {
    /// Every platform.
    pub const ALL: [Self; 5] = [
        Self::Ios,
        Self::MacOs,
        Self::TvOs,
        Self::VisionOs,
        Self::WatchOs,
    ];

    /// The platform with Apple's name; iPadOS is iOS.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        match name {
            "iPadOS" => Some(Self::Ios),
            name => Self::ALL
                .into_iter()
                .find(|platform| platform.name() == name),
        }
    }

    /// Apple's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ios => "iOS",
            Self::MacOs => "macOS",
            Self::TvOs => "tvOS",
            Self::VisionOs => "visionOS",
            Self::WatchOs => "watchOS",
        }
    }
}

/// Which of a device's channels take a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Channels {
    /// The device channel.
    pub device: bool,
    /// The user channel.
    pub user: bool,
}

impl Channels {
    /// Neither channel.
    pub const NONE: Self = Self {
        device: false,
        user: false,
    };
    /// The device channel only.
    pub const DEVICE: Self = Self {
        device: true,
        user: false,
    };
    /// The user channel only.
    pub const USER: Self = Self {
        device: false,
        user: true,
    };
    /// Both channels.
    pub const BOTH: Self = Self {
        device: true,
        user: true,
    };
}

/// What holds for a command on a Shared iPad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SharedIpad {
    /// Not to be sent there, or not a command for iPads at all.
    Forbidden,
    /// Allowed there, on these channels.
    Allowed(Channels),
    /// Allowed nowhere else on iOS, on these channels.
    Only(Channels),
}

/// The worst a command does when it works as meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Danger {
    /// Nothing worth a warning.
    None,
    /// Wipes the device.
    Erases,
    /// Locks people out until someone acts.
    Locks,
    /// Takes a passcode or password away.
    ClearsPasscode,
    /// Restarts, shuts down or logs out; unsaved work is lost.
    Restarts,
    /// Removes something that can be put back.
    Deletes,
    /// Removes a person's account with their data.
    DeletesUser,
    /// Replaces or drops a secret; the old one is gone.
    ChangesSecret,
    /// Its result contains a secret.
    RevealsSecret,
}

impl Danger {
    /// Whether a mistake cannot be undone from the server; see [`Row::destructive`].
    pub fn destructive(self) -> bool {
        match self {
            Self::Erases
            | Self::Locks
            | Self::ClearsPasscode
            | Self::DeletesUser
            | Self::ChangesSecret => true,
            Self::None | Self::Restarts | Self::Deletes | Self::RevealsSecret => false,
        }
    }
}

/// The commands of [`Row::urgent`].
const URGENT: [&str; 6] = [
    "DeviceLocation",
    "DeviceLock",
    "DisableLostMode",
    "EnableLostMode",
    "EraseDevice",
    "PlayLostModeSound",
];
