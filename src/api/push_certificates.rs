//! Push certificates: put one to use, list them.

use actix_web::{HttpRequest, HttpResponse, web};
use actors::push_certificate::PushCertificate;
use actors::pusher::{PutCertificate, Topics};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::commands::strict_json;
use super::paging::Page;
use super::rendering::time_of_seconds;
use crate::app::App;
use crate::auth::{Admin, Scope};
use crate::error::Problem;

/// A push certificate with its key: PEM, or PKCS#12 in base64.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPushCertificate {
    /// Certificate and key in PEM, any order; the key PKCS#1 or PKCS#8, encrypted or not.
    pub pem: Option<String>,
    /// Or a PKCS#12 file, in base64.
    pub pkcs12: Option<String>,
    /// Opens an encrypted key or the PKCS#12 file.
    pub passphrase: Option<String>,
    /// Take a certificate of another topic although one is in use: every device enrolled
    /// under the old topic must enroll again when the old certificate expires.
    #[serde(default)]
    pub force_topic_change: bool,
}

/// A push topic and its certificate.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TopicItem {
    /// The topic: the certificate's UID.
    pub topic: String,
    /// End of the certificate's validity.
    pub not_after: String,
    /// Its serial number.
    pub serial: String,
    /// Why nothing is sent, when it is so.
    pub halted: Option<String>,
    /// Wakes held back.
    pub held_back: usize,
}

/// Lists the push certificates.
#[utoipa::path(get, path = "/api/v1/push-certificates", tag = "push certificates",
    responses(
        (status = 200, description = "All of them", body = Page<TopicItem>),
        (status = 401, description = "No valid token", body = Problem),
        (status = 403, description = "A scope is missing", body = Problem),
        (status = 503, description = "Our own trouble", body = Problem)))]
pub async fn list(
    admin: Admin,
    app: web::Data<App>,
) -> Result<web::Json<Page<TopicItem>>, Problem> {
    admin.demand(Scope::Read)?;
    Ok(web::Json(Page {
        items: topics(&app).await?,
        next: None,
    }))
}

/// Stores a push certificate and puts it to use at once.
#[utoipa::path(put, path = "/api/v1/push-certificates", tag = "push certificates", request_body = NewPushCertificate,
    responses(
        (status = 200, description = "In use", body = TopicItem),
        (status = 400, description = "Unreadable JSON", body = Problem),
        (status = 401, description = "No valid token", body = Problem),
        (status = 403, description = "A scope is missing", body = Problem),
        (status = 409, description = "Another topic is in use", body = Problem),
        (status = 415, description = "Not JSON", body = Problem),
        (status = 422, description = "The certificate is at fault", body = Problem),
        (status = 503, description = "Our own trouble", body = Problem)))]
pub async fn put(
    admin: Admin,
    request: HttpRequest,
    body: web::Bytes,
    app: web::Data<App>,
) -> Result<HttpResponse, Problem> {
    admin.demand(Scope::Admin)?;
    let new: NewPushCertificate = strict_json(&request, &body)?;
    let certificate = read(&new)?;
    let in_use = topics(&app).await?;
    let other = in_use.iter().find(|topic| topic.topic != certificate.topic);
    if let Some(other) = other
        .filter(|_| !new.force_topic_change && !in_use.iter().any(|t| t.topic == certificate.topic))
    {
        return Err(Problem::conflict(
            "topic_change",
            format!(
                "the topic {} is in use; devices follow their topic (force_topic_change)",
                other.topic
            ),
        ));
    }
    let topic = certificate.topic.clone();
    put_certificate(&app, certificate).await?;
    let item = topics(&app)
        .await?
        .into_iter()
        .find(|item| item.topic == topic);
    Ok(HttpResponse::Ok().json(item))
}

/// Puts a certificate to use.
///
/// # Errors
/// 422 when the transport cannot use it, or what the store says.
pub async fn put_certificate(app: &App, certificate: PushCertificate) -> Result<(), Problem> {
    use actors::pusher::PusherError;
    let put = app.pusher.send(PutCertificate(certificate)).await;
    match put.map_err(|_| Problem::unavailable("the push supervisor is not running"))? {
        Ok(()) => Ok(()),
        Err(PusherError::Store(error)) => Err(error.into()),
        Err(error) => Err(Problem::unprocessable(
            "bad_push_certificate",
            error.to_string(),
        )),
    }
}

/// How the topics stand.
///
/// # Errors
/// 503 when the push supervisor is not running.
pub async fn topics(app: &App) -> Result<Vec<TopicItem>, Problem> {
    let states = app.pusher.send(Topics).await;
    let states = states.map_err(|_| Problem::unavailable("the push supervisor is not running"))?;
    let items = states.into_iter().map(|state| TopicItem {
        topic: state.topic,
        not_after: time_of_seconds(state.not_after),
        serial: state.serial,
        halted: state.halted,
        held_back: state.parked,
    });
    Ok(items.collect())
}

fn read(new: &NewPushCertificate) -> Result<PushCertificate, Problem> {
    let passphrase = new.passphrase.as_deref();
    match (&new.pem, &new.pkcs12) {
        (Some(pem), None) => PushCertificate::from_pem(pem.as_bytes(), passphrase)
            .map_err(|error| Problem::field("/pem", error.to_string())),
        (None, Some(file)) => {
            let file = STANDARD
                .decode(file.trim())
                .map_err(|_| Problem::field("/pkcs12", "is not base64"))?;
            PushCertificate::from_pkcs12(&file, passphrase.unwrap_or_default())
                .map_err(|error| Problem::field("/pkcs12", error.to_string()))
        }
        _ => Err(Problem::field(
            "/pem",
            "exactly one of pem and pkcs12 is needed",
        )),
    }
}
