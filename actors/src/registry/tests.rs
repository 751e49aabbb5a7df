//! Actors under the registry: one live actor a device, none lost, a panic stays at home.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix::prelude::*;
use bytes::Bytes;
use schema::checkin::{CheckIn, Facts, Message as Said, Push, Sender, UserNames};
use schema::report::{Report, Status};
use schema::{ChannelKind, CommandUuid, Leaf, PushMagic, PushToken, Seq, Topic, UnixMillis};

use super::*;
use crate::device::{CheckedIn, Presented, Reported};
use crate::store::{Identity, NewCommand, StoreOptions};
use crate::{Clock, Store};

mod campaign;

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

struct Desk {
    registry: Registry,
    store: Store,
    _directory: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::manual(NOW);
        let options = StoreOptions {
            reserve_bytes: 0,
            ..StoreOptions::new(directory.path())
        };
        let store = Store::in_memory(options, clock.clone()).unwrap();
        Self::of(store, clock, directory)
    }

    /// With the store's real file.
    fn on_disk() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::manual(NOW);
        let options = StoreOptions {
            reserve_bytes: 0,
            ..StoreOptions::new(directory.path())
        };
        let store = Store::open(options, clock.clone()).unwrap();
        Self::of(store, clock, directory)
    }

    fn of(store: Store, clock: Clock, directory: tempfile::TempDir) -> Self {
        let registry = Registry::new(House {
            store: store.clone(),
            clock,
            reenroll: schema::enrollment::Reenroll::Approve,
        })
        .unwrap();
        for _ in 0..2 {
            registry.offer(Arbiter::new().handle());
        }
        Self {
            registry,
            store,
            _directory: directory,
        }
    }

    async fn enroll(&self, id: &str) {
        let push = Push {
            topic: Topic("com.apple.mgmt.x".into()),
            token: PushToken(vec![1]),
            magic: PushMagic("m".into()),
        };
        let authenticate = Said::Authenticate {
            topic: push.topic.clone(),
            facts: Facts::default(),
        };
        let update = Said::TokenUpdate {
            push,
            unlock_token: None,
            awaiting_configuration: false,
            user: UserNames::default(),
        };
        for (message, opens) in [(authenticate, Opens::Yes), (update, Opens::No)] {
            let sender = sender(id);
            let said = CheckedIn {
                checkin: CheckIn {
                    sender: sender.clone(),
                    message,
                },
                presented: presented(id),
                raw: Bytes::from_static(b"x"),
            };
            self.registry
                .ask(&sender.device, opens, said)
                .await
                .unwrap();
        }
    }

    async fn says(
        &self,
        id: &str,
        status: Status,
        uuid: Option<&str>,
    ) -> Result<Option<String>, Fault> {
        let sender = sender(id);
        let device = sender.device.clone();
        let report = Report {
            sender,
            status,
            uuid: uuid.and_then(CommandUuid::parse),
        };
        let said = Reported {
            report,
            presented: presented(id),
            raw: Bytes::from_static(b"x"),
            packed: None,
            held: None,
        };
        let turn = self.registry.ask(&device, Opens::No, said).await?;
        if let Some(durable) = turn.durable {
            durable.await?;
        }
        Ok(turn.command.map(|command| command.uuid.to_string()))
    }

    async fn queue(&self, id: &str, uuid: &str) {
        self.queue_for(&[id.to_owned()], uuid).await;
    }

    /// One command for several devices.
    async fn queue_for(&self, ids: &[String], uuid: &str) -> Seq {
        let channel = |id: &String| self.store.find(&sender(id).device).unwrap().unwrap().0;
        let command = NewCommand {
            uuid: CommandUuid::parse(uuid).unwrap(),
            request_type: "ProfileList".into(),
            sealed: self.store.seal_command(uuid, b"<plist/>").unwrap(),
            rank: 128,
            destructive: false,
            expires: NOW.plus_seconds(3600),
            targets: ids.iter().map(channel).collect(),
            wake: false,
            principal: "test".into(),
            reason: String::new(),
            idempotency: None,
            forced: false,
        };
        self.store.enqueue(command).await.unwrap().seq.unwrap()
    }
}

