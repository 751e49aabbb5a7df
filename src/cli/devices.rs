//! `devices`: look at devices, wake and tag them, over the admin API.

use std::collections::BTreeSet;
use std::path::Path;

use clap::{Args, Subcommand, ValueEnum};
use reqwest::Method;
use serde_json::{Value, json};

use super::connection::Connection;
use super::device;
use super::output::{self, Format, shown, text, when};
use crate::admin_client::AdminClient;

/// The verbs and the server they ask.
#[derive(Args)]
pub(super) struct Devices {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// List devices that meet all conditions.
    List(Box<List>),
    /// Show all that is known of a device.
    Show {
        /// Enrollment id.
        id: String,
        #[command(flatten)]
        format: Format,
    },
    /// List the commands of a device, newest first.
    Commands {
        /// Enrollment id, of a user channel too.
        id: String,
        /// Only those that wait, or that ended.
        #[arg(long)]
        state: Option<Standing>,
        #[command(flatten)]
        format: Format,
    },
    /// Wake a device now.
    Wake {
        /// Enrollment id, of a user channel too.
        id: String,
    },
    /// Give a device tags; it keeps those it has.
    Tag(Tag),
    /// Let a device that still counts as enrolled enroll again under a new identity, once.
    AllowReenroll {
        /// Enrollment id.
        id: String,
    },
    /// Serve a device again whose requests were refused after repeated failures.
    LiftQuarantine {
        /// Enrollment id.
        id: String,
    },
}

/// The conditions.
#[derive(Args)]
struct List {
    /// Part of the id, the serial number or the name.
    #[arg(long, value_name = "TEXT")]
    q: Option<String>,
    /// The serial number.
    #[arg(long)]
    serial: Option<String>,
    /// pending, enrolled, checked_out or inactive.
    #[arg(long)]
    state: Option<String>,
    /// iOS, iPadOS, macOS, tvOS, watchOS or visionOS.
    #[arg(long)]
    platform: Option<String>,
    /// Apple's product name, such as iPad4,1.
    #[arg(long)]
    model: Option<String>,
    /// A version, such as 17.4, ">=17.4" or "<18".
    #[arg(long, value_name = "VERSION")]
    os_version: Option<String>,
    /// A tag.
    #[arg(long)]
    tag: Option<String>,
    /// Last contact before this time (RFC 3339).
    #[arg(long, value_name = "TIME")]
    seen_before: Option<String>,
    /// Last contact after this time (RFC 3339).
    #[arg(long, value_name = "TIME")]
    seen_after: Option<String>,
    /// At most so many; all when absent.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    #[command(flatten)]
    format: Format,
}

#[derive(Args)]
struct Tag {
    /// Enrollment id.
    id: String,
    /// Tags to add.
    #[arg(required_unless_present_any = ["remove", "replace"])]
    tags: Vec<String>,
    /// A tag to take away; may be repeated.
    #[arg(long, value_name = "TAG")]
    remove: Vec<String>,
    /// Take away all others.
    #[arg(long)]
    replace: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Standing {
    Open,
    Closed,
}

impl Devices {
    /// Does it.
    pub(super) async fn run(self, file: Option<&Path>) -> anyhow::Result<()> {
        let client = self.connection.client(file)?;
        let post = |id: String, what: &'static str| {
            let client = &client;
            async move {
                client
                    .send(Method::POST, &["devices", &id, what], None)
                    .await
            }
        };
        match self.verb {
            Verb::List(list) => list.run(&client).await?,
            Verb::Show { id, format } => {
                device::print(&client.get(&["devices", &id]).await?, format)?;
            }
            Verb::Commands { id, state, format } => commands(&client, &id, state, format).await?,
            Verb::Tag(tag) => tag.run(&client).await?,
            Verb::Wake { id } => {
                post(id, "wake").await?;
                eprintln!("the wake is on its way");
            }
            Verb::AllowReenroll { id } => {
                post(id, "allow-reenroll").await?;
                eprintln!("it may enroll again, once");
            }
            Verb::LiftQuarantine { id } => {
                post(id, "lift-quarantine").await?;
                eprintln!("it is served again");
            }
        }
        Ok(())
    }
}

