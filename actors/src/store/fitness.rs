//! What the store knows of a device's fitness for a command: its enrollment, and what it
//! told in this enrollment where the rest depends on it.

use schema::access::AccessRights;
use schema::command;
use schema::enrollment::Enrollment;
use schema::fitness::{Demand, Standing, Unfit, Unknown};
use schema::inventory::{Kind, Known};
use schema::{EnrollId, UnixMillis, xml};

use super::pending::HandOut;
use super::{Store, StoreError};

/// Fit, with what was not known of the device; or not.
pub type Fitness = Result<Vec<Unknown>, Unfit>;

impl Store {
    /// Compares a command with a channel.
    ///
    /// # Errors
    /// [`StoreError`] when what the device told cannot be read.
    pub fn fitness(
        &self,
        demand: &Demand<'_>,
        enrollment: &Enrollment,
        channel: &EnrollId,
    ) -> Result<Fitness, StoreError> {
        let Some(standing) = Standing::of(enrollment, channel) else {
            return Ok(Ok(Vec::new()));
        };
        let first = demand.check(&standing);
        let depends = match &first {
            Ok(unknown) => !unknown.is_empty() || demand.ends(&standing),
            Err(unfit) => matches!(unfit, Unfit::OsTooOld(_)),
        };
        if !depends {
            return Ok(first);
        }
        let since = enrollment.enrolled_at.unwrap_or(UnixMillis(0));
        let told = |kind| {
            let known = self.known(enrollment.channel.no, kind)?;
            Ok::<_, StoreError>(known.filter(|known: &Known| known.at >= since))
        };
        let information = told(Kind::DeviceInformation)?;
        let security = told(Kind::SecurityInfo)?;
        Ok(demand.check(&standing.told(information.as_ref(), security.as_ref())))
    }

    /// Compares a command that is about to be handed out with its channel. A look into it
    /// is spared where the enrollment granted every right, or nobody knows which.
    ///
    /// # Errors
    /// [`StoreError`] when what the device told cannot be read.
    pub fn fitness_to_take(
        &self,
        given: &HandOut,
        enrollment: &Enrollment,
        channel: &EnrollId,
    ) -> Result<Fitness, StoreError> {
        if given.forced {
            return Ok(Ok(Vec::new()));
        }
        let granted = enrollment.enrolled_with.as_ref().and_then(|e| e.rights);
        let all = granted.is_none_or(|granted| granted.contains(AccessRights::ALL));
        let outer = match all {
            true => None,
            false => xml::parse(&given.plist).ok(),
        };
        let inner = outer.as_ref().and_then(command::inner);
        match Demand::of(&given.request_type, inner) {
            Some(demand) => self.fitness(&demand, enrollment, channel),
            None => Ok(Ok(Vec::new())),
        }
    }
}
