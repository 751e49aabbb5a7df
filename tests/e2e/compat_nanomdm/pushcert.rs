//! `PUT` and `GET /v1/pushcert`: push certificates in PEM.

use openssl::pkey::PKey;
use openssl::symm::Cipher;
use reqwest::{Method, StatusCode};
use serde_json::json;

use super::{KEY, call, get, put};
use crate::house::{House, TOPIC};

#[actix_web::test]
async fn a_push_certificate_goes_in_as_pem_in_any_order() {
    let house = House::start().await;
    let topic = "com.apple.mgmt.External.other";
    let pem = String::from_utf8(sim::push_certificate(topic).unwrap()).unwrap();
    let at = pem.find("-----BEGIN PRIVATE KEY").unwrap();
    let (certificate, key) = pem.split_at(at);
    let glued = format!("{}{}", key.trim_end(), certificate.trim_end());
    for body in [pem.clone(), format!("{key}{certificate}"), glued] {
        let (status, stored) = put(&house, "/v1/pushcert", body).await;
        assert_eq!(status, 200, "{stored}");
        assert_eq!(stored["topic"], topic);
        let not_after = stored["not_after"].as_str().unwrap();
        assert!(
            not_after.ends_with('Z') && not_after.len() == 20,
            "{not_after}"
        );
        assert_eq!(stored.as_object().unwrap().len(), 2);
        let shown = get(&house, &format!("/v1/pushcert?topic={topic}")).await;
        assert_eq!(shown, (200, stored));
    }
    let (status, old) = get(&house, &format!("/v1/pushcert?topic={TOPIC}")).await;
    assert_eq!(
        (status, &old["topic"]),
        (200, &json!(TOPIC)),
        "one per topic"
    );
}

#[actix_web::test]
async fn what_is_no_push_certificate_is_400_and_an_unknown_topic_500() {
    let house = House::start().await;
    let pem = String::from_utf8(sim::push_certificate(TOPIC).unwrap()).unwrap();
    let other = String::from_utf8(sim::push_certificate(TOPIC).unwrap()).unwrap();
    let at = pem.find("-----BEGIN PRIVATE KEY").unwrap();
    let (certificate, key) = pem.split_at(at);
    let sealed = PKey::private_key_from_pem(key.as_bytes()).unwrap();
    let sealed = sealed
        .private_key_to_pem_pkcs8_passphrase(Cipher::aes_256_cbc(), b"x")
        .unwrap();
    let no_topic = String::from_utf8(sim::push_certificate("someone").unwrap()).unwrap();
    let cases = [
        ("empty", String::new()),
        ("not PEM", "hello".to_owned()),
        ("no key", certificate.to_owned()),
        ("no certificate", key.to_owned()),
        (
            "encrypted",
            certificate.to_owned() + &String::from_utf8(sealed).unwrap(),
        ),
        (
            "another key",
            certificate.to_owned() + &other[other.find("-----BEGIN PRIVATE").unwrap()..],
        ),
        ("no topic", no_topic),
        ("unknown block", pem.replace("CERTIFICATE", "SOMETHING")),
    ];
    for (what, body) in cases {
        let (status, refused) = put(&house, "/v1/pushcert", body).await;
        assert_eq!(status, 400, "{what}: {refused}");
        assert!(
            refused["error"].is_string() && refused.as_object().unwrap().len() == 1,
            "{what}"
        );
    }
    for (path, expected) in [
        ("/v1/pushcert", 400),
        ("/v1/pushcert?topic=", 400),
        ("/v1/pushcert?topic=com.apple.mgmt.nobody", 500),
    ] {
        let (status, refused) = get(&house, path).await;
        assert_eq!(
            (status, refused["error"].is_string()),
            (expected, true),
            "{path}: {refused}"
        );
    }
    for method in [Method::POST, Method::DELETE, Method::PATCH] {
        let request = call(&house, method, "/v1/pushcert").basic_auth("nanomdm", Some(KEY));
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert!(
            response.headers()["content-type"]
                .to_str()
                .unwrap()
                .starts_with("text/plain")
        );
        assert_eq!(response.text().await.unwrap(), "Method Not Allowed\n");
    }
}
