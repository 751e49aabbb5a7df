//! The on-disk format on one page: every table, its key and its row.
//!
//! Keys are fixed-width tuples, integers, `&[u8]` and `&str`; values are postcard of a
//! versioned enum, raw bytes, or dense chunks. Whoever changes a row adds a variant
//! and raises [`SCHEMA_VERSION`] with a migration in `open.rs`.

use redb::TableDefinition;
use schema::enrollment::{EnrolledWith, Enrollment};
use schema::inventory::Known;
use schema::link::{IdentityKind, Link, LinkId};
use schema::ota::OtaDevice;
use schema::queue::State;
use schema::report::{ErrorItem, Status};
use schema::{ChannelNo, CommandUuid, Seq, UnixMillis};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::StoreError;
use super::segments::Address;

/// Version of everything on this page.
pub(super) const SCHEMA_VERSION: u32 = 5;

/// Name -> bytes: `schema`, `numbers`, `instance`, `public_url`, `clock` (the journal
/// position and the time at which an admin confirmed the clock), `backup` (when the last
/// one was made), `restored` ([`RestoredRow`]), `inventory` (the position up to which the
/// journal was read for it).
pub(super) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
/// ChannelNo -> [`ChannelRow`].
pub(super) const CHANNEL: TableDefinition<u32, &[u8]> = TableDefinition::new("channel");
/// EnrollId -> ChannelNo.
pub(super) const CHANNEL_BY_ID: TableDefinition<&str, u32> = TableDefinition::new("channel_by_id");
/// The channels that are enrolled now -> is it a device channel?
pub(super) const ENROLLED: TableDefinition<u32, bool> = TableDefinition::new("enrolled");
/// SHA-256 of the leaf -> [`CertificateRow`].
pub(super) const CERTIFICATE: TableDefinition<&[u8], &[u8]> = TableDefinition::new("certificate");
/// SHA-256 of the leaf -> its DER, of those our CA issued.
pub(super) const CERTIFICATE_DER: TableDefinition<&[u8], &[u8]> =
    TableDefinition::new("certificate_der");
/// Hash of what a certificate was asked for with -> SHA-256 of the leaf: answers a resend.
pub(super) const ISSUED: TableDefinition<&[u8], &[u8]> = TableDefinition::new("issued");
/// SHA-256 of the challenge -> [`ChallengeRow`].
pub(super) const CHALLENGE: TableDefinition<&[u8], &[u8]> = TableDefinition::new("challenge");
/// (minute of expiry, SHA-256 of the challenge): what minting clears away.
pub(super) const CHALLENGE_EXPIRY: TableDefinition<(u32, &[u8]), ()> =
    TableDefinition::new("challenge_expiry");
/// Number -> [`LinkRow`], in the order they were made.
pub(super) const LINK: TableDefinition<u64, &[u8]> = TableDefinition::new("link");
/// LinkId -> number.
pub(super) const LINK_BY_ID: TableDefinition<&str, u64> = TableDefinition::new("link_by_id");
/// (ChannelNo, kind, version) -> sealed; an empty value clears what came before.
pub(super) const SECRET: TableDefinition<(u32, u8, u64), &[u8]> = TableDefinition::new("secret");
/// Seq -> [`CommandRow`].
pub(super) const COMMAND: TableDefinition<u64, &[u8]> = TableDefinition::new("command");
/// First 16 bytes of SHA-256 of the CommandUUID -> Seq.
pub(super) const COMMAND_BY_UUID: TableDefinition<&[u8], u64> =
    TableDefinition::new("command_by_uuid");
/// Seq -> eleven u32, one a [`State`].
pub(super) const COMMAND_COUNT: TableDefinition<u64, &[u8]> = TableDefinition::new("command_count");
/// (minute of expiry, Seq): what the expiry sweep walks.
pub(super) const EXPIRY: TableDefinition<(u32, u64), ()> = TableDefinition::new("expiry");
/// (ChannelNo, Seq) -> [`QueueRow`]: direct commands.
pub(super) const QUEUE: TableDefinition<(u32, u64), u64> = TableDefinition::new("queue");
/// (Seq, channel / 4096) -> 4 bits a channel, 2 KiB. 0 means: as it was released.
pub(super) const COHORT_STATE: TableDefinition<(u64, u32), &[u8]> =
    TableDefinition::new("cohort_state");
