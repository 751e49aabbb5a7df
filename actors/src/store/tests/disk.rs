//! A simulated disk whose power can go, whose room can end and whose syncs can fail.
//!
//! What is written is seen at once and kept only by a sync. When the power goes at a
//! chosen operation, every unsynced 512-byte sector survives or not by itself, lengths
//! and names too. What survives follows from the seed alone.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use redb::{DatabaseError, StorageBackend};

use crate::store::disk::{Appending, Disk};

/// A disk. Clones share it; [`SimDisk::copy`] makes another.
#[derive(Clone, Debug, Default)]
pub(super) struct SimDisk(Arc<Mutex<State>>);

/// A promise the disk breaks, to see that somebody notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lie {
    /// What was appended is not made durable.
    Appended,
    /// Names are not made durable.
    Names,
    /// The database is not made durable.
    Database,
}

#[derive(Clone, Debug, Default)]
struct State {
    inodes: Vec<Inode>,
    seen: Names,
    kept: Names,
    pending: Vec<Naming>,
    operations: u64,
    cut_at: Option<u64>,
    off: bool,
    lie: Option<Lie>,
    room: Option<u64>,
    syncs_fail: bool,
    /// What a sync takes, of wall time.
    syncs_take: Duration,
    /// Of every operation, in order: two runs of a seed must have the same.
    trace: u64,
}

#[derive(Clone, Debug, Default)]
struct Names {
    files: BTreeMap<PathBuf, usize>,
    directories: BTreeSet<PathBuf>,
}

#[derive(Clone, Debug)]
enum Naming {
    Directory(PathBuf),
    File(PathBuf, usize),
    Renamed(PathBuf, PathBuf, usize),
    Gone(PathBuf),
}

#[derive(Clone, Debug, Default)]
struct Inode {
    seen: Vec<u8>,
    kept: Vec<u8>,
    /// Sectors written since the last sync, with what they held in between.
    changed: BTreeMap<usize, Vec<Vec<u8>>>,
    /// Lengths since the last sync: setting one is a single step, writing behind the end
    /// goes there sector by sector.
    lengths: Vec<usize>,
}

impl SimDisk {
    /// Another disk with the same content.
    pub(super) fn copy(&self) -> Self {
        Self(Arc::new(Mutex::new(self.lock().clone())))
    }

    /// The power goes at the `after`th operation from now on.
    pub(super) fn cut_after(&self, after: u64) {
        let mut state = self.lock();
        state.cut_at = Some(state.operations + after);
    }

    /// Did the power go?
    pub(super) fn is_off(&self) -> bool {
        self.lock().off
    }

    /// What the operations so far were, in one number.
    pub(super) fn trace(&self) -> (u64, u64) {
        let state = self.lock();
        (state.operations, state.trace)
    }

    pub(super) fn lies(&self, lie: Option<Lie>) {
        self.lock().lie = lie;
    }

    /// The disk holds so many bytes and no more.
    pub(super) fn has_room(&self, room: Option<u64>) {
        self.lock().room = room;
    }

    pub(super) fn syncs_fail(&self, fail: bool) {
        self.lock().syncs_fail = fail;
    }

    pub(super) fn syncs_take(&self, time: Duration) {
        self.lock().syncs_take = time;
    }

    /// Waits for as long as a sync takes, while others go on.
    fn spin(&self) {
        let time = self.lock().syncs_take;
        if !time.is_zero() {
            std::thread::sleep(time);
        }
    }

    /// Bytes of all files.
    pub(super) fn used(&self) -> u64 {
        self.lock().used()
    }

