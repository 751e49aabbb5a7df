//! A device asks for its identity certificate, and strangers try to.

use std::collections::HashSet;

use actors::store::NewChallenge;
use openssl::ec::{EcGroup, EcKey};
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::X509;
use reqwest::{Method, StatusCode};
use reveille::config::CaKeyType;
use schema::der::{Oid, Tag, Writer};
use schema::{EnrollId, Leaf, UnixMillis};
use sim::{
    Digest, Identity, ScepAuthority, ScepCipher, ScepClient, ScepCsr, ScepReply, ScepRequest,
};

use crate::house::{House, NOW};

/// A house, a SCEP client of it, and the authority it fetched.
pub(crate) struct Desk {
    pub(crate) house: House,
    pub(crate) client: ScepClient,
    pub(crate) authority: ScepAuthority,
}

impl Desk {
    pub(crate) async fn open() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut reveille::Config)) -> Self {
        let house = House::bare(change).await;
        let url = format!("{}/scep", house.device_url());
        let client = ScepClient::new(&url, reqwest::Client::new());
        let authority = client.authority().await.unwrap();
        Self {
            house,
            client,
            authority,
        }
    }

    pub(crate) async fn challenge(&self) -> String {
        self.mint(false, None).await
    }

    pub(crate) async fn mint(&self, shared: bool, enrollment: Option<&str>) -> String {
        let challenge = NewChallenge {
            link: "link-1".into(),
            shared,
            enrollment: enrollment.map(|id| EnrollId::parse(id).unwrap()),
            expires: NOW.plus_seconds(3600),
        };
        let store = &self.house.running.app.store;
        store.mint_challenge(challenge).await.unwrap()
    }

    pub(crate) async fn says(&self, request: &ScepRequest) -> ScepReply {
        let message = request.encode(&self.authority.ra).unwrap();
        let reply = self.client.post(message).await.unwrap();
        request.open(&reply, &self.authority.ra).unwrap()
    }

    /// Enrolls a device under an identity; the device's messages come through the proxy.
    async fn check_in(&self, identity: &Identity, keys: &[(&str, &str)]) -> StatusCode {
        let keys: String = keys
            .iter()
            .map(|(key, value)| {
                let tag = if *key == "Token" { "data" } else { "string" };
                format!("<key>{key}</key><{tag}>{value}</{tag}>")
            })
            .collect();
        let request = self.house.device(Method::PUT, "/mdm/checkin");
        let request = request.header("Content-Type", "application/x-apple-aspen-mdm-checkin");
        let request = request.header("Client-Cert", identity.header_rfc9440());
        let body = format!("<plist version=\"1.0\"><dict>{keys}</dict></plist>");
        request.body(body).send().await.unwrap().status()
    }

    pub(crate) async fn bind(&self, identity: &Identity, udid: &str) {
        let topic = ("Topic", "com.apple.mgmt.External.x");
        let authenticate = [("MessageType", "Authenticate"), ("UDID", udid), topic];
        assert_eq!(self.check_in(identity, &authenticate).await, 200);
        assert_eq!(self.token_update(identity, udid).await, 200);
    }

    pub(crate) async fn token_update(&self, identity: &Identity, udid: &str) -> StatusCode {
        let keys = [
            ("MessageType", "TokenUpdate"),
            ("UDID", udid),
            ("Topic", "com.apple.mgmt.External.x"),
            ("Token", "AQID"),
            ("PushMagic", "m"),
        ];
        self.check_in(identity, &keys).await
    }

    fn is_recorded(&self, certificate: &[u8]) -> bool {
        let leaf = Leaf(openssl::sha::sha256(certificate));
        let store = &self.house.running.app.store;
        store.certificate(leaf).unwrap().is_some()
    }
}

pub(crate) fn rsa(bits: u32) -> PKey<Private> {
    PKey::from_rsa(Rsa::generate(bits).unwrap()).unwrap()
}

pub(crate) fn csr(key: &PKey<Private>, challenge: &str) -> Vec<u8> {
    asked(key, challenge, None)
}

