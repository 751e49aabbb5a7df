//! Power cuts: a store under mixed load on a disk whose power goes at any operation,
//! again and again, while it is opened too. Afterwards it is in a state the writer was
//! in: with everything acknowledged, and nothing but what was submitted.
//!
//! `REVEILLE_POWER_CUTS=2000 cargo test --release -p actors power_cuts` is the long
//! campaign; `REVEILLE_POWER_SEED=N` runs the one that failed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use schema::access::AccessRights;
use schema::enrollment::{Change, EnrolledWith, SecretKind};
use schema::link::{IdentityKind, Link, LinkId};

use super::disk::{Lie, SimDisk, mix};
use super::model::Model;
use super::*;
use crate::store::writer::Writer;
use crate::store::{PublicUrls, Store};

/// What an operation answered, in words the model also has.
type Told = Result<String, StoreError>;
type Asked = Pin<Box<dyn Future<Output = Told>>>;

/// A seed at work on one disk, from cut to cut.
pub(super) struct Campaign {
    pub(super) disk: SimDisk,
    clock: Clock,
    /// Everything acknowledged.
    acknowledged: Model,
    /// With the batch that was under way when the power went.
    perhaps: Option<Model>,
    seed: u64,
    drawn: u64,
    /// The disk may fail though it has power.
    faulty: bool,
    figures: Figures,
}

#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    cuts: u64,
    cuts_in_recovery: u64,
    batches: u64,
    operations: u64,
    went_through: u64,
}

impl Campaign {
    fn new(seed: u64, base: &(SimDisk, Model)) -> Self {
        // One in four is there from the first start on.
        let fresh = seed.is_multiple_of(4);
        let (disk, model) = if fresh {
            (SimDisk::default(), Model::default())
        } else {
            (base.0.copy(), base.1.clone())
        };
        Self {
            disk,
            clock: Clock::manual(NOW.plus_seconds(7200)),
            acknowledged: model,
            perhaps: None,
            seed,
            drawn: 0,
            faulty: false,
            figures: Figures::default(),
        }
    }

    /// One on a store with a crowd in it.
    pub(super) fn of_seed(seed: u64) -> Self {
        let mut campaign = Self::new(seed, &base());
        campaign.faulty = true;
        campaign
    }

    /// Serves for a while, then with a fault, until the store says it cannot go on.
    pub(super) fn until_it_fails(&mut self, fault: impl Fn(&SimDisk)) -> Result<(), String> {
        let (store, mut writer) = self.open()?.ok_or("no power")?;
        for round in 0..500 {
            if round == 5 {
                fault(&self.disk);
            }
            if !self.batch(&store, &mut writer)? {
                let refused = store.hand_out(ChannelNo(0), Seq(0));
                return if matches!(refused, Err(StoreError::Broken(_))) {
                    Ok(())
                } else {
                    Err(format!("it goes on after a failure: {refused:?}"))
                };
            }
        }
        Err("the fault was never met".into())
    }

    /// Starts again, with or without a loss of power before, and serves.
    pub(super) fn goes_on(&mut self) -> Result<(), String> {
        if self.draw(2) == 0 {
            let seed = self.draw(u64::MAX);
            self.disk = self.disk.survived(seed);
        }
        let (store, mut writer) = self.open()?.ok_or("no power")?;
        self.check(&store)?;
        for _ in 0..5 {
            if !self.batch(&store, &mut writer)? {
                return Err(format!("it fails again: {:?}", store.broken()));
            }
        }
        self.acknowledged.is_state_of(&store)
    }

    /// A number below `below`.
    fn draw(&mut self, below: u64) -> u64 {
        self.drawn += 1;
        mix(self.seed, self.drawn) % below
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        let below = (from.len() as u64).max(1);
        from.get(self.draw(below) as usize).copied()
    }

