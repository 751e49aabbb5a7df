//! `serve`: the server until it is told to stop, or its storage fails.
//!
//! Exits with 0 when told to stop, with 1 when it cannot go on. A store that cannot be
//! opened now is waited for with 503; one that is in use, too new or without its key is not.
//! SIGHUP reads the certificate files again.

use std::io;
use std::path::Path;
use std::time::Duration;

use actors::{Clock, StoreError};
use anyhow::{Context as _, anyhow, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{hold, logging, welcome};
use crate::config::Config;
use crate::server::{Running, serve};

/// Runs the server.
pub(super) fn run(file: Option<&Path>, force_public_url: bool, demo: bool) -> anyhow::Result<()> {
    let mut config = Config::load(file).context("configuration")?;
    config.force_public_url = force_public_url;
    config.demo = demo;
    logging::start(&config.log)?;
    allow_open_files();
    actix_web::rt::System::new().block_on(until_the_end(config))
}

/// Devices keep their connections: opens as many files as this user is allowed to.
fn allow_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, open_files = limit.current, "the limit of open files stays");
    }
}

async fn until_the_end(config: Config) -> anyhow::Result<()> {
    let mut told = Told::listen(config.demo)?;
    let mut hangup = signal(SignalKind::hangup())?;
    let Some(mut running) = start(&config, &mut told).await? else {
        return Ok(());
    };
    welcome::print(&running).await?;
    loop {
        tokio::select! {
            why = running.failed() => {
                tracing::error!(error = %why, "storage failed, the server ends");
                stop(running, &mut told).await?;
                return Err(anyhow!(why).context("the server cannot go on"));
            }
            which = told.stop() => {
                tracing::info!(signal = which, "stopping");
                stop(running, &mut told).await?;
                tracing::info!("stopped");
                return Ok(());
            }
            _ = hangup.recv() => running.reload_certificates(),
        }
    }
}

/// Starts it, waiting for the store if need be; `None` when told to stop before that.
async fn start(config: &Config, told: &mut Told) -> anyhow::Result<Option<Running>> {
    loop {
        let error = match serve(config.clone(), Clock::System).await {
            Ok(running) => return Ok(Some(running)),
            Err(error) => error,
        };
        match error.chain().find_map(|cause| cause.downcast_ref()) {
            Some(StoreError::InUse) => bail!(
                "another process serves the store in {} (store.path)",
                config.store.path.display()
            ),
            Some(why @ StoreError::Broken(_)) => {
                tokio::select! {
                    opened = hold::until_the_store_opens(config, why) => opened?,
                    _ = told.stop() => return Ok(None),
                }
            }
            _ => return Err(error),
        }
    }
}

/// Stops within ten seconds, at once when told again.
async fn stop(running: Running, told: &mut Told) -> anyhow::Result<()> {
    let store = running.app.store.clone();
    tokio::select! {
        stopped = timeout(STOP_WITHIN, running.stop()) => {
            if stopped.is_err() {
                tracing::warn!("some connections were cut off");
                store.close();
            }
            Ok(())
        }
        _ = told.stop() => bail!("stopped at once; what was answered is safe"),
    }
}

/// What the system tells us.
struct Told {
    interrupt: Signal,
    terminate: Signal,
    /// Who started us for a demonstration is gone; told once.
    abandoned: Option<oneshot::Receiver<()>>,
}

impl Told {
    fn listen(demo: bool) -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            abandoned: demo.then(end_of_input),
        })
    }

    /// Waits until it is to stop.
    async fn stop(&mut self) -> &'static str {
        let abandoned = async {
            match &mut self.abandoned {
                Some(abandoned) => {
                    let _ = abandoned.await;
                }
                None => std::future::pending().await,
            }
        };
        let which = tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
            () = abandoned => "end of input",
        };
        self.abandoned = None;
        which
    }
}

/// Told when standard input closes. A thread of its own, so that a read that never ends
/// keeps nothing from ending.
fn end_of_input() -> oneshot::Receiver<()> {
    let (tell, told) = oneshot::channel();
    std::thread::spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        let _ = tell.send(());
    });
    told
}

/// Connections have this long to finish; the fold and the close come after it.
const STOP_WITHIN: Duration = Duration::from_secs(9);
