//! The server that runs, if one does, and the ports it needs.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use schema::UnixMillis;
use serde::Deserialize;

use super::super::connection::own_url;
use super::finding::Finding;
use super::store::backup;
use crate::api::rendering::read_time;
use crate::config::{Admin, AdminTls};

/// What a running server says of itself.
#[derive(Debug, Deserialize)]
pub(super) struct Readiness {
    ready: bool,
    #[serde(default)]
    reasons: Vec<String>,
    #[serde(default)]
    warnings: Vec<String>,
    #[serde(default)]
    last_backup_at: Option<String>,
}

impl Readiness {
    /// Asks the admin listener of this machine; none when no server of ours answers.
    pub(super) async fn ask(admin: &Admin) -> Option<Self> {
        // Its certificate is for the name admins use, not for this machine's own address;
        // no secret is sent.
        let client = reqwest::Client::builder()
            .tls_danger_accept_invalid_certs(admin.tls == AdminTls::Files)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(PATIENCE)
            .build()
            .ok()?;
        let url = format!("{}/readyz", own_url(admin, admin.listen));
        client.get(url).send().await.ok()?.json().await.ok()
    }

    /// What it said, a finding each.
    pub(super) fn findings(&self, now: UnixMillis) -> Vec<Finding> {
        let mut findings = Vec::new();
        if self.ready {
            findings.push(Finding::ok(SERVER, "is running and ready"));
        }
        let reasons = self.reasons.iter();
        findings.extend(reasons.map(|why| Finding::fail(SERVER, why, "see the server's log")));
        let warnings = self.warnings.iter();
        findings.extend(warnings.map(|why| Finding::warn(SERVER, why, "")));
        let last = self.last_backup_at.as_deref().and_then(read_time);
        findings.push(backup(last, now));
        findings
    }
}

/// No server answers, although the store is in use.
pub(super) fn silent(admin: &Admin) -> Finding {
    Finding::fail(
        SERVER,
        format!(
            "a process has the store open, but no server answers at {}",
            own_url(admin, admin.listen)
        ),
        "look for it (fuser reveille.redb); it may use another configuration",
    )
}

/// Whether a listener of the configuration can be had, or is had by our server.
pub(super) fn port(check: &'static str, at: SocketAddr, running: bool) -> Finding {
    match (TcpListener::bind(at), running) {
        (Ok(_), false) => Finding::ok(check, format!("{at} is free")),
        (Ok(_), true) if at.port() == 0 => Finding::ok(check, "takes any free port"),
        (Ok(_), true) => Finding::warn(
            check,
            format!("nobody listens on {at}, although the server runs"),
            "it was started with another configuration: restart it",
        ),
        (Err(why), true) if why.kind() == ErrorKind::AddrInUse => {
            Finding::ok(check, format!("{at} is in use by the server"))
        }
        (Err(why), _) => Finding::fail(check, format!("{at}: {why}"), advice(&why, at)),
    }
}

fn advice(why: &std::io::Error, at: SocketAddr) -> String {
    match why.kind() {
        ErrorKind::AddrInUse => format!("stop what listens there: ss -ltnp sport = :{}", at.port()),
        ErrorKind::AddrNotAvailable => "name an address of this machine".to_owned(),
        ErrorKind::PermissionDenied => {
            "run as root, or give the program CAP_NET_BIND_SERVICE".to_owned()
        }
        _ => "choose another address".to_owned(),
    }
}

const SERVER: &str = "server";
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::super::finding::Outcome;
    use super::*;

    #[test]
    fn a_port_is_free_ours_or_a_strangers() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = taken.local_addr().unwrap();
        assert_eq!(port("p", at, true).outcome, Outcome::Ok);
        let finding = port("p", at, false);
        assert_eq!(finding.outcome, Outcome::Fail);
        assert!(finding.advice.unwrap().contains("ss -ltnp"));
        let elsewhere = "192.0.2.1:1234".parse().unwrap();
        assert_eq!(port("p", elsewhere, false).outcome, Outcome::Fail);
        drop(taken);
        assert_eq!(port("p", at, false).outcome, Outcome::Ok);
        assert_eq!(port("p", at, true).outcome, Outcome::Warn);
    }

    #[test]
    fn what_the_server_says_becomes_findings() {
        let readiness: Readiness = serde_json::from_str(
            r#"{"ready":false,"reasons":["the disk is full"],"warnings":["a","b"]}"#,
        )
        .unwrap();
        let outcomes: Vec<_> = readiness
            .findings(UnixMillis(0))
            .iter()
            .map(|f| f.outcome)
            .collect();
        assert_eq!(
            outcomes,
            [Outcome::Fail, Outcome::Warn, Outcome::Warn, Outcome::Warn]
        );
    }
}
