//! Nobody speaks for another device: every message, every way to prove an identity, every
//! kind of identity that is not the device's own, and every way to spell its id.

mod replays;
mod spellings;
mod takeover;

use std::sync::Arc;

use actors::store::NewChallenge;
use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, PKeyRef, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{BasicConstraints, ExtendedKeyUsage, KeyUsage};
use openssl::x509::{X509, X509Builder, X509NameRef};
use schema::enrollment::Enrollment;
use schema::{EnrollId, UnixMillis};
use serde_json::Value;
use sim::{Channel, Client, Device, Dice, Identity, Kind, Outcome, Proof, Reply, ScepClient};

use crate::house::{House, TOPIC, id_of};

const PROOFS: [Proof; 3] = [Proof::Tls, Proof::Signature, Proof::Header];

/// All there is to know of a device, from inside and by the API: state, push token, epoch,
/// binding, secrets, queue.
#[derive(Debug, PartialEq)]
struct Known {
    enrollment: Enrollment,
    secrets: Vec<(u8, u64)>,
    shown: Value,
    commands: Value,
}

async fn known(house: &House, id: &str) -> Known {
    let store = &house.running.app.store;
    // What was seen lately reaches the disk with the fold.
    store.fold().await.unwrap();
    let no = store.find(&EnrollId::parse(id).unwrap()).unwrap().unwrap();
    Known {
        enrollment: store.enrollment(no).unwrap().unwrap(),
        secrets: store.secrets(no).unwrap(),
        shown: house.get(&format!("/api/v1/devices/{id}")).await.1,
        commands: house.get(&format!("/api/v1/devices/{id}/commands")).await.1,
    }
}

/// An identity of the server's own CA, as a device gets it.
async fn issued_by_us(house: &House, key: &PKey<Private>) -> Identity {
    let challenge = NewChallenge {
        link: "link-1".into(),
        shared: false,
        enrollment: None,
        expires: UnixMillis(u64::MAX / 2),
    };
    let store = &house.running.app.store;
    let challenge = store.mint_challenge(challenge).await.unwrap();
    let client = scep(house);
    let authority = client.authority().await.unwrap();
    client.enroll(&authority, key, &challenge).await.unwrap()
}

fn scep(house: &House) -> ScepClient {
    let http = reqwest::Client::builder();
    let http = match &house.running.app.tls_root_pem {
        Some(root) => http.tls_certs_only([reqwest::Certificate::from_pem(root).unwrap()]),
        None => http,
    };
    ScepClient::new(
        &format!("{}/scep", house.device_url()),
        http.build().unwrap(),
    )
}

/// A device under an identity of our own CA, enrolled, with a bootstrap token and a command
/// that waits.
async fn enrolled_by_us(house: &House, key: &PKey<Private>, seed: u64) -> (Device, String) {
    let identity = issued_by_us(house, key).await;
    let dice = &mut Dice::new(seed);
    let device = Device::holding(identity, TOPIC, Kind::Mac, dice).with_user(dice);
    let mut client = line(house, Proof::Signature);
    sim::enroll(&device, &mut client).await.unwrap();
    let token = device.set_bootstrap_token(b"of the device alone");
    let stored = client.check_in(&device.identity, token).await.unwrap();
    assert_eq!(stored.status, 200);
    let waiting = house.ask_information(&id_of(&device)).await;
    (device, waiting)
}

fn line(house: &House, proof: Proof) -> Client {
    Client::new(Arc::new(house.target(proof)))
}

fn rsa() -> PKey<Private> {
    PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap()
}

/// A certificate that says of itself what `like` says: subject, issuer and serial number,
/// over another key.
pub(crate) fn forged(
    like: &Identity,
    key: &PKey<Private>,
    ca_key: &PKeyRef<Private>,
    days: [i64; 2],
) -> Identity {
    let like = X509::from_der(&like.cert_der).unwrap();
    let serial = like.serial_number().to_bn().unwrap();
    certificate(
        like.subject_name(),
        like.issuer_name(),
        &serial,
        key,
        ca_key,
        days,
    )
}

