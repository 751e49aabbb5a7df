//! `reveille demo`: everything on one machine, in a temporary directory.
//!
//! The server, a fake APNs and simulated devices that enroll, are woken, get one
//! command and report. What happened is checked device by device, not assumed.

use std::time::{Duration, Instant};

use actors::Clock;
use anyhow::{Context as _, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use sim::{
    Answer, Channel, Dice, FakeApns, Fleet, FleetPlan, Invitation, KeyPool, Kind, Script, Target,
};

use crate::config::Config;
use crate::server::{Running, serve};

/// What the demo does.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoOptions {
    /// Simulated devices.
    #[arg(long, default_value_t = 100)]
    pub devices: usize,
    /// Keep the server running afterwards, for a look around.
    #[arg(long)]
    pub hold: bool,
    /// Break one device on purpose (its pushes are refused): the demo must notice.
    #[arg(long)]
    pub break_one: bool,
}

/// Runs the demo; says whether every device was served exactly right.
///
/// # Errors
/// What kept it from running at all.
pub async fn run(options: DemoOptions) -> anyhow::Result<bool> {
    ensure!(options.devices > 0, "--devices must be at least 1");
    let stage = Stage::set().await?;
    println!(
        "Server       devices {}, admin {}",
        stage.device_url(),
        stage.admin_url()
    );
    let (fleet, enrolled_in) = stage.enroll(&options).await?;
    let rollout = stage.command_to_all().await?;
    let wrong = stage.check(&fleet, &rollout.uuid).await?;

    let n = options.devices;
    println!(
        "Enrolled     {n} devices in {:.1} s ({:.0}/s)",
        secs(enrolled_in),
        n as f64 / secs(enrolled_in)
    );
    println!(
        "Queued       one command for {} in {:.1} ms",
        rollout.accepted,
        secs(rollout.queued_in) * 1000.0
    );
    println!(
        "Answered     {} of {n} in {:.1} s",
        rollout.answered,
        secs(rollout.answered_in)
    );
    println!(
        "Pushes       {} accepted by the fake APNs",
        stage.apns.counts().accepted
    );
    println!(
        "Memory       {} MB resident (server, APNs and devices together)",
        resident_mb()
    );
    for line in wrong.iter().take(10) {
        println!("  wrong: {line}");
    }
    let right = wrong.is_empty();
    if right {
        println!("Exactly once every device was handed the command once and its result is stored");
    } else {
        println!(
            "NOT RIGHT    {} devices were not served exactly right",
            wrong.len()
        );
    }
    if options.hold {
        println!("\nStill running. Admin token: {}", stage.token);
        println!(
            "Try: REVEILLE_URL={} REVEILLE_TOKEN={} reveille devices list",
            stage.admin_url(),
            stage.token
        );
        println!("Ctrl-C ends it.");
        tokio::signal::ctrl_c().await?;
    }
    fleet.shutdown();
    stage.end().await;
    Ok(right)
}

/// The server, the fake APNs and the devices.
struct Stage {
    running: Running,
    apns: FakeApns,
    client: reqwest::Client,
    token: String,
    directory: tempfile::TempDir,
}

struct Rollout {
    uuid: String,
    accepted: u64,
    queued_in: Duration,
    answered: u64,
    answered_in: Duration,
}