/// Position -> [`JournalRow`].
pub(super) const JOURNAL: TableDefinition<u64, &[u8]> = TableDefinition::new("journal");
/// channel / 512 -> u64 each: head of the channel's chain in the journal.
pub(super) const LAST_POSITION: TableDefinition<u32, &[u8]> = TableDefinition::new("last_position");
/// channel / 1024 -> u32 each: minute of the last contact.
pub(super) const SEEN: TableDefinition<u32, &[u8]> = TableDefinition::new("seen");
/// channel / 1024 -> u32 each: minute of the last accepted wake.
pub(super) const PUSHED: TableDefinition<u32, &[u8]> = TableDefinition::new("pushed");
/// ChannelNo -> hash of the push token APNs called dead.
pub(super) const PUSH_DEAD: TableDefinition<u32, &[u8]> = TableDefinition::new("push_dead");
/// SHA-256 of (principal, key) -> [`IdempotencyRow`].
pub(super) const IDEMPOTENCY: TableDefinition<&[u8], &[u8]> = TableDefinition::new("idempotency");
/// ChannelNo -> hashes of the last 32 accepted check-in bodies, 16 bytes each.
pub(super) const SEEN_BODY: TableDefinition<u32, &[u8]> = TableDefinition::new("seen_body");
/// Segment number -> newest record in it, in minutes.
pub(super) const SEGMENT: TableDefinition<u32, u32> = TableDefinition::new("segment");
/// (milliseconds, ChannelNo, 0 enqueued | 1 handed out) -> Seq: what the guard counts.
pub(super) const GUARD: TableDefinition<(u64, u32, u8), u64> = TableDefinition::new("guard");
/// SHA-256 of the token -> [`TokenRow`].
pub(super) const TOKEN: TableDefinition<&[u8], &[u8]> = TableDefinition::new("token");
/// Topic -> sealed certificate and key.
pub(super) const PUSH_CERTIFICATE: TableDefinition<&str, &[u8]> =
    TableDefinition::new("push_certificate");
/// Hash of the public key -> sealed key and request that wait for a push certificate.
pub(super) const PUSH_KEY: TableDefinition<&[u8], &[u8]> = TableDefinition::new("push_key");
/// (ChannelNo, kind) -> sealed [`InventoryRow`].
pub(super) const INVENTORY: TableDefinition<(u32, u8), &[u8]> = TableDefinition::new("inventory");
/// Device ChannelNo -> [`AnnotationRow`].
pub(super) const ANNOTATION: TableDefinition<u32, &[u8]> = TableDefinition::new("annotation");
/// Device ChannelNo -> [`RenewalRow`].
pub(super) const RENEWAL: TableDefinition<u32, &[u8]> = TableDefinition::new("renewal");
/// Device ChannelNo -> the Managed Apple Account its User Enrollment's profile named.
pub(super) const MANAGED_ACCOUNT: TableDefinition<u32, &str> =
    TableDefinition::new("managed_account");
/// EnrollId of a device whose actor failed too often -> milliseconds since when.
pub(super) const QUARANTINE: TableDefinition<&str, u64> = TableDefinition::new("quarantine");
/// Position -> [`AuditRow`].
pub(super) const AUDIT: TableDefinition<u64, &[u8]> = TableDefinition::new("audit");

/// Row `restored` of [`META`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum RestoredRow {
    /// The first version.
    V1(Restored),
}

/// What a store remembers of having been restored from a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// How many restores its history has.
    pub generation: u64,
    /// When the backup was made.
    pub made: UnixMillis,
    /// When it was restored.
    pub at: UnixMillis,
    /// An admin has looked at it since: things expire again.
    pub confirmed: bool,
}

