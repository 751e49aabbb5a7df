//! A certificate and its key as two files of the data directory: made once, together,
//! and never again.
//!
//! What devices were told to trust must not change under them, so half a pair is an
//! error; but a start that was cut off while it made one goes on where it stopped.
//! Called by the device CA, the TLS root and the profile signer.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::{X509, X509Builder, X509NameBuilder};

use crate::private_file::{staged, sync_directory, write_new};

/// A certificate and its key. Has no `Debug`: a key is not shown.
#[derive(Clone)]
pub(crate) struct KeyPair {
    pub(crate) certificate: X509,
    pub(crate) key: PKey<Private>,
}

/// Why there is no pair.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// Only one of the two files is there.
    #[error("{0} is missing from the data directory while its counterpart is there")]
    Missing(String),
    /// The two files are of different pairs.
    #[error("{0}.pem and {0}.key in the data directory do not belong together")]
    NotAPair(&'static str),
    /// A file cannot be read or written.
    #[error("{0}: {1}")]
    Io(&'static str, io::Error),
    /// OpenSSL's word.
    #[error("{0}: {1}")]
    OpenSsl(&'static str, ErrorStack),
}

impl KeyPair {
    /// Reads `name.pem` and `name.key` of a data directory, making them when there are none.
    pub(crate) fn open(
        directory: &Path,
        name: &'static str,
        make: impl FnOnce() -> Result<Self, ErrorStack>,
    ) -> Result<Self, KeyFileError> {
        if let Some(kept) = Self::reopen(directory, name)? {
            return Ok(kept);
        }
        let io = |error| KeyFileError::Io(name, error);
        let openssl = |error| KeyFileError::OpenSsl(name, error);
        let pem = make().and_then(|made| made.to_pem()).map_err(openssl)?;
        for (file, pem) in files(directory, name).iter().zip(&pem) {
            write_new(&staged(file), pem).map_err(io)?;
        }
        sync_directory(directory).map_err(io)?;
        Self::reopen(directory, name)?.ok_or_else(|| io(io::ErrorKind::NotFound.into()))
    }

    /// Reads the pair, if there is one.
    pub(crate) fn reopen(
        directory: &Path,
        name: &'static str,
    ) -> Result<Option<Self>, KeyFileError> {
        let io = |error| KeyFileError::Io(name, error);
        let openssl = |error| KeyFileError::OpenSsl(name, error);
        let files = files(directory, name);
        let made = files.clone().map(|file| staged(&file));
        let kept = files.iter().filter(|file| file.exists()).count();
        let each_exists = |(file, new): (&PathBuf, &PathBuf)| file.exists() || new.exists();
        if kept < 2 && !files.iter().zip(&made).all(each_exists) {
            let Some(missing) = files.iter().find(|file| kept == 1 && !file.exists()) else {
                return Ok(None);
            };
            let missing = missing.file_name().unwrap_or_default().to_string_lossy();
            return Err(KeyFileError::Missing(missing.into_owned()));
        }
        let mut renamed = false;
        for (file, new) in files.iter().zip(&made) {
            if !file.exists() {
                fs::rename(new, file).map_err(io)?;
                renamed = true;
            }
        }
        if renamed {
            sync_directory(directory).map_err(io)?;
        }
        let [key, certificate] = files.map(fs::read);
        let pair = Self {
            certificate: X509::from_pem(&certificate.map_err(io)?).map_err(openssl)?,
            key: PKey::private_key_from_pem(&key.map_err(io)?).map_err(openssl)?,
        };
        let public = pair.certificate.public_key().map_err(openssl)?;
        let belongs = public.public_eq(&pair.key);
        if !belongs {
            return Err(KeyFileError::NotAPair(name));
        }
        Ok(Some(pair))
    }

    fn to_pem(&self) -> Result<[Vec<u8>; 2], ErrorStack> {
        Ok([
            self.key.private_key_to_pem_pkcs8()?,
            self.certificate.to_pem()?,
        ])
    }
}

/// A certificate that signs itself, in our name, from today on; `extend` says what for.
pub(crate) fn self_signed(
    common_name: &str,
    key: PKey<Private>,
    valid_days: u32,
    extend: impl FnOnce(&mut X509Builder) -> Result<(), ErrorStack>,
) -> Result<KeyPair, ErrorStack> {
    let mut name = X509NameBuilder::new()?;
    name.append_entry_by_text("O", "Reveille")?;
    name.append_entry_by_text("CN", common_name)?;
    let name = name.build();
    let mut serial = BigNum::new()?;
    serial.rand(127, MsbOption::MAYBE_ZERO, false)?;
    let mut builder = X509::builder()?;
    builder.set_version(2)?;
    builder.set_serial_number(&*serial.to_asn1_integer()?)?;
    builder.set_subject_name(&name)?;
    builder.set_issuer_name(&name)?;
    builder.set_pubkey(&key)?;
    builder.set_not_before(&*Asn1Time::days_from_now(0)?)?;
    builder.set_not_after(&*Asn1Time::days_from_now(valid_days)?)?;
    extend(&mut builder)?;
    builder.sign(&key, MessageDigest::sha256())?;
    Ok(KeyPair {
        certificate: builder.build(),
        key,
    })
}

/// An RSA-2048 key.
pub(crate) fn rsa_key() -> Result<PKey<Private>, ErrorStack> {
    PKey::from_rsa(Rsa::generate(2048)?)
}

/// A P-256 key.
pub(crate) fn p256_key() -> Result<PKey<Private>, ErrorStack> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    PKey::from_ec_key(EcKey::generate(&group)?)
}

/// Of the key and of the certificate.
fn files(directory: &Path, name: &str) -> [PathBuf; 2] {
    ["key", "pem"].map(|kind| directory.join(format!("{name}.{kind}")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn make() -> Result<KeyPair, ErrorStack> {
        self_signed("It", p256_key()?, 1, |_| Ok(()))
    }

    fn certificate(directory: &Path) -> Result<Vec<u8>, KeyFileError> {
        let pair = KeyPair::open(directory, "it", make)?;
        Ok(pair.certificate.to_der().unwrap())
    }

    #[test]
    fn a_pair_is_made_once_and_nobody_else_may_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let made = certificate(directory.path()).unwrap();
        assert_eq!(certificate(directory.path()).unwrap(), made);
        for file in ["it.key", "it.pem"] {
            let metadata = fs::metadata(directory.path().join(file)).unwrap();
            assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{file}");
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn half_a_pair_is_an_error_and_so_are_two_halves() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        certificate(one.path()).unwrap();
        certificate(other.path()).unwrap();
        fs::copy(other.path().join("it.key"), one.path().join("it.key")).unwrap();
        let mixed = certificate(one.path());
        assert!(matches!(mixed, Err(KeyFileError::NotAPair("it"))));
        for file in ["it.pem", "it.key"] {
            fs::rename(other.path().join(file), one.path().join("away")).unwrap();
            let half = certificate(other.path()).unwrap_err();
            assert!(half.to_string().starts_with(file), "{half}");
            fs::rename(one.path().join("away"), other.path().join(file)).unwrap();
        }
    }

    #[test]
    fn a_making_that_was_cut_off_is_finished_or_done_again() {
        let whole = tempfile::tempdir().unwrap();
        let made = certificate(whole.path()).unwrap();
        // A file has its name or not; what has none was written before.
        for (named, written, goes_on) in [
            (["it.key"].as_slice(), ["it.pem"].as_slice(), true),
            (&["it.pem"], &["it.key"], true),
            (&[], &["it.key", "it.pem"], true),
            (&[], &["it.key"], false),
            (&[], &[], false),
        ] {
            let cut = tempfile::tempdir().unwrap();
            for file in named {
                fs::copy(whole.path().join(file), cut.path().join(file)).unwrap();
            }
            for file in written {
                let new = staged(&cut.path().join(file));
                fs::copy(whole.path().join(file), new).unwrap();
            }
            let opened = certificate(cut.path()).unwrap();
            assert_eq!(opened == made, goes_on, "{named:?} {written:?}");
            assert_eq!(certificate(cut.path()).unwrap(), opened);
            assert_eq!(fs::read_dir(cut.path()).unwrap().count(), 2);
        }
    }
}
