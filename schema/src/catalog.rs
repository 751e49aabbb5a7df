//! THE TABLE: one row for every command an Apple device knows.
//!
//! A command is added here and nowhere else: `build` makes it from JSON, the admin API
//! lists it, the queue reads its urgency and the guard its danger. Rows describe; whether
//! a given device qualifies is for the caller to conclude. Raw plist commands that are not
//! listed pass through the server untouched and never meet this file.

mod build;
mod describe;
mod pen;
mod row;
mod scalar;
mod spelling;

#[cfg(test)]
mod apple_yaml;

use crate::access::AccessRights;

pub use build::{Built, FieldError, build};
pub use row::{Channels, Danger, Item, Key, Kind, Platform, Row, SharedIpad, Support};
pub use spelling::snake;

use pen::{
    BOOL, DATA, INT, PIN, STRING, STRINGS, at_least, ios, item, mac, opt, req, row, tv, vision,
    watch,
};

const DEVICE: Channels = Channels::DEVICE;
const USER: Channels = Channels::USER;
const BOTH: Channels = Channels::BOTH;

/// The row of a command, by Apple's exact spelling.
pub fn find(request_type: &str) -> Option<&'static Row> {
    let at = CATALOG
        .binary_search_by(|row| row.request_type.cmp(request_type))
        .ok()?;
    CATALOG.get(at)
}

/// The right one query of DeviceInformation needs.
///
/// The command itself needs none: a device leaves out what it may not tell. A query that is
/// not listed needs [`AccessRights::DEVICE_INFORMATION`], which Apple states for nearly all.
pub fn query_rights(query: &str) -> AccessRights {
    if FREE_QUERIES.contains(&query) {
        AccessRights::NONE
    } else if NETWORK_QUERIES.contains(&query) {
        AccessRights::NETWORK_INFORMATION
    } else if STORE_QUERIES.contains(&query) {
        AccessRights::MANAGE_APPLICATIONS
    } else {
        AccessRights::DEVICE_INFORMATION
    }
}

