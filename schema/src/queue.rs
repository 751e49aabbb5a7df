//! What to hand out next: order, urgency, NotNow, re-offer, expiry. Pure.
//!
//! The device actor asks; the store says what waits. FIFO holds among the
//! commands that may be handed out now.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::ids::Seq;
use crate::time::UnixMillis;

/// The state of one command on one channel, as a person sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum State {
    /// Of a wave not yet released.
    Pending = 0,
    /// May be handed out.
    Released = 1,
    /// The device was woken for it.
    Pushed = 2,
    /// Handed out, no report yet.
    Sent = 3,
    /// Postponed by the device.
    NotNow = 4,
    /// Done.
    Acknowledged = 5,
    /// Failed.
    Error = 6,
    /// Not understood by the device.
    FormatError = 7,
    /// Not allowed on this device.
    Rejected = 8,
    /// Too old to be handed out.
    Expired = 9,
    /// Taken back, or ended by a re-enrollment or check-out.
    Cancelled = 10,
}

impl State {
    /// All states, in the order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::Pending,
        Self::Released,
        Self::Pushed,
        Self::Sent,
        Self::NotNow,
        Self::Acknowledged,
        Self::Error,
        Self::FormatError,
        Self::Rejected,
        Self::Expired,
        Self::Cancelled,
    ];

    /// The state with this number, as the store's dense chunks hold it.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// The name in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Released => "released",
            Self::Pushed => "pushed",
            Self::Sent => "sent",
            Self::NotNow => "not_now",
            Self::Acknowledged => "acknowledged",
            Self::Error => "error",
            Self::FormatError => "format_error",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }

    /// Still waits for the device.
    #[must_use]
    pub const fn is_open(self) -> bool {
        (self as u8) < Self::Acknowledged as u8
    }

    /// The device itself had the last word; no later report changes it.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Acknowledged | Self::Error | Self::FormatError)
    }

    /// May be handed out, apart from skips, barriers and expiry.
    #[must_use]
    pub const fn is_deliverable(self) -> bool {
        self.is_open() && !matches!(self, Self::Pending)
    }
}

/// One open command of a channel, as the queue rule sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Its place in the order of all commands.
    pub seq: Seq,
    /// Lower goes first; see [`rank`].
    pub rank: u8,
    /// Where it stands.
    pub state: State,
    /// How often it was handed out without a report.
    pub attempts: u8,
    /// From then on it is not handed out.
    pub expires: UnixMillis,
    /// Nothing later is offered while it is open.
    pub barrier: bool,
}

/// The commands not to be offered again in the running session.
pub type Skip = SmallVec<[Seq; 4]>;

/// Hand-outs without a report after which a command steps behind the others.
pub const STUCK_AFTER: u8 = 5;

/// Ranks a command: urgent ones (erase, lock, lost mode) before all others, then by
/// the priority the admin gave, -100 (last) to 100 (first).
#[must_use]
pub fn rank(urgent: bool, priority: i8) -> u8 {
    if urgent {
        return 0;
    }
    let behind = 128 - i16::from(priority.clamp(-100, 100));
    u8::try_from(behind).unwrap_or(u8::MAX)
}

/// The command to hand out now, if any. `waiting` needs no order.
#[must_use]
pub fn next<'w>(waiting: &'w [Waiting], skip: &Skip, now: UnixMillis) -> Option<&'w Waiting> {
    let open = || {
        waiting
            .iter()
            .filter(|w| w.state.is_open() && w.expires > now)
    };
    let barrier = open().filter(|w| w.barrier).map(|w| w.seq).min();
    open()
        .filter(|w| w.state.is_deliverable() && !skip.contains(&w.seq))
        .filter(|w| w.rank == 0 || barrier.is_none_or(|barrier| w.seq <= barrier))
        .min_by_key(|w| (w.attempts >= STUCK_AFTER, w.rank, w.seq))
}

