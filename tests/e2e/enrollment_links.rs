//! Enrollment links: made by an admin, followed by devices and people, and void in time.

use openssl::pkcs7::{Pkcs7, Pkcs7Flags};
use openssl::stack::Stack;
use openssl::x509::store::X509StoreBuilder;
use plist::{Dictionary, Value};
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use serde_json::json;
use sim::Proof;

use crate::house::{House, NOW, TOPIC, answer, id_of};

/// A link's id and the path of its URL.
async fn link(house: &House, terms: &serde_json::Value) -> (String, String) {
    let (status, made) = house.post("/api/v1/enrollment-links", terms).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let path = made["url"].as_str().unwrap();
    let path = path.strip_prefix(&house.device_url()).unwrap();
    (made["id"].as_str().unwrap().to_owned(), path.to_owned())
}

/// Follows a link; status, headers and body of the answer.
async fn follow(house: &House, path: &str, accept: &str) -> (StatusCode, HeaderMap, Vec<u8>) {
    let request = house.device(Method::GET, path).header("Accept", accept);
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    (status, headers, response.bytes().await.unwrap().to_vec())
}

/// The payloads of an unsigned profile by their PayloadType.
fn payload(profile: &[u8], kind: &str) -> Dictionary {
    let profile = schema::xml::parse(profile).unwrap();
    let payloads = profile["PayloadContent"].as_array().unwrap().iter();
    let mut payloads = payloads.filter_map(Value::as_dictionary);
    let found = payloads.find(|payload| text(payload, "PayloadType") == kind);
    found.unwrap().clone()
}

fn text<'a>(of: &'a Dictionary, key: &str) -> &'a str {
    of.get(key).and_then(Value::as_string).unwrap_or_default()
}

fn challenge(profile: &[u8]) -> String {
    let scep = payload(profile, "com.apple.security.scep");
    let content = scep["PayloadContent"].as_dictionary().unwrap();
    text(content, "Challenge").to_owned()
}

#[actix_web::test]
async fn a_link_leads_a_device_to_a_profile_signed_by_the_one_signer() {
    let house = House::start().await;
    let terms = json!({"access_rights": ["inspect_profiles", "erase"], "tags": ["loan"]});
    let (id, path) = link(&house, &terms).await;
    let (status, headers, signed) = follow(&house, &path, "*/*").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers["content-type"], "application/x-apple-aspen-config");
    assert_eq!(headers["cache-control"], "no-store");
    assert_eq!(headers["referrer-policy"], "no-referrer");
    let disposition = headers["content-disposition"].to_str().unwrap();
    assert!(disposition.contains("enroll.mobileconfig"), "{disposition}");

    let signed = Pkcs7::from_der(&signed).unwrap();
    let none = Stack::new().unwrap();
    let signers = signed.signers(&none, Pkcs7Flags::empty()).unwrap();
    let mut trusted = X509StoreBuilder::new().unwrap();
    trusted
        .add_cert(signers.get(0).unwrap().to_owned())
        .unwrap();
    let mut profile = Vec::new();
    let (trusted, flags) = (trusted.build(), Pkcs7Flags::BINARY);
    signed
        .verify(&none, &trusted, None, Some(&mut profile), flags)
        .unwrap();
    let mdm = payload(&profile, "com.apple.mdm");
    assert_eq!(text(&mdm, "Topic"), TOPIC);
    assert_eq!(mdm["AccessRights"].as_signed_integer(), Some(9));
    assert_eq!(mdm["SignMessage"].as_boolean(), Some(true));
    let server = format!("{}/mdm/connect", house.device_url());
    assert_eq!(text(&mdm, "ServerURL"), server);
    let scep = payload(&profile, "com.apple.security.scep");
    let scep = scep["PayloadContent"].as_dictionary().unwrap();
    assert_eq!(text(scep, "URL"), format!("{}/scep", house.device_url()));

    let (_, _, unsigned) = follow(&house, &format!("{path}?unsigned=1"), "*/*").await;
    let same = |profile: &[u8]| {
        let challenge = challenge(profile);
        let text = String::from_utf8(profile.to_vec()).unwrap();
        text.replace(&challenge, "")
    };
    assert_eq!(same(&unsigned), same(&profile));
    assert_ne!(challenge(&unsigned), challenge(&profile));

    let (_, shown) = house.get(&format!("/api/v1/enrollment-links/{id}")).await;
    assert_eq!(shown["uses"], 0, "looking consumes nothing");
    assert_eq!(shown["state"], "open");
    assert_eq!(shown["access_rights"], json!(["inspect_profiles", "erase"]));
    let secret = path.rsplit('/').next().unwrap();
    let (_, all) = house.get("/api/v1/enrollment-links").await;
    assert_eq!(all["items"][0], shown);
    assert!(!all.to_string().contains(secret));
}

