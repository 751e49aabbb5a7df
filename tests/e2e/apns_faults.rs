//! APNs in trouble, in every way it can be: whoever waits is woken within a minute of
//! its being back, a dead token is left alone, a live one is not called dead, and APNs
//! is not stormed.
//!
//! Pauses go by the server's clock, which these tests turn; connections and deadlines go
//! by real time.

use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use actors::pusher::{Pump, Wake};
use schema::{ChannelNo, EnrollId};
use serde_json::json;
use sim::{Answer, Behaviour, Fleet, Proof, Push};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::house::{House, NOW, TOPIC, id_of};

/// A fleet that is to be woken and does not poll.
struct Crowd {
    house: House,
    fleet: Fleet,
    pushes: UnboundedReceiver<Push>,
    woken: HashSet<String>,
    /// Seconds of the server's clock since the start.
    passed: u64,
}

impl Crowd {
    async fn of(devices: usize) -> Self {
        Self::at(House::start().await, devices).await
    }

    async fn at(house: House, devices: usize) -> Self {
        let silent = Behaviour {
            silent: 1.0,
            ..Behaviour::default()
        };
        let fleet = house.fleet(devices, silent);
        fleet.enroll().await.unwrap();
        Self {
            pushes: house.apns.pushes(),
            house,
            fleet,
            woken: HashSet::new(),
            passed: 0,
        }
    }

    /// Queues a command for all, which wakes them.
    async fn command(&self) {
        let order = json!({"targets": {"all": true}, "command": {"request_type": "ProfileList"}});
        let (status, queued) = self.house.post("/api/v1/commands", &order).await;
        assert_eq!(status, 202, "{queued}");
    }

    fn tokens(&self) -> HashSet<String> {
        let tokens = self.fleet.devices().map(|device| device.push.token_hex());
        tokens.collect()
    }

    fn all_woken(&mut self) -> bool {
        while let Ok(push) = self.pushes.try_recv() {
            self.woken.insert(push.token_hex);
        }
        self.tokens().is_subset(&self.woken)
    }

    /// Lets one second pass on the server's clock, and has it look and be answered.
    async fn tick(&mut self) {
        self.passed += 1;
        self.house.clock.set(NOW.plus_seconds(self.passed));
        self.settled().await;
    }

    /// Waits until what is due went out and came back; what hangs is left behind.
    async fn settled(&self) {
        let app = &self.house.running.app;
        app.pusher.send(Pump::default()).await.unwrap();
        let until = Instant::now() + Duration::from_secs(2);
        while app.push_figures.under_way.load(Relaxed) > 0 && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.tick().await;
        }
    }

    /// Turns the clock until all are woken; the seconds that took.
    async fn until_woken(&mut self) -> u64 {
        let since = self.passed;
        while !self.all_woken() {
            assert!(
                self.passed < since + 120,
                "{} of {} are woken",
                self.woken.len(),
                self.tokens().len()
            );
            self.tick().await;
        }
        self.passed - since
    }

    /// Real time goes by on the server's clock too, until all are woken.
    async fn until_woken_in_real_time(&mut self) -> Duration {
        let (start, since) = (Instant::now(), self.passed);
        while !self.all_woken() {
            let gone = start.elapsed();
            assert!(
                gone < Duration::from_secs(120),
                "{} of {} are woken",
                self.woken.len(),
                self.tokens().len()
            );
            self.passed = since + gone.as_secs();
            self.house.clock.set(NOW.plus_seconds(self.passed));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        start.elapsed()
    }

    async fn received(&self, at_least: u64) {
        let enough = move |counts: &sim::Counts| counts.received >= at_least;
        let wait = Duration::from_secs(20);
        self.house.apns.wait_until(wait, enough).await.unwrap();
        self.settled().await;
    }

    fn answers(&self, answer: Answer) {
        self.house.apns.rescript(|script| script.answer = answer);
    }

    async fn states(&self) -> Vec<String> {
        let mut states = Vec::new();
        for device in self.fleet.devices() {
            states.push(push_state(&self.house, &id_of(device)).await);
        }
        states
    }

    async fn halted(&self) -> Option<String> {
        let (_, topics) = self.house.get("/api/v1/push-certificates").await;
        topics["items"][0]["halted"].as_str().map(str::to_owned)
    }

    async fn new_certificate(&self) {
        self.house.import_push_certificate().await;
    }

    /// Wakes all as an admin does, though a wake of theirs may be young.
    async fn wake(&self) {
        let wake = Wake(self.channels());
        let woken = self.house.running.app.pusher.send(wake).await;
        assert!(woken.unwrap().unwrap().iter().all(Result::is_ok));
    }

    fn channels(&self) -> Vec<ChannelNo> {
        let store = &self.house.running.app.store;
        let find = |id: String| {
            store
                .find(&EnrollId::device(&id).unwrap())
                .unwrap()
                .unwrap()
        };
        self.fleet
            .devices()
            .map(|device| find(id_of(device)))
            .collect()
    }

    /// Whether connections were asked for no more than once a second, those aside that
    /// are opened at once because all others are full.
    fn is_paced(&self, at_once: usize) -> Result<(), Vec<Duration>> {
        let attempts = self.house.apns.attempts();
        let (first, last) = (attempts[0], attempts[attempts.len() - 1]);
        let most = at_once as u64 + (last - first).as_secs() + 1;
        let since = attempts.iter().map(|at| *at - first).collect();
        (attempts.len() as u64 <= most).then_some(()).ok_or(since)
    }
}

