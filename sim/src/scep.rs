//! A SCEP client (RFC 8894), as a device has one: fetches the authority, asks for a
//! certificate, renews it. What real clients vary (cipher, digest, GET or POST) and
//! what hostile ones bend are fields.
//!
//! Envelopes and the server's signatures go through OpenSSL's own PKCS#7, so that a
//! fault in the server's hand-written CMS does not cancel out here.

use base64::prelude::*;
use openssl::hash::hash;
use openssl::pkcs7::{Pkcs7, Pkcs7Flags};
use openssl::pkey::{PKey, Private};
use openssl::rand::rand_bytes;
use openssl::sign::Signer;
use openssl::stack::Stack;
use openssl::symm::Cipher;
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::{X509, X509Builder};
use schema::scep::{
    FAIL_INFO, MESSAGE_TYPE, PKI_STATUS, PkiMessage, RECIPIENT_NONCE, SENDER_NONCE, TRANSACTION_ID,
};

use crate::ca::{describe, name};
use crate::cms::{self, Digest};
use crate::der::{self, CONTEXT_0, OCTET_STRING, SEQUENCE, SET};
use crate::error::SimError;
use crate::identity::Identity;

/// A client of one SCEP server.
#[derive(Clone, Debug)]
pub struct ScepClient {
    url: String,
    http: reqwest::Client,
}

/// Who answers: the certificate to encrypt to, and the CA behind it.
#[derive(Clone, Debug)]
pub struct ScepAuthority {
    /// The registration authority's certificate.
    pub ra: X509,
    /// The CA's.
    pub ca: X509,
}

/// A certification request (PKCS#10), before it is signed.
#[derive(Clone, Debug, Default)]
pub struct ScepCsr {
    /// The common name asked for; none if empty.
    pub common_name: String,
    /// The challenge.
    pub challenge: Option<String>,
    /// DER of the Extensions asked for.
    pub extensions: Option<Vec<u8>>,
}

/// A pkiMessage, before it is encoded.
#[derive(Clone, Debug)]
pub struct ScepRequest {
    /// 19 for a first certificate, 17 for a renewal.
    pub message_type: String,
    /// The transactionID.
    pub transaction: String,
    /// The senderNonce.
    pub nonce: Vec<u8>,
    /// The certification request.
    pub csr: Vec<u8>,
    /// Who signs, and so who can read the answer.
    pub signer: Identity,
    /// What the request is encrypted with.
    pub cipher: ScepCipher,
    /// What it is signed with.
    pub digest: Digest,
}

/// A cipher clients use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScepCipher {
    /// Before AES was announced.
    Des3,
    /// AES-128 in CBC mode.
    Aes128,
    /// AES-256 in CBC mode.
    Aes256,
}

/// What the server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScepReply {
    /// The certificate, in DER.
    Issued(Vec<u8>),
    /// The failInfo.
    Failed(String),
}

impl ScepClient {
    /// A client of the server at `url`, over `http`, which says whom to trust.
    #[must_use]
    pub fn new(url: &str, http: reqwest::Client) -> Self {
        Self {
            url: url.to_owned(),
            http,
        }
    }

