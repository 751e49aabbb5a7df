//! An enrollment: one device with its channels, as a state machine over check-ins.
//!
//! [`Enrollment::apply`] is the whole rule: what a check-in under an identity does
//! to it. The device actor calls it and commits the [`Change`]; the writer fills in
//! what only it knows (the epoch). Nothing here touches the store or a clock.
//! Source: protocol.md 1.3.

use serde::{Deserialize, Serialize};

use crate::access::AccessRights;
use crate::checkin::{CheckIn, Facts, Message, Push, Sender, UserNames};
use crate::declarative::{self, Answer};
use crate::ids::{ChannelKind, ChannelNo, EnrollId, Leaf, Seq, Topic};
use crate::time::UnixMillis;

/// One device, its device channel and its user channels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrollment {
    /// The device channel.
    pub channel: Channel,
    /// What the device said of itself at its last Authenticate.
    pub facts: Facts,
    /// The identity that speaks for it.
    pub bound: Option<Leaf>,
    /// An Authenticate whose TokenUpdate has not come yet.
    pub pending: Option<Pending>,
    /// Commands up to this one belong to an earlier epoch and are never handed out.
    pub epoch: Seq,
    /// Secrets the device stored before this journal position are of an earlier epoch.
    pub epoch_position: u64,
    /// When the running epoch began.
    pub enrolled_at: Option<UnixMillis>,
    /// It sits in Setup Assistant until `DeviceConfigured`.
    pub awaiting_configuration: bool,
    /// An admin let it enroll again, once, under a new identity.
    pub allow_reenroll: bool,
    /// What its profile said, where we made it.
    pub enrolled_with: Option<EnrolledWith>,
    /// The user channels, in order of their numbers.
    pub users: Vec<Channel>,
}

/// One channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    /// Its dense number.
    pub no: ChannelNo,
    /// Its id.
    pub id: EnrollId,
    /// Its kind.
    pub kind: ChannelKind,
    /// Where it stands; only an enrolled one has push data.
    pub state: ChannelState,
    /// TokenUpdates since it enrolled.
    pub tally: u32,
    /// Names of its user, on a user channel.
    pub user: UserNames,
}

/// Where a channel stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChannelState {
    /// Authenticated, no TokenUpdate yet: not managed, not to be woken.
    Pending,
    /// Managed.
    Enrolled {
        /// How to wake it.
        push: Push,
    },
    /// The profile was removed, or the enrollment ended.
    CheckedOut,
}

impl ChannelState {
    /// The push data, while enrolled.
    #[must_use]
    pub const fn push(&self) -> Option<&Push> {
        match self {
            Self::Enrolled { push } => Some(push),
            _ => None,
        }
    }

    /// The name in the API.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Enrolled { .. } => "enrolled",
            Self::CheckedOut => "checked_out",
        }
    }
}

/// An Authenticate that waits for its TokenUpdate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The identity it came under.
    pub leaf: Leaf,
    /// The topic it named.
    pub topic: Topic,
    /// What the device said of itself.
    pub facts: Facts,
    /// The queue, user channels and secrets stay.
    pub renewal: bool,
}

/// What the enrollment profile said: a renewal must say the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolledWith {
    /// ServerURL.
    pub server_url: String,
    /// CheckInURL.
    pub check_in_url: String,
    /// PayloadIdentifier of the profile.
    pub profile_identifier: String,
    /// AccessRights; none for User Enrollment.
    pub rights: Option<AccessRights>,
    /// ServerCapabilities.
    pub capabilities: Vec<String>,
    /// SHA-256 of the certificate that signed the profile.
    pub signer: Option<Leaf>,
}

impl EnrolledWith {
    /// What a profile says that was installed over one that stays: rights only shrink.
    #[must_use]
    pub fn after(mut self, before: &Self) -> Self {
        if let (Some(rights), Some(gave)) = (self.rights, before.rights) {
            self.rights = Some(rights.and(gave));
        }
        self
    }
}

