//! The form of a backup: a tar of the store's files, compressed with zstd, its manifest last.
//!
//! `reveille.redb`, `segments/*`, public files of the data directory as they are, private
//! ones sealed (`sealed/*`), `seal.key` only when asked for, `manifest.json` with size and
//! SHA-256 of each, and `manifest.mac`, which only the sealing key can make. Ordinary tools
//! can look into it (`tar --zstd -tf`). Knows nothing of what is in the files.

mod end;
mod pack;
mod unpack;

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};
use schema::UnixMillis;
use serde::{Deserialize, Serialize};

#[cfg(test)]
pub(super) use end::Ending;
pub(super) use pack::Packer;
pub(super) use unpack::unpack;

use super::StoreError;

/// What a backup says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Of this form.
    pub format: u32,
    /// Of the tables.
    pub schema: u32,
    /// Of the program that made it.
    pub program: String,
    /// When, in milliseconds since 1970.
    pub created_ms: u64,
    /// How many restores the store's history has.
    pub generation: u64,
    /// Head of the journal.
    pub position: u64,
    /// The last command number given.
    pub seq: u64,
    /// What tells the right sealing key from others.
    pub key_check: String,
    /// All other files in it.
    pub files: Vec<FileEntry>,
    /// Files of the data directory it leaves out.
    pub left_out: Vec<String>,
}

/// A file in a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its path in the archive.
    pub name: String,
    /// Its length in bytes.
    pub size: u64,
    /// SHA-256 in hex.
    pub sha256: String,
}

impl Manifest {
    /// When it was made.
    #[must_use]
    pub fn made(&self) -> UnixMillis {
        UnixMillis(self.created_ms)
    }

    /// Does it hold the sealing key?
    #[must_use]
    pub fn holds_key(&self) -> bool {
        self.files.iter().any(|file| file.name == SEAL_KEY)
    }

    /// Bytes of all its files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }
}

/// Why there is no backup, or why one is not restored. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It is none, or not all of it is there.
    #[error("this is not a whole backup: {0}")]
    Unreadable(String),
    /// What is in it is not what was put in.
    #[error("the backup is damaged: {0}")]
    Damaged(String),
    /// Somebody without the sealing key changed it.
    #[error("the backup was altered: its manifest does not bear the seal of its key")]
    Altered,
    /// Of a newer program.
    #[error("the backup has format {0}, this program knows {FORMAT}")]
    Newer(u32),
    /// It cannot be opened.
    #[error(
        "the sealing key is not in the backup and none is given; without it what the store holds \
         cannot be read, nor its keys restored"
    )]
    KeyMissing,
    /// It is of another store.
    #[error("the sealing key does not fit this backup")]
    KeyDoesNotFit,
    /// Something is there already.
    #[error("{0} is not empty; a backup is restored into a directory that is empty or not there")]
    NotEmpty(String),
    /// The disk's word.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The store's.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes the names in a directory and in those below it durable.
pub(super) fn sync(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            File::open(entry.path())?.sync_all()?;
        }
    }
    File::open(directory)?.sync_all()
}

/// Counts and hashes what is read.
struct Hashed<R> {
    inner: R,
    read: u64,
    context: Context,
}

impl<R: Read> Hashed<R> {
    fn new(inner: R) -> Self {
        Self {
            inner,
            read: 0,
            context: Context::new(&SHA256),
        }
    }

    fn end(self) -> (u64, String) {
        (self.read, hex(self.context.finish().as_ref()))
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(out)?;
        self.read += read as u64;
        self.context.update(out.get(..read).unwrap_or_default());
        Ok(read)
    }
}

/// Bytes in hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Opens a file of the archive's parts to be read.
pub(super) fn open(path: &Path) -> io::Result<BufReader<File>> {
    Ok(BufReader::with_capacity(BUFFER, File::open(path)?))
}

/// May everybody see it?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Public,
    Private,
}

/// The files of a data directory that a new machine needs, apart from the store.
pub(super) const OWN_FILES: [(&str, Kind); 9] = [
    ("ca.pem", Kind::Public),
    ("ca.key", Kind::Private),
    ("ra.pem", Kind::Public),
    ("ra.key", Kind::Private),
    ("tls-root.pem", Kind::Public),
    ("tls-root.key", Kind::Private),
    ("tls-leaf.pem", Kind::Private),
    ("profile.pem", Kind::Public),
    ("profile.key", Kind::Private),
];
/// Version of this form.
pub(super) const FORMAT: u32 = 1;
pub(super) const DATABASE: &str = "reveille.redb";
pub(super) const SEAL_KEY: &str = "seal.key";
pub(super) const SEGMENTS: &str = "segments/";
pub(super) const SEALED: &str = "sealed/";
const MANIFEST: &str = "manifest.json";
const MAC: &str = "manifest.mac";
const BUFFER: usize = 256 << 10;
