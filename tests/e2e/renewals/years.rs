//! Devices over two years, with the moods of devices: nobody is stranded. A hundred of
//! them, or as many as `REVEILLE_RENEWALS=1000 cargo test --test e2e renewals::years` says.
//!
//! The store, the actors, the renewer and the SCEP server are the real ones; only HTTP and
//! TLS are left out.

use actors::device::{CheckedIn, Presented, Reported, Turn};
use actors::registry::Opens;
use actors::store::{Identity, NewChallenge, NewCommand};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use openssl::ec::{EcGroup, EcKey};
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::x509::X509;
use plist::{Dictionary, Value};
use reveille::app::App;
use reveille::enroll::renewed;
use schema::checkin::{CheckIn, Facts, Message, Push, Sender, UserNames};
use schema::report::{Report, Status};
use schema::{
    ChannelKind, ChannelNo, CommandUuid, EnrollId, Leaf, PushMagic, PushToken, Seq, Topic,
};
use serde_json::json;
use sim::{Dice, ScepClient, ScepCsr, ScepReply, ScepRequest};

use super::{renewer, walk};
use crate::house::{House, TOPIC};
use crate::scep::rsa;

const DAYS: u64 = 730;

/// A device: what it is, and what it holds.
struct Simulated {
    sender: Sender,
    identity: Identity,
    dice: Dice,
    /// Days it lies in a drawer.
    drawer: std::ops::Range<u64>,
    /// It answers NotNow to what an admin ordered, for ever.
    puts_off: bool,
    channel: ChannelNo,
    epoch: Seq,
    renewals: u32,
}

impl Simulated {
    fn presented(&self) -> Presented {
        Presented {
            identity: self.identity.clone(),
            ours: true,
            replayable: false,
            handed_over: false,
        }
    }

    /// A first identity or the next one, from the SCEP server.
    async fn asks(&mut self, desk: &Desk<'_>, challenge: &str) {
        let csr = ScepCsr {
            challenge: Some(challenge.to_owned()),
            ..ScepCsr::default()
        };
        // A key each: what is issued tells one device from another.
        let key = EcKey::generate(&desk.curve).unwrap();
        let csr = csr.sign(&PKey::from_ec_key(key).unwrap()).unwrap();
        let request = ScepRequest::new("19", csr, desk.signer.clone()).unwrap();
        let message = request.encode(&desk.ra).unwrap();
        let reply = desk.app.scep.answer(message.into()).await.unwrap();
        let ScepReply::Issued(der) = request.open(&reply, &desk.ra).unwrap() else {
            panic!("{} gets no identity", self.sender.device);
        };
        let read = schema::x509::Certificate::parse(&der).unwrap();
        self.identity = Identity {
            leaf: Leaf(openssl::sha::sha256(&der)),
            not_after: read.not_after,
            serial: read.serial_hex(),
        };
    }

    async fn checks_in(&self, app: &App) {
        let push = Push {
            topic: Topic(TOPIC.into()),
            token: PushToken(vec![1]),
            magic: PushMagic("m".into()),
        };
        let authenticate = Message::Authenticate {
            topic: push.topic.clone(),
            facts: Facts::default(),
        };
        let update = Message::TokenUpdate {
            push,
            unlock_token: None,
            awaiting_configuration: false,
            user: UserNames::default(),
        };
        for message in [authenticate, update] {
            let sender = self.sender.clone();
            let said = CheckedIn {
                checkin: CheckIn { sender, message },
                presented: self.presented(),
                raw: Bytes::from_static(b"x"),
            };
            let answer = app.registry.ask(&self.sender.device, Opens::Yes, said);
            answer.await.unwrap();
        }
    }

    async fn says(&self, app: &App, status: Status, uuid: Option<CommandUuid>) -> Turn {
        let said = Reported {
            report: Report {
                sender: self.sender.clone(),
                status,
                uuid,
            },
            presented: self.presented(),
            raw: Bytes::from_static(b"<plist version=\"1.0\"><dict/></plist>"),
            packed: None,
            held: None,
        };
        let device = &self.sender.device;
        let mut turn = app.registry.ask(device, Opens::No, said).await.unwrap();
        if let Some(durable) = turn.durable.take() {
            durable.await.unwrap();
        }
        turn
    }

    /// One session, as the device is in the mood for.
    async fn polls(&mut self, desk: &Desk<'_>) {
        let app = desk.app;
        let mut turn = self.says(app, Status::Idle, None).await;
        while let Some(command) = turn.command {
            let uuid = command.uuid.clone();
            let status = if !command.renews || self.dice.chance(0.2) {
                Status::NotNow
            } else if self.dice.chance(0.1) {
                Status::Error
            } else {
                let command = renewed(app, &self.sender.device, command).await;
                let command = command.unwrap().unwrap();
                self.asks(desk, &challenge(&command.plist)).await;
                self.checks_in(app).await;
                self.renewals += 1;
                Status::Acknowledged
            };
            turn = self.says(app, status, Some(uuid)).await;
        }
    }
}

/// What all devices meet.
struct Desk<'h> {
    app: &'h App,
    ra: X509,
    curve: EcGroup,
    /// The throw-away certificate that signs requests.
    signer: sim::Identity,
}

