//! What devices are given and give: links, challenges, identities, unlock and bootstrap
//! tokens, push tokens. In the right place, and in every wrong one.

use openssl::pkcs12::Pkcs12;
use openssl::pkey::PKey;
use openssl::rsa::Rsa;
use plist::{Dictionary, Value};
use reqwest::{Method, StatusCode};
use serde_json::json;
use sim::{Channel, Device, Dice, Identity, Kind, Proof, ScepClient, ScepCsr, ScepRequest};

use super::{Asked, Cage};
use crate::house::TOPIC;

/// A link, its profile, SCEP, the check-ins: all that goes right, and copies that do not.
pub(super) async fn enroll_through_a_link(cage: &Cage) -> Device {
    let secret = made_link(cage, "the secret of a link", &json!({"max_uses": 3})).await;
    let profile = profile(cage, &secret).await;
    let scep = payload(&profile, "com.apple.security.scep");
    let scep = scep["PayloadContent"].as_dictionary().unwrap();
    let challenge = scep["Challenge"].as_string().unwrap();
    cage.canary("a SCEP challenge", challenge);
    let client = ScepClient::new(&format!("{}/scep", cage.devices), cage.http.clone());
    let authority = client.authority().await.unwrap();
    let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
    // A request whose proof is broken, a good one, and one that comes too late.
    let csr = |text: &str| ScepCsr {
        common_name: text.to_owned(),
        challenge: Some(challenge.to_owned()),
        extensions: None,
    };
    let mut broken = csr("broken").sign(&key).unwrap();
    *broken.last_mut().unwrap() ^= 1;
    let signer = sim::scep_signer(&key).unwrap();
    let request = |csr| ScepRequest::new("19", csr, signer.clone()).unwrap();
    let broken = request(broken).encode(&authority.ra).unwrap();
    cage.hears(
        "SCEP, a broken request",
        &client.post(broken).await.unwrap(),
    );
    let identity = client.enroll(&authority, &key, challenge).await.unwrap();
    let late = request(csr("late").sign(&key).unwrap());
    let late = late.encode(&authority.ra).unwrap();
    cage.hears(
        "SCEP, a challenge used twice",
        &client.post(late).await.unwrap(),
    );
    bend_challenge(cage, challenge).await;
    bend_link(cage, &secret).await;
    enroll(cage, identity).await
}

async fn made_link(cage: &Cage, name: &'static str, terms: &serde_json::Value) -> String {
    let links = "/api/v1/enrollment-links";
    let (status, made) = cage.asks(Method::POST, links, Asked::Json(terms)).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let (_, secret) = made["url"].as_str().unwrap().rsplit_once('/').unwrap();
    cage.canary(name, secret);
    secret.to_owned()
}

async fn profile(cage: &Cage, secret: &str) -> Dictionary {
    let path = format!("/enroll/{secret}?unsigned=1");
    let (status, profile) = cage
        .sends("a profile", cage.device(Method::GET, &path))
        .await;
    assert_eq!(status, StatusCode::OK);
    schema::xml::parse(&profile).unwrap()
}

fn payload(profile: &Dictionary, kind: &str) -> Dictionary {
    let payloads = profile["PayloadContent"].as_array().unwrap().iter();
    let mut payloads = payloads.filter_map(Value::as_dictionary);
    let payload = payloads.find(|payload| payload["PayloadType"].as_string() == Some(kind));
    payload.unwrap().clone()
}

async fn bend_challenge(cage: &Cage, challenge: &str) {
    for query in [
        format!("operation=PKIOperation&message={challenge}"),
        format!("operation={challenge}"),
        format!("operation=GetCACert&challenge={challenge}&operation=x"),
        challenge.to_owned(),
    ] {
        for method in [Method::GET, Method::POST] {
            let request = cage.device(method, &format!("/scep?{query}"));
            let (status, _) = cage.sends("SCEP", request.body(challenge.to_owned())).await;
            assert!(status.is_client_error() || status.is_success(), "{status}");
        }
    }
}

