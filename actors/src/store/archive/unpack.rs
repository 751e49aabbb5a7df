//! Reading a backup: laid out in an empty directory and compared with its manifest. What
//! it says is not believed before.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, BufWriter, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use serde::Deserialize;
use tar::{Archive, EntryType};
use zstd::stream::read::Decoder;

use super::end::Ended;
use super::{
    BUFFER, BackupError, DATABASE, FORMAT, FileEntry, Hashed, Kind, MAC, MANIFEST, Manifest,
    OWN_FILES, SEAL_KEY, SEALED, SEGMENTS, sync,
};

/// A backup laid out in a directory, each file as the manifest says.
#[derive(Debug)]
pub(in crate::store) struct Unpacked {
    pub(in crate::store) manifest: Manifest,
    /// As it stands in the archive: what the seal is over.
    pub(in crate::store) bytes: Vec<u8>,
    pub(in crate::store) mac: Vec<u8>,
}

/// Lays a backup out in an empty directory, durably, and compares it with its manifest.
///
/// # Errors
/// [`BackupError`]: it is cut off, changed in whatever place, or of a newer program.
pub(in crate::store) fn unpack(from: impl Read, into: &Path) -> Result<Unpacked, BackupError> {
    let mut archive = Archive::new(Decoder::new(Ended::of(from)).map_err(unreadable)?);
    let mut files = Vec::new();
    let mut names = BTreeSet::new();
    let (mut manifest, mut mac) = (None, None);
    for entry in archive.entries().map_err(unreadable)? {
        let mut entry = entry.map_err(unreadable)?;
        let path = entry.path().map_err(unreadable)?.into_owned();
        let name = path.to_str().unwrap_or_default().to_owned();
        let regular = entry.header().entry_type() == EntryType::Regular;
        if !regular || !known(&name) || !names.insert(name.clone()) || mac.is_some() {
            return Err(BackupError::Damaged(format!("it holds {name:?}")));
        }
        match name.as_str() {
            MANIFEST => manifest = Some(small(&mut entry)?),
            MAC => mac = Some(small(&mut entry)?),
            _ => files.push(lay_out(&mut entry, into, name)?),
        }
    }
    // What follows the last file, and the checksum over all of it.
    let mut rest = archive.into_inner();
    let mut padding = Vec::new();
    let read = rest.by_ref().take(PADDING).read_to_end(&mut padding);
    read.map_err(unreadable)?;
    let mut behind = [0];
    if padding.iter().any(|byte| *byte != 0) || rest.read(&mut behind).map_err(unreadable)? != 0 {
        return Err(BackupError::Damaged("something follows its end".to_owned()));
    }
    let (Some(bytes), Some(mac)) = (manifest, mac) else {
        return Err(BackupError::Unreadable("its manifest is missing".into()));
    };
    sync(into)?;
    Ok(Unpacked {
        manifest: compare(&bytes, files)?,
        bytes,
        mac,
    })
}

/// The manifest, when the files are what it says.
fn compare(bytes: &[u8], files: Vec<FileEntry>) -> Result<Manifest, BackupError> {
    #[derive(Deserialize)]
    struct Form {
        format: u32,
    }
    let none = |why: serde_json::Error| BackupError::Damaged(format!("{MANIFEST}: {why}"));
    let Form { format } = serde_json::from_slice(bytes).map_err(none)?;
    if format > FORMAT {
        return Err(BackupError::Newer(format));
    }
    let manifest: Manifest = serde_json::from_slice(bytes).map_err(none)?;
    for file in &manifest.files {
        match files.iter().find(|found| found.name == file.name) {
            Some(found) if found == file => {}
            Some(_) => {
                let why = format!("{} is not what its manifest says", file.name);
                return Err(BackupError::Damaged(why));
            }
            None => return Err(BackupError::Damaged(format!("{} is missing", file.name))),
        }
    }
    if files.len() != manifest.files.len() {
        let why = "it holds more than its manifest says".to_owned();
        return Err(BackupError::Damaged(why));
    }
    Ok(manifest)
}

/// Writes a file of the archive where it belongs.
fn lay_out(entry: &mut impl Read, into: &Path, name: String) -> Result<FileEntry, BackupError> {
    let path = into.join(&name);
    if let Some(parent) = path.parent().filter(|parent| !parent.exists()) {
        DirBuilder::new().mode(0o700).create(parent)?;
    }
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    let mut file = BufWriter::with_capacity(BUFFER, file);
    let mut content = Hashed::new(entry);
    // Told apart: the disk's trouble is not the backup's.
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = content.read(&mut buffer).map_err(unreadable)?;
        if read == 0 {
            break;
        }
        file.write_all(buffer.get(..read).unwrap_or_default())?;
    }
    file.into_inner()
        .map_err(io::IntoInnerError::into_error)?
        .sync_all()?;
    let (size, sha256) = content.end();
    Ok(FileEntry { name, size, sha256 })
}

fn small(entry: &mut impl Read) -> Result<Vec<u8>, BackupError> {
    let mut bytes = Vec::new();
    let read = entry.take(LONGEST_MANIFEST).read_to_end(&mut bytes);
    read.map_err(unreadable)?;
    Ok(bytes)
}

/// Is this a path of our form? Nothing else is ever laid out.
fn known(name: &str) -> bool {
    if [MANIFEST, MAC, SEAL_KEY, DATABASE].contains(&name) {
        return true;
    }
    if let Some(segment) = name.strip_prefix(SEGMENTS) {
        let number = segment.strip_suffix(".seg").unwrap_or_default();
        return number.len() == 10 && number.bytes().all(|byte| byte.is_ascii_digit());
    }
    let private = name.strip_prefix(SEALED);
    OWN_FILES.iter().any(|(own, kind)| match kind {
        Kind::Public => name == *own,
        Kind::Private => private == Some(own),
    })
}

fn unreadable(why: io::Error) -> BackupError {
    match why.kind() {
        io::ErrorKind::UnexpectedEof => {
            BackupError::Unreadable("it is cut off, or a bit of it is changed".to_owned())
        }
        _ => BackupError::Unreadable(why.to_string()),
    }
}

const LONGEST_MANIFEST: u64 = 16 << 20;
/// Zeros tools may leave at the end of a tar.
const PADDING: u64 = 1 << 20;
