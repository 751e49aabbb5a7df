//! SCEP: answers a device that asks for its identity certificate.
//!
//! Reads and judges the request, lets the CA sign, has the store spend the challenge
//! and record the certificate, and only then answers. All arithmetic runs on the
//! blocking pool, a few requests at a time. Called by the SCEP door; knows no HTTP.

mod judge;
mod pkcs12;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use openssl::hash::hash;
use openssl::rand::rand_bytes;
use openssl::rsa::Padding;
use openssl::symm::{Cipher, encrypt};
use openssl::x509::X509;
use schema::cms::{self, ContentCipher, DigestAlgorithm};
use schema::expiry::Purpose;
use schema::scep::{Answer, PkiMessage, Reply, Unreadable};
use schema::x509::Certificate;
use tokio::sync::Semaphore;

use crate::ca::{CaError, DeviceCa, Ra, message_digest};
use crate::clock::Clock;
use crate::expiry::Expiries;
use crate::store::{IssuedCertificate, Refusal, Spent};
use crate::{Store, StoreError};
use judge::{Failed, Grant, Granted, PaidWith, Stop};
pub use pkcs12::MadeIdentity;

/// The SCEP server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Scep {
    inner: Arc<Inner>,
}

struct Inner {
    directory: PathBuf,
    ca: DeviceCa,
    ra: RwLock<Arc<Ra>>,
    store: Store,
    clock: Clock,
    expiries: Expiries,
    validity_days: u32,
    turns: Semaphore,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scep").finish_non_exhaustive()
    }
}

/// Why a message gets no CertRep.
#[derive(Debug, thiserror::Error)]
pub enum ScepError {
    /// The sender's fault: there is nothing in it to answer to.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// Ours: the store did not take or give it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Ours: the CA cannot sign.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// Ours: the work was cut short.
    #[error("the server is going down")]
    Stopping,
}

/// To whom and how to answer, as the request says.
#[derive(Clone, Debug)]
struct Asker {
    transaction: String,
    nonce: Vec<u8>,
    digest: DigestAlgorithm,
    /// DER of the certificate that signed the request.
    certificate: Vec<u8>,
}

/// What came of reading a request.
enum Read {
    /// Nothing is issued; this is the answer.
    Refused(Vec<u8>),
    /// It may have a certificate.
    Granted(Box<Granted>, Asker),
}

impl Scep {
    /// Opens the RA of a data directory, making it when there is none.
    ///
    /// # Errors
    /// [`CaError`] when a file cannot be read or written.
    pub fn open(
        directory: &Path,
        ca: DeviceCa,
        store: Store,
        clock: Clock,
        expiries: Expiries,
        validity_days: u32,
    ) -> Result<Self, CaError> {
        let ra = Ra::open(directory, &ca, clock.now())?;
        watch(&expiries, &ra);
        let turns = std::thread::available_parallelism().map_or(2, usize::from);
        let inner = Inner {
            directory: directory.to_owned(),
            ca,
            ra: RwLock::new(Arc::new(ra)),
            store,
            clock,
            expiries,
            validity_days,
            turns: Semaphore::new(turns),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The device CA that issues.
    #[must_use]
    pub fn ca(&self) -> &DeviceCa {
        &self.inner.ca
    }

    /// The certificates of the RA and of the CA, in this order, as clients fetch them.
    ///
    /// # Errors
    /// [`ScepError`]: our own trouble.
    pub async fn certificates(&self) -> Result<Vec<u8>, ScepError> {
        self.turn(|scep| {
            let (ra, ca) = (scep.ra()?, scep.ca.certificate_der()?);
            Ok(cms::certificates_only(&[&ra.certificate_der, &ca]))
        })
        .await
    }

    /// Renews the RA when it is time, whether or not a device comes.
    ///
    /// # Errors
    /// [`ScepError`]: our own trouble, and the RA has expired over it.
    pub async fn keep_ra(&self) -> Result<(), ScepError> {
        self.turn(|scep| Ok(scep.ra().map(drop)?)).await
    }

    /// Answers a pkiMessage with a CertRep.
    ///
    /// # Errors
    /// [`ScepError`] when there is nothing to answer to, or for our own trouble.
    pub async fn answer(&self, message: Bytes) -> Result<Vec<u8>, ScepError> {
        let read = self.turn(move |scep| scep.read(&message)).await?;
        let (granted, asker) = match read {
            Read::Refused(answer) => return Ok(answer),
            Read::Granted(granted, asker) => (granted, asker),
        };
        let Granted {
            cipher,
            certificate,
        } = *granted;
        let issued = match certificate {
            Grant::Before(der) => Ok(der),
            Grant::Fresh(paid_with, certificate) => self.record(paid_with, certificate).await?,
        };
        self.turn(move |scep| match issued {
            Ok(der) => scep.hand_over(&asker, &der, cipher),
            Err(refusal) => scep.refuse(&asker, &refusal.into()),
        })
        .await
    }

    /// Has the store spend what the certificate is paid with; the certificate to hand over.
    async fn record(
        &self,
        paid_with: PaidWith,
        certificate: IssuedCertificate,
    ) -> Result<Result<Vec<u8>, Refusal>, StoreError> {
        let store = &self.inner.store;
        let fresh = certificate.der.clone();
        let spent = match paid_with {
            PaidWith::Challenge(hash) => store.spend_challenge(hash, certificate).await?,
            PaidWith::Identity(bound) => store.renew_certificate(bound, certificate).await?,
        };
        Ok(match spent {
            Spent::Issued => Ok(fresh),
            Spent::AlreadyIssued(before) => Ok(before),
            Spent::Refused(refusal) => Err(refusal),
        })
    }

    /// Waits for a turn and takes it on the blocking pool.
    async fn turn<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, ScepError> + Send + 'static,
    ) -> Result<T, ScepError> {
        let turn = self.inner.turns.acquire().await;
        let _turn = turn.map_err(|_| ScepError::Stopping)?;
        let inner = self.inner.clone();
        tokio::task::spawn_blocking(move || work(&inner))
            .await
            .map_err(|_| ScepError::Stopping)?
    }
}

impl Inner {
    /// The RA, renewed when it is time. One that cannot be is used while it lasts.
    fn ra(&self) -> Result<Arc<Ra>, CaError> {
        let now = self.clock.now();
        let ra = self
            .ra
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if !ra.is_due(now) {
            return Ok(ra);
        }
        let mut place = self.ra.write().unwrap_or_else(PoisonError::into_inner);
        if !place.is_due(now) {
            return Ok(place.clone());
        }
        match Ra::open(&self.directory, &self.ca, now) {
            Ok(renewed) => {
                watch(&self.expiries, &renewed);
                *place = Arc::new(renewed);
                tracing::info!("SCEP RA certificate renewed");
            }
            Err(error) => {
                tracing::error!(%error, "the SCEP RA certificate cannot be renewed");
                self.expiries.failing(Purpose::Ra, RA, error.to_string());
                if place.is_over(now) {
                    return Err(error);
                }
            }
        }
        Ok(place.clone())
    }

