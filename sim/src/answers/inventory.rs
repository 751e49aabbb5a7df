//! Answers that are lists: applications, profiles, certificates, users,
//! updates, restrictions.

use plist::{Dictionary, Value};

use super::dict;
use crate::device::Device;

/// Installed applications, as many as fill about `size` bytes; at least three.
pub(super) fn applications(size: usize) -> Vec<Value> {
    (0..(size / APPLICATION_BYTES).max(3))
        .map(|n| {
            dict([
                ("Identifier", format!("com.example.application.{n}").into()),
                ("Name", format!("Application {n}").into()),
                ("ShortVersion", "1.4.2".into()),
                ("Version", "1042".into()),
                ("BundleSize", (31_457_280 + n as i64).into()),
                ("DynamicSize", 1_048_576.into()),
                ("Installing", false.into()),
                ("AppStoreVendable", true.into()),
                ("DeviceBasedVPP", true.into()),
                ("BetaApp", false.into()),
            ])
            .into()
        })
        .collect()
}

pub(super) fn managed_applications() -> Dictionary {
    let application = dict([
        ("Status", "Managed".into()),
        ("ManagementFlags", 1.into()),
        ("HasConfiguration", false.into()),
        ("HasFeedback", false.into()),
        ("IsValidated", true.into()),
    ]);
    dict([("com.example.application.0", application.into())])
}

pub(super) fn profiles(device: &Device) -> Vec<Value> {
    let payload = dict([
        ("PayloadType", "com.apple.mdm".into()),
        ("PayloadVersion", 1.into()),
        ("PayloadIdentifier", "com.example.mdm.payload".into()),
        ("PayloadDisplayName", "Mobile Device Management".into()),
    ]);
    let profile = dict([
        ("PayloadIdentifier", "com.example.mdm".into()),
        ("PayloadUUID", device.push.magic.as_str().into()),
        ("PayloadVersion", 1.into()),
        ("PayloadDisplayName", "Enrollment".into()),
        ("PayloadOrganization", "Simulated".into()),
        ("PayloadRemovalDisallowed", false.into()),
        ("HasRemovalPasscode", false.into()),
        ("IsEncrypted", false.into()),
        ("IsManaged", true.into()),
        ("PayloadContent", Value::Array(vec![payload.into()])),
    ]);
    vec![profile.into()]
}

pub(super) fn certificates(device: &Device) -> Vec<Value> {
    let identity = dict([
        ("CommonName", device.udid.as_str().into()),
        ("IsIdentity", true.into()),
        ("Data", Value::Data(device.identity.cert_der.to_vec())),
    ]);
    vec![identity.into()]
}

pub(super) fn users(device: &Device) -> Vec<Value> {
    let Some(user) = &device.user else {
        return Vec::new();
    };
    let user = dict([
        ("UserName", user.short_name.as_str().into()),
        ("FullName", user.long_name.as_str().into()),
        ("UserGUID", user.user_id.as_str().into()),
        ("HasDataToSync", false.into()),
        ("IsLoggedIn", true.into()),
        ("MobileAccount", false.into()),
    ]);
    vec![user.into()]
}

pub(super) fn updates() -> Vec<Value> {
    let update = dict([
        ("ProductKey", "iOSUpdate22E240".into()),
        ("HumanReadableName", "iOS 18.4".into()),
        ("ProductName", "iOS".into()),
        ("Version", "18.4".into()),
        ("Build", "22E240".into()),
        ("DownloadSize", 1_500_000_000.into()),
        ("InstallSize", 1_700_000_000.into()),
        ("IsCritical", false.into()),
        ("RestartRequired", true.into()),
        ("AllowsInstallLater", true.into()),
    ]);
    vec![update.into()]
}

pub(super) fn restrictions() -> Dictionary {
    let value = |on: bool| Value::from(dict([("value", on.into())]));
    let booleans = dict([
        ("allowCamera", value(true)),
        ("allowScreenShot", value(true)),
        ("forceEncryptedBackup", value(false)),
    ]);
    let inactivity = dict([("value", 300.into())]);
    dict([
        ("restrictedBool", booleans.into()),
        (
            "restrictedValue",
            dict([("maxInactivity", inactivity.into())]).into(),
        ),
    ])
}

/// What one application takes in XML.
const APPLICATION_BYTES: usize = 620;
