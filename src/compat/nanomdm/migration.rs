//! `PUT /migration`: check-ins of a former server's devices, handed over by an admin.
//!
//! The check-in takes the way of every other, through the device's actor, and its rules
//! hold; only the proof of identity is missing, in place of which the admin names the
//! certificate. A stream sent twice is a replay, which changes nothing; a device that
//! enrolled here by itself speaks for itself, and no stream of another server does.

use actix_web::web::{Bytes, Data, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, web};
use actors::device::{Answer, CheckedIn, Presented};
use actors::registry::Opens;
use actors::store::Identity;
use actors::{Fault, StoreError};
use schema::Leaf;
use schema::checkin::{self, CheckIn, Message};
use schema::enrollment::Misbehaved;

use super::caller::Caller;
use super::reply::Refusal;
use super::{other_method, query};
use crate::app::App;

/// Mounts it where NanoMDM has it, beside `/v1`.
pub(super) fn routes(config: &mut ServiceConfig) {
    config.service(
        web::resource("/migration")
            .put(migrate)
            .default_service(web::to(other_method)),
    );
}

async fn migrate(
    _: Caller,
    request: HttpRequest,
    body: Result<Bytes, actix_web::Error>,
    app: Data<App>,
) -> Result<HttpResponse, Refusal> {
    let leaf = certificate(&query(&request, PARAMETER))?;
    let body = body.map_err(|error| Refusal::BadRequest(format!("reading body: {error}")))?;
    let checkin = read(&body)?;
    let name = checkin.message.name();
    let device = checkin.sender.device.clone();
    let opens = match checkin.message {
        Message::Authenticate { .. } => Opens::Yes,
        _ => Opens::No,
    };
    let said = CheckedIn {
        checkin,
        presented: presented(leaf),
        raw: body,
    };
    let _: Answer = app.registry.ask(&device, opens, said).await?;
    tracing::info!(%device, message = name, certificate = %leaf, "a check-in was handed over");
    Ok(HttpResponse::Ok().finish())
}

/// A message that changes something: no secret is given out here.
fn read(body: &Bytes) -> Result<CheckIn, Refusal> {
    let checkin = checkin::parse(body).map_err(|why| Refusal::BadRequest(why.to_string()))?;
    match checkin.message {
        Message::Authenticate { .. }
        | Message::TokenUpdate { .. }
        | Message::SetBootstrapToken { .. }
        | Message::CheckOut => Ok(checkin),
        other => Err(Refusal::BadRequest(format!(
            "{} is no message that hands a device over",
            other.name()
        ))),
    }
}

/// What the admin vouches for; of the certificate only its hash is known.
fn presented(leaf: Leaf) -> Presented {
    Presented {
        identity: Identity {
            leaf,
            not_after: 0,
            serial: String::new(),
        },
        ours: false,
        replayable: true,
        handed_over: true,
    }
}

fn certificate(text: &str) -> Result<Leaf, Refusal> {
    hash(text).map(Leaf).ok_or_else(|| {
        let why = "the SHA-256 of the device's identity certificate, 64 hexadecimal digits";
        Refusal::BadRequest(format!("query parameter {PARAMETER} must be {why}"))
    })
}

fn hash(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let mut hash = [0; 32];
    for (place, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * place..2 * place + 2)?, 16).ok()?;
    }
    Some(hash)
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Misbehaved(Misbehaved::NoTokenService | Misbehaved::UnknownEndpoint) => {
                Self::BadRequest(fault.to_string())
            }
            Fault::Unknown(_) => Self::Conflict(format!("{fault}: its Authenticate comes first")),
            Fault::Misbehaved(_) | Fault::Store(StoreError::BoundElsewhere(_)) => {
                Self::Conflict(fault.to_string())
            }
            _ => Self::Failed(fault.to_string()),
        }
    }
}

const PARAMETER: &str = "certificate_sha256";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_64_hexadecimal_digits_in_either_case() {
        let text = "00ffAb".to_owned() + &"0".repeat(58);
        let read = hash(&text).unwrap();
        assert_eq!(read[..4], [0x00, 0xff, 0xab, 0]);
        for bad in ["", "00", &"g".repeat(64), &"+1".repeat(32), &"0".repeat(65)] {
            assert_eq!(hash(bad), None, "{bad}");
        }
    }
}
