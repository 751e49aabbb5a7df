//! The device door's edge: connections that are slow, endless or ambiguous cost the
//! devices beside them nothing.
//!
//! `REVEILLE_EDGE=5000 cargo test --release --test e2e edge` is the long campaign.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use plist::Dictionary;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sim::{Channel, Client, Device, DeviceCa, Identity, Outcome, Proof, Target};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use crate::house::{House, TOPIC, id_of};
use crate::kill::Server;

const LONG: usize = 32 << 20;

/// The head of a report with these lines in it.
fn head(lines: &str) -> String {
    format!(
        "PUT /mdm/connect HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-apple-aspen-mdm\r\n{lines}\r\n"
    )
}

async fn said(house: &House, lines: &str) -> TcpStream {
    let mut line = TcpStream::connect(house.running.device).await.unwrap();
    line.write_all(head(lines).as_bytes()).await.unwrap();
    line
}

/// The status the server answers with; none when it only hangs up.
async fn status(line: &mut (impl AsyncRead + Unpin)) -> Option<u16> {
    let mut start = [0; 12];
    let read = timeout(Duration::from_secs(20), line.read_exact(&mut start));
    read.await.expect("no answer").ok()?;
    std::str::from_utf8(&start[9..]).unwrap().parse().ok()
}

#[actix_web::test]
async fn whoever_cannot_be_a_device_holds_no_room_for_a_long_body() {
    let house = House::start().await;
    let (device, mut client) = house.enrolled(Proof::Header).await;
    let id = id_of(&device);
    let stranger = Device::new(&DeviceCa::quick().unwrap(), TOPIC)
        .unwrap()
        .identity;
    let proofs = [
        String::new(),
        format!("Client-Cert: {}\r\n", stranger.header_rfc9440()),
        format!("Mdm-Signature: {}\r\n", stranger.sign(b"whatever").unwrap()),
    ];
    let mut slow = Vec::new();
    for n in 0..24 {
        let length = match n % 2 {
            0 => format!("Content-Length: {LONG}\r\n"),
            _ => "Transfer-Encoding: chunked\r\n".to_owned(),
        };
        slow.push(said(&house, &format!("{}{length}", proofs[n % 3])).await);
    }
    // Ten times the whole budget asked for; a device's long report is taken all the same.
    let begun = Instant::now();
    for _ in 0..5 {
        let uuid = house.ask_information(&id).await;
        let report = device.report(
            Channel::Device,
            &uuid,
            &Outcome::Acknowledged(Dictionary::new()),
            300_000,
        );
        let reply = client.report(&device.identity, report).await.unwrap();
        assert_eq!(reply.status, 200);
        sleep(Duration::from_millis(50)).await;
    }
    for line in &mut slow {
        assert_eq!(status(line).await, Some(403), "as if it had sent all of it");
    }
    assert!(begun.elapsed() < Duration::from_secs(15));
}

#[actix_web::test]
async fn lengths_that_contradict_each_other_are_400_and_bodies_without_end_are_cut() {
    let house = House::start().await;
    let (device, _) = house.enrolled(Proof::Header).await;
    let proof = format!("Client-Cert: {}\r\n", device.identity.header_rfc9440());
    for both in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Transfer-Encoding: gzip, chunked, identity\r\n",
    ] {
        let mut line = said(&house, &format!("{proof}{both}")).await;
        line.write_all(b"0\r\n\r\n").await.unwrap();
        assert_eq!(status(&mut line).await, Some(400), "{both}");
    }
    // A gigabyte in chunks: as far as it is taken in, and what is answered then.
    for (who, proof, most) in [("a device", proof.as_str(), 129), ("nobody", "", 1)] {
        let line = said(&house, &format!("{proof}Transfer-Encoding: chunked\r\n")).await;
        let (mut answer, mut line) = line.into_split();
        let sent = Arc::new(AtomicUsize::new(0));
        let counted = sent.clone();
        let sending = actix_web::rt::spawn(async move {
            let chunk = [
                b"100000\r\n".to_vec(),
                vec![b'x'; 1 << 20],
                b"\r\n".to_vec(),
            ]
            .concat();
            for _ in 0..1024 {
                if line.write_all(&chunk).await.is_err() {
                    return;
                }
                counted.fetch_add(1, Relaxed);
            }
        });
        let status = status(&mut answer).await;
        sending.abort();
        let sent = sent.load(Relaxed);
        println!("a gigabyte in chunks from {who}: {status:?} after {sent} MiB");
        assert!(matches!(status, None | Some(403 | 413)), "{status:?}");
        // And what fits into the sockets between the two.
        assert!(sent <= most + 16, "{sent} MiB");
    }
}