    fn run(&mut self, cuts: u64) -> Result<(), String> {
        while self.figures.cuts < cuts {
            let reach = [30, 120, 700][self.draw(3) as usize];
            let after = 1 + self.draw(reach);
            self.disk.cut_after(after);
            self.live()?;
            if self.disk.is_off() {
                self.figures.cuts += 1;
                let seed = self.draw(u64::MAX);
                self.disk = self.disk.survived(seed);
            }
        }
        // Whatever the last cut left, it can be opened and is right.
        let (store, writer) = self.open()?.ok_or("the power went uninvited")?;
        self.check(&store)?;
        drop((store, writer));
        Ok(())
    }

    /// From a start to the next power cut, or to an orderly end.
    fn live(&mut self) -> Result<(), String> {
        let Some((store, mut writer)) = self.open()? else {
            self.figures.cuts_in_recovery += 1;
            return Ok(());
        };
        self.check(&store)?;
        let ends_in_order = self.draw(6) == 0;
        let batches = if ends_in_order { self.draw(12) } else { 400 };
        for _ in 0..batches {
            if !self.batch(&store, &mut writer)? {
                return Ok(());
            }
        }
        writer.finish(&mut vec![Operation::Fold(None)]);
        Ok(())
    }

    fn open(&mut self) -> Result<Option<(Store, Writer)>, String> {
        let disk = Arc::new(self.disk.clone());
        match Store::open_on(disk, options(Path::new("/data")), self.clock.clone()) {
            Ok((store, mut writer)) => {
                writer.segments.roll_at = 20_000;
                Ok(Some((store, writer)))
            }
            Err(_) if self.disk.is_off() => Ok(None),
            Err(error) => Err(format!("it does not open: {error}")),
        }
    }

    /// Is the store where the writer was when the power went, or a commit further?
    fn check(&mut self, store: &Store) -> Result<(), String> {
        let behind = self.acknowledged.is_state_of(store);
        match (behind, self.perhaps.take()) {
            (Ok(()), _) => Ok(()),
            (Err(why), None) => Err(why),
            (Err(why), Some(perhaps)) => {
                perhaps.is_state_of(store).map_err(|other| {
                    format!("neither as acknowledged ({why}) nor with the last batch ({other})")
                })?;
                self.figures.went_through += 1;
                self.acknowledged = perhaps;
                Ok(())
            }
        }
    }

    /// Some operations in one commit; false when the power went.
    fn batch(&mut self, store: &Store, writer: &mut Writer) -> Result<bool, String> {
        let later = self.clock.now().plus_seconds(self.draw(180));
        self.clock.set(later);
        let mut model = self.acknowledged.clone();
        let mut asked = Vec::new();
        for _ in 0..=self.draw(4) {
            asked.extend(self.ask(store, &mut model));
        }
        let last = self.last(store, &mut model);
        asked.extend(last);
        let mut context = Context::from_waker(Waker::noop());
        for (asked, _) in &mut asked {
            if asked.as_mut().poll(&mut context).is_ready() {
                return Err("answered before it was written".into());
            }
        }
        let mut waiting = Vec::new();
        while let Ok(operation) = writer.operations.try_recv() {
            waiting.push(operation);
        }
        let finished = writer.finish(&mut waiting);
        self.figures.batches += 1;
        let mut acknowledged = 0;
        for (mut asked, expected) in asked {
            match asked.as_mut().poll(&mut context) {
                Poll::Ready(Ok(told)) if told == expected => acknowledged += 1,
                Poll::Ready(Err(StoreError::Broken(_))) if !finished => {}
                other => return Err(format!("{other:?} instead of {expected}")),
            }
        }
        self.figures.operations += acknowledged;
        if finished || acknowledged > 0 {
            self.acknowledged = model;
        } else if self.faulty || self.disk.is_off() {
            self.perhaps = Some(model);
        } else {
            return Err(format!("storage failed under power: {:?}", store.broken()));
        }
        Ok(finished)
    }