/// An identity that proved itself, as the rule sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The certificate's hash.
    pub leaf: Leaf,
    /// Issued by our own device CA, not by a further trusted one.
    pub ours: bool,
    /// The device an admin named when our CA issued it: its id, or its serial number.
    pub issued_for: Option<EnrollId>,
    /// The one device that may come under it: it proved itself before. Gives no more right
    /// than any other identity; what a device says of itself names nobody's enrollment.
    pub only_for: Option<EnrollId>,
    /// Good for the last step of over-the-air enrollment; speaks for no enrollment.
    pub proof: bool,
    /// Another enrollment is bound to it.
    pub bound_elsewhere: bool,
}

impl Claim {
    /// Whether our CA issued it for this very device.
    fn names(&self, id: &EnrollId, facts: &Facts) -> bool {
        let named = self.issued_for.as_ref();
        self.may_be_of(id)
            && named.is_some_and(|named| named == id || named.as_str() == facts.serial_number)
    }

    fn may_be_of(&self, id: &EnrollId) -> bool {
        self.only_for.as_ref().is_none_or(|only| only == id)
    }

    /// Whether our CA issued it for a certain device, and not for this one.
    fn names_another(&self, id: &EnrollId, facts: &Facts) -> bool {
        !self.may_be_of(id) || (self.issued_for.is_some() && !self.names(id, facts))
    }
}

/// What a device needs that still counts as enrolled and comes under a new identity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reenroll {
    /// A link that names it, or an admin's leave.
    #[default]
    Approve,
    /// Any valid link, which is any identity of our own CA.
    AnyLink,
}

/// How an identity stands to an enrollment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Voice {
    /// The bound identity.
    Bound,
    /// Issued by us for this enrollment, not bound yet: becomes the bound one with its first message.
    Renewed,
    /// Authenticated, waiting for its TokenUpdate.
    Pending,
    /// Anything else.
    Stranger,
}

/// What a check-in does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The enrollment after it.
    pub enrollment: Enrollment,
    /// The answer.
    pub reply: Reply,
    /// Must be made durable before the answer.
    pub commit: bool,
    /// The identity to bind; the writer refuses one bound elsewhere.
    pub bind: Option<Leaf>,
    /// Ends the running epoch: what is open is cancelled, on all channels.
    pub epoch: Epoch,
    /// A secret the device hands over; `None` inside clears it.
    pub secrets: Vec<(SecretKind, Option<Vec<u8>>)>,
}

/// What a change does to the commands that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Epoch {
    /// Nothing.
    Stays,
    /// A new epoch begins: older commands are cancelled.
    Begins,
    /// The enrollment ends: what waits is cancelled.
    Ends,
}

/// The answer to a check-in, before it meets HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// 200 with an empty body.
    Empty,
    /// 200 with the stored bootstrap token, or empty when there is none.
    BootstrapToken,
    /// 200 with a JSON document.
    Json(String),
    /// There is no such declaration.
    NotFound,
    /// This user is not managed.
    NotManaged,
}

/// The kinds of secret we keep for a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum SecretKind {
    /// Lets `ClearPasscode` work.
    UnlockToken = 1,
    /// macOS bootstrap token.
    BootstrapToken = 2,
}

impl SecretKind {
    /// The name in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnlockToken => "unlock_token",
            Self::BootstrapToken => "bootstrap_token",
        }
    }
}

/// A check-in that changes nothing, and whose fault it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misbehaved {
    /// The identity does not speak for this enrollment.
    #[error("the identity certificate is not bound to enrollment {0}")]
    NotBound(EnrollId),
    /// The identity is bound to another enrollment.
    #[error("the identity certificate is bound to another enrollment than {0}")]
    BoundElsewhere(EnrollId),
    /// The identity was issued for a certain device, which is another.
    #[error("the identity certificate was issued for another device than {0}")]
    IssuedForAnother(EnrollId),
    /// The identity is good for a step of over-the-air enrollment alone.
    #[error("the identity certificate is for over-the-air enrollment only, not for {0}")]
    ForProof(EnrollId),
    /// A device that counts as enrolled came under a new identity.
    #[error("enrollment {0} counts as enrolled; an admin must allow it to enroll again")]
    StillEnrolled(EnrollId),
    /// The device channel is not enrolled.
    #[error("enrollment {0} is not enrolled")]
    NotEnrolled(EnrollId),
    /// We provide no such token, and say so.
    #[error("no provider for the token service")]
    NoTokenService,
    /// No endpoint of declarative management has this name.
    #[error("unknown declarative management endpoint")]
    UnknownEndpoint,
}

