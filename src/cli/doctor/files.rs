//! The data directory, its disk and the device CA, looked at from outside.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use actors::expiry::not_after;
use actors::store::{free_bytes, is_in};
use openssl::pkey::PKey;
use openssl::x509::X509;
use schema::UnixMillis;
use schema::expiry::{Closeness, Purpose, closeness, told};

use super::finding::Finding;

/// Whether others can read what is ours alone.
pub(super) fn data_directory(path: &Path) -> Vec<Finding> {
    let shown = path.display();
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => {
            return vec![Finding::ok(
                DIRECTORY,
                format!("{shown}: made at the first start"),
            )];
        }
        Err(why) => return vec![unreadable(path, &why)],
    };
    let mut findings = Vec::new();
    if metadata.mode() & 0o077 != 0 {
        findings.push(Finding::fail(
            DIRECTORY,
            format!(
                "{shown} has mode {:04o}: others can enter it",
                metadata.mode() & 0o7777
            ),
            format!("chmod 0700 {shown}"),
        ));
    }
    match fs::read_dir(path) {
        Ok(entries) => {
            let mut entries: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
            entries.sort();
            let files = entries
                .iter()
                .filter_map(|file| private(file, metadata.uid()));
            findings.extend(files);
        }
        Err(why) => findings.push(unreadable(path, &why)),
    }
    if findings.is_empty() {
        let detail = format!("{shown}: mode 0700, secrets 0600");
        findings.push(Finding::ok(DIRECTORY, detail));
    }
    findings
}

/// What is wrong with a file of the data directory: who may read it, whose it is.
fn private(file: &Path, owner: u32) -> Option<Finding> {
    let shown = file.display();
    let metadata = fs::symlink_metadata(file).ok()?;
    let extension = file.extension().and_then(|extension| extension.to_str());
    let secret = matches!(extension, Some("key" | "token"))
        || SECRETS.iter().any(|name| file.ends_with(name));
    if secret && metadata.is_file() && metadata.mode() & 0o077 != 0 {
        return Some(Finding::fail(
            DIRECTORY,
            format!(
                "{shown} has mode {:04o}: others can read it",
                metadata.mode() & 0o7777
            ),
            format!("chmod 0600 {shown}"),
        ));
    }
    (metadata.uid() != owner).then(|| {
        Finding::warn(
            DIRECTORY,
            format!(
                "{shown} belongs to user {}, its directory to {owner}",
                metadata.uid()
            ),
            format!("chown {owner} {shown}"),
        )
    })
}

/// Whether there is room to write.
pub(super) fn disk(path: &Path, reserve_mb: u64) -> Finding {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let there = absolute.ancestors().find(|path| path.exists());
    let free = match free_bytes(there.unwrap_or(path)) {
        Ok(free) => free >> 20,
        Err(why) => return unreadable(path, &why),
    };
    let detail = format!("{free} MiB free, {reserve_mb} MiB are kept in reserve");
    let advice = "make room, or lower store.retention_days";
    if free < reserve_mb {
        Finding::fail(DISK, detail + ": writes are refused", advice)
    } else if free < reserve_mb.saturating_mul(2) {
        Finding::warn(DISK, detail, advice)
    } else {
        Finding::ok(DISK, detail)
    }
}

/// Whether the device CA is whole, fits together, and lasts.
pub(super) fn device_ca(directory: &Path, now: UnixMillis) -> Finding {
    let (certificate, key) = (directory.join("ca.pem"), directory.join("ca.key"));
    match (certificate.exists(), key.exists()) {
        (true, true) => {}
        (false, false) if is_in(directory) => {
            return Finding::warn(
                CA,
                "ca.pem and ca.key are missing beside the store; once it knows a device the \
                 server does not start without them",
                "restore both from a backup; a new CA would shut every device out",
            );
        }
        (false, false) => return Finding::ok(CA, "made at the first start"),
        (true, false) | (false, true) => {
            return Finding::fail(
                CA,
                "only one of ca.pem and ca.key is there; the server does not start",
                "restore the other from a backup; a new CA would shut every device out",
            );
        }
    }
    let files = fs::read(&certificate).and_then(|pem| Ok((pem, fs::read(&key)?)));
    let (pem, key) = match files {
        Ok(files) => files,
        Err(why) => return unreadable(directory, &why),
    };
    let restore = "restore both from one backup";
    let (Ok(certificate), Ok(key)) = (X509::from_pem(&pem), PKey::private_key_from_pem(&key))
    else {
        return Finding::fail(CA, "ca.pem or ca.key is damaged", restore);
    };
    if !certificate
        .public_key()
        .is_ok_and(|public| public.public_eq(&key))
    {
        return Finding::fail(CA, "ca.key is not the key of ca.pem", restore);
    }
    match not_after(&pem) {
        Ok(ends) => lasts(CA, Purpose::DeviceCa, "ca.pem", ends, now),
        Err(why) => Finding::fail(CA, format!("ca.pem: {why}"), restore),
    }
}

