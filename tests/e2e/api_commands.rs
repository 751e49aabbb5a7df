//! The admin API: orders that are taken, and orders that name what is wrong.

use reqwest::{Method, StatusCode};
use reveille::auth::{Scope, new_token, token_record};
use serde_json::{Value, json};
use sim::Proof;

use crate::house::{House, NOW, answer, id_of};

const COMMANDS: &str = "/api/v1/commands";

#[actix_web::test]
async fn what_is_wrong_with_an_order_is_named_and_nothing_is_queued() {
    let house = House::start().await;
    let (device, _) = house.enrolled(Proof::Header).await;
    let id = id_of(&device);
    let list = json!({"request_type": "ProfileList"});
    let to = json!({"ids": [id]});
    let cases: Vec<(Value, u16, &str)> = vec![
        (
            json!({"targets": to, "command": {"request_type": "ProfileLst"}}),
            422,
            "/command/request_type",
        ),
        (
            json!({"targets": to, "command": {"request_type": "DeviceInformation"}}),
            422,
            "/command/queries",
        ),
        (
            json!({"targets": to, "command": {"request_type": "DeviceInformation", "queries": "x"}}),
            422,
            "/command/queries",
        ),
        (
            json!({"targets": to, "command": {"request_type": "ProfileList", "colour": 1}}),
            422,
            "/command/colour",
        ),
        (json!({"targets": to}), 422, "/command"),
        (
            json!({"targets": to, "command": list, "command_plist": "x"}),
            422,
            "/command",
        ),
        (
            json!({"targets": to, "command_plist": "not base64!"}),
            422,
            "/command_plist",
        ),
        (
            json!({"targets": to, "command_plist": "PHBsaXN0Lz4="}),
            422,
            "/command_plist",
        ),
        (
            json!({"targets": to, "command": list, "priority": 101}),
            422,
            "/priority",
        ),
        (
            json!({"targets": to, "command": list, "expires_in": 5}),
            422,
            "/expires_in",
        ),
        (
            json!({"targets": to, "command": list, "wakes": true}),
            422,
            "/wakes",
        ),
        (
            json!({"targets": {"ids": []}, "command": list}),
            422,
            "/targets/ids",
        ),
        (json!({"targets": {}, "command": list}), 422, "/targets"),
        (
            json!({"targets": {"all": true, "ids": [id]}, "command": list}),
            422,
            "/targets",
        ),
        (
            json!({"targets": {"filter": {"state": "lost"}}, "command": list}),
            422,
            "/targets/filter/state",
        ),
        (
            json!({"targets": {"ids": ["nobody"]}, "command": list}),
            404,
            "/targets",
        ),
        (
            json!({"targets": to, "command": {"request_type": "DeviceLock"}}),
            422,
            "/reason",
        ),
    ];
    for (order, status, pointer) in cases {
        let (is, problem) = house.post(COMMANDS, &order).await;
        assert_eq!(is.as_u16(), status, "{order}: {problem}");
        assert_eq!(
            problem["errors"][0]["pointer"], pointer,
            "{order}: {problem}"
        );
    }
    let (_, waiting) = house.get(&format!("/api/v1/devices/{id}/commands")).await;
    assert_eq!(waiting["items"], json!([]));
}

#[actix_web::test]
async fn media_type_broken_json_and_unknown_paths_are_told_apart() {
    let house = House::start().await;
    let post = || house.admin(Method::POST, COMMANDS);
    assert_eq!(answer(post().body("{}")).await.0, 415);
    let json = |body: &'static str| post().header("Content-Type", "application/json").body(body);
    assert_eq!(answer(json("{\"targets\"")).await.0, 400);
    assert_eq!(answer(json("\u{0}")).await.0, 400);
    assert_eq!(house.get("/api/v1/nothing").await.0, 404);
    assert_eq!(house.get("/api/v1/devices?limit=0").await.0, 400);
    assert_eq!(house.get("/api/v1/devices?colour=red").await.0, 400);
    assert_eq!(house.get("/api/v1/devices?cursor=zzz").await.0, 400);
    assert_eq!(house.get("/api/v1/devices/a%20b").await.0, 404);
    assert_eq!(house.put(COMMANDS, &json!({})).await.0, 405);
}

