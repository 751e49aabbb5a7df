//! `backup`: one archive of all a new machine needs, of a server that runs or of the data
//! directory of one that does not.
//!
//! The file has its name only once it is whole and durable.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use actors::store::Steady;
use actors::{Clock, Store, StoreError};
use anyhow::{Context as _, bail, ensure};
use clap::Args;
use serde_json::json;

use super::connection::Connection;
use super::output;
use crate::api::backups::file_name;
use crate::config::Config;
use crate::server::open_store;

/// What to back up, and where to.
#[derive(Args)]
pub(super) struct Backup {
    #[command(flatten)]
    connection: Connection,
    /// A file that is not there yet, a directory to make one in, or `-` for standard output.
    to: PathBuf,
    /// Put the sealing key in: whoever has the backup then has everything.
    #[arg(long)]
    with_sealing_key: bool,
}

impl Backup {
    /// Makes it.
    pub(super) async fn run(self, file: Option<&Path>) -> anyhow::Result<()> {
        let Self {
            connection,
            to,
            with_sealing_key,
        } = self;
        let mut target = Target::open(&to)?;
        if let Err(why) = make(connection, file, with_sealing_key, &mut target).await {
            target.forget();
            return Err(why);
        }
        let bytes = target.bytes;
        if let Some(named) = target.finish()? {
            output::say(&output::plain(&named.display().to_string()))?;
        }
        let key = match with_sealing_key {
            true => "the sealing key is in it: keep it as you keep that key",
            false => "the sealing key is not in it: keep that elsewhere, a restore needs it",
        };
        eprintln!("{} KiB; {key}", bytes.div_ceil(1024));
        Ok(())
    }
}

async fn make(
    connection: Connection,
    file: Option<&Path>,
    with_key: bool,
    target: &mut Target,
) -> anyhow::Result<()> {
    if !connection.names_server() {
        let config = Config::load(file).context("configuration")?;
        let path = config.store.path.display();
        ensure!(
            actors::store::is_in(&config.store.path),
            "there is no store in {path} (store.path)"
        );
        match open_store(&config, &Clock::System) {
            Ok(store) => {
                let made = of_stopped(&store, with_key, target).await;
                store.close();
                return made;
            }
            // Its server makes it.
            Err(StoreError::InUse) => {}
            Err(error) => return Err(error).with_context(|| format!("the store in {path}")),
        }
    }
    let client = connection.client(file)?;
    let order = json!({ "with_sealing_key": with_key });
    client.download(&["backups"], &order, target).await?;
    Ok(())
}

async fn of_stopped(store: &Store, with_key: bool, target: &mut Target) -> anyhow::Result<()> {
    let backup = store.backup().await?;
    let made = backup.made();
    backup.write(target, with_key)?;
    Ok(store.backed_up(made).await?)
}

/// Where it goes.
struct Target {
    sink: Sink,
    bytes: u64,
}

enum Sink {
    Stdout,
    File {
        file: Steady,
        part: PathBuf,
        named: PathBuf,
    },
}

impl Target {
    fn open(to: &Path) -> anyhow::Result<Self> {
        let sink = match to {
            to if to == Path::new("-") => Sink::Stdout,
            to => {
                let named = match to.is_dir() {
                    true => to.join(file_name(Clock::System.now())),
                    false => to.to_owned(),
                };
                if named.exists() {
                    bail!("{} is there already", named.display());
                }
                let mut part = named.clone().into_os_string();
                part.push(".part");
                let part = PathBuf::from(part);
                let mut options = OpenOptions::new();
                let file = options.write(true).create_new(true).mode(0o600).open(&part);
                let file = file.with_context(|| {
                    let part = part.display();
                    format!("{part} (there already? another backup runs, or was cut off)")
                })?;
                Sink::File {
                    file: Steady::of(file),
                    part,
                    named,
                }
            }
        };
        Ok(Self { sink, bytes: 0 })
    }

    /// Makes it durable and gives it its name.
    fn finish(self) -> anyhow::Result<Option<PathBuf>> {
        let Sink::File { file, part, named } = self.sink else {
            io::stdout().flush()?;
            return Ok(None);
        };
        file.file().sync_all()?;
        fs::rename(&part, &named)?;
        let directory = named
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()?;
        Ok(Some(named))
    }

    /// Takes away what is only a part.
    fn forget(self) {
        if let Sink::File { part, .. } = self.sink {
            // Nobody takes it for a backup by its name.
            let _ = fs::remove_file(part);
        }
    }
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &mut self.sink {
            Sink::Stdout => io::stdout().write(bytes)?,
            Sink::File { file, .. } => file.write(bytes)?,
        };
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_has_its_name_only_once_it_is_whole_and_takes_nobodys_place() {
        let directory = tempfile::tempdir().unwrap();
        let to = directory.path().join("a.tar.zst");
        let files = || fs::read_dir(directory.path()).unwrap().count();
        let mut target = Target::open(&to).unwrap();
        target.write_all(b"part").unwrap();
        assert!(!to.exists());
        assert!(Target::open(&to).is_err(), "another one is being made");
        target.forget();
        assert_eq!(files(), 0);
        let mut target = Target::open(&to).unwrap();
        target.write_all(b"whole").unwrap();
        assert_eq!(target.finish().unwrap(), Some(to.clone()));
        assert_eq!((fs::read(&to).unwrap(), files()), (b"whole".to_vec(), 1));
        assert!(Target::open(&to).is_err());
        let target = Target::open(directory.path()).unwrap();
        let named = target.finish().unwrap().unwrap();
        assert!(named.to_str().unwrap().ends_with("Z.tar.zst"), "{named:?}");
    }
}
