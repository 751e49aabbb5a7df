//! Over-the-air enrollment: a device proves its maker's certificate, then enrolls, and
//! nobody goes its way for it.

use std::sync::Arc;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sim::{
    Behaviour, Channel, Client, Device, DeviceCa, Dice, Identity, Invitation, KeyPool, Kind,
    ProfileService, Proof, ScepClient, SignatureForm, SimError, Told,
};

use crate::house::{House, NOW, answer, id_of};

/// A house that trusts a maker of devices.
struct Desk {
    house: House,
    maker: DeviceCa,
    keys: KeyPool,
}

/// A link.
struct Link {
    id: String,
    url: String,
}

impl Desk {
    async fn open() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut reveille::Config)) -> Self {
        let maker = DeviceCa::quick().unwrap();
        let house = House::with(|config| {
            trust(config, &maker);
            change(config);
        });
        let house = house.await;
        Self {
            house,
            maker,
            keys: KeyPool::growing(1),
        }
    }

    async fn tls() -> Self {
        let maker = DeviceCa::quick().unwrap();
        let house = House::tls(|config| trust(config, &maker)).await;
        house.import_push_certificate().await;
        Self {
            house,
            maker,
            keys: KeyPool::growing(1),
        }
    }

    async fn link(&self, terms: &Value) -> Link {
        let mut terms = terms.clone();
        terms["ota"] = true.into();
        let (status, made) = self.house.post("/api/v1/enrollment-links", &terms).await;
        assert_eq!(status, StatusCode::CREATED, "{made}");
        let text = |key: &str| made[key].as_str().unwrap().to_owned();
        Link {
            id: text("id"),
            url: text("url"),
        }
    }

    fn invitation(&self, link: &Link) -> Invitation {
        let root = self.house.running.app.tls_root_pem.clone();
        Invitation::new(&link.url, &root.unwrap_or_else(|| self.maker.pem())).unwrap()
    }

    /// The first phase: a profile of the link.
    async fn service(&self, link: &Link) -> ProfileService {
        self.invitation(link).service().await.unwrap()
    }

    /// A device as its maker made it.
    fn device(&self) -> Device {
        let (device, _) = self.house.new_device(Proof::Signature);
        Device {
            identity: self.maker.issue("made by its maker").unwrap(),
            ..device
        }
    }

    /// The second phase, to its certificate.
    async fn proof(&self, service: &ProfileService, device: &Device) -> Identity {
        let profile = service.tell(device, &device.identity).await.unwrap();
        service.proof(&profile, &self.keys).await.unwrap()
    }

    /// The identity a device may enroll under at the end of the way.
    async fn identity(&self, link: &Link, told: &Told) -> Result<Identity, SimError> {
        self.invitation(link).identity(told, &self.keys).await
    }

    async fn uses(&self, link: &Link) -> u64 {
        let path = format!("/api/v1/enrollment-links/{}", link.id);
        let (_, shown) = self.house.get(&path).await;
        assert_eq!(shown["ota"], true);
        shown["uses"].as_u64().unwrap()
    }

    async fn revoke(&self, link: &Link) {
        let path = format!("/api/v1/enrollment-links/{}", link.id);
        let revoked = self.house.delete(&path).await;
        assert_eq!(revoked.0, StatusCode::NO_CONTENT);
    }

    fn client(&self, proof: Proof) -> Client {
        Client::new(Arc::new(self.house.target(proof)))
    }

    async fn enroll(&self, device: &Device) -> Result<Client, SimError> {
        let mut client = self.client(Proof::Signature);
        sim::enroll(device, &mut client).await.map(|()| client)
    }

    async fn does_as_told(&self, device: &Device, client: &mut Client) {
        let id = id_of(device);
        let asked = self.house.ask_information(&id).await;
        let mut mood = Behaviour::default().mood(device);
        sim::poll_session(device, Channel::Device, client, &mut mood).await;
        self.house.until_state(&id, &asked, "acknowledged").await;
    }

    /// A message at the door under any Content-Type; status and words of the answer.
    async fn posts(&self, kind: Option<&str>, body: Vec<u8>) -> (u16, String) {
        let request = self.house.device(Method::POST, "/enroll/ota");
        let request = match kind {
            Some(kind) => request.header("Content-Type", kind),
            None => request,
        };
        let response = request.body(body).send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.text().await.unwrap_or_default())
    }
}

