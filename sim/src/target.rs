//! The server under test: where it is, which paths it has, and how a device
//! proves itself to it. Loopback only: the simulator never touches the world.

use std::net::{IpAddr, SocketAddr};

use hyper::Uri;
use hyper::http::uri::Authority;

use crate::dial::Trust;
use crate::error::SimError;

/// A server's device door.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where it listens.
    pub address: SocketAddr,
    /// The `Host` header.
    pub host: String,
    /// Path of check-ins.
    pub checkin_path: String,
    /// Path of reports.
    pub connect_path: String,
    /// How devices prove who they are.
    pub proof: Proof,
    /// With it, TLS is spoken.
    pub trust: Option<Trust>,
}

/// How a device proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Proof {
    /// `Mdm-Signature` over each body: an RSA signature per request.
    Signature,
    /// `Client-Cert` (RFC 9440), as a TLS proxy adds it: costs nothing.
    Header,
    /// The TLS client certificate.
    #[value(skip)]
    Tls,
}

impl Target {
    /// A server at `base_url` (`http://127.0.0.1:port`) with Reveille's paths.
    pub fn new(base_url: &str, proof: Proof) -> Result<Self, SimError> {
        let (address, host) = loopback(base_url)?;
        Ok(Self::at(address, host, proof, None))
    }

    /// A server at `base_url` (`https://localhost:port`) whose certificate
    /// chains to `root_pem`; devices show theirs in the handshake, unless
    /// `proof` is set to another way.
    pub fn tls(base_url: &str, root_pem: &[u8]) -> Result<Self, SimError> {
        let (address, authority) = loopback_as("https", 443, base_url)?;
        let trust = Trust::new(root_pem, host_of(&authority))?;
        let host = authority.to_string();
        Ok(Self::at(address, host, Proof::Tls, Some(trust)))
    }

    fn at(address: SocketAddr, host: String, proof: Proof, trust: Option<Trust>) -> Self {
        Self {
            address,
            host,
            checkin_path: "/mdm/checkin".to_owned(),
            connect_path: "/mdm/connect".to_owned(),
            proof,
            trust,
        }
    }
}

/// The address and host of an `http` url on loopback; refuses all others.
pub(crate) fn loopback(url: &str) -> Result<(SocketAddr, String), SimError> {
    let (address, authority) = loopback_as("http", 80, url)?;
    Ok((address, authority.to_string()))
}

fn loopback_as(
    scheme: &'static str,
    port: u16,
    url: &str,
) -> Result<(SocketAddr, Authority), SimError> {
    let refuse = |why| SimError::Target {
        url: url.to_owned(),
        why,
    };
    let uri: Uri = url.parse().map_err(|_| refuse("not a url"))?;
    if uri.scheme_str() != Some(scheme) {
        return Err(refuse(match scheme {
            "http" => "only plain http is spoken here",
            _ => "only https is spoken here",
        }));
    }
    let authority = uri.authority().ok_or_else(|| refuse("no host"))?;
    let ip: IpAddr = match host_of(authority) {
        "localhost" => IpAddr::from([127, 0, 0, 1]),
        name => name.parse().map_err(|_| refuse(ONLY_LOOPBACK))?,
    };
    if !ip.is_loopback() {
        return Err(refuse(ONLY_LOOPBACK));
    }
    let port = authority.port_u16().unwrap_or(port);
    Ok((SocketAddr::new(ip, port), authority.clone()))
}

/// The host without the brackets of an IPv6 address.
fn host_of(authority: &Authority) -> &str {
    authority.host().trim_matches(['[', ']'])
}

const ONLY_LOOPBACK: &str = "the simulator talks to loopback only (127.0.0.1, ::1, localhost)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_let_through() {
        for url in [
            "http://127.0.0.1:80",
            "http://localhost:8080/",
            "http://[::1]:9",
        ] {
            assert!(Target::new(url, Proof::Header).is_ok(), "{url}");
        }
    }

    #[test]
    fn the_world_is_refused() {
        for url in [
            "http://mdm.example.com",
            "http://10.0.0.1:80",
            "http://127.0.0.1.evil.com",
            "https://127.0.0.1",
            "127.0.0.1",
            "http://127.0.0.1@10.0.0.1/",
        ] {
            let refused = Target::new(url, Proof::Header);
            assert!(matches!(refused, Err(SimError::Target { .. })), "{url}");
        }
    }
}
