//! `restore`: a backup made a data directory again, or only proved (`--verify`).

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use actors::Clock;
use actors::store::{BackupError, Proved, restore, verify};
use anyhow::Context as _;
use clap::Args;

use super::output;
use crate::api::rendering::time;
use crate::config::Config;

/// Which backup, and where to.
#[derive(Args)]
pub(super) struct Restore {
    /// The backup; `-` for standard input.
    from: PathBuf,
    /// The data directory to make; that of the configuration unless given.
    #[arg(long, value_name = "DIR", conflicts_with = "verify")]
    to: Option<PathBuf>,
    /// Only prove it: every hash, the store inside, the sealing key. Needs room in TMPDIR.
    #[arg(long)]
    verify: bool,
    /// The sealing key of the server it was made of; that of the configuration, or the one
    /// in the backup, unless given.
    #[arg(long, value_name = "FILE")]
    seal_key: Option<PathBuf>,
}

impl Restore {
    /// Does it.
    pub(super) async fn run(self, file: Option<&Path>) -> anyhow::Result<()> {
        let config = Config::load(file).context("configuration")?;
        let kept = &config.store.seal_key_file;
        let kept = (!kept.as_os_str().is_empty() && kept.exists()).then_some(kept);
        let key = self.seal_key.as_ref().or(kept);
        let key_stays = self.seal_key.is_none();
        let from = open(&self.from)?;
        let said = |why: BackupError| {
            let hint = match why {
                BackupError::KeyMissing | BackupError::KeyDoesNotFit => {
                    "give the right one with --seal-key FILE"
                }
                _ => "nothing was restored",
            };
            anyhow::Error::from(why).context(hint)
        };
        if self.verify {
            let key = key.map(PathBuf::as_path);
            let proved = verify(from, &std::env::temp_dir(), key).map_err(said)?;
            return report(&proved);
        }
        let to = self.to.as_ref().unwrap_or(&config.store.path);
        let key = key.map(PathBuf::as_path);
        let restored = restore(from, to, key, key_stays, Clock::System).await;
        let restored = restored.map_err(said)?;
        report(&restored.proved)?;
        eprintln!("restored into {}", output::plain(&to.display().to_string()));
        if restored.cancelled > 0 {
            eprintln!(
                "{} commands that erase, lock or clear were open then and are cancelled: they \
                 may have been carried out since",
                restored.cancelled
            );
        }
        if !restored.key_inside {
            eprintln!("the sealing key stays in store.seal_key_file");
        }
        eprintln!("{}", NEXT.trim());
        Ok(())
    }
}

fn open(from: &Path) -> anyhow::Result<Box<dyn Read>> {
    if from == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    let file = File::open(from).with_context(|| from.display().to_string())?;
    Ok(Box::new(BufReader::with_capacity(1 << 20, file)))
}

fn report(proved: &Proved) -> anyhow::Result<()> {
    let manifest = &proved.manifest;
    let key = match (proved.with_key, manifest.holds_key()) {
        (true, true) => "is in the backup, and fits",
        (true, false) => "fits",
        (false, _) => "not at hand, so not tried (--seal-key FILE)",
    };
    Ok(output::facts(vec![
        ("made", time(manifest.made())),
        ("by", format!("reveille {}", manifest.program)),
        ("generation", manifest.generation.to_string()),
        ("schema version", manifest.schema.to_string()),
        ("journal", manifest.position.to_string()),
        ("enrolled devices", proved.devices.to_string()),
        (
            "files",
            format!("{}, every hash right", manifest.files.len()),
        ),
        ("store", "sound by its own checksums".to_owned()),
        ("sealing key", key.to_owned()),
        ("left out", manifest.left_out.join(", ")),
    ])?)
}

const NEXT: &str = "
config.toml and the files it names are in no backup: device.public_url must be the same
admin.token is in none either: tokens go on working, and `reveille token create` makes another
never run the old server and this one at once
devices that enrolled since must enroll again; tokens and links taken back since are good again
nothing expires and nothing is deleted until you run `reveille clock confirm` beside the server
";
