//! TLS of the listeners: what the handshake offers, who gets in, and how certificates
//! change while the server runs.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actors::tls::TlsRoot;
use openssl::pkey::{PKey, Private};
use openssl::x509::X509;
use reveille::config::{AdminTls, Tls};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, HandshakeKind, ProtocolVersion, RootCertStore, SignatureScheme,
    SupportedProtocolVersion, version,
};
use schema::UnixMillis;
use schema::expiry::Purpose;
use sim::{Channel, Client, DeviceCa, Outcome, Proof};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::house::{House, id_of};

#[actix_web::test]
async fn a_device_lives_its_life_over_tls_with_and_without_a_client_certificate() {
    let house = House::tls(|_| {}).await;
    for proof in [Proof::Tls, Proof::Signature] {
        let (device, mut client) = house.enrolled(proof).await;
        let id = id_of(&device);
        let uuid = house.ask_information(&id).await;
        let command = client
            .report(&device.identity, device.idle(Channel::Device))
            .await
            .unwrap();
        let command = sim::Command::parse(&command.body).unwrap().unwrap();
        assert_eq!(command.uuid, uuid);
        let done = Outcome::Error(vec![]);
        let done = device.report(Channel::Device, &uuid, &done, 0);
        let next = client.report(&device.identity, done).await.unwrap();
        assert_eq!((next.status.as_u16(), next.body.len()), (200, 0));
        assert_eq!(house.state(&id, &uuid).await, "error");
    }
}

#[actix_web::test]
async fn a_foreign_certificate_is_a_plain_403_and_no_failure_of_tls() {
    let house = House::tls(|_| {}).await;
    let (device, _) = house.enrolled(Proof::Tls).await;
    let idle = device.idle(Channel::Device);
    let stranger = DeviceCa::quick().unwrap();
    let foreign = stranger.issue(&device.udid).unwrap();
    let expired = stranger.issue_for(&device.udid, 0).unwrap();
    let mut client = Client::new(Arc::new(house.target(Proof::Tls)));
    for identity in [&foreign, &expired] {
        client.disconnect();
        let reply = client.report(identity, idle.clone()).await.unwrap();
        assert_eq!(reply.status, 403);
        let body = String::from_utf8_lossy(&reply.body);
        assert!(!body.contains("com.apple"), "{body}");
    }
    for odd in [
        Shown::from(&self_signed_of_version_1()),
        Shown::of_ca(&stranger),
    ] {
        let caller = Caller::of(&house).showing(odd);
        assert_eq!(caller.call(&put(&idle, None)).await.unwrap().status, 403);
    }
    let nobody = Caller::of(&house);
    let refused = nobody.call(&put(&idle, None)).await.unwrap();
    assert_eq!(refused.status, 403, "no certificate at all");
    let healthy = nobody.call(&get("/healthz")).await.unwrap();
    assert_eq!(healthy.status, 200, "what needs no identity is served");
}

#[actix_web::test]
async fn a_key_that_is_not_the_certificates_fails_the_handshake() {
    let house = House::tls(|_| {}).await;
    let (device, _) = house.enrolled(Proof::Tls).await;
    let other = DeviceCa::quick().unwrap().issue("other").unwrap();
    let mut shown = Shown::from(&device.identity);
    shown.key = other.key_pkcs8_der().unwrap();
    for only in [&version::TLS13, &version::TLS12] {
        let caller = Caller::of(&house).only(only).showing(shown.clone());
        let idle = put(&device.idle(Channel::Device), None);
        assert!(caller.call(&idle).await.is_err(), "{only:?}");
    }
}

#[actix_web::test]
async fn a_chain_beyond_all_bounds_fails_the_handshake() {
    let house = House::tls(|_| {}).await;
    let (device, _) = house.enrolled(Proof::Tls).await;
    let idle = put(&device.idle(Channel::Device), None);
    let mut shown = Shown::from(&device.identity);
    shown.chain = vec![shown.chain[0].clone(); 10];
    let caller = Caller::of(&house).showing(shown.clone());
    assert_eq!(caller.call(&idle).await.unwrap().status, 200);
    shown.chain.push(shown.chain[0].clone());
    let caller = Caller::of(&house).showing(shown);
    assert!(caller.call(&idle).await.is_err());
}