fn asked(key: &PKey<Private>, challenge: &str, extensions: Option<Vec<u8>>) -> Vec<u8> {
    let csr = ScepCsr {
        common_name: "some other name".into(),
        challenge: Some(challenge.into()),
        extensions,
    };
    csr.sign(key).unwrap()
}

/// A first request, signed by a throw-away certificate over the same key.
pub(crate) fn request(key: &PKey<Private>, csr: Vec<u8>) -> ScepRequest {
    ScepRequest::new("19", csr, sim::scep_signer(key).unwrap()).unwrap()
}

pub(crate) fn failed(info: &str) -> ScepReply {
    ScepReply::Failed(info.into())
}

const BAD_ALG: &str = "0";
pub(crate) const BAD_MESSAGE_CHECK: &str = "1";
pub(crate) const BAD_REQUEST: &str = "2";

#[actix_web::test]
async fn a_device_gets_an_identity_enrolls_under_it_and_renews_it() {
    let desk = Desk::open().await;
    let capabilities = desk.client.capabilities().await.unwrap();
    for capability in [
        "Renewal",
        "SHA-256",
        "AES",
        "DES3",
        "SCEPStandard",
        "POSTPKIOperation",
    ] {
        assert!(
            capabilities.iter().any(|has| has == capability),
            "{capability}"
        );
    }
    let ca_key = desk.authority.ca.public_key().unwrap();
    assert!(desk.authority.ra.verify(&ca_key).unwrap());

    // device: PKCSReq with a challenge; server: a certificate, linked to where it came from.
    let key = rsa(2048);
    let challenge = desk.challenge().await;
    let enrolled = desk.client.enroll(&desk.authority, &key, &challenge).await;
    let identity = enrolled.unwrap();
    let store = &desk.house.running.app.store;
    let leaf = Leaf(identity.leaf_hash());
    let record = store.certificate(leaf).unwrap().unwrap();
    assert_eq!(record.link.as_deref(), Some("link-1"));
    assert_eq!((record.issued_for, record.bound_to), (None, None));
    assert_eq!(
        store.certificate_der(leaf).unwrap().as_deref(),
        Some(&*identity.cert_der)
    );
    let lives = record.not_after - i64::try_from(NOW.seconds()).unwrap();
    assert_eq!(lives, 397 * 86_400);

    // device: enrolls under it.
    desk.bind(&identity, "DEVICE-1").await;

    // device: RenewalReq signed by it; server: the next one, for the same enrollment.
    let next = desk
        .client
        .renew(&desk.authority, &identity, &key)
        .await
        .unwrap();
    assert_ne!(next.leaf_hash(), identity.leaf_hash());
    let record = store.certificate(Leaf(next.leaf_hash())).unwrap().unwrap();
    assert_eq!(record.issued_for.unwrap().as_str(), "DEVICE-1");
    let text = text(&next.cert_der);
    assert!(
        text.contains("Subject: O=Reveille, CN=DEVICE-1\n"),
        "{text}"
    );

    // device: speaks under the new one, which is bound now; the old one renews no more.
    assert_eq!(desk.token_update(&next, "DEVICE-1").await, 200);
    assert!(
        desk.client
            .renew(&desk.authority, &identity, &key)
            .await
            .is_err()
    );
    assert!(
        desk.client
            .renew(&desk.authority, &next, &key)
            .await
            .is_ok()
    );
}

pub(crate) fn text(der: &[u8]) -> String {
    String::from_utf8(X509::from_der(der).unwrap().to_text().unwrap()).unwrap()
}

#[actix_web::test]
async fn a_ca_with_a_p256_key_issues_as_well_and_keeps_its_key() {
    let of = |key| move |config: &mut reveille::Config| config.scep.ca_key_type = key;
    let desk = Desk::with(of(CaKeyType::P256)).await;
    let (key, challenge) = (rsa(2048), desk.challenge().await);
    let enrolled = desk.client.enroll(&desk.authority, &key, &challenge).await;
    let identity = enrolled.unwrap();
    let issued = text(&identity.cert_der);
    assert!(issued.contains("ecdsa-with-SHA256"), "{issued}");
    desk.bind(&identity, "DEVICE-1").await;
    let renewed = desk.client.renew(&desk.authority, &identity, &key).await;
    assert_eq!(desk.token_update(&renewed.unwrap(), "DEVICE-1").await, 200);

    let ca = desk.house.running.app.scep.ca().certificate_pem.clone();
    let stopped = desk.house.stopped().await;
    let house = stopped.start(of(CaKeyType::Rsa2048)).await.ok().unwrap();
    assert_eq!(house.running.app.scep.ca().certificate_pem, ca);
}