impl List {
    async fn run(self, client: &AdminClient) -> anyhow::Result<()> {
        let conditions = [
            ("q", self.q),
            ("serial", self.serial),
            ("state", self.state),
            ("platform", self.platform),
            ("model", self.model),
            ("os_version", self.os_version),
            ("tag", self.tag),
            ("seen_before", self.seen_before),
            ("seen_after", self.seen_after),
        ];
        let query: Vec<_> = conditions
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect();
        let most = self.limit.and_then(|limit| usize::try_from(limit).ok());
        let most = most.unwrap_or(usize::MAX);
        let devices = client.list(&["devices"], &query, most).await?;
        if self.format.json {
            return output::json(&devices);
        }
        let rows = devices.iter().map(|device| {
            let os = [text(device, "/platform"), text(device, "/os_version")].join(" ");
            vec![
                text(device, "/id"),
                text(device, "/serial_number"),
                text(device, "/name"),
                text(device, "/model"),
                os.trim().to_owned(),
                text(device, "/state"),
                when(device, "/last_seen_at"),
                text(device, "/pending_commands"),
                text(device, "/tags"),
            ]
        });
        let header = [
            "ID",
            "SERIAL",
            "NAME",
            "MODEL",
            "OS",
            "STATE",
            "LAST SEEN",
            "WAITING",
            "TAGS",
        ];
        Ok(output::table(&header, rows.collect(), "no devices")?)
    }
}

impl Tag {
    async fn run(self, client: &AdminClient) -> anyhow::Result<()> {
        let path = ["devices", &self.id];
        let mut tags = BTreeSet::new();
        if !self.replace {
            let before = client.get(&path).await?;
            let before = before.pointer("/tags").and_then(Value::as_array);
            tags.extend(before.into_iter().flatten().map(shown));
        }
        tags.extend(self.tags);
        tags.retain(|tag| !self.remove.contains(tag));
        let change = json!({ "tags": tags });
        let device = client.send(Method::PATCH, &path, Some(&change)).await?;
        Ok(output::facts(vec![
            ("id", text(&device, "/id")),
            ("tags", text(&device, "/tags")),
        ])?)
    }
}

async fn commands(
    client: &AdminClient,
    id: &str,
    state: Option<Standing>,
    format: Format,
) -> anyhow::Result<()> {
    let state = state.map(|state| match state {
        Standing::Open => ("state", "open".to_owned()),
        Standing::Closed => ("state", "closed".to_owned()),
    });
    let query: Vec<_> = state.into_iter().collect();
    let path = ["devices", id, "commands"];
    let commands = client.list(&path, &query, usize::MAX).await?;
    if format.json {
        return output::json(&commands);
    }
    let rows = commands.iter().map(|command| {
        let mut state = text(command, "/state");
        if text(command, "/stuck") == "yes" {
            state.push_str(" (stuck)");
        }
        vec![
            text(command, "/command_uuid"),
            text(command, "/request_type"),
            state,
            when(command, "/created_at"),
            when(command, "/sent_at"),
            when(command, "/completed_at"),
            top_error(command),
        ]
    });
    let header = [
        "COMMAND", "TYPE", "STATE", "QUEUED", "SENT", "ENDED", "ERROR",
    ];
    Ok(output::table(&header, rows.collect(), "no commands")?)
}

/// The first error of a chain, short.
pub(super) fn top_error(of: &Value) -> String {
    let (domain, code, description) = (
        text(of, "/error_chain/0/domain"),
        text(of, "/error_chain/0/code"),
        text(of, "/error_chain/0/description"),
    );
    if code.is_empty() && domain.is_empty() {
        return String::new();
    }
    format!("{domain} {code}: {description}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_top_error_is_short_and_absent_when_there_is_none() {
        let error = json!({"code": 12021, "domain": "MCMDMErrorDomain", "description": "no"});
        let command = json!({ "error_chain": [error] });
        assert_eq!(top_error(&command), "MCMDMErrorDomain 12021: no");
        assert_eq!(top_error(&json!({ "error_chain": [] })), "");
    }
}
