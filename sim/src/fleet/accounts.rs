//! The accounts of a fleet: a ledger per channel, and totals that are cheap
//! to wait for.

use std::collections::HashSet;

use crate::device::Channel;
use crate::ledger::Ledger;
use crate::session::Session;

/// What happened to a fleet so far.
#[derive(Debug, Default)]
pub struct Accounts {
    ledgers: Vec<[Ledger; 2]>,
    enrolled: HashSet<usize>,
    erased: HashSet<usize>,
    totals: Totals,
}

/// Sums over all channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Devices enrolled.
    pub enrolled: usize,
    /// Sessions ended.
    pub sessions: u64,
    /// Sessions that broke off.
    pub failures: u64,
    /// Hand-outs of commands, repeated ones included.
    pub handed_out: u64,
    /// Final results sent, repeated ones included.
    pub sent: u64,
    /// Final results the server confirmed with 200, repeated ones included.
    pub confirmed: u64,
    /// NotNow answers the server took.
    pub postponed: u64,
    /// Pushes with another topic or PushMagic than the channel's own.
    pub wrong_pushes: u64,
    /// Pushes to tokens that no device has.
    pub stray_pushes: u64,
    /// Sessions due or under way.
    pub busy: u64,
}

impl Accounts {
    /// The sums.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// The account of one channel.
    pub fn ledger(&self, n: usize, channel: Channel) -> &Ledger {
        &self.ledgers[n][channel as usize]
    }

    /// All accounts that say something: device, channel, ledger.
    pub fn ledgers(&self) -> impl Iterator<Item = (usize, Channel, &Ledger)> {
        self.ledgers
            .iter()
            .enumerate()
            .flat_map(|(n, [device, user])| {
                [(n, Channel::Device, device), (n, Channel::User, user)]
            })
    }

    /// Whether `command_uuid` was handed out exactly once and its result
    /// confirmed exactly once, on the device channel of every device.
    pub fn exactly_once(&self, command_uuid: &str) -> bool {
        self.ledgers.iter().all(|[device, _]| {
            device
                .commands
                .get(command_uuid)
                .is_some_and(|entry| (entry.handed_out, entry.confirmed) == (1, 1))
        })
    }

    /// Whether the device acknowledged an EraseDevice and is gone.
    pub fn is_erased(&self, n: usize) -> bool {
        self.erased.contains(&n)
    }

    pub(super) fn of(devices: usize) -> Self {
        Self {
            ledgers: (0..devices).map(|_| Default::default()).collect(),
            ..Self::default()
        }
    }

    pub(super) fn enrolled(&mut self, n: usize) {
        self.enrolled.insert(n);
        self.erased.remove(&n);
        self.totals.enrolled = self.enrolled.len();
    }

    pub(super) fn absorb(&mut self, n: usize, channel: Channel, session: &Session) {
        self.ledgers[n][channel as usize].absorb(session);
        if session.erased {
            self.erased.insert(n);
        }
        let totals = &mut self.totals;
        totals.sessions += 1;
        totals.failures += u64::from(session.failure.is_some());
        for step in &session.steps {
            totals.handed_out += u64::from(step.handed_out);
            if step.status.is_final() {
                totals.sent += u64::from(step.sent);
                totals.confirmed += u64::from(step.confirmed);
            } else {
                totals.postponed += u64::from(step.confirmed);
            }
        }
    }

    pub(super) fn wrong_push(&mut self, n: usize, channel: Channel) {
        self.ledgers[n][channel as usize].wrong_pushes += 1;
        self.totals.wrong_pushes += 1;
    }

    pub(super) fn stray_push(&mut self) {
        self.totals.stray_pushes += 1;
    }

    pub(super) fn begin(&mut self) {
        self.totals.busy += 1;
    }

    pub(super) fn end(&mut self) {
        self.totals.busy -= 1;
    }
}
