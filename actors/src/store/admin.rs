//! The admin's nouns: tokens, push certificates, annotations, the audit trail, and
//! lists of devices. Written by closures the writer runs in its own transaction.

use std::sync::Arc;

use redb::{ReadableDatabase as _, ReadableTable as _};
use schema::enrollment::Enrollment;
use schema::{ChannelNo, EnrollId, PushToken, UnixMillis};

use super::read::token_key;
use super::seal::Place;
use super::tables::{
    ANNOTATION, AUDIT, Annotation, AnnotationRow, AuditEntry, AuditRow, CHANNEL, ChannelRow,
    PUSH_CERTIFICATE, PUSH_DEAD, QUARANTINE, TOKEN, TokenRecord, TokenRow, decode, encode,
};
use super::tail::{Published, read, write};
use super::writer::{AdminWrite, AfterCommit, Operation};
use super::{Store, StoreError, push_keys};

/// A device as lists show it.
#[derive(Clone, Debug)]
pub struct Device {
    /// Its enrollment.
    pub enrollment: Enrollment,
    /// What an admin says of it.
    pub annotation: Annotation,
    /// Its last contact, to the minute.
    pub last_seen: Option<UnixMillis>,
}

impl Store {
    /// Adds or replaces a token under the SHA-256 of its secret; in force at once.
    ///
    /// # Errors
    /// [`StoreError`]: the store's own trouble.
    pub async fn put_token(&self, hash: [u8; 32], token: TokenRecord) -> Result<(), StoreError> {
        self.write(move |transaction| {
            let row = encode(&TokenRow::V1(token.clone()))?;
            transaction
                .open_table(TOKEN)?
                .insert(hash.as_slice(), row.as_slice())?;
            Ok(Box::new(move |published: &Published| {
                write(&published.tokens).insert(hash, Arc::new(token));
            }))
        })
        .await
    }

    /// The token with this hash.
    #[must_use]
    pub fn token(&self, hash: &[u8; 32]) -> Option<Arc<TokenRecord>> {
        read(&self.inner.published.tokens).get(hash).cloned()
    }

    /// All tokens with their hashes, oldest first.
    #[must_use]
    pub fn tokens(&self) -> Vec<([u8; 32], Arc<TokenRecord>)> {
        let tokens = read(&self.inner.published.tokens);
        let mut tokens: Vec<_> = tokens
            .iter()
            .map(|(hash, token)| (*hash, token.clone()))
            .collect();
        tokens.sort_by_key(|(_, token)| token.created);
        tokens
    }

    /// Stores a push certificate with its key, sealed, under its topic. That key (by the
    /// hash of its public key) waits for a certificate no longer.
    ///
    /// # Errors
    /// [`StoreError`]: the store's own trouble.
    pub async fn put_push_certificate(
        &self,
        topic: &str,
        stored: &[u8],
        key: [u8; 32],
    ) -> Result<(), StoreError> {
        let topic = topic.to_owned();
        let sealed = self
            .inner
            .sealer
            .seal(Place::PushCertificate(&topic), stored)?;
        self.write(move |transaction| {
            transaction
                .open_table(PUSH_CERTIFICATE)?
                .insert(topic.as_str(), sealed.as_slice())?;
            push_keys::used(transaction, &key)?;
            Ok(Box::new(|_: &Published| {}))
        })
        .await
    }

    /// All stored push certificates, opened.
    ///
    /// # Errors
    /// [`StoreError`] when one cannot be read or opened.
    pub fn push_certificates(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let table = self
            .inner
            .database
            .begin_read()?
            .open_table(PUSH_CERTIFICATE)?;
        let mut certificates = Vec::new();
        for row in table.iter()? {
            let (topic, sealed) = row?;
            let topic = topic.value().to_owned();
            let place = Place::PushCertificate(&topic);
            let opened = self.inner.sealer.open(place, sealed.value())?;
            certificates.push((topic, opened));
        }
        Ok(certificates)
    }

    /// Notes that APNs called a token of this channel dead.
    ///
    /// # Errors
    /// [`StoreError`]: the store's own trouble.
    pub async fn push_died(&self, channel: ChannelNo, token: &PushToken) -> Result<(), StoreError> {
        let key = token_key(token);
        self.ask(|reply| Operation::Admin(dead(channel, Some(key)), reply))
            .await
    }

    /// Replaces what an admin says of a device.
    ///
    /// # Errors
    /// [`StoreError`]: the store's own trouble.
    pub async fn put_annotation(
        &self,
        device: ChannelNo,
        annotation: Annotation,
    ) -> Result<(), StoreError> {
        self.write(move |transaction| {
            let row = encode(&AnnotationRow::V1(annotation))?;
            transaction
                .open_table(ANNOTATION)?
                .insert(device.0, row.as_slice())?;
            Ok(Box::new(|_: &Published| {}))
        })
        .await
    }

