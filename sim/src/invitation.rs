//! Enrolls the real way, as a person with an iPhone would: the link, its profile, the
//! identity from SCEP or out of the profile. What comes out is a device ready to check in.

use openssl::pkcs7::{Pkcs7, Pkcs7Flags};
use openssl::pkcs12::Pkcs12;
use openssl::stack::Stack;
use openssl::x509::store::X509StoreBuilder;
use plist::{Dictionary, Value};

use crate::ca::DeviceCa;
use crate::device::{Device, Kind};
use crate::dice::Dice;
use crate::error::SimError;
use crate::identity::Identity;
use crate::keys::KeyPool;
use crate::ota::ProfileService;
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
    pub(crate) identity: Promised,
}

/// How a profile gives the device its identity.
#[derive(Clone, Debug)]
pub(crate) enum Promised {
    Scep {
        url: String,
        challenge: String,
        ca_fingerprint: Vec<u8>,
    },
    Pkcs12 {
        der: Vec<u8>,
        password: String,
    },
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

    /// Follows the link, installs the profile and takes the identity it promises.
    pub async fn accept(
        &self,
        keys: &KeyPool,
        kind: Kind,
        dice: &mut Dice,
    ) -> Result<(Device, Told), SimError> {
        let told = self.profile().await?;
        let identity = self.identity(&told, keys).await?;
        let device = Device::holding(identity, &told.topic, kind, dice);
        Ok((device, told))
    }

    /// The identity a profile promises.
    pub async fn identity(&self, told: &Told, keys: &KeyPool) -> Result<Identity, SimError> {
        told.identity.keep(&self.http, keys).await
    }

    /// Installs a signed enrollment profile that came by a command, and takes the identity
    /// it promises.
    pub async fn install(
        &self,
        signed: &[u8],
        keys: &KeyPool,
    ) -> Result<(Identity, Told), SimError> {
        let told = Told::read(&signed_content(signed)?)?;
        Ok((self.identity(&told, keys).await?, told))
    }

    /// The profile behind the link.
    pub async fn profile(&self) -> Result<Told, SimError> {
        Told::read(&self.download().await?)
    }

    /// The profile behind a link for over-the-air enrollment.
    pub async fn service(&self) -> Result<ProfileService, SimError> {
        let profile = Value::from_reader_xml(&*self.download().await?)?;
        let content = profile
            .as_dictionary()
            .and_then(|profile| profile.get("PayloadContent")?.as_dictionary())
            .ok_or_else(|| missing("PayloadContent"))?;
        Ok(ProfileService {
            url: text(content, "URL")?,
            challenge: text(content, "Challenge")?,
            http: self.http.clone(),
        })
    }

    /// Follows a link for over-the-air enrollment: a device says what it is under the
    /// certificate its maker gave it, proves that under one of the server's, and takes the
    /// identity its profile promises.
    pub async fn accept_over_the_air(
        &self,
        maker: &DeviceCa,
        keys: &KeyPool,
        kind: Kind,
        dice: &mut Dice,
    ) -> Result<(Device, Told), SimError> {
        let service = self.service().await?;
        let made = maker.issue("made by its maker")?;
        let mut device = Device::holding(made, "", kind, dice);
        let proof = service.tell(&device, &device.identity).await?;
        let proof = service.proof(&proof, keys).await?;
        let told = service.prove(&device, &proof).await?;
        device.identity = told.identity.keep(&self.http, keys).await?;
        device.topic.clone_from(&told.topic);
        Ok((device, told))
    }

    async fn download(&self) -> Result<Vec<u8>, SimError> {
        let response = self
            .http
            .get(format!("{}?unsigned=1", self.link))
            .send()
            .await;
        let response = response
            .and_then(reqwest::Response::error_for_status)
            .map_err(answer)?;
        Ok(response.bytes().await.map_err(answer)?.to_vec())
    }
}

