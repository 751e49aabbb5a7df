//! The public URL: the base of every URL a device is told, and its keeping.
//!
//! Devices keep the URLs of their profile for good, so nothing is handed out before the
//! URL is known and reachable from elsewhere, and a server whose devices know another
//! one does not start by mistake. Called by the composition root and where profiles and
//! links are made.

use std::net::{IpAddr, SocketAddr};

use actors::Store;
use anyhow::bail;
use reqwest::Url;

use crate::config::{Config, Device};

/// The public URL of a server whose devices can be told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl {
    base: String,
    host: String,
    checkin: String,
}

impl PublicUrl {
    /// The public URL of a configuration.
    ///
    /// # Errors
    /// [`NoPublicUrl`] when devices elsewhere could not use it.
    pub fn of(config: &Config) -> Result<Self, NoPublicUrl> {
        let base = trimmed(&config.device);
        if base.is_empty() {
            return Err(NoPublicUrl::Unset);
        }
        let host = host_of(base, config.demo)?;
        let checkin = match config.device.checkin_public_url.trim_end_matches('/') {
            "" => base,
            other => {
                host_of(other, config.demo).map_err(NoPublicUrl::of_checkin)?;
                other
            }
        };
        Ok(Self {
            base: base.to_owned(),
            host,
            checkin: checkin.to_owned(),
        })
    }

    /// The URL at a path of the listener of check-ins.
    #[must_use]
    pub fn checkin_at(&self, path: &str) -> String {
        format!("{}{path}", self.checkin)
    }

    /// The base, without a slash at its end.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The host devices know.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The URL at a path of the device listener.
    #[must_use]
    pub fn at(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }
}

/// Why devices cannot be told a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPublicUrl {
    /// Nothing there.
    #[error("device.public_url is not set")]
    Unset,
    /// Not the base of URLs.
    #[error("device.public_url is not a URL such as https://mdm.example.org")]
    Unreadable,
    /// Devices take nothing else.
    #[error("device.public_url is not https, and devices take nothing else")]
    NotHttps,
    /// It leads every device to itself.
    #[error("device.public_url is a loopback address, which leads every device to itself")]
    Loopback,
    /// The base of the check-in URL is at fault.
    #[error("device.checkin_public_url {0}")]
    CheckIn(&'static str),
}

impl NoPublicUrl {
    /// The same fault of the base of the check-in URL.
    fn of_checkin(self) -> Self {
        Self::CheckIn(match self {
            Self::Unset => "is not set",
            Self::Unreadable => "is not a URL such as https://checkin.example.org",
            Self::NotHttps => "is not https, and devices take nothing else",
            Self::Loopback => "is a loopback address, which leads every device to itself",
            Self::CheckIn(why) => why,
        })
    }
}

/// The host of a base that devices elsewhere can use.
fn host_of(base: &str, demo: bool) -> Result<String, NoPublicUrl> {
    let url = Url::parse(base).map_err(|_| NoPublicUrl::Unreadable)?;
    let host = url.host_str().ok_or(NoPublicUrl::Unreadable)?;
    if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() {
        return Err(NoPublicUrl::Unreadable);
    }
    match (demo, url.scheme()) {
        (_, "https") | (true, "http") => {}
        _ => return Err(NoPublicUrl::NotHttps),
    }
    if !demo && is_local(host) {
        return Err(NoPublicUrl::Loopback);
    }
    Ok(host.to_owned())
}

/// Proves that the public URL is the one devices enrolled with, or takes a new one while
/// there are none.
///
/// # Errors
/// In words for the person at the terminal.
pub async fn keep(config: &Config, store: &Store) -> anyhow::Result<()> {
    let url = trimmed(&config.device);
    let Some(kept) = store.public_url()?.filter(|kept| kept != url) else {
        return Ok(());
    };
    let enrolled = store.enrolled_devices().len();
    if config.demo || (url.is_empty() && enrolled == 0) {
        return Ok(());
    }
    if enrolled > 0 && !config.force_public_url {
        let now = if url.is_empty() { "not set" } else { url };
        bail!(
            "device.public_url is {now}, but {enrolled} devices enrolled with {kept}: they keep \
             that URL and cannot be told another. Put it back, or start once with \
             --force-public-url (the old URL must go on leading here, and new profiles and \
             links name the new one)"
        );
    }
    if !url.is_empty() {
        store.put_public_url(url).await?;
        tracing::warn!(from = kept, to = url, "another public URL from now on");
    }
    Ok(())
}

