//! The two things the generator asks of the admin listener: queue a command
//! for some devices, and show the metrics.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::json;

use crate::target::loopback;

/// A client of the admin API, with its token.
#[derive(Clone)]
pub(super) struct Admin {
    http: reqwest::Client,
    base_url: String,
    token: Option<String>,
}

/// The answer to a queued command.
#[derive(Debug, Deserialize)]
pub(super) struct Queued {
    pub(super) command_uuid: String,
    pub(super) accepted: usize,
}

impl Admin {
    pub(super) fn new(base_url: &str, token: Option<String>) -> Result<Self> {
        loopback(base_url)?;
        Ok(Self {
            // A proxy of the environment must not see loopback requests.
            http: reqwest::Client::builder().no_proxy().build()?,
            base_url: base_url.trim_end_matches('/').to_owned(),
            token,
        })
    }

    /// Queues one DeviceInformation for up to 1,000 devices, without a wake.
    pub(super) async fn queue(&self, ids: &[&str]) -> Result<Queued> {
        let body = json!({
            "targets": {"ids": ids},
            "command": {"request_type": "DeviceInformation", "queries": ["OSVersion"]},
            "wake": false,
        });
        let url = format!("{}/api/v1/commands", self.base_url);
        let response = self
            .authorized(self.http.post(&url))
            .json(&body)
            .send()
            .await
            .with_context(|| format!("queue a command at {url}"))?;
        let status = response.status();
        let text = response.text().await?;
        ensure!(
            status == 202,
            "{url} answered {status} to a command for {} devices: {text}",
            ids.len()
        );
        serde_json::from_str(&text).with_context(|| format!("{url} answered {text}"))
    }

    pub(super) async fn metrics(&self) -> Result<String> {
        let url = format!("{}/metrics", self.base_url);
        let response = self.authorized(self.http.get(&url)).send().await?;
        Ok(response.error_for_status()?.text().await?)
    }

    fn authorized(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }
}
