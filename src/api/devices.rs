//! Devices: list them, look at one, say something of it, and what waits for it.

use actix_web::{HttpRequest, HttpResponse, web};
use actors::device::AllowReenroll;
use actors::pusher::Wake;
use actors::registry::Opens;
use actors::store::{Annotation, Cancel, ChannelCommand, Device};
use schema::enrollment::{Channel, Enrollment};
use schema::report::ErrorItem;
use schema::{ChannelNo, EnrollId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::commands::{Cancelled, find, strict_json};
use super::filter::Filter;
use super::paging::{self, Asked, Page, cursor};
use super::rendering::{time, time_of_seconds};
use crate::app::App;
use crate::auth::{Admin, Scope};
use crate::error::Problem;

/// A device.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DeviceItem {
    /// Its enrollment id.
    pub id: String,
    /// As Authenticate said; empty when it did not.
    pub serial_number: String,
    /// The name an admin gave, else the device's own.
    pub name: String,
    /// Apple's product name.
    pub model: String,
    /// By the product name; empty when it cannot be told.
    pub platform: String,
    /// As Authenticate said.
    pub os_version: String,
    /// `pending`, `enrolled` or `checked_out`.
    pub state: String,
    /// `Device` or `User Enrollment (Device)`.
    pub enrollment_type: String,
    /// Last contact, to the minute.
    pub last_seen_at: Option<String>,
    /// When the running enrollment began.
    pub enrolled_at: Option<String>,
    /// Open commands on all its channels.
    pub pending_commands: usize,
    /// Tags an admin gave.
    pub tags: Vec<String>,
    /// Its channels.
    pub channels: Vec<ChannelItem>,
}

/// A channel of a device.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ChannelItem {
    /// Its enrollment id.
    pub id: String,
    /// Its kind, in the names of the field.
    pub kind: String,
    /// How to wake it.
    pub push: Option<PushItem>,
}

/// How a channel is woken; the token itself is never shown.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PushItem {
    /// The topic it reported.
    pub topic: String,
    /// `ok`, or `dead` when APNs said so of this token.
    pub state: String,
    /// Last wake APNs took, to the minute.
    pub last_push_at: Option<String>,
}

/// A device with everything known of it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DeviceDetail {
    #[serde(flatten)]
    #[schema(inline)]
    item: DeviceItem,
    /// Free text an admin wrote.
    notes: String,
    /// What reports told of it.
    #[schema(value_type = Object)]
    inventory: serde_json::Value,
    /// Its identity.
    certificate: Option<CertificateItem>,
    /// Sits in Setup Assistant until `DeviceConfigured`.
    awaiting_configuration: bool,
    /// An admin let it enroll again under a new identity.
    reenroll_allowed: bool,
    /// Its actor failed too often; see `lift-quarantine`.
    quarantined: bool,
}

/// The identity certificate a device is bound to.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CertificateItem {
    /// SHA-256 of its DER, in hex.
    sha256: String,
    /// Serial number, in hex.
    serial: String,
    /// End of its validity.
    not_after: String,
    /// That is over; it still counts.
    expired: bool,
}

/// What an admin may say of a device. Absent leaves it as it is.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeviceChange {
    /// Shown instead of the device's own name; empty takes it back.
    pub name: Option<String>,
    /// Replaces all tags.
    pub tags: Option<Vec<String>>,
    /// Free text.
    pub notes: Option<String>,
}

/// A command on a device.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CommandItem {
    /// Its identity.
    pub command_uuid: String,
    /// Its kind.
    pub request_type: String,
    /// Where it stands; see the states in the README.
    pub state: String,
    /// When it was queued.
    pub created_at: String,
    /// When it was last handed out.
    pub sent_at: Option<String>,
    /// When it was closed.
    pub completed_at: Option<String>,
    /// The rollout it belongs to.
    pub rollout_id: Option<String>,
    /// The device's errors, top first.
    #[schema(value_type = Vec<Object>)]
    pub error_chain: Vec<ErrorItem>,
    /// Hand-outs since the last report.
    pub attempts: u8,
    /// Handed out too often without a report; it steps behind the others.
    pub stuck: bool,
}

