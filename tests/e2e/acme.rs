//! `device.tls = "acme"`: the listener has its certificate from a public CA, renews it, and
//! is patient with a CA that refuses.

mod ca;
mod issuing;
mod jws;
mod look;
mod refusals;

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use actors::Clock;
use reqwest::StatusCode;
use reveille::Config;
use reveille::config::Tls;
use rustls::version::{TLS12, TLS13};
use schema::expiry::Purpose;
use serde_json::json;
use sim::Proof;

use self::ca::Ca;
use self::look::{Seen, look};
use crate::house::{House, Stopped};
use crate::tls::until;

/// A CA, the house that asks it, and the time both live in.
struct Pair {
    ca: Ca,
    house: House,
    clock: Clock,
    /// Where the CA's root is.
    _files: tempfile::TempDir,
}

impl Pair {
    /// Port 443 of no name leads anywhere yet.
    async fn start(ca: impl FnOnce(&Ca), change: impl FnOnce(&mut Config)) -> Self {
        // Clients check certificates by the machine's clock.
        let clock = Clock::manual(Clock::System.now());
        let authority = Ca::start(&clock);
        ca(&authority);
        let files = tempfile::tempdir().unwrap();
        let root = files.path().join("ca.pem");
        std::fs::write(&root, authority.root_pem()).unwrap();
        let ask = |config: &mut Config| {
            config.device.tls = Tls::Acme;
            config.device.public_url = "https://localhost".into();
            config.device.acme_agree_tos = true;
            asks(config, &authority, &root);
            change(config);
        };
        let house = House::at(clock.clone(), ask).await;
        Self {
            house,
            ca: authority,
            clock,
            _files: files,
        }
    }

    /// One that has its certificate.
    async fn settled() -> Self {
        let pair = Self::start(|_| {}, |_| {}).await;
        pair.lead();
        pair.until_issued(None).await;
        pair
    }

    /// Port 443 of the public host leads to the device listener.
    fn lead(&self) {
        self.ca.lead("localhost", self.house.running.device.port());
    }

    /// The certificate a device is shown.
    async fn leaf(&self) -> Option<Vec<u8>> {
        let port = self.house.running.device.port();
        let seen = look(port, "localhost", &["http/1.1"], &TLS13, b"").await;
        seen.ok().map(|seen| seen.leaf)
    }

    /// Waits for a certificate that is not `old`.
    async fn until_issued(&self, old: Option<&Vec<u8>>) -> Vec<u8> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match self.leaf().await {
                Some(leaf) if Some(&leaf) != old => return leaf,
                _ => {}
            }
            let told = self.warnings().await;
            assert!(Instant::now() < deadline, "no certificate: {told:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn pass(&self, seconds: u64) {
        self.clock.set(self.clock.now().plus_seconds(seconds));
    }

    async fn warnings(&self) -> Vec<String> {
        let (status, ready) = self.house.get("/readyz").await;
        assert_eq!(status, StatusCode::OK, "no reason to be out of service");
        let warnings = ready["warnings"].as_array().unwrap().iter();
        let warnings = warnings.map(|warning| warning.as_str().unwrap().to_owned());
        warnings
            .filter(|warning| warning.contains("TLS certificate device.tls"))
            .collect()
    }

