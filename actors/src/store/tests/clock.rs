//! A wall clock set a day back, a day on, ten years on, while the store runs and over a
//! restart: nothing expires, nothing is deleted, no guard opens, until an admin confirms.

use super::*;
use crate::store::{IssuedCertificate, NewChallenge, Refusal, Spent};

const DAY: u64 = 24 * 3600;
const JUMPS: [fn(UnixMillis) -> UnixMillis; 3] = [
    |now| now.minus_seconds(DAY),
    |now| now.plus_seconds(DAY),
    |now| now.plus_seconds(3650 * DAY),
];

/// A store with everything in it that time takes away.
struct Perishable {
    desk: Desk,
    channel: ChannelNo,
    challenge: [u8; 32],
}

impl Perishable {
    async fn new() -> Self {
        let desk = Desk::new();
        let channel = desk.enroll("D").await.channel.no;
        desk.store
            .enqueue(keyed(&desk, "waits", channel))
            .await
            .unwrap();
        desk.enqueue("done", &[channel]).await.unwrap();
        desk.report(channel, "done", Status::Acknowledged).await;
        let minted = desk.store.mint_challenge(NewChallenge {
            link: "l".into(),
            shared: true,
            enrollment: None,
            expires: NOW.plus_seconds(3600),
        });
        let challenge = Store::challenge_hash(minted.await.unwrap().as_bytes());
        Self {
            desk,
            channel,
            challenge,
        }
    }

    /// One round of housekeeping, as far as time is concerned.
    async fn keep_house(&self, store: &Store) {
        let now = store.expiry_clock();
        store.expire(now).await.unwrap();
        let before = now.minus_seconds(90 * DAY);
        store.retain(before).await.unwrap();
    }

    async fn is_whole(&self, store: &Store) {
        self.keep_house(store).await;
        assert_eq!(open(store, self.channel), [(1, State::Released)]);
        let row = store.pending(self.channel, Seq(0)).unwrap().remove(0);
        assert!(row.expires > store.expiry_clock(), "it is still handed out");
        let result = store.result(self.channel, Seq(2)).unwrap().unwrap();
        assert_eq!(result.body.unwrap(), b"result");
        let again = store
            .enqueue(keyed(&self.desk, "another", self.channel))
            .await;
        assert!(again.unwrap().repeated, "the idempotency key still holds");
        let other = NewChallenge {
            link: "l".into(),
            shared: false,
            enrollment: None,
            expires: store.expiry_clock().plus_seconds(60),
        };
        store.mint_challenge(other).await.unwrap();
        let found = store.challenge(&self.challenge).unwrap();
        let found = found.expect("minting clears no challenge away that is not past its time");
        assert_eq!(found.check(store.expiry_clock()), Ok(()));
    }
}

fn keyed(desk: &Desk, uuid: &str, channel: ChannelNo) -> NewCommand {
    NewCommand {
        idempotency: Some(Idempotency {
            key: [1; 32],
            request: [2; 32],
        }),
        ..desk.command(uuid, &[channel])
    }
}

#[tokio::test]
async fn nothing_perishes_when_the_clock_jumps_while_the_store_runs() {
    for jump in JUMPS {
        let perishable = Perishable::new().await;
        let desk = &perishable.desk;
        assert_eq!(desk.store.clock_doubt(), None);
        desk.clock.jump(jump(NOW));
        perishable.is_whole(&desk.store).await;
        assert!(desk.store.clock_doubt().is_some());
        // Time goes by, and still stands still for what perishes.
        desk.clock.set(desk.clock.now().plus_seconds(DAY));
        perishable.is_whole(&desk.store).await;
    }
}

#[tokio::test]
async fn nothing_perishes_when_the_clock_is_ten_years_on_after_a_restart() {
    let perishable = Perishable::new().await;
    perishable.desk.clock.jump(NOW.plus_seconds(3650 * DAY));
    let (after, _directory) = perishable.desk.crashed();
    assert!(after.clock_doubt().is_some());
    perishable.is_whole(&after).await;
}

#[tokio::test]
async fn a_confirmed_clock_counts_again_and_is_not_doubted_at_the_next_start() {
    let desk = Desk::new();
    let channel = desk.enroll("D").await.channel.no;
    desk.enqueue("waits", &[channel]).await.unwrap();
    desk.clock.jump(NOW.plus_seconds(30 * DAY));
    assert!(desk.store.clock_doubt().is_some());
    desk.store.confirm_clock().await.unwrap();
    assert_eq!(desk.store.clock_doubt(), None);
    assert_eq!(desk.store.expiry_clock(), desk.clock.now());
    let (after, _directory) = desk.crashed();
    assert_eq!(after.clock_doubt(), None, "an admin's word is remembered");
    after.expire(after.expiry_clock()).await.unwrap();
    assert_eq!(open(&after, channel), []);
}

#[tokio::test]
async fn a_clock_that_is_kept_in_small_steps_is_never_doubted() {
    let desk = Desk::new();
    for minutes in 1..200 {
        desk.clock.jump(NOW.plus_seconds(60 * minutes));
        assert_eq!(desk.store.clock_doubt(), None, "{minutes}");
    }
}

#[tokio::test]
async fn a_challenge_past_its_time_stays_so_while_the_clock_is_in_doubt() {
    let perishable = Perishable::new().await;
    let desk = &perishable.desk;
    desk.clock.set(NOW.plus_seconds(7200));
    assert_eq!(desk.store.clock_doubt(), None, "two hours went by in order");
    assert_eq!(desk.store.expiry_clock(), NOW.plus_seconds(7200));
    desk.clock.jump(NOW.minus_seconds(DAY));
    let spent = desk.store.spend_challenge(
        perishable.challenge,
        IssuedCertificate {
            request: [1; 32],
            leaf: Leaf([7; 32]),
            der: vec![1],
            not_after: 2_000_000_000,
            serial: "AB".into(),
        },
    );
    assert_eq!(spent.await.unwrap(), Spent::Refused(Refusal::Expired));
}

#[tokio::test]
async fn the_guard_opens_by_time_that_passes_and_by_no_clock() {
    let desk = Desk::new();
    let mut channels = Vec::new();
    for number in 0..11 {
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
    for (number, jump) in JUMPS.iter().enumerate() {
        desk.clock.jump(jump(NOW));
        let eleventh = desk
            .store
            .enqueue(lock(&format!("b{number}"), &channels[10..]))
            .await;
        assert!(
            matches!(eleventh, Err(StoreError::Guard { .. })),
            "{eleventh:?}"
        );
        let (after, _directory) = desk.crashed();
        let eleventh = after
            .enqueue(lock(&format!("c{number}"), &channels[10..]))
            .await;
        assert!(
            matches!(eleventh, Err(StoreError::Guard { .. })),
            "after a restart"
        );
    }
    desk.clock.set(desk.clock.now().plus_seconds(21 * 60));
    desk.store
        .enqueue(lock("d", &channels[10..]))
        .await
        .unwrap();
}
