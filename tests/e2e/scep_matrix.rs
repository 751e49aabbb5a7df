//! Nobody gets a certificate who should not: every way to write a message's type, every
//! challenge that is none, every identity that may not renew, every failure to decrypt.

mod envelopes;

use std::collections::BTreeSet;

use openssl::hash::{MessageDigest, hash};
use openssl::pkey::{PKey, Private};
use reqwest::Method;
use schema::der::{Oid, Tag, Writer};
use schema::scep::{MESSAGE_TYPE, SENDER_NONCE, TRANSACTION_ID};
use serde_json::json;
use sim::{Identity, ScepCsr, ScepReply, ScepRequest};

use crate::house::NOW;
use crate::identities::forged;
use crate::scep::{BAD_MESSAGE_CHECK, BAD_REQUEST, Desk, csr, failed, request, rsa, text};

const CONTENT_TYPE: Oid<'static> = Oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 3]);
const MESSAGE_DIGEST: Oid<'static> = Oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 4]);
const DATA: Oid<'static> = Oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1]);

/// A request signed with these messageType attributes, each a set of values in DER.
fn typed(desk: &Desk, request: &ScepRequest, types: &[Vec<Vec<u8>>]) -> Vec<u8> {
    let content = request.encode(&desk.authority.ra).unwrap();
    let content = schema::scep::PkiMessage::parse(&content).unwrap();
    let content = content.signed.content.unwrap().into_owned();
    let digest = hash(MessageDigest::sha256(), &content).unwrap();
    let value = |write: &dyn Fn(&mut Writer)| {
        let mut writer = Writer::new();
        write(&mut writer);
        writer.finish()
    };
    let mut attributes = vec![
        (CONTENT_TYPE, vec![value(&|w| w.oid(DATA))]),
        (MESSAGE_DIGEST, vec![value(&|w| w.octet_string(&digest))]),
        (TRANSACTION_ID, vec![printable(&request.transaction)]),
        (
            SENDER_NONCE,
            vec![value(&|w| w.octet_string(&request.nonce))],
        ),
    ];
    attributes.extend(types.iter().map(|values| (MESSAGE_TYPE, values.clone())));
    let mut writer = Writer::new();
    for (oid, values) in &attributes {
        writer.sequence(|w| {
            w.oid(*oid);
            w.set(|w| values.iter().for_each(|value| w.raw(value)));
        });
    }
    request.sign(&content, &writer.finish()).unwrap()
}

fn printable(text: &str) -> Vec<u8> {
    encoded(Tag::PRINTABLE_STRING, text.as_bytes())
}

fn encoded(tag: Tag, content: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.primitive(tag, content);
    writer.finish()
}

#[actix_web::test]
async fn a_message_type_that_is_missing_doubled_or_no_number_buys_nothing() {
    let desk = Desk::open().await;
    let key = rsa(2048);
    let challenge = desk.challenge().await;
    let (enroll, other) = (printable("19"), printable("3"));
    let wide: String = "19"
        .chars()
        .map(|c| char::from_u32(c as u32 + 0xfee0).unwrap())
        .collect();
    let mut types = vec![
        ("missing", vec![]),
        ("without a value", vec![vec![]]),
        ("doubled", vec![vec![enroll.clone()]; 2]),
        (
            "doubled, another first",
            vec![vec![other.clone()], vec![enroll.clone()]],
        ),
        (
            "doubled, another last",
            vec![vec![enroll.clone()], vec![other.clone()]],
        ),
        ("of two values", vec![vec![enroll.clone(), other.clone()]]),
        (
            "of two equal values",
            vec![vec![enroll.clone(), enroll.clone()]],
        ),
        ("an integer", vec![vec![encoded(Tag::INTEGER, &[19])]]),
        ("octets", vec![vec![encoded(Tag::OCTET_STRING, b"19")]]),
        ("null", vec![vec![encoded(Tag::NULL, b"")]]),
        (
            "wide digits",
            vec![vec![encoded(Tag::UTF8_STRING, wide.as_bytes())]],
        ),
    ];
    let texts = [
        "",
        " ",
        "PKCSReq",
        "nineteen",
        "19 ",
        " 19",
        "+19",
        "-19",
        "019",
        "1 9",
        "19,17",
        "19.0",
        "0x13",
        "1e1",
        "19\0",
        "19\n",
        "-1",
        "256",
        "275",
        "273",
        "65555",
        "65553",
        "4294967315",
        "99999999999999999999",
    ];
    types.extend(texts.map(|text| (text, vec![vec![printable(text)]])));
    let http = reqwest::Client::new();
    let url = format!("{}/scep?operation=PKIOperation", desk.house.device_url());
    for (how, types) in &types {
        let request = request(&key, csr(&key, &challenge));
        let message = typed(&desk, &request, types);
        let answer = http.post(&url).body(message).send().await.unwrap();
        let status = answer.status().as_u16();
        let reply = answer.bytes().await.unwrap();
        match status {
            200 => {
                let reply = request.open(&reply, &desk.authority.ra).unwrap();
                assert_eq!(reply, failed(BAD_REQUEST), "{how:?}");
            }
            status => assert_eq!(status, 400, "{how:?}"),
        }
    }
    // What these were bent from is good, and the challenge unspent.
    let request = request(&key, csr(&key, &challenge));
    let message = typed(&desk, &request, &[vec![enroll]]);
    let reply = desk.client.post(message).await.unwrap();
    let reply = request.open(&reply, &desk.authority.ra).unwrap();
    assert!(matches!(reply, ScepReply::Issued(_)));
}