fn certificate(
    subject: &X509NameRef,
    issuer: &X509NameRef,
    serial: &BigNum,
    key: &PKey<Private>,
    ca_key: &PKeyRef<Private>,
    [from, to]: [i64; 2],
) -> Identity {
    let mut builder = X509Builder::new().unwrap();
    let at = |days: i64| Asn1Time::from_unix(now() + days * 86_400).unwrap();
    builder.set_version(2).unwrap();
    builder
        .set_serial_number(&serial.to_asn1_integer().unwrap())
        .unwrap();
    builder.set_subject_name(subject).unwrap();
    builder.set_issuer_name(issuer).unwrap();
    builder.set_pubkey(key).unwrap();
    builder.set_not_before(&at(from)).unwrap();
    builder.set_not_after(&at(to)).unwrap();
    let usage = KeyUsage::new().critical().digital_signature().build();
    let client = ExtendedKeyUsage::new().client_auth().build();
    let leaf = BasicConstraints::new().critical().build();
    for extension in [leaf, usage, client] {
        builder.append_extension(extension.unwrap()).unwrap();
    }
    builder.sign(ca_key, MessageDigest::sha256()).unwrap();
    Identity::new(&builder.build().to_der().unwrap(), key.clone()).unwrap()
}

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.unwrap().as_secs()).unwrap()
}

/// Where a message goes and what the door says to one whose sender it does not know.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Door {
    CheckIn,
    Connect,
}

/// Everything a device can say, with its own ids in it; `uuid` is of a command that waits.
fn all_messages(device: &Device, uuid: &str) -> Vec<(String, Door, Vec<u8>)> {
    let mut messages = Vec::new();
    let mut check_in = |what: &str, body| messages.push((what.to_owned(), Door::CheckIn, body));
    check_in("Authenticate", device.authenticate());
    check_in("TokenUpdate", device.token_update());
    check_in("TokenUpdate of a user", device.user_token_update().unwrap());
    check_in("CheckOut", device.check_out());
    check_in("SetBootstrapToken", device.set_bootstrap_token(b"x"));
    check_in(
        "clearing SetBootstrapToken",
        device.set_bootstrap_token(b""),
    );
    check_in("GetBootstrapToken", device.get_bootstrap_token());
    for endpoint in ["tokens", "declaration-items", "status", "declaration/x/y"] {
        for channel in [Channel::Device, Channel::User] {
            let data = (endpoint == "status").then_some(&b"{}"[..]);
            let body = device.declarative_management(channel, endpoint, data);
            check_in(endpoint, body);
        }
    }
    let user = device.user.as_ref().unwrap();
    let ids = format!("<key>UDID</key><string>{}</string>", device.udid);
    let user_ids = format!("{ids}<key>UserID</key><string>{}</string>", user.user_id);
    let service = "<key>TokenServiceType</key><string>com.apple.maid</string>";
    for (what, keys) in [
        ("UserAuthenticate", user_ids.clone()),
        ("UserAuthenticate", ids.clone()),
        ("GetToken", format!("{ids}{service}")),
        ("GetToken", format!("{user_ids}{service}")),
        ("ReturnToService", ids.clone()),
    ] {
        let kind = format!("<key>MessageType</key><string>{what}</string>");
        check_in(what, plist(&format!("{kind}{keys}")));
    }
    for channel in [Channel::Device, Channel::User] {
        messages.push(("Idle".into(), Door::Connect, device.idle(channel)));
        for outcome in [
            Outcome::Acknowledged(plist::Dictionary::new()),
            Outcome::Error(vec![]),
            Outcome::CommandFormatError(vec![]),
            Outcome::NotNow,
        ] {
            let what = format!("{:?}", outcome.status());
            let body = device.report(channel, uuid, &outcome, 0);
            messages.push((what, Door::Connect, body));
        }
    }
    // What belongs to one door, at the other.
    let crossed: Vec<_> = messages.iter().take(7).cloned().collect();
    for (what, _, body) in crossed {
        messages.push((format!("{what} at the other door"), Door::Connect, body));
    }
    messages
}