#[actix_web::test]
async fn a_body_that_trickles_in_is_given_up_and_holds_nothing() {
    let house = House::with(|config| config.limits.body_seconds = 1).await;
    let (device, mut client) = house.enrolled(Proof::Header).await;
    let proof = format!("Client-Cert: {}\r\n", device.identity.header_rfc9440());
    for length in [
        "Content-Length: 100\r\n".to_owned(),
        format!("Content-Length: {LONG}\r\n"),
        "Transfer-Encoding: chunked\r\n".to_owned(),
    ] {
        let mut line = said(&house, &format!("{proof}{length}")).await;
        let begun = Instant::now();
        line.write_all(b"1").await.unwrap();
        assert_eq!(status(&mut line).await, Some(408), "{length}");
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
    assert_eq!(house.running.app.admission.under_way(), 0);
    let idle = device.idle(Channel::Device);
    assert_eq!(
        client.report(&device.identity, idle).await.unwrap().status,
        200
    );
}

/// Devices that poll, one after the other.
struct Healthy(Vec<(Device, Client)>);

impl Healthy {
    async fn enroll(ca: &DeviceCa, target: &Arc<Target>) -> Self {
        let mut devices = Vec::new();
        for _ in 0..4 {
            let device = Device::new(ca, TOPIC).unwrap();
            let mut client = Client::new(target.clone());
            sim::enroll(&device, &mut client).await.unwrap();
            devices.push((device, client));
        }
        Self(devices)
    }

    /// The slowest but one in a hundred of many polls, each fourth on a new connection.
    async fn p99(&mut self) -> Duration {
        let mut took = Vec::new();
        for n in 0..800 {
            let (device, client) = &mut self.0[n % 4];
            if n % 16 < 4 {
                client.disconnect();
            }
            let begun = Instant::now();
            let idle = device.idle(Channel::Device);
            let reply = client.report(&device.identity, idle).await.unwrap();
            took.push(begun.elapsed());
            assert_eq!(reply.status, 200);
            sleep(Duration::from_millis(2)).await;
        }
        took.sort_unstable();
        took[took.len() * 99 / 100]
    }
}

/// Many slow connections of every kind, on a thread of their own until dropped.
struct Crowd {
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Crowd {
    /// Gathers them; returns once all are there.
    async fn gather(many: usize, address: std::net::SocketAddr, tls: [TlsConnector; 2]) -> Self {
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let there = Arc::new(AtomicUsize::new(0));
        let counted = there.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(async move {
                for n in 0..many {
                    tokio::spawn(linger(n, address, tls.clone(), counted.clone()));
                    if n.is_multiple_of(50) {
                        sleep(Duration::from_millis(20)).await;
                    }
                }
                let _ = stopped.await;
            });
        });
        let deadline = Instant::now() + Duration::from_secs(60);
        while there.load(Relaxed) < many {
            assert!(Instant::now() < deadline, "{} came", there.load(Relaxed));
            sleep(Duration::from_millis(20)).await;
        }
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Silent before TLS, silent after it, dripping a head, dripping a body; and now and then
/// one with a hundred certificates. One the server gives up comes again.
async fn linger(
    n: usize,
    address: std::net::SocketAddr,
    [plain, chained]: [TlsConnector; 2],
    there: Arc<AtomicUsize>,
) {
    let mut counted = false;
    let mut here = || {
        if !std::mem::replace(&mut counted, true) {
            there.fetch_add(1, Relaxed);
        }
    };
    loop {
        let Ok(tcp) = TcpStream::connect(address).await else {
            sleep(Duration::from_secs(1)).await;
            continue;
        };
        let name = ServerName::try_from("localhost").unwrap();
        if n % 100 == 99 {
            // Refused in the handshake, which TLS 1.3 tells the client only later.
            let _ = timeout(Duration::from_secs(1), drip_tls(&chained, name, tcp)).await;
            here();
            sleep(Duration::from_millis(500)).await;
        } else if n.is_multiple_of(4) {
            here();
            let mut tcp = tcp;
            let _ = tcp.read(&mut [0]).await;
        } else if let Ok(tls) = plain.connect(name, tcp).await {
            here();
            let body = head("Content-Length: 4000\r\n");
            let slow = head(&"X: y\r\n".repeat(100));
            match n % 4 {
                1 => drip(tls, "", "").await,
                2 => drip(tls, "", &slow).await,
                _ => drip(tls, &body, &"x".repeat(4000)).await,
            }
        }
    }
}

/// Says the first at once and the second a byte a second, until the server hangs up.
async fn drip(line: impl AsyncRead + AsyncWrite, at_once: &str, slowly: &str) {
    let (mut answer, mut line) = tokio::io::split(line);
    let said = async {
        line.write_all(at_once.as_bytes()).await?;
        for byte in slowly.as_bytes() {
            line.write_all(&[*byte]).await?;
            line.flush().await?;
            sleep(Duration::from_secs(1)).await;
        }
        std::future::pending::<std::io::Result<()>>().await
    };
    let mut start = [0; 12];
    tokio::select! {
        _ = answer.read_exact(&mut start) => {}
        _ = said => {}
    }
}

/// Opens TLS and waits for the server to hang up.
async fn drip_tls(tls: &TlsConnector, name: ServerName<'static>, tcp: TcpStream) {
    if let Ok(tls) = tls.connect(name, tcp).await {
        drip(tls, "", "").await;
    }
}

fn connector(root_pem: &[u8], identity: &Identity, chain: usize) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    for root in openssl::x509::X509::stack_from_pem(root_pem).unwrap() {
        roots.add(root.to_der().unwrap().into()).unwrap();
    }
    let certificates = vec![CertificateDer::from(identity.cert_der.to_vec()); chain];
    let key = PrivatePkcs8KeyDer::from(identity.key_pkcs8_der().unwrap());
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let config = ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates, PrivateKeyDer::from(key))
        .unwrap();
    TlsConnector::from(Arc::new(config))
}