#[actix_web::test]
async fn an_expired_certificate_still_speaks_for_the_device_it_is_bound_to() {
    let house = House::tls(|_| {}).await;
    let (mut device, mut client) = house.new_device(Proof::Tls);
    device.identity = house.ca.issue_for(&device.udid, 0).unwrap();
    sim::enroll(&device, &mut client).await.unwrap();
    let ended = X509::from_der(&device.identity.cert_der).unwrap();
    until(async || {
        let now = openssl::asn1::Asn1Time::days_from_now(0).unwrap();
        ended.not_after() < &*now
    })
    .await;
    client.disconnect();
    let reply = client
        .report(&device.identity, device.idle(Channel::Device))
        .await
        .unwrap();
    assert_eq!(reply.status, 200);
}

#[actix_web::test]
async fn a_client_certificate_and_another_devices_signature_are_403() {
    let house = House::tls(|_| {}).await;
    let (one, _) = house.enrolled(Proof::Tls).await;
    let (other, _) = house.enrolled(Proof::Signature).await;
    let idle = one.idle(Channel::Device);
    let caller = Caller::of(&house).showing(Shown::from(&one.identity));
    let same = one.identity.sign(&idle).unwrap();
    let agreed = caller.call(&put(&idle, Some(&same))).await.unwrap();
    assert_eq!(agreed.status, 200);
    let different = other.identity.sign(&idle).unwrap();
    let refused = caller.call(&put(&idle, Some(&different))).await.unwrap();
    assert_eq!(refused.status, 403);
}

#[actix_web::test]
async fn the_handshake_is_tls_1_3_with_our_chain_http_1_1_and_our_cas_asked_for() {
    let house = House::tls(|_| {}).await;
    let seen = Caller::of(&house).call(&get("/healthz")).await.unwrap();
    assert_eq!(seen.version, ProtocolVersion::TLSv1_3);
    assert_eq!(seen.alpn.as_deref(), Some(&b"http/1.1"[..]));
    let root = house.running.app.tls_root_pem.as_ref().unwrap();
    let root = X509::from_pem(root).unwrap();
    assert_eq!(seen.chain.len(), 2, "leaf, then root");
    assert_eq!(seen.chain[1], root.to_der().unwrap());

    let device_ca = std::fs::read(house.data().join("ca.pem")).unwrap();
    let device_ca = X509::from_pem(&device_ca).unwrap();
    let own = X509::from_der(&house.ca.der()).unwrap();
    let name = |ca: &X509| ca.subject_name().to_der().unwrap();
    assert_eq!(seen.asked_for, [name(&device_ca), name(&own)]);

    let old = Caller::of(&house).only(&version::TLS12);
    let old = old.call(&get("/healthz")).await.unwrap();
    assert_eq!(old.version, ProtocolVersion::TLSv1_2);
    let h2 = Caller::of(&house).alpn(&["h2"]);
    let refused = h2.call(&get("/healthz")).await;
    assert!(refused.is_err(), "h2 is not spoken");
}

#[actix_web::test]
async fn a_resumed_session_keeps_the_identity_it_began_with() {
    let house = House::tls(|_| {}).await;
    let (device, _) = house.enrolled(Proof::Tls).await;
    let idle = put(&device.idle(Channel::Device), None);
    for only in [&version::TLS13, &version::TLS12] {
        let caller = Caller::of(&house).only(only);
        let caller = caller.showing(Shown::from(&device.identity));
        let first = caller.call(&idle).await.unwrap();
        assert_eq!((first.kind, first.status), (HandshakeKind::Full, 200));
        let again = caller.call(&idle).await.unwrap();
        assert_eq!((again.kind, again.status), (HandshakeKind::Resumed, 200));

        let nobody = Caller::of(&house).only(only);
        assert_eq!(nobody.call(&idle).await.unwrap().status, 403);
        let nobody = nobody.call(&idle).await.unwrap();
        assert_eq!((nobody.kind, nobody.status), (HandshakeKind::Resumed, 403));
    }
}

