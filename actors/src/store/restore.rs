//! Restoring: a backup laid out beside its place, proved, opened, and only then given its
//! name. Whatever is wrong with it, nothing stands in that place before.
//!
//! A restored store remembers that it is one. Until an admin confirms the clock nothing
//! expires or is deleted by it, whatever the age of the backup. What an erase, a lock or
//! the like may have done since is not done again: those that were open are cancelled.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase as _};
use schema::{Seq, UnixMillis};

use super::archive::{self, BackupError, Kind, Manifest, OWN_FILES, SEAL_KEY, SEALED, unpack};
use super::backup::{key_check, mac, restored};
use super::disk::LocalDisk;
use super::inspect::Inspection;
use super::seal::{Place, Sealer};
use super::tables::{
    COMMAND, CommandRow, ENROLLED, META, Restored, RestoredRow, SCHEMA_VERSION, decode, encode,
};
use super::tail::Published;
use super::{Cancel, Store, StoreError, StoreOptions};
use crate::Clock;

/// A backup that was proved.
#[derive(Debug)]
pub struct Proved {
    /// What it says of itself.
    pub manifest: Manifest,
    /// Devices enrolled in it.
    pub devices: u64,
    /// Whether the sealing key was at hand: then it fits, and the seal of the manifest is
    /// its own.
    pub with_key: bool,
}

/// A backup that was restored.
#[derive(Debug)]
pub struct RestoredBackup {
    /// As it was proved.
    pub proved: Proved,
    /// Commands that erase, lock or clear, open in the backup and cancelled now.
    pub cancelled: usize,
    /// The sealing key was put into the directory.
    pub key_inside: bool,
}

/// Proves a backup without restoring it, in a directory of its own below `room`.
///
/// # Errors
/// [`BackupError`]: what is wrong with it. Without a key that is not looked for.
pub fn verify(
    from: impl Read,
    room: &Path,
    seal_key: Option<&Path>,
) -> Result<Proved, BackupError> {
    let directory = tempfile::Builder::new()
        .prefix(".reveille-verify-")
        .tempdir_in(room)?;
    let proved = lay_out(from, directory.path(), seal_key)?.0;
    if proved.with_key {
        let key = directory.path().join(SEAL_KEY);
        Inspection::of(directory.path(), &key)?.sealing?;
    }
    Ok(proved)
}

/// Restores a backup into a directory that is empty or not there. `seal_key` is the
/// sealing key, when it is not in the backup; it is put into the directory too unless
/// `key_stays`.
///
/// # Errors
/// [`BackupError`]; then nothing is where the directory was to be.
pub async fn restore(
    from: impl Read,
    to: &Path,
    seal_key: Option<&Path>,
    key_stays: bool,
    clock: Clock,
) -> Result<RestoredBackup, BackupError> {
    refuse_what_is_there(to)?;
    let to = std::path::absolute(to)?;
    let parent = to.parent().unwrap_or(Path::new("/")).to_owned();
    fs::create_dir_all(&parent)?;
    let beside = tempfile::Builder::new()
        .prefix(".reveille-restore-")
        .tempdir_in(&parent)?;
    let (proved, sealer) = lay_out(from, beside.path(), seal_key)?;
    let sealer = sealer.ok_or(BackupError::KeyMissing)?;
    unseal_files(beside.path(), &sealer)?;
    let cancelled = take_up(beside.path(), &proved.manifest, clock).await?;
    let key_inside = !(key_stays && seal_key.is_some());
    if !key_inside {
        fs::remove_file(beside.path().join(SEAL_KEY))?;
    }
    archive::sync(beside.path())?;
    refuse_what_is_there(&to)?;
    fs::rename(beside.path(), &to)?;
    // It has another name now.
    let _: PathBuf = beside.keep();
    File::open(parent)?.sync_all()?;
    Ok(RestoredBackup {
        proved,
        cancelled,
        key_inside,
    })
}

fn refuse_what_is_there(to: &Path) -> Result<(), BackupError> {
    match fs::read_dir(to) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(BackupError::NotEmpty(to.display().to_string())),
        },
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(why) => Err(why.into()),
    }
}

/// Lays a backup out and proves it: every hash, the seal as far as the key is at hand, and
/// the database by its own checksums. The key, if any, is laid beside it.
fn lay_out(
    from: impl Read,
    into: &Path,
    seal_key: Option<&Path>,
) -> Result<(Proved, Option<Sealer>), BackupError> {
    let unpacked = unpack(from, into)?;
    let manifest = unpacked.manifest;
    if manifest.schema > SCHEMA_VERSION {
        return Err(BackupError::Store(StoreError::Newer {
            found: manifest.schema,
            known: SCHEMA_VERSION,
        }));
    }
    let inside = into.join(SEAL_KEY);
    if let Some(given) = seal_key {
        let key = fs::read(given)
            .map_err(|why| StoreError::SealingKey(format!("{}: {why}", given.display())))?;
        let _ = fs::remove_file(&inside);
        crate::private_file::write_new(&inside, &key)?;
    }
    let sealer = match inside.exists() {
        true => Some(Sealer::from_file(&LocalDisk, &inside, false)?),
        false => None,
    };
    if let Some(sealer) = &sealer {
        if key_check(sealer) != manifest.key_check {
            return Err(BackupError::KeyDoesNotFit);
        }
        if mac(sealer, &unpacked.bytes)[..] != unpacked.mac[..] {
            return Err(BackupError::Altered);
        }
    }
    let proved = Proved {
        devices: devices(&into.join(archive::DATABASE))?,
        with_key: sealer.is_some(),
        manifest,
    };
    Ok((proved, sealer))
}

