//! What an MDM vendor does: vouches for a customer's request, so that Apple's push
//! portal takes it.
//!
//! Needs a vendor's certificate and key, and works on files alone: no server, no
//! store. Called by the command line.

use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::{Id, PKey, Private};
use openssl::sign::Signer;
use openssl::x509::{X509, X509Ref, X509Req, X509VerifyResult};
use schema::UnixMillis;
use schema::vendor_request::VendorRequest;

use super::{PushCertificateError, belongs, one_line, pem, unix_seconds};

/// A vendor's certificate, its key and its issuers, checked against each other.
///
/// `Debug` shows nothing of the key.
pub struct Vendor {
    key: PKey<Private>,
    chain_pem: String,
}

impl std::fmt::Debug for Vendor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vendor").finish_non_exhaustive()
    }
}

impl Vendor {
    /// Reads the certificate (PEM or DER), its key (PEM) and the certificates of its
    /// issuers up to the root, each file PEM or DER, in any order.
    ///
    /// # Errors
    /// [`VendorError`] says what is missing or does not belong together.
    pub fn read(
        certificate: &[u8],
        key: &[u8],
        passphrase: Option<&str>,
        issuers: &[Vec<u8>],
        now: UnixMillis,
    ) -> Result<Self, VendorError> {
        let key = private_key(key, passphrase)?;
        let given = certificates(certificate)?;
        let leaf = given
            .iter()
            .find(|certificate| belongs(certificate, &key))
            .ok_or(VendorError::KeyMismatch)?
            .clone();
        if key.id() != Id::RSA {
            return Err(VendorError::NotRsa);
        }
        let mut pool = given;
        for file in issuers {
            pool.extend(certificates(file)?);
        }
        let chain = chain(leaf, &pool)?;
        let mut chain_pem = Vec::new();
        for certificate in &chain {
            in_force(certificate, now)?;
            chain_pem.extend(certificate.to_pem()?);
        }
        let chain_pem = String::from_utf8_lossy(&chain_pem).into_owned();
        Ok(Self { key, chain_pem })
    }

    /// Vouches for a request (PEM or DER).
    ///
    /// # Errors
    /// [`VendorError::BadRequest`] when it is none, or not one Apple would take.
    pub fn sign(&self, csr: &[u8]) -> Result<VendorRequest, VendorError> {
        let csr = request(csr)?;
        let mut signer = Signer::new(MessageDigest::sha256(), &self.key)?;
        let signature = signer.sign_oneshot_to_vec(&csr)?;
        Ok(VendorRequest {
            csr,
            chain_pem: self.chain_pem.clone(),
            signature,
        })
    }
}

