//! Check-in messages: one variant per `MessageType`, read from a PUT body.
//!
//! Called by the check-in door. Also says who is talking ([`Sender`]), the same
//! rule for check-ins and reports. Unknown keys are ignored; an unknown
//! `MessageType` is an error the door answers with 400.
//! Source: Apple, Device Management, "Check-in" and its YAML schema.

use plist::{Dictionary, Value};
use serde::{Deserialize, Serialize};

use crate::ids::{BadId, ChannelKind, EnrollId, PushMagic, PushToken, Topic};
use crate::xml::{self, Scan, Unreadable};

/// A check-in: who sent it and what it says.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckIn {
    /// The channel it came from. Authenticate and CheckOut always concern the device channel.
    pub sender: Sender,
    /// What it says.
    pub message: Message,
}

/// The content of a check-in by its `MessageType`.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// The profile is being installed; nothing is managed yet.
    Authenticate {
        /// The push topic the profile carried.
        topic: Topic,
        /// What the device says of itself.
        facts: Facts,
    },
    /// Push token and PushMagic, new or changed.
    TokenUpdate {
        /// How to wake this channel.
        push: Push,
        /// Lets `ClearPasscode` work; absence does not invalidate a stored one.
        unlock_token: Option<Vec<u8>>,
        /// The device waits in Setup Assistant for `DeviceConfigured`.
        awaiting_configuration: bool,
        /// Names of the user, on a user channel.
        user: UserNames,
    },
    /// The profile was removed.
    CheckOut,
    /// A directory user logs in on a Mac; the second leg carries a digest.
    UserAuthenticate {
        /// The digest of the second leg.
        digest_response: Option<String>,
    },
    /// Stores the bootstrap token; none or an empty one clears it.
    SetBootstrapToken {
        /// Opaque bytes.
        token: Option<Vec<u8>>,
    },
    /// Asks for the stored bootstrap token.
    GetBootstrapToken,
    /// Asks for a token of a service Apple runs.
    GetToken {
        /// `com.apple.maid` or `com.apple.watch.pairing`.
        service_type: String,
    },
    /// Declarative management rides on check-ins.
    DeclarativeManagement {
        /// `tokens`, `declaration-items`, `status` or `declaration/<kind>/<identifier>`.
        endpoint: String,
        /// JSON, only with `status`.
        data: Option<Vec<u8>>,
    },
    /// Asks whether and how to enroll again after an erase.
    ReturnToService,
}

impl Message {
    /// Apple's name of the message.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Authenticate { .. } => "Authenticate",
            Self::TokenUpdate { .. } => "TokenUpdate",
            Self::CheckOut => "CheckOut",
            Self::UserAuthenticate { .. } => "UserAuthenticate",
            Self::SetBootstrapToken { .. } => "SetBootstrapToken",
            Self::GetBootstrapToken => "GetBootstrapToken",
            Self::GetToken { .. } => "GetToken",
            Self::DeclarativeManagement { .. } => "DeclarativeManagement",
            Self::ReturnToService => "ReturnToService",
        }
    }
}

/// Topic, push token and PushMagic: one without the others does not exist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Push {
    /// As the channel reported it.
    pub topic: Topic,
    /// Opaque, usually 32 bytes.
    pub token: PushToken,
    /// Goes into the push's body.
    pub magic: PushMagic,
}

/// What a device says of itself in Authenticate. Absent is an empty string.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// `SerialNumber`.
    pub serial_number: String,
    /// `DeviceName`.
    pub name: String,
    /// `ProductName`, such as `iPad4,1`, else `Model`.
    pub model: String,
    /// `OSVersion`.
    pub os_version: String,
    /// `BuildVersion`.
    pub build_version: String,
}

