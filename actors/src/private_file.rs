//! A private file of the data directory (0600), written whole or not at all.
//!
//! For what is ours alone and small: keys, certificates, what must outlive a restart. The
//! store's own files do not come through here.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Writes a file over what was there; once it returns, a power cut leaves it there.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let staged = staged(path);
    write_new(&staged, bytes)?;
    fs::rename(&staged, path)?;
    path.parent().map_or(Ok(()), sync_directory)
}

/// Writes a file under a name nobody relies on yet, in place of what a crash left there.
/// Its bytes are durable once this returns, its name is not.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Where a file is written before it has its name.
pub(crate) fn staged(path: &Path) -> PathBuf {
    let mut staged = path.as_os_str().to_owned();
    staged.push(".new");
    staged.into()
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
