//! The device listener's certificate from a public CA: had, shown and renewed.
//!
//! An order is under way for minutes, so this is a task of its own. Whatever goes wrong is
//! told and changes nothing: what was issued before is served on, and before the first
//! certificate the listener refuses handshakes, the CA's own apart.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use actors::Clock;
use actors::acme::{Acme, Authority, Issued};
use actors::expiry::Expiries;
use openssl::x509::X509;
use rustls::pki_types::{DnsName, ServerName};
use schema::expiry::Purpose;
use tokio::sync::watch;

use super::served::Served;
use super::upkeep::asked;
use super::{TlsError, host};
use crate::config::Config;
use crate::public_url::PublicUrl;

/// Has a certificate issued, and renewed.
#[derive(Debug)]
pub(crate) struct Renewal {
    acme: Acme,
    served: Arc<Served>,
    current: Option<Issued>,
    root_pem: Option<Vec<u8>>,
}

impl Renewal {
    pub(super) fn new(config: &Config, clock: &Clock) -> Result<Self, TlsError> {
        let acme = of(config, clock)?;
        let current = acme.certificate();
        let shown = current.as_ref().map(|issued| issued.certified.clone());
        Ok(Self {
            acme,
            served: Served::new(shown),
            current,
            root_pem: root(config)?,
        })
    }

    pub(super) fn served(&self) -> Arc<Served> {
        Arc::clone(&self.served)
    }

    /// PEM of the root of a private CA: devices must be told to trust it. A public one
    /// they trust anyway.
    pub(super) fn root_pem(&self) -> Option<Vec<u8>> {
        self.root_pem.clone()
    }

    /// Looks after the certificate until it is dropped. `reload` says not to wait longer
    /// after a failure.
    pub(super) async fn keep(mut self, expiries: Expiries, mut reload: watch::Receiver<()>) {
        self.have_watched(&expiries);
        let mut hurry = false;
        loop {
            if self.acme.is_due(self.current.as_ref(), hurry) {
                self.order(&expiries).await;
            }
            hurry = tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => false,
                () = asked(&mut reload) => true,
            };
        }
    }

    async fn order(&mut self, expiries: &Expiries) {
        match self.acme.order(&*self.served).await {
            Ok(issued) => {
                self.served.swap(issued.certified.clone());
                let not_after = issued.not_after;
                tracing::info!(not_after, "server certificate issued by the ACME CA");
                self.current = Some(issued);
            }
            Err(error) => {
                let (again_in_seconds, failures) = self.acme.patience();
                tracing::error!(
                    %error,
                    failures,
                    again_in_seconds,
                    "no server certificate from the ACME CA"
                );
            }
        }
        self.have_watched(expiries);
    }

    fn have_watched(&self, expiries: &Expiries) {
        if let Some(Issued {
            not_before,
            not_after,
            ..
        }) = self.current
        {
            expiries.watch_renewed(Purpose::Tls, NAME, not_before, not_after);
        }
        match self.acme.failing() {
            Some(why) => expiries.failing(Purpose::Tls, NAME, why),
            None if self.current.is_none() => {
                expiries.failing(Purpose::Tls, NAME, "the ACME CA has not been asked yet");
            }
            None => {}
        }
    }
}

/// What the data directory holds of the configured CA. Changes nothing.
///
/// # Errors
/// [`TlsError`] naming the key at fault.
pub(crate) fn of(config: &Config, clock: &Clock) -> Result<Acme, TlsError> {
    let device = &config.device;
    let authority = Authority {
        directory: device.acme_directory.clone(),
        contact: device.acme_contact.clone(),
        root_pem: root(config)?,
    };
    let data = &config.store.path;
    Ok(Acme::open(data, authority, names(config)?, clock.clone()))
}

