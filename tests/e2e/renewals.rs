//! Identities are renewed: the enrollment profile again, a new leaf, the same enrollment.

mod years;

use std::time::SystemTime;

use actors::renewer::Renewer;
use actors::store::Inspection;
use actors::{Clock, StoreError};
use plist::{Dictionary, Value};
use reqwest::StatusCode;
use reveille::config::Tls;
use schema::{CommandUuid, EnrollId, UnixMillis};
use serde_json::json;
use sim::{Channel, Client, Device, Dice, Invitation, KeyPool, Kind, Outcome, Proof};

use crate::house::{House, id_of};

/// Lets the renewer walk all devices; how many renewals it queued.
pub(crate) async fn walk(renewer: &mut Renewer) -> usize {
    let mut queued = 0;
    for _ in 0..4 {
        queued += renewer.round(500).await.unwrap();
    }
    queued
}

pub(crate) fn renewer(house: &House) -> Renewer {
    let app = &house.running.app;
    let days = app.config.scep.validity_days;
    Renewer::new(app.store.clone(), days, i64::MAX).unwrap()
}

struct Scene {
    house: House,
    invitation: Invitation,
    keys: KeyPool,
    device: Device,
    client: Client,
}

impl Scene {
    /// A device that enrolled over TLS with an identity from SCEP.
    async fn set() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = UnixMillis(u64::try_from(since.unwrap().as_millis()).unwrap());
        let tls = |config: &mut reveille::Config| config.device.tls = Tls::Auto;
        let house = House::at(Clock::manual(now), tls).await;
        house.import_push_certificate().await;
        let (status, made) = house.post("/api/v1/enrollment-links", &json!({})).await;
        assert_eq!(status, StatusCode::CREATED, "{made}");
        let root = house.running.app.tls_root_pem.clone().unwrap();
        let invitation = Invitation::new(made["url"].as_str().unwrap(), &root).unwrap();
        let keys = KeyPool::generate(2).unwrap();
        let mut dice = Dice::new(7);
        let accepted = invitation.accept(&keys, Kind::IPhone, &mut dice);
        let (device, _) = accepted.await.unwrap();
        let mut client = Client::new(std::sync::Arc::new(house.target(Proof::Tls)));
        sim::enroll(&device, &mut client).await.unwrap();
        Self {
            house,
            invitation,
            keys,
            device,
            client,
        }
    }

    fn days_pass(&self, days: u64) {
        let clock = &self.house.clock;
        clock.set(clock.now().plus_seconds(days * 86_400));
    }

    /// Polls, under the identity the device has; the command it gets.
    async fn polls(&mut self) -> Option<Dictionary> {
        let idle = self.device.idle(Channel::Device);
        self.says(idle).await
    }

    async fn reports(&mut self, uuid: &str, outcome: &Outcome) -> Option<Dictionary> {
        let report = self.device.report(Channel::Device, uuid, outcome, 0);
        self.says(report).await
    }

    async fn says(&mut self, body: Vec<u8>) -> Option<Dictionary> {
        let reply = self.client.report(&self.device.identity, body).await;
        let reply = reply.unwrap();
        assert_eq!(reply.status, StatusCode::OK);
        (!reply.body.is_empty()).then(|| schema::xml::parse(&reply.body).unwrap())
    }

    /// Does what a renewal asks for; the older identity.
    async fn renews(&mut self, command: &Dictionary) -> sim::Identity {
        let profile = command["Command"].as_dictionary().unwrap()["Payload"].as_data();
        let installed = self.invitation.install(profile.unwrap(), &self.keys).await;
        let (identity, told) = installed.unwrap();
        assert_eq!(told.topic, self.device.topic);
        let old = std::mem::replace(&mut self.device.identity, identity);
        self.client.disconnect();
        old
    }

    fn bound(&self) -> [u8; 32] {
        let id = schema::EnrollId::parse(&id_of(&self.device)).unwrap();
        let store = &self.house.running.app.store;
        store.channel(&id).unwrap().unwrap().0.bound.unwrap().0
    }
}

fn text<'a>(command: &'a Dictionary, key: &str) -> &'a str {
    let inner = command["Command"].as_dictionary().unwrap();
    let found = command.get(key).or_else(|| inner.get(key));
    found.and_then(Value::as_string).unwrap()
}

