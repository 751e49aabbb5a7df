//! A client of the admin API: a base URL, a token, and JSON.
//!
//! Used by the command line. It knows how the API answers and refuses, not what its
//! nouns look like. The token goes to that URL alone: no redirect is followed, and plain
//! HTTP never takes a proxy of the environment.

use std::io::Write;
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use serde_json::Value;

/// The admin API of one server.
pub struct AdminClient {
    http: Client,
    base: Url,
    token: HeaderValue,
}

impl AdminClient {
    /// A client for the server at `url`.
    ///
    /// # Errors
    /// [`ClientError`] when the URL or the token cannot be one.
    pub fn new(url: &str, token: &str) -> Result<Self, ClientError> {
        let base = Url::parse(url)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| ClientError::BadUrl(url.to_owned()))?;
        let mut token =
            HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| ClientError::BadToken)?;
        token.set_sensitive(true);
        let mut http = Client::builder()
            .user_agent(concat!("reveille/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(10))
            .timeout(Duration::from_secs(120));
        if base.scheme() == "http" {
            http = http.no_proxy();
        }
        let http = http.build().map_err(ClientError::Setup)?;
        Ok(Self { http, base, token })
    }

    /// Reads one thing.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get(&self, path: &[&str]) -> Result<Value, ClientError> {
        self.json(self.request(Method::GET, path, &[])?).await
    }

    /// Reads a list from page to page, `most` items at most.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list(
        &self,
        path: &[&str],
        query: &[(&str, String)],
        most: usize,
    ) -> Result<Vec<Value>, ClientError> {
        let mut items = Vec::new();
        let mut cursor = None;
        loop {
            let limit = most.saturating_sub(items.len()).min(PAGE);
            let mut query = query.to_vec();
            query.push(("limit", limit.to_string()));
            query.extend(cursor.map(|cursor| ("cursor", cursor)));
            let page = self.json(self.request(Method::GET, path, &query)?).await?;
            let page: Page = serde_json::from_value(page).map_err(|_| ClientError::Unreadable)?;
            items.extend(page.items);
            match page.next {
                Some(next) if items.len() < most => cursor = Some(next),
                _ => return Ok(items),
            }
        }
    }

    /// Asks for something to be done, with a body or without.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn send(
        &self,
        method: Method,
        path: &[&str],
        body: Option<&Value>,
    ) -> Result<Value, ClientError> {
        let request = self.request(method, path, &[])?;
        self.json(with_body(request, body)).await
    }

    /// Like [`Self::send`] with POST, done once however often it is repeated under one key.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn post_once(
        &self,
        path: &[&str],
        body: &Value,
        key: Option<&str>,
    ) -> Result<Value, ClientError> {
        let mut request = self.request(Method::POST, path, &[])?;
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        self.json(with_body(request, Some(body))).await
    }

    /// Reads the XML form of something.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn xml(&self, path: &[&str]) -> Result<Vec<u8>, ClientError> {
        let request = self.request(Method::GET, path, &[])?;
        let response = self
            .answer(request.header(ACCEPT, "application/xml"))
            .await?;
        let body = response.bytes().await.map_err(|e| self.unreachable(e))?;
        Ok(body.to_vec())
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn file(
        &self,
        path: &[&str],
        query: &[(&str, String)],
    ) -> Result<Vec<u8>, ClientError> {
        let response = self.answer(self.request(Method::GET, path, query)?).await?;
        let body = response.bytes().await.map_err(|e| self.unreachable(e))?;
        Ok(body.to_vec())
    }

    /// Has something made and takes it in as it comes, however long that lasts.
    ///
    /// # Errors
    /// [`ClientError`]; what came by then is a part of it.
    pub async fn download(
        &self,
        path: &[&str],
        body: &Value,
        into: &mut impl Write,
    ) -> Result<(), ClientError> {
        let request = self.request(Method::POST, path, &[])?;
        let request = request.json(body).timeout(A_DAY);
        let mut response = self.answer(request).await?;
        while let Some(chunk) = response.chunk().await.map_err(ClientError::CutOff)? {
            into.write_all(&chunk).map_err(ClientError::Local)?;
        }
        Ok(())
    }

    fn request(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
    ) -> Result<RequestBuilder, ClientError> {
        let url = self.url(path, query)?;
        let token = self.token.clone();
        Ok(self.http.request(method, url).header(AUTHORIZATION, token))
    }

    fn url(&self, path: &[&str], query: &[(&str, String)]) -> Result<Url, ClientError> {
        // A URL drops these segments, and the request would mean something else.
        if let Some(bad) = path.iter().find(|part| matches!(**part, "" | "." | "..")) {
            return Err(ClientError::BadId((*bad).to_owned()));
        }
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| ClientError::BadUrl(self.base.to_string()))?
            .pop_if_empty()
            .extend(["api", "v1"])
            .extend(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    async fn json(&self, request: RequestBuilder) -> Result<Value, ClientError> {
        let response = self.answer(request).await?;
        let body = response.bytes().await.map_err(|e| self.unreachable(e))?;
        if body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&body).map_err(|_| ClientError::Unreadable)
    }

    async fn answer(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let response = request.send().await.map_err(|e| self.unreachable(e))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.bytes().await.unwrap_or_default();
        let refusal = serde_json::from_slice(&body).ok();
        Err(refusal.map_or(ClientError::Unexpected(status), ClientError::Refused))
    }

    fn unreachable(&self, error: reqwest::Error) -> ClientError {
        let url = self.base.to_string();
        ClientError::Unreachable(url, error.without_url())
    }
}

