//! The renewal of an identity: the enrollment profile once more, exactly as the device has
//! it, with a challenge of its own that buys an identity for this device alone.
//!
//! Made when the command is handed out, anew each time: the challenge is durable before
//! the answer is. Whatever the device enrolled with, it renews by SCEP: then its key stays
//! with it, and no command holds one. Called by the device door.

use actors::store::{HandOut, NewChallenge};
use schema::enrollment::Enrollment;
use schema::profile::{EnrollmentProfile, IdentityPayload, MdmPayload, Ownership, ScepPayload};
use schema::renewal::{command, renewable};
use schema::{EnrollId, Leaf};

use super::{organization, sign};
use crate::app::App;
use crate::error::{DeviceError, EnrollError};
use crate::public_url::PublicUrl;

/// Fills a template in; nothing when it cannot be, and the device gets what comes behind it.
///
/// # Errors
/// [`DeviceError`]: the store's own trouble.
pub async fn renewed(
    app: &App,
    device: &EnrollId,
    template: HandOut,
) -> Result<Option<HandOut>, DeviceError> {
    let Some(enrollment) = app.store.find(device)? else {
        return Ok(None);
    };
    let Some(enrollment) = app.store.enrollment(enrollment)? else {
        return Ok(None);
    };
    let attempt = app.store.renewal(enrollment.channel.no)?;
    if attempt.is_none_or(|attempt| attempt.uuid != template.uuid) {
        // An attempt that a newer one took the place of; its profile would be an empty one.
        return Ok(None);
    }
    match profile(app, &enrollment).await {
        Ok(profile) => Ok(Some(HandOut {
            plist: command(&template.uuid, &profile).into(),
            ..template
        })),
        Err(EnrollError::Store(error)) => Err(error.into()),
        Err(error) => {
            tracing::warn!(%device, %error, "the profile that renews an identity cannot be made");
            Ok(None)
        }
    }
}

async fn profile(app: &App, enrollment: &Enrollment) -> Result<Vec<u8>, EnrollError> {
    let account = app.store.managed_account(enrollment.channel.no)?;
    let (with, push) = renewable(enrollment, &app.enroller.instance, account.as_deref())?;
    let signer: Option<Leaf> = with.signer;
    if signer.is_some_and(|signer| signer != app.enroller.leaf) {
        return Err(EnrollError::Outdated);
    }
    let url = PublicUrl::of(&app.config)?;
    let ownership = match (account, with.rights) {
        (_, Some(rights)) => Ownership::Device(rights),
        (account, None) => Ownership::User {
            managed_apple_id: account.unwrap_or_default(),
        },
    };
    let profile = EnrollmentProfile {
        instance: app.enroller.instance,
        organization: organization(app, &url).to_owned(),
        trust_root: app.enroller.trust_root.clone(),
        identity: IdentityPayload::Scep(scep(app, enrollment, &url).await?),
        mdm: MdmPayload {
            topic: push.topic.0.clone(),
            server_url: with.server_url.clone(),
            check_in_url: with.check_in_url.clone(),
            ownership,
            capabilities: with.capabilities.clone(),
            sign_message: app.config.device.signs(),
        },
    };
    sign(app, profile.to_plist()).await
}

/// With a challenge that belongs to no link: nobody's uses are counted.
async fn scep(
    app: &App,
    enrollment: &Enrollment,
    url: &PublicUrl,
) -> Result<ScepPayload, EnrollError> {
    let ttl = app.config.scep.challenge_ttl_minutes.saturating_mul(60);
    let challenge = NewChallenge {
        link: String::new(),
        shared: false,
        enrollment: Some(enrollment.channel.id.clone()),
        expires: app.store.expiry_clock().plus_seconds(ttl),
    };
    Ok(ScepPayload {
        url: url.at("/scep"),
        challenge: app.store.mint_challenge(challenge).await?,
        ca_fingerprint: app.enroller.ca_fingerprint,
    })
}
