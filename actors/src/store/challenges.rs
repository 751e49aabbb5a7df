//! Challenges and the certificates issued on them.
//!
//! A certificate is recorded before it is handed to anyone, in the commit that spends
//! what it was asked for with: a one-time challenge buys one certificate, and a resend
//! of the same request gets that one again. Called by `scep`; a challenge is minted by
//! whoever makes an enrollment profile.

use std::sync::{Arc, OnceLock};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use redb::{ReadableDatabase as _, ReadableTable, WriteTransaction};
use schema::enrollment::ChannelState;
use schema::link::{LinkId, LinkVoid};
use schema::{ChannelNo, EnrollId, Leaf, UnixMillis};

use super::links::{count_link_use, open_link};
use super::tables::{
    Buys, CERTIFICATE, CERTIFICATE_DER, CHALLENGE, CHALLENGE_EXPIRY, CHANNEL, CertificateRecord,
    CertificateRow, ChallengeRecord, ChallengeRow, ChannelRow, GoodFor, ISSUED, decode, encode,
};
use super::tail::Published;
use super::{Store, StoreError};

/// A challenge to be minted.
#[derive(Clone, Debug)]
pub struct NewChallenge {
    /// The enrollment link it is minted for; empty for a renewal.
    pub link: String,
    /// Good for any number of certificates until it expires.
    pub shared: bool,
    /// The enrollment its certificate is issued for: a renewal.
    pub enrollment: Option<EnrollId>,
    /// From then on it is void.
    pub expires: UnixMillis,
}

/// A certificate our CA signed, to be recorded before anyone gets it.
#[derive(Clone, Debug)]
pub struct IssuedCertificate {
    /// SHA-256 over the transaction and the public key: the same for a resend.
    pub request: [u8; 32],
    /// Its hash.
    pub leaf: Leaf,
    /// Its DER.
    pub der: Vec<u8>,
    /// End of its life, seconds since 1970.
    pub not_after: i64,
    /// Its serial number in hex.
    pub serial: String,
}

/// What became of a certificate that was to be issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spent {
    /// It is recorded and may be handed out.
    Issued,
    /// The same request was answered before, with this certificate (DER); the new one
    /// is to be thrown away.
    AlreadyIssued(Vec<u8>),
    /// It is not recorded and must not be handed out.
    Refused(Refusal),
}

/// Why no certificate is issued; the caller is at fault, and is not told which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nobody minted this challenge, or it is long gone.
    #[error("unknown challenge")]
    Unknown,
    /// Its time is over.
    #[error("the challenge has expired")]
    Expired,
    /// Another request used it.
    #[error("the challenge was used before")]
    Used,
    /// The link it was minted for lets nobody through any more.
    #[error(transparent)]
    Link(LinkVoid),
    /// The certificate is not the bound identity of an enrollment that goes on.
    #[error("the signer's certificate is not the identity of an enrollment")]
    NotBound,
    /// A step of over-the-air enrollment belongs to another device.
    #[error("this is for another device")]
    OtherDevice,
    /// The certificate is none that over-the-air enrollment issued for its last step.
    #[error("the signer's certificate is not one of over-the-air enrollment")]
    NotProof,
}

impl ChallengeRecord {
    /// Would it buy a certificate now?
    ///
    /// # Errors
    /// [`Refusal`] if not.
    pub fn check(&self, now: UnixMillis) -> Result<(), Refusal> {
        if self.spent_on.is_some() {
            Err(Refusal::Used)
        } else if now >= self.expires {
            Err(Refusal::Expired)
        } else {
            Ok(())
        }
    }

    /// What the certificate it buys is good for; nothing when it buys none.
    #[must_use]
    pub fn good_for(&self) -> Option<&GoodFor> {
        match &self.buys {
            Buys::Certificate(good_for) => Some(good_for),
            Buys::Step(_) => None,
        }
    }

    /// The device its certificate is issued for, if that is known.
    #[must_use]
    pub fn named(&self) -> Option<&EnrollId> {
        match self.good_for() {
            Some(GoodFor::Enrollment { only_for: Some(id) }) => Some(id),
            _ => self.enrollment.as_ref(),
        }
    }
}

