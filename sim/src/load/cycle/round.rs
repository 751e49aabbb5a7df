//! Where each device of a cycle run is: free, or ready to be handed a command
//! that was queued for it. Knows neither HTTP nor devices, only their numbers.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, Semaphore};

/// A device and the command that waits for it.
pub(super) struct Order {
    pub(super) device: usize,
    pub(super) uuid: Arc<str>,
}

/// The free and the ready.
pub(super) struct Round {
    free: Mutex<Vec<usize>>,
    freed: Notify,
    ready: Mutex<VecDeque<Order>>,
    /// As many permits as are ready; closed when no more will be.
    readied: Semaphore,
    queued: AtomicU64,
    done: AtomicU64,
    enough: usize,
}

impl Round {
    pub(super) fn new(devices: usize) -> Self {
        Self {
            free: Mutex::new((0..devices).collect()),
            freed: Notify::new(),
            ready: Mutex::default(),
            readied: Semaphore::new(0),
            queued: AtomicU64::new(0),
            done: AtomicU64::new(0),
            enough: (devices / 2).clamp(1, super::BATCH),
        }
    }

    /// How many are free.
    pub(super) fn free(&self) -> usize {
        lock(&self.free).len()
    }

    /// How many orders there were so far.
    pub(super) fn queued(&self) -> u64 {
        self.queued.load(Ordering::Relaxed)
    }

    /// Waits until a batch is worth while; false when none will ever be.
    pub(super) async fn enough_free(&self) -> bool {
        loop {
            let freed = self.freed.notified();
            let free = self.free();
            if free >= self.enough {
                return true;
            }
            if self.done.load(Ordering::Relaxed) == self.queued() {
                return free > 0;
            }
            freed.await;
        }
    }

    /// Takes up to `most` free devices.
    pub(super) fn take_free(&self, most: usize) -> Vec<usize> {
        let mut free = lock(&self.free);
        let keep = free.len().saturating_sub(most);
        free.split_off(keep)
    }

    pub(super) fn make_ready(&self, orders: impl ExactSizeIterator<Item = Order>) {
        let count = orders.len();
        lock(&self.ready).extend(orders);
        self.queued.fetch_add(count as u64, Ordering::Relaxed);
        self.readied.add_permits(count);
    }

    /// The next ready device; `None` when there is none and never will be.
    pub(super) async fn next_ready(&self) -> Option<Order> {
        if let Ok(permit) = self.readied.acquire().await {
            permit.forget();
        }
        lock(&self.ready).pop_front()
    }

    pub(super) fn set_free(&self, device: usize) {
        lock(&self.free).push(device);
        self.set_abandoned();
    }

    /// Its order is over, and the device takes no further one.
    pub(super) fn set_abandoned(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
        self.freed.notify_one();
    }

    /// No more will become ready; those that are will still be handed over.
    pub(super) fn close(&self) {
        self.readied.close();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_ready_are_handed_over_even_when_closed() {
        let round = Round::new(3);
        let devices = round.take_free(2);
        assert_eq!((devices.len(), round.free()), (2, 1));
        let uuid: Arc<str> = "uuid".into();
        round.make_ready(devices.into_iter().map(|device| Order {
            device,
            uuid: uuid.clone(),
        }));
        round.close();
        assert!(round.next_ready().await.is_some());
        assert!(round.next_ready().await.is_some());
        assert!(round.next_ready().await.is_none());
    }

    #[tokio::test]
    async fn a_batch_waits_until_half_are_free() {
        let round = Arc::new(Round::new(4));
        let taken = round.take_free(4);
        let uuid: Arc<str> = "uuid".into();
        round.make_ready(taken.into_iter().map(|device| Order {
            device,
            uuid: uuid.clone(),
        }));
        let waiting = tokio::spawn({
            let round = round.clone();
            async move { round.enough_free().await }
        });
        round.set_free(0);
        round.set_free(1);
        assert!(waiting.await.unwrap());
    }
}
