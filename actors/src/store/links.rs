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

use super::tables::{
    ANNOTATION, Annotation, AnnotationRow, LINK, LINK_BY_ID, LinkRow, META, decode, encode,
};
use super::tail::Published;
use super::{Store, StoreError};

impl Store {
    /// Keeps a new link, and the public URL it was made for if it is the first.
    ///
    /// # Errors
    /// [`StoreError::LinkExists`] when its id is taken; else the store's own trouble.
    pub async fn put_link(&self, link: Link, public_url: &str) -> Result<(), StoreError> {
        let public_url = public_url.to_owned();
        self.write(move |transaction| {
            let mut ids = transaction.open_table(LINK_BY_ID)?;
            if ids.get(link.id.0.as_str())?.is_some() {
                return Err(StoreError::LinkExists(link.id));
            }
            let mut links = transaction.open_table(LINK)?;
            let no = links.last()?.map_or(1, |(no, _)| no.value() + 1);
            ids.insert(link.id.0.as_str(), no)?;
            links.insert(no, encode(&LinkRow::V1(link))?.as_slice())?;
            let mut meta = transaction.open_table(META)?;
            if meta.get(PUBLIC_URL)?.is_none() {
                meta.insert(PUBLIC_URL, public_url.as_bytes())?;
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
                let LinkRow::V1(link) = decode(row.value())?;
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

    /// The public URL profiles were first made for, or last forced to.
    ///
    /// # Errors
    /// [`StoreError::Broken`] when the tables cannot be read.
    pub fn public_url(&self) -> Result<Option<String>, StoreError> {
        let meta = self.inner.database.begin_read()?.open_table(META)?;
        let row = meta.get(PUBLIC_URL)?;
        Ok(row.map(|row| String::from_utf8_lossy(row.value()).into_owned()))
    }

    /// Takes another public URL from now on.
    ///
    /// # Errors
    /// [`StoreError`]: the store's own trouble.
    pub async fn put_public_url(&self, public_url: &str) -> Result<(), StoreError> {
        let public_url = public_url.to_owned();
        self.write(move |transaction| {
            transaction
                .open_table(META)?
                .insert(PUBLIC_URL, public_url.as_bytes())?;
            Ok(Box::new(|_: &Published| {}))
        })
        .await
    }
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
            links.insert(no, encode(&LinkRow::V1(link))?.as_slice())?;
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
    Ok(row.transpose()?.map(|LinkRow::V1(link)| (no, link)))
}

/// Name in `meta`.
const PUBLIC_URL: &str = "public_url";
