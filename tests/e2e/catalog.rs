//! Every command of the catalog, from the JSON of an order to what the device reported:
//! handed to each type of device that takes it, refused for each that does not.

use reqwest::StatusCode;
use serde_json::{Map, Value, json};
use sim::{Behaviour, Channel, Client, Device, Dice, Kind, Mood, Proof, Status};

use crate::house::{House, TOPIC};

/// A device of a type, and what the catalog calls it.
struct Member {
    platform: &'static str,
    shared: bool,
    device: Device,
    client: Client,
    mood: Mood,
}

impl Member {
    async fn enrolled(house: &House, platform: &'static str, device: Device) -> Self {
        let (_, mut client) = house.new_device(Proof::Header);
        sim::enroll(&device, &mut client).await.unwrap();
        let mut member = Self {
            platform,
            shared: device.is_shared_ipad(),
            mood: Behaviour::default().mood(&device),
            device,
            client,
        };
        // Nothing of it stays unknown.
        let ask = json!({"request_type": "DeviceInformation",
            "queries": ["IsSupervised", "IsMultiUser", "OSVersion"]});
        let id = member.device.enroll_id(Channel::Device);
        house.queue(&id, &ask).await;
        house
            .queue(&id, &json!({"request_type": "SecurityInfo"}))
            .await;
        assert_eq!(member.poll(Channel::Device).await.len(), 2);
        let (status, _) = house.get(&format!("/api/v1/devices/{id}")).await;
        assert_eq!(status, StatusCode::OK);
        member
    }

    async fn poll(&mut self, channel: Channel) -> Vec<sim::Step> {
        let session =
            sim::poll_session(&self.device, channel, &mut self.client, &mut self.mood).await;
        session.completed().unwrap().steps
    }

    /// Does the catalog say that this channel takes the command?
    fn is_taken(&self, row: &Value, channel: Channel) -> bool {
        let on = row["platforms"].as_array().unwrap().iter();
        let mut on = on.filter(|on| on["platform"] == self.platform);
        let Some(on) = on.next() else { return false };
        if !new_enough(on, &self.device.os_version) {
            return false;
        }
        let side = match channel {
            Channel::Device => "device",
            Channel::User => "user",
        };
        if self.device.personal && on["user_enrollment"] != true {
            return false;
        }
        match (self.platform, self.shared) {
            ("macOS", _) => row["mac_channels"][side] == true,
            ("iOS", true) => {
                let ipad = &row["shared_ipad"];
                ipad["allowed"][side] == true || ipad["only"][side] == true
            }
            ("iOS", false) => {
                channel == Channel::Device && row["shared_ipad"].get("only").is_none()
            }
            _ => channel == Channel::Device,
        }
    }
}

fn new_enough(on: &Value, version: &str) -> bool {
    let numbers = |version: &str| -> Vec<u32> {
        version
            .split('.')
            .map(|part| part.parse().unwrap())
            .collect()
    };
    let has = numbers(version);
    let gone = on["removed_in"].as_str();
    numbers(on["min_os"].as_str().unwrap()) <= has && gone.is_none_or(|gone| has < numbers(gone))
}

/// One device of each type.
async fn members(house: &House) -> Vec<Member> {
    let mut dice = Dice::new(7);
    let make = |kind, dice: &mut Dice| {
        let mut device = Device::seeded(&house.ca, TOPIC, kind, dice).unwrap();
        device.automated = true;
        device
    };
    let phone = make(Kind::IPhone, &mut dice);
    let mut latest = make(Kind::IPhone, &mut dice);
    latest.os_version = "27.0".into();
    let ipad = make(Kind::IPad, &mut dice).with_user(&mut dice);
    let mac = make(Kind::Mac, &mut dice).with_user(&mut dice);
    let mut newest = make(Kind::Mac, &mut dice).with_user(&mut dice);
    newest.os_version = "27.0".into();
    let own_phone = make(Kind::IPhone, &mut dice).of_a_person(&mut dice);
    let own_mac = make(Kind::Mac, &mut dice);
    let own_mac = own_mac.of_a_person(&mut dice).with_user(&mut dice);
    let tv = make(Kind::AppleTv, &mut dice);
    let vision = make(Kind::Vision, &mut dice);
    let watch = make(Kind::Watch, &mut dice);
    let mut members = Vec::new();
    for (platform, device) in [
        ("iOS", phone),
        ("iOS", latest),
        ("iOS", ipad),
        ("iOS", own_phone),
        ("macOS", mac),
        ("macOS", newest),
        ("macOS", own_mac),
        ("tvOS", tv),
        ("visionOS", vision),
        ("watchOS", watch),
    ] {
        members.push(Member::enrolled(house, platform, device).await);
    }
    members
}

/// The least JSON that makes the command, by what the catalog says of its keys.
pub(crate) fn least(row: &Value) -> Value {
    let needed = row["one_of"].as_array().unwrap().first();
    let mut json = required(&row["keys"], needed);
    json.insert("request_type".into(), row["request_type"].clone());
    Value::Object(json)
}

