//! The command line: a verb a file, called by `main.rs` alone.
//!
//! What was asked for goes to stdout, all else to stderr: tables for people, `--json`
//! for programs. Exit codes: 0 done, 1 failed, 2 usage. Client verbs know the admin
//! API only; `serve`, `check-config`, `doctor`, `token`, `restore` and `compact` work on this
//! machine, `backup` on both.

mod backup;
mod catalog;
mod check_config;
mod clock;
mod commands;
mod compact;
mod connection;
mod device;
mod devices;
mod doctor;
mod enroll_links;
mod hold;
mod keys;
mod logging;
mod output;
mod push_certificates;
mod restore;
mod send;
mod serve;
mod token;
mod wait;
mod welcome;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::ensure;
use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use crate::admin_client::ClientError;
use crate::demo::{self, DemoOptions};

/// The Apple MDM server in one binary.
#[derive(Parser)]
#[command(name = "reveille", version, arg_required_else_help = true)]
struct Cli {
    /// The configuration file; config.toml, when it is there, unless given.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run the server.
    Serve {
        /// Start although device.public_url is not the one devices enrolled with.
        #[arg(long)]
        force_public_url: bool,
        /// Serve a demonstration on this machine alone, while standard input is open.
        #[arg(long, hide = true)]
        demo: bool,
    },
    /// Say what is wrong with the configuration.
    CheckConfig,
    /// Check the whole installation, and say what to do where something is amiss.
    Doctor(output::Format),
    /// Make, list and revoke API tokens, offline on the data directory.
    #[command(subcommand)]
    Token(token::Token),
    /// Write all a new machine needs to one file, while the server runs or not.
    Backup(backup::Backup),
    /// Make a data directory of a backup, or prove the backup (--verify).
    Restore(restore::Restore),
    /// Give room back that the database does not need; the server must be stopped.
    Compact,
    /// Look at devices, wake and tag them.
    Devices(devices::Devices),
    /// Queue commands and see what became of them.
    Commands(commands::Commands),
    /// Ask for push certificates, put them to use, renew them.
    PushCert(push_certificates::PushCert),
    /// Look at the server's clock; confirm it when it is in doubt.
    Clock(clock::ClockVerbs),
    /// Make links through which devices enroll.
    EnrollLink(enroll_links::EnrollLink),
    /// Run a server, a fake APNs and simulated devices on this machine, and check them.
    Demo(DemoOptions),
    /// Drive simulated devices at a running server and measure it.
    Load {
        #[command(flatten)]
        options: Box<sim::LoadOptions>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Does what the command line says.
#[must_use]
pub fn run() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error),
    }
}

impl Cli {
    fn run(self) -> anyhow::Result<()> {
        let file = self.config.as_deref();
        match self.verb {
            Verb::Serve {
                force_public_url,
                demo,
            } => serve::run(file, force_public_url, demo),
            Verb::CheckConfig => check_config::run(file),
            Verb::Doctor(format) => block_on(doctor::run(file, format)),
            Verb::Token(verb) => block_on(verb.run(file)),
            Verb::Backup(verb) => block_on(verb.run(file)),
            Verb::Restore(verb) => block_on(verb.run(file)),
            Verb::Compact => compact::run(file),
            Verb::Devices(verb) => block_on(verb.run(file)),
            Verb::Commands(verb) => block_on(verb.run(file)),
            Verb::PushCert(verb) => block_on(verb.run(file)),
            Verb::Clock(verb) => block_on(verb.run(file)),
            Verb::EnrollLink(verb) => block_on(verb.run(file)),
            Verb::Demo(options) => {
                let right = actix_web::rt::System::new().block_on(demo::run(options))?;
                ensure!(right, "not every device was served exactly right");
                Ok(())
            }
            Verb::Load { options, json } => block_on(load(*options, json)),
        }
    }
}

async fn load(options: sim::LoadOptions, json: bool) -> anyhow::Result<()> {
    let report = sim::load::run(options).await?;
    if json {
        output::json(&report)?;
    } else {
        output::say(report.to_string().trim_end())?;
    }
    ensure!(report.is_clean(), "the run was not clean");
    Ok(())
}

/// One thread is enough for a client.
fn block_on(verb: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(verb)
}

