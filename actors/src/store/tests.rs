//! The store against its promises: effects once, folds invisible, crashes harmless.

use schema::checkin::{CheckIn, Facts, Message, Push, Sender, UserNames};
use schema::enrollment::{Claim, Enrollment, Reenroll, SecretKind};
use schema::queue::State;
use schema::report::Status;
use schema::{
    ChannelKind, ChannelNo, CommandUuid, EnrollId, Leaf, PushMagic, PushToken, Seq, Topic,
    UnixMillis,
};

use super::*;
use crate::Clock;

mod backup;
mod clock;
mod disk;
mod faults;
mod inventory;
mod model;
mod older;
mod overload;
mod power;

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

struct Desk {
    store: Store,
    clock: Clock,
    directory: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::manual(NOW);
        let store = Store::open(options(directory.path()), clock.clone()).unwrap();
        Self {
            store,
            clock,
            directory,
        }
    }

    /// What a crash at this moment would leave behind, opened.
    fn crashed(&self) -> (Store, tempfile::TempDir) {
        let copy = tempfile::tempdir().unwrap();
        for file in ["reveille.redb", "seal.key"] {
            std::fs::copy(self.directory.path().join(file), copy.path().join(file)).unwrap();
        }
        std::fs::create_dir(copy.path().join("segments")).unwrap();
        for file in std::fs::read_dir(self.directory.path().join("segments")).unwrap() {
            let file = file.unwrap();
            std::fs::copy(
                file.path(),
                copy.path().join("segments").join(file.file_name()),
            )
            .unwrap();
        }
        (
            Store::open(options(copy.path()), self.clock.clone()).unwrap(),
            copy,
        )
    }

    async fn enroll(&self, id: &str) -> Enrollment {
        let leaf = leaf_of(id);
        let claim = Claim {
            leaf,
            ours: false,
            issued_for: None,
            only_for: None,
            proof: false,
            bound_elsewhere: false,
        };
        let opened = Enrollment::open(
            &says(id, authenticate()),
            &claim,
            self.store.fresh_channel(),
        )
        .unwrap();
        let pending = self.commit(opened, "Authenticate", leaf).await.unwrap();
        let change = pending.apply(
            &says(id, token_update()),
            &claim,
            Reenroll::Approve,
            self.clock.now(),
            || unreachable!(),
        );
        self.commit(change.unwrap(), "TokenUpdate", leaf)
            .await
            .unwrap()
    }

    async fn commit(
        &self,
        change: schema::enrollment::Change,
        message: &'static str,
        leaf: Leaf,
    ) -> Result<Enrollment, StoreError> {
        let channel = change.enrollment.channel.no;
        let secrets = change.secrets.iter().map(|(kind, secret)| {
            let secret = secret.as_ref();
            (
                *kind,
                secret.map(|plain| self.store.seal_secret(channel, *kind, plain).unwrap()),
            )
        });
        let secrets = secrets.collect();
        let body = self
            .store
            .seal_body(channel, &Packed::of(b"checkin"))
            .unwrap();
        let identity = Identity {
            leaf,
            not_after: 0,
            serial: "1".into(),
        };
        self.store
            .check_in(CheckedIn {
                change,
                channel,
                message,
                body,
                body_hash: None,
                identity,
                secrets,
            })
            .await
    }

    async fn enqueue(&self, uuid: &str, targets: &[ChannelNo]) -> Result<Enqueued, StoreError> {
        self.store.enqueue(self.command(uuid, targets)).await
    }

    fn command(&self, uuid: &str, targets: &[ChannelNo]) -> NewCommand {
        NewCommand {
            uuid: CommandUuid::parse(uuid).unwrap(),
            request_type: "ProfileList".into(),
            sealed: self.store.seal_command(uuid, b"<plist/>").unwrap(),
            rank: 128,
            destructive: false,
            expires: self.clock.now().plus_seconds(3600),
            targets: targets.iter().map(|channel| channel.0).collect(),
            wake: true,
            principal: "test".into(),
            reason: String::new(),
            idempotency: None,
            forced: false,
        }
    }

    async fn report(&self, channel: ChannelNo, uuid: &str, status: Status) -> Effect {
        report(&self.store, channel, uuid, status, b"result").await
    }
}

