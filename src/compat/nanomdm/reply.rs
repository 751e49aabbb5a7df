//! What the dialect answers, and every HTTP status of it.
//!
//! JSON is indented by tabs and ends with a newline, keys without a value are absent.
//! Shapes and statuses are NanoMDM's (contracts.md 2a).

use std::collections::BTreeMap;
use std::fmt;

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, ContentType, WWW_AUTHENTICATE};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, Responder, ResponseError};
use serde::Serialize;
use serde_json::ser::PrettyFormatter;

use crate::error::Problem;

/// The outcome of a push or an enqueue.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct ApiResult {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    status: BTreeMap<String, IdResult>,
    /// No push was wanted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) no_push: bool,
    /// Why nobody is woken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) push_error: Option<String>,
    /// Why nothing is queued.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) command_error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) command_uuid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) request_type: Option<String>,
    #[serde(skip)]
    asked: usize,
}

/// The outcome for one id.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct IdResult {
    /// Why it is not woken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) push_error: Option<String>,
    /// The id of its wake.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) push_result: Option<String>,
    /// Why the command is not queued for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) command_error: Option<String>,
}

impl ApiResult {
    /// The result of a request that names so many ids.
    pub(super) fn for_ids(asked: usize) -> Self {
        Self {
            asked,
            ..Self::default()
        }
    }

    /// A push that failed as a whole.
    pub(super) fn push_failed(why: String) -> Self {
        Self {
            push_error: Some(why),
            ..Self::default()
        }
    }

    /// An enqueue that failed as a whole.
    pub(super) fn command_failed(why: String) -> Self {
        Self {
            command_error: Some(why),
            ..Self::default()
        }
    }

    /// The outcome for an id.
    pub(super) fn of(&mut self, id: &str) -> &mut IdResult {
        self.status.entry(id.to_owned()).or_default()
    }

    fn status_code(&self) -> StatusCode {
        let whole = self.push_error.is_some() || self.command_error.is_some();
        let failed = |id: &&IdResult| id.push_error.is_some() || id.command_error.is_some();
        let failed = self.status.values().filter(failed).count();
        status_code(whole, failed, self.asked)
    }
}

/// NanoMDM's rule: any error of the whole, or of every id, is 500; of some ids, 207.
fn status_code(whole: bool, failed: usize, asked: usize) -> StatusCode {
    match (whole, failed) {
        (true, _) => StatusCode::INTERNAL_SERVER_ERROR,
        (false, 0) => StatusCode::OK,
        (false, failed) if failed < asked => StatusCode::MULTI_STATUS,
        (false, _) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl Responder for ApiResult {
    type Body = BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse {
        json(HttpResponse::build(self.status_code()), &self)
    }
}

/// A push certificate in use.
#[derive(Clone, Debug, Serialize)]
pub(super) struct PushCert {
    pub(super) topic: String,
    /// RFC 3339.
    pub(super) not_after: String,
}

impl Responder for PushCert {
    type Body = BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse {
        json(HttpResponse::Ok(), &self)
    }
}

/// Why a request is not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Without the key.
    Unauthorized,
    /// Nothing at this path.
    Unknown,
    /// Not with this method.
    OtherMethod,
    /// The request is at fault.
    BadRequest(String),
    /// What is here already stands against it.
    Conflict(String),
    /// We are.
    Failed(String),
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        if problem.status_code().is_client_error() {
            Self::BadRequest(problem.detail)
        } else {
            Self::Failed(problem.detail)
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadRequest(why) | Self::Conflict(why) | Self::Failed(why) => f.write_str(why),
            _ => f.write_str(self.status_code().canonical_reason().unwrap_or_default()),
        }
    }
}

