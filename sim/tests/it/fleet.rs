//! Fleets against the toy server: dialogues, misbehaviour, wakes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sim::{
    Behaviour, Channel, DeviceCa, FakeApns, Fleet, FleetPlan, Kind, Proof, Script, Status, Target,
};

use crate::tls_server::TlsServer;
use crate::toy_server::ToyServer;

const SOON: Duration = Duration::from_secs(20);

fn fleet(server: &ToyServer, plan: FleetPlan) -> Fleet {
    let target = Target::new(&server.url, Proof::Header).unwrap();
    Fleet::new(&DeviceCa::quick().unwrap(), target, plan).unwrap()
}

fn queue_for_all(server: &ToyServer, fleet: &Fleet, uuid: &str, request_type: &str) {
    for device in fleet.devices() {
        server.queue(&device.udid, uuid, request_type);
    }
}

#[tokio::test]
async fn a_mac_enrolls_both_channels_and_polls_each() {
    let server = ToyServer::start().await;
    let plan = FleetPlan {
        devices: 1,
        kind: Kind::Mac,
        users: true,
        ..FleetPlan::default()
    };
    let fleet = fleet(&server, plan);
    fleet.enroll().await.unwrap();
    let mac = fleet.device(0);
    let user_id = mac.enroll_id(Channel::User);
    {
        let state = server.state.lock().unwrap();
        assert_eq!(state.check_ins[&mac.udid], ["Authenticate", "TokenUpdate"]);
        assert_eq!(state.check_ins[&user_id], ["TokenUpdate"]);
    }
    server.queue(&mac.udid, "for the device", "DeviceInformation");
    server.queue(&user_id, "for the user", "ProfileList");
    for (channel, uuid) in [
        (Channel::Device, "for the device"),
        (Channel::User, "for the user"),
    ] {
        let session = fleet.poll(0, channel).await.completed().unwrap();
        assert_eq!(session.steps.len(), 1);
        assert_eq!(session.steps[0].uuid, uuid);
        assert_eq!(session.steps[0].status, Status::Acknowledged);
    }
}

#[tokio::test]
async fn a_signature_proves_as_well_as_a_header() {
    let server = ToyServer::start().await;
    let target = Target::new(&server.url, Proof::Signature).unwrap();
    let ca = DeviceCa::quick().unwrap();
    let fleet = Fleet::new(&ca, target, FleetPlan::default()).unwrap();
    fleet.enroll().await.unwrap();
    assert_eq!(fleet.accounts(|a| a.totals().enrolled), 10);
}

#[tokio::test]
async fn over_tls_the_handshake_is_the_proof() {
    let ca = DeviceCa::quick().unwrap();
    let server = TlsServer::start(&ca).await;
    let target = Target::tls(&server.url, &server.root_pem).unwrap();
    let fleet = Fleet::new(&ca, target, FleetPlan::default()).unwrap();
    fleet.enroll().await.unwrap();
    let own: BTreeSet<_> = fleet
        .devices()
        .map(|device| device.identity.cert_der.to_vec())
        .collect();
    assert_eq!(*server.leaves.lock().unwrap(), own);
}

#[tokio::test]
async fn perfect_devices_do_each_command_exactly_once() {
    let server = ToyServer::start().await;
    let plan = FleetPlan {
        devices: 50,
        ..FleetPlan::default()
    };
    let fleet = fleet(&server, plan);
    fleet.enroll().await.unwrap();
    queue_for_all(&server, &fleet, "one", "DeviceInformation");
    queue_for_all(&server, &fleet, "two", "Dance");
    fleet.wake_all();
    fleet
        .wait_until("all done", SOON, |a| {
            a.totals().confirmed == 100 && a.totals().busy == 0
        })
        .await
        .unwrap();
    fleet.accounts(|accounts| {
        assert!(accounts.exactly_once("one") && accounts.exactly_once("two"));
        let dance = &accounts.ledger(0, Channel::Device).commands["two"];
        assert_eq!(dance.status, Some(Status::Error));
    });
}

