//! `--key name=value`: a command's keys as a person types them, made JSON.
//!
//! The catalog says what a value must be, so that a PIN stays text and a list may be
//! written with commas. Judges nothing: the server says what is wrong with a key.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schema::catalog::{Key, Kind, Row, snake};
use serde_json::{Map, Value};

/// Splits `name=value`.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.to_owned()))
        }
        _ => Err("must be KEY=VALUE".to_owned()),
    }
}

/// Puts typed keys into a command. A list may be given in parts, any other key once.
///
/// # Errors
/// In words, naming the key.
pub(super) fn put(
    command: &mut Map<String, Value>,
    row: Option<&Row>,
    typed: Vec<(String, String)>,
) -> Result<(), String> {
    for (name, text) in typed {
        let known = row.and_then(|row| key(row, &name));
        let kind = known.map_or(Kind::Any, |key| key.kind);
        let name = known.map_or(name, |key| snake(key.name));
        let value = value(&kind, &text).map_err(|why| format!("{name}: {why}"))?;
        match (command.get_mut(&name), value) {
            (None, value) => {
                command.insert(name, value);
            }
            (Some(Value::Array(items)), Value::Array(more)) => items.extend(more),
            (Some(_), _) => return Err(format!("{name}: is given more than once")),
        }
    }
    Ok(())
}

fn key(row: &Row, name: &str) -> Option<&'static Key> {
    let fold = |name: &str| name.replace(['_', '-'], "").to_ascii_lowercase();
    row.keys.iter().find(|key| fold(key.name) == fold(name))
}

fn value(kind: &Kind, text: &str) -> Result<Value, String> {
    let json = || serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
    Ok(match kind {
        Kind::String | Kind::Choice(_) | Kind::Digits(_) | Kind::Date => Value::from(text),
        Kind::Data | Kind::DataUpTo(_) => match text.strip_prefix('@') {
            Some(file) => {
                let bytes = fs::read(file).map_err(|why| format!("{file}: {why}"))?;
                Value::from(STANDARD.encode(bytes))
            }
            None => Value::from(text),
        },
        Kind::Array(_) if text.trim_start().starts_with('[') => json(),
        Kind::Array(Kind::Dict(_) | Kind::Items(_) | Kind::Open) => Value::Array(vec![json()]),
        Kind::Array(of) => {
            let parts = text.split(',').map(|part| value(of, part.trim()));
            Value::Array(parts.collect::<Result<_, _>>()?)
        }
        _ => json(),
    })
}

#[cfg(test)]
mod tests {
    use schema::catalog::find;
    use serde_json::json;

    use super::*;

    fn keys(request_type: &str, typed: &[&str]) -> Result<Value, String> {
        let mut command = Map::new();
        let typed = typed.iter().map(|text| pair(text).unwrap()).collect();
        put(&mut command, find(request_type), typed)?;
        Ok(Value::Object(command))
    }

    #[test]
    fn the_catalog_says_what_a_value_is() {
        let cases = [
            ("DeviceLock", vec!["PIN=123456"], json!({"pin": "123456"})),
            (
                "DeviceLock",
                vec!["phone-number=1=2"],
                json!({"phone_number": "1=2"}),
            ),
            (
                "DeviceInformation",
                vec!["queries=UDID, OSVersion", "queries=[\"Model\"]"],
                json!({"queries": ["UDID", "OSVersion", "Model"]}),
            ),
            (
                "EraseDevice",
                vec![
                    "PreserveDataPlan=true",
                    "return_to_service={\"enabled\":true}",
                ],
                json!({"preserve_data_plan": true, "return_to_service": {"enabled": true}}),
            ),
            (
                "Settings",
                vec!["settings={\"item\":\"DeviceName\",\"device_name\":\"a,b\"}"],
                json!({"settings": [{"item": "DeviceName", "device_name": "a,b"}]}),
            ),
            (
                "NotInTheCatalog",
                vec!["count=3", "name=x y"],
                json!({"count": 3, "name": "x y"}),
            ),
        ];
        for (request_type, typed, expected) in cases {
            assert_eq!(keys(request_type, &typed), Ok(expected), "{request_type}");
        }
    }

    #[test]
    fn data_may_come_from_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), [1, 2]).unwrap();
        let typed = format!("payload=@{}", file.path().display());
        assert_eq!(
            keys("InstallProfile", &[&typed]),
            Ok(json!({"payload": "AQI="}))
        );
        assert!(keys("InstallProfile", &["payload=@/nowhere"]).is_err());
    }

    #[test]
    fn what_is_no_pair_or_given_twice_is_refused() {
        assert!(pair("pin").is_err());
        assert!(pair("=1").is_err());
        assert!(keys("DeviceLock", &["pin=1", "PIN=2"]).is_err());
    }
}
