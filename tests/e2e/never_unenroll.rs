//! Our own faults never make a device remove its profile: with the store empty, of
//! yesterday, locked or broken, the CA gone, the server going down, no contact hears 401,
//! nor a 403 that names `com.apple.unrecognized.device`.
//!
//! `REVEILLE_CONTACTS=10000 cargo test --release --test e2e never_unenroll` is the long campaign.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use actors::StoreError;
use actors::store::NewChallenge;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use schema::UnixMillis;
use sim::{
    Channel, Client, Device, Dice, Kind, Outcome, Proof, Reply, ScepClient, SimError, Target,
};

use crate::house::{House, Stopped, TOPIC};

/// How many contacts each test makes.
fn contacts() -> usize {
    let all = std::env::var("REVEILLE_CONTACTS");
    let all = all.ok().and_then(|n| n.parse().ok()).unwrap_or(1400);
    all / TESTS
}

const TESTS: usize = 7;

/// What was heard, by status; 0 is no answer at all.
type Heard = BTreeMap<u16, usize>;

/// Everything an enrolled device says in its life, a message at a time. Whoever is known
/// goes on living; only one that is to be unknown may also say that it leaves.
fn message(device: &Device, turn: usize, known: bool) -> (bool, Vec<u8>) {
    let done = Outcome::Acknowledged(plist::Dictionary::new());
    match turn % 8 {
        0 => (false, device.idle(Channel::Device)),
        1 => (true, device.token_update()),
        2 => (true, device.set_bootstrap_token(b"token")),
        3 => (true, device.get_bootstrap_token()),
        4 => (false, device.report(Channel::Device, "U-1", &done, 0)),
        5 => (
            true,
            device.declarative_management(Channel::Device, "tokens", None),
        ),
        6 if known => (false, b"<plist><dict/></plist>".to_vec()),
        6 => (true, device.check_out()),
        _ if known => (false, device.idle(Channel::Device)),
        _ => (
            true,
            device.declarative_management(Channel::Device, "status", Some(b"{}")),
        ),
    }
}

/// Says it, and proves that the answer is none that unenrolls.
async fn contact(
    device: &Device,
    client: &mut Client,
    turn: usize,
    known: bool,
) -> Result<u16, SimError> {
    let (is_check_in, body) = message(device, turn, known);
    let reply = match is_check_in {
        true => client.check_in(&device.identity, body).await?,
        false => client.report(&device.identity, body).await?,
    };
    assert_harmless(&reply);
    Ok(reply.status.as_u16())
}

fn assert_harmless(reply: &Reply) {
    let said = String::from_utf8_lossy(&reply.body);
    // 410 ends the management of a user, 404 that of a declaration.
    let harmful = [401, 404, 410].contains(&reply.status.as_u16());
    assert!(
        !harmful && !said.contains("unrecognized"),
        "{}: {said}",
        reply.status
    );
}

async fn all_contact(house: &House, devices: &[Device], known: bool) -> Heard {
    let mut heard = Heard::new();
    let proofs = [Proof::Header, Proof::Signature];
    for turn in 0..contacts() {
        let device = &devices[turn % devices.len()];
        let round = turn / devices.len();
        let mut client = line(house, proofs[round % 2]);
        let status = contact(device, &mut client, round, known).await.unwrap();
        *heard.entry(status).or_default() += 1;
    }
    heard
}

fn line(house: &House, proof: Proof) -> Client {
    Client::new(Arc::new(house.target(proof)))
}

/// A device with an identity of the house's own CA, and its key.
async fn device_of(house: &House, seed: u64) -> (Device, PKey<Private>) {
    let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
    let challenge = NewChallenge {
        link: "link-1".into(),
        shared: false,
        enrollment: None,
        expires: UnixMillis(u64::MAX / 2),
    };
    let store = &house.running.app.store;
    let challenge = store.mint_challenge(challenge).await.unwrap();
    let scep = scep(house);
    let authority = scep.authority().await.unwrap();
    let identity = scep.enroll(&authority, &key, &challenge).await.unwrap();
    let device = Device::holding(identity, TOPIC, Kind::IPhone, &mut Dice::new(seed));
    (device, key)
}

fn scep(house: &House) -> ScepClient {
    ScepClient::new(
        &format!("{}/scep", house.device_url()),
        reqwest::Client::new(),
    )
}

async fn enroll(house: &House, device: &Device) {
    sim::enroll(device, &mut line(house, Proof::Header))
        .await
        .unwrap();
}

