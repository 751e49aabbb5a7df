//! What every door needs, put together once by the composition root.

use std::sync::Arc;

use actix::Addr;
use actors::admission::Admission;
use actors::expiry::Expiries;
use actors::pusher::{PushFigures, Pusher};
use actors::registry::Registry;
use actors::scep::Scep;
use actors::{Clock, Store};

use crate::config::Config;
use crate::enroll::Enroller;
use crate::identity::{IdentityVerifier, MessageVerifier};
use crate::link_limits::LinkLimits;
use crate::metrics::Metrics;

/// The house as the doors see it.
#[derive(Debug)]
pub struct App {
    /// The configuration.
    pub config: Config,
    /// The clock.
    pub clock: Clock,
    /// The store.
    pub store: Store,
    /// The device actors.
    pub registry: Registry,
    /// The push supervisor.
    pub pusher: Addr<Pusher>,
    /// What became of wakes.
    pub push_figures: Arc<PushFigures>,
    /// The certificates whose end is watched.
    pub expiries: Expiries,
    /// Proves devices' identities.
    pub verifier: IdentityVerifier,
    /// Proves devices that enroll over the air.
    pub messages: MessageVerifier,
    /// Makes enrollment profiles.
    pub enroller: Enroller,
    /// PEM of the TLS root devices must be told to trust, when it is our own or a private CA's.
    pub tls_root_pem: Option<Vec<u8>>,
    /// The SCEP server, and the device CA behind it.
    pub scep: Scep,
    /// Turns away what is too much.
    pub admission: Admission,
    /// How often each enrollment link is served at `/enroll`.
    pub enroll_limits: LinkLimits,
    /// How often each enrollment link's `/scep` is.
    pub scep_limits: LinkLimits,
    /// How often each is at `/enroll/ota`.
    pub ota_limits: LinkLimits,
    /// What is counted at the doors.
    pub metrics: Metrics,
    /// Key of the NanoMDM dialect, when it is mounted.
    pub nanomdm_api_key: Option<String>,
}
