//! Who calls: HTTP Basic with the dialect's key.
//!
//! The one extractor of the dialect's routes. Knows nothing of tokens: the key stands
//! for a principal of its own.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::http::header::AUTHORIZATION;
use actix_web::{FromRequest, HttpRequest, web};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::reply::Refusal;
use crate::app::App;
use crate::auth::{Admin, Scope};

/// Someone who knows the key.
#[derive(Clone, Debug)]
pub(super) struct Caller(pub(super) Admin);

impl FromRequest for Caller {
    type Error = Refusal;
    type Future = Ready<Result<Self, Refusal>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(authenticate(request).ok_or(Refusal::Unauthorized))
    }
}

fn authenticate(request: &HttpRequest) -> Option<Caller> {
    let app = request.app_data::<web::Data<App>>()?;
    let key = app.nanomdm_api_key.as_deref()?;
    let header = request.headers().get(AUTHORIZATION)?.to_str().ok()?;
    let (user, password) = credentials(header)?;
    let known = user == USER || (user == NANOHUB_USER && request.path().starts_with(NANOHUB));
    if !(known && is_same(&password, key)) {
        return None;
    }
    let source = request.peer_addr().map(|peer| peer.ip().to_string());
    Some(Caller(Admin::dialect(
        PRINCIPAL,
        &[Scope::Read, Scope::Command, Scope::Destructive],
        source.unwrap_or_default(),
    )))
}

/// User and password of a Basic header (RFC 7617).
fn credentials(header: &str) -> Option<(String, String)> {
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = STANDARD.decode(encoded.trim()).ok()?;
    let decoded = String::from_utf8(decoded).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// Compares without telling by time how much is the same, or how long the key is.
fn is_same(given: &str, key: &str) -> bool {
    let hash = |text: &str| digest(&SHA256, text.as_bytes());
    verify_slices_are_equal(hash(given).as_ref(), hash(key).as_ref()).is_ok()
}

/// Where NanoHUB mounts this API; it names its user otherwise.
pub(super) const NANOHUB: &str = "/api/v1/nanomdm";
const NANOHUB_USER: &str = "nanohub";
const USER: &str = "nanomdm";
const PRINCIPAL: &str = "nanomdm";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_split_at_the_first_colon() {
        let cases = [
            ("Basic bmFub21kbTprOmV5", Some(("nanomdm", "k:ey"))),
            ("basic bmFub21kbTo=", Some(("nanomdm", ""))),
            ("Basic bmFub21kbQ==", None),
            ("Basic !", None),
            ("Bearer bmFub21kbTprOmV5", None),
            ("Basic", None),
        ];
        for (header, expected) in cases {
            let read = credentials(header);
            let read = read.as_ref().map(|(u, p)| (u.as_str(), p.as_str()));
            assert_eq!(read, expected, "{header}");
        }
    }

    #[test]
    fn only_the_key_is_the_key() {
        assert!(is_same("secret", "secret"));
        for other in ["", "secre", "secrets", "Secret"] {
            assert!(!is_same(other, "secret"), "{other:?}");
        }
    }
}
