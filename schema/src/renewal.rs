//! When a device's identity is renewed, and when again if that came to nothing. Pure.
//!
//! A renewal begins early enough that what devices make of it (NotNow, errors, months in
//! a drawer) is over before half of the identity's life is. It is sending the enrollment
//! profile again; whether that can be made again is for [`renewable`] to say.

use plist::{Dictionary, Value};

use crate::checkin::Push;
use crate::enrollment::{EnrolledWith, Enrollment};
use crate::ids::CommandUuid;
use crate::profile::profile_identifier;
use crate::time::UnixMillis;
use crate::xml;

/// Whether an identity (its validity in Unix seconds) is to be renewed now.
#[must_use]
pub fn is_due(not_before: i64, not_after: i64, now: UnixMillis) -> bool {
    let life = not_after.saturating_sub(not_before).max(0);
    let from = not_before.saturating_add(life / 100 * RENEW_AT_PERCENT);
    i64::try_from(now.seconds()).unwrap_or(i64::MAX) >= from
}

/// Whether an identity has run out. An end that is not known (0) is none.
#[must_use]
pub fn is_over(not_after: i64, now: UnixMillis) -> bool {
    not_after != 0 && i64::try_from(now.seconds()).unwrap_or(i64::MAX) > not_after
}

/// Seconds until the next attempt after the n-th (counted from 1) that was closed and
/// renewed nothing: an hour, four times as long each time, at most a week.
#[must_use]
pub fn retry_after(attempts: u32) -> u64 {
    let times = 4_u64.saturating_pow(attempts.saturating_sub(1).min(8));
    times.saturating_mul(3600).min(7 * 86_400)
}

/// What the profile of an enrollment said, and how it is woken, when it can be made again.
///
/// # Errors
/// [`Obstacle`] says what stands against it.
pub fn renewable<'e>(
    enrollment: &'e Enrollment,
    instance: &[u8; 16],
    managed_apple_id: Option<&str>,
) -> Result<(&'e EnrolledWith, &'e Push), Obstacle> {
    let push = enrollment
        .channel
        .state
        .push()
        .ok_or(Obstacle::NotEnrolled)?;
    let with = enrollment.enrolled_with.as_ref().ok_or(Obstacle::Unknown)?;
    if with.profile_identifier != profile_identifier(instance) {
        return Err(Obstacle::OtherProfile);
    }
    if with.rights.is_none() && managed_apple_id.is_none() {
        return Err(Obstacle::NoAccount);
    }
    Ok((with, push))
}

/// The command that renews: `InstallProfile` of this profile. Queued with an empty one,
/// for the profile holds a secret and is made when the command is handed out.
#[must_use]
pub fn command(uuid: &CommandUuid, profile: &[u8]) -> Vec<u8> {
    let text = |text: &str| Value::String(text.to_owned());
    let mut command = Dictionary::new();
    command.insert("RequestType".to_owned(), text(REQUEST_TYPE));
    command.insert("Payload".to_owned(), Value::Data(profile.to_vec()));
    let mut outer = Dictionary::new();
    outer.insert("CommandUUID".to_owned(), text(uuid.as_str()));
    outer.insert("Command".to_owned(), Value::Dictionary(command));
    xml::write(outer)
}

/// The RequestType of the command that renews.
pub const REQUEST_TYPE: &str = "InstallProfile";

/// Why an identity cannot be renewed by sending the enrollment profile again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// There is nothing to renew.
    #[error("it is not enrolled")]
    NotEnrolled,
    /// It came from another server, or through a profile we did not make.
    #[error("what its enrollment profile said is not known")]
    Unknown,
    /// Its profile had the identifiers of another instance.
    #[error("its enrollment profile is another server's")]
    OtherProfile,
    /// The Managed Apple Account of its User Enrollment is not known any more.
    #[error("the Managed Apple Account of its enrollment profile is not known")]
    NoAccount,
}

/// Share of an identity's life after which it is renewed.
const RENEW_AT_PERCENT: i64 = 40;

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;

    fn day(day: i64) -> UnixMillis {
        UnixMillis(u64::try_from(day * DAY).unwrap() * 1000)
    }

    #[test]
    fn an_identity_is_due_before_half_its_life_is_over_and_stays_due() {
        for (now, due) in [(139, false), (140, true), (200, true), (900, true)] {
            assert_eq!(is_due(100 * DAY, 200 * DAY, day(now)), due, "{now}");
        }
        // One that makes no sense is renewed.
        assert!(is_due(200 * DAY, 100 * DAY, day(201)));
    }

    #[test]
    fn an_identity_is_over_after_its_last_second() {
        assert!(!is_over(5 * DAY, day(5)));
        assert!(is_over(5 * DAY - 1, day(5)));
        assert!(!is_over(0, day(5)), "not known");
    }

    #[test]
    fn attempts_are_an_hour_apart_at_first_and_a_week_in_the_end() {
        let hours: Vec<_> = (1..=6).map(|n| retry_after(n) / 3600).collect();
        assert_eq!(hours, [1, 4, 16, 64, 168, 168]);
        assert_eq!(retry_after(u32::MAX), 7 * 86_400);
    }
}
