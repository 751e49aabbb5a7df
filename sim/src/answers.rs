//! What a well-behaved device answers to each command it knows: plausible
//! values, the right keys. Shapes: Apple's device-management schema.

mod information;
mod inventory;

use plist::{Dictionary, Value};

use crate::command::{Command, ErrorItem, Outcome};
use crate::device::{Device, Kind};

/// The outcome of `command` on `device`; lists grow towards `size` bytes.
pub fn answer(device: &Device, command: &Command, size: usize) -> Outcome {
    let keys = match command.request_type.as_str() {
        "DeviceInformation" => dict([(
            "QueryResponses",
            information::responses(device, &command.keys).into(),
        )]),
        "SecurityInfo" => dict([("SecurityInfo", information::security(device).into())]),
        "InstalledApplicationList" => dict([(
            "InstalledApplicationList",
            inventory::applications(size).into(),
        )]),
        "ManagedApplicationList" => dict([(
            "ManagedApplicationList",
            inventory::managed_applications().into(),
        )]),
        "ProfileList" => dict([("ProfileList", inventory::profiles(device).into())]),
        "CertificateList" => dict([("CertificateList", inventory::certificates(device).into())]),
        "UserList" => dict([("Users", inventory::users(device).into())]),
        "AvailableOSUpdates" => dict([("AvailableOSUpdates", inventory::updates().into())]),
        "Restrictions" => dict([
            ("GlobalRestrictions", inventory::restrictions().into()),
            ("ProfileRestrictions", Dictionary::new().into()),
        ]),
        "Settings" => dict([("Settings", settings(&command.keys).into())]),
        "InstallApplication" => match install_application(&command.keys) {
            Ok(keys) => keys,
            Err(refused) => return refused,
        },
        "DeviceLock" => dict([("MessageResult", "Success".into())]),
        "ClearPasscode" if device.kind == Kind::Mac => {
            return Outcome::unknown_request_type(&command.request_type);
        }
        "InstallProfile" if !has_data(&command.keys, "Payload") => {
            return invalid("InstallProfile without Payload");
        }
        "RemoveProfile" if !command.keys.contains_key("Identifier") => {
            return invalid("RemoveProfile without Identifier");
        }
        "DeviceLocation" => location(),
        "LOMSetupRequest" => dict([
            (
                "PrimaryIPv6AddressList",
                Value::Array(vec!["fe80::1".into()]),
            ),
            ("SecondaryIPv6AddressList", Value::Array(Vec::new())),
            ("LOMProtocolVersion", 1.into()),
        ]),
        "ScheduleOSUpdate" => dict([("UpdateResults", schedule_results(&command.keys).into())]),
        "ScheduleOSUpdateScan" => dict([("ScanInitiated", true.into())]),
        "ActivationLockBypassCode" => dict([(
            "ActivationLockBypassCode",
            "3N7XQ-MGK4A-0RFC-HV9T-1PDY-KLJ".into(),
        )]),
        "RequestUnlockToken" => match &device.unlock_token {
            Some(token) => dict([("UnlockToken", Value::Data(token.clone()))]),
            None => return Outcome::unknown_request_type(&command.request_type),
        },
        "VerifyRecoveryLock" => dict([("PasswordVerified", true.into())]),
        "SetFirmwarePassword" => nested("SetFirmwarePassword", [("PasswordChanged", true.into())]),
        "VerifyFirmwarePassword" => nested(
            "VerifyFirmwarePassword",
            [("PasswordVerified", true.into())],
        ),
        "RotateFileVaultKey" => nested("RotateResult", []),
        "ContentCachingInformation" => nested("StatusResponse", [("Activated", false.into())]),
        "InviteToProgram" => dict([("InvitationResult", "Acknowledged".into())]),
        "RequestMirroring" => dict([("MirroringResult", "Unknown".into())]),
        other => match empty_list(other) {
            Some(key) => dict([(key, Value::Array(Vec::new()))]),
            None if ANSWERED_EMPTY.contains(&other) => Dictionary::new(),
            None => return Outcome::unknown_request_type(other),
        },
    };
    Outcome::Acknowledged(keys)
}

/// Commands answered with one list, empty here.
fn empty_list(request_type: &str) -> Option<&'static str> {
    Some(match request_type {
        "ProvisioningProfileList" => "ProvisioningProfileList",
        "ActiveNSExtensions" | "NSExtensionMappings" => "Extensions",
        "ManagedApplicationAttributes" => "ApplicationAttributes",
        "ManagedApplicationConfiguration" => "ApplicationConfigurations",
        "ManagedApplicationFeedback" => "ManagedApplicationFeedback",
        "ManagedMediaList" => "Books",
        "OSUpdateStatus" => "OSUpdateStatus",
        "LOMDeviceRequest" => "ResponseList",
        _ => return None,
    })
}

/// Every item asked for is set.
fn settings(keys: &Dictionary) -> Vec<Value> {
    items(keys, "Settings")
        .map(|item| {
            let name = item.get("Item").cloned().unwrap_or_else(|| "".into());
            dict([("Item", name), ("Status", "Acknowledged".into())]).into()
        })
        .collect()
}

fn install_application(keys: &Dictionary) -> Result<Dictionary, Outcome> {
    let identifier = match (keys.get("Identifier"), keys.get("iTunesStoreID")) {
        (Some(identifier), _) => identifier.clone(),
        (None, Some(id)) => match id.as_signed_integer() {
            Some(id) => format!("com.example.store.{id}").into(),
            None => return Err(invalid("iTunesStoreID is no number")),
        },
        (None, None) if keys.contains_key("ManifestURL") => "com.example.enterprise".into(),
        (None, None) => return Err(invalid("InstallApplication names no application")),
    };
    Ok(dict([
        ("Identifier", identifier),
        ("State", "Installing".into()),
    ]))
}