impl Enrollment {
    /// The enrollment a first Authenticate opens.
    ///
    /// # Errors
    /// [`Misbehaved::BoundElsewhere`] when another enrollment owns the identity.
    pub fn open(checkin: &CheckIn, claim: &Claim, no: ChannelNo) -> Result<Change, Misbehaved> {
        let Message::Authenticate { topic, facts } = &checkin.message else {
            return Err(Misbehaved::NotEnrolled(checkin.sender.device.clone()));
        };
        if claim.proof {
            return Err(Misbehaved::ForProof(checkin.sender.device.clone()));
        }
        if claim.bound_elsewhere {
            return Err(Misbehaved::BoundElsewhere(checkin.sender.device.clone()));
        }
        if claim.names_another(&checkin.sender.device, facts) {
            return Err(Misbehaved::IssuedForAnother(checkin.sender.device.clone()));
        }
        let enrollment = Self {
            channel: Channel::new(no, &checkin.sender),
            facts: facts.clone(),
            bound: None,
            pending: Some(Pending {
                leaf: claim.leaf,
                topic: topic.clone(),
                facts: facts.clone(),
                renewal: false,
            }),
            epoch: Seq(0),
            epoch_position: 0,
            enrolled_at: None,
            awaiting_configuration: false,
            allow_reenroll: false,
            enrolled_with: None,
            users: Vec::new(),
        };
        Ok(enrollment.changed())
    }

    /// How an identity stands to this enrollment.
    #[must_use]
    pub fn voice(&self, claim: &Claim) -> Voice {
        if claim.proof {
            Voice::Stranger
        } else if self.bound == Some(claim.leaf) {
            Voice::Bound
        } else if self.bound.is_some() && claim.names(&self.channel.id, &self.facts) {
            Voice::Renewed
        } else if self.pending.as_ref().is_some_and(|p| p.leaf == claim.leaf) {
            Voice::Pending
        } else {
            Voice::Stranger
        }
    }

    /// Applies a check-in. `fresh` gives the number of a new user channel.
    ///
    /// # Errors
    /// [`Misbehaved`]: nothing changes.
    pub fn apply(
        self,
        checkin: &CheckIn,
        claim: &Claim,
        reenroll: Reenroll,
        now: UnixMillis,
        fresh: impl FnOnce() -> ChannelNo,
    ) -> Result<Change, Misbehaved> {
        let id = || checkin.sender.channel.clone();
        if claim.proof {
            return Err(Misbehaved::ForProof(id()));
        }
        if claim.bound_elsewhere {
            return Err(Misbehaved::BoundElsewhere(id()));
        }
        if let Message::Authenticate { topic, facts } = &checkin.message {
            return self.authenticate(topic, facts, claim, reenroll);
        }
        let voice = self.voice(claim);
        if voice == Voice::Stranger {
            return Err(Misbehaved::NotBound(id()));
        }
        if let Message::TokenUpdate { .. } = checkin.message {
            return self.token_update(checkin, claim, now, fresh);
        }
        if voice == Voice::Pending {
            return Err(Misbehaved::NotEnrolled(id()));
        }
        match &checkin.message {
            Message::CheckOut => Ok(self.check_out()),
            Message::SetBootstrapToken { token } => {
                let mut change = self.changed();
                change
                    .secrets
                    .push((SecretKind::BootstrapToken, token.clone()));
                Ok(change)
            }
            Message::GetBootstrapToken => Ok(self.unchanged(Reply::BootstrapToken)),
            Message::UserAuthenticate { .. } => Ok(self.unchanged(Reply::NotManaged)),
            Message::GetToken { .. } => Err(Misbehaved::NoTokenService),
            Message::DeclarativeManagement { endpoint, .. } => self.declarative(endpoint),
            // No profile of ours announces it, so no device asks; the answer means "do not".
            Message::ReturnToService => Ok(self.unchanged(Reply::Empty)),
            Message::Authenticate { .. } | Message::TokenUpdate { .. } => {
                Err(Misbehaved::NotBound(id()))
            }
        }
    }