async fn report(
    store: &Store,
    channel: ChannelNo,
    uuid: &str,
    status: Status,
    body: &[u8],
) -> Effect {
    let ticket = store
        .report(Reported {
            channel,
            epoch: Seq(0),
            uuid: CommandUuid::parse(uuid).unwrap(),
            seq: None,
            status,
            errors: Vec::new(),
            body: Some(store.seal_body(channel, &Packed::of(body)).unwrap()),
        })
        .unwrap();
    store.redeem(ticket).await.unwrap()
}

fn options(directory: &Path) -> StoreOptions {
    StoreOptions {
        reserve_bytes: 0,
        ..StoreOptions::new(directory)
    }
}

fn leaf_of(id: &str) -> Leaf {
    let mut leaf = [0; 32];
    leaf.iter_mut()
        .zip(id.bytes())
        .for_each(|(to, from)| *to = from);
    Leaf(leaf)
}

fn says(id: &str, message: Message) -> CheckIn {
    let id = EnrollId::device(id).unwrap();
    CheckIn {
        sender: Sender {
            device: id.clone(),
            channel: id,
            kind: ChannelKind::Device,
        },
        message,
    }
}

fn authenticate() -> Message {
    Message::Authenticate {
        topic: Topic("com.apple.mgmt.x".into()),
        facts: Facts::default(),
    }
}

fn token_update() -> Message {
    Message::TokenUpdate {
        push: Push {
            topic: Topic("com.apple.mgmt.x".into()),
            token: PushToken(vec![1; 32]),
            magic: PushMagic("m".into()),
        },
        unlock_token: Some(b"unlock".to_vec()),
        awaiting_configuration: false,
        user: UserNames::default(),
    }
}

fn open(store: &Store, channel: ChannelNo) -> Vec<(u64, State)> {
    let mut rows: Vec<_> = store
        .pending(channel, Seq(0))
        .unwrap()
        .iter()
        .map(|w| (w.seq.0, w.state))
        .collect();
    rows.sort_unstable();
    rows
}

fn count(store: &Store, seq: u64, state: State) -> u32 {
    store.command(Seq(seq)).unwrap().unwrap().counts[state as usize]
}

