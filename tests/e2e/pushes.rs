//! The push supervisor against a fake APNs: what it answers, and what that means.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use sim::{Answer, Behaviour, Channel, Counts, Proof};

use crate::house::{House, NOW, answer, id_of};

const WAIT: Duration = Duration::from_secs(10);

async fn received(house: &House, at_least: u64) {
    let enough = move |counts: &Counts| counts.received >= at_least;
    house.apns.wait_until(WAIT, enough).await.unwrap();
}

async fn push_state(house: &House, id: &str) -> String {
    let (_, shown) = house.get(&format!("/api/v1/devices/{id}")).await;
    shown["channels"][0]["push"]["state"]
        .as_str()
        .unwrap()
        .to_owned()
}

async fn until_push_state(house: &House, id: &str, state: &str) {
    let deadline = std::time::Instant::now() + WAIT;
    while push_state(house, id).await != state {
        assert!(std::time::Instant::now() < deadline, "{id} is not {state}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[actix_web::test]
async fn a_push_is_what_apple_wants_and_one_is_enough_for_many_commands() {
    let house = House::start().await;
    let mut pushes = house.apns.pushes();
    let (device, _) = house.enrolled(Proof::Header).await;
    let id = id_of(&device);
    for _ in 0..5 {
        let order = json!({"targets": {"ids": [id]}, "command": {"request_type": "ProfileList"}});
        house.post("/api/v1/commands", &order).await;
    }
    let push = tokio::time::timeout(WAIT, pushes.recv())
        .await
        .unwrap()
        .unwrap();
    let address = device.push_of(Channel::Device).unwrap();
    assert_eq!(push.token_hex, address.token_hex());
    assert_eq!(push.magic, address.magic);
    assert_eq!(push.topic, crate::house::TOPIC);
    assert!(
        house.apns.refusals().is_empty(),
        "{:?}",
        house.apns.refusals()
    );
    // The last of the five may have been queued after the first push was taken; a
    // young unanswered wake holds back the rest.
    let path = format!("/api/v1/devices/{id}/wake");
    assert_eq!(
        answer(house.admin(Method::POST, &path)).await.0,
        202,
        "an admin's own wake goes all the same"
    );
    received(&house, 2).await;
    assert_eq!(house.apns.received(&address.token_hex()), 2);
}

#[actix_web::test]
async fn a_dead_token_is_not_pushed_again_until_the_device_is_heard_of() {
    let house = House::start().await;
    let (device, mut client) = house.enrolled(Proof::Header).await;
    let id = id_of(&device);
    house
        .apns
        .rescript(|script| script.answer = Answer::unregistered(NOW.0));
    let order = json!({"targets": {"ids": [id]}, "command": {"request_type": "ProfileList"}});
    house.post("/api/v1/commands", &order).await;
    until_push_state(&house, &id, "dead").await;
    let path = format!("/api/v1/devices/{id}/wake");
    let (status, problem) = answer(house.admin(Method::POST, &path)).await;
    assert_eq!(
        (status.as_u16(), problem["code"].as_str()),
        (409, Some("not_woken"))
    );
    let (_, shown) = house.get(&format!("/api/v1/devices/{id}")).await;
    assert_eq!(shown["state"], "enrolled", "never unenrolled for it");

    house.clock.set(NOW.plus_seconds(3600));
    let reply = client
        .report(&device.identity, device.idle(Channel::Device))
        .await
        .unwrap();
    assert_eq!(reply.status, 200);
    until_push_state(&house, &id, "ok").await;
}

#[actix_web::test]
async fn a_wrong_host_does_not_kill_the_fleet() {
    let house = House::start().await;
    let fleet = house.fleet(30, Behaviour::default());
    fleet.enroll().await.unwrap();
    house
        .apns
        .rescript(|script| script.answer = Answer::bad_device_token());
    let order = json!({"targets": {"all": true}, "command": {"request_type": "ProfileList"}});
    house.post("/api/v1/commands", &order).await;
    let deadline = std::time::Instant::now() + WAIT;
    let halted = loop {
        let (_, topics) = house.get("/api/v1/push-certificates").await;
        if let Some(why) = topics["items"][0]["halted"].as_str() {
            break why.to_owned();
        }
        assert!(std::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert!(halted.contains("wrong host"), "{halted}");
    house.clock.set(NOW.plus_seconds(120));
    for device in fleet.devices() {
        assert_eq!(push_state(&house, &id_of(device)).await, "ok");
    }
    assert!(
        house.get("/readyz").await.1["warnings"][0]
            .as_str()
            .unwrap()
            .contains("halted")
    );

    // The right certificate or host: everyone who waits is woken.
    house.apns.rescript(|script| script.answer = Answer::Accept);
    let pem = String::from_utf8(sim::push_certificate(crate::house::TOPIC).unwrap()).unwrap();
    assert_eq!(
        house
            .put("/api/v1/push-certificates", &json!({ "pem": pem }))
            .await
            .0,
        200
    );
    let done = |a: &sim::Accounts| a.totals().confirmed >= 30 && a.totals().busy == 0;
    fleet
        .wait_until("all served", Duration::from_secs(20), done)
        .await
        .unwrap();
}

#[actix_web::test]
async fn apns_in_trouble_is_tried_again_later_and_nobody_is_marked() {
    let house = House::start().await;
    let (device, _) = house.enrolled(Proof::Header).await;
    let id = id_of(&device);
    house
        .apns
        .rescript(|script| script.answer = Answer::too_many_requests());
    let order = json!({"targets": {"ids": [id]}, "command": {"request_type": "ProfileList"}});
    house.post("/api/v1/commands", &order).await;
    received(&house, 1).await;
    house.apns.rescript(|script| script.answer = Answer::Accept);
    let deadline = std::time::Instant::now() + WAIT;
    let mut clock = NOW;
    while house.apns.counts().received < 2 {
        assert!(std::time::Instant::now() < deadline);
        clock = clock.plus_seconds(10);
        house.clock.set(clock);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(clock >= NOW.plus_seconds(20), "tried again too early");
    assert_eq!(push_state(&house, &id).await, "ok");
}

#[actix_web::test]
async fn a_lost_connection_loses_no_wake() {
    let house = House::start().await;
    let fleet = house.fleet(40, Behaviour::default());
    fleet.enroll().await.unwrap();
    house.apns.rescript(|script| script.drop_after = Some(15));
    let order = json!({"targets": {"all": true}, "command": {"request_type": "ProfileList"}});
    house.post("/api/v1/commands", &order).await;
    // The line breaks in the middle of the burst, whatever was answered by then; the
    // next one holds.
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while (
        house.apns.connections().opened,
        house.apns.connections().open,
    ) != (1, 0)
    {
        assert!(
            std::time::Instant::now() < deadline,
            "the line did not break"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    house.apns.rescript(|script| script.drop_after = None);
    let mut clock = NOW;
    while fleet.accounts(|a| a.totals().confirmed) < 40 {
        assert!(
            std::time::Instant::now() < deadline,
            "{:?}",
            fleet.accounts(|a| a.totals())
        );
        // What was not answered is tried again some seconds later, by the server's clock.
        clock = clock.plus_seconds(5);
        house.clock.set(clock);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[actix_web::test]
async fn what_was_postponed_is_woken_for_after_its_back_off() {
    let house = House::start().await;
    let (device, mut client) = house.enrolled(Proof::Header).await;
    let id = id_of(&device);
    let first = house.ask_information(&id).await;
    let second = house.ask_information(&id).await;
    client
        .report(&device.identity, device.idle(Channel::Device))
        .await
        .unwrap();
    let postpone = device.report(Channel::Device, &first, &sim::Outcome::NotNow, 0);
    client.report(&device.identity, postpone).await.unwrap();
    let fail = device.report(Channel::Device, &second, &sim::Outcome::Error(vec![]), 0);
    client.report(&device.identity, fail).await.unwrap();
    house.clock.set(NOW.plus_seconds(299));
    assert_eq!(house.apns.counts().received, 0);
    house.clock.set(NOW.plus_seconds(301));
    received(&house, 1).await;
}
