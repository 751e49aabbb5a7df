//! Push certificates from the request to the wake, and every wrong one refused. Apple's
//! part, and the vendor's hierarchy, are played here.

use std::process::{Command, Output};
use std::time::Duration;

use openssl::asn1::Asn1Time;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::sign::Verifier;
use openssl::x509::{X509, X509Name, X509NameBuilder, X509Req};
use reqwest::{Method, StatusCode};
use schema::vendor_request::VendorRequest;
use serde_json::{Value, json};
use sim::Proof;

use crate::house::{House, NOW, TOPIC, answer, id_of};

const PATH: &str = "/api/v1/push-certificates";
const CSR: &str = "/api/v1/push-certificates/csr";

fn name(attribute: &str, value: &str) -> X509Name {
    let mut name = X509NameBuilder::new().unwrap();
    name.append_entry_by_text(attribute, value).unwrap();
    name.build()
}

fn key() -> PKey<Private> {
    PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap()
}

fn certify(
    subject: &X509Name,
    csr: &X509Req,
    issuer: &X509Name,
    signs: &PKey<Private>,
    days: i64,
) -> Vec<u8> {
    let now = i64::try_from(NOW.seconds()).unwrap();
    let at = |seconds| Asn1Time::from_unix(seconds).unwrap();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    builder.set_subject_name(subject).unwrap();
    builder.set_issuer_name(issuer).unwrap();
    builder.set_pubkey(&csr.public_key().unwrap()).unwrap();
    // Before today on any clock: command line verbs go by the machine's own.
    builder.set_not_before(&at(1_600_000_000)).unwrap();
    builder.set_not_after(&at(now + days * 86_400)).unwrap();
    builder.sign(signs, MessageDigest::sha256()).unwrap();
    builder.build().to_pem().unwrap()
}

/// What Apple's portal gives for a request: the subject is Apple's, the key the request's.
fn apple(csr_pem: &str, uid: &str, days: i64) -> String {
    let csr = X509Req::from_pem(csr_pem.as_bytes()).unwrap();
    let issuer = name("CN", "Apple, as played here");
    // Quick to make: a slow one would outlast the idle connection to the server.
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let signs = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
    let pem = certify(&name("UID", uid), &csr, &issuer, &signs, days);
    String::from_utf8(pem).unwrap()
}

async fn request(house: &House) -> String {
    let (status, made) = house.post(CSR, &json!({})).await;
    assert!(status.is_success(), "{made}");
    made["csr"].as_str().unwrap().to_owned()
}

async fn put(house: &House, pem: &str) -> (u16, Value) {
    let (status, answer) = house.put(PATH, &json!({ "pem": pem })).await;
    (status.as_u16(), answer)
}

async fn topics(house: &House) -> Vec<String> {
    let (_, page) = house.get(PATH).await;
    let items = page["items"].as_array().unwrap().iter();
    items
        .map(|item| item["topic"].as_str().unwrap().to_owned())
        .collect()
}

/// The command line, beside the server.
async fn reveille(house: &House, directory: &std::path::Path, line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reveille"));
    command
        .args(line.split_whitespace())
        .current_dir(directory)
        .env("REVEILLE_URL", house.admin_url())
        .env("REVEILLE_TOKEN", &house.token);
    let output = tokio::task::spawn_blocking(move || command.output());
    output.await.unwrap().unwrap()
}

fn said(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    String::from_utf8_lossy(&[&out[..], &err[..]].concat()).into_owned()
}

