//! Enrollment links: make one, list them, take one back, fetch its profile as a file.
//!
//! The secret of a link is in the URL of the answer that makes it, and nowhere else.

use actix_web::{HttpRequest, HttpResponse, web};
use actors::store::{Device, Idempotency};
use schema::access::AccessRights;
use schema::enrollment::Enrollment;
use schema::link::{IdentityKind, Link, LinkId};
use schema::{EnrollId, Topic, UnixMillis};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::commands::{idempotency, sha256};
use super::devices::checked_tags;
use super::json::strict_json;
use super::paging::{Asked, LINKS, Page, cursor};
use super::push_certificates::topics;
use super::rendering::time;
use crate::app::App;
use crate::auth::{Admin, Scope};
use crate::enroll;
use crate::error::{Field, Problem};
use crate::public_url::PublicUrl;

/// An enrollment link to be made.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewLink {
    /// Seconds until it is void; 7 days when absent.
    pub expires_in: Option<u64>,
    /// Devices that may enroll through it; 1 when absent.
    pub max_uses: Option<u32>,
    /// Given to devices that enroll through it.
    pub tags: Option<Vec<String>>,
    /// What the server may do to them, by name; everything when absent.
    pub access_rights: Option<Vec<String>>,
    /// The one device it is for: its id, or its serial number.
    pub device: Option<String>,
    /// Push topic; the one there is when absent.
    pub topic: Option<String>,
    /// `one_time` (the default): each profile enrolls one device, soon. `shared`: a profile
    /// enrolls any number of devices while the link lasts.
    pub challenge: Option<Challenge>,
    /// `scep` (the default): the device makes its key and asks for a certificate. `pkcs12`:
    /// key and certificate are made by the server for each profile and are in it, and each
    /// profile that is handed out counts as a use.
    pub identity: Option<Identity>,
    /// A device first proves the certificate its manufacturer gave it (Apple's over-the-air
    /// enrollment) and enrolls under the UDID it named then; `device.ota_trust_files` says
    /// whose devices may. Only with `scep`, `one_time` and `device`.
    pub ota: Option<bool>,
    /// `device` (the default), or `user`: User Enrollment of iOS 13 to 17.
    pub kind: Option<Kind>,
    /// The Managed Apple Account, for User Enrollment.
    pub managed_apple_id: Option<String>,
}

/// How many devices the challenge in a profile serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Challenge {
    /// One.
    #[default]
    OneTime,
    /// Any number.
    Shared,
}

/// How a device comes to its identity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Identity {
    /// It makes its key and asks for a certificate.
    #[default]
    Scep,
    /// Key and certificate are in the profile.
    Pkcs12,
}

/// Whose devices enroll.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The organisation's.
    #[default]
    Device,
    /// A person's.
    User,
}

/// A link that was made.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct MadeLink {
    /// Its public handle.
    pub id: String,
    /// Where devices and people go; shown this once.
    pub url: String,
    /// From then on it is void.
    pub expires_at: String,
}

/// An enrollment link.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct LinkItem {
    /// Its public handle.
    pub id: String,
    /// `open`, `used_up`, `expired` or `revoked`.
    pub state: &'static str,
    /// When it was made.
    pub created_at: String,
    /// From then on it is void.
    pub expires_at: String,
    /// Devices that may enroll through it.
    pub max_uses: u32,
    /// Certificates issued through it.
    pub uses: u32,
    /// Given to devices that enroll through it.
    pub tags: Vec<String>,
    /// What the server may do to them; null for User Enrollment.
    pub access_rights: Option<Vec<&'static str>>,
    /// The one device it is for.
    pub device: Option<String>,
    /// Push topic.
    pub topic: String,
    /// How many devices the challenge in a profile serves.
    pub challenge: Challenge,
    /// How a device comes to its identity.
    pub identity: Identity,
    /// A device first proves the certificate its manufacturer gave it.
    pub ota: bool,
    /// Whose devices enroll.
    pub kind: Kind,
    /// The Managed Apple Account, for User Enrollment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub managed_apple_id: Option<String>,
    /// Who made it.
    pub principal: String,
}

