//! TLS of the listeners: which certificate they show, and what they ask of clients.
//!
//! Made by the composition root, one per listener that speaks TLS; a keeper renews
//! or reloads the certificate while the server runs, or has a public CA issue it. Knows
//! nothing of HTTP or of
//! devices: a client's certificate is handed on for the identity verifier to judge.

pub(crate) mod acme;
mod clients;
mod connection;
mod files;
mod keeper;
mod served;
mod sessions;
mod upkeep;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use actix_web::http::Uri;
use actors::Clock;
use actors::tls::TlsRootError;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::ServerName;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use thiserror::Error;

use self::acme::Renewal;
use self::clients::Possession;
use self::connection::ACME_TLS;
pub(crate) use self::connection::{PeerLeaf, Validation, on_connect};
use self::files::Files;
use self::keeper::Keeper;
use self::sessions::Sessions;
pub(crate) use self::upkeep::{Upkeep, keep};
use crate::config::{Admin, AdminTls, Config, Device, Tls};
use crate::public_url::NoPublicUrl;

/// TLS of one listener.
#[derive(Debug)]
pub(crate) struct Listener {
    config: ServerConfig,
    /// PEM of the root devices must be told to trust; none when it is a public one.
    pub(crate) root_pem: Option<Vec<u8>>,
    upkeep: Upkeep,
}

impl Listener {
    fn new(
        upkeep: Upkeep,
        provider: Arc<CryptoProvider>,
        clients: Arc<dyn ClientCertVerifier>,
    ) -> Result<Self, TlsError> {
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(clients)
            .with_cert_resolver(upkeep.served());
        // The rest of ALPN is left to actix, which puts http/1.1 before this, and h2 when
        // it is built with it.
        if matches!(upkeep, Upkeep::Renewal(_)) {
            config.alpn_protocols = vec![ACME_TLS.to_vec()];
        }
        config.session_storage = Sessions::new();
        config.send_tls13_tickets = 1;
        Ok(Self {
            config,
            root_pem: upkeep.root_pem(),
            upkeep,
        })
    }

    /// What the server is started with, and who is to look after it.
    pub(crate) fn parts(listener: Option<Self>) -> (Option<ServerConfig>, Option<Upkeep>) {
        listener
            .map(|listener| (listener.config, listener.upkeep))
            .unzip()
    }
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
    /// The URL's host is an address.
    #[error("{0} is {1:?}, and device.tls = \"acme\" needs a DNS name there")]
    Address(&'static str, String),
    /// No CA could come there.
    #[error(transparent)]
    PublicUrl(#[from] NoPublicUrl),
    /// Devices are told of one root.
    #[error("{path}: must hold one certificate in PEM, the CA's root", path = .0.display())]
    NotOneRoot(PathBuf),
    /// The root of our own.
    #[error(transparent)]
    Root(#[from] TlsRootError),
    /// rustls' word.
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
}

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
    let upkeep = match config.device.tls {
        Tls::Off => return Ok(None),
        Tls::Auto => Upkeep::Keeper(Keeper::own(config, clock)?.into()),
        Tls::Files => Upkeep::Keeper(Keeper::files("device.tls", device_files(config))?.into()),
        Tls::Acme => Upkeep::Renewal(Renewal::new(config, clock)?.into()),
    };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let clients = Arc::new(Possession::of(authorities, algorithms));
    Listener::new(upkeep, provider, clients).map(Some)
}

/// TLS of the admin listener, if it speaks it.
///
/// # Errors
/// [`TlsError`].
pub(crate) fn admin(admin: &Admin) -> Result<Option<Listener>, TlsError> {
    let keeper = match admin.tls {
        AdminTls::Off => return Ok(None),
        AdminTls::Files => Keeper::files("admin.tls", admin_files(admin))?,
    };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let nobody = WebPkiClientVerifier::no_client_auth();
    Listener::new(Upkeep::Keeper(keeper.into()), provider, nobody).map(Some)
}

/// What would keep the listeners from speaking TLS, each with the key at fault. Changes
/// nothing.
pub(crate) fn faults(config: &Config) -> Vec<(&'static str, TlsError)> {
    let checkin = match (config.device.tls, &*config.device.checkin_public_url) {
        (Tls::Files | Tls::Acme | Tls::Off, _) | (Tls::Auto, "") => None,
        (Tls::Auto, url) => host(url).err(),
    };
    let device = match config.device.tls {
        Tls::Auto => ("device.public_url", main_names(&config.device).err()),
        Tls::Files => ("device.tls", device_files(config).load().err()),
        Tls::Acme => ("device.tls", acme::names(config).err()),
        Tls::Off => ("device.tls", None),
    };
    let root = match config.device.tls {
        Tls::Acme => acme::root(config).err(),
        Tls::Auto | Tls::Files | Tls::Off => None,
    };
    let admin = match config.admin.tls {
        AdminTls::Files => ("admin.tls", admin_files(&config.admin).load().err()),
        AdminTls::Off => ("admin.tls", None),
    };
    let checkin = ("device.checkin_public_url", checkin);
    let root = ("device.acme_root_file", root);
    [device, checkin, root, admin]
        .into_iter()
        .filter_map(|(key, error)| Some((key, error?)))
        .collect()
}

/// The names a certificate of our own is for: the hosts devices are told.
///
/// # Errors
/// [`TlsError::NoHost`].
fn own_names(device: &Device) -> Result<Vec<ServerName<'static>>, TlsError> {
    let mut names = main_names(device)?;
    if !device.checkin_public_url.is_empty() {
        let checkin = host(&device.checkin_public_url)?;
        if !names.contains(&checkin) {
            names.push(checkin);
        }
    }
    Ok(names)
}

/// The host of a URL.
fn host(url: &str) -> Result<ServerName<'static>, TlsError> {
    let uri: Option<Uri> = url.parse().ok();
    let host = uri.as_ref().and_then(Uri::host);
    let name = host.and_then(|host| server_name(host.trim_matches(['[', ']'])));
    name.ok_or_else(|| TlsError::NoHost(url.to_owned()))
}

