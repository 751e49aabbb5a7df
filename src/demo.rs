//! `reveille demo`: everything on one machine, in a temporary directory.
//!
//! The server, a fake APNs and simulated devices that enroll, are woken, get one
//! command and report. What happened is checked device by device, not assumed.

mod check;
mod process;
mod stage;

use std::time::Duration;

use anyhow::ensure;
use sim::{Behaviour, Channel, Fleet};

use stage::{Rollout, Stage};

/// What the demo does.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoOptions {
    /// Simulated devices.
    #[arg(long, default_value_t = 100)]
    pub devices: usize,
    /// Keep the server running afterwards, for a look around.
    #[arg(long)]
    pub hold: bool,
    /// Devices misbehave (10 % NotNow, 5 % Error, 5 % lost answers, 5 % doubled results),
    /// and the server is killed and started again on the way.
    #[arg(long)]
    pub chaos: bool,
    /// Break one device on purpose (its pushes are refused): the demo must notice.
    #[arg(long)]
    pub break_one: bool,
}

impl DemoOptions {
    fn behaviour(&self) -> Behaviour {
        if !self.chaos {
            return Behaviour::default();
        }
        Behaviour {
            not_now: 0.10,
            error: 0.05,
            lost_answer: 0.05,
            duplicate: 0.05,
            ..Behaviour::default()
        }
    }
}

/// Runs the demo; says whether every device was served exactly right.
///
/// # Errors
/// What kept it from running at all.
pub async fn run(options: DemoOptions) -> anyhow::Result<bool> {
    ensure!(options.devices > 0, "--devices must be at least 1");
    let mut stage = Stage::set().await?;
    println!(
        "Server       devices {}, admin {}",
        stage.device_url, stage.admin_url
    );
    let (fleet, enrolled_in) = stage.enroll(&options).await?;
    let rollout = stage.command_to_all(options.chaos).await?;
    let wrong = check::wrong(&stage, &fleet, &rollout.uuid, options.chaos).await;
    summary(&options, &stage, &rollout, enrolled_in);
    if options.chaos {
        faults(&fleet, &rollout);
    }
    for line in wrong.iter().take(10) {
        println!("  wrong: {line}");
    }
    let right = wrong.is_empty();
    match (right, options.chaos) {
        (true, false) => println!(
            "Exactly once every device was handed the command once and its result is stored"
        ),
        (true, true) => println!(
            "Exactly once every device's result is stored once, whatever was lost or repeated"
        ),
        (false, _) => println!(
            "NOT RIGHT    {} devices were not served exactly right",
            wrong.len()
        ),
    }
    if options.hold {
        hold(&stage).await?;
    }
    fleet.shutdown();
    stage.end()?;
    Ok(right)
}

fn summary(options: &DemoOptions, stage: &Stage, rollout: &Rollout, enrolled_in: Duration) {
    let n = options.devices;
    let enrolled_in = enrolled_in.as_secs_f64();
    println!(
        "Enrolled     {n} devices in {enrolled_in:.1} s ({:.0}/s)",
        n as f64 / enrolled_in
    );
    println!(
        "Queued       one command for {} in {:.1} ms",
        rollout.accepted,
        rollout.queued_in.as_secs_f64() * 1000.0
    );
    println!(
        "Answered     {} of {n} in {:.1} s",
        rollout.answered,
        rollout.answered_in.as_secs_f64()
    );
    println!(
        "Pushes       {} accepted by the fake APNs",
        stage.apns.counts().accepted
    );
    println!(
        "Memory       {} MB resident (server)",
        stage.server().resident_bytes() >> 20
    );
}

/// What went wrong on purpose.
fn faults(fleet: &Fleet, rollout: &Rollout) {
    let entries = (0..fleet.devices().len()).filter_map(|n| {
        fleet
            .ledger(n, Channel::Device)
            .commands
            .remove(&rollout.uuid)
    });
    let (mut not_now, mut error, mut again, mut repeated) = (0, 0, 0, 0);
    for entry in entries {
        not_now += entry.postponed;
        error += u32::from(entry.status == Some(sim::Status::Error));
        again += entry.handed_out.saturating_sub(1 + entry.postponed);
        repeated += entry.sent.saturating_sub(1);
    }
    println!(
        "Faults       {not_now} NotNow, {error} Error, {repeated} results sent again, \
         {again} commands handed out again"
    );
    if let Some(restart) = &rollout.restart {
        println!(
            "Killed       kill -9 when {} had answered; listening again after {:.0} ms",
            restart.answered,
            restart.took.as_secs_f64() * 1000.0
        );
    }
}

async fn hold(stage: &Stage) -> anyhow::Result<()> {
    println!("\nStill running. Admin token: {}", stage.token);
    println!(
        "Try: REVEILLE_URL={} REVEILLE_TOKEN={} reveille devices list",
        stage.admin_url, stage.token
    );
    println!("It logs to {}", stage.server().log().display());
    println!("Ctrl-C ends it.");
    Ok(tokio::signal::ctrl_c().await?)
}
