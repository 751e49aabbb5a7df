//! What is kept of a CA in the data directory: account, certificate, attempts.
//!
//! Each says which directory, and which names, it is of; what is of others is as good as
//! not there. All of it is private (0600) and replaced whole.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use instant_acme::AccountCredentials;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::attempts::Attempts;
use super::{AcmeError, Issued};

/// The files of one directory URL and set of names.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    data: PathBuf,
    owner: Owner,
}

/// Whose a file is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Owner {
    directory: String,
    names: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct KeptAccount {
    directory: String,
    contact: String,
    credentials: AccountCredentials,
}

#[derive(Serialize, Deserialize)]
struct KeptCertificate {
    owner: Owner,
    /// PEM, leaf first.
    chain: String,
    /// PEM.
    key: String,
}

#[derive(Serialize, Deserialize)]
struct KeptAttempts {
    owner: Owner,
    attempts: Attempts,
}

impl Kept {
    pub(super) fn of(data: &Path, directory: &str, names: Vec<String>) -> Self {
        Self {
            data: data.to_owned(),
            owner: Owner {
                directory: directory.to_owned(),
                names,
            },
        }
    }

    /// The account at this directory, and the contact it was made with.
    pub(super) fn account(&self) -> Option<(AccountCredentials, String)> {
        let kept: KeptAccount = self.read(ACCOUNT)?;
        (kept.directory == self.owner.directory).then_some((kept.credentials, kept.contact))
    }

    pub(super) fn put_account(
        &self,
        credentials: AccountCredentials,
        contact: &str,
    ) -> io::Result<()> {
        let kept = KeptAccount {
            directory: self.owner.directory.clone(),
            contact: contact.to_owned(),
            credentials,
        };
        self.write(ACCOUNT, &kept)
    }

    /// The CA knows the account no more.
    pub(super) fn forget_account(&self) -> io::Result<()> {
        self.remove(ACCOUNT)
    }

    /// The certificate of this directory for these names, if it can be read and is a pair.
    pub(super) fn certificate(&self) -> Option<Issued> {
        let kept: KeptCertificate = self.read(CERTIFICATE)?;
        let of_us = kept.owner == self.owner;
        let read = of_us.then(|| Issued::read(&kept.chain, kept.key.as_bytes()));
        read?.ok()
    }

    pub(super) fn put_certificate(&self, chain: String, key: String) -> io::Result<()> {
        let owner = self.owner.clone();
        self.write(CERTIFICATE, &KeptCertificate { owner, chain, key })
    }

    pub(super) fn attempts(&self) -> Attempts {
        let kept: Option<KeptAttempts> = self.read(ATTEMPTS);
        let kept = kept.filter(|kept| kept.owner == self.owner);
        kept.map(|kept| kept.attempts).unwrap_or_default()
    }

    /// What is known of the attempts; nothing is kept of none.
    pub(super) fn put_attempts(&self, attempts: &Attempts) -> Result<(), AcmeError> {
        if attempts.failures == 0 {
            return Ok(self.remove(ATTEMPTS)?);
        }
        let kept = KeptAttempts {
            owner: self.owner.clone(),
            attempts: attempts.clone(),
        };
        Ok(self.write(ATTEMPTS, &kept)?)
    }