/// Every command, sorted by RequestType.
///
/// Source: Apple's device-management schema 18.3; from later releases the two commands of
/// enhanced logging and two keys of EraseDevice. Rights are those the schema states; where
/// it states none (DeclarativeManagement, remote desktop, enhanced logging) none is asked.
/// `one_of` and the bounds of integers come from the schema's prose.
pub static CATALOG: &[Row] = &[
    row("AccountConfiguration")
        .keys(&[
            opt("SkipPrimarySetupAccountCreation", BOOL),
            opt("SetPrimarySetupAccountAsRegularUser", BOOL),
            opt("PrimaryAccountFullName", STRING),
            opt("PrimaryAccountUserName", STRING),
            opt("DontAutoPopulatePrimaryAccountInfo", BOOL),
            opt("LockPrimaryAccountInfo", BOOL),
            opt(
                "AutoSetupAdminAccounts",
                Kind::Array(&Kind::Dict(&[
                    req("shortName", STRING),
                    opt("fullName", STRING),
                    opt("passwordHash", DATA),
                    opt("hidden", BOOL),
                ])),
            ),
            opt("ManagedLocalUserShortName", STRING),
        ])
        .on(&[mac("10.11").ade()]),
    row("ActivationLockBypassCode")
        .on(&[ios("7.1").sup(), mac("10.15").sup(), vision("2.0").sup()])
        .danger(Danger::RevealsSecret),
    row("ActiveNSExtensions")
        .keys(&[opt("FilterExtensionPoints", STRINGS)])
        .on(&[mac("10.13")])
        .mac_channels(USER)
        .needs(AccessRights::INSPECT_APPLICATIONS),
    row("ApplyRedemptionCode")
        .keys(&[req("Identifier", STRING), req("RedemptionCode", STRING)])
        .on(&[ios("5.0")])
        .needs(AccessRights::MANAGE_APPLICATIONS),
    row("AvailableOSUpdates")
        .on(&[
            ios("9.0").sup().until("27.0"),
            mac("10.11").free().until("27.0"),
            tv("12.0").sup().until("27.0"),
        ])
        .shared_ipad(DEVICE)
        .needs(AccessRights::MANAGE_APPLICATIONS),
    row("CancelEnhancedLogCollection")
        .on(&[ios("27.0").sup(), mac("27.0").sup(), tv("27.0").sup()])
        .mac_channels(USER)
        .shared_ipad(DEVICE),
    row("CertificateList")
        .keys(&[opt("ManagedOnly", BOOL)])
        .on(&[
            ios("4.0").ue(),
            mac("10.7").ue(),
            tv("9.0"),
            vision("1.1").ue(),
            watch("10.0"),
        ])
        .mac_channels(BOTH)
        .shared_ipad(DEVICE)
        .needs(AccessRights::INSPECT_PROFILES),
    row("ClearActivationLockBypassCode")
        .on(&[ios("7.1").sup(), mac("10.15").sup(), vision("2.0").sup()])
        .danger(Danger::ChangesSecret),
    row("ClearPasscode")
        .keys(&[req("UnlockToken", DATA)])
        .on(&[ios("4.0"), vision("1.1"), watch("10.0")])
        .needs(AccessRights::LOCK_AND_CLEAR_PASSCODE)
        .danger(Danger::ClearsPasscode),
    row("ClearRestrictionsPassword")
        .on(&[ios("8.0").sup()])
        .danger(Danger::ClearsPasscode),
    row("ContentCachingInformation")
        .on(&[mac("10.15.4")])
        .needs(AccessRights::NETWORK_INFORMATION),
    row("DeclarativeManagement")
        .keys(&[opt("Data", DATA)])
        .on(&[
            ios("15.0").ue(),
            mac("13.0").ue(),
            tv("16.0"),
            vision("1.1").ue(),
            watch("10.0"),
        ])
        .mac_channels(BOTH)
        .shared_ipad(BOTH),
    row("DeleteUser")
        .keys(&[
            opt("UserName", STRING),
            opt("ForceDeletion", BOOL),
            opt("DeleteAllUsers", BOOL),
        ])
        .one_of(&["UserName", "DeleteAllUsers"])
        .on(&[ios("9.3"), mac("10.13").sup()])
        .only_shared_ipad(DEVICE)
        .danger(Danger::DeletesUser),
    row("DeviceConfigured")
        .on(&[
            ios("9.0").sup().ade(),
            mac("10.11").ade(),
            tv("10.2").sup(),
            vision("2.0").sup().ade(),
        ])
        .shared_ipad(DEVICE),
    row("DeviceInformation")
        .keys(&[
            req("Queries", STRINGS),
            opt("DeviceAttestationNonce", Kind::DataUpTo(32)),
        ])
        .on(&[
            ios("4.0").ue(),
            mac("10.7").ue(),
            tv("9.0"),
            vision("1.1").ue(),
            watch("10.0"),
        ])
        .mac_channels(BOTH)
        .shared_ipad(BOTH),
    row("DeviceLocation")
        .on(&[ios("9.3").sup()])
        .shared_ipad(DEVICE),
    row("DeviceLock")
        .keys(&[
            opt("Message", STRING),
            opt("PhoneNumber", STRING),
            opt("PIN", PIN),
        ])
        .on(&[
            ios("4.0").ue(),
            mac("10.7"),
            vision("2.0").ue(),
            watch("10.0"),
        ])
        .shared_ipad(DEVICE)
        .needs(AccessRights::LOCK_AND_CLEAR_PASSCODE)
        .danger(Danger::Locks),
    row("DisableLostMode")
        .on(&[ios("9.3").sup()])
        .shared_ipad(DEVICE),
    row("DisableRemoteDesktop").on(&[mac("10.14.4").sup()]),
    row("EnableLostMode")
        .keys(&[
            opt("Message", STRING),
            opt("PhoneNumber", STRING),
            opt("Footnote", STRING),
        ])
        .one_of(&["Message", "PhoneNumber"])
        .on(&[ios("9.3").sup()])
        .shared_ipad(DEVICE)
        .danger(Danger::Locks),
    row("EnableRemoteDesktop").on(&[mac("10.14.4").sup()]),
    row("EraseDevice")
        .keys(&[
            opt("PreserveDataPlan", BOOL),
            opt("DisallowProximitySetup", BOOL),
            opt("PIN", PIN),
            opt(
                "ObliterationBehavior",
                Kind::Choice(&[
                    "Default",
                    "DoNotObliterate",
                    "ObliterateWithWarning",
                    "Always",
                ]),
            ),
            opt(
                "ReturnToService",
                Kind::Dict(&[
                    req("Enabled", BOOL),
                    opt("WiFiProfileData", DATA),
                    opt("MDMProfileData", DATA),
                    opt("BootstrapToken", DATA),
                    opt("ShouldRetryEnrollment", BOOL),
                ]),
            ),
        ])
        .on(&[
            ios("4.0"),
            mac("10.7"),
            tv("10.2"),
            vision("1.1"),
            watch("10.0"),
        ])
        .shared_ipad(DEVICE)
        .needs(AccessRights::ERASE)
        .danger(Danger::Erases),
    row("InstallApplication")
        .keys(&[
            opt("iTunesStoreID", at_least(1)),
            opt("Identifier", STRING),
            opt(
                "Options",
                Kind::Dict(&[opt("PurchaseMethod", Kind::IntegerChoice(&[0, 1]))]),
            ),
            opt("ManifestURL", STRING),
            opt("ManagementFlags", Kind::IntegerChoice(&[1, 4, 5])),
            opt("Configuration", Kind::Open),
            opt("Attributes", Kind::Dict(APP_ATTRIBUTES)),
            opt("ChangeManagementState", Kind::Choice(&["Managed"])),
            opt("InstallAsManaged", BOOL),
            opt("iOSApp", BOOL),
        ])
        .one_of(&["iTunesStoreID", "Identifier", "ManifestURL"])
        .on(&[
            ios("5.0").ue(),
            mac("10.9").ue(),
            tv("10.2"),
            vision("1.1").ue(),
            watch("10.0"),
        ])
        .mac_channels(BOTH)
        .shared_ipad(DEVICE)
        .needs(AccessRights::MANAGE_APPLICATIONS),
    row("InstallEnterpriseApplication")
        .keys(&[
            opt("Manifest", Kind::Open),
            opt("ManifestURL", STRING),
            opt("ManifestURLPinningCerts", Kind::Array(&DATA)),
            opt("PinningRevocationCheckRequired", BOOL),
            opt("InstallAsManaged", BOOL),
            opt("ManagementFlags", Kind::IntegerChoice(&[1])),
            opt("Configuration", Kind::Open),
            opt("ChangeManagementState", Kind::Choice(&["Managed"])),
            opt("iOSApp", BOOL),
        ])
        .one_of(&["Manifest", "ManifestURL"])
        .on(&[mac("10.13.6").ue()])
        .needs(AccessRights::MANAGE_APPLICATIONS),
    row("InstallMedia")
        .keys(&[
            opt("iTunesStoreID", at_least(1)),
            opt("MediaURL", STRING),
            req("MediaType", Kind::Choice(&["Book"])),
            opt("PersistentID", STRING),
            opt("Kind", Kind::Choice(&["pdf", "epub", "ibooks"])),
            opt("Version", STRING),
            opt("Author", STRING),
            opt("Title", STRING),
        ])
        .one_of(&["iTunesStoreID", "MediaURL"])
        .on(&[ios("8.0").ue(), mac("10.9")])
        .mac_channels(USER)
        .shared_ipad(DEVICE)
        .needs(AccessRights::MANAGE_APPLICATIONS),
    row("InstallProfile")
        .keys(&[req("Payload", DATA)])
        .on(&[
            ios("4.0").ue(),
            mac("10.7").ue(),
            tv("9.0"),
            vision("1.1").ue(),
            watch("10.0"),
        ])
        .mac_channels(BOTH)
        .shared_ipad(BOTH)
        .needs(AccessRights::MANAGE_PROFILES),
    row("InstallProvisioningProfile")
        .keys(&[req("ProvisioningProfile", DATA)])
        .on(&[
            ios("4.0").ue(),
            mac("11.0").ue().free(),
            tv("10.2"),
            vision("1.1").ue(),
            watch("10.0"),
        ])
        .shared_ipad(DEVICE)
        .needs(AccessRights::MANAGE_PROVISIONING_PROFILES),
    row("InstalledApplicationList")
        .keys(&[
            opt("Identifiers", STRINGS),
            opt("ManagedAppsOnly", BOOL),
            opt(
                "Items",
                Kind::Array(&Kind::Choice(&[
                    "AdHocCodeSigned",
                    "AppStoreVendable",
                    "BetaApp",
                    "BundleSize",
                    "DeviceBasedVPP",
                    "DistributorIdentifier",
                    "DynamicSize",
                    "ExternalVersionIdentifier",
                    "HasUpdateAvailable",
                    "Identifier",
                    "Installing",
                    "IsAppClip",
                    "IsValidated",
                    "Name",
                    "ShortVersion",
                    "Version",
                ])),
            ),
        ])
        .on(&[
            ios("5.0").ue(),
            mac("10.7"),
            tv("10.2"),
            vision("1.1").ue(),
            watch("10.0"),
        ])
        .mac_channels(BOTH)
        .shared_ipad(DEVICE)
        .needs(AccessRights::INSPECT_APPLICATIONS),
    row("InviteToProgram")
        .keys(&[
            req("ProgramID", Kind::Choice(&["com.apple.cloudvpp"])),
            req("InvitationURL", STRING),
        ])
        .on(&[ios("7.0"), mac("10.9").free()])
        .mac_channels(USER)
        .shared_ipad(USER)
        .needs(AccessRights::MANAGE_APPLICATIONS),
    row("LOMDeviceRequest")
        .keys(&[req(
            "RequestList",
            Kind::Array(&Kind::Dict(&[
                req(
                    "DeviceRequestType",
                    Kind::Choice(&["PowerON", "PowerOFF", "Reset"]),
                ),
                req("DeviceRequestUUID", STRING),
                req("DeviceDNSName", STRING),
                req("PrimaryIPv6AddressList", STRINGS),
                req("SecondaryIPv6AddressList", STRINGS),
                req("LOMProtocolVersion", INT),
            ])),
        )])
        .on(&[mac("11.0")])
        .needs(AccessRights::LOCK_AND_CLEAR_PASSCODE)
        .danger(Danger::Restarts),
    row("LOMSetupRequest")
        .on(&[mac("11.0")])
        .needs(AccessRights::LOCK_AND_CLEAR_PASSCODE),
    row("LogOutUser")
        .on(&[ios("9.3")])
        .only_shared_ipad(DEVICE)
        .danger(Danger::Restarts),
    row("ManagedApplicationAttributes")
        .keys(&[req("Identifiers", STRINGS)])
        .on(&[
            ios("7.0").ue(),
            tv("10.2"),
            vision("1.1").ue(),
            watch("10.0"),
        ])
        .shared_ipad(DEVICE)
        .needs(AccessRights::MANAGE_APPLICATIONS),
    row("ManagedApplicationConfiguration")
        .keys(&[req("Identifiers", STRINGS)])
        .on(&[
            ios("7.0").ue(),
            mac("10.15").ue(),
            tv("10.2"),
            vision("1.1").ue(),
            watch("10.0"),
        ])
        .shared_ipad(DEVICE)
        .needs(AccessRights::MANAGE_APPLICATIONS),
    row("ManagedApplicationFeedback")
        .keys(&[req("Identifiers", STRINGS), opt("DeleteFeedback", BOOL)])
        .on(&[ios("7.0").ue(), mac("11.0"), tv("10.2"), vision("1.1").ue()])
        .mac_channels(USER)
        .shared_ipad(DEVICE)
        .needs(AccessRights::MANAGE_APPLICATIONS),
    row("ManagedApplicationList")
        .keys(&[opt("Identifiers", STRINGS)])
        .on(&[
            ios("5.0").ue(),
            mac("11.0").ue(),
            tv("10.2"),
            vision("1.1").ue(),
            watch("10.0"),
        ])
        .mac_channels(BOTH)
        .shared_ipad(DEVICE)
        .needs(AccessRights::MANAGE_APPLICATIONS),
    row("ManagedMediaList")
        .on(&[ios("8.0").ue()])
        .shared_ipad(DEVICE)
        .needs(AccessRights::MANAGE_APPLICATIONS),
    row("NSExtensionMappings")
        .on(&[mac("10.13")])
        .mac_channels(USER)
        .needs(AccessRights::INSPECT_APPLICATIONS),
    row("OSUpdateStatus")
        .on(&[
            ios("9.0").sup().until("27.0"),
            mac("10.11.5").sup().free().until("27.0"),
            tv("12.0").sup().until("27.0"),
        ])
        .shared_ipad(DEVICE)
        .needs(AccessRights::MANAGE_APPLICATIONS),
    row("PlayLostModeSound")
        .on(&[ios("10.3").sup()])
        .shared_ipad(DEVICE),
    row("ProfileList")
        .keys(&[opt("ManagedOnly", BOOL)])
        .on(&[
            ios("4.0").ue(),
            mac("10.7").ue(),
            tv("9.0"),
            vision("1.1").ue(),
            watch("10.0"),
        ])
        .mac_channels(BOTH)
        .shared_ipad(BOTH)
        .needs(AccessRights::INSPECT_PROFILES),
    row("ProvisioningProfileList")
        .keys(&[opt("ManagedOnly", BOOL)])
        .on(&[
            ios("4.0").ue(),
            mac("11.0").ue().free(),
            tv("10.2"),
            vision("1.1").ue(),
            watch("10.0"),
        ])
        .shared_ipad(DEVICE)
        .needs(AccessRights::INSPECT_PROVISIONING_PROFILES),
    row("RefreshCellularPlans")
        .keys(&[req("eSIMServerURL", STRING)])
        .on(&[ios("13.0")])
        .shared_ipad(DEVICE),
    row("RemoveApplication")
        .keys(&[req("Identifier", STRING)])
        .on(&[
            ios("5.0").ue(),
            mac("11.0"),
            tv("10.2"),
            vision("1.1").ue(),
            watch("10.0"),
        ])
        .shared_ipad(DEVICE)
        .needs(AccessRights::MANAGE_APPLICATIONS)
        .danger(Danger::Deletes),
    row("RemoveMedia")
        .keys(&[
            req("MediaType", Kind::Choice(&["Book"])),
            opt("iTunesStoreID", STRING),
            opt("PersistentID", STRING),
        ])
        .one_of(&["iTunesStoreID", "PersistentID"])
        .on(&[ios("8.0").ue()])
        .shared_ipad(DEVICE)
        .needs(AccessRights::MANAGE_APPLICATIONS)
        .danger(Danger::Deletes),
    row("RemoveProfile")
        .keys(&[req("Identifier", STRING)])
        .on(&[
            ios("4.0").ue(),
            mac("10.7").ue(),
            tv("9.0"),
            vision("1.1").ue(),
            watch("10.0"),
        ])
        .mac_channels(BOTH)
        .shared_ipad(BOTH)
        .needs(AccessRights::MANAGE_PROFILES)
        .danger(Danger::Deletes),
    row("RemoveProvisioningProfile")
        .keys(&[req("UUID", STRING)])
        .on(&[
            ios("4.0").ue(),
            mac("11.0").ue().free(),
            tv("10.2"),
            vision("1.1").ue(),
            watch("10.0"),
        ])
        .shared_ipad(DEVICE)
        .needs(AccessRights::MANAGE_PROVISIONING_PROFILES)
        .danger(Danger::Deletes),
    row("RequestMirroring")
        .keys(&[
            opt("DestinationName", STRING),
            opt("DestinationDeviceID", STRING),
            opt("ScanTime", Kind::Integer { min: 10, max: 300 }),
            opt("Password", STRING),
        ])
        .one_of(&["DestinationName", "DestinationDeviceID"])
        .on(&[ios("7.0").ue(), mac("10.10").ue()])
        .shared_ipad(DEVICE),
    row("RequestUnlockToken")
        .on(&[ios("5.0").sup()])
        .danger(Danger::RevealsSecret),
    row("RestartDevice")
        .keys(&[
            opt("RebuildKernelCache", BOOL),
            opt("KextPaths", STRINGS),
            opt("NotifyUser", BOOL),
        ])
        .on(&[ios("10.3").sup(), mac("10.13"), tv("10.2").sup()])
        .shared_ipad(DEVICE)
        .needs(AccessRights::LOCK_AND_CLEAR_PASSCODE)
        .danger(Danger::Restarts),
    row("Restrictions")
        .keys(&[opt("ProfileRestrictions", BOOL)])
        .on(&[ios("4.0"), tv("9.0"), vision("1.1"), watch("10.0")])
        .shared_ipad(BOTH)
        .needs(AccessRights::INSPECT_RESTRICTIONS),
    row("RotateFileVaultKey")
        .keys(&[
            req("KeyType", Kind::Choice(&["personal", "institutional"])),
            req(
                "FileVaultUnlock",
                Kind::Dict(&[
                    opt("Password", STRING),
                    opt("PrivateKeyExport", DATA),
                    opt("PrivateKeyExportPassword", STRING),
                ]),
            ),
            opt("NewCertificate", DATA),
            opt("ReplyEncryptionCertificate", DATA),
        ])
        .on(&[mac("10.9")])
        .needs(AccessRights::LOCK_AND_CLEAR_PASSCODE)
        .danger(Danger::ChangesSecret),
    row("ScheduleOSUpdate")
        .keys(&[req(
            "Updates",
            Kind::Array(&Kind::Dict(&[
                opt("ProductKey", STRING),
                opt("ProductVersion", STRING),
                req(
                    "InstallAction",
                    Kind::Choice(&[
                        "Default",
                        "DownloadOnly",
                        "InstallASAP",
                        "NotifyOnly",
                        "InstallLater",
                        "InstallForceRestart",
                    ]),
                ),
                opt("MaxUserDeferrals", at_least(0)),
                opt("Priority", Kind::Choice(&["Low", "High"])),
            ])),
        )])
        .on(&[
            ios("9.0").sup().until("27.0"),
            mac("10.11").sup().free().until("27.0"),
            tv("12.0").sup().until("27.0"),
        ])
        .shared_ipad(DEVICE)
        .needs(AccessRights::MANAGE_APPLICATIONS)
        .danger(Danger::Restarts),
    row("ScheduleOSUpdateScan")
        .keys(&[opt("Force", BOOL)])
        .on(&[mac("10.11").sup().until("27.0")]),
    row("SecurityInfo")
        .on(&[
            ios("4.0").ue(),
            mac("10.7").ue(),
            tv("9.0"),
            vision("1.1").ue(),
            watch("10.0"),
        ])
        .mac_channels(BOTH)
        .shared_ipad(DEVICE)
        .needs(AccessRights::INSPECT_SECURITY),
    row("SetAutoAdminPassword")
        .keys(&[req("GUID", STRING), req("passwordHash", DATA)])
        .on(&[mac("10.11").ade()])
        .danger(Danger::ChangesSecret),
    row("SetFirmwarePassword")
        .keys(&[
            opt("CurrentPassword", STRING),
            req("NewPassword", STRING),
            opt("AllowOroms", BOOL),
        ])
        .on(&[mac("10.13")])
        .needs(AccessRights::LOCK_AND_CLEAR_PASSCODE)
        .danger(Danger::ChangesSecret),
    row("SetRecoveryLock")
        .keys(&[opt("CurrentPassword", STRING), req("NewPassword", STRING)])
        .on(&[mac("11.5")])
        .needs(AccessRights::LOCK_AND_CLEAR_PASSCODE)
        .danger(Danger::ChangesSecret),
    row("Settings")
        .keys(&[req("Settings", Kind::Array(&Kind::Items(SETTINGS)))])
        .on(&[
            ios("5.0").ue(),
            mac("10.9").ue(),
            tv("9.0"),
            vision("1.1").ue(),
            watch("10.0"),
        ])
        .mac_channels(BOTH)
        .shared_ipad(BOTH)
        .needs(AccessRights::MANAGE_SETTINGS),
    row("ShutDownDevice")
        .on(&[ios("10.3").sup(), mac("10.13")])
        .shared_ipad(DEVICE)
        .needs(AccessRights::LOCK_AND_CLEAR_PASSCODE)
        .danger(Danger::Restarts),
    row("StopMirroring")
        .on(&[ios("7.0").sup(), mac("10.10")])
        .shared_ipad(DEVICE),
    row("TriggerEnhancedLogCollection")
        .keys(&[req("AppleCareToken", STRING)])
        .on(&[ios("27.0").sup(), mac("27.0").sup(), tv("27.0").sup()])
        .mac_channels(USER)
        .shared_ipad(DEVICE),
    row("UnlockUserAccount")
        .keys(&[req("UserName", STRING)])
        .on(&[mac("10.13")])
        .needs(AccessRights::LOCK_AND_CLEAR_PASSCODE),
    row("UserConfigured")
        .on(&[ios("17.0").sup().ade()])
        .shared_ipad(USER),
    row("UserList")
        .on(&[ios("9.3"), mac("10.13").sup()])
        .only_shared_ipad(DEVICE),
    row("ValidateApplications")
        .keys(&[opt("Identifiers", STRINGS)])
        .on(&[ios("9.2").ue(), tv("10.2"), vision("1.1").ue()])
        .shared_ipad(DEVICE)
        .needs(AccessRights::MANAGE_APPLICATIONS),
    row("VerifyFirmwarePassword")
        .keys(&[req("Password", STRING)])
        .on(&[mac("10.13")]),
    row("VerifyRecoveryLock")
        .keys(&[req("Password", STRING)])
        .on(&[mac("11.5")])
        .needs(AccessRights::LOCK_AND_CLEAR_PASSCODE),
];