fn trust(config: &mut reveille::Config, maker: &DeviceCa) {
    let file = config.store.path.with_file_name("maker.pem");
    std::fs::write(&file, maker.pem()).unwrap();
    config.device.ota_trust_files = vec![file];
}

/// The status a step was refused with; it gave no profile.
fn refused<T>(step: Result<T, SimError>) -> u16 {
    match step {
        Err(SimError::Refused { status, .. }) => status,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("a profile was handed out"),
    }
}

const MESSAGE: &str = "application/pkcs7-signature";

#[actix_web::test]
async fn a_device_proves_itself_enrolls_over_mutual_tls_and_does_what_it_is_told() {
    let desk = Desk::tls().await;
    let link = desk.link(&json!({"tags": ["loan"]})).await;
    let mut dice = Dice::named(0, "a");
    let (invitation, kind) = (desk.invitation(&link), Kind::IPhone);
    let accepted = invitation.accept_over_the_air(&desk.maker, &desk.keys, kind, &mut dice);
    let (device, told) = accepted.await.unwrap();
    assert!(!told.sign_message);
    assert_eq!(desk.uses(&link).await, 1);
    let mut client = desk.client(Proof::Tls);
    sim::enroll(&device, &mut client).await.unwrap();
    let id = id_of(&device);
    let (_, shown) = desk.house.get(&format!("/api/v1/devices/{id}")).await;
    assert_eq!(shown["tags"], json!(["loan"]));
    desk.does_as_told(&device, &mut client).await;
}

#[actix_web::test]
async fn only_the_last_certificate_is_a_use_and_a_step_taken_again_leads_to_the_same() {
    let desk = Desk::open().await;
    let link = desk.link(&json!({})).await;
    let service = desk.service(&link).await;
    let device = desk.device();
    let once = service.tell(&device, &device.identity).await.unwrap();
    let again = service.tell(&device, &device.identity).await.unwrap();
    assert_eq!(once, again);
    let proof = service.proof(&once, &desk.keys).await.unwrap();
    let spent = service.proof(&again, &desk.keys).await;
    assert!(spent.is_err(), "one certificate for one challenge");
    let resent = service.tell(&device, &device.identity).await.unwrap();
    assert_eq!(resent, once);
    assert_eq!(desk.uses(&link).await, 0);

    let once = service.tell(&device, &proof).await.unwrap();
    assert_eq!(service.tell(&device, &proof).await.unwrap(), once);
    let told = service.prove(&device, &proof).await.unwrap();
    assert_eq!(desk.uses(&link).await, 0);
    let identity = desk.identity(&link, &told).await.unwrap();
    assert_eq!(desk.uses(&link).await, 1);
    let device = Device { identity, ..device };
    let mut client = desk.enroll(&device).await.unwrap();
    desk.does_as_told(&device, &mut client).await;
}

#[actix_web::test]
async fn page_download_and_export_lead_to_the_first_profile_and_consume_nothing() {
    let desk = Desk::open().await;
    let link = desk.link(&json!({})).await;
    let path = link.url.strip_prefix(&desk.house.device_url()).unwrap();
    let get = async |path: &str, accept: &str| {
        let request = desk.house.device(Method::GET, path);
        let response = request.header("Accept", accept).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        response.text().await.unwrap()
    };
    let page = get(path, "text/html").await;
    assert!(page.contains("?profile=1") && page.contains("serial number, UDID"));
    let export = format!("/api/v1/enrollment-links/{}/profile?unsigned=1", link.id);
    let export = desk.house.admin(Method::GET, &export).send().await.unwrap();
    let export = export.text().await.unwrap();
    let bare = get(&format!("{path}?unsigned=1"), "*/*").await;
    let url = format!("{}/enroll/ota", desk.house.device_url());
    for profile in [&bare, &export] {
        for text in ["<string>Profile Service</string>", &url, "UDID", "SERIAL"] {
            assert!(profile.contains(text), "{text}");
        }
        for kind in ["com.apple.mdm", "com.apple.security.scep"] {
            assert!(!profile.contains(kind), "{kind}");
        }
    }
    assert_ne!(bare, export, "each with a challenge of its own");
    assert_eq!(desk.uses(&link).await, 0);
    let elsewhere = desk.house.device(Method::GET, "/enroll/ota");
    assert_eq!(answer(elsewhere).await.0, StatusCode::NOT_FOUND);
}

