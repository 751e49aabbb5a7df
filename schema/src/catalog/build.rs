//! Makes a command from the JSON of the admin API, against the table.
//!
//! Called for every command that comes as JSON; commands that come as plist never pass here.
//! It finds everything that is wrong, not just the first thing, and says where by the
//! pointer the caller can see. No message repeats a value that could be a secret.

use plist::Value as Plist;
use serde::Serialize;
use serde_json::{Map, Value as Json};
use thiserror::Error;

use super::row::{Item, Key, Kind, Row};
use super::scalar::{mismatch, scalar, string};
use super::spelling::{fold, nearest, snake};
use super::{CATALOG, COMMON, find};

/// A command that agrees with its row.
#[derive(Debug, Clone, PartialEq)]
pub struct Built {
    /// Apple's name of the command.
    pub request_type: &'static str,
    /// The inner `Command` dictionary, `RequestType` first, then keys in the row's order.
    pub command: plist::Dictionary,
    /// The row it was built by.
    pub row: &'static Row,
}

/// One thing the caller must change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error)]
#[error("{pointer}: {detail}")]
pub struct FieldError {
    /// RFC 6901 pointer into the JSON as the caller wrote it; a missing key in snake_case.
    pub pointer: String,
    /// What is wrong, and what would be right.
    pub detail: String,
}

/// Builds a command from `{"request_type": ..., keys...}`.
///
/// Keys may be spelt Apple's way or in snake_case. Data is base64, a date RFC 3339. Inside
/// dictionaries that are the caller's own (an app's `configuration`) keys stay as written.
/// Gives every error found, up to a limit.
pub fn build(json: &Map<String, Json>) -> Result<Built, Vec<FieldError>> {
    let row = row_of(json).map_err(|error| vec![error])?;
    let mut builder = Builder::default();
    let keys = [&[REQUEST_TYPE], row.keys, COMMON].concat();
    let command = builder.dictionary("", json, &keys);
    builder.one_of(json, row.one_of);
    if builder.errors.is_empty() {
        Ok(Built {
            request_type: row.request_type,
            command,
            row,
        })
    } else {
        Err(builder.errors)
    }
}

/// The row that `request_type` names.
fn row_of(json: &Map<String, Json>) -> Result<&'static Row, FieldError> {
    let Some((written, value)) = given(json, &REQUEST_TYPE) else {
        return Err(error("/request_type".into(), "is required".into()));
    };
    let pointer = child("", written);
    let Some(name) = value.as_str() else {
        return Err(error(pointer, mismatch(value, &REQUEST_TYPE.kind)));
    };
    find(name).ok_or_else(|| {
        let meant = nearest(name, CATALOG.iter().map(|row| row.request_type));
        let hint = hint(meant);
        let other = "a command that is not in the catalog can be sent as command_plist";
        error(pointer, format!("no command of that name{hint}; {other}"))
    })
}

/// Collects the errors of one command while its values are converted.
#[derive(Default)]
struct Builder {
    errors: Vec<FieldError>,
}

impl Builder {
    /// Converts an object with known keys; keys come out in the order of `keys`.
    fn dictionary(
        &mut self,
        at: &str,
        json: &Map<String, Json>,
        keys: &[Key],
    ) -> plist::Dictionary {
        let mut given: Vec<Option<(&str, &Json)>> = vec![None; keys.len()];
        for (written, value) in json {
            let place = keys.iter().position(|key| fold(key.name) == fold(written));
            match place.and_then(|place| given.get_mut(place)) {
                Some(place @ None) => *place = Some((written, value)),
                Some(Some((before, _))) => {
                    let detail = format!("is the same key as \"{before}\", given twice");
                    self.refuse(&child(at, written), detail);
                }
                None => self.unknown(at, written, keys),
            }
            if self.full() {
                break;
            }
        }
        let mut dictionary = plist::Dictionary::new();
        for (key, given) in keys.iter().zip(given) {
            let value = match given {
                Some((written, value)) => self.value(&child(at, written), value, &key.kind),
                None if key.required => {
                    self.refuse(&child(at, &snake(key.name)), "is required".into())
                }
                None => None,
            };
            if let Some(value) = value {
                dictionary.insert(key.name.into(), value);
            }
        }
        dictionary
    }