impl Store {
    /// Mints a challenge: 192 random bits in base64url, of which only the hash is kept.
    ///
    /// # Errors
    /// [`StoreError`]: the store's own trouble.
    pub async fn mint_challenge(&self, challenge: NewChallenge) -> Result<String, StoreError> {
        self.mint(ChallengeRecord {
            link: challenge.link,
            shared: challenge.shared,
            enrollment: challenge.enrollment,
            expires: challenge.expires,
            spent_on: None,
            buys: Buys::Certificate(GoodFor::ANY),
        })
        .await
    }

    pub(super) async fn mint(&self, record: ChallengeRecord) -> Result<String, StoreError> {
        let mut random = [0; CHALLENGE_BYTES];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| StoreError::broken("no randomness"))?;
        let secret = URL_SAFE_NO_PAD.encode(random);
        let hash = Self::challenge_hash(secret.as_bytes());
        let now = self.expiry_clock();
        self.write(move |transaction| {
            new_challenge(transaction, &hash, &record, now)?;
            Ok(Box::new(|_: &Published| {}))
        })
        .await?;
        Ok(secret)
    }

    /// Under which a challenge is kept.
    #[must_use]
    pub fn challenge_hash(secret: &[u8]) -> [u8; 32] {
        sha256(&[secret])
    }

    /// The challenge with this hash.
    ///
    /// # Errors
    /// [`StoreError::Broken`] when the tables cannot be read.
    pub fn challenge(&self, hash: &[u8; 32]) -> Result<Option<ChallengeRecord>, StoreError> {
        let table = self.inner.database.begin_read()?.open_table(CHALLENGE)?;
        challenge_in(&table, hash)
    }

    /// The DER of the certificate that was issued on this challenge for the same request.
    ///
    /// # Errors
    /// [`StoreError::Broken`] when the tables cannot be read.
    pub fn issued_on(
        &self,
        challenge: &[u8; 32],
        request: &[u8; 32],
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let transaction = self.inner.database.begin_read()?;
        let issued = transaction.open_table(ISSUED)?;
        let ders = transaction.open_table(CERTIFICATE_DER)?;
        issued_in(&issued, &ders, &sha256(&[challenge, request]))
    }

    /// The DER of a certificate our CA issued.
    ///
    /// # Errors
    /// [`StoreError::Broken`] when the tables cannot be read.
    pub fn certificate_der(&self, leaf: Leaf) -> Result<Option<Vec<u8>>, StoreError> {
        let table = self
            .inner
            .database
            .begin_read()?
            .open_table(CERTIFICATE_DER)?;
        Ok(table
            .get(leaf.0.as_slice())?
            .map(|der| der.value().to_vec()))
    }

    /// The enrollment that goes on under this certificate: bound to it, not ended.
    ///
    /// # Errors
    /// [`StoreError::Broken`] when the tables cannot be read.
    pub fn enrollment_bound_to(&self, leaf: Leaf) -> Result<Option<EnrollId>, StoreError> {
        let transaction = self.inner.database.begin_read()?;
        let certificates = transaction.open_table(CERTIFICATE)?;
        let channels = transaction.open_table(CHANNEL)?;
        bound_in(&certificates, &channels, leaf)
    }

    /// Spends a challenge on a certificate and records that, in one commit.
    ///
    /// # Errors
    /// [`StoreError`]: the store's own trouble.
    pub async fn spend_challenge(
        &self,
        hash: [u8; 32],
        certificate: IssuedCertificate,
    ) -> Result<Spent, StoreError> {
        self.decide(move |transaction, now| {
            let key = sha256(&[&hash, &certificate.request]);
            if let Some(der) = issued_before(transaction, &key)? {
                return Ok(Spent::AlreadyIssued(der));
            }
            let found = challenge_in(&transaction.open_table(CHALLENGE)?, &hash)?;
            let Some(mut challenge) = found else {
                return Ok(Spent::Refused(Refusal::Unknown));
            };
            if let Err(refusal) = challenge.check(now) {
                return Ok(Spent::Refused(refusal));
            }
            let Buys::Certificate(good_for) = challenge.buys.clone() else {
                return Ok(Spent::Refused(Refusal::Unknown));
            };
            let through = LinkId(challenge.link.clone());
            if let Err(refusal) = let_through(transaction, &through, &good_for, now)? {
                return Ok(Spent::Refused(refusal));
            }
            let issued_for = challenge.enrollment.clone();
            if !challenge.shared {
                challenge.spent_on = Some(certificate.leaf);
                put_challenge(transaction, &hash, &challenge)?;
            }
            record(
                transaction,
                Some(&key),
                &certificate,
                issued_for,
                // A renewal came through no link: what its device enrolled with stays.
                Some(through.0).filter(|link| !link.is_empty()),
                good_for,
            )?;
            Ok(Spent::Issued)
        })
        .await
    }

    /// Records a certificate that renews the bound one of an enrollment.
    ///
    /// # Errors
    /// [`StoreError`]: the store's own trouble.
    pub async fn renew_certificate(
        &self,
        bound: Leaf,
        certificate: IssuedCertificate,
    ) -> Result<Spent, StoreError> {
        self.decide(move |transaction, _| {
            let key = sha256(&[&bound.0, &certificate.request]);
            if let Some(der) = issued_before(transaction, &key)? {
                return Ok(Spent::AlreadyIssued(der));
            }
            let certificates = transaction.open_table(CERTIFICATE)?;
            let channels = transaction.open_table(CHANNEL)?;
            let Some(id) = bound_in(&certificates, &channels, bound)? else {
                return Ok(Spent::Refused(Refusal::NotBound));
            };
            drop(channels);
            drop(certificates);
            let good_for = GoodFor::ANY;
            record(
                transaction,
                Some(&key),
                &certificate,
                Some(id),
                None,
                good_for,
            )?;
            Ok(Spent::Issued)
        })
        .await
    }

    /// Decides in the writer, by its clock, and tells once what was decided is durable.
    pub(super) async fn decide<T: Clone + Send + Sync + 'static>(
        &self,
        decide: impl FnOnce(&WriteTransaction, UnixMillis) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let decided = Arc::new(OnceLock::new());
        let told = decided.clone();
        let published = self.inner.published.clone();
        self.write(move |transaction| {
            let outcome = decide(transaction, published.watch.now())?;
            let _ = told.set(outcome);
            Ok(Box::new(|_: &Published| {}))
        })
        .await?;
        decided.get().cloned().ok_or(StoreError::Closed)
    }
}