impl Facts {
    /// The platform by Apple's product name, `""` when it cannot be told.
    #[must_use]
    pub fn platform(&self) -> &'static str {
        let model = self.model.as_str();
        [
            ("iPhone", "iOS"),
            ("iPod", "iOS"),
            ("iPad", "iPadOS"),
            ("AppleTV", "tvOS"),
            ("Watch", "watchOS"),
            ("RealityDevice", "visionOS"),
            ("Mac", "macOS"),
            ("iMac", "macOS"),
            ("VirtualMac", "macOS"),
            ("Xserve", "macOS"),
        ]
        .into_iter()
        .find(|(prefix, _)| model.starts_with(prefix))
        .map_or("", |(_, platform)| platform)
    }
}

/// The names a user channel sends along.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserNames {
    /// `UserShortName`.
    pub short_name: String,
    /// `UserLongName`.
    pub long_name: String,
}

/// Who is talking: the device's id and, on a user channel, the channel's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The id of the device channel.
    pub device: EnrollId,
    /// The id of the channel that speaks.
    pub channel: EnrollId,
    /// Its kind.
    pub kind: ChannelKind,
}

impl Sender {
    /// Tells the sender from the id keys of a body (protocol.md 1.1).
    ///
    /// # Errors
    /// [`Misread`] when no id key is there, both are, or one breaks the grammar.
    pub fn of(scan: &Scan<'_>) -> Result<Self, Misread> {
        let text = |key: &'static str| match scan.get(key) {
            None => Ok(None),
            Some(_) => scan.text(key).map(Some).ok_or(Misread::WrongType {
                key,
                expected: "string",
            }),
        };
        let bad = |key: &'static str| move |why| Misread::BadId { key, why };
        match (text("UDID")?, text("EnrollmentID")?) {
            (Some(udid), None) => {
                let device = EnrollId::device(udid).map_err(bad("UDID"))?;
                let user_id = text("UserID")?.filter(|id| !id.is_empty());
                let (channel, kind) = match user_id {
                    None => (device.clone(), ChannelKind::Device),
                    Some(SHARED_IPAD_USER) => {
                        let name =
                            text("UserShortName")?.ok_or(Misread::Missing("UserShortName"))?;
                        let id = EnrollId::user(udid, name).map_err(bad("UserShortName"))?;
                        (id, ChannelKind::SharedIpad)
                    }
                    Some(user) => {
                        let id = EnrollId::user(udid, user).map_err(bad("UserID"))?;
                        (id, ChannelKind::User)
                    }
                };
                Ok(Self {
                    device,
                    channel,
                    kind,
                })
            }
            (None, Some(enrollment)) => {
                let device = EnrollId::device(enrollment).map_err(bad("EnrollmentID"))?;
                let (channel, kind) = match text("EnrollmentUserID")?.filter(|id| !id.is_empty()) {
                    None => (device.clone(), ChannelKind::UserEnrollmentDevice),
                    Some(user) => {
                        let id =
                            EnrollId::user(enrollment, user).map_err(bad("EnrollmentUserID"))?;
                        (id, ChannelKind::UserEnrollment)
                    }
                };
                Ok(Self {
                    device,
                    channel,
                    kind,
                })
            }
            (None, None) => Err(Misread::Missing("UDID")),
            (Some(_), Some(_)) => Err(Misread::BothIds),
        }
    }

    /// The device channel this sender belongs to, as a sender.
    #[must_use]
    pub fn as_device(&self) -> Self {
        let kind = match self.kind {
            ChannelKind::UserEnrollmentDevice | ChannelKind::UserEnrollment => {
                ChannelKind::UserEnrollmentDevice
            }
            _ => ChannelKind::Device,
        };
        Self {
            device: self.device.clone(),
            channel: self.device.clone(),
            kind,
        }
    }
}

/// The constant `UserID` all Shared iPad users share.
const SHARED_IPAD_USER: &str = "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF";

