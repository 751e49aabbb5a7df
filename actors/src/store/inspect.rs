//! A look into a store that nobody has open, which changes nothing: for `doctor`.
//!
//! No migration, no replay, no writer. A server that runs keeps this out as it keeps
//! any second process out.

use std::path::Path;

use redb::{
    Key, ReadOnlyDatabase, ReadTransaction, ReadableDatabase as _, ReadableTable,
    ReadableTableMetadata as _, TableDefinition, TableError, Value,
};
use schema::UnixMillis;
use schema::renewal::{Obstacle, renewable};

use super::StoreError;
use super::archive::DATABASE;
use super::backup::{last_backup, restored};
use super::disk::LocalDisk;
use super::seal::{Place, Sealer};
use super::tables::{
    CHANNEL, COMMAND, ChannelRow, CommandRow, JOURNAL, JournalRow, MANAGED_ACCOUNT, META,
    PUSH_CERTIFICATE, PUSH_KEY, Restored, SCHEMA_VERSION, decode,
};

/// What a store holds, from outside.
#[derive(Debug)]
pub struct Inspection {
    /// The version of its tables.
    pub schema: Option<u32>,
    /// When the newest entry of its journal was written.
    pub last_written: Option<UnixMillis>,
    /// When the last backup was made.
    pub last_backup: Option<UnixMillis>,
    /// What it remembers of having been restored.
    pub restored: Option<Restored>,
    /// Bytes of the database file, and how many of them it needs.
    pub database: (u64, u64),
    /// Whether what it holds opens with the sealing key.
    pub sealing: Result<Fit, StoreError>,
    /// Enrolled devices whose identity cannot be renewed: what their profile said is not
    /// known.
    pub unrenewable: u64,
    /// Topic and stored form of each push certificate that opens.
    pub push_certificates: Vec<(String, Vec<u8>)>,
}

/// How a sealing key fits a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// What was tried opens.
    Opens,
    /// Nothing is sealed yet.
    Untested,
}

impl Inspection {
    /// The table version this program reads and writes.
    pub const KNOWN_SCHEMA: u32 = SCHEMA_VERSION;

    /// Looks into the store of a data directory.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::Unclosed`], or [`StoreError::Broken`] when it
    /// cannot be read.
    pub fn of(directory: &Path, seal_key_file: &Path) -> Result<Self, StoreError> {
        let file = directory.join(DATABASE);
        let database = ReadOnlyDatabase::open(&file)?;
        let read = database.begin_read()?;
        let mut inspection = Self {
            schema: schema(&read)?,
            last_written: last_written(&read)?,
            last_backup: None,
            restored: None,
            database: (std::fs::metadata(file)?.len(), needed(&read)?),
            sealing: Ok(Fit::Untested),
            unrenewable: unrenewable(&read)?,
            push_certificates: Vec::new(),
        };
        if let Some(meta) = table(&read, META)? {
            inspection.last_backup = last_backup(&meta)?;
            inspection.restored = restored(&meta)?;
        }
        inspection.sealing = match Sealer::from_file(&LocalDisk, seal_key_file, false) {
            Ok(sealer) => inspection.try_opening(&read, &sealer),
            Err(error) => Err(error),
        };
        Ok(inspection)
    }

    /// Opens what push needs, all of it, and the newest command.
    fn try_opening(&mut self, read: &ReadTransaction, sealer: &Sealer) -> Result<Fit, StoreError> {
        let mut fit = Fit::Untested;
        if let Some(table) = table(read, PUSH_CERTIFICATE)? {
            for row in table.iter()? {
                let (topic, sealed) = row?;
                let place = Place::PushCertificate(topic.value());
                let opened = sealer.open(place, sealed.value())?;
                self.push_certificates
                    .push((topic.value().to_owned(), opened));
                fit = Fit::Opens;
            }
        }
        if let Some(table) = table(read, PUSH_KEY)?
            && let Some((hash, sealed)) = table.first()?
        {
            sealer.open(Place::PushKey(hash.value()), sealed.value())?;
            fit = Fit::Opens;
        }
        if let Some(table) = table(read, COMMAND)?
            && let Some((_, row)) = table.last()?
        {
            let command = decode::<CommandRow>(row.value())?.into_record();
            sealer.open(Place::Command(command.uuid.as_str()), &command.sealed)?;
            fit = Fit::Opens;
        }
        Ok(fit)
    }
}

fn schema(read: &ReadTransaction) -> Result<Option<u32>, StoreError> {
    let Some(table) = table(read, META)? else {
        return Ok(None);
    };
    let row = table.get("schema")?;
    row.map(|row| decode(row.value())).transpose()
}

fn last_written(read: &ReadTransaction) -> Result<Option<UnixMillis>, StoreError> {
    let Some(table) = table(read, JOURNAL)? else {
        return Ok(None);
    };
    let last = table.last()?;
    last.map(|(_, row)| decode::<JournalRow>(row.value()).map(|row| row.at))
        .transpose()
}

fn unrenewable(read: &ReadTransaction) -> Result<u64, StoreError> {
    let (Some(meta), Some(channels)) = (table(read, META)?, table(read, CHANNEL)?) else {
        return Ok(0);
    };
    let instance = meta.get("instance")?;
    let instance = instance.and_then(|row| <[u8; 16]>::try_from(row.value()).ok());
    let accounts = table(read, MANAGED_ACCOUNT)?;
    let mut count = 0;
    for row in channels.iter()? {
        let (no, row) = row?;
        let ChannelRow::Device(enrollment) = decode(row.value())? else {
            continue;
        };
        let account = match &accounts {
            Some(accounts) => accounts.get(no.value())?.map(|id| id.value().to_owned()),
            None => None,
        };
        let outcome = renewable(
            &enrollment,
            &instance.unwrap_or_default(),
            account.as_deref(),
        );
        count += u64::from(outcome.is_err_and(|why| why != Obstacle::NotEnrolled));
    }
    Ok(count)
}

/// Bytes of the pages that hold anything.
fn needed(read: &ReadTransaction) -> Result<u64, StoreError> {
    let mut bytes = 0;
    for table in read.list_tables()? {
        let stats = read.open_untyped_table(table)?.stats()?;
        bytes += stats.stored_bytes() + stats.metadata_bytes() + stats.fragmented_bytes();
    }
    Ok(bytes)
}

/// A table, when an older program has made it.
fn table<K: Key + 'static, V: Value + 'static>(
    read: &ReadTransaction,
    definition: TableDefinition<'_, K, V>,
) -> Result<Option<impl ReadableTable<K, V>>, StoreError> {
    match read.open_table(definition) {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(other) => Err(other.into()),
    }
}
