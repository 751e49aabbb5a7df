//! `enroll-link`: make, list and revoke enrollment links, over the admin API.
//!
//! A link's URL is printed once, alone on stdout. `export` writes a profile of a link to
//! a file, for Apple Configurator; what is in it enrolls devices, so the file is private.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use reqwest::Method;
use serde_json::{Map, Value};

use super::connection::Connection;
use super::output::{self, Format, text, when};
use crate::admin_client::AdminClient;

/// The verbs and the server they ask.
#[derive(Args)]
pub(super) struct EnrollLink {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make a link; its URL is shown once.
    Create(Create),
    /// List links, newest first.
    List(Format),
    /// Take a link back: nothing is issued through it from then on.
    Revoke {
        /// The link's id, as `enroll-link list` shows it.
        id: String,
    },
    /// Write a profile of a link to a file, for Apple Configurator.
    Export(Export),
}

/// The link to make.
#[derive(Args)]
struct Create {
    /// Hours until it is void; 7 days when absent.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=8784))]
    expires_hours: Option<u64>,
    /// Devices that may enroll through it; 1 when absent.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_uses: Option<u32>,
    /// A tag for the devices that enroll through it.
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// What the server may do to them, such as erase; everything when absent.
    #[arg(long, value_name = "RIGHT", value_delimiter = ',')]
    right: Vec<String>,
    /// The one device it is for: its id, or its serial number.
    #[arg(long, value_name = "ID")]
    device: Option<String>,
    /// Push topic; the one there is when absent.
    #[arg(long)]
    topic: Option<String>,
    /// A profile of it enrolls any number of devices while the link lasts, not just one.
    #[arg(long)]
    shared: bool,
    /// How a device comes to its identity; scep when absent.
    #[arg(long, value_enum, value_name = "KIND")]
    identity: Option<Identity>,
    /// A device first proves the certificate Apple gave it (over-the-air enrollment).
    #[arg(long, conflicts_with_all = ["shared", "user"])]
    ota: bool,
    /// User Enrollment (iOS 13 to 17) with this Managed Apple Account.
    #[arg(long, value_name = "ACCOUNT", conflicts_with = "right")]
    user: Option<String>,
    #[command(flatten)]
    format: Format,
}

/// How a device comes to its identity.
#[derive(Clone, Copy, ValueEnum)]
enum Identity {
    /// It makes its key and asks for a certificate.
    Scep,
    /// The server makes both and puts them in the profile; each download counts as a use.
    Pkcs12,
}

impl Identity {
    fn name(self) -> &'static str {
        match self {
            Self::Scep => "scep",
            Self::Pkcs12 => "pkcs12",
        }
    }
}

#[derive(Args)]
struct Export {
    /// The link's id, as `enroll-link list` shows it.
    id: String,
    /// The file to write; it must not be there yet.
    #[arg(value_name = "FILE.mobileconfig")]
    file: PathBuf,
    /// Write the bare plist, not signed.
    #[arg(long)]
    unsigned: bool,
}

impl EnrollLink {
    /// Does it.
    pub(super) async fn run(self, file: Option<&Path>) -> anyhow::Result<()> {
        let client = self.connection.client(file)?;
        match self.verb {
            Verb::Create(create) => create.run(&client).await,
            Verb::List(format) => list(&client, format).await,
            Verb::Revoke { id } => {
                let path = [LINKS, &*id];
                client.send(Method::DELETE, &path, None).await?;
                eprintln!("link {} is revoked", output::plain(&id));
                Ok(())
            }
            Verb::Export(export) => export.run(&client).await,
        }
    }
}

impl Create {
    async fn run(self, client: &AdminClient) -> anyhow::Result<()> {
        let link = client.post_once(&[LINKS], &self.body(), None).await?;
        if self.format.json {
            return output::json(&link);
        }
        eprintln!(
            "link {}, valid until {}; its URL, shown this once:",
            text(&link, "/id"),
            text(&link, "/expires_at"),
        );
        Ok(output::say(&text(&link, "/url"))?)
    }

