//! The composition root: everything is made here, once, and handed down.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor as _, Arbiter};
use actix_web::body::MessageBody;
use actix_web::dev::{Server, ServerHandle, Service as _, ServiceRequest, ServiceResponse};
use actix_web::middleware::{Next, from_fn};
use actix_web::{App as WebApp, HttpServer, web};
use actors::admission::Admission;
use actors::apns::Endpoint;
use actors::ca::DeviceCa;
use actors::device::House;
use actors::expiry::{self, Expiries};
use actors::housekeeping::Housekeeper;
use actors::pusher::{PushFigures, PushOptions, Pusher};
use actors::registry::Registry;
use actors::renewer::Renewer;
use actors::scep::Scep;
use actors::store::GuardLimits;
use actors::{Clock, Store, StoreError, StoreOptions};
use anyhow::Context as _;
use rustls::ServerConfig;
use schema::expiry::Purpose;
use tokio::sync::{oneshot, watch};

use crate::app::App;
use crate::auth::{Scope, new_token, token_record};
use crate::config::Config;
use crate::enroll::Enroller;
use crate::error::DeviceError;
use crate::identity::{IdentityVerifier, MessageVerifier};
use crate::link_limits::LinkLimits;
use crate::mdm::Takes;
use crate::metrics::Metrics;
use crate::{api, compat, enroll, mdm, public_url, scep, tls};

/// A server that runs.
#[derive(Debug)]
pub struct Running {
    /// Where devices connect.
    pub device: SocketAddr,
    /// Where check-ins are taken besides.
    pub checkin: Option<SocketAddr>,
    /// Where admins connect.
    pub admin: SocketAddr,
    /// The first token, when this was the first start.
    pub first_token: Option<String>,
    /// The house, for those in the same process.
    pub app: web::Data<App>,
    servers: Vec<ServerHandle>,
    ended: oneshot::Receiver<StoreError>,
    housekeeping: tokio::task::JoinHandle<()>,
    certificates: Vec<tokio::task::JoinHandle<()>>,
    reload: watch::Sender<()>,
    supervising: Arbiter,
}

/// Opens the store and starts the listeners.
///
/// # Errors
/// Whatever keeps it from starting, in words for the person at the terminal.
pub async fn serve(mut config: Config, clock: Clock) -> anyhow::Result<Running> {
    let device = bind(config.device.listen, "device.listen")?;
    let checkin = config.device.checkin_listen;
    let checkin = checkin.map(|at| bind(at, "device.checkin_listen"));
    let checkin = checkin.transpose()?;
    let admin = bind(config.admin.listen, "admin.listen")?;
    let store = open_store(&config, &clock)?;
    public_url::keep(&config, &store).await?;
    let supervising = Arbiter::new();
    let expiries = Expiries::default();
    let (verifier, messages, ca) = verifiers(&config, &store, &expiries)?;
    let device_tls = tls::device(&config, &clock, verifier.authority_names())
        .context("TLS of the device listener")?;
    let checkin_at = checkin.as_ref().map(TcpListener::local_addr).transpose()?;
    public_url::complete_demo(
        &mut config,
        device_tls.is_some(),
        device.local_addr()?,
        checkin_at,
    );
    let admin_tls = tls::admin(&config.admin).context("TLS of the admin listener")?;
    let made = Made {
        verifier,
        messages,
        ca,
        expiries: expiries.clone(),
        tls_root_pem: device_tls.as_ref().and_then(|tls| tls.root_pem.clone()),
    };
    let app = web::Data::new(assemble(config, clock, store, made, &supervising)?);
    let first_token = first_token(&app).await?;

    let (device_at, admin_at) = (device.local_addr()?, admin.local_addr()?);
    let (device_tls, device_upkeep) = tls::Listener::parts(device_tls);
    let (admin_tls, admin_upkeep) = tls::Listener::parts(admin_tls);
    let checkin = checkin
        .map(|listener| device_server(app.clone(), listener, device_tls.clone(), Takes::CheckIns));
    let device = device_server(app.clone(), device, device_tls, Takes::All)?;
    let admin = admin_server(app.clone(), admin, admin_tls)?;
    let servers = run([device, admin].into_iter().chain(checkin.transpose()?));

    let reload = watch::Sender::new(());
    let upkeep = device_upkeep.into_iter().chain(admin_upkeep);
    let certificates = tls::keep(upkeep, &expiries, &reload);
    let ca_ends = expiry::not_after(&app.scep.ca().certificate_pem).context("ca.pem")?;
    let renewer = Renewer::new(app.store.clone(), app.config.scep.validity_days, ca_ends)?;
    let housekeeper = Housekeeper::new(
        app.store.clone(),
        app.registry.clone(),
        app.clock.clone(),
        app.expiries.clone(),
        app.scep.clone(),
        renewer,
        app.config.store.retention_days,
    );
    let (tell, ended) = oneshot::channel();
    let housekeeping = actix::spawn(async move {
        // Nobody listens any more when the server was stopped in time.
        let _ = tell.send(housekeeper.run().await);
    });
    Ok(Running {
        device: device_at,
        checkin: checkin_at,
        admin: admin_at,
        first_token,
        servers,
        ended,
        housekeeping,
        certificates,
        reload,
        supervising,
        app,
    })
}

