//! The device door: check-ins and reports.
//!
//! Extract, prove the identity, read the message, ask the device's actor, answer.
//! What a device may be told lives in `error.rs`; what it means, in the floors below.

use actix_web::http::header::{self, HeaderMap};
use actix_web::{HttpRequest, HttpResponse, ResponseError as _, web};
use actors::admission::{Permit, Weight};
use actors::device::{Answer, CheckedIn, Presented, Reported};
use actors::registry::Opens;
use actors::store::{Identity, Packed};
use bytes::Bytes;
use memchr::memmem;
use schema::Leaf;
use schema::checkin::{self, Message, Misread, Sender};
use schema::report::{self, Report, Status};
use schema::xml::{Scan, Unreadable};

use crate::app::App;
use crate::body::{Body, SHORT, announced, drain, read};
use crate::enroll::renewed;
use crate::error::DeviceError;
use crate::identity::{DeviceIdentity, Evidence, IdentityError, IssuedBy, Source};
use crate::tls::PeerLeaf;

/// Mounts the device door.
pub fn routes(config: &mut web::ServiceConfig, checkin_path: &str, connect_path: &str) {
    config.route(checkin_path, web::put().to(door));
    if connect_path != checkin_path {
        config.route(connect_path, web::put().to(door));
    }
    config.route("/healthz", web::get().to(HttpResponse::Ok));
    config.default_service(web::to(HttpResponse::NotFound));
}

/// Mounts check-ins alone.
pub fn checkin_routes(config: &mut web::ServiceConfig, checkin_path: &str) {
    config.route(checkin_path, web::put().to(checkin_door));
    config.route("/healthz", web::get().to(HttpResponse::Ok));
    config.default_service(web::to(HttpResponse::NotFound));
}

/// What a device listener takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    /// All that devices send.
    All,
    /// Check-ins alone.
    CheckIns,
}

async fn door(request: HttpRequest, body: web::Payload, app: web::Data<App>) -> HttpResponse {
    answer(&request, body, &app, Takes::All).await
}

async fn checkin_door(
    request: HttpRequest,
    body: web::Payload,
    app: web::Data<App>,
) -> HttpResponse {
    answer(&request, body, &app, Takes::CheckIns).await
}

async fn answer(
    request: &HttpRequest,
    body: web::Payload,
    app: &App,
    takes: Takes,
) -> HttpResponse {
    let is_checkin = is_checkin(request.headers()).unwrap_or_else(|| {
        request.path() == app.config.device.checkin_path
            && app.config.device.checkin_path != app.config.device.connect_path
    });
    let route = if is_checkin { "checkin" } else { "connect" };
    let outcome = serve(request, body, app, is_checkin, takes).await;
    match outcome {
        Ok(response) => {
            app.metrics.device(route, "ok");
            response
        }
        Err(error) => {
            app.metrics.device(route, error.outcome());
            if error.status_code().is_server_error() {
                tracing::warn!(route, %error, "a device was not served");
            } else {
                tracing::info!(route, %error, "a device was refused");
            }
            error.error_response()
        }
    }
}

async fn serve(
    request: &HttpRequest,
    body: web::Payload,
    app: &App,
    is_checkin: bool,
    takes: Takes,
) -> Result<HttpResponse, DeviceError> {
    if request.headers().contains_key(header::CONTENT_ENCODING) {
        return Err(DeviceError::Encoded);
    }
    let cap = if is_checkin { CHECKIN_CAP } else { REPORT_CAP };
    // Whoever cannot be a device holds no room for a long body.
    let length = announced(request.headers(), cap)?;
    if length.is_none_or(|length| length > TINY)
        && let Err(error) = foresee(request, app)
    {
        drain(body).await;
        return Err(error);
    }
    let body = read(request.headers(), body, cap, app).await?;
    // A message sent to the other URL is told by what it is.
    let is_checkin = is_checkin || is_checkin_body(&body.bytes);
    if !is_checkin && takes == Takes::CheckIns {
        return Err(DeviceError::NotHere);
    }
    let identity = prove(request, &body, app)?;
    if is_checkin {
        if body.cut {
            return Err(DeviceError::TooLong(cap));
        }
        check_in(&identity, body.bytes, app, body.permit).await
    } else {
        report_in(&identity, body, app).await
    }
}

