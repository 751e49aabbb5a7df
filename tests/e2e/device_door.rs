//! The device door: each test is a dialogue between a device and the server.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use sim::{Behaviour, Channel, Outcome, Proof};

use crate::house::{House, id_of};

#[actix_web::test]
async fn a_device_checks_in_gets_a_command_and_reports() {
    let house = House::start().await;
    for proof in [Proof::Signature, Proof::Header] {
        let (device, mut client) = house.enrolled(proof).await;
        let id = id_of(&device);
        let uuid = house.ask_information(&id).await;

        let command = client
            .report(&device.identity, device.idle(Channel::Device))
            .await
            .unwrap();
        assert_eq!(command.status, 200);
        let command = sim::Command::parse(&command.body).unwrap().unwrap();
        assert_eq!(
            (command.uuid.as_str(), command.request_type.as_str()),
            (uuid.as_str(), "DeviceInformation")
        );
        house.until_state(&id, &uuid, "sent").await;

        let answer = sim::answer(&device, &command, 0);
        let done = device.report(Channel::Device, &uuid, &answer, 0);
        let next = client.report(&device.identity, done).await.unwrap();
        assert_eq!(
            (next.status.as_u16(), next.body.len()),
            (200, 0),
            "nothing more: an empty 200"
        );
        assert_eq!(house.state(&id, &uuid).await, "acknowledged");
        let (_, result) = house
            .get(&format!("/api/v1/devices/{id}/commands/{uuid}/result"))
            .await;
        assert_eq!(result["status"], "Acknowledged");
        assert!(result["report"]["QueryResponses"]["OSVersion"].is_string());
    }
}

#[actix_web::test]
async fn commands_come_in_order_and_not_now_comes_again_in_the_next_session() {
    let house = House::start().await;
    let (device, mut client) = house.enrolled(Proof::Header).await;
    let id = id_of(&device);
    let first = house.ask_information(&id).await;
    let second = house.ask_information(&id).await;

    let mut say = async |body: Vec<u8>| {
        let reply = client.report(&device.identity, body).await.unwrap();
        assert_eq!(reply.status.as_u16(), 200);
        sim::Command::parse(&reply.body)
            .unwrap()
            .map(|command| command.uuid)
    };
    let report = |uuid: &str, outcome| device.report(Channel::Device, uuid, &outcome, 0);
    assert_eq!(
        say(device.idle(Channel::Device)).await.as_ref(),
        Some(&first)
    );
    assert_eq!(
        say(report(&first, Outcome::NotNow)).await.as_ref(),
        Some(&second),
        "the others are offered"
    );
    assert_eq!(say(report(&second, Outcome::NotNow)).await, None);
    assert_eq!(house.state(&id, &first).await, "not_now");
    assert_eq!(
        say(device.idle(Channel::Device)).await.as_ref(),
        Some(&first),
        "due again in order"
    );
    assert_eq!(
        say(device.idle(Channel::Device)).await.as_ref(),
        Some(&first),
        "lost on the way: again"
    );
    let error = Outcome::Error(vec![]);
    assert_eq!(
        say(report(&first, error.clone())).await.as_ref(),
        Some(&second)
    );
    assert_eq!(
        say(report(&first, error)).await.as_ref(),
        Some(&second),
        "a repeated report changes nothing"
    );
    assert_eq!(
        say(report(&second, Outcome::CommandFormatError(vec![]))).await,
        None
    );
    assert_eq!(house.state(&id, &first).await, "error");
    assert_eq!(house.state(&id, &second).await, "format_error");
}

#[actix_web::test]
async fn a_command_wakes_its_device_and_a_fleet_is_served_exactly_once() {
    let house = House::start().await;
    let fleet = house.fleet(20, Behaviour::default());
    fleet.enroll().await.unwrap();
    let order = json!({"targets": {"all": true}, "command": {"request_type": "ProfileList"}});
    let (status, queued) = house.post("/api/v1/commands", &order).await;
    assert_eq!((status.as_u16(), &queued["accepted"]), (202, &json!(20)));
    let all_done = |a: &sim::Accounts| a.totals().confirmed >= 20 && a.totals().busy == 0;
    fleet
        .wait_until("all done", Duration::from_secs(20), all_done)
        .await
        .unwrap();
    let uuid = queued["command_uuid"].as_str().unwrap();
    assert!(fleet.accounts(|a| a.exactly_once(uuid)));
    assert_eq!(fleet.accounts(|a| a.totals().wrong_pushes), 0);
    assert!(
        house.apns.refusals().is_empty(),
        "{:?}",
        house.apns.refusals()
    );
    let (_, standing) = house.get(&format!("/api/v1/commands/{uuid}")).await;
    assert_eq!(standing["counts"]["acknowledged"], 20, "{standing}");
}