impl Running {
    /// Waits until storage fails; never returns while all is well.
    pub async fn failed(&mut self) -> StoreError {
        match (&mut self.ended).await {
            Ok(error) => error,
            Err(_) => std::future::pending().await,
        }
    }

    /// Reads the listeners' certificate files again, and does not wait longer before it
    /// asks a CA that refused.
    pub fn reload_certificates(&self) {
        self.reload.send_replace(());
    }

    /// Finishes what is in flight, refuses new, folds and closes.
    pub async fn stop(self) {
        for server in &self.servers {
            server.stop(true).await;
        }
        self.housekeeping.abort();
        for task in &self.certificates {
            task.abort();
        }
        self.supervising.stop();
        self.app.store.close();
    }
}

/// Lets the servers run; what stops them.
fn run(servers: impl Iterator<Item = Server>) -> Vec<ServerHandle> {
    let run = |server: Server| {
        let handle = server.handle();
        actix::spawn(server);
        handle
    };
    servers.map(run).collect()
}

fn bind(address: SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).with_context(|| format!("{key}: cannot listen on {address}"))
}

/// Opens the store of a configuration.
///
/// # Errors
/// [`StoreError`].
pub fn open_store(config: &Config, clock: &Clock) -> Result<Store, StoreError> {
    let key = &config.store.seal_key_file;
    let options = StoreOptions {
        directory: config.store.path.clone(),
        seal_key_file: (!key.as_os_str().is_empty()).then(|| key.clone()),
        cache_bytes: config.store.cache_mb << 20,
        reserve_bytes: config.store.reserve_mb.saturating_mul(1 << 20),
        body_budget_bytes: config.store.budget_mb.saturating_mul(1 << 20),
        guard: GuardLimits {
            max_devices: config.guard.max_devices,
            window_minutes: config.guard.window_minutes,
        },
    };
    Store::open(options, clock.clone())
}