/// A row of [`CHANNEL`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ChannelRow {
    /// A device channel, its user channels inside.
    Device(Box<Enrollment>),
    /// A user channel of that device.
    User(ChannelNo),
}

/// A row of [`CERTIFICATE`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum CertificateRow {
    /// Before we issued any.
    V1(BoundCertificate),
    /// With the link.
    V2(LinkedCertificate),
    /// With what it is good for.
    V3(CertificateRecord),
}

/// A [`CertificateRecord`] as schema version 1 wrote it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct BoundCertificate {
    bound_to: Option<ChannelNo>,
    issued_for: Option<schema::EnrollId>,
    not_after: i64,
    serial: String,
}

/// A [`CertificateRecord`] as schema version 2 wrote it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LinkedCertificate {
    bound_to: Option<ChannelNo>,
    issued_for: Option<schema::EnrollId>,
    not_after: i64,
    serial: String,
    link: Option<String>,
}

/// What we know of an identity certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateRecord {
    /// The device channel it is bound to.
    pub bound_to: Option<ChannelNo>,
    /// The enrollment our CA issued it for.
    pub issued_for: Option<schema::EnrollId>,
    /// End of its life, seconds since 1970.
    pub not_after: i64,
    /// Its serial number in hex.
    pub serial: String,
    /// The enrollment link it was issued through.
    pub link: Option<String>,
    /// What it is good for.
    pub good_for: GoodFor,
}

/// What a certificate is good for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GoodFor {
    /// Enrolling, and everything after.
    Enrollment {
        /// The one device that may enroll under it, where it proved itself before.
        only_for: Option<schema::EnrollId>,
    },
    /// The last step of over-the-air enrollment, and nothing else.
    Proof {
        /// The device that said it is this one.
        device: OtaDevice,
        /// Hash of the challenge it said it with.
        challenge: [u8; 32],
    },
}

impl GoodFor {
    /// Enrolling any device.
    pub const ANY: Self = Self::Enrollment { only_for: None };
}

impl CertificateRecord {
    /// Whether its hash is all there is: an admin named it, nobody has shown it.
    #[must_use]
    pub fn is_hash_alone(&self) -> bool {
        self.not_after == 0
    }
}

impl CertificateRow {
    /// The record in today's shape.
    pub(super) fn into_record(self) -> CertificateRecord {
        match self {
            Self::V1(row) => CertificateRecord {
                bound_to: row.bound_to,
                issued_for: row.issued_for,
                not_after: row.not_after,
                serial: row.serial,
                link: None,
                good_for: GoodFor::ANY,
            },
            Self::V2(row) => CertificateRecord {
                bound_to: row.bound_to,
                issued_for: row.issued_for,
                not_after: row.not_after,
                serial: row.serial,
                link: row.link,
                good_for: GoodFor::ANY,
            },
            Self::V3(record) => record,
        }
    }
}

/// A row of [`CHALLENGE`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ChallengeRow {
    /// When each bought an identity to enroll under.
    V1(FirstChallenge),
    /// With what it buys.
    V2(ChallengeRecord),
}

/// A [`ChallengeRecord`] as schema version 3 wrote it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FirstChallenge {
    link: String,
    shared: bool,
    enrollment: Option<schema::EnrollId>,
    expires: UnixMillis,
    spent_on: Option<schema::Leaf>,
}

/// A challenge, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChallengeRecord {
    /// The enrollment link it was minted for.
    pub link: String,
    /// Good for any number of certificates until it expires.
    pub shared: bool,
    /// The enrollment its certificate is issued for.
    pub enrollment: Option<schema::EnrollId>,
    /// From then on it is void.
    pub expires: UnixMillis,
    /// The certificate a one-time challenge was spent on.
    pub spent_on: Option<schema::Leaf>,
    /// What it buys.
    pub buys: Buys,
}

/// What a challenge buys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Buys {
    /// A certificate.
    Certificate(GoodFor),
    /// The next step of over-the-air enrollment, for the first device that comes.
    Step(Option<OtaCaller>),
}

