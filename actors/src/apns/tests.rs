use std::future::Future;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use a2::ErrorReason;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use super::fake::{Answer, Fake, Order, Script, a_push, quick};
use super::pki::{Pki, TOPIC};
use super::*;

const ACCEPTED: Outcome = Outcome::Accepted { apns_id: None };

async fn all(client: &ApnsClient, pushes: usize) -> Vec<Outcome> {
    let mut under_way = JoinSet::new();
    for _ in 0..pushes {
        let client = client.clone();
        under_way.spawn(async move { client.push(a_push()).await });
    }
    under_way.join_all().await
}

fn is_send<T: Future + Send>(future: T) -> T {
    future
}

#[tokio::test]
async fn a_push_is_the_documented_request() {
    let pki = Pki::new();
    let id = Uuid::new_v4();
    let given = id.to_string();
    let fake = Fake::start(
        &pki,
        Script::new(move |_| Answer {
            headers: vec![("apns-id", given.clone())],
            ..Answer::ok()
        }),
    );
    let fake = fake.await;
    let client = fake.client(&pki, 1);
    assert_eq!(client.connections(), 0);
    let outcome = is_send(client.push(a_push())).await;
    assert_eq!(outcome, Outcome::Accepted { apns_id: Some(id) });
    let second = Push {
        topic: format!("{TOPIC}.user"),
        magic: "\"quoted\\".to_owned(),
        expiration: 1_790_000_000,
        apns_id: Some(id),
        ..a_push()
    };
    client.push(second).await;
    assert_eq!(client.connections(), 1);

    let expected = [
        (
            vec![
                ("apns-expiration", "0".to_owned()),
                ("apns-priority", "10".to_owned()),
                ("apns-push-type", "mdm".to_owned()),
                ("apns-topic", TOPIC.to_owned()),
                ("content-length", "24".to_owned()),
            ],
            r#"{"mdm":"7B1F9A3E-magic"}"#,
        ),
        (
            vec![
                ("apns-expiration", "1790000000".to_owned()),
                ("apns-id", id.to_string()),
                ("apns-priority", "10".to_owned()),
                ("apns-push-type", "mdm".to_owned()),
                ("apns-topic", format!("{TOPIC}.user")),
                ("content-length", "20".to_owned()),
            ],
            r#"{"mdm":"\"quoted\\"}"#,
        ),
    ];
    let seen = fake.seen.lock().unwrap();
    assert_eq!(seen.len(), 2);
    for (seen, (headers, body)) in seen.iter().zip(expected) {
        assert_eq!(seen.method, "POST");
        assert_eq!(
            seen.uri.to_string(),
            format!("https://localhost:{}/3/device/01abff", fake.port)
        );
        let mut got: Vec<_> = seen
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap().to_owned()))
            .collect();
        got.sort();
        assert_eq!(got, headers);
        assert_eq!(seen.body, body);
    }
    let peers = fake.peers.lock().unwrap();
    assert_eq!(*peers, pki.push_certificate().chain_der);
}