impl Stage {
    async fn set() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let apns = FakeApns::start(Script::default()).await?;
        let root_file = directory.path().join("apns-root.pem");
        std::fs::write(&root_file, apns.root_pem())?;
        let mut config = Config {
            demo: true,
            ..Config::default()
        };
        config.device.listen = ([127, 0, 0, 1], 0).into();
        config.admin.listen = ([127, 0, 0, 1], 0).into();
        config.store.path = directory.path().join("data");
        config.apns.host = "localhost".into();
        config.apns.port = apns.port();
        config.apns.root_file = root_file;
        let running = serve(config, Clock::System).await?;
        let stage = Self {
            token: running
                .first_token
                .clone()
                .context("a fresh store has a first token")?,
            client: reqwest::Client::new(),
            running,
            apns,
            directory,
        };
        let pem = String::from_utf8(sim::push_certificate(TOPIC)?)?;
        let put = stage.client.put(stage.api("/push-certificates"));
        stage.send(put.json(&json!({ "pem": pem }))).await?;
        Ok(stage)
    }

    /// Every device follows the link, gets its identity by SCEP, and checks in over TLS
    /// with it.
    async fn enroll(&self, options: &DemoOptions) -> anyhow::Result<(Fleet, Duration)> {
        let link = self
            .client
            .post(self.api("/enrollment-links"))
            .json(&json!({ "max_uses": options.devices }));
        let link = self.send(link).await?;
        let link = link["url"].as_str().context("a link has a url")?;
        let root = self
            .running
            .app
            .tls_root_pem
            .clone()
            .context("TLS of our own has a root")?;
        let invitation = Invitation::new(link, &root)?;
        let keys = KeyPool::generate(KEYS)?;

        let began = Instant::now();
        let bar = bar("enrolling", options.devices as u64);
        let devices = stream::iter(0..options.devices).map(|n| {
            let (invitation, keys, bar) = (&invitation, &keys, &bar);
            async move {
                let mut dice = Dice::named(0, &format!("device {n}"));
                let accepted = invitation.accept(keys, Kind::IPhone, &mut dice).await;
                bar.inc(1);
                accepted.map(|(device, _)| device)
            }
        });
        let devices: Vec<_> = devices.buffer_unordered(AT_ONCE).try_collect().await?;
        bar.finish_and_clear();
        if options.break_one
            && let Some(push) = devices
                .first()
                .and_then(|device| device.push_of(Channel::Device))
        {
            let token = push.token_hex();
            self.apns.rescript(|script| {
                script.always_for.insert(token, Answer::unregistered(0));
            });
        }
        let target = Target::tls(&self.device_url(), &root)?;
        let plan = FleetPlan {
            devices: options.devices,
            topic: TOPIC.into(),
            ..FleetPlan::default()
        };
        let fleet = Fleet::of(devices, target, plan);
        fleet.attach(&self.apns);
        fleet.enroll().await?;
        Ok((fleet, began.elapsed()))
    }

    async fn command_to_all(&self) -> anyhow::Result<Rollout> {
        let order = json!({
            "targets": { "all": true },
            "command": { "request_type": "DeviceInformation", "queries": ["OSVersion", "SerialNumber"] },
        });
        let began = Instant::now();
        let queued = self
            .send(self.client.post(self.api("/commands")).json(&order))
            .await?;
        let queued_in = began.elapsed();
        let uuid = queued["command_uuid"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let accepted = queued["accepted"].as_u64().unwrap_or(0);
        let bar = bar("answered", accepted);
        let mut answered = 0;
        let mut last_progress = Instant::now();
        while answered < accepted && last_progress.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let standing = self
                .send(self.client.get(self.api(&format!("/commands/{uuid}"))))
                .await?;
            let now = standing["counts"]["acknowledged"].as_u64().unwrap_or(0);
            if now > answered {
                last_progress = Instant::now();
            }
            answered = now;
            bar.set_position(answered);
        }
        bar.finish_and_clear();
        Ok(Rollout {
            uuid,
            accepted,
            queued_in,
            answered,
            answered_in: began.elapsed(),
        })
    }

    /// Looks at every device from both ends; says what is not exactly right.
    async fn check(&self, fleet: &Fleet, uuid: &str) -> anyhow::Result<Vec<String>> {
        let bar = bar("checking", fleet.devices().len() as u64);
        let checks = stream::iter(0..fleet.devices().len()).map(|n| {
            let bar = bar.clone();
            async move {
                let wrong = self.check_one(fleet, n, uuid).await;
                bar.inc(1);
                wrong
            }
        });
        let wrong: Vec<_> = checks
            .buffer_unordered(16)
            .filter_map(async |wrong| wrong)
            .collect()
            .await;
        bar.finish_and_clear();
        Ok(wrong)
    }

    async fn check_one(&self, fleet: &Fleet, n: usize, uuid: &str) -> Option<String> {
        let id = fleet.device(n).enroll_id(Channel::Device);
        let ledger = fleet.ledger(n, Channel::Device);
        let entry = ledger.commands.get(uuid);
        let (handed_out, confirmed) =
            entry.map_or((0, 0), |entry| (entry.handed_out, entry.confirmed));
        if (handed_out, confirmed) != (1, 1) {
            return Some(format!(
                "{id}: handed out {handed_out} times, confirmed {confirmed} times"
            ));
        }
        let path = format!("/devices/{id}/commands/{uuid}/result");
        match self.send(self.client.get(self.api(&path))).await {
            Err(error) => Some(format!("{id}: {error:#}")),
            Ok(result) => {
                let serial = &result["report"]["QueryResponses"]["SerialNumber"];
                let own = fleet.device(n).serial.as_str();
                (serial.as_str() != Some(own))
                    .then(|| format!("{id}: the stored result is not its own"))
            }
        }
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> anyhow::Result<Value> {
        let response = request.bearer_auth(&self.token).send().await?;
        let status = response.status();
        let body: Value = response.json().await?;
        ensure!(status.is_success(), "{status}: {}", body["detail"]);
        Ok(body)
    }

    fn api(&self, path: &str) -> String {
        format!("{}/api/v1{path}", self.admin_url())
    }

    fn admin_url(&self) -> String {
        format!("http://{}", self.running.admin)
    }

    fn device_url(&self) -> String {
        self.running.app.config.device.public_url.clone()
    }

    async fn end(self) {
        self.running.stop().await;
        self.apns.shutdown();
        drop(self.directory);
    }
}

fn bar(what: &'static str, length: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:12} [{bar:40}] {pos}/{len} {per_sec}");
    ProgressBar::new(length)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        .with_message(what)
}

fn secs(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

fn resident_mb() -> u64 {
    crate::metrics::resident_bytes().unwrap_or(0) >> 20
}

const TOPIC: &str = "com.apple.mgmt.External.demo";
/// RSA keys the devices share; each still has a certificate of its own.
const KEYS: usize = 8;
/// Devices that enroll at once.
const AT_ONCE: usize = 16;
/// Without any progress for so long, what is missing will not come.
const PATIENCE: Duration = Duration::from_secs(8);
