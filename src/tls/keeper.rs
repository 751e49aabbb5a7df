//! Keeps a listener's certificate fresh: renews our own, reloads the administrator's.
//!
//! What goes wrong is told in the log and changes nothing: the old certificate stays.

use std::sync::Arc;
use std::time::Duration;

use actors::Clock;
use actors::expiry::Expiries;
use actors::tls::{ServerCertificate, TlsRoot};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::sign::CertifiedKey;
use schema::expiry::Purpose;
use schema::x509::Certificate;
use tokio::sync::watch;

use super::files::{Files, Stamp};
use super::served::Served;
use super::upkeep::asked;
use super::{TlsError, own_names};
use crate::config::Config;

/// Keeps the certificate of a listener fresh.
#[derive(Debug)]
pub(crate) struct Keeper {
    /// The key that names it in the configuration.
    name: &'static str,
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

/// Looks after all certificates until it is dropped, and has their ends watched.
/// `reload` says that files changed.
pub(super) async fn keep(
    mut keepers: Vec<Keeper>,
    expiries: Expiries,
    mut reload: watch::Receiver<()>,
) {
    for keeper in &keepers {
        keeper.have_watched(&expiries);
    }
    loop {
        let asked = tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => false,
            () = asked(&mut reload) => true,
        };
        for keeper in &mut keepers {
            let swapped = if asked {
                keeper.reload()
            } else {
                keeper.look()
            };
            if swapped {
                keeper.have_watched(&expiries);
            }
        }
    }
}

impl Keeper {
    pub(super) fn own(config: &Config, clock: &Clock) -> Result<Self, TlsError> {
        let names = own_names(&config.device)?;
        let root = TlsRoot::open(&config.store.path, clock.now())?;
        let current = root.certificate_for(&names, clock.now())?;
        Ok(Self {
            name: "device.tls",
            served: Served::new(Some(certified(&current)?)),
            source: Source::Own {
                root,
                names,
                clock: clock.clone(),
                current,
            },
        })
    }

    pub(super) fn files(name: &'static str, files: Files) -> Result<Self, TlsError> {
        let stamp = files.stamp();
        Ok(Self {
            name,
            served: Served::new(Some(files.load()?)),
            source: Source::Files {
                files,
                loaded: stamp.clone(),
                seen: stamp,
            },
        })
    }

    pub(super) fn served(&self) -> Arc<Served> {
        Arc::clone(&self.served)
    }

    /// PEM of the root, when it is our own.
    pub(super) fn root_pem(&self) -> Option<Vec<u8>> {
        match &self.source {
            Source::Own { root, .. } => Some(root.certificate_pem.clone()),
            Source::Files { .. } => None,
        }
    }

    fn have_watched(&self, expiries: &Expiries) {
        if let Source::Own { root, current, .. } = &self.source {
            let (begin, end) = (current.not_before, current.not_after);
            expiries.watch_renewed(Purpose::Tls, self.name, begin, end);
            expiries.watch(Purpose::TlsRoot, "tls-root.pem", root.not_after);
            return;
        }
        let served = self.served.now();
        let leaf = served.as_ref().and_then(|served| served.cert.first());
        let leaf = leaf.map(|leaf| Certificate::parse(leaf));
        match leaf {
            Some(Ok(leaf)) => expiries.watch(Purpose::Tls, self.name, leaf.not_after),
            _ => tracing::warn!(name = self.name, "the certificate's end cannot be read"),
        }
    }

    /// Renews or reloads what is due; whether another certificate is served now.
    fn look(&mut self) -> bool {
        match &mut self.source {
            Source::Own { clock, current, .. } => current.is_due(clock.now()) && self.renew(),
            Source::Files {
                files,
                loaded,
                seen,
            } => {
                let now = files.stamp();
                let settled = now == *seen;
                *seen = now;
                settled && seen != loaded && self.reload()
            }
        }
    }

    /// Reads the files again; what is wrong with them is told and changes nothing.
    fn reload(&mut self) -> bool {
        let Source::Files { files, loaded, .. } = &mut self.source else {
            return false;
        };
        *loaded = files.stamp();
        match files.load() {
            Ok(certificate) => {
                self.served.swap(certificate);
                tracing::info!(file = %files.certificate.display(), "server certificate reloaded");
                true
            }
            Err(error) => {
                tracing::error!(%error, "the new server certificate is of no use, the old one stays");
                false
            }
        }
    }

