//! How devices and their commands look in the API.

use actors::store::{ChannelCommand, Device, RENEWAL_PRINCIPAL};
use schema::access::AccessRights;
use schema::enrollment::Enrollment;
use schema::report::ErrorItem;
use serde::Serialize;
use utoipa::ToSchema;

use super::rendering::{time, time_of_seconds};
use crate::app::App;
use crate::error::Problem;

/// A device.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DeviceItem {
    /// Its enrollment id.
    pub id: String,
    /// As Authenticate said; empty when it did not.
    pub serial_number: String,
    /// The name an admin gave, else the device's own.
    pub name: String,
    /// Apple's product name.
    pub model: String,
    /// By the product name; empty when it cannot be told.
    pub platform: String,
    /// As Authenticate said.
    pub os_version: String,
    /// `pending`, `enrolled` or `checked_out`.
    pub state: String,
    /// `Device` or `User Enrollment (Device)`.
    pub enrollment_type: String,
    /// Last contact, to the minute.
    pub last_seen_at: Option<String>,
    /// When the running enrollment began.
    pub enrolled_at: Option<String>,
    /// Open commands on all its channels.
    pub pending_commands: usize,
    /// Tags an admin gave.
    pub tags: Vec<String>,
    /// Its channels.
    pub channels: Vec<ChannelItem>,
}

/// A channel of a device.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ChannelItem {
    /// Its enrollment id.
    pub id: String,
    /// Its kind, in the names of the field.
    pub kind: String,
    /// How to wake it.
    pub push: Option<PushItem>,
}

/// How a channel is woken; the token itself is never shown.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PushItem {
    /// The topic it reported.
    pub topic: String,
    /// `ok`, or `dead` when APNs said so of this token.
    pub state: String,
    /// Last wake APNs took, to the minute.
    pub last_push_at: Option<String>,
}

/// A device with everything known of it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DeviceDetail {
    #[serde(flatten)]
    #[schema(inline)]
    item: DeviceItem,
    /// Free text an admin wrote.
    notes: String,
    /// What reports told of it.
    #[schema(value_type = Object)]
    inventory: serde_json::Value,
    /// Its identity.
    certificate: Option<CertificateItem>,
    /// Sits in Setup Assistant until `DeviceConfigured`.
    awaiting_configuration: bool,
    /// What its enrollment granted; null when that is not known, or fixed by Apple.
    access_rights: Option<Vec<&'static str>>,
    /// An admin let it enroll again under a new identity.
    reenroll_allowed: bool,
    /// Its actor failed too often; see `lift-quarantine`.
    quarantined: bool,
}

/// The identity certificate a device is bound to.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CertificateItem {
    /// SHA-256 of its DER, in hex.
    sha256: String,
    /// Serial number, in hex.
    serial: String,
    /// End of its validity; absent where only its hash is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_after: Option<String>,
    /// That is over; it still counts.
    expired: bool,
}

/// A command on a device.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CommandItem {
    /// Its identity.
    pub command_uuid: String,
    /// Its kind.
    pub request_type: String,
    /// Where it stands; see the states in the README.
    pub state: String,
    /// Who queued it, when no person did: `renewal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<&'static str>,
    /// When it was queued.
    pub created_at: String,
    /// When it was last handed out.
    pub sent_at: Option<String>,
    /// When it was closed.
    pub completed_at: Option<String>,
    /// The rollout it belongs to.
    pub rollout_id: Option<String>,
    /// The device's errors, top first.
    #[schema(value_type = Vec<Object>)]
    pub error_chain: Vec<ErrorItem>,
    /// Hand-outs since the last report.
    pub attempts: u8,
    /// Handed out too often without a report; it steps behind the others.
    pub stuck: bool,
    /// Why a `rejected` one was not handed out: a code, and the same for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejected: Option<RejectedItem>,
}

/// Why a command was not handed out.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RejectedItem {
    /// As in the answer to an order.
    pub code: String,
    /// Which right, which version.
    pub detail: String,
}

