//! Commands: queue one for many, look at it, take it back.

use std::collections::BTreeMap;

use actix_web::{HttpRequest, HttpResponse, web};
use actors::store::{Cancel, CommandSummary, Enqueued, Idempotency, NewCommand};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schema::command::Command;
use schema::fitness::{Unfit, Unknown};
use schema::queue::{State, rank};
use schema::{ChannelNo, CommandUuid, EnrollId, Seq};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::fitness::{Looked, Warning, look, warnings};
use super::json::strict_json;
use super::rendering::time;
use super::targets::{Rejected, Targets};
use crate::app::App;
use crate::auth::{Admin, Scope};
use crate::error::{Field, Problem, Refusals};

/// A command to be queued.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// To whom.
    pub targets: Targets,
    /// `request_type` and Apple's keys, in snake_case or Apple's own case.
    #[schema(value_type = Option<Object>)]
    pub command: Option<Map<String, Value>>,
    /// Or the raw plist, in base64.
    pub command_plist: Option<String>,
    /// -100 (last) to 100 (first); 0 when absent. Urgent commands go before all.
    pub priority: Option<i8>,
    /// Seconds until it is no longer handed out; 30 days when absent.
    pub expires_in: Option<u64>,
    /// Wake the devices now; true when absent.
    pub wake: Option<bool>,
    /// Why; needed for destructive commands.
    pub reason: Option<String>,
    /// Send it to devices too that cannot be given it by what is known of them: rights,
    /// platform, OS version, channel, supervision, type of enrollment. False when absent.
    pub force: Option<bool>,
}

/// What was queued.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Queued {
    /// The command's identity.
    pub command_uuid: String,
    /// Channels it waits for.
    pub accepted: u32,
    /// Targets nothing is sent to. Of more than 1000 targets none is rejected for what its
    /// device can be given: each is when it comes for the command.
    pub rejected: Vec<Rejected>,
    /// What is not known of targets, which may refuse the command; at most 100.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
}

/// How a command stands over all its targets.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Standing {
    /// Its identity.
    pub command_uuid: String,
    /// Its kind.
    pub request_type: String,
    /// Targets in each state.
    pub counts: BTreeMap<&'static str, u32>,
    /// How many targets it has.
    pub targets: u32,
    /// When it was queued.
    pub created_at: String,
    /// From then on it is not handed out.
    pub expires_at: String,
    /// Who queued it.
    pub principal: String,
    /// Why.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// What was taken back.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Cancelled {
    /// Taken back.
    pub cancelled: u32,
    /// Taken back too, but handed out before: the device may act on them.
    pub already_sent: u32,
}

/// Queues a command.
#[utoipa::path(post, path = "/api/v1/commands", tag = "commands", request_body = Order,
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key and body are queued once within a day")),
    responses(
        (status = 202, description = "Queued durably", body = Queued),
        (status = 400, description = "Unreadable JSON", body = Problem),
        (status = 404, description = "No target is enrolled", body = Problem),
        (status = 409, description = "The CommandUUID was used, or the guard threshold is reached", body = Problem),
        (status = 413, description = "Body too long", body = Problem),
        (status = 415, description = "Not JSON", body = Problem),
        (status = 422, description = "A field is at fault, or no target can be given the command (`not_fit`)", body = Problem),
        Refusals))]
pub async fn create(
    admin: Admin,
    request: HttpRequest,
    body: web::Bytes,
    app: web::Data<App>,
) -> Result<HttpResponse, Problem> {
    admin.demand(Scope::Command)?;
    let order: Order = strict_json(&request, &body)?;
    let command = order.command()?;
    let resolved = order.targets.clone().resolve(&app)?;
    let terms = Terms {
        rank: rank(command.urgent, order.priority()?),
        expires_in: order.expires_in()?,
        wake: order.wake.unwrap_or(true),
        reason: order.reason.unwrap_or_default(),
        idempotency: idempotency(&request, &admin, &body)?,
        force: order.force.unwrap_or(false),
    };
    let placed = enqueue(&app, &admin, command, resolved.channels, terms).await?;
    let (enqueued, warnings) = (placed.enqueued, warnings(&placed.unsure));
    let mut rejected = resolved.rejected;
    rejected.extend(placed.unfit.iter().map(|(_, id, unfit)| Rejected {
        id: id.to_string(),
        code: unfit.code().to_owned(),
        detail: Some(unfit.to_string()),
    }));
    for channel in &enqueued.rejected {
        let enrollment = app.store.enrollment(*channel)?;
        let id = enrollment
            .iter()
            .flat_map(|e| e.channels())
            .find(|c| c.no == *channel);
        rejected.push(Rejected {
            id: id.map(|c| c.id.to_string()).unwrap_or_default(),
            code: "not_enrolled".into(),
            detail: None,
        });
    }
    if enqueued.seq.is_none() {
        let errors = rejected.iter().map(|rejected| Field {
            pointer: "/targets".into(),
            detail: match &rejected.detail {
                None => format!("{}: {}", rejected.id, rejected.code),
                Some(detail) => format!("{}: {}: {detail}", rejected.id, rejected.code),
            },
        });
        let problem = match placed.unfit.first() {
            None => Problem::not_found("no target is enrolled; nothing was queued"),
            Some((_, _, unfit)) => Problem::unprocessable(
                "not_fit",
                format!("no target can be given this command ({unfit}); nothing was queued"),
            ),
        };
        return Err(problem.with_errors(errors.take(100).collect()));
    }
    Ok(HttpResponse::Accepted().json(Queued {
        command_uuid: enqueued.uuid.to_string(),
        accepted: enqueued.accepted,
        rejected,
        warnings,
    }))
}