async fn push_state(house: &House, id: &str) -> String {
    let (_, shown) = house.get(&format!("/api/v1/devices/{id}")).await;
    let state = &shown["channels"][0]["push"]["state"];
    state.as_str().unwrap().to_owned()
}

const A_MINUTE: u64 = 60;

#[actix_web::test]
async fn a_minute_of_503_is_over_for_all_within_a_minute_and_apns_was_left_alone() {
    // With so few the breaker stays closed, with so many it opens.
    for devices in [3, 60] {
        let mut crowd = Crowd::of(devices).await;
        crowd.answers(Answer::refuse(503, "ServiceUnavailable"));
        crowd.command().await;
        crowd.received(devices as u64).await;
        crowd.pass(60).await;
        let meanwhile = crowd.house.apns.counts().received;
        assert!(
            meanwhile <= devices as u64 * 2 + 3,
            "{devices}: {meanwhile}"
        );
        crowd.answers(Answer::Accept);
        let took = crowd.until_woken().await;
        println!(
            "503 for 60 s, {devices} devices: {took} s after it, {meanwhile} pushes meanwhile"
        );
        assert!(took <= A_MINUTE, "{devices}: {took} s");
        assert_eq!(crowd.states().await, vec!["ok"; devices]);
    }
}

#[actix_web::test]
async fn throttled_tokens_and_answers_cut_short_are_tried_again_within_a_minute() {
    for fault in [
        Answer::too_many_requests(),
        Answer::ResetBody { status: 410 },
        Answer::ResetBody { status: 503 },
        Answer::Reset,
    ] {
        let mut crowd = Crowd::of(25).await;
        crowd.answers(fault.clone());
        crowd.command().await;
        crowd.received(25).await;
        crowd.pass(60).await;
        crowd.answers(Answer::Accept);
        let took = crowd.until_woken().await;
        println!("{fault:?} for 60 s: {took} s after it");
        assert!(took <= A_MINUTE, "{fault:?}: {took} s");
        assert_eq!(crowd.states().await, vec!["ok"; 25], "{fault:?}");
    }
}

#[actix_web::test]
async fn a_410_ends_the_wakes_of_the_token_it_is_about_and_of_no_other() {
    let mut crowd = Crowd::of(12).await;
    let tokens: Vec<_> = crowd.fleet.devices().map(|d| d.push.token_hex()).collect();
    let (gone, outdated) = tokens.split_at(6);
    crowd.house.apns.rescript(|script| {
        for token in gone {
            script
                .always_for
                .insert(token.clone(), Answer::unregistered(NOW.0));
        }
        // Said of these tokens as they were before the device reported them.
        for token in outdated {
            let before = Answer::unregistered(NOW.0 - 3_600_000);
            script.next_for.insert(token.clone(), [before].into());
        }
    });
    crowd.command().await;
    crowd.received(12).await;
    crowd.woken.extend(gone.iter().cloned());
    let took = crowd.until_woken().await;
    assert!(took <= A_MINUTE, "{took} s");
    for _ in 0..3 {
        crowd.command().await;
        crowd.pass(30).await;
    }
    let states = crowd.states().await;
    assert_eq!(
        (&states[..6], &states[6..]),
        (
            &["dead"; 6].map(String::from)[..],
            &["ok"; 6].map(String::from)[..]
        )
    );
    for token in gone {
        assert_eq!(crowd.house.apns.received(token), 1, "none after the 410");
    }
}

