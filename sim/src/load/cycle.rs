//! The `cycle` scenario: Idle, a command, its Acknowledged report, an empty
//! answer; and the proof that each device got each command exactly once.
//!
//! A device goes round: free -> (a command is queued for it) -> ready -> (a
//! worker lets it poll and report) -> free. So at most one command waits for
//! each device, and the one it must be handed is known.

mod round;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;

use super::admin::Admin;
use super::crew::Hand;
use super::tally::{Meter, Tally};
use super::wire::Wire;
use crate::client::{Door, plain_request};
use crate::cms::SignatureForm;
use crate::target::Target;
use round::{Order, Round};

/// A cycle run.
pub(super) struct Cycle {
    pub(super) hands: Arc<Vec<Hand>>,
    pub(super) target: Arc<Target>,
    pub(super) admin: Admin,
    pub(super) in_flight: usize,
    pub(super) duration: Duration,
    pub(super) count: Option<u64>,
    pub(super) report_bytes: usize,
}

/// Whether each device was handed each command, and its report taken, exactly
/// once.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Exactness {
    /// Commands queued, one per device and batch.
    pub queued: u64,
    /// Handed out once, and its report answered by a 200 that hands out no
    /// more.
    pub exactly_once: u64,
    /// Queued, and not there when the device polled.
    pub missing: u64,
    /// Handed out again after its report was confirmed.
    pub repeated: u64,
    /// Handed to a device it was not queued for.
    pub foreign: u64,
    /// Could not be brought to its end in half a minute.
    pub abandoned: u64,
    /// Devices that were handed something, or got no answer, when all was done.
    pub left_over: u64,
}

impl Exactness {
    /// All queued was done exactly once, and nothing else was.
    pub fn is_exact(&self) -> bool {
        let Self {
            queued,
            exactly_once,
            missing,
            repeated,
            foreign,
            abandoned,
            left_over,
        } = *self;
        queued == exactly_once && missing + repeated + foreign + abandoned + left_over == 0
    }

    fn merge(&mut self, other: &Self) {
        self.queued += other.queued;
        self.exactly_once += other.exactly_once;
        self.missing += other.missing;
        self.repeated += other.repeated;
        self.foreign += other.foreign;
        self.abandoned += other.abandoned;
        self.left_over += other.left_over;
    }
}

impl Cycle {
    /// Runs, measured from the first poll to the last report.
    pub(super) async fn run(self, meter: &mut Meter<'_>) -> Result<(Tally, Exactness)> {
        let cycle = Arc::new(self);
        let round = Arc::new(Round::new(cycle.hands.len()));
        let mut left = cycle.count.unwrap_or(u64::MAX);
        // Enough to start with, so that workers do not wait for the queue.
        while left > 0 && round.free() > 0 && round.queued() < HEAD_START {
            left -= cycle.queue(&round, left).await?;
        }

        let window = meter.open().await;
        let workers: Vec<_> = (0..cycle.in_flight)
            .map(|_| tokio::spawn(work(cycle.clone(), round.clone())))
            .collect();
        let fed = cycle.feed(&round, left).await;
        // In any case, so that the workers come to an end.
        round.close();
        let (mut tally, mut exactness) = (Tally::new(), Exactness::default());
        for worker in workers {
            let (theirs, exact) = worker.await?;
            tally.merge(&theirs);
            exactness.merge(&exact);
        }
        meter.close(window).await;
        fed?;

        exactness.queued = round.queued();
        exactness.left_over = cycle.left_over().await?;
        Ok((tally, exactness))
    }

    /// Queues as devices become free, until the time or the count is over.
    async fn feed(&self, round: &Round, mut left: u64) -> Result<()> {
        let end = Instant::now() + self.duration;
        while left > 0 && Instant::now() < end && round.enough_free().await {
            left -= self.queue(round, left).await?;
        }
        Ok(())
    }

    /// Queues a command for up to 1,000 free devices; gives their number.
    async fn queue(&self, round: &Round, most: u64) -> Result<u64> {
        let devices = round.take_free(BATCH.min(most.try_into().unwrap_or(BATCH)));
        let ids: Vec<_> = devices
            .iter()
            .map(|device| self.hands[*device].udid.as_str())
            .collect();
        let queued = self.admin.queue(&ids).await?;
        ensure!(
            queued.accepted == ids.len(),
            "the server accepted a command for {} of {} devices",
            queued.accepted,
            ids.len()
        );
        let uuid: Arc<str> = queued.command_uuid.into();
        round.make_ready(devices.into_iter().map(|device| Order {
            device,
            uuid: uuid.clone(),
        }));
        Ok(ids.len() as u64)
    }

    /// Lets every device poll once more: there must be nothing.
    async fn left_over(self: &Arc<Self>) -> Result<u64> {
        let sweepers: Vec<_> = (0..self.in_flight)
            .map(|lane| tokio::spawn(sweep(self.clone(), lane)))
            .collect();
        let mut found = 0;
        for sweeper in sweepers {
            found += sweeper.await?;
        }
        Ok(found)
    }
}

