//! RSA keys are slow to make, so simulated devices share a few: each device
//! has its own certificate, over a key from the pool.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;

use crate::error::SimError;

/// A few RSA-2048 keys, made once and dealt out in turn.
pub struct KeyPool {
    keys: Mutex<Vec<PKey<Private>>>,
    size: usize,
    next: AtomicUsize,
}

impl KeyPool {
    /// A pool of at most `size` keys (at least one), each made when first
    /// dealt: a test with two devices pays for two.
    pub fn growing(size: usize) -> Self {
        Self {
            keys: Mutex::default(),
            size: size.max(1),
            next: AtomicUsize::new(0),
        }
    }

    /// Makes `size` keys (at least one) on all cores.
    pub fn generate(size: usize) -> Result<Self, SimError> {
        let size = size.max(1);
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let made = thread::scope(|scope| {
            let workers: Vec<_> = (0..threads.min(size))
                .map(|worker| {
                    scope.spawn(move || {
                        (worker..size)
                            .step_by(threads)
                            .map(|_| rsa_key())
                            .collect::<Result<Vec<_>, _>>()
                    })
                })
                .collect();
            workers
                .into_iter()
                .map(|worker| worker.join().unwrap_or_else(|_| Err(ErrorStack::get())))
                .collect::<Result<Vec<_>, _>>()
        })?;
        Ok(Self {
            keys: Mutex::new(made.into_iter().flatten().collect()),
            size,
            next: AtomicUsize::new(0),
        })
    }

    /// The next key in turn; a clone shares the key, it does not copy it.
    pub fn deal(&self) -> Result<PKey<Private>, SimError> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.size;
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if turn >= keys.len() {
            keys.push(rsa_key()?);
        }
        Ok(keys[turn.min(keys.len() - 1)].clone())
    }
}

/// One fresh RSA-2048 key.
pub(crate) fn rsa_key() -> Result<PKey<Private>, ErrorStack> {
    PKey::from_rsa(Rsa::generate(2048)?)
}
