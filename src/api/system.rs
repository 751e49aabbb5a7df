//! The server itself: alive, ready, counted, and which version.

use actix_web::{HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::push_certificates::topics;
use super::rendering::time;
use crate::app::App;
use crate::metrics::Metrics;

/// Whether the server can do its work, and what is in its way.
#[derive(Debug, Serialize, ToSchema)]
pub struct Readiness {
    /// All of it.
    pub ready: bool,
    /// What is in the way.
    pub reasons: Vec<String>,
    /// What deserves a look but stops nothing.
    pub warnings: Vec<String>,
    /// When the last backup was made.
    pub last_backup_at: Option<String>,
}

/// The process is up.
#[utoipa::path(get, path = "/healthz", tag = "system", security(()),
    responses((status = 200, description = "It is")))]
pub async fn healthz() -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain").body("ok\n")
}

/// Can the server do its work?
#[utoipa::path(get, path = "/readyz", tag = "system", security(()),
    responses(
        (status = 200, description = "It can", body = Readiness),
        (status = 503, description = "It cannot, and why", body = Readiness)))]
pub async fn readyz(app: web::Data<App>) -> HttpResponse {
    let mut reasons = Vec::new();
    let mut warnings = Vec::new();
    if let Some(why) = app.store.broken() {
        reasons.push(format!("storage failed: {why}"));
    }
    if app.store.full() {
        reasons.push("the disk is nearly full; writes are refused".to_owned());
    }
    if let Some(why) = app.store.clock_doubt() {
        warnings.push(format!(
            "{why}; nothing expires and nothing is deleted {UNTIL}"
        ));
    }
    warnings.extend(app.expiries.warnings(app.clock.now()));
    match topics(&app).await {
        Ok(topics) => {
            if topics.is_empty() {
                warnings.push("there is no push certificate; no device can be woken".to_owned());
            }
            warnings.extend(topics.iter().filter_map(|topic| {
                topic
                    .halted
                    .as_ref()
                    .map(|why| format!("pushes for {} are halted: {why}", topic.topic))
            }));
        }
        Err(problem) => reasons.push(problem.detail),
    }
    let last_backup = app.store.last_backup().ok().flatten();
    let ready = reasons.is_empty();
    let body = Readiness {
        ready,
        reasons,
        warnings,
        last_backup_at: last_backup.map(time),
    };
    if ready {
        HttpResponse::Ok().json(body)
    } else {
        HttpResponse::ServiceUnavailable().json(body)
    }
}

/// Prometheus metrics.
#[utoipa::path(get, path = "/metrics", tag = "system", security(()),
    responses((status = 200, description = "Text format", body = String, content_type = "application/openmetrics-text")))]
pub async fn metrics(app: web::Data<App>) -> HttpResponse {
    match Metrics::render(&app) {
        Ok(text) => HttpResponse::Ok()
            .content_type("application/openmetrics-text; version=1.0.0; charset=utf-8")
            .body(text),
        Err(_) => HttpResponse::InternalServerError().finish(),
    }
}

/// The version.
#[utoipa::path(get, path = "/version", tag = "system", security(()),
    responses((status = 200, description = "It", body = Object)))]
pub async fn version() -> HttpResponse {
    HttpResponse::Ok()
        .json(serde_json::json!({ "version": concat!("v", env!("CARGO_PKG_VERSION")) }))
}

/// What lifts the doubt about the clock.
const UNTIL: &str = "until it is set right, where it is wrong, and `reveille clock confirm` is run";