    /// What the server can do (GetCACaps).
    pub async fn capabilities(&self) -> Result<Vec<String>, SimError> {
        let (_, body) = self.get("GetCACaps").await?;
        let text = String::from_utf8_lossy(&body);
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Whom to encrypt to (GetCACert).
    pub async fn authority(&self) -> Result<ScepAuthority, SimError> {
        let (content_type, body) = self.get("GetCACert").await?;
        if content_type != "application/x-x509-ca-ra-cert" {
            return Err(SimError::ScepAnswer(format!("GetCACert is {content_type}")));
        }
        let mut ra = None;
        let mut ca = None;
        for certificate in certificates(&body)? {
            // An error: a key that made no such signature.
            let own = certificate.public_key()?;
            let self_signed = certificate.verify(&own).unwrap_or(false);
            let place = if self_signed { &mut ca } else { &mut ra };
            *place = Some(certificate);
        }
        match (ra, ca) {
            (Some(ra), Some(ca)) => Ok(ScepAuthority { ra, ca }),
            _ => Err(SimError::ScepAnswer("GetCACert lacks the RA or CA".into())),
        }
    }

    /// A first certificate for `key`, paid for with a challenge.
    pub async fn enroll(
        &self,
        authority: &ScepAuthority,
        key: &PKey<Private>,
        challenge: &str,
    ) -> Result<Identity, SimError> {
        let csr = ScepCsr {
            common_name: "device".into(),
            challenge: Some(challenge.to_owned()),
            extensions: None,
        };
        let signer = scep_signer(key)?;
        let request = ScepRequest::new("19", csr.sign(key)?, signer)?;
        self.ask(authority, &request, key).await
    }

    /// The next certificate for `key`, asked for with the present one.
    pub async fn renew(
        &self,
        authority: &ScepAuthority,
        present: &Identity,
        key: &PKey<Private>,
    ) -> Result<Identity, SimError> {
        let csr = ScepCsr {
            common_name: "device".into(),
            ..ScepCsr::default()
        };
        let request = ScepRequest::new("17", csr.sign(key)?, present.clone())?;
        self.ask(authority, &request, key).await
    }

    /// Sends an encoded message by POST; the answer as it came.
    pub async fn post(&self, message: Vec<u8>) -> Result<Vec<u8>, SimError> {
        let request = self
            .http
            .post(format!("{}?operation=PKIOperation", self.url));
        let request = request.header("Content-Type", "application/x-pki-message");
        let (_, body) = taken(request.body(message)).await?;
        Ok(body)
    }

    async fn ask(
        &self,
        authority: &ScepAuthority,
        request: &ScepRequest,
        key: &PKey<Private>,
    ) -> Result<Identity, SimError> {
        let reply = self.post(request.encode(&authority.ra)?).await?;
        match request.open(&reply, &authority.ra)? {
            ScepReply::Issued(der) => Identity::new(&der, key.clone()),
            ScepReply::Failed(info) => {
                Err(SimError::ScepAnswer(format!("FAILURE, failInfo {info}")))
            }
        }
    }

    async fn get(&self, operation: &str) -> Result<(String, Vec<u8>), SimError> {
        let url = format!("{}?operation={operation}", self.url);
        taken(self.http.get(url)).await
    }
}

async fn taken(request: reqwest::RequestBuilder) -> Result<(String, Vec<u8>), SimError> {
    let response = request.send().await?;
    let status = response.status().as_u16();
    if status != 200 {
        return Err(SimError::Refused {
            what: "scep",
            status,
        });
    }
    let kind = response.headers().get("Content-Type");
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    Ok((kind.to_owned(), response.bytes().await?.to_vec()))
}

impl ScepCsr {
    /// Signs the request with the key it is for.
    pub fn sign(&self, key: &PKey<Private>) -> Result<Vec<u8>, SimError> {
        let mut attributes = Vec::new();
        if let Some(challenge) = &self.challenge {
            let text = der::value(PRINTABLE_STRING, &[challenge.as_bytes()]);
            attributes.push(der::sequence(&[CHALLENGE, &der::value(SET, &[&text])]));
        }
        if let Some(extensions) = &self.extensions {
            let values = der::value(SET, &[extensions]);
            attributes.push(der::sequence(&[EXTENSION_REQUEST, &values]));
        }
        let attributes: Vec<&[u8]> = attributes.iter().map(Vec::as_slice).collect();
        let subject = match self.common_name.as_str() {
            "" => der::sequence(&[]),
            text => name(text)?.to_der()?,
        };
        let info = der::sequence(&[
            VERSION_0,
            &subject,
            &key.public_key_to_der()?,
            &der::value(CONTEXT_0, &attributes),
        ]);
        let algorithm = match key.id() {
            openssl::pkey::Id::EC => der::sequence(&[ECDSA_SHA256]),
            _ => der::sequence(&[SHA256_WITH_RSA, cms::NULL]),
        };
        let signature = Signer::new(Digest::Sha256.openssl(), key)?.sign_oneshot_to_vec(&info)?;
        let signature = der::value(BIT_STRING, &[&[0], &signature]);
        Ok(der::sequence(&[&info, &algorithm, &signature]))
    }
}

impl ScepRequest {
    /// A message of this type with a fresh transaction, AES-128 and SHA-256.
    pub fn new(message_type: &str, csr: Vec<u8>, signer: Identity) -> Result<Self, SimError> {
        let mut random = [0; 36];
        rand_bytes(&mut random)?;
        let (transaction, nonce) = random.split_at(20);
        Ok(Self {
            message_type: message_type.to_owned(),
            transaction: transaction.iter().map(|b| format!("{b:02X}")).collect(),
            nonce: nonce.to_vec(),
            csr,
            signer,
            cipher: ScepCipher::Aes128,
            digest: Digest::Sha256,
        })
    }

