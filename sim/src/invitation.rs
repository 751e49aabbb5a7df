//! Enrolls the real way, as a person with an iPhone would: the link, its profile, the
//! identity from SCEP. What comes out is a device ready to check in.

use plist::{Dictionary, Value};

use crate::device::{Device, Kind};
use crate::dice::Dice;
use crate::error::SimError;
use crate::keys::KeyPool;
use crate::scep::{ScepAuthority, ScepClient};

/// An enrollment link, and whom to trust behind it.
#[derive(Clone, Debug)]
pub struct Invitation {
    link: String,
    http: reqwest::Client,
}

/// What a profile told the device.
#[derive(Clone, Debug)]
pub struct Told {
    /// The APNs topic.
    pub topic: String,
    /// Where commands come from.
    pub server_url: String,
    /// Where check-ins go.
    pub check_in_url: String,
    /// Each message is to be signed.
    pub sign_message: bool,
    scep_url: String,
    challenge: String,
    ca_fingerprint: Vec<u8>,
}

impl Invitation {
    /// A link on this machine, whose server's certificate chains to `root_pem`.
    pub fn new(link: &str, root_pem: &[u8]) -> Result<Self, SimError> {
        let root = reqwest::Certificate::from_pem(root_pem).map_err(answer)?;
        let http = reqwest::Client::builder()
            .tls_certs_only([root])
            .no_proxy()
            .build()
            .map_err(answer)?;
        Ok(Self {
            link: link.to_owned(),
            http,
        })
    }

    /// Follows the link, installs the profile and asks for the identity it promises.
    pub async fn accept(
        &self,
        keys: &KeyPool,
        kind: Kind,
        dice: &mut Dice,
    ) -> Result<(Device, Told), SimError> {
        let told = self.profile().await?;
        let scep = ScepClient::new(&told.scep_url, self.http.clone());
        let authority = scep.authority().await?;
        told.check(&authority)?;
        let identity = scep
            .enroll(&authority, &keys.deal()?, &told.challenge)
            .await?;
        let device = Device::holding(identity, &told.topic, kind, dice);
        Ok((device, told))
    }

    /// The profile behind the link.
    pub async fn profile(&self) -> Result<Told, SimError> {
        let response = self
            .http
            .get(format!("{}?unsigned=1", self.link))
            .send()
            .await;
        let response = response
            .and_then(reqwest::Response::error_for_status)
            .map_err(answer)?;
        let body = response.bytes().await.map_err(answer)?;
        let profile = Value::from_reader_xml(&*body)?;
        let payloads = profile
            .as_dictionary()
            .and_then(|p| p.get("PayloadContent")?.as_array());
        let payload = |kind: &str| {
            let mut all = payloads
                .into_iter()
                .flatten()
                .filter_map(Value::as_dictionary);
            let found = all.find(|p| p.get("PayloadType").and_then(Value::as_string) == Some(kind));
            found.ok_or_else(|| SimError::ScepAnswer(format!("the profile has no {kind}")))
        };
        let mdm = payload("com.apple.mdm")?;
        let scep = payload("com.apple.security.scep")?.get("PayloadContent");
        let scep = scep
            .and_then(Value::as_dictionary)
            .ok_or_else(|| missing("PayloadContent"))?;
        let fingerprint = scep.get("CAFingerprint").and_then(Value::as_data);
        Ok(Told {
            topic: text(mdm, "Topic")?,
            server_url: text(mdm, "ServerURL")?,
            check_in_url: text(mdm, "CheckInURL")?,
            sign_message: mdm.get("SignMessage").and_then(Value::as_boolean) == Some(true),
            scep_url: text(scep, "URL")?,
            challenge: text(scep, "Challenge")?,
            ca_fingerprint: fingerprint
                .ok_or_else(|| missing("CAFingerprint"))?
                .to_vec(),
        })
    }
}

impl Told {
    /// Apple's client stops here when the CA is not the one the profile names.
    fn check(&self, authority: &ScepAuthority) -> Result<(), SimError> {
        let digest = authority.ca.digest(openssl::hash::MessageDigest::sha1())?;
        if *digest != *self.ca_fingerprint {
            return Err(SimError::ScepAnswer(
                "the CA has another fingerprint".into(),
            ));
        }
        Ok(())
    }
}

fn text(payload: &Dictionary, key: &str) -> Result<String, SimError> {
    let text = payload.get(key).and_then(Value::as_string);
    text.map(str::to_owned).ok_or_else(|| missing(key))
}

fn missing(key: &str) -> SimError {
    SimError::ScepAnswer(format!("the profile has no {key}"))
}

fn answer(error: reqwest::Error) -> SimError {
    SimError::ScepAnswer(error.without_url().to_string())
}
