//! The steps of over-the-air enrollment, each paid for with the one before.
//!
//! A profile's challenge lets one device say what it is; that buys a certificate to say
//! it again under, and that the challenge it enrolls with. A step that is taken again
//! leads to the same next one: the challenges follow from what was paid, and none is
//! kept but as its hash. Called by the over-the-air door.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use redb::{ReadableTable as _, WriteTransaction};
use schema::link::{Link, LinkId};
use schema::ota::OtaDevice;
use schema::{Leaf, UnixMillis};

use super::challenges::{challenge_in, new_challenge, put_challenge};
use super::links::open_link;
use super::tables::{
    Buys, CERTIFICATE, CHALLENGE, CertificateRecord, CertificateRow, ChallengeRecord, GoodFor,
    OtaCaller, decode,
};
use super::{Refusal, Store, StoreError};

/// Where a step leads: the link it goes through, and the challenge of the next.
#[derive(Clone, PartialEq, Eq)]
pub struct OtaStep {
    /// The link.
    pub link: Link,
    /// The challenge; a secret.
    pub challenge: String,
}

impl std::fmt::Debug for OtaStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OtaStep")
            .field("link", &self.link.id)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Mints the challenge of a first profile: the first device that comes with it may go on.
    ///
    /// # Errors
    /// [`StoreError`]: the store's own trouble.
    pub async fn ask_device(
        &self,
        link: &LinkId,
        expires: UnixMillis,
    ) -> Result<String, StoreError> {
        self.mint(ChallengeRecord {
            link: link.0.clone(),
            shared: false,
            enrollment: None,
            expires,
            spent_on: None,
            buys: Buys::Step(None),
        })
        .await
    }

    /// A device said what it is, with the challenge of its first profile and under its
    /// manufacturer's certificate: mints what buys it a certificate to prove that with,
    /// for so many seconds.
    ///
    /// # Errors
    /// [`StoreError`]: the store's own trouble.
    pub async fn device_told(
        &self,
        challenge: [u8; 32],
        caller: OtaCaller,
        seconds: u64,
    ) -> Result<Result<OtaStep, Refusal>, StoreError> {
        let next = self.next_challenge("proof", &challenge);
        self.decide(move |transaction, now| {
            let found = challenge_in(&transaction.open_table(CHALLENGE)?, &challenge)?;
            let Some(mut asked) = found else {
                return Ok(Err(Refusal::Unknown));
            };
            let link = LinkId(asked.link.clone());
            let fits = asked.admits(&caller, now);
            let opened = match fits {
                Ok(()) => open_link(transaction, &link, &caller.device, now)?,
                Err(refusal) => Err(refusal),
            };
            let link = match opened {
                Ok(link) => link,
                Err(refusal) => return Ok(Err(refusal)),
            };
            let good_for = GoodFor::Proof {
                device: caller.device.clone(),
                challenge,
            };
            asked.buys = Buys::Step(Some(caller));
            put_challenge(transaction, &challenge, &asked)?;
            lead_on(transaction, link, next, good_for, (now, seconds))
        })
        .await
    }

    /// A device said it again under the certificate that got it: mints what buys it the
    /// certificate it enrolls under, for so many seconds. A challenge, if it repeats one,
    /// is that of its first profile.
    ///
    /// # Errors
    /// [`StoreError`]: the store's own trouble.
    pub async fn device_proved(
        &self,
        leaf: Leaf,
        said: OtaDevice,
        challenge: Option<[u8; 32]>,
        seconds: u64,
    ) -> Result<Result<OtaStep, Refusal>, StoreError> {
        let next = self.next_challenge("enrollment", &leaf.0);
        self.decide(move |transaction, now| {
            let link = match proven(transaction, leaf, &said, challenge, now)? {
                Ok(id) => open_link(transaction, &id, &said, now)?,
                Err(refusal) => Err(refusal),
            };
            let link = match link {
                Ok(link) => link,
                Err(refusal) => return Ok(Err(refusal)),
            };
            let only_for = Some(said.udid);
            let good_for = GoodFor::Enrollment { only_for };
            lead_on(transaction, link, next, good_for, (now, seconds))
        })
        .await
    }

    /// The challenge that follows from what was paid, the same however often.
    fn next_challenge(&self, step: &str, paid_with: &[u8; 32]) -> String {
        let what_for = [b"over the air\0", step.as_bytes(), b"\0", paid_with].concat();
        URL_SAFE_NO_PAD.encode(self.inner.sealer.derive(&what_for))
    }
}

