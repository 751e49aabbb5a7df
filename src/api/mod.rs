//! The admin API: one line per route. Each resource has its file.

pub mod backups;
pub mod catalog;
pub mod clock;
pub mod commands;
pub mod device_items;
pub mod devices;
pub mod docs;
pub mod enrollment_links;
pub mod filter;
pub mod fitness;
pub mod json;
pub mod paging;
pub mod push_certificates;
pub mod rendering;
pub mod results;
pub mod system;
pub mod targets;

use actix_web::http::Method;
use actix_web::{HttpRequest, web};

use crate::auth::authenticate;
use crate::error::Problem;

/// Mounts the admin API.
pub fn routes(config: &mut web::ServiceConfig) {
    config
        .app_data(
            web::JsonConfig::default()
                .limit(BODY_CAP)
                .error_handler(json::refused),
        )
        .app_data(
            web::QueryConfig::default().error_handler(|error, _| {
                Problem::bad_request("bad_query", error.to_string()).into()
            }),
        )
        .app_data(web::PayloadConfig::new(BODY_CAP))
        .route("/healthz", web::get().to(system::healthz))
        .route("/readyz", web::get().to(system::readyz))
        .route("/metrics", web::get().to(system::metrics))
        .route("/version", web::get().to(system::version))
        .route("/api/openapi.json", web::get().to(docs::openapi))
        .service(
            web::scope("/api/v1")
                .route("/devices", web::get().to(devices::list))
                .route("/devices/{id}", web::get().to(devices::show))
                .route("/devices/{id}", web::patch().to(devices::change))
                .route("/devices/{id}/commands", web::get().to(devices::commands))
                .route(
                    "/devices/{id}/commands",
                    web::delete().to(devices::cancel_all),
                )
                .route(
                    "/devices/{id}/commands/{uuid}",
                    web::delete().to(devices::cancel_one),
                )
                .route(
                    "/devices/{id}/commands/{uuid}/result",
                    web::get().to(results::show),
                )
                .route("/devices/{id}/wake", web::post().to(devices::wake))
                .route(
                    "/devices/{id}/allow-reenroll",
                    web::post().to(devices::allow_reenroll),
                )
                .route(
                    "/devices/{id}/lift-quarantine",
                    web::post().to(devices::lift_quarantine),
                )
                .route("/commands", web::post().to(commands::create))
                .route("/commands/{uuid}", web::get().to(commands::show))
                .route("/commands/{uuid}", web::delete().to(commands::cancel))
                .route("/push-certificates", web::get().to(push_certificates::list))
                .route("/push-certificates", web::put().to(push_certificates::put))
                .route(
                    "/push-certificates/csr",
                    web::post().to(push_certificates::csr),
                )
                .route(
                    "/enrollment-links",
                    web::post().to(enrollment_links::create),
                )
                .route("/enrollment-links", web::get().to(enrollment_links::list))
                .route(
                    "/enrollment-links/{id}",
                    web::get().to(enrollment_links::show),
                )
                .route(
                    "/enrollment-links/{id}",
                    web::delete().to(enrollment_links::revoke),
                )
                .route(
                    "/enrollment-links/{id}/profile",
                    web::get().to(enrollment_links::profile),
                )
                .route("/backups", web::post().to(backups::create))
                .route("/clock", web::get().to(clock::show))
                .route("/clock/confirm", web::post().to(clock::confirm))
                .route("/catalog", web::get().to(catalog::list))
                .default_service(web::to(unknown)),
        )
        .default_service(web::to(unknown));
}

/// An unknown path is 404, but only to those who may know.
async fn unknown(request: HttpRequest) -> Result<&'static str, Problem> {
    authenticate(&request)?;
    let known = request.match_pattern().is_some()
        && request.method() != Method::GET
        && !hides_a_slash(request.uri().path());
    if known {
        return Err(Problem::method_not_allowed());
    }
    Err(Problem::not_found("there is nothing at this path"))
}

/// A slash that is escaped parts nothing: such a path only looks like one that is served.
fn hides_a_slash(path: &str) -> bool {
    let path = path.to_ascii_lowercase();
    path.contains("%2f") || path.contains("%5c")
}

const BODY_CAP: usize = 16 << 20;
