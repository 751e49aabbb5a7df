//! The inventory is read out of reports behind their back, once each, and kept sealed.

use schema::inventory::Kind;

use super::*;

fn profiles(identifiers: &[&str]) -> Vec<u8> {
    let item =
        |id: &&str| format!("<dict><key>PayloadIdentifier</key><string>{id}</string></dict>");
    let items: String = identifiers.iter().map(item).collect();
    format!(
        "<plist version=\"1.0\"><dict><key>ProfileList</key><array>{items}</array></dict></plist>"
    )
    .into_bytes()
}

async fn learn(store: &Store) {
    assert_eq!(store.learn(9).await, Ok(true), "nothing is left");
}

fn has(store: &Store, channel: ChannelNo, identifier: &str) -> bool {
    let known = store.known(channel, Kind::ProfileList).unwrap();
    known.is_some_and(|known| known.has("PayloadIdentifier", identifier))
}

#[tokio::test]
async fn what_a_report_told_is_known_and_stays_known_after_a_crash() {
    let desk = Desk::new();
    let one = desk.enroll("ONE").await.channel.no;
    let two = desk.enroll("TWO").await.channel.no;
    desk.enqueue("c1", &[one, two]).await.unwrap();
    desk.enqueue("c2", &[one]).await.unwrap();
    let store = &desk.store;
    report(store, one, "c1", Status::Acknowledged, &profiles(&["old"])).await;
    report(store, two, "c1", Status::Error, &profiles(&["no"])).await;
    learn(store).await;
    assert!(has(store, one, "old") && !has(store, two, "no"));

    report(
        store,
        one,
        "c2",
        Status::Acknowledged,
        &profiles(&["new", "newer"]),
    )
    .await;
    assert!(!has(store, one, "new"), "it is not on the way of a report");
    let (crashed, _directory) = desk.crashed();
    assert!(has(&crashed, one, "old"));
    learn(&crashed).await;
    assert!(has(&crashed, one, "newer") && !has(&crashed, one, "old"));
    assert_eq!(crashed.learn(1).await, Ok(true), "and reads nothing twice");
    assert_eq!(crashed.inventory(one).unwrap().len(), 1);
    assert_eq!(crashed.inventory(two).unwrap(), []);
}

#[tokio::test]
async fn what_is_known_stays_when_retention_takes_the_report_and_is_sealed() {
    let desk = Desk::new();
    let channel = desk.enroll("D").await.channel.no;
    desk.enqueue("c1", &[channel]).await.unwrap();
    let told = profiles(&["com.example.canary"]);
    report(&desk.store, channel, "c1", Status::Acknowledged, &told).await;
    learn(&desk.store).await;
    desk.store.fold().await.unwrap();
    desk.clock.set(NOW.plus_seconds(10 * 24 * 3600));
    while desk
        .store
        .retain(NOW.plus_seconds(9 * 24 * 3600))
        .await
        .unwrap()
        > 0
    {}
    assert!(has(&desk.store, channel, "com.example.canary"));
    let database = std::fs::read(desk.directory.path().join("reveille.redb")).unwrap();
    let canary = b"com.example.canary";
    assert!(
        !database
            .windows(canary.len())
            .any(|window| window == canary)
    );
}

#[tokio::test]
async fn a_report_that_does_not_open_is_left_out_and_none_waits_behind_it() {
    let desk = Desk::new();
    let one = desk.enroll("ONE").await.channel.no;
    let two = desk.enroll("TWO").await.channel.no;
    desk.enqueue("c1", &[one, two]).await.unwrap();
    let foreign = desk.store.seal_body(two, &Packed::of(&profiles(&["no"])));
    let reported = Reported {
        channel: one,
        epoch: Seq(0),
        uuid: CommandUuid::parse("c1").unwrap(),
        seq: None,
        status: Status::Acknowledged,
        errors: Vec::new(),
        body: Some(foreign.unwrap()),
    };
    let ticket = desk.store.report(reported).unwrap();
    desk.store.redeem(ticket).await.unwrap();
    let told = profiles(&["yes"]);
    report(&desk.store, two, "c1", Status::Acknowledged, &told).await;
    learn(&desk.store).await;
    assert!(!has(&desk.store, one, "no") && has(&desk.store, two, "yes"));
}

#[tokio::test]
async fn on_a_full_disk_it_waits_and_keeps_nobody_else_waiting() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::manual(NOW);
    let full = StoreOptions {
        reserve_bytes: u64::MAX >> 8,
        ..StoreOptions::new(directory.path())
    };
    let store = Store::open(full, clock.clone()).unwrap();
    let desk = Desk {
        store,
        clock,
        directory,
    };
    let channel = desk.enroll("D").await.channel.no;
    desk.enqueue("c1", &[channel]).await.unwrap();
    let told = profiles(&["a"]);
    report(&desk.store, channel, "c1", Status::Acknowledged, &told).await;
    desk.store.check_room().unwrap();
    assert!(desk.store.full());
    assert_eq!(desk.store.learn(9).await, Ok(false));
    assert!(!has(&desk.store, channel, "a"));

    // Room comes back.
    let Desk {
        store,
        clock,
        directory,
    } = desk;
    store.close();
    drop(store);
    let store = Store::open(options(directory.path()), clock).unwrap();
    learn(&store).await;
    assert!(has(&store, channel, "a"));
}
