//! What a device does: enrolls, polls, performs commands and reports, until
//! the server has no more. Follows Apple's order rules, and misbehaves as its
//! `Mood` says.

use crate::answers::answer;
use crate::behaviour::{Delivery, Mood, Unconfirmed};
use crate::client::{Client, Reply};
use crate::command::{Command, Status};
use crate::device::{Channel, Device};
use crate::error::SimError;

/// What happened from one Idle until the server's empty answer.
#[derive(Debug, Default)]
pub struct Session {
    /// The commands, in the order they came.
    pub steps: Vec<Step>,
    /// Why it broke off, if it did.
    pub failure: Option<SimError>,
    /// The device erased itself: it will not poll again.
    pub erased: bool,
}

/// One command within a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// CommandUUID.
    pub uuid: String,
    /// RequestType; empty for a result repeated from an earlier session.
    pub request_type: String,
    /// The status reported.
    pub status: Status,
    /// Times handed out: 0 for a result repeated from an earlier session.
    pub handed_out: u32,
    /// Times the report was sent.
    pub sent: u32,
    /// Times the server answered it with 200.
    pub confirmed: u32,
}

impl Session {
    /// The session, or why it broke off.
    pub fn completed(self) -> Result<Self, SimError> {
        match self.failure {
            Some(failure) => Err(failure),
            None => Ok(self),
        }
    }

    /// The last status sent. After NotNow the device polls again by itself.
    pub fn last_status(&self) -> Option<Status> {
        self.steps.last().map(|step| step.status)
    }
}

/// Authenticate, TokenUpdate, and the user channel's TokenUpdate if any.
pub async fn enroll(device: &Device, client: &mut Client) -> Result<(), SimError> {
    let identity = &device.identity;
    let reply = client.check_in(identity, device.authenticate()).await?;
    accepted("Authenticate", &reply)?;
    let reply = client.check_in(identity, device.token_update()).await?;
    accepted("TokenUpdate", &reply)?;
    if let Some(update) = device.user_token_update() {
        let reply = client.check_in(identity, update).await?;
        accepted("TokenUpdate of the user channel", &reply)?;
    }
    Ok(())
}

/// Idle, then each command the server hands out, until it has no more.
///
/// A result that an earlier session could not deliver is sent first, instead
/// of Idle, as real devices do.
pub async fn poll_session(
    device: &Device,
    channel: Channel,
    client: &mut Client,
    mood: &mut Mood,
) -> Session {
    let mut session = Session::default();
    let mut talk = Talk {
        device,
        channel,
        client,
        mood,
    };
    if let Err(failure) = talk.run(&mut session).await {
        session.failure = Some(failure);
        talk.client.disconnect();
    }
    session
}

/// One session's participants.
struct Talk<'a> {
    device: &'a Device,
    channel: Channel,
    client: &'a mut Client,
    mood: &'a mut Mood,
}

impl Talk<'_> {
    async fn run(&mut self, session: &mut Session) -> Result<(), SimError> {
        let mut reply = self.open(session).await?;
        while let Some(command) = Command::parse(&reply.body)? {
            if session.steps.len() >= MOST_COMMANDS {
                return Err(SimError::Endless {
                    udid: self.device.udid.clone(),
                    commands: MOST_COMMANDS,
                });
            }
            reply = self.perform(&command, session).await?;
            if is_erased(&command, session) {
                session.erased = true;
                break;
            }
        }
        Ok(())
    }

    /// The first message: a result still owed, or Idle.
    async fn open(&mut self, session: &mut Session) -> Result<Reply, SimError> {
        let Some(owed) = self.mood.unconfirmed.get(&self.channel).cloned() else {
            return self.idle().await;
        };
        let step = begin(session, &owed.uuid, "", owed.status, 0);
        self.deliver(owed, step).await
    }

    async fn perform(
        &mut self,
        command: &Command,
        session: &mut Session,
    ) -> Result<Reply, SimError> {
        let conduct = self.mood.decide(&command.uuid);
        let size = self.mood.acknowledged_bytes();
        let outcome = conduct
            .pretended
            .unwrap_or_else(|| answer(self.device, command, size));
        let body = self
            .device
            .report(self.channel, &command.uuid, &outcome, size);
        let status = outcome.status();
        let step = begin(session, &command.uuid, &command.request_type, status, 1);
        let report = Unconfirmed {
            uuid: command.uuid.clone(),
            status,
            body,
        };
        match conduct.delivery {
            Delivery::Once => self.deliver(report, step).await,
            Delivery::Twice => {
                self.deliver(report.clone(), step).await?;
                self.deliver(report, step).await
            }
            Delivery::LostAfterAnswer => {
                self.deliver(report, step).await?;
                self.client.disconnect();
                self.idle().await
            }
            Delivery::LostBeforeAnswer => {
                step.sent += 1;
                let identity = &self.device.identity;
                self.client.report_and_vanish(identity, report.body).await?;
                self.idle().await
            }
        }
    }

    /// Sends a report; a final one stays owed until a 200 confirms it.
    async fn deliver(&mut self, report: Unconfirmed, step: &mut Step) -> Result<Reply, SimError> {
        step.sent += 1;
        let body = report.body.clone();
        if report.status.is_final() {
            self.mood.unconfirmed.insert(self.channel, report);
        }
        let reply = self.client.report(&self.device.identity, body).await?;
        accepted("a report", &reply)?;
        step.confirmed += 1;
        self.mood.unconfirmed.remove(&self.channel);
        Ok(reply)
    }

    async fn idle(&mut self) -> Result<Reply, SimError> {
        let body = self.device.idle(self.channel);
        let reply = self.client.report(&self.device.identity, body).await?;
        accepted("Idle", &reply)?;
        Ok(reply)
    }
}

fn begin<'a>(
    session: &'a mut Session,
    uuid: &str,
    request_type: &str,
    status: Status,
    handed_out: u32,
) -> &'a mut Step {
    let step = Step {
        uuid: uuid.to_owned(),
        request_type: request_type.to_owned(),
        status,
        handed_out,
        sent: 0,
        confirmed: 0,
    };
    let at = session.steps.len();
    session.steps.push(step);
    &mut session.steps[at]
}

fn is_erased(command: &Command, session: &Session) -> bool {
    command.request_type == "EraseDevice" && session.last_status() == Some(Status::Acknowledged)
}

fn accepted(what: &'static str, reply: &Reply) -> Result<(), SimError> {
    match reply.status.as_u16() {
        200 => Ok(()),
        status => Err(SimError::Refused { what, status }),
    }
}

/// No sane server hands out more in one session.
const MOST_COMMANDS: usize = 5_000;