#[tokio::test]
async fn every_row_of_the_status_table_has_its_outcome() {
    use ErrorReason::*;
    let refused = |reason| Outcome::CertificateRefused {
        reason: Reason::Named(reason),
    };
    let ours = |status, reason| Outcome::OurFault {
        status,
        reason: Reason::Named(reason),
    };
    let back_off = |status, reason| Outcome::Backoff {
        status,
        retry_after: None,
        reason: Reason::Named(reason),
    };
    let table = [
        (200, "", ACCEPTED),
        (400, "BadDeviceToken", Outcome::BadToken),
        (400, "DeviceTokenNotForTopic", Outcome::TopicMismatch),
        (400, "BadTopic", ours(400, BadTopic)),
        (400, "MissingTopic", ours(400, MissingTopic)),
        (400, "TopicDisallowed", ours(400, TopicDisallowed)),
        (400, "PayloadEmpty", ours(400, PayloadEmpty)),
        (400, "BadMessageId", ours(400, BadMessageId)),
        (400, "BadPriority", ours(400, BadPriority)),
        (400, "BadExpirationDate", ours(400, BadExpirationDate)),
        (400, "BadCollapseId", ours(400, BadCollapseId)),
        (400, "DuplicateHeaders", ours(400, DuplicateHeaders)),
        (400, "MissingDeviceToken", ours(400, MissingDeviceToken)),
        (400, "InvalidPushType", ours(400, InvalidPushType)),
        (400, "IdleTimeout", Outcome::Unanswered { why: Fault::Idle }),
        (403, "BadCertificate", refused(BadCertificate)),
        (
            403,
            "BadCertificateEnvironment",
            refused(BadCertificateEnvironment),
        ),
        (403, "Forbidden", refused(Forbidden)),
        (403, "ExpiredProviderToken", refused(ExpiredProviderToken)),
        (403, "InvalidProviderToken", refused(InvalidProviderToken)),
        (403, "MissingProviderToken", refused(MissingProviderToken)),
        (404, "BadPath", ours(404, BadPath)),
        (405, "MethodNotAllowed", ours(405, MethodNotAllowed)),
        (
            410,
            "Unregistered",
            Outcome::Unregistered { since_ms: None },
        ),
        (
            410,
            "ExpiredToken",
            Outcome::Unregistered { since_ms: None },
        ),
        (413, "PayloadTooLarge", ours(413, PayloadTooLarge)),
        (429, "TooManyRequests", back_off(429, TooManyRequests)),
        (
            429,
            "TooManyProviderTokenUpdates",
            back_off(429, TooManyProviderTokenUpdates),
        ),
        (
            500,
            "InternalServerError",
            back_off(500, InternalServerError),
        ),
        (503, "ServiceUnavailable", back_off(503, ServiceUnavailable)),
        (503, "Shutdown", back_off(503, Shutdown)),
    ];
    let answers: Vec<_> = table
        .iter()
        .map(|(status, reason, _)| Answer::refusal(*status, reason))
        .collect();
    let pki = Pki::new();
    let fake = Fake::start(&pki, Script::new(move |nth| answers[nth].clone())).await;
    let client = fake.client(&pki, 1);
    for (status, reason, expected) in table {
        assert_eq!(client.push(a_push()).await, expected, "{status} {reason}");
    }
    // IdleTimeout asks for a new connection; the other rows leave it alone.
    assert_eq!(fake.connections.load(SeqCst), 2);
    assert_eq!(client.connections(), 1);
}

#[tokio::test]
async fn timestamp_and_retry_after_are_read() {
    let pki = Pki::new();
    let fake = Fake::start(
        &pki,
        Script::new(|nth| match nth {
            0 => Answer {
                status: 410,
                body: r#"{"reason":"Unregistered","timestamp":1508249865488}"#.into(),
                ..Answer::default()
            },
            1 => Answer {
                headers: vec![("retry-after", "30".to_owned())],
                ..Answer::refusal(503, "ServiceUnavailable")
            },
            _ => Answer {
                body: vec![b' '; 5000].into(),
                ..Answer::refusal(400, "")
            },
        }),
    );
    let fake = fake.await;
    let client = fake.client(&pki, 1);
    let outcome = client.push(a_push()).await;
    assert_eq!(
        outcome,
        Outcome::Unregistered {
            since_ms: Some(1_508_249_865_488)
        }
    );
    let outcome = client.push(a_push()).await;
    let pause = Some(Duration::from_secs(30));
    assert!(
        matches!(outcome, Outcome::Backoff { status: 503, retry_after, .. } if retry_after == pause)
    );
    // A body beyond 4 KiB is not read, the status counts.
    let reason = Reason::Other(String::new());
    assert_eq!(
        client.push(a_push()).await,
        Outcome::OurFault {
            status: 400,
            reason
        }
    );
}

#[tokio::test]
async fn full_connections_are_joined_by_more_and_every_push_arrives() {
    let pki = Pki::new();
    let script = Script {
        streams: 10,
        ..Script::new(|_| Answer::ok().after(100))
    };
    let fake = Fake::start(&pki, script).await;
    let client = fake.client(&pki, 5);
    assert!(
        all(&client, 200)
            .await
            .iter()
            .all(|outcome| *outcome == ACCEPTED)
    );
    assert_eq!(client.connections(), 5);
    assert_eq!(fake.connections.load(SeqCst), 5);
}

