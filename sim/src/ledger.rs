//! An exact account of one channel: how often each command was handed out and
//! how often its result was confirmed by the server. Filled from sessions.

use std::collections::BTreeMap;

use crate::command::Status;
use crate::session::Session;

/// The account of one channel of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// By CommandUUID.
    pub commands: BTreeMap<String, Entry>,
    /// Sessions begun.
    pub sessions: u64,
    /// Sessions that ended in an error.
    pub failures: u64,
    /// Pushes for it whose topic or PushMagic were not its own.
    pub wrong_pushes: u64,
}

/// The account of one command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its RequestType.
    pub request_type: String,
    /// Times the server handed it out.
    pub handed_out: u32,
    /// Times it was answered NotNow and the server said 200.
    pub postponed: u32,
    /// Times a final result was sent, confirmed or not.
    pub sent: u32,
    /// Times the server answered a final result with 200.
    pub confirmed: u32,
    /// The last final status sent.
    pub status: Option<Status>,
}

impl Ledger {
    /// Whether every command handed out has a result the server confirmed,
    /// or sent and lost on purpose.
    pub fn settled(&self) -> bool {
        self.commands.values().all(|entry| entry.sent > 0)
    }

    /// Whether every command was handed out once and confirmed once: what a
    /// perfect device sees from a perfect server.
    pub fn exactly_once(&self) -> bool {
        self.commands
            .values()
            .all(|entry| (entry.handed_out, entry.confirmed) == (1, 1))
    }

    /// Commands with a confirmed final result.
    pub fn confirmed(&self) -> usize {
        self.commands
            .values()
            .filter(|entry| entry.confirmed > 0)
            .count()
    }

    /// Enters what happened in a session.
    pub fn absorb(&mut self, session: &Session) {
        self.sessions += 1;
        self.failures += u64::from(session.failure.is_some());
        for step in &session.steps {
            let entry = self.commands.entry(step.uuid.clone()).or_default();
            entry.handed_out += step.handed_out;
            if step.handed_out > 0 {
                entry.request_type.clone_from(&step.request_type);
            }
            if step.status.is_final() {
                entry.sent += step.sent;
                entry.confirmed += step.confirmed;
                entry.status = Some(step.status);
            } else {
                entry.postponed += step.confirmed;
            }
        }
    }
}