async fn check_in(
    identity: &DeviceIdentity,
    raw: Bytes,
    app: &App,
    held: Option<Permit>,
) -> Result<HttpResponse, DeviceError> {
    let checkin = checkin::parse(&raw)?;
    let _permit = match held {
        Some(permit) => permit,
        None => app
            .admission
            .admit(Weight::Full, raw.len())
            .ok_or(DeviceError::Overloaded)?,
    };
    app.metrics.checkin(checkin.message.name());
    let opens = match checkin.message {
        Message::Authenticate { .. } => Opens::Yes,
        _ => Opens::No,
    };
    let device = checkin.sender.device.clone();
    let said = CheckedIn {
        checkin,
        presented: presented(identity),
        raw,
    };
    let answer = app.registry.ask(&device, opens, said).await?;
    Ok(match answer {
        Answer::Empty => HttpResponse::Ok().finish(),
        Answer::Plist(plist) => HttpResponse::Ok()
            .content_type("application/xml")
            .body(plist),
        Answer::Json(json) => HttpResponse::Ok()
            .content_type("application/json")
            .body(json),
        Answer::NotFound => HttpResponse::NotFound().finish(),
        Answer::NotManaged => HttpResponse::Gone().finish(),
    })
}

async fn report_in(
    identity: &DeviceIdentity,
    body: Body,
    app: &App,
) -> Result<HttpResponse, DeviceError> {
    let (raw, held) = (body.bytes, body.permit);
    let (parsed, packed) = if body.cut {
        (Err(Misread::Unreadable(Unreadable::TooMany)), None)
    } else {
        parse(&raw).await?
    };
    let report = match parsed {
        Ok(report) => report,
        Err(misread) => match unreadable(identity, &raw, app, &misread)? {
            Some(report) => report,
            None => return Ok(HttpResponse::Ok().finish()),
        },
    };
    let weight = if report.status == Status::Idle {
        Weight::Idle
    } else {
        Weight::Full
    };
    let _permit = match held {
        Some(permit) => permit,
        None => app
            .admission
            .admit(weight, raw.len())
            .ok_or(DeviceError::Overloaded)?,
    };
    app.metrics.report(report.status);
    let device = report.sender.device.clone();
    let mut said = Reported {
        report,
        presented: presented(identity),
        raw,
        packed,
        held: None,
    };
    for _ in 0..HELD_AT_MOST {
        let turn = app.registry.ask(&device, Opens::No, said.clone()).await?;
        if let Some(durable) = turn.durable {
            durable.await?;
        }
        if let Some((leave, seq)) = turn.leave
            && !app.store.redeem(leave).await?
        {
            // The guard holds this one back; the device gets what comes behind it.
            said.held = Some(seq);
            continue;
        }
        let command = match turn.command {
            Some(template) if template.renews => {
                let seq = template.seq;
                let Some(command) = renewed(app, &device, template).await? else {
                    said.held = Some(seq);
                    continue;
                };
                Some(command)
            }
            command => command,
        };
        return Ok(match command {
            Some(command) => {
                app.metrics.handed_out();
                HttpResponse::Ok()
                    .content_type("application/xml")
                    .body(command.plist)
            }
            None => HttpResponse::Ok().finish(),
        });
    }
    Ok(HttpResponse::Ok().finish())
}

/// Reads a report; a large one off the workers, and packed for the store there too.
async fn parse(raw: &Bytes) -> Result<(Result<Report, Misread>, Option<Packed>), DeviceError> {
    if raw.len() <= SHORT {
        return Ok((report::parse(raw), None));
    }
    let raw = raw.clone();
    let work = web::block(move || (report::parse(&raw), Some(Packed::of(&raw))));
    work.await.map_err(|_| DeviceError::Overloaded)
}