/// The devices of a database that is sound.
fn devices(file: &Path) -> Result<u64, BackupError> {
    let damaged = |why: String| BackupError::Damaged(format!("{}: {why}", archive::DATABASE));
    let opened = Database::builder().set_cache_size(CACHE_BYTES).open(file);
    let mut database = opened.map_err(|why| damaged(why.to_string()))?;
    match database.check_integrity() {
        Ok(true) => {}
        Ok(false) => return Err(damaged("its checksums do not hold".to_owned())),
        Err(why) => return Err(damaged(why.to_string())),
    }
    let count = || -> Result<u64, StoreError> {
        let enrolled = database.begin_read()?.open_table(ENROLLED)?;
        let mut devices = 0;
        for row in redb::ReadableTable::iter(&enrolled)? {
            devices += u64::from(row?.1.value());
        }
        Ok(devices)
    };
    Ok(count()?)
}

/// Gives the private files their names back.
fn unseal_files(directory: &Path, sealer: &Sealer) -> Result<(), BackupError> {
    for (name, kind) in OWN_FILES {
        let sealed = directory.join(format!("{SEALED}{name}"));
        if kind == Kind::Private && sealed.exists() {
            let opened = sealer.open(Place::File(name), &fs::read(&sealed)?)?;
            crate::private_file::write_new(&directory.join(name), &opened)?;
            fs::remove_file(sealed)?;
        }
    }
    let folder = directory.join(SEALED);
    if folder.exists() {
        fs::remove_dir(folder)?;
    }
    Ok(())
}

/// Opens the store as a server would, and leaves word that it was restored.
async fn take_up(
    directory: &Path,
    manifest: &Manifest,
    clock: Clock,
) -> Result<usize, BackupError> {
    let options = StoreOptions {
        reserve_bytes: 0,
        ..StoreOptions::new(directory)
    };
    let restored = Restored {
        generation: manifest.generation + 1,
        made: manifest.made(),
        at: clock.now(),
        confirmed: false,
    };
    let store = Store::open(options, clock)?;
    let done = async {
        store.note_restored(restored).await?;
        store.backed_up(restored.made).await?;
        let mut cancelled = 0;
        for seq in store.destructive()? {
            let outcome = store.cancel(Cancel::Command(seq)).await?;
            cancelled += usize::from(outcome.cancelled + outcome.already_sent > 0);
        }
        Ok(cancelled)
    };
    let cancelled = done.await;
    store.close();
    cancelled
}

impl Store {
    async fn note_restored(&self, restored: Restored) -> Result<(), StoreError> {
        self.write(move |transaction| {
            let row = encode(&RestoredRow::V1(restored))?;
            let mut meta = transaction.open_table(META)?;
            meta.insert("restored", row.as_slice())?;
            Ok(Box::new(|_: &Published| {}))
        })
        .await
    }

    /// The commands of the destructive set.
    fn destructive(&self) -> Result<Vec<Seq>, StoreError> {
        let commands = self.inner.database.begin_read()?.open_table(COMMAND)?;
        let mut found = Vec::new();
        for row in redb::ReadableTable::iter(&commands)? {
            let (seq, row) = row?;
            let command = decode::<CommandRow>(row.value())?.into_record();
            if command.destructive {
                found.push(Seq(seq.value()));
            }
        }
        Ok(found)
    }

    /// Whether the store was restored and no admin has confirmed since that all is well.
    #[must_use]
    pub fn fresh_from_backup(&self) -> bool {
        let restored = self.restored().ok().flatten();
        restored.is_some_and(|restored| !restored.confirmed)
    }
}

/// Memory for looking through a database.
const CACHE_BYTES: usize = 64 << 20;

/// When the backup was made that a store was restored from, while no admin has confirmed.
pub(super) fn unconfirmed(
    transaction: &redb::WriteTransaction,
) -> Result<Option<UnixMillis>, StoreError> {
    let restored = restored(&transaction.open_table(META)?)?;
    Ok(restored.filter(|r| !r.confirmed).map(|r| r.made))
}

/// An admin confirmed.
pub(super) fn confirm(transaction: &redb::WriteTransaction) -> Result<(), StoreError> {
    let mut meta = transaction.open_table(META)?;
    if let Some(restored) = restored(&meta)? {
        let row = encode(&RestoredRow::V1(Restored {
            confirmed: true,
            ..restored
        }))?;
        meta.insert("restored", row.as_slice())?;
    }
    Ok(())
}
