//! `commands send`: builds the order from flags and queues it.
//!
//! The server judges it. A wrong combination of flags is a usage error before that.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{ArgGroup, Args};
use schema::command::Command;
use serde_json::{Map, Value, json};

use super::output::{self, Format, plain, text};
use super::{keys, usage, wait};
use crate::admin_client::AdminClient;
use crate::api::filter::Filter;

/// The order.
#[derive(Args)]
#[command(group(ArgGroup::new("targets").required(true).args(["devices", "all", "filter"])))]
pub(super) struct Send {
    /// Apple's RequestType, such as DeviceInformation; see `commands catalog`.
    #[arg(value_name = "TYPE", required_unless_present = "plist")]
    request_type: Option<String>,
    /// Send it to this enrollment id; may be repeated.
    #[arg(long = "device", value_name = "ID")]
    devices: Vec<String>,
    /// Send it to all enrolled devices.
    #[arg(long)]
    all: bool,
    /// Send it to devices that meet this condition of `devices list`; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = condition)]
    filter: Vec<(String, String)>,
    /// A key of the command, such as pin=123456, queries=UDID,Model or payload=@FILE.
    #[arg(long = "key", value_name = "KEY=VALUE", value_parser = keys::pair)]
    keys: Vec<(String, String)>,
    /// Speak JSON: print the answer as JSON; an object after it holds the command's keys.
    #[arg(long, value_name = "OBJECT", num_args = 0..=1, value_parser = object)]
    json: Option<Option<Map<String, Value>>>,
    /// A raw command: an XML plist with CommandUUID and Command.
    #[arg(long, value_name = "FILE", conflicts_with = "keys")]
    plist: Option<PathBuf>,
    /// -100 (last) to 100 (first).
    #[arg(long, value_name = "N", allow_negative_numbers = true,
        value_parser = clap::value_parser!(i8).range(-100..=100))]
    priority: Option<i8>,
    /// Not handed out after so many seconds; 30 days when absent.
    #[arg(long, value_name = "SECONDS")]
    expires_in: Option<u64>,
    /// Do not wake the devices; they get it when they come by themselves.
    #[arg(long)]
    no_wake: bool,
    /// Why; needed for commands that erase, lock or lose a secret.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Send it to devices too that cannot be given it by what is known of them.
    #[arg(long)]
    force: bool,
    /// Queue it once, however often it is sent under this key within a day.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Wait until every device is done with it; fails when one failed.
    #[arg(long)]
    wait: bool,
}

impl Send {
    /// Queues it.
    pub(super) async fn run(mut self, client: &AdminClient) -> anyhow::Result<()> {
        let format = Format {
            json: self.json.is_some(),
        };
        let order = self.order()?;
        let key = self.idempotency_key.as_deref();
        let queued = client.post_once(&["commands"], &order, key).await?;
        let rejected = rejected(&queued);
        for line in &rejected {
            eprintln!("not sent to {}", plain(line));
        }
        if !self.wait {
            return answer(&queued, format);
        }
        if !format.json {
            answer(&queued, format)?;
        }
        let uuid = text(&queued, "/command_uuid");
        wait::until_done(client, &uuid, rejected.len(), format).await
    }

    fn order(&mut self) -> anyhow::Result<Value> {
        let mut order = match self.plist.take() {
            Some(file) => json!({ "command_plist": self.raw(file)? }),
            None => json!({ "command": self.command()? }),
        };
        let terms = [
            ("targets", Some(self.targets()?)),
            ("priority", self.priority.map(Value::from)),
            ("expires_in", self.expires_in.map(Value::from)),
            ("wake", self.no_wake.then_some(Value::Bool(false))),
            ("reason", self.reason.take().map(Value::from)),
            ("force", self.force.then_some(Value::Bool(true))),
        ];
        if let Some(order) = order.as_object_mut() {
            for (name, value) in terms {
                order.extend(value.map(|value| (name.to_owned(), value)));
            }
        }
        Ok(order)
    }

    fn command(&mut self) -> anyhow::Result<Map<String, Value>> {
        let mut command = self.json.take().flatten().unwrap_or_default();
        let request_type = self.request_type.take().unwrap_or_default();
        let row = schema::catalog::find(&request_type);
        keys::put(&mut command, row, std::mem::take(&mut self.keys))
            .map_err(|why| usage(&format!("--key {why}")))?;
        command.insert("request_type".to_owned(), request_type.into());
        Ok(command)
    }