impl ResponseError for Refusal {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Unknown => StatusCode::NOT_FOUND,
            Self::OtherMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        #[derive(Serialize)]
        struct Body<'a> {
            error: &'a str,
        }
        let mut response = HttpResponse::build(self.status_code());
        match self {
            Self::BadRequest(error) | Self::Conflict(error) | Self::Failed(error) => {
                return json(response, &Body { error });
            }
            Self::Unauthorized => {
                response.insert_header((WWW_AUTHENTICATE, "Basic realm=\"nanomdm\""));
            }
            Self::OtherMethod => {
                response.insert_header((ALLOW, "GET, PUT"));
            }
            Self::Unknown => {}
        }
        response
            .content_type(ContentType::plaintext())
            .body(format!("{self}\n"))
    }
}

fn json(mut response: HttpResponseBuilder, body: &impl Serialize) -> HttpResponse {
    let mut text = Vec::new();
    let indent = PrettyFormatter::with_indent(b"\t");
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, indent);
    match body.serialize(&mut serializer) {
        Ok(()) => text.push(b'\n'),
        // Strings and maps of strings in memory always serialise.
        Err(_) => text.clear(),
    }
    response.content_type("application/json").body(text)
}

#[cfg(test)]
mod tests {
    use actix_web::body::to_bytes;
    use actix_web::test::TestRequest;

    use super::*;

    fn header<'r>(response: &'r HttpResponse, name: &str) -> &'r str {
        response.headers().get(name).unwrap().to_str().unwrap()
    }

    #[test]
    fn the_status_says_whether_all_some_or_none_succeeded() {
        let cases = [
            (false, 0, 1, 200),
            (false, 0, 0, 200),
            (false, 1, 1, 500),
            (false, 1, 2, 207),
            (false, 2, 2, 500),
            (false, 3, 2, 500),
            (true, 0, 2, 500),
            (true, 1, 2, 500),
            (true, 0, 0, 500),
        ];
        for (whole, failed, asked, expected) in cases {
            let status = status_code(whole, failed, asked);
            assert_eq!(status.as_u16(), expected, "{whole} {failed} {asked}");
        }
    }

    #[test]
    fn an_id_with_two_errors_counts_once() {
        let mut result = ApiResult::for_ids(2);
        result.of("a").push_error = Some("x".into());
        result.of("a").command_error = Some("y".into());
        result.of("b").push_result = Some("z".into());
        assert_eq!(result.status_code(), StatusCode::MULTI_STATUS);
        assert_eq!(ApiResult::push_failed("x".into()).status_code(), 500);
    }

    #[actix_web::test]
    async fn json_is_indented_by_tabs_and_leaves_out_what_is_empty() {
        let mut result = ApiResult::for_ids(1);
        result.of("a").push_result = Some("p".into());
        result.command_uuid = Some("u".into());
        let response = result.respond_to(&TestRequest::default().to_http_request());
        assert_eq!(header(&response, "content-type"), "application/json");
        let body = to_bytes(response.into_body()).await.unwrap();
        let expected = "{\n\t\"status\": {\n\t\t\"a\": {\n\t\t\t\"push_result\": \"p\"\n\t\t}\n\t},\n\
                        \t\"command_uuid\": \"u\"\n}\n";
        assert_eq!(body, expected);
    }

    #[actix_web::test]
    async fn a_refusal_is_text_or_an_error_object() {
        let refusal = Refusal::Unauthorized.error_response();
        assert_eq!(
            header(&refusal, "www-authenticate"),
            "Basic realm=\"nanomdm\""
        );
        let refusal = Refusal::OtherMethod.error_response();
        assert_eq!(refusal.status(), 405);
        assert_eq!(header(&refusal, "allow"), "GET, PUT");
        assert_eq!(
            to_bytes(refusal.into_body()).await.unwrap(),
            "Method Not Allowed\n"
        );
        let refusal = Refusal::BadRequest("why".into()).error_response();
        assert_eq!(refusal.status(), 400);
        assert_eq!(
            to_bytes(refusal.into_body()).await.unwrap(),
            "{\n\t\"error\": \"why\"\n}\n"
        );
    }
}