#[actix_web::test]
async fn a_challenge_for_an_enrollment_issues_for_that_enrollment() {
    let desk = Desk::open().await;
    let challenge = desk.mint(false, Some("DEVICE-7")).await;
    let enrolled = desk
        .client
        .enroll(&desk.authority, &rsa(2048), &challenge)
        .await;
    let leaf = Leaf(enrolled.unwrap().leaf_hash());
    let record = desk
        .house
        .running
        .app
        .store
        .certificate(leaf)
        .unwrap()
        .unwrap();
    assert_eq!(record.issued_for.unwrap().as_str(), "DEVICE-7");
    assert_eq!(record.link.as_deref(), Some("link-1"));
}

#[actix_web::test]
async fn a_resend_gives_the_same_certificate() {
    let desk = Desk::open().await;
    let key = rsa(2048);
    let request = request(&key, csr(&key, &desk.challenge().await));
    let ScepReply::Issued(first) = desk.says(&request).await else {
        panic!("refused");
    };
    // The very same octets, the same request sealed anew, and after a restart.
    let message = request.encode(&desk.authority.ra).unwrap();
    for _ in 0..2 {
        let reply = desk.client.post(message.clone()).await.unwrap();
        let reply = request.open(&reply, &desk.authority.ra).unwrap();
        assert_eq!(reply, ScepReply::Issued(first.clone()));
    }
    let house = desk.house.restarted().await;
    let url = format!("{}/scep", house.device_url());
    let client = ScepClient::new(&url, reqwest::Client::new());
    let reply = client.post(message).await.unwrap();
    let reply = request.open(&reply, &desk.authority.ra).unwrap();
    assert_eq!(reply, ScepReply::Issued(first));
}

#[actix_web::test]
async fn a_challenge_that_is_wrong_used_or_expired_buys_nothing() {
    let desk = Desk::open().await;
    let key = rsa(2048);
    let (good, late) = (desk.challenge().await, desk.challenge().await);
    let shared = desk.mint(true, None).await;
    assert!(matches!(
        desk.says(&request(&key, csr(&key, &good))).await,
        ScepReply::Issued(_)
    ));
    for _ in 0..2 {
        let reply = desk.says(&request(&key, csr(&key, &shared))).await;
        assert!(matches!(reply, ScepReply::Issued(_)));
    }
    for wrong in [
        good.as_str(),
        "",
        "nobody minted this",
        &late.to_uppercase(),
    ] {
        let reply = desk.says(&request(&key, csr(&key, wrong))).await;
        assert_eq!(reply, failed(BAD_REQUEST), "{wrong}");
    }
    let none = ScepCsr::default().sign(&key).unwrap();
    assert_eq!(desk.says(&request(&key, none)).await, failed(BAD_REQUEST));
    desk.house.clock.set(NOW.plus_seconds(3600));
    for expired in [&late, &shared] {
        let reply = desk.says(&request(&key, csr(&key, expired))).await;
        assert_eq!(reply, failed(BAD_REQUEST));
    }
}

#[actix_web::test]
async fn of_fifty_that_use_one_challenge_at_once_one_gets_a_certificate() {
    let desk = Desk::open().await;
    let key = rsa(2048);
    let challenge = desk.challenge().await;
    let requests: Vec<_> = (0..50)
        .map(|_| request(&key, csr(&key, &challenge)))
        .collect();
    let replies = futures_util::future::join_all(requests.iter().map(|r| desk.says(r))).await;
    let issued = replies
        .iter()
        .filter(|reply| matches!(reply, ScepReply::Issued(_)));
    assert_eq!(issued.count(), 1);
    let refused = replies
        .iter()
        .filter(|reply| **reply == failed(BAD_REQUEST));
    assert_eq!(refused.count(), 49);
}