#[actix_web::test]
async fn a_410_for_the_token_before_wakes_the_device_by_its_new_one() {
    let house = House::start().await;
    let (mut device, mut client) = house.enrolled(Proof::Header).await;
    let mut pushes = house.apns.pushes();
    let old = device.push.token_hex();
    // It takes APNs a while to say so; meanwhile the device reports a new token.
    house.apns.rescript(|script| {
        script.delay = Duration::from_millis(300);
        script.always_for.insert(old, Answer::unregistered(NOW.0));
    });
    let id = id_of(&device);
    let order = json!({"targets": {"ids": [id]}, "command": {"request_type": "ProfileList"}});
    house.post("/api/v1/commands", &order).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    device.push.token = vec![7; 32];
    let reply = client
        .check_in(&device.identity, device.token_update())
        .await;
    assert_eq!(reply.unwrap().status, 200);
    let push = tokio::time::timeout(Duration::from_secs(10), pushes.recv()).await;
    assert_eq!(push.unwrap().unwrap().token_hex, device.push.token_hex());
    assert_eq!(push_state(&house, &id).await, "ok");
}

#[actix_web::test]
async fn bad_tokens_for_all_mark_nobody_however_large_the_fleet() {
    for devices in [1, 5, 37] {
        let mut crowd = Crowd::of(devices).await;
        crowd.command().await;
        crowd.until_woken().await;
        // From one moment to the next.
        crowd.tick().await;
        crowd.woken.clear();
        crowd.answers(Answer::bad_device_token());
        crowd.wake().await;
        crowd
            .received(devices as u64 + devices.min(10) as u64)
            .await;
        crowd.pass(130).await;
        assert_eq!(crowd.states().await, vec!["ok"; devices]);
        assert_eq!(crowd.halted().await.is_some(), devices > 10);
        // The right host or certificate: a fleet that is halted waits for an admin.
        crowd.answers(Answer::Accept);
        if devices > 10 {
            crowd.new_certificate().await;
        }
        let took = crowd.until_woken().await;
        println!("BadDeviceToken for all of {devices}: {took} s after it");
        assert!(took <= A_MINUTE, "{devices}: {took} s");
    }
}

#[actix_web::test]
async fn an_expired_certificate_sends_nothing_and_its_successor_wakes_all() {
    let house = House::bare(|_| {}).await;
    let end = i64::try_from(NOW.plus_seconds(600).seconds()).unwrap();
    let pem = String::from_utf8(sim::push_certificate_until(TOPIC, end).unwrap()).unwrap();
    let put = house
        .put("/api/v1/push-certificates", &json!({ "pem": pem }))
        .await;
    assert_eq!(put.0, 200, "{}", put.1);
    let mut crowd = Crowd::at(house, 20).await;
    crowd.passed = 700;
    crowd.tick().await;
    crowd.command().await;
    crowd.pass(60).await;
    assert_eq!(crowd.house.apns.counts().received, 0);
    assert!(crowd.halted().await.unwrap().contains("expired"));
    // A clock that only seemed to be past it, set right, is enough.
    crowd.passed = 500;
    assert!(crowd.until_woken().await <= A_MINUTE);
    assert_eq!(crowd.halted().await, None);

    crowd.woken.clear();
    crowd.passed = 1_400;
    crowd.tick().await;
    crowd.command().await;
    crowd.pass(5).await;
    assert_eq!(crowd.house.apns.counts().received, 20);
    crowd.new_certificate().await;
    assert!(crowd.until_woken().await <= A_MINUTE);
    assert_eq!(crowd.states().await, vec!["ok"; 20]);
}

