//! The certificates whose end is watched, and who is told of it.
//!
//! A shared list: whoever puts a certificate to use says so here (push supervisor,
//! device CA, TLS, SCEP), housekeeping logs what draws near, metrics and readiness read
//! it. The thresholds are a rule of `schema`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openssl::error::ErrorStack;
use openssl::x509::X509;
use schema::UnixMillis;
use schema::expiry::{self, Closeness, Purpose};

use crate::push_certificate::unix_seconds;

/// The watched certificates. Cheap to clone; all clones are one list.
#[derive(Clone, Debug, Default)]
pub struct Expiries {
    watched: Arc<Mutex<BTreeMap<(Purpose, String), Watched>>>,
    /// Why a new one is not to be had.
    failing: Arc<Mutex<BTreeMap<(Purpose, String), String>>>,
}

#[derive(Clone, Copy, Debug)]
struct Watched {
    not_after: i64,
    renewed_from: Option<i64>,
    told: Option<Closeness>,
}

/// A watched certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// What it is for.
    pub purpose: Purpose,
    /// Which of them: the topic, the host.
    pub name: String,
    /// The end of its validity in Unix seconds.
    pub not_after: i64,
    /// The beginning of its validity, if it is renewed by itself.
    pub renewed_from: Option<i64>,
}

impl Expiries {
    /// A certificate is in use from now on, in place of the one of that name.
    pub fn watch(&self, purpose: Purpose, name: impl Into<String>, not_after: i64) {
        self.put(purpose, name.into(), None, not_after);
    }

    /// The same for one that is renewed by itself: told of only when that is late.
    pub fn watch_renewed(
        &self,
        purpose: Purpose,
        name: impl Into<String>,
        not_before: i64,
        not_after: i64,
    ) {
        self.put(purpose, name.into(), Some(not_before), not_after);
    }

    /// Why a new certificate is not to be had, until it is watched.
    pub fn failing(&self, purpose: Purpose, name: impl Into<String>, why: impl Into<String>) {
        let key = (purpose, name.into());
        lock(&self.failing).insert(key, why.into());
    }

    fn put(&self, purpose: Purpose, name: String, renewed_from: Option<i64>, not_after: i64) {
        let key = (purpose, name);
        lock(&self.failing).remove(&key);
        let watched = Watched {
            not_after,
            renewed_from,
            told: None,
        };
        lock(&self.watched).insert(key, watched);
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<Expiry> {
        let watched = lock(&self.watched);
        watched.iter().map(Expiry::from).collect()
    }

    /// What a person should know at `now`, a sentence for each.
    #[must_use]
    pub fn warnings(&self, now: UnixMillis) -> Vec<String> {
        let mut all = self.all();
        all.retain(|expiry| expiry.closeness(now).is_some());
        let mut warnings: Vec<_> = all.iter().map(|expiry| expiry.warning(now)).collect();
        let failing = lock(&self.failing);
        warnings.extend(failing.iter().map(|((purpose, name), why)| {
            format!("a new {purpose} {name} is not to be had: {why}")
        }));
        warnings
    }

    /// Logs the certificates that passed a threshold since they were last told of.
    pub fn tell(&self, now: UnixMillis) {
        for (expiry, is) in self.news(now) {
            let (purpose, name) = (expiry.purpose.word(), expiry.name.as_str());
            let days_left = expiry::days_left(expiry.not_after, now);
            let message = expiry.warning(now);
            if is == Closeness::Expired {
                tracing::error!(purpose, name, days_left, "{message}");
            } else {
                tracing::warn!(purpose, name, days_left, "{message}");
            }
        }
    }

    fn news(&self, now: UnixMillis) -> Vec<(Expiry, Closeness)> {
        let mut news = Vec::new();
        for (key, watched) in lock(&self.watched).iter_mut() {
            let expiry = Expiry::from((key, &*watched));
            let is = expiry.closeness(now);
            if let Some(closeness) = is.filter(|_| expiry::is_news(watched.told, is)) {
                news.push((expiry, closeness));
            }
            watched.told = is;
        }
        news
    }
}

fn lock<T>(list: &Mutex<T>) -> MutexGuard<'_, T> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}

impl From<(&(Purpose, String), &Watched)> for Expiry {
    fn from(((purpose, name), watched): (&(Purpose, String), &Watched)) -> Self {
        Self {
            purpose: *purpose,
            name: name.clone(),
            not_after: watched.not_after,
            renewed_from: watched.renewed_from,
        }
    }
}

impl Expiry {
    /// Which threshold it has passed, as far as that deserves a word.
    #[must_use]
    pub fn closeness(&self, now: UnixMillis) -> Option<Closeness> {
        match self.renewed_from {
            None => expiry::closeness(self.not_after, now),
            Some(begin) => expiry::closeness_if_late(begin, self.not_after, now),
        }
    }