    /// Lets the device enroll again under a new identity, once.
    #[must_use]
    pub fn reenroll_allowed(mut self) -> Change {
        self.allow_reenroll = true;
        self.changed()
    }

    /// Makes a renewed identity the bound one.
    #[must_use]
    pub fn rebound(mut self, leaf: Leaf) -> Change {
        self.bound = Some(leaf);
        let mut change = self.changed();
        change.bind = Some(leaf);
        change
    }

    /// The channel with this id, the device's own or one of its users'.
    #[must_use]
    pub fn channel(&self, id: &EnrollId) -> Option<&Channel> {
        self.channels().find(|channel| channel.id == *id)
    }

    /// All channels, the device's own first.
    pub fn channels(&self) -> impl Iterator<Item = &Channel> {
        std::iter::once(&self.channel).chain(&self.users)
    }

    fn authenticate(
        mut self,
        topic: &Topic,
        facts: &Facts,
        claim: &Claim,
        reenroll: Reenroll,
    ) -> Result<Change, Misbehaved> {
        // One that checked out has nothing to renew: it enrolls again.
        let renewal =
            self.voice(claim) == Voice::Renewed && self.channel.state != ChannelState::CheckedOut;
        if !renewal && !self.may_enroll_again(claim, reenroll) {
            return Err(Misbehaved::StillEnrolled(self.channel.id));
        }
        if self.bound != Some(claim.leaf) && claim.names_another(&self.channel.id, facts) {
            return Err(Misbehaved::IssuedForAnother(self.channel.id));
        }
        self.pending = Some(Pending {
            leaf: claim.leaf,
            topic: topic.clone(),
            facts: facts.clone(),
            renewal,
        });
        Ok(self.changed())
    }

    /// A certificate of another CA may open an enrollment but never take one over.
    fn may_enroll_again(&self, claim: &Claim, reenroll: Reenroll) -> bool {
        match self.voice(claim) {
            Voice::Bound | Voice::Renewed | Voice::Pending => true,
            Voice::Stranger => {
                self.bound.is_none()
                    || self.allow_reenroll
                    || (claim.ours
                        && (reenroll == Reenroll::AnyLink
                            || self.channel.state == ChannelState::CheckedOut))
            }
        }
    }

    fn token_update(
        mut self,
        checkin: &CheckIn,
        claim: &Claim,
        now: UnixMillis,
        fresh: impl FnOnce() -> ChannelNo,
    ) -> Result<Change, Misbehaved> {
        let Message::TokenUpdate {
            push,
            unlock_token,
            awaiting_configuration,
            user,
        } = &checkin.message
        else {
            return Err(Misbehaved::NotBound(self.channel.id));
        };
        if !checkin.sender.kind.is_device() {
            return self.user_token_update(&checkin.sender, push, user, fresh);
        }
        let pending = self.pending.take_if(|pending| pending.leaf == claim.leaf);
        let begins = match &pending {
            Some(pending) => !pending.renewal,
            None => false,
        };
        if let Some(pending) = pending {
            self.facts = pending.facts;
            self.allow_reenroll = false;
        }
        if begins {
            self.users.iter_mut().for_each(Channel::end);
            self.channel.tally = 0;
            self.enrolled_at = Some(now);
        }
        self.bound = Some(claim.leaf);
        self.awaiting_configuration = *awaiting_configuration;
        self.channel.updated(push);
        let mut change = self.changed();
        change.bind = Some(claim.leaf);
        if begins {
            change.epoch = Epoch::Begins;
        }
        if let Some(token) = unlock_token.clone().filter(|token| !token.is_empty()) {
            change.secrets.push((SecretKind::UnlockToken, Some(token)));
        }
        Ok(change)
    }