/// The link where it leads nowhere, and when it leads nowhere any more.
async fn bend_link(cage: &Cage, secret: &str) {
    let html = "text/html,application/xhtml+xml";
    for path in [
        format!("/enroll/{secret}x"),
        format!("/enroll/{}", secret.to_lowercase()),
        format!("/enroll/{secret}/"),
        format!("/enroll/{secret}/profile"),
        format!("/enroll/x?secret={secret}"),
        format!("/enroll/%00{secret}"),
        format!("/enrol/{secret}"),
        format!("/{secret}"),
    ] {
        for accept in [html, "*/*"] {
            let request = cage.device(Method::GET, &path).header("Accept", accept);
            let (status, _) = cage.sends("a wrong link", request).await;
            assert_eq!(status, 404);
        }
    }
    let post = cage.device(Method::POST, &format!("/enroll/{secret}"));
    cage.sends("a link by POST", post.body(secret.to_owned()))
        .await;
    let by_admin = format!("/enroll/{secret}");
    cage.asks(Method::GET, &by_admin, Asked::Nothing).await;
    let by_id = format!("/api/v1/enrollment-links/{secret}");
    cage.asks(Method::DELETE, &by_id, Asked::Nothing).await;
    for body in [
        json!({"device": [secret]}),
        json!({"max_uses": secret}),
        json!({"tags": [secret, 1]}),
    ] {
        let (status, _) = cage
            .asks(Method::POST, "/api/v1/enrollment-links", Asked::Json(&body))
            .await;
        assert!(status.is_client_error());
    }
    // Another one, taken back.
    let gone = made_link(cage, "the secret of a link taken back", &json!({})).await;
    let request = cage
        .http
        .get(format!("{}/api/v1/enrollment-links?limit=1", cage.admin));
    let newest = request.bearer_auth(&cage.token).send().await.unwrap();
    let newest: serde_json::Value = newest.json().await.unwrap();
    let id = newest["items"][0]["id"].as_str().unwrap();
    let path = format!("/api/v1/enrollment-links/{id}");
    assert_eq!(
        cage.asks(Method::DELETE, &path, Asked::Nothing).await.0,
        204
    );
    for accept in [html, "*/*"] {
        let request = cage.device(Method::GET, &format!("/enroll/{gone}"));
        let (status, _) = cage
            .sends("a link taken back", request.header("Accept", accept))
            .await;
        assert_eq!(status, StatusCode::GONE);
    }
}

async fn enroll(cage: &Cage, identity: Identity) -> Device {
    let dice = &mut Dice::new(8);
    let mut device = Device::holding(identity, TOPIC, Kind::IPhone, dice);
    device.unlock_token = Some(cage.made("an unlock token").into_bytes());
    device.push.magic = cage.made("the PushMagic");
    cage.canary("the push token", &device.push.token);
    let mut client = cage.line(Proof::Signature);
    sim::enroll(&device, &mut client).await.unwrap();
    let token = cage.made("a bootstrap token");
    for body in [
        device.set_bootstrap_token(token.as_bytes()),
        device.get_bootstrap_token(),
    ] {
        let reply = client.check_in(&device.identity, body).await.unwrap();
        assert_eq!(reply.status, 200);
    }
    // It is woken, and not under another's token.
    let wake = format!("/api/v1/devices/{}/wake", device.udid);
    assert_eq!(cage.asks(Method::POST, &wake, Asked::Nothing).await.0, 202);
    let woken = |counts: &sim::Counts| counts.accepted >= 1;
    let limit = std::time::Duration::from_secs(20);
    cage.apns.wait_until(limit, woken).await.unwrap();
    device
}