/// The items of the Settings command.
const SETTINGS: &[Item] = &[
    item(
        "Wallpaper",
        &[
            req("Image", DATA),
            req("Where", Kind::IntegerChoice(&[1, 2, 3])),
        ],
    ),
    item("DataRoaming", &[req("Enabled", BOOL)]),
    item("VoiceRoaming", &[req("Enabled", BOOL)]),
    item("PersonalHotspot", &[req("Enabled", BOOL)]).needs(AccessRights::NETWORK_INFORMATION),
    item("Bluetooth", &[req("Enabled", BOOL)]),
    item(
        "ApplicationConfiguration",
        &[req("Identifier", STRING), opt("Configuration", Kind::Open)],
    )
    .needs(AccessRights::MANAGE_APPLICATIONS),
    item(
        "ApplicationAttributes",
        &[
            req("Identifier", STRING),
            opt("Attributes", Kind::Dict(APP_ATTRIBUTES)),
        ],
    )
    .needs(AccessRights::MANAGE_APPLICATIONS),
    item("DeviceName", &[req("DeviceName", STRING)]),
    item("HostName", &[req("HostName", STRING)]),
    item(
        "OrganizationInfo",
        &[opt(
            "OrganizationInfo",
            Kind::Dict(&[
                req("OrganizationName", STRING),
                opt("OrganizationShortName", STRING),
                opt("OrganizationAddress", STRING),
                opt("OrganizationPhone", STRING),
                opt("OrganizationEmail", STRING),
                opt("OrganizationMagic", STRING),
            ]),
        )],
    ),
    item("DefaultApplications", &[opt("WebBrowser", STRING)]),
    item(
        "MDMOptions",
        &[req(
            "MDMOptions",
            Kind::Dict(&[
                opt("ActivationLockAllowedWhileSupervised", BOOL),
                opt("BootstrapTokenAllowed", BOOL),
                opt("PromptUserToAllowBootstrapTokenForAuthentication", BOOL),
            ]),
        )],
    ),
    item(
        "MaximumResidentUsers",
        &[req("MaximumResidentUsers", at_least(0))],
    ),
    item(
        "SharedDeviceConfiguration",
        &[
            opt("QuotaSize", at_least(0)),
            opt("ResidentUsers", at_least(0)),
            opt("UserSessionTimeout", at_least(0)),
            opt("TemporarySessionTimeout", at_least(0)),
            opt("TemporarySessionOnly", BOOL),
            opt("ManagedAppleIDDefaultDomains", STRINGS),
            opt("OnlineAuthenticationGracePeriod", at_least(0)),
            opt("SkipLanguageAndLocaleSetupForNewUsers", BOOL),
            opt(
                "AwaitUserConfiguration",
                Kind::Dict(&[req("Enabled", BOOL)]),
            ),
            opt(
                "PasscodePolicy",
                Kind::Dict(&[
                    opt(
                        "PasscodeLockGracePeriod",
                        Kind::IntegerChoice(&[0, 60, 300, 900, 3600, 14400]),
                    ),
                    opt("AutoLockTime", at_least(120)),
                ]),
            ),
        ],
    ),
    item("DiagnosticSubmission", &[req("Enabled", BOOL)]),
    item("AppAnalytics", &[req("Enabled", BOOL)]),
    item(
        "PasscodeLockGracePeriod",
        &[req(
            "PasscodeLockGracePeriod",
            Kind::IntegerChoice(&[0, 60, 300, 900, 3600, 14400]),
        )],
    ),
    item("TimeZone", &[req("TimeZone", STRING)]),
    item(
        "SoftwareUpdateSettings",
        &[req(
            "RecommendationCadence",
            Kind::IntegerChoice(&[0, 1, 2]),
        )],
    ),
    item(
        "AccessibilitySettings",
        &[
            opt("BoldTextEnabled", BOOL),
            opt("IncreaseContrastEnabled", BOOL),
            opt("ReduceMotionEnabled", BOOL),
            opt("ReduceTransparencyEnabled", BOOL),
            opt(
                "TextSize",
                Kind::IntegerChoice(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
            ),
            opt("TouchAccommodationsEnabled", BOOL),
            opt("VoiceOverEnabled", BOOL),
            opt("ZoomEnabled", BOOL),
            opt("GrayscaleEnabled", BOOL),
        ],
    ),
];

/// What a managed app may be given besides its configuration.
const APP_ATTRIBUTES: &[Key] = &[
    opt("VPNUUID", STRING),
    opt("ContentFilterUUID", STRING),
    opt("DNSProxyUUID", STRING),
    opt("RelayUUID", STRING),
    opt("AssociatedDomains", STRINGS),
    opt("AssociatedDomainsEnableDirectDownloads", BOOL),
    opt("Removable", BOOL),
    opt("TapToPayScreenLock", BOOL),
    opt("CellularSliceUUID", STRING),
    opt("Hideable", BOOL),
    opt("Lockable", BOOL),
];

/// Keys every command may carry.
const COMMON: &[Key] = &[opt("RequestRequiresNetworkTether", BOOL)];

const FREE_QUERIES: &[&str] = &[
    "AwaitingConfiguration",
    "LastCloudBackupDate",
    "MDMOptions",
    "OrganizationInfo",
    "ProvisioningUDID",
    "UDID",
];

const NETWORK_QUERIES: &[&str] = &[
    "BluetoothMAC",
    "CarrierSettingsVersion",
    "CurrentCarrierNetwork",
    "CurrentMCC",
    "CurrentMNC",
    "DataRoamingEnabled",
    "EthernetMAC",
    "EthernetMACs",
    "ICCID",
    "IsNetworkTethered",
    "IsRoaming",
    "PersonalHotspotEnabled",
    "PhoneNumber",
    "SIMCarrierNetwork",
    "ServiceSubscriptions",
    "SubscriberCarrierNetwork",
    "SubscriberMCC",
    "SubscriberMNC",
    "VoiceRoamingEnabled",
    "WiFiMAC",
];

const STORE_QUERIES: &[&str] = &["iTunesStoreAccountHash", "iTunesStoreAccountIsActive"];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::spelling::fold;
    use super::*;

    #[test]
    fn rows_are_sorted_and_found_by_exact_name_only() {
        assert_eq!(CATALOG.len(), 68);
        assert!(CATALOG.is_sorted_by(|a, b| a.request_type < b.request_type));
        for row in CATALOG {
            assert_eq!(find(row.request_type), Some(row));
        }
        for unknown in ["devicelock", "DeviceLock ", ""] {
            assert_eq!(find(unknown), None);
        }
    }

    #[test]
    fn no_two_keys_of_a_dictionary_are_one_in_snake_case() {
        fn check(kind: &Kind, within: &str) {
            match kind {
                Kind::Array(of) => check(of, within),
                Kind::Dict(keys) => distinct(keys, &[], within),
                Kind::Items(items) => {
                    let names: HashSet<_> = items.iter().map(|item| item.name).collect();
                    assert_eq!(names.len(), items.len(), "{within}");
                    items
                        .iter()
                        .for_each(|item| distinct(item.keys, &["Item"], item.name));
                }
                _ => {}
            }
        }
        fn distinct(keys: &[Key], also: &[&str], within: &str) {
            let mut folded: HashSet<String> = also.iter().map(|name| fold(name)).collect();
            for key in keys {
                assert!(folded.insert(fold(key.name)), "{within}: {}", key.name);
                check(&key.kind, key.name);
            }
        }
        let common: Vec<&str> = COMMON
            .iter()
            .map(|key| key.name)
            .chain(["RequestType"])
            .collect();
        for row in CATALOG {
            distinct(row.keys, &common, row.request_type);
            for name in row.one_of {
                assert!(
                    row.keys
                        .iter()
                        .any(|key| key.name == *name && !key.required)
                );
            }
        }
    }

    #[test]
    fn the_destructive_set_is_exactly_this() {
        let destructive: Vec<_> = CATALOG.iter().filter(|row| row.destructive()).collect();
        let names: Vec<_> = destructive.iter().map(|row| row.request_type).collect();
        let expected = [
            "ClearActivationLockBypassCode",
            "ClearPasscode",
            "ClearRestrictionsPassword",
            "DeleteUser",
            "DeviceLock",
            "EnableLostMode",
            "EraseDevice",
            "RotateFileVaultKey",
            "SetAutoAdminPassword",
            "SetFirmwarePassword",
            "SetRecoveryLock",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn six_commands_go_first() {
        let urgent = CATALOG
            .iter()
            .filter(|row| row.urgent())
            .map(|row| row.request_type);
        let expected = [
            "DeviceLocation",
            "DeviceLock",
            "DisableLostMode",
            "EnableLostMode",
            "EraseDevice",
            "PlayLostModeSound",
        ];
        assert_eq!(urgent.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn rights_depend_on_platform_and_settings_items() {
        let row = |name| find(name).unwrap();
        assert_eq!(
            row("EraseDevice").rights_on(Platform::Ios),
            AccessRights::ERASE
        );
        assert_eq!(
            row("ClearPasscode").rights_on(Platform::MacOs),
            AccessRights::NONE
        );
        let list = row("ProvisioningProfileList");
        assert_eq!(list.rights_on(Platform::MacOs), AccessRights::NONE);
        assert_eq!(
            list.rights_on(Platform::Ios),
            AccessRights::INSPECT_PROVISIONING_PROFILES
        );

        let json = serde_json::json!({"request_type": "Settings", "settings": [
            {"item": "PersonalHotspot", "enabled": true},
            {"item": "ApplicationConfiguration", "identifier": "com.example.app"},
        ]});
        let built = build(json.as_object().unwrap()).unwrap();
        let expected = AccessRights::MANAGE_SETTINGS
            | AccessRights::NETWORK_INFORMATION
            | AccessRights::MANAGE_APPLICATIONS;
        assert_eq!(
            built.row.rights_for(Platform::Ios, &built.command),
            expected
        );
    }

    #[test]
    fn channels_depend_on_platform_and_shared_ipad() {
        let cases = [
            ("DeviceInformation", Platform::MacOs, false, BOTH),
            ("DeviceInformation", Platform::Ios, false, DEVICE),
            ("DeviceInformation", Platform::Ios, true, BOTH),
            ("InviteToProgram", Platform::MacOs, false, USER),
            ("InviteToProgram", Platform::Ios, true, USER),
            ("LogOutUser", Platform::Ios, false, Channels::NONE),
            ("LogOutUser", Platform::Ios, true, DEVICE),
            ("ClearPasscode", Platform::Ios, true, Channels::NONE),
            ("ClearPasscode", Platform::MacOs, false, Channels::NONE),
            ("RestartDevice", Platform::TvOs, false, DEVICE),
        ];
        for (name, platform, shared, channels) in cases {
            assert_eq!(
                find(name).unwrap().channels(platform, shared),
                channels,
                "{name}"
            );
        }
    }

    #[test]
    fn queries_need_the_right_that_guards_their_answer() {
        let cases = [
            ("UDID", AccessRights::NONE),
            ("SerialNumber", AccessRights::DEVICE_INFORMATION),
            ("WiFiMAC", AccessRights::NETWORK_INFORMATION),
            ("iTunesStoreAccountHash", AccessRights::MANAGE_APPLICATIONS),
        ];
        for (query, rights) in cases {
            assert_eq!(query_rights(query), rights, "{query}");
        }
    }
}
