//! What `serve` prints when it runs: where it listens, and what to do next.
//!
//! The steps follow from what the server has and lacks; a server with all it needs
//! prints none. The first token is shown here, once.

use std::fmt::Write as _;

use super::connection::own_url;
use super::output::say;
use crate::api::push_certificates::topics;
use crate::config::{AdminTls, Config, Tls};
use crate::server::{Running, token_file};

/// Prints it to stdout.
pub(super) async fn print(running: &Running) -> anyhow::Result<()> {
    let config = &running.app.config;
    let mut page = listeners(running);
    if let Some(token) = &running.first_token {
        let file = token_file(config);
        let _ = write!(
            page,
            "\nadmin token  {token}\n             shown this once; kept in {}",
            file.display()
        );
    }
    let wants = Wants {
        identities: running.app.store.enrolled_devices().is_empty(),
        push_certificate: topics(&running.app).await.is_ok_and(|t| t.is_empty()),
        example: running.first_token.is_some(),
    };
    let steps = wants.steps(config, &own_url(&config.admin, running.admin));
    if !steps.is_empty() {
        page.push_str("\n\nWhat to do next:");
    }
    for (number, step) in steps.iter().enumerate() {
        let _ = write!(
            page,
            "\n  {}. {}",
            number + 1,
            step.replace('\n', "\n     ")
        );
    }
    Ok(say(&page)?)
}

fn listeners(running: &Running) -> String {
    let config = &running.app.config;
    let tls = config.device.tls != Tls::Off;
    let checkin = running.checkin.map(|at| {
        let path = &config.device.checkin_path;
        format!("check-ins    {}://{at} ({path} alone)\n", scheme(tls))
    });
    let path = &config.store.path;
    let data = std::path::absolute(path).unwrap_or_else(|_| path.clone());
    format!(
        "reveille {} is running\n\
         devices      {}://{} (check-in {}, commands {})\n\
         {}\
         admin        {}://{} (API under /api/v1, described in /api/openapi.json)\n\
         data         {}",
        env!("CARGO_PKG_VERSION"),
        scheme(tls),
        running.device,
        config.device.checkin_path,
        config.device.connect_path,
        checkin.unwrap_or_default(),
        scheme(config.admin.tls != AdminTls::Off),
        running.admin,
        data.display()
    )
}

fn scheme(tls: bool) -> &'static str {
    if tls { "https" } else { "http" }
}

/// What a server does not have yet.
struct Wants {
    /// No device is enrolled.
    identities: bool,
    /// No push certificate.
    push_certificate: bool,
    /// A look at how to use it.
    example: bool,
}

impl Wants {
    fn steps(&self, config: &Config, admin: &str) -> Vec<String> {
        let device = &config.device;
        let mut steps = Vec::new();
        if self.identities {
            match device.tls {
                Tls::Auto if device.public_url.is_empty() => steps.push(
                    "Set device.public_url to the https URL under which devices reach this server:\n\
                     its certificate is made for that host."
                        .to_owned(),
                ),
                Tls::Acme => steps.push(format!(
                    "Lead port 443 of the public host to {}, past any proxy that ends TLS:\n\
                     the CA comes there to see that the name is yours, now and at each renewal.",
                    device.listen
                )),
                Tls::Off if device.trusted_proxies.is_empty() => steps.push(format!(
                    "Put a TLS proxy in front of {}: device.tls is \"off\".\n\
                     To have it pass client certificates on, set device.trusted_proxies and\n\
                     device.client_cert_header; else profiles tell devices to sign their messages.",
                    device.listen
                )),
                _ => {}
            }
        }
        if self.push_certificate {
            steps.push(
                "Upload the MDM push certificate with its key (without one no device is woken):\n\
                 reveille push-cert import certificate.pem key.pem\n\
                 or begin the way to one: reveille push-cert csr"
                    .to_owned(),
            );
        }
        if self.identities {
            let public = match device.public_url.trim_end_matches('/') {
                "" => "https://YOUR.HOST",
                url => url,
            };
            let checkin = match device.checkin_public_url.trim_end_matches('/') {
                "" => public,
                url => url,
            };
            steps.push(format!(
                "Make a link, and open it on the device that is to be managed:\n\
                 reveille enroll-link create\n\
                 The profile behind it has ServerURL {public}{}\n\
                 and CheckInURL {checkin}{}.",
                device.connect_path, device.checkin_path
            ));
        }
        if self.example {
            let file = token_file(config);
            steps.push(format!(
                "Look around, and try the whole of it without devices:\n\
                 reveille devices list\n\
                 curl -H \"Authorization: Bearer $(cat {})\" {admin}/api/v1/devices\n\
                 reveille demo",
                file.display()
            ));
        }
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_has_all_it_needs_is_given_no_advice() {
        let wants = Wants {
            identities: false,
            push_certificate: false,
            example: false,
        };
        assert!(wants.steps(&Config::default(), "http://x").is_empty());
    }

    #[test]
    fn how_tls_is_ended_decides_what_is_left_to_do() {
        let wants = Wants {
            identities: true,
            push_certificate: false,
            example: false,
        };
        let mut config = Config::default();
        for (tls, count, word) in [
            (Tls::Auto, 2, "public_url"),
            (Tls::Files, 1, "ServerURL"),
            (Tls::Acme, 2, "port 443"),
            (Tls::Off, 2, "proxy"),
        ] {
            config.device.tls = tls;
            let steps = wants.steps(&config, "http://x");
            assert_eq!(steps.len(), count, "{steps:?}");
            assert!(steps[0].contains(word), "{steps:?}");
        }
    }

    #[test]
    fn the_first_start_names_the_urls_of_the_profile() {
        let mut config = Config::default();
        config.device.public_url = "https://mdm.example.org/".into();
        let wants = Wants {
            identities: true,
            push_certificate: true,
            example: true,
        };
        let steps = wants.steps(&config, "http://127.0.0.1:9000");
        assert_eq!(steps.len(), 3, "push certificate, link, example");
        let all = steps.join("\n");
        assert!(
            all.contains("ServerURL https://mdm.example.org/mdm/connect"),
            "{all}"
        );
        assert!(
            all.contains("http://127.0.0.1:9000/api/v1/devices"),
            "{all}"
        );
    }
}
