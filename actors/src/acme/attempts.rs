//! When to ask the CA again after it was asked in vain.
//!
//! Remembered over restarts, and an attempt counts as failed until it has succeeded: a
//! server that dies in the middle of one, and is started again and again, does not run
//! into the CA's limits. Let's Encrypt takes five failures an hour for a name.

use schema::UnixMillis;
use serde::{Deserialize, Serialize};

use crate::tls::seconds;

/// What is known of the attempts since the last success.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Attempts {
    /// How many failed, one after the other.
    pub(super) failures: u32,
    /// When the last one began, in Unix seconds.
    pub(super) began: i64,
    /// Seconds from there to the next, by our own rule.
    pub(super) wait: i64,
    /// Seconds from there to the next at the least, as the CA asked.
    pub(super) asked: i64,
    /// What became of the last.
    pub(super) why: String,
}

impl Attempts {
    /// Whether another may be made. `hurry` cuts our own waiting short, not what the CA
    /// asked for.
    pub(super) fn may_begin(&self, now: UnixMillis, hurry: bool) -> bool {
        let wait = if hurry {
            self.asked
        } else {
            self.wait.max(self.asked)
        };
        let since = seconds(now).saturating_sub(self.began);
        // A clock that was set back must not make us wait for a day that was never meant.
        self.failures == 0 || since >= wait || since < 0
    }

    /// One more begins, and has failed until it is known to have not. `spread` is
    /// anything, so that those who fail together do not come again together.
    pub(super) fn begin(&mut self, now: UnixMillis, spread: u8) {
        let rung = usize::try_from(self.failures).unwrap_or(usize::MAX);
        let wait = LADDER.get(rung).copied().unwrap_or(LONGEST);
        self.failures = self.failures.saturating_add(1);
        self.began = seconds(now);
        self.wait = wait + wait * i64::from(spread) / 1024;
        self.asked = 0;
        "it was cut off in the middle".clone_into(&mut self.why);
    }

    /// The one that began is over, in vain.
    pub(super) fn failed(&mut self, why: String, asked: u64) {
        self.why = why;
        self.asked = i64::try_from(asked).unwrap_or(i64::MAX).min(LONGEST_ASKED);
    }

    /// Seconds until the next, counted from the beginning of the last.
    pub(super) fn wait(&self) -> i64 {
        self.wait.max(self.asked)
    }
}

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const LADDER: [i64; 5] = [MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, 3 * HOUR];
const LONGEST: i64 = 6 * HOUR;
/// Limits are counted by the week; more than that is no honest wish.
const LONGEST_ASKED: i64 = 8 * 24 * HOUR;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn later(seconds: i64) -> UnixMillis {
        NOW.plus_seconds(u64::try_from(seconds).unwrap())
    }

    #[test]
    fn each_failure_makes_the_next_wait_longer_up_to_six_hours() {
        let mut attempts = Attempts::default();
        assert!(attempts.may_begin(NOW, false));
        let mut now = NOW;
        let mut waits = Vec::new();
        for _ in 0..8 {
            attempts.begin(now, 0);
            let wait = attempts.wait();
            assert!(
                !attempts.may_begin(now, false),
                "a crash counts as a failure"
            );
            attempts.failed("no".into(), 0);
            let end = now.plus_seconds(u64::try_from(wait).unwrap());
            assert!(!attempts.may_begin(UnixMillis(end.0 - 1000), false));
            assert!(attempts.may_begin(end, false));
            waits.push(wait / MINUTE);
            now = end;
        }
        assert_eq!(waits, [1, 5, 15, 60, 180, 360, 360, 360]);
        assert_eq!(attempts.failures, 8);
    }

    #[test]
    fn five_attempts_never_fall_into_one_hour() {
        let first: i64 = LADDER[..4].iter().sum();
        assert!(first > HOUR);
    }

    #[test]
    fn waits_are_spread_by_up_to_a_quarter() {
        let waits = [0, 128, 255].map(|spread| {
            let mut attempts = Attempts::default();
            attempts.begin(NOW, spread);
            attempts.wait()
        });
        assert_eq!(waits, [60, 67, 74]);
    }

    #[test]
    fn what_the_ca_asked_for_is_waited_for_even_in_a_hurry() {
        let mut attempts = Attempts::default();
        attempts.begin(NOW, 0);
        assert!(
            attempts.may_begin(later(1), true),
            "a hurry cuts our own wait"
        );
        attempts.failed("rate limited".into(), 7200);
        assert!(!attempts.may_begin(later(7199), true));
        assert!(!attempts.may_begin(later(7199), false));
        assert!(attempts.may_begin(later(7200), false));
        attempts.failed("absurd".into(), u64::MAX);
        assert!(attempts.may_begin(later(8 * 24 * HOUR), false));
    }

    #[test]
    fn a_clock_set_back_does_not_stretch_the_wait() {
        let mut attempts = Attempts::default();
        attempts.begin(NOW, 0);
        assert!(attempts.may_begin(UnixMillis(NOW.0 - 2_000), false));
    }
}
