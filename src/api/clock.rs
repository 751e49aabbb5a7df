//! The server's clock: what it shows, whether it is in doubt, and an admin's word that
//! it is right.

use actix_web::web;
use serde::Serialize;
use utoipa::ToSchema;

use super::rendering::time;
use crate::app::App;
use crate::auth::{Admin, Scope};
use crate::error::Problem;

/// The clock.
#[derive(Debug, Serialize, ToSchema)]
pub struct ClockItem {
    /// The time it shows.
    pub now: String,
    /// The time by which things expire; it stands still while the clock is in doubt.
    pub expiry: String,
    /// Why it is in doubt, when it is.
    pub doubt: Option<String>,
}

/// Shows the clock.
#[utoipa::path(get, path = "/api/v1/clock", tag = "system",
    responses(
        (status = 200, description = "The clock", body = ClockItem),
        (status = 401, description = "No valid token", body = Problem),
        (status = 403, description = "A scope is missing", body = Problem),
        (status = 503, description = "Our own trouble", body = Problem)))]
pub async fn show(admin: Admin, app: web::Data<App>) -> Result<web::Json<ClockItem>, Problem> {
    admin.demand(Scope::Read)?;
    Ok(web::Json(item(&app)))
}

/// Confirms that the clock is right: things expire and are deleted by it again.
#[utoipa::path(post, path = "/api/v1/clock/confirm", tag = "system",
    responses(
        (status = 200, description = "The clock, no longer in doubt", body = ClockItem),
        (status = 401, description = "No valid token", body = Problem),
        (status = 403, description = "A scope is missing", body = Problem),
        (status = 503, description = "Our own trouble", body = Problem)))]
pub async fn confirm(admin: Admin, app: web::Data<App>) -> Result<web::Json<ClockItem>, Problem> {
    admin.demand(Scope::Admin)?;
    app.store.confirm_clock().await?;
    tracing::warn!(by = admin.principal(), "the clock was confirmed");
    Ok(web::Json(item(&app)))
}

fn item(app: &App) -> ClockItem {
    ClockItem {
        now: time(app.clock.now()),
        expiry: time(app.store.expiry_clock()),
        doubt: app.store.clock_doubt().map(|why| why.to_string()),
    }
}
