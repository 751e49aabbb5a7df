//! The over-the-air door: a device proves its manufacturer's certificate, then enrolls.
//!
//! Apple's Profile Service in three phases (protocol.md 6.3). The link hands out the
//! first profile; then the device comes here twice with what it is, signed: under its
//! manufacturer's certificate it is given a challenge for one of ours, under that one its
//! enrollment profile. The signer's issuer tells the two apart; what may follow what, the
//! store decides.

use actix_web::http::header::{self, HeaderMap};
use actix_web::{HttpRequest, HttpResponse, ResponseError as _, web};
use actors::Store;
use actors::admission::Weight;
use actors::store::{OtaCaller, OtaStep, Refusal};
use bytes::Bytes;
use schema::Leaf;
use schema::link::{Link, LinkId};
use schema::ota::{AnswerError, DeviceAnswer};
use schema::profile::{IdentityPayload, ProfileService, ProofProfile};

use super::{compose, file, identity, offered, organization, sign};
use crate::app::App;
use crate::body::read;
use crate::error::{DeviceError, EnrollError};
use crate::identity::{IssuedBy, SignedMessage};
use crate::public_url::PublicUrl;

/// Where devices send what they are.
pub(super) const PATH: &str = "/enroll/ota";

/// The first profile: asks a device what it is.
pub(super) async fn service(
    app: &App,
    link: &Link,
    url: &PublicUrl,
) -> Result<Vec<u8>, EnrollError> {
    let expires = link.challenge_expires(app.store.expiry_clock(), lasts(app));
    let profile = ProfileService {
        instance: app.enroller.instance,
        organization: organization(app, url).to_owned(),
        url: url.at(PATH),
        challenge: app.store.ask_device(&link.id, expires).await?,
    };
    Ok(profile.to_plist())
}

pub(super) async fn door(
    request: HttpRequest,
    body: web::Payload,
    app: web::Data<App>,
) -> HttpResponse {
    match serve(&request, body, &app).await {
        Ok(response) => {
            app.metrics.device("ota", "ok");
            response
        }
        Err(error) => {
            app.metrics.device("ota", error.outcome());
            if error.status_code().is_server_error() {
                tracing::warn!(route = "ota", %error, "a device was not served");
            } else {
                tracing::info!(route = "ota", %error, "a device was refused");
            }
            error.error_response()
        }
    }
}

async fn serve(
    request: &HttpRequest,
    body: web::Payload,
    app: &web::Data<App>,
) -> Result<HttpResponse, DeviceError> {
    let headers = request.headers();
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(DeviceError::Encoded);
    }
    if !is_message(headers) {
        return Err(DeviceError::MediaType(MESSAGE));
    }
    let body = read(headers, body, MESSAGE_CAP, app).await?;
    if body.cut {
        return Err(DeviceError::TooLong(MESSAGE_CAP));
    }
    let _permit = match body.permit {
        Some(permit) => permit,
        None => app
            .admission
            .admit(Weight::Full, body.bytes.len())
            .ok_or(DeviceError::Overloaded)?,
    };
    let message = open(app.clone(), body.bytes).await?;
    let answer = DeviceAnswer::parse(&message.content)?;
    let profile = match message.issued_by {
        IssuedBy::Extra => told(app, &message, &answer).await?,
        IssuedBy::Ours => proved(app, &message, &answer).await?,
    };
    Ok(file(sign(app, profile).await?))
}

/// Verifies a message off the workers.
async fn open(app: web::Data<App>, message: Bytes) -> Result<SignedMessage, DeviceError> {
    let opened = web::block(move || app.messages.open(&message)).await;
    Ok(opened.map_err(|_| EnrollError::Stopping)??)
}

/// A device says what it is: the challenge of its proof.
async fn told(
    app: &App,
    message: &SignedMessage,
    answer: &DeviceAnswer,
) -> Result<Vec<u8>, DeviceError> {
    let caller = OtaCaller {
        device: answer.device()?,
        leaf: Leaf(message.leaf),
    };
    let challenge = challenge(answer).ok_or(AnswerError::Missing("CHALLENGE"))?;
    let asked = app.store.challenge(&challenge)?;
    let url = passes(app, asked.ok_or(Refusal::Unknown)?.link)?;
    let device = caller.device.udid.clone();
    let step = app.store.device_told(challenge, caller, lasts(app)).await?;
    let OtaStep { link, challenge } = step?;
    tracing::info!(link = %link.id, %device, "a device said what it is");
    let profile = ProofProfile {
        instance: app.enroller.instance,
        organization: organization(app, &url).to_owned(),
        scep: identity::scep_with(app, &link, &url, challenge),
    };
    Ok(profile.to_plist())
}

/// A device proves it: its enrollment profile.
async fn proved(
    app: &App,
    message: &SignedMessage,
    answer: &DeviceAnswer,
) -> Result<Vec<u8>, DeviceError> {
    let said = answer.device()?;
    let device = said.udid.clone();
    let (leaf, repeated) = (Leaf(message.leaf), challenge(answer));
    let record = app.store.certificate(leaf)?;
    let through = record.and_then(|record| record.link);
    let url = passes(app, through.ok_or(Refusal::NotProof)?)?;
    let step = app.store.device_proved(leaf, said, repeated, lasts(app));
    let OtaStep { link, challenge } = step.await??;
    tracing::info!(link = %link.id, %device, "a device proved itself");
    let scep = identity::scep_with(app, &link, &url, challenge);
    Ok(compose(app, &link, &url, IdentityPayload::Scep(scep)))
}

/// Looks at a link before anything is kept for it: whether it is asked for too often, and
/// whether its profiles can still be made. That it is open, the store says.
fn passes(app: &App, link: String) -> Result<PublicUrl, DeviceError> {
    let link = app.store.link(&LinkId(link))?.ok_or(Refusal::Unknown)?;
    app.ota_limits.admit(Some(&link.id))?;
    Ok(offered(app, &link)?)
}

fn challenge(answer: &DeviceAnswer) -> Option<[u8; 32]> {
    let challenge = answer.challenge.as_deref()?;
    Some(Store::challenge_hash(challenge.as_bytes()))
}

/// How long each step waits for the next, in seconds.
fn lasts(app: &App) -> u64 {
    app.config.scep.challenge_ttl_minutes.saturating_mul(60)
}

fn is_message(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    [MESSAGE, OLD_MESSAGE]
        .iter()
        .any(|known| kind.eq_ignore_ascii_case(known))
}

const MESSAGE: &str = "application/pkcs7-signature";
/// The name of before it was registered (RFC 2311).
const OLD_MESSAGE: &str = "application/x-pkcs7-signature";
const MESSAGE_CAP: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signed_message_is_told_by_its_media_type() {
        for (kind, is) in [
            ("application/pkcs7-signature", true),
            ("Application/PKCS7-Signature; charset=binary", true),
            ("application/x-pkcs7-signature", true),
            ("application/pkcs7-mime", false),
            ("application/pkcs7-signature-x", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            let value = header::HeaderValue::from_static(kind);
            headers.insert(header::CONTENT_TYPE, value);
            assert_eq!(is_message(&headers), is, "{kind}");
        }
        assert!(!is_message(&HeaderMap::new()));
    }
}
