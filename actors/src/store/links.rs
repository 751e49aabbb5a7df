//! Enrollment links: made, listed, taken back, and counted when a certificate is issued.
//!
//! A link's secret is kept as its hash. The door that serves a link finds it by the
//! secret; the certificates it led to name it by its id, and a device that enrolls under
//! such a certificate gets the link's tags.

use redb::{ReadableDatabase as _, ReadableTable, WriteTransaction};
use schema::ChannelNo;
use schema::UnixMillis;
use schema::enrollment::EnrolledWith;
use schema::link::{Link, LinkId, LinkVoid};
use schema::ota::OtaDevice;

use super::challenges::record;
use super::tables::{
    ANNOTATION, Annotation, AnnotationRow, GoodFor, LINK, LINK_BY_ID, LinkRow, MANAGED_ACCOUNT,
    META, decode, encode,
};
use super::tail::Published;
use super::{IssuedCertificate, Refusal, Spent, Store, StoreError};

/// The bases of the URLs devices are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrls {
    /// Of the device listener.
    pub device: String,
    /// Of the listener of check-ins, which may be the same.
    pub checkin: String,
}

impl Store {
    /// Keeps a new link, and the public URLs it was made for if it is the first.
    ///
    /// # Errors
    /// [`StoreError::LinkExists`] when its id is taken; else the store's own trouble.
    pub async fn put_link(&self, link: Link, urls: PublicUrls) -> Result<(), StoreError> {
        self.write(move |transaction| {
            let mut ids = transaction.open_table(LINK_BY_ID)?;
            if ids.get(link.id.0.as_str())?.is_some() {
                return Err(StoreError::LinkExists(link.id));
            }
            let mut links = transaction.open_table(LINK)?;
            let no = links.last()?.map_or(1, |(no, _)| no.value() + 1);
            ids.insert(link.id.0.as_str(), no)?;
            links.insert(no, encode(&LinkRow::V3(link))?.as_slice())?;
            if transaction.open_table(META)?.get(PUBLIC_URL)?.is_none() {
                keep_urls(transaction, &urls)?;
            }
            Ok(Box::new(|_: &Published| {}))
        })
        .await
    }

    /// The link with this id.
    ///
    /// # Errors
    /// [`StoreError::Broken`] when the tables cannot be read.
    pub fn link(&self, id: &LinkId) -> Result<Option<Link>, StoreError> {
        let transaction = self.inner.database.begin_read()?;
        let ids = transaction.open_table(LINK_BY_ID)?;
        let links = transaction.open_table(LINK)?;
        Ok(link_in(&ids, &links, id)?.map(|(_, link)| link))
    }

    /// Links with their numbers, newest first, from before `before` on: at most `most`.
    ///
    /// # Errors
    /// [`StoreError::Broken`] when the tables cannot be read.
    pub fn links(&self, before: Option<u64>, most: usize) -> Result<Vec<(u64, Link)>, StoreError> {
        let links = self.inner.database.begin_read()?.open_table(LINK)?;
        let rows = links.range(..before.unwrap_or(u64::MAX))?.rev();
        rows.take(most)
            .map(|row| {
                let (no, row) = row?;
                let link = decode::<LinkRow>(row.value())?.into_link();
                Ok((no.value(), link))
            })
            .collect()
    }

    /// Takes a link back; challenges minted through it buy nothing from then on.
    ///
    /// # Errors
    /// [`StoreError`]: the store's own trouble.
    pub async fn revoke_link(&self, id: &LinkId) -> Result<(), StoreError> {
        let id = id.clone();
        self.write(move |transaction| {
            let revoked = |link| Link {
                revoked: true,
                ..link
            };
            // Taking back is never refused.
            let _ = change_link(transaction, &id, |link| Ok(revoked(link)))?;
            Ok(Box::new(|_: &Published| {}))
        })
        .await
    }

    /// Forgets the links that expired before `before`, and with them every trace of their
    /// tags and terms; says how many went. A link that was taken back stays until it would
    /// have expired: its shared challenge is as old as it, and must find it void.
    ///
    /// # Errors
    /// [`StoreError`]: the store's own trouble.
    pub async fn forget_links(&self, before: UnixMillis) -> Result<usize, StoreError> {
        let old = {
            let links = self.inner.database.begin_read()?.open_table(LINK)?;
            let mut old = Vec::new();
            for row in links.iter()? {
                let (no, row) = row?;
                let link = decode::<LinkRow>(row.value())?.into_link();
                if link.expires < before && old.len() < FORGOTTEN_AT_ONCE {
                    old.push((no.value(), link.id));
                }
            }
            old
        };
        let gone = old.len();
        if gone == 0 {
            return Ok(0);
        }
        self.write(move |transaction| {
            let mut ids = transaction.open_table(LINK_BY_ID)?;
            let mut links = transaction.open_table(LINK)?;
            for (no, id) in old {
                links.remove(no)?;
                ids.remove(id.0.as_str())?;
            }
            Ok(Box::new(|_: &Published| {}))
        })
        .await?;
        Ok(gone)
    }

