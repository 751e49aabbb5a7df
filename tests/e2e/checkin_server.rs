//! A listener of its own for check-ins: what profiles say of it, and what it takes.

use std::sync::Arc;

use plist::Value;
use reqwest::{Certificate, Method, StatusCode};
use reveille::Config;
use serde_json::json;
use sim::{Channel, Client, Device, Proof, Target};

use crate::house::{House, TOPIC, id_of};

async fn house() -> House {
    let listen = |config: &mut Config| {
        config.device.checkin_listen = Some(([127, 0, 0, 1], 0).into());
    };
    let house = House::tls(listen).await;
    house.import_push_certificate().await;
    house
}

fn checkin_url(house: &House) -> String {
    format!(
        "https://localhost:{}",
        house.running.checkin.unwrap().port()
    )
}

/// A line to the listener of check-ins.
fn line(house: &House, proof: Proof) -> Client {
    let root = house.running.app.tls_root_pem.as_ref().unwrap();
    Client::new(Arc::new(Target {
        proof,
        ..Target::tls(&checkin_url(house), root).unwrap()
    }))
}

fn browser(house: &House) -> reqwest::Client {
    let root = house.running.app.tls_root_pem.as_ref().unwrap();
    let root = Certificate::from_pem(root).unwrap();
    let client = reqwest::Client::builder().add_root_certificate(root);
    client.build().unwrap()
}

#[actix_web::test]
async fn a_profile_names_it_as_check_in_url_and_the_first_listener_as_server_url() {
    let house = house().await;
    let (status, made) = house.post("/api/v1/enrollment-links", &json!({})).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let url = format!("{}?unsigned=1", made["url"].as_str().unwrap());
    let profile = browser(&house).get(url).send().await.unwrap();
    let profile = schema::xml::parse(&profile.bytes().await.unwrap()).unwrap();
    let mut payloads = profile["PayloadContent"].as_array().unwrap().iter();
    let is_mdm = |payload: &&Value| {
        let payload = payload.as_dictionary().unwrap();
        payload["PayloadType"].as_string() == Some("com.apple.mdm")
    };
    let mdm = payloads.find(is_mdm).unwrap().as_dictionary().unwrap();
    let (checkin, server) = (checkin_url(&house), house.device_url());
    assert_ne!(checkin, server);
    let said = |key: &str| mdm[key].as_string().unwrap().to_owned();
    assert_eq!(said("CheckInURL"), format!("{checkin}/mdm/checkin"));
    assert_eq!(said("ServerURL"), format!("{server}/mdm/connect"));
}

#[actix_web::test]
async fn a_device_checks_in_there_and_polls_on_the_first() {
    let house = house().await;
    for proof in [Proof::Tls, Proof::Signature] {
        let device = Device::new(&house.ca, TOPIC).unwrap();
        sim::enroll(&device, &mut line(&house, proof))
            .await
            .unwrap();
        let id = id_of(&device);
        let uuid = house.ask_information(&id).await;
        let mut first = Client::new(Arc::new(house.target(proof)));
        let idle = device.idle(Channel::Device);
        let answer = first.report(&device.identity, idle).await.unwrap();
        let command = sim::Command::parse(&answer.body).unwrap().unwrap();
        assert_eq!(command.uuid, uuid);
    }
    // Who enrolled before it was there goes on as it was.
    house.enrolled(Proof::Tls).await;
}

#[actix_web::test]
async fn it_takes_nothing_but_check_ins() {
    let house = house().await;
    let (device, _) = house.enrolled(Proof::Tls).await;
    let idle = device.idle(Channel::Device);
    let uuid = house.ask_information(&id_of(&device)).await;
    let mut checkin = line(&house, Proof::Tls);
    let refused = checkin
        .report(&device.identity, idle.clone())
        .await
        .unwrap();
    assert_eq!(refused.status, StatusCode::NOT_FOUND);

    let url = checkin_url(&house);
    let browser = browser(&house);
    let put = browser.put(format!("{url}/mdm/checkin"));
    let put = put.header("Content-Type", "application/x-apple-aspen-mdm");
    let refused = put.body(idle).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::NOT_FOUND, "a report there");
    assert_eq!(house.state(&id_of(&device), &uuid).await, "released");

    let (_, made) = house.post("/api/v1/enrollment-links", &json!({})).await;
    let link = made["url"].as_str().unwrap();
    let link = link.strip_prefix(&house.device_url()).unwrap();
    for (path, status) in [
        (link, StatusCode::NOT_FOUND),
        ("/scep?operation=GetCACaps", StatusCode::NOT_FOUND),
        ("/healthz", StatusCode::OK),
    ] {
        let asked = browser.request(Method::GET, format!("{url}{path}"));
        assert_eq!(asked.send().await.unwrap().status(), status, "{path}");
        let first = format!("{}{path}", house.device_url());
        let first = browser.get(first).send().await.unwrap();
        assert_eq!(first.status(), StatusCode::OK, "{path}");
    }
}