/// A device that said what it is under its manufacturer's certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtaCaller {
    /// What it said.
    pub device: OtaDevice,
    /// The certificate it signed with.
    pub leaf: schema::Leaf,
}

impl ChallengeRow {
    /// The record in today's shape.
    pub(super) fn into_record(self) -> ChallengeRecord {
        match self {
            Self::V1(row) => ChallengeRecord {
                link: row.link,
                shared: row.shared,
                enrollment: row.enrollment,
                expires: row.expires,
                spent_on: row.spent_on,
                buys: Buys::Certificate(GoodFor::ANY),
            },
            Self::V2(record) => record,
        }
    }
}

/// A row of [`LINK`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum LinkRow {
    /// When every device got its identity by SCEP.
    V1(ScepLink),
    /// With the kind of identity.
    V2(DirectLink),
    /// With over-the-air enrollment.
    V3(Link),
}

/// A [`Link`] as schema version 2 wrote it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ScepLink {
    id: LinkId,
    secret: [u8; 32],
    request: [u8; 32],
    created: UnixMillis,
    expires: UnixMillis,
    max_uses: u32,
    uses: u32,
    tags: Vec<String>,
    device: Option<schema::EnrollId>,
    topic: schema::Topic,
    shared: bool,
    managed_apple_id: Option<String>,
    offers: EnrolledWith,
    revoked: bool,
    principal: String,
}

/// A [`Link`] as schema version 3 wrote it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct DirectLink {
    id: LinkId,
    secret: [u8; 32],
    request: [u8; 32],
    created: UnixMillis,
    expires: UnixMillis,
    max_uses: u32,
    uses: u32,
    tags: Vec<String>,
    device: Option<schema::EnrollId>,
    topic: schema::Topic,
    shared: bool,
    identity: IdentityKind,
    managed_apple_id: Option<String>,
    offers: EnrolledWith,
    revoked: bool,
    principal: String,
}

impl LinkRow {
    /// The link in today's shape.
    pub(super) fn into_link(self) -> Link {
        match self {
            Self::V1(row) => Link {
                id: row.id,
                secret: row.secret,
                request: row.request,
                created: row.created,
                expires: row.expires,
                max_uses: row.max_uses,
                uses: row.uses,
                tags: row.tags,
                device: row.device,
                topic: row.topic,
                shared: row.shared,
                identity: IdentityKind::Scep,
                ota: false,
                managed_apple_id: row.managed_apple_id,
                offers: row.offers,
                revoked: row.revoked,
                principal: row.principal,
            },
            Self::V2(row) => Link {
                id: row.id,
                secret: row.secret,
                request: row.request,
                created: row.created,
                expires: row.expires,
                max_uses: row.max_uses,
                uses: row.uses,
                tags: row.tags,
                device: row.device,
                topic: row.topic,
                shared: row.shared,
                identity: row.identity,
                ota: false,
                managed_apple_id: row.managed_apple_id,
                offers: row.offers,
                revoked: row.revoked,
                principal: row.principal,
            },
            Self::V3(link) => link,
        }
    }
}

/// A row of [`COMMAND`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum CommandRow {
    /// The first version.
    V1(FirstCommand),
    /// With the word that no fitness is asked for.
    V2(CommandRecord),
}

/// A [`CommandRecord`] as schema version 4 wrote it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FirstCommand {
    uuid: CommandUuid,
    request_type: String,
    sealed: Vec<u8>,
    targets: Vec<u8>,
    target_count: u32,
    cohort: bool,
    created: UnixMillis,
    expires: UnixMillis,
    rank: u8,
    barrier: bool,
    destructive: bool,
    principal: String,
    reason: String,
}

impl CommandRow {
    /// The record in today's shape. What was queued before is handed out as it was meant.
    pub(super) fn into_record(self) -> CommandRecord {
        match self {
            Self::V1(row) => CommandRecord {
                uuid: row.uuid,
                request_type: row.request_type,
                sealed: row.sealed,
                targets: row.targets,
                target_count: row.target_count,
                cohort: row.cohort,
                created: row.created,
                expires: row.expires,
                rank: row.rank,
                barrier: row.barrier,
                destructive: row.destructive,
                principal: row.principal,
                reason: row.reason,
                forced: true,
            },
            Self::V2(record) => record,
        }
    }
}

