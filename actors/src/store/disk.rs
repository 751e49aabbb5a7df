//! The disk under the store: the few things it asks of files and directories.
//!
//! Database, segments, sealing key and ballast all go through one [`Disk`]. The server
//! has a [`LocalDisk`]; tests put one in its place whose power fails, whose room ends,
//! whose syncs fail. What is durable when is decided here and by the callers' order of
//! these calls, nowhere else.

use std::fmt::Debug;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, FileExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::Path;

use redb::backends::FileBackend;
use redb::{DatabaseError, StorageBackend};

/// Files and directories as the store uses them. A new name is durable only after
/// [`Disk::sync_directory`] of the directory it stands in.
pub(super) trait Disk: Debug + Send + Sync {
    /// Makes a directory (0700); one that is there is none the worse.
    fn create_directory(&self, path: &Path) -> io::Result<()>;
    /// Makes names given, changed and taken in a directory durable.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
    /// Is there a file or directory of this name?
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Name and length of each file in a directory.
    fn list(&self, directory: &Path) -> io::Result<Vec<(String, u64)>>;
    /// Opens a file (0600) to append to, making it when it is not there.
    fn append(&self, path: &Path) -> io::Result<Box<dyn Appending>>;
    /// Reads a whole file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Fills the buffer from a place in a file.
    fn read_at(&self, path: &Path, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Gives a file another name, in place of whatever has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Takes a file away.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Bytes left for us on the disk of a directory.
    fn free_bytes(&self, directory: &Path) -> io::Result<u64>;
    /// Opens a database file (0600), emptied first when `anew`; a second opener is refused.
    fn database(&self, path: &Path, anew: bool) -> Result<Box<dyn StorageBackend>, DatabaseError>;
}

/// A file that only grows.
pub(super) trait Appending: Debug + Send {
    /// Writes at the end. Durable only after [`Self::sync`].
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes what was appended durable.
    fn sync(&mut self) -> io::Result<()>;
}

/// Makes a directory that survives a power cut, with whatever of its path is missing.
pub(super) fn make_directory(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    if path.as_os_str().is_empty() || disk.exists(path)? {
        return Ok(());
    }
    let parent = path.parent().unwrap_or(Path::new(""));
    make_directory(disk, parent)?;
    disk.create_directory(path)?;
    disk.sync_directory(parent)
}

/// The machine's own.
#[derive(Clone, Copy, Debug)]
pub(super) struct LocalDisk;

impl Disk for LocalDisk {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made,
        }
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let here = path.as_os_str().is_empty();
        File::open(if here { Path::new(".") } else { path })?.sync_all()
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string() {
                files.push((name, entry.metadata()?.len()));
            }
        }
        Ok(files)
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn Appending>> {
        let mut options = OpenOptions::new();
        let file = options.append(true).create(true).mode(0o600).open(path)?;
        Ok(Box::new(file))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn read_at(&self, path: &Path, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        File::open(path)?.read_exact_at(buffer, offset)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn free_bytes(&self, directory: &Path) -> io::Result<u64> {
        super::free_bytes(directory)
    }

    fn database(&self, path: &Path, anew: bool) -> Result<Box<dyn StorageBackend>, DatabaseError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(anew).mode(0o600);
        let file = options.open(path)?;
        if anew {
            // The database takes this lock again, by the same handle; never empty
            // what another process has open.
            match file.try_lock() {
                Err(TryLockError::WouldBlock) => return Err(DatabaseError::DatabaseAlreadyOpen),
                Err(TryLockError::Error(error)) => return Err(error.into()),
                Ok(()) => file.set_len(0)?,
            }
        }
        file.set_permissions(Permissions::from_mode(0o600))?;
        Ok(Box::new(FileBackend::new(file)?))
    }
}

impl Appending for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}
