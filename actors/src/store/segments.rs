//! Segment files: bodies over 1 KiB, appended and synced before the commit that
//! names them.
//!
//! A file holds sealed records back to back; only the journal knows where they are,
//! so a torn end after a crash is dead weight and nothing more. Retention unlinks
//! whole files. The writer thread appends; anyone reads.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Where a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Address {
    /// Number of the file.
    pub(super) segment: u32,
    /// First byte.
    pub(super) offset: u64,
    /// Length in bytes.
    pub(super) length: u32,
}

/// The writing end: one open file at a time.
#[derive(Debug)]
pub(super) struct SegmentWriter {
    directory: PathBuf,
    number: u32,
    file: File,
    length: u64,
    unsynced: bool,
    roll_at: u64,
}

impl SegmentWriter {
    /// Opens the directory and begins a new file behind the last one there.
    pub(super) fn open(directory: &Path, roll_at: u64) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let number = numbers(directory)?.last().map_or(0, |last| last + 1);
        Ok(Self {
            directory: directory.to_owned(),
            number,
            file: create(directory, number)?,
            length: 0,
            unsynced: false,
            roll_at,
        })
    }

    /// Appends a record. It is durable only after [`Self::sync`].
    pub(super) fn append(&mut self, record: &[u8]) -> io::Result<Address> {
        if self.length >= self.roll_at {
            self.sync()?;
            self.number += 1;
            self.file = create(&self.directory, self.number)?;
            self.length = 0;
        }
        let length = u32::try_from(record.len()).map_err(io::Error::other)?;
        self.file.write_all(record)?;
        let address = Address {
            segment: self.number,
            offset: self.length,
            length,
        };
        self.length += u64::from(length);
        self.unsynced = true;
        Ok(address)
    }

    /// Makes everything appended so far durable.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.unsynced) {
            self.file.sync_data()?;
        }
        Ok(())
    }

    /// Number of the file being written.
    pub(super) const fn current(&self) -> u32 {
        self.number
    }
}

/// Reads a record.
pub(super) fn read(directory: &Path, address: Address) -> io::Result<Vec<u8>> {
    let file = File::open(path(directory, address.segment))?;
    let mut record = vec![0; address.length as usize];
    file.read_exact_at(&mut record, address.offset)?;
    Ok(record)
}

/// Unlinks all files numbered below `keep_from`, and says how many.
pub(super) fn unlink_before(directory: &Path, keep_from: u32) -> io::Result<usize> {
    let old = numbers(directory)?
        .into_iter()
        .filter(|number| *number < keep_from);
    old.map(|number| fs::remove_file(path(directory, number)))
        .try_fold(0, |count, removed| removed.map(|()| count + 1))
}

/// Length of each file.
pub(super) fn sizes(directory: &Path) -> io::Result<BTreeMap<u32, u64>> {
    let files = numbers(directory)?.into_iter();
    files
        .map(|number| Ok((number, fs::metadata(path(directory, number))?.len())))
        .collect()
}

fn create(directory: &Path, number: u32) -> io::Result<File> {
    let file = OpenOptions::new()
        .append(true)
        .create_new(true)
        .mode(0o600)
        .open(path(directory, number))?;
    File::open(directory)?.sync_all()?;
    Ok(file)
}

fn path(directory: &Path, number: u32) -> PathBuf {
    directory.join(format!("{number:010}.seg"))
}

fn numbers(directory: &Path) -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".seg"));
        numbers.extend(number.and_then(|number| number.parse::<u32>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_back_over_files_and_restarts_and_old_files_go() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = SegmentWriter::open(directory.path(), 8).unwrap();
        let first = writer.append(b"0123456789").unwrap();
        let second = writer.append(b"ab").unwrap();
        writer.sync().unwrap();
        assert_ne!(first.segment, second.segment);
        drop(writer);
        let mut writer = SegmentWriter::open(directory.path(), 8).unwrap();
        let third = writer.append(b"xyz").unwrap();
        assert_eq!(read(directory.path(), first).unwrap(), b"0123456789");
        assert_eq!(read(directory.path(), third).unwrap(), b"xyz");
        assert_eq!(unlink_before(directory.path(), third.segment).unwrap(), 2);
        assert!(read(directory.path(), second).is_err());
    }
}