/// Reads a check-in.
///
/// # Errors
/// [`Misread`] names the key at fault.
pub fn parse(body: &[u8]) -> Result<CheckIn, Misread> {
    let scan = Scan::new(body)?;
    let message_type = scan
        .text("MessageType")
        .ok_or(Misread::Missing("MessageType"))?;
    let sender = Sender::of(&scan)?;
    let dictionary = xml::parse(body)?;
    let fields = Fields(&dictionary);
    let message = match message_type {
        "Authenticate" => Message::Authenticate {
            topic: fields.topic()?,
            facts: fields.facts()?,
        },
        "TokenUpdate" => Message::TokenUpdate {
            push: fields.push()?,
            unlock_token: fields.data("UnlockToken")?,
            awaiting_configuration: fields.boolean("AwaitingConfiguration")?,
            user: UserNames {
                short_name: fields.text("UserShortName")?.unwrap_or_default(),
                long_name: fields.text("UserLongName")?.unwrap_or_default(),
            },
        },
        "CheckOut" => Message::CheckOut,
        "UserAuthenticate" => Message::UserAuthenticate {
            digest_response: fields.text("DigestResponse")?,
        },
        "SetBootstrapToken" => Message::SetBootstrapToken {
            token: fields
                .data("BootstrapToken")?
                .filter(|token| !token.is_empty()),
        },
        "GetBootstrapToken" => Message::GetBootstrapToken,
        "GetToken" => Message::GetToken {
            service_type: fields.required("TokenServiceType")?,
        },
        "DeclarativeManagement" => Message::DeclarativeManagement {
            endpoint: fields.required("Endpoint")?,
            data: fields.data("Data")?,
        },
        "ReturnToService" => Message::ReturnToService,
        other => {
            return Err(Misread::UnknownMessageType(
                other.chars().take(64).collect(),
            ));
        }
    };
    let sender = match message {
        // Old macOS sends user keys even here.
        Message::Authenticate { .. } | Message::CheckOut => sender.as_device(),
        _ => sender,
    };
    Ok(CheckIn { sender, message })
}

/// Why a body is not a message we read; names the key, never its value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misread {
    /// Not even a plist.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// A required key is absent.
    #[error("the key {0} is missing")]
    Missing(&'static str),
    /// A key with a value of another type.
    #[error("the key {key} is not a {expected}")]
    WrongType {
        /// The key.
        key: &'static str,
        /// The type it must have.
        expected: &'static str,
    },
    /// An id outside the grammar.
    #[error("the key {key}: {why}")]
    BadId {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        why: BadId,
    },
    /// UDID and EnrollmentID exclude each other.
    #[error("both UDID and EnrollmentID are there")]
    BothIds,
    /// A later OS adds types without notice.
    #[error("unknown MessageType {0:?}")]
    UnknownMessageType(String),
}

/// Typed access to the keys of a body.
struct Fields<'a>(&'a Dictionary);