#[tokio::test]
async fn ready_reserves_a_place_and_gives_it_back() {
    let pki = Pki::new();
    let script = Script {
        streams: 2,
        ..Script::new(|_| Answer::ok())
    };
    let fake = Fake::start(&pki, script).await;
    let client = fake.client(&pki, 1);
    let (first, second) = (client.ready().await.unwrap(), client.ready().await.unwrap());
    let wait = Duration::from_millis(50);
    assert!(tokio::time::timeout(wait, client.ready()).await.is_err());
    drop(first);
    let third = client.ready().await.unwrap();
    assert_eq!(second.push(a_push()).await, ACCEPTED);
    assert_eq!(third.push(a_push()).await, ACCEPTED);
    assert_eq!(fake.connections.load(SeqCst), 1);
}

#[tokio::test]
async fn go_away_and_reset_lose_no_push() {
    for order in [Order::GoAway, Order::Reset] {
        let pki = Pki::new();
        let script = Script {
            streams: 50,
            order: Some((320, order)),
            ..Script::new(|_| Answer::ok().after(20))
        };
        let fake = Fake::start(&pki, script).await;
        let client = fake.client(&pki, 2);
        let outcomes = all(&client, 1000).await;
        let lost = |outcome: &&Outcome| {
            matches!(
                outcome,
                Outcome::Unanswered {
                    why: Fault::Lost(_)
                }
            )
        };
        let accepted = outcomes
            .iter()
            .filter(|outcome| **outcome == ACCEPTED)
            .count();
        let unanswered = outcomes.iter().filter(lost).count();
        assert_eq!(accepted + unanswered, 1000, "{outcomes:?}");
        // At most what was under way on two connections.
        assert!(unanswered <= 100, "{unanswered}");
        assert!(unanswered > 0 || order == Order::GoAway);
        assert!(
            all(&client, 100)
                .await
                .iter()
                .all(|outcome| *outcome == ACCEPTED)
        );
        assert_eq!(fake.connections.load(SeqCst), 4);
    }
}

#[tokio::test]
async fn a_stalled_answer_ends_at_the_deadline_and_wears_the_connection_out() {
    let pki = Pki::new();
    let fake = Fake::start(
        &pki,
        Script::new(|nth| {
            if nth < 3 {
                Answer::ok().after(60_000)
            } else {
                Answer::ok()
            }
        }),
    );
    let fake = fake.await;
    let timing = Timing {
        answer: Duration::from_millis(300),
        ..quick()
    };
    let client =
        ApnsClient::with_timing(fake.endpoint(&pki, 1), &pki.push_certificate(), timing).unwrap();
    let start = Instant::now();
    let stalled = Outcome::Unanswered {
        why: Fault::Deadline,
    };
    assert!(
        all(&client, 3)
            .await
            .iter()
            .all(|outcome| *outcome == stalled)
    );
    assert!(start.elapsed() < Duration::from_secs(2));
    assert_eq!(client.push(a_push()).await, ACCEPTED);
    assert_eq!(fake.connections.load(SeqCst), 2);
}

