//! The configuration: `config.toml`, overridden by the environment.
//!
//! Every key has a default; `config.toml` in the repository shows them all, and a
//! test proves that it equals them. Secrets come from files or the environment.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ::config::{Config as Layers, Environment, File, FileFormat};
use actors::ca::CaKey;
use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de};

mod acme;

/// The whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The device listener.
    pub device: Device,
    /// The admin listener.
    pub admin: Admin,
    /// The data directory.
    pub store: Store,
    /// Apple's push service.
    pub apns: Apns,
    /// The device CA.
    pub scep: Scep,
    /// Dialects of other servers.
    pub compat: Compat,
    /// Bounds.
    pub limits: Limits,
    /// The guard over destructive commands.
    pub guard: Guard,
    /// Logging.
    pub log: Log,
    /// The server is a demonstration or under test: a loopback `device.public_url` will
    /// do, an empty one is that of its listener. Not for the file.
    #[serde(skip)]
    pub demo: bool,
    /// Start although `device.public_url` is not the one devices enrolled with. Not for
    /// the file: it is meant once.
    #[serde(skip)]
    pub force_public_url: bool,
}

/// `[device]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Device {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The base of the URLs devices know.
    pub public_url: String,
    /// Where check-ins are taken besides, if anywhere.
    #[serde(deserialize_with = "maybe_address")]
    pub checkin_listen: Option<SocketAddr>,
    /// The base of the check-in URL; empty for `public_url`.
    pub checkin_public_url: String,
    /// Who runs the server, as devices and people are told.
    pub organization: String,
    /// How TLS is ended.
    pub tls: Tls,
    /// Server certificate with its chain, for `files`.
    pub cert_file: PathBuf,
    /// Its key.
    pub key_file: PathBuf,
    /// Directory URL of the CA, for `acme`.
    pub acme_directory: String,
    /// Whom the CA may write to.
    pub acme_contact: String,
    /// The CA's terms of service are agreed to.
    pub acme_agree_tos: bool,
    /// The root of a private CA.
    pub acme_root_file: PathBuf,
    /// Proxies whose client certificate header is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// That header's name.
    pub client_cert_header: String,
    /// Further device CAs.
    pub extra_ca_files: Vec<PathBuf>,
    /// CAs of manufacturers, whose devices may prove themselves over the air.
    pub ota_trust_files: Vec<PathBuf>,
    /// Path of the check-in URL.
    pub checkin_path: String,
    /// Path of the server URL.
    pub connect_path: String,
    /// Profiles tell devices to sign their messages.
    pub sign_message: SignMessage,
    /// What a device needs to enroll again that still counts as enrolled.
    pub reenroll: Reenroll,
}

/// Whether profiles tell devices to sign their messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum SignMessage {
    /// As said.
    Always(bool),
    /// When a proxy ends TLS.
    When(Auto),
}

/// The word for what the server decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Auto {
    /// The server decides.
    Auto,
}

/// What a device needs to enroll again that still counts as enrolled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reenroll {
    /// A link that names it, or an admin's leave.
    Approve,
    /// Any valid link.
    AnyLink,
}

impl From<Reenroll> for schema::enrollment::Reenroll {
    fn from(reenroll: Reenroll) -> Self {
        match reenroll {
            Reenroll::Approve => Self::Approve,
            Reenroll::AnyLink => Self::AnyLink,
        }
    }
}

/// An address; an empty text is none.
fn maybe_address<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(from)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(de::Error::custom)
}

impl Device {
    /// Whether profiles tell devices to sign their messages.
    #[must_use]
    pub fn signs(&self) -> bool {
        match self.sign_message {
            SignMessage::Always(signs) => signs,
            SignMessage::When(Auto::Auto) => self.tls == Tls::Off,
        }
    }
}

/// How TLS of the device listener is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tls {
    /// By us, with a certificate of a root of our own.
    Auto,
    /// By us, with a certificate from files.
    Files,
    /// By us, with a certificate of a public CA.
    Acme,
    /// By a proxy in front.
    Off,
}

/// `[admin]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Whether it speaks TLS.
    pub tls: AdminTls,
    /// Server certificate with its chain, for `files`.
    pub cert_file: PathBuf,
    /// Its key.
    pub key_file: PathBuf,
}