#[actix_web::test]
async fn a_link_that_could_prove_nothing_is_not_made() {
    let bare = House::start().await;
    let (status, problem) = bare
        .post("/api/v1/enrollment-links", &json!({"ota": true}))
        .await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(problem["code"], "no_ota_trust");
    assert!(problem.to_string().contains("device.ota_trust_files"));

    let desk = Desk::open().await;
    for (terms, pointer) in [
        (json!({"ota": true, "identity": "pkcs12"}), "/identity"),
        (json!({"ota": true, "challenge": "shared"}), "/challenge"),
        (
            json!({"ota": true, "kind": "user", "managed_apple_id": "a@b"}),
            "/kind",
        ),
    ] {
        let (status, problem) = desk.house.post("/api/v1/enrollment-links", &terms).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{terms}");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
    let (_, all) = desk.house.get("/api/v1/enrollment-links").await;
    assert_eq!(all["items"], json!([]));
}

#[actix_web::test]
async fn what_is_no_message_of_a_device_is_refused_by_what_is_wrong_with_it() {
    let desk = Desk::open().await;
    let link = desk.link(&json!({})).await;
    let service = desk.service(&link).await;
    let device = desk.device();
    let attributes = device.attributes(&service.challenge);
    let wrap = |who: &Identity, said: &[u8]| who.wrap(said, SignatureForm::APPLE).unwrap();
    let good = wrap(&device.identity, &attributes);
    let other = DeviceCa::quick().unwrap().issue("x").unwrap();
    let ours = desk.house.ca.issue("of an extra CA").unwrap();
    let mut changed = good.clone();
    let at = changed.windows(6).position(|w| w == b"SERIAL").unwrap();
    changed[at + 22] ^= 1;
    let without = |key: &str| {
        let text = String::from_utf8(attributes.clone()).unwrap();
        let text = text.replace(&format!("<key>{key}<"), "<key>OTHER<");
        wrap(&device.identity, text.as_bytes())
    };
    let long = wrap(&device.identity, &vec![b' '; 64 << 10]);
    let (text, mime) = ("text/xml", "application/pkcs7-mime");
    let cases = [
        (Some(text), good.clone(), 415, "pkcs7-signature"),
        (Some(mime), good.clone(), 415, "pkcs7-signature"),
        (None, good.clone(), 415, "pkcs7-signature"),
        (Some(MESSAGE), long, 413, "65536"),
        (Some(MESSAGE), Vec::new(), 400, "not a signed one"),
        (Some(MESSAGE), attributes.clone(), 400, "not a signed one"),
        (Some(MESSAGE), good[..good.len() - 9].to_vec(), 400, ""),
        (
            Some(MESSAGE),
            wrap(&device.identity, b"hello"),
            400,
            "answer",
        ),
        (Some(MESSAGE), without("CHALLENGE"), 400, "CHALLENGE"),
        (Some(MESSAGE), without("UDID"), 400, "UDID"),
        (Some(MESSAGE), without("SERIAL"), 400, "SERIAL"),
        (Some(MESSAGE), changed, 403, "does not match"),
        (Some(MESSAGE), wrap(&other, &attributes), 403, "authority"),
        (Some(MESSAGE), wrap(&ours, &attributes), 403, "authority"),
    ];
    for (at, (kind, body, status, words)) in cases.into_iter().enumerate() {
        let (answered, said) = desk.posts(kind, body).await;
        assert_eq!(answered, status, "case {at}: {said}");
        assert!(said.contains(words), "case {at}: {said}");
    }
    let request = desk.house.device(Method::POST, "/enroll/ota");
    let request = request.header("Content-Type", MESSAGE);
    let encoded = request
        .header("Content-Encoding", "gzip")
        .body(good.clone());
    let (status, _) = answer(encoded).await;
    assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE);

    // None of them used the challenge up.
    let old = "application/x-pkcs7-signature; charset=binary";
    assert_eq!(desk.posts(Some(old), good).await.0, 200);
    let proof = desk.proof(&service, &device).await;
    assert!(service.prove(&device, &proof).await.is_ok());
}

