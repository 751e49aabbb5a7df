//! A growing set of channel numbers that many threads read and few change.
//!
//! One bit a channel, in atomics: the may-have-work bit that keeps empty polls off
//! the disk, and the awaited-wake bit. A bit that is set for nothing costs one read
//! of the store; a bit that is missing would lose a command, so setting is never
//! skipped and all bits of a fresh set are taken as set.

use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};

use schema::ChannelNo;

/// A set of channels.
#[derive(Debug, Default)]
pub struct Bits {
    words: RwLock<Vec<AtomicU64>>,
    unknown: bool,
}

impl Bits {
    /// An empty set; channels beyond what was ever set count as `unknown`.
    #[must_use]
    pub fn new(unknown: bool) -> Self {
        Self {
            words: RwLock::default(),
            unknown,
        }
    }

    /// Is the channel in the set?
    #[must_use]
    pub fn has(&self, channel: ChannelNo) -> bool {
        let (word, bit) = place(channel);
        match self.read().get(word) {
            Some(bits) => bits.load(Ordering::Acquire) & bit != 0,
            None => self.unknown,
        }
    }

    /// Puts a channel in.
    pub fn set(&self, channel: ChannelNo) {
        let (word, bit) = place(channel);
        if let Some(bits) = self.read().get(word) {
            bits.fetch_or(bit, Ordering::AcqRel);
            return;
        }
        let mut words = match self.words.write() {
            Ok(words) => words,
            Err(poisoned) => poisoned.into_inner(),
        };
        while words.len() <= word {
            words.push(AtomicU64::new(if self.unknown { u64::MAX } else { 0 }));
        }
        if let Some(bits) = words.get(word) {
            bits.fetch_or(bit, Ordering::AcqRel);
        }
    }

    /// Takes a channel out; says whether it was in.
    pub fn clear(&self, channel: ChannelNo) -> bool {
        let (word, bit) = place(channel);
        if let Some(bits) = self.read().get(word) {
            return bits.fetch_and(!bit, Ordering::AcqRel) & bit != 0;
        }
        if self.unknown {
            self.set(channel);
            return self.clear(channel);
        }
        false
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Vec<AtomicU64>> {
        match self.words.read() {
            Ok(words) => words,
            Err(poisoned) => poisoned.into_inner(),
        }
    }
}

fn place(channel: ChannelNo) -> (usize, u64) {
    ((channel.0 / 64) as usize, 1 << (channel.0 % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_set_of_unknowns_holds_everyone_until_they_are_taken_out() {
        let bits = Bits::new(true);
        assert!(bits.has(ChannelNo(1000)));
        assert!(bits.clear(ChannelNo(1000)));
        assert!(!bits.has(ChannelNo(1000)));
        assert!(bits.has(ChannelNo(999)) && bits.has(ChannelNo(5000)));
        bits.set(ChannelNo(1000));
        assert!(bits.has(ChannelNo(1000)));
    }

    #[test]
    fn an_empty_set_holds_only_what_was_put_in() {
        let bits = Bits::new(false);
        assert!(!bits.has(ChannelNo(3)) && !bits.clear(ChannelNo(3)));
        bits.set(ChannelNo(3));
        assert!(bits.has(ChannelNo(3)) && !bits.has(ChannelNo(4)));
        assert!(bits.clear(ChannelNo(3)) && !bits.has(ChannelNo(3)));
    }
}