#[actix_web::test]
async fn the_certificate_alone_completes_our_request_and_wakes_devices() {
    let house = House::bare(|_| {}).await;
    let made = answer(house.admin(Method::POST, CSR)).await;
    assert_eq!(
        (made.0, &made.1["made"]),
        (StatusCode::CREATED, &json!(true))
    );
    let csr = made.1["csr"].as_str().unwrap().to_owned();
    let (status, again) = house.post(CSR, &json!({})).await;
    assert_eq!((status, &again["made"]), (StatusCode::OK, &json!(false)));
    assert_eq!(again["csr"], csr, "the same until it is used");

    let house = house.restarted().await;
    let (status, item) = put(&house, &apple(&csr, TOPIC, 365)).await;
    assert_eq!(status, 200, "{item}");
    assert_eq!(item["topic"], TOPIC);

    let (device, _client) = house.enrolled(Proof::Header).await;
    let wake = format!("/api/v1/devices/{}/wake", id_of(&device));
    assert!(house.post(&wake, &json!({})).await.0.is_success());
    let woken = house
        .apns
        .wait_until(Duration::from_secs(10), |counts| counts.received >= 1);
    woken.await.unwrap();

    let renewal = request(&house).await;
    assert_ne!(renewal, csr, "a used request is not given again");
    // The same request uploaded once more at Apple: the key is the one in use.
    let (status, item) = put(&house, &apple(&csr, TOPIC, 400)).await;
    assert_eq!(status, 200, "{item}");
    assert_eq!(request(&house).await, renewal, "the other key waits on");
    let (status, item) = put(&house, &apple(&renewal, TOPIC, 365)).await;
    assert_eq!(status, 200, "{item}");
    assert_eq!(topics(&house).await, [TOPIC]);
}

#[actix_web::test]
async fn a_wrong_certificate_is_refused_and_nothing_is_stored() {
    let house = House::bare(|_| {}).await;
    let other_key = {
        let mut other = X509Req::builder().unwrap();
        let key = key();
        other.set_pubkey(&key).unwrap();
        other.sign(&key, MessageDigest::sha256()).unwrap();
        String::from_utf8(other.build().to_pem().unwrap()).unwrap()
    };
    let (status, refusal) = put(&house, &apple(&other_key, TOPIC, 365)).await;
    assert_eq!(
        (status, &refusal["errors"][0]["pointer"]),
        (422, &json!("/pem"))
    );
    let detail = refusal["detail"].as_str().unwrap();
    assert!(detail.contains("none of ours waits"), "{detail}");

    let csr = request(&house).await;
    let cases = [
        (apple(&other_key, TOPIC, 365), "not made from our request"),
        (apple(&csr, "someone", 365), "not an MDM push certificate"),
        (apple(&csr, TOPIC, -1), "expired"),
        (csr.clone(), "unexpected PEM block CERTIFICATE REQUEST"),
    ];
    for (pem, why) in cases {
        let (status, refusal) = put(&house, &pem).await;
        let detail = refusal["detail"].as_str().unwrap();
        assert!(status == 422 && detail.contains(why), "{status} {refusal}");
    }
    assert_eq!(topics(&house).await, [""; 0]);
    assert_eq!(request(&house).await, csr, "the key still waits");

    let (status, replaced) = house.post(CSR, &json!({"replace": true})).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_ne!(replaced["csr"], csr);
    let (status, _) = put(&house, &apple(&csr, TOPIC, 365)).await;
    assert_eq!(status, 422, "its key was replaced");
    let (status, refusal) = house.post(CSR, &json!({"replace": "yes"})).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{refusal}");
}

#[actix_web::test]
async fn another_topic_needs_force_and_renew_says_what_it_means() {
    let house = House::start().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let csr = request(&house).await;
    std::fs::write(
        path.join("other.pem"),
        apple(&csr, "com.apple.mgmt.Other", 365),
    )
    .unwrap();
    std::fs::write(path.join("same.pem"), apple(&csr, TOPIC, 400)).unwrap();

    let (status, refusal) = put(&house, &apple(&csr, "com.apple.mgmt.Other", 365)).await;
    assert_eq!((status, &refusal["code"]), (409, &json!("topic_change")));
    let refused = reveille(&house, path, "push-cert renew other.pem").await;
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    for word in [
        "nothing was changed",
        TOPIC,
        "com.apple.mgmt.Other",
        "enroll again",
    ] {
        assert!(said(&refused).contains(word), "{}", said(&refused));
    }
    assert_eq!(topics(&house).await, [TOPIC]);

    let renewed = reveille(&house, path, "push-cert renew same.pem").await;
    assert!(renewed.status.success(), "{}", said(&renewed));
    assert!(
        said(&renewed).contains("every device stays enrolled"),
        "{}",
        said(&renewed)
    );

    let forced = "push-cert renew other.pem --force-topic-change";
    let forced = reveille(&house, path, forced).await;
    assert!(forced.status.success(), "{}", said(&forced));
    assert_eq!(topics(&house).await, [TOPIC, "com.apple.mgmt.Other"]);
}