/// How a profile is wanted.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ProfileAsked {
    /// `1`: the bare plist, not signed.
    pub unsigned: Option<String>,
}

/// Makes an enrollment link.
#[utoipa::path(post, path = "/api/v1/enrollment-links", tag = "enrollment links", request_body = NewLink,
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key and body make one link")),
    responses(
        (status = 201, description = "Made; the URL is shown this once", body = MadeLink),
        (status = 400, description = "Unreadable JSON", body = Problem),
        (status = 401, description = "No valid token", body = Problem),
        (status = 403, description = "A scope is missing", body = Problem),
        (status = 409, description = "No push certificate, no public URL devices could use, or no CA of a manufacturer", body = Problem),
        (status = 415, description = "Not JSON", body = Problem),
        (status = 422, description = "A field is at fault", body = Problem),
        (status = 503, description = "Our own trouble", body = Problem)))]
pub async fn create(
    admin: Admin,
    request: HttpRequest,
    body: web::Bytes,
    app: web::Data<App>,
) -> Result<HttpResponse, Problem> {
    admin.demand(Scope::Enroll)?;
    let new: NewLink = strict_json(&request, &body)?;
    let url = PublicUrl::of(&app.config)?;
    let idempotency = idempotency(&request, &admin, &body)?;
    let (secret, mut link) = new.link(&app, &admin, &url, idempotency).await?;
    link.request = sha256(&body);
    let before = app.store.link(&link.id)?;
    if let Some(before) = before.filter(|_| idempotency.is_some()) {
        if before.request != link.request {
            return Err(actors::StoreError::IdempotencyMismatch.into());
        }
        return Ok(HttpResponse::Created().json(made(&before, &url, &secret)));
    }
    app.store.put_link(link.clone(), url.bases()).await?;
    tracing::info!(link = %link.id, principal = admin.principal(), "an enrollment link was made");
    Ok(HttpResponse::Created().json(made(&link, &url, &secret)))
}

/// Lists enrollment links, newest first.
#[utoipa::path(get, path = "/api/v1/enrollment-links", tag = "enrollment links",
    params(("limit" = Option<usize>, Query, description = "1 to 1000, 100 when absent"),
           ("cursor" = Option<String>, Query, description = "`next` of the page before")),
    responses(
        (status = 200, description = "A page of them", body = Page<LinkItem>),
        (status = 400, description = "A bad limit or cursor", body = Problem),
        (status = 401, description = "No valid token", body = Problem),
        (status = 403, description = "A scope is missing", body = Problem),
        (status = 503, description = "Our own trouble", body = Problem)))]
pub async fn list(
    admin: Admin,
    asked: web::Query<Asked>,
    app: web::Data<App>,
) -> Result<web::Json<Page<LinkItem>>, Problem> {
    admin.demand(Scope::Enroll)?;
    let limit = asked.limit()?;
    let mut links = app.store.links(asked.after(LINKS)?, limit + 1)?;
    let more = links.len() > limit;
    links.truncate(limit);
    let last = links.last().filter(|_| more);
    let now = app.store.expiry_clock();
    Ok(web::Json(Page {
        next: last.map(|(no, _)| cursor(LINKS, *no)),
        items: links.iter().map(|(_, link)| item(link, now)).collect(),
    }))
}

/// Shows an enrollment link.
#[utoipa::path(get, path = "/api/v1/enrollment-links/{id}", tag = "enrollment links",
    params(("id" = String, Path, description = "The link's handle")),
    responses(
        (status = 200, description = "The link, without its URL", body = LinkItem),
        (status = 401, description = "No valid token", body = Problem),
        (status = 403, description = "A scope is missing", body = Problem),
        (status = 404, description = "Unknown", body = Problem),
        (status = 503, description = "Our own trouble", body = Problem)))]
