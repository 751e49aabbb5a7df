//! While the store cannot be opened: 503 on all listeners, and another try every 2 s.
//!
//! Called by `serve`, so that devices and load balancers see a server that will be back
//! rather than one that flaps. Lets go of their sockets before it returns.

use std::net::SocketAddr;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::http::header::RETRY_AFTER;
use actix_web::{App, HttpResponse, HttpServer, web};
use actors::{Clock, StoreError};
use anyhow::Context as _;
use rustls::ServerConfig;
use tokio::time::sleep;

use crate::config::Config;
use crate::error::Problem;
use crate::server::open_store;
use crate::tls::{self, TlsError};

/// Waits until the store can be opened. `why` is what kept it from that.
///
/// # Errors
/// When a listener cannot be had, or waiting will not help.
pub(super) async fn until_the_store_opens(config: &Config, why: &StoreError) -> anyhow::Result<()> {
    tracing::error!(
        path = %config.store.path.display(),
        error = %why,
        "the store cannot be opened; answering 503 and trying again every 2 s"
    );
    let spoken = |key, made: Result<Option<tls::Listener>, TlsError>| {
        let made = made.inspect_err(|why| {
            // Who speaks TLS is then not answered at all, and comes again just the same.
            tracing::warn!(key, error = %why, "503 is said without TLS");
        });
        tls::Listener::parts(made.ok().flatten()).0
    };
    let device_tls = tls::device(config, &Clock::System, Vec::new());
    let device_tls = spoken("device.tls", device_tls);
    let admin_tls = spoken("admin.tls", tls::admin(&config.admin));
    let checkin = config.device.checkin_listen;
    let checkin = checkin.map(|at| answer(at, device_tls.clone(), false));
    let checkin = checkin.transpose().context("device.checkin_listen")?;
    let device = answer(config.device.listen, device_tls, false).context("device.listen")?;
    let admin = answer(config.admin.listen, admin_tls, true).context("admin.listen")?;
    let outcome = loop {
        sleep(AGAIN_AFTER).await;
        match try_to_open(config.clone()).await {
            Ok(()) => break Ok(()),
            Err(StoreError::Broken(why)) => tracing::debug!(%why, "the store is still shut"),
            Err(other) => break Err(other),
        }
    };
    device.stop(false).await;
    if let Some(checkin) = checkin {
        checkin.stop(false).await;
    }
    admin.stop(false).await;
    Ok(outcome?)
}

/// Opens the store and closes it again: only `serve` keeps it.
async fn try_to_open(config: Config) -> Result<(), StoreError> {
    let opened = tokio::task::spawn_blocking(move || {
        open_store(&config, &Clock::System).map(|store| store.close())
    });
    opened.await.unwrap_or(Err(StoreError::Closed))
}

fn answer(
    at: SocketAddr,
    tls: Option<ServerConfig>,
    to_admins: bool,
) -> std::io::Result<ServerHandle> {
    let sorry = move || async move { not_yet(to_admins) };
    let server = HttpServer::new(move || App::new().default_service(web::to(sorry)))
        .workers(1)
        .on_connect(tls::on_connect)
        .disable_signals();
    let server = match tls {
        Some(tls) => server.bind_rustls_0_23(at, tls)?.run(),
        None => server.bind(at)?.run(),
    };
    let handle = server.handle();
    actix_web::rt::spawn(server);
    Ok(handle)
}

/// Devices get no body, admins a problem document.
fn not_yet(to_admins: bool) -> HttpResponse {
    use actix_web::ResponseError as _;
    if to_admins {
        return Problem::unavailable("the store cannot be opened yet").error_response();
    }
    HttpResponse::ServiceUnavailable()
        .insert_header((RETRY_AFTER, "10"))
        .finish()
}

const AGAIN_AFTER: Duration = Duration::from_secs(2);
