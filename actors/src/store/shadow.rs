//! The database file as it was at one moment, while it is written on: for backups.
//!
//! The database writes through a [`Shadow`]. While a backup copies, what is about to be
//! overwritten is put aside first, each block once, until the copy is past it. So nothing
//! of the database is held open, however slow the one who drains the copy: it neither
//! grows nor waits, and what is put aside is at most what is written meanwhile.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Bound;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use redb::{BackendError, StorageBackend};

use super::{StoreError, lock};

/// A database file whose past can be read. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Shadow(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    file: Box<dyn StorageBackend>,
    frozen: Mutex<Option<Past>>,
}

/// What a copy under way needs.
#[derive(Debug)]
struct Past {
    /// Length of the file at the moment.
    length: u64,
    /// Copied up to here.
    copied: u64,
    /// Block of the file -> block of `aside`.
    kept: HashMap<u64, u64>,
    aside: File,
    /// The database cut the file to this length; done once the copy ends.
    cut: Option<u64>,
    /// Why the moment is lost.
    lost: Option<String>,
}

/// The moment, read from the beginning. Dropped, it costs nothing more.
#[derive(Debug)]
pub(super) struct Frozen {
    shared: Arc<Shared>,
    /// Length of the file.
    pub(super) length: u64,
    buffer: Vec<u8>,
    read: usize,
}

impl Shadow {
    pub(super) fn over(file: Box<dyn StorageBackend>) -> Self {
        Self(Arc::new(Shared {
            file,
            frozen: Mutex::default(),
        }))
    }

    /// Freezes this moment; what is overwritten is put aside in `directory`, in a file
    /// without a name. Called between two transactions.
    ///
    /// # Errors
    /// [`StoreError::BackupRuns`] when another moment is frozen; the disk's own trouble.
    pub(super) fn freeze(&self, directory: &Path) -> Result<Frozen, StoreError> {
        let mut frozen = lock(&self.0.frozen);
        if frozen.is_some() {
            return Err(StoreError::BackupRuns);
        }
        let kept_aside = |why: io::Error| StoreError::NoBackup(why.to_string().into());
        let length = self.0.file.len()?;
        *frozen = Some(Past {
            length,
            copied: 0,
            kept: HashMap::new(),
            aside: tempfile::tempfile_in(directory).map_err(kept_aside)?,
            cut: None,
            lost: None,
        });
        Ok(Frozen {
            shared: self.0.clone(),
            length,
            buffer: Vec::new(),
            read: 0,
        })
    }

    /// Lets go of a frozen moment, if there is one: whoever reads it is told why.
    pub(super) fn give_up(&self, why: &str) {
        if let Some(past) = lock(&self.0.frozen).as_mut() {
            past.lose(why);
        }
    }

    /// Bytes put aside now.
    #[cfg(test)]
    pub(super) fn aside(&self) -> u64 {
        let frozen = lock(&self.0.frozen);
        frozen
            .as_ref()
            .map_or(0, |past| past.kept.len() as u64 * BLOCK)
    }
}

impl Past {
    /// Puts aside what a write is about to cover. Never fails the write: what cannot be
    /// kept loses the moment, not the store.
    fn keep(&mut self, file: &dyn StorageBackend, offset: u64, length: u64) {
        let end = offset.saturating_add(length).min(self.length);
        let begin = offset.max(self.copied);
        if begin >= end || self.lost.is_some() {
            return;
        }
        for block in begin / BLOCK..end.div_ceil(BLOCK) {
            if self.kept.contains_key(&block) {
                continue;
            }
            let from = block * BLOCK;
            let mut bytes = [0; BLOCK as usize];
            let there = (self.length - from).min(BLOCK) as usize;
            let (bytes, _) = bytes.split_at_mut(there);
            let place = self.kept.len() as u64;
            let kept = file
                .read(from, bytes)
                .and_then(|()| self.aside.write_all_at(bytes, place * BLOCK));
            if let Err(why) = kept {
                self.lose(&why.to_string());
                return;
            }
            self.kept.insert(block, place);
        }
    }

    fn lose(&mut self, why: &str) {
        self.lost.get_or_insert_with(|| why.to_owned());
        self.kept = HashMap::new();
        // Only a help: it is gone with its last handle anyway.
        let _ = self.aside.set_len(0);
    }

    /// The next part, as it was.
    fn next(&mut self, file: &dyn StorageBackend, buffer: &mut Vec<u8>) -> io::Result<()> {
        if let Some(why) = &self.lost {
            return Err(io::Error::other(format!("the backup was given up: {why}")));
        }
        let length = (self.length - self.copied).min(PART);
        buffer.resize(length as usize, 0);
        file.read(self.copied, buffer)?;
        for (block, bytes) in (self.copied / BLOCK..).zip(buffer.chunks_mut(BLOCK as usize)) {
            if let Some(place) = self.kept.get(&block) {
                self.aside.read_exact_at(bytes, place * BLOCK)?;
            }
        }
        self.copied += length;
        Ok(())
    }
}

