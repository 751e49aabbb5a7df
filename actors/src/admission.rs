//! Admission: how much may be under way at once. An actor's mailbox is no
//! back-pressure, so what is too much is turned away before it reaches one.
//!
//! Idle polls are refused first, reports and check-ins last; what the writer accepted
//! is never shed. The caller answers 503 with a jittered Retry-After.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::Store;

/// The gate for device requests.
#[derive(Clone, Debug)]
pub struct Admission {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    most_requests: usize,
    most_bytes: usize,
    requests: AtomicUsize,
    bytes: AtomicUsize,
}

/// How important a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// A poll without a report: the device comes again by itself.
    Idle,
    /// A report or a check-in.
    Full,
}

/// Leave to go on, given back when it is dropped.
#[derive(Debug)]
pub struct Permit {
    inner: Arc<Inner>,
    bytes: usize,
}

impl Admission {
    /// Admits up to so many requests and bytes of their bodies at once.
    #[must_use]
    pub fn new(store: Store, most_requests: usize, most_bytes: usize) -> Self {
        let inner = Inner {
            store,
            most_requests,
            most_bytes,
            requests: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Asks for leave; `None` means too much is going on.
    #[must_use]
    pub fn admit(&self, weight: Weight, bytes: usize) -> Option<Permit> {
        let inner = &self.inner;
        let requests = inner.requests.fetch_add(1, Ordering::AcqRel) + 1;
        let held = inner.bytes.fetch_add(bytes, Ordering::AcqRel) + bytes;
        let permit = Permit {
            inner: inner.clone(),
            bytes,
        };
        let (most, oldest) = match weight {
            Weight::Idle => (inner.most_requests * 4 / 5, 500),
            Weight::Full => (inner.most_requests, 2000),
        };
        let writing = inner.store.writing_for();
        let fits = requests <= most && held <= inner.most_bytes && writing <= oldest;
        fits.then_some(permit)
    }

    /// Requests under way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.inner.requests.load(Ordering::Acquire)
    }
}

impl Permit {
    /// Whether this leave is for so many bytes; asks for more, doubling it, when it is not.
    pub fn covers(&mut self, bytes: usize) -> bool {
        if bytes <= self.bytes {
            return true;
        }
        let more = bytes.max(self.bytes * 2) - self.bytes;
        let held = self.inner.bytes.fetch_add(more, Ordering::AcqRel) + more;
        self.bytes += more;
        held <= self.inner.most_bytes
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.inner.requests.fetch_sub(1, Ordering::AcqRel);
        self.inner.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}