/// Why a vendor cannot vouch.
#[derive(Debug, thiserror::Error)]
pub enum VendorError {
    /// A file cannot be read as PEM.
    #[error(transparent)]
    Unreadable(#[from] PushCertificateError),
    /// A file holds no certificate.
    #[error("no certificate found, neither PEM nor DER")]
    NoCertificate,
    /// There is no private key.
    #[error("the vendor key file holds no private key")]
    NoKey,
    /// The key is not that of the certificate.
    #[error("the vendor key does not belong to the vendor certificate")]
    KeyMismatch,
    /// Apple takes RSA signatures alone.
    #[error("the vendor key is no RSA key")]
    NotRsa,
    /// A certificate on the way to the root is not there.
    #[error("the chain is incomplete: the certificate of issuer {issuer:?} is missing")]
    Incomplete {
        /// Its subject in one line.
        issuer: String,
    },
    /// A certificate of the chain is not valid now.
    #[error("the certificate {subject:?} is not valid now")]
    NotInForce {
        /// Its subject in one line.
        subject: String,
    },
    /// The request is none.
    #[error("the certificate request {0}")]
    BadRequest(&'static str),
    /// OpenSSL failed.
    #[error("openssl: {0}")]
    OpenSsl(#[from] ErrorStack),
}

fn private_key(file: &[u8], passphrase: Option<&str>) -> Result<PKey<Private>, VendorError> {
    for block in pem::blocks(file) {
        let block = block?;
        if block.is_key() {
            return Ok(block.key(passphrase)?);
        }
    }
    Err(VendorError::NoKey)
}

fn certificates(file: &[u8]) -> Result<Vec<X509>, VendorError> {
    let mut found = Vec::new();
    for block in pem::blocks(file) {
        let block = block?;
        if block.is_certificate() {
            found.push(block.certificate()?);
        }
    }
    if found.is_empty() {
        found.push(X509::from_der(file).map_err(|_| VendorError::NoCertificate)?);
    }
    Ok(found)
}

/// From the leaf to a root, each signed by the next.
fn chain(leaf: X509, pool: &[X509]) -> Result<Vec<X509>, VendorError> {
    let mut chain = vec![leaf];
    while let Some(last) = chain.last().filter(|last| !signed_by(last, last)) {
        let next = pool
            .iter()
            .find(|issuer| signed_by(last, issuer))
            .filter(|_| chain.len() < LONGEST_CHAIN);
        let next = next.ok_or_else(|| VendorError::Incomplete {
            issuer: one_line(last.issuer_name()),
        })?;
        chain.push(next.clone());
    }
    Ok(chain)
}

fn signed_by(certificate: &X509Ref, issuer: &X509Ref) -> bool {
    issuer.issued(certificate) == X509VerifyResult::OK
        && issuer
            .public_key()
            .is_ok_and(|key| certificate.verify(&key).unwrap_or(false))
}

fn in_force(certificate: &X509Ref, now: UnixMillis) -> Result<(), VendorError> {
    let now = i64::try_from(now.seconds()).unwrap_or(i64::MAX);
    let from = unix_seconds(certificate.not_before())?;
    if (from..=unix_seconds(certificate.not_after())?).contains(&now) {
        return Ok(());
    }
    Err(VendorError::NotInForce {
        subject: one_line(certificate.subject_name()),
    })
}

/// The DER of a request that is whole and made with a key Apple takes.
fn request(file: &[u8]) -> Result<Vec<u8>, VendorError> {
    let mut blocks = pem::blocks(file).filter_map(Result::ok);
    let read = match blocks.find(pem::Block::is_request) {
        Some(block) => X509Req::from_pem(block.whole()),
        None => X509Req::from_der(file),
    };
    let request = read.map_err(|_| VendorError::BadRequest("cannot be read"))?;
    let key = request.public_key()?;
    if !request.verify(&key).unwrap_or(false) {
        return Err(VendorError::BadRequest("is not signed by its own key"));
    }
    if key.id() != Id::RSA || key.bits() < 2048 {
        return Err(VendorError::BadRequest("has no RSA key of 2048 bits"));
    }
    Ok(request.to_der()?)
}

const LONGEST_CHAIN: usize = 8;

#[cfg(test)]
mod tests {
    use openssl::asn1::Asn1Time;
    use openssl::rsa::Rsa;
    use openssl::sign::Verifier;
    use openssl::x509::extension::BasicConstraints;
    use openssl::x509::{X509, X509NameBuilder};

    use super::super::PendingKey;
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    struct Issued {
        certificate: X509,
        key: PKey<Private>,
    }

    impl Issued {
        fn new(name: &str, bits: u32, issuer: Option<&Issued>) -> Self {
            let key = PKey::from_rsa(Rsa::generate(bits).unwrap()).unwrap();
            let mut subject = X509NameBuilder::new().unwrap();
            subject.append_entry_by_text("CN", name).unwrap();
            let subject = subject.build();
            let mut builder = X509::builder().unwrap();
            builder.set_version(2).unwrap();
            builder.set_subject_name(&subject).unwrap();
            builder
                .set_issuer_name(issuer.map_or(&subject, |i| i.certificate.subject_name()))
                .unwrap();
            let at = |seconds| Asn1Time::from_unix(seconds).unwrap();
            builder.set_not_before(&at(1_790_000_000)).unwrap();
            builder.set_not_after(&at(1_810_000_000)).unwrap();
            builder.set_pubkey(&key).unwrap();
            builder
                .append_extension(BasicConstraints::new().critical().ca().build().unwrap())
                .unwrap();
            let signs = issuer.map_or(&key, |issuer| &issuer.key);
            builder.sign(signs, MessageDigest::sha256()).unwrap();
            Self {
                certificate: builder.build(),
                key,
            }
        }

        fn pem(&self) -> Vec<u8> {
            self.certificate.to_pem().unwrap()
        }

        fn key_pem(&self) -> Vec<u8> {
            self.key.private_key_to_pem_pkcs8().unwrap()
        }
    }

    fn hierarchy() -> [Issued; 3] {
        let root = Issued::new("Root", 2048, None);
        let middle = Issued::new("Middle", 2048, Some(&root));
        let vendor = Issued::new("MDM Vendor: Test", 2048, Some(&middle));
        [root, middle, vendor]
    }

    #[test]
    fn a_request_is_signed_and_carries_the_chain_from_leaf_to_root() {
        let [root, middle, vendor] = hierarchy();
        // As Apple hands them out: the issuers in DER, in files of their own.
        let issuers = [
            root.certificate.to_der().unwrap(),
            middle.certificate.to_der().unwrap(),
        ];
        let read = Vendor::read(&vendor.pem(), &vendor.key_pem(), None, &issuers, NOW).unwrap();
        let pending = PendingKey::make().unwrap();
        let request = read.sign(pending.csr_pem.as_bytes()).unwrap();
        let chain = [vendor.pem(), middle.pem(), root.pem()].concat();
        assert_eq!(request.chain_pem.as_bytes(), chain);
        let csr = X509Req::from_pem(pending.csr_pem.as_bytes()).unwrap();
        assert_eq!(request.csr, csr.to_der().unwrap());
        let public = vendor.certificate.public_key().unwrap();
        let mut verifier = Verifier::new(MessageDigest::sha256(), &public).unwrap();
        assert!(
            verifier
                .verify_oneshot(&request.signature, &request.csr)
                .unwrap()
        );
        assert_eq!(
            read.sign(&request.csr).unwrap(),
            request,
            "DER is taken too"
        );
    }

    #[test]
    fn what_does_not_belong_together_is_named() {
        let [root, middle, vendor] = hierarchy();
        let read = |certificate: &[u8], key: &[u8], issuers: &[Vec<u8>], now| {
            Vendor::read(certificate, key, None, issuers, now)
                .unwrap_err()
                .to_string()
        };
        let (pem, key) = (vendor.pem(), vendor.key_pem());
        let issuers = [[middle.pem(), root.pem()].concat()];
        let late = UnixMillis(1_820_000_000_000);
        let cases = [
            (
                read(&pem, &root.key_pem(), &issuers, NOW),
                "does not belong",
            ),
            (read(&pem, &pem, &issuers, NOW), "holds no private key"),
            (read(b"x", &key, &issuers, NOW), "no certificate found"),
            (
                read(&pem, &key, &[root.pem()], NOW),
                "\"CN=Middle\" is missing",
            ),
            (
                read(&pem, &key, &[middle.pem()], NOW),
                "\"CN=Root\" is missing",
            ),
            (read(&pem, &key, &issuers, late), "Test\" is not valid now"),
        ];
        for (message, expected) in cases {
            assert!(
                message.contains(expected),
                "{message} should say {expected}"
            );
        }
    }

    #[test]
    fn a_request_apple_would_not_take_is_refused() {
        let [root, middle, vendor] = hierarchy();
        let issuers = [middle.pem(), root.pem()];
        let read = Vendor::read(&vendor.pem(), &vendor.key_pem(), None, &issuers, NOW).unwrap();
        let csr = |signed_with: &PKey<Private>, of: &PKey<Private>| {
            let mut builder = X509Req::builder().unwrap();
            builder.set_pubkey(of).unwrap();
            builder.sign(signed_with, MessageDigest::sha256()).unwrap();
            builder.build().to_pem().unwrap()
        };
        let small = PKey::from_rsa(Rsa::generate(1024).unwrap()).unwrap();
        let cases = [
            (b"hello".to_vec(), "cannot be read"),
            (csr(&root.key, &middle.key), "not signed by its own key"),
            (csr(&small, &small), "no RSA key of 2048 bits"),
        ];
        for (csr, expected) in cases {
            let message = read.sign(&csr).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