    /// The message for this RA.
    pub fn encode(&self, ra: &X509) -> Result<Vec<u8>, SimError> {
        let mut recipients = Stack::new()?;
        recipients.push(ra.clone())?;
        let flags = Pkcs7Flags::BINARY;
        let enveloped = Pkcs7::encrypt(&recipients, &self.csr, self.cipher.openssl(), flags)?;
        self.encode_around(&enveloped.to_der()?)
    }

    /// The message around what stands for the envelope.
    pub fn encode_around(&self, enveloped: &[u8]) -> Result<Vec<u8>, SimError> {
        let printable = |text: &str| der::value(PRINTABLE_STRING, &[text.as_bytes()]);
        let own = [
            (MESSAGE_TYPE, printable(&self.message_type)),
            (TRANSACTION_ID, printable(&self.transaction)),
            (SENDER_NONCE, der::value(OCTET_STRING, &[&self.nonce])),
        ];
        let mut attributes = cms::attributes(&hash(self.digest.openssl(), enveloped)?);
        for (oid, value) in own {
            let oid = der::value(OID, &[oid.0]);
            attributes.extend(der::sequence(&[&oid, &der::value(SET, &[&value])]));
        }
        self.sign(enveloped, &attributes)
    }

    /// The message with exactly these signed attributes.
    pub fn sign(&self, content: &[u8], attributes: &[u8]) -> Result<Vec<u8>, SimError> {
        let algorithm = self.digest.algorithm();
        let signed = der::value(SET, &[attributes]);
        let mut rsa = Signer::new(self.digest.openssl(), &self.signer.key)?;
        let signature = rsa.sign_oneshot_to_vec(&signed)?;
        let signer_info = der::sequence(&[
            cms::VERSION_1,
            &self.signer.issuer_and_serial,
            &algorithm,
            &der::value(CONTEXT_0, &[attributes]),
            &der::sequence(&[cms::RSA_ENCRYPTION, cms::NULL]),
            &der::value(OCTET_STRING, &[&signature]),
        ]);
        let octets = der::value(OCTET_STRING, &[content]);
        let content = der::value(CONTEXT_0, &[&octets]);
        let signed_data = der::value(
            SEQUENCE,
            &[
                cms::VERSION_1,
                &der::value(SET, &[&algorithm]),
                &der::sequence(&[cms::DATA, &content]),
                &der::value(CONTEXT_0, &[&self.signer.cert_der]),
                &der::value(SET, &[&signer_info]),
            ],
        );
        let content = der::value(CONTEXT_0, &[&signed_data]);
        Ok(der::sequence(&[cms::SIGNED_DATA, &content]))
    }

