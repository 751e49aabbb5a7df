//! The certificate of a public CA, as far as the data directory tells.

use actors::Clock;
use schema::UnixMillis;
use schema::expiry::{Closeness, Purpose, closeness_if_late, told};

use super::finding::Finding;
use crate::config::{Config, Tls};
use crate::tls::acme;

/// Whether there is one, how long it lasts, and why there is no newer one.
pub(super) fn certificate(config: &Config, now: UnixMillis) -> Vec<Finding> {
    if config.device.tls != Tls::Acme {
        return Vec::new();
    }
    // What is wrong with the configuration is a finding of its own.
    let Ok(acme) = acme::of(config, &Clock::System) else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    let held = acme.certificate();
    match &held {
        None if acme.failing().is_none() => {
            findings.push(Finding::ok(CHECK, "ordered when the server runs"));
        }
        None => {}
        Some(held) => {
            let detail = format!("the certificate {}", told(held.not_after, now));
            let advice = Purpose::Tls.advice();
            findings.push(
                match closeness_if_late(held.not_before, held.not_after, now) {
                    None => Finding::ok(CHECK, detail),
                    Some(Closeness::Passed(_)) => Finding::warn(CHECK, detail, advice),
                    Some(Closeness::Expired) => Finding::fail(CHECK, detail, advice),
                },
            );
        }
    }
    if let Some(why) = acme.failing() {
        let detail = format!("the last order failed: {why}");
        findings.push(match held {
            None => Finding::fail(CHECK, detail, ADVICE),
            Some(_) => Finding::warn(CHECK, detail, ADVICE),
        });
    }
    findings
}

const CHECK: &str = "ACME certificate";
const ADVICE: &str = "port 443 of each public host must lead to device.listen, past any proxy that \
                      ends TLS; SIGHUP tries again at once, unless the CA asked to wait";
