//! The `idle` scenario: devices poll and nothing is queued. Closed loop (as
//! fast as the server answers) or open loop (at a fixed rate).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::crew::Hand;
use super::tally::Tally;
use super::wire::Wire;

/// How to poll.
#[derive(Clone, Copy)]
pub(super) struct Pace {
    pub(super) in_flight: usize,
    pub(super) duration: Duration,
    pub(super) count: Option<u64>,
    pub(super) rate: Option<f64>,
}

/// Polls until the time or the count is over.
pub(super) async fn poll(
    hands: &Arc<Vec<Hand>>,
    address: std::net::SocketAddr,
    pace: Pace,
) -> Result<Tally> {
    let begin = Instant::now();
    let turn = Arc::new(AtomicU64::new(0));
    let workers: Vec<_> = (0..pace.in_flight)
        .map(|_| {
            let worker = Worker {
                hands: hands.clone(),
                turn: turn.clone(),
                begin,
                pace,
            };
            tokio::spawn(worker.run(Wire::new(address)))
        })
        .collect();
    let mut total = Tally::new();
    for worker in workers {
        total.merge(&worker.await?);
    }
    Ok(total)
}

struct Worker {
    hands: Arc<Vec<Hand>>,
    turn: Arc<AtomicU64>,
    begin: Instant,
    pace: Pace,
}

impl Worker {
    async fn run(self, mut wire: Wire) -> Tally {
        let mut tally = Tally::new();
        loop {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            let Some(start) = self.start_of(turn).await else {
                return tally;
            };
            let hand = &self.hands[turn as usize % self.hands.len()];
            let outcome = wire.ask(&hand.idle).await;
            tally.count(start, &outcome);
        }
    }

    /// Waits for a request's turn and gives its intended start; `None` when
    /// the run is over.
    async fn start_of(&self, turn: u64) -> Option<Instant> {
        if self.pace.count.is_some_and(|count| turn >= count) {
            return None;
        }
        let end = self.begin + self.pace.duration;
        let Some(rate) = self.pace.rate else {
            let now = Instant::now();
            return (now < end).then_some(now);
        };
        let intended = self.begin + Duration::from_secs_f64(turn as f64 / rate);
        if intended >= end {
            return None;
        }
        if Instant::now() >= intended {
            // All workers were busy: the wait counts as the server's.
            return Some(intended);
        }
        tokio::time::sleep_until(intended.into()).await;
        // The timer ticks in milliseconds; its coarseness is not the server's.
        let now = Instant::now();
        Some(if now - intended <= TICK {
            now
        } else {
            intended
        })
    }
}

const TICK: Duration = Duration::from_millis(2);
