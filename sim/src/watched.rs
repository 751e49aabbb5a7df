//! State that can be waited for: a lock whose every change wakes the waiters.
//! Tests wait for a condition with a deadline instead of sleeping for luck.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::error::SimError;

/// A value behind a lock, with a bell that rings at each change.
pub(crate) struct Watched<T> {
    value: Mutex<T>,
    bell: watch::Sender<()>,
}

impl<T> Watched<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            value: Mutex::new(value),
            bell: watch::Sender::new(()),
        }
    }

    /// Looks at the value.
    pub(crate) fn read<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.lock())
    }

    /// Changes the value and wakes whoever waits.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let outcome = change(&mut self.lock());
        self.bell.send_replace(());
        outcome
    }

    /// Waits until `condition` holds, at most `deadline`.
    pub(crate) async fn until(
        &self,
        what: &str,
        deadline: Duration,
        mut condition: impl FnMut(&T) -> bool,
    ) -> Result<(), SimError> {
        let mut changes = self.bell.subscribe();
        let holds = async {
            while !self.read(&mut condition) {
                if changes.changed().await.is_err() {
                    break;
                }
            }
        };
        timeout(deadline, holds)
            .await
            .map_err(|_| SimError::Deadline {
                what: what.to_owned(),
                deadline,
            })
    }

    fn lock(&self) -> MutexGuard<'_, T> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