#[actix_web::test]
async fn of_fifty_equal_requests_at_once_all_get_the_same_certificate() {
    let desk = Desk::open().await;
    let key = rsa(2048);
    let request = request(&key, csr(&key, &desk.challenge().await));
    let replies = futures_util::future::join_all((0..50).map(|_| desk.says(&request))).await;
    let issued: HashSet<_> = replies
        .into_iter()
        .map(|reply| match reply {
            ScepReply::Issued(der) => der,
            ScepReply::Failed(info) => panic!("failed: {info}"),
        })
        .collect();
    assert_eq!(issued.len(), 1);
    assert!(desk.is_recorded(issued.iter().next().unwrap()));
}

/// CA:TRUE, serverAuth and a name of somebody else's server.
fn greedy_extensions() -> Vec<u8> {
    let written = |inside: &dyn Fn(&mut Writer)| {
        let mut writer = Writer::new();
        inside(&mut writer);
        writer.finish()
    };
    let extension = |w: &mut Writer, oid: &[u8], value: Vec<u8>| {
        w.sequence(|w| {
            w.oid(Oid(oid));
            w.boolean(true);
            w.octet_string(&value);
        });
    };
    written(&|w| {
        w.sequence(|w| {
            let ca = written(&|w| w.sequence(|w| w.boolean(true)));
            extension(w, &[0x55, 0x1d, 0x13], ca);
            let server = Oid(&[0x2b, 6, 1, 5, 5, 7, 3, 1]);
            extension(
                w,
                &[0x55, 0x1d, 0x25],
                written(&|w| w.sequence(|w| w.oid(server))),
            );
            let name = written(&|w| {
                w.sequence(|w| w.primitive(Tag::context_primitive(2), b"mdm.example.org"));
            });
            extension(w, &[0x55, 0x1d, 0x11], name);
            extension(w, &[0x55, 0x1d, 0x0f], vec![3, 2, 1, 6]);
        });
    })
}

#[actix_web::test]
async fn whatever_a_request_asks_for_it_gets_a_client_certificate_in_our_name() {
    let desk = Desk::open().await;
    let signer = rsa(2048);
    let curve =
        |nid| PKey::from_ec_key(EcKey::generate(&EcGroup::from_curve_name(nid).unwrap()).unwrap());
    for (key, usage) in [
        (signer.clone(), "Digital Signature, Key Encipherment"),
        (curve(Nid::X9_62_PRIME256V1).unwrap(), "Digital Signature"),
        (curve(Nid::SECP384R1).unwrap(), "Digital Signature"),
    ] {
        let csr = asked(&key, &desk.challenge().await, Some(greedy_extensions()));
        let ScepReply::Issued(der) = desk.says(&request(&signer, csr)).await else {
            panic!("refused");
        };
        let certificate = X509::from_der(&der).unwrap();
        assert!(certificate.public_key().unwrap().public_eq(&key));
        let ca = desk.authority.ca.public_key().unwrap();
        assert!(certificate.verify(&ca).unwrap());
        let text = text(&der);
        assert!(text.contains("Subject: O=Reveille, CN=device-"), "{text}");
        assert!(text.contains("CA:FALSE"), "{text}");
        assert!(text.contains(&format!("{usage}\n")), "{text}");
        assert!(text.contains("TLS Web Client Authentication\n"), "{text}");
        for unwanted in [
            "CA:TRUE",
            "Server",
            "example.org",
            "Alternative",
            "other name",
        ] {
            assert!(!text.contains(unwanted), "{unwanted}: {text}");
        }
    }
}