#[actix_web::test]
async fn the_certificate_outlives_a_restart_and_follows_the_public_url() {
    let leaf = async |house: &House, name: &'static str| {
        let caller = Caller::of(house).called(name);
        let seen = caller.call(&get("/healthz")).await;
        seen.map(|seen| seen.chain[0].clone())
    };
    let house = House::tls(|_| {}).await;
    let first = leaf(&house, "localhost").await.unwrap();
    assert_eq!(leaf(&house, "127.0.0.1").await.unwrap(), first);
    let mut house = house.restarted().await;
    assert_eq!(leaf(&house, "localhost").await.unwrap(), first);
    house.set_public_url("https://mdm.example.org:8443/");
    let house = house.restarted().await;
    assert!(leaf(&house, "localhost").await.is_err());
    assert!(leaf(&house, "mdm.example.org").await.is_ok());
}

#[actix_web::test]
async fn the_certificate_is_for_the_host_of_the_check_in_url_too() {
    let house = House::tls(|config| {
        config.device.public_url = "https://mdm.example.org".into();
        config.device.checkin_public_url = "https://in.example.org:8444".into();
        config.device.checkin_listen = Some(([127, 0, 0, 1], 0).into());
    })
    .await;
    let root = house.running.app.tls_root_pem.as_ref().unwrap();
    for port in [house.running.device, house.running.checkin.unwrap()].map(|at| at.port()) {
        for name in ["mdm.example.org", "in.example.org"] {
            let caller = Caller::to(port, root).called(name);
            assert_eq!(caller.call(&get("/healthz")).await.unwrap().status, 200);
        }
        let caller = Caller::to(port, root).called("localhost");
        assert!(caller.call(&get("/healthz")).await.is_err());
    }
}

#[actix_web::test]
async fn new_certificate_files_are_served_without_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let files = CertificateFiles::in_(directory.path());
    files.renew();
    let house = House::tls(|config| {
        config.device.tls = Tls::Files;
        config.device.cert_file = files.certificate();
        config.device.key_file = files.key();
        config.admin.tls = AdminTls::Files;
        config.admin.cert_file = files.certificate();
        config.admin.key_file = files.key();
    })
    .await;
    assert!(house.running.app.tls_root_pem.is_none());
    let device = Caller::to(house.running.device.port(), &files.root_pem());
    let admin = Caller::to(house.running.admin.port(), &files.root_pem());
    let first = device.leaf().await;
    assert_eq!(first, files.leaf());
    assert_eq!(admin.leaf().await, first);

    let second = files.renew();
    until(async || device.leaf().await == second).await;
    until(async || admin.leaf().await == second).await;
    let third = files.renew();
    house.running.reload_certificates();
    until(async || device.leaf().await == third).await;

    let watched = house.running.app.expiries.all().into_iter();
    let watched = watched.filter(|expiry| expiry.purpose == Purpose::Tls);
    let names: Vec<_> = watched.map(|expiry| expiry.name).collect();
    assert_eq!(names, ["admin.tls", "device.tls"], "their ends are watched");
}

#[actix_web::test]
async fn sighup_reads_the_files_again_and_ends_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let files = CertificateFiles::in_(directory.path());
    let first = files.renew();
    std::fs::write(
        directory.path().join("config.toml"),
        "[device]\nlisten = \"127.0.0.1:0\"\ntls = \"files\"\ncert_file = \"leaf.pem\"\n\
         key_file = \"leaf.key\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[store]\nreserve_mb = 0\n",
    )
    .unwrap();
    let server = Server::start(directory.path());
    let caller = Caller::to(server.port, &files.root_pem());
    assert_eq!(caller.leaf().await, first);
    let second = files.renew();
    let id = server.child.id().to_string();
    let told = Command::new("kill").args(["-HUP", &id]).status().unwrap();
    assert!(told.success());
    until(async || caller.leaf().await == second).await;
}

/// The server as a process of its own.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(directory: &Path) -> Self {
        use std::io::{BufRead as _, BufReader};
        let mut child = Command::new(env!("CARGO_BIN_EXE_reveille"))
            .args(["--config", "config.toml", "serve"])
            .current_dir(directory)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut lines = lines.map_while(Result::ok);
        let devices = lines.find(|line| line.starts_with("devices")).unwrap();
        let url = devices.split_whitespace().nth(1).unwrap();
        assert!(url.starts_with("https://"), "{devices}");
        let port = url.rsplit(':').next().unwrap().parse().unwrap();
        // Nobody reads on; a full pipe must not stop it.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, port }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An administrator's certificate files, of a CA of his own.
