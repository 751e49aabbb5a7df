//! Coming back: who may enroll again, through which link, and what they find.
//!
//! The devices here enroll the real way: link, profile, SCEP, signed messages.

use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::rsa::Rsa;
use plist::Value;
use reqwest::{Method, StatusCode};
use serde_json::json;
use sim::{Behaviour, Channel, Client, Device, Proof, ScepClient, SimError};

use crate::house::{House, id_of};

/// A link's id and the path of its URL.
async fn link(house: &House, terms: &serde_json::Value) -> (String, String) {
    let (status, made) = house.post("/api/v1/enrollment-links", terms).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let path = made["url"].as_str().unwrap();
    let path = path.strip_prefix(&house.device_url()).unwrap();
    (made["id"].as_str().unwrap().to_owned(), path.to_owned())
}

/// Follows a link and does what its profile says: SCEP, then the check-in.
async fn enroll_through(
    house: &House,
    path: &str,
    device: &mut Device,
) -> Result<Client, SimError> {
    let path = format!("{path}?unsigned=1");
    let profile = house.device(Method::GET, &path).send().await.unwrap();
    assert_eq!(profile.status(), StatusCode::OK);
    let profile = schema::xml::parse(&profile.bytes().await.unwrap()).unwrap();
    let payloads = profile["PayloadContent"].as_array().unwrap().iter();
    let payload = payloads
        .filter_map(Value::as_dictionary)
        .find(|payload| payload["PayloadType"].as_string() == Some("com.apple.security.scep"));
    let scep = payload.unwrap()["PayloadContent"].as_dictionary().unwrap();
    let client = ScepClient::new(scep["URL"].as_string().unwrap(), reqwest::Client::new());
    let authority = client.authority().await.unwrap();
    let fingerprint = authority.ca.digest(MessageDigest::sha1()).unwrap();
    assert_eq!(scep["CAFingerprint"].as_data(), Some(&*fingerprint));
    let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
    let challenge = scep["Challenge"].as_string().unwrap();
    device.identity = client.enroll(&authority, &key, challenge).await?;
    // The profile says SignMessage, for no TLS is ended here.
    let mut client = Client::new(std::sync::Arc::new(house.target(Proof::Signature)));
    sim::enroll(device, &mut client).await.map(|()| client)
}

#[actix_web::test]
async fn a_device_that_came_through_a_link_has_its_tags_and_used_it_up() {
    let house = House::start().await;
    let (mut device, _) = house.new_device(Proof::Header);
    let (id, path) = link(&house, &json!({"tags": ["loan"]})).await;
    enroll_through(&house, &path, &mut device).await.unwrap();
    let of_device = format!("/api/v1/devices/{}", id_of(&device));
    assert_eq!(house.get(&of_device).await.1["tags"], json!(["loan"]));
    let (_, shown) = house.get(&format!("/api/v1/enrollment-links/{id}")).await;
    assert_eq!(
        (&shown["uses"], &shown["state"]),
        (&json!(1), &json!("used_up"))
    );
    let answer = house.device(Method::GET, &path).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::GONE);
}

#[actix_web::test]
async fn a_device_that_counts_as_enrolled_needs_more_than_any_link() {
    let house = House::start().await;
    let (mut device, _) = house.new_device(Proof::Header);
    let (_, path) = link(&house, &json!({"max_uses": 9})).await;
    let mut client = enroll_through(&house, &path, &mut device).await.unwrap();
    let mut again = device.clone();
    let refused = enroll_through(&house, &path, &mut again).await;
    assert!(refused.is_err());

    let erase = json!({"targets": {"ids": [id_of(&device)]},
        "command": {"request_type": "EraseDevice"}, "reason": "lost", "wake": false});
    let (status, queued) = house.post("/api/v1/commands", &erase).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{queued}");
    let mut mood = Behaviour::default().mood(&device);
    sim::poll_session(&device, Channel::Device, &mut client, &mut mood).await;
    let uuid = queued["command_uuid"].as_str().unwrap();
    house
        .until_state(&id_of(&device), uuid, "acknowledged")
        .await;
    enroll_through(&house, &path, &mut again).await.unwrap();
    let later = enroll_through(&house, &path, &mut device.clone()).await;
    assert!(later.is_err(), "the erasure was of the epoch before");
}

#[actix_web::test]
async fn where_any_link_will_do_a_device_simply_comes_back() {
    let any = |config: &mut reveille::Config| {
        config.device.reenroll = reveille::config::Reenroll::AnyLink;
    };
    let house = House::with(any).await;
    let (mut device, _) = house.new_device(Proof::Header);
    let (_, path) = link(&house, &json!({"max_uses": 9})).await;
    enroll_through(&house, &path, &mut device).await.unwrap();
    let open = house.ask_information(&id_of(&device)).await;
    enroll_through(&house, &path, &mut device).await.unwrap();
    house.until_state(&id_of(&device), &open, "cancelled").await;
}

#[actix_web::test]
async fn a_link_that_names_a_device_renews_it_and_keeps_its_queue() {
    let house = House::start().await;
    let (mut device, _) = house.new_device(Proof::Header);
    let first = json!({"device": device.serial, "access_rights": ["inspect_profiles", "erase"]});
    let (_, path) = link(&house, &first).await;
    enroll_through(&house, &path, &mut device).await.unwrap();
    let id = id_of(&device);
    let profiles = json!({"request_type": "ProfileList"});
    let open = house.queue(&id, &profiles).await;

    let more = json!({"device": id, "access_rights": ["erase", "manage_settings"]});
    let (status, problem) = house.post("/api/v1/enrollment-links", &more).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("manage_settings"), "{detail}");

    let (same, path) = link(&house, &json!({"device": device.serial})).await;
    let (_, shown) = house.get(&format!("/api/v1/enrollment-links/{same}")).await;
    assert_eq!(shown["access_rights"], first["access_rights"]);
    let mut client = enroll_through(&house, &path, &mut device).await.unwrap();
    assert_eq!(house.state(&id, &open).await, "released");
    let mut mood = Behaviour::default().mood(&device);
    sim::poll_session(&device, Channel::Device, &mut client, &mut mood).await;
    house.until_state(&id, &open, "acknowledged").await;
}

#[actix_web::test]
async fn a_link_that_names_a_device_is_of_no_use_to_another() {
    let house = House::start().await;
    let (mut named, _) = house.new_device(Proof::Header);
    let (mut other, _) = house.new_device(Proof::Header);
    let terms = json!({"device": named.serial, "max_uses": 2});
    let (_, path) = link(&house, &terms).await;
    assert!(enroll_through(&house, &path, &mut other).await.is_err());
    enroll_through(&house, &path, &mut named).await.unwrap();
}