/// How a command stands.
#[utoipa::path(get, path = "/api/v1/commands/{uuid}", tag = "commands",
    params(("uuid" = String, Path, description = "CommandUUID")),
    responses(
        (status = 200, description = "How it stands", body = Standing),
        (status = 404, description = "Unknown", body = Problem),
        Refusals))]
pub async fn show(
    admin: Admin,
    uuid: web::Path<String>,
    app: web::Data<App>,
) -> Result<web::Json<Standing>, Problem> {
    admin.demand(Scope::Read)?;
    let (_, summary) = find(&app, &uuid)?;
    let counts = State::ALL
        .iter()
        .zip(summary.counts)
        .map(|(state, count)| (state.name(), count));
    Ok(web::Json(Standing {
        command_uuid: summary.command.uuid.to_string(),
        request_type: summary.command.request_type,
        counts: counts.collect(),
        targets: summary.command.target_count,
        created_at: time(summary.command.created),
        expires_at: time(summary.command.expires),
        principal: summary.command.principal,
        reason: summary.command.reason,
    }))
}

/// Takes a command back wherever it has not been sent.
#[utoipa::path(delete, path = "/api/v1/commands/{uuid}", tag = "commands",
    params(("uuid" = String, Path, description = "CommandUUID")),
    responses(
        (status = 200, description = "What was taken back", body = Cancelled),
        (status = 404, description = "Unknown", body = Problem),
        Refusals))]
pub async fn cancel(
    admin: Admin,
    uuid: web::Path<String>,
    app: web::Data<App>,
) -> Result<web::Json<Cancelled>, Problem> {
    admin.demand(Scope::Command)?;
    let (seq, _) = find(&app, &uuid)?;
    let outcome = app.store.cancel(Cancel::Command(seq)).await?;
    Ok(web::Json(outcome.into()))
}

/// The terms under which a command is queued.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Its place in the order.
    pub rank: u8,
    /// Seconds.
    pub expires_in: u64,
    /// Wake the targets.
    pub wake: bool,
    /// Why.
    pub reason: String,
    /// Under which idempotency key.
    pub idempotency: Option<Idempotency>,
    /// Whether the targets can be given it or not.
    pub force: bool,
}

/// A command that was queued, for those that can be given it.
#[derive(Debug)]
pub struct Placed {
    /// What the store made of it.
    pub enqueued: Enqueued,
    /// Those that cannot, and why.
    pub unfit: Vec<(ChannelNo, EnrollId, Unfit)>,
    /// What is not known of the others.
    pub unsure: Vec<(EnrollId, Vec<Unknown>)>,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            rank: rank(false, 0),
            expires_in: EXPIRES_IN,
            wake: true,
            reason: String::new(),
            idempotency: None,
            force: false,
        }
    }
}

