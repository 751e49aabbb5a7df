//! A certificate for our listener from a public CA, by ACME (RFC 8555, RFC 8737).
//!
//! Kept in the data directory with the account's key, renewed when a third of its life is
//! left, asked for with growing patience when the CA refuses. The door that serves the
//! certificate drives it and shows the challenges; the protocol itself is instant-acme's.

mod attempts;
mod client;
mod issued;
mod kept;
mod order;

use std::io;
use std::path::Path;
use std::time::Duration;

use instant_acme::Problem;
use openssl::error::ErrorStack;
use rustls::pki_types::DnsName;

use self::attempts::Attempts;
use self::client::Line;
pub use self::issued::Issued;
use self::kept::Kept;
use self::order::Ordering;
use crate::Clock;
use crate::tls::{ChallengeCertificate, TlsRootError};

/// The CA, and how it is told of us.
#[derive(Clone, Debug)]
pub struct Authority {
    /// URL of its directory.
    pub directory: String,
    /// Whom it may write to: an address, or empty.
    pub contact: String,
    /// PEM of the root its own TLS and its certificates have, when it is a private one.
    pub root_pem: Option<Vec<u8>>,
}

/// Where challenge certificates are shown.
pub trait Stage: Send + Sync {
    /// Shows this one to who asks for the name with `acme-tls/1`.
    ///
    /// # Errors
    /// rustls' word.
    fn show(
        &self,
        name: &DnsName<'static>,
        certificate: &ChallengeCertificate,
    ) -> Result<(), rustls::Error>;
    /// Shows none any more.
    fn clear(&self);
}

