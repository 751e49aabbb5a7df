//! What is known of the renewal of identities: a slice of the devices at a time, and the
//! newest attempt at each. The `renewer` decides; the device actor asks which command it is.

use redb::ReadableDatabase as _;
use schema::enrollment::{ChannelState, Enrollment};
use schema::x509::Certificate;
use schema::{ChannelNo, CommandUuid, Leaf, Seq};

use super::tables::{
    CERTIFICATE_DER, CHANNEL, ChannelRow, MANAGED_ACCOUNT, QUEUE, QueueRow, RENEWAL, RenewalRecord,
    RenewalRow, decode, encode,
};
use super::tail::Published;
use super::{Store, StoreError};

/// Who queues the commands that renew: no person, and no name a token may have.
pub const RENEWAL_PRINCIPAL: &str = "reveille:renewal";

/// An enrolled device, as far as its renewal goes.
#[derive(Clone, Debug)]
pub struct Renewing {
    /// Its enrollment.
    pub enrollment: Enrollment,
    /// The identity it is bound to.
    pub leaf: Leaf,
    /// Begin and end of that in Unix seconds, where we issued it.
    pub validity: Option<(i64, i64)>,
    /// The Managed Apple Account of its User Enrollment.
    pub managed_apple_id: Option<String>,
    /// The newest attempt.
    pub attempt: Option<RenewalRecord>,
}

impl Store {
    /// The enrolled devices of the next `most` channels behind `after`, and behind which
    /// channel to go on; none at the end.
    ///
    /// # Errors
    /// [`StoreError::Broken`] when the tables cannot be read.
    pub fn renewing(
        &self,
        after: Option<ChannelNo>,
        most: usize,
    ) -> Result<(Vec<Renewing>, Option<ChannelNo>), StoreError> {
        let transaction = self.inner.database.begin_read()?;
        let channels = transaction.open_table(CHANNEL)?;
        let ders = transaction.open_table(CERTIFICATE_DER)?;
        let attempts = transaction.open_table(RENEWAL)?;
        let accounts = transaction.open_table(MANAGED_ACCOUNT)?;
        let from = after.map_or(0, |after| after.0.saturating_add(1));
        let (mut found, mut seen, mut last) = (Vec::new(), 0, None);
        for row in channels.range(from..)?.take(most) {
            let (no, row) = row?;
            seen += 1;
            last = Some(ChannelNo(no.value()));
            let ChannelRow::Device(enrollment) = decode(row.value())? else {
                continue;
            };
            let enrolled = matches!(enrollment.channel.state, ChannelState::Enrolled { .. });
            let Some(leaf) = enrollment.bound.filter(|_| enrolled) else {
                continue;
            };
            let der = ders.get(leaf.0.as_slice())?;
            let attempt = attempts.get(no.value())?;
            let attempt = attempt.map(|row| decode::<RenewalRow>(row.value()));
            found.push(Renewing {
                enrollment: *enrollment,
                leaf,
                validity: der.and_then(|der| {
                    let certificate = Certificate::parse(der.value()).ok()?;
                    Some((certificate.not_before, certificate.not_after))
                }),
                managed_apple_id: accounts.get(no.value())?.map(|id| id.value().to_owned()),
                attempt: attempt.transpose()?.map(|RenewalRow::V1(record)| record),
            });
        }
        Ok((found, last.filter(|_| seen == most)))
    }

    /// The newest attempt at renewing a device's identity.
    ///
    /// # Errors
    /// [`StoreError::Broken`] when the tables cannot be read.
    pub fn renewal(&self, device: ChannelNo) -> Result<Option<RenewalRecord>, StoreError> {
        let table = self.inner.database.begin_read()?.open_table(RENEWAL)?;
        let row = table.get(device.0)?;
        let row = row
            .map(|row| decode::<RenewalRow>(row.value()))
            .transpose()?;
        Ok(row.map(|RenewalRow::V1(record)| record))
    }

    /// Notes an attempt, before its command is queued.
    ///
    /// # Errors
    /// [`StoreError`]: the store's own trouble.
    pub async fn put_renewal(
        &self,
        device: ChannelNo,
        record: RenewalRecord,
    ) -> Result<(), StoreError> {
        self.write(move |transaction| {
            let row = encode(&RenewalRow::V1(record))?;
            transaction
                .open_table(RENEWAL)?
                .insert(device.0, row.as_slice())?;
            Ok(Box::new(|_: &Published| {}))
        })
        .await
    }

    /// The Managed Apple Account of a device's User Enrollment.
    ///
    /// # Errors
    /// [`StoreError::Broken`] when the tables cannot be read.
    pub fn managed_account(&self, device: ChannelNo) -> Result<Option<String>, StoreError> {
        let transaction = self.inner.database.begin_read()?;
        let table = transaction.open_table(MANAGED_ACCOUNT)?;
        Ok(table.get(device.0)?.map(|id| id.value().to_owned()))
    }

    /// The number of the command that renews a device's identity, while it waits.
    ///
    /// # Errors
    /// [`StoreError::Broken`] when the tables cannot be read.
    pub fn open_renewal(&self, device: ChannelNo) -> Result<Option<Seq>, StoreError> {
        match self.renewal(device)? {
            Some(record) => self.still_open(device, &record.uuid),
            None => Ok(None),
        }
    }

    /// The number of a command to one device, while it waits for it.
    ///
    /// # Errors
    /// [`StoreError::Broken`] when the tables cannot be read.
    pub fn still_open(
        &self,
        device: ChannelNo,
        uuid: &CommandUuid,
    ) -> Result<Option<Seq>, StoreError> {
        let Some(seq) = self.seq_of(uuid)? else {
            return Ok(None);
        };
        let changed = self.inner.published.rows(device);
        if let Some((_, row)) = changed.iter().find(|(s, _)| *s == seq) {
            return Ok(row.state.is_open().then_some(seq));
        }
        let queue = self.inner.database.begin_read()?.open_table(QUEUE)?;
        let row = queue.get((device.0, seq.0))?;
        let row = row.map(|row| QueueRow::unpack(row.value())).transpose()?;
        Ok(row.filter(|row| row.state.is_open()).map(|_| seq))
    }
}