    fn renew(&mut self) -> bool {
        let Source::Own {
            root,
            names,
            clock,
            current,
        } = &mut self.source
        else {
            return false;
        };
        let made = root.certificate_for(names, clock.now());
        let made = made.map_err(TlsError::from);
        match made.and_then(|made| Ok((certified(&made)?, made))) {
            Ok((certificate, made)) => {
                self.served.swap(certificate);
                *current = made;
                tracing::info!("server certificate renewed");
                true
            }
            Err(error) => {
                tracing::error!(%error, "the server certificate cannot be renewed");
                false
            }
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

/// Two looks that agree, and the files are read.
const LOOK_EVERY: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use openssl::pkey::PKey;
    use openssl::rsa::Rsa;
    use openssl::x509::X509;
    use schema::UnixMillis;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn shown(keeper: &Keeper) -> Vec<u8> {
        keeper.served.now().unwrap().cert[0].to_vec()
    }

    /// Writes a new pair; its leaf.
    fn write_pair(directory: &Path) -> Vec<u8> {
        let _ = fs::remove_file(directory.join("tls-leaf.pem"));
        let root = TlsRoot::open(directory, NOW).unwrap();
        let names = [ServerName::try_from("localhost").unwrap()];
        let made = root.certificate_for(&names, NOW).unwrap();
        let leaf = X509::from_der(&made.chain[0]).unwrap();
        let key = PKey::private_key_from_der(&made.key).unwrap();
        fs::write(directory.join("leaf.pem"), leaf.to_pem().unwrap()).unwrap();
        let key = key.private_key_to_pem_pkcs8().unwrap();
        fs::write(directory.join("leaf.key"), key).unwrap();
        made.chain[0].clone()
    }

    fn files_in(directory: &Path) -> Files {
        Files {
            certificate: directory.join("leaf.pem"),
            key: directory.join("leaf.key"),
        }
    }

    #[test]
    fn files_are_read_when_two_looks_agree_that_they_changed() {
        let directory = tempfile::tempdir().unwrap();
        let first = write_pair(directory.path());
        let mut keeper = Keeper::files("device.tls", files_in(directory.path())).unwrap();
        assert_eq!(shown(&keeper), first);
        let second = write_pair(directory.path());
        keeper.look();
        assert_eq!(shown(&keeper), first, "they may still be written to");
        keeper.look();
        assert_eq!(shown(&keeper), second);
    }

    #[test]
    fn the_end_of_what_is_served_is_watched() {
        let directory = tempfile::tempdir().unwrap();
        write_pair(directory.path());
        let keeper = Keeper::files("admin.tls", files_in(directory.path())).unwrap();
        let expiries = Expiries::default();
        keeper.have_watched(&expiries);
        let watched = expiries.all();
        assert_eq!(watched.len(), 1);
        assert_eq!(watched[0].name, "admin.tls");
        let days = (watched[0].not_after - 1_800_000_000) / 86_400;
        assert_eq!(days, 396);
    }

    #[test]
    fn a_bad_replacement_leaves_the_old_one_in_use() {
        let directory = tempfile::tempdir().unwrap();
        let first = write_pair(directory.path());
        let files = files_in(directory.path());
        let mut keeper = Keeper::files("device.tls", files.clone()).unwrap();
        let other = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
        fs::write(&files.key, other.private_key_to_pem_pkcs8().unwrap()).unwrap();
        let wrong = files.load();
        assert!(matches!(wrong, Err(TlsError::NotAPair(..))), "{wrong:?}");
        keeper.reload();
        assert_eq!(shown(&keeper), first);
        fs::write(&files.key, "hello").unwrap();
        let wrong = files.load();
        assert!(matches!(wrong, Err(TlsError::NoKey(_))), "{wrong:?}");
        fs::write(&files.certificate, "hello").unwrap();
        let wrong = files.load();
        assert!(
            matches!(wrong, Err(TlsError::NoCertificate(_))),
            "{wrong:?}"
        );
        fs::remove_file(&files.certificate).unwrap();
        keeper.look();
        keeper.look();
        assert_eq!(shown(&keeper), first);
        let second = write_pair(directory.path());
        keeper.look();
        keeper.look();
        assert_eq!(shown(&keeper), second, "once they are right they are used");
    }

    #[test]
    fn our_own_is_renewed_when_a_third_of_its_life_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.store.path = directory.path().to_owned();
        let clock = Clock::manual(NOW);
        let mut keeper = Keeper::own(&config, &clock).unwrap();
        let first = shown(&keeper);
        keeper.look();
        assert_eq!(shown(&keeper), first);
        clock.set(UnixMillis(NOW.0 + 270 * 86_400_000));
        keeper.look();
        let second = shown(&keeper);
        assert_ne!(second, first);
        keeper.look();
        assert_eq!(shown(&keeper), second);
    }

    #[test]
    fn keys_are_read_in_every_usual_form() {
        let directory = tempfile::tempdir().unwrap();
        write_pair(directory.path());
        let files = files_in(directory.path());
        let key = PKey::private_key_from_pem(&fs::read(&files.key).unwrap()).unwrap();
        let sec1 = key.ec_key().unwrap().private_key_to_pem().unwrap();
        fs::write(&files.key, sec1).unwrap();
        files.load().unwrap();

        let rsa = Rsa::generate(2048).unwrap();
        let key = PKey::from_rsa(rsa.clone()).unwrap();
        let mut builder = X509::builder().unwrap();
        builder.set_version(2).unwrap();
        let serial = openssl::bn::BigNum::from_u32(1).unwrap();
        builder
            .set_serial_number(&serial.to_asn1_integer().unwrap())
            .unwrap();
        let time = |days| openssl::asn1::Asn1Time::days_from_now(days).unwrap();
        builder.set_not_before(&time(0)).unwrap();
        builder.set_not_after(&time(1)).unwrap();
        builder.set_pubkey(&key).unwrap();
        builder
            .sign(&key, openssl::hash::MessageDigest::sha256())
            .unwrap();
        fs::write(&files.certificate, builder.build().to_pem().unwrap()).unwrap();
        fs::write(&files.key, rsa.private_key_to_pem().unwrap()).unwrap();
        files.load().unwrap();
    }
}