/// Certificate files as an administrator brings them, from a root of their own.
pub(crate) struct CertificateFiles<'d> {
    directory: &'d Path,
    root: TlsRoot,
}

impl<'d> CertificateFiles<'d> {
    pub(crate) fn in_(directory: &'d Path) -> Self {
        let authority = directory.join("authority");
        std::fs::create_dir(&authority).unwrap();
        let root = TlsRoot::open(&authority, now()).unwrap();
        Self { directory, root }
    }

    /// Puts a new pair there; its leaf.
    pub(crate) fn renew(&self) -> Vec<u8> {
        let _ = std::fs::remove_file(self.directory.join("authority/tls-leaf.pem"));
        let names = [ServerName::try_from("localhost").unwrap()];
        let made = self.root.certificate_for(&names, now()).unwrap();
        let leaf = X509::from_der(&made.chain[0]).unwrap();
        let key = PKey::private_key_from_der(&made.key).unwrap();
        std::fs::write(self.certificate(), leaf.to_pem().unwrap()).unwrap();
        // The old form of EC keys, as some tools still write it.
        let key = key.ec_key().unwrap().private_key_to_pem().unwrap();
        std::fs::write(self.key(), key).unwrap();
        made.chain[0].clone()
    }

    fn leaf(&self) -> Vec<u8> {
        let pem = std::fs::read(self.certificate()).unwrap();
        X509::from_pem(&pem).unwrap().to_der().unwrap()
    }

    pub(crate) fn certificate(&self) -> std::path::PathBuf {
        self.directory.join("leaf.pem")
    }

    pub(crate) fn key(&self) -> std::path::PathBuf {
        self.directory.join("leaf.key")
    }

    pub(crate) fn root_pem(&self) -> Vec<u8> {
        self.root.certificate_pem.clone()
    }
}

/// A TLS client that tells what it saw; calls of one caller may resume.
struct Caller {
    port: u16,
    name: &'static str,
    roots: Arc<RootCertStore>,
    versions: Vec<&'static SupportedProtocolVersion>,
    alpn: Vec<Vec<u8>>,
    shown: Option<Shown>,
    made: Mutex<Option<(Arc<ClientConfig>, Arc<Chooser>)>>,
}

/// What was seen of a connection and its one request.
struct Seen {
    version: ProtocolVersion,
    kind: HandshakeKind,
    alpn: Option<Vec<u8>>,
    chain: Vec<Vec<u8>>,
    asked_for: Vec<Vec<u8>>,
    status: u16,
}

/// A client certificate with its chain and key, which need not fit.
#[derive(Clone, Debug)]
struct Shown {
    chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
}

/// Shows it whatever is asked for, and notes what was.
#[derive(Debug, Default)]
struct Chooser {
    shown: Option<Arc<CertifiedKey>>,
    asked_for: Mutex<Vec<Vec<u8>>>,
}

