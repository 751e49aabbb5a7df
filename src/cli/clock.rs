//! `clock`: the server's clock, and an admin's word that it is right.

use std::path::Path;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::Value;

use super::connection::Connection;
use super::output::{self, text};

/// The verbs and the server they ask.
#[derive(Args)]
pub(super) struct ClockVerbs {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Show what it says, and whether it is in doubt.
    Show,
    /// Say that it is right: things expire and are deleted by it again.
    Confirm,
}

impl ClockVerbs {
    /// Does it.
    pub(super) async fn run(self, file: Option<&Path>) -> anyhow::Result<()> {
        let client = self.connection.client(file)?;
        let clock = match self.verb {
            Verb::Show => client.get(&["clock"]).await?,
            Verb::Confirm => {
                let path = ["clock", "confirm"];
                client.send(Method::POST, &path, None).await?
            }
        };
        Ok(output::say(&told(&clock))?)
    }
}

fn told(clock: &Value) -> String {
    let now = text(clock, "/now");
    match clock.pointer("/doubt").and_then(Value::as_str) {
        Some(why) => format!(
            "{now}, in doubt: {why}\nthings expire as at {} until you confirm it",
            text(clock, "/expiry")
        ),
        None => format!("{now}, not in doubt"),
    }
}
