//! How badly devices behave: shares of NotNow, errors, silence, lost answers
//! and doubled results, drawn from a seed. Decides; `session` acts.

use std::collections::HashMap;

use crate::command::{ErrorItem, Outcome, Status};
use crate::device::{Channel, Device};
use crate::dice::Dice;

/// Shares of misbehaviour, 0 to 1 each; the default behaves perfectly.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// The same seed and the same commands give the same conduct.
    pub seed: u64,
    /// Share of commands answered NotNow.
    pub not_now: f64,
    /// A command gets NotNow at most this often, so that a run ends.
    pub not_now_at_most: u32,
    /// Share of commands answered Error.
    pub error: f64,
    /// Share of commands answered CommandFormatError.
    pub format_error: f64,
    /// Share of devices that never poll, even when pushed.
    pub silent: f64,
    /// Share of results whose answer is lost: the device drops the connection
    /// before the answer is read, and comes back with Idle.
    pub lost_answer: f64,
    /// Share of results sent twice.
    pub duplicate: f64,
    /// Least size of an Acknowledged report in bytes; application lists grow
    /// to it with applications, others with padding.
    pub acknowledged_bytes: usize,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            seed: 0,
            not_now: 0.0,
            not_now_at_most: 2,
            error: 0.0,
            format_error: 0.0,
            silent: 0.0,
            lost_answer: 0.0,
            duplicate: 0.0,
            acknowledged_bytes: 0,
        }
    }
}

impl Behaviour {
    /// The conduct of one device; one per device, kept over its sessions.
    pub fn mood(&self, device: &Device) -> Mood {
        let mut dice = Dice::named(self.seed, &device.udid);
        Mood {
            silent: dice.chance(self.silent),
            dice,
            behaviour: self.clone(),
            refused: HashMap::new(),
            came_out: HashMap::new(),
            unconfirmed: HashMap::new(),
        }
    }
}

/// The conduct of one device, and what it remembers between sessions.
#[derive(Clone, Debug)]
pub struct Mood {
    /// It never polls.
    pub silent: bool,
    dice: Dice,
    behaviour: Behaviour,
    refused: HashMap<String, u32>,
    /// How each command came out; handed out again, it comes out the same.
    came_out: HashMap<String, Option<Outcome>>,
    /// The result it still owes the server, per channel.
    pub(crate) unconfirmed: HashMap<Channel, Unconfirmed>,
}

/// A final result that no 200 has confirmed yet.
#[derive(Clone, Debug)]
pub(crate) struct Unconfirmed {
    pub(crate) uuid: String,
    pub(crate) status: Status,
    pub(crate) body: Vec<u8>,
}

/// What a device does with one command.
#[derive(Clone, Debug, PartialEq)]
pub struct Conduct {
    /// The outcome it pretends; `None` = does what it is told.
    pub pretended: Option<Outcome>,
    /// How the report travels.
    pub delivery: Delivery,
}

/// How a report travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Once, and the answer is read.
    Once,
    /// Twice, both answers are read.
    Twice,
    /// Sent whole; the connection drops before the answer comes.
    LostBeforeAnswer,
    /// Sent whole and answered; the connection drops before the answer is read.
    LostAfterAnswer,
}

impl Mood {
    /// Decides on one command. The draws are always the same in number, so
    /// that one switch does not shift the others.
    pub fn decide(&mut self, command_uuid: &str) -> Conduct {
        let shares = &self.behaviour;
        let not_now = self.dice.chance(shares.not_now);
        let error = self.dice.chance(shares.error);
        let format_error = self.dice.chance(shares.format_error);
        let lost = self.dice.chance(shares.lost_answer);
        let answered = self.dice.chance(0.5);
        let twice = self.dice.chance(shares.duplicate);
        let drawn = if error {
            Some(Outcome::Error(vec![failed()]))
        } else if format_error {
            Some(Outcome::CommandFormatError(vec![unreadable()]))
        } else {
            None
        };
        let came_out = self.came_out.get(command_uuid).cloned();
        let not_now = not_now && came_out.is_none() && self.may_refuse(command_uuid);
        if !not_now && came_out.is_none() {
            self.came_out.insert(command_uuid.to_owned(), drawn.clone());
        }
        Conduct {
            pretended: match not_now {
                true => Some(Outcome::NotNow),
                false => came_out.unwrap_or(drawn),
            },
            delivery: match (lost, twice) {
                (true, _) if answered => Delivery::LostAfterAnswer,
                (true, _) => Delivery::LostBeforeAnswer,
                (false, true) => Delivery::Twice,
                (false, false) => Delivery::Once,
            },
        }
    }

