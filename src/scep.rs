//! The SCEP door: where a device asks for its identity certificate (RFC 8894).
//!
//! Public: whoever holds a challenge may ask, so nothing here tells who someone is.
//! Takes the request out of the forms clients put it in and hands it to the SCEP
//! server below; what is issued, and to whom, is decided there. Profiles name a path of
//! their enrollment link, so that what is too much for a link is known beforehand;
//! renewals need none.

use std::borrow::Cow;

use actix_web::http::Method;
use actix_web::http::header::CONTENT_ENCODING;
use actix_web::{HttpRequest, HttpResponse, ResponseError as _, web};
use actors::admission::{Permit, Weight};
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use schema::link::LinkId;

use crate::app::App;
use crate::body::read;
use crate::error::DeviceError;

/// Mounts the SCEP door.
pub fn routes(config: &mut web::ServiceConfig) {
    config.service(
        web::resource(["/scep/{link}", "/scep"])
            .route(web::get().to(door))
            .route(web::post().to(door)),
    );
}

async fn door(request: HttpRequest, body: web::Payload, app: web::Data<App>) -> HttpResponse {
    match serve(&request, body, &app).await {
        Ok(response) => {
            app.metrics.device("scep", "ok");
            response
        }
        Err(error) => {
            app.metrics.device("scep", error.outcome());
            if error.status_code().is_server_error() {
                tracing::warn!(route = "scep", %error, "a device was not served");
            } else {
                tracing::info!(route = "scep", %error, "a device was refused");
            }
            error.error_response()
        }
    }
}

async fn serve(
    request: &HttpRequest,
    body: web::Payload,
    app: &App,
) -> Result<HttpResponse, DeviceError> {
    if request.headers().contains_key(CONTENT_ENCODING) {
        return Err(DeviceError::Encoded);
    }
    let query = Query::parse(request.query_string())?;
    if query.operation == "PKIOperation" {
        limit(request, app)?;
    }
    let is_post = request.method() == Method::POST;
    match (query.operation.as_ref(), is_post) {
        ("GetCACaps", false) => Ok(answer("text/plain", CAPABILITIES)),
        ("GetCACert", false) => {
            let _permit = admit(app, 0)?;
            let certificates = app.scep.certificates().await?;
            Ok(answer("application/x-x509-ca-ra-cert", certificates))
        }
        ("PKIOperation", false) => {
            let message = query.message.ok_or(DeviceError::Query("no message"))?;
            let message = decode(&message).ok_or(DeviceError::Query("message is not base64"))?;
            pki_operation(app, message.into(), None).await
        }
        // What such a client repeats in the query is passed over.
        ("PKIOperation", true) => {
            let body = read(request.headers(), body, MESSAGE_CAP, app).await?;
            if body.cut {
                return Err(DeviceError::TooLong(MESSAGE_CAP));
            }
            pki_operation(app, body.bytes, body.permit).await
        }
        _ => Err(DeviceError::Query("an operation that is not served")),
    }
}

/// Takes a request of the link its path names: before the decryption nothing else does.
fn limit(request: &HttpRequest, app: &App) -> Result<(), DeviceError> {
    let link = match request.match_info().get("link") {
        Some(id) => {
            let link = app.store.link(&LinkId(id.to_owned()))?;
            Some(link.ok_or(DeviceError::UnknownLink)?.id)
        }
        None => None,
    };
    Ok(app.scep_limits.admit(link.as_ref())?)
}

async fn pki_operation(
    app: &App,
    message: Bytes,
    held: Option<Permit>,
) -> Result<HttpResponse, DeviceError> {
    let _permit = match held {
        Some(permit) => permit,
        None => admit(app, message.len())?,
    };
    let reply = app.scep.answer(message).await?;
    Ok(answer("application/x-pki-message", reply))
}

fn admit(app: &App, bytes: usize) -> Result<Permit, DeviceError> {
    let permit = app.admission.admit(Weight::Full, bytes);
    permit.ok_or(DeviceError::Overloaded)
}

/// An answer with exactly this Content-Type: clients compare it whole.
fn answer(content_type: &'static str, body: impl Into<Bytes>) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header(("Content-Type", content_type))
        .body(body.into())
}

