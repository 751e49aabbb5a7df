//! The certificates we trust to be Apple's server.
//!
//! The system's trust store, found where OpenSSL and the distributions keep it
//! (`SSL_CERT_FILE`, `SSL_CERT_DIR`, then the well-known places), and beside it
//! the extra root of the configuration. No roots are built in. Apple's push
//! servers chain to the public USERTrust RSA root.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::{env, fs};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// Why there are no roots to trust.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// The extra root is not a certificate in PEM.
    #[error("the extra root for apns is not a certificate in PEM")]
    Extra,
    /// No trust store was found and no extra root is configured.
    #[error("no trusted certificates: no system trust store found, looked at {places}")]
    NoSystemStore {
        /// Where we looked.
        places: String,
    },
}

/// The system's roots and the extra ones.
///
/// A missing system store is forgiven when there is an extra root.
pub(super) fn load(extra_pem: Option<&[u8]>) -> Result<RootCertStore, RootsError> {
    let mut roots = RootCertStore::empty();
    if let Some(pem) = extra_pem {
        let extra: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let extra = extra.map_err(|_| RootsError::Extra)?;
        if extra.is_empty() || extra.into_iter().any(|root| roots.add(root).is_err()) {
            return Err(RootsError::Extra);
        }
    }
    let places = places();
    let system = places
        .iter()
        .map(|place| certificates(place))
        .find(|found| !found.is_empty());
    // Trust stores hold certificates webpki cannot read; those are passed over.
    roots.add_parsable_certificates(system.unwrap_or_default());
    if roots.is_empty() {
        let places: Vec<_> = places
            .iter()
            .map(|place| place.display().to_string())
            .collect();
        return Err(RootsError::NoSystemStore {
            places: places.join(", "),
        });
    }
    Ok(roots)
}

fn places() -> Vec<PathBuf> {
    let variables = ["SSL_CERT_FILE", "SSL_CERT_DIR"].map(env::var_os);
    let named: Vec<PathBuf> = variables.into_iter().flatten().map(PathBuf::from).collect();
    // A named store stands alone, as with OpenSSL.
    if named.is_empty() {
        PLACES.iter().map(PathBuf::from).collect()
    } else {
        named
    }
}

/// The certificates in a bundle, or in the `.pem` and `.crt` files of a directory.
fn certificates(place: &Path) -> Vec<CertificateDer<'static>> {
    let Ok(directory) = fs::read_dir(place) else {
        return fs::read(place).map(|pem| parse(&pem)).unwrap_or_default();
    };
    let files = directory.filter_map(|entry| Some(entry.ok()?.path()));
    let pem = |path: &PathBuf| {
        matches!(
            path.extension().and_then(OsStr::to_str),
            Some("pem" | "crt")
        )
    };
    files
        .filter(pem)
        .filter_map(|path| fs::read(path).ok())
        .flat_map(|pem| parse(&pem))
        .collect()
}

fn parse(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem)
        .filter_map(Result::ok)
        .collect()
}

const PLACES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt", // Debian, Ubuntu, Arch, Gentoo
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // Fedora, RHEL
    "/etc/pki/tls/certs/ca-bundle.crt",   // older RHEL
    "/etc/ssl/ca-bundle.pem",             // openSUSE
    "/etc/ssl/cert.pem",                  // Alpine, macOS, OpenBSD
    "/usr/local/share/certs/ca-root-nss.crt", // FreeBSD
    "/etc/ssl/certs",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_store_is_found() {
        if PLACES.iter().all(|place| !Path::new(place).exists()) {
            println!("skipped: no trust store on this machine");
            return;
        }
        assert!(load(None).is_ok_and(|roots| roots.len() > 10));
    }

    #[test]
    fn an_extra_root_that_is_no_certificate_is_refused() {
        let broken: [&[u8]; 3] = [
            b"",
            b"hello",
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ];
        for pem in broken {
            assert!(matches!(load(Some(pem)), Err(RootsError::Extra)));
        }
    }
}
