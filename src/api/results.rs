//! Results: what devices reported, as sent or as JSON.

use actix_web::http::header::ACCEPT;
use actix_web::{HttpRequest, HttpResponse, web};
use schema::ChannelNo;
use schema::report::ErrorItem;
use serde::Serialize;
use utoipa::ToSchema;

use super::commands::find;
use super::devices::channel;
use super::rendering::{tagged, time, told};
use crate::app::App;
use crate::auth::{Admin, Scope};
use crate::error::{Problem, Refusals};

/// A report as JSON.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ReportItem {
    /// Its command.
    pub command_uuid: String,
    /// What the device said.
    pub status: String,
    /// When it came.
    pub received_at: String,
    /// The server had closed the command before.
    pub late: bool,
    /// The device's errors, top first.
    #[schema(value_type = Vec<Object>)]
    pub error_chain: Vec<ErrorItem>,
    /// The whole report; data is `{"$data": base64}`, a date `{"$date": text}`. Null when
    /// retention took it or it cannot be read.
    #[schema(value_type = Option<Object>)]
    pub report: Option<serde_json::Value>,
}

/// Shows the report a device gave on a command: `Accept: application/xml` gives its bytes.
#[utoipa::path(get, path = "/api/v1/devices/{id}/commands/{uuid}/result", tag = "devices",
    params(("id" = String, Path, description = "Enrollment id"), ("uuid" = String, Path, description = "CommandUUID")),
    responses(
        (status = 200, description = "The report", content((ReportItem = "application/json"), (String = "application/xml"))),
        (status = 404, description = "Unknown, or no report yet", body = Problem),
        Refusals))]
pub async fn show(
    admin: Admin,
    path: web::Path<(String, String)>,
    request: HttpRequest,
    app: web::Data<App>,
) -> Result<HttpResponse, Problem> {
    admin.demand(Scope::Read)?;
    let (_, channel) = channel(&app, &path.0)?;
    let (seq, summary) = find(&app, &path.1)?;
    let stored = app.store.result(channel.no, seq)?;
    let stored =
        stored.ok_or_else(|| Problem::not_found("there is no report on this command yet"))?;
    let accept = request
        .headers()
        .get(ACCEPT)
        .and_then(|accept| accept.to_str().ok());
    if accept.is_some_and(|accept| accept.contains("xml")) {
        let body = stored
            .body
            .ok_or_else(|| Problem::not_found("retention took this report"))?;
        return Ok(HttpResponse::Ok()
            .content_type("application/xml")
            .body(body));
    }
    let parsed = stored
        .body
        .as_deref()
        .and_then(|body| schema::xml::parse(body).ok());
    Ok(HttpResponse::Ok().json(ReportItem {
        command_uuid: summary.command.uuid.to_string(),
        status: stored.status.name().to_owned(),
        received_at: time(stored.at),
        late: stored.late,
        error_chain: stored.errors,
        report: parsed.map(|report| tagged(&plist::Value::Dictionary(report))),
    }))
}

/// Everything a channel told of itself: each kind by its name, with the time of the last
/// report on it beside it.
///
/// # Errors
/// What the store says.
pub fn inventory(app: &App, channel: ChannelNo) -> Result<serde_json::Value, Problem> {
    let mut all = serde_json::Map::new();
    for (kind, known) in app.store.inventory(channel)? {
        all.insert(format!("{}_at", kind.name()), time(known.at).into());
        all.insert(kind.name().to_owned(), told(&known.facts));
    }
    Ok(all.into())
}