    /// One operation of the mixed load, and what the model says of it.
    fn ask(&mut self, store: &Store, model: &mut Model) -> Option<(Asked, String)> {
        match self.draw(20) {
            0..=2 => Some(self.enroll(store, model)),
            3 => self.hand_over(store, model),
            4..=7 => self.enqueue(store, model),
            8..=14 => self.report(store, model),
            15..=16 => self.sent(store, model),
            17 => self.cancel(store, model),
            _ => self.cancel_channel(store, model),
        }
    }

    /// What comes last in a batch: the writer's own order.
    fn last(&mut self, store: &Store, model: &mut Model) -> Option<(Asked, String)> {
        let (store, now) = (store.clone(), self.clock.now());
        match self.draw(16) {
            0 => {
                model.expire(now);
                Some((
                    ask(async move { store.expire(now).await.map(|_| ok()) }),
                    ok(),
                ))
            }
            1..=2 => Some((ask(async move { store.fold().await.map(|()| ok()) }), ok())),
            3 => {
                let before = now.minus_seconds(60 * self.draw(60));
                model.retain(before);
                Some((
                    ask(async move { store.retain(before).await.map(|_| ok()) }),
                    ok(),
                ))
            }
            4 => {
                let topic = format!("com.apple.mgmt.{}", self.draw(3));
                let stored = self.bytes(400);
                model.certificates.insert(topic.clone(), stored.clone());
                let put = async move {
                    let put = store.put_push_certificate(&topic, &stored, [9; 32]).await;
                    put.map(|()| ok())
                };
                Some((ask(put), ok()))
            }
            5 => {
                let link = self.link();
                model.links.insert(link.id.0.clone(), link.max_uses);
                let put = async move {
                    let url = String::from("https://mdm.example.org");
                    let urls = PublicUrls {
                        device: url.clone(),
                        checkin: url,
                    };
                    let put = store.put_link(link, urls).await;
                    put.map(|()| ok())
                };
                Some((ask(put), ok()))
            }
            6 => {
                let mut hash = [0; 32];
                hash[..8].copy_from_slice(&self.draw(u64::MAX).to_le_bytes());
                model.tokens.insert(hash);
                let token = token(now);
                let put = async move { store.put_token(hash, token).await.map(|()| ok()) };
                Some((ask(put), ok()))
            }
            _ => None,
        }
    }

    /// Authenticate and, next time, TokenUpdate; again and again.
    fn enroll(&mut self, store: &Store, model: &mut Model) -> (Asked, String) {
        let id = format!("DEVICE-{}", self.draw(8));
        let leaf = leaf_of(&id);
        let claim = claim(leaf);
        let known = model
            .enrollments
            .values()
            .find(|e| e.channel.id.as_str() == id);
        let (change, message) = match known.map(|e| Enrollment::clone(e)) {
            None => {
                let no = store.fresh_channel();
                assert!(
                    !model.enrollments.contains_key(&no.0),
                    "{no:?} is given twice"
                );
                let opened = Enrollment::open(&says(&id, authenticate()), &claim, no);
                (opened.unwrap(), "Authenticate")
            }
            Some(enrollment) => {
                let pending = enrollment.pending.is_some();
                let enrolled = enrollment.channel.state.push().is_some();
                let (says_what, message) = match self.draw(5) {
                    0 if enrolled => (Message::CheckOut, "CheckOut"),
                    _ if pending || enrolled => (token_update(), "TokenUpdate"),
                    _ => (authenticate(), "Authenticate"),
                };
                let said = says(&id, says_what);
                let now = self.clock.now();
                let change =
                    enrollment.apply(&said, &claim, Reenroll::Approve, now, || unreachable!());
                (change.unwrap(), message)
            }
        };
        self.check_in(store, model, change, message, leaf)
    }