/// Resident memory of a process, in MiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib / 1024
}

fn configure(directory: &Path, ca: &DeviceCa) {
    std::fs::write(directory.join("ca.pem"), ca.pem()).unwrap();
    std::fs::write(
        directory.join("config.toml"),
        "[device]\nlisten = \"127.0.0.1:0\"\npublic_url = \"https://localhost:1\"\n\
         extra_ca_files = [\"ca.pem\"]\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [store]\nreserve_mb = 0\n[log]\nlevel = \"error\"\n",
    )
    .unwrap();
}

/// Lets this process, and those it starts, open many files; whether it may.
fn many_files(many: u64) -> bool {
    let limit = getrlimit(Resource::Nofile);
    if limit.maximum.is_some_and(|most| most < many) {
        return false;
    }
    let raised = Rlimit {
        current: Some(limit.current.unwrap_or(many).max(many)),
        ..limit
    };
    setrlimit(Resource::Nofile, raised).is_ok()
}

#[actix_web::test]
async fn thousands_of_slow_connections_cost_a_healthy_device_nothing() {
    let many = std::env::var("REVEILLE_EDGE")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(400);
    if !many_files(many as u64 + 500) {
        println!("skipped: this machine does not let a process open {many} connections");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let ca = DeviceCa::quick().unwrap();
    configure(directory.path(), &ca);
    let server = Server::start(directory.path());
    let root = std::fs::read(directory.path().join("data/tls-root.pem")).unwrap();
    let port = server
        .devices
        .rsplit(':')
        .next()
        .unwrap()
        .trim_end_matches('/')
        .to_owned();
    let target = Target {
        proof: Proof::Tls,
        ..Target::tls(&format!("https://localhost:{port}"), &root).unwrap()
    };
    let mut healthy = Healthy::enroll(&ca, &Arc::new(target)).await;
    let slow = Device::new(&ca, TOPIC).unwrap().identity;
    let tls = [connector(&root, &slow, 1), connector(&root, &slow, 100)];
    let address = ([127, 0, 0, 1], port.parse().unwrap()).into();

    healthy.p99().await;
    let quiet = healthy.p99().await;
    let before = resident(server.child.id());
    let mut figures = Vec::new();
    for _ in 0..2 {
        let crowd = Crowd::gather(many, address, tls.clone()).await;
        let loud = healthy.p99().await;
        figures.push((loud, resident(server.child.id())));
        drop(crowd);
    }
    println!(
        "{many} slow connections: p99 {quiet:?} without, {:?} and {:?} with; \
         resident {before} MiB before, {} and {} MiB with",
        figures[0].0, figures[1].0, figures[0].1, figures[1].1
    );
    server.kill();
    let best = figures[0].0.min(figures[1].0);
    // A little beside the factor, for the machine the tests share.
    assert!(
        best < quiet * 2 + Duration::from_millis(20),
        "{quiet:?} {figures:?}"
    );
    let most = before + 24 + many as u64 * 48 / 1024;
    assert!(
        figures.iter().all(|(_, held)| *held <= most),
        "{before} {figures:?}"
    );
    assert!(figures[1].1 <= figures[0].1 + 16, "it grows: {figures:?}");
}
