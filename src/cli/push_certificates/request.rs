//! `push-cert csr` and `push-cert sign`: from a key of the server to the file Apple's
//! push portal takes.
//!
//! `csr` asks the admin API. `sign` is the MDM vendor's part and works on files alone;
//! without `--csr` it asks the server for the request first.

use std::fs;
use std::path::{Path, PathBuf};

use actors::Clock;
use actors::push_certificate::Vendor;
use anyhow::Context as _;
use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};

use super::super::connection::Connection;
use super::super::output::say;
use super::{passphrase, read};
use crate::admin_client::AdminClient;

/// Write the certificate signing request of a key that stays on the server.
#[derive(Args)]
pub(super) struct Csr {
    /// Where to write it, in PEM; - for stdout.
    #[arg(long, value_name = "FILE", default_value = "push.csr")]
    out: PathBuf,
    /// Make a new key although one waits for its certificate.
    #[arg(long)]
    replace: bool,
}

/// Sign a request as an MDM vendor, into the file Apple's push portal takes.
#[derive(Args)]
pub(super) struct Sign {
    /// The vendor's certificate, PEM or DER.
    #[arg(long, value_name = "FILE")]
    vendor_cert: PathBuf,
    /// Its private key, PEM.
    #[arg(long, value_name = "FILE")]
    vendor_key: PathBuf,
    /// Its issuers up to Apple's root, PEM or DER; may be repeated.
    #[arg(long, value_name = "FILE", required = true)]
    chain: Vec<PathBuf>,
    /// The request to sign; that of the server unless given.
    #[arg(long, value_name = "FILE")]
    csr: Option<PathBuf>,
    /// A file with the passphrase of the vendor's key.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Where to write it; - for stdout.
    #[arg(long, value_name = "FILE", default_value = "push-request.b64")]
    out: PathBuf,
}

impl Csr {
    /// Does it.
    pub(super) async fn run(self, client: &AdminClient) -> anyhow::Result<()> {
        let (csr, made) = request(client, self.replace).await?;
        write(&self.out, &csr)?;
        let key = match made {
            true => "its key was made now and waits on the server",
            false => "its key waits on the server since before",
        };
        eprintln!(
            "{key}\nnext: have an MDM vendor sign it (push-cert sign), upload that at\n\
             https://identity.apple.com/pushcert, then push-cert import the certificate alone"
        );
        Ok(())
    }
}

impl Sign {
    /// Does it.
    pub(super) async fn run(
        self,
        connection: Connection,
        file: Option<&Path>,
    ) -> anyhow::Result<()> {
        let issuers = self.chain.iter().map(|file| read(file));
        let vendor = Vendor::read(
            &read(&self.vendor_cert)?,
            &read(&self.vendor_key)?,
            passphrase(self.passphrase_file.as_deref())?.as_deref(),
            &issuers.collect::<anyhow::Result<Vec<_>>>()?,
            Clock::System.now(),
        )?;
        let csr = match &self.csr {
            Some(file) => read(file)?,
            None => request(&connection.client(file)?, false)
                .await?
                .0
                .into_bytes(),
        };
        let signed = vendor.sign(&csr)?;
        write(&self.out, &(signed.encode() + "\n"))?;
        eprintln!(
            "next: upload it at https://identity.apple.com/pushcert. To renew, choose Renew\n\
             beside the certificate in use there, with the same Apple Account"
        );
        Ok(())
    }
}

/// The server's request, and whether it was made now.
async fn request(client: &AdminClient, replace: bool) -> anyhow::Result<(String, bool)> {
    let path = ["push-certificates", "csr"];
    let body = json!({ "replace": replace });
    let answer = client.send(Method::POST, &path, Some(&body)).await?;
    let csr = answer.pointer("/csr").and_then(Value::as_str);
    let csr = csr.context("the server gave no request")?.to_owned();
    let made = answer.pointer("/made") == Some(&Value::Bool(true));
    Ok((csr, made))
}

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    if file == Path::new("-") {
        return Ok(say(text.trim_end())?);
    }
    fs::write(file, text).with_context(|| file.display().to_string())?;
    Ok(say(&format!("wrote {}", file.display()))?)
}