#[actix_web::test]
async fn a_device_renews_over_tls_and_scep_and_goes_on_where_it_was() {
    let mut scene = Scene::set().await;
    let mut renewer = renewer(&scene.house);
    let id = id_of(&scene.device);
    scene.days_pass(150);
    assert_eq!(
        walk(&mut renewer).await,
        0,
        "397 days are far from half over"
    );
    scene.days_pass(20);
    assert_eq!(walk(&mut renewer).await, 1);
    assert_eq!(walk(&mut renewer).await, 0, "one waits already");
    let waits = scene.house.ask_information(&id).await;

    // device: Idle, NotNow to what an admin ordered; server: the profile, behind that.
    let first = scene.polls().await.unwrap();
    assert_eq!(text(&first, "CommandUUID"), waits);
    let renewal = scene.reports(&waits, &Outcome::NotNow).await.unwrap();
    assert_eq!(text(&renewal, "RequestType"), "InstallProfile");
    let uuid = text(&renewal, "CommandUUID").to_owned();
    let (_, page) = scene
        .house
        .get(&format!("/api/v1/devices/{id}/commands"))
        .await;
    let shown = page["items"].as_array().unwrap().iter();
    let origins: Vec<_> = shown.map(|item| &item["origin"]).collect();
    assert!(origins.contains(&&json!("renewal")), "{page}");

    // device: nothing yet; server: the same command, with another challenge.
    let again = scene.polls().await.unwrap();
    assert_eq!(text(&again, "CommandUUID"), waits);
    let again = scene.reports(&waits, &Outcome::NotNow).await.unwrap();
    assert_eq!(text(&again, "CommandUUID"), uuid);
    assert_ne!(again, renewal);

    // device: SCEP; until it speaks under the new leaf, the old one does.
    let new_for = scene.device.clone();
    let old = scene.renews(&again).await;
    let reply = scene
        .client
        .report(&old, new_for.idle(Channel::Device))
        .await;
    assert_eq!(reply.unwrap().status, StatusCode::OK);
    assert_eq!(scene.bound(), old.leaf_hash());
    scene.client.disconnect();
    sim::enroll(&scene.device, &mut scene.client).await.unwrap();
    assert_eq!(scene.bound(), scene.device.identity.leaf_hash());
    scene
        .reports(&uuid, &Outcome::Acknowledged(Dictionary::new()))
        .await;
    scene.house.until_state(&id, &uuid, "acknowledged").await;
    scene.client.disconnect();
    let reply = scene
        .client
        .report(&old, new_for.idle(Channel::Device))
        .await;
    assert_eq!(reply.unwrap().status, StatusCode::FORBIDDEN);
    scene.client.disconnect();

    // What waited still does, and the next renewal comes in its time.
    let kept = scene.polls().await.unwrap();
    assert_eq!(text(&kept, "CommandUUID"), waits);
    assert_eq!(walk(&mut renewer).await, 0);
    scene.days_pass(170);
    assert_eq!(walk(&mut renewer).await, 1);
}

#[actix_web::test]
async fn an_identity_that_is_over_gets_the_renewal_and_nothing_else() {
    let mut scene = Scene::set().await;
    let mut renewer = renewer(&scene.house);
    let id = id_of(&scene.device);
    scene.days_pass(400);
    let waits = scene.house.ask_information(&id).await;
    assert!(scene.polls().await.is_none(), "it is over");
    assert_eq!(walk(&mut renewer).await, 1);
    let renewal = scene.polls().await.unwrap();
    assert_eq!(text(&renewal, "RequestType"), "InstallProfile");
    let uuid = text(&renewal, "CommandUUID").to_owned();
    scene.renews(&renewal).await;

    // device: speaks under the new leaf without any Authenticate.
    let next = scene
        .reports(&uuid, &Outcome::Acknowledged(Dictionary::new()))
        .await
        .unwrap();
    assert_eq!(text(&next, "CommandUUID"), waits);
    assert_eq!(scene.bound(), scene.device.identity.leaf_hash());
}

#[actix_web::test]
async fn an_attempt_that_another_took_the_place_of_is_not_handed_out() {
    let mut scene = Scene::set().await;
    let mut renewer = renewer(&scene.house);
    scene.days_pass(200);
    assert_eq!(walk(&mut renewer).await, 1);
    let store = &scene.house.running.app.store;
    let id = EnrollId::device(&id_of(&scene.device)).unwrap();
    let no = store.find(&id).unwrap().unwrap();
    let mut newer = store.renewal(no).unwrap().unwrap();
    newer.uuid = CommandUuid::parse("newer").unwrap();
    store.put_renewal(no, newer).await.unwrap();
    assert!(scene.polls().await.is_none());
}

#[actix_web::test]
async fn while_the_clock_is_in_doubt_nothing_is_renewed() {
    let scene = Scene::set().await;
    let mut renewer = renewer(&scene.house);
    let clock = &scene.house.clock;
    clock.jump(clock.now().plus_seconds(400 * 86_400));
    assert_eq!(walk(&mut renewer).await, 0);
    scene.house.running.app.store.confirm_clock().await.unwrap();
    assert_eq!(walk(&mut renewer).await, 1);
}

#[actix_web::test]
async fn a_device_whose_profile_is_not_known_is_passed_over() {
    let house = House::start().await;
    // Its identity is of a CA that is trusted besides ours, as after a migration.
    let (device, _client) = house.enrolled(Proof::Header).await;
    house
        .clock
        .set(house.clock.now().plus_seconds(400 * 86_400));
    assert_eq!(walk(&mut renewer(&house)).await, 0);
    let (_, page) = house
        .get(&format!("/api/v1/devices/{}/commands", id_of(&device)))
        .await;
    assert_eq!(page["items"], json!([]));
    let stopped = house.stopped().await;
    // The last actors let go of the store a moment after their arbiters were told to stop.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    let seen = loop {
        match Inspection::of(stopped.data(), &stopped.data().join("seal.key")) {
            Err(StoreError::InUse) if std::time::Instant::now() < deadline => {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            seen => break seen.unwrap(),
        }
    };
    assert_eq!(seen.unrenewable, 1);
}