    /// A device hands over a bootstrap token, or takes it back.
    fn hand_over(&mut self, store: &Store, model: &mut Model) -> Option<(Asked, String)> {
        let enrollment = self.somebody(model)?;
        let token = (self.draw(4) > 0).then(|| self.bytes(600));
        let id = enrollment.channel.id.as_str().to_owned();
        let leaf = leaf_of(&id);
        let said = says(&id, Message::SetBootstrapToken { token });
        let now = self.clock.now();
        let change = enrollment.apply(
            &said,
            &claim(leaf),
            Reenroll::Approve,
            now,
            || unreachable!(),
        );
        Some(self.check_in(store, model, change.ok()?, "SetBootstrapToken", leaf))
    }

    fn check_in(
        &mut self,
        store: &Store,
        model: &mut Model,
        change: Change,
        message: &'static str,
        leaf: Leaf,
    ) -> (Asked, String) {
        let body = self.body();
        let after = model.check_in(&change, message, &body, self.clock.now());
        let channel = change.enrollment.channel.no;
        let seal = |kind: SecretKind, plain: &Vec<u8>| store.seal_secret(channel, kind, plain);
        let secrets = change.secrets.iter();
        let secrets = secrets.map(|(kind, secret)| {
            let sealed = secret.as_ref().map(|plain| seal(*kind, plain).unwrap());
            (*kind, sealed)
        });
        let checked_in = CheckedIn {
            secrets: secrets.collect(),
            channel,
            message,
            body: store.seal_body(channel, &Packed::of(&body)).unwrap(),
            body_hash: None,
            identity: Identity {
                leaf,
                not_after: 0,
                serial: "1".into(),
            },
            change,
        };
        let store = store.clone();
        let asked = async move { store.check_in(checked_in).await.map(|e| format!("{e:?}")) };
        (ask(asked), format!("{after:?}"))
    }

    fn enqueue(&mut self, store: &Store, model: &mut Model) -> Option<(Asked, String)> {
        let everybody: Vec<_> = model.enrollments.keys().copied().collect();
        let to_all = self.draw(24) == 0;
        let targets: Vec<_> = if to_all {
            everybody
        } else {
            let few = self.draw(3);
            (0..=few)
                .filter_map(|_| self.somebody(model))
                .map(|e| e.channel.no.0)
                .collect()
        };
        if targets.is_empty() {
            return None;
        }
        let uuid = format!("uuid-{:016x}", self.draw(u64::MAX));
        let plist = self.body();
        let now = self.clock.now();
        let expires = now.plus_seconds(60 * (1 + self.draw(200)));
        let (seq, accepted) = model.enqueue(&uuid, &plist, &targets, expires, now);
        let command = NewCommand {
            uuid: CommandUuid::parse(&uuid).unwrap(),
            request_type: "ProfileList".into(),
            sealed: store.seal_command(&uuid, &plist).unwrap(),
            rank: 128,
            destructive: false,
            expires,
            targets: targets.into_iter().collect(),
            wake: true,
            principal: "test".into(),
            reason: String::new(),
            idempotency: None,
            forced: false,
        };
        let store = store.clone();
        let asked = async move {
            let queued = store.enqueue(command).await?;
            Ok(format!("{:?} {}", queued.seq, queued.accepted))
        };
        Some((ask(asked), format!("{seq:?} {accepted}")))
    }

    fn report(&mut self, store: &Store, model: &mut Model) -> Option<(Asked, String)> {
        let (channel, seq) = self.some_row(model)?;
        let status = [
            Status::Acknowledged,
            Status::Acknowledged,
            Status::NotNow,
            Status::Error,
        ];
        let status = self.pick(&status)?;
        let body = (status != Status::NotNow).then(|| self.body());
        let expected = model.report(channel, seq, status, body.as_deref(), self.clock.now());
        let no = ChannelNo(channel);
        let seal = |body: Vec<u8>| store.seal_body(no, &Packed::of(&body)).unwrap();
        let reported = Reported {
            channel: no,
            epoch: Seq(model.epoch(channel)),
            uuid: CommandUuid::parse(&model.commands[&seq].uuid).unwrap(),
            seq: None,
            status,
            errors: Vec::new(),
            body: body.map(seal),
        };
        let store = store.clone();
        let asked = async move {
            let ticket = store.report(reported)?;
            let effect = store.redeem(ticket).await?;
            let told = match effect {
                Effect::Counted { late: true, .. } => "late",
                Effect::Counted { .. } => "counted",
                Effect::Repeated => "repeated",
                Effect::Stray => "stray",
            };
            Ok(told.to_owned())
        };
        Some((ask(asked), expected.to_owned()))
    }

