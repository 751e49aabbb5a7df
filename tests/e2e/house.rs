//! A whole house for one test: server, fake APNs, device CA, admin.
//!
//! Everything is real but Apple: TCP, the redb file, HTTP/2 with TLS to the fake APNs.

use std::path::PathBuf;

use actors::{Clock, StoreError};
use reqwest::{Method, RequestBuilder, StatusCode};
use reveille::config::Tls;
use reveille::{Config, Running, serve};
use schema::UnixMillis;
use serde_json::{Value, json};
use sim::{
    Behaviour, Channel, Client, Device, DeviceCa, FakeApns, Fleet, FleetPlan, Proof, Script, Target,
};

/// The topic of every simulated device.
pub(crate) const TOPIC: &str = "com.apple.mgmt.External.simulated";
/// The time all tests begin at.
pub(crate) const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

/// The house.
pub(crate) struct House {
    pub(crate) running: Running,
    pub(crate) apns: FakeApns,
    pub(crate) ca: DeviceCa,
    pub(crate) clock: Clock,
    pub(crate) token: String,
    client: reqwest::Client,
    directory: tempfile::TempDir,
    config: Config,
}

impl House {
    /// A house with the defaults and a push certificate.
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// A house with a changed configuration and a push certificate.
    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let house = Self::bare(change).await;
        house.import_push_certificate().await;
        house
    }

    /// Puts a push certificate to use.
    pub(crate) async fn import_push_certificate(&self) {
        let pem = String::from_utf8(sim::push_certificate(TOPIC).unwrap()).unwrap();
        let put = self
            .put("/api/v1/push-certificates", &json!({ "pem": pem }))
            .await;
        assert_eq!(put.0, StatusCode::OK, "{}", put.1);
    }

    /// A house whose device listener speaks TLS; by the machine's clock, which its
    /// clients check the certificate against.
    pub(crate) async fn tls(change: impl FnOnce(&mut Config)) -> Self {
        let tls = |config: &mut Config| {
            config.device.tls = Tls::Auto;
            change(config);
        };
        Self::at(Clock::System, tls).await
    }

    /// A house with a changed configuration and nothing set up in it.
    pub(crate) async fn bare(change: impl FnOnce(&mut Config)) -> Self {
        Self::at(Clock::manual(NOW), change).await
    }

    /// The same by a clock of the test's.
    pub(crate) async fn at(clock: Clock, change: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ca = DeviceCa::quick().unwrap();
        let apns = FakeApns::start(Script::default()).await.unwrap();
        let file = |name: &str, bytes: &[u8]| -> PathBuf {
            let path = directory.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let mut config = Config {
            demo: true,
            ..Config::default()
        };
        config.device.listen = ([127, 0, 0, 1], 0).into();
        config.admin.listen = ([127, 0, 0, 1], 0).into();
        config.device.tls = Tls::Off;
        config.device.extra_ca_files = vec![file("sim-ca.pem", &ca.pem())];
        config.device.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
        config.device.client_cert_header = "Client-Cert".into();
        config.store.path = directory.path().join("data");
        config.store.reserve_mb = 0;
        config.apns.host = "localhost".into();
        config.apns.port = apns.port();
        config.apns.root_file = file("apns-root.pem", apns.root_pem());
        config.compat.nanomdm_api_key = "nano-secret".into();
        change(&mut config);
        let running = serve(config.clone(), clock.clone()).await.unwrap();
        Self {
            token: running.first_token.clone().unwrap(),
            client: client(),
            running,
            apns,
            ca,
            clock,
            directory,
            config,
        }
    }

    /// Stops the server and starts it again on the same data.
    pub(crate) async fn restarted(self) -> Self {
        match self.stopped().await.start(|_| {}).await {
            Ok(house) => house,
            Err((_, error)) => panic!("{error:#}"),
        }
    }

    /// Stops the server.
    pub(crate) async fn stopped(self) -> Stopped {
        self.running.stop().await;
        Stopped {
            apns: self.apns,
            ca: self.ca,
            clock: self.clock,
            token: self.token,
            directory: self.directory,
            config: self.config,
        }
    }

    /// The data directory.
    pub(crate) fn data(&self) -> &std::path::Path {
        &self.config.store.path
    }

    /// Takes effect with the next start.
    pub(crate) fn set_public_url(&mut self, url: &str) {
        url.clone_into(&mut self.config.device.public_url);
    }

    pub(crate) fn device_url(&self) -> String {
        match self.config.device.tls {
            Tls::Off => format!("http://{}", self.running.device),
            _ => format!("https://localhost:{}", self.running.device.port()),
        }
    }

    pub(crate) fn admin_url(&self) -> String {
        format!("http://{}", self.running.admin)
    }

    /// A request to the admin listener, with the first token.
    pub(crate) fn admin(&self, method: Method, path: &str) -> RequestBuilder {
        self.client
            .request(method, format!("{}{path}", self.admin_url()))
            .bearer_auth(&self.token)
    }

    /// A request to the device listener, with nothing.
    pub(crate) fn device(&self, method: Method, path: &str) -> RequestBuilder {
        self.client
            .request(method, format!("{}{path}", self.device_url()))
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Value) {
        answer(self.admin(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        answer(self.admin(Method::POST, path).json(body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        answer(self.admin(Method::PUT, path).json(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> (StatusCode, Value) {
        answer(self.admin(Method::DELETE, path)).await
    }

    /// How devices find the server.
    pub(crate) fn target(&self, proof: Proof) -> Target {
        match &self.running.app.tls_root_pem {
            None => Target::new(&self.device_url(), proof).unwrap(),
            Some(root) => Target {
                proof,
                ..Target::tls(&self.device_url(), root).unwrap()
            },
        }
    }

    /// A device that is not enrolled yet, and its line to the server.
    pub(crate) fn new_device(&self, proof: Proof) -> (Device, Client) {
        let device = Device::new(&self.ca, TOPIC).unwrap();
        (device, Client::new(std::sync::Arc::new(self.target(proof))))
    }

    /// A Mac with a user, not enrolled.
    pub(crate) fn new_mac(&self, proof: Proof) -> (Device, Client) {
        let mut dice = sim::Dice::new(7);
        let mac = Device::seeded(&self.ca, TOPIC, sim::Kind::Mac, &mut dice).unwrap();
        let client = Client::new(std::sync::Arc::new(self.target(proof)));
        (mac.with_user(&mut dice), client)
    }

    /// An enrolled device.
    pub(crate) async fn enrolled(&self, proof: Proof) -> (Device, Client) {
        let (device, mut client) = self.new_device(proof);
        sim::enroll(&device, &mut client).await.unwrap();
        (device, client)
    }

    /// A fleet that is woken by the fake APNs.
    pub(crate) fn fleet(&self, devices: usize, behaviour: Behaviour) -> Fleet {
        let plan = FleetPlan {
            devices,
            behaviour,
            topic: TOPIC.into(),
            ..FleetPlan::default()
        };
        let fleet = Fleet::new(&self.ca, self.target(Proof::Header), plan).unwrap();
        fleet.attach(&self.apns);
        fleet
    }

    /// Queues a DeviceInformation for one device without waking it; its CommandUUID.
    pub(crate) async fn ask_information(&self, id: &str) -> String {
        self.queue(
            id,
            &json!({"request_type": "DeviceInformation", "queries": ["OSVersion"]}),
        )
        .await
    }

    /// Queues a command for one channel without waking it; its CommandUUID.
    pub(crate) async fn queue(&self, id: &str, command: &Value) -> String {
        let order = json!({"targets": {"ids": [id]}, "command": command, "wake": false});
        let (status, queued) = self.post("/api/v1/commands", &order).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{queued}");
        queued["command_uuid"].as_str().unwrap().to_owned()
    }

    /// Waits until a command has a state on a channel: hand-outs are noted unawaited.
    pub(crate) async fn until_state(&self, id: &str, uuid: &str, state: &str) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        loop {
            let is = self.state(id, uuid).await;
            if is == state {
                return;
            }
            assert!(
                std::time::Instant::now() < deadline,
                "{uuid} is {is}, not {state}"
            );
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    /// The state of a command on a channel.
    pub(crate) async fn state(&self, id: &str, uuid: &str) -> String {
        let (status, page) = self.get(&format!("/api/v1/devices/{id}/commands")).await;
        assert_eq!(status, StatusCode::OK, "{page}");
        let items = page["items"].as_array().unwrap();
        let item = items.iter().find(|item| item["command_uuid"] == uuid);
        item.map_or("absent", |item| item["state"].as_str().unwrap())
            .to_owned()
    }
}

/// A house whose server is stopped, with its data.
pub(crate) struct Stopped {
    apns: FakeApns,
    ca: DeviceCa,
    clock: Clock,
    token: String,
    directory: tempfile::TempDir,
    config: Config,
}

impl Stopped {
    /// The data directory.
    pub(crate) fn data(&self) -> &std::path::Path {
        &self.config.store.path
    }

    /// The configuration of the next start.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Starts the server again with a changed configuration, or says why it did not.
    pub(crate) async fn start(
        mut self,
        change: impl FnOnce(&mut Config),
    ) -> Result<House, (Self, anyhow::Error)> {
        change(&mut self.config);
        // The last actors let go of the store a moment after their arbiters were told to stop.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let running = loop {
            match serve(self.config.clone(), self.clock.clone()).await {
                Ok(running) => break running,
                Err(error) => {
                    let held = error.downcast_ref() == Some(&StoreError::InUse);
                    if !held || std::time::Instant::now() > deadline {
                        return Err((self, error));
                    }
                }
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        };
        assert!(
            running.first_token.is_none(),
            "the second start makes no token"
        );
        Ok(House {
            running,
            apns: self.apns,
            ca: self.ca,
            clock: self.clock,
            token: self.token,
            client: client(),
            directory: self.directory,
            config: self.config,
        })
    }
}

/// A client that connects anew for each request: an idle connection the server gave up
/// while a test was busy would fail the next one.
fn client() -> reqwest::Client {
    let client = reqwest::Client::builder().pool_max_idle_per_host(0);
    client.build().unwrap()
}

/// Sends a request; status and JSON of the answer (null when it is none).
pub(crate) async fn answer(request: RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.unwrap();
    let status = response.status();
    let body = response.bytes().await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

/// The device channel's id.
pub(crate) fn id_of(device: &Device) -> String {
    device.enroll_id(Channel::Device)
}
