//! What is: the nouns of Apple's MDM protocol and the pure rules over them.
//!
//! The lowest floor of the house. Everything here is a value or a function of
//! values: no clock, no I/O, no async, no HTTP, no database. Time comes in as
//! [`UnixMillis`].

pub mod access;
pub mod catalog;
pub mod checkin;
pub mod cms;
pub mod command;
pub mod csr;
pub mod declarative;
pub mod der;
pub mod enrollment;
pub mod expiry;
pub mod fitness;
pub mod ids;
pub mod inventory;
pub mod link;
pub mod ota;
pub mod profile;
pub mod queue;
pub mod renewal;
pub mod report;
pub mod scep;
pub mod time;
pub mod vendor_request;
pub mod x509;
pub mod xml;

pub use ids::{
    ChannelKind, ChannelNo, CommandUuid, EnrollId, Leaf, PushMagic, PushToken, Seq, Topic,
};
pub use time::UnixMillis;