    fn sent(&mut self, store: &Store, model: &mut Model) -> Option<(Asked, String)> {
        let (channel, seq) = self.some_row(model)?;
        model.sent(channel, seq, self.clock.now());
        let store = store.clone();
        // Nobody waits for it; what does is a question that changes nothing.
        let asked = async move {
            store.sent(ChannelNo(channel), Seq(seq));
            let nobody = Cancel::Channel(ChannelNo(u32::MAX));
            store.cancel(nobody).await.map(|_| ok())
        };
        Some((ask(asked), ok()))
    }

    fn cancel(&mut self, store: &Store, model: &mut Model) -> Option<(Asked, String)> {
        let (_, seq) = self.some_row(model)?;
        let open = model.cancel(seq, self.clock.now());
        let store = store.clone();
        let asked = async move { taken_back(store.cancel(Cancel::Command(Seq(seq))).await?) };
        Some((ask(asked), open.to_string()))
    }

    fn cancel_channel(&mut self, store: &Store, model: &mut Model) -> Option<(Asked, String)> {
        let channel = self.somebody(model)?.channel.no;
        let open = model.close_all(channel.0, self.clock.now());
        let store = store.clone();
        let asked = async move { taken_back(store.cancel(Cancel::Channel(channel)).await?) };
        Some((ask(asked), open.to_string()))
    }

    /// One of the devices that come and go.
    fn somebody(&mut self, model: &Model) -> Option<Enrollment> {
        let few = model.enrollments.values();
        let few = few.filter(|e| e.channel.id.as_str().starts_with("DEVICE-"));
        let few: Vec<_> = few.collect();
        self.pick(&few).map(|e| Enrollment::clone(e))
    }

    /// A command on a channel it is addressed to.
    fn some_row(&mut self, model: &Model) -> Option<(u32, u64)> {
        let channel = self.somebody(model)?.channel.no.0;
        let here = model.commands.iter();
        let here = here.filter(|(_, command)| command.states.contains_key(&channel));
        let here: Vec<_> = here.map(|(seq, _)| *seq).collect();
        Some((channel, self.pick(&here)?))
    }

    /// Small and large, some of which cannot be compressed below what goes to a segment.
    fn body(&mut self) -> Vec<u8> {
        let most = [20, 600, 3000, 9000][self.draw(4) as usize];
        self.bytes(most)
    }

    fn bytes(&mut self, most: u64) -> Vec<u8> {
        let seed = self.draw(u64::MAX);
        let length = 1 + self.draw(most);
        (0..length).map(|n| mix(seed, n) as u8).collect()
    }

    fn link(&mut self) -> Link {
        Link {
            id: LinkId(format!("{:016x}", self.draw(u64::MAX))),
            secret: [1; 32],
            request: [0; 32],
            created: self.clock.now(),
            expires: self.clock.now().plus_seconds(3600),
            max_uses: 1 + self.draw(100) as u32,
            uses: 0,
            tags: Vec::new(),
            device: None,
            identity: IdentityKind::Scep,
            ota: false,
            topic: Topic("com.apple.mgmt.x".into()),
            shared: false,
            managed_apple_id: None,
            offers: EnrolledWith {
                server_url: "https://mdm.example.org/mdm/connect".into(),
                check_in_url: "https://mdm.example.org/mdm/checkin".into(),
                profile_identifier: "p".into(),
                rights: Some(AccessRights::ALL),
                capabilities: Vec::new(),
                signer: None,
            },
            revoked: false,
            principal: "anne".into(),
        }
    }
}

