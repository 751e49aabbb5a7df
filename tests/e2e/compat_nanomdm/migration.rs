//! `PUT /migration`: devices of a former server come over without enrolling again.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sim::{Channel, Device, DeviceCa, Identity, Proof};

use super::{KEY, NANOHUB, call, get, next_command, plist, put};
use crate::house::{House, answer, id_of};

/// Where a check-in under an identity is handed over.
fn path(identity: &Identity) -> String {
    let hash = identity.leaf_hash();
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("/migration?certificate_sha256={hex}")
}

async fn hand_over(house: &House, device: &Device) {
    for message in [device.authenticate(), device.token_update()] {
        let (status, why) = put(house, &path(&device.identity), message).await;
        assert_eq!((status, why), (200, Value::Null));
    }
}

#[actix_web::test]
async fn a_device_handed_over_goes_on_with_the_certificate_it_has() {
    let house = House::start().await;
    for proof in [Proof::Header, Proof::Signature] {
        let (mut device, mut client) = house.new_device(proof);
        hand_over(&house, &device).await;
        let id = id_of(&device);
        let (_, shown) = house.get(&format!("/api/v1/devices/{id}")).await;
        assert!(shown["certificate"].get("not_after").is_none(), "{shown}");
        assert_eq!(shown["certificate"]["expired"], false, "{shown}");

        let raw = plist(&format!("FOR-{id}"), "ProfileList");
        let (status, result) = put(&house, &format!("/v1/enqueue/{id}"), raw.clone()).await;
        assert_eq!(status, 200, "it can be woken: {result}");
        let own = device.identity.clone();
        device.identity = house.ca.issue(&device.udid).unwrap();
        let idle = device.idle(Channel::Device);
        let other = client.report(&device.identity, idle).await.unwrap();
        assert_eq!(
            other.status,
            StatusCode::FORBIDDEN,
            "another leaf of its CA"
        );
        device.identity = own;
        assert_eq!(next_command(&device, &mut client).await, raw);
    }
}

#[actix_web::test]
async fn the_same_stream_again_changes_nothing() {
    let house = House::start().await;
    let (device, mut client) = house.new_device(Proof::Header);
    hand_over(&house, &device).await;
    let secret = device.set_bootstrap_token(b"escrowed");
    let (status, _) = put(&house, &path(&device.identity), secret).await;
    assert_eq!(status, 200);
    let id = id_of(&device);
    let uuid = house.ask_information(&id).await;
    let device_path = format!("/api/v1/devices/{id}");
    let before = house.get(&device_path).await;
    house.clock.set(crate::house::NOW.plus_seconds(3600));
    hand_over(&house, &device).await;
    let after = house.get(&device_path).await;
    assert_eq!(before, after);
    assert_eq!(house.state(&id, &uuid).await, "released", "its queue stays");
    assert!(next_command(&device, &mut client).await.contains(&uuid));
    let asked = device.get_bootstrap_token();
    let token = client.check_in(&device.identity, asked).await.unwrap();
    let token = schema::xml::parse(&token.body).unwrap();
    assert_eq!(token["BootstrapToken"].as_data(), Some(&b"escrowed"[..]));

    let gone = put(&house, &path(&device.identity), device.check_out()).await;
    assert_eq!(gone.0, 200);
    assert_eq!(house.state(&id, &uuid).await, "cancelled");
}

#[actix_web::test]
async fn a_device_enrolled_under_another_certificate_is_not_taken_over() {
    let house = House::start().await;
    let (device, mut client) = house.enrolled(Proof::Header).await;
    let before = house
        .get(&format!("/api/v1/devices/{}", id_of(&device)))
        .await;
    let other = DeviceCa::quick().unwrap().issue("other").unwrap();
    for message in [
        device.authenticate(),
        device.token_update(),
        device.check_out(),
    ] {
        let (status, why) = put(&house, &path(&other), message).await;
        assert_eq!(status, 409, "{why}");
        assert!(why["error"].is_string(), "{why}");
    }
    let (stranger, _) = house.new_device(Proof::Header);
    let taken = put(&house, &path(&device.identity), stranger.authenticate()).await;
    assert_eq!(
        taken.0, 409,
        "its certificate is not another device's: {}",
        taken.1
    );
    let early = put(&house, &path(&stranger.identity), stranger.token_update()).await;
    assert_eq!(early.0, 409, "before its Authenticate: {}", early.1);
    let after = house
        .get(&format!("/api/v1/devices/{}", id_of(&device)))
        .await;
    assert_eq!(before, after);
    let uuid = house.ask_information(&id_of(&device)).await;
    assert!(next_command(&device, &mut client).await.contains(&uuid));
}

#[actix_web::test]
async fn a_device_that_enrolled_here_is_past_being_handed_over() {
    let house = House::start().await;
    let (device, mut client) = house.enrolled(Proof::Header).await;
    let uuid = house.ask_information(&id_of(&device)).await;
    let old = [
        device.authenticate(),
        device.token_update(),
        device.set_bootstrap_token(b"old"),
        device.check_out(),
    ];
    for message in old {
        let (status, why) = put(&house, &path(&device.identity), message).await;
        assert_eq!(status, 409, "under the very certificate it has: {why}");
    }
    assert!(next_command(&device, &mut client).await.contains(&uuid));
}

#[actix_web::test]
async fn what_is_wrong_with_it_is_named_and_nothing_changes() {
    let house = House::start().await;
    let (device, _) = house.new_device(Proof::Header);
    let long = format!("/migration?certificate_sha256={}", "a".repeat(65));
    for bad in ["/migration", "/migration?certificate_sha256=xyz", &long] {
        let (status, why) = put(&house, bad, device.authenticate()).await;
        assert_eq!(status, 400, "{bad}");
        let why = why["error"].as_str().unwrap();
        assert!(why.contains("certificate_sha256"), "{why}");
    }
    let good = path(&device.identity);
    for body in [b"<plist>".to_vec(), device.get_bootstrap_token()] {
        let (status, why) = put(&house, &good, body).await;
        assert_eq!(status, 400, "{why}");
    }
    let request = call(&house, Method::PUT, &good).body(device.authenticate());
    assert_eq!(answer(request).await.0, StatusCode::UNAUTHORIZED);
    let (_, page) = house.get("/api/v1/devices").await;
    assert_eq!(page["items"], json!([]));
    assert_eq!(get(&house, "/v1/migration").await.0, 404);
}

#[actix_web::test]
async fn nanohub_has_it_under_its_path() {
    let house = House::start().await;
    let (device, _) = house.new_device(Proof::Header);
    let path = format!("{NANOHUB}{}", path(&device.identity));
    let request = call(&house, Method::PUT, &path).basic_auth("nanohub", Some(KEY));
    let (status, why) = answer(request.body(device.authenticate())).await;
    assert_eq!(status, StatusCode::OK, "{why}");
}
