//! Bad input at the device door: the documented status, nothing changed, counted.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use reqwest::Method;
use serde_json::json;
use sim::{Channel, Outcome, Proof};

use crate::house::{House, id_of};

const CHECKIN: &str = "/mdm/checkin";

fn plist(inside: &str) -> String {
    format!("<?xml version=\"1.0\"?><plist version=\"1.0\"><dict>{inside}</dict></plist>")
}

#[actix_web::test]
async fn what_is_no_check_in_is_400_and_leaves_no_trace() {
    let house = House::start().await;
    let (device, _) = house.new_device(Proof::Header);
    let key = |key: &str, value: &str| format!("<key>{key}</key><string>{value}</string>");
    let deep = format!(
        "<key>a</key>{}{}",
        "<array>".repeat(5000),
        "</array>".repeat(5000)
    );
    let cases = [
        ("empty", String::new()),
        ("truncated", plist("x")[..40].to_owned()),
        ("nested", plist(&deep)),
        (
            "many",
            plist(&format!(
                "<key>a</key><array>{}</array>",
                "<true/>".repeat(100_001)
            )),
        ),
        ("binary", "bplist00\u{1}".to_owned()),
        (
            "cdata",
            plist("<key>MessageType</key><string><![CDATA[CheckOut]]></string>"),
        ),
        (
            "dtd",
            "<!DOCTYPE plist [<!ENTITY x \"y\">]><plist><dict/></plist>".to_owned(),
        ),
        (
            "unknown type",
            plist(&(key("MessageType", "Later") + &key("UDID", "D"))),
        ),
        ("no id", plist(&key("MessageType", "CheckOut"))),
        (
            "both ids",
            plist(
                &(key("MessageType", "CheckOut") + &key("UDID", "D") + &key("EnrollmentID", "E")),
            ),
        ),
        (
            "space in id",
            plist(&(key("MessageType", "CheckOut") + &key("UDID", "D E"))),
        ),
        (
            "wrong type",
            plist(
                "<key>MessageType</key><string>Authenticate</string><key>UDID</key><integer>1</integer>",
            ),
        ),
        (
            "no topic",
            plist(&(key("MessageType", "Authenticate") + &key("UDID", "D"))),
        ),
        (
            "doubled",
            plist(&(key("MessageType", "CheckOut") + &key("UDID", "D") + &key("UDID", "E"))),
        ),
    ];
    for (what, body) in &cases {
        let request = house
            .device(Method::PUT, CHECKIN)
            .header("Client-Cert", device.identity.header_rfc9440());
        let request = request.header("Content-Type", "application/x-apple-aspen-mdm-checkin");
        let answer = request.body(body.clone()).send().await.unwrap();
        assert_eq!(answer.status(), 400, "{what}");
    }
    let (_, devices) = house.get("/api/v1/devices").await;
    assert_eq!(devices["items"], json!([]));
    let metrics = house
        .admin(Method::GET, "/metrics")
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let counted = metrics.lines().any(|line| {
        line.starts_with("reveille_device_requests_total")
            && line.contains("unreadable")
            && line.ends_with(" 13")
    });
    assert!(counted, "{metrics}");
}

#[actix_web::test]
async fn encodings_lengths_and_methods_are_bounded() {
    let house = House::start().await;
    let put = || house.device(Method::PUT, CHECKIN);
    for encoding in ["gzip", "br", "identity"] {
        let answer = put()
            .header("Content-Encoding", encoding)
            .body("x")
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 415, "{encoding}");
    }
    let mut raw = TcpStream::connect(house.running.device).unwrap();
    let head = "PUT /mdm/checkin HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-apple-aspen-mdm-checkin\r\nContent-Length: 9999999999\r\n\r\n";
    raw.write_all(head.as_bytes()).unwrap();
    let mut answer = [0; 12];
    raw.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    for method in [Method::GET, Method::POST, Method::DELETE] {
        let status = house.device(method, CHECKIN).send().await.unwrap().status();
        assert!([404, 405].contains(&status.as_u16()), "{status}");
    }
    assert_eq!(
        house
            .device(Method::GET, "/healthz")
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
    assert_eq!(
        house
            .device(Method::GET, "/api/v1/devices")
            .send()
            .await
            .unwrap()
            .status(),
        404
    );
}