fn taken_back(outcome: CancelOutcome) -> Told {
    Ok((outcome.cancelled + outcome.already_sent).to_string())
}

fn ask(asked: impl Future<Output = Told> + 'static) -> Asked {
    Box::pin(asked)
}

fn ok() -> String {
    "done".to_owned()
}

fn claim(leaf: Leaf) -> Claim {
    Claim {
        leaf,
        ours: false,
        issued_for: None,
        only_for: None,
        proof: false,
        bound_elsewhere: false,
    }
}

fn token(now: UnixMillis) -> TokenRecord {
    TokenRecord {
        id: "t".into(),
        principal: "anne".into(),
        scopes: Vec::new(),
        created: now,
        expires: None,
        revoked: false,
    }
}

/// A store with a crowd in it, so that a command can be for many; made once.
fn base() -> (SimDisk, Model) {
    static BASE: OnceLock<(SimDisk, Model)> = OnceLock::new();
    let (disk, model) = BASE.get_or_init(make_base);
    (disk.copy(), model.clone())
}

fn make_base() -> (SimDisk, Model) {
    let disk = SimDisk::default();
    let mut campaign = Campaign {
        disk: disk.clone(),
        clock: Clock::manual(NOW),
        acknowledged: Model::default(),
        perhaps: None,
        seed: 1,
        drawn: 0,
        faulty: false,
        figures: Figures::default(),
    };
    let (store, mut writer) = campaign.open().unwrap().unwrap();
    let mut model = Model::default();
    for message in ["Authenticate", "TokenUpdate"] {
        let mut asked: Vec<_> = (0..CROWD)
            .map(|number| {
                let id = format!("CROWD-{number}");
                let claim = claim(leaf_of(&id));
                let known = model
                    .enrollments
                    .values()
                    .find(|e| e.channel.id.as_str() == id);
                let change = match known.map(|e| Enrollment::clone(e)) {
                    None => {
                        let no = store.fresh_channel();
                        Enrollment::open(&says(&id, authenticate()), &claim, no)
                    }
                    Some(enrollment) => {
                        let said = says(&id, token_update());
                        enrollment.apply(&said, &claim, Reenroll::Approve, NOW, || unreachable!())
                    }
                };
                campaign.check_in(&store, &mut model, change.unwrap(), message, claim.leaf)
            })
            .collect();
        settle(&mut writer, &mut asked);
    }
    // The crowd's check-ins are long gone.
    let (retained, before) = (store.clone(), NOW.plus_seconds(3600));
    for _ in 0..2 {
        model.retain(before);
        let retained = retained.clone();
        let asked = async move { retained.retain(before).await.map(|_| ok()) };
        settle(&mut writer, &mut [(ask(asked), ok())]);
    }
    model.secrets.clear();
    model.is_state_of(&store).unwrap();
    drop((store, retained, writer));
    (disk, model)
}

fn settle(writer: &mut Writer, asked: &mut [(Asked, String)]) {
    let mut context = Context::from_waker(Waker::noop());
    for (asked, _) in asked.iter_mut() {
        assert!(asked.as_mut().poll(&mut context).is_pending());
    }
    let mut waiting = Vec::new();
    while let Ok(operation) = writer.operations.try_recv() {
        waiting.push(operation);
    }
    assert!(writer.finish(&mut waiting));
    for (asked, expected) in asked.iter_mut() {
        let Poll::Ready(told) = asked.as_mut().poll(&mut context) else {
            panic!("no answer");
        };
        assert_eq!(told.unwrap(), *expected);
    }
}

