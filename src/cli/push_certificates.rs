//! `push-cert`: ask for push certificates, put them to use, renew them.
//!
//! Reads files of this machine; what is in them is for the server to judge. Keys and
//! passphrases are never printed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value};

use super::connection::Connection;
use super::output::{self, Format, text};
use super::usage;
use crate::admin_client::AdminClient;

mod request;

/// The verbs and the server they ask.
#[derive(Args)]
pub(super) struct PushCert {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Write the certificate signing request of a key that stays on the server.
    Csr(request::Csr),
    /// Sign a request as an MDM vendor, into the file Apple's push portal takes.
    Sign(request::Sign),
    /// Put a certificate to use, at once: with its key, or alone after `push-cert csr`.
    Import(Import),
    /// Put a renewed certificate to use: that of the same topic, so that every device stays
    /// enrolled. One of another topic is refused: it would shut all of them out.
    Renew(Import),
    /// List the push certificates in use.
    List(Format),
}

#[derive(Args)]
struct Import {
    /// PEM files with the certificate and its key, in one or in two; or with the
    /// certificate alone, when its request came from this server.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The file is PKCS#12 (.p12, .pfx).
    #[arg(long)]
    pkcs12: bool,
    /// A file with the passphrase of the key or of the PKCS#12 file.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Take another topic than the one in use: every device of the old one must enroll again.
    #[arg(long)]
    force_topic_change: bool,
    #[command(flatten)]
    format: Format,
}

impl PushCert {
    /// Does it.
    pub(super) async fn run(self, file: Option<&Path>) -> anyhow::Result<()> {
        let connection = self.connection;
        match self.verb {
            Verb::Sign(sign) => sign.run(connection, file).await,
            Verb::Csr(csr) => csr.run(&connection.client(file)?).await,
            Verb::Renew(import) => import.renew(&connection.client(file)?).await,
            Verb::Import(import) => {
                let body = import.body()?;
                let path = ["push-certificates"];
                let client = connection.client(file)?;
                let topic = client.send(Method::PUT, &path, Some(&body)).await?;
                print(&topic, std::slice::from_ref(&topic), import.format)
            }
            Verb::List(format) => {
                let items = topics(&connection.client(file)?).await?;
                print(&items, &items, format)
            }
        }
    }
}

impl Import {
    async fn renew(self, client: &AdminClient) -> anyhow::Result<()> {
        let before = topics(client).await?;
        ensure!(
            !before.is_empty(),
            "there is no push certificate to renew; push-cert import puts the first one to use"
        );
        let path = ["push-certificates"];
        let body = self.body()?;
        let answer = client.send(Method::PUT, &path, Some(&body)).await;
        let after = answer.context("nothing was changed")?;
        let topic = text(&after, "/topic");
        let until = text(&after, "/not_after");
        match before.iter().find(|old| text(old, "/topic") == topic) {
            Some(old) if text(old, "/not_after") < until => eprintln!(
                "renewed: every device stays enrolled (valid until {until}, was {})",
                text(old, "/not_after")
            ),
            Some(old) => eprintln!(
                "note: this certificate ends no later than the one it replaced ({})",
                text(old, "/not_after")
            ),
            None => eprintln!(
                "the topic is another now: devices of the old one must enroll again before its\n\
                 certificate ends"
            ),
        }
        print(&after, std::slice::from_ref(&after), self.format)
    }

    fn body(&self) -> anyhow::Result<Value> {
        let mut body = Map::new();
        if self.pkcs12 {
            let [file] = self.files.as_slice() else {
                return Err(usage("--pkcs12 takes one file").into());
            };
            let file = STANDARD.encode(read(file)?);
            body.insert("pkcs12".to_owned(), file.into());
        } else {
            body.insert("pem".to_owned(), self.pem()?.into());
        }
        if let Some(passphrase) = passphrase(self.passphrase_file.as_deref())? {
            body.insert("passphrase".to_owned(), passphrase.into());
        }
        if self.force_topic_change {
            body.insert("force_topic_change".to_owned(), true.into());
        }
        Ok(Value::Object(body))
    }

    fn pem(&self) -> anyhow::Result<String> {
        let mut pem = String::new();
        for file in &self.files {
            let text = String::from_utf8(read(file)?).ok();
            let text = text.filter(|text| text.contains("-----BEGIN "));
            pem.push_str(&text.with_context(|| {
                format!("{}: is not PEM (PKCS#12 needs --pkcs12)", file.display())
            })?);
            pem.push('\n');
        }
        Ok(pem)
    }
}

async fn topics(client: &AdminClient) -> anyhow::Result<Vec<Value>> {
    let page = client.get(&["push-certificates"]).await?;
    let items = page.pointer("/items").and_then(Value::as_array).cloned();
    Ok(items.unwrap_or_default())
}

/// A passphrase from its file, without the end of the line.
fn passphrase(file: Option<&Path>) -> anyhow::Result<Option<String>> {
    let Some(file) = file else {
        return Ok(None);
    };
    let passphrase = String::from_utf8(read(file)?)
        .ok()
        .with_context(|| format!("{}: is not text", file.display()))?;
    Ok(Some(passphrase.trim_end_matches(['\r', '\n']).to_owned()))
}

fn print(json: &impl serde::Serialize, topics: &[Value], format: Format) -> anyhow::Result<()> {
    if format.json {
        return output::json(json);
    }
    let columns = ["/topic", "/not_after", "/serial", "/held_back", "/halted"];
    let rows = topics
        .iter()
        .map(|topic| columns.map(|column| text(topic, column)).to_vec());
    let header = ["TOPIC", "VALID UNTIL", "SERIAL", "HELD BACK", "HALTED"];
    Ok(output::table(
        &header,
        rows.collect(),
        "no push certificates",
    )?)
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(file).with_context(|| file.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificate_and_key_may_come_in_two_files_and_pkcs12_must_be_said() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("a"), "-----BEGIN CERTIFICATE-----").unwrap();
        fs::write(path("b"), "-----BEGIN PRIVATE KEY-----").unwrap();
        fs::write(path("p12"), [0xff, 0]).unwrap();
        fs::write(path("passphrase"), "secret \n").unwrap();
        let mut import = Import {
            files: vec![path("a"), path("b")],
            pkcs12: false,
            passphrase_file: Some(path("passphrase")),
            force_topic_change: false,
            format: Format { json: false },
        };
        let body = import.body().unwrap();
        let pem = "-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n";
        assert_eq!(body["pem"], pem);
        assert_eq!(body["passphrase"], "secret ");
        import.files = vec![path("p12")];
        assert!(import.body().unwrap_err().to_string().contains("--pkcs12"));
        import.pkcs12 = true;
        assert_eq!(import.body().unwrap()["pkcs12"], "/wA=");
    }
}
