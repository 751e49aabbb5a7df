//! The part of a profile that gives a device its identity, by the link's kind.
//!
//! With SCEP a profile carries a challenge and handing it out consumes nothing; with
//! PKCS#12 it carries key and certificate, and handing it out is a use of the link.

use actors::store::NewChallenge;
use schema::link::{IdentityKind, Link};
use schema::profile::{IdentityPayload, Pkcs12Payload, ScepPayload};

use crate::app::App;
use crate::error::EnrollError;
use crate::public_url::PublicUrl;

/// An identity payload of an open link, for one profile.
pub(super) async fn payload(
    app: &App,
    link: &Link,
    url: &PublicUrl,
) -> Result<IdentityPayload, EnrollError> {
    match link.identity {
        IdentityKind::Scep => scep(app, link, url).await.map(IdentityPayload::Scep),
        IdentityKind::Pkcs12 => {
            let made = app.scep.make_identity(link).await??;
            Ok(IdentityPayload::Pkcs12(Pkcs12Payload {
                der: made.der,
                password: made.password,
            }))
        }
    }
}

async fn scep(app: &App, link: &Link, url: &PublicUrl) -> Result<ScepPayload, EnrollError> {
    let ttl = app.config.scep.challenge_ttl_minutes.saturating_mul(60);
    let challenge = NewChallenge {
        link: link.id.0.clone(),
        shared: link.shared,
        enrollment: link.device.clone(),
        expires: link.challenge_expires(app.store.expiry_clock(), ttl),
    };
    let challenge = app.store.mint_challenge(challenge).await?;
    Ok(scep_with(app, link, url, challenge))
}

/// The payload of a device that is to ask with this challenge.
pub(super) fn scep_with(app: &App, link: &Link, url: &PublicUrl, challenge: String) -> ScepPayload {
    ScepPayload {
        url: url.at(&format!("/scep/{}", link.id)),
        challenge,
        ca_fingerprint: app.enroller.ca_fingerprint,
    }
}