#[actix_web::test]
async fn weak_keys_and_broken_requests_get_nothing_and_spend_nothing() {
    let desk = Desk::open().await;
    let (key, weak) = (rsa(2048), rsa(1024));
    let challenge = desk.challenge().await;
    let p521 = EcGroup::from_curve_name(Nid::SECP521R1).unwrap();
    let p521 = PKey::from_ec_key(EcKey::generate(&p521).unwrap()).unwrap();
    for weak in [weak, p521] {
        let reply = desk.says(&request(&key, csr(&weak, &challenge))).await;
        assert_eq!(reply, failed(BAD_REQUEST));
    }
    let mut broken = csr(&key, &challenge);
    *broken.last_mut().unwrap() ^= 1;
    // Another key than the one that signed.
    let (mut other, own) = (
        csr(&key, &challenge),
        rsa(2048).public_key_to_der().unwrap(),
    );
    let place = key.public_key_to_der().unwrap();
    let at = other.windows(place.len()).position(|w| w == place).unwrap();
    other.splice(at..at + place.len(), own);
    for wrong in [broken, other, b"no request at all".to_vec(), Vec::new()] {
        let reply = desk.says(&request(&key, wrong)).await;
        assert_eq!(reply, failed(BAD_MESSAGE_CHECK));
    }
    // The challenge is as good as before.
    let reply = desk.says(&request(&key, csr(&key, &challenge))).await;
    assert!(matches!(reply, ScepReply::Issued(_)));
}

#[actix_web::test]
async fn only_the_bound_identity_of_an_enrollment_renews() {
    let desk = Desk::open().await;
    let key = rsa(2048);
    let challenge = desk.challenge().await;
    let unbound = desk
        .client
        .enroll(&desk.authority, &key, &challenge)
        .await
        .unwrap();
    let foreign = desk.house.ca.issue("foreign").unwrap();
    let own = sim::scep_signer(&key).unwrap();
    for (who, signer) in [
        ("unbound", &unbound),
        ("foreign", &foreign),
        ("self-signed", &own),
    ] {
        // With a good challenge too: a renewal is not paid for.
        let csr = csr(&key, &desk.challenge().await);
        let request = ScepRequest::new("17", csr, signer.clone()).unwrap();
        assert_eq!(desk.says(&request).await, failed(BAD_REQUEST), "{who}");
    }
    desk.bind(&unbound, "DEVICE-1").await;
    // Its certificate, but not its key.
    let thief = Identity::new(&unbound.cert_der, rsa(2048)).unwrap();
    let stolen = ScepRequest::new("17", ScepCsr::default().sign(&key).unwrap(), thief).unwrap();
    let message = stolen.encode(&desk.authority.ra).unwrap();
    let reply = desk.client.post(message).await.unwrap();
    assert_eq!(
        stolen.open(&reply, &desk.authority.ra).unwrap(),
        failed(BAD_MESSAGE_CHECK)
    );
    assert!(
        desk.client
            .renew(&desk.authority, &unbound, &key)
            .await
            .is_ok()
    );
    // Checked out, it is nobody's identity any more.
    let leave = [
        ("MessageType", "CheckOut"),
        ("UDID", "DEVICE-1"),
        ("Topic", "t"),
    ];
    assert_eq!(desk.check_in(&unbound, &leave).await, 200);
    assert!(
        desk.client
            .renew(&desk.authority, &unbound, &key)
            .await
            .is_err()
    );
}

#[actix_web::test]
async fn every_cipher_digest_and_way_to_send_is_served() {
    let desk = Desk::open().await;
    let key = rsa(2048);
    let challenge = desk.mint(true, None).await;
    let base = format!("{}/scep", desk.house.device_url());
    for cipher in [ScepCipher::Des3, ScepCipher::Aes128, ScepCipher::Aes256] {
        for digest in [Digest::Sha1, Digest::Sha256, Digest::Sha384, Digest::Sha512] {
            let mut request = request(&key, csr(&key, &challenge));
            (request.cipher, request.digest) = (cipher, digest);
            let message = request.encode(&desk.authority.ra).unwrap();
            let query = ScepRequest::query(&message);
            let escaped: String = openssl::base64::encode_block(&message)
                .replace('+', "%2B")
                .replace('/', "%2F")
                .replace('=', "%3D");
            let http = reqwest::Client::new();
            for asked in [
                http.get(format!("{base}?operation=PKIOperation&message={query}")),
                http.get(format!("{base}?operation=PKIOperation&message={escaped}")),
                // What mdmb sends: a second `?`, and the message in the query as well.
                http.post(format!("{base}??operation=PKIOperation&message={query}"))
                    .body(message.clone()),
            ] {
                let response = asked.send().await.unwrap();
                assert_eq!(response.status(), 200);
                assert_eq!(
                    response.headers()["Content-Type"],
                    "application/x-pki-message"
                );
                let reply = response.bytes().await.unwrap();
                let reply = request.open(&reply, &desk.authority.ra).unwrap();
                assert!(
                    matches!(reply, ScepReply::Issued(_)),
                    "{cipher:?} {digest:?}"
                );
            }
        }
    }
}

