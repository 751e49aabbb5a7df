//! The NanoMDM dialect: scripts written for NanoMDM and NanoHUB keep working.
//!
//! Mounted on the admin listener when its key is configured, at `/v1` and, as NanoHUB
//! does, at `/api/v1/nanomdm`. Paths, statuses and JSON are NanoMDM's; what happens is
//! ours, and goes through the same doors as our own API: the guard over destructive
//! commands and the push supervisor.
//!
//! Where several of NanoMDM's storage backends differ we follow its kv backend: an id
//! that is unknown, or not enrolled, gets a `command_error` of its own while the command
//! is queued for the others (its SQL backends fail the whole batch).

mod caller;
mod migration;
mod reply;
mod targets;

use actix_web::web::{Bytes, Data, Path, ServiceConfig};
use actix_web::{HttpRequest, rt, web};
use actors::push_certificate::PushCertificate;
use schema::command::Command;

use self::caller::{Caller, NANOHUB};
use self::reply::{ApiResult, PushCert, Refusal};
use self::targets::Targets;
use crate::api::push_certificates::{put_certificate, topics};
use crate::api::rendering::time_of_seconds;
use crate::app::App;

/// Mounts it. To be configured before [`crate::api::routes`], whose scope `/api/v1`
/// would take NanoHUB's paths.
pub fn routes(config: &mut ServiceConfig) {
    migration::routes(config);
    for mount in ["/v1", NANOHUB] {
        config.service(
            web::scope(mount)
                .service(
                    web::resource("/pushcert")
                        .get(show_push_certificate)
                        .put(store_push_certificate)
                        .default_service(web::to(other_method)),
                )
                .service(web::resource("/push/{ids:.*}").to(push))
                .service(web::resource("/enqueue/{ids:.*}").to(enqueue))
                .configure(|scope| {
                    if mount == NANOHUB {
                        migration::routes(scope);
                    }
                })
                .default_service(web::to(unknown)),
        );
    }
}

/// Wakes the devices named in the path.
async fn push(_: Caller, path: Path<String>, app: Data<App>) -> ApiResult {
    let (mut result, targets) = match Targets::read(&app, &path) {
        Ok(targets) => (ApiResult::for_ids(targets.asked), targets),
        Err(why) => return ApiResult::push_failed(why),
    };
    targets.wake(&app, &mut result).await;
    result
}

/// Queues the command in the body for the devices named in the path, and wakes them
/// unless `nopush` is anything but empty. An empty body only wakes.
async fn enqueue(
    caller: Caller,
    request: HttpRequest,
    path: Path<String>,
    body: Result<Bytes, actix_web::Error>,
    app: Data<App>,
) -> ApiResult {
    let read = || {
        let targets = Targets::read(&app, &path)?;
        let body = body.map_err(|error| format!("reading body: {error}"))?;
        Ok((targets, command(&body)?))
    };
    let (targets, command) = match read() {
        Ok(read) => read,
        Err(why) => return ApiResult::command_failed(why),
    };
    let no_push = !query(&request, "nopush").is_empty();
    // Not dropped with the request: a caller who hangs up after the command is queued
    // must not keep its devices from being woken.
    let task = rt::spawn(deliver(app, caller, targets, command, no_push));
    let failed = |_| ApiResult::command_failed("the request failed inside the server".into());
    task.await.unwrap_or_else(failed)
}

async fn deliver(
    app: Data<App>,
    caller: Caller,
    targets: Targets,
    command: Option<Command>,
    no_push: bool,
) -> ApiResult {
    let mut result = ApiResult::for_ids(targets.asked);
    result.no_push = no_push;
    match command {
        Some(command) => targets.queue(&app, &caller, command, &mut result).await,
        None if no_push => result.command_error = Some("must enqueue or push".into()),
        None => {}
    }
    if !no_push && result.command_error.is_none() {
        targets.wake(&app, &mut result).await;
    }
    result
}

/// Puts a push certificate to use: certificate and unencrypted key, PEM in any order.
async fn store_push_certificate(
    _: Caller,
    body: Result<Bytes, actix_web::Error>,
    app: Data<App>,
) -> Result<PushCert, Refusal> {
    let body = body.map_err(|error| Refusal::Failed(format!("reading body: {error}")))?;
    let certificate = PushCertificate::from_pem(&body, None)
        .map_err(|error| Refusal::BadRequest(error.to_string()))?;
    let stored = PushCert {
        topic: certificate.topic.clone(),
        not_after: time_of_seconds(certificate.not_after),
    };
    put_certificate(&app, certificate).await?;
    Ok(stored)
}

/// Shows the push certificate of a topic.
async fn show_push_certificate(
    _: Caller,
    request: HttpRequest,
    app: Data<App>,
) -> Result<PushCert, Refusal> {
    let wanted = query(&request, "topic");
    if wanted.is_empty() {
        let why = "missing required query parameter: topic";
        return Err(Refusal::BadRequest(why.into()));
    }
    let found = topics(&app)
        .await?
        .into_iter()
        .find(|item| item.topic == wanted);
    let found = found
        .ok_or_else(|| Refusal::Failed(format!("there is no push certificate for {wanted:?}")))?;
    Ok(PushCert {
        topic: found.topic,
        not_after: found.not_after,
    })
}

async fn other_method(_: Caller) -> Result<PushCert, Refusal> {
    Err(Refusal::OtherMethod)
}

async fn unknown(_: Caller) -> Result<ApiResult, Refusal> {
    Err(Refusal::Unknown)
}

/// The command in a body, when there is one.
fn command(body: &Bytes) -> Result<Option<Command>, String> {
    if body.is_empty() {
        return Ok(None);
    }
    Command::from_plist(body.to_vec())
        .map(Some)
        .map_err(|error| format!("decoding command: {error}"))
}

/// The first value of a query parameter; empty when it is absent.
fn query(request: &HttpRequest, name: &str) -> String {
    let pairs: Vec<(String, String)> =
        serde_urlencoded::from_str(request.query_string()).unwrap_or_default();
    pairs
        .into_iter()
        .find_map(|(key, value)| (key == name).then_some(value))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn nopush_is_anything_but_empty() {
        let cases = [
            ("/v1/enqueue/a", ""),
            ("/v1/enqueue/a?nopush", ""),
            ("/v1/enqueue/a?nopush=", ""),
            ("/v1/enqueue/a?nopush=0", "0"),
            ("/v1/enqueue/a?x=1&nopush=1&nopush=", "1"),
        ];
        for (uri, value) in cases {
            let request = TestRequest::with_uri(uri).to_http_request();
            assert_eq!(query(&request, "nopush"), value, "{uri}");
        }
    }

    #[test]
    fn an_empty_body_is_no_command_and_a_broken_one_is_an_error() {
        assert_eq!(command(&Bytes::new()), Ok(None));
        let error = command(&Bytes::from_static(b"{}")).unwrap_err();
        assert!(error.starts_with("decoding command: "), "{error}");
    }
}
