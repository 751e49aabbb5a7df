//! The catalog as JSON, for `GET /api/v1/catalog` and whoever builds a form from it.

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::row::{Item, Key, Kind, Platform, Row, Support};
use super::spelling::snake;

impl Row {
    /// The row as the admin API shows it. A key has both names: `name` is Apple's, `json`
    /// the admin API's; common keys of every command are not repeated.
    pub fn describe(&self) -> Value {
        let one_of: Vec<String> = self.one_of.iter().map(|name| snake(name)).collect();
        let platforms: Vec<Value> = self.platforms.iter().map(|on| self.platform(on)).collect();
        let on_mac = self.support(Platform::MacOs).is_some();
        json!({
            "request_type": self.request_type,
            "keys": keys(self.keys),
            "one_of": one_of,
            "platforms": platforms,
            "mac_channels": on_mac.then_some(self.mac_channels),
            "shared_ipad": self.shared_ipad,
            "danger": self.danger,
            "destructive": self.destructive(),
            "urgent": self.urgent(),
        })
    }

    fn platform(&self, on: &Support) -> Value {
        json!({
            "platform": on.platform,
            "min_os": on.min_os,
            "removed_in": on.removed_in,
            "supervised": on.supervised,
            "ade_only": on.ade_only,
            "user_enrollment": on.user_enrollment,
            "rights": self.rights_on(on.platform).names(),
        })
    }
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.describe().serialize(serializer)
    }
}

fn keys(keys: &[Key]) -> Vec<Value> {
    let describe = |key: &Key| {
        let mut shape = kind(&key.kind);
        if let Some(shape) = shape.as_object_mut() {
            shape.insert("name".into(), key.name.into());
            shape.insert("json".into(), snake(key.name).into());
            shape.insert("required".into(), key.required.into());
        }
        shape
    };
    keys.iter().map(describe).collect()
}

/// A kind as an object: its name under `kind`, and what narrows it.
fn kind(kind: &Kind) -> Value {
    match kind {
        Kind::String => json!({"kind": "string"}),
        Kind::Choice(values) => json!({"kind": "string", "values": values}),
        Kind::Digits(digits) => json!({"kind": "string", "digits": digits}),
        Kind::Integer { min, max } => {
            let (min, max) = (bound(*min, i64::MIN), bound(*max, i64::MAX));
            json!({"kind": "integer", "min": min, "max": max})
        }
        Kind::IntegerChoice(values) => json!({"kind": "integer", "values": values}),
        Kind::Boolean => json!({"kind": "boolean"}),
        Kind::Real => json!({"kind": "real"}),
        Kind::Date => json!({"kind": "date"}),
        Kind::Data => json!({"kind": "data"}),
        Kind::DataUpTo(bytes) => json!({"kind": "data", "max_bytes": bytes}),
        Kind::Array(of) => json!({"kind": "array", "of": self::kind(of)}),
        Kind::Dict(within) => json!({"kind": "dictionary", "keys": keys(within)}),
        Kind::Open => json!({"kind": "dictionary"}),
        Kind::Items(items) => {
            let items: Vec<Value> = items.iter().map(item).collect();
            json!({"kind": "dictionary", "items": items})
        }
        Kind::Any => json!({"kind": "any"}),
    }
}

fn item(item: &Item) -> Value {
    json!({"item": item.name, "keys": keys(item.keys), "rights": item.rights.names()})
}

/// A bound worth showing: not the one every 64-bit integer has.
fn bound(bound: i64, natural: i64) -> Option<i64> {
    (bound != natural).then_some(bound)
}

#[cfg(test)]
mod tests {
    use super::super::{CATALOG, find};
    use super::*;

    #[test]
    fn a_row_tells_all_it_knows() {
        let lock = serde_json::to_value(find("DeviceLock").unwrap()).unwrap();
        assert_eq!(lock["danger"], "locks");
        assert_eq!(lock["destructive"], true);
        assert_eq!(
            lock["keys"][2],
            json!({"name": "PIN", "json": "pin", "kind": "string", "digits": 6, "required": false})
        );
        assert_eq!(
            lock["platforms"][1],
            json!({
                "platform": "macOS", "min_os": "10.7", "removed_in": null, "supervised": false,
                "ade_only": false, "user_enrollment": false,
                "rights": ["lock_and_clear_passcode"],
            })
        );
        assert_eq!(lock["mac_channels"], json!({"device": true, "user": false}));
        assert_eq!(
            lock["shared_ipad"],
            json!({"allowed": {"device": true, "user": false}})
        );
    }

    #[test]
    fn every_row_can_be_described() {
        for row in CATALOG {
            assert_eq!(row.describe()["request_type"], row.request_type);
        }
    }
}