impl ResolvesClientCert for Chooser {
    fn resolve(&self, hints: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        *self.asked_for.lock().unwrap() = hints.iter().map(|hint| hint.to_vec()).collect();
        self.shown.clone()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl Caller {
    fn of(house: &House) -> Self {
        let root = house.running.app.tls_root_pem.as_ref().unwrap();
        Self::to(house.running.device.port(), root)
    }

    fn to(port: u16, root_pem: &[u8]) -> Self {
        let mut roots = RootCertStore::empty();
        let root = X509::from_pem(root_pem).unwrap().to_der().unwrap();
        roots.add(root.into()).unwrap();
        Self {
            port,
            name: "localhost",
            roots: Arc::new(roots),
            versions: vec![&version::TLS13, &version::TLS12],
            alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            shown: None,
            made: Mutex::default(),
        }
    }

    fn called(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    fn only(self, version: &'static SupportedProtocolVersion) -> Self {
        Self {
            versions: vec![version],
            ..self
        }
    }

    fn alpn(self, protocols: &[&str]) -> Self {
        Self {
            alpn: protocols.iter().map(|p| p.as_bytes().to_vec()).collect(),
            ..self
        }
    }

    fn showing(self, shown: Shown) -> Self {
        Self {
            shown: Some(shown),
            ..self
        }
    }

    fn config(&self) -> (Arc<ClientConfig>, Arc<Chooser>) {
        let made = || {
            let provider = Arc::new(aws_lc_rs::default_provider());
            let shown = self.shown.as_ref().map(|shown| {
                let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(shown.key.clone()));
                let key = aws_lc_rs::sign::any_supported_type(&key).unwrap();
                Arc::new(CertifiedKey::new(shown.chain.clone(), key))
            });
            let chooser = Arc::new(Chooser {
                shown,
                ..Chooser::default()
            });
            let verifier =
                WebPkiServerVerifier::builder_with_provider(self.roots.clone(), provider.clone());
            let mut config = ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(&self.versions)
                .unwrap()
                .with_webpki_verifier(verifier.build().unwrap())
                .with_client_cert_resolver(chooser.clone());
            config.alpn_protocols.clone_from(&self.alpn);
            (Arc::new(config), chooser)
        };
        self.made.lock().unwrap().get_or_insert_with(made).clone()
    }

    async fn call(&self, request: &[u8]) -> std::io::Result<Seen> {
        let (config, chooser) = self.config();
        let tcp = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let name = ServerName::try_from(self.name).unwrap();
        let mut stream = TlsConnector::from(config).connect(name, tcp).await?;
        stream.write_all(request).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let session = stream.get_ref().1;
        let chain = session.peer_certificates().unwrap();
        Ok(Seen {
            version: session.protocol_version().unwrap(),
            kind: session.handshake_kind().unwrap(),
            alpn: session.alpn_protocol().map(<[u8]>::to_vec),
            chain: chain.iter().map(|der| der.to_vec()).collect(),
            asked_for: chooser.asked_for.lock().unwrap().clone(),
            status: answer.split(' ').nth(1).unwrap().parse().unwrap(),
        })
    }

    /// The certificate a new connection is shown.
    async fn leaf(&self) -> Vec<u8> {
        // A resumed session would not show it again.
        *self.made.lock().unwrap() = None;
        let seen = self.call(&get("/healthz")).await.unwrap();
        seen.chain[0].clone()
    }
}

impl Shown {
    fn of_ca(ca: &DeviceCa) -> Self {
        let identity = ca.issue("a leaf with its issuer").unwrap();
        let mut shown = Self::from(&identity);
        shown.chain.push(ca.der().into());
        shown
    }
}

impl From<&sim::Identity> for Shown {
    fn from(identity: &sim::Identity) -> Self {
        Self {
            chain: vec![identity.cert_der.to_vec().into()],
            key: identity.key_pkcs8_der().unwrap(),
        }
    }
}

impl From<&(X509, PKey<Private>)> for Shown {
    fn from((certificate, key): &(X509, PKey<Private>)) -> Self {
        Self {
            chain: vec![certificate.to_der().unwrap().into()],
            key: key.private_key_to_pkcs8().unwrap(),
        }
    }
}

/// A certificate that webpki would not even read.
fn self_signed_of_version_1() -> (X509, PKey<Private>) {
    let curve = openssl::ec::EcGroup::from_curve_name(openssl::nid::Nid::SECP384R1).unwrap();
    let key = openssl::ec::EcKey::generate(&curve).unwrap();
    let key = PKey::from_ec_key(key).unwrap();
    let mut builder = X509::builder().unwrap();
    builder.set_version(0).unwrap();
    builder.set_pubkey(&key).unwrap();
    let time = |days| openssl::asn1::Asn1Time::days_from_now(days).unwrap();
    builder.set_not_before(&time(0)).unwrap();
    builder.set_not_after(&time(1)).unwrap();
    let serial = openssl::bn::BigNum::from_u32(1).unwrap();
    builder
        .set_serial_number(&serial.to_asn1_integer().unwrap())
        .unwrap();
    builder
        .sign(&key, openssl::hash::MessageDigest::sha384())
        .unwrap();
    (builder.build(), key)
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").into_bytes()
}

/// A report, signed or not.
fn put(body: &[u8], signature: Option<&str>) -> Vec<u8> {
    let signature = signature.map(|value| format!("mdm-signature: {value}\r\n"));
    let mut request = format!(
        "PUT /mdm/connect HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/x-apple-aspen-mdm\r\n{}content-length: {}\r\n\r\n",
        signature.unwrap_or_default(),
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

/// Waits for a condition.
pub(crate) async fn until(holds: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(Instant::now() < deadline, "it did not come to be");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn now() -> UnixMillis {
    actors::Clock::System.now()
}