impl Read for Frozen {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.read == self.buffer.len() {
            self.read = 0;
            let mut frozen = lock(&self.shared.frozen);
            let past = frozen.as_mut().ok_or(io::ErrorKind::UnexpectedEof)?;
            past.next(&*self.shared.file, &mut self.buffer)?;
        }
        let mut rest = self.buffer.get(self.read..).unwrap_or_default();
        let read = rest.read(out)?;
        self.read += read;
        Ok(read)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // Held until it is cut, so that it does not grow in between.
        let mut frozen = lock(&self.shared.frozen);
        if let Some(length) = frozen.take().and_then(|past| past.cut) {
            // Until then the file is longer than the database believes, which it bears.
            let _ = self.shared.file.set_len(length);
        }
    }
}

impl StorageBackend for Shadow {
    fn len(&self) -> io::Result<u64> {
        match lock(&self.0.frozen).as_ref().and_then(|past| past.cut) {
            Some(length) => Ok(length),
            None => self.0.file.len(),
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.file.read(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut frozen = lock(&self.0.frozen);
        if let Some(past) = frozen.as_mut() {
            let shrinks = length < past.cut.unwrap_or(past.length);
            if shrinks && past.lost.is_none() && past.copied < past.length {
                past.cut = Some(length);
                return Ok(());
            }
            if let Some(cut) = past.cut.take() {
                // What is new must be zeros, and the moment needs what is there.
                past.lose("the database was cut and grew again");
                self.0.file.set_len(cut.min(length))?;
            }
        }
        self.0.file.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if let Some(past) = lock(&self.0.frozen).as_mut() {
            past.keep(&*self.0.file, offset, data.len() as u64);
        }
        self.0.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.0.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.file.query_lock_range(start, end)
    }
}

/// A page of the database.
const BLOCK: u64 = 4096;
/// What is copied at once: a write waits no longer than that takes to read.
const PART: u64 = 128 << 10;

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;

    use super::*;

    fn shadow(content: &[u8]) -> Shadow {
        let file = InMemoryBackend::new();
        file.set_len(content.len() as u64).unwrap();
        file.write(0, content).unwrap();
        Shadow::over(Box::new(file))
    }

    fn rest(mut frozen: Frozen) -> io::Result<Vec<u8>> {
        let mut read = Vec::new();
        frozen.read_to_end(&mut read).map(|_| read)
    }

    #[test]
    fn what_is_read_is_the_moment_whatever_is_written_meanwhile() {
        let directory = tempfile::tempdir().unwrap();
        let before: Vec<u8> = (0..3 * PART + 700).map(|n| (n / 100) as u8).collect();
        let shadow = shadow(&before);
        let mut frozen = shadow.freeze(directory.path()).unwrap();
        assert!(matches!(
            shadow.freeze(directory.path()),
            Err(StoreError::BackupRuns)
        ));
        let mut first = vec![0; 1000];
        frozen.read_exact(&mut first).unwrap();
        shadow.write(500, &[255; 1000]).unwrap();
        assert_eq!(shadow.aside(), 0, "the copy is past it");
        for _ in 0..2 {
            shadow.write(PART + 10, &[255; 5000]).unwrap();
            assert_eq!(shadow.aside(), 2 * BLOCK, "each block once");
        }
        shadow.set_len(9 * PART).unwrap();
        shadow.write(3 * PART, &[255; 9000]).unwrap();
        first.extend(rest(frozen).unwrap());
        assert!(first == before);
        shadow.freeze(directory.path()).unwrap();
    }

    #[test]
    fn a_file_that_is_cut_meanwhile_is_cut_once_the_copy_ends() {
        let directory = tempfile::tempdir().unwrap();
        let before: Vec<u8> = (0..3 * PART).map(|n| (n / 100) as u8).collect();
        let shadow = shadow(&before);
        let frozen = shadow.freeze(directory.path()).unwrap();
        shadow.set_len(PART).unwrap();
        assert_eq!(shadow.len().unwrap(), PART);
        assert!(rest(frozen).unwrap() == before);
        assert_eq!(shadow.0.file.len().unwrap(), PART);

        let shadow = self::shadow(&before);
        let frozen = shadow.freeze(directory.path()).unwrap();
        shadow.set_len(PART).unwrap();
        shadow.set_len(2 * PART).unwrap();
        assert!(rest(frozen).is_err());
        let mut grown = [1; 10];
        shadow.read(2 * PART - 10, &mut grown).unwrap();
        assert_eq!((grown, shadow.len().unwrap()), ([0; 10], 2 * PART));
    }

    #[test]
    fn a_moment_that_is_given_up_says_why() {
        let directory = tempfile::tempdir().unwrap();
        let shadow = shadow(&[7; 10_000]);
        let frozen = shadow.freeze(directory.path()).unwrap();
        shadow.give_up("the disk is nearly full");
        shadow.write(0, &[8; 10_000]).unwrap();
        let why = rest(frozen).unwrap_err().to_string();
        assert!(why.contains("the disk is nearly full"), "{why}");
    }
}
