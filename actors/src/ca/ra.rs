//! The registration authority: the RSA certificate that SCEP clients encrypt to and
//! that signs what they get, so that the CA's own key never decrypts for strangers.
//!
//! Kept as `ra.key` and `ra.pem` beside the CA. Unlike the CA it can be made again at
//! any time: clients fetch it anew for every request. Called by `scep` only.

use std::fs;
use std::io;
use std::path::Path;

use aws_lc_rs::hmac;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::{Padding, Rsa};
use openssl::sha::Sha256;
use openssl::sign::Signer;
use openssl::x509::X509;
use openssl::x509::extension::KeyUsage;
use schema::UnixMillis;
use schema::x509::Certificate;

use super::{CaError, DeviceCa};
use crate::key_files::rsa_key;
use crate::private_file;
use crate::push_certificate::unix_seconds;

/// The certificate and key that stand before the CA.
pub(crate) struct Ra {
    /// Its certificate.
    pub(crate) certificate_der: Vec<u8>,
    key: PKey<Private>,
    rsa: Rsa<Private>,
    secret: hmac::Key,
    /// First moment of its validity, in Unix seconds.
    pub(crate) not_before: i64,
    /// Last moment of its validity, in Unix seconds.
    pub(crate) not_after: i64,
    /// The last moment of the CA's, which none of its certificates outlives.
    ca_not_after: i64,
}

impl std::fmt::Debug for Ra {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ra(..)")
    }
}

impl Ra {
    /// Reads the RA of a data directory; makes what is missing, ending soon, or of
    /// another CA.
    pub(crate) fn open(directory: &Path, ca: &DeviceCa, now: UnixMillis) -> Result<Self, CaError> {
        let (key_file, certificate_file) = (directory.join("ra.key"), directory.join("ra.pem"));
        let key = match fs::read(&key_file) {
            Ok(pem) => PKey::private_key_from_pem(&pem)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = rsa_key()?;
                private_file::replace(&key_file, &key.private_key_to_pem_pkcs8()?)?;
                key
            }
            Err(error) => return Err(error.into()),
        };
        let kept = fs::read(&certificate_file)
            .ok()
            .and_then(|pem| X509::from_pem(&pem).ok())
            .filter(|kept| ca.stands_behind(kept, &key));
        if let Some(kept) = kept {
            let ra = Self::of(&kept, key.clone(), ca)?;
            if !ra.is_due(now) {
                return Ok(ra);
            }
        }
        let usage = KeyUsage::new()
            .critical()
            .digital_signature()
            .key_encipherment()
            .build()?;
        let made = ca.certify("Reveille SCEP RA", &key, VALID_DAYS, now, |builder| {
            builder.append_extension(usage)
        })?;
        private_file::replace(&certificate_file, &made.to_pem()?)?;
        Self::of(&made, key, ca)
    }

    fn of(certificate: &X509, key: PKey<Private>, ca: &DeviceCa) -> Result<Self, CaError> {
        let certificate_der = certificate.to_der()?;
        let mut seed = Sha256::new();
        seed.update(b"reveille scep ra");
        seed.update(&key.private_key_to_der()?);
        let read = Certificate::parse(&certificate_der)?;
        Ok(Self {
            not_before: read.not_before,
            not_after: read.not_after,
            ca_not_after: unix_seconds(ca.signer.certificate.not_after())?,
            certificate_der,
            rsa: key.rsa()?,
            key,
            secret: hmac::Key::new(hmac::HMAC_SHA256, &seed.finish()),
        })
    }

    /// Is it time for a new certificate? It ends soon and a new one would last longer, or
    /// it was made under a clock that ran ahead.
    pub(crate) fn is_due(&self, now: UnixMillis) -> bool {
        let now = i64::try_from(now.seconds()).unwrap_or(i64::MAX);
        let left = i64::from(RENEWED_DAYS_BEFORE) * 86_400;
        let ends_soon = now >= self.not_after.saturating_sub(left);
        now < self.not_before || (ends_soon && self.not_after < self.ca_not_after)
    }

    /// Is it of no use any more?
    pub(crate) fn is_over(&self, now: UnixMillis) -> bool {
        i64::try_from(now.seconds()).unwrap_or(i64::MAX) > self.not_after
    }

    /// A content key of `len` octets (at most 32) out of its RSA envelope.
    ///
    /// Never fails: what was not encrypted to us as it should be yields a key that only
    /// we could foretell, the same each time (implicit rejection), and no path here
    /// depends on the plaintext. OpenSSL does this by itself only from 3.2 on.
    pub(crate) fn content_key(&self, encrypted: &[u8], len: usize) -> Vec<u8> {
        let mut block = vec![0; self.rsa.size() as usize];
        // Whether this fails depends on the modulus and the ciphertext, both public.
        if encrypted.len() != block.len()
            || self
                .rsa
                .private_decrypt(encrypted, &mut block, Padding::NONE)
                .is_err()
        {
            block.fill(0);
        }
        let rejected = hmac::sign(&self.secret, encrypted);
        let (head, key) = block.split_at(block.len().saturating_sub(len));
        let [zero, two, padding @ .., end] = head else {
            return rejected.as_ref().iter().take(len).copied().collect();
        };
        let mut wrong = zero | (two ^ 2) | end;
        for octet in padding {
            wrong |= all_ones_if_zero(*octet);
        }
        let right = std::hint::black_box(all_ones_if_zero(wrong));
        key.iter()
            .zip(rejected.as_ref())
            .map(|(key, rejected)| (key & right) | (rejected & !right))
            .collect()
    }

    /// A nonce for the answer to this transaction, which nobody else can foretell.
    /// Made, not drawn: equal failures are equal to the last octet.
    pub(crate) fn nonce(&self, transaction: &str, nonce: &[u8]) -> Vec<u8> {
        let mut context = hmac::Context::with_key(&self.secret);
        context.update(b"nonce\0");
        context.update(transaction.as_bytes());
        context.update(b"\0");
        context.update(nonce);
        context.sign().as_ref().iter().take(16).copied().collect()
    }

    /// Signs, RSA PKCS#1 v1.5.
    pub(crate) fn sign(&self, digest: MessageDigest, octets: &[u8]) -> Result<Vec<u8>, ErrorStack> {
        Signer::new(digest, &self.key)?.sign_oneshot_to_vec(octets)
    }
}