pub async fn show(
    admin: Admin,
    id: web::Path<String>,
    app: web::Data<App>,
) -> Result<web::Json<LinkItem>, Problem> {
    admin.demand(Scope::Enroll)?;
    let link = find(&app, id.into_inner())?;
    Ok(web::Json(item(&link, app.store.expiry_clock())))
}

/// Takes an enrollment link back: nothing is issued through it from then on.
#[utoipa::path(delete, path = "/api/v1/enrollment-links/{id}", tag = "enrollment links",
    params(("id" = String, Path, description = "The link's handle")),
    responses(
        (status = 204, description = "Taken back"),
        (status = 401, description = "No valid token", body = Problem),
        (status = 403, description = "A scope is missing", body = Problem),
        (status = 404, description = "Unknown", body = Problem),
        (status = 503, description = "Our own trouble", body = Problem)))]
pub async fn revoke(
    admin: Admin,
    id: web::Path<String>,
    app: web::Data<App>,
) -> Result<HttpResponse, Problem> {
    admin.demand(Scope::Enroll)?;
    let link = find(&app, id.into_inner())?;
    app.store.revoke_link(&link.id).await?;
    tracing::info!(link = %link.id, principal = admin.principal(), "an enrollment link was revoked");
    Ok(HttpResponse::NoContent().finish())
}

/// A profile of a link as a file, with a challenge or an identity of its own: for Apple
/// Configurator. With an identity it counts as a use.
#[utoipa::path(get, path = "/api/v1/enrollment-links/{id}/profile", tag = "enrollment links",
    params(("id" = String, Path, description = "The link's handle"), ProfileAsked),
    responses(
        (status = 200, description = "The profile", body = Vec<u8>, content_type = "application/x-apple-aspen-config"),
        (status = 401, description = "No valid token", body = Problem),
        (status = 403, description = "A scope is missing", body = Problem),
        (status = 404, description = "Unknown", body = Problem),
        (status = 409, description = "The link is void", body = Problem),
        (status = 503, description = "Our own trouble", body = Problem)))]
pub async fn profile(
    admin: Admin,
    id: web::Path<String>,
    asked: web::Query<ProfileAsked>,
    app: web::Data<App>,
) -> Result<HttpResponse, Problem> {
    admin.demand(Scope::Enroll)?;
    let link = find(&app, id.into_inner())?;
    let signed = asked.unsigned.as_deref() != Some("1");
    Ok(enroll::file(enroll::profile(&app, &link, signed).await?))
}

impl From<Identity> for IdentityKind {
    fn from(identity: Identity) -> Self {
        match identity {
            Identity::Scep => Self::Scep,
            Identity::Pkcs12 => Self::Pkcs12,
        }
    }
}

impl NewLink {
    /// The link this asks for, and the secret its URL carries.
    async fn link(
        &self,
        app: &App,
        admin: &Admin,
        url: &PublicUrl,
        idempotency: Option<Idempotency>,
    ) -> Result<(String, Link), Problem> {
        let now = app.store.expiry_clock();
        let device = self.device()?;
        let known = device.as_ref().map(|device| known(app, device));
        let known = known.transpose()?.flatten();
        let topic = self.topic(app, known.as_ref()).await?;
        let rights = self.rights(known.as_ref())?;
        let random = match idempotency {
            Some(idempotency) => app.store.link_secret(&idempotency.key),
            None => random()?,
        };
        let (secret, hash, id) = enroll::link_secret(&random);
        let link = Link {
            id,
            secret: hash,
            request: [0; 32],
            created: now,
            expires: now.plus_seconds(self.expires_in()?),
            max_uses: self.max_uses()?,
            uses: 0,
            tags: checked_tags(self.tags.clone().unwrap_or_default())?,
            device,
            topic: Topic(topic),
            shared: self.shared()?,
            identity: self.identity.unwrap_or_default().into(),
            ota: self.ota(app)?,
            managed_apple_id: self.managed_apple_id()?,
            offers: app.enroller.offers(app, url, rights),
            revoked: false,
            principal: admin.principal().to_owned(),
        };
        Ok((secret, link))
    }