#[actix_web::test]
async fn what_the_old_certificate_was_told_does_not_halt_its_successor() {
    let mut crowd = Crowd::of(40).await;
    // All forty are on their way when the certificate is swapped; then APNs says what it
    // thinks of the old one.
    crowd.house.apns.rescript(|script| {
        script.delay = Duration::from_secs(5);
        let kinds = ["BadCertificate", "BadDeviceToken", "DeviceTokenNotForTopic"];
        for n in 0..40 {
            let answer = match kinds[n % 3] {
                "BadCertificate" => Answer::refuse(403, "BadCertificate"),
                reason => Answer::refuse(400, reason),
            };
            script.next.push_back(answer);
        }
    });
    crowd.command().await;
    let under_way = |counts: &sim::Counts| counts.arrived == 40;
    let wait = Duration::from_secs(20);
    crowd.house.apns.wait_until(wait, under_way).await.unwrap();
    assert_eq!(crowd.house.apns.counts().received, 0, "none was answered");
    crowd.new_certificate().await;
    crowd
        .house
        .apns
        .rescript(|script| script.delay = Duration::ZERO);
    let took = crowd.until_woken_in_real_time().await;
    assert!(took < Duration::from_secs(A_MINUTE), "{took:?}");
    assert_eq!(crowd.halted().await, None);
    assert_eq!(crowd.states().await, vec!["ok"; 40]);
}

#[actix_web::test]
async fn a_goodbye_every_fifty_streams_loses_none_and_reconnects_once_a_second() {
    let mut crowd = Crowd::of(100).await;
    crowd.house.apns.rescript(|script| {
        script.go_away_after = Some(50);
        script.max_concurrent_streams = 50;
    });
    let mut took = Duration::ZERO;
    for _ in 0..5 {
        crowd.woken.clear();
        crowd.wake().await;
        took += crowd.until_woken_in_real_time().await;
    }
    let connections = crowd.house.apns.attempts().len();
    println!("GOAWAY every 50 streams, 500 wakes: {took:?}, {connections} connections");
    assert!(took < Duration::from_secs(A_MINUTE), "{took:?}");
    assert!(connections >= 8, "{connections}");
    crowd.is_paced(4).unwrap();
}

#[actix_web::test]
async fn silence_of_every_kind_ends_for_all_within_a_minute() {
    // Halves of answers that never end, on streams of a live connection.
    let stalled = async {
        let mut crowd = Crowd::of(20).await;
        crowd.answers(Answer::StallBody { status: 410 });
        crowd.house.apns.rescript(|script| {
            script.next = vec![Answer::Stall; 7].into();
        });
        crowd.command().await;
        crowd.received(20).await;
        crowd.answers(Answer::Accept);
        (crowd.until_woken_in_real_time().await, crowd)
    };
    // Connections taken, and not a word on them.
    let hole = async {
        let mut crowd = Crowd::of(20).await;
        crowd.house.apns.rescript(|script| script.black_hole = true);
        crowd.command().await;
        tokio::time::sleep(Duration::from_secs(12)).await;
        crowd
            .house
            .apns
            .rescript(|script| script.black_hole = false);
        (crowd.until_woken_in_real_time().await, crowd)
    };
    let slow = async {
        let mut crowd = Crowd::of(20).await;
        let delay = Duration::from_secs(3);
        crowd
            .house
            .apns
            .rescript(|script| script.handshake_delay = delay);
        crowd.command().await;
        (crowd.until_woken_in_real_time().await, crowd)
    };
    let outcomes = futures_util::future::join3(stalled, hole, slow).await;
    for (what, (took, crowd)) in [
        ("a stalled body", outcomes.0),
        ("a black hole", outcomes.1),
        ("a slow handshake", outcomes.2),
    ] {
        println!("{what}: {took:?} after it");
        assert!(took < Duration::from_secs(A_MINUTE), "{what}: {took:?}");
        crowd.is_paced(1).unwrap();
        assert_eq!(crowd.states().await, vec!["ok"; 20], "{what}");
    }
}

#[actix_web::test]
async fn a_restart_in_the_middle_of_trouble_forgets_nobody() {
    let mut crowd = Crowd::of(40).await;
    // Some are taken, some refused, some not answered when the server goes.
    crowd.answers(Answer::refuse(503, "ServiceUnavailable"));
    crowd.house.apns.rescript(|script| {
        script.next = [vec![Answer::Accept; 8], vec![Answer::Stall; 8]]
            .concat()
            .into();
    });
    crowd.command().await;
    crowd.received(40).await;
    let taken = crowd.house.apns.counts().accepted;
    crowd.all_woken();
    crowd.house = crowd.house.restarted().await;
    crowd.pass(10).await;
    crowd.answers(Answer::Accept);
    let took = crowd.until_woken().await;
    println!("a restart in the middle of trouble: {took} s after it, {taken} were taken before");
    assert!(took <= A_MINUTE, "{took} s");
}