/// Whether the admin listener speaks TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdminTls {
    /// With a certificate from files.
    Files,
    /// No: loopback, or a proxy in front.
    Off,
}

/// `[store]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// The data directory.
    pub path: PathBuf,
    /// The sealing key's file; empty for the one in the data directory.
    pub seal_key_file: PathBuf,
    /// How long what ended is kept.
    pub retention_days: u64,
    /// Memory for the database's cache.
    pub cache_mb: usize,
    /// Room that must stay on the disk.
    pub reserve_mb: u64,
    /// What report bodies may hold.
    pub budget_mb: u64,
}

/// `[apns]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Apns {
    /// Host name.
    pub host: String,
    /// Port.
    pub port: u16,
    /// A further root to trust.
    pub root_file: PathBuf,
    /// How long APNs keeps a wake.
    pub expiration_hours: u64,
    /// Wakes per second.
    pub max_rate: u32,
    /// Connections per topic.
    pub connections: usize,
}

/// `[scep]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scep {
    /// Life of the device CA.
    pub ca_validity_days: u32,
    /// The kind of key the device CA is made with at the first start.
    pub ca_key_type: CaKeyType,
    /// Life of the identity certificates it issues.
    pub validity_days: u32,
    /// Time a device has between fetching its profile and asking for its certificate.
    pub challenge_ttl_minutes: u64,
}

/// The kind of key a device CA is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CaKeyType {
    /// RSA of 2048 bits.
    Rsa2048,
    /// ECDSA on P-256.
    P256,
}

impl From<CaKeyType> for CaKey {
    fn from(key: CaKeyType) -> Self {
        match key {
            CaKeyType::Rsa2048 => Self::Rsa2048,
            CaKeyType::P256 => Self::P256,
        }
    }
}

/// `[compat]`
#[derive(Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Compat {
    /// Key of the NanoMDM dialect.
    pub nanomdm_api_key: String,
    /// The same, in a file.
    pub nanomdm_api_key_file: PathBuf,
}

impl std::fmt::Debug for Compat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compat").finish_non_exhaustive()
    }
}

/// `[limits]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Device requests under way.
    pub requests: usize,
    /// Bytes of device bodies under way.
    pub body_mb: usize,
    /// Time for a body to arrive.
    pub body_seconds: u64,
    /// Requests a second that each enrollment link is good for, at `/enroll` and at
    /// `/scep`; 0 is no limit.
    pub link_per_second: u32,
}

/// `[guard]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Guard {
    /// Distinct devices in the window.
    pub max_devices: usize,
    /// Its length.
    pub window_minutes: u64,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// How lines look.
    pub format: LogFormat,
    /// From which level on.
    pub level: LogLevel,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// From which level on is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl Default for Device {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 8443)),
            public_url: String::new(),
            checkin_listen: None,
            checkin_public_url: String::new(),
            organization: String::new(),
            tls: Tls::Auto,
            cert_file: PathBuf::new(),
            key_file: PathBuf::new(),
            acme_directory: "https://acme-v02.api.letsencrypt.org/directory".into(),
            acme_contact: String::new(),
            acme_agree_tos: false,
            acme_root_file: PathBuf::new(),
            trusted_proxies: Vec::new(),
            client_cert_header: String::new(),
            extra_ca_files: Vec::new(),
            ota_trust_files: Vec::new(),
            checkin_path: "/mdm/checkin".into(),
            connect_path: "/mdm/connect".into(),
            sign_message: SignMessage::When(Auto::Auto),
            reenroll: Reenroll::Approve,
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9000)),
            tls: AdminTls::Off,
            cert_file: PathBuf::new(),
            key_file: PathBuf::new(),
        }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self {
            path: "data".into(),
            seal_key_file: PathBuf::new(),
            retention_days: 90,
            cache_mb: 64,
            reserve_mb: 256,
            budget_mb: 4096,
        }
    }
}

impl Default for Apns {
    fn default() -> Self {
        Self {
            host: "api.push.apple.com".into(),
            port: 443,
            root_file: PathBuf::new(),
            expiration_hours: 168,
            max_rate: 5000,
            connections: 4,
        }
    }
}

