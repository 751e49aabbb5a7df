//! Coming back: who may enroll again, through which link, and what they find.
//!
//! The devices here have identities of the server's own CA, bought with the challenge
//! of a profile as SCEP would.

use actors::store::{IssuedCertificate, Spent};
use actors::{Store, StoreError};
use reqwest::{Method, StatusCode};
use schema::Leaf;
use serde_json::{Value, json};
use sim::{Behaviour, CaKey, Channel, Client, Device, DeviceCa, KeyPool, Proof};

use crate::house::{House, id_of};

/// The server's own device CA.
fn own_ca(house: &House) -> DeviceCa {
    let copy = tempfile::tempdir().unwrap();
    for (from, to) in [("ca.pem", "ca.pem"), ("ca.key", "ca-key.pem")] {
        std::fs::copy(house.data().join(from), copy.path().join(to)).unwrap();
    }
    let pool = std::sync::Arc::new(KeyPool::growing(2));
    DeviceCa::open_or_create(copy.path(), CaKey::Rsa2048, pool).unwrap()
}

/// A link's id and the path of its URL.
async fn link(house: &House, terms: &Value) -> (String, String) {
    let (status, made) = house.post("/api/v1/enrollment-links", terms).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let path = made["url"].as_str().unwrap();
    let path = path.strip_prefix(&house.device_url()).unwrap();
    (made["id"].as_str().unwrap().to_owned(), path.to_owned())
}

/// Follows a link and buys the device a new identity with the challenge of its profile.
async fn identity_through(
    house: &House,
    path: &str,
    device: &mut Device,
) -> Result<Spent, StoreError> {
    let path = format!("{path}?unsigned=1");
    let profile = house.device(Method::GET, &path).send().await.unwrap();
    assert_eq!(profile.status(), StatusCode::OK);
    let profile = profile.text().await.unwrap();
    let challenge = profile.split("<key>Challenge</key>").nth(1).unwrap();
    let challenge = challenge.split(['<', '>']).nth(2).unwrap();
    device.identity = own_ca(house).issue(&device.udid).unwrap();
    let leaf = device.identity.leaf_hash();
    let certificate = IssuedCertificate {
        request: leaf,
        leaf: Leaf(leaf),
        der: vec![1],
        not_after: 4_000_000_000,
        serial: "AB".into(),
    };
    let store = &house.running.app.store;
    let hash = Store::challenge_hash(challenge.as_bytes());
    store.spend_challenge(hash, certificate).await
}

/// Follows a link, gets an identity and enrolls.
async fn enroll_through(
    house: &House,
    path: &str,
    device: &mut Device,
) -> Result<Client, sim::SimError> {
    let spent = identity_through(house, path, device).await;
    assert_eq!(spent, Ok(Spent::Issued));
    let mut client = Client::new(std::sync::Arc::new(house.target(Proof::Header)));
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
    let open = house.ask_information(&id).await;

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
