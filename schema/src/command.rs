//! A command: its CommandUUID, its RequestType and the exact bytes a device is given.
//!
//! Built from JSON against the catalog, or taken as a raw plist as it is. Called by
//! the doors that enqueue; what a command may do is read off it here, so that no
//! spelling slips past the guard rails.

use plist::{Dictionary, Value};
use serde_json::Map;

use crate::catalog::{self, FieldError};
use crate::ids::CommandUuid;
use crate::xml::{self, Unreadable};

/// A command ready to be queued.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    /// Its identity, any string the caller chose or a UUID of ours.
    pub uuid: CommandUuid,
    /// Its kind.
    pub request_type: String,
    /// The XML plist a device is given, byte by byte.
    pub raw: Vec<u8>,
    /// May wipe, lock out or lose a secret: needs its scope, a reason and the guard.
    pub destructive: bool,
    /// Goes before all others.
    pub urgent: bool,
}

impl Command {
    /// Builds a command from the JSON of the API.
    ///
    /// # Errors
    /// One [`FieldError`] per key at fault.
    pub fn from_json(
        uuid: CommandUuid,
        json: &Map<String, serde_json::Value>,
    ) -> Result<Self, Vec<FieldError>> {
        let built = catalog::build(json)?;
        let mut outer = Dictionary::new();
        outer.insert(
            "CommandUUID".into(),
            Value::String(uuid.as_str().to_owned()),
        );
        let (destructive, urgent) = danger(built.request_type, &built.command);
        outer.insert("Command".into(), Value::Dictionary(built.command));
        Ok(Self {
            uuid,
            request_type: built.request_type.to_string(),
            raw: xml::write(outer),
            destructive,
            urgent,
        })
    }

    /// Takes a raw plist as it is.
    ///
    /// # Errors
    /// [`BadCommand`] says what a command needs and this has not.
    pub fn from_plist(raw: Vec<u8>) -> Result<Self, BadCommand> {
        let outer = xml::parse(&raw)?;
        let uuid = outer
            .get("CommandUUID")
            .and_then(Value::as_string)
            .and_then(CommandUuid::parse)
            .ok_or(BadCommand::NoUuid)?;
        let command = inner(&outer).ok_or(BadCommand::NoCommand)?;
        let request_type = command
            .get("RequestType")
            .and_then(Value::as_string)
            .filter(|name| !name.is_empty() && name.len() <= 128)
            .ok_or(BadCommand::NoRequestType)?
            .to_owned();
        let (destructive, urgent) = danger(&request_type, command);
        Ok(Self {
            uuid,
            request_type,
            raw,
            destructive,
            urgent,
        })
    }
}

/// What a command's plist says besides its CommandUUID: its RequestType and keys.
#[must_use]
pub fn inner(outer: &Dictionary) -> Option<&Dictionary> {
    outer.get("Command").and_then(Value::as_dictionary)
}

/// Why a raw plist is no command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCommand {
    /// Not even a plist.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// Absent, not a string, or longer than 128 bytes.
    #[error("CommandUUID is missing or is not a string of 1 to 128 bytes")]
    NoUuid,
    /// Absent or not a dictionary.
    #[error("Command is missing or is not a dictionary")]
    NoCommand,
    /// Absent, not a string or empty.
    #[error("Command.RequestType is missing or is not a string")]
    NoRequestType,
}

/// Whether a command is of the destructive set, and whether it is urgent.
///
/// A RequestType the catalog knows only in another spelling counts like the one it
/// knows. Removing a profile we cannot tell from the MDM profile is for the writer's
/// guard to judge by its identifier; an identifier of ours counts as destructive.
fn danger(request_type: &str, command: &Dictionary) -> (bool, bool) {
    let row = catalog::find(request_type).or_else(|| {
        catalog::CATALOG
            .iter()
            .find(|row| row.request_type.eq_ignore_ascii_case(request_type.trim()))
    });
    let Some(row) = row else {
        return (false, false);
    };
    let removes_us = row.request_type == "RemoveProfile"
        && command
            .get("Identifier")
            .and_then(Value::as_string)
            .is_some_and(|identifier| identifier.starts_with(ENROLLMENT_PROFILE_PREFIX));
    (row.destructive() || removes_us, row.urgent())
}

/// Every enrollment profile we make has an identifier that begins so.
pub const ENROLLMENT_PROFILE_PREFIX: &str = "dev.reveille.enrollment";

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(request_type: &str) -> Vec<u8> {
        format!(
            "<plist version=\"1.0\"><dict><key>Command</key><dict><key>RequestType</key>\
             <string>{request_type}</string></dict><key>CommandUUID</key><string>c</string></dict></plist>"
        )
        .into_bytes()
    }

    #[test]
    fn a_raw_plist_is_kept_byte_by_byte() {
        let command = Command::from_plist(raw("ProfileList")).unwrap();
        assert_eq!(command.raw, raw("ProfileList"));
        assert!(!command.destructive);
    }

    #[test]
    fn a_dangerous_command_is_told_whatever_its_spelling() {
        for spelling in ["EraseDevice", "erasedevice", " EraseDevice "] {
            let command = Command::from_plist(raw(spelling)).unwrap();
            assert!(command.destructive && command.urgent, "{spelling}");
        }
    }

    #[test]
    fn json_and_plist_make_the_same_command() {
        let uuid = CommandUuid::parse("u").unwrap();
        let json =
            serde_json::json!({"request_type": "DeviceInformation", "queries": ["OSVersion"]});
        let built = Command::from_json(uuid, json.as_object().unwrap()).unwrap();
        let taken = Command::from_plist(built.raw.clone()).unwrap();
        assert_eq!(built, taken);
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(
            Command::from_plist(b"<plist><dict/></plist>".to_vec()).unwrap_err(),
            BadCommand::NoUuid
        );
        assert_eq!(
            Command::from_plist(raw("")).unwrap_err(),
            BadCommand::NoRequestType
        );
    }
}