/// The names devices reach our listeners by, which the certificate is for.
///
/// # Errors
/// [`TlsError`] when a CA could not come there.
pub(super) fn names(config: &Config) -> Result<Vec<DnsName<'static>>, TlsError> {
    PublicUrl::of(config)?;
    let device = &config.device;
    let mut names = vec![name("device.public_url", &device.public_url)?];
    if device.checkin_listen.is_some() && !device.checkin_public_url.is_empty() {
        let checkin = name("device.checkin_public_url", &device.checkin_public_url)?;
        if !names.contains(&checkin) {
            names.push(checkin);
        }
    }
    Ok(names)
}

fn name(key: &'static str, url: &str) -> Result<DnsName<'static>, TlsError> {
    match host(url)? {
        ServerName::DnsName(name) => Ok(name),
        _ => Err(TlsError::Address(key, url.to_owned())),
    }
}

/// The root of a private CA, if that is what is asked.
///
/// # Errors
/// [`TlsError`] when the file does not hold exactly one certificate.
pub(super) fn root(config: &Config) -> Result<Option<Vec<u8>>, TlsError> {
    let path = &config.device.acme_root_file;
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let pem = fs::read(path).map_err(|why| TlsError::Unreadable(path.clone(), why))?;
    match X509::stack_from_pem(&pem).as_deref() {
        Ok([_]) => Ok(Some(pem)),
        _ => Err(TlsError::NotOneRoot(path.clone())),
    }
}

const NAME: &str = "device.tls";
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn names_of(change: impl FnOnce(&mut Config)) -> Result<Vec<String>, String> {
        let mut config = Config::default();
        config.device.public_url = "https://MDM.example.org:8443".into();
        change(&mut config);
        let names = names(&config).map_err(|error| error.to_string())?;
        Ok(names.iter().map(|name| name.as_ref().to_owned()).collect())
    }

    #[test]
    fn the_names_are_those_the_listeners_are_reached_by() {
        assert_eq!(names_of(|_| {}).unwrap(), ["mdm.example.org"]);
        let checkin = |url: &'static str, listens: bool| {
            names_of(|config| {
                config.device.checkin_public_url = url.into();
                let at = listens.then_some(([127, 0, 0, 1], 0).into());
                config.device.checkin_listen = at;
            })
        };
        let both = checkin("https://in.example.org", true).unwrap();
        assert_eq!(both, ["mdm.example.org", "in.example.org"]);
        let same = checkin("https://mdm.example.org:8444", true).unwrap();
        assert_eq!(same, ["mdm.example.org"]);
        let elsewhere = checkin("https://in.example.org", false).unwrap();
        assert_eq!(elsewhere, ["mdm.example.org"]);
        let address = checkin("https://192.0.2.7", true).unwrap_err();
        assert!(
            address.starts_with("device.checkin_public_url"),
            "{address}"
        );
    }

    #[test]
    fn what_no_ca_can_reach_is_refused_by_its_key() {
        for url in [
            "",
            "https://192.0.2.7",
            "https://[2001:db8::7]:8443",
            "https://localhost",
            "http://mdm.example.org",
        ] {
            let why = names_of(|config| config.device.public_url = url.into());
            let why = why.unwrap_err();
            assert!(why.starts_with("device.public_url"), "{url}: {why}");
        }
    }

    #[test]
    fn a_root_file_holds_one_certificate() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("root.pem");
        let mut config = Config::default();
        assert!(root(&config).unwrap().is_none());
        config.device.acme_root_file.clone_from(&file);
        assert!(matches!(root(&config), Err(TlsError::Unreadable(..))));
        let one = actors::tls::TlsRoot::open(directory.path(), Clock::System.now()).unwrap();
        let one = one.certificate_pem;
        for (pem, fits) in [
            (one.clone(), true),
            ([one.clone(), one].concat(), false),
            (b"hello".to_vec(), false),
        ] {
            fs::write(&file, pem).unwrap();
            assert_eq!(root(&config).is_ok(), fits);
        }
    }
}
