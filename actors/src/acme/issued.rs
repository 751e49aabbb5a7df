//! A certificate as the CA issued it, with the key it was asked for.

use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::stack::Stack;
use openssl::x509::extension::SubjectAlternativeName;
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::verify::{X509VerifyFlags, X509VerifyParam};
use openssl::x509::{X509, X509Req, X509StoreContext};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{DnsName, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use schema::UnixMillis;

use super::AcmeError;
use crate::key_files::p256_key;
use crate::tls::{seconds, unix};

/// A server certificate with its chain and key.
#[derive(Clone)]
pub struct Issued {
    /// The chain, leaf first, and its key, as they are shown.
    pub certified: CertifiedKey,
    /// First moment of validity, in Unix seconds.
    pub not_before: i64,
    /// Last moment of validity, in Unix seconds.
    pub not_after: i64,
    certificates: Vec<X509>,
}

impl Issued {
    /// Reads a chain, leaf first, and the key of its leaf, both in PEM.
    ///
    /// # Errors
    /// [`AcmeError::Useless`] when they are not that.
    pub(super) fn read(chain: &str, key: &[u8]) -> Result<Self, AcmeError> {
        let useless = |_| AcmeError::Useless("it cannot be read");
        let certificates = X509::stack_from_pem(chain.as_bytes()).map_err(useless)?;
        let key = PKey::private_key_from_pem(key).map_err(useless)?;
        let leaf = certificates.first();
        let leaf = leaf.ok_or(AcmeError::Useless("there is none"))?;
        if !leaf.public_key()?.public_eq(&key) {
            return Err(AcmeError::Useless("it is of another key"));
        }
        let der = certificates.iter().map(|one| one.to_der().map(Into::into));
        let key = PrivatePkcs8KeyDer::from(key.private_key_to_pkcs8()?);
        // What could not be shown later must count as a failure now.
        let certified = CertifiedKey::from_der(
            der.collect::<Result<_, _>>()?,
            key.into(),
            &aws_lc_rs::default_provider(),
        );
        Ok(Self {
            certified: certified.map_err(|_| AcmeError::Useless("it cannot be shown"))?,
            not_before: unix(leaf.not_before())?,
            not_after: unix(leaf.not_after())?,
            certificates,
        })
    }

    /// Whether it is for all of these names.
    pub(super) fn is_for(&self, names: &[DnsName<'_>]) -> bool {
        let leaf = self.certificates.first();
        let held = leaf.and_then(|leaf| leaf.subject_alt_names());
        let holds = |name: &DnsName<'_>| {
            let mut held = held.iter().flatten().filter_map(|held| held.dnsname());
            held.any(|held| held.eq_ignore_ascii_case(name.as_ref()))
        };
        names.iter().all(holds)
    }

    /// Whether it is time for another: a third of its life is left. That it has not begun
    /// yet is no reason: another would not have either.
    #[must_use]
    pub fn is_due(&self, now: UnixMillis) -> bool {
        let life = self.not_after.saturating_sub(self.not_before);
        seconds(now) >= self.not_after.saturating_sub(life / 3)
    }

    /// Whether its chain leads to this root, whatever the time is.
    pub(super) fn leads_to(&self, root_pem: &[u8]) -> Result<bool, AcmeError> {
        let mut store = X509StoreBuilder::new()?;
        store.add_cert(X509::from_pem(root_pem)?)?;
        let mut timeless = X509VerifyParam::new()?;
        timeless.set_flags(X509VerifyFlags::NO_CHECK_TIME)?;
        store.set_param(&timeless)?;
        let mut between = Stack::new()?;
        for certificate in self.certificates.iter().skip(1) {
            between.push(certificate.clone())?;
        }
        let Some(leaf) = self.certificates.first() else {
            return Ok(false);
        };
        let leads = X509StoreContext::new()?.init(&store.build(), leaf, &between, |context| {
            context.verify_cert()
        })?;
        Ok(leads)
    }
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued")
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// A new key, and the request in DER to certify it for these names.
pub(super) fn request(names: &[DnsName<'_>]) -> Result<(PKey<Private>, Vec<u8>), AcmeError> {
    let key = p256_key()?;
    let mut builder = X509Req::builder()?;
    builder.set_pubkey(&key)?;
    let mut alternatives = SubjectAlternativeName::new();
    for name in names {
        alternatives.dns(name.as_ref());
    }
    let mut extensions = Stack::new()?;
    extensions.push(alternatives.build(&builder.x509v3_context(None))?)?;
    builder.add_extensions(&extensions)?;
    builder.sign(&key, MessageDigest::sha256())?;
    Ok((key, builder.build().to_der()?))
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::ServerName;

    use super::*;
    use crate::tls::TlsRoot;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    /// PEM of a root, and what it issued.
    fn issued() -> (Vec<u8>, Issued) {
        let directory = tempfile::tempdir().unwrap();
        let root = TlsRoot::open(directory.path(), NOW).unwrap();
        let name = ServerName::try_from("a.example").unwrap();
        root.certificate_for(&[name], NOW).unwrap();
        let pem = std::fs::read_to_string(directory.path().join("tls-leaf.pem")).unwrap();
        let issued = Issued::read(&pem, pem.as_bytes()).unwrap();
        (root.certificate_pem, issued)
    }

    #[test]
    fn it_leads_to_the_root_it_is_of_whatever_the_time_is() {
        let ((root, leaf), (other, _)) = (issued(), issued());
        assert!(leaf.leads_to(&root).unwrap());
        assert!(!leaf.leads_to(&other).unwrap());
    }

    #[test]
    fn it_is_due_when_a_third_of_its_life_is_left() {
        let (_, issued) = issued();
        let days = |days: u64| NOW.plus_seconds(days * 86_400);
        assert!(
            !issued.is_due(UnixMillis(0)),
            "a clock set back is no reason"
        );
        assert!(!issued.is_due(days(263)));
        assert!(issued.is_due(days(264)));
        assert!(issued.is_due(days(1000)));
    }

    #[test]
    fn a_request_names_the_hosts_and_is_signed_by_its_key() {
        let names = ["a.example", "b.example"].map(|name| DnsName::try_from(name).unwrap());
        let (key, der) = request(&names).unwrap();
        let request = X509Req::from_der(&der).unwrap();
        assert!(request.verify(&key).unwrap());
        let text = String::from_utf8(request.to_text().unwrap()).unwrap();
        assert!(text.contains("DNS:a.example, DNS:b.example"), "{text}");
    }
}
