//! Messages of real devices, sent over HTTP to a running server.
//!
//! Read in place from the folder beside the project; where it is not there the tests
//! say so and pass.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use openssl::asn1::Asn1Time;
use openssl::hash::{MessageDigest, hash};
use openssl::sign::Verifier;
use openssl::x509::{X509, X509VerifyResult};
use reqwest::{Method, StatusCode};
use schema::checkin::{CheckIn, Message, Sender};
use schema::cms::{DigestAlgorithm, SignedData, ToBeSigned};
use schema::ota::DeviceAnswer;
use schema::report::{ErrorItem, Status};
use schema::x509::Certificate;
use schema::{checkin, report, xml};
use serde_json::{Value, json};
use sim::Identity;

use crate::house::House;

/// One line of the manifest.
struct Vector {
    path: PathBuf,
    name: String,
    kind: String,
    expected: String,
}

fn vectors(kinds: &[&str]) -> Vec<Vector> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/vectors");
    let Ok(manifest) = std::fs::read_to_string(folder.join("MANIFEST.tsv")) else {
        println!("skipped: {} is not there", folder.display());
        return Vec::new();
    };
    let lines = manifest.lines().skip(1).map(|line| {
        let mut columns = line.split('\t');
        let mut column = || columns.next().unwrap_or_default().to_owned();
        let (name, kind) = (column(), column());
        Vector {
            path: folder.join(&name),
            name,
            kind,
            expected: line.rsplit('\t').next().unwrap().to_owned(),
        }
    });
    lines
        .filter(|vector| {
            kinds
                .iter()
                .any(|kind| vector.kind.split('/').next() == Some(kind))
        })
        .collect()
}

impl Vector {
    fn body(&self) -> Vec<u8> {
        std::fs::read(&self.path).unwrap()
    }

    fn is_malformed(&self) -> bool {
        self.expected.starts_with("malformed")
    }

    /// `Key=value` pairs the manifest names and whose value is given whole.
    fn facts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.expected
            .split(' ')
            .filter_map(|word| word.split_once('='))
            .filter(|(key, _)| {
                [
                    "MessageType",
                    "UDID",
                    "UserID",
                    "EnrollmentID",
                    "Status",
                    "CommandUUID",
                    "Topic",
                    "PushMagic",
                    "OSVersion",
                    "SerialNumber",
                    "ProductName",
                ]
                .contains(key)
            })
    }

    fn check_facts(&self) {
        let body = self.body();
        let scan = xml::Scan::new(&body).unwrap();
        for (key, value) in self.facts().filter(|(_, value)| !value.is_empty()) {
            assert_eq!(scan.text(key), Some(value), "{} {key}", self.name);
        }
    }
}

/// A device of the field at our door.
struct Caller<'h> {
    house: &'h House,
    identity: Identity,
}

impl Caller<'_> {
    async fn says(&self, path: &str, body: Vec<u8>) -> (StatusCode, Vec<u8>) {
        let kind = if path == CHECKIN {
            "application/x-apple-aspen-mdm-checkin"
        } else {
            "application/x-apple-aspen-mdm; charset=UTF-8"
        };
        let request = self.house.device(Method::PUT, path);
        let request = request.header("Client-Cert", self.identity.header_rfc9440());
        let response = request
            .header("Content-Type", kind)
            .body(body)
            .send()
            .await
            .unwrap();
        (response.status(), response.bytes().await.unwrap().to_vec())
    }

    async fn says_keys(&self, path: &str, keys: &[(&str, &str)]) -> StatusCode {
        let inside: String = keys
            .iter()
            .map(|(key, value)| {
                let tag = if *key == "Token" { "data" } else { "string" };
                format!("<key>{key}</key><{tag}>{value}</{tag}>")
            })
            .collect();
        let body = format!("<plist version=\"1.0\"><dict>{inside}</dict></plist>");
        self.says(path, body.into_bytes()).await.0
    }

    /// Everything that comes before the message at hand.
    async fn enroll(&self, sender: &Sender) {
        let id = sender.device.as_str();
        let key = if sender.as_device().kind == schema::ChannelKind::Device {
            "UDID"
        } else {
            "EnrollmentID"
        };
        let topic = ("Topic", "com.apple.mgmt.External.x");
        let authenticate = [("MessageType", "Authenticate"), (key, id), topic];
        assert_eq!(self.says_keys(CHECKIN, &authenticate).await, 200);
        let update = [
            ("MessageType", "TokenUpdate"),
            (key, id),
            topic,
            ("Token", "AQID"),
            ("PushMagic", "m"),
        ];
        assert_eq!(self.says_keys(CHECKIN, &update).await, 200);
        if let Some(user) = sender.channel.user_part() {
            let key = if key == "UDID" {
                "UserID"
            } else {
                "EnrollmentUserID"
            };
            let update = [&update[..], &[(key, user)]].concat();
            assert_eq!(self.says_keys(CHECKIN, &update).await, 200);
        }
    }
}