#[tokio::test]
async fn misbehaving_devices_still_bring_every_result() {
    let server = ToyServer::start().await;
    let plan = FleetPlan {
        devices: 40,
        behaviour: Behaviour {
            seed: 3,
            not_now: 0.3,
            error: 0.1,
            format_error: 0.1,
            lost_answer: 0.4,
            duplicate: 0.3,
            acknowledged_bytes: 5000,
            ..Behaviour::default()
        },
        come_back_after: Some(Duration::from_millis(5)),
        ..FleetPlan::default()
    };
    let fleet = fleet(&server, plan);
    fleet.enroll().await.unwrap();
    for uuid in ["a", "b", "c"] {
        queue_for_all(&server, &fleet, uuid, "InstalledApplicationList");
    }
    // NotNow in the middle of a session leaves commands that only a push
    // brings back; here the test is the push.
    let all_taken = || {
        let state = server.state.lock().unwrap();
        state.queues.values().all(|queue| queue.is_empty())
    };
    for _ in 0..20 {
        fleet.wake_all();
        fleet
            .wait_until("rest", SOON, |a| a.totals().busy == 0)
            .await
            .unwrap();
        if all_taken() {
            break;
        }
    }
    assert!(all_taken());
    let mut doubled = 0;
    for device in fleet.devices() {
        for uuid in ["a", "b", "c"] {
            let statuses = server.statuses(&device.udid, uuid);
            assert!(!statuses.is_empty());
            doubled += usize::from(statuses.len() > 1 && statuses[0] != "NotNow");
        }
    }
    assert!(doubled > 0);
    let totals = fleet.accounts(|a| a.totals());
    assert!(
        totals.postponed > 0 && totals.sent > totals.confirmed,
        "{totals:?}"
    );
    assert!(fleet.accounts(|a| a.ledgers().all(|(_, _, ledger)| ledger.settled())));
}

#[tokio::test]
async fn a_result_refused_with_503_is_sent_again_not_forgotten() {
    let server = ToyServer::start().await;
    let plan = FleetPlan {
        devices: 1,
        come_back_after: None,
        ..FleetPlan::default()
    };
    let fleet = fleet(&server, plan);
    fleet.enroll().await.unwrap();
    server.queue(&fleet.device(0).udid, "one", "RestartDevice");
    // The Idle passes, the report does not.
    server.state.lock().unwrap().refuse_results = 1;
    let broken = fleet.poll(0, Channel::Device).await;
    assert!(broken.failure.is_some());
    assert_eq!((broken.steps[0].sent, broken.steps[0].confirmed), (1, 0));
    // Next time the device begins with the result it owes.
    let session = fleet.poll(0, Channel::Device).await.completed().unwrap();
    assert_eq!(session.steps.len(), 1);
    assert_eq!(
        (session.steps[0].handed_out, session.steps[0].confirmed),
        (0, 1)
    );
    assert_eq!(
        server.statuses(&fleet.device(0).udid, "one"),
        ["Acknowledged"]
    );
    assert!(fleet.accounts(|accounts| accounts.exactly_once("one")));
}

#[tokio::test]
async fn a_push_wakes_its_device_and_only_with_its_own_magic() {
    let server = ToyServer::start().await;
    let apns = FakeApns::start(Script::default()).await.unwrap();
    let fleet = fleet(&server, FleetPlan::default());
    fleet.enroll().await.unwrap();
    fleet.attach(&apns);
    queue_for_all(&server, &fleet, "one", "ProfileList");
    let pusher = crate::apns::Pusher::to(&apns).await;
    for n in 0..10 {
        let device = fleet.device(n);
        let magic = if n == 9 { "wrong" } else { &device.push.magic };
        pusher
            .push(&device.push.token_hex(), &device.topic, magic)
            .await;
    }
    fleet
        .wait_until("nine polled", SOON, |a| a.totals().confirmed == 9)
        .await
        .unwrap();
    let totals = fleet.accounts(|a| a.totals());
    assert_eq!(totals.wrong_pushes, 1);
    assert_eq!(fleet.ledger(9, Channel::Device).sessions, 0);
}

#[tokio::test]
async fn an_erased_device_is_gone_until_it_enrolls_again() {
    let server = ToyServer::start().await;
    let fleet = Arc::new(fleet(
        &server,
        FleetPlan {
            devices: 1,
            ..FleetPlan::default()
        },
    ));
    fleet.enroll().await.unwrap();
    server.queue(&fleet.device(0).udid, "erase", "EraseDevice");
    assert!(fleet.poll(0, Channel::Device).await.erased);
    fleet.wake_all();
    assert_eq!(
        fleet.accounts(|a| (a.totals().busy, a.totals().sessions)),
        (0, 1)
    );
    fleet.enroll_one(0).await.unwrap();
    assert!(!fleet.accounts(|a| a.is_erased(0)));
}

#[tokio::test]
async fn silent_devices_never_poll() {
    let server = ToyServer::start().await;
    let plan = FleetPlan {
        behaviour: Behaviour {
            silent: 1.0,
            ..Behaviour::default()
        },
        ..FleetPlan::default()
    };
    let fleet = fleet(&server, plan);
    fleet.enroll().await.unwrap();
    fleet.wake_all();
    fleet
        .wait_until("rest", SOON, |a| a.totals().busy == 0)
        .await
        .unwrap();
    assert_eq!(fleet.accounts(|a| a.totals().sessions), 0);
}