/// Records a certificate; `key` is what a resend of its request is known by, if one can come.
pub(super) fn record(
    transaction: &WriteTransaction,
    key: Option<&[u8; 32]>,
    certificate: &IssuedCertificate,
    issued_for: Option<EnrollId>,
    link: Option<String>,
    good_for: GoodFor,
) -> Result<(), StoreError> {
    let leaf = certificate.leaf.0;
    let row = CertificateRow::V3(CertificateRecord {
        bound_to: None,
        issued_for,
        not_after: certificate.not_after,
        serial: certificate.serial.clone(),
        link,
        good_for,
    });
    transaction
        .open_table(CERTIFICATE)?
        .insert(leaf.as_slice(), encode(&row)?.as_slice())?;
    transaction
        .open_table(CERTIFICATE_DER)?
        .insert(leaf.as_slice(), certificate.der.as_slice())?;
    if let Some(key) = key {
        transaction
            .open_table(ISSUED)?
            .insert(key.as_slice(), leaf.as_slice())?;
    }
    Ok(())
}

/// Lets a certificate through its link. Only one that a device enrolls under is a use.
fn let_through(
    transaction: &WriteTransaction,
    link: &LinkId,
    good_for: &GoodFor,
    now: UnixMillis,
) -> Result<Result<(), Refusal>, StoreError> {
    Ok(match good_for {
        GoodFor::Enrollment { .. } => {
            count_link_use(transaction, link, now)?.map_err(Refusal::Link)
        }
        GoodFor::Proof { device, .. } => open_link(transaction, link, device, now)?.map(drop),
    })
}

/// Drops a few challenges that expired a day ago or earlier: minting pays for cleaning.
fn clear_away(transaction: &WriteTransaction, now: UnixMillis) -> Result<(), StoreError> {
    let mut expiries = transaction.open_table(CHALLENGE_EXPIRY)?;
    let until = now.minus_seconds(KEPT_SECONDS).minutes();
    let mut old = Vec::new();
    for row in expiries
        .range(..(until, [].as_slice()))?
        .take(CLEARED_AT_ONCE)
    {
        let key = row?.0;
        let (minute, hash) = key.value();
        old.push((minute, hash.to_vec()));
    }
    let mut challenges = transaction.open_table(CHALLENGE)?;
    for (minute, hash) in old {
        expiries.remove((minute, hash.as_slice()))?;
        challenges.remove(hash.as_slice())?;
    }
    Ok(())
}

