//! What devices report is read into their inventory, and finds them again.

use reqwest::StatusCode;
use serde_json::{Value, json};
use sim::{Behaviour, Channel, Device, Proof};

use crate::house::{House, id_of};

/// Has a device answer commands of these kinds.
async fn tells(house: &House, device: &Device, client: &mut sim::Client, kinds: &[&str]) {
    for kind in kinds {
        let command = match *kind {
            "DeviceInformation" => json!({"request_type": kind, "queries":
                ["DeviceName", "OSVersion", "IsSupervised", "AvailableDeviceCapacity"]}),
            kind => json!({"request_type": kind}),
        };
        house.queue(&id_of(device), &command).await;
    }
    let mut mood = Behaviour::default().mood(device);
    let session = sim::poll_session(device, Channel::Device, client, &mut mood).await;
    assert_eq!(session.completed().unwrap().steps.len(), kinds.len());
}

async fn shown(house: &House, device: &Device) -> Value {
    let (status, shown) = house
        .get(&format!("/api/v1/devices/{}", id_of(device)))
        .await;
    assert_eq!(status, StatusCode::OK, "{shown}");
    shown["inventory"].clone()
}

async fn found(house: &House, filter: &str) -> Vec<String> {
    let (status, page) = house.get(&format!("/api/v1/devices?{filter}")).await;
    assert_eq!(status, StatusCode::OK, "{page}");
    let items = page["items"].as_array().unwrap().iter();
    items
        .map(|item| item["id"].as_str().unwrap().to_owned())
        .collect()
}

const KINDS: [&str; 5] = [
    "DeviceInformation",
    "SecurityInfo",
    "InstalledApplicationList",
    "ProfileList",
    "CertificateList",
];

#[actix_web::test]
async fn what_a_device_reports_is_its_inventory_and_finds_it() {
    let house = House::start().await;
    let (device, mut client) = house.enrolled(Proof::Header).await;
    let (silent, _) = house.enrolled(Proof::Header).await;
    assert_eq!(shown(&house, &device).await, json!({}));
    tells(&house, &device, &mut client, &KINDS).await;

    let told = shown(&house, &device).await;
    for kind in [
        "device_information",
        "security_info",
        "installed_applications",
        "profiles",
        "certificates",
    ] {
        assert!(
            told[kind].is_object() || told[kind].is_array(),
            "{kind}: {told}"
        );
        assert!(told[format!("{kind}_at")].is_string(), "{kind}: {told}");
    }
    assert_eq!(shown(&house, &silent).await, json!({}));

    let information = &told["device_information"];
    let supervised = information["IsSupervised"].as_bool().unwrap();
    let free = information["AvailableDeviceCapacity"].as_f64().unwrap();
    let app = told["installed_applications"][0]["Identifier"]
        .as_str()
        .unwrap();
    let profile = told["profiles"][0]["PayloadIdentifier"].as_str().unwrap();
    let passcode = told["security_info"]["PasscodePresent"].as_bool().unwrap();
    let one = [id_of(&device)];
    for (meets, does_not) in [
        (
            format!("supervised={supervised}"),
            format!("supervised={}", !supervised),
        ),
        (
            format!("passcode={passcode}"),
            format!("passcode={}", !passcode),
        ),
        (
            format!("free_gb_below={}", free + 1.0),
            format!("free_gb_below={}", free / 2.0),
        ),
        (format!("app={app}"), "app=com.example.none".to_owned()),
        (format!("profile={profile}"), "profile=none".to_owned()),
        (
            "certificate_expires_before=2100-01-01T00:00:00Z".to_owned(),
            "certificate_expires_before=1990-01-01T00:00:00Z".to_owned(),
        ),
    ] {
        assert_eq!(found(&house, &meets).await, one, "{meets}");
        assert_eq!(found(&house, &does_not).await, [""; 0], "{does_not}");
    }
    assert_eq!(found(&house, "").await.len(), 2);

    let house = house.restarted().await;
    assert_eq!(shown(&house, &device).await, told);
}

#[actix_web::test]
async fn a_filter_on_the_inventory_makes_targets_too() {
    let house = House::start().await;
    let (device, mut client) = house.enrolled(Proof::Header).await;
    let (_silent, _) = house.enrolled(Proof::Header).await;
    tells(&house, &device, &mut client, &["InstalledApplicationList"]).await;
    let told = shown(&house, &device).await;
    let app = &told["installed_applications"][0]["Identifier"];
    let order = json!({
        "targets": {"filter": {"app": app}}, "command": {"request_type": "ProfileList"},
    });
    let (status, queued) = house.post("/api/v1/commands", &order).await;
    assert_eq!(
        (status, &queued["accepted"]),
        (StatusCode::ACCEPTED, &json!(1))
    );
}

#[actix_web::test]
async fn a_condition_at_fault_is_named() {
    let house = House::start().await;
    for (filter, pointer) in [
        ("supervised=maybe", "/supervised"),
        ("filevault=1", "/filevault"),
        ("passcode=", "/passcode"),
        ("free_gb_below=many", "/free_gb_below"),
        ("free_gb_below=-1", "/free_gb_below"),
        ("free_gb_below=nan", "/free_gb_below"),
        (
            "certificate_expires_before=soon",
            "/certificate_expires_before",
        ),
    ] {
        let (status, problem) = house.get(&format!("/api/v1/devices?{filter}")).await;
        assert_eq!(
            status,
            StatusCode::UNPROCESSABLE_ENTITY,
            "{filter}: {problem}"
        );
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
}