/// What the server said no with: an RFC 9457 problem document.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// Stable, for programs.
    pub code: String,
    /// For people.
    pub detail: String,
    /// The fields at fault.
    #[serde(default)]
    pub errors: Vec<FieldAtFault>,
}

/// A field at fault.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct FieldAtFault {
    /// JSON pointer (RFC 6901).
    pub pointer: String,
    /// What is wrong with it.
    pub detail: String,
}

impl Refusal {
    /// The fields at fault that the detail does not name already, a line each.
    pub fn further_fields(&self) -> impl Iterator<Item = String> {
        self.errors
            .iter()
            .map(|field| format!("{}: {}", field.pointer, field.detail))
            .filter(|line| *line != self.detail)
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}, {})", self.detail, self.status, self.code)
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The URL is none.
    #[error("{0:?} is not a URL such as http://127.0.0.1:9000")]
    BadUrl(String),
    /// The token cannot be sent.
    #[error("the token holds characters no token has")]
    BadToken,
    /// An id no path can hold.
    #[error("{0:?} cannot be an id")]
    BadId(String),
    /// This machine cannot make requests.
    #[error("cannot make requests")]
    Setup(#[source] reqwest::Error),
    /// No answer.
    #[error("no answer from {0} (is the server running? REVEILLE_URL says where it is)")]
    Unreachable(String, #[source] reqwest::Error),
    /// The server said no.
    #[error("{0}")]
    Refused(Refusal),
    /// Something that is not this API answered.
    #[error("status {0} from something that is not the admin API")]
    Unexpected(StatusCode),
    /// The answer broke off.
    #[error("the answer broke off; the server's log says why")]
    CutOff(#[source] reqwest::Error),
    /// What came cannot be kept.
    #[error("what the server sends cannot be written")]
    Local(#[source] std::io::Error),
    /// An answer of another shape.
    #[error("the answer is not what the admin API gives")]
    Unreadable,
}

impl ClientError {
    /// Whether the same request may succeed a little later.
    #[must_use]
    pub fn passes(&self) -> bool {
        match self {
            Self::Unreachable(..) => true,
            Self::Refused(refusal) => refusal.status >= 500,
            Self::Unexpected(status) => status.is_server_error(),
            _ => false,
        }
    }
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Value>,
    next: Option<String>,
}

fn with_body(request: RequestBuilder, body: Option<&Value>) -> RequestBuilder {
    match body {
        Some(body) => request.json(body),
        None => request,
    }
}

const A_DAY: Duration = Duration::from_secs(24 * 3600);
/// As many items as a page may have.
const PAGE: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_escaped_in_paths_and_cannot_leave_them() {
        let client = AdminClient::new("http://127.0.0.1:9000/", "t").unwrap();
        let url = |id: &str| client.url(&["devices", id], &[]).map(String::from);
        let base = "http://127.0.0.1:9000/api/v1/devices";
        assert_eq!(
            url("A:u/../x?y").unwrap(),
            format!("{base}/A:u%2F..%2Fx%3Fy")
        );
        assert!(url("..").is_err());
        let query = [("os_version", ">=17.4".to_owned())];
        let url = client.url(&["devices"], &query).unwrap();
        assert_eq!(url.as_str(), format!("{base}?os_version=%3E%3D17.4"));
    }

    #[test]
    fn a_base_below_a_path_is_kept() {
        let client = AdminClient::new("https://mdm.example.org/reveille", "t").unwrap();
        let url = client.url(&["devices"], &[]).unwrap();
        let expected = "https://mdm.example.org/reveille/api/v1/devices";
        assert_eq!(url.as_str(), expected);
    }

    #[test]
    fn what_is_no_url_or_no_token_is_refused() {
        for url in ["127.0.0.1:9000", "ftp://x", "http://", ""] {
            assert!(AdminClient::new(url, "t").is_err(), "{url}");
        }
        let error = AdminClient::new("http://x", "a\nb").err().unwrap();
        assert!(matches!(error, ClientError::BadToken));
    }

    #[test]
    fn a_field_the_detail_names_already_is_not_said_twice() {
        let refusal: Refusal = serde_json::from_str(
            r#"{"type":"about:blank","title":"x","status":422,"code":"invalid_field",
                "detail":"/a: is bad","errors":[{"pointer":"/a","detail":"is bad"},
                {"pointer":"/b","detail":"too"}]}"#,
        )
        .unwrap();
        assert_eq!(refusal.to_string(), "/a: is bad (422, invalid_field)");
        assert_eq!(refusal.further_fields().collect::<Vec<_>>(), ["/b: too"]);
    }
}