    /// Quarantines a device, or lifts it.
    ///
    /// # Errors
    /// [`StoreError`]: the store's own trouble.
    pub async fn put_quarantine(
        &self,
        id: &EnrollId,
        since: Option<UnixMillis>,
    ) -> Result<(), StoreError> {
        let id = id.as_str().to_owned();
        self.write(move |transaction| {
            let mut table = transaction.open_table(QUARANTINE)?;
            match since {
                Some(since) => table.insert(id.as_str(), since.0)?,
                None => table.remove(id.as_str())?,
            };
            Ok(Box::new(|_: &Published| {}))
        })
        .await
    }

    /// The quarantined devices.
    ///
    /// # Errors
    /// [`StoreError::Broken`] when the tables cannot be read.
    pub fn quarantined(&self) -> Result<Vec<String>, StoreError> {
        let table = self.inner.database.begin_read()?.open_table(QUARANTINE)?;
        table
            .iter()?
            .map(|row| Ok(row?.0.value().to_owned()))
            .collect()
    }

    /// Appends to the audit trail; each entry carries the hash of the one before.
    ///
    /// # Errors
    /// [`StoreError`]: the store's own trouble.
    pub async fn audit(&self, mut entry: AuditEntry) -> Result<(), StoreError> {
        self.write(move |transaction| {
            let mut table = transaction.open_table(AUDIT)?;
            let (position, before) = match table.last()? {
                Some((position, row)) => {
                    let AuditRow::V1(last) = decode(row.value())?;
                    (position.value() + 1, last.chain)
                }
                None => (1, [0; 32]),
            };
            entry.chain = before;
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &encode(&entry)?);
            entry
                .chain
                .iter_mut()
                .zip(digest.as_ref())
                .for_each(|(to, from)| *to = *from);
            table.insert(position, encode(&AuditRow::V1(entry))?.as_slice())?;
            Ok(Box::new(|_: &Published| {}))
        })
        .await
    }

    /// What an admin says of a device.
    ///
    /// # Errors
    /// [`StoreError::Broken`] when the tables cannot be read.
    pub fn annotation(&self, device: ChannelNo) -> Result<Annotation, StoreError> {
        let table = self.inner.database.begin_read()?.open_table(ANNOTATION)?;
        let row = table.get(device.0)?;
        let row = row
            .map(|row| decode::<AnnotationRow>(row.value()))
            .transpose()?;
        Ok(row
            .map(|AnnotationRow::V1(annotation)| annotation)
            .unwrap_or_default())
    }

    /// Devices behind `after`, in order of their numbers, that `wanted` takes: at most
    /// `most`, and whether there may be more.
    ///
    /// # Errors
    /// [`StoreError::Broken`] when the tables cannot be read.
    pub fn devices(
        &self,
        after: Option<ChannelNo>,
        most: usize,
        mut wanted: impl FnMut(&Device) -> Result<bool, StoreError>,
    ) -> Result<(Vec<Device>, bool), StoreError> {
        let transaction = self.inner.database.begin_read()?;
        let channels = transaction.open_table(CHANNEL)?;
        let annotations = transaction.open_table(ANNOTATION)?;
        let from = after.map_or(0, |after| after.0.saturating_add(1));
        let mut found = Vec::new();
        for row in channels.range(from..)? {
            let (no, row) = row?;
            let ChannelRow::Device(enrollment) = decode(row.value())? else {
                continue;
            };
            let annotation = annotations.get(no.value())?;
            let annotation = annotation
                .map(|row| decode::<AnnotationRow>(row.value()))
                .transpose()?;
            let device = Device {
                last_seen: self.last_seen(enrollment.channel.no)?,
                enrollment: *enrollment,
                annotation: annotation.map(|AnnotationRow::V1(a)| a).unwrap_or_default(),
            };
            if wanted(&device)? {
                if found.len() == most {
                    return Ok((found, true));
                }
                found.push(device);
            }
        }
        Ok((found, false))
    }

    /// Runs a closure in the writer's own transaction.
    pub(super) async fn write(
        &self,
        write: impl FnOnce(&redb::WriteTransaction) -> Result<AfterCommit, StoreError> + Send + 'static,
    ) -> Result<(), StoreError> {
        self.ask(|reply| Operation::Admin(Box::new(write), reply))
            .await
    }
}

/// Notes a dead push token, or (with `None`) that the channel lives.
pub(super) fn dead(channel: ChannelNo, token: Option<[u8; 16]>) -> AdminWrite {
    Box::new(move |transaction| {
        let mut table = transaction.open_table(PUSH_DEAD)?;
        match token {
            Some(key) => table.insert(channel.0, key.as_slice())?,
            None => table.remove(channel.0)?,
        };
        Ok(Box::new(move |published: &Published| {
            if token.is_some() {
                published.dead.set(channel);
            }
        }))
    })
}
