//! The stage of the demo: the server, the fake APNs and the simulated devices, and what is
//! done with them.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Method;
use serde_json::json;
use sim::{
    Answer, Channel, Dice, FakeApns, Fleet, FleetPlan, Invitation, KeyPool, Kind, Script, Target,
};

use super::DemoOptions;
use super::process::Process;
use crate::admin_client::AdminClient;

/// The server and the fake APNs.
pub(super) struct Stage {
    process: Process,
    pub(super) apns: FakeApns,
    pub(super) admin: AdminClient,
    pub(super) admin_url: String,
    pub(super) device_url: String,
    pub(super) token: String,
    root_pem: String,
    directory: tempfile::TempDir,
}

/// One command to all, and what became of it.
pub(super) struct Rollout {
    pub(super) uuid: String,
    pub(super) accepted: u64,
    pub(super) queued_in: Duration,
    pub(super) answered: u64,
    pub(super) answered_in: Duration,
    pub(super) restart: Option<Restart>,
}

/// The server was killed.
pub(super) struct Restart {
    /// So many had answered when it was.
    pub(super) answered: u64,
    /// It listened again after this long.
    pub(super) took: Duration,
}

impl Stage {
    pub(super) async fn set() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let apns = FakeApns::start(Script::default()).await?;
        let process = Process::start(directory.path(), &apns)?;
        let admin_url = format!("http://{}", process.admin);
        let token = process.file("admin.token")?;
        let stage = Self {
            admin: AdminClient::new(&admin_url, &token)?,
            admin_url,
            device_url: process.public_url(),
            token,
            root_pem: process.file("tls-root.pem")?,
            process,
            apns,
            directory,
        };
        let pem = String::from_utf8(sim::push_certificate(TOPIC)?)?;
        let body = json!({ "pem": pem });
        let admin = &stage.admin;
        admin
            .send(Method::PUT, &["push-certificates"], Some(&body))
            .await?;
        Ok(stage)
    }

    /// Every device follows the link, gets its identity by SCEP, and checks in over TLS
    /// with it.
    pub(super) async fn enroll(&self, options: &DemoOptions) -> anyhow::Result<(Fleet, Duration)> {
        let body = json!({ "max_uses": options.devices });
        let links = ["enrollment-links"];
        let link = self.admin.send(Method::POST, &links, Some(&body)).await?;
        let link = link["url"].as_str().context("a link has a url")?;
        let invitation = Invitation::new(link, self.root_pem.as_bytes())?;
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
        let target = Target::tls(&self.device_url, self.root_pem.as_bytes())?;
        let plan = FleetPlan {
            devices: options.devices,
            topic: TOPIC.into(),
            behaviour: options.behaviour(),
            ..FleetPlan::default()
        };
        let fleet = Fleet::of(devices, target, plan);
        fleet.attach(&self.apns);
        fleet.enroll().await?;
        Ok((fleet, began.elapsed()))
    }

    /// Queues one command for all and waits for the answers. With `kill` the server dies
    /// once when a third has answered.
    pub(super) async fn command_to_all(&mut self, kill: bool) -> anyhow::Result<Rollout> {
        let order = json!({
            "targets": { "all": true },
            "command": { "request_type": "DeviceInformation", "queries": ["OSVersion", "SerialNumber"] },
        });
        let began = Instant::now();
        let queued = self
            .admin
            .send(Method::POST, &["commands"], Some(&order))
            .await?;
        let queued_in = began.elapsed();
        let uuid = queued["command_uuid"].as_str().context("command_uuid")?;
        let accepted = queued["accepted"].as_u64().context("accepted")?;
        let bar = bar("answered", accepted);
        let mut rollout = Rollout {
            uuid: uuid.to_owned(),
            accepted,
            queued_in,
            answered: 0,
            answered_in: queued_in,
            restart: None,
        };
        let mut last_progress = Instant::now();
        while rollout.answered < accepted && last_progress.elapsed() < PATIENCE {
            let standing = self.admin.get(&["commands", &rollout.uuid]).await?;
            let counts = &standing["counts"];
            let of = |state: &str| counts[state].as_u64().unwrap_or(0);
            let now = of("acknowledged") + of("error");
            if now > rollout.answered {
                last_progress = Instant::now();
                rollout.answered_in = began.elapsed();
            }
            rollout.answered = now;
            bar.set_position(now);
            if kill && rollout.restart.is_none() && now >= accepted.div_ceil(3) {
                rollout.restart = Some(Restart {
                    answered: now,
                    took: self.process.kill_and_restart()?,
                });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        bar.finish_and_clear();
        Ok(rollout)
    }

    /// What the server's process is.
    pub(super) fn server(&self) -> &Process {
        &self.process
    }

    pub(super) fn end(self) -> anyhow::Result<()> {
        self.process.stop()?;
        self.apns.shutdown();
        drop(self.directory);
        Ok(())
    }
}

/// A progress bar of the demo.
pub(super) fn bar(what: &'static str, length: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:12} [{bar:40}] {pos}/{len} {per_sec}");
    ProgressBar::new(length)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        .with_message(what)
}

const TOPIC: &str = "com.apple.mgmt.External.demo";
/// RSA keys the devices share; each still has a certificate of its own.
const KEYS: usize = 8;
/// Devices that enroll at once.
const AT_ONCE: usize = 16;
/// Between two looks at how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Without any progress for so long, what is missing will not come.
const PATIENCE: Duration = Duration::from_secs(8);
