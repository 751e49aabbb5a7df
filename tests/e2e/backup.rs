//! Backup and restore: a machine is lost under load and made again elsewhere; its devices
//! notice nothing.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actors::Clock;
use actors::store::restore;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sim::{Behaviour, Channel, Client, Device, DeviceCa, Dice, Invitation, KeyPool, Kind, Proof};

use crate::house::{House, NOW, TOPIC, id_of};
use crate::kill::{Promises, Server, configure, counts, line, order, poll};

/// Runs the binary in a directory; exit code, what it said, what it complained of.
async fn reveille(directory: &Path, token: &str, args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reveille"));
    command
        .args(["--config", "config.toml"])
        .args(args)
        .env("REVEILLE_TOKEN", token)
        .current_dir(directory);
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output.await.unwrap().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (said, complained) = (text(&output.stdout), text(&output.stderr));
    (output.status.code().unwrap(), said, complained)
}

/// Devices and admins that keep a server busy until its line breaks.
struct Load {
    devices: Vec<Arc<Device>>,
    promises: Arc<Mutex<Promises>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn on(server: &Server, token: &str, devices: &[Arc<Device>]) -> Self {
        let promises = Arc::new(Mutex::new(Promises::default()));
        let mut tasks = Vec::new();
        for device in devices {
            let polling = poll(device.clone(), line(server), false, promises.clone());
            tasks.push(actix_web::rt::spawn(polling));
        }
        for salt in 0..3 {
            let ids = devices.iter().map(|device| id_of(device)).collect();
            let (admin, token) = (server.admin.clone(), token.to_owned());
            let ordering = order(admin, token, ids, salt, promises.clone());
            tasks.push(actix_web::rt::spawn(ordering));
        }
        Self {
            devices: devices.to_vec(),
            promises,
            tasks,
        }
    }

