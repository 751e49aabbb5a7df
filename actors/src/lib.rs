//! What happens: everything that runs or remembers.
//!
//! The store, the device actors with their registry, the push supervisor, the device CA,
//! the TLS root and the certificates of a public CA. The middle floor: it knows the nouns
//! below (`schema`) and nothing of HTTP servers, configuration files or command lines above.

pub mod acme;
pub mod admission;
pub mod apns;
pub mod bits;
pub mod ca;
pub mod clock;
pub mod device;
pub mod expiry;
pub mod housekeeping;
pub mod key_files;
pub mod profile_signer;
pub mod push_certificate;
pub mod pusher;
pub mod registry;
pub mod renewer;
pub mod scep;
pub mod store;
pub mod tls;
pub mod wakes;

mod error;
mod private_file;

pub use clock::Clock;
pub use error::Fault;
pub use store::{Store, StoreError, StoreOptions};