    /// The warning that has this part, once it is there.
    async fn until_told(&self, part: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let told = self.warnings().await;
            if let Some(told) = told.iter().find(|told| told.contains(part)) {
                return told.clone();
            }
            assert!(Instant::now() < deadline, "not {part}: {told:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Nothing is asked of the CA in the time of two looks.
    async fn leaves_the_ca_alone(&self) {
        let orders = self.ca.orders();
        tokio::time::sleep(Duration::from_millis(2500)).await;
        assert_eq!(self.ca.orders(), orders);
    }

    async fn restarted(self, change: impl FnOnce(&mut Config)) -> Self {
        let stopped: Stopped = self.house.stopped().await;
        let house = stopped.start(change).await;
        let house = house.unwrap_or_else(|(_, error)| panic!("{error:#}"));
        let pair = Self { house, ..self };
        pair.lead();
        pair
    }
}

fn asks(config: &mut Config, ca: &Ca, root: &PathBuf) {
    config.device.acme_directory = ca.directory();
    config.device.acme_root_file.clone_from(root);
}

#[actix_web::test]
async fn the_first_certificate_is_had_over_the_listener_itself_and_devices_are_served() {
    let contact = |config: &mut Config| config.device.acme_contact = "it@example.org".into();
    let pair = Pair::start(|ca| ca.state().bad_nonce = true, contact).await;
    let house = &pair.house;
    until(async || pair.ca.orders() == 1).await;
    assert!(
        pair.leaf().await.is_none(),
        "no handshake before it is there"
    );
    let told = pair.until_told("is not to be had").await;
    assert!(told.contains("has not been asked yet"), "{told}");

    pair.lead();
    pair.until_issued(None).await;
    until(async || pair.warnings().await.is_empty()).await;
    let (device, mut client) = house.enrolled(Proof::Tls).await;
    let idle = device.idle(sim::Channel::Device);
    let idle = client.report(&device.identity, idle).await.unwrap();
    assert_eq!(idle.status, StatusCode::OK);

    assert_eq!(pair.ca.state().accounts.len(), 1);
    let contact = pair.ca.state().accounts[0].contact.clone();
    assert_eq!(contact, json!(["mailto:it@example.org"]));
    let mut watched = house.running.app.expiries.all().into_iter();
    let watched = watched
        .find(|expiry| expiry.purpose == Purpose::Tls)
        .unwrap();
    assert_eq!(watched.name, "device.tls");
    assert!(watched.renewed_from.is_some());
    let root = house.running.app.tls_root_pem.as_deref();
    assert_eq!(
        root,
        Some(&*pair.ca.root_pem()),
        "a private CA's, in profiles"
    );
    for name in ["acme-account.json", "acme-certificate.json"] {
        let metadata = std::fs::metadata(house.data().join(name)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{name}");
    }
}

#[actix_web::test]
async fn a_restart_orders_nothing_but_another_directory_or_name_does() {
    let pair = Pair::settled().await;
    let first = pair.leaf().await.unwrap();
    let pair = pair.restarted(|_| {}).await;
    assert_eq!(pair.leaf().await.unwrap(), first, "at once");
    pair.leaves_the_ca_alone().await;
    assert_eq!(pair.ca.orders(), 1);

    let named = |config: &mut Config| config.device.public_url = "https://a.localhost".into();
    let pair = pair.restarted(named).await;
    assert!(
        pair.leaf().await.is_none(),
        "what is for another name is of no use"
    );
    pair.ca
        .lead("a.localhost", pair.house.running.device.port());
    pair.until_issued(None).await;
    assert_eq!(pair.ca.state().orders[1].names, ["a.localhost"]);
    assert_eq!(pair.ca.state().accounts.len(), 1, "the account goes on");

    let other = Ca::start(&pair.clock);
    let files = tempfile::tempdir().unwrap();
    let root = files.path().join("other.pem");
    std::fs::write(&root, other.root_pem()).unwrap();
    let pair = pair.restarted(|config| asks(config, &other, &root)).await;
    other.lead("a.localhost", pair.house.running.device.port());
    pair.until_issued(None).await;
    assert_eq!((other.orders(), other.state().accounts.len()), (1, 1));
    assert_eq!(pair.ca.orders(), 2);
}

#[actix_web::test]
async fn it_is_renewed_when_a_third_of_its_life_is_left() {
    let pair = Pair::settled().await;
    let first = pair.leaf().await.unwrap();
    pair.pass(59 * DAY);
    pair.leaves_the_ca_alone().await;
    pair.pass(2 * DAY);
    pair.until_issued(Some(&first)).await;
    assert_eq!((pair.ca.orders(), pair.ca.state().accounts.len()), (2, 1));
    until(async || pair.warnings().await.is_empty()).await;
    pair.leaves_the_ca_alone().await;
}

#[actix_web::test]
async fn another_contact_is_told_to_the_ca_with_the_next_order() {
    let pair = Pair::settled().await;
    assert_eq!(pair.ca.state().accounts[0].contact, json!([]));
    let contact = |config: &mut Config| config.device.acme_contact = "it@example.org".into();
    let pair = pair.restarted(contact).await;
    pair.pass(61 * DAY);
    until(async || pair.ca.orders() == 2).await;
    let contact = pair.ca.state().accounts[0].contact.clone();
    assert_eq!(contact, json!(["mailto:it@example.org"]));
}

#[actix_web::test]
async fn one_certificate_is_for_the_listener_of_check_ins_too() {
    let two = |config: &mut Config| {
        config.device.checkin_listen = Some(([127, 0, 0, 1], 0).into());
        config.device.checkin_public_url = "https://in.localhost".into();
    };
    let pair = Pair::start(|_| {}, two).await;
    let checkin = pair.house.running.checkin.unwrap().port();
    pair.ca.lead("in.localhost", checkin);
    pair.lead();
    pair.until_issued(None).await;
    assert_eq!(
        pair.ca.state().orders[0].names,
        ["localhost", "in.localhost"]
    );
    let seen = look(checkin, "in.localhost", &[], &TLS12, b"").await;
    assert_eq!(Some(seen.unwrap().leaf), pair.leaf().await);
}

#[actix_web::test]
async fn nothing_can_be_said_over_a_connection_that_is_for_the_ca_to_look() {
    let pair = Pair::start(|_| {}, |_| {}).await;
    let port = pair.house.running.device.port();
    let poll = b"PUT /mdm/connect HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n";
    until(async || {
        let shown = look(port, "localhost", &["acme-tls/1"], &TLS13, b"").await;
        shown.is_ok()
    })
    .await;
    for version in [&TLS13, &TLS12] {
        let seen = look(port, "localhost", &["acme-tls/1"], version, poll).await;
        let Seen { alpn, answer, .. } = seen.unwrap();
        assert_eq!(alpn.as_deref(), Some(&b"acme-tls/1"[..]));
        assert_eq!(String::from_utf8_lossy(&answer), "");
        let other = look(port, "b.localhost", &["acme-tls/1"], version, poll).await;
        assert!(other.is_err(), "there is no challenge of that name");
        let both = look(port, "localhost", &["acme-tls/1", "x"], version, poll).await;
        assert!(both.is_err(), "no CA asks for both");
    }
    assert_eq!(polls(&pair).await, "", "no handler was reached");

    pair.lead();
    pair.until_issued(None).await;
    let leaf = pair.leaf().await.unwrap();
    for version in [&TLS13, &TLS12] {
        let over = look(port, "localhost", &["acme-tls/1"], version, poll).await;
        assert!(over.is_err(), "the challenge is over");
        let both = look(port, "localhost", &["acme-tls/1", "x"], version, poll).await;
        let both = both.unwrap();
        assert_eq!((both.leaf, both.answer), (leaf.clone(), Vec::new()));
    }
    assert_eq!(polls(&pair).await, "");
    let http = look(port, "localhost", &["acme-tls/1", "http/1.1"], &TLS13, poll).await;
    let http = http.unwrap();
    assert!(http.answer.starts_with(b"HTTP/1.1 4"), "HTTP goes first");
    assert_ne!(polls(&pair).await, "");
}

/// What the metrics say of requests to the device listener.
async fn polls(pair: &Pair) -> String {
    let metrics = pair.house.admin(reqwest::Method::GET, "/metrics");
    let metrics = metrics.send().await.unwrap().text().await.unwrap();
    let lines = metrics.lines();
    lines
        .filter(|line| line.starts_with("reveille_device_requests_total"))
        .collect()
}

#[actix_web::test]
async fn a_host_no_ca_can_reach_keeps_the_server_from_starting() {
    let pair = Pair::settled().await;
    let address = |config: &mut Config| config.device.public_url = "https://192.0.2.7".into();
    let stopped = pair.house.stopped().await;
    let Err((_, error)) = stopped.start(address).await else {
        panic!("it started");
    };
    let error = format!("{error:#}");
    assert!(error.contains("device.public_url"), "{error}");
    assert!(error.contains("needs a DNS name"), "{error}");
}

const DAY: u64 = 86_400;
