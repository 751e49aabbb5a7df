//! Identities that come inside the profile: each of its own, each a use of the link.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sim::{Behaviour, Channel, Client, Device, Dice, Invitation, KeyPool, Kind, Proof};

use crate::house::{House, TOPIC, id_of};

/// A house over TLS that can make links.
async fn house() -> House {
    let house = House::tls(|_| {}).await;
    let pem = String::from_utf8(sim::push_certificate(TOPIC).unwrap()).unwrap();
    let certificate = json!({ "pem": pem });
    let put = house.put("/api/v1/push-certificates", &certificate).await;
    assert_eq!(put.0, StatusCode::OK, "{}", put.1);
    house
}

/// The id of a link on these terms, and the way in.
async fn invited(house: &House, terms: &Value) -> (String, String, Invitation) {
    let (status, link) = house.post("/api/v1/enrollment-links", terms).await;
    assert_eq!(status, StatusCode::CREATED, "{link}");
    let url = link["url"].as_str().unwrap().to_owned();
    let root = house.running.app.tls_root_pem.as_ref().unwrap();
    let invitation = Invitation::new(&url, root).unwrap();
    (link["id"].as_str().unwrap().to_owned(), url, invitation)
}

async fn uses(house: &House, id: &str) -> Value {
    let path = format!("/api/v1/enrollment-links/{id}");
    house.get(&path).await.1["uses"].clone()
}

async fn performs_what_waits(device: &Device, client: &mut Client) -> Vec<String> {
    let mut mood = Behaviour::default().mood(device);
    let session = sim::poll_session(device, Channel::Device, client, &mut mood).await;
    let steps = session.completed().unwrap().steps;
    steps.into_iter().map(|step| step.uuid).collect()
}

#[actix_web::test]
async fn a_profile_carries_an_identity_of_its_own_and_is_a_use_of_its_link() {
    let house = house().await;
    let terms = json!({"identity": "pkcs12", "max_uses": 2});
    let (id, url, invitation) = invited(&house, &terms).await;
    let root = house.running.app.tls_root_pem.as_ref().unwrap();
    let root = reqwest::Certificate::from_pem(root).unwrap();
    let browser = reqwest::Client::builder().tls_certs_only([root]);
    let browser = browser.no_proxy().build().unwrap();
    let page = browser.get(&url).header("Accept", "text/html").send().await;
    let page = page.unwrap().text().await.unwrap();
    assert!(page.contains("each download counts"), "{page}");
    browser.head(&url).send().await.unwrap();
    assert_eq!(uses(&house, &id).await, 0, "looking is no use");

    let keys = KeyPool::generate(1).unwrap();
    let mut devices = Vec::new();
    for n in ["one", "two"] {
        let mut dice = Dice::named(7, n);
        let accepted = invitation.accept(&keys, Kind::IPhone, &mut dice).await;
        let (device, _) = accepted.unwrap();
        let mut client = Client::new(std::sync::Arc::new(house.target(Proof::Tls)));
        sim::enroll(&device, &mut client).await.unwrap();
        let uuid = house.ask_information(&id_of(&device)).await;
        assert_eq!(performs_what_waits(&device, &mut client).await, [uuid]);
        devices.push(device);
    }
    assert_ne!(devices[0].identity.cert_der, devices[1].identity.cert_der);
    assert_eq!(uses(&house, &id).await, 2);
    let third = browser.get(&url).send().await.unwrap();
    assert_eq!(third.status(), StatusCode::GONE);
    let exported = format!("/api/v1/enrollment-links/{id}/profile");
    assert_eq!(house.get(&exported).await.0, StatusCode::CONFLICT);
}

#[actix_web::test]
async fn a_link_that_names_a_device_renews_its_identity_and_keeps_its_queue() {
    let house = house().await;
    let (_, _, invitation) = invited(&house, &json!({"identity": "pkcs12"})).await;
    let keys = KeyPool::generate(1).unwrap();
    let mut dice = Dice::named(7, "renewed");
    let accepted = invitation.accept(&keys, Kind::IPhone, &mut dice).await;
    let (mut device, _) = accepted.unwrap();
    let mut client = Client::new(std::sync::Arc::new(house.target(Proof::Tls)));
    sim::enroll(&device, &mut client).await.unwrap();
    let uuid = house.ask_information(&id_of(&device)).await;

    let named = json!({"identity": "pkcs12", "device": id_of(&device)});
    let (_, _, again) = invited(&house, &named).await;
    device.identity = again.renew(&keys).await.unwrap();
    client.disconnect();
    sim::enroll(&device, &mut client).await.unwrap();
    assert_eq!(performs_what_waits(&device, &mut client).await, [uuid]);
}

#[actix_web::test]
async fn a_revoked_link_hands_out_no_identity_and_nonsense_makes_no_link() {
    let house = house().await;
    let (id, _, invitation) = invited(&house, &json!({"identity": "pkcs12"})).await;
    let path = format!("/api/v1/enrollment-links/{id}");
    house.admin(Method::DELETE, &path).send().await.unwrap();
    let keys = KeyPool::generate(1).unwrap();
    assert!(invitation.renew(&keys).await.is_err());
    assert_eq!(uses(&house, &id).await, 0);

    let shared = json!({"identity": "pkcs12", "challenge": "shared"});
    let (status, problem) = house.post("/api/v1/enrollment-links", &shared).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(problem["errors"][0]["pointer"], "/challenge");
    let unknown = json!({"identity": "smartcard"});
    let (status, problem) = house.post("/api/v1/enrollment-links", &unknown).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem}");
}
