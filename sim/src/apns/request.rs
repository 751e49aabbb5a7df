//! One push as Apple reads it: the request's rules, and the reason given when
//! one is broken. Pure; source: Apple, "Sending notification requests to APNs"
//! and "Handling notification responses from APNs".

use hyper::http::request::Parts;
use uuid::Uuid;

/// A well-formed MDM push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// The device token, lower-case hex.
    pub token_hex: String,
    /// `apns-topic`.
    pub topic: String,
    /// The PushMagic of the body.
    pub magic: String,
    /// `apns-id`, made up here when the request had none.
    pub apns_id: String,
    /// `apns-push-type`, always `mdm`.
    pub push_type: String,
    /// `apns-priority`; 10 when absent.
    pub priority: u8,
    /// `apns-expiration`: seconds since 1970, `None` when absent.
    pub expiration: Option<u64>,
}

/// Why a request is not a well-formed MDM push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// Apple's reason.
    pub reason: &'static str,
    /// What was wrong, for the test's reader.
    pub detail: String,
}

impl Push {
    /// Reads a request as Apple would.
    pub(crate) fn read(head: &Parts, body: &[u8]) -> Result<Self, Refusal> {
        if head.method != "POST" {
            return Err(refusal(405, "MethodNotAllowed", head.method.as_str()));
        }
        Ok(Self {
            token_hex: token(head.uri.path())?,
            apns_id: apns_id(head)?,
            push_type: push_type(head)?,
            topic: topic(head)?,
            priority: priority(head)?,
            expiration: expiration(head)?,
            magic: magic(body)?,
        })
    }
}

fn token(path: &str) -> Result<String, Refusal> {
    let Some(token) = path.strip_prefix("/3/device/") else {
        return Err(refusal(404, "BadPath", path));
    };
    if token.is_empty() {
        return Err(refusal(400, "MissingDeviceToken", path));
    }
    let hex = token.len().is_multiple_of(2) && token.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !hex {
        return Err(refusal(400, "BadDeviceToken", token));
    }
    Ok(token.to_ascii_lowercase())
}

fn apns_id(head: &Parts) -> Result<String, Refusal> {
    match header(head, "apns-id") {
        None => Ok(Uuid::new_v4().hyphenated().to_string()),
        Some(id) if Uuid::parse_str(id).is_ok() => Ok(id.to_owned()),
        Some(id) => Err(refusal(400, "BadMessageId", id)),
    }
}

fn push_type(head: &Parts) -> Result<String, Refusal> {
    match header(head, "apns-push-type") {
        Some("mdm") => Ok("mdm".to_owned()),
        other => Err(refusal(400, "InvalidPushType", other.unwrap_or("absent"))),
    }
}

fn topic(head: &Parts) -> Result<String, Refusal> {
    match header(head, "apns-topic") {
        None | Some("") => Err(refusal(400, "MissingTopic", "absent")),
        Some(topic) if topic.contains(char::is_whitespace) => Err(refusal(400, "BadTopic", topic)),
        Some(topic) => Ok(topic.to_owned()),
    }
}

fn priority(head: &Parts) -> Result<u8, Refusal> {
    match header(head, "apns-priority") {
        None | Some("10") => Ok(10),
        Some("5") => Ok(5),
        Some("1") => Ok(1),
        Some(other) => Err(refusal(400, "BadPriority", other)),
    }
}

fn expiration(head: &Parts) -> Result<Option<u64>, Refusal> {
    let Some(value) = header(head, "apns-expiration") else {
        return Ok(None);
    };
    let seconds = value.parse();
    seconds
        .map(Some)
        .map_err(|_| refusal(400, "BadExpirationDate", value))
}

/// The body is `{"mdm":"<PushMagic>"}` and nothing else.
fn magic(body: &[u8]) -> Result<String, Refusal> {
    if body.len() > MAX_PAYLOAD {
        return Err(refusal(413, "PayloadTooLarge", &body.len().to_string()));
    }
    let text = String::from_utf8_lossy(body);
    // Apple documents no other reason for a payload it cannot use.
    let unusable = || refusal(400, "PayloadEmpty", &text);
    let payload: serde_json::Value = serde_json::from_slice(body).map_err(|_| unusable())?;
    match (payload.as_object(), payload["mdm"].as_str()) {
        (Some(keys), Some(magic)) if keys.len() == 1 && !magic.is_empty() => Ok(magic.to_owned()),
        _ => Err(unusable()),
    }
}

fn header<'a>(head: &'a Parts, name: &str) -> Option<&'a str> {
    head.headers
        .get(name)
        .map(|value| value.to_str().unwrap_or(""))
}

fn refusal(status: u16, reason: &'static str, detail: &str) -> Refusal {
    Refusal {
        status,
        reason,
        detail: detail.to_owned(),
    }
}

const MAX_PAYLOAD: usize = 4096;

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    fn read(path: &str, headers: &[(&str, &str)], body: &str) -> Result<Push, Refusal> {
        let mut request = Request::post(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        Push::read(&head, body.as_bytes())
    }

    const GOOD: [(&str, &str); 2] = [
        ("apns-topic", "com.apple.mgmt.x"),
        ("apns-push-type", "mdm"),
    ];

    #[test]
    fn a_good_push_is_read_whole() {
        let push = read("/3/device/AB01", &GOOD, r#"{"mdm": "magic"}"#).unwrap();
        assert_eq!(push.token_hex, "ab01");
        assert_eq!(push.magic, "magic");
        assert_eq!((push.priority, push.expiration), (10, None));
    }

    #[test]
    fn each_broken_rule_has_its_reason() {
        let body = r#"{"mdm":"m"}"#;
        let with = |name, value| [GOOD[0], GOOD[1], (name, value)];
        let cases = [
            (read("/3/devices/ab", &GOOD, body), "BadPath"),
            (read("/3/device/", &GOOD, body), "MissingDeviceToken"),
            (read("/3/device/xyz", &GOOD, body), "BadDeviceToken"),
            (read("/3/device/ab", &GOOD[1..], body), "MissingTopic"),
            (read("/3/device/ab", &GOOD[..1], body), "InvalidPushType"),
            (read("/3/device/ab", &GOOD, ""), "PayloadEmpty"),
            (
                read("/3/device/ab", &GOOD, r#"{"mdm":"m","aps":{}}"#),
                "PayloadEmpty",
            ),
            (
                read("/3/device/ab", &GOOD, &"x".repeat(5000)),
                "PayloadTooLarge",
            ),
            (
                read("/3/device/ab", &with("apns-priority", "7"), body),
                "BadPriority",
            ),
            (
                read("/3/device/ab", &with("apns-expiration", "soon"), body),
                "BadExpirationDate",
            ),
            (
                read("/3/device/ab", &with("apns-id", "1"), body),
                "BadMessageId",
            ),
        ];
        for (outcome, reason) in cases {
            assert_eq!(outcome.unwrap_err().reason, reason);
        }
    }
}
