//! Restarts: what was acknowledged is there, what waited is woken again.

use std::time::Duration;

use serde_json::json;
use sim::{Behaviour, Channel, Proof};

use crate::house::{House, id_of};

#[actix_web::test]
async fn commands_results_and_enrollments_survive_and_waiting_devices_are_woken_again() {
    let house = House::start().await;
    let fleet = house.fleet(
        5,
        Behaviour {
            silent: 1.0,
            ..Behaviour::default()
        },
    );
    fleet.enroll().await.unwrap();
    let (device, mut client) = house.enrolled(Proof::Header).await;
    let id = id_of(&device);
    let done = house.ask_information(&id).await;
    sim::poll_session(
        &device,
        Channel::Device,
        &mut client,
        &mut Behaviour::default().mood(&device),
    )
    .await;
    let order = json!({"targets": {"all": true}, "command": {"request_type": "ProfileList"}, "wake": false});
    let (_, queued) = house.post("/api/v1/commands", &order).await;
    let open = queued["command_uuid"].as_str().unwrap();
    assert_eq!(house.apns.counts().received, 0);

    let house = house.restarted().await;
    assert_eq!(house.state(&id, &done).await, "acknowledged");
    let woken = |counts: &sim::Counts| counts.accepted >= 6;
    house
        .apns
        .wait_until(Duration::from_secs(10), woken)
        .await
        .unwrap();
    let (_, standing) = house.get(&format!("/api/v1/commands/{open}")).await;
    assert_eq!(standing["targets"], 6);
    let (device, mut client) = (
        device,
        sim::Client::new(std::sync::Arc::new(house.target(Proof::Header))),
    );
    let reply = client
        .report(&device.identity, device.idle(Channel::Device))
        .await
        .unwrap();
    assert_eq!(
        sim::Command::parse(&reply.body).unwrap().unwrap().uuid,
        open
    );
}
