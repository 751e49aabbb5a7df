//! The device's part of Apple's over-the-air enrollment: it says what it is, signed, and
//! gets the next profile. Each step is a call of its own, so that a test can bend it.

use openssl::pkcs7::{Pkcs7, Pkcs7Flags};
use openssl::stack::Stack;
use openssl::x509::store::X509StoreBuilder;
use plist::Value;

use crate::cms::SignatureForm;
use crate::device::Device;
use crate::error::SimError;
use crate::identity::Identity;
use crate::invitation::{Promised, Told, payload};
use crate::keys::KeyPool;

/// What a device was asked, where to say it and with what.
#[derive(Clone, Debug)]
pub struct ProfileService {
    /// Where to.
    pub url: String,
    /// What it sends along.
    pub challenge: String,
    pub(crate) http: reqwest::Client,
}

impl ProfileService {
    /// The same with another challenge.
    #[must_use]
    pub fn with(&self, challenge: &str) -> Self {
        Self {
            challenge: challenge.to_owned(),
            ..self.clone()
        }
    }

    /// Says what a device is, under an identity; the profile it is given, its signature
    /// taken off.
    pub async fn tell(&self, device: &Device, signer: &Identity) -> Result<Vec<u8>, SimError> {
        let attributes = device.attributes(&self.challenge);
        let message = signer.wrap(&attributes, SignatureForm::APPLE)?;
        let (status, body) = self.send("application/pkcs7-signature", message).await?;
        if status != 200 {
            return Err(SimError::Refused {
                what: "over-the-air enrollment",
                status,
            });
        }
        content(&body)
    }

    /// The identity that the answer to a first word promises.
    pub async fn proof(&self, profile: &[u8], keys: &KeyPool) -> Result<Identity, SimError> {
        let profile = Value::from_reader_xml(profile)?;
        let scep = Promised::scep(payload(&profile, "com.apple.security.scep")?)?;
        scep.keep(&self.http, keys).await
    }

    /// Says it again under that identity; the enrollment profile.
    pub async fn prove(&self, device: &Device, proof: &Identity) -> Result<Told, SimError> {
        Told::read(&self.tell(device, proof).await?)
    }

    /// Posts any message; status and body of the answer.
    pub async fn send(&self, kind: &str, message: Vec<u8>) -> Result<(u16, Vec<u8>), SimError> {
        let request = self.http.post(&self.url).header("Content-Type", kind);
        let response = request.body(message).send().await?;
        let status = response.status().as_u16();
        Ok((status, response.bytes().await?.to_vec()))
    }
}

/// What a signed profile says; whose signature it is, a device shows and does not judge.
fn content(signed: &[u8]) -> Result<Vec<u8>, SimError> {
    let (none, nobody) = (Stack::new()?, X509StoreBuilder::new()?.build());
    let mut content = Vec::new();
    let flags = Pkcs7Flags::BINARY | Pkcs7Flags::NOVERIFY;
    Pkcs7::from_der(signed)?.verify(&none, &nobody, None, Some(&mut content), flags)?;
    Ok(content)
}
