//! The two sides of a command: what the server hands out, and how a device
//! comes out of it. Apple: "Sending MDM commands to a device".

use std::io::Cursor;

use plist::{Dictionary, Value};

use crate::error::SimError;

/// A command as handed out.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    /// CommandUUID.
    pub uuid: String,
    /// RequestType.
    pub request_type: String,
    /// The whole `Command` dictionary.
    pub keys: Dictionary,
}

impl Command {
    /// Reads the body of a 200; `None` when it is empty: nothing is queued.
    pub fn parse(body: &[u8]) -> Result<Option<Self>, SimError> {
        if body.is_empty() {
            return Ok(None);
        }
        let mut top = Value::from_reader_xml(Cursor::new(body))?
            .into_dictionary()
            .ok_or(SimError::NotACommand("not a dictionary"))?;
        let uuid = top
            .remove("CommandUUID")
            .and_then(Value::into_string)
            .ok_or(SimError::NotACommand("no CommandUUID"))?;
        let keys = top
            .remove("Command")
            .and_then(Value::into_dictionary)
            .ok_or(SimError::NotACommand("no Command"))?;
        let request_type = keys
            .get("RequestType")
            .and_then(Value::as_string)
            .ok_or(SimError::NotACommand("no RequestType"))?
            .to_owned();
        Ok(Some(Self {
            uuid,
            request_type,
            keys,
        }))
    }
}

/// How a command came out on the device.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Done, with the keys of the answer.
    Acknowledged(Dictionary),
    /// Failed.
    Error(Vec<ErrorItem>),
    /// The device cannot read the command.
    CommandFormatError(Vec<ErrorItem>),
    /// Not now; the command stays the server's.
    NotNow,
}

impl Outcome {
    /// The `Status` it is reported with.
    pub fn status(&self) -> Status {
        match self {
            Self::Acknowledged(_) => Status::Acknowledged,
            Self::Error(_) => Status::Error,
            Self::CommandFormatError(_) => Status::CommandFormatError,
            Self::NotNow => Status::NotNow,
        }
    }

    /// The error of a device that does not know the RequestType.
    pub fn unknown_request_type(request_type: &str) -> Self {
        Self::Error(vec![ErrorItem {
            code: 12021,
            domain: "MCMDMErrorDomain".to_owned(),
            description: format!("“{request_type}” is not a valid request type."),
        }])
    }
}

/// The `Status` of a report, Idle apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Done.
    Acknowledged,
    /// Failed.
    Error,
    /// Unreadable.
    CommandFormatError,
    /// Postponed.
    NotNow,
}

impl Status {
    /// As on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Acknowledged => "Acknowledged",
            Self::Error => "Error",
            Self::CommandFormatError => "CommandFormatError",
            Self::NotNow => "NotNow",
        }
    }

    /// Whether the command is closed by it.
    pub fn is_final(self) -> bool {
        self != Self::NotNow
    }
}

/// One item of an ErrorChain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorItem {
    /// ErrorCode.
    pub code: i64,
    /// ErrorDomain.
    pub domain: String,
    /// LocalizedDescription and USEnglishDescription.
    pub description: String,
}
