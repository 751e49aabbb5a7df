//! Enrollment links whose profile carries the identity itself, key and all.

use openssl::pkcs12::Pkcs12;
use openssl::pkey::{PKey, Private};
use openssl::x509::X509;
use plist::{Dictionary, Value};
use reqwest::{Method, StatusCode};
use schema::Leaf;
use serde_json::json;
use sim::{Behaviour, Channel, Client, Device, Dice, Invitation, KeyPool, Kind, Proof, SimError};

use crate::house::{House, id_of};

/// A link's id and its URL.
async fn link(house: &House, terms: &serde_json::Value) -> (String, String) {
    let mut terms = terms.clone();
    terms["identity"] = "pkcs12".into();
    let (status, made) = house.post("/api/v1/enrollment-links", &terms).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let text = |key: &str| made[key].as_str().unwrap().to_owned();
    (text("id"), text("url"))
}

fn path(house: &House, url: &str) -> String {
    url.strip_prefix(&house.device_url()).unwrap().to_owned()
}

async fn uses(house: &House, id: &str) -> (u64, String) {
    let (_, shown) = house.get(&format!("/api/v1/enrollment-links/{id}")).await;
    assert_eq!(shown["identity"], "pkcs12");
    let state = shown["state"].as_str().unwrap().to_owned();
    (shown["uses"].as_u64().unwrap(), state)
}

async fn ask(house: &House, method: Method, path: &str, accept: &str) -> (StatusCode, Vec<u8>) {
    let request = house.device(method, path).header("Accept", accept);
    let response = request.send().await.unwrap();
    (response.status(), response.bytes().await.unwrap().to_vec())
}

/// The payloads of an unsigned profile.
fn payloads(profile: &[u8]) -> Vec<Dictionary> {
    let profile = schema::xml::parse(profile).unwrap();
    let payloads = profile["PayloadContent"].as_array().unwrap().iter();
    payloads
        .map(|payload| payload.as_dictionary().unwrap().clone())
        .collect()
}

fn of_kind<'a>(payloads: &'a [Dictionary], kind: &str) -> Option<&'a Dictionary> {
    payloads
        .iter()
        .find(|payload| text(payload, "PayloadType") == kind)
}

fn text<'a>(of: &'a Dictionary, key: &str) -> &'a str {
    of.get(key).and_then(Value::as_string).unwrap_or_default()
}

/// The key and the certificate of an unsigned profile.
fn opened(profile: &[u8]) -> (PKey<Private>, X509) {
    let payloads = payloads(profile);
    let payload = of_kind(&payloads, "com.apple.security.pkcs12").unwrap();
    let der = payload["PayloadContent"].as_data().unwrap();
    let opened = Pkcs12::from_der(der).unwrap();
    let opened = opened.parse2(text(payload, "Password")).unwrap();
    (opened.pkey.unwrap(), opened.cert.unwrap())
}

fn holds(der: &[u8], oid: &[u8]) -> usize {
    der.windows(oid.len()).filter(|at| *at == oid).count()
}

#[actix_web::test]
async fn a_profile_carries_an_identity_of_our_ca_in_the_form_every_ios_opens() {
    let house = House::start().await;
    let (id, url) = link(&house, &json!({"device": "SERIAL1"})).await;
    let unsigned = format!("{}?unsigned=1", path(&house, &url));
    let (status, profile) = ask(&house, Method::GET, &unsigned, "*/*").await;
    assert_eq!(status, StatusCode::OK);
    let payloads = payloads(&profile);
    assert!(of_kind(&payloads, "com.apple.security.scep").is_none());
    let identity = of_kind(&payloads, "com.apple.security.pkcs12").unwrap();
    let mdm = of_kind(&payloads, "com.apple.mdm").unwrap();
    let named = text(mdm, "IdentityCertificateUUID");
    assert_eq!(named, text(identity, "PayloadUUID"));

    let der = identity["PayloadContent"].as_data().unwrap();
    assert_eq!(holds(der, PBE_SHA1_3DES), 2, "the certificate and the key");
    assert_eq!(holds(der, SHA1), 1, "the MAC");
    assert_eq!(holds(der, PBES2), 0);
    assert!(text(identity, "Password").len() >= 32);
    let (key, certificate) = opened(&profile);
    assert_eq!((key.rsa().unwrap().size(), key.bits()), (256, 2048));
    assert!(certificate.public_key().unwrap().public_eq(&key));
    let ca = house.running.app.scep.ca().certificate_der().unwrap();
    let ca_key = X509::from_der(&ca).unwrap().public_key().unwrap();
    assert!(certificate.verify(&ca_key).unwrap(), "of our device CA");

    let leaf = Leaf(openssl::sha::sha256(&certificate.to_der().unwrap()));
    let record = house.running.app.store.certificate(leaf).unwrap().unwrap();
    assert_eq!(record.link.as_deref(), Some(&*id));
    assert_eq!(record.issued_for.unwrap().as_str(), "SERIAL1");
}