/// Who proves identities, who proves messages, and the CA that issues.
fn verifiers(
    config: &Config,
    store: &Store,
    expiries: &Expiries,
) -> anyhow::Result<(IdentityVerifier, MessageVerifier, DeviceCa)> {
    let (key, days) = (config.scep.ca_key_type.into(), config.scep.ca_validity_days);
    let (known, _) = store.devices(None, 1, |_| Ok(true))?;
    let ca = match known.as_slice() {
        [] => DeviceCa::open(&config.store.path, key, days)?,
        _ => DeviceCa::reopen(&config.store.path)?,
    };
    if ca.key() != Some(key) {
        tracing::warn!("scep.ca_key_type: the device CA keeps the key it was made with");
    }
    let ca_ends = expiry::not_after(&ca.certificate_pem).context("ca.pem")?;
    expiries.watch(Purpose::DeviceCa, "ca.pem", ca_ends);
    let extra = authorities("device.extra_ca_files", &config.device.extra_ca_files)?;
    let makers = authorities("device.ota_trust_files", &config.device.ota_trust_files)?;
    let ours = std::slice::from_ref(&ca.certificate_pem);
    let messages = MessageVerifier::new(ours, &makers).context("device.ota_trust_files")?;
    let header = &config.device.client_cert_header;
    let verifier = IdentityVerifier::new(
        ours,
        &extra,
        config.device.trusted_proxies.clone(),
        (!header.is_empty()).then(|| header.clone()),
    )
    .context("device.extra_ca_files")?;
    Ok((verifier, messages, ca))
}

fn authorities(key: &str, files: &[PathBuf]) -> anyhow::Result<Vec<Vec<u8>>> {
    let read =
        |file: &PathBuf| fs::read(file).with_context(|| format!("{key}: {}", file.display()));
    files.iter().map(read).collect()
}

/// What is made of certificates before the rest of the house.
struct Made {
    verifier: IdentityVerifier,
    messages: MessageVerifier,
    ca: DeviceCa,
    expiries: Expiries,
    tls_root_pem: Option<Vec<u8>>,
}

fn assemble(
    config: Config,
    clock: Clock,
    store: Store,
    made: Made,
    supervising: &Arbiter,
) -> anyhow::Result<App> {
    let enroller = Enroller::new(
        &config.store.path,
        &made.ca.certificate_pem,
        made.tls_root_pem.as_deref(),
        &store,
    )?;
    let signer_ends = enroller.signer_ends()?;
    let expiries = &made.expiries;
    expiries.watch(Purpose::ProfileSigner, "profile.pem", signer_ends);
    let scep = Scep::open(
        &config.store.path,
        made.ca,
        store.clone(),
        clock.clone(),
        made.expiries.clone(),
        config.scep.validity_days,
    )?;
    let house = House {
        store: store.clone(),
        clock: clock.clone(),
        reenroll: config.device.reenroll.into(),
    };
    let registry = Registry::new(house)?;
    let push_figures = Arc::new(PushFigures::default());
    let pusher = Pusher::new(
        store.clone(),
        clock.clone(),
        push_options(&config)?,
        push_figures.clone(),
        made.expiries.clone(),
    )?;
    let pusher = Pusher::start_in_arbiter(&supervising.handle(), |_| pusher);
    let admission = Admission::new(
        store.clone(),
        config.limits.requests,
        config.limits.body_mb << 20,
    );
    let per_second = config.limits.link_per_second;
    Ok(App {
        enroll_limits: LinkLimits::new(per_second),
        scep_limits: LinkLimits::new(per_second),
        ota_limits: LinkLimits::new(per_second),
        nanomdm_api_key: config.nanomdm_api_key()?,
        metrics: Metrics::default(),
        config,
        clock,
        store,
        registry,
        pusher,
        push_figures,
        expiries: made.expiries,
        verifier: made.verifier,
        messages: made.messages,
        tls_root_pem: made.tls_root_pem,
        scep,
        enroller,
        admission,
    })
}

fn push_options(config: &Config) -> anyhow::Result<PushOptions> {
    let apns = &config.apns;
    let root = &apns.root_file;
    let extra_root_pem = if root.as_os_str().is_empty() {
        None
    } else {
        Some(fs::read(root).with_context(|| format!("apns.root_file: {}", root.display()))?)
    };
    Ok(PushOptions {
        endpoint: Endpoint {
            host: apns.host.clone(),
            port: apns.port,
            extra_root_pem,
            max_connections: apns.connections,
        },
        expiration_hours: apns.expiration_hours,
        max_rate: apns.max_rate,
    })
}