/// Keeps a challenge nobody had before.
pub(super) fn new_challenge(
    transaction: &WriteTransaction,
    hash: &[u8; 32],
    record: &ChallengeRecord,
    now: UnixMillis,
) -> Result<(), StoreError> {
    clear_away(transaction, now)?;
    put_challenge(transaction, hash, record)?;
    transaction
        .open_table(CHALLENGE_EXPIRY)?
        .insert((record.expires.minutes(), hash.as_slice()), ())?;
    Ok(())
}

pub(super) fn put_challenge(
    transaction: &WriteTransaction,
    hash: &[u8; 32],
    challenge: &ChallengeRecord,
) -> Result<(), StoreError> {
    let row = encode(&ChallengeRow::V2(challenge.clone()))?;
    transaction
        .open_table(CHALLENGE)?
        .insert(hash.as_slice(), row.as_slice())?;
    Ok(())
}

pub(super) fn challenge_in(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    hash: &[u8; 32],
) -> Result<Option<ChallengeRecord>, StoreError> {
    let row = table.get(hash.as_slice())?;
    let row = row.map(|row| decode::<ChallengeRow>(row.value()));
    Ok(row.transpose()?.map(ChallengeRow::into_record))
}

fn issued_before(
    transaction: &WriteTransaction,
    key: &[u8; 32],
) -> Result<Option<Vec<u8>>, StoreError> {
    let issued = transaction.open_table(ISSUED)?;
    let ders = transaction.open_table(CERTIFICATE_DER)?;
    issued_in(&issued, &ders, key)
}

fn issued_in(
    issued: &impl ReadableTable<&'static [u8], &'static [u8]>,
    ders: &impl ReadableTable<&'static [u8], &'static [u8]>,
    key: &[u8; 32],
) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(leaf) = issued.get(key.as_slice())? else {
        return Ok(None);
    };
    Ok(ders.get(leaf.value())?.map(|der| der.value().to_vec()))
}

fn bound_in(
    certificates: &impl ReadableTable<&'static [u8], &'static [u8]>,
    channels: &impl ReadableTable<u32, &'static [u8]>,
    leaf: Leaf,
) -> Result<Option<EnrollId>, StoreError> {
    let Some(row) = certificates.get(leaf.0.as_slice())? else {
        return Ok(None);
    };
    let record = decode::<CertificateRow>(row.value())?.into_record();
    let Some(ChannelNo(channel)) = record.bound_to else {
        return Ok(None);
    };
    let Some(row) = channels.get(channel)? else {
        return Ok(None);
    };
    let ChannelRow::Device(enrollment) = decode(row.value())? else {
        return Ok(None);
    };
    // An older leaf keeps its row when a newer one is bound.
    let goes_on = enrollment.bound == Some(leaf)
        && matches!(enrollment.channel.state, ChannelState::Enrolled { .. });
    Ok(goes_on.then_some(enrollment.channel.id))
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, &parts.concat()).as_ref());
    hash
}