#[actix_web::test]
async fn a_token_opens_what_its_scopes_say_and_nothing_without_one() {
    let house = House::start().await;
    let (device, _) = house.enrolled(Proof::Header).await;
    let id = id_of(&device);
    let token = async |scopes: &[Scope], expires, revoked| {
        let (secret, hash) = new_token().unwrap();
        let mut record = token_record(&hash, "someone", scopes, NOW, expires);
        record.revoked = revoked;
        house
            .running
            .app
            .store
            .put_token(hash, record)
            .await
            .unwrap();
        secret
    };
    let as_ = async |secret: &str, method: Method, path: &str, body: Option<Value>| {
        let client = reqwest::Client::new();
        let mut request = client
            .request(method, format!("{}{path}", house.admin_url()))
            .bearer_auth(secret);
        if let Some(body) = body {
            request = request.json(&body);
        }
        answer(request).await
    };
    let reader = token(&[Scope::Read], None, false).await;
    assert_eq!(
        as_(&reader, Method::GET, "/api/v1/devices", None).await.0,
        200
    );
    let order = json!({"targets": {"ids": [id]}, "command": {"request_type": "ProfileList"}});
    let (status, problem) = as_(&reader, Method::POST, COMMANDS, Some(order.clone())).await;
    assert_eq!(
        (status.as_u16(), problem["code"].as_str()),
        (403, Some("missing_scope"))
    );
    assert!(problem["detail"].as_str().unwrap().contains("command"));
    let commander = token(&[Scope::Command], None, false).await;
    assert_eq!(
        as_(&commander, Method::POST, COMMANDS, Some(order.clone()))
            .await
            .0,
        202
    );
    let erase = json!({"targets": {"ids": [id]}, "command": {"request_type": "EraseDevice"}, "reason": "test"});
    assert_eq!(
        as_(&commander, Method::POST, COMMANDS, Some(erase)).await.0,
        403
    );
    let void = [
        "rvl_wrong".to_owned(),
        token(&Scope::ALL, Some(NOW), false).await,
        token(&Scope::ALL, None, true).await,
    ];
    for secret in void {
        for path in [
            "/api/v1/devices",
            "/api/v1/nothing",
            "/nothing",
            "/api/v1/devices/%2e%2e/x",
        ] {
            assert_eq!(as_(&secret, Method::GET, path, None).await.0, 401, "{path}");
        }
    }
}

#[actix_web::test]
async fn the_same_idempotency_key_queues_once() {
    let house = House::start().await;
    let (device, _) = house.enrolled(Proof::Header).await;
    let id = id_of(&device);
    let order = json!({"targets": {"ids": [id, id]}, "command": {"request_type": "ProfileList"}});
    let post = async |order: &Value| {
        answer(
            house
                .admin(Method::POST, COMMANDS)
                .header("Idempotency-Key", "k")
                .json(order),
        )
        .await
    };
    let (_, first) = post(&order).await;
    assert_eq!(first["accepted"], 1, "a repeated id counts once");
    assert_eq!(post(&order).await, (StatusCode::ACCEPTED, first.clone()));
    let other = json!({"targets": {"ids": [id]}, "command": {"request_type": "SecurityInfo"}});
    let (status, problem) = post(&other).await;
    assert_eq!(
        (status.as_u16(), problem["code"].as_str()),
        (422, Some("idempotency_key_reused"))
    );
    let (_, waiting) = house
        .get(&format!("/api/v1/devices/{id}/commands?state=open"))
        .await;
    assert_eq!(waiting["items"].as_array().unwrap().len(), 1);
}

#[actix_web::test]
async fn the_guard_holds_for_every_spelling_and_every_way_in() {
    let house = House::start().await;
    let mut ids = Vec::new();
    for _ in 0..12 {
        ids.push(id_of(&house.enrolled(Proof::Header).await.0));
    }
    let lock = json!({"request_type": "DeviceLock"});
    let many = json!({"targets": {"ids": ids}, "command": lock, "reason": "stolen"});
    let (status, problem) = house.post(COMMANDS, &many).await;
    assert_eq!(
        (status.as_u16(), problem["code"].as_str()),
        (409, Some("guard_threshold")),
        "{problem}"
    );
    for id in &ids[..10] {
        let one = json!({"targets": {"ids": [id]}, "command": lock, "reason": "stolen"});
        assert_eq!(house.post(COMMANDS, &one).await.0, 202);
    }
    use base64::Engine as _;
    let raw = |spelling: &str| {
        let plist = format!(
            "<plist version=\"1.0\"><dict><key>CommandUUID</key><string>{spelling}</string><key>Command</key><dict><key>RequestType</key><string>{spelling}</string></dict></dict></plist>"
        );
        base64::engine::general_purpose::STANDARD.encode(plist)
    };
    for spelling in ["EraseDevice", "erasedevice"] {
        let order = json!({"targets": {"ids": [ids[11]]}, "command_plist": raw(spelling), "reason": "stolen"});
        assert_eq!(house.post(COMMANDS, &order).await.0, 409, "{spelling}");
    }
    house.clock.set(NOW.plus_seconds(21 * 60));
    let order = json!({"targets": {"ids": [ids[11]]}, "command": lock, "reason": "stolen"});
    assert_eq!(house.post(COMMANDS, &order).await.0, 202);
}