const CHECKIN: &str = "/mdm/checkin";
const CONNECT: &str = "/mdm/connect";

#[actix_web::test]
async fn check_ins_of_real_devices_get_their_documented_answers() {
    let mut seen = HashSet::new();
    let mut house = House::start().await;
    for vector in vectors(&["checkin"]) {
        if vector.is_malformed() {
            let caller = Caller {
                house: &house,
                identity: house.ca.issue("m").unwrap(),
            };
            assert_eq!(
                caller.says(CHECKIN, vector.body()).await.0,
                400,
                "{}",
                vector.name
            );
            continue;
        }
        vector.check_facts();
        let CheckIn { sender, message } = checkin::parse(&vector.body())
            .unwrap_or_else(|error| panic!("{}: {error}", vector.name));
        if !seen.insert(sender.device.clone()) {
            house = House::start().await;
            seen = HashSet::from([sender.device.clone()]);
        }
        let caller = Caller {
            house: &house,
            identity: house.ca.issue("a real device").unwrap(),
        };
        if !matches!(message, Message::Authenticate { .. }) {
            caller.enroll(&sender.as_device()).await;
        }
        let (status, body) = caller.says(CHECKIN, vector.body()).await;
        let expected = if matches!(message, Message::UserAuthenticate { .. }) {
            410
        } else {
            200
        };
        assert_eq!(
            (status.as_u16(), body.len()),
            (expected, 0),
            "{}",
            vector.name
        );
        let (_, shown) = house
            .get(&format!("/api/v1/devices/{}", sender.device))
            .await;
        let state = match message {
            Message::Authenticate { .. } => "pending",
            Message::CheckOut => "checked_out",
            _ => "enrolled",
        };
        assert_eq!(shown["state"], state, "{}: {shown}", vector.name);
    }
}

#[actix_web::test]
async fn results_of_real_devices_close_their_commands_and_are_kept_as_sent() {
    let mut uuids = HashSet::new();
    let mut devices = HashSet::new();
    let mut house = House::start().await;
    for vector in vectors(&["result"]) {
        let body = vector.body();
        if !vector.is_malformed() {
            vector.check_facts();
        }
        let told = report::parse(&body).unwrap_or_else(|error| panic!("{}: {error}", vector.name));
        let uuid = told.uuid.as_ref().map(ToString::to_string);
        let fresh = devices.insert(told.sender.device.clone())
            & uuid.iter().all(|uuid| uuids.insert(uuid.clone()));
        if !fresh {
            house = House::start().await;
            devices = HashSet::from([told.sender.device.clone()]);
            uuids = uuid.iter().cloned().collect();
        }
        let caller = Caller {
            house: &house,
            identity: house.ca.issue("a real device").unwrap(),
        };
        caller.enroll(&told.sender).await;
        let id = told.sender.channel.to_string();
        let Some(uuid) = uuid else {
            assert_eq!(
                caller.says(CONNECT, body).await,
                (StatusCode::OK, vec![]),
                "{}",
                vector.name
            );
            continue;
        };
        let command = format!(
            "<plist version=\"1.0\"><dict><key>Command</key><dict><key>RequestType</key><string>ProfileList</string></dict>\
             <key>CommandUUID</key><string>{uuid}</string></dict></plist>"
        );
        let order = json!({"targets": {"ids": [id]}, "command_plist": STANDARD.encode(&command), "wake": false});
        let (status, queued) = house.post("/api/v1/commands", &order).await;
        assert_eq!(status, 202, "{}: {queued}", vector.name);
        assert_eq!(
            caller.says(CONNECT, body.clone()).await,
            (StatusCode::OK, vec![]),
            "{}",
            vector.name
        );

        let state = match told.status {
            Status::Acknowledged => "acknowledged",
            Status::Error => "error",
            Status::CommandFormatError => "format_error",
            other => panic!("{}: {other:?}", vector.name),
        };
        assert_eq!(house.state(&id, &uuid).await, state, "{}", vector.name);
        let path = format!("/api/v1/devices/{id}/commands/{uuid}/result");
        let kept = house
            .admin(Method::GET, &path)
            .header("Accept", "application/xml")
            .send()
            .await
            .unwrap();
        assert_eq!(
            kept.bytes().await.unwrap(),
            body,
            "{}: kept byte by byte",
            vector.name
        );
        let (_, rendered) = house.get(&path).await;
        check_errors(&vector, &rendered);
        assert_eq!(
            rendered["report"].is_null(),
            vector.is_malformed(),
            "{}",
            vector.name
        );
    }
}

