//! What is turned away when too much is going on, and when the disk is slow.

use std::time::{Duration, Instant};

use super::*;
use crate::admission::{Admission, Weight};

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn polls_are_turned_away_at_four_fifths_reports_at_the_limit() {
    let desk = Desk::new();
    let admission = Admission::new(desk.store.clone(), 100, 1000);
    let mut held: Vec<_> = (0..80)
        .map(|_| admission.admit(Weight::Idle, 0).unwrap())
        .collect();
    assert!(admission.admit(Weight::Idle, 0).is_none());
    held.extend((0..20).map(|_| admission.admit(Weight::Full, 0).unwrap()));
    assert!(admission.admit(Weight::Full, 0).is_none());
    held.truncate(10);
    assert_eq!(admission.under_way(), 10, "what was refused holds nothing");
    assert!(admission.admit(Weight::Idle, 0).is_some());
    let long = admission.admit(Weight::Full, 900).unwrap();
    assert!(
        admission.admit(Weight::Full, 101).is_none(),
        "bytes count too"
    );
    assert!(admission.admit(Weight::Full, 100).is_some());
    drop(long);
    assert!(admission.admit(Weight::Full, 101).is_some());
}

#[tokio::test]
async fn while_the_disk_is_slow_polls_are_turned_away_first_reports_later() {
    let desk = Desk::new();
    let admission = Admission::new(desk.store.clone(), 100, 1000);
    let takes = |weight| admission.admit(weight, 0).is_some();
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    let store = desk.store.clone();
    let slow = tokio::spawn(async move {
        let write = move |_: &redb::WriteTransaction| {
            // The disk takes as long as the test wants.
            let _ = is_done.recv();
            let after: writer::AfterCommit = Box::new(|_: &tail::Published| {});
            Ok(after)
        };
        store.write(write).await
    });
    let writing = || desk.store.figures().writing_since.load(Ordering::Acquire) != 0;
    until("the write is under way", writing).await;
    let begun = desk.clock.now();
    assert!(takes(Weight::Idle) && takes(Weight::Full));
    desk.clock.set(UnixMillis(begun.0 + 501));
    assert!(!takes(Weight::Idle), "a poll, after half a second");
    assert!(takes(Weight::Full), "a report is still taken");
    desk.clock.set(UnixMillis(begun.0 + 2001));
    assert!(!takes(Weight::Full), "a report, after two seconds");
    done.send(()).unwrap();
    slow.await.unwrap().unwrap();
    until("all are taken again", || takes(Weight::Idle)).await;
}