#[actix_web::test]
async fn a_browser_is_shown_a_page_and_its_button_gives_the_profile() {
    let house = House::with(|config| config.device.organization = "A & B <Ltd>".into()).await;
    let (_, path) = link(&house, &json!({})).await;
    let browser = "text/html,application/xhtml+xml,*/*;q=0.8";
    let (status, headers, page) = follow(&house, &path, browser).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers["content-type"], "text/html; charset=utf-8");
    assert_eq!(headers["cache-control"], "no-store");
    let policy = headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    let page = String::from_utf8(page).unwrap();
    for text in [
        "A &amp; B &lt;Ltd&gt;",
        "Erase the device",
        "<svg",
        "?profile=1",
    ] {
        assert!(page.contains(text), "{text}");
    }
    assert!(!page.contains("<script"));
    let (status, headers, _) = follow(&house, &format!("{path}?profile=1"), browser).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers["content-type"], "application/x-apple-aspen-config");
}

#[actix_web::test]
async fn an_unknown_revoked_or_expired_link_leads_nowhere_and_tells_nothing() {
    let house = House::start().await;
    let (id, revoked) = link(&house, &json!({})).await;
    let (_, expired) = link(&house, &json!({"expires_in": 60})).await;
    let (_, open) = link(&house, &json!({"expires_in": 61})).await;
    let revoke = format!("/api/v1/enrollment-links/{id}");
    assert_eq!(house.delete(&revoke).await.0, StatusCode::NO_CONTENT);
    assert_eq!(house.get(&revoke).await.1["state"], "revoked");
    house.clock.set(NOW.plus_seconds(60));
    let almost = format!("{}x", &open[..open.len() - 1]);
    let cases = [
        (open.as_str(), StatusCode::OK),
        (&revoked, StatusCode::GONE),
        (&expired, StatusCode::GONE),
        (&almost, StatusCode::NOT_FOUND),
        ("/enroll/x", StatusCode::NOT_FOUND),
    ];
    let mut gone = Vec::new();
    for (path, expected) in cases {
        for accept in ["*/*", "text/html"] {
            let (status, headers, body) = follow(&house, path, accept).await;
            assert_eq!(status, expected, "{path}");
            assert_eq!(headers["cache-control"], "no-store");
            if status == StatusCode::GONE && accept == "text/html" {
                gone.push(body);
            }
        }
    }
    assert_eq!(gone[0], gone[1], "why is not told");
    let missing = house.delete("/api/v1/enrollment-links/nobody").await;
    assert_eq!(missing.0, StatusCode::NOT_FOUND);
}

#[actix_web::test]
async fn a_link_that_could_not_work_is_not_made() {
    let bare = House::bare(|_| {}).await;
    let (status, problem) = bare.post("/api/v1/enrollment-links", &json!({})).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(problem["code"], "no_push_certificate");

    for url in ["", "https://localhost:8443", "http://mdm.example.org"] {
        let house = House::with(|config| {
            config.demo = false;
            config.device.public_url = url.into();
        });
        let house = house.await;
        let (status, problem) = house.post("/api/v1/enrollment-links", &json!({})).await;
        assert_eq!(status, StatusCode::CONFLICT, "{url}");
        assert_eq!(problem["code"], "no_public_url", "{url}");
    }
}