    fn user_token_update(
        mut self,
        sender: &Sender,
        push: &Push,
        user: &UserNames,
        fresh: impl FnOnce() -> ChannelNo,
    ) -> Result<Change, Misbehaved> {
        if self.channel.state.push().is_none() {
            return Err(Misbehaved::NotEnrolled(sender.channel.clone()));
        }
        let place = self
            .users
            .iter()
            .position(|channel| channel.id == sender.channel);
        let channel = match place {
            Some(place) => self.users.get_mut(place),
            None => {
                self.users.push(Channel::new(fresh(), sender));
                self.users.last_mut()
            }
        };
        if let Some(channel) = channel {
            channel.updated(push);
            channel.user = user.clone();
        }
        Ok(self.changed())
    }

    fn check_out(mut self) -> Change {
        self.channel.end();
        self.users.iter_mut().for_each(Channel::end);
        self.pending = None;
        let mut change = self.changed();
        change.epoch = Epoch::Ends;
        change
    }

    fn declarative(self, endpoint: &str) -> Result<Change, Misbehaved> {
        match declarative::answer_empty(endpoint) {
            Answer::Json(text) => Ok(self.unchanged(Reply::Json(text))),
            Answer::NotFound => Ok(self.unchanged(Reply::NotFound)),
            Answer::Taken => Ok(self.changed()),
            Answer::UnknownEndpoint => Err(Misbehaved::UnknownEndpoint),
        }
    }

    fn changed(self) -> Change {
        Change {
            enrollment: self,
            reply: Reply::Empty,
            commit: true,
            bind: None,
            epoch: Epoch::Stays,
            secrets: Vec::new(),
        }
    }

    fn unchanged(self, reply: Reply) -> Change {
        Change {
            reply,
            commit: false,
            ..self.changed()
        }
    }
}

impl Channel {
    fn new(no: ChannelNo, sender: &Sender) -> Self {
        Self {
            no,
            id: sender.channel.clone(),
            kind: sender.kind,
            state: ChannelState::Pending,
            tally: 0,
            user: UserNames::default(),
        }
    }

    fn updated(&mut self, push: &Push) {
        self.state = ChannelState::Enrolled { push: push.clone() };
        self.tally = self.tally.saturating_add(1);
    }

