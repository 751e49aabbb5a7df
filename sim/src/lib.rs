//! Simulated Apple devices, a fake APNs and a load generator: for Reveille's
//! tests, for `reveille demo`, and for whoever must size a machine.
//!
//! Stands beside the house: knows Apple's protocol, nothing of the server. It
//! talks to loopback only.

mod answers;
mod apns;
mod behaviour;
pub mod bench;
mod ca;
mod client;
mod cms;
mod command;
mod der;
mod device;
mod dial;
mod dice;
mod error;
mod fleet;
mod identity;
mod invitation;
mod keys;
mod ledger;
pub mod load;
mod messages;
mod ota;
mod parallel;
mod push_certificate;
mod report;
mod scep;
mod session;
mod target;
mod watched;

pub use answers::answer;
pub use apns::{Answer, Connections, Counts, FakeApns, Push, Refusal, Script};
pub use behaviour::{Behaviour, Conduct, Delivery, Mood};
pub use ca::{CaKey, DeviceCa};
pub use client::{Client, Reply};
pub use cms::{Digest, SignatureForm};
pub use command::{Command, ErrorItem, Outcome, Status};
pub use device::{Channel, Device, Kind, PushAddress, User};
pub use dial::Trust;
pub use dice::Dice;
pub use error::SimError;
pub use fleet::{Accounts, Fleet, FleetPlan, Totals};
pub use identity::Identity;
pub use invitation::{Invitation, Told, signed_content};
pub use keys::KeyPool;
pub use ledger::{Entry, Ledger};
pub use load::{Exactness, Latency, LoadOptions, Scenario};
pub use ota::ProfileService;
pub use push_certificate::{push_certificate, push_certificate_until};
pub use report::{LoadReport, ServerCost};
pub use scep::{
    ScepAuthority, ScepCipher, ScepClient, ScepCsr, ScepReply, ScepRequest, scep_signer,
};
pub use session::{Session, Step, enroll, poll_session};
pub use target::{Proof, Target};