    fn read(&self, encoding: &[u8]) -> Result<Read, ScepError> {
        let message = PkiMessage::parse(encoding)?;
        let asker = Asker {
            transaction: message.transaction.clone(),
            nonce: message.sender_nonce.clone(),
            digest: message.signed.signer.digest,
            certificate: message.signer.raw.to_vec(),
        };
        match self.judge(&message) {
            Ok(granted) => Ok(Read::Granted(Box::new(granted), asker)),
            Err(Stop::Failed(failed)) => self.refuse(&asker, &failed).map(Read::Refused),
            Err(Stop::Ours(error)) => Err(error),
        }
    }

    /// SUCCESS, with the certificate under the request's own cipher.
    fn hand_over(
        &self,
        asker: &Asker,
        certificate: &[u8],
        cipher: ContentCipher,
    ) -> Result<Vec<u8>, ScepError> {
        let content = cms::certificates_only(&[certificate]);
        let enveloped = seal(&asker.certificate, &content, cipher)?;
        Ok(self.reply(asker, Answer::Issued(enveloped))?)
    }

    /// FAILURE.
    fn refuse(&self, asker: &Asker, failed: &Failed) -> Result<Vec<u8>, ScepError> {
        let transaction = &asker.transaction;
        tracing::info!(%transaction, why = %failed.why, "no certificate is issued");
        Ok(self.reply(asker, Answer::Failed(failed.info))?)
    }

    fn reply(&self, asker: &Asker, answer: Answer) -> Result<Vec<u8>, CaError> {
        let ra = self.ra()?;
        let reply = Reply {
            transaction: &asker.transaction,
            recipient_nonce: &asker.nonce,
            sender_nonce: &ra.nonce(&asker.transaction, &asker.nonce),
            answer,
        };
        let digest = message_digest(asker.digest);
        let attributes = reply.attributes(&hash(digest, reply.content())?);
        let signature = ra.sign(digest, &attributes)?;
        let signer = Certificate::parse(&ra.certificate_der)?;
        Ok(reply.write(&signer, asker.digest, &attributes, &signature))
    }
}

fn watch(expiries: &Expiries, ra: &Ra) {
    expiries.watch_renewed(Purpose::Ra, RA, ra.not_before, ra.not_after);
}

/// Puts content into an envelope for the holder of an RSA certificate.
fn seal(recipient: &[u8], content: &[u8], cipher: ContentCipher) -> Result<Vec<u8>, CaError> {
    let rsa = X509::from_der(recipient)?.public_key()?.rsa()?;
    let mut key = vec![0; cipher.key_len()];
    let mut iv = vec![0; cipher.block_len()];
    rand_bytes(&mut key)?;
    rand_bytes(&mut iv)?;
    let ciphertext = encrypt(openssl_cipher(cipher), &key, Some(&iv), content)?;
    let mut encrypted_key = vec![0; rsa.size() as usize];
    let len = rsa.public_encrypt(&key, &mut encrypted_key, Padding::PKCS1)?;
    encrypted_key.truncate(len);
    let recipient = Certificate::parse(recipient)?;
    Ok(cms::enveloped(
        &recipient,
        &encrypted_key,
        cipher,
        &iv,
        &ciphertext,
    ))
}

fn openssl_cipher(cipher: ContentCipher) -> Cipher {
    match cipher {
        ContentCipher::Aes128 => Cipher::aes_128_cbc(),
        ContentCipher::Aes192 => Cipher::aes_192_cbc(),
        ContentCipher::Aes256 => Cipher::aes_256_cbc(),
        ContentCipher::Des3 => Cipher::des_ede3_cbc(),
    }
}

/// What the RA is called among the watched certificates.
const RA: &str = "ra.pem";