    /// Counts a use of a link and records the certificate that a profile of it carries,
    /// in one commit.
    ///
    /// # Errors
    /// [`StoreError`]: the store's own trouble.
    pub async fn issue_in_profile(
        &self,
        link: &Link,
        certificate: IssuedCertificate,
    ) -> Result<Spent, StoreError> {
        let (id, issued_for) = (link.id.clone(), link.device.clone());
        self.decide(move |transaction, now| {
            if let Err(void) = count_link_use(transaction, &id, now)? {
                return Ok(Spent::Refused(Refusal::Link(void)));
            }
            // Whoever fetches the profile again gets another identity: there is no resend.
            let good_for = GoodFor::ANY;
            record(
                transaction,
                None,
                &certificate,
                issued_for,
                Some(id.0),
                good_for,
            )?;
            Ok(Spent::Issued)
        })
        .await
    }

    /// The secret of the link that is made under this idempotency key, the same however
    /// often it is asked for.
    #[must_use]
    pub fn link_secret(&self, idempotency_key: &[u8; 32]) -> [u8; 32] {
        let what_for = [b"enrollment link\0", idempotency_key.as_slice()].concat();
        self.inner.sealer.derive(&what_for)
    }

    /// The random UUID this store was made with.
    ///
    /// # Errors
    /// [`StoreError::Broken`] when it cannot be read.
    pub fn instance(&self) -> Result<[u8; 16], StoreError> {
        let meta = self.inner.database.begin_read()?.open_table(META)?;
        let row = meta.get("instance")?;
        row.and_then(|row| row.value().try_into().ok())
            .ok_or_else(|| StoreError::broken("the store has no instance id"))
    }

    /// The public URLs profiles were first made for, or last forced to.
    ///
    /// # Errors
    /// [`StoreError::Broken`] when the tables cannot be read.
    pub fn public_urls(&self) -> Result<Option<PublicUrls>, StoreError> {
        let meta = self.inner.database.begin_read()?.open_table(META)?;
        let text = |name| -> Result<Option<String>, StoreError> {
            let row = meta.get(name)?;
            Ok(row.map(|row| String::from_utf8_lossy(row.value()).into_owned()))
        };
        let Some(device) = text(PUBLIC_URL)? else {
            return Ok(None);
        };
        // A store of before there was a listener of check-ins has no such row.
        let checkin = text(CHECKIN_URL)?.unwrap_or_else(|| device.clone());
        Ok(Some(PublicUrls { device, checkin }))
    }

    /// Takes other public URLs from now on.
    ///
    /// # Errors
    /// [`StoreError`]: the store's own trouble.
    pub async fn put_public_urls(&self, urls: PublicUrls) -> Result<(), StoreError> {
        self.write(move |transaction| {
            keep_urls(transaction, &urls)?;
            Ok(Box::new(|_: &Published| {}))
        })
        .await
    }
}

fn keep_urls(transaction: &WriteTransaction, urls: &PublicUrls) -> Result<(), StoreError> {
    let mut meta = transaction.open_table(META)?;
    meta.insert(PUBLIC_URL, urls.device.as_bytes())?;
    meta.insert(CHECKIN_URL, urls.checkin.as_bytes())?;
    Ok(())
}

/// Counts a use of a link inside the transaction that records the certificate; to be
/// called before that transaction writes anything, for a refusal must change nothing.
/// A certificate that came by no link of ours is not counted.
pub(super) fn count_link_use(
    transaction: &WriteTransaction,
    id: &LinkId,
    now: UnixMillis,
) -> Result<Result<(), LinkVoid>, StoreError> {
    change_link(transaction, id, |link| link.used(now))
}