/// Two devices of the house's own CA and two of a further one.
async fn four_devices(house: &House) -> Vec<Device> {
    let mut devices = Vec::new();
    for seed in [1, 2] {
        devices.push(device_of(house, seed).await.0);
    }
    for _ in 0..2 {
        devices.push(house.new_device(Proof::Header).0);
    }
    for device in &devices {
        enroll(house, device).await;
    }
    devices
}

async fn started(stopped: Stopped) -> House {
    match stopped.start(|_| {}).await {
        Ok(house) => house,
        Err((_, error)) => panic!("{error:#}"),
    }
}

async fn refused(stopped: Stopped) -> (Stopped, String) {
    match stopped.start(|_| {}).await {
        Ok(_) => panic!("it started"),
        Err((stopped, error)) => (stopped, format!("{error:#}")),
    }
}

fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).unwrap()),
        }
    }
}

#[actix_web::test]
async fn an_empty_store_knows_nobody_and_unenrolls_nobody() {
    let before = House::start().await;
    let devices = four_devices(&before).await;
    let ca = before.data().parent().unwrap().join("sim-ca.pem");
    // The data directory is gone with its CA; a further CA is still trusted.
    let empty = House::with(|config| config.device.extra_ca_files = vec![ca]).await;
    let heard = all_contact(&empty, &devices, false).await;
    assert_eq!(heard, Heard::from([(403, contacts())]));
    assert_eq!(
        empty.get("/api/v1/devices").await.1["items"],
        serde_json::json!([])
    );
}

#[actix_web::test]
async fn yesterdays_store_unenrolls_nobody_who_enrolled_or_renewed_since() {
    let house = House::start().await;
    let (renewing, key) = device_of(&house, 3).await;
    let old = house.new_device(Proof::Header).0;
    enroll(&house, &renewing).await;
    enroll(&house, &old).await;
    let stopped = house.stopped().await;
    let copies = tempfile::tempdir().unwrap();
    let yesterday = copies.path().join("yesterday");
    copy(stopped.data(), &yesterday);

    let house = started(stopped).await;
    let scep = scep(&house);
    let authority = scep.authority().await.unwrap();
    let identity = scep
        .renew(&authority, &renewing.identity, &key)
        .await
        .unwrap();
    let renewed = Device {
        identity,
        ..renewing
    };
    let mut client = line(&house, Proof::Header);
    assert_eq!(contact(&renewed, &mut client, 1, true).await.unwrap(), 200);
    let fresh = [
        device_of(&house, 4).await.0,
        house.new_device(Proof::Header).0,
    ];
    for device in &fresh {
        enroll(&house, device).await;
    }
    let stopped = house.stopped().await;
    copy(&yesterday, stopped.data());

    let house = started(stopped).await;
    let [ours, further] = fresh;
    let heard = all_contact(&house, &[renewed, ours, further], false).await;
    assert_eq!(heard, Heard::from([(403, contacts())]));
    let mut client = line(&house, Proof::Header);
    assert_eq!(contact(&old, &mut client, 0, true).await.unwrap(), 200);
}

#[actix_web::test]
async fn without_its_ca_the_server_does_not_start_rather_than_make_another() {
    let house = House::start().await;
    let devices = four_devices(&house).await;
    let mut stopped = house.stopped().await;
    let copies = tempfile::tempdir().unwrap();
    let whole = copies.path().join("whole");
    copy(stopped.data(), &whole);
    for lost in [&["ca.pem", "ca.key"][..], &["ca.pem"], &["ca.key"]] {
        for file in lost {
            std::fs::remove_file(stopped.data().join(file)).unwrap();
        }
        let why;
        (stopped, why) = refused(stopped).await;
        assert!(why.contains(lost[0]), "{why}");
        for file in lost {
            assert!(
                !stopped.data().join(file).exists(),
                "another {file} was made"
            );
        }
        copy(&whole, stopped.data());
    }
    let house = started(stopped).await;
    let heard = all_contact(&house, &devices, true).await;
    assert_eq!(heard, Heard::from([(200, contacts())]));
}

#[actix_web::test]
async fn a_second_server_on_the_store_is_refused_and_the_first_serves_on() {
    let house = House::start().await;
    let devices = four_devices(&house).await;
    let config = house.running.app.config.clone();
    let mut heard = Heard::new();
    for turn in 0..contacts() {
        if turn % 50 == 0 {
            let second = reveille::serve(config.clone(), house.clock.clone()).await;
            let why = second.expect_err("a second server started");
            assert_eq!(why.downcast_ref(), Some(&StoreError::InUse), "{why:#}");
        }
        let device = &devices[turn % devices.len()];
        let mut client = line(&house, Proof::Header);
        let status = contact(device, &mut client, turn / devices.len(), true)
            .await
            .unwrap();
        *heard.entry(status).or_default() += 1;
    }
    assert_eq!(heard, Heard::from([(200, contacts())]));
}

