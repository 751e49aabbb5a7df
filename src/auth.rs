//! Who an admin is: bearer tokens, their scopes, and the extractors that demand them.
//!
//! Default deny: a route without one of these extractors does not exist. A token's
//! secret is never stored, only its SHA-256.

use std::future::{Ready, ready};
use std::sync::Arc;

use actix_web::dev::Payload;
use actix_web::http::header::AUTHORIZATION;
use actix_web::{FromRequest, HttpRequest, web};
use actors::store::TokenRecord;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schema::UnixMillis;

use crate::app::App;
use crate::error::Problem;

/// What a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Scope {
    /// Read devices, commands and results.
    Read,
    /// Queue and cancel commands.
    Command,
    /// Run rollouts.
    Rollout,
    /// Queue destructive commands.
    Destructive,
    /// Reveal secrets.
    Secrets,
    /// Let devices enroll.
    Enroll,
    /// Everything that concerns the server itself.
    Admin,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 7] = [
        Self::Read,
        Self::Command,
        Self::Rollout,
        Self::Destructive,
        Self::Secrets,
        Self::Enroll,
        Self::Admin,
    ];

    /// Its name in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Command => "command",
            Self::Rollout => "rollout",
            Self::Destructive => "destructive",
            Self::Secrets => "secrets",
            Self::Enroll => "enroll",
            Self::Admin => "admin",
        }
    }
}

/// An admin whose token is valid. Handlers demand scopes of it.
#[derive(Clone, Debug)]
pub struct Admin {
    token: Arc<TokenRecord>,
    /// Where the request came from.
    pub source: String,
}

impl Admin {
    /// An admin who proved who they are by the key of a dialect, which is no token.
    #[must_use]
    pub fn dialect(principal: &str, scopes: &[Scope], source: String) -> Self {
        let token = TokenRecord {
            id: principal.to_owned(),
            ..token_record(&[0; 32], principal, scopes, UnixMillis::default(), None)
        };
        Self {
            token: Arc::new(token),
            source,
        }
    }

    /// Demands a scope.
    ///
    /// # Errors
    /// 403 naming the scope.
    pub fn demand(&self, scope: Scope) -> Result<(), Problem> {
        if self.token.scopes.iter().any(|has| has == scope.name()) {
            return Ok(());
        }
        Err(Problem::forbidden(
            "missing_scope",
            format!("this token lacks the scope {:?}", scope.name()),
        ))
    }

    /// The person or service the token belongs to.
    #[must_use]
    pub fn principal(&self) -> &str {
        &self.token.principal
    }

    /// The token's public handle.
    #[must_use]
    pub fn token_id(&self) -> &str {
        &self.token.id
    }
}

impl FromRequest for Admin {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(authenticate(request))
    }
}

/// The admin behind a request.
///
/// # Errors
/// 401 without a valid token.
pub fn authenticate(request: &HttpRequest) -> Result<Admin, Problem> {
    let app = request
        .app_data::<web::Data<App>>()
        .ok_or_else(|| Problem::unavailable("starting"))?;
    let header = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let secret = header
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, secret)| secret.trim())
        .ok_or_else(|| Problem::unauthorized("a bearer token is needed"))?;
    let token = app
        .store
        .token(&hash(secret))
        .filter(|token| is_valid(token, app.clock.now()))
        .ok_or_else(|| Problem::unauthorized("the token is unknown, expired or revoked"))?;
    let source = request
        .peer_addr()
        .map(|peer| peer.ip().to_string())
        .unwrap_or_default();
    Ok(Admin { token, source })
}

/// A new token: its secret, to be shown once, and the hash it is stored under.
///
/// # Errors
/// When the machine gives no randomness.
pub fn new_token() -> Result<(String, [u8; 32]), aws_lc_rs::error::Unspecified> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes)?;
    let secret = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
    let hash = hash(&secret);
    Ok((secret, hash))
}

/// The record of a new token.
#[must_use]
pub fn token_record(
    hash: &[u8; 32],
    principal: &str,
    scopes: &[Scope],
    now: UnixMillis,
    expires: Option<UnixMillis>,
) -> TokenRecord {
    TokenRecord {
        id: URL_SAFE_NO_PAD.encode(hash.get(..6).unwrap_or_default()),
        principal: principal.to_owned(),
        scopes: scopes.iter().map(|scope| scope.name().to_owned()).collect(),
        created: now,
        expires,
        revoked: false,
    }
}

fn is_valid(token: &TokenRecord, now: UnixMillis) -> bool {
    !token.revoked && token.expires.is_none_or(|expires| expires > now)
}

fn hash(secret: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    let digest = digest(&SHA256, secret.as_bytes());
    hash.iter_mut()
        .zip(digest.as_ref())
        .for_each(|(to, from)| *to = *from);
    hash
}

const PREFIX: &str = "rvl_";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_by_its_hash_and_void_when_expired_or_revoked() {
        let (secret, stored) = new_token().unwrap();
        assert!(secret.starts_with("rvl_") && secret.len() == 47);
        assert_eq!(hash(&secret), stored);
        let now = UnixMillis(1000);
        let token = |expires, revoked| TokenRecord {
            revoked,
            ..token_record(&stored, "a", &[Scope::Read], now, expires)
        };
        assert!(is_valid(&token(None, false), now));
        assert!(is_valid(&token(Some(UnixMillis(1001)), false), now));
        assert!(!is_valid(&token(Some(now), false), now));
        assert!(!is_valid(&token(None, true), now));
    }
}