    /// The raw command in base64; a TYPE that is given too must be its own.
    fn raw(&self, file: PathBuf) -> anyhow::Result<String> {
        if matches!(self.json, Some(Some(_))) {
            return Err(usage("--plist and keys in --json exclude each other").into());
        }
        let name = file.display().to_string();
        let raw = fs::read(file).with_context(|| name.clone())?;
        let encoded = STANDARD.encode(&raw);
        let command = Command::from_plist(raw).with_context(|| name.clone())?;
        match &self.request_type {
            Some(given) if *given != command.request_type => Err(usage(&format!(
                "{name} holds the command {}, not {given}",
                command.request_type
            ))
            .into()),
            _ => Ok(encoded),
        }
    }

    fn targets(&mut self) -> anyhow::Result<Value> {
        if self.all {
            return Ok(json!({ "all": true }));
        }
        if !self.devices.is_empty() {
            return Ok(json!({ "ids": std::mem::take(&mut self.devices) }));
        }
        let mut filter = Map::new();
        for (name, value) in std::mem::take(&mut self.filter) {
            if filter.insert(name.clone(), value.into()).is_some() {
                return Err(usage(&format!("--filter {name} is given more than once")).into());
            }
        }
        Ok(json!({ "filter": filter }))
    }
}

fn answer(queued: &Value, format: Format) -> anyhow::Result<()> {
    if format.json {
        return output::json(queued);
    }
    Ok(output::facts(vec![
        ("command", text(queued, "/command_uuid")),
        ("queued for", text(queued, "/accepted")),
    ])?)
}

fn rejected(queued: &Value) -> Vec<String> {
    let rejected = queued.pointer("/rejected").and_then(Value::as_array);
    let line = |of: &Value| match of.pointer("/detail") {
        None => format!("{}: {}", text(of, "/id"), text(of, "/code")),
        Some(_) => format!("{}: {}", text(of, "/id"), text(of, "/detail")),
    };
    rejected.into_iter().flatten().map(line).collect()
}

/// A condition that `GET /devices` knows.
fn condition(text: &str) -> Result<(String, String), String> {
    let (name, value) = keys::pair(text)?;
    let name = name.replace('-', "_");
    serde_json::from_value::<Filter>(json!({ &name: value.as_str() }))
        .map_err(|why| why.to_string())?;
    Ok((name, value))
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|why| format!("is no JSON object: {why}"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        send: Send,
    }

    fn order(line: &[&str]) -> anyhow::Result<Value> {
        Line::try_parse_from([&["send"], line].concat())?
            .send
            .order()
    }

    #[test]
    fn flags_become_the_order_of_the_api() {
        let line = [
            "DeviceLock",
            "--device",
            "A",
            "--device",
            "B",
            "--key",
            "pin=123456",
            "--json",
            "{\"message\":\"hi\"}",
            "--priority",
            "-3",
            "--no-wake",
            "--reason",
            "lost",
        ];
        assert_eq!(
            order(&line).unwrap(),
            json!({
                "command": {"request_type": "DeviceLock", "pin": "123456", "message": "hi"},
                "targets": {"ids": ["A", "B"]},
                "priority": -3, "wake": false, "reason": "lost",
            })
        );
        let line = [
            "RestartDevice",
            "--filter",
            "os-version=>=17",
            "--filter",
            "tag=a",
        ];
        assert_eq!(
            order(&line).unwrap()["targets"],
            json!({"filter": {"os_version": ">=17", "tag": "a"}})
        );
    }

    #[test]
    fn a_raw_command_must_be_of_the_type_that_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let plist = "<plist version=\"1.0\"><dict><key>CommandUUID</key><string>u</string>\
            <key>Command</key><dict><key>RequestType</key><string>ProfileList</string></dict>\
            </dict></plist>";
        fs::write(file.path(), plist).unwrap();
        let path = file.path().to_str().unwrap();
        let sent = order(&["--all", "--plist", path]).unwrap();
        assert_eq!(sent["command_plist"], STANDARD.encode(plist));
        assert!(order(&["ProfileList", "--all", "--plist", path]).is_ok());
        let error = order(&["EraseDevice", "--all", "--plist", path]).unwrap_err();
        assert!(error.is::<clap::Error>(), "{error}");
    }
}
