//! The real binary on a disk that fills up: devices hear 503 and nothing worse, and are
//! served again within ten seconds of the room coming back. Needs root, for a file system
//! of its own; says aloud when it skips.

use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sim::{Client, Device, DeviceCa, Proof, Target};

use crate::house::TOPIC;

/// A small file system in memory, gone with this.
struct SmallDisk {
    directory: tempfile::TempDir,
}

impl SmallDisk {
    fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=48m", "tmpfs"]);
        let mounted = mount.arg(directory.path()).stderr(Stdio::null()).status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self { directory });
        }
        println!("SKIPPED: a file system cannot be mounted here; it takes root");
        None
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Fills it up but for so many bytes.
    fn fill(&self, but: u64) {
        let free = actors::store::free_bytes(self.path()).unwrap();
        let filler = vec![1_u8; usize::try_from(free.saturating_sub(but)).unwrap()];
        let _ = std::fs::write(self.filler(), filler);
    }

    fn fill_more(&self, but: u64) {
        let free = actors::store::free_bytes(self.path()).unwrap();
        let more = vec![1_u8; usize::try_from(free.saturating_sub(but)).unwrap()];
        let filler = std::fs::OpenOptions::new().append(true).open(self.filler());
        filler.unwrap().write_all(&more).unwrap();
    }

    fn empty(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// The server, started again two seconds after it ends, as systemd would.
struct Service {
    disk: SmallDisk,
    server: Option<Child>,
    exits: Vec<Option<i32>>,
    url: String,
}

impl Service {
    fn start(disk: SmallDisk, ca: &DeviceCa, reserve_mb: u64) -> Self {
        let port = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (devices, admin) = (port(), port());
        let address = |listener: &TcpListener| listener.local_addr().unwrap();
        std::fs::write(disk.path().join("ca.pem"), ca.pem()).unwrap();
        let config = format!(
            "[device]\nlisten = \"{}\"\ntls = \"off\"\nextra_ca_files = [\"ca.pem\"]\n\
             trusted_proxies = [\"127.0.0.1/32\"]\nclient_cert_header = \"Client-Cert\"\n\
             [admin]\nlisten = \"{}\"\n[store]\nreserve_mb = {reserve_mb}\n",
            address(&devices),
            address(&admin)
        );
        std::fs::write(disk.path().join("config.toml"), config).unwrap();
        let url = format!("http://{}", address(&devices));
        drop((devices, admin));
        let mut service = Self {
            disk,
            server: None,
            exits: Vec::new(),
            url,
        };
        service.keep_up();
        service
    }

    /// Starts it when it does not run.
    fn keep_up(&mut self) {
        if let Some(server) = &mut self.server {
            match server.try_wait().unwrap() {
                None => return,
                Some(status) => self.exits.push(status.code()),
            }
        }
        let server = Command::new(env!("CARGO_BIN_EXE_reveille"))
            .args(["--config", "config.toml", "serve"])
            .current_dir(self.disk.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.server = Some(server.unwrap());
    }

    /// What a device hears to a check-in; none when nobody listens just now.
    async fn check_in(&mut self, device: &Device) -> Option<(u16, Option<u64>)> {
        self.keep_up();
        let target = Target::new(&self.url, Proof::Header).unwrap();
        let mut client = Client::new(Arc::new(target));
        let body = device.token_update();
        let reply = client.check_in(&device.identity, body).await.ok()?;
        Some((reply.status.as_u16(), reply.retry_after))
    }

    /// Checks in until that is the answer; says how long it took.
    async fn until(&mut self, device: &Device, status: u16, most: Duration) -> Duration {
        let began = Instant::now();
        loop {
            if let Some((heard, retry_after)) = self.check_in(device).await {
                assert!([200, 503].contains(&heard), "a device hears {heard}");
                assert!(
                    heard == 200 || retry_after.is_some(),
                    "503 without Retry-After"
                );
                if heard == status {
                    return began.elapsed();
                }
            }
            assert!(began.elapsed() < most, "no {status} in {most:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

async fn enrolled(service: &mut Service, ca: &DeviceCa) -> Device {
    let device = Device::new(ca, TOPIC).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        service.keep_up();
        let target = Target::new(&service.url, Proof::Header).unwrap();
        let mut client = Client::new(Arc::new(target));
        if sim::enroll(&device, &mut client).await.is_ok() {
            return device;
        }
        assert!(Instant::now() < deadline, "it does not enroll");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[actix_web::test]
async fn below_the_reserve_devices_hear_503_and_the_server_stays() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let ca = DeviceCa::quick().unwrap();
    let mut service = Service::start(disk, &ca, 8);
    let device = enrolled(&mut service, &ca).await;
    // Once the server has its ballast, nobody but us takes room.
    let ballast = service.disk.path().join("data/ballast");
    let deadline = Instant::now() + Duration::from_secs(20);
    while std::fs::metadata(&ballast).map_or(0, |file| file.len()) < 16 << 20 {
        assert!(Instant::now() < deadline, "there is no ballast file");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    service.disk.fill(0);
    // It gives the ballast up, and 8 MiB of that are taken too.
    while ballast.exists() {
        assert!(Instant::now() < deadline, "the ballast is kept");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    service.disk.fill_more(4 << 20);
    service.until(&device, 503, Duration::from_secs(10)).await;
    service.disk.empty();
    let took = service.until(&device, 200, Duration::from_secs(10)).await;
    assert_eq!(service.exits, [], "nothing was fatal");
    println!(
        "served again {:.1} s after the room came back",
        took.as_secs_f64()
    );
}

#[actix_web::test]
async fn on_a_full_disk_the_server_ends_waits_with_503_and_serves_again() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let ca = DeviceCa::quick().unwrap();
    let mut service = Service::start(disk, &ca, 0);
    let device = enrolled(&mut service, &ca).await;
    service.disk.fill(0);
    // The database grows now and then only: check in until it cannot.
    let deadline = Instant::now() + Duration::from_secs(60);
    while service.exits.is_empty() {
        assert!(Instant::now() < deadline, "a full disk was never met");
        if let Some((heard, _)) = service.check_in(&device).await {
            assert!([200, 503].contains(&heard), "a device hears {heard}");
        }
    }
    assert_eq!(
        service.exits,
        [Some(1)],
        "storage that fails ends the process"
    );
    service.disk.empty();
    let took = service.until(&device, 200, Duration::from_secs(10)).await;
    println!(
        "served again {:.1} s after the room came back",
        took.as_secs_f64()
    );
}
