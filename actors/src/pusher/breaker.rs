//! Leaves APNs alone while it is in trouble, and finds out when it no longer is.
//!
//! After many refusals in a row the breaker opens: nothing goes out for a while, then
//! one wake at a time, as a probe. The first answer closes it, and whoever waited is
//! woken. Pure; the topic asks it before each wake and tells it each outcome.

use std::collections::HashSet;

use schema::{ChannelNo, UnixMillis};

/// Closed as long as `open_until` is empty.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// Refusals in a row.
    failures: u32,
    open_until: Option<UnixMillis>,
    /// Under way while the breaker is open.
    probe: Option<ChannelNo>,
    /// Held back, or to be tried again: woken when the breaker closes.
    waiting: HashSet<ChannelNo>,
}

impl Breaker {
    /// May this wake go out? While the breaker is open one may, when the pause is over;
    /// the others are kept.
    pub(super) fn lets(&mut self, channel: ChannelNo, now: UnixMillis) -> bool {
        let Some(until) = self.open_until else {
            return true;
        };
        if until > now || self.probe.is_some() {
            self.waiting.insert(channel);
            return false;
        }
        self.probe = Some(channel);
        true
    }

    /// APNs answered this one. Whom to wake, when that closes the breaker.
    pub(super) fn answered(&mut self, channel: ChannelNo) -> Vec<ChannelNo> {
        self.failures = 0;
        self.waiting.remove(&channel);
        self.probe = None;
        match self.open_until.take() {
            Some(_) => self.waiting.drain().collect(),
            None => Vec::new(),
        }
    }

    /// APNs refused this one for a trouble of its own, and may have named a pause in
    /// seconds. Whether that opens the breaker.
    pub(super) fn refused(
        &mut self,
        channel: ChannelNo,
        now: UnixMillis,
        pause: Option<u64>,
    ) -> bool {
        self.failures = self.failures.saturating_add(1);
        self.waiting.insert(channel);
        let opens = self.open_until.is_none() && self.failures >= OPENS_AT;
        if opens || self.probe_ended(channel) {
            let pause = pause.unwrap_or(0).max(PAUSE_SECONDS);
            self.open_until = Some(now.plus_seconds(pause));
        }
        opens
    }

    /// This one was not answered at all: a lost connection says little, so a further
    /// probe follows soon.
    pub(super) fn unanswered(&mut self, channel: ChannelNo, now: UnixMillis) {
        self.waiting.insert(channel);
        if self.probe_ended(channel) {
            self.open_until = Some(now.plus_seconds(AFTER_LOSS_SECONDS));
        }
    }

    /// Whom to wake as the next probe, once it is time.
    pub(super) fn next_probe(&mut self, now: UnixMillis) -> Option<ChannelNo> {
        let due = self.open_until.is_some_and(|until| until <= now) && self.probe.is_none();
        // Taken out: one that turns out not to be woken must not be asked for ever.
        let channel = *self.waiting.iter().next().filter(|_| due)?;
        self.waiting.remove(&channel);
        Some(channel)
    }

    /// How many are held back.
    pub(super) fn held(&self) -> usize {
        match self.open_until {
            Some(_) => self.waiting.len(),
            None => 0,
        }
    }

    /// Whoever waits, when the topic's certificate is replaced.
    pub(super) fn into_waiting(self) -> impl Iterator<Item = ChannelNo> {
        self.waiting.into_iter()
    }

    fn probe_ended(&mut self, channel: ChannelNo) -> bool {
        let ended = self.probe == Some(channel);
        if ended {
            self.probe = None;
        }
        ended
    }
}

/// Refusals in a row that open it.
const OPENS_AT: u32 = 20;
const PAUSE_SECONDS: u64 = 30;
const AFTER_LOSS_SECONDS: u64 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn opened() -> Breaker {
        let mut breaker = Breaker::default();
        for n in 1..=OPENS_AT {
            assert!(breaker.lets(ChannelNo(n), NOW));
            assert_eq!(breaker.refused(ChannelNo(n), NOW, None), n == OPENS_AT);
        }
        breaker
    }

    #[test]
    fn while_it_is_open_one_probe_at_a_time_goes_out_and_the_first_answer_wakes_all() {
        let mut breaker = opened();
        assert!(!breaker.lets(ChannelNo(100), NOW.plus_seconds(29)));
        assert_eq!(breaker.next_probe(NOW.plus_seconds(29)), None);
        let later = NOW.plus_seconds(30);
        let probe = breaker.next_probe(later).unwrap();
        assert!(breaker.lets(probe, later));
        assert!(!breaker.lets(ChannelNo(101), later), "one probe is enough");
        assert_eq!(breaker.next_probe(later), None);
        assert!(!breaker.refused(probe, later, None));
        assert!(!breaker.lets(probe, later.plus_seconds(29)));
        let later = later.plus_seconds(30);
        let probe = breaker.next_probe(later).unwrap();
        assert!(breaker.lets(probe, later));
        let mut woken = breaker.answered(probe);
        woken.push(probe);
        assert_eq!(woken.len(), 22);
        assert!(breaker.lets(ChannelNo(101), later));
    }

    #[test]
    fn a_probe_without_an_answer_is_followed_soon_and_one_that_cannot_go_by_another() {
        let mut breaker = opened();
        let later = NOW.plus_seconds(30);
        let gone = breaker.next_probe(later).unwrap();
        // The device of the first is no longer there: it is never sent.
        let probe = breaker.next_probe(later).unwrap();
        assert_ne!(gone, probe);
        assert!(breaker.lets(probe, later));
        breaker.unanswered(probe, later);
        assert_eq!(breaker.next_probe(later.plus_seconds(4)), None);
        assert!(breaker.next_probe(later.plus_seconds(5)).is_some());
    }
}
