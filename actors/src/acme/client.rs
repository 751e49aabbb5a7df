//! The line to the CA: HTTPS with bounds, and what it asked for besides its answer.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use http_body_util::{BodyExt as _, Limited};
use hyper::Request;
use hyper::header::{HeaderMap, RETRY_AFTER};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client};

use super::AcmeError;

/// A client for one attempt.
#[derive(Clone)]
pub(super) struct Line {
    http: Client,
    asked: Arc<AtomicU64>,
}

impl Line {
    /// A line that trusts `root_pem` alone, or what this machine trusts.
    ///
    /// # Errors
    /// [`AcmeError::Setup`].
    pub(super) fn new(root_pem: Option<&[u8]>) -> Result<Self, AcmeError> {
        let mut http = Client::builder()
            .https_only(true)
            .redirect(Policy::none())
            .connect_timeout(Duration::from_secs(10))
            .timeout(Duration::from_secs(60));
        if let Some(pem) = root_pem {
            http = http.tls_certs_only([Certificate::from_pem(pem).map_err(setup)?]);
        }
        Ok(Self {
            http: http.build().map_err(setup)?,
            asked: Arc::default(),
        })
    }

    /// Seconds the CA asked us to stay away, when it last refused.
    pub(super) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Acquire)
    }
}

impl HttpClient for Line {
    fn request(
        &self,
        request: Request<BodyWrapper<bytes::Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let Self { http, asked } = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map_err(other)?.to_bytes();
            let request = Request::from_parts(parts, body).try_into().map_err(other)?;
            let response = http.execute(request).await.map_err(other)?;
            let (parts, body) = hyper::Response::from(response).into_parts();
            if !parts.status.is_success() {
                asked.store(seconds_asked(&parts.headers), Ordering::Release);
            }
            let body = Limited::new(body, MAX_ANSWER).collect().await;
            let body = body.map_err(Error::Other)?.to_bytes();
            if !parts.status.is_success() && !body.starts_with(b"{") {
                let said = format!("it answers {} without a reason", parts.status);
                return Err(Error::Other(said.into()));
            }
            Ok(BytesResponse {
                parts,
                body: Box::new(body),
            })
        })
    }
}

/// `Retry-After`: seconds, or a date.
fn seconds_asked(headers: &HeaderMap) -> u64 {
    let Some(text) = headers
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
    else {
        return 0;
    };
    text.trim().parse().unwrap_or_else(|_| {
        let until = httpdate::parse_http_date(text.trim()).ok();
        let left = until.and_then(|until| until.duration_since(SystemTime::now()).ok());
        left.map_or(0, |left| left.as_secs())
    })
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Other(Box::new(error))
}

fn setup(error: reqwest::Error) -> AcmeError {
    AcmeError::Setup(super::chain(&error))
}

/// A chain of certificates is the longest of all answers.
const MAX_ANSWER: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_after_is_read_in_both_forms() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            seconds_asked(&headers)
        };
        assert_eq!(read("120"), 120);
        assert_eq!(read("soon"), 0);
        assert_eq!(read("Fri, 31 Dec 1999 23:59:59 GMT"), 0);
        let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(600));
        assert!((590..=600).contains(&read(&date)), "{date}");
        assert_eq!(seconds_asked(&HeaderMap::new()), 0);
    }

    #[test]
    fn a_root_that_is_none_is_refused() {
        let wrong = Line::new(Some(
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ));
        assert!(matches!(wrong, Err(AcmeError::Setup(_))));
    }
}