#[actix_web::test]
async fn no_challenge_but_an_open_one_of_ours_buys_a_certificate() {
    let (desk, elsewhere) = (Desk::open().await, Desk::open().await);
    desk.house.import_push_certificate().await;
    let (key, other) = (rsa(2048), rsa(2048));
    let (open, used, late) = (
        desk.challenge().await,
        desk.challenge().await,
        desk.challenge().await,
    );
    let foreign = elsewhere.challenge().await;
    let first = desk.says(&request(&key, csr(&key, &used))).await;
    assert!(matches!(first, ScepReply::Issued(_)));
    let of_revoked = challenge_of_a_link(&desk, "revoked").await;
    let of_used_up = challenge_of_a_link(&desk, "used up").await;
    let mut wrong = vec![
        ("none", None),
        ("empty", Some(String::new())),
        ("another server's", Some(foreign)),
        ("used", Some(used.clone())),
        ("of a link taken back", Some(of_revoked)),
        ("of a link used up", Some(of_used_up)),
        (
            "its hash",
            Some(hex(&openssl::sha::sha256(open.as_bytes()))),
        ),
        ("never minted", Some("A".repeat(open.len()))),
        ("cut", Some(open[1..].to_owned())),
        ("with a space", Some(format!("{open} "))),
        ("with a null", Some(format!("{open}\0"))),
        ("twice", Some(format!("{open}{open}"))),
    ];
    let changed = if open.to_lowercase() == open {
        open.to_uppercase()
    } else {
        open.to_lowercase()
    };
    wrong.push(("in another case", Some(changed)));
    let refuses = async |how: &str, challenge: Option<String>| {
        let asked = ScepCsr {
            challenge,
            ..ScepCsr::default()
        };
        // The key that was certified before has no more of a claim than another.
        for key in [&key, &other] {
            let reply = desk.says(&request(key, asked.sign(key).unwrap())).await;
            assert_eq!(reply, failed(BAD_REQUEST), "{how}");
        }
    };
    for (how, challenge) in wrong {
        refuses(how, challenge).await;
    }
    let reply = desk.says(&request(&key, csr(&key, &open))).await;
    assert!(matches!(reply, ScepReply::Issued(_)));
    refuses("used by now", Some(open)).await;
    desk.house.clock.set(NOW.plus_seconds(3600));
    refuses("expired", Some(late)).await;
}

/// A challenge out of a link's profile, the link void afterwards.
async fn challenge_of_a_link(desk: &Desk, how: &str) -> String {
    let (_, made) = desk
        .house
        .post("/api/v1/enrollment-links", &json!({}))
        .await;
    let path = made["url"].as_str().unwrap();
    let path = path.strip_prefix(&desk.house.device_url()).unwrap();
    let mut challenges = Vec::new();
    for _ in 0..2 {
        let asked = desk
            .house
            .device(Method::GET, &format!("{path}?unsigned=1"));
        let profile = asked.send().await.unwrap().bytes().await.unwrap();
        let profile = String::from_utf8(profile.to_vec()).unwrap();
        let (_, behind) = profile.split_once("<key>Challenge</key>").unwrap();
        let challenge = behind.split(['<', '>']).nth(2).unwrap();
        challenges.push(challenge.to_owned());
    }
    if how == "revoked" {
        let path = format!("/api/v1/enrollment-links/{}", made["id"].as_str().unwrap());
        assert_eq!(desk.house.delete(&path).await.0, 204);
    } else {
        let key = rsa(2048);
        let reply = desk.says(&request(&key, csr(&key, &challenges[1]))).await;
        assert!(matches!(reply, ScepReply::Issued(_)));
    }
    challenges.swap_remove(0)
}

