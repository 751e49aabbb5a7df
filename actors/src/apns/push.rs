//! One push and the HTTP request it becomes.
//!
//! The constant parts are built once per client and shared by its requests.

use std::fmt;

use a2::request::payload::PayloadLike;
use a2::{NotificationOptions, Priority, PushType};
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::http::uri::{Authority, Parts, PathAndQuery, Scheme};
use hyper::{Method, Request, Uri};
use serde::ser::{Serialize, SerializeMap, Serializer};
use uuid::Uuid;

use super::outcome::{Outcome, Reason};

/// One wake: `Push` of a channel and what APNs is to do with it.
///
/// `Debug` shows neither token nor magic.
#[derive(Clone)]
pub struct Push {
    /// The push token as the device reported it.
    pub token: Vec<u8>,
    /// The topic as the channel reported it; that of a macOS user channel may
    /// end in `.user`.
    pub topic: String,
    /// The `PushMagic`.
    pub magic: String,
    /// Until when APNs keeps the push for a device that is away, in Unix seconds;
    /// 0 means now or never.
    pub expiration: u64,
    /// The identity of the push, when it is not for APNs to choose.
    pub apns_id: Option<Uuid>,
}

impl fmt::Debug for Push {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Push")
            .field("topic", &self.topic)
            .field("expiration", &self.expiration)
            .field("apns_id", &self.apns_id)
            .finish_non_exhaustive()
    }
}

/// A request ready to be sent.
pub(super) type PushRequest = Request<Full<Bytes>>;

/// What all requests of one client have in common.
pub(super) struct Template {
    authority: Authority,
    topic: String,
    topic_value: HeaderValue,
}

impl Template {
    /// None when the host or the topic cannot stand in a request.
    pub(super) fn new(host: &str, port: u16, topic: &str) -> Option<Self> {
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.to_owned()
        };
        let authority = if port == 443 {
            host
        } else {
            format!("{host}:{port}")
        };
        Some(Self {
            authority: authority.parse().ok()?,
            topic: topic.to_owned(),
            topic_value: topic.parse().ok()?,
        })
    }

    /// The request for one push, or the outcome of a push that is none.
    pub(super) fn request(&self, push: &Push) -> Result<PushRequest, Outcome> {
        let mut id = Uuid::encode_buffer();
        let id = push
            .apns_id
            .map(|uuid| &*uuid.hyphenated().encode_lower(&mut id));
        let wake = Wake {
            token: hex(&push.token),
            magic: &push.magic,
            options: NotificationOptions {
                apns_id: id,
                apns_push_type: Some(PushType::Mdm),
                apns_expiration: Some(push.expiration),
                apns_priority: Some(Priority::High),
                apns_topic: Some(&push.topic),
                apns_collapse_id: None,
            },
        };
        self.build(&wake).ok_or_else(|| Outcome::OurFault {
            status: 0,
            reason: Reason::Other(
                "unsendable: topic or token is empty or not printable".to_owned(),
            ),
        })
    }

    fn build(&self, payload: &impl PayloadLike) -> Option<PushRequest> {
        let token = payload.get_device_token();
        if token.is_empty() {
            return None;
        }
        let path = Bytes::from([DEVICE_PATH, token].concat());
        let mut uri = Parts::default();
        uri.scheme = Some(Scheme::HTTPS);
        uri.authority = Some(self.authority.clone());
        uri.path_and_query = Some(PathAndQuery::from_maybe_shared(path).ok()?);
        let body = Full::from(payload.to_json_string().ok()?);
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_parts(uri).ok()?;
        *request.headers_mut() = self.headers(payload.get_options())?;
        Some(request)
    }

    fn headers(&self, options: &NotificationOptions<'_>) -> Option<HeaderMap> {
        let mut headers = HeaderMap::with_capacity(HEADERS);
        if let Some(topic) = options.apns_topic {
            headers.insert(APNS_TOPIC, self.topic_value(topic)?);
        }
        match options.apns_push_type {
            Some(PushType::Mdm) => headers.insert(APNS_PUSH_TYPE, HeaderValue::from_static("mdm")),
            Some(other) => headers.insert(APNS_PUSH_TYPE, other.to_string().parse().ok()?),
            None => None,
        };
        match options.apns_priority {
            Some(Priority::High) => headers.insert(APNS_PRIORITY, HeaderValue::from_static("10")),
            Some(Priority::Normal) => headers.insert(APNS_PRIORITY, HeaderValue::from_static("5")),
            None => None,
        };
        if let Some(expiration) = options.apns_expiration {
            headers.insert(APNS_EXPIRATION, HeaderValue::from(expiration));
        }
        if let Some(id) = options.apns_id {
            let mut id: HeaderValue = id.parse().ok()?;
            // Never indexed: a value used once must not push others out of HPACK's table.
            id.set_sensitive(true);
            headers.insert(APNS_ID, id);
        }
        Some(headers)
    }

    fn topic_value(&self, topic: &str) -> Option<HeaderValue> {
        if topic == self.topic {
            return Some(self.topic_value.clone());
        }
        topic.parse().ok().filter(|_| !topic.is_empty())
    }
}

/// A push as the payload of the `a2` API.
struct Wake<'a> {
    token: String,
    magic: &'a str,
    options: NotificationOptions<'a>,
}

impl Serialize for Wake<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry("mdm", self.magic)?;
        map.end()
    }
}

impl PayloadLike for Wake<'_> {
    fn get_device_token(&self) -> &str {
        &self.token
    }

    fn get_options(&self) -> &NotificationOptions<'_> {
        &self.options
    }
}

impl fmt::Debug for Wake<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wake")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| {
        char::from(if nibble < 10 {
            b'0' + nibble
        } else {
            b'a' + nibble - 10
        })
    };
    let mut hex = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        hex.push(digit(byte >> 4));
        hex.push(digit(byte & 15));
    }
    hex
}

const DEVICE_PATH: &str = "/3/device/";
/// Ours at most, and the content-length that hyper adds.
const HEADERS: usize = 6;
const APNS_TOPIC: HeaderName = HeaderName::from_static("apns-topic");
const APNS_PUSH_TYPE: HeaderName = HeaderName::from_static("apns-push-type");
const APNS_PRIORITY: HeaderName = HeaderName::from_static("apns-priority");
const APNS_EXPIRATION: HeaderName = HeaderName::from_static("apns-expiration");
const APNS_ID: HeaderName = HeaderName::from_static("apns-id");