#[actix_web::test]
async fn a_fleet_that_misbehaves_is_served_with_each_effect_once() {
    let house = House::start().await;
    let behaviour = Behaviour {
        not_now: 0.3,
        not_now_at_most: 2,
        error: 0.2,
        lost_answer: 0.3,
        duplicate: 0.3,
        ..Behaviour::default()
    };
    let fleet = house.fleet(30, behaviour);
    fleet.enroll().await.unwrap();
    let mut uuids = Vec::new();
    for _ in 0..3 {
        let order = json!({"targets": {"all": true}, "command": {"request_type": "ProfileList"}});
        let (_, queued) = house.post("/api/v1/commands", &order).await;
        uuids.push(queued["command_uuid"].as_str().unwrap().to_owned());
    }
    let deadline = std::time::Instant::now() + Duration::from_secs(40);
    loop {
        let mut closed = 0;
        for uuid in &uuids {
            let (_, standing) = house.get(&format!("/api/v1/commands/{uuid}")).await;
            let count = |state: &str| standing["counts"][state].as_u64().unwrap();
            closed += count("acknowledged") + count("error");
            let all: u64 = standing["counts"]
                .as_object()
                .unwrap()
                .values()
                .map(|n| n.as_u64().unwrap())
                .sum();
            assert_eq!(all, 30, "every target is in exactly one state: {standing}");
        }
        if closed == 90 {
            break;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "only {closed} of 90 closed"
        );
        // Whoever postponed and then said something else waits for a wake that is minutes away.
        fleet.wake_all();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[actix_web::test]
async fn a_user_channel_has_its_own_commands_and_ends_with_its_device() {
    let house = House::start().await;
    let (device, mut client) = house.new_mac(Proof::Header);
    sim::enroll(&device, &mut client).await.unwrap();
    let (id, user) = (id_of(&device), device.enroll_id(Channel::User));
    let for_device = house.ask_information(&id).await;
    let for_user = house
        .queue(&user, &json!({"request_type": "ProfileList"}))
        .await;
    let mut polls = async |channel| {
        let reply = client
            .report(&device.identity, device.idle(channel))
            .await
            .unwrap();
        sim::Command::parse(&reply.body)
            .unwrap()
            .map(|command| command.uuid)
    };
    assert_eq!(polls(Channel::User).await, Some(for_user.clone()));
    assert_eq!(polls(Channel::Device).await, Some(for_device));
    let gone = client
        .check_in(&device.identity, device.check_out())
        .await
        .unwrap();
    assert_eq!(gone.status, 200);
    assert_eq!(house.state(&user, &for_user).await, "cancelled");
    let (_, shown) = house.get(&format!("/api/v1/devices/{id}")).await;
    assert_eq!(shown["state"], "checked_out");
    let order = json!({"targets": {"ids": [id]}, "command": {"request_type": "ProfileList"}});
    let (status, refused) = house.post("/api/v1/commands", &order).await;
    assert_eq!(status.as_u16(), 404, "{refused}");
}

#[actix_web::test]
async fn the_bootstrap_token_comes_back_to_the_device_that_stored_it() {
    let house = House::start().await;
    let (device, mut client) = house.enrolled(Proof::Signature).await;
    let stored = client
        .check_in(&device.identity, device.set_bootstrap_token(b"opaque"))
        .await
        .unwrap();
    assert_eq!((stored.status.as_u16(), stored.body.len()), (200, 0));
    let given = client
        .check_in(&device.identity, device.get_bootstrap_token())
        .await
        .unwrap();
    let given = schema::xml::parse(&given.body).unwrap();
    assert_eq!(
        given.get("BootstrapToken").unwrap().as_data(),
        Some(&b"opaque"[..])
    );
    let data = std::fs::read(house.running.app.config.store.path.join("reveille.redb")).unwrap();
    let clear = data.windows(6).any(|window| window == b"opaque");
    assert!(!clear, "a secret stands in the store in clear");
}

#[actix_web::test]
async fn nobody_speaks_for_another_device() {
    let house = House::start().await;
    let (victim, mut client) = house.enrolled(Proof::Header).await;
    let (other, _) = house.enrolled(Proof::Header).await;
    let (stranger, _) = house.new_device(Proof::Header);
    let foreign = sim::DeviceCa::quick().unwrap();
    let foreigner = sim::Device::new(&foreign, crate::house::TOPIC).unwrap();
    let waiting = house.ask_information(&id_of(&victim)).await;
    for identity in [&other.identity, &stranger.identity, &foreigner.identity] {
        for body in [
            victim.authenticate(),
            victim.token_update(),
            victim.check_out(),
            victim.set_bootstrap_token(b"x"),
            victim.get_bootstrap_token(),
        ] {
            assert_eq!(client.check_in(identity, body).await.unwrap().status, 403);
        }
        let report = victim.report(
            Channel::Device,
            &waiting,
            &Outcome::CommandFormatError(vec![]),
            0,
        );
        for body in [victim.idle(Channel::Device), report] {
            let reply = client.report(identity, body).await.unwrap();
            assert_eq!(
                (
                    reply.status.as_u16(),
                    String::from_utf8_lossy(&reply.body).contains("unrecognized")
                ),
                (403, false)
            );
        }
    }
    let mine = client
        .report(&victim.identity, victim.idle(Channel::Device))
        .await
        .unwrap();
    assert_eq!(mine.status, 200);
    assert_eq!(
        sim::Command::parse(&mine.body).unwrap().unwrap().uuid,
        waiting
    );
}

#[actix_web::test]
async fn a_replayed_signed_check_in_has_no_effect() {
    let house = House::start().await;
    let (device, mut client) = house.enrolled(Proof::Signature).await;
    let id = id_of(&device);
    let gone = client
        .check_in(&device.identity, device.check_out())
        .await
        .unwrap();
    assert_eq!(gone.status, 200);
    sim::enroll(&device, &mut client).await.unwrap();
    // The very bodies of the first enrollment: 200, and nothing changed.
    let (_, shown) = house.get(&format!("/api/v1/devices/{id}")).await;
    assert_eq!(shown["state"], "checked_out");
}

#[actix_web::test]
async fn an_unreadable_report_closes_its_command_and_unblocks_the_channel() {
    let house = House::start().await;
    let (device, mut client) = house.enrolled(Proof::Header).await;
    let id = id_of(&device);
    let first = house.ask_information(&id).await;
    let second = house.ask_information(&id).await;
    client
        .report(&device.identity, device.idle(Channel::Device))
        .await
        .unwrap();
    let deep = format!(
        "<plist><dict><key>CommandUUID</key><string>{first}</string><key>Status</key><string>Acknowledged</string>\
         <key>UDID</key><string>{id}</string><key>x</key>{}{}</dict></plist>",
        "<array>".repeat(100),
        "</array>".repeat(100)
    );
    let reply = client
        .report(&device.identity, deep.into_bytes())
        .await
        .unwrap();
    assert_eq!(reply.status.as_u16(), 200);
    assert_eq!(
        sim::Command::parse(&reply.body).unwrap().unwrap().uuid,
        second
    );
    assert_eq!(house.state(&id, &first).await, "error");
}

#[actix_web::test]
async fn an_admin_lets_a_device_enroll_again_under_a_new_identity() {
    let house = House::start().await;
    let (mut device, mut client) = house.enrolled(Proof::Header).await;
    let id = id_of(&device);
    let old = house.ask_information(&id).await;
    device.identity = house.ca.issue("renewed").unwrap();
    assert_eq!(
        client
            .check_in(&device.identity, device.authenticate())
            .await
            .unwrap()
            .status,
        403
    );
    let path = format!("/api/v1/devices/{id}/allow-reenroll");
    assert_eq!(
        crate::house::answer(house.admin(Method::POST, &path))
            .await
            .0
            .as_u16(),
        204
    );
    sim::enroll(&device, &mut client).await.unwrap();
    assert_eq!(house.state(&id, &old).await, "cancelled");
    let reply = client
        .report(&device.identity, device.idle(Channel::Device))
        .await
        .unwrap();
    assert_eq!(
        (reply.status.as_u16(), reply.body.len()),
        (200, 0),
        "nothing of the old epoch"
    );
}