const CHALLENGE_BYTES: usize = 24;
const KEPT_SECONDS: u64 = 86_400;
const CLEARED_AT_ONCE: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Clock;
    use crate::store::StoreOptions;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn desk() -> (Store, Clock, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::manual(NOW);
        let mut options = StoreOptions::new(directory.path());
        options.reserve_bytes = 0;
        let store = Store::open(options, clock.clone()).unwrap();
        (store, clock, directory)
    }

    fn challenge(shared: bool) -> NewChallenge {
        NewChallenge {
            link: "link-1".into(),
            shared,
            enrollment: None,
            expires: NOW.plus_seconds(60),
        }
    }

    fn certificate(request: u8, leaf: u8) -> IssuedCertificate {
        IssuedCertificate {
            request: [request; 32],
            leaf: Leaf([leaf; 32]),
            der: vec![leaf; 4],
            not_after: 2_000_000_000,
            serial: "AB".into(),
        }
    }

    fn hash(secret: &str) -> [u8; 32] {
        Store::challenge_hash(secret.as_bytes())
    }

    #[tokio::test]
    async fn a_challenge_buys_one_certificate_and_a_resend_gets_it_again() {
        let (store, _, _directory) = desk();
        let secret = store.mint_challenge(challenge(false)).await.unwrap();
        assert!(secret.len() >= 32, "{secret}");
        let hash = hash(&secret);
        let spent = store.spend_challenge(hash, certificate(1, 1)).await;
        assert_eq!(spent, Ok(Spent::Issued));
        let again = store.spend_challenge(hash, certificate(1, 2)).await;
        assert_eq!(again, Ok(Spent::AlreadyIssued(vec![1; 4])));
        assert_eq!(store.issued_on(&hash, &[1; 32]), Ok(Some(vec![1; 4])));
        let other = store.spend_challenge(hash, certificate(3, 3)).await;
        assert_eq!(other, Ok(Spent::Refused(Refusal::Used)));

        let record = store.certificate(Leaf([1; 32])).unwrap().unwrap();
        assert_eq!(record.link.as_deref(), Some("link-1"));
        assert_eq!(store.certificate_der(Leaf([1; 32])), Ok(Some(vec![1; 4])));
        assert_eq!(store.certificate(Leaf([2; 32])), Ok(None));
        assert_eq!(store.certificate(Leaf([3; 32])), Ok(None));
    }

    #[tokio::test]
    async fn a_shared_challenge_buys_many_until_it_expires() {
        let (store, clock, _directory) = desk();
        let hash = hash(&store.mint_challenge(challenge(true)).await.unwrap());
        for n in 1..=3 {
            let spent = store.spend_challenge(hash, certificate(n, n)).await;
            assert_eq!(spent, Ok(Spent::Issued));
        }
        clock.set(NOW.plus_seconds(60));
        let late = store.spend_challenge(hash, certificate(4, 4)).await;
        assert_eq!(late, Ok(Spent::Refused(Refusal::Expired)));
        let resend = store.spend_challenge(hash, certificate(3, 5)).await;
        assert_eq!(resend, Ok(Spent::AlreadyIssued(vec![3; 4])));
    }

    #[tokio::test]
    async fn what_nobody_minted_and_what_is_not_bound_buys_nothing() {
        let (store, _, _directory) = desk();
        let spent = store.spend_challenge([9; 32], certificate(1, 1)).await;
        assert_eq!(spent, Ok(Spent::Refused(Refusal::Unknown)));
        let renewed = store
            .renew_certificate(Leaf([8; 32]), certificate(1, 1))
            .await;
        assert_eq!(renewed, Ok(Spent::Refused(Refusal::NotBound)));
        assert_eq!(store.certificate(Leaf([1; 32])), Ok(None));
    }

    #[tokio::test]
    async fn of_many_at_once_one_gets_the_certificate() {
        let (store, _, _directory) = desk();
        let hash = hash(&store.mint_challenge(challenge(false)).await.unwrap());
        let asked = (0..50).map(|n| store.spend_challenge(hash, certificate(n, n)));
        let spent = futures_util::future::join_all(asked).await;
        let issued = spent.iter().filter(|spent| **spent == Ok(Spent::Issued));
        assert_eq!(issued.count(), 1);
    }

    #[tokio::test]
    async fn expired_challenges_are_cleared_away_by_minting() {
        let (store, clock, _directory) = desk();
        let old = hash(&store.mint_challenge(challenge(false)).await.unwrap());
        clock.set(NOW.plus_seconds(2 * 86_400));
        store.mint_challenge(challenge(false)).await.unwrap();
        assert_eq!(store.challenge(&old), Ok(None));
    }

    #[test]
    fn a_certificate_row_of_version_1_is_still_read() {
        #[derive(serde::Serialize)]
        enum Old {
            V1(Option<ChannelNo>, Option<EnrollId>, i64, String),
        }
        let row = encode(&Old::V1(Some(ChannelNo(7)), None, 5, "AB".into())).unwrap();
        let record = decode::<CertificateRow>(&row).unwrap().into_record();
        assert_eq!((record.bound_to, record.link), (Some(ChannelNo(7)), None));
        assert_eq!(record.good_for, GoodFor::ANY);
    }
}
