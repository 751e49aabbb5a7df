//! A simulated device: who it is, what it is, how it is woken. Immutable while
//! it talks; what it says is in `messages`, what it does in `session`.

use uuid::Uuid;

use crate::ca::DeviceCa;
use crate::dice::Dice;
use crate::error::SimError;
use crate::identity::Identity;

/// One device. Fields are public so that a test can bend them.
#[derive(Clone, Debug)]
pub struct Device {
    /// What it is.
    pub kind: Kind,
    /// Its UDID, in the form its kind has.
    pub udid: String,
    /// Serial number.
    pub serial: String,
    /// The name its owner gave it.
    pub name: String,
    /// For example `18.3`.
    pub os_version: String,
    /// For example `22D60`.
    pub build: String,
    /// The APNs topic of the enrollment profile.
    pub topic: String,
    /// How the device channel is woken.
    pub push: PushAddress,
    /// Sent with TokenUpdate when present (iOS).
    pub unlock_token: Option<Vec<u8>>,
    /// Whether it waits in Setup Assistant.
    pub awaiting_configuration: bool,
    /// A person's own (User Enrollment): `udid` is its EnrollmentID then.
    pub personal: bool,
    /// What it says of itself when it is asked.
    pub supervised: bool,
    /// It came through Automated Device Enrollment.
    pub automated: bool,
    /// The user whose channel is enrolled too: of a Mac, or who is logged in to an iPad
    /// that is shared.
    pub user: Option<User>,
    /// Its identity certificate.
    pub identity: Identity,
}

/// A user with a user channel.
#[derive(Clone, Debug)]
pub struct User {
    /// GUID; the one of everybody on a Shared iPad.
    pub user_id: String,
    /// Login name.
    pub short_name: String,
    /// Full name.
    pub long_name: String,
    /// How the user channel is woken.
    pub push: PushAddress,
}

/// A push token with its PushMagic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushAddress {
    /// 32 bytes.
    pub token: Vec<u8>,
    /// A UUID.
    pub magic: String,
}

/// Which of a device's two enrollments speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Channel {
    /// The device channel.
    Device,
    /// The user channel.
    User,
}

/// A kind of device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// An iPhone.
    #[default]
    IPhone,
    /// An iPad.
    IPad,
    /// A Mac.
    Mac,
    /// An Apple TV.
    AppleTv,
    /// An Apple Vision Pro.
    Vision,
    /// An Apple Watch.
    Watch,
}

impl Device {
    /// A random iPhone with an identity of `ca`.
    pub fn new(ca: &DeviceCa, topic: &str) -> Result<Self, SimError> {
        let (seed, _) = Uuid::new_v4().as_u64_pair();
        Self::seeded(ca, topic, Kind::IPhone, &mut Dice::new(seed))
    }

    /// A device whose ids come from `dice`; only its certificate is random.
    pub fn seeded(
        ca: &DeviceCa,
        topic: &str,
        kind: Kind,
        dice: &mut Dice,
    ) -> Result<Self, SimError> {
        let udid = kind.udid(dice);
        let identity = ca.issue(&udid)?;
        Ok(Self::of(udid, identity, topic, kind, dice))
    }

    /// A device with an identity it got elsewhere; its ids come from `dice`.
    pub fn holding(identity: Identity, topic: &str, kind: Kind, dice: &mut Dice) -> Self {
        let udid = kind.udid(dice);
        Self::of(udid, identity, topic, kind, dice)
    }

    fn of(udid: String, identity: Identity, topic: &str, kind: Kind, dice: &mut Dice) -> Self {
        let serial = format!("S{:011X}", dice.draw() >> 20);
        let (os_version, build) = kind.system();
        Self {
            identity,
            name: format!("{} {}", kind.model_name(), &serial[8..]),
            os_version: os_version.to_owned(),
            build: build.to_owned(),
            topic: topic.to_owned(),
            push: PushAddress::random(dice),
            unlock_token: (kind != Kind::Mac && kind != Kind::AppleTv)
                .then(|| dice.bytes::<1500>().to_vec()),
            awaiting_configuration: false,
            personal: false,
            supervised: true,
            automated: false,
            user: None,
            kind,
            udid,
            serial,
        }
    }

