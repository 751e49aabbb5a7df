//! A clock that jumps: said where an admin looks, and over when one confirms it.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use sim::Proof;

use crate::house::{House, id_of};

#[actix_web::test]
async fn a_clock_in_doubt_expires_nothing_until_an_admin_confirms_it() {
    let house = House::start().await;
    let (device, _client) = house.enrolled(Proof::Header).await;
    let id = id_of(&device);
    let waits = house.ask_information(&id).await;
    let (status, clock) = house.get("/api/v1/clock").await;
    assert_eq!(status, 200, "{clock}");
    assert!(clock["doubt"].is_null(), "{clock}");

    let later = house.clock.now().plus_seconds(3650 * 86_400);
    house.clock.jump(later);
    let (status, ready) = house.get("/readyz").await;
    assert_eq!(status, 200, "devices are served on: {ready}");
    let warnings = ready["warnings"].to_string();
    assert!(warnings.contains("reveille clock confirm"), "{warnings}");
    assert!(metrics(&house).await.contains("reveille_clock_in_doubt 1"));
    assert_eq!(house.state(&id, &waits).await, "released");
    // What is queued meanwhile is no different.
    let order = json!({"targets": {"ids": [id]}, "command": {"request_type": "ProfileList"}, "wake": false});
    let (status, _) = house.post("/api/v1/commands", &order).await;
    assert_eq!(status, 202, "the API goes on");

    let (status, clock) = house.post("/api/v1/clock/confirm", &json!({})).await;
    assert_eq!((status.as_u16(), &clock["doubt"]), (200, &json!(null)));
    assert!(metrics(&house).await.contains("reveille_clock_in_doubt 0"));
    let deadline = Instant::now() + Duration::from_secs(10);
    while house.state(&id, &waits).await != "expired" {
        assert!(Instant::now() < deadline, "it never expires");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn metrics(house: &House) -> String {
    let request = house.admin(Method::GET, "/metrics");
    request.send().await.unwrap().text().await.unwrap()
}
