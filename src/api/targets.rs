//! Targets: to whom a command goes, and the channels that means.

use schema::EnrollId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::filter::Filter;
use crate::app::App;
use crate::error::Problem;

/// Exactly one of its fields.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Targets {
    /// Enrollment ids, any number; repeats count once.
    pub ids: Option<Vec<String>>,
    /// All enrolled devices that meet these conditions.
    pub filter: Option<Filter>,
    /// All enrolled devices.
    pub all: Option<bool>,
}

/// A target nothing is sent to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Rejected {
    /// The id as given.
    pub id: String,
    /// `unknown`, `invalid_id`, `not_enrolled`, or why it cannot be given the command:
    /// `missing_right`, `wrong_platform`, `os_too_old`, `os_too_new`, `wrong_channel`,
    /// `not_supervised`, `wrong_enrollment_type` or `shared_ipad`.
    pub code: String,
    /// The same for people: which right, which version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// The channels meant, and the ids that mean none.
#[derive(Debug, Default)]
pub struct Resolved {
    /// Channel numbers.
    pub channels: roaring::RoaringBitmap,
    /// Ids that name nothing.
    pub rejected: Vec<Rejected>,
}

impl Targets {
    /// Finds the channels.
    ///
    /// # Errors
    /// 422 unless exactly one field is there, or when it is empty.
    pub fn resolve(self, app: &App) -> Result<Resolved, Problem> {
        let one = "exactly one of ids, filter and all is needed";
        match (self.ids, self.filter, self.all) {
            (Some(ids), None, None) if ids.is_empty() => {
                Err(Problem::field("/targets/ids", "is empty"))
            }
            (Some(ids), None, None) => by_id(&ids, app),
            (None, Some(filter), None) => by_filter(filter, app),
            (None, None, Some(true)) => Ok(Resolved {
                channels: app.store.enrolled_devices(),
                rejected: Vec::new(),
            }),
            (None, None, Some(false)) => Err(Problem::field("/targets/all", "must be true")),
            _ => Err(Problem::field("/targets", one)),
        }
    }
}

fn by_id(ids: &[String], app: &App) -> Result<Resolved, Problem> {
    let mut resolved = Resolved::default();
    let mut reject = |id: &String, code: &str| {
        let rejected = Rejected {
            id: id.clone(),
            code: code.to_owned(),
            detail: None,
        };
        if !resolved.rejected.contains(&rejected) {
            resolved.rejected.push(rejected);
        }
    };
    let mut channels = roaring::RoaringBitmap::new();
    for id in ids {
        match EnrollId::parse(id) {
            Err(_) => reject(id, "invalid_id"),
            Ok(parsed) => match app.store.find(&parsed)? {
                Some(channel) => {
                    channels.insert(channel.0);
                }
                None => reject(id, "unknown"),
            },
        }
    }
    resolved.channels = channels;
    Ok(resolved)
}

fn by_filter(filter: Filter, app: &App) -> Result<Resolved, Problem> {
    let test = filter.read("/targets/filter", app.clock.now())?;
    let (devices, _) = app.store.devices(None, usize::MAX, |device| {
        let wakes = device.enrollment.channel.state.push().is_some();
        Ok(wakes && test.takes(device, &app.store)?)
    })?;
    Ok(Resolved {
        channels: devices
            .iter()
            .map(|device| device.enrollment.channel.no.0)
            .collect(),
        rejected: Vec::new(),
    })
}
