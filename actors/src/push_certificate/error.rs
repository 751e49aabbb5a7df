//! What can be wrong with a file that should be a push certificate.
//!
//! Messages go to the administrator who imported it, so they say what was found
//! and what is needed; nothing secret is in them.

use openssl::error::ErrorStack;

/// Why a file is not a usable push certificate. Holds no secret.
#[derive(Debug, thiserror::Error)]
pub enum PushCertificateError {
    /// No PEM block was found.
    #[error("not PEM: no certificate and no private key found")]
    NotPem,
    /// A block begins and does not end, or its content is no base64.
    #[error("the PEM block {label} is damaged")]
    DamagedBlock {
        /// The label after `BEGIN`.
        label: String,
    },
    /// A block that is neither a certificate nor a private key.
    #[error("unexpected PEM block {label}: a certificate and its private key were expected")]
    UnexpectedBlock {
        /// The label after `BEGIN`.
        label: String,
    },
    /// There is a key, but no certificate.
    #[error("no certificate beside the private key")]
    NoCertificate,
    /// There is a certificate, but no private key.
    #[error("no private key beside the certificate")]
    NoKey,
    /// There is more than one private key.
    #[error("more than one private key")]
    TwoKeys,
    /// The key is encrypted and no passphrase came with it.
    #[error("the private key is encrypted: a passphrase is needed")]
    PassphraseNeeded,
    /// The passphrase does not open the key or file.
    #[error("the passphrase does not open the private key")]
    WrongPassphrase,
    /// The file is encrypted in a way this OpenSSL cannot read.
    #[error("encrypted with an old cipher, and OpenSSL's legacy provider is not installed")]
    LegacyCipher,
    /// The bytes are not PKCS#12.
    #[error("not a readable PKCS#12 file")]
    BadPkcs12,
    /// The certificate has no subject attribute UID.
    #[error("not an MDM push certificate: the subject {subject:?} has no UID")]
    NoTopic {
        /// The subject in one line.
        subject: String,
    },
    /// The subject attribute UID is no MDM topic.
    #[error("not an MDM push certificate: UID {uid:?} does not begin with com.apple.mgmt.")]
    WrongTopic {
        /// The UID found.
        uid: String,
    },
    /// The private key is not that of the certificate.
    #[error("the private key does not belong to the certificate for {topic}")]
    KeyMismatch {
        /// The topic of the certificate.
        topic: String,
    },
    /// OpenSSL failed for another reason, such as an unprintable field.
    #[error("openssl cannot handle the certificate: {0}")]
    OpenSsl(#[from] ErrorStack),
}
