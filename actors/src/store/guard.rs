//! The guard over destructive commands: how many devices they may reach in a window.
//!
//! Counted at enqueue and again at delivery, server-wide, kept over restarts in a
//! table of its own. Writer-private; the rule is a count of distinct devices.

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
    events: VecDeque<(UnixMillis, ChannelNo, u8, Seq)>,
}

impl Guard {
    pub(super) fn load(
        transaction: &WriteTransaction,
        limits: GuardLimits,
    ) -> Result<Self, StoreError> {
        let mut events = VecDeque::new();
        for row in transaction.open_table(GUARD)?.iter()? {
            let (key, seq) = row?;
            let (at, channel, moment) = key.value();
            events.push_back((UnixMillis(at), ChannelNo(channel), moment, Seq(seq.value())));
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
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let mut table = transaction.open_table(GUARD)?;
        let since = now.minus_seconds(self.limits.window_minutes * 60);
        while let Some((at, channel, moment, _)) =
            self.events.front().copied().filter(|e| e.0 < since)
        {
            table.remove((at.0, channel.0, moment))?;
            self.events.pop_front();
        }
        let of_moment = || self.events.iter().filter(|event| event.2 == moment as u8);
        let counted: HashSet<(ChannelNo, Seq)> = of_moment().map(|e| (e.1, e.3)).collect();
        if channels
            .iter()
            .all(|channel| counted.contains(&(*channel, seq)))
        {
            return Ok(());
        }
        let devices: HashSet<ChannelNo> = of_moment()
            .map(|e| e.1)
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
            self.events.push_back((at, *channel, moment as u8, seq));
        }
        Ok(())
    }
}