#[tokio::test]
async fn a_stalled_error_body_ends_at_the_deadline() {
    let pki = Pki::new();
    let fake = Fake::start(
        &pki,
        Script::new(|nth| Answer {
            stalls: true,
            ..Answer::refusal(if nth == 0 { 410 } else { 503 }, "Unregistered")
        }),
    );
    let fake = fake.await;
    let timing = Timing {
        answer: Duration::from_millis(300),
        ..quick()
    };
    let client =
        ApnsClient::with_timing(fake.endpoint(&pki, 1), &pki.push_certificate(), timing).unwrap();
    let outcome = client.push(a_push()).await;
    assert_eq!(
        outcome,
        Outcome::Unanswered {
            why: Fault::Deadline
        }
    );
    // That the server wants us to wait is clear without a reason.
    let outcome = client.push(a_push()).await;
    assert!(
        matches!(outcome, Outcome::Backoff { status: 503, .. }),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn a_silent_connection_is_given_up_by_its_ping() {
    // A relay that at some point passes nothing on, as a dead NAT entry does.
    let pki = Pki::new();
    let fake = Fake::start(&pki, Script::new(|_| Answer::ok())).await;
    let relay = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint {
        port: relay.local_addr().unwrap().port(),
        ..fake.endpoint(&pki, 1)
    };
    let (cut, mut is_cut) = tokio::sync::watch::channel(false);
    let port = fake.port;
    tokio::spawn(async move {
        let (mut near, _) = relay.accept().await.unwrap();
        let mut far = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
            _ = is_cut.wait_for(|cut| *cut) => {}
        }
        std::future::pending::<()>().await;
    });
    let timing = Timing {
        ping_interval: Duration::from_millis(100),
        ping_timeout: Duration::from_millis(100),
        answer: Duration::from_secs(20),
        ..quick()
    };
    let client = ApnsClient::with_timing(endpoint, &pki.push_certificate(), timing).unwrap();
    assert_eq!(client.push(a_push()).await, ACCEPTED);
    cut.send(true).unwrap();
    let start = Instant::now();
    let outcome = client.push(a_push()).await;
    assert!(
        matches!(
            outcome,
            Outcome::Unanswered {
                why: Fault::Lost(_)
            }
        ),
        "{outcome:?}"
    );
    assert!(start.elapsed() < Duration::from_secs(2));
    assert_eq!(client.connections(), 0);
}

#[tokio::test]
async fn a_server_we_do_not_trust_is_a_fault_of_tls() {
    let (pki, other) = (Pki::new(), Pki::new());
    let fake = Fake::start(&pki, Script::new(|_| Answer::ok())).await;
    let client = fake.client(&other, 1);
    let Outcome::Unanswered { why } = client.push(a_push()).await else {
        panic!()
    };
    assert!(
        matches!(&why, Fault::Tls(text) if text.contains("UnknownIssuer")),
        "{why}"
    );
    assert!(matches!(client.ready().await, Err(Fault::Tls(_))));
    assert!(fake.seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_push_certificate_refused_by_tls_alert_is_told_from_a_lost_connection() {
    let (pki, other) = (Pki::new(), Pki::new());
    let fake = Fake::start(&pki, Script::new(|_| Answer::ok())).await;
    let endpoint = fake.endpoint(&pki, 1);
    let client = ApnsClient::with_timing(endpoint, &other.push_certificate(), quick()).unwrap();
    let outcome = client.push(a_push()).await;
    assert!(
        matches!(
            &outcome,
            Outcome::CertificateRefused {
                reason: Reason::Alert(_)
            }
        ),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn a_server_that_is_away_is_tried_again_at_a_pace() {
    let pki = Pki::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let fake = Fake::start(&pki, Script::new(|_| Answer::ok())).await;
    let endpoint = Endpoint {
        port,
        ..fake.endpoint(&pki, 4)
    };
    let client = ApnsClient::with_timing(endpoint, &pki.push_certificate(), quick()).unwrap();
    let start = Instant::now();
    for _ in 0..4 {
        let outcomes = all(&client, 5).await;
        let refused = |outcome: &Outcome| {
            matches!(
                outcome,
                Outcome::Unanswered {
                    why: Fault::Connect(_)
                }
            )
        };
        assert!(outcomes.iter().all(refused), "{outcomes:?}");
    }
    // Three pauses: 20, 40 and 80 ms at least.
    assert!(
        start.elapsed() >= Duration::from_millis(140),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn what_cannot_be_a_request_is_our_fault() {
    let pki = Pki::new();
    let fake = Fake::start(&pki, Script::new(|_| Answer::ok())).await;
    let client = fake.client(&pki, 1);
    for push in [
        Push {
            token: Vec::new(),
            ..a_push()
        },
        Push {
            topic: String::new(),
            ..a_push()
        },
        Push {
            topic: "line\nbreak".to_owned(),
            ..a_push()
        },
    ] {
        let outcome = client.push(push).await;
        assert!(
            matches!(outcome, Outcome::OurFault { status: 0, .. }),
            "{outcome:?}"
        );
    }
    let shown = format!("{:?}", a_push());
    assert!(
        !shown.contains("magic") && !shown.contains("token"),
        "{shown}"
    );
}