#[actix_web::test]
async fn every_failure_to_decrypt_is_the_same_octets() {
    let desk = Desk::open().await;
    let key = rsa(2048);
    let request = request(&key, csr(&key, &desk.challenge().await));
    let sealed_for = |request: &ScepRequest, ra: &X509| {
        let mut recipients = openssl::stack::Stack::new().unwrap();
        recipients.push(ra.clone()).unwrap();
        let flags = openssl::pkcs7::Pkcs7Flags::BINARY;
        let cipher = openssl::symm::Cipher::aes_128_cbc();
        let pkcs7 = openssl::pkcs7::Pkcs7::encrypt(&recipients, &request.csr, cipher, flags);
        pkcs7.unwrap().to_der().unwrap()
    };
    let good = sealed_for(&request, &desk.authority.ra);
    let flipped = |at: usize| {
        let mut bent = good.clone();
        bent[at] ^= 1;
        bent
    };
    let end = good.len() - 1;
    // In the RSA block (it ends before the content), in the content, in its last block.
    let key_at = good.len() - request.csr.len().next_multiple_of(16) - 100;
    let mut wrong: Vec<_> = [key_at, key_at - 50, end - 16, end - 200, end]
        .map(flipped)
        .into();
    wrong.push(sealed_for(&request, &desk.authority.ca));
    let mut no_csr = request.clone();
    for csr in [b"".as_slice(), b"0", &[0x30; 500]] {
        no_csr.csr = csr.to_vec();
        wrong.push(sealed_for(&no_csr, &desk.authority.ra));
    }
    wrong.extend([b"".to_vec(), b"garbage".to_vec()]);
    let mut answers = HashSet::new();
    for wrong in wrong {
        let reply = desk
            .client
            .post(request.encode_around(&wrong).unwrap())
            .await
            .unwrap();
        let opened = request.open(&reply, &desk.authority.ra).unwrap();
        assert_eq!(opened, failed(BAD_MESSAGE_CHECK));
        answers.insert(reply);
    }
    assert_eq!(answers.len(), 1);
}

#[actix_web::test]
async fn other_message_types_are_refused_before_anything_is_decrypted() {
    let desk = Desk::open().await;
    let key = rsa(2048);
    let challenge = desk.challenge().await;
    for number in (0..=255).filter(|number| ![17, 19].contains(number)) {
        let mut request = request(&key, csr(&key, &challenge));
        request.message_type = number.to_string();
        // A good envelope and none at all are told the same.
        let good = desk.says(&request).await;
        assert_eq!(good, failed(BAD_REQUEST), "{number}");
        if number % 50 == 0 {
            let bad = request.encode_around(b"no envelope").unwrap();
            let bad = desk.client.post(bad).await.unwrap();
            let bad = request.open(&bad, &desk.authority.ra).unwrap();
            assert_eq!(bad, good);
        }
    }
    for text in ["", "x", "19x", "0019", "1.9"] {
        let mut request = request(&key, csr(&key, &challenge));
        request.message_type = text.into();
        let message = request.encode(&desk.authority.ra).unwrap();
        assert_eq!(post(&desk, message).await, 400, "{text}");
    }
    // The challenge is unspent after all that.
    let reply = desk.says(&request(&key, csr(&key, &challenge))).await;
    assert!(matches!(reply, ScepReply::Issued(_)));
}

#[actix_web::test]
async fn a_signer_that_cannot_be_answered_is_told_so() {
    let desk = Desk::open().await;
    let key = rsa(2048);
    let mut request = request(&key, csr(&key, &desk.challenge().await));
    request.signer = sim::scep_signer(&rsa(512)).unwrap();
    request.digest = Digest::Sha1;
    let message = request.encode(&desk.authority.ra).unwrap();
    let reply = desk.client.post(message).await.unwrap();
    assert_eq!(
        request.open(&reply, &desk.authority.ra).unwrap(),
        failed(BAD_ALG)
    );
}