/// Arguments that do not go together, where clap cannot know.
fn usage(why: &str) -> clap::Error {
    clap::Error::raw(ErrorKind::ArgumentConflict, format!("{why}\n"))
}

/// Says on stderr what went wrong.
fn complain(error: &anyhow::Error) -> ExitCode {
    if let Some(usage) = error.downcast_ref::<clap::Error>() {
        // Nobody is left to tell when stderr is closed.
        let _ = usage.print();
        return ExitCode::from(2);
    }
    if output::reader_left(error) {
        return ExitCode::SUCCESS;
    }
    eprintln!("error: {}", output::plain(&format!("{error:#}")));
    if let Some(ClientError::Refused(refusal)) = error.downcast_ref() {
        for field in refusal.further_fields() {
            eprintln!("  {}", output::plain(&field));
        }
    }
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_takes_the_arguments_of_its_documentation() {
        for line in [
            "reveille serve --config other.toml",
            "reveille --config other.toml check-config",
            "reveille token create --principal ci --scopes read,command --expires-days 90",
            "reveille token list --json",
            "reveille token revoke abc",
            "reveille devices list --q ipad --os-version >=17.4 --state enrolled --limit 5 --json",
            "reveille devices --url http://127.0.0.1:1 show X",
            "reveille devices commands X --state open",
            "reveille devices wake X --url http://127.0.0.1:1",
            "reveille devices tag X a b --remove c",
            "reveille devices tag X --replace",
            "reveille devices allow-reenroll X",
            "reveille commands send DeviceLock --device A --device B --key pin=123456 --reason lost",
            "reveille commands send DeviceInformation --all --json {\"queries\":[]} --wait",
            "reveille commands send DeviceInformation --all --key queries=UDID --json",
            "reveille commands send --plist raw.xml --filter platform=iOS --filter tag=a --no-wake",
            "reveille commands send RestartDevice --device A --priority -5 --expires-in 60",
            "reveille commands catalog DeviceLock",
            "reveille commands result X U --xml",
            "reveille push-cert import a.pem b.pem --passphrase-file p --force-topic-change",
            "reveille push-cert import a.p12 --pkcs12",
            "reveille serve --force-public-url",
            "reveille enroll-link create --expires-hours 24 --max-uses 50 --tag a --tag b --shared",
            "reveille enroll-link create --device S --right erase,device_information --json",
            "reveille enroll-link create --user anne@example.org",
            "reveille enroll-link create --identity pkcs12",
            "reveille enroll-link list --json",
            "reveille enroll-link revoke X",
            "reveille enroll-link export X a.mobileconfig --unsigned --url http://127.0.0.1:1",
            "reveille push-cert csr --replace --out -",
            "reveille push-cert sign --vendor-cert v.pem --vendor-key v.key --chain a --chain b --csr c",
            "reveille push-cert renew certificate.pem --json",
            "reveille doctor --json",
            "reveille backup backups --with-sealing-key",
            "reveille backup - --url http://127.0.0.1:1",
            "reveille restore a.tar.zst --to elsewhere --seal-key seal.key",
            "reveille restore a.tar.zst --verify",
            "reveille compact",
            "reveille demo --devices 3 --hold --break-one",
            "reveille demo --chaos",
            "reveille load idle --json",
        ] {
            if let Err(error) = parse(line) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_as_usage() {
        for line in [
            "reveille",
            "reveille commands send DeviceLock",
            "reveille commands send --all",
            "reveille commands send DeviceLock --all --device A",
            "reveille commands send DeviceLock --all --key pin",
            "reveille commands send DeviceLock --all --json [1]",
            "reveille commands send --plist a --all --key pin=1",
            "reveille commands send DeviceLock --filter colour=red",
            "reveille token create --principal ci --scopes everything",
            "reveille token create --principal ci --expires-days 0",
            "reveille devices list --limit 0",
            "reveille devices tag X",
            "reveille restore a.tar.zst --to elsewhere --verify",
            "reveille push-cert renew",
            "reveille push-cert sign --vendor-cert v.pem --vendor-key v.key",
        ] {
            let error = parse(line).err().unwrap_or_else(|| panic!("{line}"));
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