/// Gives a demo the public URLs it has none of: those of its listeners.
pub fn complete_demo(
    config: &mut Config,
    tls: bool,
    device: SocketAddr,
    checkin: Option<SocketAddr>,
) {
    if !config.demo {
        return;
    }
    if config.device.public_url.is_empty() {
        config.device.public_url = of_demo(tls, device);
    }
    if let Some(at) = checkin
        && config.device.checkin_public_url.is_empty()
    {
        config.device.checkin_public_url = of_demo(tls, at);
    }
}

/// A listener's URL as its certificate names it.
fn of_demo(tls: bool, at: SocketAddr) -> String {
    if tls {
        format!("https://localhost:{}", at.port())
    } else {
        format!("http://{at}")
    }
}

fn trimmed(device: &Device) -> &str {
    device.public_url.trim_end_matches('/')
}

fn is_local(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        Ok(ip) => {
            let ip = ip.to_canonical();
            ip.is_loopback() || ip.is_unspecified()
        }
        Err(_) => {
            let name = host.trim_end_matches('.').to_ascii_lowercase();
            name == "localhost" || name.ends_with(".localhost")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str, demo: bool) -> Result<String, NoPublicUrl> {
        let mut config = Config {
            demo,
            ..Config::default()
        };
        config.device.public_url = url.into();
        PublicUrl::of(&config).map(|url| url.at("/scep"))
    }

    #[test]
    fn only_what_leads_devices_here_from_elsewhere_is_told_them() {
        let good = [
            ("https://mdm.example.org", "https://mdm.example.org/scep"),
            (
                "https://mdm.example.org:8443/",
                "https://mdm.example.org:8443/scep",
            ),
            ("https://example.org/mdm/", "https://example.org/mdm/scep"),
            ("https://192.0.2.1", "https://192.0.2.1/scep"),
        ];
        for (url, scep) in good {
            assert_eq!(of(url, false).as_deref(), Ok(scep), "{url}");
        }
        let bad = [
            ("", NoPublicUrl::Unset),
            ("/", NoPublicUrl::Unset),
            ("mdm.example.org", NoPublicUrl::Unreadable),
            ("https://a@mdm.example.org", NoPublicUrl::Unreadable),
            ("https://mdm.example.org?x", NoPublicUrl::Unreadable),
            ("http://mdm.example.org", NoPublicUrl::NotHttps),
            ("https://localhost:8443", NoPublicUrl::Loopback),
            ("https://a.LOCALHOST.", NoPublicUrl::Loopback),
            ("https://127.1.2.3", NoPublicUrl::Loopback),
            ("https://[::1]:1", NoPublicUrl::Loopback),
            ("https://[::ffff:127.0.0.1]", NoPublicUrl::Loopback),
            ("https://0.0.0.0", NoPublicUrl::Loopback),
        ];
        for (url, why) in bad {
            assert_eq!(of(url, false), Err(why), "{url}");
        }
    }

    #[test]
    fn the_check_in_url_is_the_public_one_or_as_good_a_one() {
        let of = |checkin: &str| {
            let mut config = Config::default();
            config.device.public_url = "https://mdm.example.org".into();
            config.device.checkin_public_url = checkin.into();
            PublicUrl::of(&config).map(|url| (url.at("/a"), url.checkin_at("/b")))
        };
        let (main, checkin) = of("").unwrap();
        assert_eq!(main, "https://mdm.example.org/a");
        assert_eq!(checkin, "https://mdm.example.org/b");
        let (main, checkin) = of("https://in.example.org:8444/").unwrap();
        assert_eq!(main, "https://mdm.example.org/a");
        assert_eq!(checkin, "https://in.example.org:8444/b");
        for url in ["in.example.org", "http://in.example.org", "https://[::1]"] {
            let why = of(url).unwrap_err().to_string();
            assert!(why.starts_with("device.checkin_public_url is"), "{why}");
        }
    }

    #[test]
    fn a_demo_may_be_on_this_machine_alone() {
        assert!(of("http://127.0.0.1:1234", true).is_ok());
        assert!(of("https://localhost:1234", true).is_ok());
        assert_eq!(of("", true), Err(NoPublicUrl::Unset));
    }
}