    /// A file that cannot be read is made anew like one that is not there.
    fn read<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let text = fs::read(self.data.join(name)).ok()?;
        let read = serde_json::from_slice(&text);
        // The words of serde would quote what may be a secret.
        read.inspect_err(|_| tracing::warn!(file = name, "cannot be read and counts for nothing"))
            .ok()
    }

    fn write(&self, name: &str, kept: &impl Serialize) -> io::Result<()> {
        crate::private_file::replace(&self.data.join(name), &serde_json::to_vec(kept)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.data.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

const ACCOUNT: &str = "acme-account.json";
const CERTIFICATE: &str = "acme-certificate.json";
const ATTEMPTS: &str = "acme-attempts.json";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use openssl::pkey::PKey;
    use openssl::x509::X509;
    use rustls::pki_types::{DnsName, ServerName};
    use schema::UnixMillis;

    use super::*;
    use crate::tls::{ChallengeCertificate, TlsRoot};

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
    const DIRECTORY: &str = "https://ca.example/directory";

    fn kept(data: &Path, directory: &str, names: &[&str]) -> Kept {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        Kept::of(data, directory, names)
    }

    /// Any pair will do.
    fn pair() -> (String, String) {
        let elsewhere = tempfile::tempdir().unwrap();
        let root = TlsRoot::open(elsewhere.path(), NOW).unwrap();
        let names = ["a.example", "b.example"].map(|name| ServerName::try_from(name).unwrap());
        let made = root.certificate_for(&names, NOW).unwrap();
        let certificate = X509::from_der(&made.chain[0]).unwrap();
        let key = PKey::private_key_from_pkcs8(&made.key).unwrap();
        let texts = [
            certificate.to_pem().unwrap(),
            key.private_key_to_pem_pkcs8().unwrap(),
        ];
        let [chain, key] = texts.map(|text| String::from_utf8(text).unwrap());
        (chain, key)
    }

    fn credentials(directory: &str) -> AccountCredentials {
        let text = serde_json::json!({
            "id": "https://ca.example/account/1",
            "key_pkcs8": "AAAA",
            "directory": directory,
        });
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn what_is_of_another_directory_or_other_names_is_not_there() {
        let data = tempfile::tempdir().unwrap();
        let ours = kept(data.path(), DIRECTORY, &["a.example", "b.example"]);
        assert!(ours.certificate().is_none() && ours.account().is_none());
        let (chain, key) = pair();
        ours.put_certificate(chain, key).unwrap();
        ours.put_account(credentials(DIRECTORY), "mailto:a@b.example")
            .unwrap();
        let mut attempts = Attempts::default();
        attempts.begin(NOW, 0);
        ours.put_attempts(&attempts).unwrap();
        assert!(ours.certificate().is_some());
        assert_eq!(ours.attempts(), attempts);
        let (_, contact) = ours.account().unwrap();
        assert_eq!(contact, "mailto:a@b.example");

        let fewer = kept(data.path(), DIRECTORY, &["a.example"]);
        assert!(fewer.certificate().is_none());
        assert_eq!(fewer.attempts(), Attempts::default());
        assert!(fewer.account().is_some(), "the account is for any name");
        let other = kept(
            data.path(),
            "https://other.example/",
            &["a.example", "b.example"],
        );
        assert!(other.certificate().is_none() && other.account().is_none());

        ours.put_attempts(&Attempts::default()).unwrap();
        assert!(!data.path().join(ATTEMPTS).exists());
        ours.forget_account().unwrap();
        assert!(ours.account().is_none());
    }

    #[test]
    fn it_is_private_and_what_is_torn_counts_for_nothing() {
        let data = tempfile::tempdir().unwrap();
        let ours = kept(data.path(), DIRECTORY, &["a.example"]);
        let (chain, key) = pair();
        ours.put_certificate(chain.clone(), key).unwrap();
        ours.put_account(credentials(DIRECTORY), "").unwrap();
        for file in fs::read_dir(data.path()).unwrap() {
            let mode = file.unwrap().metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let shown = format!("{:?}", ours.certificate().unwrap());
        assert_eq!(shown, "Issued { not_after: 1834214400, .. }");
        let (_, other_key) = pair();
        ours.put_certificate(chain, other_key).unwrap();
        assert!(ours.certificate().is_none(), "not a pair");
        fs::write(data.path().join(CERTIFICATE), "{\"owner\"").unwrap();
        assert!(ours.certificate().is_none());
    }

    #[test]
    fn what_cannot_be_shown_or_is_for_other_names_is_of_no_use() {
        let (chain, key) = pair();
        let issued = Issued::read(&chain, key.as_bytes()).unwrap();
        let name = |name: &'static str| DnsName::try_from(name).unwrap();
        assert!(issued.is_for(&[name("a.example"), name("B.example")]));
        assert!(!issued.is_for(&[name("a.example"), name("c.example")]));

        // Its critical extension is one rustls does not know.
        let odd = ChallengeCertificate::of(&name("a.example"), "t.t", NOW).unwrap();
        let chain = X509::from_der(&odd.certificate).unwrap().to_pem().unwrap();
        let key = PKey::private_key_from_pkcs8(&odd.key).unwrap();
        let key = key.private_key_to_pem_pkcs8().unwrap();
        let odd = Issued::read(&String::from_utf8(chain).unwrap(), &key);
        assert!(matches!(odd, Err(AcmeError::Useless(_))), "{odd:?}");
    }
}
