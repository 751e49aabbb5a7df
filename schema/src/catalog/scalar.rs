//! One JSON value into one plist value, for every kind that holds no others.
//!
//! `build.rs` walks the structure and asks here for the leaves. An error is the sentence
//! the caller reads; it names what is expected and never repeats the value, which may be
//! a secret.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use plist::Value as Plist;
use serde_json::Value as Json;

use super::row::Kind;

/// Converts a leaf; a container, or a value of the wrong type, is a mismatch.
pub(super) fn scalar(json: &Json, kind: &Kind) -> Result<Plist, String> {
    match (kind, json) {
        (Kind::Boolean, Json::Bool(value)) => Ok(Plist::Boolean(*value)),
        (Kind::Real, Json::Number(number)) => number
            .as_f64()
            .map(Plist::Real)
            .ok_or_else(|| mismatch(json, kind)),
        (Kind::Integer { min, max }, Json::Number(_)) => {
            let value = json.as_i64().filter(|value| (*min..=*max).contains(value));
            value
                .map(Plist::from)
                .ok_or_else(|| format!("must be an integer from {min} to {max}"))
        }
        (Kind::IntegerChoice(values), Json::Number(_)) => {
            let value = json.as_i64().filter(|value| values.contains(value));
            value
                .map(Plist::from)
                .ok_or_else(|| one_of(values.iter().map(i64::to_string)))
        }
        (Kind::String, Json::String(text)) => string(text),
        (Kind::Choice(values), Json::String(text)) => {
            let value = values.iter().find(|value| *value == text);
            let value = value.map(|value| Plist::String((*value).into()));
            value.ok_or_else(|| one_of(values.iter().map(|value| (*value).to_owned())))
        }
        (Kind::Digits(count), Json::String(text)) => digits(text, *count),
        (Kind::Date, Json::String(text)) => date(text),
        (Kind::Data, Json::String(text)) => data(text, usize::MAX),
        (Kind::DataUpTo(limit), Json::String(text)) => data(text, *limit),
        _ => Err(mismatch(json, kind)),
    }
}

/// Takes text that XML can carry; a control character would spoil the whole document.
pub(super) fn string(text: &str) -> Result<Plist, String> {
    let spoils = |c: char| {
        (c < ' ' && !matches!(c, '\t' | '\n' | '\r')) || matches!(c, '\u{fffe}' | '\u{ffff}')
    };
    if text.contains(spoils) {
        return Err("contains a control character, which XML cannot carry".into());
    }
    Ok(text.into())
}

/// Says which type was expected and which was found.
pub(super) fn mismatch(json: &Json, kind: &Kind) -> String {
    let expected = match kind {
        Kind::String | Kind::Choice(_) | Kind::Digits(_) => "a string",
        Kind::Integer { .. } | Kind::IntegerChoice(_) => "an integer",
        Kind::Boolean => "a boolean",
        Kind::Real => "a number",
        Kind::Date => "a date in RFC 3339 form",
        Kind::Data | Kind::DataUpTo(_) => "a base64 string",
        Kind::Array(_) => "an array",
        Kind::Dict(_) | Kind::Open | Kind::Items(_) => "an object",
        Kind::Any => "a value",
    };
    let found = match json {
        Json::Null => "null",
        Json::Bool(_) => "a boolean",
        Json::Number(_) => "a number",
        Json::String(_) => "a string",
        Json::Array(_) => "an array",
        Json::Object(_) => "an object",
    };
    format!("must be {expected}, not {found}")
}

fn digits(text: &str, count: usize) -> Result<Plist, String> {
    if text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit()) {
        Ok(text.into())
    } else {
        Err(format!("must be exactly {count} digits"))
    }
}

/// Decodes base64 as tools print it: padded or not, in one line or several.
fn data(text: &str, limit: usize) -> Result<Plist, String> {
    let letters: Vec<u8> = text
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    match BASE64.decode(letters) {
        Ok(bytes) if bytes.len() <= limit => Ok(Plist::Data(bytes)),
        Ok(_) => Err(format!("must be at most {limit} bytes")),
        Err(_) => Err("must be base64 in the standard alphabet".into()),
    }
}

