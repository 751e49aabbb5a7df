//! The key that waits for its push certificate: one at most, sealed.
//!
//! Filed under the hash of its public key, so that a certificate put to use takes its
//! own key off the list and no other.

use redb::{ReadableDatabase as _, ReadableTable as _, WriteTransaction};

use super::seal::Place;
use super::tables::PUSH_KEY;
use super::tail::Published;
use super::{Store, StoreError};

impl Store {
    /// Keeps a key, sealed, under the hash of its public key. One that waits already
    /// stays, unless it is to be replaced.
    ///
    /// # Errors
    /// [`StoreError`]: the store's own trouble.
    pub async fn keep_push_key(
        &self,
        hash: [u8; 32],
        stored: &[u8],
        replace: bool,
    ) -> Result<(), StoreError> {
        let sealed = self.inner.sealer.seal(Place::PushKey(&hash), stored)?;
        self.write(move |transaction| {
            let mut table = transaction.open_table(PUSH_KEY)?;
            if replace || table.first()?.is_none() {
                table.retain(|_, _| false)?;
                table.insert(hash.as_slice(), sealed.as_slice())?;
            }
            Ok(Box::new(|_: &Published| {}))
        })
        .await
    }

    /// The key that waits for its certificate, opened.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read or opened.
    pub fn pending_push_key(&self) -> Result<Option<Vec<u8>>, StoreError> {
        let table = self.inner.database.begin_read()?.open_table(PUSH_KEY)?;
        let Some((hash, sealed)) = table.first()? else {
            return Ok(None);
        };
        let place = Place::PushKey(hash.value());
        self.inner.sealer.open(place, sealed.value()).map(Some)
    }
}

/// The key has its certificate: it waits no longer.
pub(super) fn used(transaction: &WriteTransaction, hash: &[u8; 32]) -> Result<(), StoreError> {
    transaction.open_table(PUSH_KEY)?.remove(hash.as_slice())?;
    Ok(())
}