/// Which commands of a device.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CommandsAsked {
    /// `open` or `closed`; both when absent.
    pub state: Option<String>,
    /// At most so many items: 1 to 1000.
    pub limit: Option<usize>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

/// Lists devices.
#[utoipa::path(get, path = "/api/v1/devices", tag = "devices",
    params(Filter, ("limit" = Option<usize>, Query, minimum = 1, maximum = 1000), ("cursor" = Option<String>, Query)),
    responses(
        (status = 200, description = "A page", body = Page<DeviceItem>),
        (status = 400, description = "Bad limit, cursor or parameter", body = Problem),
        (status = 401, description = "No valid token", body = Problem),
        (status = 403, description = "A scope is missing", body = Problem),
        (status = 422, description = "A condition is at fault", body = Problem),
        (status = 503, description = "Our own trouble", body = Problem)))]
pub async fn list(
    admin: Admin,
    request: HttpRequest,
    app: web::Data<App>,
) -> Result<web::Json<Page<DeviceItem>>, Problem> {
    admin.demand(Scope::Read)?;
    let (asked, filter) = split_query(request.query_string())?;
    let test = filter.read("", app.clock.now())?;
    let limit = asked.limit()?;
    let after = asked.after(paging::DEVICES)?;
    let after = after
        .and_then(|after| u32::try_from(after).ok())
        .map(ChannelNo);
    let (devices, more) = app
        .store
        .devices(after, limit, |device| test.takes(device))?;
    let next = devices
        .last()
        .filter(|_| more)
        .map(|last| cursor(paging::DEVICES, u64::from(last.enrollment.channel.no.0)));
    let items = devices
        .iter()
        .map(|device| item(&app, device))
        .collect::<Result<_, _>>()?;
    Ok(web::Json(Page { items, next }))
}

/// Shows a device.
#[utoipa::path(get, path = "/api/v1/devices/{id}", tag = "devices",
    params(("id" = String, Path, description = "Enrollment id")),
    responses(
        (status = 200, description = "The device", body = DeviceDetail),
        (status = 401, description = "No valid token", body = Problem),
        (status = 403, description = "A scope is missing", body = Problem),
        (status = 404, description = "Unknown", body = Problem),
        (status = 503, description = "Our own trouble", body = Problem)))]
pub async fn show(
    admin: Admin,
    id: web::Path<String>,
    app: web::Data<App>,
) -> Result<web::Json<DeviceDetail>, Problem> {
    admin.demand(Scope::Read)?;
    let (enrollment, _) = channel(&app, &id)?;
    Ok(web::Json(detail(&app, enrollment)?))
}

/// Changes what an admin says of a device.
#[utoipa::path(patch, path = "/api/v1/devices/{id}", tag = "devices", request_body = DeviceChange,
    params(("id" = String, Path, description = "Enrollment id")),
    responses(
        (status = 200, description = "The device as it is now", body = DeviceDetail),
        (status = 400, description = "Unreadable JSON", body = Problem),
        (status = 401, description = "No valid token", body = Problem),
        (status = 403, description = "A scope is missing", body = Problem),
        (status = 404, description = "Unknown", body = Problem),
        (status = 415, description = "Not JSON", body = Problem),
        (status = 422, description = "A field is at fault", body = Problem),
        (status = 503, description = "Our own trouble", body = Problem)))]
pub async fn change(
    admin: Admin,
    id: web::Path<String>,
    request: HttpRequest,
    body: web::Bytes,
    app: web::Data<App>,
) -> Result<web::Json<DeviceDetail>, Problem> {
    admin.demand(Scope::Command)?;
    let (enrollment, _) = channel(&app, &id)?;
    let change: DeviceChange = strict_json(&request, &body)?;
    let device = enrollment.channel.no;
    let before = app.store.annotation(device)?;
    app.store
        .put_annotation(device, change.apply(before)?)
        .await?;
    Ok(web::Json(detail(&app, enrollment)?))
}

