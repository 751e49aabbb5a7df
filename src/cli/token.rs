//! `token`: API tokens, made and taken back offline on the data directory.
//!
//! The store has one owner: a server that runs keeps these verbs out. A new token's
//! secret is printed once, alone on stdout, and stored nowhere.

use std::path::Path;

use actors::store::TokenRecord;
use actors::{Clock, Store, StoreError};
use anyhow::{Context as _, anyhow, bail, ensure};
use clap::{Args, Subcommand};
use schema::UnixMillis;
use serde_json::{Value, json};

use super::output::{self, Format, text, when};
use crate::api::rendering::time;
use crate::auth::{Scope, new_token, token_record};
use crate::config::Config;
use crate::server::open_store;

/// The verbs.
#[derive(Subcommand)]
pub(super) enum Token {
    /// Make a token; its secret is shown once.
    Create(Create),
    /// List tokens.
    List(Format),
    /// Take a token back.
    Revoke {
        /// The token's id, as `token list` shows it.
        id: String,
    },
}

/// The token to make.
#[derive(Args)]
pub(super) struct Create {
    /// The person or service it belongs to.
    #[arg(long, value_name = "NAME", value_parser = principal)]
    principal: String,
    /// What it may do.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "read")]
    scopes: Vec<Scope>,
    /// Days until it is void; never when absent.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    expires_days: Option<u32>,
    #[command(flatten)]
    format: Format,
}

impl Token {
    /// Does it.
    pub(super) async fn run(self, file: Option<&Path>) -> anyhow::Result<()> {
        let config = Config::load(file).context("configuration")?;
        let makes = matches!(self, Self::Create(_));
        let store = open(&config, makes)?;
        let done = match self {
            Self::Create(create) => create.run(&store).await,
            Self::List(format) => list(&store, format),
            Self::Revoke { id } => revoke(&store, &id).await,
        };
        store.close();
        done
    }
}

impl Create {
    async fn run(self, store: &Store) -> anyhow::Result<()> {
        let now = Clock::System.now();
        let expires = self
            .expires_days
            .map(|days| now.plus_seconds(u64::from(days) * 24 * 3600));
        let mut scopes = Scope::ALL.to_vec();
        scopes.retain(|scope| self.scopes.contains(scope));
        let (secret, hash) = new_token().map_err(|_| anyhow!("no randomness"))?;
        let record = token_record(&hash, &self.principal, &scopes, now, expires);
        let mut shown = item(&record, now);
        store.put_token(hash, record).await?;
        if self.format.json {
            if let Some(shown) = shown.as_object_mut() {
                shown.insert("secret".to_owned(), secret.into());
            }
            return output::json(&shown);
        }
        eprintln!(
            "token {} of {}, scopes {}; its secret, shown this once:",
            text(&shown, "/id"),
            text(&shown, "/principal"),
            text(&shown, "/scopes"),
        );
        Ok(output::say(&secret)?)
    }
}

fn list(store: &Store, format: Format) -> anyhow::Result<()> {
    let now = Clock::System.now();
    let tokens = store.tokens();
    let items: Vec<_> = tokens.iter().map(|(_, token)| item(token, now)).collect();
    if format.json {
        return output::json(&items);
    }
    let rows = items.iter().map(|item| {
        vec![
            text(item, "/id"),
            text(item, "/state"),
            text(item, "/principal"),
            when(item, "/created_at"),
            when(item, "/expires_at"),
            text(item, "/scopes"),
        ]
    });
    let header = ["ID", "STATE", "PRINCIPAL", "CREATED", "EXPIRES", "SCOPES"];
    Ok(output::table(&header, rows.collect(), "no tokens")?)
}

async fn revoke(store: &Store, id: &str) -> anyhow::Result<()> {
    let tokens = store.tokens();
    let found = tokens.iter().find(|(_, token)| token.id == id);
    let (hash, token) = found.with_context(|| format!("there is no token {id}"))?;
    if token.revoked {
        eprintln!("token {id} was revoked before");
        return Ok(());
    }
    let mut record = TokenRecord::clone(token);
    record.revoked = true;
    store.put_token(*hash, record).await?;
    eprintln!(
        "token {id} of {} is revoked",
        output::plain(&token.principal)
    );
    Ok(())
}

/// Opens the store; one that is not there is made only for a new token.
fn open(config: &Config, makes: bool) -> anyhow::Result<Store> {
    let path = config.store.path.display();
    ensure!(
        makes || config.store.path.join("reveille.redb").exists(),
        "there is no store in {path} (store.path); the first `reveille serve` makes it"
    );
    match open_store(config, &Clock::System) {
        Ok(store) => Ok(store),
        Err(StoreError::InUse) => bail!(
            "a server runs on the store in {path}: stop the server first, then administer tokens"
        ),
        Err(error) => Err(error).with_context(|| format!("the store in {path}")),
    }
}

fn item(token: &TokenRecord, now: UnixMillis) -> Value {
    let state = match token.expires {
        _ if token.revoked => "revoked",
        Some(expires) if expires <= now => "expired",
        _ => "valid",
    };
    json!({
        "id": token.id,
        "principal": token.principal,
        "scopes": token.scopes,
        "created_at": time(token.created),
        "expires_at": token.expires.map(time),
        "state": state,
    })
}

fn principal(name: &str) -> Result<String, String> {
    let name = name.trim();
    if name.is_empty() || name.len() > 255 || name.chars().any(char::is_control) {
        return Err("must be 1 to 255 bytes without control characters".to_owned());
    }
    if name.starts_with("reveille:") {
        return Err("names that begin with reveille: are the server's own".to_owned());
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_shows_whether_it_still_counts_and_never_its_secret() {
        let (secret, hash) = new_token().unwrap();
        let now = UnixMillis(5000);
        let mut record = token_record(&hash, "ci", &[Scope::Read], now, Some(UnixMillis(9000)));
        assert_eq!(text(&item(&record, now), "/state"), "valid");
        assert_eq!(text(&item(&record, UnixMillis(9000)), "/state"), "expired");
        record.revoked = true;
        let shown = item(&record, now);
        assert_eq!(text(&shown, "/state"), "revoked");
        assert!(!shown.to_string().contains(&secret));
    }
}
