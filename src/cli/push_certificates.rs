//! `push-cert`: put push certificates to use, over the admin API.
//!
//! Reads files of this machine; what is in them is for the server to judge. Keys and
//! passphrases are never printed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value};

use super::connection::Connection;
use super::output::{self, Format, text};
use super::usage;

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
    /// Put a certificate with its key to use, at once.
    Import(Import),
    /// List the push certificates in use.
    List(Format),
}

#[derive(Args)]
struct Import {
    /// PEM files with the certificate and its key, in one or in two.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The file is PKCS#12 (.p12, .pfx).
    #[arg(long)]
    pkcs12: bool,
    /// A file with the passphrase of the key or of the PKCS#12 file.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Take another topic than the one in use: devices of the old one must enroll again.
    #[arg(long)]
    force_topic_change: bool,
    #[command(flatten)]
    format: Format,
}

impl PushCert {
    /// Does it.
    pub(super) async fn run(self, file: Option<&Path>) -> anyhow::Result<()> {
        let client = self.connection.client(file)?;
        match self.verb {
            Verb::Import(import) => {
                let body = import.body()?;
                let path = ["push-certificates"];
                let topic = client.send(Method::PUT, &path, Some(&body)).await?;
                print(&topic, std::slice::from_ref(&topic), import.format)
            }
            Verb::List(format) => {
                let page = client.get(&["push-certificates"]).await?;
                let items = page.pointer("/items").and_then(Value::as_array).cloned();
                let items = items.unwrap_or_default();
                print(&items, &items, format)
            }
        }
    }
}

impl Import {
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
        if let Some(file) = &self.passphrase_file {
            let passphrase = String::from_utf8(read(file)?)
                .ok()
                .with_context(|| format!("{}: is not text", file.display()))?;
            let passphrase = passphrase.trim_end_matches(['\r', '\n']);
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
