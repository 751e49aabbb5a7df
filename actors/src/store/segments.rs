//! Segment files: bodies over 1 KiB, appended and synced before the commit that
//! names them.
//!
//! A file holds sealed records back to back; only the journal knows where they are,
//! so a torn end after a crash is dead weight and nothing more. Retention unlinks
//! whole files. The writer thread appends; anyone reads.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::disk::{Appending, Disk, make_directory};

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
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    number: u32,
    file: Box<dyn Appending>,
    length: u64,
    unsynced: bool,
    pub(super) roll_at: u64,
}

impl SegmentWriter {
    /// Opens the directory and goes on behind the last file there, in it while it is empty:
    /// a number names one file for good.
    pub(super) fn open(disk: Arc<dyn Disk>, directory: &Path, roll_at: u64) -> io::Result<Self> {
        make_directory(&*disk, directory)?;
        let last = sizes(&*disk, directory)?.pop_last();
        let number = last.map_or(0, |(number, length)| number + u32::from(length > 0));
        Ok(Self {
            file: create(&*disk, directory, number)?,
            directory: directory.to_owned(),
            disk,
            number,
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
            self.file = create(&*self.disk, &self.directory, self.number)?;
            self.length = 0;
        }
        let length = u32::try_from(record.len()).map_err(io::Error::other)?;
        self.unsynced = true;
        self.file.append(record)?;
        let address = Address {
            segment: self.number,
            offset: self.length,
            length,
        };
        self.length += u64::from(length);
        Ok(address)
    }

    /// Makes everything appended so far durable.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.unsynced) {
            self.file.sync()?;
        }
        Ok(())
    }

    /// Number of the file being written.
    pub(super) const fn current(&self) -> u32 {
        self.number
    }

    /// Length of each file.
    pub(super) fn sizes(&self) -> io::Result<BTreeMap<u32, u64>> {
        sizes(&*self.disk, &self.directory)
    }

    /// Unlinks all files numbered below `keep_from`, and says how many.
    pub(super) fn unlink_before(&self, keep_from: u32) -> io::Result<usize> {
        let old = self.sizes()?.into_keys();
        old.filter(|number| *number < keep_from)
            .map(|number| self.disk.remove(&path(&self.directory, number)))
            .try_fold(0, |count, removed| removed.map(|()| count + 1))
    }
}

/// Reads a record.
pub(super) fn read(disk: &dyn Disk, directory: &Path, address: Address) -> io::Result<Vec<u8>> {
    let mut record = vec![0; address.length as usize];
    disk.read_at(
        &path(directory, address.segment),
        address.offset,
        &mut record,
    )?;
    Ok(record)
}

fn sizes(disk: &dyn Disk, directory: &Path) -> io::Result<BTreeMap<u32, u64>> {
    let files = disk.list(directory)?.into_iter();
    let numbered = files.filter_map(|(name, length)| {
        let number = name.strip_suffix(".seg")?.parse().ok()?;
        Some((number, length))
    });
    Ok(numbered.collect())
}

fn create(disk: &dyn Disk, directory: &Path, number: u32) -> io::Result<Box<dyn Appending>> {
    let file = disk.append(&path(directory, number))?;
    disk.sync_directory(directory)?;
    Ok(file)
}

/// The file of a number.
pub(super) fn path(directory: &Path, number: u32) -> PathBuf {
    directory.join(format!("{number:010}.seg"))
}

#[cfg(test)]
mod tests {
    use super::super::disk::LocalDisk;
    use super::*;

    #[test]
    fn records_are_read_back_over_files_and_restarts_and_old_files_go() {
        let directory = tempfile::tempdir().unwrap();
        let open = || SegmentWriter::open(Arc::new(LocalDisk), directory.path(), 8).unwrap();
        let read = |address| read(&LocalDisk, directory.path(), address);
        let mut writer = open();
        let first = writer.append(b"0123456789").unwrap();
        let second = writer.append(b"ab").unwrap();
        writer.sync().unwrap();
        assert_ne!(first.segment, second.segment);
        drop(writer);
        let mut writer = open();
        let third = writer.append(b"xyz").unwrap();
        assert_eq!(read(first).unwrap(), b"0123456789");
        assert_eq!(read(third).unwrap(), b"xyz");
        assert_eq!(writer.unlink_before(third.segment).unwrap(), 2);
        assert!(read(second).is_err());
    }

    #[test]
    fn a_start_that_writes_nothing_leaves_no_file_behind() {
        let directory = tempfile::tempdir().unwrap();
        for _ in 0..3 {
            SegmentWriter::open(Arc::new(LocalDisk), directory.path(), 8).unwrap();
        }
        let files = sizes(&LocalDisk, directory.path()).unwrap();
        assert_eq!(files, BTreeMap::from([(0, 0)]));
    }
}