/// How long to wait after the n-th NotNow (counted from 1) before waking the device
/// again, in seconds: five minutes, doubling to a day.
#[must_use]
pub fn not_now_backoff(tally: u8) -> u64 {
    let doublings = u32::from(tally.saturating_sub(1)).min(16);
    (300_u64 << doublings).min(86_400)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_000_000);

    fn waiting(seq: u64) -> Waiting {
        Waiting {
            seq: Seq(seq),
            rank: rank(false, 0),
            state: State::Released,
            attempts: 0,
            expires: UnixMillis(2_000_000),
            barrier: false,
        }
    }

    fn chosen(waiting: &[Waiting], skip: &[u64]) -> Option<u64> {
        let skip: Skip = skip.iter().copied().map(Seq).collect();
        next(waiting, &skip, NOW).map(|w| w.seq.0)
    }

    #[test]
    fn commands_go_out_first_in_first_out() {
        assert_eq!(chosen(&[waiting(3), waiting(1), waiting(2)], &[]), Some(1));
    }

    #[test]
    fn an_urgent_command_and_a_higher_priority_go_first() {
        let lock = Waiting {
            rank: rank(true, -100),
            ..waiting(9)
        };
        let soon = Waiting {
            rank: rank(false, 5),
            ..waiting(5)
        };
        assert_eq!(chosen(&[waiting(1), soon.clone(), lock], &[]), Some(9));
        assert_eq!(chosen(&[waiting(1), soon], &[]), Some(5));
    }

    #[test]
    fn not_now_is_skipped_in_its_session_and_due_again_in_the_next() {
        let postponed = Waiting {
            state: State::NotNow,
            ..waiting(1)
        };
        assert_eq!(chosen(&[postponed.clone(), waiting(2)], &[1]), Some(2));
        assert_eq!(chosen(std::slice::from_ref(&postponed), &[1]), None);
        assert_eq!(chosen(&[postponed, waiting(2)], &[]), Some(1));
    }

    #[test]
    fn a_command_handed_out_but_not_reported_is_handed_out_again() {
        let sent = Waiting {
            state: State::Sent,
            attempts: 1,
            ..waiting(1)
        };
        assert_eq!(chosen(&[sent, waiting(2)], &[]), Some(1));
    }

    #[test]
    fn a_stuck_command_steps_behind_the_others() {
        let stuck = Waiting {
            state: State::Sent,
            attempts: STUCK_AFTER,
            ..waiting(1)
        };
        assert_eq!(chosen(&[stuck.clone(), waiting(2)], &[]), Some(2));
        assert_eq!(chosen(&[stuck], &[]), Some(1));
    }

    #[test]
    fn a_barrier_holds_what_comes_later_but_not_what_is_urgent() {
        let barrier = Waiting {
            barrier: true,
            state: State::NotNow,
            ..waiting(2)
        };
        assert_eq!(chosen(&[barrier.clone(), waiting(3)], &[2]), None);
        assert_eq!(
            chosen(&[waiting(1), barrier.clone(), waiting(3)], &[2]),
            Some(1)
        );
        let erase = Waiting {
            rank: 0,
            ..waiting(4)
        };
        assert_eq!(chosen(&[barrier, erase], &[2]), Some(4));
    }

    #[test]
    fn expired_closed_and_unreleased_commands_stay() {
        let expired = Waiting {
            expires: NOW,
            ..waiting(1)
        };
        let closed = Waiting {
            state: State::Cancelled,
            ..waiting(2)
        };
        let unreleased = Waiting {
            state: State::Pending,
            ..waiting(3)
        };
        assert_eq!(chosen(&[expired, closed, unreleased], &[]), None);
    }

    #[test]
    fn not_now_backs_off_from_five_minutes_to_a_day() {
        assert_eq!(
            [1, 2, 3, 9, 10, 255].map(not_now_backoff),
            [300, 600, 1200, 76_800, 86_400, 86_400]
        );
    }

    proptest! {
        #[test]
        fn what_is_chosen_is_open_due_and_not_skipped(
            states in proptest::collection::vec((0_u8..11, 0_u8..7, any::<bool>()), 0..12),
            skipped in proptest::collection::vec(0_u64..12, 0..4),
        ) {
            let waiting: Vec<_> = states.iter().zip(0_u64..).map(|(&(state, attempts, barrier), seq)| Waiting {
                state: State::from_number(state).unwrap(), attempts, barrier, ..waiting(seq)
            }).collect();
            if let Some(seq) = chosen(&waiting, &skipped) {
                let found = &waiting[seq as usize];
                prop_assert!(found.state.is_deliverable());
                prop_assert!(!skipped.contains(&seq));
            }
        }
    }
}