impl Fields<'_> {
    fn text(&self, key: &'static str) -> Result<Option<String>, Misread> {
        self.typed(key, "string", |value| value.as_string().map(str::to_owned))
    }

    fn required(&self, key: &'static str) -> Result<String, Misread> {
        self.text(key)?.ok_or(Misread::Missing(key))
    }

    fn data(&self, key: &'static str) -> Result<Option<Vec<u8>>, Misread> {
        self.typed(key, "data", |value| value.as_data().map(<[u8]>::to_vec))
    }

    fn boolean(&self, key: &'static str) -> Result<bool, Misread> {
        Ok(self
            .typed(key, "boolean", Value::as_boolean)?
            .unwrap_or(false))
    }

    fn typed<T>(
        &self,
        key: &'static str,
        expected: &'static str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, Misread> {
        match self.0.get(key) {
            None => Ok(None),
            Some(value) => read(value)
                .map(Some)
                .ok_or(Misread::WrongType { key, expected }),
        }
    }

    fn topic(&self) -> Result<Topic, Misread> {
        let topic = self.required("Topic")?;
        if topic.is_empty() {
            return Err(Misread::Missing("Topic"));
        }
        Ok(Topic(topic))
    }

    fn push(&self) -> Result<Push, Misread> {
        let token = self.data("Token")?.filter(|token| !token.is_empty());
        Ok(Push {
            topic: self.topic()?,
            token: PushToken(token.ok_or(Misread::Missing("Token"))?),
            magic: PushMagic(self.required("PushMagic")?),
        })
    }

    fn facts(&self) -> Result<Facts, Misread> {
        let or_empty = |key| Ok::<_, Misread>(self.text(key)?.unwrap_or_default());
        Ok(Facts {
            serial_number: or_empty("SerialNumber")?,
            name: or_empty("DeviceName")?,
            model: match self.text("ProductName")? {
                Some(product) => product,
                None => or_empty("Model")?,
            },
            os_version: or_empty("OSVersion")?,
            build_version: or_empty("BuildVersion")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(inside: &str) -> Vec<u8> {
        format!("<plist version=\"1.0\"><dict>{inside}</dict></plist>").into_bytes()
    }

    fn text(key: &str, value: &str) -> String {
        format!("<key>{key}</key><string>{value}</string>")
    }

    #[test]
    fn a_token_update_carries_its_push_as_one() {
        let whole = text("MessageType", "TokenUpdate")
            + &text("UDID", "A-1")
            + &text("Topic", "com.apple.mgmt.x")
            + &text("PushMagic", "M")
            + "<key>Token</key><data>AQID</data><key>Unknown</key><array/>";
        let checkin = parse(&body(&whole)).unwrap();
        assert_eq!(checkin.sender.channel.as_str(), "A-1");
        match checkin.message {
            Message::TokenUpdate {
                push,
                awaiting_configuration,
                ..
            } => {
                assert_eq!(push.token.0, [1, 2, 3]);
                assert!(!awaiting_configuration);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_missing_or_mistyped_key_is_named() {
        let start = text("MessageType", "TokenUpdate") + &text("UDID", "A");
        let cases = [
            (text("UDID", "A"), Misread::Missing("MessageType")),
            (text("MessageType", "CheckOut"), Misread::Missing("UDID")),
            (start.clone(), Misread::Missing("Topic")),
            (
                start.clone() + &text("Topic", "t") + &text("Token", "x"),
                Misread::WrongType {
                    key: "Token",
                    expected: "data",
                },
            ),
            (
                start + &text("Topic", "t") + "<key>Token</key><data>AQID</data>",
                Misread::Missing("PushMagic"),
            ),
            (
                text("MessageType", "CheckOut") + &text("UDID", "a b"),
                Misread::BadId {
                    key: "UDID",
                    why: BadId::Character,
                },
            ),
            (
                text("MessageType", "CheckOut") + &text("UDID", "a") + &text("EnrollmentID", "b"),
                Misread::BothIds,
            ),
            (
                text("MessageType", "Later") + &text("UDID", "a"),
                Misread::UnknownMessageType("Later".into()),
            ),
        ];
        for (inside, expected) in cases {
            assert_eq!(parse(&body(&inside)).unwrap_err(), expected);
        }
    }

    #[test]
    fn each_kind_of_channel_has_its_id() {
        let idle = |keys: &[(&str, &str)]| {
            let inside: String = keys.iter().map(|(k, v)| text(k, v)).collect();
            let body = body(&inside);
            let sender = Sender::of(&Scan::new(&body).unwrap()).unwrap();
            (sender.channel.to_string(), sender.kind)
        };
        assert_eq!(idle(&[("UDID", "D")]), ("D".into(), ChannelKind::Device));
        assert_eq!(
            idle(&[("UDID", "D"), ("UserID", "U")]),
            ("D:U".into(), ChannelKind::User)
        );
        assert_eq!(
            idle(&[
                ("UDID", "D"),
                ("UserID", SHARED_IPAD_USER),
                ("UserShortName", "a@b")
            ]),
            ("D:a@b".into(), ChannelKind::SharedIpad)
        );
        assert_eq!(
            idle(&[("EnrollmentID", "E")]),
            ("E".into(), ChannelKind::UserEnrollmentDevice)
        );
        assert_eq!(
            idle(&[("EnrollmentID", "E"), ("EnrollmentUserID", "U")]),
            ("E:U".into(), ChannelKind::UserEnrollment)
        );
    }
}
