//! Every HTTP status of the house, and the two shapes an error takes.
//!
//! To a device: never 401; our own faults are 503 with Retry-After. To an admin:
//! RFC 9457 problem documents with a stable code.

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{ContentType, RETRY_AFTER};
use actix_web::{HttpResponse, ResponseError};
use actors::profile_signer::SignerError;
use actors::scep::ScepError;
use actors::store::Refusal;
use actors::{Fault, StoreError};
use schema::catalog::FieldError;
use schema::checkin::Misread;
use schema::enrollment::Misbehaved;
use schema::link::LinkVoid;
use schema::ota::AnswerError;
use schema::renewal::Obstacle;
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

use crate::identity::{IdentityError, MessageError};
use crate::link_limits::TooOften;
use crate::public_url::NoPublicUrl;

/// Why a device's request is not served.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// It did not prove who it is.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Its message cannot be read.
    #[error(transparent)]
    Misread(#[from] Misread),
    /// What the floors below say.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// An unreadable report under an identity that is bound to nothing.
    #[error("the identity certificate is bound to no enrollment")]
    Unbound,
    /// Too much is going on.
    #[error("overloaded")]
    Overloaded,
    /// The body is too long for its kind.
    #[error("the body is longer than {0} bytes")]
    TooLong(usize),
    /// The body did not arrive in time.
    #[error("the body did not arrive in time")]
    TooSlow,
    /// The connection ended in the middle of the body.
    #[error("the body is incomplete")]
    Incomplete,
    /// What the SCEP server says.
    #[error(transparent)]
    Scep(#[from] ScepError),
    /// The query is none of SCEP's.
    #[error("the query has {0}")]
    Query(&'static str),
    /// A `Content-Encoding`.
    #[error("a Content-Encoding is not accepted")]
    Encoded,
    /// Another Content-Type than the door takes.
    #[error("{0} is expected")]
    MediaType(&'static str),
    /// A signed message that proves nothing.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// What a device says of itself cannot be used.
    #[error("the device's answer: {0}")]
    Answer(#[from] AnswerError),
    /// A step of over-the-air enrollment that leads nowhere.
    #[error(transparent)]
    Step(#[from] Refusal),
    /// A profile that cannot be handed out.
    #[error(transparent)]
    Enroll(#[from] EnrollError),
    /// A path of no enrollment link.
    #[error("there is no such enrollment link")]
    UnknownLink,
    /// One enrollment link asks too much.
    #[error(transparent)]
    TooOften(#[from] TooOften),
    /// A report at the listener of check-ins.
    #[error("only check-ins are taken here")]
    NotHere,
    /// A request on a connection that was for a CA to look at.
    #[error("nothing is said over acme-tls/1")]
    Validation,
}

impl From<StoreError> for DeviceError {
    fn from(error: StoreError) -> Self {
        Self::Fault(error.into())
    }
}

impl DeviceError {
    /// The word for it in metrics and logs.
    #[must_use]
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Identity(_) => "bad_identity",
            Self::Misread(Misread::UnknownMessageType(_)) => "unknown_message_type",
            Self::Misread(_) => "unreadable",
            Self::Fault(fault) => match fault {
                Fault::Misbehaved(_) => "refused",
                Fault::Unknown(_) => "unknown_enrollment",
                Fault::Store(StoreError::BoundElsewhere(_)) => "refused",
                Fault::Store(_) => "store",
                Fault::Overloaded => "overloaded",
                Fault::Panicked(_) => "panicked",
                Fault::Quarantined(_) => "quarantined",
                Fault::Stopping => "stopping",
            },
            Self::Scep(ScepError::Unreadable(_)) | Self::Query(_) => "unreadable",
            Self::Scep(ScepError::Store(_)) => "store",
            Self::Scep(ScepError::Ca(_)) => "ca",
            Self::Scep(ScepError::Stopping) => "stopping",
            Self::Unbound => "unknown_enrollment",
            Self::Overloaded => "overloaded",
            Self::TooLong(_) => "too_long",
            Self::TooSlow => "too_slow",
            Self::Incomplete => "incomplete",
            Self::Encoded => "encoded",
            Self::MediaType(_) => "media_type",
            Self::Message(MessageError::Unreadable(_)) | Self::Answer(_) => "unreadable",
            Self::Message(MessageError::Signer(_)) => "bad_identity",
            Self::Step(refusal) => match refusal {
                Refusal::Unknown => "unknown_challenge",
                Refusal::Expired => "expired",
                Refusal::Used | Refusal::OtherDevice => "another_device",
                Refusal::Link(void) => void.name(),
                Refusal::NotBound | Refusal::NotProof => "not_proof",
            },
            Self::Enroll(error) => error.outcome(),
            Self::UnknownLink => "unknown_link",
            Self::TooOften(_) => "too_often",
            Self::NotHere | Self::Validation => "not_here",
        }
    }
}

impl ResponseError for DeviceError {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Identity(_)
            | Self::Unbound
            | Self::Message(MessageError::Signer(_))
            | Self::Step(_) => StatusCode::FORBIDDEN,
            Self::Enroll(error) => match error.status_code() {
                StatusCode::GONE | StatusCode::NOT_FOUND => StatusCode::FORBIDDEN,
                status => status,
            },
            Self::Misread(_)
            | Self::Message(MessageError::Unreadable(_))
            | Self::Answer(_)
            | Self::Incomplete
            | Self::Query(_)
            | Self::Scep(ScepError::Unreadable(_)) => StatusCode::BAD_REQUEST,
            Self::Scep(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Fault(fault) => match fault {
                Fault::Misbehaved(Misbehaved::NoTokenService | Misbehaved::UnknownEndpoint) => {
                    StatusCode::BAD_REQUEST
                }
                Fault::Misbehaved(_)
                | Fault::Unknown(_)
                | Fault::Store(StoreError::BoundElsewhere(_)) => StatusCode::FORBIDDEN,
                _ => StatusCode::SERVICE_UNAVAILABLE,
            },
            Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooLong(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Encoded | Self::MediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooOften(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::UnknownLink | Self::NotHere | Self::Validation => StatusCode::NOT_FOUND,
        }
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        let mut response = HttpResponse::build(self.status_code());
        if self.status_code() == StatusCode::SERVICE_UNAVAILABLE {
            response.insert_header((RETRY_AFTER, retry_after().to_string()));
            return response.finish();
        }
        if let Self::TooOften(TooOften(wait)) = self {
            response.insert_header((RETRY_AFTER, wait.as_secs().to_string()));
        }
        response
            .content_type(ContentType::plaintext())
            .body(self.to_string())
    }
}

/// Why an enrollment link is not served.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// Nobody made a link with this secret.
    #[error("there is no such enrollment link")]
    Unknown,
    /// It lets nobody through any more.
    #[error(transparent)]
    Void(#[from] LinkVoid),
    /// It is asked for too often.
    #[error(transparent)]
    TooOften(#[from] TooOften),
    /// The server's URLs or its signer changed since it was made.
    #[error("the enrollment link was made before the server's URLs changed")]
    Outdated,
    /// Devices cannot be told where the server is.
    #[error(transparent)]
    NoPublicUrl(#[from] NoPublicUrl),
    /// The store did not take or give it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The profile cannot be signed.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// The identity it is to carry cannot be made.
    #[error(transparent)]
    Identity(#[from] ScepError),
    /// What its enrollment profile said cannot be said again.
    #[error(transparent)]
    NotRenewable(#[from] Obstacle),
    /// The server is going down.
    #[error("shutting down")]
    Stopping,
}

impl EnrollError {
    /// The word for it in metrics.
    #[must_use]
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown_link",
            Self::Void(void) => void.name(),
            Self::TooOften(_) => "too_often",
            Self::Outdated => "outdated_link",
            Self::NoPublicUrl(_) => "no_public_url",
            Self::Store(_) => "store",
            Self::Signer(_) => "signer",
            Self::Identity(_) => "identity",
            Self::NotRenewable(_) => "not_renewable",
            Self::Stopping => "stopping",
        }
    }
}

impl ResponseError for EnrollError {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Unknown => StatusCode::NOT_FOUND,
            Self::Void(_) | Self::Outdated => StatusCode::GONE,
            Self::TooOften(_) => StatusCode::TOO_MANY_REQUESTS,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        let mut response = HttpResponse::build(self.status_code());
        let words = match self {
            Self::Unknown => "there is no such enrollment link\n",
            Self::Void(_) | Self::Outdated => "this enrollment link is no longer valid\n",
            Self::TooOften(TooOften(wait)) => {
                response.insert_header((RETRY_AFTER, wait.as_secs().to_string()));
                "this enrollment link is used too often, try again in a moment\n"
            }
            _ => {
                response.insert_header((RETRY_AFTER, retry_after().to_string()));
                "no device can be enrolled now\n"
            }
        };
        response.content_type(ContentType::plaintext()).body(words)
    }
}

/// Seconds a device is asked to wait, spread so that a fleet does not come back at once.
fn retry_after() -> u16 {
    let mut byte = [0];
    // Without randomness there is no spread, which is harmless.
    let _ = aws_lc_rs::rand::fill(&mut byte);
    5 + u16::from(byte[0]) % 26
}

/// An error to an admin: an RFC 9457 problem document.
#[derive(Clone, Debug, Serialize, ToSchema, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Problem {
    /// Always `about:blank`; `code` tells problems apart.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: String,
    /// The HTTP status.
    status: u16,
    /// Stable, for programs.
    pub code: &'static str,
    /// For people.
    pub detail: String,
    /// Which fields are at fault.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Field>,
}

/// The refusals every call of the admin API may give, for the OpenAPI document.
#[derive(IntoResponses)]
pub enum Refusals {
    /// No valid token.
    #[response(status = 401)]
    Unauthorized(#[to_schema] Problem),
    /// A scope is missing; it is named.
    #[response(status = 403)]
    Forbidden(#[to_schema] Problem),
    /// Our own trouble; try again.
    #[response(status = 503)]
    Unavailable(#[to_schema] Problem),
}

/// A field at fault.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Field {
    /// JSON pointer (RFC 6901).
    pub pointer: String,
    /// What is wrong with it.
    pub detail: String,
}

impl From<FieldError> for Field {
    fn from(error: FieldError) -> Self {
        Self {
            pointer: error.pointer,
            detail: error.detail,
        }
    }
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or_default().to_owned(),
            status: status.as_u16(),
            code,
            detail: detail.into(),
            errors: Vec::new(),
        }
    }

    /// 400: the request cannot be read.
    pub fn bad_request(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// 401: no token, or none that is valid.
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
    }

    /// 403: the token lacks a scope.
    pub fn forbidden(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, detail)
    }

    /// 404: there is no such thing.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    /// 405: not with this method.
    pub fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "this path does not take this method",
        )
    }

    /// 409: it conflicts with what is.
    pub fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    /// 413: too long.
    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
    }

    /// 415: another media type is expected.
    pub fn media_type(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media_type", detail)
    }

    /// 422: readable, but fields are at fault.
    pub fn unprocessable(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail)
    }

    /// 422 with one field at fault.
    pub fn field(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::fields(vec![Field {
            pointer: pointer.into(),
            detail: detail.into(),
        }])
    }

    /// 422 with fields at fault.
    pub fn fields(errors: Vec<Field>) -> Self {
        let detail = errors.first().map_or_else(String::new, |first| {
            format!("{}: {}", first.pointer, first.detail)
        });
        Self {
            errors,
            ..Self::unprocessable("invalid_field", detail)
        }
    }

    /// Names the fields at fault.
    #[must_use]
    pub fn with_errors(self, errors: Vec<Field>) -> Self {
        Self { errors, ..self }
    }

    /// 503: our own trouble.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let detail = error.to_string();
        match error {
            StoreError::DuplicateUuid(_) => Self::conflict("duplicate_command_uuid", detail),
            StoreError::IdempotencyMismatch => {
                Self::unprocessable("idempotency_key_reused", detail)
            }
            StoreError::Guard { .. } => Self::conflict("guard_threshold", detail),
            StoreError::TooManyOpen(_) => Self::conflict("too_many_open", detail),
            StoreError::BoundElsewhere(_) => Self::conflict("bound_elsewhere", detail),
            StoreError::BackupRuns => Self::conflict("backup_running", detail),
            StoreError::LinkExists(_) => Self::conflict("link_exists", detail),
            _ => {
                tracing::error!(error = detail, "the store failed a request");
                Self::unavailable("the store cannot take or give this now")
            }
        }
    }
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Store(error) => error.into(),
            Fault::Unknown(id) => Self::not_found(format!("there is no enrollment {id}")),
            Fault::Misbehaved(why) => Self::conflict("refused", why.to_string()),
            Fault::Quarantined(_) => Self::conflict("quarantined", fault.to_string()),
            Fault::Overloaded | Fault::Panicked(_) | Fault::Stopping => {
                Self::unavailable(fault.to_string())
            }
        }
    }
}

impl From<NoPublicUrl> for Problem {
    fn from(why: NoPublicUrl) -> Self {
        Self::conflict("no_public_url", why.to_string())
    }
}

impl From<EnrollError> for Problem {
    fn from(error: EnrollError) -> Self {
        let detail = error.to_string();
        match error {
            EnrollError::Unknown => Self::not_found(detail),
            EnrollError::Void(_) | EnrollError::Outdated => Self::conflict("link_void", detail),
            EnrollError::NoPublicUrl(why) => why.into(),
            EnrollError::Store(error) => error.into(),
            EnrollError::TooOften(_)
            | EnrollError::Signer(_)
            | EnrollError::Identity(_)
            | EnrollError::NotRenewable(_)
            | EnrollError::Stopping => Self::unavailable(detail),
        }
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        let mut response = HttpResponse::build(self.status_code());
        if self.status == 401 {
            response.insert_header(("WWW-Authenticate", "Bearer realm=\"reveille\""));
        }
        if self.status == 503 {
            response.insert_header((RETRY_AFTER, "2"));
        }
        let body = serde_json::to_string(self).unwrap_or_default();
        response.content_type("application/problem+json").body(body)
    }
}