#[actix_web::test]
async fn of_fifty_at_once_the_one_that_paid_and_its_resends_get_one_certificate() {
    let desk = Desk::open().await;
    let keys = [rsa(2048), rsa(2048)];
    for _ in 0..3 {
        let challenge = desk.challenge().await;
        // Five requests, each sent ten times; of one key or the other.
        let requests: Vec<_> = (0..5)
            .map(|n| request(&keys[n % 2], csr(&keys[n % 2], &challenge)))
            .collect();
        let all = (0..50).map(|n| desk.says(&requests[n % 5]));
        let replies = futures_util::future::join_all(all).await;
        let (mut issued, mut paid) = (BTreeSet::new(), BTreeSet::new());
        for (n, reply) in replies.into_iter().enumerate() {
            match reply {
                ScepReply::Issued(der) => {
                    issued.insert(der);
                    paid.insert(n % 5);
                }
                refused => assert_eq!(refused, failed(BAD_REQUEST)),
            }
        }
        assert_eq!(
            (issued.len(), paid.len()),
            (1, 1),
            "one certificate, for one request"
        );
        let again = desk.says(&requests[*paid.first().unwrap()]).await;
        assert_eq!(again, ScepReply::Issued(issued.pop_first().unwrap()));
    }
}

#[actix_web::test]
async fn a_renewal_signed_by_anything_but_the_bound_certificate_is_refused() {
    let desk = Desk::open().await;
    let (key, stranger) = (rsa(2048), rsa(2048));
    let enroll = async |key: &PKey<Private>| {
        let challenge = desk.challenge().await;
        desk.client
            .enroll(&desk.authority, key, &challenge)
            .await
            .unwrap()
    };
    let first = enroll(&key).await;
    desk.bind(&first, "DEVICE-1").await;
    let other = enroll(&stranger).await;
    desk.bind(&other, "DEVICE-2").await;
    let bound = desk
        .client
        .renew(&desk.authority, &first, &key)
        .await
        .unwrap();
    let not_yet = desk
        .client
        .renew(&desk.authority, &first, &key)
        .await
        .unwrap();
    assert_eq!(desk.token_update(&bound, "DEVICE-1").await, 200);
    let ca_key = std::fs::read(desk.house.data().join("ca.key")).unwrap();
    let ca_key = PKey::private_key_from_pem(&ca_key).unwrap();
    let own = sim::scep_signer(&stranger).unwrap();
    let theirs = |der: &[u8], key: &PKey<Private>| Identity::new(der, key.clone()).unwrap();
    let signers = [
        ("replaced by a renewal", first, BAD_REQUEST),
        ("issued for the device, never used", not_yet, BAD_REQUEST),
        ("issued, never bound", enroll(&stranger).await, BAD_REQUEST),
        (
            "of a further CA",
            desk.house.ca.issue("DEVICE-1").unwrap(),
            BAD_REQUEST,
        ),
        ("made by itself", own, BAD_REQUEST),
        (
            "of its name, number and issuer, by itself",
            forged(&bound, &stranger, &stranger, [-1, 300]),
            BAD_REQUEST,
        ),
        (
            "of its name, number and issuer, by our CA",
            forged(&bound, &stranger, &ca_key, [-1, 300]),
            BAD_REQUEST,
        ),
        (
            "the bound one without its key",
            theirs(&bound.cert_der, &stranger),
            BAD_MESSAGE_CHECK,
        ),
        (
            "the CA's without its key",
            theirs(&desk.authority.ca.to_der().unwrap(), &stranger),
            BAD_MESSAGE_CHECK,
        ),
        (
            "the RA's without its key",
            theirs(&desk.authority.ra.to_der().unwrap(), &stranger),
            BAD_MESSAGE_CHECK,
        ),
    ];
    for (who, signer, info) in &signers {
        for csr in [
            ScepCsr::default().sign(&stranger).unwrap(),
            csr(&stranger, &desk.challenge().await),
        ] {
            let request = ScepRequest::new("17", csr, signer.clone()).unwrap();
            // The answer may be sealed for a key that is not ours; a refusal is not.
            let message = request.encode(&desk.authority.ra).unwrap();
            let reply = desk.client.post(message).await.unwrap();
            assert_eq!(
                request.open(&reply, &desk.authority.ra).unwrap(),
                failed(info),
                "{who}"
            );
        }
    }
    // Another's bound identity renews itself, whatever name it asks for.
    let asked = ScepCsr {
        common_name: "DEVICE-1".into(),
        ..ScepCsr::default()
    };
    let request = ScepRequest::new("17", asked.sign(&stranger).unwrap(), other).unwrap();
    let ScepReply::Issued(der) = desk.says(&request).await else {
        panic!("refused")
    };
    assert!(text(&der).contains("CN=DEVICE-2\n"));
    // The bound one does renew, and pays for nothing but itself.
    let first_time = ScepRequest::new("19", ScepCsr::default().sign(&key).unwrap(), bound.clone());
    assert_eq!(desk.says(&first_time.unwrap()).await, failed(BAD_REQUEST));
    assert!(
        desk.client
            .renew(&desk.authority, &bound, &key)
            .await
            .is_ok()
    );
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
