//! Before a command is queued: which of its targets could not be given it.
//!
//! Asked by every door that queues. Many targets at once are not looked at here: each is
//! when its device comes for the command.

use actors::store::DIRECT_UP_TO;
use roaring::RoaringBitmap;
use schema::command::{self, Command};
use schema::fitness::{Demand, Unfit, Unknown};
use schema::{ChannelNo, EnrollId, xml};
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::error::Problem;

/// Targets, looked at.
#[derive(Debug, Default)]
pub struct Looked {
    /// Those that may be given the command.
    pub fit: RoaringBitmap,
    /// Those that may not, and why.
    pub unfit: Vec<(ChannelNo, EnrollId, Unfit)>,
    /// Of those that may: what is not known of them.
    pub unsure: Vec<(EnrollId, Vec<Unknown>)>,
}

/// Something that is not known of a target, which may refuse the command.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Warning {
    /// Its enrollment id.
    pub id: String,
    /// `rights_unknown`, `platform_unknown`, `os_version_unknown`, `supervision_unknown`,
    /// `enrollment_type_unknown` or `shared_ipad_unknown`.
    pub code: &'static str,
}

/// Looks at the enrolled ones among the targets of a command.
///
/// # Errors
/// What the store says.
pub fn look(app: &App, command: &Command, targets: RoaringBitmap) -> Result<Looked, Problem> {
    let outer = xml::parse(&command.raw).ok();
    let inner = outer.as_ref().and_then(command::inner);
    let demand = Demand::of(&command.request_type, inner);
    let mut looked = Looked {
        fit: targets,
        ..Looked::default()
    };
    let Some(demand) = demand.filter(|_| looked.fit.len() <= DIRECT_UP_TO) else {
        return Ok(looked);
    };
    for no in looked.fit.clone().iter().map(ChannelNo) {
        let Some(enrollment) = app.store.enrollment(no)? else {
            continue;
        };
        let channel = enrollment.channels().find(|channel| channel.no == no);
        let Some(channel) = channel.filter(|channel| channel.state.push().is_some()) else {
            continue;
        };
        match app.store.fitness(&demand, &enrollment, &channel.id)? {
            Err(unfit) => {
                looked.fit.remove(no.0);
                looked.unfit.push((no, channel.id.clone(), unfit));
            }
            Ok(unknown) if !unknown.is_empty() => {
                looked.unsure.push((channel.id.clone(), unknown));
            }
            Ok(_) => {}
        }
    }
    Ok(looked)
}

/// What was not known of the targets, at most so many.
#[must_use]
pub fn warnings(unsure: &[(EnrollId, Vec<Unknown>)]) -> Vec<Warning> {
    let each = unsure.iter().flat_map(|(id, unknown)| {
        unknown.iter().map(|unknown| Warning {
            id: id.to_string(),
            code: unknown.code(),
        })
    });
    each.take(WARNINGS).collect()
}

const WARNINGS: usize = 100;
