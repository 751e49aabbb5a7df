//! An identity made here, key and all, for one profile that carries it.
//!
//! SCEP is better: there the key never leaves its device, here this server knew it for a
//! moment and it travels with the profile. It is kept nowhere, and what holds it has no
//! `Debug`. The certificate is recorded, and the use of the link counted, before anyone
//! gets it. Called by the enrollment door; takes its turn with the SCEP requests.

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkcs12::Pkcs12;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::sha::sha256;
use openssl::x509::X509;
use schema::link::{Link, LinkVoid};

use super::judge::common_name;
use super::{Inner, Scep, ScepError};
use crate::StoreError;
use crate::ca::{CaError, PublicKey};
use crate::store::{IssuedCertificate, Refusal, Spent};

/// An identity for one profile: its only copy.
pub struct MadeIdentity {
    /// The PKCS#12, DER.
    pub der: Vec<u8>,
    /// What opens it; a secret.
    pub password: String,
}

impl Scep {
    /// Makes an identity for a profile of this link, which is a use of it. Says so when
    /// the link is void.
    ///
    /// # Errors
    /// [`ScepError`]: our own trouble.
    pub async fn make_identity(
        &self,
        link: &Link,
    ) -> Result<Result<MadeIdentity, LinkVoid>, ScepError> {
        let of = link.clone();
        let made = self.turn(move |scep| scep.made_for(&of)).await?;
        let (made, certificate) = match made {
            Ok(made) => made,
            Err(void) => return Ok(Err(void)),
        };
        Ok(
            match self.inner.store.issue_in_profile(link, certificate).await? {
                Spent::Issued => Ok(made),
                Spent::Refused(Refusal::Link(void)) => Err(void),
                Spent::Refused(_) | Spent::AlreadyIssued(_) => {
                    return Err(StoreError::Closed.into());
                }
            },
        )
    }
}

impl Inner {
    /// Makes it; nobody has it yet, and the store knows nothing of it.
    fn made_for(
        &self,
        link: &Link,
    ) -> Result<Result<(MadeIdentity, IssuedCertificate), LinkVoid>, ScepError> {
        let now = self.clock.now();
        // Others may have used it up while this one waited: no key is made in vain.
        let link = self.store.link(&link.id)?.unwrap_or_else(|| link.clone());
        if let Err(void) = link.open(self.store.expiry_clock()) {
            return Ok(Err(void));
        }
        let key = PKey::from_rsa(Rsa::generate(KEY_BITS).map_err(CaError::from)?);
        let key = key.map_err(CaError::from)?;
        let spki = key.public_key_to_der().map_err(CaError::from)?;
        let public = PublicKey::parse(&spki).ok_or(CaError::NotAPair)?;
        let name = common_name(link.device.as_ref(), &spki);
        let signed = self.ca.issue(&name, &public, self.validity_days, now)?;
        let made = seal(&key, &signed.der)?;
        let certificate = IssuedCertificate {
            request: sha256(&spki),
            leaf: signed.leaf,
            der: signed.der,
            not_after: signed.not_after,
            serial: signed.serial,
        };
        Ok(Ok((made, certificate)))
    }
}

/// Key and certificate in the one form every iOS reads: PBE-SHA1-3DES with a SHA-1 MAC.
fn seal(key: &PKey<Private>, certificate: &[u8]) -> Result<MadeIdentity, CaError> {
    let mut random = [0; PASSWORD_BYTES];
    rand::fill(&mut random).map_err(|_| CaError::NoRandomness)?;
    let password = URL_SAFE_NO_PAD.encode(random);
    let sealed = Pkcs12::builder()
        .name("Device identity")
        .pkey(key)
        .cert(&*X509::from_der(certificate)?)
        .key_algorithm(Nid::PBE_WITHSHA1AND3_KEY_TRIPLEDES_CBC)
        .cert_algorithm(Nid::PBE_WITHSHA1AND3_KEY_TRIPLEDES_CBC)
        .mac_md(MessageDigest::sha1())
        .build2(&password)?;
    Ok(MadeIdentity {
        der: sealed.to_der()?,
        password,
    })
}

const KEY_BITS: u32 = 2048;
const PASSWORD_BYTES: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_is_of_the_form_ios_reads_and_opens_with_its_password_alone() {
        let key = PKey::from_rsa(Rsa::generate(KEY_BITS).unwrap()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let ca = crate::ca::DeviceCa::open(directory.path(), 30).unwrap();
        let public = PublicKey::parse(&key.public_key_to_der().unwrap()).unwrap();
        let signed = ca.issue("D", &public, 3, schema::UnixMillis(1_800_000_000_000));
        let made = seal(&key, &signed.unwrap().der).unwrap();
        let read = Pkcs12::from_der(&made.der).unwrap();
        let opened = read.parse2(&made.password).unwrap();
        assert!(opened.pkey.unwrap().public_eq(&key));
        assert!(opened.ca.is_none(), "the leaf alone");
        assert!(read.parse2("").is_err());
        let holds = |oid: &[u8]| made.der.windows(oid.len()).filter(|at| *at == oid).count();
        assert_eq!(holds(PBE_SHA1_3DES), 2, "of the certificate and of the key");
        assert_eq!(holds(SHA1), 1, "of the MAC");
        assert_eq!(holds(PBES2), 0);
        let again = seal(&key, &opened.cert.unwrap().to_der().unwrap()).unwrap();
        assert_ne!(again.password, made.password);
    }

    /// 1.2.840.113549.1.12.1.3, 1.3.14.3.2.26 and 1.2.840.113549.1.5.13.
    const PBE_SHA1_3DES: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x01, 0x03];
    const SHA1: &[u8] = &[0x2b, 0x0e, 0x03, 0x02, 0x1a];
    const PBES2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0d];
}