/// A link through which this device may come now.
pub(super) fn open_link(
    transaction: &WriteTransaction,
    id: &LinkId,
    device: &OtaDevice,
    now: UnixMillis,
) -> Result<Result<Link, Refusal>, StoreError> {
    let ids = transaction.open_table(LINK_BY_ID)?;
    let links = transaction.open_table(LINK)?;
    let Some((_, link)) = link_in(&ids, &links, id)? else {
        return Ok(Err(Refusal::Unknown));
    };
    if let Err(void) = link.open(now) {
        return Ok(Err(Refusal::Link(void)));
    }
    let named = link.device.as_ref();
    if named.is_some_and(|named| !device.is(named)) {
        return Ok(Err(Refusal::OtherDevice));
    }
    Ok(Ok(link))
}

/// What a device enrolled with that came through a link; its tags are put on the device.
pub(super) fn came_through(
    transaction: &WriteTransaction,
    id: &LinkId,
    device: ChannelNo,
) -> Result<Option<EnrolledWith>, StoreError> {
    let ids = transaction.open_table(LINK_BY_ID)?;
    let links = transaction.open_table(LINK)?;
    let Some((_, link)) = link_in(&ids, &links, id)? else {
        return Ok(None);
    };
    let mut accounts = transaction.open_table(MANAGED_ACCOUNT)?;
    match &link.managed_apple_id {
        Some(account) => accounts.insert(device.0, account.as_str())?,
        None => accounts.remove(device.0)?,
    };
    if !link.tags.is_empty() {
        let mut annotations = transaction.open_table(ANNOTATION)?;
        let row = annotations.get(device.0)?;
        let row = row.map(|row| decode::<AnnotationRow>(row.value()));
        let mut annotation = row
            .transpose()?
            .map_or_else(Annotation::default, |AnnotationRow::V1(before)| before);
        annotation.tags.extend(link.tags);
        annotation.tags.sort_unstable();
        annotation.tags.dedup();
        let row = encode(&AnnotationRow::V1(annotation))?;
        annotations.insert(device.0, row.as_slice())?;
    }
    Ok(Some(link.offers))
}

fn change_link(
    transaction: &WriteTransaction,
    id: &LinkId,
    change: impl FnOnce(Link) -> Result<Link, LinkVoid>,
) -> Result<Result<(), LinkVoid>, StoreError> {
    let ids = transaction.open_table(LINK_BY_ID)?;
    let mut links = transaction.open_table(LINK)?;
    let Some((no, link)) = link_in(&ids, &links, id)? else {
        return Ok(Ok(()));
    };
    Ok(match change(link) {
        Ok(link) => {
            links.insert(no, encode(&LinkRow::V3(link))?.as_slice())?;
            Ok(())
        }
        Err(void) => Err(void),
    })
}

fn link_in(
    ids: &impl ReadableTable<&'static str, u64>,
    links: &impl ReadableTable<u64, &'static [u8]>,
    id: &LinkId,
) -> Result<Option<(u64, Link)>, StoreError> {
    let Some(no) = ids.get(id.0.as_str())?.map(|no| no.value()) else {
        return Ok(None);
    };
    let row = links.get(no)?.map(|row| decode::<LinkRow>(row.value()));
    Ok(row.transpose()?.map(|row| (no, row.into_link())))
}

const FORGOTTEN_AT_ONCE: usize = 1000;
/// Name in `meta`.
const PUBLIC_URL: &str = "public_url";
/// Name in `meta`.
const CHECKIN_URL: &str = "checkin_public_url";

#[cfg(test)]
mod tests {
    use schema::access::AccessRights;
    use schema::checkin::{CheckIn, Facts, Message, Push, Sender, UserNames};
    use schema::enrollment::{Claim, Enrollment, Reenroll};
    use schema::link::IdentityKind;
    use schema::{ChannelKind, EnrollId, Leaf, PushMagic, PushToken, Topic};

    use super::*;
    use crate::Clock;
    use crate::store::{
        CheckedIn, Identity, IssuedCertificate, NewChallenge, Packed, Refusal, Spent, StoreOptions,
    };

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn desk() -> (Store, Clock, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::manual(NOW);
        let mut options = StoreOptions::new(directory.path());
        options.reserve_bytes = 0;
        let store = Store::open(options, clock.clone()).unwrap();
        (store, clock, directory)
    }

    fn urls(base: &str) -> PublicUrls {
        PublicUrls {
            device: base.into(),
            checkin: format!("{base}/checkins"),
        }
    }

    fn link(id: &str) -> Link {
        Link {
            id: LinkId(id.into()),
            secret: [1; 32],
            request: [0; 32],
            created: NOW,
            expires: NOW.plus_seconds(3600),
            max_uses: 1,
            uses: 0,
            tags: vec!["loan".into()],
            device: None,
            topic: Topic("com.apple.mgmt.x".into()),
            shared: true,
            identity: IdentityKind::Scep,
            ota: false,
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
        }
    }

