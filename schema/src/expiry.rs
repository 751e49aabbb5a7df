//! When a certificate's end deserves a word: 60, 30, 14, 7 and 1 days before it.
//!
//! Certificates whose end stops the service are watched: for each, the closest
//! threshold it has passed, and whether that is news. One that is renewed by itself is
//! told of only when that is late. Asked by housekeeping (logs), metrics and readiness;
//! knows neither where certificates come from nor how they are read.

use crate::UnixMillis;

/// Days before the end at which a warning is due, far to near.
pub const THRESHOLDS: [u16; 5] = [60, 30, 14, 7, 1];

/// What a watched certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// APNs takes our wakes; the name is the topic.
    Push,
    /// Devices' identities chain to it.
    DeviceCa,
    /// The device listener's own.
    Tls,
    /// Devices trust the listener's certificate because of it.
    TlsRoot,
    /// SCEP answers are signed with it.
    Ra,
    /// Profiles are signed with it.
    ProfileSigner,
}

impl Purpose {
    /// The word for it in metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::DeviceCa => "device_ca",
            Self::Tls => "tls",
            Self::TlsRoot => "tls_root",
            Self::Ra => "ra",
            Self::ProfileSigner => "profile_signer",
        }
    }

    /// What to do about its end.
    #[must_use]
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Push => "renew it with the same Apple Account, then: reveille push-cert renew",
            Self::DeviceCa => {
                "no identity it issues outlives it and none is issued after it: plan a new \
                 device CA; every device must enroll again under it"
            }
            Self::Tls => "put a new one in place, or look in the log why it was not renewed",
            Self::TlsRoot => {
                "devices then no longer connect: move to a certificate they trust anyway \
                 (device.tls = \"acme\" or \"files\") before it"
            }
            Self::Ra => {
                "devices then get no identity; it is renewed by itself, so look in the log \
                 why it was not"
            }
            Self::ProfileSigner => {
                "profiles then show as not verified, and those of a new signer replace none \
                 that devices have: plan to enroll them again"
            }
        }
    }
}

impl std::fmt::Display for Purpose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Push => "push certificate",
            Self::DeviceCa => "device CA certificate",
            Self::Tls => "TLS certificate",
            Self::TlsRoot => "TLS root certificate",
            Self::Ra => "SCEP RA certificate",
            Self::ProfileSigner => "profile signing certificate",
        })
    }
}

/// How close the end is. The closer, the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Closeness {
    /// This many thresholds are passed: 1 for 60 days, 5 for the last day.
    Passed(u8),
    /// It is over.
    Expired,
}

/// Which threshold a certificate has passed at `now`; none while its end is far.
#[must_use]
pub fn closeness(not_after: i64, now: UnixMillis) -> Option<Closeness> {
    let left = seconds_left(not_after, now);
    if left < 0 {
        return Some(Closeness::Expired);
    }
    let passed = THRESHOLDS
        .iter()
        .filter(|days| left <= i64::from(**days) * DAY)
        .count();
    match u8::try_from(passed) {
        Ok(passed @ 1..) => Some(Closeness::Passed(passed)),
        _ => None,
    }
}

/// The same for a certificate that is renewed by itself when a third of its life is left:
/// none before less than a quarter is left, when that is late.
#[must_use]
pub fn closeness_if_late(not_before: i64, not_after: i64, now: UnixMillis) -> Option<Closeness> {
    let life = not_after.saturating_sub(not_before);
    let late = seconds_left(not_after, now) < life / 4;
    closeness(not_after, now).filter(|_| late)
}

/// Whether the closeness `is` is to be told after `told`: each threshold once.
#[must_use]
pub fn is_news(told: Option<Closeness>, is: Option<Closeness>) -> bool {
    is > told
}

/// Whole days until the end (`not_after` in Unix seconds); negative once it is over.
#[must_use]
pub fn days_left(not_after: i64, now: UnixMillis) -> i64 {
    seconds_left(not_after, now).div_euclid(DAY)
}