impl Told {
    /// Reads an enrollment profile.
    pub(crate) fn read(profile: &[u8]) -> Result<Self, SimError> {
        let profile = Value::from_reader_xml(profile)?;
        let mdm = payload(&profile, "com.apple.mdm")?;
        let identity = match payload(&profile, "com.apple.security.pkcs12") {
            Ok(pkcs12) => Promised::pkcs12(pkcs12)?,
            Err(_) => Promised::scep(payload(&profile, "com.apple.security.scep")?)?,
        };
        Ok(Self {
            topic: text(mdm, "Topic")?,
            server_url: text(mdm, "ServerURL")?,
            check_in_url: text(mdm, "CheckInURL")?,
            sign_message: mdm.get("SignMessage").and_then(Value::as_boolean) == Some(true),
            identity,
        })
    }
}

/// What is inside a signed profile.
pub fn signed_content(signed: &[u8]) -> Result<Vec<u8>, SimError> {
    let mut content = Vec::new();
    let flags = Pkcs7Flags::BINARY | Pkcs7Flags::NOVERIFY;
    let (nobody, store) = (Stack::new()?, X509StoreBuilder::new()?.build());
    Pkcs7::from_der(signed)?.verify(&nobody, &store, None, Some(&mut content), flags)?;
    Ok(content)
}

/// The payload of a profile that has this type.
pub(crate) fn payload<'p>(profile: &'p Value, kind: &str) -> Result<&'p Dictionary, SimError> {
    let payloads = profile
        .as_dictionary()
        .and_then(|profile| profile.get("PayloadContent")?.as_array());
    let mut all = payloads
        .into_iter()
        .flatten()
        .filter_map(Value::as_dictionary);
    let found = all.find(|p| p.get("PayloadType").and_then(Value::as_string) == Some(kind));
    found.ok_or_else(|| missing(kind))
}

impl Promised {
    /// Takes the identity.
    pub(crate) async fn keep(
        &self,
        http: &reqwest::Client,
        keys: &KeyPool,
    ) -> Result<Identity, SimError> {
        match self {
            Self::Scep {
                url,
                challenge,
                ca_fingerprint,
            } => {
                let scep = ScepClient::new(url, http.clone());
                let authority = scep.authority().await?;
                check(&authority, ca_fingerprint)?;
                scep.enroll(&authority, &keys.deal()?, challenge).await
            }
            Self::Pkcs12 { der, password } => {
                let opened = Pkcs12::from_der(der)?.parse2(password)?;
                let key = opened.pkey.ok_or_else(|| missing("key"))?;
                let certificate = opened.cert.ok_or_else(|| missing("certificate"))?;
                Identity::new(&certificate.to_der()?, key)
            }
        }
    }

    pub(crate) fn scep(payload: &Dictionary) -> Result<Self, SimError> {
        let scep = payload.get("PayloadContent").and_then(Value::as_dictionary);
        let scep = scep.ok_or_else(|| missing("PayloadContent"))?;
        Ok(Self::Scep {
            url: text(scep, "URL")?,
            challenge: text(scep, "Challenge")?,
            ca_fingerprint: data(scep, "CAFingerprint")?,
        })
    }

    fn pkcs12(payload: &Dictionary) -> Result<Self, SimError> {
        Ok(Self::Pkcs12 {
            der: data(payload, "PayloadContent")?,
            password: text(payload, "Password")?,
        })
    }
}

/// Apple's client stops here when the CA is not the one the profile names.
fn check(authority: &ScepAuthority, fingerprint: &[u8]) -> Result<(), SimError> {
    let digest = authority.ca.digest(openssl::hash::MessageDigest::sha1())?;
    if *digest != *fingerprint {
        return Err(SimError::ScepAnswer(
            "the CA has another fingerprint".into(),
        ));
    }
    Ok(())
}

pub(crate) fn text(payload: &Dictionary, key: &str) -> Result<String, SimError> {
    let text = payload.get(key).and_then(Value::as_string);
    text.map(str::to_owned).ok_or_else(|| missing(key))
}

fn data(payload: &Dictionary, key: &str) -> Result<Vec<u8>, SimError> {
    let data = payload.get(key).and_then(Value::as_data);
    data.map(<[u8]>::to_vec).ok_or_else(|| missing(key))
}

pub(crate) fn missing(key: &str) -> SimError {
    SimError::ScepAnswer(format!("the profile has no {key}"))
}

fn answer(error: reqwest::Error) -> SimError {
    SimError::ScepAnswer(error.without_url().to_string())
}