/// A device as lists show it.
///
/// # Errors
/// What the store says.
pub fn item(app: &App, device: &Device) -> Result<DeviceItem, Problem> {
    let enrollment = &device.enrollment;
    let facts = &enrollment.facts;
    let mut pending_commands = 0;
    let mut channels = Vec::with_capacity(1 + enrollment.users.len());
    for channel in enrollment.channels() {
        let push = match channel.state.push() {
            None => None,
            Some(push) => {
                pending_commands += app.store.pending(channel.no, enrollment.epoch)?.len();
                let dead = app.store.push_is_dead(channel.no, &push.token)?;
                Some(PushItem {
                    topic: push.topic.0.clone(),
                    state: if dead { "dead" } else { "ok" }.to_owned(),
                    last_push_at: app.store.last_pushed(channel.no)?.map(time),
                })
            }
        };
        channels.push(ChannelItem {
            id: channel.id.to_string(),
            kind: channel.kind.name().to_owned(),
            push,
        });
    }
    Ok(DeviceItem {
        id: enrollment.channel.id.to_string(),
        serial_number: facts.serial_number.clone(),
        name: device
            .annotation
            .name
            .clone()
            .unwrap_or_else(|| facts.name.clone()),
        model: facts.model.clone(),
        platform: facts.platform().to_owned(),
        os_version: facts.os_version.clone(),
        state: enrollment.channel.state.name().to_owned(),
        enrollment_type: enrollment.channel.kind.name().to_owned(),
        last_seen_at: device.last_seen.map(time),
        enrolled_at: enrollment.enrolled_at.map(time),
        pending_commands,
        tags: device.annotation.tags.clone(),
        channels,
    })
}

/// A device with everything known of it.
///
/// # Errors
/// What the store says.
pub fn detail(app: &App, enrollment: Enrollment) -> Result<DeviceDetail, Problem> {
    let no = enrollment.channel.no;
    let certificate = match enrollment.bound {
        None => None,
        Some(leaf) => app.store.certificate(leaf)?.map(|record| CertificateItem {
            sha256: leaf.to_string(),
            not_after: (!record.is_hash_alone()).then(|| time_of_seconds(record.not_after)),
            expired: !record.is_hash_alone()
                && record.not_after < i64::try_from(app.clock.now().seconds()).unwrap_or(i64::MAX),
            serial: record.serial,
        }),
    };
    let device = Device {
        annotation: app.store.annotation(no)?,
        last_seen: app.store.last_seen(no)?,
        enrollment,
    };
    let quarantined = app
        .store
        .quarantined()?
        .iter()
        .any(|id| *id == device.enrollment.channel.id.as_str());
    let offered = device.enrollment.enrolled_with.as_ref();
    let rights = offered.and_then(|offered| offered.rights);
    Ok(DeviceDetail {
        item: item(app, &device)?,
        notes: device.annotation.notes.clone(),
        inventory: super::results::inventory(app, no)?,
        certificate,
        awaiting_configuration: device.enrollment.awaiting_configuration,
        access_rights: rights.map(AccessRights::names),
        reenroll_allowed: device.enrollment.allow_reenroll,
        quarantined,
    })
}

impl From<ChannelCommand> for CommandItem {
    fn from(of: ChannelCommand) -> Self {
        Self {
            command_uuid: of.command.uuid.to_string(),
            request_type: of.command.request_type,
            state: of.state.name().to_owned(),
            origin: (of.command.principal == RENEWAL_PRINCIPAL).then_some("renewal"),
            created_at: time(of.command.created),
            sent_at: of.sent_at.map(time),
            completed_at: of.completed_at.map(time),
            rollout_id: None,
            error_chain: of.errors,
            attempts: of.attempts,
            stuck: of.stuck,
            rejected: of
                .rejected
                .map(|(code, detail)| RejectedItem { code, detail }),
        }
    }
}
