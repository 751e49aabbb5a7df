//! What an enrollment granted and what its device is decide what it can be given: when a
//! command is queued, and again when the device comes for it.

use reqwest::StatusCode;
use schema::access::AccessRights;
use serde_json::{Value, json};
use sim::{Behaviour, Channel, Client, Device, Dice, Invitation, KeyPool, Kind, Proof};

use crate::catalog::{least, order, rows};
use crate::house::{House, id_of};

/// A Mac or an iPhone that enrolled through a link with these rights.
async fn enrolled(house: &House, kind: Kind, rights: &[&str], seed: u64) -> (Device, Client) {
    let link = json!({"access_rights": rights, "identity": "pkcs12"});
    let (status, made) = house.post("/api/v1/enrollment-links", &link).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let root = house.running.app.tls_root_pem.clone().unwrap();
    let invitation = Invitation::new(made["url"].as_str().unwrap(), root.as_ref()).unwrap();
    let keys = KeyPool::growing(1);
    let mut dice = Dice::new(seed);
    let (device, _) = invitation.accept(&keys, kind, &mut dice).await.unwrap();
    let mut client = Client::new(std::sync::Arc::new(house.target(Proof::Tls)));
    sim::enroll(&device, &mut client).await.unwrap();
    (device, client)
}

/// A device polls; what it was handed.
async fn comes(device: &Device, client: &mut Client) -> Vec<sim::Step> {
    let mut mood = Behaviour::default().mood(device);
    let session = sim::poll_session(device, Channel::Device, client, &mut mood);
    session.await.completed().unwrap().steps
}

/// The rights the catalog says a command needs on a platform.
fn needs(row: &Value, platform: &str) -> Option<Vec<String>> {
    let on = row["platforms"].as_array().unwrap().iter();
    let mut on = on.filter(|on| on["platform"] == platform);
    let names = on.next()?["rights"].as_array().unwrap().iter();
    let mut names: Vec<_> = names
        .map(|name| name.as_str().unwrap().to_owned())
        .collect();
    // Each query has its own; the least order asks for one that nobody knows.
    if row["request_type"] == "DeviceInformation" {
        names.push("device_information".into());
    }
    Some(names)
}

#[actix_web::test]
async fn without_a_right_exactly_the_commands_that_need_it_are_refused() {
    let house = House::tls(|config| config.guard.max_devices = 1000).await;
    house.import_push_certificate().await;
    let rows = rows(&house).await;
    let all = AccessRights::ALL.names();
    let mut refused = std::collections::BTreeSet::new();
    for (n, right) in all.iter().enumerate() {
        let granted: Vec<_> = all
            .iter()
            .copied()
            .filter(|name| name != right)
            .filter(|name| !(*right == "inspect_profiles" && *name == "manage_profiles"))
            .filter(|name| {
                !(*right == "inspect_provisioning_profiles"
                    && *name == "manage_provisioning_profiles")
            })
            .collect();
        for (kind, platform) in [(Kind::IPhone, "iOS"), (Kind::Mac, "macOS")] {
            let (device, _) = enrolled(&house, kind, &granted, n as u64).await;
            let id = id_of(&device);
            let (_, shown) = house.get(&format!("/api/v1/devices/{id}")).await;
            assert_eq!(shown["access_rights"], json!(granted));
            for row in &rows {
                let name = row["request_type"].as_str().unwrap();
                let Some(needs) = needs(row, platform) else {
                    continue;
                };
                let (status, answer) = house
                    .post("/api/v1/commands", &order(&id, &least(row)))
                    .await;
                let lacks = needs.iter().find(|need| !granted.contains(&need.as_str()));
                let says_right = answer.to_string().contains("missing_right");
                match lacks {
                    // Something else about the device may refuse it before.
                    Some(lacks) if says_right => {
                        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{name}: {answer}");
                        assert!(
                            answer.to_string().contains(lacks.as_str()),
                            "{name}: {answer}"
                        );
                        refused.insert((*right, platform));
                    }
                    Some(_) => assert_eq!(answer["code"], "not_fit", "{name}: {answer}"),
                    None => assert!(!says_right, "{name} without {right}: {answer}"),
                }
            }
        }
    }
    let expected: Vec<_> = all
        .iter()
        .filter(|right| {
            refused.contains(&(**right, "iOS")) || refused.contains(&(**right, "macOS"))
        })
        .collect();
    assert_eq!(expected.len(), 13, "{refused:?}");
}