    /// Converts one value, or notes why not.
    fn value(&mut self, at: &str, json: &Json, kind: &Kind) -> Option<Plist> {
        match (kind, json) {
            (Kind::Any, _) | (Kind::Open, Json::Object(_)) => self.any(at, json),
            (Kind::Array(of), Json::Array(values)) => self.array(at, values, of),
            (Kind::Dict(keys), Json::Object(json)) => {
                Some(Plist::Dictionary(self.dictionary(at, json, keys)))
            }
            (Kind::Items(items), Json::Object(json)) => self.item(at, json, items),
            _ => self.take(at, scalar(json, kind)),
        }
    }

    fn array(&mut self, at: &str, values: &[Json], of: &Kind) -> Option<Plist> {
        let mut array = Vec::with_capacity(values.len());
        for (i, value) in values.iter().enumerate() {
            array.extend(self.value(&format!("{at}/{i}"), value, of));
            if self.full() {
                break;
            }
        }
        Some(Plist::Array(array))
    }

    /// Converts a settings item: its `Item` decides which keys it has.
    fn item(&mut self, at: &str, json: &Map<String, Json>, items: &[Item]) -> Option<Plist> {
        let Some((written, value)) = given(json, &ITEM) else {
            return self.refuse(&child(at, &snake(ITEM.name)), "is required".into());
        };
        let pointer = child(at, written);
        let Some(name) = value.as_str() else {
            return self.refuse(&pointer, mismatch(value, &ITEM.kind));
        };
        let Some(item) = items.iter().find(|item| item.name == name) else {
            let meant = nearest(name, items.iter().map(|item| item.name));
            return self.refuse(&pointer, format!("no item of that name{}", hint(meant)));
        };
        let keys = [&[ITEM], item.keys].concat();
        Some(Plist::Dictionary(self.dictionary(at, json, &keys)))
    }

    /// Converts a value nobody knows the kind of; keys stay as written.
    fn any(&mut self, at: &str, json: &Json) -> Option<Plist> {
        match json {
            Json::Null => self.refuse(at, "must not be null, a property list has none".into()),
            Json::Bool(value) => Some(Plist::Boolean(*value)),
            Json::Number(number) if number.is_i64() => json.as_i64().map(Plist::from),
            Json::Number(number) if number.is_f64() => json.as_f64().map(Plist::Real),
            Json::Number(_) => self.refuse(at, format!("must be at most {}", i64::MAX)),
            Json::String(text) => self.take(at, string(text)),
            Json::Array(values) => self.array(at, values, &Kind::Any),
            Json::Object(json) => {
                let mut dictionary = plist::Dictionary::new();
                for (key, value) in json {
                    let at = child(at, key);
                    self.take(&at, string(key));
                    let value = self.any(&at, value);
                    dictionary.extend(value.map(|value| (key.clone(), value)));
                    if self.full() {
                        break;
                    }
                }
                Some(Plist::Dictionary(dictionary))
            }
        }
    }

    /// Checks that at least one of `names` was given, right or wrong.
    fn one_of(&mut self, json: &Map<String, Json>, names: &[&str]) {
        let given = |name: &&str| json.keys().any(|written| fold(written) == fold(name));
        let Some(first) = names.first() else { return };
        if !names.iter().any(given) {
            let names: Vec<String> = names.iter().map(|name| snake(name)).collect();
            self.refuse(
                &child("", &snake(first)),
                format!("one of {} is required", names.join(", ")),
            );
        }
    }

    fn unknown(&mut self, at: &str, written: &str, keys: &[Key]) {
        let meant = nearest(written, keys.iter().map(|key| key.name)).map(snake);
        let detail = format!("unknown key{}", hint(meant.as_deref()));
        self.refuse(&child(at, written), detail);
    }

    /// Passes a converted leaf on, or notes its refusal.
    fn take(&mut self, at: &str, leaf: Result<Plist, String>) -> Option<Plist> {
        match leaf {
            Ok(value) => Some(value),
            Err(detail) => self.refuse(at, detail),
        }
    }