    /// Reads the answer: signed by the RA, for this transaction, and sealed for us.
    pub fn open(&self, reply: &[u8], ra: &X509) -> Result<ScepReply, SimError> {
        let wrong = |what: &str| SimError::ScepAnswer(what.to_owned());
        let message = PkiMessage::parse(reply).map_err(|error| wrong(&error.to_string()))?;
        check_signature(reply, message.signed.content.as_deref(), ra)?;
        let attribute = |oid| {
            let value = message.signed.signer.attribute(oid).ok()??;
            Some(value.content().to_vec())
        };
        if message.message_type != 3 || message.transaction != self.transaction {
            return Err(wrong("not a CertRep of this transaction"));
        }
        if attribute(RECIPIENT_NONCE).as_deref() != Some(&self.nonce) {
            return Err(wrong("recipientNonce is not the nonce sent"));
        }
        if message.signed.signer.digest != self.digest.of_schema() {
            return Err(wrong("signed with another digest than the request"));
        }
        match (attribute(PKI_STATUS).as_deref(), attribute(FAIL_INFO)) {
            (Some(b"0"), None) => {
                let enveloped = message.signed.content.as_deref();
                let enveloped = enveloped.ok_or_else(|| wrong("SUCCESS without content"))?;
                if !contains(enveloped, self.cipher.oid()) {
                    return Err(wrong("sealed with another cipher than the request"));
                }
                let own = X509::from_der(&self.signer.cert_der)?;
                let flags = Pkcs7Flags::BINARY;
                let opened = Pkcs7::from_der(enveloped)?.decrypt(&self.signer.key, &own, flags)?;
                let [issued] = certificates(&opened)?
                    .try_into()
                    .map_err(|_| wrong("the envelope does not hold exactly one certificate"))?;
                Ok(ScepReply::Issued(issued.to_der()?))
            }
            (Some(b"2"), Some(info)) if message.signed.content.is_none() => {
                Ok(ScepReply::Failed(String::from_utf8_lossy(&info).into()))
            }
            _ => Err(wrong("pkiStatus and failInfo do not fit")),
        }
    }

    /// The message as a GET carries it.
    pub fn query(message: &[u8]) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(message)
    }
}

impl ScepCipher {
    fn openssl(self) -> Cipher {
        match self {
            Self::Des3 => Cipher::des_ede3_cbc(),
            Self::Aes128 => Cipher::aes_128_cbc(),
            Self::Aes256 => Cipher::aes_256_cbc(),
        }
    }

    fn oid(self) -> &'static [u8] {
        match self {
            Self::Des3 => &[0x06, 8, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 3, 7],
            Self::Aes128 => &[0x06, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 1, 2],
            Self::Aes256 => &[0x06, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 1, 42],
        }
    }
}

impl Digest {
    fn of_schema(self) -> schema::cms::DigestAlgorithm {
        match self {
            Self::Sha1 => schema::cms::DigestAlgorithm::Sha1,
            Self::Sha256 => schema::cms::DigestAlgorithm::Sha256,
            Self::Sha384 => schema::cms::DigestAlgorithm::Sha384,
            Self::Sha512 => schema::cms::DigestAlgorithm::Sha512,
        }
    }
}

/// The certificate a device makes itself to sign its first request.
pub fn scep_signer(key: &PKey<Private>) -> Result<Identity, SimError> {
    let subject = name("MDM SCEP SIGNER")?;
    let mut builder = X509Builder::new()?;
    describe(&mut builder, &subject, &subject, key, 365)?;
    builder.sign(key, Digest::Sha256.openssl())?;
    Identity::new(&builder.build().to_der()?, key.clone())
}

fn check_signature(reply: &[u8], content: Option<&[u8]>, ra: &X509) -> Result<(), SimError> {
    let mut signers = Stack::new()?;
    signers.push(ra.clone())?;
    // An RA is no e-mail signer: whose it is, the caller said.
    let flags = Pkcs7Flags::BINARY | Pkcs7Flags::NOVERIFY | Pkcs7Flags::NOINTERN;
    let store = X509StoreBuilder::new()?.build();
    let detached: Option<&[u8]> = if content.is_some() { None } else { Some(&[]) };
    Ok(Pkcs7::from_der(reply)?.verify(&signers, &store, detached, None, flags)?)
}

fn certificates(degenerate: &[u8]) -> Result<Vec<X509>, SimError> {
    let message = Pkcs7::from_der(degenerate)?;
    let certificates = message.signed().and_then(|signed| signed.certificates());
    Ok(certificates
        .map(|stack| stack.iter().map(ToOwned::to_owned).collect())
        .unwrap_or_default())
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

const PRINTABLE_STRING: u8 = 0x13;
const BIT_STRING: u8 = 0x03;
const OID: u8 = 0x06;
const VERSION_0: &[u8] = &[0x02, 1, 0];
const CHALLENGE: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 7];
const EXTENSION_REQUEST: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 14];
const SHA256_WITH_RSA: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11];
const ECDSA_SHA256: &[u8] = &[0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
