//! The OpenAPI document, made from the handlers' own annotations.

use actix_web::HttpResponse;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::{
    backups, catalog, clock, commands, devices, enrollment_links, push_certificates, results,
    system,
};

/// The document.
#[derive(OpenApi)]
#[openapi(
    info(title = "Reveille", description = "The Apple MDM server in one binary: admin API."),
    paths(
        devices::list, devices::show, devices::change, devices::commands, devices::cancel_one,
        devices::cancel_all, devices::wake, devices::allow_reenroll, devices::lift_quarantine,
        results::show, commands::create, commands::show, commands::cancel,
        push_certificates::list, push_certificates::put, push_certificates::csr, catalog::list,
        enrollment_links::create, enrollment_links::list, enrollment_links::show,
        enrollment_links::revoke, enrollment_links::profile,
        backups::create, clock::show, clock::confirm,
        system::healthz, system::readyz, system::metrics, system::version,
    ),
    security(("token" = [])),
    modifiers(&Token),
)]
pub struct Document;

struct Token;

impl Modify for Token {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

/// Serves the document.
pub async fn openapi() -> HttpResponse {
    match Document::openapi().to_json() {
        Ok(text) => HttpResponse::Ok()
            .content_type("application/json")
            .body(text),
        Err(_) => HttpResponse::InternalServerError().finish(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_on_the_one_page_is_in_the_document() {
        let page = include_str!("mod.rs");
        let (outside, inside) = page.split_once("web::scope(\"/api/v1\")").unwrap();
        let routes_of = |page: &'static str, prefix: &'static str| {
            page.split(".route(").skip(1).map(move |route| {
                let path = format!("{prefix}{}", route.split('"').nth(1).unwrap());
                let method = route
                    .split("web::")
                    .nth(1)
                    .unwrap()
                    .split('(')
                    .next()
                    .unwrap();
                (path, method)
            })
        };
        let document = Document::openapi();
        let mut routes = 0;
        for (path, method) in routes_of(outside, "").chain(routes_of(inside, "/api/v1")) {
            if path == "/api/openapi.json" {
                continue;
            }
            let item = document
                .paths
                .paths
                .get(&path)
                .unwrap_or_else(|| panic!("{path}"));
            let item = serde_json::to_value(item).unwrap();
            let call = item
                .get(method)
                .unwrap_or_else(|| panic!("{method} {path}"));
            if path.starts_with("/api/v1") {
                for status in ["401", "403"] {
                    assert!(
                        call["responses"].get(status).is_some(),
                        "{method} {path} {status}"
                    );
                }
            }
            routes += 1;
        }
        assert!(routes >= 20, "{routes}");
    }
}