/// The host of the public URL; before that is known, the names by which this machine is
/// reached from itself and its network.
fn main_names(device: &Device) -> Result<Vec<ServerName<'static>>, TlsError> {
    if !device.public_url.is_empty() {
        return Ok(vec![host(&device.public_url)?]);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn names_for(
        public_url: &str,
        checkin_public_url: &str,
    ) -> Result<Vec<ServerName<'static>>, TlsError> {
        own_names(&Device {
            public_url: public_url.into(),
            checkin_public_url: checkin_public_url.into(),
            ..Device::default()
        })
    }

    #[test]
    fn a_certificate_is_for_the_host_of_the_check_in_url_too() {
        let names = names_for("https://mdm.example.org", "https://in.example.org:8444").unwrap();
        let texts: Vec<_> = names.iter().map(ServerName::to_str).collect();
        assert_eq!(texts, ["mdm.example.org", "in.example.org"]);
        let same = names_for("https://mdm.example.org", "https://mdm.example.org:8444");
        assert_eq!(same.unwrap().len(), 1);
        assert!(names_for("https://mdm.example.org", "in example").is_err());
    }

    #[test]
    fn a_certificate_is_for_the_host_of_the_public_url() {
        let cases = [
            ("https://mdm.example.org", "mdm.example.org"),
            ("https://MDM.example.org:8443/some/path", "mdm.example.org"),
            ("https://192.0.2.7:8443", "192.0.2.7"),
            ("https://[2001:db8::7]:8443/", "2001:db8::7"),
        ];
        for (url, name) in cases {
            let names = names_for(url, "").unwrap();
            assert_eq!(names.len(), 1);
            assert_eq!(names[0].to_str(), name, "{url}");
        }
        for url in ["mdm example", "/path", "https://a,DNS:b.example"] {
            assert!(names_for(url, "").is_err(), "{url}");
        }
    }

    #[test]
    fn before_the_public_url_is_known_it_is_for_this_machine() {
        let names = names_for("", "").unwrap();
        let texts: Vec<_> = names.iter().map(ServerName::to_str).collect();
        assert_eq!(&texts[..2], ["localhost", "127.0.0.1"]);
        assert!(texts.len() <= 3);
    }
}
