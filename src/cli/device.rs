//! `devices show`: one device as a person reads it.

use serde_json::Value;

use super::output::{self, Format, shown, text};

/// Prints all that is known of a device.
pub(super) fn print(device: &Value, format: Format) -> anyhow::Result<()> {
    if format.json {
        return output::json(device);
    }
    let mut facts: Vec<(&str, String)> = FACTS
        .into_iter()
        .map(|(name, pointer)| (name, text(device, pointer)))
        .collect();
    let channels = device.pointer("/channels").and_then(Value::as_array);
    for channel in channels.into_iter().flatten() {
        facts.push(("channel", describe_channel(channel)));
    }
    output::facts(facts)?;
    let inventory = device.pointer("/inventory/device_information");
    let Some(inventory) = inventory.and_then(Value::as_object) else {
        return Ok(());
    };
    let at = text(device, "/inventory/device_information_at");
    output::say(&format!("\nDeviceInformation of {at}"))?;
    let told = inventory.iter();
    Ok(output::facts(
        told.map(|(key, value)| (key.as_str(), shown(value)))
            .collect(),
    )?)
}

fn describe_channel(channel: &Value) -> String {
    let (id, kind) = (text(channel, "/id"), text(channel, "/kind"));
    let topic = text(channel, "/push/topic");
    if topic.is_empty() {
        return format!("{id} ({kind}), cannot be woken");
    }
    let state = text(channel, "/push/state");
    let last = match text(channel, "/push/last_push_at") {
        at if at.is_empty() => "never woken".to_owned(),
        at => format!("woken {at}"),
    };
    format!("{id} ({kind}), push token {state}, {topic}, {last}")
}

const FACTS: [(&str, &str); 19] = [
    ("id", "/id"),
    ("serial number", "/serial_number"),
    ("name", "/name"),
    ("model", "/model"),
    ("platform", "/platform"),
    ("os version", "/os_version"),
    ("state", "/state"),
    ("enrollment", "/enrollment_type"),
    ("last seen", "/last_seen_at"),
    ("enrolled", "/enrolled_at"),
    ("waiting commands", "/pending_commands"),
    ("tags", "/tags"),
    ("notes", "/notes"),
    ("certificate", "/certificate/sha256"),
    ("valid until", "/certificate/not_after"),
    ("expired", "/certificate/expired"),
    ("in setup assistant", "/awaiting_configuration"),
    ("may re-enroll", "/reenroll_allowed"),
    ("quarantined", "/quarantined"),
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_channel_says_how_it_can_be_woken() {
        let channel = json!({"id": "A", "kind": "Device", "push": null});
        assert_eq!(describe_channel(&channel), "A (Device), cannot be woken");
        let push = json!({"topic": "t", "state": "dead", "last_push_at": null});
        let channel = json!({"id": "A", "kind": "Device", "push": push});
        let told = "A (Device), push token dead, t, never woken";
        assert_eq!(describe_channel(&channel), told);
    }
}
