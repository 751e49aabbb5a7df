//! A server certificate from two PEM files of the administrator, and when they change.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};

use super::TlsError;

/// Where the certificate with its chain and the key are.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

/// What tells one state of the files from another; links are followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp([Option<(i64, i64, u64, u64)>; 2]);

impl Files {
    /// Reads both and checks that they belong together.
    ///
    /// # Errors
    /// [`TlsError`] naming the file at fault.
    pub(super) fn load(&self) -> Result<CertifiedKey, TlsError> {
        let chain = CertificateDer::pem_slice_iter(&read(&self.certificate)?)
            .collect::<Result<Vec<_>, _>>()
            .ok()
            .filter(|chain| !chain.is_empty())
            .ok_or_else(|| TlsError::NoCertificate(self.certificate.clone()))?;
        let key = PrivateKeyDer::from_pem_slice(&read(&self.key)?)
            .map_err(|_| TlsError::NoKey(self.key.clone()))?;
        CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(|error| {
            match error {
                Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                    TlsError::NotAPair(self.certificate.clone(), self.key.clone())
                }
                Error::InvalidCertificate(_) => TlsError::NoCertificate(self.certificate.clone()),
                _ => TlsError::NoKey(self.key.clone()),
            }
        })
    }

    pub(super) fn stamp(&self) -> Stamp {
        let one = |path: &Path| {
            let found = fs::metadata(path).ok()?;
            Some((found.mtime(), found.mtime_nsec(), found.ino(), found.len()))
        };
        Stamp([one(&self.certificate), one(&self.key)])
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|why| TlsError::Unreadable(path.to_owned(), why))
}