#[tokio::test]
async fn a_report_counts_once_before_and_after_a_fold() {
    let desk = Desk::new();
    let channel = desk.enroll("D").await.channel.no;
    desk.enqueue("c1", &[channel]).await.unwrap();
    assert_eq!(open(&desk.store, channel), [(1, State::Released)]);
    let counted = Effect::Counted {
        seq: Seq(1),
        late: false,
    };
    assert_eq!(
        desk.report(channel, "c1", Status::Acknowledged).await,
        counted
    );
    assert_eq!(
        desk.report(channel, "c1", Status::Acknowledged).await,
        Effect::Repeated
    );
    assert_eq!(open(&desk.store, channel), []);
    desk.store.fold().await.unwrap();
    assert_eq!(open(&desk.store, channel), []);
    assert_eq!(
        desk.report(channel, "c1", Status::Error).await,
        Effect::Repeated
    );
    assert_eq!(
        desk.report(channel, "unknown", Status::Error).await,
        Effect::Stray
    );
    assert_eq!(count(&desk.store, 1, State::Acknowledged), 1);
    assert_eq!(count(&desk.store, 1, State::Released), 0);
    let result = desk.store.result(channel, Seq(1)).unwrap().unwrap();
    assert_eq!(result.body.unwrap(), b"result");
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_in_a_crash_folded_or_not() {
    let desk = Desk::new();
    let channel = desk.enroll("D").await.channel.no;
    for number in 0..10 {
        desk.enqueue(&format!("c{number}"), &[channel])
            .await
            .unwrap();
    }
    let large = vec![b'x'; 50_000];
    let noise: Vec<u8> = (0..20_000_u32)
        .flat_map(|n| (n.wrapping_mul(2_654_435_761)).to_le_bytes())
        .collect();
    for (number, body) in [(0, &b"small"[..]), (1, &large), (2, &noise)] {
        report(
            &desk.store,
            channel,
            &format!("c{number}"),
            Status::Acknowledged,
            body,
        )
        .await;
    }
    desk.report(channel, "c3", Status::NotNow).await;
    for folded in [false, true] {
        if folded {
            desk.store.fold().await.unwrap();
        }
        let (after, _directory) = desk.crashed();
        let mut expected = vec![(4, State::NotNow)];
        expected.extend((5..=10).map(|seq| (seq, State::Released)));
        assert_eq!(open(&after, channel), expected);
        assert_eq!(
            after
                .result(channel, Seq(2))
                .unwrap()
                .unwrap()
                .body
                .unwrap(),
            large
        );
        assert_eq!(
            after
                .result(channel, Seq(3))
                .unwrap()
                .unwrap()
                .body
                .unwrap(),
            noise
        );
        assert_eq!(count(&after, 1, State::Acknowledged), 1);
        assert_eq!(count(&after, 4, State::NotNow), 1);
        assert_eq!(
            report(&after, channel, "c0", Status::Error, b"").await,
            Effect::Repeated
        );
        assert_eq!(after.enrolled(), 1);
        after.close();
    }
}

#[tokio::test]
async fn a_command_to_many_is_one_plane_and_behaves_like_any_other() {
    let desk = Desk::new();
    let ids: Vec<_> = (0..1100).map(|number| format!("D{number}")).collect();
    let enrolled = futures_util::future::join_all(ids.iter().map(|id| desk.enroll(id))).await;
    let channels: Vec<_> = enrolled
        .iter()
        .map(|enrollment| enrollment.channel.no)
        .collect();
    desk.enqueue("one", &channels[..1]).await.unwrap();
    let queued = desk.enqueue("all", &channels).await.unwrap();
    assert_eq!(queued.accepted, 1100);
    desk.enqueue("two", &channels[..1]).await.unwrap();
    assert_eq!(
        open(&desk.store, channels[0]),
        [
            (1, State::Released),
            (2, State::Released),
            (3, State::Released)
        ]
    );
    desk.report(channels[0], "all", Status::Acknowledged).await;
    desk.report(channels[1], "all", Status::NotNow).await;
    for _ in 0..2 {
        assert_eq!(
            open(&desk.store, channels[0]),
            [(1, State::Released), (3, State::Released)]
        );
        assert_eq!(open(&desk.store, channels[1]), [(2, State::NotNow)]);
        assert_eq!(open(&desk.store, channels[2]), [(2, State::Released)]);
        assert_eq!(count(&desk.store, 2, State::Released), 1098);
        desk.store.fold().await.unwrap();
    }
    assert_eq!(
        desk.report(channels[0], "all", Status::Acknowledged).await,
        Effect::Repeated
    );
    let (after, _directory) = desk.crashed();
    assert_eq!(open(&after, channels[1]), [(2, State::NotNow)]);
    assert_eq!(after.channels_with_work().unwrap().len(), 1100);
    let later = desk.enroll("later").await.channel.no;
    assert_eq!(
        open(&desk.store, later),
        [],
        "a later enrollment is never in an old cohort"
    );
    let cancelled = desk.store.cancel(Cancel::Command(Seq(2))).await.unwrap();
    assert_eq!((cancelled.cancelled, cancelled.closed), (1099, 1));
    desk.store.fold().await.unwrap();
    assert_eq!(open(&desk.store, channels[2]), []);
    let late = desk.report(channels[2], "all", Status::Acknowledged).await;
    assert_eq!(
        late,
        Effect::Counted {
            seq: Seq(2),
            late: true
        }
    );
}

#[tokio::test]
async fn a_re_enrollment_ends_the_epoch_and_an_identity_serves_one_device() {
    let desk = Desk::new();
    let enrollment = desk.enroll("D").await;
    let channel = enrollment.channel.no;
    desk.enqueue("c1", &[channel]).await.unwrap();
    let again = desk.enroll_again(&enrollment).await;
    assert_eq!(again.epoch, Seq(1));
    assert_eq!(desk.store.pending(channel, again.epoch).unwrap(), []);
    assert_eq!(count(&desk.store, 1, State::Cancelled), 1);
    let claim = Claim {
        leaf: leaf_of("D"),
        ours: false,
        issued_for: None,
        only_for: None,
        proof: false,
        bound_elsewhere: false,
    };
    let opened = Enrollment::open(
        &says("E", authenticate()),
        &claim,
        desk.store.fresh_channel(),
    )
    .unwrap();
    let pending = desk
        .commit(opened, "Authenticate", claim.leaf)
        .await
        .unwrap();
    let change = pending
        .apply(
            &says("E", token_update()),
            &claim,
            Reenroll::Approve,
            NOW,
            || unreachable!(),
        )
        .unwrap();
    let refused = desk
        .commit(change, "TokenUpdate", claim.leaf)
        .await
        .unwrap_err();
    assert_eq!(
        refused,
        StoreError::BoundElsewhere(EnrollId::device("E").unwrap())
    );
}

impl Desk {
    async fn enroll_again(&self, enrollment: &Enrollment) -> Enrollment {
        let id = enrollment.channel.id.as_str();
        let claim = Claim {
            leaf: leaf_of(id),
            ours: false,
            issued_for: None,
            only_for: None,
            proof: false,
            bound_elsewhere: false,
        };
        let mut current = enrollment.clone();
        for (message, name) in [
            (authenticate(), "Authenticate"),
            (token_update(), "TokenUpdate"),
        ] {
            let change = current
                .apply(
                    &says(id, message),
                    &claim,
                    Reenroll::Approve,
                    NOW,
                    || unreachable!(),
                )
                .unwrap();
            current = self.commit(change, name, claim.leaf).await.unwrap();
        }
        current
    }
}

#[tokio::test]
async fn the_same_request_is_queued_once_and_another_under_its_key_is_refused() {
    let desk = Desk::new();
    let channel = desk.enroll("D").await.channel.no;
    let with_key = |uuid: &str, request: u8| NewCommand {
        idempotency: Some(Idempotency {
            key: [1; 32],
            request: [request; 32],
        }),
        ..desk.command(uuid, &[channel])
    };
    let first = desk.store.enqueue(with_key("a", 1)).await.unwrap();
    let second = desk.store.enqueue(with_key("b", 1)).await.unwrap();
    assert_eq!((second.uuid, second.repeated), (first.uuid, true));
    assert_eq!(
        desk.store.enqueue(with_key("c", 2)).await.unwrap_err(),
        StoreError::IdempotencyMismatch
    );
    let uuid = CommandUuid::parse("a").unwrap();
    assert_eq!(
        desk.enqueue("a", &[channel]).await.unwrap_err(),
        StoreError::DuplicateUuid(uuid)
    );
    let nobody = desk.enqueue("d", &[ChannelNo(77)]).await.unwrap();
    assert_eq!((nobody.seq, nobody.rejected), (None, vec![ChannelNo(77)]));
    assert_eq!(open(&desk.store, channel).len(), 1);
}

#[tokio::test]
async fn the_guard_counts_devices_at_enqueue_and_keeps_counting_over_a_restart() {
    let desk = Desk::new();
    let mut channels = Vec::new();
    for number in 0..12 {
        channels.push(desk.enroll(&format!("D{number}")).await.channel.no);
    }
    let lock = |uuid: &str, targets: &[ChannelNo]| NewCommand {
        destructive: true,
        ..desk.command(uuid, targets)
    };
    desk.store
        .enqueue(lock("a", &channels[..10]))
        .await
        .unwrap();
    desk.store
        .enqueue(lock("again", &channels[..1]))
        .await
        .unwrap();
    let refused = desk
        .store
        .enqueue(lock("b", &channels[10..11]))
        .await
        .unwrap_err();
    assert!(
        matches!(
            refused,
            StoreError::Guard {
                reached: 11,
                limit: 10,
                ..
            }
        ),
        "{refused}"
    );
    let (after, _directory) = desk.crashed();
    assert!(after.enqueue(lock("c", &channels[10..11])).await.is_err());
    let leave = desk.store.hand_out(channels[0], Seq(1)).unwrap();
    assert!(desk.store.redeem(leave).await.unwrap());
    desk.clock.set(NOW.plus_seconds(21 * 60));
    desk.store
        .enqueue(lock("d", &channels[10..11]))
        .await
        .unwrap();
}

#[tokio::test]
async fn commands_expire_and_what_ended_is_taken_by_retention() {
    let desk = Desk::new();
    let channel = desk.enroll("D").await.channel.no;
    desk.enqueue("done", &[channel]).await.unwrap();
    desk.enqueue("late", &[channel]).await.unwrap();
    desk.report(channel, "done", Status::Acknowledged).await;
    desk.clock.set(NOW.plus_seconds(2 * 3600));
    desk.store.expire(desk.clock.now()).await.unwrap();
    assert_eq!(open(&desk.store, channel), []);
    assert_eq!(count(&desk.store, 2, State::Expired), 1);
    desk.enqueue("young", &[channel]).await.unwrap();
    let gone = desk.store.retain(NOW.plus_seconds(3600)).await.unwrap();
    assert!(gone >= 3, "{gone}");
    assert!(desk.store.command(Seq(1)).unwrap().is_none());
    assert_eq!(open(&desk.store, channel), [(3, State::Released)]);
    assert_eq!(
        desk.report(channel, "young", Status::Acknowledged).await,
        Effect::Counted {
            seq: Seq(3),
            late: false
        }
    );
}

#[tokio::test]
async fn secrets_are_kept_in_versions_and_read_back_opened() {
    let desk = Desk::new();
    let device = desk.enroll("D").await;
    let channel = device.channel.no;
    let since = device.epoch_position;
    let secret = |kind| desk.store.secret(channel, kind, since).unwrap();
    assert_eq!(secret(SecretKind::UnlockToken).unwrap(), b"unlock");
    assert_eq!(secret(SecretKind::BootstrapToken), None);
    desk.store.fold().await.unwrap();
    assert_eq!(desk.store.last_seen(channel).unwrap(), None);
    desk.store.seen(channel, NOW);
    desk.store.fold().await.unwrap();
    assert_eq!(desk.store.last_seen(channel).unwrap(), Some(NOW));
}

#[tokio::test]
async fn a_second_process_is_refused_and_a_missing_key_is_said() {
    let desk = Desk::new();
    let second = Store::open(options(desk.directory.path()), desk.clock.clone());
    assert_eq!(second.unwrap_err(), StoreError::InUse);
    desk.store.close();
    let Desk {
        directory, store, ..
    } = desk;
    drop(store);
    std::fs::remove_file(directory.path().join("seal.key")).unwrap();
    let without_key = Store::open(options(directory.path()), Clock::manual(NOW));
    assert!(matches!(
        without_key.unwrap_err(),
        StoreError::SealingKey(_)
    ));
}

#[tokio::test]
async fn writes_are_refused_without_room_and_taken_when_there_is() {
    let directory = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        reserve_bytes: u64::MAX / 4,
        ..StoreOptions::new(directory.path())
    };
    let store = Store::open(options, Clock::manual(NOW)).unwrap();
    store.check_room().unwrap();
    let id = EnrollId::device("D").unwrap();
    let refused = store.put_quarantine(&id, None).await.unwrap_err();
    assert_eq!(refused, StoreError::Full);
    store.cancel(Cancel::Channel(ChannelNo(1))).await.unwrap();
    store.fold().await.unwrap();
}