fn check_errors(vector: &Vector, rendered: &Value) {
    let Some((_, chain)) = vector.expected.split_once("ErrorChain=") else {
        return;
    };
    let items: Vec<ErrorItem> = serde_json::from_value(rendered["error_chain"].clone()).unwrap();
    let told: Vec<_> = items
        .iter()
        .map(|item| format!("{}:{}", item.domain, item.code))
        .collect();
    assert_eq!(
        told.join(","),
        chain.split(' ').next().unwrap(),
        "{}",
        vector.name
    );
}

#[actix_web::test]
async fn odd_plists_are_read_or_refused_and_never_crash() {
    let house = House::start().await;
    let caller = Caller {
        house: &house,
        identity: house.ca.issue("odd").unwrap(),
    };
    for vector in vectors(&["plist-edge"]) {
        let parsed = xml::parse(&vector.body());
        if vector.expected.contains("must be refused") {
            assert!(parsed.is_err(), "{}", vector.name);
        }
        if let Ok(parsed) = parsed {
            assert_eq!(
                parsed.get("key").and_then(|value| value.as_string()),
                Some("val"),
                "{}",
                vector.name
            );
        }
        assert_eq!(
            caller.says(CHECKIN, vector.body()).await.0,
            400,
            "{}",
            vector.name
        );
    }
}

#[actix_web::test]
async fn certificates_that_are_not_for_mdm_are_refused() {
    let house = House::start().await;
    for vector in vectors(&["push-cert"]) {
        let pem = String::from_utf8(vector.body()).unwrap();
        let (status, problem) = house
            .put("/api/v1/push-certificates", &json!({ "pem": pem }))
            .await;
        assert_eq!(status, 422, "{}: {problem}", vector.name);
        assert_eq!(problem["errors"][0]["pointer"], "/pem");
    }
}

#[actix_web::test]
async fn a_real_signature_of_a_ca_we_do_not_know_is_a_plain_403() {
    let house = House::start().await;
    let mut pair = vectors(&["mdm-signature"]);
    if pair.is_empty() {
        return;
    }
    pair.sort_by_key(|vector| vector.name.contains("header"));
    let (body, signature) = (pair[0].body(), String::from_utf8(pair[1].body()).unwrap());
    let request = house
        .device(Method::PUT, CONNECT)
        .header("Mdm-Signature", signature.replace(['\n', '\r'], ""));
    assert_eq!(request.body(body).send().await.unwrap().status(), 403);
}

/// The certificates of a PEM file, read by our own reader and by OpenSSL.
fn certificates(vector: &Vector) -> Vec<X509> {
    let stack = X509::stack_from_pem(&vector.body()).unwrap();
    for certificate in &stack {
        let der = certificate.to_der().unwrap();
        let read = Certificate::parse(&der).unwrap();
        let end = Asn1Time::from_unix(read.not_after).unwrap();
        assert!(certificate.not_after() == end, "{}", vector.name);
    }
    stack
}

/// Whether one of them signed it; dates do not matter.
fn issuer_of<'a>(certificate: &X509, among: &'a [X509]) -> Option<&'a X509> {
    among.iter().find(|issuer| {
        let key = issuer.public_key().unwrap();
        issuer.issued(certificate) == X509VerifyResult::OK && certificate.verify(&key).unwrap()
    })
}

#[test]
fn apples_anchors_and_the_devices_they_stand_behind_are_read() {
    let anchors = vectors(&["trust-anchor"]);
    if anchors.is_empty() {
        return;
    }
    let (root, chain): (Vec<_>, Vec<_>) = anchors
        .iter()
        .partition(|vector| vector.name.contains("attestation_root"));
    let root = certificates(root[0]).remove(0);
    assert!(issuer_of(&root, std::slice::from_ref(&root)).is_some());
    assert!(
        Certificate::parse(&root.to_der().unwrap())
            .unwrap()
            .is_authority()
            .unwrap()
    );

    let device_ca = certificates(chain[0]);
    let device = vectors(&["apple-device-cert"]);
    let device = certificates(&device[0]).remove(0);
    let issuer = issuer_of(&device, &device_ca).expect("an Apple device CA stands behind it");
    let name = format!("{:?}", issuer.subject_name());
    assert!(name.contains("Apple iPhone Device CA"), "{name}");
    assert!(
        issuer_of(&root, &device_ca).is_none(),
        "the attestation root is apart"
    );
}