impl DeviceCa {
    /// Did this CA certify this key with this certificate?
    fn stands_behind(&self, certificate: &X509, key: &PKey<Private>) -> bool {
        let signer = &self.signer;
        let ours = certificate.public_key().is_ok_and(|of| of.public_eq(key));
        ours && certificate.verify(&signer.key).unwrap_or(false)
    }
}

/// 0xff for zero, else 0, without a branch.
fn all_ones_if_zero(octet: u8) -> u8 {
    let [high, _] = u16::from(octet).wrapping_sub(1).to_be_bytes();
    high
}

const VALID_DAYS: u32 = 730;
const RENEWED_DAYS_BEFORE: u32 = 60;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::CaKey;
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn desk() -> (DeviceCa, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let ca = DeviceCa::open(directory.path(), CaKey::Rsa2048, 7300).unwrap();
        (ca, directory)
    }

    #[test]
    fn the_ra_is_no_authority_and_is_renewed_over_its_key() {
        let (ca, directory) = desk();
        let open = |now| Ra::open(directory.path(), &ca, now).unwrap();
        let ra = open(NOW);
        let certificate = X509::from_der(&ra.certificate_der).unwrap();
        let text = String::from_utf8(certificate.to_text().unwrap()).unwrap();
        assert!(text.contains("CA:FALSE"), "{text}");
        assert!(
            text.contains("Digital Signature, Key Encipherment\n"),
            "{text}"
        );
        assert!(!text.contains("Extended Key Usage"), "{text}");
        let mode = fs::metadata(directory.path().join("ra.key")).unwrap();
        assert_eq!(mode.permissions().mode() & 0o777, 0o600);

        assert_eq!(open(NOW).certificate_der, ra.certificate_der);
        let later = open(NOW.plus_seconds(671 * 86_400));
        assert_ne!(later.certificate_der, ra.certificate_der);
        assert!(later.key.public_eq(&ra.key));
        assert!(!later.is_due(NOW.plus_seconds(671 * 86_400)));
        assert!(later.is_due(NOW));
    }

    #[test]
    fn an_ra_that_lasts_as_long_as_its_ca_is_not_made_again_and_again() {
        let directory = tempfile::tempdir().unwrap();
        let ca = DeviceCa::open(directory.path(), CaKey::Rsa2048, 100).unwrap();
        let now = crate::Clock::System.now();
        let ra = Ra::open(directory.path(), &ca, now).unwrap();
        let near = now.plus_seconds(90 * 86_400);
        assert!(!ra.is_due(near) && !ra.is_over(near));
        let again = Ra::open(directory.path(), &ca, near).unwrap();
        assert_eq!(again.certificate_der, ra.certificate_der);
        assert!(ra.is_over(now.plus_seconds(101 * 86_400)));
    }

    #[test]
    fn an_ra_of_another_ca_or_without_its_key_is_made_again() {
        let (ca, directory) = desk();
        let ra = Ra::open(directory.path(), &ca, NOW).unwrap();
        let (other, _elsewhere) = desk();
        let of_other = Ra::open(directory.path(), &other, NOW).unwrap();
        assert_ne!(of_other.certificate_der, ra.certificate_der);
        fs::remove_file(directory.path().join("ra.key")).unwrap();
        let again = Ra::open(directory.path(), &other, NOW).unwrap();
        assert!(!again.key.public_eq(&ra.key));
    }

    #[test]
    fn a_key_comes_out_of_a_sound_envelope_and_a_steady_one_out_of_any_other() {
        let (ca, directory) = desk();
        let ra = Ra::open(directory.path(), &ca, NOW).unwrap();
        let seal = |plain: &[u8], padding| {
            let mut out = vec![0; 256];
            ra.rsa.public_encrypt(plain, &mut out, padding).unwrap();
            out
        };
        for len in [16, 24, 32] {
            let key = vec![7; len];
            let sound = seal(&key, Padding::PKCS1);
            assert_eq!(ra.content_key(&sound, len), key);

            let block = |change: &dyn Fn(&mut Vec<u8>)| {
                let mut block = vec![0, 2];
                block.resize(256 - len - 1, 1);
                block.push(0);
                block.extend(&key);
                change(&mut block);
                seal(&block, Padding::NONE)
            };
            assert_eq!(ra.content_key(&block(&|_| ()), len), key);
            for wrong in [
                block(&|b| b[1] = 1),
                block(&|b| b[9] = 0),
                block(&|b| b[256 - len - 1] = 9),
                seal(&vec![7; len - 1], Padding::PKCS1),
                seal(&vec![7; len + 1], Padding::PKCS1),
                seal(&[], Padding::PKCS1),
                vec![0; 256],
                vec![0xff; 256],
                vec![1; 255],
                Vec::new(),
            ] {
                let rejected = ra.content_key(&wrong, len);
                assert_eq!(rejected.len(), len);
                assert_ne!(rejected, key);
                assert_ne!(rejected, vec![7; len]);
                assert_eq!(ra.content_key(&wrong, len), rejected);
            }
        }
    }
}