#[tokio::test]
async fn what_comes_behind_a_retention_in_its_batch_is_not_forgotten() {
    let desk = Desk::new();
    let channel = desk.enroll("D").await.channel.no;
    for round in 0..40 {
        let uuid = format!("c{round}");
        let target = [channel];
        // Queued behind a commit under way, the rest meets in one batch.
        let (queued, retained, effect) = tokio::join!(
            desk.enqueue(&uuid, &target),
            desk.store.retain(NOW.minus_seconds(3600)),
            desk.report(channel, &uuid, Status::Acknowledged),
        );
        queued.unwrap();
        retained.unwrap();
        assert!(matches!(effect, Effect::Counted { .. }), "{effect:?}");
        desk.store.fold().await.unwrap();
        assert_eq!(open(&desk.store, channel), [], "round {round}");
        assert!(
            desk.store
                .result(channel, Seq(round + 1))
                .unwrap()
                .is_some()
        );
    }
}

#[tokio::test]
async fn a_finished_command_to_many_stays_finished_after_a_restart_and_retention() {
    let desk = Desk::new();
    let ids: Vec<_> = (0..1100).map(|number| format!("D{number}")).collect();
    let enrolled = futures_util::future::join_all(ids.iter().map(|id| desk.enroll(id))).await;
    let channels: Vec<_> = enrolled
        .iter()
        .map(|enrollment| enrollment.channel.no)
        .collect();
    desk.enqueue("all", &channels).await.unwrap();
    let reports = channels
        .iter()
        .map(|channel| desk.report(*channel, "all", Status::Acknowledged));
    futures_util::future::join_all(reports).await;
    desk.store.fold().await.unwrap();
    let (after, _directory) = desk.crashed();
    assert_eq!(after.channels_with_work().unwrap(), []);
    after.retain(NOW.plus_seconds(60)).await.unwrap();
    assert!(after.command(Seq(1)).unwrap().is_none());
    assert_eq!(open(&after, channels[0]), []);
}

