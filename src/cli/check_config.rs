//! `check-config`: whether the server would start with this configuration.
//!
//! Loads it as `serve` does, then looks at every file it names. Changes nothing; whether
//! ports are free and the store is sound is for the start itself to say.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};
use openssl::x509::X509;

use super::output::{facts, plain};
use crate::config::{AdminTls, Config, Tls};
use crate::identity::IdentityVerifier;
use crate::public_url::{NoPublicUrl, PublicUrl};
use crate::tls;

/// Checks the configuration and says what is wrong, all of it.
pub(super) fn run(file: Option<&Path>) -> anyhow::Result<()> {
    let config = Config::load(file).context("configuration")?;
    let wrong = faults(&config);
    for fault in &wrong {
        eprintln!("{}", plain(fault));
    }
    if !wrong.is_empty() {
        bail!("configuration: {} wrong", things(wrong.len()));
    }
    for note in notes(&config) {
        eprintln!("note: {note}");
    }
    facts(vec![
        ("configuration", "fine".to_owned()),
        ("device.listen", config.device.listen.to_string()),
        ("admin.listen", config.admin.listen.to_string()),
        ("store.path", absolute(&config.store.path)),
    ])?;
    Ok(())
}

/// What is wrong with it, each by its key.
pub(super) fn faults(config: &Config) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut check = |key: &str, outcome: Result<(), String>| {
        if let Err(why) = outcome {
            wrong.push(format!("{key}: {why}"));
        }
    };
    for file in &config.device.extra_ca_files {
        check("device.extra_ca_files", authority(file));
    }
    for file in &config.device.ota_trust_files {
        check("device.ota_trust_files", authority(file));
    }
    if !config.apns.root_file.as_os_str().is_empty() {
        check("apns.root_file", certificates(&config.apns.root_file));
    }
    check("compat.nanomdm_api_key_file", nanomdm_key(config));
    for (key, why) in tls::faults(config) {
        check(key, Err(why.to_string()));
    }
    check("store.path", data_directory(&config.store.path));
    check("store.seal_key_file", seal_key(config));
    if config.device.listen == config.admin.listen && config.device.listen.port() != 0 {
        check(
            "admin.listen",
            Err("is the same as device.listen".to_owned()),
        );
    }
    let others = [config.device.listen, config.admin.listen];
    let checkin = config.device.checkin_listen.filter(|at| at.port() != 0);
    if checkin.is_some_and(|at| others.contains(&at)) {
        check(
            "device.checkin_listen",
            Err("is the same as device.listen or admin.listen".to_owned()),
        );
    }
    wrong
}

/// What works, but deserves a thought.
pub(super) fn notes(config: &Config) -> Vec<&'static str> {
    let mut notes = Vec::new();
    let (device, admin) = (&config.device, &config.admin);
    if !admin.listen.ip().is_loopback() && admin.tls == AdminTls::Off {
        notes.push("admin.listen is not loopback: tokens cross the network in plain HTTP");
    }
    match device.tls {
        _ if !device.public_url.is_empty() => {}
        Tls::Auto => notes.push(
            "device.public_url is empty: the server certificate is for this machine's own names only",
        ),
        // Without it no CA can be asked, which is a fault.
        Tls::Acme => {}
        Tls::Files | Tls::Off => {
            notes.push("device.public_url is empty: the server does not know its own URL");
        }
    }
    if device.tls == Tls::Acme
        && device.checkin_listen.is_none()
        && !device.checkin_public_url.is_empty()
    {
        notes.push(
            "device.checkin_public_url leads to another server, as checkin_listen is empty: the \
             certificate is not for its host",
        );
    }
    match PublicUrl::of(config) {
        Ok(_) | Err(NoPublicUrl::Unset) => {}
        Err(NoPublicUrl::CheckIn(_)) => notes.push(
            "device.checkin_public_url is no https URL that leads here from elsewhere: no \
             enrollment link can be made",
        ),
        Err(_) => notes.push(
            "device.public_url is no https URL that leads here from elsewhere: no enrollment link \
             can be made",
        ),
    }
    if device.tls == Tls::Off && device.trusted_proxies.is_empty() {
        notes.push("device.trusted_proxies is empty: only devices that sign messages are served");
    }
    notes
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    fs::read(file).map_err(|why| format!("{}: {why}", file.display()))
}

fn certificates(file: &Path) -> Result<(), String> {
    match X509::stack_from_pem(&read(file)?) {
        Ok(found) if !found.is_empty() => Ok(()),
        _ => Err(format!("{}: holds no certificate in PEM", file.display())),
    }
}