    async fn challenge(store: &Store, id: &str) -> [u8; 32] {
        let challenge = NewChallenge {
            link: id.into(),
            shared: true,
            enrollment: None,
            expires: NOW.plus_seconds(3600),
        };
        let secret = store.mint_challenge(challenge).await.unwrap();
        Store::challenge_hash(secret.as_bytes())
    }

    fn certificate(n: u8) -> IssuedCertificate {
        IssuedCertificate {
            request: [n; 32],
            leaf: Leaf([n; 32]),
            der: vec![n; 4],
            not_after: 2_000_000_000,
            serial: "AB".into(),
        }
    }

    #[tokio::test]
    async fn a_use_counts_when_a_certificate_is_issued_and_a_resend_is_none() {
        let (store, _, _directory) = desk();
        store.put_link(link("a"), urls("https://a")).await.unwrap();
        let hash = challenge(&store, "a").await;
        let id = LinkId("a".into());
        assert_eq!(store.link(&id).unwrap().unwrap().uses, 0);
        let spent = store.spend_challenge(hash, certificate(1)).await;
        assert_eq!(spent, Ok(Spent::Issued));
        let resend = store.spend_challenge(hash, certificate(1)).await;
        assert_eq!(resend, Ok(Spent::AlreadyIssued(vec![1; 4])));
        assert_eq!(store.link(&id).unwrap().unwrap().uses, 1);
        let second = store.spend_challenge(hash, certificate(2)).await;
        let void = Refusal::Link(LinkVoid::UsedUp);
        assert_eq!(second, Ok(Spent::Refused(void)));
        assert_eq!(store.certificate(Leaf([2; 32])), Ok(None));
    }

    #[tokio::test]
    async fn a_use_counts_when_a_profile_carries_its_identity() {
        let (store, _, _directory) = desk();
        let named = Link {
            device: Some(EnrollId::device("D").unwrap()),
            max_uses: 2,
            ..link("a")
        };
        store
            .put_link(named.clone(), urls("https://a"))
            .await
            .unwrap();
        for n in [1, 2] {
            let spent = store.issue_in_profile(&named, certificate(n)).await;
            assert_eq!(spent, Ok(Spent::Issued));
        }
        let third = store.issue_in_profile(&named, certificate(3)).await;
        let void = Refusal::Link(LinkVoid::UsedUp);
        assert_eq!(third, Ok(Spent::Refused(void)));
        assert_eq!(store.certificate(Leaf([3; 32])), Ok(None));
        let record = store.certificate(Leaf([2; 32])).unwrap().unwrap();
        assert_eq!(
            (record.link.as_deref(), record.issued_for),
            (Some("a"), named.device)
        );
        assert_eq!(store.certificate_der(Leaf([2; 32])), Ok(Some(vec![2; 4])));
    }

    #[test]
    fn a_link_row_of_version_1_is_still_read() {
        #[derive(serde::Serialize)]
        struct Old(
            LinkId,
            [u8; 32],
            [u8; 32],
            UnixMillis,
            UnixMillis,
            u32,
            u32,
            Vec<String>,
            Option<EnrollId>,
            Topic,
            bool,
            Option<String>,
            EnrolledWith,
            bool,
            String,
        );
        #[derive(serde::Serialize)]
        enum OldRow {
            V1(Old),
        }
        let link = link("a");
        let old = link.clone();
        let row = encode(&OldRow::V1(Old(
            old.id,
            old.secret,
            old.request,
            old.created,
            old.expires,
            old.max_uses,
            old.uses,
            old.tags,
            old.device,
            old.topic,
            old.shared,
            old.managed_apple_id,
            old.offers,
            old.revoked,
            old.principal,
        )));
        let read = decode::<LinkRow>(&row.unwrap()).unwrap().into_link();
        assert_eq!(read, link);
    }

    #[tokio::test]
    async fn a_challenge_of_a_revoked_link_buys_nothing() {
        let (store, _, _directory) = desk();
        store.put_link(link("a"), urls("https://a")).await.unwrap();
        let hash = challenge(&store, "a").await;
        store.revoke_link(&LinkId("a".into())).await.unwrap();
        let spent = store.spend_challenge(hash, certificate(1)).await;
        let void = Refusal::Link(LinkVoid::Revoked);
        assert_eq!(spent, Ok(Spent::Refused(void)));
    }

