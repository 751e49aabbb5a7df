//! An enrollment link: a secret URL through which devices enroll, on terms.
//!
//! The rule here says whether a link still opens the door and what a use does to it.
//! A use counts when a certificate is issued: by SCEP when the device asks for it, with
//! PKCS#12 when the profile that carries it is handed out. Looking consumes nothing.
//! The store keeps links, the doors make them, show them and serve them.

use serde::{Deserialize, Serialize};

use crate::enrollment::EnrolledWith;
use crate::ids::{EnrollId, Topic};
use crate::time::UnixMillis;

/// An enrollment link, its secret known by hash alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// A short public handle.
    pub id: LinkId,
    /// SHA-256 of the secret in its URL.
    pub secret: [u8; 32],
    /// SHA-256 of the request that made it: repeated under the same idempotency key, it
    /// is answered with this link.
    pub request: [u8; 32],
    /// When it was made.
    pub created: UnixMillis,
    /// From then on it is void.
    pub expires: UnixMillis,
    /// Certificates that may be issued through it.
    pub max_uses: u32,
    /// Certificates that were.
    pub uses: u32,
    /// Given to the devices that come through it; sorted, without repeats.
    pub tags: Vec<String>,
    /// The one device it is for: its id, or its serial number.
    pub device: Option<EnrollId>,
    /// Push topic of its profiles.
    pub topic: Topic,
    /// A challenge of it serves many devices, not one.
    pub shared: bool,
    /// How a device comes to its identity.
    pub identity: IdentityKind,
    /// A device proves its manufacturer's certificate first (over-the-air enrollment).
    pub ota: bool,
    /// The Managed Apple Account, for User Enrollment.
    pub managed_apple_id: Option<String>,
    /// What its profiles say.
    pub offers: EnrolledWith,
    /// It was taken back.
    pub revoked: bool,
    /// Who made it.
    pub principal: String,
}

/// How a device that enrolls through a link comes to its identity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum IdentityKind {
    /// It makes its key itself and asks for a certificate by SCEP.
    #[default]
    Scep,
    /// Key and certificate are made here, for each profile anew, and are in the profile.
    Pkcs12,
}

/// The public handle of a link: in lists, in logs, in the certificates it led to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LinkId(pub String);

impl std::fmt::Display for LinkId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Link {
    /// Whether a device may still come through.
    ///
    /// # Errors
    /// [`LinkVoid`] says why not.
    pub fn open(&self, now: UnixMillis) -> Result<(), LinkVoid> {
        if self.revoked {
            Err(LinkVoid::Revoked)
        } else if self.uses >= self.max_uses {
            Err(LinkVoid::UsedUp)
        } else if now >= self.expires {
            Err(LinkVoid::Expired)
        } else {
            Ok(())
        }
    }

    /// The link after a certificate was issued through it.
    ///
    /// # Errors
    /// [`LinkVoid`]: none may be issued.
    pub fn used(mut self, now: UnixMillis) -> Result<Self, LinkVoid> {
        self.open(now)?;
        self.uses = self.uses.saturating_add(1);
        Ok(self)
    }

    /// When a challenge minted now ends: never after the link, and one that serves a
    /// single device soon.
    #[must_use]
    pub fn challenge_expires(&self, now: UnixMillis, one_time_seconds: u64) -> UnixMillis {
        if self.shared {
            self.expires
        } else {
            self.expires.min(now.plus_seconds(one_time_seconds))
        }
    }

    /// Its state in the API.
    #[must_use]
    pub fn state(&self, now: UnixMillis) -> &'static str {
        self.open(now).map_or_else(LinkVoid::name, |()| "open")
    }
}

/// Why nothing comes through a link any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkVoid {
    /// An admin took it back.
    #[error("the enrollment link was revoked")]
    Revoked,
    /// As many devices as it allows came through.
    #[error("the enrollment link is used up")]
    UsedUp,
    /// Its time is over.
    #[error("the enrollment link has expired")]
    Expired,
}

impl LinkVoid {
    /// The name in the API and in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::UsedUp => "used_up",
            Self::Expired => "expired",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link() -> Link {
        Link {
            id: LinkId("a".into()),
            secret: [0; 32],
            request: [0; 32],
            created: UnixMillis(0),
            expires: UnixMillis(1_000_000),
            max_uses: 2,
            uses: 0,
            tags: Vec::new(),
            device: None,
            topic: Topic("com.apple.mgmt.x".into()),
            shared: false,
            identity: IdentityKind::Scep,
            ota: false,
            managed_apple_id: None,
            offers: EnrolledWith {
                server_url: String::new(),
                check_in_url: String::new(),
                profile_identifier: String::new(),
                rights: None,
                capabilities: Vec::new(),
                signer: None,
            },
            revoked: false,
            principal: "p".into(),
        }
    }

    #[test]
    fn a_link_lets_through_as_many_as_it_says() {
        let now = UnixMillis(5);
        let link = link().used(now).unwrap().used(now).unwrap();
        assert_eq!((link.uses, link.state(now)), (2, "used_up"));
        assert_eq!(link.used(now), Err(LinkVoid::UsedUp));
    }

    #[test]
    fn an_expired_or_revoked_link_lets_nobody_through() {
        let now = UnixMillis(1_000_000);
        assert_eq!(link().used(now), Err(LinkVoid::Expired));
        let revoked = Link {
            revoked: true,
            ..link()
        };
        assert_eq!(revoked.state(now), "revoked");
        assert_eq!(revoked.used(UnixMillis(1)), Err(LinkVoid::Revoked));
    }

    #[test]
    fn a_challenge_never_outlives_its_link() {
        let now = UnixMillis(500_000);
        assert_eq!(link().challenge_expires(now, 60), UnixMillis(560_000));
        assert_eq!(link().challenge_expires(now, 3600), UnixMillis(1_000_000));
        let shared = Link {
            shared: true,
            ..link()
        };
        assert_eq!(shared.challenge_expires(now, 60), UnixMillis(1_000_000));
    }
}