/// Makes the first token when there is none: stored, written to a private file, shown once.
async fn first_token(app: &App) -> anyhow::Result<Option<String>> {
    if !app.store.tokens().is_empty() {
        return Ok(None);
    }
    let (secret, hash) = new_token().map_err(|_| anyhow::anyhow!("no randomness"))?;
    let record = token_record(&hash, "admin", &Scope::ALL, app.clock.now(), None);
    write_private(&token_file(&app.config), secret.as_bytes())?;
    app.store.put_token(hash, record).await?;
    Ok(Some(secret))
}

/// Where the first token is written.
#[must_use]
pub fn token_file(config: &Config) -> PathBuf {
    config.store.path.join("admin.token")
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// A listener of devices; the one that takes all holds their actors.
fn device_server(
    app: web::Data<App>,
    listener: TcpListener,
    tls: Option<ServerConfig>,
    takes: Takes,
) -> io::Result<Server> {
    let registry = app.registry.clone();
    let server = HttpServer::new(move || {
        // Runs once on each worker: device actors live on the workers' own arbiters.
        if takes == Takes::All {
            registry.offer(Arbiter::current());
        }
        let config = app.config.device.clone();
        WebApp::new()
            .app_data(app.clone())
            .wrap(from_fn(unless_for_the_ca))
            .configure(move |service| match takes {
                Takes::All => {
                    // First what comes most, so that no pattern is tried before it.
                    mdm::routes(service, &config.checkin_path, &config.connect_path);
                    enroll::routes(service);
                    scep::routes(service);
                }
                Takes::CheckIns => mdm::checkin_routes(service, &config.checkin_path),
            })
    });
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    let server = server
        .workers(workers)
        .keep_alive(Duration::from_secs(75))
        .client_request_timeout(Duration::from_secs(30))
        .tls_handshake_timeout(Duration::from_secs(10))
        .max_connection_rate(HANDSHAKES)
        .on_connect(tls::on_connect)
        .shutdown_timeout(8)
        .disable_signals();
    let server = match tls {
        Some(tls) => server.listen_rustls_0_23(listener, tls)?,
        None => server.listen(listener)?,
    };
    Ok(server.run())
}

/// What comes over a connection that was for a CA to look at reaches no handler, and its
/// answer no one: the connection is shut already.
async fn unless_for_the_ca(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    if request.conn_data::<tls::Validation>().is_some() {
        return Err(DeviceError::Validation.into());
    }
    next.call(request).await
}

fn admin_server(
    app: web::Data<App>,
    listener: TcpListener,
    tls: Option<ServerConfig>,
) -> io::Result<Server> {
    let server = HttpServer::new(move || {
        let counted = app.clone();
        let dialect = app.nanomdm_api_key.is_some();
        WebApp::new()
            .app_data(app.clone())
            .wrap_fn(move |request, service| {
                let app = counted.clone();
                let response = service.call(request);
                async move {
                    let response = response.await?;
                    app.metrics.admin(response.status().as_u16());
                    Ok(response)
                }
            })
            .configure(move |service| {
                if dialect {
                    compat::nanomdm::routes(service);
                }
            })
            .configure(api::routes)
    });
    let server = server
        .workers(1)
        .client_request_timeout(Duration::from_secs(30))
        .shutdown_timeout(8)
        .disable_signals();
    let server = match tls {
        Some(tls) => server.listen_rustls_0_23(listener, tls)?,
        None => server.listen(listener)?,
    };
    Ok(server.run())
}

/// TLS handshakes under way on one worker; beyond it, connections wait to be accepted.
/// Many, since one that is never begun costs little but its place for ten seconds, and
/// devices must not wait behind thousands of those.
const HANDSHAKES: usize = 20_000;
