//! The server of a row: the real binary, on free ports of loopback, in a directory of its
//! own. It ends when told, when dropped, and when we end.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// A running server.
pub(super) struct Server {
    child: Child,
    /// While it is open the server runs.
    stdin: Option<ChildStdin>,
    pub(super) devices: String,
    pub(super) admin: String,
    pub(super) token: String,
}

impl Server {
    /// Starts it; devices prove themselves as behind a proxy, by a CA of `sim-ca`.
    pub(super) fn start(reveille: &Path, directory: &Path) -> Result<Self> {
        fs::write(directory.join("config.toml"), SETTINGS)?;
        let reveille = match reveille.components().count() {
            1 => reveille.to_owned(),
            _ => std::path::absolute(reveille)?,
        };
        let mut command = Command::new(&reveille);
        // What is set here is meant for another server.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("REVEILLE_") {
                command.env_remove(name);
            }
        }
        let log = fs::File::create(directory.join("server.log"))?;
        let mut child = command
            .args(["--config", "config.toml", "serve", "--demo"])
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", reveille.display()))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let mut server = Self {
            child,
            stdin,
            devices: String::new(),
            admin: String::new(),
            token: String::new(),
        };
        let mut lines = BufReader::new(stdout.context("its output is ours")?).lines();
        let mut url = |name: &str| -> Result<String> {
            loop {
                let Some(line) = lines.next() else {
                    let log = fs::read_to_string(directory.join("server.log"))?;
                    bail!("the server did not start: {log}");
                };
                let line = line?;
                if line.starts_with(name) {
                    let url = line.split_whitespace().nth(1);
                    return Ok(url.unwrap_or_default().to_owned());
                }
            }
        };
        server.devices = url("devices")?;
        server.admin = url("admin")?;
        server.token = fs::read_to_string(directory.join("data/admin.token"))?;
        // Nobody reads on; a full pipe must not stop it.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(server)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Tells it to stop and waits until it has.
    pub(super) fn stop(mut self) -> Result<()> {
        drop(self.stdin.take());
        let status = self.child.wait()?;
        ensure!(status.success(), "the server ended with {status}");
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Ended already, as a rule.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const SETTINGS: &str = r#"
[device]
listen = "127.0.0.1:0"
tls = "off"
trusted_proxies = ["127.0.0.1/32"]
client_cert_header = "Client-Cert"
extra_ca_files = ["sim-ca/ca.pem"]
[admin]
listen = "127.0.0.1:0"
[log]
level = "warn"
"#;