    /// Notes an error; never gives a value, so that it can end a match arm.
    fn refuse(&mut self, at: &str, detail: String) -> Option<Plist> {
        if !self.full() {
            self.errors.push(error(at.to_owned(), detail));
        }
        None
    }

    fn full(&self) -> bool {
        self.errors.len() >= MAX_ERRORS
    }
}

/// The key and its value, however the caller spelt it.
fn given<'a>(json: &'a Map<String, Json>, key: &Key) -> Option<(&'a String, &'a Json)> {
    json.iter()
        .find(|(written, _)| fold(written) == fold(key.name))
}

fn hint(meant: Option<&str>) -> String {
    meant.map_or(String::new(), |meant| {
        format!("; did you mean \"{meant}\"?")
    })
}

fn error(pointer: String, detail: String) -> FieldError {
    FieldError { pointer, detail }
}

/// The pointer to `key` within `at`, escaped by RFC 6901.
fn child(at: &str, key: &str) -> String {
    format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"))
}

const REQUEST_TYPE: Key = Key {
    name: "RequestType",
    kind: Kind::String,
    required: true,
};
const ITEM: Key = Key {
    name: "Item",
    kind: Kind::String,
    required: true,
};

/// Enough for a person to mend; a hostile body must not be answered with millions.
const MAX_ERRORS: usize = 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn made(json: &Json) -> Result<Built, Vec<FieldError>> {
        build(json.as_object().unwrap())
    }

    /// The least JSON a kind accepts, with keys spelt by `spell`.
    fn sample(kind: &Kind, spell: fn(&str) -> String) -> Json {
        match kind {
            Kind::String | Kind::Any => json!("text"),
            Kind::Choice(values) => json!(values[0]),
            Kind::Digits(count) => json!("1".repeat(*count)),
            Kind::Integer { min, max } => json!(7.clamp(*min, *max)),
            Kind::IntegerChoice(values) => json!(values[0]),
            Kind::Boolean => json!(true),
            Kind::Real => json!(1.5),
            Kind::Date => json!("2024-02-29T12:00:00Z"),
            Kind::Data | Kind::DataUpTo(_) => json!("AQID"),
            Kind::Array(of) => json!([sample(of, spell)]),
            Kind::Dict(keys) => Json::Object(object(keys, &[], spell)),
            Kind::Open => json!({"anyKey_Is_Kept": [1, 2.5, true, {"x": "y"}]}),
            Kind::Items(items) => {
                let mut item = object(items[0].keys, &[], spell);
                item.insert(spell("Item"), json!(items[0].name));
                Json::Object(item)
            }
        }
    }

    fn object(keys: &[Key], also: &[&str], spell: fn(&str) -> String) -> Map<String, Json> {
        let keys = keys
            .iter()
            .filter(|key| key.required || also.contains(&key.name));
        keys.map(|key| (spell(key.name), sample(&key.kind, spell)))
            .collect()
    }

    fn minimal(row: &Row, spell: fn(&str) -> String) -> Json {
        let mut json = object(row.keys, row.one_of.get(..1).unwrap_or_default(), spell);
        json.insert(spell("RequestType"), json!(row.request_type));
        Json::Object(json)
    }

    fn full(row: &Row, spell: fn(&str) -> String) -> Json {
        let every: Vec<&str> = row.keys.iter().map(|key| key.name).collect();
        let mut json = object(row.keys, &every, spell);
        json.insert(spell("RequestType"), json!(row.request_type));
        json.insert(spell("RequestRequiresNetworkTether"), json!(true));
        Json::Object(json)
    }

    #[test]
    fn every_row_builds_from_its_least_and_its_most() {
        for row in CATALOG {
            let least = made(&minimal(row, snake)).unwrap();
            assert_eq!((least.request_type, least.row), (row.request_type, row));
            assert_eq!(least.command.keys().next().unwrap(), "RequestType");
            let most = made(&full(row, snake)).unwrap();
            assert_eq!(
                most.command.len(),
                row.keys.len() + 2,
                "{}",
                row.request_type
            );
        }
    }

    #[test]
    fn snake_case_and_apples_case_give_the_same_bytes() {
        let xml = |json: &Json| {
            let mut bytes = Vec::new();
            Plist::Dictionary(made(json).unwrap().command)
                .to_writer_xml(&mut bytes)
                .unwrap();
            String::from_utf8(bytes).unwrap()
        };
        for row in CATALOG {
            let apple = xml(&full(row, str::to_owned));
            assert_eq!(xml(&full(row, snake)), apple, "{}", row.request_type);
            assert_eq!(
                xml(&full(row, str::to_lowercase)),
                apple,
                "{}",
                row.request_type
            );
        }
    }

    #[test]
    fn values_become_their_plist_kinds() {
        let json = json!({
            "request_type": "InstallApplication",
            "itunes_store_id": 361_309_726,
            "management_flags": 5,
            "options": {"purchase_method": 1},
            "configuration": {"server_url": "https://example.com", "n": -1, "ratio": 0.5},
            "attributes": {"associated_domains": ["example.com"], "vpn_uuid": "U"},
        });
        let command = made(&json).unwrap().command;
        assert_eq!(
            command.get("iTunesStoreID"),
            Some(&Plist::from(361_309_726_i64))
        );
        let inner = |key: &str| command.get(key).unwrap().as_dictionary().unwrap();
        assert_eq!(
            inner("Options").get("PurchaseMethod"),
            Some(&Plist::from(1_i64))
        );
        assert_eq!(
            inner("Configuration").get("server_url"),
            Some(&"https://example.com".into())
        );
        assert_eq!(inner("Configuration").get("n"), Some(&Plist::from(-1_i64)));
        assert_eq!(inner("Configuration").get("ratio"), Some(&Plist::Real(0.5)));
        assert_eq!(inner("Attributes").get("VPNUUID"), Some(&"U".into()));

        let json = json!({"request_type": "InstallProfile", "payload": "AQID"});
        let command = made(&json).unwrap().command;
        assert_eq!(command.get("Payload"), Some(&Plist::Data(vec![1, 2, 3])));
    }

    #[test]
    fn an_error_points_at_the_key_as_it_was_written() {
        let cases: &[(Json, &[(&str, &str)])] = &[
            (json!({}), &[("/request_type", "is required")]),
            (
                json!({"RequestType": 7}),
                &[("/RequestType", "must be a string, not a number")],
            ),
            (
                json!({"request_type": "DeviceLok"}),
                &[(
                    "/request_type",
                    "no command of that name; did you mean \"DeviceLock\"?; a command that is \
                     not in the catalog can be sent as command_plist",
                )],
            ),
            (
                json!({"request_type": "Zzz"}),
                &[(
                    "/request_type",
                    "no command of that name; a command that is not in the catalog can be sent \
                     as command_plist",
                )],
            ),
            (
                json!({"request_type": "DeviceLock", "pim": "123456"}),
                &[("/pim", "unknown key; did you mean \"pin\"?")],
            ),
            (
                json!({"request_type": "DeviceLock", "a/b~c": 1}),
                &[("/a~1b~0c", "unknown key")],
            ),
            (
                json!({"request_type": "DeviceLock", "PIN": "123456", "pin": "123456"}),
                &[("/pin", "is the same key as \"PIN\", given twice")],
            ),
            (
                json!({"request_type": "DeviceLock", "PIN": 123_456}),
                &[("/PIN", "must be a string, not a number")],
            ),
            (
                json!({"request_type": "InstallProfile"}),
                &[("/payload", "is required")],
            ),
            (
                json!({"request_type": "InstallProfile", "payload": "<plist>"}),
                &[("/payload", "must be base64 in the standard alphabet")],
            ),
            (
                json!({"request_type": "InstallApplication"}),
                &[(
                    "/itunes_store_id",
                    "one of itunes_store_id, identifier, manifest_url is required",
                )],
            ),
            (
                json!({"request_type": "InstallApplication", "iTunesStoreID": 9_223_372_036_854_775_808_u64}),
                &[(
                    "/iTunesStoreID",
                    "must be an integer from 1 to 9223372036854775807",
                )],
            ),
            (
                json!({"request_type": "InstallApplication", "identifier": "a", "management_flags": 2}),
                &[("/management_flags", "must be one of 1, 4, 5")],
            ),
            (
                json!({"request_type": "InstallApplication", "identifier": "a",
                       "configuration": {"a b": [true, null, u64::MAX], "c": "\u{0}"}}),
                &[
                    (
                        "/configuration/a b/1",
                        "must not be null, a property list has none",
                    ),
                    (
                        "/configuration/a b/2",
                        "must be at most 9223372036854775807",
                    ),
                    (
                        "/configuration/c",
                        "contains a control character, which XML cannot carry",
                    ),
                ],
            ),
            (
                json!({"request_type": "EraseDevice", "return_to_service": {"wifi_profile_data": 1},
                       "ObliterationBehavior": "always"}),
                &[
                    (
                        "/ObliterationBehavior",
                        "must be one of Default, DoNotObliterate, ObliterateWithWarning, Always",
                    ),
                    ("/return_to_service/enabled", "is required"),
                    (
                        "/return_to_service/wifi_profile_data",
                        "must be a base64 string, not a number",
                    ),
                ],
            ),
            (
                json!({"request_type": "Settings", "settings": [{"item": "WallPaper"}]}),
                &[(
                    "/settings/0/item",
                    "no item of that name; did you mean \"Wallpaper\"?",
                )],
            ),
            (
                json!({"request_type": "Settings", "settings": [
                    {"Item": "Bluetooth", "enable": true}, {}, 3, {"item": null},
                ]}),
                &[
                    (
                        "/settings/0/enable",
                        "unknown key; did you mean \"enabled\"?",
                    ),
                    ("/settings/0/enabled", "is required"),
                    ("/settings/1/item", "is required"),
                    ("/settings/2", "must be an object, not a number"),
                    ("/settings/3/item", "must be a string, not null"),
                ],
            ),
            (
                json!({"request_type": "ScheduleOSUpdate",
                       "updates": [{"install_action": "InstallAsap", "max_user_deferrals": -1}]}),
                &[
                    (
                        "/updates/0/install_action",
                        "must be one of Default, DownloadOnly, InstallASAP, NotifyOnly, \
                         InstallLater, InstallForceRestart",
                    ),
                    (
                        "/updates/0/max_user_deferrals",
                        "must be an integer from 0 to 9223372036854775807",
                    ),
                ],
            ),
            (
                json!({"request_type": "DeviceInformation", "queries": "UDID"}),
                &[("/queries", "must be an array, not a string")],
            ),
        ];
        for (json, expected) in cases {
            let mut refused = made(json).unwrap_err();
            refused.sort_by(|a, b| a.pointer.cmp(&b.pointer));
            let refused: Vec<_> = refused.iter().map(|e| (&*e.pointer, &*e.detail)).collect();
            assert_eq!(refused, *expected, "{json}");
        }
    }

    #[test]
    fn a_flood_of_errors_is_cut_off() {
        let keys = (0..10_000).map(|i| (format!("k{i}"), Json::Null));
        let mut json: Map<String, Json> = keys.collect();
        json.insert("request_type".into(), json!("DeviceLock"));
        assert_eq!(build(&json).unwrap_err().len(), MAX_ERRORS);
    }

    proptest! {
        #[test]
        fn whatever_is_built_reads_back_as_the_same_plist(
            at in 0..CATALOG.len(),
            key in "[a-zA-Z_/~ ]{0,12}",
            text in any::<String>(),
            number in any::<i64>(),
        ) {
            let row = &CATALOG[at];
            let mut json = full(row, snake).as_object().unwrap().clone();
            json.insert("configuration".into(), json!({ key.clone(): [text, number] }));
            if let Ok(built) = build(&json) {
                let mut bytes = Vec::new();
                let value = Plist::Dictionary(built.command);
                value.to_writer_xml(&mut bytes).unwrap();
                let read = Plist::from_reader_xml(&bytes[..]);
                prop_assert!(read.is_ok());
            }
        }
    }
}