    /// What is left once the power is back.
    pub(super) fn survived(&self, seed: u64) -> Self {
        let state = self.lock().survived(seed);
        Self(Arc::new(Mutex::new(state)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn name(&self, naming: Naming) -> io::Result<()> {
        let mut state = self.lock();
        let cut = state.step(1, 0)?;
        state.seen.apply(&naming);
        state.pending.push(naming);
        cut.then(failed).map_or(Ok(()), Err)
    }

    fn inode(&self, path: &Path) -> io::Result<usize> {
        let state = self.lock();
        if state.off {
            return Err(failed());
        }
        let found = state.seen.files.get(path).copied();
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn inode_or_new(&self, path: &Path) -> io::Result<usize> {
        match self.inode(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let parent = path.parent().unwrap();
                if !self.lock().seen.directories.contains(parent) {
                    return Err(error);
                }
                let inode = {
                    let mut state = self.lock();
                    state.inodes.push(Inode::default());
                    state.inodes.len() - 1
                };
                self.name(Naming::File(path.to_owned(), inode))?;
                Ok(inode)
            }
            found => found,
        }
    }
}

impl State {
    /// Counts an operation that changes the disk; says whether the power goes with it.
    fn step(&mut self, kind: u64, size: u64) -> io::Result<bool> {
        if self.off {
            return Err(failed());
        }
        self.operations += 1;
        self.trace = mix(self.trace, kind << 32 | size);
        self.off = self.cut_at.is_some_and(|at| self.operations >= at);
        Ok(self.off)
    }

    fn used(&self) -> u64 {
        let files = self.seen.files.values();
        files
            .map(|inode| self.inodes[*inode].seen.len() as u64)
            .sum()
    }

    fn fits(&self, inode: usize, end: usize) -> io::Result<()> {
        let more = end.saturating_sub(self.inodes[inode].seen.len()) as u64;
        match self.room {
            Some(room) if more > 0 && self.used() + more > room => {
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => Ok(()),
        }
    }

    fn write(&mut self, inode: usize, offset: usize, bytes: &[u8]) -> io::Result<()> {
        self.fits(inode, offset + bytes.len())?;
        let cut = self.step(2, bytes.len() as u64)?;
        self.inodes[inode].write(offset, bytes);
        cut.then(failed).map_or(Ok(()), Err)
    }

    fn sync(&mut self, inode: usize, lie: Lie) -> io::Result<()> {
        if self.step(3, 0)? || self.syncs_fail {
            return Err(failed());
        }
        if self.lie != Some(lie) {
            self.inodes[inode].sync();
        }
        Ok(())
    }

    fn survived(&self, seed: u64) -> Self {
        let mut kept = self.kept.clone();
        let in_order = seed.is_multiple_of(2);
        let upto = mix(seed, 1) as usize % (self.pending.len() + 1);
        for (number, naming) in self.pending.iter().enumerate() {
            let lucky = mix(seed, 2 + number as u64).is_multiple_of(2);
            if (in_order && number < upto) || (!in_order && lucky) {
                kept.apply(naming);
            }
        }
        let mut inodes = self.inodes.clone();
        for (number, inode) in inodes.iter_mut().enumerate() {
            inode.lose_power(mix(seed, 1 << 32 | number as u64));
        }
        // What stands in a directory that is gone is gone.
        let directories = kept.directories.clone();
        kept.files
            .retain(|path, _| directories.contains(path.parent().unwrap()));
        Self {
            inodes,
            seen: kept.clone(),
            kept,
            lie: self.lie,
            ..Self::default()
        }
    }
}

impl Names {
    fn apply(&mut self, naming: &Naming) {
        match naming {
            Naming::Directory(path) => {
                self.directories.insert(path.clone());
            }
            Naming::File(path, inode) => {
                self.files.insert(path.clone(), *inode);
            }
            Naming::Renamed(from, to, inode) => {
                self.files.remove(from);
                self.files.insert(to.clone(), *inode);
            }
            Naming::Gone(path) => {
                self.files.remove(path);
            }
        }
    }
}

impl Naming {
    fn directory(&self) -> &Path {
        let (Self::Directory(path)
        | Self::File(path, _)
        | Self::Renamed(path, ..)
        | Self::Gone(path)) = self;
        path.parent().unwrap()
    }
}

impl Inode {
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        for sector in offset / SECTOR..end.div_ceil(SECTOR) {
            let between = part(&self.seen, sector);
            match self.changed.get_mut(&sector) {
                Some(versions) => versions.push(between),
                None => {
                    self.changed.insert(sector, Vec::new());
                }
            }
        }
        if self.seen.len() < end {
            let on_the_way = (self.seen.len() / SECTOR + 1..).map(|sector| sector * SECTOR);
            self.lengths
                .extend(on_the_way.take_while(|length| *length < end));
            self.lengths.push(end);
            self.seen.resize(end, 0);
        }
        self.seen[offset..end].copy_from_slice(bytes);
    }

    fn set_len(&mut self, length: usize) {
        let shorter = length.min(self.seen.len());
        // Cut off and grown again, it reads as zeros.
        for sector in shorter / SECTOR..self.kept.len().div_ceil(SECTOR) {
            self.changed.entry(sector).or_default();
        }
        self.seen.resize(length, 0);
        self.lengths.push(length);
    }

    fn sync(&mut self) {
        self.kept.resize(self.seen.len(), 0);
        self.lengths.clear();
        for sector in std::mem::take(&mut self.changed).into_keys() {
            let (from, to) = (sector * SECTOR, (sector + 1) * SECTOR);
            let to = to.min(self.seen.len());
            if from < to {
                self.kept[from..to].copy_from_slice(&self.seen[from..to]);
            }
        }
    }

    fn lose_power(&mut self, seed: u64) {
        let lengths = std::mem::take(&mut self.lengths);
        let length = match mix(seed, 1) % 3 {
            0 => self.kept.len(),
            1 => self.seen.len(),
            _ => {
                let choice = mix(seed, 2) as usize % (lengths.len() + 1);
                lengths.get(choice).copied().unwrap_or(self.kept.len())
            }
        };
        // Of eight sectors so many survive: none, few, half, most, all.
        let lucky = [0, 1, 4, 7, 8][mix(seed, 3) as usize % 5];
        let mut left = self.kept.clone();
        left.resize(length, 0);
        for (sector, versions) in std::mem::take(&mut self.changed) {
            let chance = mix(seed, 4 + sector as u64);
            if chance % 8 >= lucky {
                continue;
            }
            let choice = (chance >> 8) as usize % (versions.len() + 1);
            let survived = versions
                .get(choice)
                .cloned()
                .unwrap_or_else(|| part(&self.seen, sector));
            for (at, byte) in (sector * SECTOR..).zip(survived) {
                if let Some(place) = left.get_mut(at) {
                    *place = byte;
                }
            }
        }
        self.seen = left.clone();
        self.kept = left;
    }
}

impl Disk for SimDisk {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.name(Naming::Directory(path.to_owned()))
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.spin();
        let mut state = self.lock();
        if state.step(4, 0)? || state.syncs_fail {
            return Err(failed());
        }
        if state.lie != Some(Lie::Names) {
            let (now, later) = std::mem::take(&mut state.pending)
                .into_iter()
                .partition(|naming| naming.directory() == path);
            state.pending = later;
            let now: Vec<Naming> = now;
            now.iter().for_each(|naming| state.kept.apply(naming));
        }
        Ok(())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let state = self.lock();
        if state.off {
            return Err(failed());
        }
        let root = path.parent().is_none_or(|parent| parent == Path::new(""));
        Ok(root || state.seen.files.contains_key(path) || state.seen.directories.contains(path))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<(String, u64)>> {
        let state = self.lock();
        if state.off {
            return Err(failed());
        }
        if !state.seen.directories.contains(directory) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let here = state.seen.files.iter();
        let here = here.filter(|(path, _)| path.parent() == Some(directory));
        let named = here.map(|(path, inode)| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, state.inodes[*inode].seen.len() as u64)
        });
        Ok(named.collect())
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn Appending>> {
        let inode = self.inode_or_new(path)?;
        let disk = self.clone();
        Ok(Box::new(SimFile { disk, inode }))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let inode = self.inode(path)?;
        Ok(self.lock().inodes[inode].seen.clone())
    }

    fn read_at(&self, path: &Path, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let inode = self.inode(path)?;
        read_at(&self.lock().inodes[inode].seen, offset, buffer)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let inode = self.inode(from)?;
        self.name(Naming::Renamed(from.to_owned(), to.to_owned(), inode))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inode(path)?;
        self.name(Naming::Gone(path.to_owned()))
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        let state = self.lock();
        Ok(state
            .room
            .map_or(1 << 40, |room| room.saturating_sub(state.used())))
    }

    fn database(&self, path: &Path, anew: bool) -> Result<Box<dyn StorageBackend>, DatabaseError> {
        let inode = if anew {
            let inode = self.inode_or_new(path)?;
            let disk = self.clone();
            SimFile { disk, inode }.set_len(0)?;
            inode
        } else {
            self.inode(path)?
        };
        let disk = self.clone();
        Ok(Box::new(SimFile { disk, inode }))
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    inode: usize,
}

impl Appending for SimFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.lock();
        let end = state.inodes[self.inode].seen.len();
        state.write(self.inode, end, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.disk.spin();
        self.disk.lock().sync(self.inode, Lie::Appended)
    }
}

impl StorageBackend for SimFile {
    fn len(&self) -> io::Result<u64> {
        let state = self.disk.lock();
        if state.off {
            return Err(failed());
        }
        Ok(state.inodes[self.inode].seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.disk.lock();
        if state.off {
            return Err(failed());
        }
        read_at(&state.inodes[self.inode].seen, offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.fits(self.inode, length as usize)?;
        let cut = state.step(5, length)?;
        state.inodes[self.inode].set_len(length as usize);
        cut.then(failed).map_or(Ok(()), Err)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.spin();
        self.disk.lock().sync(self.inode, Lie::Database)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk.lock().write(self.inode, offset as usize, data)
    }
}

/// A number that looks random and follows from two others.
pub(super) fn mix(a: u64, b: u64) -> u64 {
    let mut x = a.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ b.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn part(bytes: &[u8], sector: usize) -> Vec<u8> {
    let mut part = vec![0; SECTOR];
    let from = (sector * SECTOR).min(bytes.len());
    let to = (from + SECTOR).min(bytes.len());
    part[..to - from].copy_from_slice(&bytes[from..to]);
    part
}

fn read_at(bytes: &[u8], offset: u64, buffer: &mut [u8]) -> io::Result<()> {
    let from = offset as usize;
    let found = bytes.get(from..from + buffer.len());
    buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
    Ok(())
}

fn failed() -> io::Error {
    io::Error::other("the simulated disk failed")
}

const SECTOR: usize = 512;
