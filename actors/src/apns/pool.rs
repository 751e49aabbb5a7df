//! The few long-lived connections of one client, and who gets a place on them.
//!
//! Places are the streams the server grants. Whoever finds none waits; if all
//! connections are full and more are allowed, one more is opened, one at a time.
//! Reconnects are paced, because APNs takes quick ones for abuse.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::connection::{Connection, Dial, Sent};
use super::fault::Fault;
use super::outcome::Outcome;
use super::push::{Push, PushRequest};
use super::{ApnsClient, Timing};

/// A place for one push on a connection, given back when dropped.
pub struct Slot {
    client: ApnsClient,
    connection: Arc<Connection>,
}

impl Slot {
    pub(super) fn new(client: ApnsClient, connection: Arc<Connection>) -> Self {
        Self { client, connection }
    }

    /// Wakes one channel; ends within [`Timing::answer`], whatever happens.
    pub async fn push(self, push: Push) -> Outcome {
        let client = self.client.clone();
        let deadline = client.answer_deadline();
        client.deliver(Some(self), &push, deadline).await
    }

    pub(super) async fn send(self, request: PushRequest, deadline: Instant) -> Sent {
        self.connection.send(request, deadline).await
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.client.pool().release(&self.connection);
    }
}

pub(super) struct Pool {
    dial: Dial,
    most: usize,
    state: Mutex<State>,
    /// Told when a place came free or an attempt to connect ended.
    changed: Arc<Notify>,
}

struct State {
    live: Vec<Arc<Connection>>,
    opening: bool,
    /// Failed attempts ever, so that a waiter sees one that happened while it waited.
    failed: u64,
    /// Failures in a row: attempts, and connections that never answered a push.
    failures: u32,
    /// When a connection was last found lost.
    lost_at: Option<Instant>,
    last_attempt: Option<Instant>,
    not_before: Option<Instant>,
    fault: Option<Fault>,
}

/// What a look at the pool gives.
enum Look {
    Place(Arc<Connection>),
    Failed(Fault),
    Wait,
}

impl Pool {
    pub(super) fn new(dial: Dial, most: usize) -> Self {
        let state = State {
            live: Vec::with_capacity(most),
            opening: false,
            failed: 0,
            failures: 0,
            lost_at: None,
            last_attempt: None,
            not_before: None,
            fault: None,
        };
        Self {
            dial,
            most,
            state: Mutex::new(state),
            changed: Arc::new(Notify::new()),
        }
    }

    /// A connection with a place taken on it.
    pub(super) async fn acquire(self: &Arc<Self>) -> Result<Arc<Connection>, Fault> {
        let failed = self.lock().failed;
        loop {
            // Made before the look, so that a change in between is not missed.
            let changed = self.changed.notified();
            match self.look(failed) {
                Look::Place(connection) => return Ok(connection),
                Look::Failed(fault) => return Err(fault),
                Look::Wait => changed.await,
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.lock()
            .live
            .iter()
            .filter(|connection| connection.is_open())
            .count()
    }

    /// Why there is no connection, if there is none and an attempt has failed.
    pub(super) fn last_fault(&self) -> Option<Fault> {
        let state = self.lock();
        if state.live.is_empty() {
            state.fault.clone()
        } else {
            None
        }
    }

    fn release(&self, connection: &Connection) {
        connection.load.fetch_sub(1, Relaxed);
        self.changed.notify_one();
    }

    fn look(self: &Arc<Self>, failed_before: u64) -> Look {
        let mut state = self.lock();
        state.bury(&self.dial.timing);
        let roomy = state.live.iter().filter(|connection| connection.has_room());
        if let Some(connection) = roomy.min_by_key(|connection| connection.load.load(Relaxed)) {
            connection.load.fetch_add(1, Relaxed);
            return Look::Place(Arc::clone(connection));
        }
        if state.live.is_empty() && state.failed > failed_before {
            return Look::Failed(state.fault.clone().unwrap_or(Fault::Busy));
        }
        if !state.opening && state.live.len() < self.most {
            state.opening = true;
            let start = state.next_attempt(&self.dial.timing);
            tokio::spawn(open(
                Opening {
                    pool: Arc::downgrade(self),
                },
                start,
            ));
        }
        Look::Wait
    }

    async fn connect(&self) {
        self.lock().last_attempt = Some(Instant::now());
        let result = self.dial.open(Arc::clone(&self.changed)).await;
        let mut state = self.lock();
        match result {
            Ok(connection) => {
                state.fault = None;
                state.live.push(Arc::new(connection));
                tracing::debug!(
                    host = self.dial.host,
                    open = state.live.len(),
                    "apns connected"
                );
            }
            Err(fault) => {
                tracing::warn!(host = self.dial.host, %fault, "cannot connect to apns");
                state.failed += 1;
                state.fault = Some(fault);
                state.back_off(&self.dial.timing);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes out connections that are worn; pushes under way on them go on.
    fn bury(&mut self, timing: &Timing) {
        let (mut lost, mut unproved) = (0, 0);
        self.live.retain(|connection| {
            if connection.is_worn() {
                lost += 1;
                unproved += u32::from(!connection.is_proved());
            }
            !connection.is_worn()
        });
        if lost == 0 {
            return;
        }
        self.lost_at = Some(Instant::now());
        if unproved == 0 {
            self.failures = 0;
        } else {
            self.back_off(timing);
        }
    }

    fn back_off(&mut self, timing: &Timing) {
        self.failures = self.failures.saturating_add(1);
        let doubled = 1_u32.checked_shl(self.failures - 1).unwrap_or(u32::MAX);
        let pause = timing
            .reconnect_least
            .saturating_mul(doubled)
            .min(timing.reconnect_most);
        self.not_before = Some(Instant::now() + jittered(pause));
    }

    /// When the next attempt may start: a further connection at once, but none too soon
    /// after the one before while connections are being lost.
    fn next_attempt(&self, timing: &Timing) -> Instant {
        let now = Instant::now();
        let losing = self
            .lost_at
            .is_some_and(|at| now < at + timing.reconnect_least * LOSING);
        let spaced = losing.then(|| Some(self.last_attempt? + timing.reconnect_least));
        [self.not_before, spaced.flatten()]
            .into_iter()
            .flatten()
            .fold(now, Instant::max)
    }
}

/// Held while a connection is being opened; its end, whatever it is, lets the
/// next waiter try.
struct Opening {
    pool: Weak<Pool>,
}

impl Drop for Opening {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.lock().opening = false;
            pool.changed.notify_waiters();
        }
    }
}

/// Opens a connection at `start`, unless the client is gone by then.
async fn open(opening: Opening, start: Instant) {
    sleep_until(start).await;
    if let Some(pool) = opening.pool.upgrade() {
        pool.connect().await;
    }
}

/// Up to half as long again, so that clients do not come back in step.
fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish() % 1024;
    pause + pause.mul_f64(random as f64 / 2048.0)
}

/// For how many of the shortest pauses after a loss reconnects are spaced.
const LOSING: u32 = 10;
