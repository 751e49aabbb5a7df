//! The short hand in which `catalog.rs` writes its rows; nobody else uses it.
//!
//! Each function names one thing that is *not* the default. Defaults: no keys, macOS
//! device channel, forbidden on Shared iPad and in user enrollment, no supervision, no
//! rights, no danger.

use crate::access::AccessRights;

use super::row::{Channels, Danger, Item, Key, Kind, Platform, Row, SharedIpad, Support};

/// A row with every default.
pub(super) const fn row(request_type: &'static str) -> Row {
    Row {
        request_type,
        keys: &[],
        one_of: &[],
        platforms: &[],
        mac_channels: Channels::DEVICE,
        shared_ipad: SharedIpad::Forbidden,
        rights: AccessRights::NONE,
        danger: Danger::None,
    }
}

impl Row {
    pub(super) const fn keys(self, keys: &'static [Key]) -> Self {
        Self { keys, ..self }
    }

    pub(super) const fn one_of(self, one_of: &'static [&'static str]) -> Self {
        Self { one_of, ..self }
    }

    pub(super) const fn on(self, platforms: &'static [Support]) -> Self {
        Self { platforms, ..self }
    }

    pub(super) const fn mac_channels(self, mac_channels: Channels) -> Self {
        Self {
            mac_channels,
            ..self
        }
    }

    pub(super) const fn shared_ipad(self, channels: Channels) -> Self {
        Self {
            shared_ipad: SharedIpad::Allowed(channels),
            ..self
        }
    }

    pub(super) const fn only_shared_ipad(self, channels: Channels) -> Self {
        Self {
            shared_ipad: SharedIpad::Only(channels),
            ..self
        }
    }

    pub(super) const fn needs(self, rights: AccessRights) -> Self {
        Self { rights, ..self }
    }

    pub(super) const fn danger(self, danger: Danger) -> Self {
        Self { danger, ..self }
    }
}

pub(super) const fn ios(min_os: &'static str) -> Support {
    support(Platform::Ios, min_os)
}

pub(super) const fn mac(min_os: &'static str) -> Support {
    support(Platform::MacOs, min_os)
}

pub(super) const fn tv(min_os: &'static str) -> Support {
    support(Platform::TvOs, min_os)
}

pub(super) const fn vision(min_os: &'static str) -> Support {
    support(Platform::VisionOs, min_os)
}

pub(super) const fn watch(min_os: &'static str) -> Support {
    support(Platform::WatchOs, min_os)
}

const fn support(platform: Platform, min_os: &'static str) -> Support {
    Support {
        platform,
        min_os,
        removed_in: None,
        supervised: false,
        ade_only: false,
        user_enrollment: false,
        needs_rights: true,
    }
}

impl Support {
    /// Supervised devices only.
    pub(super) const fn sup(self) -> Self {
        Self {
            supervised: true,
            ..self
        }
    }

    /// Devices from Automated Device Enrollment only.
    pub(super) const fn ade(self) -> Self {
        Self {
            ade_only: true,
            ..self
        }
    }

    /// Also in user enrollment.
    pub(super) const fn ue(self) -> Self {
        Self {
            user_enrollment: true,
            ..self
        }
    }

    /// The row's rights are not needed on this platform.
    pub(super) const fn free(self) -> Self {
        Self {
            needs_rights: false,
            ..self
        }
    }

    /// No longer known from that OS version on.
    pub(super) const fn until(self, os: &'static str) -> Self {
        Self {
            removed_in: Some(os),
            ..self
        }
    }
}

/// A required key.
pub(super) const fn req(name: &'static str, kind: Kind) -> Key {
    Key {
        name,
        kind,
        required: true,
    }
}

/// An optional key.
pub(super) const fn opt(name: &'static str, kind: Kind) -> Key {
    Key {
        name,
        kind,
        required: false,
    }
}

/// A settings item.
pub(super) const fn item(name: &'static str, keys: &'static [Key]) -> Item {
    Item {
        name,
        keys,
        rights: AccessRights::NONE,
    }
}

impl Item {
    pub(super) const fn needs(self, rights: AccessRights) -> Self {
        Self { rights, ..self }
    }
}

pub(super) const STRING: Kind = Kind::String;
pub(super) const STRINGS: Kind = Kind::Array(&Kind::String);
pub(super) const BOOL: Kind = Kind::Boolean;
pub(super) const DATA: Kind = Kind::Data;
pub(super) const PIN: Kind = Kind::Digits(6);
pub(super) const INT: Kind = Kind::Integer {
    min: i64::MIN,
    max: i64::MAX,
};

/// An integer of at least `min`.
pub(super) const fn at_least(min: i64) -> Kind {
    Kind::Integer { min, max: i64::MAX }
}
