//! Check-ins inside a write transaction: the enrollment, its binding, its epoch and
//! its secrets change together or not at all.

use redb::ReadableTable;
use schema::enrollment::{Enrollment, Epoch};
use schema::link::LinkId;
use schema::queue::State;
use schema::{ChannelNo, EnrollId, Leaf, Seq};

use super::StoreError;
use super::batch::Batch;
use super::links::came_through;
use super::operations::CheckedIn;
use super::tables::{
    CERTIFICATE, CHANNEL, CHANNEL_BY_ID, CertificateRecord, CertificateRow, ChannelRow, ENROLLED,
    Entry, GoodFor, PUSH_DEAD, QueueRow, SECRET, SEEN_BODY, decode, encode,
};

impl Batch<'_> {
    /// Makes a check-in durable and gives back the enrollment as it is from now on.
    pub(super) fn check_in(&mut self, checked_in: CheckedIn) -> Result<Enrollment, StoreError> {
        let change = checked_in.change;
        let mut enrollment = change.enrollment;
        let device = enrollment.channel.no;
        if let Some(leaf) = change.bind {
            self.check_free(leaf, device, &enrollment.channel.id)?;
        }
        let body = self.place_body(Some(checked_in.body))?;
        let entry = Entry::CheckIn {
            message: checked_in.message.to_owned(),
            body,
        };
        let position = self.log(checked_in.channel, entry)?;
        if change.epoch != Epoch::Stays {
            for channel in enrollment
                .channels()
                .map(|channel| channel.no)
                .collect::<Vec<_>>()
            {
                self.close_all(channel)?;
            }
            enrollment.epoch = Seq(self.numbers.seq);
            enrollment.epoch_position = position;
        }
        if let Some(leaf) = change.bind
            && let Some(link) = self.bind(leaf, device, &checked_in.identity)?
        {
            enrollment.enrolled_with = match link {
                Some(link) => {
                    let offers = came_through(self.transaction, &LinkId(link), device)?;
                    let before = enrollment
                        .enrolled_with
                        .filter(|_| change.epoch == Epoch::Stays);
                    match (offers, before) {
                        (Some(offers), Some(before)) => Some(offers.after(&before)),
                        (offers, _) => offers,
                    }
                }
                // A certificate renewed without a profile leaves the profile as it was.
                None if change.epoch == Epoch::Stays => enrollment.enrolled_with,
                None => None,
            };
        }
        let mut secrets = self.transaction.open_table(SECRET)?;
        for (kind, sealed) in checked_in.secrets {
            let sealed = sealed.unwrap_or_default();
            secrets.insert((device.0, kind as u8, position), sealed.as_slice())?;
        }
        drop(secrets);
        if let Some(hash) = checked_in.body_hash {
            self.remember_body(device, hash)?;
        }
        if checked_in.message == "TokenUpdate" {
            self.transaction
                .open_table(PUSH_DEAD)?
                .remove(checked_in.channel.0)?;
        }
        self.put_enrollment(&enrollment)?;
        if checked_in.message == "TokenUpdate" {
            let waits =
                |(seq, row): &(Seq, QueueRow)| *seq > enrollment.epoch && row.state.is_open();
            if self.rows_of(checked_in.channel)?.iter().any(waits) {
                self.outcome.reachable.push(checked_in.channel);
            }
        }
        Ok(enrollment)
    }

    /// Writes the rows of an enrollment and of its channels.
    fn put_enrollment(&mut self, enrollment: &Enrollment) -> Result<(), StoreError> {
        let device = enrollment.channel.no;
        let mut rows = self.transaction.open_table(CHANNEL)?;
        let mut ids = self.transaction.open_table(CHANNEL_BY_ID)?;
        let mut enrolled = self.transaction.open_table(ENROLLED)?;
        let row = encode(&ChannelRow::Device(Box::new(enrollment.clone())))?;
        rows.insert(device.0, row.as_slice())?;
        for channel in enrollment.channels() {
            if ids.get(channel.id.as_str())?.is_none() {
                ids.insert(channel.id.as_str(), channel.no.0)?;
                if channel.no != device {
                    rows.insert(channel.no.0, encode(&ChannelRow::User(device))?.as_slice())?;
                }
            }
            let is = channel.state.push().is_some();
            let was = enrolled.get(channel.no.0)?.is_some();
            if is != was {
                if is {
                    enrolled.insert(channel.no.0, channel.kind.is_device())?;
                } else {
                    enrolled.remove(channel.no.0)?;
                }
                self.outcome
                    .enrolled
                    .insert(channel.no, (channel.kind.is_device(), is));
            }
        }
        Ok(())
    }

    /// Cancels what is open on a channel.
    pub(super) fn close_all(&mut self, channel: ChannelNo) -> Result<u32, StoreError> {
        let mut closed = 0;
        for (seq, row) in self.rows_of(channel)? {
            if row.state.is_open() {
                self.close_row(channel, seq, row, State::Cancelled)?;
                closed += 1;
            }
        }
        Ok(closed)
    }

    fn check_free(&self, leaf: Leaf, device: ChannelNo, id: &EnrollId) -> Result<(), StoreError> {
        let bound_to = self.certificate(leaf)?.and_then(|record| record.bound_to);
        match bound_to {
            Some(other) if other != device => Err(StoreError::BoundElsewhere(id.clone())),
            _ => Ok(()),
        }
    }

    /// Binds an identity; of a new one, says through which link it was issued, if any.
    fn bind(
        &mut self,
        leaf: Leaf,
        device: ChannelNo,
        identity: &super::operations::Identity,
    ) -> Result<Option<Option<String>>, StoreError> {
        let record = match self.certificate(leaf)? {
            Some(known) if known.bound_to == Some(device) => return Ok(None),
            Some(known) => CertificateRecord {
                bound_to: Some(device),
                ..known
            },
            None => CertificateRecord {
                bound_to: Some(device),
                issued_for: None,
                not_after: identity.not_after,
                serial: identity.serial.clone(),
                link: None,
                good_for: GoodFor::ANY,
            },
        };
        let link = record.link.clone();
        let mut table = self.transaction.open_table(CERTIFICATE)?;
        table.insert(
            leaf.0.as_slice(),
            encode(&CertificateRow::V3(record))?.as_slice(),
        )?;
        Ok(Some(link))
    }

    fn certificate(&self, leaf: Leaf) -> Result<Option<CertificateRecord>, StoreError> {
        let table = self.transaction.open_table(CERTIFICATE)?;
        let row = table.get(leaf.0.as_slice())?;
        let row = row
            .map(|row| decode::<CertificateRow>(row.value()))
            .transpose()?;
        Ok(row.map(CertificateRow::into_record))
    }

    fn remember_body(&mut self, device: ChannelNo, hash: [u8; 16]) -> Result<(), StoreError> {
        let mut table = self.transaction.open_table(SEEN_BODY)?;
        let mut hashes = table
            .get(device.0)?
            .map(|row| row.value().to_vec())
            .unwrap_or_default();
        hashes.extend_from_slice(&hash);
        let surplus = hashes.len().saturating_sub(BODIES_REMEMBERED * hash.len());
        hashes.drain(..surplus);
        table.insert(device.0, hashes.as_slice())?;
        Ok(())
    }
}

const BODIES_REMEMBERED: usize = 32;
