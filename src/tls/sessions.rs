//! Sessions that may be resumed, with the client certificate each began with.
//!
//! Kept in memory only: what a restart changes (the trusted CAs, the keys) no resumed
//! session can outlive. Bounded in bytes too, since anyone may show a long chain.

use std::sync::Arc;

use rustls::server::{ServerSessionMemoryCache, StoresServerSessions};

/// rustls' own cache, with a bound on what one session may weigh.
#[derive(Debug)]
pub(super) struct Sessions(Arc<ServerSessionMemoryCache>);

impl Sessions {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(ServerSessionMemoryCache::new(MAX_SESSIONS)))
    }
}

impl StoresServerSessions for Sessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        value.len() <= MAX_SESSION_BYTES && self.0.put(key, value)
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.0.get(key)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.0.take(key)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

const MAX_SESSIONS: usize = 4096;
const MAX_SESSION_BYTES: usize = 8 << 10;