#[test]
fn what_a_device_says_under_its_apple_certificate_is_read_and_proved() {
    let (said, anchors) = (
        vectors(&["ota-profile-service"]),
        vectors(&["trust-anchor"]),
    );
    let Some(said) = said.first() else {
        return;
    };
    let message = said.body();
    let signed = SignedData::parse(&message).unwrap();
    let signer = signed.signer_certificate().unwrap();
    let leaf = X509::from_der(signer.raw).unwrap();
    let proved = |octets: &[u8]| {
        let key = leaf.public_key().unwrap();
        let digest = openssl_digest(signed.signer.signature_digest);
        let mut verifier = Verifier::new(digest, &key).unwrap();
        verifier
            .verify_oneshot(&signed.signer.signature, octets)
            .unwrap()
    };
    let (octets, content) = match signed.to_be_signed(None).unwrap() {
        ToBeSigned::Content(content) => (content, content),
        ToBeSigned::Attributes {
            signed: octets,
            content,
            expected_digest,
        } => {
            let digest = openssl_digest(signed.signer.digest);
            assert_eq!(&*hash(digest, content).unwrap(), expected_digest);
            (octets, content)
        }
    };
    assert!(proved(octets));
    assert!(
        !proved(&octets[1..]),
        "other octets are not what was signed"
    );
    let chain = anchors.iter().find(|v| v.name.contains("device_ca_chain"));
    assert!(issuer_of(&leaf, &certificates(chain.unwrap())).is_some());
    let answer = DeviceAnswer::parse(content).unwrap();
    assert!(answer.challenge.is_some());
    for (key, value) in [
        ("PRODUCT", Some(&*answer.product)),
        ("SERIAL", Some(&*answer.serial)),
        ("UDID", answer.udid.as_deref()),
        ("VERSION", answer.version.as_deref()),
    ] {
        let mut words = said.expected.split_whitespace();
        let expected = words.find_map(|word| word.strip_prefix(&format!("{key}=")));
        assert!(expected.is_some(), "the manifest names no {key}");
        assert_eq!(value, expected, "{key}");
    }
    assert_eq!(answer.device().unwrap().serial, answer.serial);
}

#[actix_web::test]
async fn a_real_devices_word_is_believed_at_the_door_under_its_makers_ca_alone() {
    let (said, anchors) = (
        vectors(&["ota-profile-service"]),
        vectors(&["trust-anchor"]),
    );
    let Some(said) = said.first() else {
        return;
    };
    let chain = anchors.iter().find(|v| v.name.contains("device_ca_chain"));
    let chain = chain.unwrap().path.clone();
    let message = said.body();
    let serial = message.windows(10).position(|w| w == b"ZDL2M9PTJ3");
    let mut changed = message.clone();
    changed[serial.unwrap()] = b'Y';
    let trusting = |config: &mut reveille::Config| config.device.ota_trust_files = vec![chain];
    let trusting = House::bare(trusting).await;
    let strict = House::bare(|_| {}).await;
    // Believed, it is refused for its challenge, which is none of ours.
    for (house, body, words) in [
        (&trusting, message.clone(), "unknown challenge"),
        (&trusting, changed, "the signature does not match the body"),
        (&strict, message, "not issued by a configured authority"),
    ] {
        let request = house.device(Method::POST, "/enroll/ota");
        let request = request.header("Content-Type", "application/pkcs7-signature");
        let response = request.body(body).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::FORBIDDEN, "{words}");
        let told = response.text().await.unwrap();
        assert!(told.contains(words), "{told}");
    }
}

fn openssl_digest(digest: DigestAlgorithm) -> MessageDigest {
    match digest {
        DigestAlgorithm::Sha1 => MessageDigest::sha1(),
        DigestAlgorithm::Sha256 => MessageDigest::sha256(),
        DigestAlgorithm::Sha384 => MessageDigest::sha384(),
        DigestAlgorithm::Sha512 => MessageDigest::sha512(),
    }
}