async fn post(desk: &Desk, body: Vec<u8>) -> StatusCode {
    let request = desk
        .house
        .device(Method::POST, "/scep?operation=PKIOperation");
    request.body(body).send().await.unwrap().status()
}

#[actix_web::test]
async fn garbage_is_400_or_413_and_never_401() {
    let desk = Desk::open().await;
    for body in [Vec::new(), b"garbage".to_vec(), vec![0x30; 60_000]] {
        assert_eq!(post(&desk, body).await, 400);
    }
    assert_eq!(post(&desk, vec![0x30; (64 << 10) + 1]).await, 413);
    for (method, path, status) in [
        (Method::GET, "/scep", 400),
        (Method::GET, "/scep?operation=GetNextCACert", 400),
        (Method::GET, "/scep?operation=PKIOperation", 400),
        (Method::GET, "/scep?operation=PKIOperation&message=***", 400),
        (Method::POST, "/scep?operation=GetCACert", 400),
        (Method::POST, "/scep", 400),
        (
            Method::GET,
            "/scep?operation=GetCACaps&operation=GetCACert",
            400,
        ),
        (Method::GET, "/scep/?operation=GetCACaps", 404),
        (Method::PUT, "/scep?operation=GetCACaps", 405),
        (Method::GET, "/scep?operation=GetCACaps", 200),
        (
            Method::GET,
            "/scep?operation=GetCACert&message=any%20CA",
            200,
        ),
        (Method::GET, "/scep?operation=GetCACert&message=", 200),
    ] {
        let response = desk
            .house
            .device(method.clone(), path)
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), status, "{method} {path}");
    }
    let encoded = desk
        .house
        .device(Method::POST, "/scep?operation=PKIOperation");
    let encoded = encoded.header("Content-Encoding", "gzip").body("x");
    assert_eq!(encoded.send().await.unwrap().status(), 415);
}

#[actix_web::test]
async fn a_request_line_of_sixty_kilobytes_is_read() {
    let desk = Desk::open().await;
    let key = rsa(2048);
    let request = request(&key, csr(&key, &desk.challenge().await));
    let message = request.encode(&desk.authority.ra).unwrap();
    let long = "x".repeat(60_000);
    let path = format!("/scep?operation=PKIOperation&message={long}");
    let response = desk.house.device(Method::POST, &path).body(message);
    let reply = response.send().await.unwrap();
    assert_eq!(reply.status(), 200);
    let reply = request.open(&reply.bytes().await.unwrap(), &desk.authority.ra);
    assert!(matches!(reply.unwrap(), ScepReply::Issued(_)));
    // By GET it is the message, and this one is garbage.
    let response = desk.house.device(Method::GET, &path).send().await.unwrap();
    assert_eq!(response.status(), 400);
    assert!(response.text().await.unwrap().contains("pkiMessage"));
}

#[actix_web::test]
async fn messages_of_the_field_for_another_authority_are_answered_with_failure() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/vectors/scep");
    let desk = Desk::open().await;
    for name in ["scep__PKCSReq.der", "scep__mdmclient_PKIOperation.der"] {
        let Ok(message) = std::fs::read(folder.join(name)) else {
            println!("skipped: {name} is not in {}", folder.display());
            continue;
        };
        let reply = desk.client.post(message).await.unwrap();
        let reply = schema::scep::PkiMessage::parse(&reply).unwrap();
        let info = reply
            .signed
            .signer
            .attribute(schema::scep::FAIL_INFO)
            .unwrap()
            .unwrap();
        assert_eq!(info.content(), BAD_MESSAGE_CHECK.as_bytes(), "{name}");
    }
}

