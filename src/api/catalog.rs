//! The catalog: every command the server knows, for people and programs.

use actix_web::web;
use schema::catalog::CATALOG;

use crate::auth::{Admin, Scope};
use crate::error::Problem;

/// Lists every command: keys, kinds, rights, platforms and danger.
#[utoipa::path(get, path = "/api/v1/catalog", tag = "commands",
    responses(
        (status = 200, description = "All commands", body = Object),
        (status = 401, description = "No valid token", body = Problem),
        (status = 403, description = "A scope is missing", body = Problem)))]
pub async fn list(admin: Admin) -> Result<web::Json<serde_json::Value>, Problem> {
    admin.demand(Scope::Read)?;
    let items: Vec<_> = CATALOG.iter().map(|row| row.describe()).collect();
    Ok(web::Json(
        serde_json::json!({ "items": items, "next": null }),
    ))
}