/// The query as SCEP clients write it: not quite a form.
#[derive(Debug, PartialEq, Eq)]
struct Query<'q> {
    operation: Cow<'q, str>,
    message: Option<Cow<'q, str>>,
}

impl<'q> Query<'q> {
    /// Takes a query that some clients begin or end with a `?` of their own.
    fn parse(query: &'q str) -> Result<Self, DeviceError> {
        let (mut operation, mut message) = (None, None);
        for pair in query.trim_matches('?').split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let place = match name {
                "operation" => &mut operation,
                "message" => &mut message,
                _ => continue,
            };
            if place.replace(unescape(value)?).is_some() {
                return Err(DeviceError::Query("a key that stands twice"));
            }
        }
        Ok(Self {
            operation: operation.ok_or(DeviceError::Query("no operation"))?,
            message: message.filter(|message| !message.is_empty()),
        })
    }
}

/// Percent-decodes. A plus stays one: it is base64's more often than a form's space.
fn unescape(value: &str) -> Result<Cow<'_, str>, DeviceError> {
    const BAD: DeviceError = DeviceError::Query("a value that is not percent-encoded text");
    if !value.contains('%') {
        return Ok(Cow::Borrowed(value));
    }
    let mut octets = Vec::with_capacity(value.len());
    let mut parts = value.split('%');
    octets.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
    for part in parts {
        let (digits, rest) = part.split_at_checked(2).ok_or(BAD)?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(BAD);
        }
        octets.push(u8::from_str_radix(digits, 16).map_err(|_| BAD)?);
        octets.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(octets).map(Cow::Owned).map_err(|_| BAD)
}

/// Base64 of either alphabet, padded or not, broken into lines or not.
fn decode(text: &str) -> Option<Vec<u8>> {
    let plain: Vec<u8> = text
        .bytes()
        .filter(|octet| !matches!(octet, b'\r' | b'\n' | b'\t'))
        .map(|octet| match octet {
            b'-' | b' ' => b'+',
            b'_' => b'/',
            other => other,
        })
        .collect();
    BASE64.decode(plain).ok()
}

/// RFC 8894, 3.5.2, and SHA-384, which we serve too: strongSwan up to 5.9.8 tests the
/// wrong bits and takes AES for missing where SHA-384 is.
const CAPABILITIES: &str =
    "Renewal\nSHA-1\nSHA-256\nSHA-384\nSHA-512\nAES\nDES3\nSCEPStandard\nPOSTPKIOperation\n";
const MESSAGE_CAP: usize = 64 << 10;
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_as_clients_write_them() {
        for (query, operation, message) in [
            ("operation=GetCACaps", "GetCACaps", None),
            ("operation=GetCACaps&message=", "GetCACaps", None),
            (
                "operation=GetCACert&message=My%20CA",
                "GetCACert",
                Some("My CA"),
            ),
            ("?operation=GetCACert?", "GetCACert", None),
            (
                "message=a+b%2Fc%3D%3d&operation=PKIOperation",
                "PKIOperation",
                Some("a+b/c=="),
            ),
            (
                "operation=PKIOperation&other=1&message=a_b-",
                "PKIOperation",
                Some("a_b-"),
            ),
        ] {
            let read = Query::parse(query).unwrap();
            assert_eq!(read.operation, operation, "{query}");
            assert_eq!(read.message.as_deref(), message, "{query}");
        }
        for query in [
            "",
            "message=a",
            "operation=GetCACaps&operation=GetCACert",
            "operation=%4",
            "operation=%+1",
            "operation=a&message=%ff",
            "operation=a&message=%zz",
        ] {
            assert!(Query::parse(query).is_err(), "{query}");
        }
    }

    #[test]
    fn base64_is_read_in_every_form() {
        for text in ["+/+/AA==", "-_-_AA==", "-_-_AA", " / /AA", "+/+/\r\nAA==\n"] {
            assert_eq!(decode(text), Some(vec![0xfb, 0xff, 0xbf, 0]), "{text}");
        }
        assert_eq!(decode("*"), None);
    }
}