#[actix_web::test]
async fn each_profile_has_its_own_identity_and_is_a_use_while_looking_is_none() {
    let house = House::start().await;
    let (id, url) = link(&house, &json!({"max_uses": 3})).await;
    let path = path(&house, &url);
    let unsigned = format!("{path}?unsigned=1");
    let (status, page) = ask(&house, Method::GET, &path, "text/html").await;
    assert_eq!(status, StatusCode::OK);
    let page = String::from_utf8(page).unwrap();
    assert!(page.contains("counts as a use of this link"), "{page}");
    for path in [&path, &unsigned, &format!("{path}?profile=1")] {
        let (_, body) = ask(&house, Method::HEAD, path, "*/*").await;
        assert!(body.is_empty());
    }
    assert_eq!(uses(&house, &id).await, (0, "open".into()));

    let (_, first) = ask(&house, Method::GET, &unsigned, "*/*").await;
    assert_eq!(uses(&house, &id).await.0, 1);
    let export = format!("/api/v1/enrollment-links/{id}/profile?unsigned=1");
    let second = house.admin(Method::GET, &export).send().await.unwrap();
    assert_eq!(second.status(), StatusCode::OK);
    let second = second.bytes().await.unwrap();
    let ((one, of_one), (other, of_other)) = (opened(&first), opened(&second));
    assert!(!one.public_eq(&other));
    assert_ne!(of_one.to_der().unwrap(), of_other.to_der().unwrap());
    let (status, _) = ask(&house, Method::GET, &path, "*/*").await;
    assert_eq!(status, StatusCode::OK, "the signed one");
    assert_eq!(uses(&house, &id).await, (3, "used_up".into()));

    let (status, _) = ask(&house, Method::GET, &unsigned, "*/*").await;
    assert_eq!(status, StatusCode::GONE);
    let (status, problem) = house.get(&export).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(problem["code"], "link_void");
    assert_eq!(uses(&house, &id).await.0, 3);
}

#[actix_web::test]
async fn many_at_once_get_no_more_profiles_than_the_link_has_uses() {
    let house = House::start().await;
    let (id, url) = link(&house, &json!({"max_uses": 2})).await;
    let path = path(&house, &url);
    let asked = (0..6).map(|_| ask(&house, Method::GET, &path, "*/*"));
    let answers = futures_util::future::join_all(asked).await;
    let served = answers.iter().filter(|(status, _)| *status == 200).count();
    let gone = answers.iter().filter(|(status, _)| *status == 410).count();
    assert_eq!((served, gone), (2, 4));
    assert_eq!(uses(&house, &id).await, (2, "used_up".into()));
}

#[actix_web::test]
async fn a_revoked_link_makes_no_identity() {
    let house = House::start().await;
    let (id, url) = link(&house, &json!({})).await;
    house
        .delete(&format!("/api/v1/enrollment-links/{id}"))
        .await;
    let (status, _) = ask(&house, Method::GET, &path(&house, &url), "*/*").await;
    assert_eq!(status, StatusCode::GONE);
    assert_eq!(uses(&house, &id).await, (0, "revoked".into()));
}

/// A house whose devices connect over TLS, with a push certificate.
async fn tls() -> House {
    let house = House::tls(|_| {}).await;
    house.import_push_certificate().await;
    house
}

fn invitation(house: &House, url: &str) -> Invitation {
    let root = house.running.app.tls_root_pem.clone().unwrap();
    Invitation::new(url, &root).unwrap()
}

/// Enrolls over mTLS with the identity the link's profile carries.
async fn enroll(house: &House, url: &str, device: &mut Device) -> Result<Client, SimError> {
    let invitation = invitation(house, url);
    let told = invitation.profile().await?;
    let keys = KeyPool::growing(1);
    device.identity = invitation.identity(&told, &keys).await?;
    let mut client = Client::new(std::sync::Arc::new(house.target(Proof::Tls)));
    sim::enroll(device, &mut client).await.map(|()| client)
}

#[actix_web::test]
async fn a_device_enrolls_with_it_over_mutual_tls_and_does_what_it_is_told() {
    let house = tls().await;
    let (_, url) = link(&house, &json!({"tags": ["loan"]})).await;
    let mut dice = Dice::named(0, "a");
    let keys = KeyPool::growing(1);
    let invitation = invitation(&house, &url);
    let accepted = invitation.accept(&keys, Kind::IPhone, &mut dice);
    let (device, told) = accepted.await.unwrap();
    assert!(!told.sign_message);
    let mut client = Client::new(std::sync::Arc::new(house.target(Proof::Tls)));
    sim::enroll(&device, &mut client).await.unwrap();
    let id = id_of(&device);
    let (_, shown) = house.get(&format!("/api/v1/devices/{id}")).await;
    assert_eq!(shown["tags"], json!(["loan"]));
    let asked = house.ask_information(&id).await;
    let mut mood = Behaviour::default().mood(&device);
    sim::poll_session(&device, Channel::Device, &mut client, &mut mood).await;
    house.until_state(&id, &asked, "acknowledged").await;
}

#[actix_web::test]
async fn a_link_that_names_a_device_renews_it_and_keeps_its_queue() {
    let house = tls().await;
    let (mut device, _) = house.new_device(Proof::Tls);
    let terms = json!({ "device": device.serial });
    let (_, first) = link(&house, &terms).await;
    enroll(&house, &first, &mut device).await.unwrap();
    let before = device.identity.leaf_hash();
    let id = id_of(&device);
    let open = house.ask_information(&id).await;

    let (_, any) = link(&house, &json!({})).await;
    let refused = enroll(&house, &any, &mut device.clone()).await;
    assert!(refused.is_err(), "it counts as enrolled");

    let (_, again) = link(&house, &terms).await;
    let mut client = enroll(&house, &again, &mut device).await.unwrap();
    assert_ne!(device.identity.leaf_hash(), before);
    assert_eq!(house.state(&id, &open).await, "released");
    let mut mood = Behaviour::default().mood(&device);
    sim::poll_session(&device, Channel::Device, &mut client, &mut mood).await;
    house.until_state(&id, &open, "acknowledged").await;
}

/// 1.2.840.113549.1.12.1.3, 1.3.14.3.2.26 and 1.2.840.113549.1.5.13.
const PBE_SHA1_3DES: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x01, 0x03];
const SHA1: &[u8] = &[0x2b, 0x0e, 0x03, 0x02, 0x1a];
const PBES2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0d];