impl ChallengeRecord {
    /// Whether a device may go on with it now: the first that came, and none after it.
    fn admits(&self, caller: &OtaCaller, now: UnixMillis) -> Result<(), Refusal> {
        let Buys::Step(before) = &self.buys else {
            return Err(Refusal::Unknown);
        };
        self.check(now)?;
        match before {
            Some(before) if before != caller => Err(Refusal::OtherDevice),
            _ => Ok(()),
        }
    }
}

/// The link of a device that proves again what it said before.
fn proven(
    transaction: &WriteTransaction,
    leaf: Leaf,
    said: &OtaDevice,
    challenge: Option<[u8; 32]>,
    now: UnixMillis,
) -> Result<Result<LinkId, Refusal>, StoreError> {
    let table = transaction.open_table(CERTIFICATE)?;
    let row = table.get(leaf.0.as_slice())?;
    let row = row.map(|row| decode::<CertificateRow>(row.value()));
    let record = row.transpose()?.map(CertificateRow::into_record);
    let Some(CertificateRecord {
        link: Some(link),
        not_after,
        good_for: GoodFor::Proof {
            device,
            challenge: asked,
        },
        ..
    }) = record
    else {
        return Ok(Err(Refusal::NotProof));
    };
    if device != *said || challenge.is_some_and(|challenge| challenge != asked) {
        return Ok(Err(Refusal::OtherDevice));
    }
    let ends = u64::try_from(not_after).unwrap_or_default();
    if now.seconds() > ends {
        return Ok(Err(Refusal::Expired));
    }
    Ok(Ok(LinkId(link)))
}

/// Keeps the challenge of the next step, unless it is there already.
fn lead_on(
    transaction: &WriteTransaction,
    link: Link,
    challenge: String,
    good_for: GoodFor,
    (now, seconds): (UnixMillis, u64),
) -> Result<Result<OtaStep, Refusal>, StoreError> {
    let hash = Store::challenge_hash(challenge.as_bytes());
    let before = challenge_in(&transaction.open_table(CHALLENGE)?, &hash)?;
    match before {
        Some(before) if now >= before.expires => return Ok(Err(Refusal::Expired)),
        Some(_) => {}
        None => {
            let enrollment = match good_for {
                GoodFor::Enrollment { .. } => link.device.clone(),
                GoodFor::Proof { .. } => None,
            };
            let record = ChallengeRecord {
                link: link.id.0.clone(),
                shared: false,
                enrollment,
                expires: link.challenge_expires(now, seconds),
                spent_on: None,
                buys: Buys::Certificate(good_for),
            };
            new_challenge(transaction, &hash, &record, now)?;
        }
    }
    Ok(Ok(OtaStep { link, challenge }))
}

#[cfg(test)]
mod tests {
    use schema::EnrollId;
    use schema::Topic;
    use schema::access::AccessRights;
    use schema::enrollment::EnrolledWith;
    use schema::link::{IdentityKind, LinkVoid};

    use redb::{ReadableDatabase as _, ReadableTableMetadata as _};

    use super::*;
    use crate::Clock;
    use crate::store::{IssuedCertificate, PublicUrls, Spent, StoreOptions};

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
    const HOUR: u64 = 3600;

    struct Desk {
        store: Store,
        clock: Clock,
        _directory: tempfile::TempDir,
    }

    impl Desk {
        async fn open(change: impl FnOnce(&mut Link)) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let clock = Clock::manual(NOW);
            let mut options = StoreOptions::new(directory.path());
            options.reserve_bytes = 0;
            let store = Store::open(options, clock.clone()).unwrap();
            let mut link = Link {
                id: id(),
                secret: [1; 32],
                request: [0; 32],
                created: NOW,
                expires: NOW.plus_seconds(10 * HOUR),
                max_uses: 1,
                uses: 0,
                tags: Vec::new(),
                device: None,
                topic: Topic("com.apple.mgmt.x".into()),
                shared: false,
                identity: IdentityKind::Scep,
                ota: true,
                managed_apple_id: None,
                offers: EnrolledWith {
                    server_url: "https://mdm.example.org/mdm/connect".into(),
                    check_in_url: "https://mdm.example.org/mdm/checkin".into(),
                    profile_identifier: "p".into(),
                    rights: Some(AccessRights::ALL),
                    capabilities: Vec::new(),
                    signer: None,
                },
                revoked: false,
                principal: "anne".into(),
            };
            change(&mut link);
            let urls = PublicUrls {
                device: "https://a".into(),
                checkin: "https://a".into(),
            };
            store.put_link(link, urls).await.unwrap();
            Self {
                store,
                clock,
                _directory: directory,
            }
        }