/// A queued command, the same for all its targets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandRecord {
    /// As given.
    pub uuid: CommandUuid,
    /// Its kind.
    pub request_type: String,
    /// The sealed plist.
    #[serde(with = "serde_bytes")]
    pub(super) sealed: Vec<u8>,
    /// The channels it is addressed to, a serialised bitmap.
    #[serde(with = "serde_bytes")]
    pub(super) targets: Vec<u8>,
    /// How many those are.
    pub target_count: u32,
    /// Kept as a state plane instead of queue rows.
    pub cohort: bool,
    /// When it was queued.
    pub created: UnixMillis,
    /// From then on it is not handed out.
    pub expires: UnixMillis,
    /// Its place in the order; see [`schema::queue::rank`].
    pub rank: u8,
    /// Nothing later is offered while it is open.
    pub barrier: bool,
    /// Of the destructive set.
    pub destructive: bool,
    /// Who queued it.
    pub principal: String,
    /// Why, where a reason is required.
    pub reason: String,
    /// Handed out whether the device is fit for it or not.
    pub forced: bool,
}

/// A row of [`QUEUE`], packed into a u64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QueueRow {
    /// Where the command stands on this channel.
    pub(super) state: State,
    /// Lower goes first.
    pub(super) rank: u8,
    /// Hand-outs since the last report.
    pub(super) attempts: u8,
    /// NotNows so far, at most 127.
    pub(super) not_now: u8,
    /// Nothing later is offered while it is open.
    pub(super) barrier: bool,
    /// Minute of expiry.
    pub(super) expires: u32,
}

impl QueueRow {
    pub(super) fn pack(self) -> u64 {
        u64::from(self.state as u8)
            | u64::from(self.rank) << 8
            | u64::from(self.attempts) << 16
            | u64::from(self.not_now.min(127)) << 24
            | u64::from(self.barrier) << 31
            | u64::from(self.expires) << 32
    }

    pub(super) fn unpack(packed: u64) -> Result<Self, StoreError> {
        let [state, rank, attempts, flags, ..] = packed.to_le_bytes();
        Ok(Self {
            state: State::from_number(state)
                .ok_or_else(|| StoreError::broken("a queue row has no state"))?,
            rank,
            attempts,
            not_now: flags & 127,
            barrier: flags & 128 != 0,
            expires: u32::try_from(packed >> 32).unwrap_or(u32::MAX),
        })
    }

    /// The row of a fresh command.
    pub(super) fn fresh(command: &CommandRecord) -> Self {
        Self {
            state: State::Released,
            rank: command.rank,
            attempts: 0,
            not_now: 0,
            barrier: command.barrier,
            // Rounded up: never early.
            expires: command.expires.minutes().saturating_add(1),
        }
    }
}

/// A row of [`JOURNAL`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct JournalRow {
    /// The channel it belongs to.
    pub channel: ChannelNo,
    /// The channel's previous entry, 0 for none.
    pub previous: u64,
    /// When.
    pub at: UnixMillis,
    /// What.
    pub entry: Entry,
}

/// What happened on a channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Entry {
    /// A check-in that changed something.
    CheckIn {
        /// Apple's name of the message.
        message: String,
        /// The body as it came.
        body: Body,
    },
    /// A report that counted.
    Report {
        /// The command.
        seq: Seq,
        /// What the device said.
        status: Status,
        /// The server had closed it before.
        late: bool,
        /// The ErrorChain.
        errors: Vec<ErrorItem>,
        /// The body as it came; none for NotNow.
        body: Body,
    },
    /// A command was handed out.
    Sent {
        /// The command.
        seq: Seq,
    },
    /// The server closed a command.
    Closed {
        /// The command.
        seq: Seq,
        /// Cancelled or expired.
        state: State,
    },
    /// The server did not hand a command out: the device is not fit for it.
    Rejected {
        /// The command.
        seq: Seq,
        /// Why, in a word of [`schema::fitness::Unfit::code`], and in words.
        code: String,
        /// Why, for people.
        why: String,
    },
}

