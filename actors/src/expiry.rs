//! The certificates whose end is watched, and who is told of it.
//!
//! A shared list: whoever puts a certificate to use says so here (push supervisor,
//! device CA, TLS, SCEP), housekeeping logs what draws near, metrics and readiness read
//! it. The thresholds are a rule of `schema`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use openssl::error::ErrorStack;
use openssl::x509::X509;
use schema::UnixMillis;
use schema::expiry::{self, Closeness, Purpose};

use crate::push_certificate::unix_seconds;

/// The watched certificates. Cheap to clone; all clones are one list.
#[derive(Clone, Debug, Default)]
pub struct Expiries {
    watched: Arc<Mutex<BTreeMap<(Purpose, String), Watched>>>,
}

#[derive(Clone, Copy, Debug)]
struct Watched {
    not_after: i64,
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
}

impl Expiries {
    /// A certificate is in use from now on, in place of the one of that name.
    pub fn watch(&self, purpose: Purpose, name: impl Into<String>, not_after: i64) {
        let told = None;
        self.lock()
            .insert((purpose, name.into()), Watched { not_after, told });
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<Expiry> {
        let watched = self.lock();
        let all = watched.iter().map(|((purpose, name), watched)| Expiry {
            purpose: *purpose,
            name: name.clone(),
            not_after: watched.not_after,
        });
        all.collect()
    }

    /// What a person should know at `now`, a sentence for each.
    #[must_use]
    pub fn warnings(&self, now: UnixMillis) -> Vec<String> {
        let mut all = self.all();
        all.retain(|expiry| expiry::closeness(expiry.not_after, now).is_some());
        all.iter().map(|expiry| expiry.warning(now)).collect()
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
        for ((purpose, name), watched) in self.lock().iter_mut() {
            let is = expiry::closeness(watched.not_after, now);
            if let Some(closeness) = is.filter(|_| expiry::is_news(watched.told, is)) {
                let expiry = Expiry {
                    purpose: *purpose,
                    name: name.clone(),
                    not_after: watched.not_after,
                };
                news.push((expiry, closeness));
            }
            watched.told = is;
        }
        news
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Purpose, String), Watched>> {
        match self.watched.lock() {
            Ok(guard) => guard,
            Err(poisoned) => poisoned.into_inner(),
        }
    }
}

impl Expiry {
    /// `the push certificate com.apple.mgmt.X expires in 13 days: renew it …`
    #[must_use]
    pub fn warning(&self, now: UnixMillis) -> String {
        let Self {
            purpose,
            name,
            not_after,
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