    fn shared(&self) -> Result<bool, Problem> {
        let shared = self.challenge == Some(Challenge::Shared);
        if shared && self.identity == Some(Identity::Pkcs12) {
            let why =
                "cannot be \"shared\" when the identity is in the profile: each is of one device";
            return Err(Problem::field("/challenge", why));
        }
        Ok(shared)
    }

    fn ota(&self, app: &App) -> Result<bool, Problem> {
        if self.ota != Some(true) {
            return Ok(false);
        }
        let only = |pointer, why: &str| Err(Problem::field(pointer, why));
        if self.identity == Some(Identity::Pkcs12) {
            return only("/identity", "cannot be \"pkcs12\" with \"ota\"");
        }
        if self.challenge == Some(Challenge::Shared) {
            let why = "cannot be \"shared\" with \"ota\": each profile proves one device";
            return only("/challenge", why);
        }
        if self.kind == Some(Kind::User) {
            let why = "cannot be \"user\" with \"ota\": in User Enrollment no device names itself";
            return only("/kind", why);
        }
        if app.config.device.ota_trust_files.is_empty() {
            return Err(Problem::conflict(
                "no_ota_trust",
                "device.ota_trust_files is empty, and no device could prove itself: name the \
                 CAs that issue your devices' certificates first",
            ));
        }
        Ok(true)
    }

    fn device(&self) -> Result<Option<EnrollId>, Problem> {
        let device = self.device.as_deref().map(EnrollId::device);
        device
            .transpose()
            .map_err(|why| Problem::field("/device", why.to_string()))
    }

    /// The topic asked for, that of the device, or the one there is.
    async fn topic(&self, app: &App, known: Option<&Enrollment>) -> Result<String, Problem> {
        let has = topics(app).await?;
        let has: Vec<_> = has.into_iter().map(|topic| topic.topic).collect();
        if has.is_empty() {
            return Err(Problem::conflict(
                "no_push_certificate",
                "there is no push certificate, and no device could be woken: import one first",
            ));
        }
        let of_device = known
            .and_then(|device| device.channel.state.push())
            .map(|push| push.topic.certificate_topic().to_owned());
        match (self.topic.clone().or(of_device), has.as_slice()) {
            (Some(topic), has) if has.contains(&topic) => Ok(topic),
            (Some(topic), _) => {
                let why = format!("there is no push certificate of the topic {topic}");
                Err(Problem::field("/topic", why))
            }
            (None, [topic]) => Ok(topic.clone()),
            (None, _) => Err(Problem::field(
                "/topic",
                "must be given, there are several push certificates",
            )),
        }
    }

    /// What the profile will say; a device refuses one that takes more than it gave.
    fn rights(&self, known: Option<&Enrollment>) -> Result<Option<AccessRights>, Problem> {
        let names = self.access_rights.as_deref();
        if self.kind.unwrap_or_default() == Kind::User {
            return match names {
                Some(_) => Err(Problem::field(
                    "/access_rights",
                    "cannot be chosen for a User Enrollment",
                )),
                None => Ok(None),
            };
        }
        let gave = known.and_then(|device| device.enrolled_with.as_ref()?.rights);
        let Some(names) = names else {
            return Ok(Some(gave.unwrap_or(AccessRights::ALL)));
        };
        let unknown = names.iter().enumerate().filter_map(|(at, name)| {
            let why = AccessRights::from_names(&[name]).err()?;
            Some(Field {
                pointer: format!("/access_rights/{at}"),
                detail: why.to_string(),
            })
        });
        let unknown: Vec<_> = unknown.collect();
        if !unknown.is_empty() {
            return Err(Problem::fields(unknown));
        }
        let wrong = |why: String| Problem::field("/access_rights", why);
        let rights = AccessRights::from_names(names).map_err(|why| wrong(why.to_string()))?;
        let rights = rights.valid().map_err(|why| wrong(why.to_string()))?;
        match gave.map(|gave| gave.missing(rights)) {
            Some(more) if !more.is_empty() => Err(wrong(format!(
                "the device enrolled without {more}; it takes away rights from a profile, it \
                 does not add any"
            ))),
            _ => Ok(Some(rights)),
        }
    }

