//! The demo's server: this binary as a process of its own, as in earnest, so that it can
//! be killed and started again.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use anyhow::{Context as _, bail};
use sim::FakeApns;

/// The server's process, its directory and where it listens.
pub(super) struct Process {
    directory: PathBuf,
    child: Child,
    /// While it is open the server runs; when we end, however we end, so does it.
    stdin: Option<ChildStdin>,
    pub(super) devices: SocketAddr,
    pub(super) admin: SocketAddr,
}

impl Process {
    /// Starts it on free ports of this machine, with its data under `directory`, pushing
    /// to `apns`.
    pub(super) fn start(directory: &Path, apns: &FakeApns) -> anyhow::Result<Self> {
        fs::write(directory.join("apns-root.pem"), apns.root_pem())?;
        let settings = format!(
            "[device]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
             [apns]\nhost = \"localhost\"\nport = {}\nroot_file = \"apns-root.pem\"\n\
             [log]\nlevel = \"warn\"\n",
            apns.port()
        );
        fs::write(directory.join(SETTINGS), settings)?;
        let (child, stdin, devices, admin) = spawn(directory, &[])?;
        Ok(Self {
            directory: directory.to_owned(),
            child,
            stdin,
            devices,
            admin,
        })
    }

    /// kill -9, then a start on the same ports; says how long it took to listen again.
    pub(super) fn kill_and_restart(&mut self) -> anyhow::Result<Duration> {
        self.child.kill()?;
        self.child.wait()?;
        let began = Instant::now();
        let ports = [
            ("REVEILLE_DEVICE__LISTEN", self.devices.to_string()),
            ("REVEILLE_ADMIN__LISTEN", self.admin.to_string()),
        ];
        (self.child, self.stdin, _, _) = spawn(&self.directory, &ports)?;
        Ok(began.elapsed())
    }

    /// A file of its data directory, as text.
    pub(super) fn file(&self, name: &str) -> anyhow::Result<String> {
        let path = self.directory.join("data").join(name);
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    }

    /// The base of the URLs devices know.
    pub(super) fn public_url(&self) -> String {
        format!("https://localhost:{}", self.devices.port())
    }

    /// Memory it holds, in bytes.
    pub(super) fn resident_bytes(&self) -> u64 {
        crate::metrics::resident_bytes(&self.child.id().to_string()).unwrap_or(0)
    }

    /// Where it logs.
    pub(super) fn log(&self) -> PathBuf {
        self.directory.join(LOG)
    }

    /// Tells it to stop and waits until it has.
    pub(super) fn stop(mut self) -> anyhow::Result<()> {
        drop(self.stdin.take());
        let status = self.child.wait()?;
        if !status.success() {
            bail!("the server ended with {status}: {}", said(&self.log()));
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Ended already, as a rule.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

type Spawned = (Child, Option<ChildStdin>, SocketAddr, SocketAddr);

fn spawn(directory: &Path, overrides: &[(&str, String)]) -> anyhow::Result<Spawned> {
    let log = directory.join(LOG);
    let err = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&log)?;
    let mut command = Command::new(env::current_exe()?);
    // What is set here is meant for another server.
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("REVEILLE_") {
            command.env_remove(name);
        }
    }
    let mut child = command
        .args(["--config", SETTINGS, "serve", "--demo"])
        .envs(overrides.iter().map(|(name, value)| (name, value)))
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(err)
        // Ctrl-C is for us; it stops when we tell it.
        .process_group(0)
        .spawn()
        .context("starting the server")?;
    let stdout = child.stdout.take().context("its output is ours")?;
    let mut lines = BufReader::new(stdout).lines();
    let mut listener = |name: &str| loop {
        let Some(line) = lines.next() else {
            bail!("the server did not start: {}", said(&log));
        };
        if let Some(rest) = line?.strip_prefix(name) {
            let url = rest.split_whitespace().next().unwrap_or_default();
            let (_, address) = url.split_once("://").unwrap_or_default();
            return address.parse().with_context(|| format!("{name}: {url}"));
        }
    };
    let (devices, admin) = (listener("devices")?, listener("admin")?);
    // Nobody reads on; a full pipe must not stop it.
    thread::spawn(move || lines.for_each(drop));
    let stdin = child.stdin.take();
    Ok((child, stdin, devices, admin))
}

/// What it logged last.
fn said(log: &Path) -> String {
    let mut text = String::new();
    // Without its log there is nothing to add.
    let _ = fs::File::open(log).and_then(|mut file| file.read_to_string(&mut text));
    text.lines().last().unwrap_or("nothing logged").to_owned()
}

const SETTINGS: &str = "config.toml";
const LOG: &str = "server.log";
