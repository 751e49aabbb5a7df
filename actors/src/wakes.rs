//! Who is to be woken: the set between the store and the push supervisor.
//!
//! The writer marks a channel after its commit; NotNow and retries mark it for
//! later; a poll clears it before it reads what is pending. One wake a channel,
//! however many commands wait. Nothing here is durable: after a restart the
//! supervisor walks what is open in the store and marks it again.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;

use schema::{ChannelNo, UnixMillis};
use tokio::sync::Notify;

use crate::bits::Bits;

/// How long an accepted wake that was not answered holds back another.
pub const ANSWER_WITHIN_SECONDS: u64 = 600;

/// The wakes to send and those that await their poll.
#[derive(Debug)]
pub struct Wakes {
    inner: Mutex<Inner>,
    known: Bits,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    due: BTreeSet<(UnixMillis, ChannelNo)>,
    at: HashMap<ChannelNo, UnixMillis>,
    accepted: HashMap<ChannelNo, UnixMillis>,
}

impl Default for Wakes {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            known: Bits::new(false),
            changed: Notify::new(),
        }
    }
}

impl Wakes {
    /// Marks channels to be woken now.
    pub fn mark(&self, channels: impl IntoIterator<Item = ChannelNo>, now: UnixMillis) {
        let mut inner = self.lock();
        for channel in channels {
            self.known.set(channel);
            inner.mark(channel, now);
        }
        drop(inner);
        self.changed.notify_one();
    }

    /// Marks a channel to be woken at a time; an earlier mark stays.
    pub fn mark_at(&self, channel: ChannelNo, at: UnixMillis) {
        self.known.set(channel);
        self.lock().mark(channel, at);
        self.changed.notify_one();
    }

    /// The channel polled: what was due or awaited for it is settled.
    pub fn polled(&self, channel: ChannelNo) {
        if !self.known.clear(channel) {
            return;
        }
        let mut inner = self.lock();
        inner.accepted.remove(&channel);
        if let Some(at) = inner.at.remove(&channel) {
            inner.due.remove(&(at, channel));
        }
    }

    /// Takes up to `most` channels that are due; those whose last wake is accepted,
    /// unanswered and young are put off until it is old.
    pub fn take(&self, now: UnixMillis, most: usize) -> Vec<ChannelNo> {
        let mut taken = Vec::new();
        let mut inner = self.lock();
        while taken.len() < most {
            let Some(&(at, channel)) = inner.due.first().filter(|(at, _)| *at <= now) else {
                break;
            };
            inner.due.remove(&(at, channel));
            inner.at.remove(&channel);
            let young = inner
                .accepted
                .get(&channel)
                .map(|accepted| accepted.plus_seconds(ANSWER_WITHIN_SECONDS))
                .filter(|until| *until > now);
            match young {
                Some(until) => inner.mark(channel, until),
                None => taken.push(channel),
            }
        }
        taken
    }

    /// A wake of this channel is on its way or taken: it has its time to be answered.
    pub fn accepted(&self, channel: ChannelNo, now: UnixMillis) {
        self.known.set(channel);
        self.lock().accepted.insert(channel, now);
    }

    /// Lets a channel be woken again although its last wake is young.
    pub fn forget_accepted(&self, channel: ChannelNo) {
        self.lock().accepted.remove(&channel);
    }

    /// When the next wake is due.
    #[must_use]
    pub fn next_due(&self) -> Option<UnixMillis> {
        self.lock().due.first().map(|(at, _)| *at)
    }

    /// How many wakes are marked.
    #[must_use]
    pub fn marked(&self) -> usize {
        self.lock().due.len()
    }

    /// Waits until something is marked.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        match self.inner.lock() {
            Ok(inner) => inner,
            Err(poisoned) => poisoned.into_inner(),
        }
    }
}

impl Inner {
    fn mark(&mut self, channel: ChannelNo, at: UnixMillis) {
        match self.at.get(&channel) {
            Some(earlier) if *earlier <= at => {}
            previous => {
                if let Some(later) = previous.copied() {
                    self.due.remove(&(later, channel));
                }
                self.at.insert(channel, at);
                self.due.insert((at, channel));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_000_000);

    #[test]
    fn however_many_commands_wait_a_channel_is_woken_once() {
        let wakes = Wakes::default();
        wakes.mark([ChannelNo(1), ChannelNo(2)], NOW);
        wakes.mark([ChannelNo(1)], NOW);
        assert_eq!(wakes.take(NOW, 10), [ChannelNo(1), ChannelNo(2)]);
        assert!(wakes.take(NOW, 10).is_empty());
    }

    #[test]
    fn an_accepted_wake_holds_back_another_until_it_is_answered_or_old() {
        let wakes = Wakes::default();
        wakes.accepted(ChannelNo(1), NOW);
        wakes.mark([ChannelNo(1)], NOW);
        assert!(wakes.take(NOW, 10).is_empty());
        assert_eq!(
            wakes.next_due(),
            Some(NOW.plus_seconds(ANSWER_WITHIN_SECONDS))
        );
        assert_eq!(
            wakes.take(NOW.plus_seconds(ANSWER_WITHIN_SECONDS), 10),
            [ChannelNo(1)]
        );
        wakes.accepted(ChannelNo(1), NOW);
        wakes.polled(ChannelNo(1));
        wakes.mark([ChannelNo(1)], NOW);
        assert_eq!(wakes.take(NOW, 10), [ChannelNo(1)]);
    }

    #[test]
    fn a_poll_settles_what_was_due_and_an_earlier_mark_wins() {
        let wakes = Wakes::default();
        wakes.mark_at(ChannelNo(1), NOW.plus_seconds(300));
        wakes.mark([ChannelNo(1)], NOW);
        assert_eq!(wakes.next_due(), Some(NOW));
        wakes.polled(ChannelNo(1));
        assert_eq!(wakes.next_due(), None);
        assert_eq!(wakes.marked(), 0);
    }
}
