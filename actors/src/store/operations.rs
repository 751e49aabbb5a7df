//! What the store is asked to do: the orders and their outcomes, in domain words.

use roaring::RoaringBitmap;
use schema::enrollment::{Change, SecretKind};
use schema::report::{ErrorItem, Status};
use schema::{ChannelNo, CommandUuid, Leaf, Seq, UnixMillis};

/// A check-in to be made durable.
#[derive(Debug)]
pub struct CheckedIn {
    /// What it does.
    pub change: Change,
    /// The channel that spoke.
    pub channel: ChannelNo,
    /// Apple's name of the message.
    pub message: &'static str,
    /// The sealed body.
    pub body: Vec<u8>,
    /// Hash of the body, remembered against replays.
    pub body_hash: Option<[u8; 16]>,
    /// The identity it came under.
    pub identity: Identity,
    /// Secrets it hands over, sealed; `None` inside clears.
    pub secrets: Vec<(SecretKind, Option<Vec<u8>>)>,
}

/// The facts of an identity certificate that are recorded with a binding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its hash.
    pub leaf: Leaf,
    /// End of its life, seconds since 1970.
    pub not_after: i64,
    /// Serial number in hex.
    pub serial: String,
}

/// A report to be made durable.
#[derive(Debug)]
pub struct Reported {
    /// The channel that reports.
    pub channel: ChannelNo,
    /// Its epoch: commands up to here do not count.
    pub epoch: Seq,
    /// The command it names.
    pub uuid: CommandUuid,
    /// The command's number, where the caller knows it.
    pub seq: Option<Seq>,
    /// Never Idle.
    pub status: Status,
    /// The ErrorChain.
    pub errors: Vec<ErrorItem>,
    /// The sealed body; none for NotNow.
    pub body: Option<Vec<u8>>,
}

/// What a report did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It counted; `late` when the server had closed the command before.
    Counted {
        /// Its command.
        seq: Seq,
        /// The server had closed it.
        late: bool,
    },
    /// It had counted before.
    Repeated,
    /// Its command is not addressed to this channel, or is of an earlier epoch.
    Stray,
}

/// A command to be queued.
#[derive(Debug)]
pub struct NewCommand {
    /// Its identity.
    pub uuid: CommandUuid,
    /// Its kind.
    pub request_type: String,
    /// The sealed plist.
    pub sealed: Vec<u8>,
    /// See [`schema::queue::rank`].
    pub rank: u8,
    /// Of the destructive set.
    pub destructive: bool,
    /// From then on it is not handed out.
    pub expires: UnixMillis,
    /// To whom.
    pub targets: RoaringBitmap,
    /// Wake them.
    pub wake: bool,
    /// Who orders it.
    pub principal: String,
    /// Why, where a reason is required.
    pub reason: String,
    /// Under which idempotency key.
    pub idempotency: Option<Idempotency>,
    /// Hand it out whether a device is fit for it or not.
    pub forced: bool,
}

/// An idempotency key with the request it came with, both hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// SHA-256 of principal and key.
    pub key: [u8; 32],
    /// SHA-256 of the request.
    pub request: [u8; 32],
}

/// A command a device is not fit for.
#[derive(Debug)]
pub struct Rejection {
    /// The channel it waited for.
    pub channel: ChannelNo,
    /// Its number.
    pub seq: Seq,
    /// Why, in a word.
    pub code: String,
    /// Why, for people.
    pub why: String,
}

/// What queueing did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enqueued {
    /// The command's identity; an earlier one's when the request is a repetition.
    pub uuid: CommandUuid,
    /// Its number; none when nobody took it and nothing was queued.
    pub seq: Option<Seq>,
    /// Channels it waits for.
    pub accepted: u32,
    /// Channels that are not enrolled.
    pub rejected: Vec<ChannelNo>,
    /// The same request came before with this idempotency key.
    pub repeated: bool,
}

/// Which commands to take back.
#[derive(Clone, Copy, Debug)]
pub enum Cancel {
    /// One command, on all channels.
    Command(Seq),
    /// One command on one channel.
    On(ChannelNo, Seq),
    /// All that waits for one channel.
    Channel(ChannelNo),
}

/// What cancelling did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CancelOutcome {
    /// Taken back.
    pub cancelled: u32,
    /// Taken back too, but handed out before: the device may act on them.
    pub already_sent: u32,
    /// Closed before.
    pub closed: u32,
}
