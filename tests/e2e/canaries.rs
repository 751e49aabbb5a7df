//! No secret is said: a canary in the place of every one, through every flow, well formed and
//! not, with a server that logs all it can. None may then be found in the log, in an answer
//! that refuses, in the metrics, in what the API shows, or in clear in the data directory.

mod admin;
mod devices;
mod ears;

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::Value;
use sim::{Client, FakeApns, Proof, Script, Target};

use self::ears::Ears;

/// The server with its log, and whoever talks to it.
struct Cage {
    directory: tempfile::TempDir,
    server: Child,
    devices: String,
    admin: String,
    token: String,
    apns: FakeApns,
    http: reqwest::Client,
    /// Name and value of every secret.
    canaries: Mutex<Vec<(&'static str, Vec<u8>)>>,
    /// What was answered, and to what: refusals, and what the API shows.
    heard: Mutex<Vec<(String, Vec<u8>)>>,
}

impl Cage {
    async fn open() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let apns = FakeApns::start(Script::default()).await.unwrap();
        std::fs::write(directory.path().join("apns.pem"), apns.root_pem()).unwrap();
        let config = format!(
            "[device]\nlisten = \"127.0.0.1:0\"\ntls = \"off\"\n\
             public_url = \"https://mdm.example.org\"\n\
             trusted_proxies = [\"127.0.0.1/32\"]\nclient_cert_header = \"Client-Cert\"\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n[store]\nreserve_mb = 0\n\
             [apns]\nhost = \"localhost\"\nport = {}\nroot_file = \"apns.pem\"\n\
             [compat]\nnanomdm_api_key = \"{NANOMDM_KEY}\"\n\
             [log]\nlevel = \"trace\"\n",
            apns.port()
        );
        std::fs::write(directory.path().join("config.toml"), config).unwrap();
        let (server, devices, admin) = start(directory.path());
        let token = std::fs::read_to_string(directory.path().join("data/admin.token")).unwrap();
        let cage = Self {
            directory,
            server,
            devices,
            admin,
            token: token.clone(),
            apns,
            http: reqwest::Client::new(),
            canaries: Mutex::default(),
            heard: Mutex::default(),
        };
        cage.canary("the admin token", &token);
        cage.canary("the key of the NanoMDM dialect", NANOMDM_KEY);
        cage
    }

    /// A secret nobody may say.
    fn canary(&self, name: &'static str, value: impl AsRef<[u8]>) {
        let value = value.as_ref().to_vec();
        assert!(value.len() >= 6, "{name} is too short to be told");
        self.canaries.lock().unwrap().push((name, value));
    }

    /// A secret of one's own making.
    fn made(&self, name: &'static str) -> String {
        let mut random = [0; 12];
        openssl::rand::rand_bytes(&mut random).unwrap();
        let digits = random.iter().map(|byte| format!("{byte:02x}"));
        let value = format!("canary{}", digits.collect::<String>());
        self.canary(name, &value);
        value
    }