#[actix_web::test]
async fn a_vendor_signs_the_request_of_the_server_for_the_portal() {
    let house = House::bare(|_| {}).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let (root_key, vendor_key) = (key(), key());
    let own = |key: &PKey<Private>| {
        let mut builder = X509Req::builder().unwrap();
        builder.set_pubkey(key).unwrap();
        builder.sign(key, MessageDigest::sha256()).unwrap();
        builder.build()
    };
    let (root, vendor) = (name("CN", "Root"), name("CN", "MDM Vendor: Test"));
    let root_pem = certify(&root, &own(&root_key), &root, &root_key, 365);
    let vendor_pem = certify(&vendor, &own(&vendor_key), &root, &root_key, 365);
    let pkcs8 = |key: &PKey<Private>| key.private_key_to_pem_pkcs8().unwrap();
    for (file, bytes) in [
        ("vendor.pem", &vendor_pem),
        ("vendor.key", &pkcs8(&vendor_key)),
        ("root.key", &pkcs8(&root_key)),
        ("root.pem", &root_pem),
    ] {
        std::fs::write(path.join(file), bytes).unwrap();
    }
    let sign = "push-cert sign --vendor-cert vendor.pem --chain root.pem";
    let wrong = reveille(&house, path, &format!("{sign} --vendor-key root.key")).await;
    assert_eq!(wrong.status.code(), Some(1));
    assert!(said(&wrong).contains("does not belong"), "{}", said(&wrong));
    assert!(!path.join("push-request.b64").exists());

    let csr = reveille(&house, path, "push-cert csr").await;
    assert!(csr.status.success(), "{}", said(&csr));
    let pem = std::fs::read(path.join("push.csr")).unwrap();
    // Once with the file and no server at all, once with the server's own request.
    for rest in ["--csr push.csr --url http://127.0.0.1:1", ""] {
        let line = format!("{sign} --vendor-key vendor.key {rest}");
        let signed = reveille(&house, path, &line).await;
        assert!(signed.status.success(), "{}", said(&signed));
        let file = std::fs::read(path.join("push-request.b64")).unwrap();
        std::fs::remove_file(path.join("push-request.b64")).unwrap();
        let request = VendorRequest::decode(&file).unwrap();
        let csr = X509Req::from_pem(&pem).unwrap();
        assert_eq!(request.csr, csr.to_der().unwrap());
        let chain = X509::stack_from_pem(request.chain_pem.as_bytes()).unwrap();
        assert_eq!(chain.len(), 2);
        let public = chain[0].public_key().unwrap();
        assert!(chain[0].verify(&chain[1].public_key().unwrap()).unwrap());
        let mut verifier = Verifier::new(MessageDigest::sha256(), &public).unwrap();
        let good = verifier.verify_oneshot(&request.signature, &request.csr);
        assert!(good.unwrap());
    }
}

#[actix_web::test]
async fn a_certificate_that_ends_soon_is_told_until_it_is_renewed() {
    let house = House::bare(|_| {}).await;
    let csr = request(&house).await;
    let told = |readiness: &Value| readiness["warnings"].to_string();
    let days = async || {
        let metrics = house.admin(Method::GET, "/metrics").send().await.unwrap();
        let metrics = metrics.text().await.unwrap();
        let label = format!("reveille_certificate_days_left{{kind=\"push\",name=\"{TOPIC}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&label));
        assert!(
            metrics.contains("{kind=\"device_ca\",name=\"ca.pem\"}"),
            "{metrics}"
        );
        line.unwrap().to_owned()
    };
    assert_eq!(put(&house, &apple(&csr, TOPIC, 10)).await.0, 200);
    let (status, readiness) = house.get("/readyz").await;
    assert_eq!(status, StatusCode::OK, "a warning stops nothing");
    assert!(
        told(&readiness).contains("expires in 10 days"),
        "{readiness}"
    );
    assert_eq!(days().await, "10");
    house.clock.set(NOW.plus_seconds(11 * 86_400));
    let (_, readiness) = house.get("/readyz").await;
    assert!(told(&readiness).contains("has expired"), "{readiness}");
    assert_eq!(days().await, "-1");
    assert_eq!(put(&house, &apple(&csr, TOPIC, 365)).await.0, 200);
    let (_, readiness) = house.get("/readyz").await;
    assert!(!told(&readiness).contains(TOPIC), "{readiness}");
    assert_eq!(days().await, "354");
}
