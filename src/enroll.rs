//! The enrollment door: a link leads a person to a page, a device to its profile.
//!
//! Looking consumes nothing: each profile carries a challenge of its own, and a use is
//! counted when that buys a certificate; a profile that carries the certificate itself
//! counts when it is handed out. Logs name a link by its id; its secret is in the URL
//! alone. Who does not know a secret learns nothing here.

mod identity;
mod ota;
mod page;
mod renewal;

use std::path::Path;

use actix_web::http::header::{self, HeaderMap};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, ResponseError as _, web};
use actors::Store;
use actors::expiry;
use actors::profile_signer::ProfileSigner;
use anyhow::Context as _;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openssl::hash::MessageDigest;
use openssl::x509::X509;
use schema::enrollment::EnrolledWith;
use schema::link::{Link, LinkId};
use schema::profile::profile_identifier;
use schema::profile::{CAPABILITIES, EnrollmentProfile, IdentityPayload, MdmPayload, Ownership};
use schema::{Leaf, access::AccessRights};
use serde::Deserialize;

use crate::app::App;
use crate::error::EnrollError;
use crate::public_url::PublicUrl;
pub use renewal::renewed;

/// Mounts the enrollment door.
pub fn routes(config: &mut web::ServiceConfig) {
    config.route(ota::PATH, web::post().to(ota::door));
    config.route("/enroll/{secret}", web::get().to(door));
}

/// What every enrollment profile of this server has in common.
#[derive(Debug)]
pub struct Enroller {
    signer: ProfileSigner,
    leaf: Leaf,
    trust_root: Option<Vec<u8>>,
    ca_fingerprint: [u8; 20],
    instance: [u8; 16],
}

impl Enroller {
    /// Opens the profile signer of a data directory, making it when there is none.
    ///
    /// # Errors
    /// What keeps profiles from being made, in words for the person at the terminal.
    pub fn new(
        directory: &Path,
        ca_pem: &[u8],
        tls_root_pem: Option<&[u8]>,
        store: &Store,
    ) -> anyhow::Result<Self> {
        let root = tls_root_pem.map(|pem| X509::from_pem(pem)?.to_der());
        let signer = ProfileSigner::open(directory)?;
        let fingerprint = X509::from_pem(ca_pem)?.digest(MessageDigest::sha1())?;
        let ca_fingerprint = (&*fingerprint).try_into().context("SHA-1 has 20 bytes")?;
        Ok(Self {
            leaf: signer.leaf()?,
            signer,
            trust_root: root.transpose()?,
            ca_fingerprint,
            instance: store.instance()?,
        })
    }

    /// The end of the profile signer's certificate, in Unix seconds.
    ///
    /// # Errors
    /// Only when OpenSSL itself fails.
    pub fn signer_ends(&self) -> anyhow::Result<i64> {
        Ok(expiry::not_after(&self.signer.certificate_pem()?)?)
    }

    /// What the profiles of a link say, which a renewal must say again.
    #[must_use]
    pub fn offers(&self, app: &App, url: &PublicUrl, rights: Option<AccessRights>) -> EnrolledWith {
        let device = &app.config.device;
        EnrolledWith {
            server_url: url.at(&device.connect_path),
            check_in_url: url.checkin_at(&device.checkin_path),
            profile_identifier: profile_identifier(&self.instance),
            rights,
            capabilities: CAPABILITIES.map(str::to_owned).to_vec(),
            signer: Some(self.leaf),
        }
    }
}

/// The secret of a new link as its URL carries it, the hash it is kept under, and the
/// handle that follows from that.
#[must_use]
pub fn link_secret(random: &[u8; 32]) -> (String, [u8; 32], LinkId) {
    let secret = URL_SAFE_NO_PAD.encode(random);
    let hash = hash(&secret);
    let id = id_of(&hash);
    (secret, hash, id)
}

/// The URL of a link.
#[must_use]
pub fn link_url(url: &PublicUrl, secret: &str) -> String {
    url.at(&format!("/enroll/{secret}"))
}

/// A profile of a link, with a challenge or an identity of its own; signed, or the bare
/// plist. Of a link for over-the-air enrollment, the profile that leads to that one.
///
/// # Errors
/// [`EnrollError`]: the link is void, or our own trouble.
pub async fn profile(app: &App, link: &Link, signed: bool) -> Result<Vec<u8>, EnrollError> {
    link.open(app.store.expiry_clock())?;
    let url = offered(app, link)?;
    let profile = if link.ota {
        ota::service(app, link, &url).await?
    } else {
        let identity = identity::payload(app, link, &url).await?;
        compose(app, link, &url, identity)
    };
    tracing::info!(link = %link.id, signed, ota = link.ota, "an enrollment profile was handed out");
    if signed {
        sign(app, profile).await
    } else {
        Ok(profile)
    }
}

/// The server's URL, when its profiles still say what the link was made for.
fn offered(app: &App, link: &Link) -> Result<PublicUrl, EnrollError> {
    let url = PublicUrl::of(&app.config)?;
    if app.enroller.offers(app, &url, link.offers.rights) != link.offers {
        return Err(EnrollError::Outdated);
    }
    Ok(url)
}

async fn sign(app: &App, profile: Vec<u8>) -> Result<Vec<u8>, EnrollError> {
    let signer = app.enroller.signer.clone();
    let signed = web::block(move || signer.sign(&profile)).await;
    Ok(signed.map_err(|_| EnrollError::Stopping)??)
}