    /// A request to the admin listener; its answer is looked at in the end.
    async fn asks(&self, method: Method, path: &str, with: Asked<'_>) -> (StatusCode, Value) {
        let request = self
            .http
            .request(method.clone(), format!("{}{path}", self.admin));
        let request = match with {
            Asked::Nothing => request.bearer_auth(&self.token),
            Asked::Json(body) => request.bearer_auth(&self.token).json(body),
            Asked::Text(body) => {
                let request = request.header("Content-Type", "application/json");
                request.bearer_auth(&self.token).body(body.to_owned())
            }
            Asked::Headers(headers) => headers.iter().fold(request, |request, (name, value)| {
                request.header(*name, value)
            }),
        };
        let (status, body) = self.sends(&format!("{method} {path}"), request).await;
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    async fn sends(&self, what: &str, request: RequestBuilder) -> (StatusCode, Vec<u8>) {
        let response = request.send().await.unwrap();
        let status = response.status();
        let mut said = format!("{:?}", response.headers()).into_bytes();
        let body = response.bytes().await.unwrap();
        said.extend_from_slice(&body);
        if !status.is_success() {
            self.hears(&format!("{what}: {status}"), &said);
        }
        (status, body.to_vec())
    }

    fn hears(&self, what: &str, said: &[u8]) {
        self.heard
            .lock()
            .unwrap()
            .push((what.to_owned(), said.to_vec()));
    }

    /// What the API shows of its own accord is no place for a secret either.
    async fn shows(&self, path: &str) {
        let request = self.http.get(format!("{}{path}", self.admin));
        let response = request.bearer_auth(&self.token).send().await.unwrap();
        assert!(
            response.status().is_success(),
            "{path}: {}",
            response.status()
        );
        let body = response.bytes().await.unwrap();
        self.hears(path, &body);
    }

    /// A request to the device listener.
    fn device(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.devices))
    }

    fn line(&self, proof: Proof) -> Client {
        Client::new(Arc::new(Target::new(&self.devices, proof).unwrap()))
    }

    /// Stops the server; what it said and what it left behind is looked through.
    async fn search(mut self) {
        let path = |name: &str| self.directory.path().join(name);
        let ended = Command::new("kill")
            .arg(self.server.id().to_string())
            .status();
        assert!(ended.unwrap().success());
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.server.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "the server does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let log = std::fs::read_to_string(path("log")).unwrap();
        assert!(log.lines().count() > 50, "{log}");
        assert!(
            log.contains("DEBUG") && log.contains("INFO"),
            "not all is logged"
        );
        // Of the time a line begins with, six digits may be those of a PIN.
        let said: String = log
            .lines()
            .map(|line| line.get(28..).unwrap_or(line))
            .collect();
        let mut places = self.heard.into_inner().unwrap();
        places.push(("the log".to_owned(), said.into_bytes()));
        for file in files(&path("data")) {
            let name = file.strip_prefix(self.directory.path()).unwrap();
            places.push((name.display().to_string(), std::fs::read(&file).unwrap()));
        }
        let canaries = self.canaries.into_inner().unwrap();
        assert!(canaries.len() >= 20, "{}", canaries.len());
        let ears = Ears::of(&canaries);
        let (mut sang, mut allowed) = (Vec::new(), Vec::new());
        for (place, said) in &places {
            for name in ears.heard(said) {
                let may = BY_DESIGN
                    .iter()
                    .find(|(of, at, _)| name == *of && place == at);
                match may {
                    Some(may) => allowed.push(*may),
                    None => {
                        let said = String::from_utf8_lossy(&said[..said.len().min(400)]);
                        sang.push(format!("{name} in {place}: {said}"));
                    }
                }
            }
        }
        assert!(sang.is_empty(), "{}", sang.join("\n"));
        for may in BY_DESIGN {
            assert!(allowed.contains(&may), "no longer true: {may:?}");
        }
        let (canaries, places) = (canaries.len(), places.len());
        println!("{canaries} canaries, {places} places, none sang");
    }
}

/// What a request carries besides its path.
enum Asked<'a> {
    Nothing,
    Json(&'a Value),
    Text(&'a str),
    /// Without the token.
    Headers(&'a [(&'a str, String)]),
}

fn start(directory: &Path) -> (Child, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_reveille"))
        .args(["--config", "config.toml", "serve"])
        .current_dir(directory)
        .stdout(Stdio::piped())
        .stderr(File::create(directory.join("log")).unwrap())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut url = |name: &str| loop {
        let line = lines.next().expect("the server ended").unwrap();
        if line.starts_with(name) {
            return line.split_whitespace().nth(1).unwrap().to_owned();
        }
    };
    let (devices, admin) = (url("devices"), url("admin"));
    // Nobody reads on; a full pipe must not stop it.
    std::thread::spawn(move || lines.for_each(drop));
    (child, devices, admin)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| {
            if path.is_dir() {
                files(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

#[actix_web::test]
async fn no_secret_is_in_a_log_an_error_a_metric_or_in_clear_on_the_disk() {
    let cage = Cage::open().await;
    admin::put_push_certificates(&cage).await;
    admin::bend_tokens(&cage).await;
    let device = devices::enroll_through_a_link(&cage).await;
    devices::say_it_wrong(&cage, &device).await;
    devices::take_an_identity_from_a_profile(&cage).await;
    admin::send_commands(&cage, &device).await;
    admin::speak_the_dialect(&cage, &device).await;
    for path in [
        "/metrics",
        "/readyz",
        "/version",
        "/api/v1/devices",
        &format!("/api/v1/devices/{}", device.udid),
        &format!("/api/v1/devices/{}/commands", device.udid),
        "/api/v1/push-certificates",
        "/api/v1/enrollment-links",
        "/api/v1/clock",
    ] {
        cage.shows(path).await;
    }
    cage.search().await;
}

/// Where a secret may stand, and why.
const BY_DESIGN: [(&str, &str, &str); 3] = [
    (
        "the admin token",
        "data/admin.token",
        "the first token's own file, mode 0600, for the admin to take away",
    ),
    (
        "the push token",
        "data/reveille.redb",
        "read at every wake; of no use without the push certificate's key, which is sealed",
    ),
    ("the PushMagic", "data/reveille.redb", "the same"),
];
const NANOMDM_KEY: &str = "canary-of-the-nanomdm-dialect";
