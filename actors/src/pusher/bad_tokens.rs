//! Tokens APNs calls bad, held until it is clear whose fault they are.
//!
//! A wrong host or certificate makes every token bad, and must not mark a fleet dead.
//! So a token is believed to be bad only when it stays an exception for a minute, and
//! when APNs took another one under the same certificate since.

use std::collections::VecDeque;

use schema::{ChannelNo, PushToken, UnixMillis};

/// What a topic sent within the last minute, and what of it was called bad.
#[derive(Debug, Default)]
pub(super) struct BadTokens {
    sent: VecDeque<UnixMillis>,
    taken: Option<UnixMillis>,
    bad: VecDeque<(UnixMillis, ChannelNo, PushToken)>,
}

/// The tokens whose time is over.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Judged {
    /// Exceptions: they are dead.
    pub(super) dead: Vec<(ChannelNo, PushToken)>,
    /// Nothing else was taken since either: to be tried again.
    pub(super) unclear: Vec<ChannelNo>,
}

impl BadTokens {
    /// A wake goes out.
    pub(super) fn sent(&mut self, now: UnixMillis) {
        self.sent.push_back(now);
        let minute_ago = now.minus_seconds(60);
        while self.sent.front().is_some_and(|at| *at < minute_ago) {
            self.sent.pop_front();
        }
    }

    /// APNs took a token.
    pub(super) fn taken(&mut self, now: UnixMillis) {
        self.taken = Some(now);
    }

    /// APNs called a token bad. All there are, when they are too many to be exceptions.
    pub(super) fn note(
        &mut self,
        channel: ChannelNo,
        token: PushToken,
        now: UnixMillis,
    ) -> Vec<ChannelNo> {
        self.bad.push_back((now, channel, token));
        let share = self.bad.len() * 100 / self.sent.len().max(1);
        if self.bad.len() >= BAD_AT_LEAST && share > BAD_PERCENT {
            return self.take();
        }
        Vec::new()
    }

    /// Takes all out, unjudged.
    pub(super) fn take(&mut self) -> Vec<ChannelNo> {
        self.bad.drain(..).map(|(_, channel, _)| channel).collect()
    }

    /// Takes out those whose time is over.
    pub(super) fn judge(&mut self, now: UnixMillis) -> Judged {
        let mut judged = Judged::default();
        let long_ago = now.minus_seconds(JUDGED_AFTER_SECONDS);
        while self.bad.front().is_some_and(|(at, ..)| *at < long_ago) {
            let Some((at, channel, token)) = self.bad.pop_front() else {
                break;
            };
            if self.taken.is_some_and(|taken| taken >= at) {
                judged.dead.push((channel, token));
            } else {
                judged.unclear.push(channel);
            }
        }
        judged
    }
}

/// A little under a minute, so that whoever is tried again is woken within one.
const JUDGED_AFTER_SECONDS: u64 = 50;
const BAD_AT_LEAST: usize = 10;
const BAD_PERCENT: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn token() -> PushToken {
        PushToken(vec![1])
    }

    #[test]
    fn an_exception_is_dead_after_a_minute_in_which_another_token_was_taken() {
        let mut tokens = BadTokens::default();
        tokens.sent(NOW);
        tokens.taken(NOW);
        assert!(tokens.note(ChannelNo(1), token(), NOW).is_empty());
        assert_eq!(tokens.judge(NOW.plus_seconds(50)), Judged::default());
        let judged = tokens.judge(NOW.plus_seconds(61));
        assert_eq!(judged.dead, [(ChannelNo(1), token())]);
    }

    #[test]
    fn a_small_fleet_of_which_none_is_taken_is_not_dead_but_tried_again() {
        let mut tokens = BadTokens::default();
        tokens.taken(NOW.minus_seconds(1));
        for n in 0..5 {
            tokens.sent(NOW);
            assert!(tokens.note(ChannelNo(n), token(), NOW).is_empty());
        }
        let judged = tokens.judge(NOW.plus_seconds(61));
        assert_eq!((judged.dead.len(), judged.unclear.len()), (0, 5));
    }

    #[test]
    fn too_many_at_once_are_no_exceptions() {
        let mut tokens = BadTokens::default();
        for _ in 0..190 {
            tokens.sent(NOW);
        }
        tokens.taken(NOW);
        for n in 0..11 {
            let all = tokens.note(ChannelNo(n), token(), NOW);
            // From 6 % of them on.
            assert_eq!(all.len(), 0, "{n}");
        }
        let all = tokens.note(ChannelNo(11), token(), NOW);
        assert_eq!(all.len(), 12);
        assert_eq!(tokens.judge(NOW.plus_seconds(61)), Judged::default());
    }
}
