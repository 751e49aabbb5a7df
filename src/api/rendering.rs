//! How values of the floors below look in JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use plist::Value;
use schema::UnixMillis;
use schema::inventory::Fact;
use serde_json::{Map, Number, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// RFC 3339 in UTC.
#[must_use]
pub fn time(at: UnixMillis) -> String {
    i64::try_from(at.0 / 1000)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|at| at.format(&Rfc3339).ok())
        .unwrap_or_default()
}

/// RFC 3339 in UTC, from seconds since 1970 of either sign.
#[must_use]
pub fn time_of_seconds(seconds: i64) -> String {
    OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|at| at.format(&Rfc3339).ok())
        .unwrap_or_default()
}

/// Reads RFC 3339.
#[must_use]
pub fn read_time(text: &str) -> Option<UnixMillis> {
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    u64::try_from(at.unix_timestamp_nanos() / 1_000_000)
        .ok()
        .map(UnixMillis)
}

/// A plist as JSON: data is `{"$data": base64}`, a date `{"$date": RFC 3339}`, a number
/// JSON has no room for `{"$number": text}`.
#[must_use]
pub fn tagged(value: &Value) -> serde_json::Value {
    match value {
        Value::Array(items) => items.iter().map(tagged).collect(),
        Value::Dictionary(entries) => {
            let entries = entries
                .iter()
                .map(|(key, value)| (key.clone(), tagged(value)));
            serde_json::Value::Object(entries.collect::<Map<_, _>>())
        }
        Value::Boolean(value) => json!(value),
        Value::Data(bytes) => json!({ "$data": STANDARD.encode(bytes) }),
        Value::Date(date) => json!({ "$date": date.to_xml_format() }),
        Value::Real(real) => match Number::from_f64(*real) {
            Some(number) => serde_json::Value::Number(number),
            None => json!({ "$number": real.to_string() }),
        },
        Value::Integer(integer) => match (integer.as_signed(), integer.as_unsigned()) {
            (Some(signed), _) => json!(signed),
            (None, Some(unsigned)) => json!(unsigned),
            _ => json!({ "$number": integer.to_string() }),
        },
        Value::String(text) => json!(text),
        other => json!({ "$unknown": format!("{other:?}") }),
    }
}

/// A fact of the inventory, in the same form.
#[must_use]
pub fn told(fact: &Fact) -> serde_json::Value {
    match fact {
        Fact::List(items) => items.iter().map(told).collect(),
        Fact::Dict(facts) => {
            let facts = facts.iter().map(|(key, fact)| (key.clone(), told(fact)));
            serde_json::Value::Object(facts.collect())
        }
        Fact::Flag(flag) => json!(flag),
        Fact::Data(bytes) => json!({ "$data": STANDARD.encode(bytes) }),
        Fact::Date(seconds) => json!({ "$date": time_of_seconds(*seconds) }),
        Fact::Real(real) => match Number::from_f64(*real) {
            Some(number) => serde_json::Value::Number(number),
            None => json!({ "$number": real.to_string() }),
        },
        Fact::Integer(integer) => json!(integer),
        Fact::Text(text) => json!(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_and_read_back() {
        let at = UnixMillis(1_800_000_000_000);
        assert_eq!(time(at), "2027-01-15T08:00:00Z");
        assert_eq!(read_time("2027-01-15T09:00:00+01:00"), Some(at));
        assert_eq!(read_time("yesterday"), None);
        assert_eq!(time_of_seconds(-1), "1969-12-31T23:59:59Z");
    }

    #[test]
    fn a_plist_keeps_its_types_in_json() {
        let body = b"<plist version=\"1.0\"><dict><key>d</key><data>AQI=</data><key>t</key>\
            <date>2027-01-15T08:00:00Z</date><key>n</key><integer>18446744073709551615</integer>\
            <key>r</key><real>nan</real><key>a</key><array><true/></array></dict></plist>";
        let value = Value::Dictionary(schema::xml::parse(body).unwrap());
        assert_eq!(
            tagged(&value),
            json!({"d": {"$data": "AQI="}, "t": {"$date": "2027-01-15T08:00:00Z"},
                   "n": 18_446_744_073_709_551_615_u64, "r": {"$number": "NaN"}, "a": [true]})
        );
    }
}