/// A CA file as the server reads it.
fn authority(file: &Path) -> Result<(), String> {
    certificates(file)?;
    IdentityVerifier::new(&[], &[read(file)?], Vec::new(), None)
        .map(drop)
        .map_err(|why| format!("{}: {why}", file.display()))
}

fn nanomdm_key(config: &Config) -> Result<(), String> {
    let key = config.nanomdm_api_key().map_err(|why| why.to_string())?;
    if key.is_none() && !config.compat.nanomdm_api_key_file.as_os_str().is_empty() {
        return Err("the file is empty".to_owned());
    }
    Ok(())
}

fn data_directory(path: &Path) -> Result<(), String> {
    match fs::metadata(path) {
        Ok(found) if !found.is_dir() => Err(format!("{}: is not a directory", path.display())),
        Ok(_) => fs::read_dir(path)
            .map(drop)
            .map_err(|why| format!("{}: {why}", path.display())),
        // The first start makes it, with its parents.
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(why) => Err(format!("{}: {why}", path.display())),
    }
}

/// The key must be there when the store is; before that the first start makes it.
fn seal_key(config: &Config) -> Result<(), String> {
    let path = &config.store.path;
    let file = match &config.store.seal_key_file {
        file if file.as_os_str().is_empty() => path.join("seal.key"),
        file => file.clone(),
    };
    if file.exists() {
        return match read(&file)?.len() {
            32 => Ok(()),
            _ => Err(format!("{}: must hold 32 bytes", file.display())),
        };
    }
    if actors::store::is_in(path) {
        return Err(format!(
            "{}: is missing, but the store needs it",
            file.display()
        ));
    }
    let parent = file
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    match parent {
        Some(parent) if parent != path && !parent.is_dir() => {
            Err(format!("{}: its directory is missing", file.display()))
        }
        _ => Ok(()),
    }
}

fn absolute(path: &Path) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    path.display().to_string()
}

fn things(count: usize) -> String {
    match count {
        1 => "1 thing is".to_owned(),
        count => format!("{count} things are"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_fine_before_the_first_start() {
        let mut config = Config::default();
        config.store.path = "/nowhere/reveille".into();
        assert_eq!(faults(&config), Vec::<String>::new());
    }

    #[test]
    fn a_host_no_ca_can_reach_is_a_fault_and_a_name_it_is_not_for_a_note() {
        let mut config = Config::default();
        config.store.path = "/nowhere/reveille".into();
        config.device.tls = Tls::Acme;
        config.device.public_url = "https://192.0.2.7".into();
        config.device.acme_root_file = "/nowhere.pem".into();
        let wrong = faults(&config);
        assert!(
            wrong[0].starts_with("device.tls: device.public_url"),
            "{wrong:?}"
        );
        assert!(wrong[1].starts_with("device.acme_root_file: "), "{wrong:?}");
        config.device.public_url = "https://mdm.example.org".into();
        config.device.acme_root_file = "".into();
        assert_eq!(faults(&config), [""; 0]);
        assert_eq!(notes(&config), [""; 0]);
        config.device.checkin_public_url = "https://in.example.org".into();
        assert!(notes(&config)[0].contains("not for its host"));
        config.device.checkin_listen = Some(([127, 0, 0, 1], 0).into());
        assert_eq!(notes(&config), [""; 0]);
    }

    #[test]
    fn every_fault_is_named_by_its_key() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("not.pem");
        fs::write(&file, "hello").unwrap();
        fs::write(directory.path().join("reveille.redb"), "").unwrap();
        let mut config = Config::default();
        config.device.extra_ca_files = vec![file.clone(), "/nowhere.pem".into()];
        config.device.ota_trust_files = vec![file.clone()];
        config.apns.root_file = file;
        config.compat.nanomdm_api_key_file = "/nowhere.key".into();
        config.device.public_url = "mdm example".into();
        config.admin.tls = AdminTls::Files;
        config.store.path = directory.path().to_owned();
        config.device.checkin_public_url = "in example".into();
        config.admin.listen = config.device.listen;
        config.device.checkin_listen = Some(config.device.listen);
        let keys: Vec<_> = faults(&config)
            .iter()
            .map(|fault| fault.split_once(':').unwrap().0.to_owned())
            .collect();
        assert_eq!(
            keys,
            [
                "device.extra_ca_files",
                "device.extra_ca_files",
                "device.ota_trust_files",
                "apns.root_file",
                "compat.nanomdm_api_key_file",
                "device.public_url",
                "device.checkin_public_url",
                "admin.tls",
                "store.seal_key_file",
                "admin.listen",
                "device.checkin_listen",
            ]
        );
    }
}