#[actix_web::test]
async fn a_challenge_leads_one_device_on_and_no_other() {
    let desk = Desk::open().await;
    let link = desk.link(&json!({"max_uses": 9})).await;
    let service = desk.service(&link).await;
    let (device, other) = (desk.device(), desk.device());
    let foreign = service.with("made up");
    let step = foreign.tell(&device, &device.identity).await;
    assert_eq!(refused(step), 403);
    let proof = desk.proof(&service, &device).await;

    let step = service.tell(&other, &other.identity).await;
    assert_eq!(refused(step), 403, "another device");
    let liar = Device {
        udid: device.udid.clone(),
        serial: device.serial.clone(),
        ..other.clone()
    };
    let step = service.tell(&liar, &other.identity).await;
    assert_eq!(refused(step), 403, "another that says it is this one");

    for (why, said) in [
        (
            "another UDID",
            Device {
                udid: other.udid.clone(),
                ..device.clone()
            },
        ),
        (
            "another serial",
            Device {
                serial: other.serial.clone(),
                ..device.clone()
            },
        ),
    ] {
        assert_eq!(refused(service.tell(&said, &proof).await), 403, "{why}");
    }
    let second = desk.service(&link).await;
    let step = second.tell(&device, &proof).await;
    assert_eq!(refused(step), 403, "the challenge of another profile");
    assert_eq!(desk.uses(&link).await, 0);

    let told = service.prove(&device, &proof).await.unwrap();
    let identity = desk.identity(&link, &told).await.unwrap();
    let step = service.tell(&device, &identity).await;
    assert_eq!(refused(step), 403, "an identity proves nothing here");
    let (plain, _) = desk.house.enrolled(Proof::Header).await;
    let step = service.tell(&device, &plain.identity).await;
    assert_eq!(refused(step), 403, "nor does that of an extra CA");
    assert_eq!(desk.uses(&link).await, 1);
}

#[actix_web::test]
async fn a_challenge_of_one_step_buys_nothing_at_another() {
    let desk = Desk::open().await;
    let link = desk.link(&json!({})).await;
    let service = desk.service(&link).await;
    let scep = ScepClient::new(
        &format!("{}/scep", desk.house.device_url()),
        reqwest::Client::new(),
    );
    let authority = scep.authority().await.unwrap();
    let key = desk.keys.deal().unwrap();
    let bought = scep.enroll(&authority, &key, &service.challenge).await;
    assert!(bought.is_err());

    let plain = json!({});
    let (_, made) = desk.house.post("/api/v1/enrollment-links", &plain).await;
    let url = format!("{}?unsigned=1", made["url"].as_str().unwrap());
    let profile = reqwest::get(url).await.unwrap().text().await.unwrap();
    let challenge = profile.split("<key>Challenge</key>").nth(1).unwrap();
    let challenge = challenge.split("<string>").nth(1).unwrap();
    let foreign = service.with(challenge.split('<').next().unwrap());
    let device = desk.device();
    let step = foreign.tell(&device, &device.identity).await;
    assert_eq!(refused(step), 403);
    let bought = scep.enroll(&authority, &key, &foreign.challenge).await;
    assert!(bought.is_ok(), "it is as good as it was");
    assert!(service.tell(&device, &device.identity).await.is_ok());
}

