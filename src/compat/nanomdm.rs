//! The NanoMDM dialect.

use actix_web::web;

/// Mounts it.
pub fn routes(_: &mut web::ServiceConfig) {}
