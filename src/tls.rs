//! TLS of the listeners: which certificate they show, and what they ask of clients.
//!
//! Made by the composition root, one per listener that speaks TLS; a [`Keeper`] renews
//! or reloads the certificate while the server runs. Knows nothing of HTTP or of
//! devices: a client's certificate is handed on for the identity verifier to judge.

mod clients;
mod files;
mod served;
mod sessions;

use std::any::Any;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::dev::Extensions;
use actix_web::http::Uri;
use actors::Clock;
use actors::tls::{ServerCertificate, TlsRoot, TlsRootError};
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use self::clients::Possession;
use self::files::{Files, Stamp};
use self::served::Served;
use self::sessions::Sessions;
use crate::config::{Admin, AdminTls, Config, Tls};

/// TLS of one listener.
#[derive(Debug)]
pub(crate) struct Listener {
    /// What the listener is started with.
    config: ServerConfig,
    /// PEM of the root devices must be told to trust; none when it is a public one.
    pub(crate) root_pem: Option<Vec<u8>>,
    /// Who keeps its certificate fresh.
    keeper: Keeper,
}

impl Listener {
    /// What the server is started with, and who is to look after it.
    pub(crate) fn parts(listener: Option<Self>) -> (Option<ServerConfig>, Option<Keeper>) {
        listener
            .map(|listener| (listener.config, listener.keeper))
            .unzip()
    }
}

/// Keeps the certificate of a listener fresh.
#[derive(Debug)]
pub(crate) struct Keeper {
    served: Arc<Served>,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Own {
        root: TlsRoot,
        names: Vec<ServerName<'static>>,
        clock: Clock,
        current: ServerCertificate,
    },
    Files {
        files: Files,
        loaded: Stamp,
        /// What was there when last looked: files that still change are left alone.
        seen: Stamp,
    },
}

/// Why a listener cannot speak TLS; the administrator's files or directory are at fault.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{path}: {why}", path = .0.display(), why = .1)]
    Unreadable(PathBuf, io::Error),
    /// No certificates in it.
    #[error("{path}: holds no certificate in PEM", path = .0.display())]
    NoCertificate(PathBuf),
    /// No usable key in it.
    #[error(
        "{path}: holds no unencrypted RSA, EC or Ed25519 private key in PEM",
        path = .0.display()
    )]
    NoKey(PathBuf),
    /// They are of different certificates.
    #[error("{key} is not the key of {certificate}", certificate = .0.display(), key = .1.display())]
    NotAPair(PathBuf, PathBuf),
    /// The URL has no host that a certificate can name.
    #[error("{0:?} has no host that a certificate can name")]
    NoHost(String),
    /// The root of our own.
    #[error(transparent)]
    Root(#[from] TlsRootError),
    /// rustls' word.
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
}

/// The client certificate of a connection, as it was shown in the handshake.
#[derive(Clone, Debug)]
pub(crate) struct PeerLeaf(pub(crate) Arc<[u8]>);

/// TLS of the device listener, if it speaks it. `authorities` are the names, each a
/// whole `Name` in DER, that clients are asked for certificates of.
///
/// # Errors
/// [`TlsError`].
pub(crate) fn device(
    config: &Config,
    clock: &Clock,
    authorities: Vec<Vec<u8>>,
) -> Result<Option<Listener>, TlsError> {
    let keeper = match config.device.tls {
        Tls::Off => return Ok(None),
        Tls::Auto => Keeper::own(config, clock)?,
        Tls::Files => Keeper::files(device_files(config))?,
    };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let clients = Arc::new(Possession::of(authorities, algorithms));
    Ok(Some(keeper.listener(provider, clients)?))
}

/// TLS of the admin listener, if it speaks it.
///
/// # Errors
/// [`TlsError`].
pub(crate) fn admin(admin: &Admin) -> Result<Option<Listener>, TlsError> {
    let keeper = match admin.tls {
        AdminTls::Off => return Ok(None),
        AdminTls::Files => Keeper::files(admin_files(admin))?,
    };
    let provider = Arc::new(aws_lc_rs::default_provider());
    Ok(Some(keeper.listener(
        provider,
        WebPkiClientVerifier::no_client_auth(),
    )?))
}

/// What would keep the listeners from speaking TLS, each with the key at fault. Changes
/// nothing.
pub(crate) fn faults(config: &Config) -> Vec<(&'static str, TlsError)> {
    let device = match config.device.tls {
        Tls::Auto => (
            "device.public_url",
            own_names(&config.device.public_url).err(),
        ),
        Tls::Files => ("device.tls", device_files(config).load().err()),
        Tls::Off => ("device.tls", None),
    };
    let admin = match config.admin.tls {
        AdminTls::Files => ("admin.tls", admin_files(&config.admin).load().err()),
        AdminTls::Off => ("admin.tls", None),
    };
    [device, admin]
        .into_iter()
        .filter_map(|(key, error)| Some((key, error?)))
        .collect()
}