    #[tokio::test]
    async fn links_are_listed_newest_first_and_the_first_fixes_the_public_url() {
        let (store, _, _directory) = desk();
        assert_eq!(store.public_urls(), Ok(None));
        store.put_link(link("a"), urls("https://a")).await.unwrap();
        store.put_link(link("b"), urls("https://b")).await.unwrap();
        let again = store.put_link(link("b"), urls("https://b")).await;
        assert_eq!(again, Err(StoreError::LinkExists(LinkId("b".into()))));
        let ids = |before, most| -> Vec<_> {
            let links = store.links(before, most).unwrap();
            links
                .into_iter()
                .map(|(no, link)| (no, link.id.0))
                .collect()
        };
        assert_eq!(ids(None, 9), [(2, "b".to_owned()), (1, "a".to_owned())]);
        assert_eq!(ids(Some(2), 9), [(1, "a".to_owned())]);
        assert_eq!(ids(None, 1).len(), 1);
        assert_eq!(store.public_urls(), Ok(Some(urls("https://a"))));
        store.put_public_urls(urls("https://c")).await.unwrap();
        assert_eq!(store.public_urls(), Ok(Some(urls("https://c"))));
    }

    #[tokio::test]
    async fn a_link_is_forgotten_when_it_expired_long_ago_and_not_when_it_was_taken_back() {
        let (store, clock, _directory) = desk();
        for id in ["a", "b"] {
            store.put_link(link(id), urls("https://a")).await.unwrap();
        }
        let longer = Link {
            expires: NOW.plus_seconds(9000),
            ..link("c")
        };
        store.put_link(longer, urls("https://a")).await.unwrap();
        store.revoke_link(&LinkId("c".into())).await.unwrap();
        let hash = challenge(&store, "c").await;
        assert_eq!(store.forget_links(NOW.plus_seconds(3600)).await, Ok(0));
        clock.set(NOW.plus_seconds(3601));
        assert_eq!(store.forget_links(NOW.plus_seconds(3601)).await, Ok(2));
        let left = store.links(None, 9).unwrap();
        assert_eq!(left.len(), 1);
        assert_eq!(store.link(&LinkId("a".into())), Ok(None));
        clock.set(NOW.plus_seconds(7201));
        let spent = store.spend_challenge(hash, certificate(1)).await.unwrap();
        assert!(matches!(spent, Spent::Refused(_)), "{spent:?}");
    }

    #[tokio::test]
    async fn a_device_that_came_through_a_link_has_its_tags_and_its_terms() {
        let (store, _, _directory) = desk();
        store.put_link(link("a"), urls("https://a")).await.unwrap();
        let hash = challenge(&store, "a").await;
        store.spend_challenge(hash, certificate(1)).await.unwrap();
        let leaf = Leaf([1; 32]);
        let claim = Claim {
            leaf,
            ours: true,
            issued_for: None,
            only_for: None,
            proof: false,
            bound_elsewhere: false,
        };
        let id = EnrollId::device("D").unwrap();
        let topic = Topic("com.apple.mgmt.x".into());
        let says = |message| CheckIn {
            sender: Sender {
                device: id.clone(),
                channel: id.clone(),
                kind: ChannelKind::Device,
            },
            message,
        };
        let commit = async |change, message| {
            let checked_in = CheckedIn {
                change,
                channel: ChannelNo(0),
                message,
                body: store.seal_body(ChannelNo(0), &Packed::of(b"x")).unwrap(),
                body_hash: None,
                identity: Identity {
                    leaf,
                    not_after: 0,
                    serial: String::new(),
                },
                secrets: Vec::new(),
            };
            store.check_in(checked_in).await.unwrap()
        };
        let authenticate = says(Message::Authenticate {
            topic: topic.clone(),
            facts: Facts::default(),
        });
        let opened = Enrollment::open(&authenticate, &claim, store.fresh_channel()).unwrap();
        let pending = commit(opened, "Authenticate").await;
        let token_update = says(Message::TokenUpdate {
            push: Push {
                topic,
                token: PushToken(vec![1]),
                magic: PushMagic("m".into()),
            },
            unlock_token: None,
            awaiting_configuration: false,
            user: UserNames::default(),
        });
        let policy = Reenroll::Approve;
        let change = pending.apply(&token_update, &claim, policy, NOW, || ChannelNo(9));
        let enrolled = commit(change.unwrap(), "TokenUpdate").await;
        assert_eq!(enrolled.enrolled_with, Some(link("a").offers));
        let annotation = store.annotation(enrolled.channel.no).unwrap();
        assert_eq!(annotation.tags, ["loan"]);
    }
}
