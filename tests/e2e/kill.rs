//! kill -9 of the real binary under load, again and again: every command acknowledged
//! to the API and every result acknowledged to a device is there afterwards, each
//! effect once, in order, and none of an enrollment that is over.
//!
//! `REVEILLE_KILLS=100 cargo test --release --test e2e kill` is the long campaign.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sim::{Channel, Client, Device, DeviceCa, Proof, Target};

use crate::house::{TOPIC, answer, id_of};

/// The server as a process of its own.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) devices: String,
    pub(crate) admin: String,
    answered_in: Duration,
}

impl Server {
    pub(crate) fn start(directory: &Path) -> Self {
        let began = Instant::now();
        let mut child = Command::new(env!("CARGO_BIN_EXE_reveille"))
            .args(["--config", "config.toml", "serve"])
            .current_dir(directory)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut url = |name: &str| loop {
            let line = lines
                .next()
                .expect("the server ended before it listened")
                .unwrap();
            if line.starts_with(name) {
                return line.split_whitespace().nth(1).unwrap().to_owned();
            }
        };
        let (devices, admin) = (url("devices"), url("admin"));
        // Nobody reads on; a full pipe must not stop it.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            child,
            devices,
            admin,
            answered_in: began.elapsed(),
        }
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// What was acknowledged to somebody, and what the server must therefore know.
#[derive(Default)]
pub(crate) struct Promises {
    pub(crate) queued: BTreeMap<String, Order>,
    pub(crate) reported: BTreeSet<(String, String)>,
    /// Commands in the order a device first got them.
    got: BTreeMap<String, Vec<(String, Instant)>>,
    enrolled_again: BTreeMap<String, Vec<Asked>>,
    checked: BTreeSet<String>,
    pub(crate) broken: Vec<String>,
}

/// When something was asked for, and when it was acknowledged, if it was.
#[derive(Clone, Copy)]
struct Asked {
    sent: Instant,
    acknowledged: Option<Instant>,
}

/// A command that was acknowledged to the API.
#[derive(Clone)]
pub(crate) struct Order {
    pub(crate) device: String,
    sent: Instant,
    acknowledged: Instant,
}

impl Promises {
    fn got(&mut self, device: &str, uuid: &str) {
        let got = self.got.entry(device.to_owned()).or_default();
        if got.iter().all(|(before, _)| before != uuid) {
            got.push((uuid.to_owned(), Instant::now()));
        }
    }

    fn enrolled_again(&self, device: &str) -> &[Asked] {
        self.enrolled_again.get(device).map_or(&[], Vec::as_slice)
    }

    /// May this command have been closed by an enrollment that came after it?
    fn may_be_cancelled(&self, order: &Order) -> bool {
        let again = self.enrolled_again(&order.device).iter();
        let end = |asked: &Asked| asked.acknowledged.unwrap_or_else(Instant::now);
        again.map(end).any(|end| end > order.sent)
    }