#[actix_web::test]
async fn the_ra_is_renewed_while_the_server_runs() {
    let desk = Desk::open().await;
    let later = UnixMillis(NOW.0).plus_seconds(700 * 86_400);
    desk.house.clock.set(later);
    let renewed = desk.client.authority().await.unwrap();
    assert_ne!(
        renewed.ra.to_der().unwrap(),
        desk.authority.ra.to_der().unwrap()
    );
    assert_eq!(
        renewed.ca.to_der().unwrap(),
        desk.authority.ca.to_der().unwrap()
    );
    // A request sealed for the RA of a moment ago is still read, and signed by the new one.
    let key = rsa(2048);
    let challenge = NewChallenge {
        link: "link-1".into(),
        shared: false,
        enrollment: None,
        expires: later.plus_seconds(60),
    };
    let store = &desk.house.running.app.store;
    let challenge = store.mint_challenge(challenge).await.unwrap();
    let request = request(&key, csr(&key, &challenge));
    let message = request.encode(&desk.authority.ra).unwrap();
    let reply = desk.client.post(message).await.unwrap();
    let reply = request.open(&reply, &renewed.ra).unwrap();
    assert!(matches!(reply, ScepReply::Issued(_)));
}

/// Runs strongSwan's `pki`; nothing where it is not installed.
async fn pki(directory: &std::path::Path, arguments: &[&str]) -> Option<Result<(), String>> {
    let mut command = std::process::Command::new("pki");
    command.args(arguments).current_dir(directory);
    // Its server is in this process: it must not be waited for on this thread.
    let output = actix_web::web::block(move || command.output())
        .await
        .unwrap();
    let Ok(output) = output else {
        println!("skipped: strongSwan's pki is not installed");
        return None;
    };
    let (out, said) = (&output.stdout, String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        return Some(Err(said.into_owned()));
    }
    if !out.is_empty() {
        std::fs::write(directory.join("out.der"), out).unwrap();
    }
    Some(Ok(()))
}

#[actix_web::test]
async fn a_client_that_is_not_ours_enrolls_and_renews() {
    let desk = Desk::open().await;
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    // It judges dates by the machine's clock, and so must what it is shown.
    let now = UnixMillis(
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_millis() as u64,
    );
    desk.house.clock.set(now);
    // Two months back is a jump; an admin says that it is right.
    let store = &desk.house.running.app.store;
    store.confirm_clock().await.unwrap();
    let url = format!("{}/scep", desk.house.device_url());
    let file = |name: &str, bytes: &[u8]| std::fs::write(at.join(name), bytes).unwrap();
    let fetch = [
        "--scepca", "--url", &url, "--caout", "ca.der", "--raout", "ra.der", "--force",
    ];
    let Some(fetched) = pki(at, &fetch).await else {
        return;
    };
    fetched.unwrap();
    let key = rsa(2048);
    file("key.der", &key.private_key_to_der().unwrap());
    let challenge = NewChallenge {
        link: "link-1".into(),
        shared: true,
        enrollment: None,
        expires: now.plus_seconds(600),
    };
    let challenge = store.mint_challenge(challenge).await.unwrap();
    let common = ["--scep", "--url", &url, "--dn", "C=AQ, CN=penguin"];
    let trust = [
        "--cacert-enc",
        "ra.der",
        "--cacert-sig",
        "ra.der",
        "--cacert",
        "ca.der",
    ];
    for (cipher, digest) in [("aes", "sha256"), ("des3", "sha1"), ("aes", "sha512")] {
        let own = ["--in", "key.der", "--password", &challenge];
        let kind = ["--cipher", cipher, "--digest", digest];
        let arguments = [&common[..], &trust, &own, &kind].concat();
        pki(at, &arguments).await.unwrap().unwrap();
        let issued = std::fs::read(at.join("out.der")).unwrap();
        assert!(desk.is_recorded(&issued), "{cipher} {digest}");
    }
    let issued = std::fs::read(at.join("out.der")).unwrap();
    assert!(!text(&issued).contains("penguin"));
    file("old.der", &issued);
    file("old-key.der", &key.private_key_to_der().unwrap());
    desk.bind(&Identity::new(&issued, key).unwrap(), "PENGUIN")
        .await;

    file("key.der", &rsa(2048).private_key_to_der().unwrap());
    let own = [
        "--in",
        "key.der",
        "--cert",
        "old.der",
        "--key",
        "old-key.der",
    ];
    let arguments = [&common[..], &trust, &own].concat();
    pki(at, &arguments).await.unwrap().unwrap();
    let next = std::fs::read(at.join("out.der")).unwrap();
    assert!(text(&next).contains("Subject: O=Reveille, CN=PENGUIN\n"));
}
