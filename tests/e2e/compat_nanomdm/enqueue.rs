//! `PUT /v1/enqueue/{ids}`: a raw plist for many, woken or not.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sim::{Channel, Proof};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::{KEY, call, is_wake, next_command, plist, pushed, put};
use crate::house::{House, id_of};

#[actix_web::test]
async fn an_enqueued_plist_wakes_its_device_once_and_reaches_it_byte_by_byte() {
    let house = House::start().await;
    let (device, mut client) = house.enrolled(Proof::Signature).await;
    let id = id_of(&device);
    let raw = plist("MY-COMMAND", "ProfileList");

    let request = call(&house, Method::PUT, &format!("/v1/enqueue/{id}"))
        .basic_auth("nanomdm", Some(KEY))
        .body(raw.clone());
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "application/json");
    let text = response.text().await.unwrap();
    assert!(
        text.starts_with("{\n\t\"status\": {\n\t\t\""),
        "indented by tabs: {text}"
    );
    let mut result: Value = serde_json::from_str(&text).unwrap();
    assert!(is_wake(&result["status"][&id]), "{result}");
    result.as_object_mut().unwrap().remove("status");
    assert_eq!(
        result,
        json!({"command_uuid": "MY-COMMAND", "request_type": "ProfileList"})
    );

    pushed(&house, 1).await;
    assert_eq!(next_command(&device, &mut client).await, raw);
    let (_, shown) = house.get("/api/v1/commands/MY-COMMAND").await;
    assert_eq!(shown["principal"], "nanomdm", "{shown}");

    let (other, _) = house.enrolled(Proof::Header).await;
    let path = format!("/v1/enqueue/{}", id_of(&other));
    assert_eq!(put(&house, &path, "").await.0, 200);
    pushed(&house, 2).await;
    assert_eq!(house.apns.received(&device.push.token_hex()), 1, "once");
}

#[actix_web::test]
async fn nopush_queues_without_a_wake() {
    let house = House::start().await;
    let (quiet, mut client) = house.enrolled(Proof::Header).await;
    let (loud, _) = house.enrolled(Proof::Header).await;
    let raw = plist("Q", "ProfileList");
    let (status, result) = put(
        &house,
        &format!("/v1/enqueue/{}?nopush=0", id_of(&quiet)),
        raw.clone(),
    )
    .await;
    assert_eq!(status, 200);
    let expected = json!({"no_push": true, "command_uuid": "Q", "request_type": "ProfileList"});
    assert_eq!(result, expected, "and no status");

    let raw_loud = plist("L", "ProfileList");
    let (status, _) = put(
        &house,
        &format!("/v1/enqueue/{}?nopush=", id_of(&loud)),
        raw_loud,
    )
    .await;
    assert_eq!(status, 200);
    pushed(&house, 1).await;
    assert_eq!(house.apns.received(&quiet.push.token_hex()), 0);
    assert_eq!(next_command(&quiet, &mut client).await, raw);
}

#[actix_web::test]
async fn an_empty_body_only_wakes() {
    let house = House::start().await;
    let (device, mut client) = house.enrolled(Proof::Header).await;
    let id = id_of(&device);
    let (status, result) = put(&house, &format!("/v1/enqueue/{id}"), "").await;
    assert_eq!(status, 200, "{result}");
    assert!(
        is_wake(&result["status"][&id]) && result.as_object().unwrap().len() == 1,
        "{result}"
    );
    pushed(&house, 1).await;
    assert_eq!(next_command(&device, &mut client).await, "");

    let (status, result) = put(&house, &format!("/v1/enqueue/{id}?nopush=1"), "").await;
    assert_eq!(status, 500);
    assert_eq!(
        result,
        json!({"no_push": true, "command_error": "must enqueue or push"})
    );
}

#[actix_web::test]
async fn what_is_no_command_is_refused_and_nobody_is_woken() {
    let house = House::start().await;
    let (device, mut client) = house.enrolled(Proof::Header).await;
    let path = format!("/v1/enqueue/{}", id_of(&device));
    let bodies = [
        "nonsense".to_owned(),
        "<plist><dict><key>CommandUUID</key><string>u</string></dict></plist>".to_owned(),
        plist("", "ProfileList"),
        plist("u", ""),
    ];
    for body in bodies {
        let (status, result) = put(&house, &path, body.clone()).await;
        assert_eq!(status, 500, "{body}");
        let keys: Vec<_> = result.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["command_error"], "{body}");
    }
    let (status, result) = put(&house, "/v1/enqueue/", plist("u", "ProfileList")).await;
    assert_eq!(
        (status, result["command_error"].is_string()),
        (500, true),
        "{result}"
    );
    assert_eq!(next_command(&device, &mut client).await, "");
    assert_eq!(house.apns.counts().received, 0);
}

#[actix_web::test]
async fn a_command_uuid_is_used_once() {
    let house = House::start().await;
    let (device, _) = house.enrolled(Proof::Header).await;
    let path = format!("/v1/enqueue/{}", id_of(&device));
    assert_eq!(
        put(&house, &path, plist("TWICE", "ProfileList")).await.0,
        200
    );
    pushed(&house, 1).await;
    let (status, result) = put(&house, &path, plist("TWICE", "ProfileList")).await;
    assert_eq!(status, 500);
    assert!(
        result["command_error"].as_str().unwrap().contains("TWICE"),
        "{result}"
    );
    assert!(
        result.get("status").is_none() && result["command_uuid"] == "TWICE",
        "{result}"
    );
}