fn required(keys: &Value, also: Option<&Value>) -> Map<String, Value> {
    let keys = keys.as_array().unwrap().iter();
    let keys = keys.filter(|key| key["required"] == true || Some(&key["json"]) == also);
    keys.map(|key| (key["json"].as_str().unwrap().to_owned(), sample(key)))
        .collect()
}

fn sample(kind: &Value) -> Value {
    if let Some(first) = kind["values"].as_array().and_then(|values| values.first()) {
        return first.clone();
    }
    if let Some(items) = kind["items"].as_array() {
        let mut item = required(&items[0]["keys"], None);
        item.insert("item".into(), items[0]["item"].clone());
        return Value::Object(item);
    }
    match kind["kind"].as_str().unwrap() {
        "string" => json!("1".repeat(kind["digits"].as_u64().unwrap_or(6) as usize)),
        "integer" => json!(kind["min"].as_i64().unwrap_or(7).max(7)),
        "boolean" => json!(true),
        "real" => json!(1.5),
        "date" => json!("2026-02-28T12:00:00Z"),
        "data" => json!("AQID"),
        "array" => json!([sample(&kind["of"])]),
        "dictionary" if kind["keys"].is_array() => Value::Object(required(&kind["keys"], None)),
        "dictionary" => json!({"any": 1}),
        _ => json!("any"),
    }
}

pub(crate) async fn rows(house: &House) -> Vec<Value> {
    let (status, catalog) = house.get("/api/v1/catalog").await;
    assert_eq!(status, StatusCode::OK);
    catalog["items"].as_array().unwrap().clone()
}

pub(crate) fn order(id: &str, command: &Value) -> Value {
    json!({"targets": {"ids": [id]}, "command": command, "wake": false, "reason": "a test"})
}

#[actix_web::test]
async fn every_command_reaches_whom_it_is_for_and_nobody_else() {
    let house = House::with(|config| config.guard.max_devices = 1000).await;
    let mut members = members(&house).await;
    let rows = rows(&house).await;
    let (mut taken, mut refused, mut alone) = (0, 0, Vec::new());
    for row in &rows {
        let name = row["request_type"].as_str().unwrap();
        let command = least(row);
        let before = taken;
        for member in &mut members {
            for channel in member.device.channels() {
                let id = member.device.enroll_id(*channel);
                let (status, answer) = house.post("/api/v1/commands", &order(&id, &command)).await;
                let place = format!("{name} for {id} ({}): {answer}", member.platform);
                if !member.is_taken(row, *channel) {
                    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{place}");
                    assert_eq!(answer["code"], "not_fit", "{place}");
                    refused += 1;
                    continue;
                }
                assert_eq!(status, StatusCode::ACCEPTED, "{place}");
                let uuid = answer["command_uuid"].as_str().unwrap().to_owned();
                // The other side of the device is not given it.
                for other in member.device.channels() {
                    if other != channel {
                        assert!(member.poll(*other).await.is_empty(), "{place}");
                    }
                }
                let steps = member.poll(*channel).await;
                assert_eq!(steps.len(), 1, "{place}");
                assert_eq!(steps[0].uuid, uuid, "{place}");
                assert_eq!(steps[0].status, Status::Acknowledged, "{place}");
                let result = format!("/api/v1/devices/{id}/commands/{uuid}/result");
                let (status, result) = house.get(&result).await;
                assert_eq!(status, StatusCode::OK, "{place}: {result}");
                assert_eq!(result["status"], "Acknowledged", "{place}: {result}");
                taken += 1;
            }
        }
        if before == taken {
            alone.push(name);
        }
    }
    assert_eq!(alone, [""; 0], "nobody was sent these");
    assert!(
        taken > 200 && refused > 300,
        "{taken} taken, {refused} refused"
    );
}

#[actix_web::test]
async fn what_is_typed_is_in_the_inventory_of_its_device() {
    let house = House::start().await;
    let mut members = members(&house).await;
    let kinds = [
        ("DeviceInformation", "device_information"),
        ("SecurityInfo", "security_info"),
        ("InstalledApplicationList", "installed_applications"),
        ("ManagedApplicationList", "managed_applications"),
        ("ProfileList", "profiles"),
        ("ProvisioningProfileList", "provisioning_profiles"),
        ("CertificateList", "certificates"),
        ("Restrictions", "restrictions"),
        ("UserList", "users"),
        ("AvailableOSUpdates", "available_os_updates"),
    ];
    let rows = rows(&house).await;
    let mut seen = 0;
    for (name, key) in kinds {
        let row = rows.iter().find(|row| row["request_type"] == name).unwrap();
        for member in &mut members {
            if !member.is_taken(row, Channel::Device) {
                continue;
            }
            let id = member.device.enroll_id(Channel::Device);
            house.queue(&id, &least(row)).await;
            assert_eq!(member.poll(Channel::Device).await.len(), 1);
            let (_, shown) = house.get(&format!("/api/v1/devices/{id}")).await;
            let told = &shown["inventory"][key];
            assert!(told.is_object() || told.is_array(), "{name} {id}: {shown}");
            seen += 1;
        }
    }
    assert!(seen > 40, "{seen}");
}
