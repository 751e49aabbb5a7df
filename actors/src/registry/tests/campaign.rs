//! Activation against passivation with writes under way, on a real store: however often
//! a device's actor goes and comes, one lives at a time and nothing is lost.
//!
//! `REVEILLE_ACTOR_MESSAGES=1000000` before it makes it the long campaign.

use std::sync::atomic::AtomicU64;

use super::*;

/// Which lives a device's actors had, the present one last.
type Lives = Arc<DashMap<EnrollId, Vec<Arc<Life>>>>;

/// Shows which actor answers.
#[derive(Clone, Message)]
#[rtype(result = "Result<(), Fault>")]
struct Roll(Lives);

impl Handler<Roll> for DeviceActor {
    type Result = Result<(), Fault>;

    fn handle(&mut self, Roll(lives): Roll, _: &mut Self::Context) -> Self::Result {
        let mut lives = lives.entry(self.id.clone()).or_default();
        let known = lives.iter().position(|life| Arc::ptr_eq(life, &self.life));
        match known {
            Some(place) => assert_eq!(place + 1, lives.len(), "an actor that was replaced lives"),
            None => {
                let before = lives.last();
                let ended = before.is_none_or(|life| life.ended.load(Ordering::Acquire));
                assert!(ended, "two actors live at once");
                lives.push(self.life.clone());
            }
        }
        Ok(())
    }
}

/// What was said, and how often it took a second time.
#[derive(Default)]
struct Tally {
    messages: AtomicU64,
    shed: AtomicU64,
}

impl Tally {
    /// Says something until it is taken, as a device does.
    async fn until_taken<T>(&self, mut say: impl AsyncFnMut() -> Result<T, Fault>) -> T {
        loop {
            self.messages.fetch_add(1, Ordering::Relaxed);
            match say().await {
                Ok(answer) => return answer,
                Err(Fault::Overloaded) => {
                    self.shed.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
                Err(fault) => panic!("{fault}"),
            }
        }
    }
}

/// One device's turn at one command: asks for it, answers it, and shows who it is that
/// serves it, all the while being sent home.
async fn turn(desk: &Desk, tally: &Tally, lives: &Lives, id: &str, uuid: &str) {
    let device = sender(id).device;
    let call = || desk.registry.ask(&device, Opens::No, Roll(lives.clone()));
    let session = async {
        let idle = || desk.says(id, Status::Idle, None);
        let given = tally.until_taken(async || idle().await).await;
        assert_eq!(given.as_deref(), Some(uuid));
        tally.until_taken(async || call().await).await;
        let done = || desk.says(id, Status::Acknowledged, Some(uuid));
        let next = tally.until_taken(async || done().await).await;
        assert_eq!(next, None, "its report is in, nothing else waits");
    };
    let beside = async {
        tally.until_taken(async || call().await).await;
        desk.registry.passivate_idle(u64::MAX);
        tally.until_taken(async || call().await).await;
    };
    futures_util::future::join(session, beside).await;
}

/// How many messages this run is for.
fn messages() -> u64 {
    let wanted = std::env::var("REVEILLE_ACTOR_MESSAGES").ok();
    wanted.and_then(|n| n.parse().ok()).unwrap_or(3_000)
}

#[actix::test]
async fn however_often_actors_go_and_come_one_lives_and_no_message_is_lost() {
    let desk = Arc::new(Desk::on_disk());
    let ids: Vec<_> = (0..DEVICES).map(|n| format!("D{n}")).collect();
    for id in &ids {
        desk.enroll(id).await;
    }
    let (tally, lives) = (Tally::default(), Lives::default());
    let stop = Arc::new(AtomicBool::new(false));
    let (sweeper, stopped) = (desk.clone(), stop.clone());
    let sweeping = actix::spawn(async move {
        while !stopped.load(Ordering::Relaxed) {
            sweeper.registry.passivate_idle(u64::MAX);
            tokio::task::yield_now().await;
        }
    });
    let start = std::time::Instant::now();
    let mut rounds = Vec::new();
    while tally.messages.load(Ordering::Relaxed) < messages() {
        let uuid = format!("R{}", rounds.len());
        rounds.push(desk.queue_for(&ids, &uuid).await);
        let turns = ids.iter().map(|id| turn(&desk, &tally, &lives, id, &uuid));
        futures_util::future::join_all(turns).await;
        if rounds.len().is_multiple_of(50) {
            desk.store.fold().await.unwrap();
        }
    }
    stop.store(true, Ordering::Relaxed);
    sweeping.await.unwrap();
    for seq in &rounds {
        let counts = desk.store.command(*seq).unwrap().unwrap().counts;
        let acknowledged = counts
            .get(schema::queue::State::Acknowledged as usize)
            .copied();
        assert_eq!(acknowledged, Some(DEVICES as u32), "{seq:?}: {counts:?}");
    }
    let born: usize = lives.iter().map(|lives| lives.len()).sum();
    println!(
        "{} messages, {born} actors seen for {DEVICES} devices, {} shed and said again, {:?}",
        tally.messages.load(Ordering::Relaxed),
        tally.shed.load(Ordering::Relaxed),
        start.elapsed()
    );
    assert!(born > DEVICES * 2, "hardly an actor went: {born}");
}

/// Makes an actor panic once others have come to wait behind it.
#[derive(Clone, Copy, Message)]
#[rtype(result = "Result<(), Fault>")]
struct SlowBoom;

impl Handler<SlowBoom> for DeviceActor {
    type Result = Result<(), Fault>;

    #[expect(clippy::panic, reason = "that is the point")]
    fn handle(&mut self, _: SlowBoom, _: &mut Self::Context) -> Self::Result {
        std::thread::sleep(Duration::from_millis(300));
        panic!("boom");
    }
}

#[actix::test]
async fn a_panic_counts_once_however_many_wait_behind_it() {
    let desk = Desk::new();
    desk.enroll("bad").await;
    desk.enroll("good").await;
    let bad = sender("bad").device;
    let fall = desk.registry.ask(&bad, Opens::No, SlowBoom);
    let behind =
        futures_util::future::join_all((0..8).map(|_| desk.says("bad", Status::Idle, None)));
    let (fallen, behind) = futures_util::future::join(fall, behind).await;
    assert!(matches!(fallen, Err(Fault::Panicked(_))), "{fallen:?}");
    let failed = behind.iter().filter(|outcome| outcome.is_err()).count();
    assert!(failed >= 3, "too few came in time: {behind:?}");
    let again = desk.says("bad", Status::Idle, None).await;
    assert!(again.is_ok(), "one panic is no quarantine: {again:?}");
    assert_eq!(desk.says("good", Status::Idle, None).await.unwrap(), None);
}

const DEVICES: usize = 64;