#[actix_web::test]
async fn a_server_that_goes_down_under_load_unenrolls_nobody() {
    let mut house = House::start().await;
    let devices = four_devices(&house).await;
    let mut heard = Heard::new();
    let (answered, all) = (Arc::new(AtomicUsize::new(0)), contacts());
    let limit = Instant::now() + Duration::from_secs(300);
    for round in 1..=ROUNDS {
        let down = Arc::new(AtomicBool::new(false));
        let load = (0..16).map(|n| {
            let device = devices[n % devices.len()].clone();
            let client = line(&house, [Proof::Header, Proof::Signature][n % 2]);
            actix_web::rt::spawn(until_down(device, client, answered.clone(), down.clone()))
        });
        let load: Vec<_> = load.collect();
        while answered.load(Ordering::Relaxed) < all * round / ROUNDS {
            assert!(Instant::now() < limit, "too slow");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let stopped = house.stopped().await;
        down.store(true, Ordering::Relaxed);
        for task in load {
            for (status, n) in task.await.unwrap() {
                *heard.entry(status).or_default() += n;
            }
        }
        house = started(stopped).await;
    }
    assert!(
        heard.keys().all(|status| [0, 200, 503].contains(status)),
        "{heard:?}"
    );
    println!("going down under load: {heard:?}");
    for device in &devices {
        let mut client = line(&house, Proof::Header);
        assert_eq!(contact(device, &mut client, 0, true).await.unwrap(), 200);
    }
}

/// A device that comes again and again, and once more when nobody is there.
async fn until_down(
    device: Device,
    mut client: Client,
    answered: Arc<AtomicUsize>,
    down: Arc<AtomicBool>,
) -> Heard {
    let mut heard = Heard::new();
    for turn in 0.. {
        let last = down.load(Ordering::Relaxed);
        let said = contact(&device, &mut client, turn, true).await;
        *heard.entry(*said.as_ref().unwrap_or(&0)).or_default() += 1;
        if last {
            break;
        }
        match said {
            Ok(_) => drop(answered.fetch_add(1, Ordering::Relaxed)),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    heard
}

/// How often the server goes down.
const ROUNDS: usize = 2;

#[actix_web::test]
async fn a_store_that_fails_while_it_serves_unenrolls_nobody() {
    let house = House::start().await;
    let devices = four_devices(&house).await;
    house.running.app.store.close();
    let heard = all_contact(&house, &devices, true).await;
    // A poll with nothing to hand out asks nothing of the writer.
    assert!(
        heard.keys().all(|status| [200, 503].contains(status)),
        "{heard:?}"
    );
    assert!(heard[&503] > contacts() / 4, "{heard:?}");
}

#[actix_web::test]
async fn a_store_that_cannot_be_opened_is_503_for_every_contact() {
    let house = House::start().await;
    let devices = four_devices(&house).await;
    let stopped = house.stopped().await;
    // A new file: the old one may be held for a moment yet.
    std::fs::remove_file(stopped.data().join("reveille.redb")).unwrap();
    std::fs::write(stopped.data().join("reveille.redb"), vec![7; 1 << 20]).unwrap();
    let port = || {
        TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
    };
    let (at, admin) = (port(), port());
    let config = format!(
        "[device]\nlisten = \"{at}\"\ntls = \"off\"\n[admin]\nlisten = \"{admin}\"\n\
         [store]\npath = \"{}\"\nreserve_mb = 0\n",
        stopped.config().store.path.display()
    );
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("config.toml"), config).unwrap();
    let mut server = Command::new(env!("CARGO_BIN_EXE_reveille"))
        .args(["--config", "config.toml", "serve"])
        .current_dir(directory.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let target = Arc::new(Target::new(&format!("http://{at}"), Proof::Signature).unwrap());
    let mut heard = Heard::new();
    let limit = Instant::now() + Duration::from_secs(300);
    while heard.get(&503).copied().unwrap_or_default() < contacts() {
        assert!(
            Instant::now() < limit && server.try_wait().unwrap().is_none(),
            "{heard:?}"
        );
        let turn = heard.values().sum::<usize>();
        let mut client = Client::new(target.clone());
        let device = &devices[turn % devices.len()];
        let status = contact(device, &mut client, turn, false).await.unwrap_or(0);
        *heard.entry(status).or_default() += 1;
        if status == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(
        heard.keys().all(|status| [0, 503].contains(status)),
        "{heard:?}"
    );
}