/// The challenge in the profile of a command.
fn challenge(command: &[u8]) -> String {
    let command = schema::xml::parse(command).unwrap();
    let signed = command["Command"].as_dictionary().unwrap()["Payload"].as_data();
    let profile = sim::signed_content(signed.unwrap()).unwrap();
    let profile = schema::xml::parse(&profile).unwrap();
    let payloads = profile["PayloadContent"].as_array().unwrap().iter();
    let scep = payloads
        .filter_map(Value::as_dictionary)
        .find_map(|payload| payload["PayloadContent"].as_dictionary());
    let text = |scep: &Dictionary| scep["Challenge"].as_string().map(str::to_owned);
    scep.and_then(text).unwrap()
}

async fn enrolled(desk: &Desk<'_>, link: &str, n: usize) -> Simulated {
    let id = EnrollId::device(&format!("DEVICE-{n}")).unwrap();
    let now = desk.app.clock.now();
    let mut device = Simulated {
        sender: Sender {
            device: id.clone(),
            channel: id.clone(),
            kind: ChannelKind::Device,
        },
        identity: Identity {
            leaf: Leaf([0; 32]),
            not_after: 0,
            serial: String::new(),
        },
        dice: Dice::named(5, id.as_str()),
        drawer: if n % 10 == 3 { 120..420 } else { 0..0 },
        puts_off: n % 50 == 7,
        channel: ChannelNo(0),
        epoch: Seq(0),
        renewals: 0,
    };
    let minted = desk.app.store.mint_challenge(NewChallenge {
        link: link.to_owned(),
        shared: false,
        enrollment: None,
        expires: now.plus_seconds(3600),
    });
    let minted = minted.await.unwrap();
    device.asks(desk, &minted).await;
    device.checks_in(desk.app).await;
    let (enrollment, channel) = desk.app.store.channel(&id).unwrap().unwrap();
    assert!(enrollment.enrolled_with.is_some());
    (device.channel, device.epoch) = (channel.no, enrollment.epoch);
    if device.puts_off {
        let uuid = format!("put-off-{n}");
        let command = NewCommand {
            sealed: desk.app.store.seal_command(&uuid, b"<plist/>").unwrap(),
            uuid: CommandUuid::parse(&uuid).unwrap(),
            request_type: "ProfileList".into(),
            rank: 128,
            destructive: false,
            expires: now.plus_seconds(2 * DAYS * 86_400),
            targets: std::iter::once(channel.no.0).collect(),
            wake: false,
            principal: "admin".into(),
            reason: String::new(),
            idempotency: None,
            forced: false,
        };
        desk.app.store.enqueue(command).await.unwrap();
    }
    device
}

#[actix_web::test]
async fn of_many_devices_over_two_years_none_is_stranded() {
    let wanted = std::env::var("REVEILLE_RENEWALS");
    let count: usize = wanted.map_or(100, |count| count.parse().unwrap());
    let house = House::start().await;
    let terms = json!({"max_uses": count});
    let (_, made) = house.post("/api/v1/enrollment-links", &terms).await;
    let link = made["id"].as_str().unwrap();
    let scep = format!("{}/scep", house.device_url());
    let scep = ScepClient::new(&scep, reqwest::Client::new());
    let mut desk = Desk {
        app: &house.running.app,
        ra: scep.authority().await.unwrap().ra,
        curve: EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap(),
        signer: sim::scep_signer(&rsa(1024)).unwrap(),
    };
    let (all, store) = (stream::iter(0..count), &desk.app.store);
    let arriving = all.map(|n| enrolled(&desk, link, n)).buffer_unordered(64);
    let mut devices: Vec<_> = arriving.collect().await;
    let mut renewer = renewer(&house);
    let begin = house.clock.now();

    let mut over = 0;
    for day in (1..=DAYS).step_by(7) {
        let now = begin.plus_seconds(day * 86_400);
        house.clock.set(now);
        while store.expire(now).await.unwrap() > 0 {}
        walk(&mut renewer).await;
        desk.ra = scep.authority().await.unwrap().ra;
        let there = |device: &&mut Simulated| {
            !device.drawer.contains(&day) && store.may_have_work(device.channel)
        };
        let polling = stream::iter(devices.iter_mut().filter(there))
            .for_each_concurrent(64, |device| device.polls(&desk));
        polling.await;
        over += devices
            .iter()
            .filter(|device| schema::renewal::is_over(device.identity.not_after, now))
            .filter(|device| !device.drawer.contains(&day) && day > device.drawer.end + 60)
            .count();
    }

    assert_eq!(over, 0, "who was there had a living identity");
    let now = house.clock.now();
    for device in &devices {
        let id = &device.sender.device;
        let (enrollment, _) = store.channel(id).unwrap().unwrap();
        assert_eq!(enrollment.bound, Some(device.identity.leaf), "{id}");
        assert!(!schema::renewal::is_over(device.identity.not_after, now));
        assert_eq!(enrollment.epoch, device.epoch, "{id}: it never began anew");
        assert!(enrollment.enrolled_with.is_some(), "{id}");
        assert!(
            (2..=6).contains(&device.renewals),
            "{id}: {}",
            device.renewals
        );
        if device.puts_off {
            let waiting = store.pending(device.channel, enrollment.epoch).unwrap();
            assert!(waiting.iter().any(|row| row.rank == 128), "{id}: its queue");
        }
    }
}