/// How the end is told to people: `expires in 13 days`.
#[must_use]
pub fn told(not_after: i64, now: UnixMillis) -> String {
    match days_left(not_after, now) {
        ..0 => "has expired".to_owned(),
        0 => "expires within a day".to_owned(),
        1 => "expires in 1 day".to_owned(),
        days => format!("expires in {days} days"),
    }
}

fn seconds_left(not_after: i64, now: UnixMillis) -> i64 {
    not_after.saturating_sub(i64::try_from(now.seconds()).unwrap_or(i64::MAX))
}

const DAY: i64 = 24 * 3600;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn end(seconds: i64) -> i64 {
        1_800_000_000 + seconds
    }

    #[test]
    fn each_threshold_begins_on_its_second() {
        let cases = [
            (400 * DAY, None, 400, "expires in 400 days"),
            (60 * DAY + 1, None, 60, "expires in 60 days"),
            (
                60 * DAY,
                Some(Closeness::Passed(1)),
                60,
                "expires in 60 days",
            ),
            (
                30 * DAY + 1,
                Some(Closeness::Passed(1)),
                30,
                "expires in 30 days",
            ),
            (
                30 * DAY,
                Some(Closeness::Passed(2)),
                30,
                "expires in 30 days",
            ),
            (
                14 * DAY,
                Some(Closeness::Passed(3)),
                14,
                "expires in 14 days",
            ),
            (7 * DAY, Some(Closeness::Passed(4)), 7, "expires in 7 days"),
            (
                2 * DAY - 1,
                Some(Closeness::Passed(4)),
                1,
                "expires in 1 day",
            ),
            (DAY, Some(Closeness::Passed(5)), 1, "expires in 1 day"),
            (
                DAY - 1,
                Some(Closeness::Passed(5)),
                0,
                "expires within a day",
            ),
            (0, Some(Closeness::Passed(5)), 0, "expires within a day"),
            (-1, Some(Closeness::Expired), -1, "has expired"),
            (-3 * DAY, Some(Closeness::Expired), -3, "has expired"),
        ];
        for (seconds, expected, days, words) in cases {
            assert_eq!(closeness(end(seconds), NOW), expected, "{seconds}");
            assert_eq!(days_left(end(seconds), NOW), days, "{seconds}");
            assert_eq!(told(end(seconds), NOW), words, "{seconds}");
        }
    }

    #[test]
    fn a_threshold_is_news_once_and_a_renewal_starts_over() {
        let days = [90, 60, 59, 30, 14, 7, 6, 1, 0, -1, -2, 365, 60];
        let mut told = None;
        let news: Vec<_> = days
            .into_iter()
            .filter(|days| {
                let is = closeness(end(days * DAY), NOW);
                let news = is_news(told, is);
                told = is;
                news
            })
            .collect();
        assert_eq!(news, [60, 30, 14, 7, 1, -1, 60]);
    }

    #[test]
    fn a_server_that_was_away_tells_only_the_closest_threshold() {
        let is = closeness(end(5 * DAY), NOW);
        assert!(is_news(None, is));
        assert!(!is_news(is, closeness(end(4 * DAY), NOW)));
    }

    #[test]
    fn one_that_is_renewed_by_itself_is_told_of_when_that_is_late() {
        let late = |life, left| closeness_if_late(end((left - life) * DAY), end(left * DAY), NOW);
        let cases = [
            (90, 60, None),
            (90, 30, None),
            (90, 23, None),
            (90, 22, Some(Closeness::Passed(2))),
            (90, 1, Some(Closeness::Passed(5))),
            (90, -1, Some(Closeness::Expired)),
            (397, 61, None),
            (397, 60, Some(Closeness::Passed(1))),
            (6, 2, None),
            (6, 1, Some(Closeness::Passed(5))),
        ];
        for (life, left, expected) in cases {
            assert_eq!(late(life, left), expected, "{left} of {life}");
        }
    }

    #[test]
    fn extreme_times_do_not_overflow() {
        assert_eq!(
            closeness_if_late(i64::MIN, i64::MAX, UnixMillis(u64::MAX)),
            None
        );
        assert_eq!(closeness(i64::MAX, UnixMillis(0)), None);
        assert_eq!(
            closeness(i64::MIN, UnixMillis(u64::MAX)),
            Some(Closeness::Expired)
        );
    }
}