#[actix_web::test]
async fn identity_comes_from_one_place_and_only_from_those_we_list() {
    let open = House::start().await;
    let (device, _) = open.new_device(Proof::Header);
    let (other, _) = open.new_device(Proof::Header);
    let body = device.authenticate();
    let put = |house: &House| {
        let request = house.device(Method::PUT, CHECKIN);
        request
            .header("Content-Type", "application/x-apple-aspen-mdm-checkin")
            .body(body.clone())
    };
    assert_eq!(
        put(&open).send().await.unwrap().status(),
        403,
        "no identity at all"
    );
    let other_header = other.identity.header_rfc9440();
    let both = put(&open)
        .header("Client-Cert", &other_header)
        .header("Mdm-Signature", device.identity.sign(&body).unwrap());
    assert_eq!(
        both.send().await.unwrap().status(),
        403,
        "two that disagree"
    );
    let twice = put(&open)
        .header("Client-Cert", &other_header)
        .header("Client-Cert", device.identity.header_rfc9440());
    assert_eq!(
        twice.send().await.unwrap().status(),
        403,
        "one header twice"
    );
    let signed_another = put(&open).header(
        "Mdm-Signature",
        device.identity.sign(b"another body").unwrap(),
    );
    assert_eq!(signed_another.send().await.unwrap().status(), 403);
    let agreeing = put(&open)
        .header("Client-Cert", device.identity.header_rfc9440())
        .header("Mdm-Signature", device.identity.sign(&body).unwrap());
    assert_eq!(agreeing.send().await.unwrap().status(), 200);

    let closed = House::with(|config| {
        config.device.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
    })
    .await;
    let (device, _) = closed.new_device(Proof::Header);
    let body = device.authenticate();
    let request = closed
        .device(Method::PUT, CHECKIN)
        .header("Client-Cert", device.identity.header_rfc9440());
    let request = request.header("Content-Type", "application/x-apple-aspen-mdm-checkin");
    assert_eq!(
        request.body(body).send().await.unwrap().status(),
        403,
        "a header from anyone else counts for nothing"
    );
}

#[actix_web::test]
async fn reports_that_do_not_count_are_200_and_change_nothing() {
    let house = House::start().await;
    let (device, mut client) = house.enrolled(Proof::Header).await;
    let (neighbour, _) = house.enrolled(Proof::Header).await;
    let (id, next_door) = (id_of(&device), id_of(&neighbour));
    let theirs = house.ask_information(&next_door).await;
    let mine = house.ask_information(&id).await;
    for uuid in [theirs.as_str(), "never heard of"] {
        let stray = device.report(
            Channel::Device,
            uuid,
            &Outcome::CommandFormatError(vec![]),
            0,
        );
        let reply = client.report(&device.identity, stray).await.unwrap();
        assert_eq!(reply.status, 200);
        assert_eq!(
            sim::Command::parse(&reply.body).unwrap().unwrap().uuid,
            mine,
            "the next command all the same"
        );
    }
    assert_eq!(house.state(&next_door, &theirs).await, "released");
}

#[actix_web::test]
async fn a_full_disk_is_503_with_retry_after() {
    let house = House::bare(|config| config.store.reserve_mb = u64::MAX >> 24).await;
    let (device, mut client) = house.new_device(Proof::Header);
    house.running.app.store.check_room().unwrap();
    let reply = client
        .check_in(&device.identity, device.authenticate())
        .await
        .unwrap();
    assert_eq!(reply.status, 503);
    assert!(reply.retry_after.is_some());
    let order = json!({"targets": {"all": true}, "command": {"request_type": "ProfileList"}});
    let (status, problem) = house.post("/api/v1/commands", &order).await;
    assert_eq!(
        (status.as_u16(), &problem["code"]),
        (503, &json!("unavailable"))
    );
    assert_eq!(house.get("/readyz").await.0, 503);
}

#[actix_web::test]
async fn a_report_over_the_cap_closes_its_command_instead_of_coming_again_for_ever() {
    let house = House::start().await;
    let (device, mut client) = house.enrolled(Proof::Header).await;
    let id = id_of(&device);
    let uuid = house.ask_information(&id).await;
    client
        .report(&device.identity, device.idle(Channel::Device))
        .await
        .unwrap();
    let padding = "x".repeat(33 << 20);
    let body = plist(&format!(
        "<key>CommandUUID</key><string>{uuid}</string><key>Status</key><string>Acknowledged</string>\
         <key>UDID</key><string>{id}</string><key>Big</key><string>{padding}</string>"
    ));
    let reply = client
        .report(&device.identity, body.into_bytes())
        .await
        .unwrap();
    assert_eq!(reply.status, 200);
    assert_eq!(house.state(&id, &uuid).await, "error");
}