/// Lists the commands of a channel, newest first.
#[utoipa::path(get, path = "/api/v1/devices/{id}/commands", tag = "devices",
    params(("id" = String, Path, description = "Enrollment id"), CommandsAsked),
    responses(
        (status = 200, description = "A page", body = Page<CommandItem>),
        (status = 400, description = "Bad limit, cursor or state", body = Problem),
        (status = 401, description = "No valid token", body = Problem),
        (status = 403, description = "A scope is missing", body = Problem),
        (status = 404, description = "Unknown", body = Problem),
        (status = 503, description = "Our own trouble", body = Problem)))]
pub async fn commands(
    admin: Admin,
    id: web::Path<String>,
    asked: web::Query<CommandsAsked>,
    app: web::Data<App>,
) -> Result<web::Json<Page<CommandItem>>, Problem> {
    admin.demand(Scope::Read)?;
    let (_, channel) = channel(&app, &id)?;
    let CommandsAsked {
        state,
        limit,
        cursor: at,
    } = asked.into_inner();
    let open = match state.as_deref() {
        None => None,
        Some("open") => Some(true),
        Some("closed") => Some(false),
        Some(_) => {
            return Err(Problem::bad_request(
                "bad_query",
                "state must be open or closed",
            ));
        }
    };
    let asked = Asked { limit, cursor: at };
    let (limit, before) = (asked.limit()?, asked.after(paging::COMMANDS)?);
    let mut found: Vec<_> = app.store.commands_of(channel.no)?;
    found.retain(|command| {
        before.is_none_or(|before| command.seq.0 < before)
            && open.is_none_or(|open| command.state.is_open() == open)
    });
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found
        .last()
        .filter(|_| more)
        .map(|last| cursor(paging::COMMANDS, last.seq.0));
    Ok(web::Json(Page {
        items: found.into_iter().map(CommandItem::from).collect(),
        next,
    }))
}

/// Takes back one command of a channel.
#[utoipa::path(delete, path = "/api/v1/devices/{id}/commands/{uuid}", tag = "devices",
    params(("id" = String, Path, description = "Enrollment id"), ("uuid" = String, Path, description = "CommandUUID")),
    responses(
        (status = 200, description = "What was taken back", body = Cancelled),
        (status = 401, description = "No valid token", body = Problem),
        (status = 403, description = "A scope is missing", body = Problem),
        (status = 404, description = "Unknown", body = Problem),
        (status = 503, description = "Our own trouble", body = Problem)))]
pub async fn cancel_one(
    admin: Admin,
    path: web::Path<(String, String)>,
    app: web::Data<App>,
) -> Result<web::Json<Cancelled>, Problem> {
    admin.demand(Scope::Command)?;
    let (_, channel) = channel(&app, &path.0)?;
    let (seq, _) = find(&app, &path.1)?;
    if app.store.command_on(channel.no, seq)?.is_none() {
        return Err(Problem::not_found(
            "this command is not addressed to this channel",
        ));
    }
    let outcome = app.store.cancel(Cancel::On(channel.no, seq)).await?;
    Ok(web::Json(outcome.into()))
}

/// Takes back all that waits for a channel.
#[utoipa::path(delete, path = "/api/v1/devices/{id}/commands", tag = "devices",
    params(("id" = String, Path, description = "Enrollment id")),
    responses(
        (status = 200, description = "What was taken back", body = Cancelled),
        (status = 401, description = "No valid token", body = Problem),
        (status = 403, description = "A scope is missing", body = Problem),
        (status = 404, description = "Unknown", body = Problem),
        (status = 503, description = "Our own trouble", body = Problem)))]
pub async fn cancel_all(
    admin: Admin,
    id: web::Path<String>,
    app: web::Data<App>,
) -> Result<web::Json<Cancelled>, Problem> {
    admin.demand(Scope::Command)?;
    let (_, channel) = channel(&app, &id)?;
    let outcome = app.store.cancel(Cancel::Channel(channel.no)).await?;
    Ok(web::Json(outcome.into()))
}

/// Wakes a channel now.
#[utoipa::path(post, path = "/api/v1/devices/{id}/wake", tag = "devices",
    params(("id" = String, Path, description = "Enrollment id")),
    responses(
        (status = 202, description = "The wake is on its way"),
        (status = 401, description = "No valid token", body = Problem),
        (status = 403, description = "A scope is missing", body = Problem),
        (status = 404, description = "Unknown", body = Problem),
        (status = 409, description = "It cannot be woken, and why", body = Problem),
        (status = 503, description = "Our own trouble", body = Problem)))]