fn plist(keys: &str) -> Vec<u8> {
    format!("<?xml version=\"1.0\"?><plist version=\"1.0\"><dict>{keys}</dict></plist>")
        .into_bytes()
}

async fn say(client: &mut Client, as_: &Identity, door: Door, body: Vec<u8>) -> Reply {
    let said = match door {
        Door::CheckIn => client.check_in(as_, body).await,
        Door::Connect => client.report(as_, body).await,
    };
    said.unwrap()
}

/// Refused, and plainly: not in a way that makes a device remove its profile.
fn assert_refused(reply: &Reply, allowed: &[u16], what: &str) {
    let said = String::from_utf8_lossy(&reply.body);
    assert!(
        allowed.contains(&reply.status.as_u16()),
        "{what}: {} {said}",
        reply.status
    );
    assert!(!said.contains("unrecognized"), "{what}: {said}");
}

#[actix_web::test]
async fn no_message_under_any_other_identity_is_accepted_or_leaves_a_trace() {
    let house = House::tls(|_| {}).await;
    house.import_push_certificate().await;
    let (key, other_key) = (rsa(), rsa());
    let (victim, waiting) = enrolled_by_us(&house, &key, 1).await;
    let (other, _) = enrolled_by_us(&house, &other_key, 2).await;

    // The victim's identity of before its renewal is nobody's any more.
    let replaced = victim.identity.clone();
    let authority = scep(&house).authority().await.unwrap();
    let renewed = scep(&house)
        .renew(&authority, &replaced, &key)
        .await
        .unwrap();
    let victim = Device {
        identity: renewed,
        ..victim
    };
    let mut client = line(&house, Proof::Tls);
    let updated = client
        .check_in(&victim.identity, victim.token_update())
        .await
        .unwrap();
    assert_eq!(updated.status, 200);

    let stranger = rsa();
    let ca_key = std::fs::read(house.data().join("ca.key")).unwrap();
    let ca_key = PKey::private_key_from_pem(&ca_key).unwrap();
    let foreign_ca = rsa();
    let like = &victim.identity;
    let identities = [
        ("another enrolled device", other.identity.clone()),
        (
            "issued by us, not bound",
            issued_by_us(&house, &stranger).await,
        ),
        (
            "of an extra CA, not bound",
            house.ca.issue(&victim.udid).unwrap(),
        ),
        ("replaced by a renewal", replaced),
        (
            "of a foreign CA that says all ours says",
            forged(like, &stranger, &foreign_ca, [-1, 300]),
        ),
        (
            "signed by itself",
            forged(like, &stranger, &stranger, [-1, 300]),
        ),
        (
            "of our CA with the victim's name and serial",
            forged(like, &stranger, &ca_key, [-1, 300]),
        ),
        (
            "the same, expired",
            forged(like, &stranger, &ca_key, [-300, -1]),
        ),
        (
            "the same, not valid yet",
            forged(like, &stranger, &ca_key, [100, 300]),
        ),
    ];
    let before = known(&house, &id_of(&victim)).await;
    let mut said = 0;
    for (who, identity) in &identities {
        for proof in PROOFS {
            let mut client = line(&house, proof);
            for (what, door, body) in all_messages(&victim, &waiting) {
                let reply = say(&mut client, identity, door, body).await;
                assert_refused(&reply, &[403], &format!("{what} by {who} over {proof:?}"));
                said += 1;
            }
        }
        assert_eq!(known(&house, &id_of(&victim)).await, before, "{who}");
    }
    assert_eq!(
        said,
        identities.len() * PROOFS.len() * all_messages(&victim, &waiting).len()
    );

    // The victim itself is served as if nothing had been.
    let mine = client
        .report(&victim.identity, victim.idle(Channel::Device))
        .await
        .unwrap();
    assert_eq!(
        sim::Command::parse(&mine.body).unwrap().unwrap().uuid,
        waiting
    );
}