    /// `the push certificate com.apple.mgmt.X expires in 13 days: renew it …`
    #[must_use]
    pub fn warning(&self, now: UnixMillis) -> String {
        let Self {
            purpose,
            name,
            not_after,
            ..
        } = self;
        let ends = expiry::told(*not_after, now);
        format!("the {purpose} {name} {ends}: {}", purpose.advice())
    }
}

/// The end of a certificate in PEM, in Unix seconds.
///
/// # Errors
/// When it is no certificate.
pub fn not_after(pem: &[u8]) -> Result<i64, ErrorStack> {
    unix_seconds(X509::from_pem(pem)?.not_after())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
    const DAY: i64 = 24 * 3600;

    fn told(expiries: &Expiries, now: UnixMillis) -> Vec<String> {
        let news = expiries.news(now).into_iter();
        news.map(|(expiry, _)| expiry.name).collect()
    }

    #[test]
    fn each_certificate_is_told_of_once_per_threshold() {
        let expiries = Expiries::default();
        expiries.watch(Purpose::Push, "near", 1_800_000_000 + 8 * DAY);
        expiries.watch(Purpose::Push, "far", 1_800_000_000 + 61 * DAY);
        assert_eq!(told(&expiries, NOW), ["near"]);
        assert_eq!(told(&expiries, NOW), [""; 0]);
        assert_eq!(
            told(&expiries, NOW.plus_seconds(2 * 24 * 3600)),
            ["far", "near"]
        );
        let warnings = expiries.warnings(NOW);
        assert_eq!(warnings.len(), 1);
        let begins = "the push certificate near expires in 8 days: renew it";
        assert!(warnings[0].starts_with(begins), "{warnings:?}");
    }

    #[test]
    fn what_fails_is_told_until_there_is_a_new_one() {
        let expiries = Expiries::default();
        expiries.failing(Purpose::Tls, "device.tls", "the CA is away");
        let warnings = expiries.warnings(NOW);
        let expected = "a new TLS certificate device.tls is not to be had: the CA is away";
        assert_eq!(warnings, [expected]);
        let begin = 1_800_000_000 - 60 * DAY;
        expiries.watch_renewed(Purpose::Tls, "device.tls", begin, begin + 90 * DAY);
        assert_eq!(expiries.warnings(NOW), [""; 0], "30 days are early for it");
        assert_eq!(expiries.warnings(NOW.plus_seconds(10 * 86_400)).len(), 1);
    }

    #[test]
    fn a_renewed_certificate_is_quiet_again() {
        let expiries = Expiries::default();
        expiries.watch(Purpose::Push, "topic", 1_800_000_000 + DAY);
        assert_eq!(told(&expiries, NOW), ["topic"]);
        expiries.watch(Purpose::Push, "topic", 1_800_000_000 + 365 * DAY);
        assert_eq!(told(&expiries, NOW), [""; 0]);
        assert_eq!(expiries.warnings(NOW), [""; 0]);
        assert_eq!(expiries.all().len(), 1);
    }
}