/// Where a sealed body is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Body {
    /// Nowhere.
    None,
    /// In the entry.
    Inline(#[serde(with = "serde_bytes")] Vec<u8>),
    /// In a segment file.
    Segment(BodyAddress),
}

/// The place of a body in the segment files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BodyAddress(pub(super) Address);

/// A row of [`IDEMPOTENCY`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct IdempotencyRow {
    pub(super) request: [u8; 32],
    pub(super) seq: Seq,
    pub(super) accepted: u32,
    pub(super) rejected: Vec<ChannelNo>,
    pub(super) until: UnixMillis,
}

/// A row of [`INVENTORY`], sealed.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum InventoryRow {
    /// The first version.
    V1(Known),
}

/// A row of [`TOKEN`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum TokenRow {
    /// The first version.
    V1(TokenRecord),
}

/// An admin token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// A short public handle.
    pub id: String,
    /// The person or service it belongs to.
    pub principal: String,
    /// What it may do.
    pub scopes: Vec<String>,
    /// When it was made.
    pub created: UnixMillis,
    /// From then on it is void.
    pub expires: Option<UnixMillis>,
    /// It was taken back.
    pub revoked: bool,
}

/// A row of [`ANNOTATION`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum AnnotationRow {
    /// The first version.
    V1(Annotation),
}

/// What an admin says of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Annotation {
    /// Shown instead of the device's own name.
    pub name: Option<String>,
    /// Sorted, without repeats.
    pub tags: Vec<String>,
    /// Free text.
    pub notes: String,
}

/// A row of [`RENEWAL`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum RenewalRow {
    /// The first version.
    V1(RenewalRecord),
}

/// The newest attempt at renewing a device's identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewalRecord {
    /// The identity that is to be replaced.
    pub leaf: schema::Leaf,
    /// The command that is to do it.
    pub uuid: CommandUuid,
    /// Attempts so far at this identity.
    pub attempts: u32,
    /// When the newest was queued.
    pub at: UnixMillis,
}

/// A row of [`AUDIT`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum AuditRow {
    /// The first version.
    V1(AuditEntry),
}

/// One act of an admin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// When.
    pub at: UnixMillis,
    /// The token's id.
    pub token: String,
    /// Whose token.
    pub principal: String,
    /// From where.
    pub source: String,
    /// What, as `METHOD path`.
    pub action: String,
    /// Why, where a reason is required.
    pub reason: String,
    /// SHA-256 over the entry before and this one.
    pub chain: [u8; 32],
}

/// Sealed bodies up to this many bytes stay in the journal; longer ones go to segments.
pub(super) const INLINE_UP_TO: usize = 1100;

/// Writes a row.
pub(super) fn encode<T: Serialize>(row: &T) -> Result<Vec<u8>, StoreError> {
    postcard::to_stdvec(row)
        .map_err(|error| StoreError::broken(&format!("a row cannot be written: {error}")))
}

/// Reads a row.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreError> {
    postcard::from_bytes(bytes)
        .map_err(|error| StoreError::broken(&format!("a row cannot be read: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_are_written_as_a_sequence_of_them_always_was() {
        let row = encode(&Body::Inline(vec![1, 2, 200])).unwrap();
        assert_eq!(row, [1, 3, 1, 2, 200]);
        assert_eq!(row, encode(&(1_u8, vec![1_u8, 2, 200])).unwrap());
        assert_eq!(decode::<Body>(&row).unwrap(), Body::Inline(vec![1, 2, 200]));
    }

    #[test]
    fn a_queue_row_survives_its_packing() {
        for state in State::ALL {
            let row = QueueRow {
                state,
                rank: 200,
                attempts: 255,
                not_now: 127,
                barrier: true,
                expires: u32::MAX,
            };
            assert_eq!(QueueRow::unpack(row.pack()).unwrap(), row);
        }
        assert!(QueueRow::unpack(255).is_err());
    }
}