        async fn asked(&self) -> [u8; 32] {
            let expires = NOW.plus_seconds(HOUR);
            hash(&self.store.ask_device(&id(), expires).await.unwrap())
        }

        async fn told(&self, challenge: [u8; 32], who: OtaCaller) -> Result<String, Refusal> {
            let told = self.store.device_told(challenge, who, HOUR).await.unwrap();
            told.map(|step| step.challenge)
        }

        async fn proved(
            &self,
            leaf: u8,
            said: OtaDevice,
            challenge: Option<[u8; 32]>,
        ) -> Result<String, Refusal> {
            let leaf = Leaf([leaf; 32]);
            let proved = self.store.device_proved(leaf, said, challenge, HOUR).await;
            proved.unwrap().map(|step| step.challenge)
        }

        async fn bought(&self, challenge: &str, leaf: u8) -> Spent {
            let certificate = IssuedCertificate {
                request: [leaf; 32],
                leaf: Leaf([leaf; 32]),
                der: vec![leaf; 4],
                not_after: NOW.plus_seconds(2 * HOUR).seconds() as i64,
                serial: "AB".into(),
            };
            let spent = self.store.spend_challenge(hash(challenge), certificate);
            spent.await.unwrap()
        }

        /// How many challenges and certificates are kept.
        fn rows(&self) -> (u64, u64) {
            let read = self.store.inner.database.begin_read().unwrap();
            let rows = |table| read.open_table(table).unwrap().len().unwrap();
            (rows(CHALLENGE), rows(CERTIFICATE))
        }