#[actix_web::test]
async fn a_link_that_ends_ends_every_step_of_those_on_the_way() {
    let desk = Desk::open().await;
    for how in ["revoked", "used up", "expired"] {
        let link = desk.link(&json!({"expires_in": 600})).await;
        let (first, second) = (desk.service(&link).await, desk.service(&link).await);
        let third = desk.service(&link).await;
        let (one, two, three) = (desk.device(), desk.device(), desk.device());
        let proof = desk.proof(&second, &two).await;
        let asked = first.tell(&one, &one.identity).await.unwrap();
        let last = desk.proof(&third, &three).await;
        let told = third.prove(&three, &last).await.unwrap();
        match how {
            "revoked" => desk.revoke(&link).await,
            "used up" => {
                let told = second.prove(&two, &proof).await.unwrap();
                desk.identity(&link, &told).await.unwrap();
            }
            _ => desk.house.clock.set(NOW.plus_seconds(600)),
        }
        let uses = desk.uses(&link).await;
        let steps = [
            (1, first.tell(&one, &one.identity).await),
            (2, second.tell(&two, &two.identity).await),
            (3, second.tell(&two, &proof).await),
        ];
        for (at, step) in steps {
            assert_eq!(refused(step), 403, "{how}, step {at}");
        }
        let bought = first.proof(&asked, &desk.keys).await;
        assert!(bought.is_err(), "{how}: no certificate to prove with");
        let bought = desk.identity(&link, &told).await;
        assert!(bought.is_err(), "{how}: no certificate to enroll under");
        assert_eq!(desk.uses(&link).await, uses);
    }
}

#[actix_web::test]
async fn a_link_that_is_answered_to_too_often_waits_and_others_do_not() {
    let desk = Desk::with(|config| config.limits.link_per_second = 1).await;
    let (link, other) = (desk.link(&json!({})).await, desk.link(&json!({})).await);
    let (service, device) = (desk.service(&link).await, desk.device());
    let mut refusals = Vec::new();
    for _ in 0..20 {
        match service.tell(&device, &device.identity).await {
            Ok(_) => {}
            Err(error) => refusals.push(refused::<()>(Err(error))),
        }
    }
    assert!(refusals.len() > 2, "{refusals:?}");
    assert!(refusals.iter().all(|status| *status == 429), "{refusals:?}");
    let service = desk.service(&other).await;
    assert!(service.tell(&device, &device.identity).await.is_ok());
}

#[actix_web::test]
async fn a_link_made_for_other_urls_leads_nowhere_and_binds_nothing() {
    let url = |url: &'static str| {
        move |config: &mut reveille::Config| {
            config.device.public_url = url.into();
            config.force_public_url = true;
        }
    };
    let desk = Desk::open().await;
    let link = desk.link(&json!({})).await;
    let (service, device) = (desk.service(&link).await, desk.device());
    let said = device.attributes(&service.challenge);
    let said = device.identity.wrap(&said, SignatureForm::COMPACT).unwrap();
    let Desk { house, maker, keys } = desk;
    let moved = house.stopped().await.start(url("https://mdm.example.org"));
    let house = moved.await.ok().unwrap();
    let desk = Desk { house, maker, keys };
    let (status, words) = desk.posts(Some(MESSAGE), said).await;
    assert_eq!(
        (status, words.contains("URLs changed")),
        (403, true),
        "{words}"
    );
    let hash = actors::Store::challenge_hash(service.challenge.as_bytes());
    let kept = desk.house.running.app.store.challenge(&hash);
    assert_eq!(kept.unwrap().unwrap().buys, actors::store::Buys::Step(None));
}

#[actix_web::test]
async fn a_step_that_comes_too_late_leads_nowhere() {
    let desk = Desk::open().await;
    let link = desk.link(&json!({"max_uses": 9})).await;
    let (early, late) = (desk.service(&link).await, desk.service(&link).await);
    let device = desk.device();
    let proof = desk.proof(&early, &device).await;
    desk.house.clock.set(NOW.plus_seconds(3600));
    let step = late.tell(&device, &device.identity).await;
    assert_eq!(refused(step), 403);
    desk.house.clock.set(NOW.plus_seconds(86_401));
    assert_eq!(refused(early.tell(&device, &proof).await), 403);
    assert_eq!(desk.uses(&link).await, 0);
}

#[actix_web::test]
async fn a_link_for_one_device_leads_that_one_through() {
    let desk = Desk::open().await;
    let device = desk.device();
    let link = desk.link(&json!({"device": device.serial})).await;
    let service = desk.service(&link).await;
    let other = desk.device();
    let step = service.tell(&other, &other.identity).await;
    assert_eq!(refused(step), 403);
    let proof = desk.proof(&service, &device).await;
    let told = service.prove(&device, &proof).await.unwrap();
    let identity = desk.identity(&link, &told).await.unwrap();
    let device = Device { identity, ..device };
    desk.enroll(&device).await.unwrap();
}