#[actix_web::test]
async fn of_many_the_fit_get_it_and_the_others_are_told_of() {
    let house = House::tls(|_| {}).await;
    house.import_push_certificate().await;
    let (may, _) = enrolled(&house, Kind::Mac, &["erase", "inspect_profiles"], 1).await;
    let (may_not, mut client) = enrolled(&house, Kind::Mac, &["inspect_profiles"], 2).await;
    let ids = [id_of(&may), id_of(&may_not)];
    let mut erase = json!({"targets": {"ids": ids}, "reason": "stolen", "wake": false,
        "command": {"request_type": "EraseDevice", "pin": "123456"}});
    let (status, answer) = house.post("/api/v1/commands", &erase).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    assert_eq!(answer["accepted"], 1);
    assert_eq!(
        answer["rejected"],
        json!([{"id": ids[1], "code": "missing_right",
            "detail": "the enrollment did not grant erase"}])
    );
    assert!(comes(&may_not, &mut client).await.is_empty());

    // An admin who knows better.
    erase["force"] = true.into();
    erase["targets"] = json!({"ids": [ids[1]]});
    assert_eq!(house.post("/api/v1/commands", &erase).await.0, 202);
    assert_eq!(comes(&may_not, &mut client).await.len(), 1);
}

#[actix_web::test]
async fn what_is_not_known_is_warned_of_and_refused_once_it_is_known() {
    let house = House::start().await;
    let (mut device, mut client) = house.new_device(Proof::Header);
    device.supervised = false;
    sim::enroll(&device, &mut client).await.unwrap();
    let id = id_of(&device);
    let restart = order(&id, &json!({"request_type": "RestartDevice"}));
    let (status, answer) = house.post("/api/v1/commands", &restart).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    let codes = [
        json!({"id": id, "code": "supervision_unknown"}),
        json!({"id": id, "code": "rights_unknown"}),
    ];
    assert_eq!(answer["warnings"], json!(codes));
    let uuid = answer["command_uuid"].as_str().unwrap();
    let ask = json!({"request_type": "DeviceInformation", "queries": ["IsSupervised"]});

    // Device: not now. Server: then tell me of yourself. Device: I am not supervised.
    let identity = &device.identity;
    let idle = device.idle(Channel::Device);
    let given = client.report(identity, idle.clone()).await.unwrap();
    let given = sim::Command::parse(&given.body).unwrap().unwrap();
    assert_eq!(given.uuid, uuid);
    house.queue(&id, &ask).await;
    let not_now = device.report(Channel::Device, uuid, &sim::Outcome::NotNow, 0);
    let given = client.report(identity, not_now).await.unwrap();
    let given = sim::Command::parse(&given.body).unwrap().unwrap();
    assert_eq!(given.request_type, "DeviceInformation");
    let tells = device.report(
        Channel::Device,
        &given.uuid,
        &sim::answer(&device, &given, 0),
        0,
    );
    assert!(
        client
            .report(identity, tells)
            .await
            .unwrap()
            .body
            .is_empty()
    );
    house.get(&format!("/api/v1/devices/{id}")).await;

    // It comes back: what it cannot do is not handed out any more, and not queued again.
    assert!(client.report(identity, idle).await.unwrap().body.is_empty());
    house.until_state(&id, uuid, "rejected").await;
    let (_, page) = house.get(&format!("/api/v1/devices/{id}/commands")).await;
    let items = page["items"].as_array().unwrap();
    let item = items.iter().find(|item| item["command_uuid"] == uuid);
    assert_eq!(item.unwrap()["rejected"]["code"], "not_supervised");
    let (status, answer) = house.post("/api/v1/commands", &restart).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
    assert_eq!(answer["code"], "not_fit");
}
