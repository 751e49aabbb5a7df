//! The fake APNs answers as scripted to a real HTTP/2 client.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sim::{Answer, DeviceCa, FakeApns, Identity, Script};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

type Connection = SendRequest<Full<Bytes>>;

async fn connect(apns: &FakeApns, identity: Option<&Identity>) -> Connection {
    let mut roots = RootCertStore::empty();
    let root = openssl::x509::X509::from_pem(apns.root_pem()).unwrap();
    roots
        .add(CertificateDer::from(root.to_der().unwrap()))
        .unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_root_certificates(roots);
    let mut config = match identity {
        None => config.with_no_client_auth(),
        Some(identity) => config
            .with_client_auth_cert(
                vec![CertificateDer::from(identity.cert_der.to_vec())],
                PrivateKeyDer::from(PrivatePkcs8KeyDer::from(identity.key_pkcs8_der().unwrap())),
            )
            .unwrap(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(("127.0.0.1", apns.port()))
        .await
        .unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let tls = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .unwrap();
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(tls))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

/// A server's half of APNs, for the other tests.
pub(crate) struct Pusher(Connection);

impl Pusher {
    pub(crate) async fn to(apns: &FakeApns) -> Self {
        Self(connect(apns, None).await)
    }

    pub(crate) async fn push(&self, token: &str, topic: &str, magic: &str) {
        let mut request = push(token);
        let topic = topic.parse().unwrap();
        request.headers_mut().insert("apns-topic", topic);
        *request.body_mut() = Full::new(Bytes::from(format!(r#"{{"mdm":"{magic}"}}"#)));
        let response = self.0.clone().send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
    }
}

fn push(token: &str) -> Request<Full<Bytes>> {
    Request::post(format!("https://localhost/3/device/{token}"))
        .header("apns-topic", "com.apple.mgmt.x")
        .header("apns-push-type", "mdm")
        .header("apns-priority", "10")
        .header("apns-expiration", "1700000000")
        .body(Full::new(Bytes::from_static(br#"{"mdm":"magic"}"#)))
        .unwrap()
}

async fn body(response: Response<Incoming>) -> serde_json::Value {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&bytes).unwrap()
}

#[tokio::test]
async fn a_good_push_is_accepted_and_told() {
    let apns = FakeApns::start(Script::default()).await.unwrap();
    let mut pushes = apns.pushes();
    let mut connection = connect(&apns, None).await;
    let response = connection.send_request(push("ab01")).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.headers().contains_key("apns-id"));
    let push = pushes.recv().await.unwrap();
    assert_eq!((&*push.token_hex, &*push.magic), ("ab01", "magic"));
    assert_eq!(push.expiration, Some(1_700_000_000));
    assert_eq!(apns.received("ab01"), 1);
    assert_eq!(apns.connections().with_certificate, 0);
}

#[tokio::test]
async fn errors_come_as_scripted_then_the_standing_answer() {
    let mut script = Script::default();
    script.next_for.insert(
        "ab".to_owned(),
        [Answer::unregistered(1234), Answer::unavailable(7)].into(),
    );
    script
        .always_for
        .insert("cd".to_owned(), Answer::bad_device_token());
    let apns = FakeApns::start(script).await.unwrap();
    let mut connection = connect(&apns, None).await;

    let gone = connection.send_request(push("ab")).await.unwrap();
    assert_eq!(gone.status(), 410);
    let gone = body(gone).await;
    assert_eq!(
        (&gone["reason"], &gone["timestamp"]),
        (&"Unregistered".into(), &1234.into())
    );
    let busy = connection.send_request(push("ab")).await.unwrap();
    assert_eq!(busy.status(), 503);
    assert_eq!(busy.headers()["retry-after"], "7");
    assert_eq!(
        connection.send_request(push("ab")).await.unwrap().status(),
        200
    );
    for _ in 0..2 {
        let bad = connection.send_request(push("cd")).await.unwrap();
        assert_eq!(body(bad).await["reason"], "BadDeviceToken");
    }

    apns.rescript(|script| script.always_for.clear());
    assert_eq!(
        connection.send_request(push("cd")).await.unwrap().status(),
        200
    );
    assert_eq!((apns.counts().received, apns.counts().accepted), (6, 2));
}

#[tokio::test]
async fn a_malformed_push_is_refused_and_kept_for_the_test() {
    let apns = FakeApns::start(Script::default()).await.unwrap();
    let mut connection = connect(&apns, None).await;
    let mut request = push("ab");
    request.headers_mut().remove("apns-topic");
    let refused = connection.send_request(request).await.unwrap();
    assert_eq!(refused.status(), 400);
    assert_eq!(body(refused).await["reason"], "MissingTopic");
    assert_eq!(apns.refusals()[0].reason, "MissingTopic");
    assert_eq!(apns.counts().malformed, 1);
}

#[tokio::test]
async fn a_required_certificate_is_missed_and_any_will_do() {
    let script = Script {
        certificate_required: true,
        ..Script::default()
    };
    let apns = FakeApns::start(script).await.unwrap();
    let mut without = connect(&apns, None).await;
    assert_eq!(
        without.send_request(push("ab")).await.unwrap().status(),
        403
    );
    let identity = DeviceCa::quick().unwrap().issue("anyone").unwrap();
    let mut with = connect(&apns, Some(&identity)).await;
    assert_eq!(with.send_request(push("ab")).await.unwrap().status(), 200);
    assert_eq!(apns.connections().with_certificate, 1);
}

#[tokio::test]
async fn a_stall_never_answers_and_a_stalled_body_never_ends() {
    let script = Script {
        next: [Answer::Stall, Answer::StallBody { status: 503 }].into(),
        ..Script::default()
    };
    let apns = FakeApns::start(script).await.unwrap();
    let mut connection = connect(&apns, None).await;
    let short = Duration::from_millis(200);
    assert!(
        timeout(short, connection.send_request(push("ab")))
            .await
            .is_err()
    );
    let response = connection.send_request(push("ab")).await.unwrap();
    assert_eq!(response.status(), 503);
    assert!(
        timeout(short, response.into_body().collect())
            .await
            .is_err()
    );
    // The connection itself still works.
    assert_eq!(
        connection.send_request(push("ab")).await.unwrap().status(),
        200
    );
}

#[tokio::test]
async fn a_reset_kills_one_stream_and_a_drop_kills_all() {
    let script = Script {
        next: [Answer::Reset, Answer::Accept, Answer::Drop].into(),
        ..Script::default()
    };
    let apns = FakeApns::start(script).await.unwrap();
    let mut connection = connect(&apns, None).await;
    assert!(connection.send_request(push("ab")).await.is_err());
    assert_eq!(
        connection.send_request(push("ab")).await.unwrap().status(),
        200
    );
    assert!(connection.send_request(push("ab")).await.is_err());
    assert!(connection.ready().await.is_err());
}

#[tokio::test]
async fn go_away_lets_open_streams_finish() {
    let script = Script {
        go_away_after: Some(2),
        delay: Duration::from_millis(50),
        ..Script::default()
    };
    let apns = FakeApns::start(script).await.unwrap();
    let mut connection = connect(&apns, None).await;
    let first = connection.send_request(push("ab"));
    let second = connection.send_request(push("cd"));
    let (first, second) = tokio::join!(first, second);
    assert_eq!(
        (first.unwrap().status(), second.unwrap().status()),
        (200.try_into().unwrap(), 200.try_into().unwrap())
    );
    let refused = timeout(Duration::from_secs(5), connection.send_request(push("ef")));
    assert!(refused.await.unwrap().is_err());
    let mut next = connect(&apns, None).await;
    assert_eq!(next.send_request(push("ef")).await.unwrap().status(), 200);
    assert_eq!(apns.connections().opened, 2);
}

#[tokio::test]
async fn streams_are_limited_by_settings() {
    let script = Script {
        max_concurrent_streams: 1,
        delay: Duration::from_millis(100),
        ..Script::default()
    };
    let apns = FakeApns::start(script).await.unwrap();
    let mut connection = connect(&apns, None).await;
    // The first answer proves that the client has seen the settings.
    connection.send_request(push("ab")).await.unwrap();
    let start = std::time::Instant::now();
    let first = connection.send_request(push("ab"));
    let second = connection.send_request(push("ab"));
    let (first, second) = tokio::join!(first, second);
    assert!(first.is_ok() && second.is_ok());
    assert!(
        start.elapsed() >= Duration::from_millis(200),
        "both at once"
    );
}

#[tokio::test]
async fn after_shutdown_nobody_answers() {
    let apns = FakeApns::start(Script::default()).await.unwrap();
    let mut connection = connect(&apns, None).await;
    connection.send_request(push("ab")).await.unwrap();
    let port = apns.port();
    apns.shutdown();
    assert!(
        timeout(Duration::from_secs(5), async {
            while connection.send_request(push("ab")).await.is_ok() {}
            while TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .is_ok()
    );
}
