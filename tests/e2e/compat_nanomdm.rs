//! The NanoMDM dialect: each test is a script written for NanoMDM, run against us.

mod enqueue;
mod migration;
mod pushcert;

use std::time::Duration;

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use sim::{Channel, Client, Device, Proof};

use crate::house::{House, TOPIC, answer, id_of};

const KEY: &str = "nano-secret";
const NANOHUB: &str = "/api/v1/nanomdm";

fn call(house: &House, method: Method, path: &str) -> RequestBuilder {
    let client = reqwest::Client::new();
    client.request(method, format!("{}{path}", house.admin_url()))
}

/// `curl -u nanomdm:KEY -T - URL`
async fn put(house: &House, path: &str, body: impl Into<reqwest::Body>) -> (u16, Value) {
    let request = call(house, Method::PUT, path)
        .basic_auth("nanomdm", Some(KEY))
        .body(body);
    let (status, json) = answer(request).await;
    (status.as_u16(), json)
}

/// `curl -u nanomdm:KEY URL`
async fn get(house: &House, path: &str) -> (u16, Value) {
    let request = call(house, Method::GET, path).basic_auth("nanomdm", Some(KEY));
    let (status, json) = answer(request).await;
    (status.as_u16(), json)
}

fn plist(uuid: &str, request_type: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<plist version=\"1.0\"><dict>\n\
         \t<key>Command</key><dict><key>RequestType</key><string>{request_type}</string></dict>\n\
         \t<key>CommandUUID</key><string>{uuid}</string>\n</dict></plist>\n"
    )
}

async fn next_command(device: &Device, client: &mut Client) -> String {
    let idle = device.idle(Channel::Device);
    let reply = client.report(&device.identity, idle).await.unwrap();
    assert_eq!(reply.status.as_u16(), 200);
    String::from_utf8(reply.body.to_vec()).unwrap()
}

async fn pushed(house: &House, times: u64) {
    house
        .apns
        .wait_until(Duration::from_secs(10), |counts| counts.received >= times)
        .await
        .unwrap();
    assert_eq!(house.apns.counts().received, times);
}

fn is_wake(result: &Value) -> bool {
    let id = result["push_result"].as_str().unwrap_or_default();
    result.as_object().unwrap().len() == 1 && uuid::Uuid::parse_str(id).is_ok()
}

#[actix_web::test]
async fn every_call_needs_the_key() {
    let house = House::start().await;
    let paths = [
        "/v1/push/x",
        "/v1/push/",
        "/v1/enqueue/x",
        "/v1/pushcert",
        "/v1/nothing",
        "/api/v1/nanomdm/push/x",
        "/api/v1/nanomdm/nothing",
    ];
    for path in paths {
        let ask = || call(&house, Method::PUT, path);
        let refused = [
            ask(),
            ask().basic_auth("nanomdm", Some("wrong")),
            ask().basic_auth("nanomdm", None::<&str>),
            ask().basic_auth("admin", Some(KEY)),
            ask().bearer_auth(&house.token),
            ask().bearer_auth(KEY),
        ];
        for request in refused {
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{path}");
            let challenge = &response.headers()["www-authenticate"];
            assert_eq!(challenge, "Basic realm=\"nanomdm\"");
        }
    }
    assert_eq!(get(&house, "/v1/nothing").await.0, 404);
    let key_on_our_api =
        call(&house, Method::GET, "/api/v1/devices").basic_auth("nanomdm", Some(KEY));
    assert_eq!(answer(key_on_our_api).await.0, StatusCode::UNAUTHORIZED);
    let (status, version) = answer(call(&house, Method::GET, "/version")).await;
    assert_eq!(status, StatusCode::OK);
    assert!(version["version"].as_str().unwrap().starts_with('v'));
}

#[actix_web::test]
async fn without_a_key_the_dialect_is_not_there() {
    let house = House::with(|config| config.compat.nanomdm_api_key.clear()).await;
    assert_eq!(get(&house, "/v1/push/x").await.0, 401);
    assert_eq!(house.get("/v1/push/x").await.0, StatusCode::NOT_FOUND);
}

#[actix_web::test]
async fn a_push_wakes_each_id_and_says_which_it_could_not() {
    let house = House::start().await;
    let (one, _) = house.enrolled(Proof::Header).await;
    let (two, _) = house.enrolled(Proof::Header).await;
    let (a, b) = (id_of(&one), id_of(&two));

    let (status, all) = get(&house, &format!("/v1/push/{a},{b}")).await;
    assert_eq!(status, 200, "{all}");
    assert!(
        is_wake(&all["status"][&a]) && is_wake(&all["status"][&b]),
        "{all}"
    );
    assert_eq!(
        all.as_object().unwrap().len(),
        1,
        "nothing but status: {all}"
    );
    pushed(&house, 2).await;
    assert_eq!(house.apns.received(&one.push.token_hex()), 1);

    let (status, some) = put(&house, &format!("/v1/push/{a},stranger"), "").await;
    assert_eq!(status, 207, "any method, some woken: {some}");
    assert!(is_wake(&some["status"][&a]), "{some}");
    assert!(
        some["status"]["stranger"]["push_error"].is_string(),
        "{some}"
    );
    pushed(&house, 3).await;

    let (status, none) = get(&house, "/v1/push/stranger").await;
    assert_eq!(status, 500, "{none}");
    assert!(none["status"]["stranger"]["push_error"].is_string());
    assert!(none.get("push_error").is_none(), "{none}");

    let many: Vec<_> = (0..1000).map(|n| format!("{n:036}")).collect();
    let (status, none) = get(&house, &format!("/v1/push/{}", many.join(","))).await;
    assert_eq!(
        (status, none["status"].as_object().unwrap().len()),
        (500, 1000)
    );

    let (status, empty) = get(&house, "/v1/push/").await;
    assert_eq!(status, 500);
    assert!(
        empty["push_error"].is_string() && empty.get("status").is_none(),
        "{empty}"
    );
}

#[actix_web::test]
async fn nanohub_scripts_find_it_under_their_path_and_user() {
    let house = House::start().await;
    let (device, mut client) = house.enrolled(Proof::Header).await;
    let id = id_of(&device);
    let raw = plist("HUB", "ProfileList");
    for user in ["nanohub", "nanomdm"] {
        let request = call(&house, Method::GET, &format!("{NANOHUB}/push/{id}"));
        let (status, result) = answer(request.basic_auth(user, Some(KEY))).await;
        assert_eq!(status, StatusCode::OK, "{result}");
    }
    let request = call(
        &house,
        Method::PUT,
        &format!("{NANOHUB}/enqueue/{id}?nopush=1"),
    );
    let (status, _) = answer(request.basic_auth("nanohub", Some(KEY)).body(raw.clone())).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(next_command(&device, &mut client).await, raw);
    let (status, shown) = get(&house, &format!("{NANOHUB}/pushcert?topic={TOPIC}")).await;
    assert_eq!((status, &shown["topic"]), (200, &json!(TOPIC)));

    let elsewhere = call(&house, Method::GET, &format!("/v1/push/{id}"));
    let (status, _) = answer(elsewhere.basic_auth("nanohub", Some(KEY))).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert_eq!(
        house.get("/api/v1/devices").await.0,
        StatusCode::OK,
        "our own API is still there"
    );
}