impl Default for Scep {
    fn default() -> Self {
        Self {
            ca_validity_days: 7300,
            ca_key_type: CaKeyType::Rsa2048,
            validity_days: 397,
            challenge_ttl_minutes: 60,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests: 4096,
            body_mb: 256,
            body_seconds: 30,
            link_per_second: 200,
        }
    }
}

impl Default for Guard {
    fn default() -> Self {
        Self {
            max_devices: 10,
            window_minutes: 20,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            level: LogLevel::Info,
        }
    }
}

impl Config {
    /// Reads the file, when it is there or was asked for by name, and the environment.
    ///
    /// # Errors
    /// [`ConfigError`] names the key at fault.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let path = file.unwrap_or(Path::new("config.toml"));
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if file.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
                String::new()
            }
            Err(error) => return Err(ConfigError::Unreadable(path.to_owned(), error)),
        };
        let config = Self::from_layers(&text, std::env::vars())?;
        config.check()?;
        Ok(config)
    }

    fn from_layers(
        text: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        // Only <SECTION>__<KEY> is a key; REVEILLE_URL and REVEILLE_TOKEN are the client's.
        let keys = environment
            .into_iter()
            .filter(|(key, _)| key.contains("__"))
            .collect();
        let environment = Environment::with_prefix("REVEILLE")
            .prefix_separator("_")
            .separator("__")
            .try_parsing(true)
            .list_separator(",")
            .with_list_parse_key("device.trusted_proxies")
            .with_list_parse_key("device.extra_ca_files")
            .with_list_parse_key("device.ota_trust_files")
            .source(Some(keys));
        let layers = Layers::builder()
            .add_source(File::from_str(text, FileFormat::Toml))
            .add_source(environment)
            .build()?;
        Ok(layers.try_deserialize()?)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let wrong = |key, why: &str| Err(ConfigError::Wrong(key, why.to_owned()));
        for (key, path) in [
            ("device.checkin_path", &self.device.checkin_path),
            ("device.connect_path", &self.device.connect_path),
        ] {
            if !path.starts_with('/') || path.contains(['{', '}', '?', '#']) {
                return wrong(key, "must be a path that begins with /");
            }
        }
        let header = &self.device.client_cert_header;
        if !self.device.trusted_proxies.is_empty() && header.is_empty() {
            return wrong(
                "device.client_cert_header",
                "is empty while trusted_proxies is not",
            );
        }
        if self.device.trusted_proxies.is_empty() && !header.is_empty() {
            return wrong(
                "device.trusted_proxies",
                "is empty while client_cert_header is not",
            );
        }
        self.check_tls()?;
        self.device.check_acme()?;
        if self.scep.validity_days == 0 || self.scep.challenge_ttl_minutes == 0 {
            return wrong(
                "scep",
                "validity_days and challenge_ttl_minutes must not be 0",
            );
        }
        if self.limits.requests == 0 || self.limits.body_mb < 32 {
            return wrong(
                "limits",
                "requests must be at least 1 and body_mb at least 32",
            );
        }
        Ok(())
    }

    /// Files that would be ignored, or are wanted and not named, are a mistake.
    fn check_tls(&self) -> Result<(), ConfigError> {
        let (device, admin) = (&self.device, &self.admin);
        let in_files = [device.tls == Tls::Files, admin.tls == AdminTls::Files];
        for (key, path, wanted) in [
            ("device.cert_file", &device.cert_file, in_files[0]),
            ("device.key_file", &device.key_file, in_files[0]),
            ("admin.cert_file", &admin.cert_file, in_files[1]),
            ("admin.key_file", &admin.key_file, in_files[1]),
        ] {
            let why = match (wanted, path.as_os_str().is_empty()) {
                (true, true) => "is empty while tls is \"files\"",
                (false, false) => "is set while tls is not \"files\"",
                _ => continue,
            };
            return Err(ConfigError::Wrong(key, why.to_owned()));
        }
        Ok(())
    }

    /// The API key of the NanoMDM dialect, when it is to be mounted.
    ///
    /// # Errors
    /// [`ConfigError`] when its file cannot be read.
    pub fn nanomdm_api_key(&self) -> Result<Option<String>, ConfigError> {
        let file = &self.compat.nanomdm_api_key_file;
        let key = if file.as_os_str().is_empty() {
            self.compat.nanomdm_api_key.clone()
        } else {
            let text = fs::read_to_string(file)
                .map_err(|error| ConfigError::Unreadable(file.clone(), error))?;
            text.trim().to_owned()
        };
        Ok((!key.is_empty()).then_some(key))
    }
}

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("{path}: {why}", path = .0.display(), why = .1)]
    Unreadable(PathBuf, std::io::Error),
    /// An unknown key or a value of the wrong type.
    #[error(transparent)]
    Layers(#[from] ::config::ConfigError),
    /// A value that cannot be.
    #[error("{0} {1}")]
    Wrong(&'static str, String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let pairs = environment
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Config::from_layers(text, pairs)
    }

    #[test]
    fn the_shipped_file_equals_the_defaults_and_shows_every_key() {
        let shipped = include_str!("../config.toml");
        assert_eq!(load(shipped, &[]).unwrap(), Config::default());
        let shown = shipped
            .lines()
            .filter(|line| line.contains(" = ") && !line.starts_with('#'));
        assert_eq!(
            shown.count(),
            50,
            "a key was added or removed: show it in config.toml too"
        );
    }

    #[test]
    fn the_environment_overrides_the_file_and_the_clients_own_variables_are_left_alone() {
        let config = load(
            "[admin]\nlisten = \"127.0.0.1:1\"\n[log]\nlevel = \"warn\"",
            &[
                ("REVEILLE_ADMIN__LISTEN", "127.0.0.1:2"),
                (
                    "REVEILLE_DEVICE__TRUSTED_PROXIES",
                    "10.0.0.0/8,192.168.0.0/16",
                ),
                ("REVEILLE_DEVICE__OTA_TRUST_FILES", "a.pem,b.pem"),
                ("REVEILLE_STORE__CACHE_MB", "7"),
                ("REVEILLE_DEVICE__CHECKIN_LISTEN", "127.0.0.1:3"),
                ("REVEILLE_URL", "http://x"),
                ("REVEILLE_TOKEN", "secret"),
            ],
        );
        let config = config.unwrap();
        assert_eq!(config.admin.listen.port(), 2);
        assert_eq!(config.device.trusted_proxies.len(), 2);
        assert_eq!(config.device.ota_trust_files.len(), 2);
        let checkin = config.device.checkin_listen;
        assert_eq!(checkin.map(|at| at.port()), Some(3));
        assert_eq!(
            (config.store.cache_mb, config.log.level),
            (7, LogLevel::Warn)
        );
    }

    #[test]
    fn an_unknown_key_and_a_wrong_value_are_named() {
        let error = load("[device]\nlisten_on = 1", &[])
            .unwrap_err()
            .to_string();
        assert!(error.contains("listen_on"), "{error}");
        let error = load("[apns]\nport = 70000", &[]).unwrap_err().to_string();
        assert!(error.contains("port"), "{error}");
        let error = load("[device]\ncheckin_listen = \"8443\"", &[]);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("checkin_listen"), "{error}");
        let signs = |text| load(text, &[]).map(|config| config.device.signs());
        assert!(!signs("").unwrap());
        assert!(signs("[device]\ntls = \"off\"").unwrap());
        assert!(signs("[device]\nsign_message = true").unwrap());
        assert!(signs("[device]\nsign_message = \"sometimes\"").is_err());
        let error = load("[device]\ntls = \"on\"", &[]).unwrap_err().to_string();
        assert!(error.contains("device.tls"), "{error}");
    }

    #[test]
    fn certificate_files_are_named_exactly_when_they_are_used() {
        let cases = [
            ("[device]\ntls = \"files\"", "device.cert_file"),
            (
                "[device]\ntls = \"files\"\ncert_file = \"a.pem\"",
                "device.key_file",
            ),
            ("[device]\nkey_file = \"a.key\"", "device.key_file"),
            ("[admin]\ntls = \"files\"", "admin.cert_file"),
            ("[admin]\ncert_file = \"a.pem\"", "admin.cert_file"),
        ];
        for (text, key) in cases {
            let error = load(text, &[]).unwrap().check().unwrap_err().to_string();
            assert!(error.starts_with(key), "{text}: {error}");
        }
        assert!(Config::default().check().is_ok());
    }
}
