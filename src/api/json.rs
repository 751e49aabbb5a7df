//! JSON bodies: read strictly, refused by the field at fault.
//!
//! A refusal never says what stood in the field: it may be a secret in the wrong place.
//! Called by the handlers; knows nothing of what the fields mean.

use actix_web::error::JsonPayloadError;
use actix_web::{HttpMessage as _, HttpRequest};
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::{Path, Segment};

use super::BODY_CAP;
use crate::error::Problem;

/// Reads a JSON body that must be of the right media type and shape.
///
/// # Errors
/// 415, 400 for broken JSON, 422 naming the field for JSON of the wrong shape.
pub fn strict_json<T: DeserializeOwned>(request: &HttpRequest, body: &[u8]) -> Result<T, Problem> {
    if request.content_type() != "application/json" {
        return Err(Problem::media_type("application/json is expected"));
    }
    let value: Value = serde_json::from_slice(body)
        .map_err(|error| Problem::bad_request("bad_json", error.to_string()))?;
    serde_path_to_error::deserialize(value).map_err(|error| {
        let pointer = pointer(error.path());
        Problem::field(pointer, without_value(&error.inner().to_string()))
    })
}

/// What actix-web's own extractor could not read.
pub(super) fn refused(error: JsonPayloadError, _: &HttpRequest) -> actix_web::Error {
    use JsonPayloadError as E;
    match error {
        E::ContentType => Problem::media_type("application/json is expected"),
        E::Overflow { .. } | E::OverflowKnownLength { .. } => {
            Problem::too_large(format!("at most {BODY_CAP} bytes are taken"))
        }
        other => Problem::bad_request("bad_json", without_value(&other.to_string())),
    }
    .into()
}

fn pointer(path: &Path) -> String {
    path.iter()
        .fold(String::new(), |pointer, segment| match segment {
            Segment::Seq { index } => format!("{pointer}/{index}"),
            Segment::Map { key } | Segment::Enum { variant: key } => {
                format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"))
            }
            Segment::Unknown => pointer,
        })
}

/// Serde's message but for the value it quotes: of `invalid type: string "x", expected u32`
/// what is between the type and the comma.
fn without_value(message: &str) -> String {
    let quotes = ["invalid type: ", "invalid value: ", "unknown variant "];
    let start = quotes
        .iter()
        .find_map(|start| Some(message.find(start)? + start.len()));
    let value = start.and_then(|start| Some(start + message.get(start..)?.find(['"', '`'])?));
    // What is expected comes last, whatever the value holds.
    match (value, message.rfind(", expected ")) {
        (Some(value), Some(expected)) if value < expected => {
            let (before, behind) = (message.get(..value), message.get(expected..));
            format!(
                "{}{}",
                before.unwrap_or_default().trim_end(),
                behind.unwrap_or_default()
            )
        }
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_type_and_never_the_value() {
        let cases = [
            (
                "invalid type: string \"a, expected `b`\", expected u32",
                "invalid type: string, expected u32",
            ),
            (
                "invalid type: integer `-4711`, expected a string",
                "invalid type: integer, expected a string",
            ),
            (
                "invalid type: map, expected a string",
                "invalid type: map, expected a string",
            ),
            (
                "invalid value: integer `4711`, expected u8",
                "invalid value: integer, expected u8",
            ),
            (
                "unknown variant `4711`, expected `scep` or `pkcs12`",
                "unknown variant, expected `scep` or `pkcs12`",
            ),
            (
                "Json deserialize error: invalid type: null, expected u8 at line 1 column 9",
                "Json deserialize error: invalid type: null, expected u8 at line 1 column 9",
            ),
            ("missing field `targets`", "missing field `targets`"),
            (
                "unknown field `x`, expected `y`",
                "unknown field `x`, expected `y`",
            ),
        ];
        for (said, without) in cases {
            assert_eq!(without_value(said), without);
        }
    }
}