    fn managed_apple_id(&self) -> Result<Option<String>, Problem> {
        let wrong = |why| Err(Problem::field("/managed_apple_id", why));
        match (self.kind.unwrap_or_default(), &self.managed_apple_id) {
            (Kind::Device, None) => Ok(None),
            (Kind::Device, Some(_)) => wrong("is for links of kind \"user\""),
            (Kind::User, None) => wrong("is needed for a link of kind \"user\""),
            (Kind::User, Some(account)) => {
                let fits = account.contains('@')
                    && account.len() <= 255
                    && !account.chars().any(|c| c.is_control() || c.is_whitespace());
                if fits {
                    Ok(Some(account.clone()))
                } else {
                    wrong("is not a Managed Apple Account, such as anne@example.org")
                }
            }
        }
    }

    fn expires_in(&self) -> Result<u64, Problem> {
        match self.expires_in {
            None => Ok(EXPIRES_IN),
            Some(seconds @ 60..=EXPIRES_AT_MOST) => Ok(seconds),
            Some(_) => Err(Problem::field(
                "/expires_in",
                format!("must be 60 to {EXPIRES_AT_MOST} seconds"),
            )),
        }
    }

    fn max_uses(&self) -> Result<u32, Problem> {
        match self.max_uses {
            None => Ok(1),
            Some(uses @ 1..=USES_AT_MOST) => Ok(uses),
            Some(_) => Err(Problem::field(
                "/max_uses",
                format!("must be 1 to {USES_AT_MOST}"),
            )),
        }
    }
}

/// The enrollment of a device named by its id, or by a serial number only it has.
fn known(app: &App, device: &EnrollId) -> Result<Option<Enrollment>, Problem> {
    if let Some(channel) = app.store.find(device)? {
        return Ok(app.store.enrollment(channel)?);
    }
    let named = |of: &Device| Ok(of.enrollment.facts.serial_number == device.as_str());
    let (mut found, _) = app.store.devices(None, 2, named)?;
    let only = found.pop().filter(|_| found.is_empty());
    Ok(only.map(|device| device.enrollment))
}

fn find(app: &App, id: String) -> Result<Link, Problem> {
    let link = app.store.link(&LinkId(id))?;
    link.ok_or_else(|| Problem::not_found("there is no enrollment link with this id"))
}

fn random() -> Result<[u8; 32], Problem> {
    let mut random = [0; 32];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| Problem::unavailable("no randomness"))?;
    Ok(random)
}

fn made(link: &Link, url: &PublicUrl, secret: &str) -> MadeLink {
    MadeLink {
        id: link.id.to_string(),
        url: enroll::link_url(url, secret),
        expires_at: time(link.expires),
    }
}

fn item(link: &Link, now: UnixMillis) -> LinkItem {
    LinkItem {
        id: link.id.to_string(),
        state: link.state(now),
        created_at: time(link.created),
        expires_at: time(link.expires),
        max_uses: link.max_uses,
        uses: link.uses,
        tags: link.tags.clone(),
        access_rights: link.offers.rights.map(AccessRights::names),
        device: link.device.as_ref().map(EnrollId::to_string),
        topic: link.topic.0.clone(),
        challenge: if link.shared {
            Challenge::Shared
        } else {
            Challenge::OneTime
        },
        identity: match link.identity {
            IdentityKind::Scep => Identity::Scep,
            IdentityKind::Pkcs12 => Identity::Pkcs12,
        },
        ota: link.ota,
        kind: match link.managed_apple_id {
            Some(_) => Kind::User,
            None => Kind::Device,
        },
        managed_apple_id: link.managed_apple_id.clone(),
        principal: link.principal.clone(),
    }
}

const EXPIRES_IN: u64 = 7 * 24 * 3600;
const EXPIRES_AT_MOST: u64 = 366 * 24 * 3600;
const USES_AT_MOST: u32 = 1_000_000;
