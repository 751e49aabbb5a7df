//! Where the client verbs find the server and the token.
//!
//! Flags, then the environment, then the configuration of this machine. The token in the
//! data directory goes to this machine's own admin listener only, never to another URL.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use anyhow::Context as _;
use clap::Args;

use crate::admin_client::AdminClient;
use crate::config::{Admin, AdminTls, Config};
use crate::server::token_file;

/// The server and who asks it.
#[derive(Args)]
pub(super) struct Connection {
    /// The admin listener; that of the configuration unless given.
    #[arg(long, global = true, env = "REVEILLE_URL")]
    url: Option<String>,
    /// An API token; that in the data directory of this machine unless given.
    #[arg(long, global = true, env = "REVEILLE_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

impl Connection {
    /// Whether they name a server, rather than leave it to this machine's configuration.
    pub(super) fn names_server(&self) -> bool {
        self.url.as_ref().is_some_and(|url| !url.is_empty())
    }

    /// The client these options mean.
    pub(super) fn client(self, file: Option<&Path>) -> anyhow::Result<AdminClient> {
        let given = |value: Option<String>| value.filter(|value| !value.is_empty());
        let (url, token) = match (given(self.url), given(self.token)) {
            (Some(url), Some(token)) => (url, token),
            (url, token) => {
                let config = Config::load(file).context("configuration")?;
                let own = own_url(&config.admin, config.admin.listen);
                let url = url.unwrap_or_else(|| own.clone());
                let token = match token {
                    Some(token) => token,
                    None => own_token(&config, url.trim_end_matches('/') == own)?,
                };
                (url, token)
            }
        };
        Ok(AdminClient::new(&url, &token)?)
    }
}

/// How this machine reaches its own admin listener.
pub(super) fn own_url(admin: &Admin, listen: SocketAddr) -> String {
    let scheme = match admin.tls {
        AdminTls::Files => "https",
        AdminTls::Off => "http",
    };
    let mut at = listen;
    match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => at.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => at.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    format!("{scheme}://{at}")
}

fn own_token(config: &Config, own: bool) -> anyhow::Result<String> {
    let file = token_file(config);
    let hint = format!(
        "no token: set REVEILLE_TOKEN (the first start wrote one to {})",
        file.display()
    );
    if !own {
        anyhow::bail!(hint);
    }
    let token = fs::read_to_string(&file).context(hint)?;
    Ok(token.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_listener_is_reached_over_loopback_when_it_listens_everywhere() {
        let cases = [
            ("127.0.0.1:9000", "http://127.0.0.1:9000"),
            ("0.0.0.0:9000", "http://127.0.0.1:9000"),
            ("[::]:9000", "http://[::1]:9000"),
            ("10.0.0.5:80", "http://10.0.0.5:80"),
        ];
        for (listen, url) in cases {
            assert_eq!(own_url(&Admin::default(), listen.parse().unwrap()), url);
        }
        let admin = Admin {
            tls: AdminTls::Files,
            ..Admin::default()
        };
        let url = own_url(&admin, "0.0.0.0:9000".parse().unwrap());
        assert_eq!(url, "https://127.0.0.1:9000");
    }
}
