//! Devices: list them, look at one, say something of it, and what waits for it.

use actix_web::{HttpRequest, HttpResponse, web};
use actors::device::AllowReenroll;
use actors::pusher::Wake;
use actors::registry::Opens;
use actors::store::{Annotation, Cancel};
use schema::enrollment::{Channel, Enrollment};
use schema::{ChannelNo, EnrollId};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::commands::{Cancelled, find};
use super::device_items::{CommandItem, DeviceDetail, DeviceItem, detail, item};
use super::filter::Filter;
use super::json::strict_json;
use super::paging::{self, Asked, Page, cursor};
use crate::app::App;
use crate::auth::{Admin, Scope};
use crate::error::{Problem, Refusals};

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
        (status = 422, description = "A condition is at fault", body = Problem),
        Refusals))]
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
        .devices(after, limit, |device| test.takes(device, &app.store))?;
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
        (status = 404, description = "Unknown", body = Problem),
        Refusals))]
pub async fn show(
    admin: Admin,
    id: web::Path<String>,
    app: web::Data<App>,
) -> Result<web::Json<DeviceDetail>, Problem> {
    admin.demand(Scope::Read)?;
    let (enrollment, _) = channel(&app, &id)?;
    // What was just reported is shown, unless a whole fleet reported just now.
    if let Err(error) = app.store.learn(SLICES_READ).await {
        tracing::warn!(%error, "an inventory is shown as it was");
    }
    Ok(web::Json(detail(&app, enrollment)?))
}

/// Changes what an admin says of a device.
#[utoipa::path(patch, path = "/api/v1/devices/{id}", tag = "devices", request_body = DeviceChange,
    params(("id" = String, Path, description = "Enrollment id")),
    responses(
        (status = 200, description = "The device as it is now", body = DeviceDetail),
        (status = 400, description = "Unreadable JSON", body = Problem),
        (status = 404, description = "Unknown", body = Problem),
        (status = 415, description = "Not JSON", body = Problem),
        (status = 422, description = "A field is at fault", body = Problem),
        Refusals))]
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
        (status = 404, description = "Unknown", body = Problem),
        Refusals))]
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
        (status = 404, description = "Unknown", body = Problem),
        Refusals))]
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
        (status = 404, description = "Unknown", body = Problem),
        Refusals))]
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
        (status = 404, description = "Unknown", body = Problem),
        (status = 409, description = "It cannot be woken, and why", body = Problem),
        Refusals))]
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
        (status = 404, description = "Unknown", body = Problem),
        Refusals))]
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
        (status = 404, description = "Unknown", body = Problem),
        Refusals))]
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
/// Of the journal, into the inventory, before a device is shown.
const SLICES_READ: usize = 4;
