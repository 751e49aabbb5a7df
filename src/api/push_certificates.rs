//! Push certificates: ask for one, put one to use, list them.

use actix_web::{HttpRequest, HttpResponse, web};
use actors::push_certificate::{PendingKey, PushCertificate, PushCertificateError};
use actors::pusher::{PutCertificate, Topics};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::json::strict_json;
use super::paging::Page;
use super::rendering::time_of_seconds;
use crate::app::App;
use crate::auth::{Admin, Scope};
use crate::error::Problem;

/// A push certificate with its key, or alone when the key is ours: PEM, or PKCS#12 in base64.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPushCertificate {
    /// Certificate and key in PEM, any order; the key PKCS#1 or PKCS#8, encrypted or not.
    /// The certificate alone when it was made from our request.
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

/// What is asked of our key and its request.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRequest {
    /// Make a new key although one waits for its certificate. A certificate made for
    /// that one is then of no use.
    #[serde(default)]
    pub replace: bool,
}

/// A certificate signing request; its key stays here.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CertificateRequest {
    /// PKCS#10 in PEM, to be signed by an MDM vendor and uploaded to Apple's push portal.
    pub csr: String,
    /// Whether it was made now; otherwise its key waits for its certificate since before.
    pub made: bool,
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
    let certificate = read(&app, &new)?;
    let now = i64::try_from(app.clock.now().seconds()).unwrap_or(i64::MAX);
    if certificate.expired(now) {
        let ended = time_of_seconds(certificate.not_after);
        return Err(Problem::unprocessable(
            "bad_push_certificate",
            format!(
                "the certificate for {} expired at {ended}",
                certificate.topic
            ),
        ));
    }
    let in_use = topics(&app).await?;
    let other = in_use.iter().find(|topic| topic.topic != certificate.topic);
    if let Some(other) = other
        .filter(|_| !new.force_topic_change && !in_use.iter().any(|t| t.topic == certificate.topic))
    {
        return Err(Problem::conflict(
            "topic_change",
            format!(
                "the certificate is for topic {}, in use is {}: devices enrolled under it would \
                 have to enroll again; renew it with the Apple Account that made it, or take \
                 the other all the same (force_topic_change)",
                certificate.topic, other.topic
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

/// Gives the request for a push certificate, making its key (RSA-2048) when none waits.
#[utoipa::path(post, path = "/api/v1/push-certificates/csr", tag = "push certificates",
    request_body(content = Option<NewRequest>, description = "Nothing, or what is asked"),
    responses(
        (status = 200, description = "The request whose key waits", body = CertificateRequest),
        (status = 201, description = "Made now", body = CertificateRequest),
        (status = 400, description = "Unreadable JSON", body = Problem),
        (status = 401, description = "No valid token", body = Problem),
        (status = 403, description = "A scope is missing", body = Problem),
        (status = 415, description = "Not JSON", body = Problem),
        (status = 422, description = "A field is at fault", body = Problem),
        (status = 503, description = "Our own trouble", body = Problem)))]
pub async fn csr(
    admin: Admin,
    request: HttpRequest,
    body: web::Bytes,
    app: web::Data<App>,
) -> Result<HttpResponse, Problem> {
    admin.demand(Scope::Admin)?;
    let new = match body.as_ref() {
        [] => NewRequest::default(),
        body => strict_json(&request, body)?,
    };
    let waiting = pending(&app)?.filter(|_| !new.replace);
    let (kept, made) = match waiting {
        Some(waiting) => (waiting, false),
        None => make(&app, new.replace).await?,
    };
    let answer = CertificateRequest {
        csr: kept.csr_pem,
        made,
    };
    Ok(match made {
        true => HttpResponse::Created().json(answer),
        false => HttpResponse::Ok().json(answer),
    })
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

/// Makes a key and its request and keeps them; the one that is kept, and whether it is this.
async fn make(app: &App, replace: bool) -> Result<(PendingKey, bool), Problem> {
    let unable = |_| Problem::unavailable("no key can be made");
    let made = web::block(PendingKey::make).await;
    let made = made.map_err(|_| Problem::unavailable("the server is stopping"))?;
    let made = made.map_err(unable)?;
    let stored = made.to_stored();
    app.store.keep_push_key(made.hash, &stored, replace).await?;
    // Another request may have been first.
    let kept = pending(app)?.unwrap_or_else(|| made.clone());
    let ours = kept.hash == made.hash;
    Ok((kept, ours))
}

/// The key that waits for its certificate.
fn pending(app: &App) -> Result<Option<PendingKey>, Problem> {
    let stored = app.store.pending_push_key()?;
    let pending = stored.map(|stored| PendingKey::from_stored(&stored));
    pending
        .transpose()
        .map_err(|error| Problem::unavailable(format!("the key that waits: {error}")))
}

/// Joins a certificate that came alone with the key of ours it was made for: the one that
/// waits, or one in use, when the same request was used again.
fn join(app: &App, pem: &[u8]) -> Result<PushCertificate, Problem> {
    let waiting = pending(app)?;
    let waits = waiting.is_some();
    let joined = waiting.map(|key| key.certify(pem)).into_iter();
    let in_use = app.store.push_certificates()?.into_iter();
    let joined = joined.chain(in_use.map(|(_, stored)| {
        PushCertificate::from_stored(&stored).and_then(|certificate| certificate.renewed(pem))
    }));
    for outcome in joined {
        match outcome {
            Err(PushCertificateError::KeyMismatch { .. }) => {}
            other => return other.map_err(|error| Problem::field("/pem", error.to_string())),
        }
    }
    let why = match waits {
        true => "no private key beside the certificate, and it was not made from our request",
        false => "no private key beside the certificate, and none of ours waits for one",
    };
    Err(Problem::field("/pem", why))
}

fn read(app: &App, new: &NewPushCertificate) -> Result<PushCertificate, Problem> {
    let passphrase = new.passphrase.as_deref();
    match (&new.pem, &new.pkcs12) {
        (Some(pem), None) => match PushCertificate::from_pem(pem.as_bytes(), passphrase) {
            Err(PushCertificateError::NoKey) => join(app, pem.as_bytes()),
            read => read.map_err(|error| Problem::field("/pem", error.to_string())),
        },
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