pub async fn wake(
    admin: Admin,
    id: web::Path<String>,
    app: web::Data<App>,
) -> Result<HttpResponse, Problem> {
    admin.demand(Scope::Command)?;
    let (_, channel) = channel(&app, &id)?;
    let answer = app.pusher.send(Wake(vec![channel.no])).await;
    let answers =
        answer.map_err(|_| Problem::unavailable("the push supervisor is not running"))??;
    match answers.into_iter().next() {
        Some(Err(why)) => Err(Problem::conflict("not_woken", why.to_string())),
        _ => Ok(HttpResponse::Accepted().finish()),
    }
}

/// Lets a device that still counts as enrolled enroll again under a new identity, once.
#[utoipa::path(post, path = "/api/v1/devices/{id}/allow-reenroll", tag = "devices",
    params(("id" = String, Path, description = "Enrollment id")),
    responses(
        (status = 204, description = "Allowed"),
        (status = 401, description = "No valid token", body = Problem),
        (status = 403, description = "A scope is missing", body = Problem),
        (status = 404, description = "Unknown", body = Problem),
        (status = 503, description = "Our own trouble", body = Problem)))]
pub async fn allow_reenroll(
    admin: Admin,
    id: web::Path<String>,
    app: web::Data<App>,
) -> Result<HttpResponse, Problem> {
    admin.demand(Scope::Enroll)?;
    let (enrollment, _) = channel(&app, &id)?;
    app.registry
        .ask(&enrollment.channel.id, Opens::No, AllowReenroll)
        .await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Lets a device whose actor failed too often be served again.
#[utoipa::path(post, path = "/api/v1/devices/{id}/lift-quarantine", tag = "devices",
    params(("id" = String, Path, description = "Enrollment id")),
    responses(
        (status = 204, description = "Lifted"),
        (status = 401, description = "No valid token", body = Problem),
        (status = 403, description = "A scope is missing", body = Problem),
        (status = 404, description = "Unknown", body = Problem),
        (status = 503, description = "Our own trouble", body = Problem)))]
pub async fn lift_quarantine(
    admin: Admin,
    id: web::Path<String>,
    app: web::Data<App>,
) -> Result<HttpResponse, Problem> {
    admin.demand(Scope::Admin)?;
    let (enrollment, _) = channel(&app, &id)?;
    app.registry.lift_quarantine(&enrollment.channel.id).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// The channel an id in a path names.
///
/// # Errors
/// 404 when nobody here knows it.
pub fn channel(app: &App, id: &str) -> Result<(Enrollment, Channel), Problem> {
    let unknown = || Problem::not_found("there is no enrollment with this id");
    let id = EnrollId::parse(id).map_err(|_| unknown())?;
    app.store.channel(&id)?.ok_or_else(unknown)
}

/// `limit` and `cursor`, and the rest as a filter.
fn split_query(query: &str) -> Result<(Asked, Filter), Problem> {
    let bad =
        |error: serde_urlencoded::de::Error| Problem::bad_request("bad_query", error.to_string());
    let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query).map_err(bad)?;
    let (paging, rest): (Vec<_>, Vec<_>) = pairs
        .into_iter()
        .partition(|(key, _)| key == "limit" || key == "cursor");
    let read =
        |pairs: Vec<(String, String)>| serde_urlencoded::to_string(pairs).unwrap_or_default();
    let asked = serde_urlencoded::from_str(&read(paging)).map_err(bad)?;
    let filter = serde_urlencoded::from_str(&read(rest)).map_err(bad)?;
    Ok((asked, filter))
}