fn schedule_results(keys: &Dictionary) -> Vec<Value> {
    items(keys, "Updates")
        .map(|update| {
            let key = update.get("ProductKey").cloned();
            dict([
                ("InstallAction", "Default".into()),
                ("ProductKey", key.unwrap_or_else(|| "".into())),
                ("Status", "Downloading".into()),
            ])
            .into()
        })
        .collect()
}

fn location() -> Dictionary {
    dict([
        ("Latitude", 37.3349.into()),
        ("Longitude", (-122.0090).into()),
        ("HorizontalAccuracy", 12.0.into()),
        ("VerticalAccuracy", 8.0.into()),
        ("Altitude", 20.0.into()),
        ("Speed", 0.0.into()),
        ("Course", 0.0.into()),
        ("Timestamp", "2026-01-01T12:00:00Z".into()),
    ])
}

fn invalid(why: &str) -> Outcome {
    Outcome::Error(vec![ErrorItem {
        code: 12008,
        domain: "MCMDMErrorDomain".to_owned(),
        description: why.to_owned(),
    }])
}

fn items<'a>(keys: &'a Dictionary, key: &str) -> impl Iterator<Item = &'a Dictionary> {
    let list = keys.get(key).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_dictionary)
}

fn has_data(keys: &Dictionary, key: &str) -> bool {
    keys.get(key).and_then(Value::as_data).is_some()
}

fn nested<const N: usize>(key: &'static str, inner: [(&str, Value); N]) -> Dictionary {
    dict([(key, dict(inner).into())])
}

/// A dictionary in the order written.
fn dict<const N: usize>(entries: [(&str, Value); N]) -> Dictionary {
    entries
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

/// Known commands whose Acknowledged carries nothing more.
const ANSWERED_EMPTY: &[&str] = &[
    "AccountConfiguration",
    "ApplyRedemptionCode",
    "CancelEnhancedLogCollection",
    "ClearActivationLockBypassCode",
    "ClearPasscode",
    "ClearRestrictionsPassword",
    "DeclarativeManagement",
    "DeleteUser",
    "DeviceConfigured",
    "DisableLostMode",
    "DisableRemoteDesktop",
    "EnableLostMode",
    "EnableRemoteDesktop",
    "EraseDevice",
    "InstallEnterpriseApplication",
    "InstallMedia",
    "InstallProfile",
    "InstallProvisioningProfile",
    "LogOutUser",
    "PlayLostModeSound",
    "RefreshCellularPlans",
    "RemoveApplication",
    "RemoveMedia",
    "RemoveProfile",
    "RemoveProvisioningProfile",
    "RestartDevice",
    "SetAutoAdminPassword",
    "SetRecoveryLock",
    "ShutDownDevice",
    "StopMirroring",
    "TriggerEnhancedLogCollection",
    "UnlockUserAccount",
    "UserConfigured",
    "ValidateApplications",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DeviceCa;

    fn ask(request_type: &str, keys: Dictionary, size: usize) -> Outcome {
        let device = Device::new(&DeviceCa::quick().unwrap(), "t").unwrap();
        let command = Command {
            uuid: "uuid".to_owned(),
            request_type: request_type.to_owned(),
            keys,
        };
        answer(&device, &command, size)
    }

    fn acknowledged(outcome: Outcome) -> Dictionary {
        match outcome {
            Outcome::Acknowledged(keys) => keys,
            other => panic!("expected Acknowledged, got {other:?}"),
        }
    }

    #[test]
    fn device_information_answers_what_was_asked() {
        let queries = Value::Array(vec!["OSVersion".into(), "Nonsense".into()]);
        let keys = acknowledged(ask("DeviceInformation", dict([("Queries", queries)]), 0));
        let responses = keys["QueryResponses"].as_dictionary().unwrap();
        assert_eq!(responses.len(), 1);
        assert_eq!(responses["OSVersion"].as_string(), Some("18.3"));
    }

    #[test]
    fn an_unknown_request_type_is_error_12021() {
        let Outcome::Error(chain) = ask("Dance", Dictionary::new(), 0) else {
            panic!("expected an error");
        };
        assert_eq!(chain[0].code, 12021);
    }

    #[test]
    fn applications_grow_to_the_size_asked() {
        let keys = acknowledged(ask("InstalledApplicationList", Dictionary::new(), 100_000));
        let applications = keys["InstalledApplicationList"].as_array().unwrap();
        assert!(applications.len() > 100, "{}", applications.len());
    }

    #[test]
    fn each_setting_is_acknowledged() {
        let name = dict([("Item", "DeviceName".into()), ("DeviceName", "x".into())]);
        let wanted = dict([("Settings", Value::Array(vec![name.into()]))]);
        let keys = acknowledged(ask("Settings", wanted, 0));
        let first = keys["Settings"].as_array().unwrap()[0]
            .as_dictionary()
            .unwrap();
        assert_eq!(first["Item"].as_string(), Some("DeviceName"));
    }

    #[test]
    fn an_install_profile_without_payload_fails() {
        let outcome = ask("InstallProfile", Dictionary::new(), 0);
        assert!(matches!(outcome, Outcome::Error(_)));
    }
}