/// Runs seeds until so many cuts are done, on all cores; the first seed that fails and why.
fn cuts(most: u64, lie: Option<Lie>, only: Option<u64>) -> Result<Figures, (u64, Figures, String)> {
    let base = base();
    base.0.lies(lie);
    let next = AtomicU64::new(only.unwrap_or(1));
    let done = AtomicU64::new(0);
    let outcome = std::sync::Mutex::new(Ok(Figures::default()));
    let workers = if only.is_some() { 1 } else { WORKERS };
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while done.load(Ordering::Acquire) < most && outcome.lock().unwrap().is_ok() {
                    let seed = next.fetch_add(1, Ordering::AcqRel);
                    let mut campaign = Campaign::new(seed, &base);
                    campaign.disk.lies(lie);
                    let ran = catch_unwind(AssertUnwindSafe(|| campaign.run(CUTS_EACH)));
                    let ran = ran.unwrap_or_else(|_| Err("a panic".to_owned()));
                    let figures = campaign.figures;
                    done.fetch_add(figures.cuts, Ordering::AcqRel);
                    let mut outcome = outcome.lock().unwrap();
                    match (ran, &mut *outcome) {
                        (Ok(()), Ok(sum)) => sum.add(figures),
                        (Err(why), Ok(sum)) => {
                            sum.add(figures);
                            let sum = *sum;
                            *outcome = Err((seed, sum, why));
                        }
                        (_, Err(_)) => {}
                    }
                    if only.is_some() {
                        return;
                    }
                }
            });
        }
    });
    outcome.into_inner().unwrap()
}

impl Figures {
    fn add(&mut self, other: Self) {
        self.cuts += other.cuts;
        self.cuts_in_recovery += other.cuts_in_recovery;
        self.batches += other.batches;
        self.operations += other.operations;
        self.went_through += other.went_through;
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn power_cuts_lose_nothing_acknowledged_and_leave_nothing_else() {
    let began = Instant::now();
    let most = number("REVEILLE_POWER_CUTS").unwrap_or(SHORT);
    match cuts(most, None, number("REVEILLE_POWER_SEED")) {
        Ok(figures) => println!(
            "{} power cuts ({} of them while it was opened), {} commits, {} operations \
             acknowledged, none lost; {} commits were whole though nobody was told; {:.1} s",
            figures.cuts,
            figures.cuts_in_recovery,
            figures.batches,
            figures.operations,
            figures.went_through,
            began.elapsed().as_secs_f64()
        ),
        Err((seed, figures, why)) => panic!(
            "after {} cuts: {why}\nrun it again: REVEILLE_POWER_SEED={seed}",
            figures.cuts
        ),
    }
}

#[test]
fn power_cuts_at_every_operation_of_a_first_start_leave_no_half_of_a_store() {
    let mut opened = 0;
    for after in 1.. {
        for seed in 0..8 {
            let mut campaign = Campaign::new(0, &(SimDisk::default(), Model::default()));
            campaign.disk.cut_after(after);
            opened += usize::from(campaign.open().unwrap().is_some());
            campaign.disk = campaign.disk.survived(mix(after, seed));
            if let Err(why) = campaign.goes_on() {
                panic!("cut at operation {after}, survivors of seed {seed}: {why}");
            }
        }
        if opened > 0 {
            println!("a first start has {after} operations; each was the last one 8 times");
            return;
        }
    }
}

#[test]
fn power_cuts_are_noticed_where_a_disk_does_not_keep_what_it_was_told_to() {
    for lie in [Lie::Appended, Lie::Names, Lie::Database] {
        let (seed, figures, why) = cuts(SHORT, Some(lie), None).expect_err("nobody noticed");
        println!(
            "{lie:?}: noticed after {} cuts (seed {seed}): {why}",
            figures.cuts
        );
    }
}

#[test]
fn power_cuts_of_one_seed_are_always_the_same() {
    let base = base();
    let traces = [7, 7].map(|seed| {
        let mut campaign = Campaign::new(seed, &base);
        campaign.run(3).unwrap();
        (campaign.disk.trace(), campaign.drawn)
    });
    assert_eq!(traces[0], traces[1]);
}

const SHORT: u64 = 150;
const CUTS_EACH: u64 = 5;
const CROWD: u32 = 1010;
const WORKERS: usize = 2;
