//! What a fleet is made of: how many devices, of what kind, how well behaved.

use std::time::Duration;

use crate::behaviour::Behaviour;
use crate::device::Kind;

/// What a fleet is made of.
#[derive(Clone, Debug)]
pub struct FleetPlan {
    /// How many devices.
    pub devices: usize,
    /// What they are.
    pub kind: Kind,
    /// Whether each has a user channel too.
    pub users: bool,
    /// The APNs topic of their enrollment profile.
    pub topic: String,
    /// How badly they behave; its seed makes their ids, too.
    pub behaviour: Behaviour,
    /// At most this many talk at once.
    pub in_flight: usize,
    /// Keep connections open between sessions.
    pub keep_connections: bool,
    /// After this long a device comes back by itself: when its last status was
    /// NotNow, and when a session failed. `None` = it waits for a push.
    pub come_back_after: Option<Duration>,
}

impl Default for FleetPlan {
    fn default() -> Self {
        Self {
            devices: 10,
            kind: Kind::IPhone,
            users: false,
            topic: "com.apple.mgmt.External.simulated".to_owned(),
            behaviour: Behaviour::default(),
            in_flight: 64,
            keep_connections: false,
            come_back_after: Some(Duration::from_millis(100)),
        }
    }
}