#[actix_web::test]
async fn commands_are_cancelled_unless_they_were_sent() {
    let house = House::start().await;
    let (device, mut client) = house.enrolled(Proof::Header).await;
    let id = id_of(&device);
    let sent = house.ask_information(&id).await;
    let waiting = house.ask_information(&id).await;
    client
        .report(&device.identity, device.idle(sim::Channel::Device))
        .await
        .unwrap();
    house.until_state(&id, &sent, "sent").await;
    let (_, outcome) = house.delete(&format!("/api/v1/commands/{sent}")).await;
    assert_eq!(outcome, json!({"cancelled": 0, "already_sent": 1}));
    let (_, outcome) = house
        .delete(&format!("/api/v1/devices/{id}/commands"))
        .await;
    assert_eq!(outcome, json!({"cancelled": 1, "already_sent": 0}));
    assert_eq!(house.state(&id, &waiting).await, "cancelled");
    assert_eq!(house.delete("/api/v1/commands/unknown").await.0, 404);
}

#[actix_web::test]
async fn devices_are_found_page_by_page_and_carry_what_an_admin_says() {
    let house = House::start().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(id_of(&house.enrolled(Proof::Header).await.0));
    }
    let mut found = Vec::new();
    let mut path = "/api/v1/devices?limit=2&state=enrolled&platform=ios".to_owned();
    loop {
        let (status, page) = house.get(&path).await;
        assert_eq!(status, 200, "{page}");
        found.extend(
            page["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|item| item["id"].as_str().unwrap().to_owned()),
        );
        match page["next"].as_str() {
            Some(next) => {
                path = format!("/api/v1/devices?limit=2&state=enrolled&platform=ios&cursor={next}")
            }
            None => break,
        }
    }
    assert_eq!(found, ids);
    let one = format!("/api/v1/devices/{}", ids[3]);
    let patch = async |body: Value| answer(house.admin(Method::PATCH, &one).json(&body)).await;
    let (status, shown) = patch(json!({"name": "Library 4", "tags": ["b", "a", "a"]})).await;
    assert_eq!(
        (status.as_u16(), &shown["tags"]),
        (200, &json!(["a", "b"])),
        "{shown}"
    );
    assert_eq!(
        patch(json!({"tags": ["x,y"]})).await.1["errors"][0]["pointer"],
        "/tags/0"
    );
    let (_, page) = house.get("/api/v1/devices?tag=a&q=LIBRARY").await;
    assert_eq!(page["items"][0]["id"], json!(ids[3]));
    let order =
        json!({"targets": {"filter": {"tag": "a"}}, "command": {"request_type": "ProfileList"}});
    assert_eq!(house.post(COMMANDS, &order).await.1["accepted"], 1);
}

#[actix_web::test]
async fn the_server_says_of_itself_what_it_is() {
    let house = House::start().await;
    let open = async |path: &str| {
        let response = reqwest::get(format!("{}{path}", house.admin_url()))
            .await
            .unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    assert_eq!(open("/healthz").await.0, 200);
    let (status, ready) = open("/readyz").await;
    assert_eq!(status, 200, "{ready}");
    assert!(open("/version").await.1.contains("\"v"));
    assert!(
        open("/metrics")
            .await
            .1
            .contains("process_cpu_seconds_total")
    );
    assert!(
        open("/api/openapi.json")
            .await
            .1
            .contains("/api/v1/commands/{uuid}")
    );
    let (_, catalog) = house.get("/api/v1/catalog").await;
    assert!(catalog["items"].as_array().unwrap().len() >= 66);
}

#[actix_web::test]
async fn a_push_certificate_is_swapped_under_its_topic_and_another_topic_is_refused() {
    let house = House::start().await;
    let path = "/api/v1/push-certificates";
    let pem = |topic: &str| String::from_utf8(sim::push_certificate(topic).unwrap()).unwrap();
    let (status, item) = house
        .put(path, &json!({"pem": pem(crate::house::TOPIC)}))
        .await;
    assert_eq!(
        (status.as_u16(), &item["topic"]),
        (200, &json!(crate::house::TOPIC))
    );
    let (status, problem) = house
        .put(path, &json!({"pem": pem("com.apple.mgmt.other")}))
        .await;
    assert_eq!(
        (status.as_u16(), problem["code"].as_str()),
        (409, Some("topic_change"))
    );
    let forced = json!({"pem": pem("com.apple.mgmt.other"), "force_topic_change": true});
    assert_eq!(house.put(path, &forced).await.0, 200);
    let (_, list) = house.get(path).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
    assert!(!list.to_string().contains("PRIVATE"));
    for bad in [
        json!({}),
        json!({"pem": "x"}),
        json!({"pkcs12": "x!"}),
        json!({"pem": "x", "pkcs12": "eA=="}),
    ] {
        assert_eq!(house.put(path, &bad).await.0, 422, "{bad}");
    }
}