    /// The same device with a user whose channel enrolls too.
    pub fn with_user(mut self, dice: &mut Dice) -> Self {
        self.user = Some(User {
            user_id: match self.kind {
                Kind::IPad => SHARED_IPAD_USER.to_owned(),
                _ => dice.uuid(),
            },
            short_name: match self.kind {
                Kind::IPad => "simone@example.org".to_owned(),
                _ => "simone".to_owned(),
            },
            long_name: "Simone Sim".to_owned(),
            push: PushAddress::random(dice),
        });
        if self.is_shared_ipad() {
            self.unlock_token = None;
        }
        self
    }

    /// The same device as a person's own, in User Enrollment: without UDID and serial
    /// number, under an id made for this enrollment.
    pub fn of_a_person(mut self, dice: &mut Dice) -> Self {
        self.personal = true;
        self.supervised = false;
        self.udid = dice.uuid();
        self.unlock_token = None;
        self
    }

    /// An iPad with users.
    pub fn is_shared_ipad(&self) -> bool {
        self.kind == Kind::IPad && self.user.is_some()
    }

    /// The channels it enrolls.
    pub fn channels(&self) -> &'static [Channel] {
        match self.user {
            Some(_) => &[Channel::Device, Channel::User],
            None => &[Channel::Device],
        }
    }

    /// How a channel is woken; `None` for the user channel of nobody.
    pub fn push_of(&self, channel: Channel) -> Option<&PushAddress> {
        match channel {
            Channel::Device => Some(&self.push),
            Channel::User => self.user.as_ref().map(|user| &user.push),
        }
    }

    /// The id a server knows a channel by: the UDID or EnrollmentID, of a user with the
    /// UserID behind it, on a Shared iPad with the short name.
    pub fn enroll_id(&self, channel: Channel) -> String {
        match (&self.user, channel) {
            (Some(user), Channel::User) if self.is_shared_ipad() => {
                format!("{}:{}", self.udid, user.short_name)
            }
            (Some(user), Channel::User) => format!("{}:{}", self.udid, user.user_id),
            _ => self.udid.clone(),
        }
    }
}

impl PushAddress {
    /// A fresh one.
    pub fn random(dice: &mut Dice) -> Self {
        Self {
            token: dice.bytes::<32>().to_vec(),
            magic: dice.uuid(),
        }
    }

    /// The token as APNs' path has it.
    pub fn token_hex(&self) -> String {
        self.token
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

impl Kind {
    /// For example `iPhone`.
    pub fn model_name(self) -> &'static str {
        match self {
            Self::IPhone => "iPhone",
            Self::IPad => "iPad",
            Self::Mac => "MacBook Pro",
            Self::AppleTv => "Apple TV",
            Self::Vision => "Apple Vision Pro",
            Self::Watch => "Apple Watch",
        }
    }

    /// For example `iPhone16,1`.
    pub fn product_name(self) -> &'static str {
        match self {
            Self::IPhone => "iPhone16,1",
            Self::IPad => "iPad14,8",
            Self::Mac => "Mac15,6",
            Self::AppleTv => "AppleTV14,1",
            Self::Vision => "RealityDevice14,1",
            Self::Watch => "Watch7,1",
        }
    }

    fn system(self) -> (&'static str, &'static str) {
        match self {
            Self::IPhone | Self::IPad => ("18.3", "22D60"),
            Self::Mac => ("15.3", "24D60"),
            Self::AppleTv => ("18.3", "22K557"),
            Self::Vision => ("2.3", "22N895"),
            Self::Watch => ("11.3", "22S560"),
        }
    }

    fn udid(self, dice: &mut Dice) -> String {
        match self {
            Self::Mac => dice.uuid(),
            _ => format!("00008130-{:016X}", dice.draw()),
        }
    }
}

/// The UserID of everybody on a Shared iPad.
const SHARED_IPAD_USER: &str = "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_device() {
        let ca = DeviceCa::quick().unwrap();
        let make = |seed| Device::seeded(&ca, "t", Kind::Mac, &mut Dice::new(seed)).unwrap();
        let (one, same, other) = (make(1), make(1), make(2));
        assert_eq!((&one.udid, &one.push), (&same.udid, &same.push));
        assert_ne!(one.udid, other.udid);
        assert_ne!(one.identity.leaf_hash(), same.identity.leaf_hash());
    }
}