#[tokio::test]
async fn one_push_key_waits_until_its_certificate_comes() {
    let desk = Desk::new();
    let waiting = || desk.store.pending_push_key().unwrap();
    assert_eq!(waiting(), None);
    desk.store
        .keep_push_key([1; 32], b"one", false)
        .await
        .unwrap();
    desk.store
        .keep_push_key([2; 32], b"two", false)
        .await
        .unwrap();
    assert_eq!(waiting().unwrap(), b"one", "the first stays");
    desk.store
        .keep_push_key([2; 32], b"two", true)
        .await
        .unwrap();
    assert_eq!(waiting().unwrap(), b"two", "unless it is replaced");
    let put = |key| {
        desk.store
            .put_push_certificate("topic", b"certificate", key)
    };
    put([1; 32]).await.unwrap();
    assert_eq!(waiting().unwrap(), b"two", "another key's certificate");
    put([2; 32]).await.unwrap();
    assert_eq!(waiting(), None);
}

#[tokio::test]
async fn a_look_from_outside_sees_what_the_store_holds_and_changes_nothing() {
    let desk = Desk::new();
    let directory = desk.directory.path().to_owned();
    let key = directory.join("seal.key");
    let look = || Inspection::of(&directory, &key);
    assert_eq!(look().unwrap_err(), StoreError::InUse);
    let Desk {
        store,
        directory: _held,
        ..
    } = desk;
    store.close();
    drop(store);
    let empty = look().unwrap();
    assert_eq!(empty.schema, Some(Inspection::KNOWN_SCHEMA));
    assert_eq!(empty.last_written, None);
    assert_eq!(empty.sealing, Ok(Fit::Untested));

    let store = Store::open(options(&directory), Clock::manual(NOW)).unwrap();
    store
        .put_push_certificate("topic", b"certificate", [0; 32])
        .await
        .unwrap();
    store.close();
    drop(store);
    let before = std::fs::read(directory.join("reveille.redb")).unwrap();
    let seen = look().unwrap();
    assert_eq!(seen.sealing, Ok(Fit::Opens));
    assert_eq!(
        seen.push_certificates,
        [("topic".to_owned(), b"certificate".to_vec())]
    );
    std::fs::write(&key, [9; 32]).unwrap();
    assert_eq!(look().unwrap().sealing, Err(StoreError::Unsealable));
    std::fs::remove_file(&key).unwrap();
    assert!(matches!(
        look().unwrap().sealing,
        Err(StoreError::SealingKey(_))
    ));
    assert_eq!(
        std::fs::read(directory.join("reveille.redb")).unwrap(),
        before
    );
}