/// How long the other certificates of our own last, as far as they are there. The server
/// renews the rest by itself and is asked for them when it runs.
pub(super) fn own_certificates(directory: &Path, now: UnixMillis) -> Vec<Finding> {
    let own = [
        (Purpose::TlsRoot, "tls-root.pem"),
        (Purpose::ProfileSigner, "profile.pem"),
    ];
    let there = own.into_iter().filter_map(|(purpose, name)| {
        let pem = fs::read(directory.join(name)).ok()?;
        Some(match not_after(&pem) {
            Ok(ends) => lasts(OWN, purpose, name, ends, now),
            Err(why) => Finding::fail(OWN, format!("{name}: {why}"), "restore it from a backup"),
        })
    });
    there.collect()
}

/// How long a certificate still lasts.
pub(super) fn lasts(
    check: &'static str,
    purpose: Purpose,
    name: &str,
    ends: i64,
    now: UnixMillis,
) -> Finding {
    let detail = format!("{name} {}", told(ends, now));
    match closeness(ends, now) {
        None => Finding::ok(check, detail),
        Some(Closeness::Passed(_)) => Finding::warn(check, detail, purpose.advice()),
        Some(Closeness::Expired) => Finding::fail(check, detail, purpose.advice()),
    }
}

fn unreadable(path: &Path, why: &std::io::Error) -> Finding {
    Finding::fail(
        DIRECTORY,
        format!("{}: {why}", path.display()),
        "run doctor as the user of the server",
    )
}

/// Besides what its extension tells.
const SECRETS: [&str; 4] = [
    "reveille.redb",
    "tls-leaf.pem",
    "acme-account.json",
    "acme-certificate.json",
];
const DIRECTORY: &str = "data directory";
const DISK: &str = "disk";
const CA: &str = "device CA";
const OWN: &str = "own certificates";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use actors::ca::{CaKey, DeviceCa};

    use super::super::finding::Outcome;
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_directory_or_secret_others_can_read_fails_with_its_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let outcomes = || -> Vec<_> {
            let findings = data_directory(path).into_iter();
            findings
                .map(|f| (f.outcome, f.advice.unwrap_or_default()))
                .collect()
        };
        for (name, bits) in [
            ("seal.key", 0o600),
            ("tls-leaf.pem", 0o600),
            ("ca.pem", 0o644),
        ] {
            fs::write(path.join(name), "").unwrap();
            mode(&path.join(name), bits);
        }
        mode(path, 0o700);
        assert_eq!(outcomes(), [(Outcome::Ok, String::new())]);
        mode(path, 0o750);
        mode(&path.join("seal.key"), 0o640);
        let directory = format!("chmod 0700 {}", path.display());
        let key = format!("chmod 0600 {}", path.join("seal.key").display());
        assert_eq!(
            outcomes(),
            [(Outcome::Fail, directory), (Outcome::Fail, key)]
        );
        assert_eq!(data_directory(&path.join("none"))[0].outcome, Outcome::Ok);
    }

    #[test]
    fn a_ca_that_is_halved_mixed_up_or_old_is_told() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = one.path();
        assert_eq!(device_ca(path, NOW).outcome, Outcome::Ok);
        DeviceCa::open(path, CaKey::Rsa2048, 7300).unwrap();
        DeviceCa::open(other.path(), CaKey::Rsa2048, 7300).unwrap();
        assert_eq!(device_ca(path, NOW).outcome, Outcome::Ok);
        let late = NOW.plus_seconds(30 * 366 * 24 * 3600);
        let finding = device_ca(path, late);
        assert_eq!(
            (finding.outcome, &*finding.detail),
            (Outcome::Fail, "ca.pem has expired")
        );
        fs::copy(other.path().join("ca.key"), path.join("ca.key")).unwrap();
        let finding = device_ca(path, NOW);
        assert_eq!(finding.outcome, Outcome::Fail);
        assert!(finding.detail.contains("not the key"), "{finding:?}");
        fs::remove_file(path.join("ca.pem")).unwrap();
        assert!(device_ca(path, NOW).detail.contains("only one"));
    }

    #[test]
    fn an_old_or_damaged_certificate_of_our_own_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        assert!(own_certificates(path, NOW).is_empty());
        DeviceCa::open(path, CaKey::Rsa2048, 7300).unwrap();
        fs::rename(path.join("ca.pem"), path.join("tls-root.pem")).unwrap();
        let outcome = |now| own_certificates(path, now)[0].outcome;
        assert_eq!(outcome(NOW), Outcome::Ok);
        assert_eq!(
            outcome(NOW.plus_seconds(30 * 366 * 24 * 3600)),
            Outcome::Fail
        );
        fs::write(path.join("profile.pem"), "torn").unwrap();
        assert_eq!(own_certificates(path, NOW)[1].outcome, Outcome::Fail);
    }

    #[test]
    fn a_disk_below_the_reserve_fails() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(disk(directory.path(), 0).outcome, Outcome::Ok);
        assert_eq!(
            disk(&directory.path().join("a/b"), 1 << 40).outcome,
            Outcome::Fail
        );
    }
}