    /// The least size of its Acknowledged reports.
    pub fn acknowledged_bytes(&self) -> usize {
        self.behaviour.acknowledged_bytes
    }

    fn may_refuse(&mut self, command_uuid: &str) -> bool {
        let most = self.behaviour.not_now_at_most;
        let times = self.refused.entry(command_uuid.to_owned()).or_default();
        *times += 1;
        *times <= most
    }
}

fn failed() -> ErrorItem {
    ErrorItem {
        code: 4001,
        domain: "MCInstallationErrorDomain".to_owned(),
        description: "Profile Installation Failed".to_owned(),
    }
}

fn unreadable() -> ErrorItem {
    ErrorItem {
        code: 12008,
        domain: "MCMDMErrorDomain".to_owned(),
        description: "The MDM request is invalid.".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DeviceCa;

    fn rough() -> Behaviour {
        Behaviour {
            seed: 42,
            not_now: 0.3,
            error: 0.2,
            format_error: 0.1,
            silent: 0.1,
            lost_answer: 0.2,
            duplicate: 0.2,
            ..Behaviour::default()
        }
    }

    fn conducts(behaviour: &Behaviour, device: &Device) -> Vec<Conduct> {
        let mut mood = behaviour.mood(device);
        (0..200).map(|n| mood.decide(&format!("{n}"))).collect()
    }

    #[test]
    fn conduct_is_the_seeds_and_the_devices() {
        let ca = DeviceCa::quick().unwrap();
        let (one, two) = (
            Device::new(&ca, "t").unwrap(),
            Device::new(&ca, "t").unwrap(),
        );
        assert_eq!(conducts(&rough(), &one), conducts(&rough(), &one));
        assert_ne!(conducts(&rough(), &one), conducts(&rough(), &two));
        let other_seed = Behaviour {
            seed: 43,
            ..rough()
        };
        assert_ne!(conducts(&rough(), &one), conducts(&other_seed, &one));
    }

    #[test]
    fn a_command_handed_out_again_comes_out_as_before() {
        let device = Device::new(&DeviceCa::quick().unwrap(), "t").unwrap();
        let mut mood = rough().mood(&device);
        for n in 0..50 {
            let uuid = n.to_string();
            let mut outcome = || mood.decide(&uuid).pretended;
            let mut first = outcome();
            while first == Some(Outcome::NotNow) {
                first = outcome();
            }
            assert!((0..10).all(|_| outcome() == first), "{first:?}");
        }
    }

    #[test]
    fn by_default_a_device_behaves() {
        let device = Device::new(&DeviceCa::quick().unwrap(), "t").unwrap();
        let good = Conduct {
            pretended: None,
            delivery: Delivery::Once,
        };
        assert!(!Behaviour::default().mood(&device).silent);
        assert!(
            conducts(&Behaviour::default(), &device)
                .iter()
                .all(|c| *c == good)
        );
    }

    #[test]
    fn not_now_ends_after_its_limit() {
        let device = Device::new(&DeviceCa::quick().unwrap(), "t").unwrap();
        let always = Behaviour {
            not_now: 1.0,
            ..Behaviour::default()
        };
        let mut mood = always.mood(&device);
        let refusals = (0..5)
            .filter(|_| mood.decide("same").pretended == Some(Outcome::NotNow))
            .count();
        assert_eq!(refusals, 2);
    }
}