/// Check-ins and reports with a secret where it cannot be read.
pub(super) async fn say_it_wrong(cage: &Cage, device: &Device) {
    let secret = cage.made("a secret in a malformed message");
    let data = openssl::base64::encode_block(secret.as_bytes());
    let text = |key: &str, value: &str| format!("<key>{key}</key><string>{value}</string>");
    let ids = text("UDID", &device.udid) + &text("Topic", TOPIC);
    let kind = |kind: &str| text("MessageType", kind) + &ids;
    let push = text("PushMagic", &secret) + "<key>Token</key><data>AQID</data>";
    let token = |value: &str| format!("<key>BootstrapToken</key>{value}");
    let bodies = [
        kind("SetBootstrapToken") + &token(&format!("<string>{secret}</string>")),
        kind("SetBootstrapToken") + &token(&format!("<data>{secret}!</data>")),
        kind("SetBootstrapToken") + &token(&format!("<integer>{secret}</integer>")),
        kind("SetBootstrapToken") + &token(&format!("<date>{secret}</date>")),
        kind("SetBootstrapToken") + &token(&format!("<real>{secret}</real>")),
        kind("SetBootstrapToken") + &token(&format!("<data>{data}</data>")).repeat(2),
        kind("SetBootstrapToken") + &token(&format!("<{secret}/>")),
        kind("SetBootstrapToken") + &token(&format!("<string>&{secret};</string>")),
        kind("SetBootstrapToken") + &token(&format!("<string>{secret}")),
        kind("SetBootstrapToken") + &secret,
        kind("TokenUpdate")
            + &push
            + "<key>UnlockToken</key><true/>"
            + &text("UnlockToken", &secret),
        kind("TokenUpdate") + &push + &text("UnlockToken", &secret),
        kind("TokenUpdate") + &text("PushMagic", &secret) + &text("Token", &secret),
        kind("TokenUpdate")
            + &format!(
                "<key>PushMagic</key><data>{data}</data><key>Token</key><data>{data}</data>"
            ),
        kind("UserAuthenticate") + &format!("<key>DigestResponse</key><data>{data}</data>"),
        kind("GetToken") + &format!("<key>TokenServiceType</key><data>{data}</data>"),
        kind("DeclarativeManagement") + &text("Endpoint", "status") + &text("Data", &secret),
        kind("DeclarativeManagement") + &text("Endpoint", &secret),
        text("MessageType", "SetBootstrapToken") + &token(&format!("<data>{data}</data>")),
    ];
    let mut client = cage.line(Proof::Header);
    for keys in &bodies {
        let body = format!("<plist version=\"1.0\"><dict>{keys}</dict></plist>");
        for body in [
            body.clone(),
            body.replace("</plist>", ""),
            format!("{body}{secret}"),
        ] {
            let reply = client
                .check_in(&device.identity, body.clone().into_bytes())
                .await
                .unwrap();
            cage.hears(&body, &reply.body);
            assert!(reply.status.is_client_error(), "{body}: {}", reply.status);
            let report = body.replace("MessageType", "Status").into_bytes();
            let reply = client.report(&device.identity, report).await.unwrap();
            cage.hears("a report that cannot be read", &reply.body);
        }
    }
    let binary = format!("bplist00{secret}").into_bytes();
    for proof in [
        ("Mdm-Signature", secret.clone()),
        ("Client-Cert", format!(":{secret}:")),
    ] {
        let request = cage.device(Method::PUT, &format!("/mdm/checkin?token={secret}"));
        let request = request
            .header(proof.0, proof.1)
            .header("Authorization", &secret);
        let (status, _) = cage
            .sends("no identity", request.body(binary.clone()))
            .await;
        assert_eq!(status, 403);
    }
    let reply = client.check_in(&device.identity, binary).await.unwrap();
    cage.hears("a binary plist", &reply.body);
    let idle = device.idle(Channel::Device);
    assert_eq!(
        client.report(&device.identity, idle).await.unwrap().status,
        200
    );
}

/// A profile that brings the identity itself: the password and the key are in it and
/// nowhere else.
pub(super) async fn take_an_identity_from_a_profile(cage: &Cage) {
    let terms = json!({"identity": "pkcs12"});
    let secret = made_link(cage, "the secret of a link with an identity", &terms).await;
    let profile = profile(cage, &secret).await;
    let payload = payload(&profile, "com.apple.security.pkcs12");
    let password = payload["Password"].as_string().unwrap();
    cage.canary("the password of an identity", password);
    let file = Pkcs12::from_der(payload["PayloadContent"].as_data().unwrap()).unwrap();
    let key = file.parse2(password).unwrap().pkey.unwrap();
    let exponent = key.rsa().unwrap().d().to_vec();
    cage.canary("the key of an identity", &exponent[64..96]);
}
