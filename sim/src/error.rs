//! What can go wrong in the simulator, and whose fault it is: ours (crypto,
//! options), the network's, or the server's under test.

use std::time::Duration;

/// Every failure of the simulator's library half.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// OpenSSL refused to make a key, a certificate or a signature.
    #[error("openssl: {0}")]
    Crypto(#[from] openssl::error::ErrorStack),
    /// TLS could not be set up.
    #[error("tls: {0}")]
    Tls(#[from] rustls::Error),
    /// A socket or a file failed.
    #[error("i/o: {0}")]
    Io(#[from] std::io::Error),
    /// The HTTP exchange broke off.
    #[error("http: {0}")]
    Http(#[from] hyper::Error),
    /// A request could not be put together.
    #[error("request: {0}")]
    Request(#[from] hyper::http::Error),
    /// A property list could not be read or written.
    #[error("plist: {0}")]
    Plist(#[from] plist::Error),
    /// A request of the SCEP client broke off.
    #[error("scep: {0}")]
    Scep(#[from] reqwest::Error),
    /// The SCEP server answered what its client cannot use.
    #[error("scep server's answer: {0}")]
    ScepAnswer(String),
    /// A url the simulator will not talk to.
    #[error("refusing {url}: {why}")]
    Target {
        /// The url as given.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The server answered with a status the device did not expect.
    #[error("server answered {status} to {what}, expected 200")]
    Refused {
        /// The message that was refused.
        what: &'static str,
        /// The HTTP status.
        status: u16,
    },
    /// The server's 200 carried something that is no command.
    #[error("server's answer is no command: {0}")]
    NotACommand(&'static str),
    /// The server handed out more commands than any session may have.
    #[error("session of {udid} did not end after {commands} commands")]
    Endless {
        /// The device.
        udid: String,
        /// Commands taken before giving up.
        commands: usize,
    },
    /// A condition did not come true in time.
    #[error("{what}: not within {deadline:?}")]
    Deadline {
        /// The condition.
        what: String,
        /// How long was waited.
        deadline: Duration,
    },
}