fn compose(app: &App, link: &Link, url: &PublicUrl, identity: IdentityPayload) -> Vec<u8> {
    let ownership = match (&link.managed_apple_id, link.offers.rights) {
        (Some(managed_apple_id), _) => Ownership::User {
            managed_apple_id: managed_apple_id.clone(),
        },
        (None, rights) => Ownership::Device(rights.unwrap_or(AccessRights::ALL)),
    };
    let profile = EnrollmentProfile {
        instance: app.enroller.instance,
        organization: organization(app, url).to_owned(),
        trust_root: app.enroller.trust_root.clone(),
        identity,
        mdm: MdmPayload {
            topic: link.topic.0.clone(),
            server_url: link.offers.server_url.clone(),
            check_in_url: link.offers.check_in_url.clone(),
            ownership,
            capabilities: link.offers.capabilities.clone(),
            sign_message: app.config.device.signs(),
        },
    };
    profile.to_plist()
}

fn organization<'a>(app: &'a App, url: &'a PublicUrl) -> &'a str {
    match app.config.device.organization.trim() {
        "" => url.host(),
        name => name,
    }
}

/// What the query of a link may say; anything else is left alone.
#[derive(Debug, Deserialize)]
struct Asked {
    profile: Option<String>,
    unsigned: Option<String>,
}

async fn door(
    request: HttpRequest,
    secret: web::Path<String>,
    asked: web::Query<Asked>,
    app: web::Data<App>,
) -> HttpResponse {
    let is = |flag: &Option<String>| flag.as_deref() == Some("1");
    let shows = wants_page(request.headers()) && !is(&asked.profile) && !is(&asked.unsigned);
    let served = if shows {
        show(&app, &secret)
    } else {
        hand_out(&app, &secret, !is(&asked.unsigned)).await
    };
    match served {
        Ok(response) => {
            app.metrics.device("enroll", "ok");
            response
        }
        Err(error) => {
            app.metrics.device("enroll", error.outcome());
            tracing::info!(%error, "an enrollment link was not served");
            refuse(&error, wants_page(request.headers()))
        }
    }
}

fn show(app: &App, secret: &str) -> Result<HttpResponse, EnrollError> {
    let link = find(app, secret)?;
    link.open(app.store.expiry_clock())?;
    let url = PublicUrl::of(&app.config)?;
    let page = page::Page {
        organization: organization(app, &url),
        host: url.host(),
        link: &link,
        root: app.enroller.trust_root.is_some(),
        url: &link_url(&url, secret),
    };
    Ok(page::html(&mut HttpResponse::Ok(), page.render()))
}

async fn hand_out(app: &App, secret: &str, signed: bool) -> Result<HttpResponse, EnrollError> {
    let link = find(app, secret)?;
    let profile = profile(app, &link, signed).await?;
    Ok(file(profile))
}

/// The profile as a file to be installed.
#[must_use]
pub fn file(profile: Vec<u8>) -> HttpResponse {
    let name = "attachment; filename=\"enroll.mobileconfig\"";
    private(&mut HttpResponse::Ok())
        .insert_header((header::CONTENT_DISPOSITION, name))
        .content_type("application/x-apple-aspen-config")
        .body(profile)
}

fn refuse(error: &EnrollError, page: bool) -> HttpResponse {
    if page {
        return page::html(
            &mut HttpResponse::build(error.status_code()),
            page::closed(error),
        );
    }
    let mut response = error.error_response();
    private_headers(response.headers_mut());
    response
}

/// The link with this secret, if it is not asked for too often.
fn find(app: &App, secret: &str) -> Result<Link, EnrollError> {
    let hash = hash(secret);
    let link = app.store.link(&id_of(&hash))?;
    let link = link
        .filter(|link| verify_slices_are_equal(&link.secret, &hash).is_ok())
        .ok_or(EnrollError::Unknown)?;
    app.enroll_limits.admit(Some(&link.id))?;
    Ok(link)
}

/// A browser says that it reads HTML; a device that installs profiles, and curl, do not.
fn wants_page(headers: &HeaderMap) -> bool {
    let accepts = headers.get_all(header::ACCEPT);
    accepts
        .filter_map(|accept| accept.to_str().ok())
        .any(|accept| accept.contains("text/html"))
}

/// Nobody keeps the answer, and nobody is told where it was asked for.
fn private(response: &mut HttpResponseBuilder) -> &mut HttpResponseBuilder {
    for (name, value) in PRIVATE {
        response.insert_header((name, value));
    }
    response
}

fn private_headers(headers: &mut HeaderMap) {
    for (name, value) in PRIVATE {
        headers.insert(name, header::HeaderValue::from_static(value));
    }
}

fn hash(secret: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, secret.as_bytes()).as_ref());
    hash
}

fn id_of(hash: &[u8; 32]) -> LinkId {
    LinkId(URL_SAFE_NO_PAD.encode(hash.get(..9).unwrap_or_default()))
}

const PRIVATE: [(header::HeaderName, &str); 4] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_found_by_its_secret_and_told_by_its_handle() {
        let (secret, kept, id) = link_secret(&[7; 32]);
        assert_eq!(secret.len(), 43);
        assert_eq!((hash(&secret), id_of(&kept)), (kept, id.clone()));
        assert!(id.0.len() == 12 && !secret.contains(&id.0));
    }

    #[test]
    fn a_browser_is_told_from_a_device_by_what_it_reads() {
        let wants = |accept: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            let value = accept.map(header::HeaderValue::from_static);
            value.map(|value| headers.insert(header::ACCEPT, value));
            wants_page(&headers)
        };
        assert!(wants(Some(
            "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"
        )));
        assert!(!wants(Some("*/*")));
        assert!(!wants(None));
    }
}
