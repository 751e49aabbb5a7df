//! How often one enrollment link is served: its own allowance at each door.
//!
//! A link that is passed around must not take the server from the devices that are
//! enrolled. Addresses are not counted (a school sits behind one), and bound devices are
//! not limited at all. Called by the doors that strangers may knock at.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock as _;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use schema::link::LinkId;

/// The allowances of all links at one door.
#[derive(Debug)]
pub struct LinkLimits {
    limiter: Option<DefaultKeyedRateLimiter<Option<LinkId>>>,
}

/// It was served too often for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this enrollment link is used too often: try again in {} s", .0.as_secs())]
pub struct TooOften(pub Duration);

impl LinkLimits {
    /// So many requests a second for each link, and a burst of `BURST_SECONDS` of it;
    /// none when 0.
    #[must_use]
    pub fn new(per_second: u32) -> Self {
        let quota = NonZeroU32::new(per_second).map(|rate| {
            let burst = rate.saturating_mul(BURST_SECONDS);
            Quota::per_second(rate).allow_burst(burst)
        });
        Self {
            limiter: quota.map(RateLimiter::keyed),
        }
    }

    /// Takes a request for a link; those that name none share one allowance. Only links
    /// that exist are to be asked for: each one takes memory here.
    ///
    /// # Errors
    /// [`TooOften`]: how long to wait, in whole seconds.
    pub fn admit(&self, link: Option<&LinkId>) -> Result<(), TooOften> {
        let Some(limiter) = &self.limiter else {
            return Ok(());
        };
        limiter.check_key(&link.cloned()).map_err(|not_until| {
            let wait = not_until.wait_time_from(limiter.clock().now());
            TooOften(Duration::from_secs(wait.as_secs() + 1))
        })
    }
}

/// What a link may take at once after a rest, in seconds of its rate.
const BURST_SECONDS: NonZeroU32 = NonZeroU32::MIN.saturating_add(4);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_link_has_an_allowance_of_its_own_and_those_without_share_one() {
        let limits = LinkLimits::new(1);
        let (a, b) = (LinkId("a".into()), LinkId("b".into()));
        for link in [Some(&a), Some(&b), None] {
            let taken = (0..20).take_while(|_| limits.admit(link).is_ok());
            assert_eq!(taken.count(), 5, "{link:?}");
        }
        let wait = limits.admit(Some(&a)).unwrap_err();
        assert_eq!(wait, TooOften(Duration::from_secs(1)));
    }

    #[test]
    fn without_a_rate_nothing_is_limited() {
        let limits = LinkLimits::new(0);
        assert!((0..10_000).all(|_| limits.admit(None).is_ok()));
    }
}