/// The names a certificate of our own is for: the host of the public URL; before that is
/// known, those by which this machine is reached from itself and its network.
///
/// # Errors
/// [`TlsError::NoHost`].
fn own_names(public_url: &str) -> Result<Vec<ServerName<'static>>, TlsError> {
    if !public_url.is_empty() {
        let uri: Option<Uri> = public_url.parse().ok();
        let host = uri.as_ref().and_then(Uri::host);
        let name = host.and_then(|host| server_name(host.trim_matches(['[', ']'])));
        return name
            .map(|name| vec![name])
            .ok_or_else(|| TlsError::NoHost(public_url.to_owned()));
    }
    let machine = rustix::system::uname();
    let machine = machine.nodename().to_str().ok().and_then(server_name);
    let mut names: Vec<_> = ["localhost", "127.0.0.1"]
        .into_iter()
        .filter_map(server_name)
        .collect();
    names.extend(machine.filter(|machine| !names.contains(machine)));
    Ok(names)
}

/// Takes the client certificate of a new connection along, for the requests that come
/// over it. rustls gives it for resumed sessions too.
pub(crate) fn on_connect(connection: &dyn Any, extensions: &mut Extensions) {
    let Some(stream) = connection.downcast_ref::<TlsStream<TcpStream>>() else {
        return;
    };
    let chain = stream.get_ref().1.peer_certificates();
    if let Some(leaf) = chain.and_then(<[_]>::first) {
        extensions.insert(PeerLeaf(leaf.as_ref().into()));
    }
}

/// Looks after all certificates until it is dropped; `reload` says that files changed.
pub(crate) async fn keep(mut keepers: Vec<Keeper>, reload: Arc<Notify>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => keepers.iter_mut().for_each(Keeper::look),
            () = reload.notified() => keepers.iter_mut().for_each(Keeper::reload),
        }
    }
}

impl Keeper {
    fn own(config: &Config, clock: &Clock) -> Result<Self, TlsError> {
        let names = own_names(&config.device.public_url)?;
        let root = TlsRoot::open(&config.store.path, clock.now())?;
        let current = root.certificate_for(&names, clock.now())?;
        Ok(Self {
            served: Served::new(certified(&current)?),
            source: Source::Own {
                root,
                names,
                clock: clock.clone(),
                current,
            },
        })
    }

    fn files(files: Files) -> Result<Self, TlsError> {
        let stamp = files.stamp();
        Ok(Self {
            served: Served::new(files.load()?),
            source: Source::Files {
                files,
                loaded: stamp.clone(),
                seen: stamp,
            },
        })
    }

    fn listener(
        self,
        provider: Arc<CryptoProvider>,
        clients: Arc<dyn ClientCertVerifier>,
    ) -> Result<Listener, TlsError> {
        // ALPN is left to actix, which puts http/1.1 there, and h2 when it is built with it.
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(clients)
            .with_cert_resolver(self.served.clone());
        config.session_storage = Sessions::new();
        config.send_tls13_tickets = 1;
        let root_pem = match &self.source {
            Source::Own { root, .. } => Some(root.certificate_pem.clone()),
            Source::Files { .. } => None,
        };
        Ok(Listener {
            config,
            root_pem,
            keeper: self,
        })
    }

    /// Renews or reloads what is due.
    fn look(&mut self) {
        match &mut self.source {
            Source::Own { clock, current, .. } => {
                if current.is_due(clock.now()) {
                    self.renew();
                }
            }
            Source::Files {
                files,
                loaded,
                seen,
            } => {
                let now = files.stamp();
                let settled = now == *seen;
                *seen = now;
                if settled && seen != loaded {
                    self.reload();
                }
            }
        }
    }

    /// Reads the files again; what is wrong with them is told and changes nothing.
    fn reload(&mut self) {
        let Source::Files { files, loaded, .. } = &mut self.source else {
            return;
        };
        *loaded = files.stamp();
        match files.load() {
            Ok(certificate) => {
                self.served.swap(certificate);
                tracing::info!(file = %files.certificate.display(), "server certificate reloaded");
            }
            Err(error) => {
                tracing::error!(%error, "the new server certificate is of no use, the old one stays");
            }
        }
    }

    fn renew(&mut self) {
        let Source::Own {
            root,
            names,
            clock,
            current,
        } = &mut self.source
        else {
            return;
        };
        let made = root.certificate_for(names, clock.now());
        let made = made.map_err(TlsError::from);
        match made.and_then(|made| Ok((certified(&made)?, made))) {
            Ok((certificate, made)) => {
                self.served.swap(certificate);
                *current = made;
                tracing::info!("server certificate renewed");
            }
            Err(error) => tracing::error!(%error, "the server certificate cannot be renewed"),
        }
    }
}

fn certified(certificate: &ServerCertificate) -> Result<CertifiedKey, TlsError> {
    let chain = certificate.chain.iter().cloned();
    let key = PrivatePkcs8KeyDer::from(certificate.key.clone());
    Ok(CertifiedKey::from_der(
        chain.map(CertificateDer::from).collect(),
        key.into(),
        &aws_lc_rs::default_provider(),
    )?)
}

fn server_name(text: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(text.to_ascii_lowercase()).ok()
}

fn device_files(config: &Config) -> Files {
    Files {
        certificate: config.device.cert_file.clone(),
        key: config.device.key_file.clone(),
    }
}

fn admin_files(admin: &Admin) -> Files {
    Files {
        certificate: admin.cert_file.clone(),
        key: admin.key_file.clone(),
    }
}

/// Two looks that agree, and the files are read.
const LOOK_EVERY: Duration = Duration::from_secs(2);
