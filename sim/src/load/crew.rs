//! The devices of a load run: makes them with all their first requests ready,
//! and enrolls them. Batches keep a hundred thousand within memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, ensure};

use super::tally::{Meter, Tally};
use super::wire::Wire;
use crate::ca::DeviceCa;
use crate::client::{Door, plain_request};
use crate::cms::SignatureForm;
use crate::device::{Channel, Device, Kind};
use crate::dice::Dice;
use crate::error::SimError;
use crate::identity::Identity;
use crate::parallel::{make_all, progress};
use crate::target::Target;

/// What making a crew takes.
pub(super) struct Yard {
    pub(super) ca: DeviceCa,
    pub(super) target: Target,
    pub(super) topic: String,
    pub(super) seed: u64,
    pub(super) in_flight: usize,
}

/// An enrolled device, as small as it goes.
pub(super) struct Hand {
    pub(super) udid: String,
    pub(super) identity: Identity,
    /// A whole Idle request.
    pub(super) idle: Box<[u8]>,
}

/// A device about to enroll.
struct Recruit {
    authenticate: Vec<u8>,
    token_update: Vec<u8>,
    hand: Hand,
}

impl Yard {
    /// Makes and enrolls `count` devices; what is made is not measured, what
    /// is sent is.
    pub(super) async fn enroll(
        self: &Arc<Self>,
        count: usize,
        meter: &mut Meter<'_>,
    ) -> Result<(Vec<Hand>, Tally)> {
        let mut hands = Vec::with_capacity(count);
        let mut total = Tally::new();
        let bar = progress("enrolling", count);
        for start in (0..count).step_by(BATCH) {
            let size = BATCH.min(count - start);
            let yard = self.clone();
            let made = tokio::task::spawn_blocking(move || {
                make_all("making devices", size, |n| yard.recruit(start + n))
            });
            let recruits = made.await??;
            let window = meter.open().await;
            let (enrolled, tally) = self.enroll_batch(recruits).await?;
            meter.close(window).await;
            hands.extend(enrolled);
            total.merge(&tally);
            bar.inc(size as u64);
        }
        bar.finish_and_clear();
        Ok((hands, total))
    }

    async fn enroll_batch(&self, recruits: Vec<Recruit>) -> Result<(Vec<Hand>, Tally)> {
        let waiting = Arc::new(Mutex::new(VecDeque::from(recruits)));
        let workers: Vec<_> = (0..self.in_flight)
            .map(|_| tokio::spawn(enroll_all(waiting.clone(), Wire::new(self.target.address))))
            .collect();
        let (mut hands, mut total) = (Vec::new(), Tally::new());
        for worker in workers {
            let (enrolled, tally) = worker.await?;
            hands.extend(enrolled);
            total.merge(&tally);
        }
        ensure!(
            !hands.is_empty(),
            "no device could enroll: {:?}; does the server trust the CA?",
            total.errors
        );
        Ok((hands, total))
    }

    fn recruit(&self, n: usize) -> Result<Recruit, SimError> {
        let mut dice = Dice::named(self.seed, &format!("device {n}"));
        let device = Device::seeded(&self.ca, &self.topic, Kind::IPhone, &mut dice)?;
        let request = |door, body: Vec<u8>| {
            let form = SignatureForm::COMPACT;
            plain_request(&self.target, door, &device.identity, &body, form)
        };
        Ok(Recruit {
            authenticate: request(Door::CheckIn, device.authenticate())?,
            token_update: request(Door::CheckIn, device.token_update())?,
            hand: Hand {
                idle: request(Door::Connect, device.idle(Channel::Device))?.into(),
                udid: device.udid,
                identity: device.identity,
            },
        })
    }
}

async fn enroll_all(waiting: Arc<Mutex<VecDeque<Recruit>>>, mut wire: Wire) -> (Vec<Hand>, Tally) {
    let (mut hands, mut tally) = (Vec::new(), Tally::new());
    let next = || {
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.pop_front()
    };
    while let Some(recruit) = next() {
        if tally.ask(&mut wire, &recruit.authenticate).await
            && tally.ask(&mut wire, &recruit.token_update).await
        {
            hands.push(recruit.hand);
        }
    }
    (hands, tally)
}

const BATCH: usize = 10_000;
