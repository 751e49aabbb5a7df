//! A disk that is full or fails: acknowledging ends, nothing is corrupt, and what was
//! acknowledged is there once the disk is well again.

use std::sync::Arc;

use super::disk::SimDisk;
use super::power::Campaign;
use super::*;
use crate::store::Store;

#[test]
fn a_disk_that_fails_a_sync_ends_acknowledging_and_loses_nothing() {
    for seed in 1..=SEEDS {
        let mut campaign = Campaign::of_seed(seed);
        campaign.disk.syncs_fail(false);
        campaign
            .until_it_fails(|disk| disk.syncs_fail(true))
            .unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        campaign.disk.syncs_fail(false);
        campaign
            .goes_on()
            .unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    }
}

#[test]
fn a_disk_without_room_ends_acknowledging_and_loses_nothing() {
    for seed in 1..=SEEDS {
        let mut campaign = Campaign::of_seed(seed);
        campaign
            .until_it_fails(|disk| disk.has_room(Some(disk.used() + mix_room(seed))))
            .unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        // A start meanwhile does no harm, whether it succeeds or not.
        let disk = Arc::new(campaign.disk.clone());
        match Store::open_on(disk, options(Path::new("/data")), Clock::manual(NOW)) {
            Ok(opened) => drop(opened),
            Err(why) => assert!(matches!(why, StoreError::Broken(_)), "{why}"),
        }
        campaign.disk.has_room(None);
        campaign
            .goes_on()
            .unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    }
}

#[test]
fn the_reserve_refuses_writes_before_the_disk_is_full_and_the_ballast_goes_first() {
    let disk = SimDisk::default();
    let options = StoreOptions {
        reserve_bytes: RESERVE,
        ..StoreOptions::new("/data")
    };
    let clock = Clock::manual(NOW);
    let (store, _writer) = Store::open_on(Arc::new(disk.clone()), options, clock).unwrap();
    let ballast = Path::new("/data/ballast");
    let there = |disk: &SimDisk| super::super::disk::Disk::exists(disk, ballast).unwrap();

    store.check_room().unwrap();
    assert!(!store.full());
    assert!(there(&disk), "there is room for a ballast file");

    disk.has_room(Some(disk.used() + RESERVE - 1));
    store.check_room().unwrap();
    assert!(store.full());
    assert!(!there(&disk), "the ballast is given up first");
    let refused = store.report(Reported {
        channel: ChannelNo(1),
        epoch: Seq(0),
        uuid: CommandUuid::parse("u").unwrap(),
        seq: None,
        status: Status::Acknowledged,
        errors: Vec::new(),
        body: None,
    });
    assert_eq!(refused.unwrap_err(), StoreError::Full);

    // The ballast's own room is none to be taken at once for another.
    disk.has_room(Some(disk.used() + 2 * RESERVE + 1));
    for _ in 0..3 {
        store.check_room().unwrap();
        assert!(!store.full(), "it does not come and go");
        assert!(!there(&disk));
    }

    disk.has_room(Some(disk.used() + 10 * RESERVE));
    store.check_room().unwrap();
    assert!(!store.full(), "writes are taken again");
    assert!(there(&disk), "and the ballast is back");
}

/// From nothing to a few pages.
fn mix_room(seed: u64) -> u64 {
    super::disk::mix(seed, 77) % 60_000
}

const SEEDS: u64 = 16;
const RESERVE: u64 = 8 << 20;
