//! Reads of enrollments, certificates, secrets and commands.

use redb::{ReadableDatabase as _, ReadableTable as _};
use roaring::RoaringBitmap;
use schema::enrollment::{Channel, Enrollment, SecretKind};
use schema::queue::State;
use schema::{ChannelNo, CommandUuid, EnrollId, Leaf, PushToken, Seq, UnixMillis};

use super::batch::{targets, uuid_key};
use super::dense;
use super::seal::Place;
use super::tables::{
    CERTIFICATE, CHANNEL, CHANNEL_BY_ID, COHORT_STATE, COMMAND, COMMAND_BY_UUID, COMMAND_COUNT,
    CertificateRecord, CertificateRow, ChannelRow, CommandRecord, CommandRow, PUSH_DEAD, PUSHED,
    QUEUE, SECRET, SEEN, SEEN_BODY, decode,
};
use super::tail::{Counts, read};
use super::{Store, StoreError};

/// A command with how it stands over all its targets.
#[derive(Clone, Debug)]
pub struct CommandSummary {
    /// Its number.
    pub seq: Seq,
    /// The command.
    pub command: CommandRecord,
    /// Targets in each state.
    pub counts: Counts,
}

impl Store {
    /// The channel with this id.
    ///
    /// # Errors
    /// [`StoreError::Broken`] when the tables cannot be read.
    pub fn find(&self, id: &EnrollId) -> Result<Option<ChannelNo>, StoreError> {
        let table = self
            .inner
            .database
            .begin_read()?
            .open_table(CHANNEL_BY_ID)?;
        Ok(table.get(id.as_str())?.map(|no| ChannelNo(no.value())))
    }

    /// The enrollment a channel belongs to, its own or its device's.
    ///
    /// # Errors
    /// [`StoreError::Broken`] when the tables cannot be read.
    pub fn enrollment(&self, channel: ChannelNo) -> Result<Option<Enrollment>, StoreError> {
        let table = self.inner.database.begin_read()?.open_table(CHANNEL)?;
        let mut at = channel;
        loop {
            let Some(row) = table.get(at.0)? else {
                return Ok(None);
            };
            match decode::<ChannelRow>(row.value())? {
                ChannelRow::Device(enrollment) => return Ok(Some(*enrollment)),
                ChannelRow::User(device) if device != at => at = device,
                ChannelRow::User(_) => return Ok(None),
            }
        }
    }

    /// The enrollment and the channel with this id.
    ///
    /// # Errors
    /// [`StoreError::Broken`] when the tables cannot be read.
    pub fn channel(&self, id: &EnrollId) -> Result<Option<(Enrollment, Channel)>, StoreError> {
        let Some(no) = self.find(id)? else {
            return Ok(None);
        };
        let enrollment = self.enrollment(no)?;
        Ok(enrollment.and_then(|enrollment| {
            let channel = enrollment.channel(id).cloned()?;
            Some((enrollment, channel))
        }))
    }

    /// How many channels are enrolled.
    #[must_use]
    pub fn enrolled(&self) -> u64 {
        read(&self.inner.published.enrolled).channels.len()
    }

    /// The device channels enrolled now.
    #[must_use]
    pub fn enrolled_devices(&self) -> RoaringBitmap {
        read(&self.inner.published.enrolled).devices.clone()
    }

    /// What we know of an identity certificate.
    ///
    /// # Errors
    /// [`StoreError::Broken`] when the tables cannot be read.
    pub fn certificate(&self, leaf: Leaf) -> Result<Option<CertificateRecord>, StoreError> {
        let table = self.inner.database.begin_read()?.open_table(CERTIFICATE)?;
        let row = table.get(leaf.0.as_slice())?;
        let row = row
            .map(|row| decode::<CertificateRow>(row.value()))
            .transpose()?;
        Ok(row.map(CertificateRow::into_record))
    }

    /// Was this check-in body accepted from this device before?
    ///
    /// # Errors
    /// [`StoreError::Broken`] when the tables cannot be read.
    pub fn body_was_seen(&self, device: ChannelNo, hash: [u8; 16]) -> Result<bool, StoreError> {
        let table = self.inner.database.begin_read()?.open_table(SEEN_BODY)?;
        let hashes = table.get(device.0)?;
        Ok(hashes.is_some_and(|hashes| hashes.value().chunks_exact(16).any(|seen| seen == hash)))
    }