    /// Waits until that many more results are acknowledged.
    async fn until_more(&self, results: usize) {
        let done = || self.promises.lock().unwrap().reported.len();
        let wanted = done() + results;
        let deadline = Instant::now() + Duration::from_secs(60);
        while done() < wanted {
            assert!(Instant::now() < deadline, "no load came about");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[actix_web::test]
async fn a_machine_lost_under_load_is_made_again_elsewhere_and_every_device_goes_on() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ca = DeviceCa::quick().unwrap();
    configure(old.path(), &ca);
    configure(new.path(), &ca);
    let devices: Vec<_> = (0..10)
        .map(|_| Arc::new(Device::new(&ca, TOPIC).unwrap()))
        .collect();
    let server = Server::start(old.path());
    let token = std::fs::read_to_string(old.path().join("data/admin.token")).unwrap();
    for device in &devices {
        sim::enroll(device, &mut line(&server)).await.unwrap();
    }
    let (code, _, complaint) = reveille(old.path(), &token, &["compact"]).await;
    assert_eq!(code, 1);
    assert!(complaint.contains("stop the server first"), "{complaint}");

    let load = Load::on(&server, &token, &devices);
    load.until_more(30).await;
    let (queued, reported) = {
        let promises = load.promises.lock().unwrap();
        (promises.queued.clone(), promises.reported.clone())
    };
    let archive = new.path().join("backup.tar.zst");
    let to = archive.to_str().unwrap();
    let backup = ["backup", to, "--url", &server.admin];
    let (code, said, complaint) = reveille(old.path(), &token, &backup).await;
    assert_eq!((code, said.trim()), (0, to), "{complaint}");
    assert!(
        complaint.contains("the sealing key is not in it"),
        "{complaint}"
    );
    let (code, _, complaint) = reveille(old.path(), &token, &backup).await;
    assert_eq!(code, 1);
    assert!(complaint.contains("is there already"), "{complaint}");
    load.until_more(10).await;
    server.kill();
    for task in load.tasks {
        task.await.unwrap();
    }

    // Elsewhere. The key is kept apart from the backup.
    let key = new.path().join("kept.key");
    std::fs::copy(old.path().join("data/seal.key"), &key).unwrap();
    let (code, _, complaint) = reveille(new.path(), "", &["restore", to]).await;
    assert_eq!(code, 1);
    assert!(
        complaint.contains("--seal-key") && complaint.contains("sealing key is not in"),
        "{complaint}"
    );
    assert!(!new.path().join("data").exists());
    let key = key.to_str().unwrap();
    let (code, said, complaint) = reveille(
        new.path(),
        "",
        &["restore", to, "--verify", "--seal-key", key],
    )
    .await;
    assert_eq!(code, 0, "{complaint}");
    let fact = |said: &str, name: &str| {
        let found = said.lines().find_map(|line| line.strip_prefix(name));
        found.unwrap_or_default().trim().to_owned()
    };
    assert_eq!(fact(&said, "enrolled devices"), "10", "{said}");
    assert_eq!(fact(&said, "sealing key"), "fits", "{said}");
    assert!(!new.path().join("data").exists());
    let (code, _, complaint) = reveille(new.path(), "", &["restore", to, "--seal-key", key]).await;
    assert_eq!(code, 0, "{complaint}");
    assert!(complaint.contains("reveille clock confirm"), "{complaint}");
    let (code, _, complaint) = reveille(new.path(), "", &["restore", to, "--seal-key", key]).await;
    assert_eq!(code, 1);
    assert!(complaint.contains("is not empty"), "{complaint}");

    let (_, said, _) = reveille(new.path(), "", &["doctor"]).await;
    for row in ["generation 1", "minutes old", "opens what the store holds"] {
        assert!(said.contains(row), "{row}: {said}");
    }

    let server = Server::start(new.path());
    // What was acknowledged before the backup began is in it.
    for (uuid, order) in &queued {
        let id = &order.device;
        let counts = counts(&server, &token, uuid).await;
        let done = reported.contains(&(id.clone(), uuid.clone()));
        assert!(!done || counts["acknowledged"] == 1, "{uuid}: {counts:?}");
    }
    // The same devices, the same certificates: each is served, and what waits is done.
    for device in &load.devices {
        let mut mood = Behaviour::default().mood(device);
        let mut client = line(&server);
        let session = sim::poll_session(device, Channel::Device, &mut client, &mut mood).await;
        session.completed().unwrap();
    }
    for uuid in queued.keys() {
        let counts = counts(&server, &token, uuid).await;
        assert_eq!(counts["acknowledged"], 1, "{uuid}: {counts:?}");
    }
    // And goes on; nobody is ever turned away.
    let load = Load::on(&server, &token, &devices);
    load.until_more(20).await;
    let confirm = ["clock", "confirm", "--url", &server.admin];
    let (code, _, complaint) = reveille(new.path(), &token, &confirm).await;
    assert_eq!(code, 0, "{complaint}");
    server.kill();
    for task in load.tasks {
        task.await.unwrap();
    }
    assert_eq!(load.promises.lock().unwrap().broken, [""; 0]);
    // Its server stopped, a store is backed up and compacted just the same.
    let (code, said, complaint) = reveille(new.path(), "", &["backup", "."]).await;
    assert_eq!(code, 0, "{complaint}");
    let again = said.trim();
    let (code, said, _) = reveille(new.path(), "", &["restore", again, "--verify"]).await;
    assert_eq!(code, 0);
    assert_eq!(fact(&said, "generation"), "1", "{said}");
    assert!(fact(&said, "sealing key").contains("not tried"), "{said}");
    let (code, said, complaint) = reveille(new.path(), "", &["compact"]).await;
    assert_eq!(code, 0, "{complaint}");
    assert!(said.contains("bytes after"), "{said}");
}

/// Asks a house for a backup, as an archive.
async fn backup(house: &House, body: &Value) -> Vec<u8> {
    let request = house.admin(Method::POST, "/api/v1/backups").json(body);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    response.bytes().await.unwrap().to_vec()
}

/// Restores it beside the house's own data directory.
async fn restored(house: &House, archive: &[u8], clock: Clock) -> PathBuf {
    let to = house.data().with_file_name("restored");
    restore(archive, &to, None, false, clock).await.unwrap();
    to
}

#[actix_web::test]
async fn a_device_with_an_identity_of_ours_speaks_over_tls_to_a_restored_server() {
    let house = House::tls(|_| {}).await;
    house.import_push_certificate().await;
    let (_, link) = house.post("/api/v1/enrollment-links", &json!({})).await;
    let root = house.running.app.tls_root_pem.clone().unwrap();
    let invitation = Invitation::new(link["url"].as_str().unwrap(), &root).unwrap();
    let keys = KeyPool::generate(1).unwrap();
    let mut dice = Dice::named(0, "restored");
    let accepted = invitation.accept(&keys, Kind::IPhone, &mut dice).await;
    let (device, _) = accepted.unwrap();
    let mut client = Client::new(Arc::new(house.target(Proof::Tls)));
    sim::enroll(&device, &mut client).await.unwrap();
    let id = id_of(&device);
    let waits = house.ask_information(&id).await;

    let archive = backup(&house, &json!({"with_sealing_key": true})).await;
    // What comes later is lost with the machine; a report on it is nobody's fault.
    let lost = house.ask_information(&id).await;
    let to = restored(&house, &archive, Clock::System).await;
    let started = house
        .stopped()
        .await
        .start(|config| config.store.path = to)
        .await;
    let house = started.unwrap_or_else(|(_, error)| panic!("{error:#}"));
    assert_eq!(house.running.app.tls_root_pem.as_ref(), Some(&root));
    let mut client = Client::new(Arc::new(house.target(Proof::Tls)));
    let answer = sim::answer(&device, &command(&lost), 1000);
    let report = device.report(Channel::Device, &lost, &answer, 1000);
    let reply = client.report(&device.identity, report).await.unwrap();
    assert_eq!(reply.status, 200);
    let handed = sim::Command::parse(&reply.body).unwrap().unwrap();
    assert_eq!(handed.uuid, waits);
    let mut mood = Behaviour::default().mood(&device);
    sim::poll_session(&device, Channel::Device, &mut client, &mut mood).await;
    assert_eq!(house.state(&id, &waits).await, "acknowledged");
    assert_eq!(house.state(&id, &lost).await, "absent");
    let (_, ready) = house.get("/readyz").await;
    let warnings = ready["warnings"].to_string();
    assert!(warnings.contains("restored from a backup"), "{warnings}");
}

fn command(uuid: &str) -> sim::Command {
    let plist = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><plist version=\"1.0\"><dict>\
         <key>CommandUUID</key><string>{uuid}</string><key>Command</key><dict>\
         <key>RequestType</key><string>ProfileList</string></dict></dict></plist>"
    );
    sim::Command::parse(plist.as_bytes()).unwrap().unwrap()
}

#[actix_web::test]
async fn after_a_restore_devices_are_woken_one_by_one() {
    let house = House::with(|config| config.apns.max_rate = 50).await;
    let silent = Behaviour {
        silent: 1.0,
        ..Behaviour::default()
    };
    house.fleet(30, silent).enroll().await.unwrap();
    let order = json!({"targets": {"all": true}, "command": {"request_type": "ProfileList"}, "wake": false});
    let (status, _) = house.post("/api/v1/commands", &order).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let archive = backup(&house, &json!({"with_sealing_key": true})).await;
    let to = restored(&house, &archive, house.clock.clone()).await;
    let started = house
        .stopped()
        .await
        .start(|config| config.store.path = to)
        .await;
    let house = started.unwrap_or_else(|(_, error)| panic!("{error:#}"));
    for (second, woken) in [(0, 1), (1, 6), (2, 11), (6, 30)] {
        house.clock.set(NOW.plus_seconds(second));
        let reached = |counts: &sim::Counts| counts.accepted >= woken;
        let waited = house.apns.wait_until(Duration::from_secs(10), reached);
        waited.await.unwrap();
        let left = house.running.app.store.wakes().marked() as u64;
        let received = house.apns.counts().received;
        assert_eq!((received, left), (woken, 30 - woken), "after {second} s");
    }
}

#[actix_web::test]
async fn a_backup_needs_its_scopes_and_one_is_made_at_a_time_and_a_client_that_left_holds_none() {
    let house = House::start().await;
    let (device, _) = house.enrolled(Proof::Header).await;
    let path = "/api/v1/backups";
    let as_ = async |scopes: &[reveille::auth::Scope], body: Value| {
        let (secret, hash) = reveille::auth::new_token().unwrap();
        let record = reveille::auth::token_record(&hash, "x", scopes, NOW, None);
        house
            .running
            .app
            .store
            .put_token(hash, record)
            .await
            .unwrap();
        let request = reqwest::Client::new().post(format!("{}{path}", house.admin_url()));
        let response = request
            .bearer_auth(secret)
            .json(&body)
            .send()
            .await
            .unwrap();
        (
            response.status().as_u16(),
            response.text().await.unwrap_or_default(),
        )
    };
    use reveille::auth::Scope;
    assert_eq!(as_(&[Scope::Read, Scope::Secrets], json!({})).await.0, 403);
    let with_key = json!({"with_sealing_key": true});
    let (status, body) = as_(&[Scope::Admin], with_key).await;
    assert!(status == 403 && body.contains("secrets"), "{status} {body}");
    assert_eq!(house.post(path, &json!({"key": true})).await.0, 422);
    let (_, ready) = house.get("/readyz").await;
    assert!(ready["last_backup_at"].is_null(), "{ready}");

    // More than fits into the pipe and the sockets, so that it cannot be done by itself.
    let segments = house.data().join("segments");
    let mut noise = vec![0; 64 << 20];
    aws_lc_rs::rand::fill(&mut noise).unwrap();
    std::fs::write(segments.join("0000000007.seg"), noise).unwrap();
    let held = house.admin(Method::POST, path).send().await.unwrap();
    assert_eq!(held.status(), 200);
    assert_eq!(held.headers()["content-type"], "application/zstd");
    let (status, problem) = house.post(path, &json!({})).await;
    assert_eq!(
        (status.as_u16(), &problem["code"]),
        (409, &json!("backup_running"))
    );
    // Meanwhile it serves.
    house.ask_information(&id_of(&device)).await;
    drop(held);
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let response = house.admin(Method::POST, path).send().await.unwrap();
        if response.status() == 200 {
            let mut head = response;
            while head.chunk().await.unwrap().is_some() {}
            break;
        }
        assert!(Instant::now() < deadline, "the backup of who left goes on");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (_, ready) = house.get("/readyz").await;
    assert!(ready["last_backup_at"].is_string(), "{ready}");
    let metrics = house.admin(Method::GET, "/metrics").send().await.unwrap();
    let gauge = format!("reveille_last_backup_timestamp_seconds {}", NOW.seconds());
    assert!(metrics.text().await.unwrap().contains(&gauge));
}

#[actix_web::test]
async fn every_file_of_a_data_directory_is_in_a_backup_or_left_out_on_purpose() {
    let house = House::tls(|_| {}).await;
    house.import_push_certificate().await;
    let archive = backup(&house, &json!({})).await;
    let key = house.data().join("seal.key");
    let proved = actors::store::verify(&*archive, &std::env::temp_dir(), Some(&key)).unwrap();
    let mut out = proved.manifest.left_out;
    out.retain(|name| name != "ballast");
    assert_eq!(out, ["admin.token", "seal.key"]);
    for name in [
        "ca.pem",
        "sealed/ca.key",
        "ra.pem",
        "sealed/tls-root.key",
        "sealed/profile.key",
    ] {
        let there = proved.manifest.files.iter().any(|file| file.name == name);
        assert!(there, "{name}");
    }
}
