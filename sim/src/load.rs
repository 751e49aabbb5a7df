//! The `load` verb: drives simulated devices at a running server and measures
//! it from outside, by the server process's own counters. Requests are made
//! before they are measured, so that the generator does not measure itself.

mod admin;
mod crew;
mod cycle;
mod histogram;
mod idle;
mod options;
mod process;
mod tally;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

pub use cycle::Exactness;
pub use histogram::Latency;
pub use options::{LoadOptions, Scenario};

use crate::ca::{CaKey, DeviceCa};
use crate::keys::KeyPool;
use crate::report::{LoadReport, ServerCost};
use crate::target::Target;
use admin::Admin;
use crew::Yard;
use cycle::Cycle;
use idle::Pace;
use process::Gauge;
use tally::{Meter, Tally};

/// Runs a scenario and reports.
pub async fn run(options: LoadOptions) -> Result<LoadReport> {
    ensure!(options.devices > 0, "at least one device is needed");
    ensure!(
        options.in_flight > 0,
        "at least one request in flight is needed"
    );
    ensure!(
        options
            .rate
            .is_none_or(|rate| rate > 0.0 && options.scenario == Scenario::Idle),
        "a rate must be positive, and is for idle only"
    );
    let target = options.target()?;
    let admin = match &options.admin_url {
        Some(url) => Some(Admin::new(url, options.token.clone())?),
        None => None,
    };
    let gauge = match (options.pid, &admin) {
        (Some(pid), _) => Gauge::Process(pid),
        (None, Some(admin)) => Gauge::Metrics(admin.clone()),
        (None, None) => Gauge::Absent,
    };
    let yard = Arc::new(yard(&options, target.clone()).await?);

    let mut enrolling = Meter::new(&gauge);
    let (hands, enrolled) = yard.enroll(options.devices, &mut enrolling).await?;
    if options.scenario == Scenario::Enroll {
        return Ok(report(&options, &yard, enrolling, enrolled, None));
    }
    ensure!(
        hands.len() == options.devices,
        "only {} of {} devices could enroll: {:?}",
        hands.len(),
        options.devices,
        enrolled.errors
    );

    let hands = Arc::new(hands);
    let mut meter = Meter::new(&gauge);
    if options.scenario == Scenario::Idle {
        let tally = measure_idle(&options, &target, &hands, &mut meter).await?;
        return Ok(report(&options, &yard, meter, tally, None));
    }
    let cycle = Cycle {
        hands,
        target: Arc::new(target),
        admin: admin.context("cycle queues commands: give --admin-url and --token")?,
        in_flight: options.in_flight,
        duration: options.duration,
        count: options.count,
        report_bytes: options.report_bytes,
    };
    let (tally, exactness) = cycle.run(&mut meter).await?;
    Ok(report(&options, &yard, meter, tally, Some(exactness)))
}

async fn measure_idle(
    options: &LoadOptions,
    target: &Target,
    hands: &Arc<Vec<crew::Hand>>,
    meter: &mut Meter<'_>,
) -> Result<Tally> {
    let pace = Pace {
        in_flight: options.in_flight,
        duration: options.duration,
        count: options.count,
        rate: options.rate,
    };
    if options.warm_up > Duration::ZERO {
        let warm_up = Pace {
            duration: options.warm_up,
            count: None,
            ..pace
        };
        idle::poll(hands, target.address, warm_up).await?;
    }
    let window = meter.open().await;
    let tally = idle::poll(hands, target.address, pace).await?;
    meter.close(window).await;
    Ok(tally)
}

async fn yard(options: &LoadOptions, target: Target) -> Result<Yard> {
    let dir = options.ca.clone();
    let keys = MOST_KEYS.min(options.devices.div_ceil(DEVICES_PER_KEY));
    let ca = tokio::task::spawn_blocking(move || {
        let pool = Arc::new(KeyPool::generate(keys)?);
        DeviceCa::open_or_create(&dir, CaKey::Rsa2048, pool)
    });
    let ca = ca
        .await?
        .with_context(|| format!("device CA in {}", options.ca.display()))?;
    let random = || uuid::Uuid::new_v4().as_u64_pair().0;
    Ok(Yard {
        ca,
        target,
        topic: options.topic.clone(),
        seed: options.seed.unwrap_or_else(random),
        in_flight: options.in_flight,
    })
}

fn report(
    options: &LoadOptions,
    yard: &Yard,
    meter: Meter<'_>,
    tally: Tally,
    exactness: Option<Exactness>,
) -> LoadReport {
    let seconds = meter.elapsed.as_secs_f64();
    let per_request = |cpu: f64| cpu * 1e6 / (tally.requests as f64).max(1.0);
    LoadReport {
        scenario: options.scenario,
        proof: format!("{:?}", options.proof).to_lowercase(),
        devices: options.devices,
        in_flight: options.in_flight,
        rate: options.rate,
        seed: yard.seed,
        seconds,
        requests: tally.requests,
        requests_per_second: tally.requests as f64 / seconds.max(f64::EPSILON),
        latency: tally.latency.latency(),
        errors: tally.errors,
        exactness,
        server: meter.server_cpu.map(|cpu| ServerCost {
            cpu_seconds: cpu,
            cpu_us_per_request: per_request(cpu),
            rss_bytes: meter.server_rss,
        }),
        generator_cpu_us_per_request: per_request(meter.own_cpu),
        generator_cpu_seconds: meter.own_cpu,
    }
}

const MOST_KEYS: usize = 16;
const DEVICES_PER_KEY: usize = 50;
