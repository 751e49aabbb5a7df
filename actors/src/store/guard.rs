//! The guard over destructive commands: how many devices they may reach in a window.
//!
//! Counted at enqueue and again at delivery, server-wide, kept over restarts in a
//! table of its own. The window is measured by the time that passes, so that setting a
//! clock opens nothing; what an earlier process counted counts for a window from the start. Writer-private; the rule is a count of distinct devices.

use std::collections::{HashSet, VecDeque};

use redb::{ReadableTable, WriteTransaction};
use schema::{ChannelNo, Seq, UnixMillis};

use super::StoreError;
use super::tables::GUARD;

/// When destructive commands are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Moment {
    Enqueued = 0,
    HandedOut = 1,
}

/// Limits of the guard.
#[derive(Clone, Copy, Debug)]
pub struct GuardLimits {
    /// Distinct devices destructive commands may reach in the window.
    pub max_devices: usize,
    /// Length of the window in minutes.
    pub window_minutes: u64,
}

impl Default for GuardLimits {
    fn default() -> Self {
        Self {
            max_devices: 10,
            window_minutes: 20,
        }
    }
}

/// What was counted in the running window.
#[derive(Debug)]
pub(super) struct Guard {
    limits: GuardLimits,
    events: VecDeque<Event>,
}

/// A device a destructive command reached.
#[derive(Clone, Copy, Debug)]
struct Event {
    /// In its key.
    at: UnixMillis,
    channel: ChannelNo,
    moment: u8,
    seq: Seq,
    /// When, by the time that passes.
    passed: u64,
}

impl Guard {
    pub(super) fn load(
        transaction: &WriteTransaction,
        limits: GuardLimits,
        passed: u64,
    ) -> Result<Self, StoreError> {
        let mut events = VecDeque::new();
        for row in transaction.open_table(GUARD)?.iter()? {
            let (key, seq) = row?;
            let (at, channel, moment) = key.value();
            events.push_back(Event {
                at: UnixMillis(at),
                channel: ChannelNo(channel),
                moment,
                seq: Seq(seq.value()),
                passed,
            });
        }
        Ok(Self { limits, events })
    }

    /// Counts these devices in, or refuses and counts nothing.
    pub(super) fn admit(
        &mut self,
        transaction: &WriteTransaction,
        moment: Moment,
        channels: &[ChannelNo],
        seq: Seq,
        (now, passed): (UnixMillis, u64),
    ) -> Result<(), StoreError> {
        let mut table = transaction.open_table(GUARD)?;
        let since = passed.saturating_sub(self.limits.window_minutes * 60_000);
        while let Some(old) = self.events.front().copied().filter(|e| e.passed < since) {
            table.remove((old.at.0, old.channel.0, old.moment))?;
            self.events.pop_front();
        }
        let of_moment = || self.events.iter().filter(|e| e.moment == moment as u8);
        let counted: HashSet<(ChannelNo, Seq)> = of_moment().map(|e| (e.channel, e.seq)).collect();
        if channels
            .iter()
            .all(|channel| counted.contains(&(*channel, seq)))
        {
            return Ok(());
        }
        let devices: HashSet<ChannelNo> = of_moment()
            .map(|e| e.channel)
            .chain(channels.iter().copied())
            .collect();
        if devices.len() > self.limits.max_devices {
            return Err(StoreError::Guard {
                reached: devices.len(),
                limit: self.limits.max_devices,
                minutes: self.limits.window_minutes,
            });
        }
        for channel in channels {
            let mut at = now;
            while table.get((at.0, channel.0, moment as u8))?.is_some() {
                at.0 += 1;
            }
            table.insert((at.0, channel.0, moment as u8), seq.0)?;
            self.events.push_back(Event {
                at,
                channel: *channel,
                moment: moment as u8,
                seq,
                passed,
            });
        }
        Ok(())
    }
}