    fn body(&self) -> Value {
        let mut body = Map::new();
        let mut put = |key: &str, value: Option<Value>| {
            body.extend(value.map(|value| (key.to_owned(), value)));
        };
        put("expires_in", self.expires_hours.map(|h| (h * 3600).into()));
        put("max_uses", self.max_uses.map(Value::from));
        put("device", self.device.clone().map(Value::from));
        put("topic", self.topic.clone().map(Value::from));
        let some = |list: &[String]| (!list.is_empty()).then(|| Value::from(list));
        put("tags", some(&self.tag));
        put("access_rights", some(&self.right));
        put("challenge", self.shared.then(|| "shared".into()));
        put("identity", self.identity.map(|kind| kind.name().into()));
        put("ota", self.ota.then(|| true.into()));
        put("kind", self.user.is_some().then(|| "user".into()));
        put("managed_apple_id", self.user.clone().map(Value::from));
        Value::Object(body)
    }
}

impl Export {
    async fn run(self, client: &AdminClient) -> anyhow::Result<()> {
        let link = client.get(&[LINKS, &self.id]).await?;
        let unsigned = self.unsigned.then(|| ("unsigned", "1".to_owned()));
        let query: Vec<_> = unsigned.into_iter().collect();
        let path = [LINKS, &*self.id, "profile"];
        let profile = client.file(&path, &query).await?;
        let name = || self.file.display().to_string();
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.file)
            .with_context(name)?;
        file.write_all(&profile).with_context(name)?;
        file.sync_all().with_context(name)?;
        eprintln!(
            "{}: {}; keep it to yourself",
            output::plain(&name()),
            enrolls(&link)
        );
        Ok(())
    }
}

/// What an exported profile of a link is good for.
fn enrolls(link: &Value) -> String {
    let until = text(link, "/expires_at");
    let is = |pointer, value| text(link, pointer) == value;
    if is("/identity", "pkcs12") {
        return "enrolls one device and counted as a use; its key is in it".to_owned();
    }
    if link.pointer("/ota") == Some(&Value::Bool(true)) {
        return format!("leads one device to its profile, soon (not after {until})");
    }
    if is("/challenge", "shared") {
        return format!("enrolls as many devices as the link allows (until {until})");
    }
    format!("enrolls one device, soon; a link made with --shared does more (not after {until})")
}

async fn list(client: &AdminClient, format: Format) -> anyhow::Result<()> {
    let links = client.list(&[LINKS], &[], usize::MAX).await?;
    if format.json {
        return output::json(&links);
    }
    let rows = links.iter().map(|link| {
        let uses = [text(link, "/uses"), text(link, "/max_uses")].join(" of ");
        vec![
            text(link, "/id"),
            text(link, "/state"),
            uses,
            when(link, "/expires_at"),
            text(link, "/challenge"),
            text(link, "/device"),
            text(link, "/tags"),
            text(link, "/principal"),
        ]
    });
    let header = [
        "ID",
        "STATE",
        "USED",
        "EXPIRES",
        "CHALLENGE",
        "DEVICE",
        "TAGS",
        "MADE BY",
    ];
    Ok(output::table(
        &header,
        rows.collect(),
        "no enrollment links",
    )?)
}

/// The resource.
const LINKS: &str = "enrollment-links";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_said_is_left_to_the_server() {
        let mut create = Create {
            expires_hours: None,
            max_uses: None,
            tag: Vec::new(),
            right: Vec::new(),
            device: None,
            topic: None,
            shared: false,
            identity: None,
            ota: false,
            user: None,
            format: Format { json: false },
        };
        assert_eq!(create.body(), json!({}));
        create.expires_hours = Some(2);
        create.tag = vec!["loan".into()];
        create.shared = true;
        let body = json!({"expires_in": 7200, "tags": ["loan"], "challenge": "shared"});
        assert_eq!(create.body(), body);
        (create.shared, create.identity) = (false, Some(Identity::Pkcs12));
        assert_eq!(create.body()["identity"], "pkcs12");
        create.ota = true;
        assert_eq!(create.body()["ota"], true);
    }
}