#[actix_web::test]
async fn terms_at_fault_are_named_and_make_no_link() {
    let house = House::start().await;
    let cases = [
        (
            json!({"access_rights": ["erase", "eraze"]}),
            "/access_rights/1",
        ),
        (
            json!({"access_rights": ["manage_profiles"]}),
            "/access_rights",
        ),
        (json!({"access_rights": []}), "/access_rights"),
        (json!({"expires_in": 1}), "/expires_in"),
        (json!({"max_uses": 0}), "/max_uses"),
        (json!({"tags": ["a,b"]}), "/tags/0"),
        (json!({"device": "a b"}), "/device"),
        (json!({"topic": "com.apple.mgmt.other"}), "/topic"),
        (json!({"challenge": "twice"}), "/challenge"),
        (json!({"identity": "pkcs8"}), "/identity"),
        (
            json!({"identity": "pkcs12", "challenge": "shared"}),
            "/challenge",
        ),
        (json!({"kind": "user"}), "/managed_apple_id"),
        (json!({"managed_apple_id": "a@b"}), "/managed_apple_id"),
        (
            json!({"kind": "user", "managed_apple_id": "a@b", "access_rights": ["erase"]}),
            "/access_rights",
        ),
    ];
    for (terms, pointer) in cases {
        let (status, problem) = house.post("/api/v1/enrollment-links", &terms).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{terms}");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
    let (_, all) = house.get("/api/v1/enrollment-links").await;
    assert_eq!(all["items"], json!([]));
    let nobody = house.device(Method::POST, "/api/v1/enrollment-links");
    assert_eq!(answer(nobody).await.0, StatusCode::NOT_FOUND);
}

#[actix_web::test]
async fn the_same_request_under_one_key_makes_one_link() {
    let house = House::start().await;
    let ask = async |terms: serde_json::Value| {
        let request = house.admin(Method::POST, "/api/v1/enrollment-links");
        answer(request.header("Idempotency-Key", "k").json(&terms)).await
    };
    let (status, first) = ask(json!({"tags": ["a"]})).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(ask(json!({"tags": ["a"]})).await, (status, first));
    let (status, problem) = ask(json!({"tags": ["b"]})).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(problem["code"], "idempotency_key_reused");
    let (_, all) = house.get("/api/v1/enrollment-links").await;
    assert_eq!(all["items"].as_array().unwrap().len(), 1);
}

#[actix_web::test]
async fn a_user_enrollment_has_no_rights_and_a_file_may_be_exported() {
    let house = House::start().await;
    let terms = json!({"kind": "user", "managed_apple_id": "anne@example.org"});
    let (id, path) = link(&house, &terms).await;
    let (_, _, profile) = follow(&house, &format!("{path}?unsigned=1"), "*/*").await;
    let mdm = payload(&profile, "com.apple.mdm");
    assert!(!mdm.contains_key("AccessRights"));
    assert_eq!(text(&mdm, "ManagedAppleID"), "anne@example.org");
    let export = format!("/api/v1/enrollment-links/{id}/profile?unsigned=1");
    let file = house.admin(Method::GET, &export).send().await.unwrap();
    assert_eq!(file.status(), StatusCode::OK);
    let file = file.bytes().await.unwrap();
    assert_eq!(payload(&file, "com.apple.mdm"), mdm);
    assert_ne!(challenge(&file), challenge(&profile));
}

#[actix_web::test]
async fn links_outlast_a_restart_and_the_public_url_is_kept_while_devices_know_it() {
    let url = |url: &'static str| {
        move |config: &mut reveille::Config| {
            config.demo = false;
            config.device.public_url = url.into();
        }
    };
    let house = House::with(url("https://mdm.example.org")).await;
    let (status, made) = house.post("/api/v1/enrollment-links", &json!({})).await;
    assert_eq!(status, StatusCode::CREATED);
    let path = made["url"].as_str().unwrap();
    let path = path.strip_prefix("https://mdm.example.org").unwrap();
    let (device, _) = house.enrolled(Proof::Header).await;
    let house = house.restarted().await;
    assert_eq!(follow(&house, path, "*/*").await.0, StatusCode::OK);

    let other = url("https://other.example.org");
    let (stopped, why) = house.stopped().await.start(other).await.err().unwrap();
    let why = format!("{why:#}");
    assert!(why.contains("--force-public-url"), "{why}");
    let forced = |config: &mut reveille::Config| config.force_public_url = true;
    let house = stopped.start(forced).await.ok().unwrap();
    assert_eq!(follow(&house, path, "*/*").await.0, StatusCode::GONE);
    let (status, _) = house
        .get(&format!("/api/v1/devices/{}", id_of(&device)))
        .await;
    assert_eq!(status, StatusCode::OK);
}

#[actix_web::test]
async fn the_root_of_our_own_tls_is_carried_to_the_device() {
    let house = House::tls(|_| {}).await;
    house.import_push_certificate().await;
    let (id, path) = link(&house, &json!({})).await;
    assert!(path.starts_with("/enroll/"));
    let export = format!("/api/v1/enrollment-links/{id}/profile?unsigned=1");
    let file = house.admin(Method::GET, &export).send().await.unwrap();
    let file = file.bytes().await.unwrap();
    let root = payload(&file, "com.apple.security.root");
    let der = root["PayloadContent"].as_data().unwrap();
    let pem = house.running.app.tls_root_pem.clone().unwrap();
    let expected = openssl::x509::X509::from_pem(&pem).unwrap();
    assert_eq!(der, expected.to_der().unwrap());
    let mdm = payload(&file, "com.apple.mdm");
    assert_eq!(mdm["SignMessage"].as_boolean(), Some(false));
}
