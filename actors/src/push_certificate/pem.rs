//! PEM blocks, found more patiently than OpenSSL does.
//!
//! People paste certificate and key together with `cat`, and a file without a
//! last newline glues `-----END …-----` to the next `-----BEGIN …-----`. Each
//! block is cut out here and given to OpenSSL alone.

use openssl::pkey::{PKey, Private};
use openssl::x509::X509;

use super::{PushCertificateError, legacy};

/// One PEM block, from `-----BEGIN` to the dashes after `END`.
pub(super) struct Block<'a> {
    label: &'a [u8],
    whole: &'a [u8],
}

impl Block<'_> {
    pub(super) fn is_certificate(&self) -> bool {
        matches!(
            self.label,
            b"CERTIFICATE" | b"X509 CERTIFICATE" | b"TRUSTED CERTIFICATE"
        )
    }

    pub(super) fn is_key(&self) -> bool {
        self.label.ends_with(b"PRIVATE KEY")
    }

    pub(super) fn is_request(&self) -> bool {
        self.label.ends_with(b"CERTIFICATE REQUEST")
    }

    /// The block as it stands, for OpenSSL.
    pub(super) fn whole(&self) -> &[u8] {
        self.whole
    }

    pub(super) fn label(&self) -> String {
        printable(self.label)
    }

    pub(super) fn certificate(&self) -> Result<X509, PushCertificateError> {
        X509::from_pem(self.whole).map_err(|_| self.damaged())
    }

    /// Reads the private key; never lets OpenSSL ask at a terminal.
    pub(super) fn key(
        &self,
        passphrase: Option<&str>,
    ) -> Result<PKey<Private>, PushCertificateError> {
        if !self.is_encrypted() {
            return PKey::private_key_from_pem_callback(self.whole, |_| Ok(0))
                .map_err(|_| self.damaged());
        }
        let passphrase = passphrase
            .ok_or(PushCertificateError::PassphraseNeeded)?
            .as_bytes();
        let open = || {
            PKey::private_key_from_pem_callback(self.whole, |room| {
                Ok(room.get_mut(..passphrase.len()).map_or(0, |room| {
                    room.copy_from_slice(passphrase);
                    passphrase.len()
                }))
            })
        };
        legacy::with_legacy(open).map_err(|stack| {
            if legacy::has_reason(&stack, "unsupported") {
                PushCertificateError::LegacyCipher
            } else {
                PushCertificateError::WrongPassphrase
            }
        })
    }

    fn is_encrypted(&self) -> bool {
        self.label == b"ENCRYPTED PRIVATE KEY" || find(self.whole, b"4,ENCRYPTED").is_some()
    }

    fn damaged(&self) -> PushCertificateError {
        PushCertificateError::DamagedBlock {
            label: self.label(),
        }
    }
}

/// The PEM blocks of `bytes`, in order; text between them is passed over.
pub(super) fn blocks(
    mut bytes: &[u8],
) -> impl Iterator<Item = Result<Block<'_>, PushCertificateError>> {
    std::iter::from_fn(move || {
        let block = bytes.get(find(bytes, BEGIN)?..)?;
        let Some((label, length)) = measure(block) else {
            bytes = &[];
            let label = printable(block.get(BEGIN.len()..).unwrap_or_default());
            return Some(Err(PushCertificateError::DamagedBlock { label }));
        };
        let (whole, rest) = block.split_at_checked(length)?;
        bytes = rest;
        Some(Ok(Block { label, whole }))
    })
}

/// The label and the whole length of the block that `block` begins with.
fn measure(block: &[u8]) -> Option<(&[u8], usize)> {
    let after = block.get(BEGIN.len()..)?;
    let label = after.get(..find(after, DASHES)?)?;
    let end = [b"-----END ", label, DASHES].concat();
    Some((label, find(block, &end)? + end.len()))
}

fn find(within: &[u8], what: &[u8]) -> Option<usize> {
    within.windows(what.len()).position(|window| window == what)
}

/// A label for an error message: short, and capitals and spaces only.
fn printable(label: &[u8]) -> String {
    let printable = |b: &&u8| b.is_ascii_uppercase() || b.is_ascii_digit() || **b == b' ';
    label
        .iter()
        .take(40)
        .take_while(printable)
        .map(|b| char::from(*b))
        .collect()
}

const BEGIN: &[u8] = b"-----BEGIN ";
const DASHES: &[u8] = b"-----";