    /// Of two commands that both waited, the older one went first; what waited when an
    /// enrollment was over did not go at all.
    fn in_order(&self) {
        for (device, got) in &self.got {
            let known = |(uuid, at): &(String, Instant)| {
                let order = self.queued.get(uuid)?.clone();
                Some((uuid.clone(), order, *at))
            };
            let got: Vec<_> = got.iter().filter_map(known).collect();
            for (n, (uuid, order, at)) in got.iter().enumerate() {
                for (later, behind, _) in &got[n + 1..] {
                    assert!(
                        behind.acknowledged > order.sent,
                        "{device} got {uuid} before {later}, which was queued first"
                    );
                }
                for asked in self.enrolled_again(device) {
                    let over = asked.acknowledged.is_some_and(|over| over < *at);
                    assert!(
                        !over || order.acknowledged > asked.sent,
                        "{device} got {uuid} of an enrollment that was over"
                    );
                }
            }
        }
    }
}

#[actix_web::test]
async fn nothing_acknowledged_is_lost_and_nothing_happens_twice() {
    let rounds: usize = std::env::var("REVEILLE_KILLS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(5);
    let directory = tempfile::tempdir().unwrap();
    let ca = DeviceCa::quick().unwrap();
    configure(directory.path(), &ca);
    let devices: Vec<_> = (0..DEVICES)
        .map(|_| Arc::new(Device::new(&ca, TOPIC).unwrap()))
        .collect();
    let promises = Arc::new(Mutex::new(Promises::default()));

    let mut server = Server::start(directory.path());
    let token = std::fs::read_to_string(directory.path().join("data/admin.token")).unwrap();
    for device in &devices {
        sim::enroll(device, &mut line(&server)).await.unwrap();
    }
    let mut slowest = Duration::ZERO;
    for round in 0..rounds {
        let mut load = Vec::new();
        for (n, device) in devices.iter().enumerate() {
            let polls = poll(
                device.clone(),
                line(&server),
                (n + round).is_multiple_of(5),
                promises.clone(),
            );
            load.push(actix_web::rt::spawn(polls));
        }
        for n in 0..4 {
            let ids = devices.iter().map(|device| id_of(device)).collect();
            load.push(actix_web::rt::spawn(order(
                server.admin.clone(),
                token.clone(),
                ids,
                round * 4 + n,
                promises.clone(),
            )));
        }
        let before = promises.lock().unwrap().queued.len();
        let deadline = Instant::now() + Duration::from_secs(30);
        while promises.lock().unwrap().queued.len() < before + LOAD_AT_LEAST {
            assert!(Instant::now() < deadline, "no load came about");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Not always at the same moment of a commit.
        tokio::time::sleep(Duration::from_millis((round as u64 * 37) % 100)).await;
        server.kill();
        for task in load {
            task.await.unwrap();
        }
        server = Server::start(directory.path());
        slowest = slowest.max(server.answered_in);
        assert!(slowest < FIRST_ANSWER, "a start took {slowest:?}");
        check(&server, &token, &promises).await;
    }
    drain(&server, &devices, &promises).await;
    finish(&server, &token, &promises).await;
    let promises = promises.lock().unwrap();
    promises.in_order();
    let again = promises.enrolled_again.values().flatten().count();
    assert!(again > 0, "no device enrolled again");
    println!(
        "{rounds} kills: {} commands, {} results and {again} enrollments acknowledged, none lost, all in order; slowest start to first answer {:.0} ms",
        promises.queued.len(),
        promises.reported.len(),
        slowest.as_secs_f64() * 1000.0
    );
    server.kill();
}

/// What a server in this directory needs, its device CA that of the simulated devices.
pub(crate) fn configure(directory: &Path, ca: &DeviceCa) {
    std::fs::write(directory.join("ca.pem"), ca.pem()).unwrap();
    std::fs::write(
        directory.join("config.toml"),
        "[device]\nlisten = \"127.0.0.1:0\"\ntls = \"off\"\nextra_ca_files = [\"ca.pem\"]\n\
         trusted_proxies = [\"127.0.0.1/32\"]\nclient_cert_header = \"Client-Cert\"\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n[store]\nreserve_mb = 0\n[log]\nlevel = \"warn\"\n",
    )
    .unwrap();
}

pub(crate) fn line(server: &Server) -> Client {
    Client::new(Arc::new(
        Target::new(&server.devices, Proof::Header).unwrap(),
    ))
}

/// A device that polls and reports until its line breaks; after a few polls it may enroll
/// again.
pub(crate) async fn poll(
    device: Arc<Device>,
    mut client: Client,
    again: bool,
    promises: Arc<Mutex<Promises>>,
) {
    let id = id_of(&device);
    let mut polls = 0;
    let mut body = device.idle(Channel::Device);
    let mut reporting = None;
    while let Ok(reply) = client.report(&device.identity, body).await {
        if reply.status != 200 {
            let status = reply.status.as_u16();
            if status != 503 {
                promises
                    .lock()
                    .unwrap()
                    .broken
                    .push(format!("{id} was answered {status}"));
            }
            return;
        }
        if let Some(uuid) = reporting.take() {
            promises.lock().unwrap().reported.insert((id.clone(), uuid));
        }
        polls += 1;
        if again && polls == 3 && !enroll_again(&device, &mut client, &promises).await {
            return;
        }
        body = match sim::Command::parse(&reply.body).unwrap() {
            None => device.idle(Channel::Device),
            // It has forgotten what it was told before it enrolled again.
            Some(_) if again && polls == 3 => device.idle(Channel::Device),
            Some(command) => {
                promises.lock().unwrap().got(&id, &command.uuid);
                let answer = sim::answer(&device, &command, 1000);
                let report = device.report(Channel::Device, &command.uuid, &answer, 1000);
                reporting = Some(command.uuid);
                report
            }
        };
    }
}

/// Enrolls again under the same identity; false when the line breaks meanwhile.
async fn enroll_again(device: &Device, client: &mut Client, promises: &Mutex<Promises>) -> bool {
    let ok = |reply: Result<sim::Reply, sim::SimError>| reply.is_ok_and(|ok| ok.status == 200);
    let identity = &device.identity;
    if !ok(client.check_in(identity, device.authenticate()).await) {
        return false;
    }
    let sent = Instant::now();
    let done = ok(client.check_in(identity, device.token_update()).await);
    let asked = Asked {
        sent,
        acknowledged: done.then(Instant::now),
    };
    let mut promises = promises.lock().unwrap();
    promises
        .enrolled_again
        .entry(id_of(device))
        .or_default()
        .push(asked);
    done
}

/// An admin who queues commands until the line breaks.
pub(crate) async fn order(
    admin: String,
    token: String,
    ids: Vec<String>,
    salt: usize,
    promises: Arc<Mutex<Promises>>,
) {
    let client = reqwest::Client::new();
    for n in salt.. {
        let id = &ids[n % ids.len()];
        let order = json!({"targets": {"ids": [id]}, "command": {"request_type": "ProfileList"}, "wake": false});
        let request = client
            .post(format!("{admin}/api/v1/commands"))
            .bearer_auth(&token)
            .json(&order);
        let sent = Instant::now();
        let Ok(response) = request.send().await else {
            return;
        };
        let status = response.status();
        let Ok(queued) = response.json::<Value>().await else {
            return;
        };
        if status == 202 {
            let uuid = queued["command_uuid"].as_str().unwrap().to_owned();
            let order = Order {
                device: id.clone(),
                sent,
                acknowledged: Instant::now(),
            };
            promises.lock().unwrap().queued.insert(uuid, order);
        }
    }
}

/// What was promised since the last kill is there after this one; all of it is looked at
/// again in the end.
async fn check(server: &Server, token: &str, promises: &Mutex<Promises>) {
    let (queued, reported) = {
        let promises = promises.lock().unwrap();
        assert_eq!(promises.broken, [""; 0]);
        let fresh = promises
            .queued
            .iter()
            .filter(|(uuid, _)| !promises.checked.contains(*uuid));
        (
            fresh
                .map(|(uuid, order)| (uuid.clone(), order.device.clone()))
                .collect::<Vec<_>>(),
            promises.reported.clone(),
        )
    };
    for (uuid, id) in &queued {
        let counts = counts(server, token, uuid).await;
        let states: Vec<_> = counts.iter().filter(|(_, n)| **n != 0).collect();
        assert_eq!(states.len(), 1, "{uuid}: {counts:?}");
        if reported.contains(&(id.clone(), uuid.clone())) {
            assert_eq!(counts["acknowledged"], 1, "a lost result: {uuid} of {id}");
        }
    }
    promises
        .lock()
        .unwrap()
        .checked
        .extend(queued.into_iter().map(|(uuid, _)| uuid));
}

/// Every device polls until nothing is left.
async fn drain(server: &Server, devices: &[Arc<Device>], promises: &Arc<Mutex<Promises>>) {
    for device in devices {
        let mut client = line(server);
        let mut mood = sim::Behaviour::default().mood(device);
        let session = sim::poll_session(device, Channel::Device, &mut client, &mut mood).await;
        let session = session.completed().unwrap();
        let id = id_of(device);
        let mut promises = promises.lock().unwrap();
        for step in session.steps {
            let again = promises.reported.contains(&(id.clone(), step.uuid.clone()));
            assert!(
                !again,
                "{} was handed out again after its result was acknowledged",
                step.uuid
            );
            promises.got(&id, &step.uuid);
            promises.reported.insert((id.clone(), step.uuid));
        }
    }
}

async fn finish(server: &Server, token: &str, promises: &Mutex<Promises>) {
    let queued = promises.lock().unwrap().queued.clone();
    for (uuid, order) in queued {
        let counts = counts(server, token, &uuid).await;
        let ended = if promises.lock().unwrap().may_be_cancelled(&order) {
            counts["acknowledged"] + counts["cancelled"]
        } else {
            counts["acknowledged"]
        };
        assert_eq!(
            (ended, counts.values().sum::<u64>()),
            (1, 1),
            "{uuid}: {counts:?}"
        );
    }
}

pub(crate) async fn counts(server: &Server, token: &str, uuid: &str) -> BTreeMap<String, u64> {
    let client = reqwest::Client::new();
    let request = client
        .get(format!("{}/api/v1/commands/{uuid}", server.admin))
        .bearer_auth(token);
    let (status, standing) = answer(request).await;
    assert_eq!(status, 200, "a lost command: {uuid}: {standing}");
    serde_json::from_value(standing["counts"].clone()).unwrap()
}

/// From the start of the process to its first answer.
const FIRST_ANSWER: Duration = Duration::from_secs(if cfg!(debug_assertions) { 10 } else { 1 });
const DEVICES: usize = 20;
/// Commands queued before each kill.
const LOAD_AT_LEAST: usize = 20;