#[actix_web::test]
async fn an_identity_that_was_proved_for_enrolls_that_device_and_takes_over_none() {
    let desk = Desk::open().await;
    let link = desk.link(&json!({"max_uses": 9})).await;
    let walk = async |device: &Device| {
        let service = desk.service(&link).await;
        let proof = desk.proof(&service, device).await;
        let told = service.prove(device, &proof).await.unwrap();
        desk.identity(&link, &told).await.unwrap()
    };
    let device = desk.device();
    let identity = walk(&device).await;
    let other = Device {
        identity: identity.clone(),
        ..desk.device()
    };
    assert_eq!(refused(desk.enroll(&other).await), 403);
    let device = Device { identity, ..device };
    let mut client = desk.enroll(&device).await.unwrap();

    // Another device of the maker's says it is this one, which counts as enrolled.
    let liar = Device {
        identity: desk.maker.issue("another").unwrap(),
        ..device.clone()
    };
    let liar = Device {
        identity: walk(&liar).await,
        ..liar
    };
    assert_eq!(refused(desk.enroll(&liar).await), 403);
    let mut stranger = desk.client(Proof::Signature);
    let said = liar.idle(Channel::Device);
    let reply = stranger.report(&liar.identity, said).await.unwrap();
    assert_eq!(reply.status.as_u16(), 403);
    desk.does_as_told(&device, &mut client).await;
}

#[actix_web::test]
async fn the_certificate_of_a_proof_is_good_for_nothing_else() {
    let desk = Desk::tls().await;
    let link = desk.link(&json!({})).await;
    let service = desk.service(&link).await;
    let device = desk.device();
    let proof = desk.proof(&service, &device).await;
    let impostor = Device {
        identity: proof.clone(),
        ..device.clone()
    };
    for way in [Proof::Signature, Proof::Tls, Proof::Header] {
        let mut client = desk.client(way);
        for said in [
            impostor.authenticate(),
            impostor.token_update(),
            impostor.get_bootstrap_token(),
            impostor.check_out(),
        ] {
            let reply = client.check_in(&proof, said).await.unwrap();
            assert_eq!(reply.status.as_u16(), 403, "{way:?}");
        }
        let report = client.report(&proof, impostor.idle(Channel::Device)).await;
        assert_eq!(report.unwrap().status.as_u16(), 403, "{way:?}");
    }
    assert!(renew(&desk, &proof).await.is_err());
    let (_, devices) = desk.house.get("/api/v1/devices").await;
    assert_eq!(devices["items"], json!([]));

    // Nor once the device is enrolled.
    let told = service.prove(&device, &proof).await.unwrap();
    let identity = desk.identity(&link, &told).await.unwrap();
    let device = Device { identity, ..device };
    let mut client = desk.client(Proof::Tls);
    sim::enroll(&device, &mut client).await.unwrap();
    for way in [Proof::Signature, Proof::Tls] {
        let mut client = desk.client(way);
        let reply = client.check_in(&proof, impostor.authenticate()).await;
        assert_eq!(reply.unwrap().status.as_u16(), 403, "{way:?}");
        let report = client.report(&proof, impostor.idle(Channel::Device)).await;
        assert_eq!(report.unwrap().status.as_u16(), 403, "{way:?}");
    }
    assert!(renew(&desk, &proof).await.is_err());
    assert!(
        renew(&desk, &device.identity).await.is_ok(),
        "the other does"
    );
    desk.does_as_told(&device, &mut client).await;
}

/// A RenewalReq under an identity.
async fn renew(desk: &Desk, identity: &Identity) -> Result<Identity, SimError> {
    let root = desk.house.running.app.tls_root_pem.clone().unwrap();
    let root = reqwest::Certificate::from_pem(&root).unwrap();
    let http = reqwest::Client::builder().tls_certs_only([root]).no_proxy();
    let url = format!("{}/scep", desk.house.device_url());
    let scep = ScepClient::new(&url, http.build().unwrap());
    let authority = scep.authority().await.unwrap();
    scep.renew(&authority, identity, &identity.key).await
}
