//! The ids of a path, and what is done to the channels they name: a command queued,
//! a wake handed on. Results are noted id by id.

use std::collections::{BTreeMap, HashSet};

use actors::StoreError;
use actors::pusher::Wake;
use schema::command::Command;
use schema::queue::rank;
use schema::{ChannelNo, EnrollId};

use super::caller::Caller;
use super::reply::ApiResult;
use crate::api::commands::{Terms, enqueue};
use crate::app::App;
use crate::error::Problem;

/// The ids of a path and the channels they name.
#[derive(Debug)]
pub(super) struct Targets {
    /// How many ids stood in the path; repeats count, as they do for NanoMDM.
    pub(super) asked: usize,
    /// `None` where no enrollment has the id.
    channels: BTreeMap<String, Option<ChannelNo>>,
}

impl Targets {
    /// Looks up the ids of a path, joined by commas.
    ///
    /// # Errors
    /// In words: the path is empty, or the store fails.
    pub(super) fn read(app: &App, path: &str) -> Result<Self, String> {
        if path.is_empty() {
            return Err("getting enrollment ids: empty path".into());
        }
        let find = |id: &str| match EnrollId::parse(id) {
            Ok(parsed) => app.store.find(&parsed),
            Err(_) => Ok(None),
        };
        let channels = path
            .split(',')
            .map(|id| Ok((id.to_owned(), find(id)?)))
            .collect::<Result<_, StoreError>>();
        Ok(Self {
            asked: path.split(',').count(),
            channels: channels.map_err(|error| Problem::from(error).detail)?,
        })
    }

    /// Queues a command. The store wakes nobody for it: [`Targets::wake`] does, once,
    /// and learns who cannot be woken. After a crash between the two the supervisor
    /// finds the open command and wakes for it.
    pub(super) async fn queue(
        &self,
        app: &App,
        caller: &Caller,
        command: Command,
        result: &mut ApiResult,
    ) {
        result.command_uuid = Some(command.uuid.to_string());
        result.request_type = Some(command.request_type.clone());
        let terms = Terms {
            rank: rank(command.urgent, 0),
            wake: false,
            reason: REASON.into(),
            ..Terms::default()
        };
        let channels = self.known().map(|(_, no)| no.0).collect();
        let placed = match enqueue(app, &caller.0, command, channels, terms).await {
            Ok(placed) => placed,
            Err(problem) => {
                result.command_error = Some(problem.detail);
                return;
            }
        };
        let rejected: HashSet<ChannelNo> = placed.enqueued.rejected.into_iter().collect();
        for (id, channel) in &self.channels {
            let unfit = placed.unfit.iter().find(|(no, ..)| Some(*no) == *channel);
            let why = match (channel, unfit) {
                (None, _) => UNKNOWN.to_owned(),
                (Some(_), Some((_, _, unfit))) => unfit.to_string(),
                (Some(no), None) if rejected.contains(no) => "the channel is not enrolled".into(),
                (Some(_), None) => continue,
            };
            result.of(id).command_error = Some(why);
        }
    }

    /// Hands wakes to the push supervisor, which sends them when it can. Each gets an
    /// id of ours as `push_result`: APNs has not answered yet.
    pub(super) async fn wake(&self, app: &App, result: &mut ApiResult) {
        let channels = self.known().map(|(_, no)| no).collect();
        let answers = app.pusher.send(Wake(channels)).await;
        let answers = answers
            .map_err(|_| Problem::unavailable("the push supervisor is not running"))
            .and_then(|answers| Ok(answers?));
        let answers = match answers {
            Ok(answers) => answers,
            Err(problem) => {
                result.push_error = Some(problem.detail);
                return;
            }
        };
        for ((id, _), answer) in self.known().zip(answers) {
            match answer {
                Ok(()) => result.of(id).push_result = Some(uuid::Uuid::new_v4().to_string()),
                Err(why) => result.of(id).push_error = Some(why.to_string()),
            }
        }
        for (id, _) in self.channels.iter().filter(|(_, no)| no.is_none()) {
            result.of(id).push_error = Some(UNKNOWN.into());
        }
    }

    fn known(&self) -> impl Iterator<Item = (&str, ChannelNo)> {
        let channels = self.channels.iter();
        channels.filter_map(|(id, no)| Some((id.as_str(), (*no)?)))
    }
}

const REASON: &str = "sent through the NanoMDM API";
const UNKNOWN: &str = "there is no enrollment with this id";
