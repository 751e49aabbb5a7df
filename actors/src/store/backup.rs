//! Backups: the store and the keys beside it at one moment, written out while it serves.
//!
//! The writer freezes a moment between two commits; any thread copies it then. The
//! sealing key stays behind unless it is asked for, and without it a backup gives nothing
//! away that is secret: rows are sealed anyway, private files are sealed for it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::sync::atomic::Ordering;

use redb::ReadableDatabase as _;
use schema::UnixMillis;

use super::archive::{
    BackupError, DATABASE, FORMAT, Kind, Manifest, OWN_FILES, Packer, SEAL_KEY, SEALED, SEGMENTS,
    hex, open,
};
use super::seal::{Place, Sealer};
use super::segments;
use super::tables::{META, Restored, RestoredRow, SCHEMA_VERSION, decode, encode};
use super::tail::Published;
use super::writer::{Moment, Operation};
use super::{Store, StoreError};

/// A moment of a store, ready to be written out. Until it is dropped no segment file is
/// taken away.
#[derive(Debug)]
pub struct Backup {
    store: Store,
    moment: Moment,
}

impl Store {
    /// Freezes the store as it is now. The store goes on; only what is overwritten while
    /// the backup lives is put aside.
    ///
    /// # Errors
    /// [`StoreError::BackupRuns`], [`StoreError::NoBackup`], or the store's own trouble.
    pub async fn backup(&self) -> Result<Backup, StoreError> {
        let moment = self.ask(Operation::Freeze).await?;
        let store = self.clone();
        Ok(Backup { store, moment })
    }

    /// Notes when the last backup was made that was written out to its end.
    ///
    /// # Errors
    /// [`StoreError`]: the store's own trouble.
    pub async fn backed_up(&self, made: UnixMillis) -> Result<(), StoreError> {
        self.write(move |transaction| {
            let row = encode(&made)?;
            let mut meta = transaction.open_table(META)?;
            meta.insert("backup", row.as_slice())?;
            Ok(Box::new(|_: &Published| {}))
        })
        .await
    }

    /// When the last backup was made.
    ///
    /// # Errors
    /// [`StoreError::Broken`] when the tables cannot be read.
    pub fn last_backup(&self) -> Result<Option<UnixMillis>, StoreError> {
        let meta = self.inner.database.begin_read()?.open_table(META)?;
        last_backup(&meta)
    }

    /// What the store remembers of having been restored.
    ///
    /// # Errors
    /// [`StoreError::Broken`] when the tables cannot be read.
    pub fn restored(&self) -> Result<Option<Restored>, StoreError> {
        let meta = self.inner.database.begin_read()?.open_table(META)?;
        restored(&meta)
    }
}

impl Backup {
    /// When it was taken.
    #[must_use]
    pub fn made(&self) -> UnixMillis {
        self.moment.at
    }

    /// Writes it out; blocks as long as the sink does. `with_key` puts the sealing key in,
    /// which makes the backup a secret as a whole.
    ///
    /// # Errors
    /// [`BackupError`]: the sink's trouble, or the disk's.
    pub fn write(mut self, sink: impl Write, with_key: bool) -> Result<Manifest, BackupError> {
        let inner = self.store.inner.clone();
        let mut pack = Packer::new(sink, self.moment.at)?;
        let length = self.moment.database.length;
        pack.add(DATABASE, length, &mut self.moment.database)?;
        for (number, length) in &self.moment.segments {
            let path = segments::path(&inner.segments, *number);
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            pack.add(&format!("{SEGMENTS}{name}"), *length, open(&path)?)?;
        }
        for (name, kind) in OWN_FILES {
            let path = inner.options.directory.join(name);
            if !path.exists() {
                continue;
            }
            let bytes = fs::read(path)?;
            match kind {
                Kind::Public => pack.add(name, bytes.len() as u64, &*bytes)?,
                Kind::Private => {
                    let sealed = inner.sealer.seal(Place::File(name), &bytes)?;
                    pack.add(&format!("{SEALED}{name}"), sealed.len() as u64, &*sealed)?;
                }
            }
        }
        if with_key {
            let key = fs::read(inner.options.seal_key())?;
            pack.add(SEAL_KEY, key.len() as u64, &*key)?;
        }
        let manifest = self.manifest(with_key)?;
        let seal = |bytes: &[u8]| mac(&inner.sealer, bytes);
        let (mut sink, manifest) = pack.finish(manifest, seal)?;
        sink.flush()?;
        Ok(manifest)
    }

    /// The manifest without its files.
    fn manifest(&self, with_key: bool) -> Result<Manifest, BackupError> {
        let inner = &self.store.inner;
        let taken = |name: &str| {
            let own = OWN_FILES.iter().any(|(own, _)| *own == name);
            own || [DATABASE, "segments"].contains(&name) || (with_key && name == SEAL_KEY)
        };
        let mut left_out = Vec::new();
        for entry in fs::read_dir(&inner.options.directory)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if !taken(&name) {
                left_out.push(name);
            }
        }
        left_out.sort();
        let generation = self.store.restored()?.map_or(0, |r| r.generation);
        Ok(Manifest {
            format: FORMAT,
            schema: SCHEMA_VERSION,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            created_ms: self.moment.at.0,
            generation,
            position: self.moment.numbers.position,
            seq: self.moment.numbers.seq,
            key_check: key_check(&inner.sealer),
            files: Vec::new(),
            left_out,
        })
    }
}

impl Drop for Backup {
    fn drop(&mut self) {
        let published = &self.store.inner.published;
        published.backing_up.store(false, Ordering::Release);
    }
}

/// A file written at a steady pace: it is synced as it grows, since a disk with much to
/// write at once would keep the syncs of a store on it waiting.
#[derive(Debug)]
pub struct Steady {
    file: File,
    loose: usize,
}

impl Steady {
    /// Writes on in this file.
    #[must_use]
    pub const fn of(file: File) -> Self {
        Self { file, loose: 0 }
    }

    /// The file.
    #[must_use]
    pub const fn file(&self) -> &File {
        &self.file
    }
}

impl Write for Steady {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.loose += written;
        if self.loose >= LOOSE {
            self.file.sync_data()?;
            self.loose = 0;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Bytes that may wait for the disk.
const LOOSE: usize = 2 << 20;

/// The seal on a manifest.
pub(super) fn mac(sealer: &Sealer, manifest: &[u8]) -> [u8; 32] {
    sealer.derive(&[b"backup manifest\0", manifest].concat())
}

/// What tells this sealing key from others and gives nothing of it away.
pub(super) fn key_check(sealer: &Sealer) -> String {
    let check = sealer.derive(b"backup key check");
    hex(check.get(..8).unwrap_or_default())
}

/// When the last backup was made.
pub(super) fn last_backup(
    meta: &impl redb::ReadableTable<&'static str, &'static [u8]>,
) -> Result<Option<UnixMillis>, StoreError> {
    let row = meta.get("backup")?;
    row.map(|row| decode(row.value())).transpose()
}

/// What a store remembers of having been restored.
pub(super) fn restored(
    meta: &impl redb::ReadableTable<&'static str, &'static [u8]>,
) -> Result<Option<Restored>, StoreError> {
    let row = meta.get("restored")?;
    let row = row.map(|row| decode::<RestoredRow>(row.value()));
    Ok(row.transpose()?.map(|RestoredRow::V1(restored)| restored))
}