#[actix_web::test]
async fn ids_that_cannot_take_a_command_are_named_and_the_others_get_it() {
    let house = House::start().await;
    let (device, mut client) = house.enrolled(Proof::Header).await;
    let (gone, mut line) = house.enrolled(Proof::Header).await;
    let left = line
        .check_in(&gone.identity, gone.check_out())
        .await
        .unwrap();
    assert_eq!(left.status.as_u16(), 200);
    let (a, g) = (id_of(&device), id_of(&gone));

    let raw = plist("SOME", "ProfileList");
    let (status, result) = put(
        &house,
        &format!("/v1/enqueue/{a},{g},stranger"),
        raw.clone(),
    )
    .await;
    assert_eq!(status, 207, "{result}");
    assert!(is_wake(&result["status"][&a]), "{result}");
    for id in [&g, "stranger"] {
        let of = &result["status"][id];
        assert!(
            of["command_error"].is_string() && of["push_error"].is_string(),
            "{id}: {of}"
        );
    }
    assert_eq!(next_command(&device, &mut client).await, raw);

    let path = format!("/v1/enqueue/{g},stranger?nopush=1");
    let (status, result) = put(&house, &path, plist("NONE", "ProfileList")).await;
    assert_eq!(status, 500, "{result}");
    assert!(result["status"]["stranger"]["command_error"].is_string());
    assert!(result["status"]["stranger"].get("push_error").is_none());
    assert!(result.get("command_error").is_none(), "{result}");
}

#[actix_web::test]
async fn a_user_channel_is_addressed_by_its_own_id() {
    let house = House::start().await;
    let (device, mut client) = house.new_mac(Proof::Header);
    sim::enroll(&device, &mut client).await.unwrap();
    let id = device.enroll_id(Channel::User);
    let raw = plist("USER", "ProfileList");
    let (status, result) = put(&house, &format!("/v1/enqueue/{id}"), raw.clone()).await;
    assert_eq!(status, 200, "{result}");
    assert_eq!(
        next_command(&device, &mut client).await,
        "",
        "not the device channel's"
    );
    let idle = device.idle(Channel::User);
    let reply = client.report(&device.identity, idle).await.unwrap();
    assert_eq!(reply.body, raw.as_bytes());
}

#[actix_web::test]
async fn the_guard_holds_over_the_dialect_too() {
    let house = House::with(|config| config.guard.max_devices = 1).await;
    let (one, _) = house.enrolled(Proof::Header).await;
    let (two, mut client) = house.enrolled(Proof::Header).await;
    let erase = |uuid| plist(uuid, "EraseDevice");
    let (status, result) = put(&house, &format!("/v1/enqueue/{}", id_of(&one)), erase("E1")).await;
    assert_eq!(status, 200, "{result}");
    pushed(&house, 1).await;
    let (_, shown) = house.get("/api/v1/commands/E1").await;
    assert_eq!(shown["reason"], "sent through the NanoMDM API");

    let (status, result) = put(&house, &format!("/v1/enqueue/{}", id_of(&two)), erase("E2")).await;
    assert_eq!(status, 500);
    assert!(
        result["command_error"].is_string() && result.get("status").is_none(),
        "{result}"
    );
    assert_eq!(next_command(&two, &mut client).await, "");
    assert_eq!(house.apns.received(&two.push.token_hex()), 0);
}

#[actix_web::test]
async fn a_caller_who_hangs_up_does_not_keep_a_queued_command_from_its_wake() {
    let house = House::start().await;
    let mut sent = Vec::new();
    for n in 0..20 {
        let (device, _) = house.enrolled(Proof::Header).await;
        let uuid = format!("HANGUP-{n}");
        let raw = plist(&uuid, "ProfileList");
        let request = format!(
            "PUT /v1/enqueue/{} HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {}\r\n\
             Content-Length: {}\r\n\r\n{raw}",
            id_of(&device),
            STANDARD.encode(format!("nanomdm:{KEY}")),
            raw.len()
        );
        let mut line = TcpStream::connect(house.running.admin).await.unwrap();
        line.set_zero_linger().unwrap();
        line.write_all(request.as_bytes()).await.unwrap();
        // A reset, in the midst of the request for some of them.
        tokio::time::sleep(Duration::from_micros(200 * n)).await;
        drop(line);
        sent.push((uuid, device.push.token_hex()));
    }
    // Whatever was queued by the time another request is through.
    let (device, _) = house.enrolled(Proof::Header).await;
    put(&house, &format!("/v1/enqueue/{}", id_of(&device)), "").await;
    let mut queued = Vec::new();
    for (uuid, token) in sent {
        let (status, _) = house.get(&format!("/api/v1/commands/{uuid}")).await;
        queued.extend((status == StatusCode::OK).then_some(token));
    }
    let woken = queued.len() as u64 + 1;
    pushed(&house, woken).await;
    assert!(queued.iter().all(|token| house.apns.received(token) == 1));
}
