//! `commands`: what was queued, what became of it, and what could be sent.

use std::io::{self, Write as _};
use std::path::Path;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::Value;

use super::catalog;
use super::connection::Connection;
use super::devices::top_error;
use super::output::{self, Format, text};
use super::send::Send;
use crate::admin_client::AdminClient;

/// The verbs and the server they ask.
#[derive(Args)]
pub(super) struct Commands {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Queue a command for one device or many.
    Send(Box<Send>),
    /// Show how a command stands over all its devices.
    Show {
        /// CommandUUID.
        uuid: String,
        #[command(flatten)]
        format: Format,
    },
    /// Take a command back wherever it has not been sent.
    Cancel {
        /// CommandUUID.
        uuid: String,
        #[command(flatten)]
        format: Format,
    },
    /// Show what a device reported on a command.
    Result(Report),
    /// Show the commands the server knows, or one of them; needs no server.
    Catalog {
        /// Apple's RequestType.
        #[arg(value_name = "TYPE")]
        request_type: Option<String>,
        #[command(flatten)]
        format: Format,
    },
}

#[derive(Args)]
struct Report {
    /// Enrollment id, of a user channel too.
    id: String,
    /// CommandUUID.
    uuid: String,
    /// Print the report as the device sent it.
    #[arg(long, conflicts_with = "json")]
    xml: bool,
    #[command(flatten)]
    format: Format,
}

impl Commands {
    /// Does it.
    pub(super) async fn run(self, file: Option<&Path>) -> anyhow::Result<()> {
        if let Verb::Catalog {
            request_type,
            format,
        } = self.verb
        {
            return catalog::print(request_type.as_deref(), format);
        }
        let client = self.connection.client(file)?;
        match self.verb {
            Verb::Send(send) => send.run(&client).await,
            Verb::Show { uuid, format } => {
                let standing = client.get(&["commands", &uuid]).await?;
                show(&standing, format)
            }
            Verb::Cancel { uuid, format } => cancel(&client, &uuid, format).await,
            Verb::Result(report) => report.run(&client).await,
            Verb::Catalog { .. } => Ok(()),
        }
    }
}

/// Prints how a command stands.
pub(super) fn show(standing: &Value, format: Format) -> anyhow::Result<()> {
    if format.json {
        return output::json(standing);
    }
    let mut facts = vec![
        ("command", text(standing, "/command_uuid")),
        ("type", text(standing, "/request_type")),
        ("queued", text(standing, "/created_at")),
        ("expires", text(standing, "/expires_at")),
        ("by", text(standing, "/principal")),
        ("reason", text(standing, "/reason")),
        ("targets", text(standing, "/targets")),
    ];
    facts.extend(counts(standing).map(|(state, count)| (state, format!("{count}"))));
    Ok(output::facts(facts)?)
}

/// The states in which there are targets, in the order a command goes through them.
pub(super) fn counts(standing: &Value) -> impl Iterator<Item = (&'static str, u64)> {
    schema::queue::State::ALL.iter().filter_map(|state| {
        let pointer = format!("/counts/{}", state.name());
        let count = standing.pointer(&pointer).and_then(Value::as_u64)?;
        (count > 0).then_some((state.name(), count))
    })
}

async fn cancel(client: &AdminClient, uuid: &str, format: Format) -> anyhow::Result<()> {
    let path = ["commands", uuid];
    let outcome = client.send(Method::DELETE, &path, None).await?;
    if format.json {
        return output::json(&outcome);
    }
    Ok(output::facts(vec![
        ("cancelled", text(&outcome, "/cancelled")),
        ("sent before", text(&outcome, "/already_sent")),
    ])?)
}

impl Report {
    async fn run(self, client: &AdminClient) -> anyhow::Result<()> {
        let path = ["devices", &self.id, "commands", &self.uuid, "result"];
        if self.xml {
            let report = client.xml(&path).await?;
            let mut stdout = io::stdout().lock();
            stdout.write_all(&report)?;
            return Ok(stdout.flush()?);
        }
        let result = client.get(&path).await?;
        if self.format.json {
            return output::json(&result);
        }
        output::facts(vec![
            ("command", text(&result, "/command_uuid")),
            ("status", text(&result, "/status")),
            ("received", text(&result, "/received_at")),
            ("late", text(&result, "/late")),
            ("error", top_error(&result)),
        ])?;
        match result.pointer("/report") {
            None | Some(Value::Null) => Ok(()),
            Some(report) => {
                let report = serde_json::to_string_pretty(report)?;
                let lines: Vec<_> = report.lines().map(output::plain).collect();
                Ok(output::say(&lines.join("\n"))?)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn states_without_targets_are_left_out_and_the_rest_keep_their_order() {
        let standing = json!({"counts": {"error": 1, "acknowledged": 2, "sent": 0, "pending": 3}});
        let found: Vec<_> = counts(&standing).collect();
        assert_eq!(found, [("pending", 3), ("acknowledged", 2), ("error", 1)]);
    }
}