fn item(app: &App, device: &Device) -> Result<DeviceItem, Problem> {
    let enrollment = &device.enrollment;
    let facts = &enrollment.facts;
    let mut pending_commands = 0;
    let mut channels = Vec::with_capacity(1 + enrollment.users.len());
    for channel in enrollment.channels() {
        let push = match channel.state.push() {
            None => None,
            Some(push) => {
                pending_commands += app.store.pending(channel.no, enrollment.epoch)?.len();
                let dead = app.store.push_is_dead(channel.no, &push.token)?;
                Some(PushItem {
                    topic: push.topic.0.clone(),
                    state: if dead { "dead" } else { "ok" }.to_owned(),
                    last_push_at: app.store.last_pushed(channel.no)?.map(time),
                })
            }
        };
        channels.push(ChannelItem {
            id: channel.id.to_string(),
            kind: channel.kind.name().to_owned(),
            push,
        });
    }
    Ok(DeviceItem {
        id: enrollment.channel.id.to_string(),
        serial_number: facts.serial_number.clone(),
        name: device
            .annotation
            .name
            .clone()
            .unwrap_or_else(|| facts.name.clone()),
        model: facts.model.clone(),
        platform: facts.platform().to_owned(),
        os_version: facts.os_version.clone(),
        state: enrollment.channel.state.name().to_owned(),
        enrollment_type: enrollment.channel.kind.name().to_owned(),
        last_seen_at: device.last_seen.map(time),
        enrolled_at: enrollment.enrolled_at.map(time),
        pending_commands,
        tags: device.annotation.tags.clone(),
        channels,
    })
}

fn detail(app: &App, enrollment: Enrollment) -> Result<DeviceDetail, Problem> {
    let no = enrollment.channel.no;
    let certificate = match enrollment.bound {
        None => None,
        Some(leaf) => app.store.certificate(leaf)?.map(|record| CertificateItem {
            sha256: leaf.to_string(),
            serial: record.serial,
            not_after: time_of_seconds(record.not_after),
            expired: record.not_after
                < i64::try_from(app.clock.now().seconds()).unwrap_or(i64::MAX),
        }),
    };
    let device = Device {
        annotation: app.store.annotation(no)?,
        last_seen: app.store.last_seen(no)?,
        enrollment,
    };
    let quarantined = app
        .store
        .quarantined()?
        .iter()
        .any(|id| *id == device.enrollment.channel.id.as_str());
    Ok(DeviceDetail {
        item: item(app, &device)?,
        notes: device.annotation.notes.clone(),
        inventory: super::results::inventory(app, no)?,
        certificate,
        awaiting_configuration: device.enrollment.awaiting_configuration,
        reenroll_allowed: device.enrollment.allow_reenroll,
        quarantined,
    })
}

impl DeviceChange {
    fn apply(self, before: Annotation) -> Result<Annotation, Problem> {
        let name = match self.name {
            None => before.name,
            Some(name) if name.is_empty() => None,
            Some(name) if name.len() <= 255 => Some(name),
            Some(_) => return Err(Problem::field("/name", "is longer than 255 bytes")),
        };
        let tags = checked_tags(self.tags.unwrap_or(before.tags))?;
        let notes = self.notes.unwrap_or(before.notes);
        if notes.len() > 10_000 {
            return Err(Problem::field("/notes", "are longer than 10000 bytes"));
        }
        Ok(Annotation { name, tags, notes })
    }
}

/// Tags as they are kept: sorted, without repeats.
///
/// # Errors
/// 422 for a tag that cannot be one, or too many.
pub fn checked_tags(mut tags: Vec<String>) -> Result<Vec<String>, Problem> {
    let bad = tags.iter().position(|tag| {
        tag.is_empty() || tag.len() > 64 || tag.chars().any(|c| c.is_control() || c == ',')
    });
    if let Some(at) = bad {
        let why = "must be 1 to 64 bytes without commas or control characters";
        return Err(Problem::field(format!("/tags/{at}"), why));
    }
    tags.sort();
    tags.dedup();
    if tags.len() > 100 {
        return Err(Problem::field("/tags", "are more than 100"));
    }
    Ok(tags)
}

impl From<ChannelCommand> for CommandItem {
    fn from(of: ChannelCommand) -> Self {
        Self {
            command_uuid: of.command.uuid.to_string(),
            request_type: of.command.request_type,
            state: of.state.name().to_owned(),
            created_at: time(of.command.created),
            sent_at: of.sent_at.map(time),
            completed_at: of.completed_at.map(time),
            rollout_id: None,
            error_chain: of.errors,
            attempts: of.attempts,
            stuck: of.stuck,
        }
    }
}