/// A report from a bound identity is never refused for its content: the device would
/// repeat it for ever. Its device is told by the binding, its command by what can still
/// be found in it, its channel by the command. Nothing when no command can be told.
fn unreadable(
    identity: &DeviceIdentity,
    raw: &[u8],
    app: &App,
    why: &dyn std::fmt::Display,
) -> Result<Option<Report>, DeviceError> {
    let bound = app
        .store
        .certificate(Leaf(identity.leaf))?
        .and_then(|record| record.bound_to);
    let enrollment = bound
        .map(|device| app.store.enrollment(device))
        .transpose()?
        .flatten();
    let Some(enrollment) = enrollment else {
        return Err(DeviceError::Unbound);
    };
    app.metrics.unreadable_report();
    tracing::warn!(device = %enrollment.channel.id, %why, "an unreadable report closes its command");
    let Some(uuid) = report::head_of_unreadable(raw) else {
        return Ok(None);
    };
    let seq = app.store.seq_of(&uuid)?;
    let command = seq.map(|seq| app.store.command(seq)).transpose()?.flatten();
    let targets = command
        .map(|summary| app.store.targets(&summary.command))
        .unwrap_or_default();
    let channel = enrollment
        .channels()
        .find(|channel| targets.contains(&channel.no));
    Ok(channel.map(|channel| Report {
        sender: Sender {
            device: enrollment.channel.id.clone(),
            channel: channel.id.clone(),
            kind: channel.kind,
        },
        status: Status::Unreadable,
        uuid: Some(uuid),
    }))
}

fn prove(
    request: &HttpRequest,
    body: &Body,
    app: &App,
) -> Result<std::sync::Arc<DeviceIdentity>, DeviceError> {
    let mut evidence = evidence(request, app)?;
    let vouched_for = evidence.proxy_header.is_some() || evidence.tls_leaf.is_some();
    if body.cut && evidence.signature_header.is_some() {
        // A signature proves nothing over a part of what it signed.
        if !vouched_for {
            return Err(DeviceError::TooLong(REPORT_CAP));
        }
        evidence.signature_header = None;
    }
    evidence.body = &body.bytes;
    Ok(app.verifier.verify(&evidence)?)
}

/// Refuses, before its body is read, a request that no body can make a device's.
fn foresee(request: &HttpRequest, app: &App) -> Result<(), DeviceError> {
    Ok(app.verifier.foresee(&evidence(request, app)?)?)
}

/// What the head of a request and its connection offer in proof.
fn evidence<'r>(request: &'r HttpRequest, app: &App) -> Result<Evidence<'r>, DeviceError> {
    let peer = request.peer_addr().ok_or(IdentityError::Missing)?.ip();
    let headers = request.headers();
    let proxy_header = match app.verifier.client_cert_header() {
        Some(name) => single(headers, name)?,
        None => None,
    };
    Ok(Evidence {
        peer,
        tls_leaf: request.conn_data::<PeerLeaf>().map(|leaf| &*leaf.0),
        signature_header: single(headers, "Mdm-Signature")?,
        proxy_header,
        body: &[],
    })
}

/// The value of a header that may stand only once.
fn single<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h [u8]>, DeviceError> {
    let mut values = headers.get_all(name);
    let first = values.next();
    match values.next() {
        Some(_) => Err(IdentityError::Malformed {
            what: "a header that stands twice",
        }
        .into()),
        None => Ok(first.map(header::HeaderValue::as_bytes)),
    }
}

fn presented(identity: &DeviceIdentity) -> Presented {
    Presented {
        identity: Identity {
            leaf: Leaf(identity.leaf),
            not_after: identity.not_after,
            serial: identity.serial.clone(),
        },
        ours: identity.issued_by == IssuedBy::Ours,
        replayable: identity.source == Source::Signature,
        handed_over: false,
    }
}

/// What the Content-Type says the message is; nothing when it says nothing.
fn is_checkin(headers: &HeaderMap) -> Option<bool> {
    let kind = headers.get(header::CONTENT_TYPE)?.as_bytes();
    if kind.starts_with(b"application/x-apple-aspen-mdm-checkin") {
        Some(true)
    } else if kind.starts_with(b"application/x-apple-aspen-mdm") {
        Some(false)
    } else {
        None
    }
}

fn is_checkin_body(body: &[u8]) -> bool {
    let head = body.get(..body.len().min(4096)).unwrap_or(body);
    memmem::find(head, CHECKIN_KEY).is_some()
        && Scan::new(body).is_ok_and(|scan| scan.get("MessageType").is_some())
}

const CHECKIN_KEY: &[u8] = b"<key>MessageType</key>";
const CHECKIN_CAP: usize = 4 << 20;
const REPORT_CAP: usize = 32 << 20;
/// Read before it is known whose it is: a poll, a common report.
const TINY: usize = 8 << 10;
const HELD_AT_MOST: usize = 16;