/// Queues a command after the checks every dialect shares: the destructive set needs
/// its scope and a reason.
///
/// # Errors
/// 403, 422, or what the store says.
pub async fn enqueue(
    app: &App,
    admin: &Admin,
    command: Command,
    targets: roaring::RoaringBitmap,
    terms: Terms,
) -> Result<Placed, Problem> {
    if command.destructive {
        admin.demand(Scope::Destructive)?;
        if terms.reason.trim().is_empty() {
            return Err(Problem::field(
                "/reason",
                "a destructive command needs a reason",
            ));
        }
    }
    let Looked { fit, unfit, unsure } = match terms.force {
        true => Looked {
            fit: targets,
            ..Looked::default()
        },
        false => look(app, &command, targets)?,
    };
    let sealed = app
        .store
        .seal_command(command.uuid.as_str(), &command.raw)?;
    let new = NewCommand {
        uuid: command.uuid,
        request_type: command.request_type,
        sealed,
        rank: terms.rank,
        destructive: command.destructive,
        expires: app.store.expiry_clock().plus_seconds(terms.expires_in),
        targets: fit,
        wake: terms.wake,
        principal: admin.principal().to_owned(),
        reason: terms.reason,
        idempotency: terms.idempotency,
        forced: terms.force,
    };
    Ok(Placed {
        enqueued: app.store.enqueue(new).await?,
        unfit,
        unsure,
    })
}

/// A command by the CommandUUID in a path.
///
/// # Errors
/// 404 when nobody here knows it.
pub fn find(app: &App, uuid: &str) -> Result<(Seq, CommandSummary), Problem> {
    let unknown = || Problem::not_found("there is no command with this CommandUUID");
    let uuid = CommandUuid::parse(uuid).ok_or_else(unknown)?;
    let seq = app.store.seq_of(&uuid)?.ok_or_else(unknown)?;
    let summary = app.store.command(seq)?.ok_or_else(unknown)?;
    Ok((seq, summary))
}

impl Order {
    fn command(&self) -> Result<Command, Problem> {
        match (&self.command, &self.command_plist) {
            (Some(json), None) => {
                let uuid = CommandUuid::parse(&uuid::Uuid::new_v4().to_string().to_uppercase());
                let uuid = uuid.ok_or_else(|| Problem::unavailable("no uuid"))?;
                Command::from_json(uuid, json).map_err(|errors| {
                    Problem::fields(
                        errors
                            .into_iter()
                            .map(|error| {
                                let error = Field::from(error);
                                Field {
                                    pointer: format!("/command{}", error.pointer),
                                    ..error
                                }
                            })
                            .collect(),
                    )
                })
            }
            (None, Some(plist)) => {
                let raw = STANDARD
                    .decode(plist.trim())
                    .map_err(|_| Problem::field("/command_plist", "is not base64"))?;
                Command::from_plist(raw)
                    .map_err(|error| Problem::field("/command_plist", error.to_string()))
            }
            _ => Err(Problem::field(
                "/command",
                "exactly one of command and command_plist is needed",
            )),
        }
    }

    fn priority(&self) -> Result<i8, Problem> {
        match self.priority.unwrap_or(0) {
            priority @ -100..=100 => Ok(priority),
            _ => Err(Problem::field("/priority", "must be -100 to 100")),
        }
    }

    fn expires_in(&self) -> Result<u64, Problem> {
        match self.expires_in {
            None => Ok(EXPIRES_IN),
            Some(seconds @ 60..=EXPIRES_AT_MOST) => Ok(seconds),
            Some(_) => Err(Problem::field(
                "/expires_in",
                format!("must be 60 to {EXPIRES_AT_MOST} seconds"),
            )),
        }
    }
}

/// The idempotency key of a request, with the request it came with.
///
/// # Errors
/// 400 for a key that cannot be one.
pub fn idempotency(
    request: &HttpRequest,
    admin: &Admin,
    body: &[u8],
) -> Result<Option<Idempotency>, Problem> {
    let Some(key) = request.headers().get("Idempotency-Key") else {
        return Ok(None);
    };
    if key.is_empty() || key.len() > 255 {
        return Err(Problem::bad_request(
            "bad_idempotency_key",
            "it must be 1 to 255 bytes",
        ));
    }
    let whose = [admin.principal().as_bytes(), b"\0", key.as_bytes()].concat();
    Ok(Some(Idempotency {
        key: sha256(&whose),
        request: sha256(body),
    }))
}

/// SHA-256.
pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    let digest = digest(&SHA256, bytes);
    hash.iter_mut()
        .zip(digest.as_ref())
        .for_each(|(to, from)| *to = *from);
    hash
}

impl From<actors::store::CancelOutcome> for Cancelled {
    fn from(outcome: actors::store::CancelOutcome) -> Self {
        Self {
            cancelled: outcome.cancelled,
            already_sent: outcome.already_sent,
        }
    }
}

const EXPIRES_IN: u64 = 30 * 24 * 3600;
const EXPIRES_AT_MOST: u64 = 366 * 24 * 3600;
