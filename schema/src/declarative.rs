//! Declarative management without an engine: every device's set is empty.
//!
//! Asked by the check-in door. The answers keep a device that was told to use
//! declarative management content and change nothing on it.
//! Source: Apple, "Declarative Management", and protocol.md 6.9.

/// The answer to one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A JSON document.
    Json(String),
    /// There is no such declaration.
    NotFound,
    /// Taken; nothing to say.
    Taken,
    /// No endpoint of this name exists.
    UnknownEndpoint,
}

/// Answers an endpoint for a device with an empty set of declarations.
#[must_use]
pub fn answer_empty(endpoint: &str) -> Answer {
    match endpoint {
        "tokens" => Answer::Json(format!(
            "{{\"SyncTokens\":{{\"Timestamp\":\"{EMPTY_SINCE}\",\"DeclarationsToken\":\"{EMPTY_TOKEN}\"}}}}"
        )),
        "declaration-items" => Answer::Json(format!(
            "{{\"Declarations\":{{\"Activations\":[],\"Assets\":[],\"Configurations\":[],\"Management\":[]}},\
             \"DeclarationsToken\":\"{EMPTY_TOKEN}\"}}"
        )),
        "status" => Answer::Taken,
        _ if endpoint.starts_with("declaration/") => Answer::NotFound,
        _ => Answer::UnknownEndpoint,
    }
}

/// One set, one token: the empty one never changes.
const EMPTY_TOKEN: &str = "empty";
const EMPTY_SINCE: &str = "2026-01-01T00:00:00Z";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_items_agree_and_a_declaration_is_not_found() {
        let document = |endpoint| match answer_empty(endpoint) {
            Answer::Json(text) => serde_json::from_str::<serde_json::Value>(&text).unwrap(),
            other => panic!("{other:?}"),
        };
        let items = document("declaration-items");
        assert_eq!(
            document("tokens")["SyncTokens"]["DeclarationsToken"],
            items["DeclarationsToken"]
        );
        assert_eq!(items["Declarations"].as_object().unwrap().len(), 4);
        assert_eq!(
            answer_empty("declaration/configuration/x"),
            Answer::NotFound
        );
        assert_eq!(answer_empty("status"), Answer::Taken);
        assert_eq!(answer_empty("other"), Answer::UnknownEndpoint);
    }
}