        fn uses(&self) -> u32 {
            self.store.link(&id()).unwrap().unwrap().uses
        }
    }

    fn id() -> LinkId {
        LinkId("a".into())
    }

    fn hash(secret: &str) -> [u8; 32] {
        Store::challenge_hash(secret.as_bytes())
    }

    fn device(udid: &str) -> OtaDevice {
        OtaDevice {
            udid: EnrollId::device(udid).unwrap(),
            serial: "C02".into(),
        }
    }

    fn caller(udid: &str) -> OtaCaller {
        OtaCaller {
            device: device(udid),
            leaf: Leaf([200; 32]),
        }
    }

    #[tokio::test]
    async fn each_step_buys_the_next_and_only_the_last_is_a_use() {
        let desk = Desk::open(|_| {}).await;
        let asked = desk.asked().await;
        let proof = desk.told(asked, caller("D")).await.unwrap();
        assert_eq!(desk.told(asked, caller("D")).await, Ok(proof.clone()));
        assert_eq!(desk.bought(&proof, 1).await, Spent::Issued);
        assert_eq!(desk.uses(), 0);
        let record = desk.store.certificate(Leaf([1; 32])).unwrap().unwrap();
        assert_eq!(record.issued_for, None);
        assert!(matches!(record.good_for, GoodFor::Proof { .. }));

        let enroll = desk.proved(1, device("D"), Some(asked)).await.unwrap();
        assert_ne!(enroll, proof);
        assert_eq!(desk.proved(1, device("D"), None).await, Ok(enroll.clone()));
        assert_eq!(desk.bought(&enroll, 2).await, Spent::Issued);
        assert_eq!(desk.uses(), 1);
        let record = desk.store.certificate(Leaf([2; 32])).unwrap().unwrap();
        let only_for = Some(EnrollId::device("D").unwrap());
        assert_eq!(record.issued_for, None);
        assert_eq!(record.good_for, GoodFor::Enrollment { only_for });

        let used = Refusal::Used;
        assert_eq!(desk.bought(&proof, 3).await, Spent::Refused(used));
        assert_eq!(desk.bought(&enroll, 4).await, Spent::Refused(used));
        let void = Err(Refusal::Link(LinkVoid::UsedUp));
        assert_eq!(desk.proved(1, device("D"), None).await, void);
        assert_eq!(desk.told(asked, caller("D")).await, void);
    }

    #[tokio::test]
    async fn no_step_is_taken_by_another_device_or_with_anothers_challenge() {
        let desk = Desk::open(|link| link.max_uses = 9).await;
        let (asked, other) = (desk.asked().await, desk.asked().await);
        let proof = desk.told(asked, caller("D")).await.unwrap();
        let another = Err(Refusal::OtherDevice);
        assert_eq!(desk.rows(), (3, 0));
        assert_eq!(desk.told(asked, caller("E")).await, another);
        let stolen = OtaCaller {
            leaf: Leaf([201; 32]),
            ..caller("D")
        };
        assert_eq!(desk.told(asked, stolen).await, another);
        let unknown = Err(Refusal::Unknown);
        assert_eq!(desk.told([9; 32], caller("D")).await, unknown);
        assert_eq!(desk.told(hash(&proof), caller("D")).await, unknown);
        assert_eq!(
            desk.store.challenge(&other).unwrap().unwrap().good_for(),
            None
        );

        assert_eq!(desk.rows(), (3, 0), "nothing was kept");

        assert_eq!(desk.bought(&proof, 1).await, Spent::Issued);
        assert_eq!(desk.proved(1, device("E"), None).await, another);
        assert_eq!(desk.proved(1, device("D"), Some(other)).await, another);
        let none = Err(Refusal::NotProof);
        assert_eq!(desk.proved(9, device("D"), None).await, none);
        assert_eq!(desk.rows(), (3, 1), "nothing was kept");
        let enroll = desk.proved(1, device("D"), None).await.unwrap();
        assert_eq!(desk.bought(&enroll, 2).await, Spent::Issued);
        assert_eq!(desk.proved(2, device("D"), None).await, none);
    }

    #[tokio::test]
    async fn a_challenge_of_a_profile_buys_no_certificate() {
        let desk = Desk::open(|_| {}).await;
        let secret = desk.store.ask_device(&id(), NOW.plus_seconds(HOUR)).await;
        let bought = desk.bought(&secret.unwrap(), 1).await;
        assert_eq!(bought, Spent::Refused(Refusal::Unknown));
        assert_eq!(desk.store.certificate(Leaf([1; 32])), Ok(None));
    }

    #[tokio::test]
    async fn a_link_for_one_device_lets_only_that_one_through() {
        let named = |name: &str| {
            let name = EnrollId::device(name).unwrap();
            Desk::open(move |link| link.device = Some(name))
        };
        for name in ["D", "C02"] {
            let desk = named(name).await;
            let asked = desk.asked().await;
            let proof = desk.told(asked, caller("D")).await.unwrap();
            desk.bought(&proof, 1).await;
            let enroll = desk.proved(1, device("D"), None).await.unwrap();
            desk.bought(&enroll, 2).await;
            let record = desk.store.certificate(Leaf([2; 32])).unwrap().unwrap();
            assert_eq!(record.issued_for, Some(EnrollId::device(name).unwrap()));
        }
        let desk = named("E").await;
        let asked = desk.asked().await;
        let another = Err(Refusal::OtherDevice);
        assert_eq!(desk.told(asked, caller("D")).await, another);
        assert!(
            desk.told(asked, caller("E")).await.is_ok(),
            "nothing was kept"
        );
    }

    #[tokio::test]
    async fn every_step_ends_with_its_time_and_with_its_link() {
        let desk = Desk::open(|link| link.max_uses = 9).await;
        let asked = desk.asked().await;
        let proof = desk.told(asked, caller("D")).await.unwrap();
        desk.bought(&proof, 1).await;
        desk.proved(1, device("D"), None).await.unwrap();
        let late = desk.asked().await;
        desk.clock.set(NOW.plus_seconds(HOUR));
        let expired = Err(Refusal::Expired);
        assert_eq!(desk.told(late, caller("D")).await, expired);
        assert_eq!(desk.proved(1, device("D"), None).await, expired);

        let desk = Desk::open(|_| {}).await;
        let asked = desk.asked().await;
        let proof = desk.told(asked, caller("D")).await.unwrap();
        desk.bought(&proof, 1).await;
        desk.clock.set(NOW.plus_seconds(3 * HOUR));
        assert_eq!(desk.proved(1, device("D"), None).await, expired);

        let desk = Desk::open(|_| {}).await;
        let asked = desk.asked().await;
        let proof = desk.told(asked, caller("D")).await.unwrap();
        desk.bought(&proof, 1).await;
        desk.store.revoke_link(&id()).await.unwrap();
        let revoked = Refusal::Link(LinkVoid::Revoked);
        assert_eq!(desk.told(asked, caller("D")).await, Err(revoked));
        assert_eq!(desk.proved(1, device("D"), None).await, Err(revoked));
        assert_eq!(desk.bought(&proof, 2).await, Spent::Refused(Refusal::Used));
    }
}