    fn end(&mut self) {
        self.state = ChannelState::CheckedOut;
        self.tally = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{PushMagic, PushToken};

    const NOW: UnixMillis = UnixMillis(5);

    fn claim(byte: u8) -> Claim {
        Claim {
            leaf: Leaf([byte; 32]),
            ours: false,
            issued_for: None,
            only_for: None,
            proof: false,
            bound_elsewhere: false,
        }
    }

    fn ours(byte: u8) -> Claim {
        Claim {
            ours: true,
            ..claim(byte)
        }
    }

    fn issued(byte: u8) -> Claim {
        Claim {
            issued_for: Some(EnrollId::device("D").unwrap()),
            ..ours(byte)
        }
    }

    fn from_device(message: Message) -> CheckIn {
        let id = EnrollId::device("D").unwrap();
        CheckIn {
            sender: Sender {
                device: id.clone(),
                channel: id,
                kind: ChannelKind::Device,
            },
            message,
        }
    }

    fn from_user(message: Message) -> CheckIn {
        CheckIn {
            sender: Sender {
                device: EnrollId::device("D").unwrap(),
                channel: EnrollId::user("D", "U").unwrap(),
                kind: ChannelKind::User,
            },
            message,
        }
    }

    fn authenticate() -> Message {
        Message::Authenticate {
            topic: Topic("com.apple.mgmt.x".into()),
            facts: Facts::default(),
        }
    }

    fn token_update(token: u8) -> Message {
        Message::TokenUpdate {
            push: Push {
                topic: Topic("com.apple.mgmt.x".into()),
                token: PushToken(vec![token]),
                magic: PushMagic("m".into()),
            },
            unlock_token: None,
            awaiting_configuration: false,
            user: UserNames::default(),
        }
    }

    fn says(enrollment: &Enrollment, who: &Claim, checkin: &CheckIn) -> Result<Change, Misbehaved> {
        enrollment
            .clone()
            .apply(checkin, who, Reenroll::Approve, NOW, || ChannelNo(99))
    }

    fn enrolled(by: u8) -> Enrollment {
        let opened =
            Enrollment::open(&from_device(authenticate()), &claim(by), ChannelNo(1)).unwrap();
        let first = says(
            &opened.enrollment,
            &claim(by),
            &from_device(token_update(1)),
        )
        .unwrap();
        assert_eq!(first.epoch, Epoch::Begins);
        first.enrollment
    }

    #[test]
    fn authenticate_then_token_update_enrolls_and_binds() {
        let opened =
            Enrollment::open(&from_device(authenticate()), &claim(1), ChannelNo(1)).unwrap();
        assert_eq!(opened.enrollment.channel.state, ChannelState::Pending);
        assert_eq!(opened.enrollment.voice(&claim(1)), Voice::Pending);
        let enrolled = enrolled(1);
        assert!(enrolled.channel.state.push().is_some());
        assert_eq!(enrolled.bound, Some(Leaf([1; 32])));
    }

    #[test]
    fn a_later_token_update_replaces_the_push_and_keeps_the_epoch() {
        let change = says(&enrolled(1), &claim(1), &from_device(token_update(2))).unwrap();
        assert_eq!(change.epoch, Epoch::Stays);
        assert_eq!(change.enrollment.channel.state.push().unwrap().token.0, [2]);
        assert_eq!(change.enrollment.channel.tally, 2);
    }

    #[test]
    fn an_authenticate_disturbs_nothing_until_its_token_update() {
        let again = says(&enrolled(1), &claim(1), &from_device(authenticate())).unwrap();
        assert_eq!(again.epoch, Epoch::Stays);
        assert!(again.enrollment.channel.state.push().is_some());
        let back = says(&again.enrollment, &claim(1), &from_device(token_update(3))).unwrap();
        assert_eq!(back.epoch, Epoch::Begins);
    }

    #[test]
    fn a_stranger_is_refused_whatever_it_says() {
        let device = enrolled(1);
        for message in [
            token_update(9),
            Message::CheckOut,
            Message::GetBootstrapToken,
        ] {
            let answer = says(&device, &claim(2), &from_device(message));
            assert_eq!(
                answer.unwrap_err(),
                Misbehaved::NotBound(device.channel.id.clone())
            );
        }
        for who in [claim(2), ours(2)] {
            let answer = says(&device, &who, &from_device(authenticate()));
            assert_eq!(
                answer.unwrap_err(),
                Misbehaved::StillEnrolled(device.channel.id.clone())
            );
        }
    }

    #[test]
    fn an_admin_lets_a_device_enroll_again_once() {
        let allowed = enrolled(1).reenroll_allowed().enrollment;
        let pending = says(&allowed, &claim(2), &from_device(authenticate()))
            .unwrap()
            .enrollment;
        assert_eq!(
            pending.voice(&claim(1)),
            Voice::Bound,
            "the old identity is served as before"
        );
        let change = says(&pending, &claim(2), &from_device(token_update(1))).unwrap();
        assert_eq!(
            (change.epoch, change.bind),
            (Epoch::Begins, Some(Leaf([2; 32])))
        );
        assert!(!change.enrollment.allow_reenroll);
        assert_eq!(change.enrollment.voice(&claim(1)), Voice::Stranger);
    }

    #[test]
    fn a_checked_out_device_comes_back_under_our_ca_but_not_under_another() {
        let gone = says(&enrolled(1), &claim(1), &from_device(Message::CheckOut)).unwrap();
        assert_eq!(gone.epoch, Epoch::Ends);
        let gone = gone.enrollment;
        assert!(says(&gone, &claim(2), &from_device(authenticate())).is_err());
        let back = says(&gone, &ours(2), &from_device(authenticate()))
            .unwrap()
            .enrollment;
        let back = says(&back, &ours(2), &from_device(token_update(1))).unwrap();
        assert_eq!(back.epoch, Epoch::Begins);
    }

    #[test]
    fn where_any_link_will_do_our_ca_suffices_and_another_does_not() {
        let authenticate = from_device(authenticate());
        let says = |who: &Claim| {
            let device = enrolled(1);
            device.apply(&authenticate, who, Reenroll::AnyLink, NOW, || ChannelNo(99))
        };
        assert!(says(&claim(2)).is_err());
        let pending = says(&ours(2)).unwrap().enrollment;
        assert_eq!(pending.voice(&claim(1)), Voice::Bound);
        let token_update = from_device(token_update(1));
        let back = pending
            .apply(&token_update, &ours(2), Reenroll::Approve, NOW, || {
                ChannelNo(99)
            })
            .unwrap();
        assert_eq!(back.epoch, Epoch::Begins);
        assert_eq!(back.bind, Some(Leaf([2; 32])));
    }

    #[test]
    fn an_identity_issued_for_one_device_opens_no_other() {
        let named = |text: &str| Claim {
            issued_for: Some(EnrollId::device(text).unwrap()),
            ..ours(1)
        };
        let says = from_device(Message::Authenticate {
            topic: Topic("com.apple.mgmt.x".into()),
            facts: Facts {
                serial_number: "SERIAL".into(),
                ..Facts::default()
            },
        });
        for (text, opens) in [
            ("D", true),
            ("SERIAL", true),
            ("E", false),
            ("serial", false),
        ] {
            let opened = Enrollment::open(&says, &named(text), ChannelNo(1));
            assert_eq!(opened.is_ok(), opens, "{text}");
        }
    }

    #[test]
    fn a_device_that_proved_itself_enrolls_under_its_own_name_and_takes_over_nothing() {
        let proved = |udid: &str| Claim {
            only_for: Some(EnrollId::device(udid).unwrap()),
            ..ours(2)
        };
        let hello = from_device(authenticate());
        let open = |who: &Claim| Enrollment::open(&hello, who, ChannelNo(1));
        let another = Misbehaved::IssuedForAnother(EnrollId::device("D").unwrap());
        assert!(open(&proved("D")).is_ok());
        assert_eq!(open(&proved("E")), Err(another.clone()));

        let device = enrolled(1);
        let still = Misbehaved::StillEnrolled(device.channel.id.clone());
        assert_eq!(device.voice(&proved("D")), Voice::Stranger);
        assert_eq!(says(&device, &proved("D"), &hello), Err(still));
        let named = |udid: &str| Claim {
            issued_for: Some(EnrollId::device("D").unwrap()),
            ..proved(udid)
        };
        assert_eq!(device.voice(&named("D")), Voice::Renewed);
        assert_eq!(device.voice(&named("E")), Voice::Stranger);
        let allowed = device.reenroll_allowed().enrollment;
        assert!(says(&allowed, &proved("D"), &hello).is_ok());
        assert_eq!(says(&allowed, &proved("E"), &hello), Err(another));
    }

    #[test]
    fn an_identity_for_over_the_air_enrollment_speaks_for_nobody() {
        let proof = Claim {
            proof: true,
            ..issued(2)
        };
        let refused = Err(Misbehaved::ForProof(EnrollId::device("D").unwrap()));
        let hello = from_device(authenticate());
        let opened = Enrollment::open(&hello, &proof, ChannelNo(1));
        assert_eq!(opened, refused);
        let device = enrolled(1).reenroll_allowed().enrollment;
        assert_eq!(device.voice(&proof), Voice::Stranger);
        for message in [authenticate(), token_update(1), Message::CheckOut] {
            let said = says(&device, &proof, &from_device(message));
            assert_eq!(said, refused);
        }
    }

    #[test]
    fn a_link_that_names_a_checked_out_device_enrolls_it_anew() {
        let gone = says(&enrolled(1), &claim(1), &from_device(Message::CheckOut))
            .unwrap()
            .enrollment;
        let back = says(&gone, &issued(2), &from_device(authenticate()))
            .unwrap()
            .enrollment;
        let back = says(&back, &issued(2), &from_device(token_update(1))).unwrap();
        assert_eq!(back.epoch, Epoch::Begins);
    }

    #[test]
    fn a_restored_backup_may_send_a_token_update_alone() {
        let gone = says(&enrolled(1), &claim(1), &from_device(Message::CheckOut))
            .unwrap()
            .enrollment;
        let back = says(&gone, &claim(1), &from_device(token_update(4))).unwrap();
        assert!(back.enrollment.channel.state.push().is_some());
    }

    #[test]
    fn a_renewal_keeps_the_epoch_and_the_user_channels() {
        let device = says(&enrolled(1), &claim(1), &from_user(token_update(7)))
            .unwrap()
            .enrollment;
        let renewing = says(&device, &issued(2), &from_device(authenticate()))
            .unwrap()
            .enrollment;
        let renewed = says(&renewing, &issued(2), &from_device(token_update(8))).unwrap();
        assert_eq!(
            (renewed.epoch, renewed.bind),
            (Epoch::Stays, Some(Leaf([2; 32])))
        );
        assert!(renewed.enrollment.users[0].state.push().is_some());
    }

    #[test]
    fn a_user_channel_is_numbered_once_and_ends_with_its_device() {
        let device = says(&enrolled(1), &claim(1), &from_user(token_update(7)))
            .unwrap()
            .enrollment;
        assert_eq!(device.users[0].no, ChannelNo(99));
        let device = says(&device, &claim(1), &from_user(token_update(8)))
            .unwrap()
            .enrollment;
        assert_eq!((device.users.len(), device.users[0].tally), (1, 2));
        let gone = says(&device, &claim(1), &from_device(Message::CheckOut))
            .unwrap()
            .enrollment;
        assert_eq!(gone.users[0].state, ChannelState::CheckedOut);
        assert!(says(&gone, &claim(1), &from_user(token_update(9))).is_err());
    }

    #[test]
    fn a_profile_over_one_that_stays_only_takes_rights_away() {
        let with = |rights: Option<u16>| EnrolledWith {
            server_url: String::new(),
            check_in_url: String::new(),
            profile_identifier: String::new(),
            rights: rights.map(AccessRights::from_bits),
            capabilities: Vec::new(),
            signer: None,
        };
        for (before, offered, after) in [
            (Some(0b0111), Some(0b1011), Some(0b0011)),
            (Some(0b0011), Some(0b0001), Some(0b0001)),
            (None, Some(0b0001), Some(0b0001)),
        ] {
            assert_eq!(with(offered).after(&with(before)), with(after));
        }
    }

    #[test]
    fn messages_without_an_engine_behind_them_get_their_documented_answer() {
        let device = enrolled(1);
        let reply = |message| says(&device, &claim(1), &from_device(message)).map(|c| c.reply);
        assert_eq!(reply(Message::GetBootstrapToken), Ok(Reply::BootstrapToken));
        assert_eq!(
            reply(Message::UserAuthenticate {
                digest_response: None
            }),
            Ok(Reply::NotManaged)
        );
        assert_eq!(
            reply(Message::GetToken {
                service_type: "com.apple.maid".into()
            }),
            Err(Misbehaved::NoTokenService)
        );
        let endpoint = |endpoint: &str| Message::DeclarativeManagement {
            endpoint: endpoint.into(),
            data: None,
        };
        assert_eq!(reply(endpoint("declaration/asset/x")), Ok(Reply::NotFound));
        assert!(
            says(&device, &claim(1), &from_device(endpoint("status")))
                .unwrap()
                .commit
        );
    }
}