async fn work(cycle: Arc<Cycle>, round: Arc<Round>) -> (Tally, Exactness) {
    let mut worker = Worker::new(cycle);
    while let Some(order) = round.next_ready().await {
        match worker.perform(&order).await {
            Some(()) => round.set_free(order.device),
            None => {
                worker.exactness.abandoned += 1;
                round.set_abandoned();
            }
        }
    }
    (worker.tally, worker.exactness)
}

async fn sweep(cycle: Arc<Cycle>, lane: usize) -> u64 {
    let mut worker = Worker::new(cycle.clone());
    let mut found = 0;
    for hand in cycle.hands.iter().skip(lane).step_by(cycle.in_flight) {
        let answered = worker.persist(&hand.idle).await.is_some();
        found += u64::from(!answered || !worker.wire.body().is_empty());
    }
    found
}

struct Worker {
    cycle: Arc<Cycle>,
    wire: Wire,
    tally: Tally,
    exactness: Exactness,
}

impl Worker {
    fn new(cycle: Arc<Cycle>) -> Self {
        Self {
            wire: Wire::new(cycle.target.address),
            cycle,
            tally: Tally::new(),
            exactness: Exactness::default(),
        }
    }

    /// One device's session; `None` when it could not be brought to its end.
    async fn perform(&mut self, order: &Order) -> Option<()> {
        let cycle = self.cycle.clone();
        let hand = &cycle.hands[order.device];
        self.persist(&hand.idle).await?;
        let mut times_handed = 0u64;
        while let Some(uuid) = command_uuid(self.wire.body()) {
            if uuid == &*order.uuid {
                times_handed += 1;
            } else {
                self.exactness.foreign += 1;
            }
            let body = report(&hand.udid, uuid, cycle.report_bytes);
            let form = SignatureForm::COMPACT;
            let request =
                plain_request(&cycle.target, Door::Connect, &hand.identity, &body, form).ok()?;
            self.persist(&request).await?;
        }
        match times_handed {
            0 => self.exactness.missing += 1,
            1 => self.exactness.exactly_once += 1,
            _ => self.exactness.repeated += 1,
        }
        Some(())
    }

    /// Repeats a message until a 200, as devices do.
    async fn persist(&mut self, request: &[u8]) -> Option<()> {
        let give_up = Instant::now() + PATIENCE;
        while !self.tally.ask(&mut self.wire, request).await {
            if Instant::now() > give_up {
                return None;
            }
            tokio::time::sleep(RETRY).await;
        }
        Some(())
    }
}

/// The CommandUUID of a command's plist; `None` when the body is empty.
fn command_uuid(body: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(body).ok()?;
    let (_, after) = text.split_once("<key>CommandUUID</key>")?;
    let (_, value) = after.split_once("<string>")?;
    Some(value.split_once("</string>")?.0)
}

/// An Acknowledged report of about `size` bytes, made of text: a plist writer
/// would cost more than the request.
fn report(udid: &str, uuid: &str, size: usize) -> Vec<u8> {
    let mut body = format!(
        "{PLIST}<dict>\n\t<key>UDID</key>\n\t<string>{udid}</string>\n\
         \t<key>Status</key>\n\t<string>Acknowledged</string>\n\
         \t<key>CommandUUID</key>\n\t<string>{uuid}</string>\n\
         \t<key>QueryResponses</key>\n\t<dict>\n\
         \t\t<key>OSVersion</key>\n\t\t<string>18.3</string>\n\t</dict>\n\
         \t<key>SimulatedPadding</key>\n\t<string>"
    )
    .into_bytes();
    body.resize(size.saturating_sub(REPORT_TAIL.len()).max(body.len()), b'x');
    body.extend_from_slice(REPORT_TAIL);
    body
}

const PLIST: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
    <!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \
    \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n<plist version=\"1.0\">\n";
const REPORT_TAIL: &[u8] = b"</string>\n</dict>\n</plist>\n";
/// The most ids one admin request may name.
const BATCH: usize = 1000;
const HEAD_START: u64 = 10_000;
const PATIENCE: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_a_plist_of_its_size() {
        let body = report("udid", "uuid", 1024);
        assert_eq!(body.len(), 1024);
        let value = plist::Value::from_reader_xml(&body[..]).unwrap();
        let keys = value.as_dictionary().unwrap();
        assert_eq!(keys["CommandUUID"].as_string(), Some("uuid"));
        assert_eq!(command_uuid(&body), Some("uuid"));
    }

    #[test]
    fn only_all_done_and_nothing_else_is_exact() {
        let exact = Exactness {
            queued: 5,
            exactly_once: 5,
            ..Exactness::default()
        };
        assert!(exact.is_exact());
        assert!(!Exactness { queued: 6, ..exact }.is_exact());
        assert!(
            !Exactness {
                left_over: 1,
                ..exact
            }
            .is_exact()
        );
    }
}