    /// The newest secret of a kind the device stored after `since` (a journal position).
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read or opened.
    pub fn secret(
        &self,
        device: ChannelNo,
        kind: SecretKind,
        since: u64,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let table = self.inner.database.begin_read()?.open_table(SECRET)?;
        let kind_no = kind as u8;
        let newest = table
            .range((device.0, kind_no, since)..=(device.0, kind_no, u64::MAX))?
            .next_back();
        match newest.transpose()? {
            Some((_, sealed)) if !sealed.value().is_empty() => {
                let place = Place::Secret(device.0, kind_no);
                self.inner.sealer.open(place, sealed.value()).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Kinds and versions of the secrets kept for a device; a cleared one counts.
    ///
    /// # Errors
    /// [`StoreError::Broken`] when the tables cannot be read.
    pub fn secrets(&self, device: ChannelNo) -> Result<Vec<(u8, u64)>, StoreError> {
        let table = self.inner.database.begin_read()?.open_table(SECRET)?;
        let rows = table.range((device.0, 0, 0)..=(device.0, u8::MAX, u64::MAX))?;
        rows.map(|row| {
            let (_, kind, version) = row?.0.value();
            Ok((kind, version))
        })
        .collect()
    }

    /// When a channel was last in contact, to the minute.
    ///
    /// # Errors
    /// [`StoreError::Broken`] when the tables cannot be read.
    pub fn last_seen(&self, channel: ChannelNo) -> Result<Option<UnixMillis>, StoreError> {
        if let Some(minutes) = self.inner.published.seen.get(&channel) {
            return Ok(Some(UnixMillis::from_minutes(*minutes)));
        }
        let table = self.inner.database.begin_read()?.open_table(SEEN)?;
        let chunk = table.get(channel.0 / dense::MINUTES)?;
        let minutes = chunk.and_then(|chunk| dense::u32_at(chunk.value(), channel));
        Ok(minutes.map(UnixMillis::from_minutes))
    }

    /// When APNs last took a wake of a channel, to the minute.
    ///
    /// # Errors
    /// [`StoreError::Broken`] when the tables cannot be read.
    pub fn last_pushed(&self, channel: ChannelNo) -> Result<Option<UnixMillis>, StoreError> {
        if let Some(minutes) = self.inner.published.pushed.get(&channel) {
            return Ok(Some(UnixMillis::from_minutes(*minutes)));
        }
        let table = self.inner.database.begin_read()?.open_table(PUSHED)?;
        let chunk = table.get(channel.0 / dense::MINUTES)?;
        let minutes = chunk.and_then(|chunk| dense::u32_at(chunk.value(), channel));
        Ok(minutes.map(UnixMillis::from_minutes))
    }

    /// Did APNs call this very token of the channel dead?
    ///
    /// # Errors
    /// [`StoreError::Broken`] when the tables cannot be read.
    pub fn push_is_dead(&self, channel: ChannelNo, token: &PushToken) -> Result<bool, StoreError> {
        let table = self.inner.database.begin_read()?.open_table(PUSH_DEAD)?;
        let dead = table.get(channel.0)?;
        Ok(dead.is_some_and(|hash| hash.value() == token_key(token)))
    }

    /// The number of a command by its CommandUUID.
    ///
    /// # Errors
    /// [`StoreError::Broken`] when the tables cannot be read.
    pub fn seq_of(&self, uuid: &CommandUuid) -> Result<Option<Seq>, StoreError> {
        let table = self
            .inner
            .database
            .begin_read()?
            .open_table(COMMAND_BY_UUID)?;
        Ok(table
            .get(uuid_key(uuid.as_str()).as_slice())?
            .map(|seq| Seq(seq.value())))
    }

    /// A command and how it stands.
    ///
    /// # Errors
    /// [`StoreError::Broken`] when the tables cannot be read.
    pub fn command(&self, seq: Seq) -> Result<Option<CommandSummary>, StoreError> {
        // What is published first: a fold between the two reads moves it to the table.
        let counts = self.inner.published.counts.get(&seq).map(|counts| *counts);
        let transaction = self.inner.database.begin_read()?;
        let commands = transaction.open_table(COMMAND)?;
        let Some(row) = commands.get(seq.0)? else {
            return Ok(None);
        };
        let command = decode::<CommandRow>(row.value())?.into_record();
        let counts = match counts {
            Some(counts) => counts,
            None => {
                let table = transaction.open_table(COMMAND_COUNT)?;
                let row = table.get(seq.0)?;
                row.map_or(Ok(Counts::default()), |row| decode(row.value()))?
            }
        };
        Ok(Some(CommandSummary {
            seq,
            command,
            counts,
        }))
    }

    /// Every channel for which a direct command or an open cohort waits: what the push
    /// supervisor walks after a restart.
    ///
    /// # Errors
    /// [`StoreError::Broken`] when the tables cannot be read.
    pub fn channels_with_work(&self) -> Result<Vec<ChannelNo>, StoreError> {
        let mut channels = RoaringBitmap::new();
        let transaction = self.inner.database.begin_read()?;
        for row in transaction.open_table(QUEUE)?.iter()? {
            let (key, row) = row?;
            let [state, ..] = row.value().to_le_bytes();
            if State::from_number(state).is_some_and(State::is_deliverable) {
                channels.insert(key.value().0);
            }
        }
        let planes = transaction.open_table(COHORT_STATE)?;
        let cohorts: Vec<_> = self
            .inner
            .published
            .cohorts()
            .iter()
            .map(|(s, c)| (*s, c.clone()))
            .collect();
        for (seq, cohort) in cohorts {
            let mut open = cohort.targets.clone();
            for chunk in planes.range((seq.0, 0)..=(seq.0, u32::MAX))? {
                let (key, chunk) = chunk?;
                let first = key.value().1.saturating_mul(dense::PLANE);
                for channel in (first..first.saturating_add(dense::PLANE)).map(ChannelNo) {
                    if dense::nibble(chunk.value(), channel).is_some_and(|state| !state.is_open()) {
                        open.remove(channel.0);
                    }
                }
            }
            channels |= open;
        }
        Ok(channels.iter().map(ChannelNo).collect())
    }

    /// The channels a command is addressed to.
    #[must_use]
    pub fn targets(&self, command: &CommandRecord) -> Vec<ChannelNo> {
        targets(command).iter().map(ChannelNo).collect()
    }
}

/// What stands for a token that is dead.
pub(super) fn token_key(token: &PushToken) -> [u8; 16] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &token.0);
    let mut key = [0; 16];
    key.iter_mut()
        .zip(digest.as_ref())
        .for_each(|(to, from)| *to = *from);
    key
}