/// Reads an RFC 3339 date. A plist date has whole seconds, and the ends of the calendar are
/// refused before parsing because a time zone could move them over the edge.
fn date(text: &str) -> Result<Plist, String> {
    let whole = !text.contains('.') && !EDGES.iter().any(|year| text.starts_with(year));
    let date = whole
        .then(|| plist::Date::from_xml_format(text).ok())
        .flatten();
    date.map(Plist::Date)
        .ok_or_else(|| "must be a date in RFC 3339 form, whole seconds".into())
}

fn one_of(values: impl Iterator<Item = String>) -> String {
    format!("must be one of {}", values.collect::<Vec<_>>().join(", "))
}

const EDGES: [&str; 2] = ["0000", "9999"];
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_kind_takes_its_own_and_refuses_the_rest() {
        let beyond = i64::MAX as u64 + 1;
        let any = Kind::Integer {
            min: i64::MIN,
            max: i64::MAX,
        };
        let small = Kind::Integer { min: 1, max: 9 };
        let cases = [
            (Kind::String, json!("a\u{7f}\n"), true),
            (Kind::String, json!("a\u{0}"), false),
            (Kind::String, json!("a\u{ffff}"), false),
            (Kind::String, json!(1), false),
            (Kind::String, json!(null), false),
            (Kind::Choice(&["a", "b"]), json!("b"), true),
            (Kind::Choice(&["a", "b"]), json!("B"), false),
            (Kind::Digits(6), json!("012345"), true),
            (Kind::Digits(6), json!("12345"), false),
            (Kind::Digits(6), json!("12345a"), false),
            (Kind::Digits(6), json!(123_456), false),
            (any, json!(i64::MIN), true),
            (any, json!(beyond), false),
            (any, json!(1.0), false),
            (any, json!(1e30), false),
            (any, json!("1"), false),
            (small, json!(9), true),
            (small, json!(0), false),
            (Kind::IntegerChoice(&[1, 4]), json!(4), true),
            (Kind::IntegerChoice(&[1, 4]), json!(5), false),
            (Kind::Boolean, json!(false), true),
            (Kind::Boolean, json!(0), false),
            (Kind::Real, json!(1), true),
            (Kind::Real, json!(1.5), true),
            (Kind::Real, json!("1.5"), false),
            (Kind::Date, json!("2024-02-29T12:00:00Z"), true),
            (Kind::Date, json!("2024-02-29T12:00:00+02:00"), true),
            (Kind::Date, json!("2024-02-30T12:00:00Z"), false),
            (Kind::Date, json!("2024-02-29T12:00:00.5Z"), false),
            (Kind::Date, json!("9999-12-31T23:59:59-01:00"), false),
            (Kind::Date, json!("2024-02-29"), false),
            (Kind::Data, json!("AQID"), true),
            (Kind::Data, json!("AQ=="), true),
            (Kind::Data, json!("AQ"), true),
            (Kind::Data, json!("AQ\nID\n"), true),
            (Kind::Data, json!("A-_D"), false),
            (Kind::Data, json!("AQI!"), false),
            (Kind::DataUpTo(2), json!("AQI="), true),
            (Kind::DataUpTo(2), json!("AQID"), false),
            (Kind::Open, json!("a"), false),
            (Kind::Array(&Kind::String), json!("a"), false),
        ];
        for (kind, value, taken) in cases {
            assert_eq!(scalar(&value, &kind).is_ok(), taken, "{kind:?} {value}");
        }
    }

    #[test]
    fn a_refusal_never_repeats_the_value() {
        let secrets = [
            (Kind::Digits(6), json!("hunter2")),
            (Kind::Data, json!("hunter2!")),
            (Kind::String, json!("hunter2\u{1}")),
            (Kind::Choice(&["a"]), json!("hunter2")),
            (Kind::Boolean, json!("hunter2")),
        ];
        for (kind, value) in secrets {
            let refused = scalar(&value, &kind).err().unwrap_or_default();
            assert!(
                !refused.is_empty() && !refused.contains("hunter2"),
                "{refused}"
            );
        }
    }
}
