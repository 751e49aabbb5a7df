//! Reports: what a device says on the command channel.
//!
//! Read from the head of the body alone; the body itself is kept as it came and
//! parsed only where a value in it is needed.
//! Source: Apple, Device Management, "Sending MDM Commands to a Device".

use plist::Value;
use serde::{Deserialize, Serialize};

use crate::checkin::{Misread, Sender};
use crate::ids::CommandUuid;
use crate::xml::{self, Scan};

/// One PUT on the command channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The channel that speaks.
    pub sender: Sender,
    /// What it reports.
    pub status: Status,
    /// Which command it reports on; absent on Idle.
    pub uuid: Option<CommandUuid>,
}

/// The `Status` of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Status {
    /// Polling; nothing to report.
    Idle,
    /// Done.
    Acknowledged,
    /// Failed; an ErrorChain says why.
    Error,
    /// The command was malformed or not understood.
    CommandFormatError,
    /// The device cannot now; the command stays queued.
    NotNow,
    /// The report could not be read; the command is closed and the bytes kept.
    Unreadable,
}

impl Status {
    /// Apple's word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "Idle",
            Self::Acknowledged => "Acknowledged",
            Self::Error => "Error",
            Self::CommandFormatError => "CommandFormatError",
            Self::NotNow => "NotNow",
            Self::Unreadable => "Unreadable",
        }
    }
}

/// Reads the head of a report.
///
/// # Errors
/// [`Misread`] when the body cannot be read or names no sender.
pub fn parse(body: &[u8]) -> Result<Report, Misread> {
    let scan = Scan::new(body)?;
    let sender = Sender::of(&scan)?;
    let status = scan.text("Status").ok_or(Misread::Missing("Status"))?;
    let uuid = scan.text("CommandUUID").and_then(CommandUuid::parse);
    let status = match status {
        "Idle" => Status::Idle,
        "Acknowledged" => Status::Acknowledged,
        "Error" => Status::Error,
        "CommandFormatError" => Status::CommandFormatError,
        "NotNow" => Status::NotNow,
        // A later OS may add one; its report must not block the channel.
        _ => Status::Unreadable,
    };
    if status != Status::Idle && uuid.is_none() {
        return Err(Misread::Missing("CommandUUID"));
    }
    Ok(Report {
        sender,
        status,
        uuid,
    })
}

/// Picks the CommandUUID out of a body the guard refuses, so that an unreadable report
/// can still close its command. Looks for a `key` and a `string` standing side by side.
#[must_use]
pub fn head_of_unreadable(body: &[u8]) -> Option<CommandUuid> {
    const KEY: &[u8] = b"<key>CommandUUID</key>";
    let at = memchr::memmem::find(body, KEY)?;
    let behind = body.get(at + KEY.len()..)?.trim_ascii_start();
    let value = behind.strip_prefix(b"<string>")?;
    let length = memchr::memmem::find(value.get(..value.len().min(512))?, b"</string>")?;
    CommandUuid::parse(std::str::from_utf8(value.get(..length)?).ok()?)
}

/// One item of an `ErrorChain`, the first being the top error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorItem {
    /// `ErrorCode`. Informational and unstable.
    pub code: i64,
    /// `ErrorDomain`.
    pub domain: String,
    /// `USEnglishDescription`, else `LocalizedDescription`.
    pub description: String,
}

/// Reads the `ErrorChain` of a report's body; empty when there is none.
#[must_use]
pub fn error_chain(body: &[u8]) -> Vec<ErrorItem> {
    let Ok(dictionary) = xml::parse(body) else {
        return Vec::new();
    };
    let chain = dictionary.get("ErrorChain").and_then(Value::as_array);
    chain
        .into_iter()
        .flatten()
        .filter_map(Value::as_dictionary)
        .take(MOST_ERRORS)
        .map(|item| {
            let text = |key| {
                let text = item.get(key).and_then(Value::as_string)?;
                Some(text.chars().take(ERROR_TEXT).collect::<String>())
            };
            ErrorItem {
                code: item
                    .get("ErrorCode")
                    .and_then(Value::as_signed_integer)
                    .unwrap_or(0),
                domain: text("ErrorDomain").unwrap_or_default(),
                description: text("USEnglishDescription")
                    .or_else(|| text("LocalizedDescription"))
                    .unwrap_or_default(),
            }
        })
        .collect()
}

/// Items of an ErrorChain that are read; the whole stays in the body.
const MOST_ERRORS: usize = 8;
/// Characters of a text in one.
const ERROR_TEXT: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    fn body(inside: &str) -> Vec<u8> {
        format!("<plist version=\"1.0\"><dict>{inside}</dict></plist>").into_bytes()
    }

    #[test]
    fn a_report_is_read_from_its_head() {
        let whole = body(
            "<key>Status</key><string>Acknowledged</string><key>UDID</key><string>D</string>\
             <key>CommandUUID</key><string>free form, not a UUID</string>",
        );
        let report = parse(&whole).unwrap();
        assert_eq!(report.status, Status::Acknowledged);
        assert_eq!(report.uuid.unwrap().as_str(), "free form, not a UUID");
    }

    #[test]
    fn a_status_of_a_later_os_is_kept_as_unreadable() {
        let whole = body(
            "<key>Status</key><string>Maybe</string><key>UDID</key><string>D</string>\
             <key>CommandUUID</key><string>c</string>",
        );
        assert_eq!(parse(&whole).unwrap().status, Status::Unreadable);
    }

    #[test]
    fn a_report_without_its_uuid_is_refused_but_an_idle_needs_none() {
        let whole = |status| {
            body(&format!(
                "<key>Status</key><string>{status}</string><key>UDID</key><string>D</string>"
            ))
        };
        assert_eq!(
            parse(&whole("Error")).unwrap_err(),
            Misread::Missing("CommandUUID")
        );
        assert_eq!(parse(&whole("Idle")).unwrap().status, Status::Idle);
    }

    #[test]
    fn the_uuid_of_an_unreadable_report_is_still_found() {
        let broken =
            b"<plist><dict><key>CommandUUID</key>\n\t<string>c-1</string><key>x</key><data>\xff";
        assert_eq!(head_of_unreadable(broken).unwrap().as_str(), "c-1");
        assert_eq!(head_of_unreadable(b"<plist>"), None);
    }

    #[test]
    fn the_error_chain_is_read_top_first() {
        let whole = body(
            "<key>ErrorChain</key><array><dict><key>ErrorCode</key><integer>12021</integer>\
             <key>ErrorDomain</key><string>MCMDMErrorDomain</string><key>LocalizedDescription</key>\
             <string>nein</string><key>USEnglishDescription</key><string>no</string></dict></array>",
        );
        let chain = error_chain(&whole);
        assert_eq!(
            (chain[0].code, chain[0].domain.as_str()),
            (12021, "MCMDMErrorDomain")
        );
        assert_eq!(chain[0].description, "no");
    }
}