fn sender(id: &str) -> Sender {
    let id = EnrollId::device(id).unwrap();
    Sender {
        device: id.clone(),
        channel: id,
        kind: ChannelKind::Device,
    }
}

fn presented(id: &str) -> Presented {
    let mut leaf = [0; 32];
    leaf.iter_mut()
        .zip(id.bytes())
        .for_each(|(to, from)| *to = from);
    Presented {
        identity: Identity {
            leaf: Leaf(leaf),
            not_after: 0,
            serial: String::new(),
        },
        ours: false,
        replayable: false,
        handed_over: false,
    }
}

#[actix::test]
async fn passivation_under_load_loses_no_message_and_no_report() {
    let desk = Arc::new(Desk::new());
    let ids: Vec<_> = (0..8).map(|n| format!("D{n}")).collect();
    for id in &ids {
        desk.enroll(id).await;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let (sweeper, stopped) = (desk.clone(), stop.clone());
    let sweeping = actix::spawn(async move {
        while !stopped.load(Ordering::Relaxed) {
            sweeper.registry.passivate_idle(u64::MAX);
            tokio::task::yield_now().await;
        }
    });
    let devices = ids.iter().map(|id| {
        let desk = desk.clone();
        let id = id.clone();
        async move {
            for n in 0..100 {
                let uuid = format!("{id}-{n}");
                desk.queue(&id, &uuid).await;
                let given = desk.says(&id, Status::Idle, None).await.unwrap();
                assert_eq!(given.as_deref(), Some(uuid.as_str()));
                let next = desk
                    .says(&id, Status::Acknowledged, Some(&uuid))
                    .await
                    .unwrap();
                assert_eq!(next, None, "its report is in, nothing else waits");
            }
        }
    });
    futures_util::future::join_all(devices).await;
    stop.store(true, Ordering::Relaxed);
    sweeping.await.unwrap();
}

/// Makes an actor panic.
#[derive(Clone, Copy, Message)]
#[rtype(result = "Result<(), Fault>")]
struct Boom;

impl Handler<Boom> for DeviceActor {
    type Result = Result<(), Fault>;

    #[expect(clippy::panic, reason = "that is the point")]
    fn handle(&mut self, _: Boom, _: &mut Self::Context) -> Self::Result {
        panic!("boom");
    }
}

#[actix::test]
async fn a_panic_is_one_failure_three_are_a_quarantine_and_others_do_not_notice() {
    let desk = Desk::new();
    desk.enroll("bad").await;
    desk.enroll("good").await;
    let bad = sender("bad").device;
    for _ in 0..3 {
        let outcome = desk.registry.ask(&bad, Opens::No, Boom).await;
        assert!(matches!(outcome, Err(Fault::Panicked(_))), "{outcome:?}");
        assert_eq!(desk.says("good", Status::Idle, None).await.unwrap(), None);
    }
    assert!(matches!(
        desk.says("bad", Status::Idle, None).await,
        Err(Fault::Quarantined(_))
    ));
    let house = House {
        store: desk.store.clone(),
        clock: Clock::manual(NOW),
        reenroll: schema::enrollment::Reenroll::Approve,
    };
    let after_restart = Registry::new(house).unwrap();
    assert!(matches!(
        after_restart.ask(&bad, Opens::No, Boom).await,
        Err(Fault::Quarantined(_))
    ));
    assert!(desk.registry.lift_quarantine(&bad).await.unwrap());
    assert_eq!(desk.says("bad", Status::Idle, None).await.unwrap(), None);
}

#[actix::test]
async fn an_unknown_device_is_activated_by_authenticate_alone() {
    let desk = Desk::new();
    assert!(matches!(
        desk.says("nobody", Status::Idle, None).await,
        Err(Fault::Unknown(_))
    ));
    assert_eq!(desk.registry.live(), 0);
    desk.enroll("somebody").await;
    assert_eq!(desk.registry.live(), 1);
    desk.registry.passivate_idle(u64::MAX);
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while desk.registry.live() > 0 {
        assert!(std::time::Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    assert_eq!(
        desk.says("somebody", Status::Idle, None).await.unwrap(),
        None
    );
}