/// The certificates of one CA for one set of names.
#[derive(Debug)]
pub struct Acme {
    authority: Authority,
    names: Vec<DnsName<'static>>,
    clock: Clock,
    kept: Kept,
    attempts: Attempts,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum AcmeError {
    /// The CA cannot be asked or understood, or refuses.
    #[error("{0}")]
    Asking(String),
    /// The CA knows our account no more.
    #[error("{0}")]
    NoAccount(String),
    /// It came to look and did not find what it wants.
    #[error("{0} is not proved to be ours: {1}")]
    Unproved(String, String),
    /// It does not say why.
    #[error("the CA refuses the order and does not say why")]
    Refused,
    /// It has no tls-alpn-01 for a name.
    #[error("the CA does not offer tls-alpn-01 for {0}")]
    NotOffered(String),
    /// It asks for what was not ordered.
    #[error("the CA asks about {0}, which was not ordered")]
    Stranger(String),
    /// What it issued cannot be served.
    #[error("the certificate the CA issued is of no use: {0}")]
    Useless(&'static str),
    /// No end in sight.
    #[error("the CA took longer than {} s", ATTEMPT.as_secs())]
    TimedOut,
    /// The line to it cannot be made.
    #[error("no line to the CA: {0}")]
    Setup(String),
    /// A file of the data directory.
    #[error("data directory: {0}")]
    Io(#[from] io::Error),
    /// The challenge certificate.
    #[error(transparent)]
    Challenge(#[from] TlsRootError),
    /// OpenSSL's word.
    #[error("OpenSSL: {0}")]
    OpenSsl(#[from] ErrorStack),
    /// rustls' word.
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
}

impl Acme {
    /// What the data directory holds of this CA for these names.
    #[must_use]
    pub fn open(
        data: &Path,
        authority: Authority,
        names: Vec<DnsName<'static>>,
        clock: Clock,
    ) -> Self {
        let texts = names.iter().map(|name| name.as_ref().to_owned()).collect();
        let kept = Kept::of(data, &authority.directory, texts);
        Self {
            attempts: kept.attempts(),
            authority,
            names,
            clock,
            kept,
        }
    }

    /// The certificate that was issued before.
    #[must_use]
    pub fn certificate(&self) -> Option<Issued> {
        self.kept.certificate()
    }

    /// Why the last attempt failed, until one succeeds.
    #[must_use]
    pub fn failing(&self) -> Option<&str> {
        (self.attempts.failures > 0).then_some(&*self.attempts.why)
    }

    /// Whether it is time to ask the CA, when `current` is served. `hurry` cuts short the
    /// wait after a failure, though not what the CA asked for.
    #[must_use]
    pub fn is_due(&self, current: Option<&Issued>, hurry: bool) -> bool {
        let now = self.clock.now();
        let wanted = current.is_none_or(|current| current.is_due(now));
        wanted && self.attempts.may_begin(now, hurry)
    }

    /// Orders a certificate. Whatever goes wrong is remembered, over restarts too, and
    /// makes [`Self::is_due`] wait.
    ///
    /// # Errors
    /// [`AcmeError`].
    pub async fn order(&mut self, stage: &dyn Stage) -> Result<Issued, AcmeError> {
        let mut spread = [0];
        // Without randomness waits are not spread, that is all.
        let _ = openssl::rand::rand_bytes(&mut spread);
        let [spread] = spread;
        self.attempts.begin(self.clock.now(), spread);
        if let Err(error) = self.kept.put_attempts(&self.attempts) {
            self.attempts.failed(error.to_string(), 0);
            return Err(error);
        }
        let outcome = self.attempt(stage).await;
        match &outcome {
            Ok(issued) if issued.is_due(self.clock.now()) => {
                let why = "the new certificate is due already: this clock or the CA is wrong";
                self.attempts.failed(why.to_owned(), 0);
            }
            Ok(issued) => {
                self.tell_of_root(issued);
                self.attempts = Attempts::default();
            }
            Err((error, asked)) => self.attempts.failed(error.to_string(), *asked),
        }
        if let Err(error) = self.kept.put_attempts(&self.attempts) {
            tracing::error!(%error, "what became of an order cannot be kept");
        }
        outcome.map_err(|(error, _)| error)
    }

    /// Seconds until the next attempt, and how many failed.
    #[must_use]
    pub fn patience(&self) -> (i64, u32) {
        (self.attempts.wait(), self.attempts.failures)
    }

    /// An error comes with the seconds the CA asked us to stay away.
    async fn attempt(&self, stage: &dyn Stage) -> Result<Issued, (AcmeError, u64)> {
        let line = Line::new(self.authority.root_pem.as_deref()).map_err(|error| (error, 0))?;
        let ordering = Ordering {
            authority: &self.authority,
            names: &self.names,
            kept: &self.kept,
            clock: &self.clock,
            stage,
        };
        let obtained = tokio::time::timeout(ATTEMPT, ordering.obtain(line.clone())).await;
        let obtained = obtained.unwrap_or(Err(AcmeError::TimedOut));
        if let Err(AcmeError::NoAccount(_)) = obtained
            && let Err(error) = self.kept.forget_account()
        {
            return Err((error.into(), line.asked()));
        }
        obtained.map_err(|error| (error, line.asked()))
    }

    /// Devices are told to trust the root of a private CA; its certificates must lead there.
    fn tell_of_root(&self, issued: &Issued) {
        let root = self.authority.root_pem.as_deref();
        if root.is_some_and(|root| !issued.leads_to(root).unwrap_or(false)) {
            tracing::error!(
                "the chain the CA issued does not lead to the root devices are told to trust: \
                 put the right one into device.acme_root_file"
            );
        }
    }
}

impl From<instant_acme::Error> for AcmeError {
    fn from(error: instant_acme::Error) -> Self {
        match &error {
            instant_acme::Error::Api(problem) => {
                let told = told(problem);
                if problem.r#type.as_deref() == Some(ACCOUNT_DOES_NOT_EXIST) {
                    return Self::NoAccount(told);
                }
                Self::Asking(told)
            }
            other => Self::Asking(format!("the CA cannot be asked: {}", chain(other))),
        }
    }
}

/// A problem document in one line, its type first. It is the CA's text: bounded, and
/// without what would disturb a terminal.
fn told(problem: &Problem) -> String {
    let kind = problem.r#type.as_deref().unwrap_or("about:blank");
    let mut text = format!("the CA says {kind}");
    if let Some(detail) = &problem.detail {
        text = format!("{text}: {detail}");
    }
    for part in &problem.subproblems {
        text = format!("{text}; {part}");
    }
    plain(&text)
}

/// An error with what it stems from.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let part = error.to_string();
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        source = error.source();
    }
    plain(&text)
}

fn plain(text: &str) -> String {
    let shown = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    shown.take(MAX_TOLD).collect()
}

const ACCOUNT_DOES_NOT_EXIST: &str = "urn:ietf:params:acme:error:accountDoesNotExist";
const MAX_TOLD: usize = 600;
/// For a whole order.
const ATTEMPT: Duration = Duration::from_secs(600);
