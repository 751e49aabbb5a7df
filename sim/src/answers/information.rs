//! Answers about the device itself: DeviceInformation and SecurityInfo.

use plist::{Dictionary, Value};

use super::dict;
use crate::device::{Device, Kind};

/// The QueryResponses for the Queries asked; unknown ones are left out, as a
/// device does.
pub(super) fn responses(device: &Device, command: &Dictionary) -> Dictionary {
    let queries = command.get("Queries").and_then(Value::as_array);
    queries
        .into_iter()
        .flatten()
        .filter_map(Value::as_string)
        .filter_map(|query| Some((query.to_owned(), response(device, query)?)))
        .collect()
}

/// What SecurityInfo reports.
pub(super) fn security(device: &Device) -> Dictionary {
    let status = dict([
        ("EnrolledViaDEP", device.automated.into()),
        ("UserApprovedEnrollment", true.into()),
        ("IsUserEnrollment", device.personal.into()),
    ]);
    let mut keys = dict([("ManagementStatus", status.into())]);
    let more = if device.kind == Kind::Mac {
        vec![
            ("FDE_Enabled", Value::from(true)),
            ("FDE_HasPersonalRecoveryKey", true.into()),
            ("FDE_HasInstitutionalRecoveryKey", false.into()),
            ("SystemIntegrityProtectionEnabled", true.into()),
            ("AuthenticatedRootVolumeEnabled", true.into()),
            ("BootstrapTokenAllowedForAuthentication", "allowed".into()),
        ]
    } else {
        vec![
            ("HardwareEncryptionCaps", Value::from(3)),
            ("PasscodePresent", true.into()),
            ("PasscodeCompliant", true.into()),
            ("PasscodeCompliantWithProfiles", true.into()),
            ("PasscodeLockGracePeriodEnforced", 0.into()),
        ]
    };
    keys.extend(more.into_iter().map(|(key, value)| (key.to_owned(), value)));
    keys
}

fn response(device: &Device, query: &str) -> Option<Value> {
    let mobile = device.kind == Kind::IPhone;
    Some(match query {
        "UDID" | "SerialNumber" | "IMEI" | "MEID" | "ICCID" | "WiFiMAC" | "BluetoothMAC"
        | "EthernetMAC" | "PhoneNumber"
            if device.personal =>
        {
            return None;
        }
        "UDID" => device.udid.as_str().into(),
        "SerialNumber" => device.serial.as_str().into(),
        "DeviceName" => device.name.as_str().into(),
        "OSVersion" => device.os_version.as_str().into(),
        "BuildVersion" => device.build.as_str().into(),
        "Model" | "ProductName" => device.kind.product_name().into(),
        "ModelName" => device.kind.model_name().into(),
        "ModelNumber" => "MTUX3LL/A".into(),
        "HostName" | "LocalHostName" if device.kind == Kind::Mac => "sim-mac.local".into(),
        "DeviceCapacity" => 256.0.into(),
        "AvailableDeviceCapacity" => 117.5.into(),
        "BatteryLevel" => 0.83.into(),
        "WiFiMAC" => mac_address(device, 0).into(),
        "BluetoothMAC" => mac_address(device, 1).into(),
        "EthernetMAC" if device.kind == Kind::Mac => mac_address(device, 2).into(),
        "IMEI" if mobile => "35 123456 789012 3".into(),
        "MEID" if mobile => "35123456789012".into(),
        "ICCID" if mobile => "8901 4103 2111 1851 0720".into(),
        "PhoneNumber" if mobile => "+15555550100".into(),
        "CurrentCarrierNetwork" | "SubscriberCarrierNetwork" if mobile => "Simulated".into(),
        "CellularTechnology" => i64::from(mobile).into(),
        "DataRoamingEnabled" | "VoiceRoamingEnabled" | "IsRoaming" if mobile => false.into(),
        "IsSupervised" => device.supervised.into(),
        "IsMultiUser" => device.is_shared_ipad().into(),
        "IsNetworkTethered" | "IsMDMLostModeEnabled" => false.into(),
        "IsActivationLockEnabled" | "IsActivationLockSupported" => false.into(),
        "IsDeviceLocatorServiceEnabled" | "IsDoNotDisturbInEffect" => false.into(),
        "IsCloudBackupEnabled" | "PersonalHotspotEnabled" => false.into(),
        "AwaitingConfiguration" => device.awaiting_configuration.into(),
        "iTunesStoreAccountIsActive" => false.into(),
        "TimeZone" => "Europe/Berlin".into(),
        "IsAppleSilicon" if device.kind == Kind::Mac => true.into(),
        "SupportsiOSAppInstalls" if device.kind == Kind::Mac => true.into(),
        "SoftwareUpdateDeviceID" => device.kind.product_name().into(),
        "OrganizationInfo" | "MDMOptions" => Dictionary::new().into(),
        "ServiceSubscriptions" => Value::Array(Vec::new()),
        _ => return None,
    })
}

/// A locally administered address that is the device's own.
fn mac_address(device: &Device, port: u8) -> String {
    let token = &device.push.token;
    let octet = |at: usize| token.get(at).copied().unwrap_or(0);
    format!(
        "02:00:{:02x}:{:02x}:{:02x}:{port:02x}",
        octet(0),
        octet(1),
        octet(2)
    )
}
