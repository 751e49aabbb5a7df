//! The store, its sealing key and what is sealed in it, when nobody has it open.

use std::fs;
use std::path::{Path, PathBuf};

use actors::StoreError;
use actors::push_certificate::PushCertificate;
use actors::store::{Fit, Inspection, Restored};
use schema::UnixMillis;
use schema::expiry::Purpose;

use super::files::lasts;
use super::finding::Finding;
use crate::api::rendering::time;
use crate::config::Config;

/// The store of a configuration, as far as it can be looked at.
pub(super) enum Found {
    /// There is none yet.
    None,
    /// A process, presumably the server, has it open.
    InUse,
    /// It was looked at.
    Looked(Vec<Finding>),
}

/// Looks at it.
pub(super) fn look(config: &Config, now: UnixMillis) -> Found {
    let directory = &config.store.path;
    if !actors::store::is_in(directory) {
        return Found::None;
    }
    let key = seal_key_file(config);
    match Inspection::of(directory, &key) {
        Ok(inspection) => Found::Looked(findings(&inspection, directory, &key, now)),
        Err(StoreError::InUse) => Found::InUse,
        Err(StoreError::Unclosed) => Found::Looked(vec![Finding::warn(
            STORE,
            "the last process was cut off; what is sealed was not looked at",
            "start the server once: it repairs the store",
        )]),
        Err(why) => Found::Looked(vec![Finding::fail(
            STORE,
            why.to_string(),
            "run doctor as the user of the server; if it is damaged, restore a backup",
        )]),
    }
}

fn findings(seen: &Inspection, directory: &Path, key: &Path, now: UnixMillis) -> Vec<Finding> {
    let mut findings = vec![version(seen, directory), sealing(seen, key)];
    if seen.sealing.is_ok() {
        findings.extend(push_certificates(&seen.push_certificates, now));
    }
    findings.push(clock(seen.last_written, now));
    findings.push(backup(seen.last_backup, now));
    findings.extend(seen.restored.map(restored));
    findings.extend(room(seen.database));
    findings.extend(renewals(seen.unrenewable));
    findings
}

/// How old the last backup is.
pub(super) fn backup(last: Option<UnixMillis>, now: UnixMillis) -> Finding {
    let advice = "reveille backup TO, every day";
    let Some(last) = last else {
        return Finding::warn(BACKUP, "none was ever made", advice);
    };
    let age = now.since(last) / 60_000;
    let told = match age {
        age if age < 120 => format!("{age} minutes old"),
        age if age < 3 * 24 * 60 => format!("{} hours old", age / 60),
        age => format!("{} days old", age / (24 * 60)),
    };
    if age > WEEK {
        return Finding::warn(BACKUP, told, advice);
    }
    Finding::ok(BACKUP, told)
}

fn restored(restored: Restored) -> Finding {
    let told = format!(
        "on {} from a backup made {} (generation {})",
        time(restored.at),
        time(restored.made),
        restored.generation
    );
    if restored.confirmed {
        return Finding::ok(RESTORED, told);
    }
    Finding::warn(
        RESTORED,
        told + "; nothing expires and nothing is deleted",
        "start the server, look whether all is well, then: reveille clock confirm",
    )
}

/// Devices that will need a person before their identity runs out.
fn renewals(unrenewable: u64) -> Option<Finding> {
    (unrenewable > 0).then(|| {
        Finding::warn(
            IDENTITIES,
            format!(
                "those of {unrenewable} enrolled devices cannot be renewed: what their \
                 enrollment profile said is not known here"
            ),
            "let them enroll again: enroll-link create --device ID for each",
        )
    })
}

/// A large file of which little is needed.
fn room((file, needed): (u64, u64)) -> Option<Finding> {
    let spare = file.saturating_sub(needed);
    (spare > WORTH_IT && needed < file / 2).then(|| {
        Finding::warn(
            STORE,
            format!("of {} MiB the database needs {}", file >> 20, needed >> 20),
            "stop the server and run: reveille compact",
        )
    })
}

fn version(seen: &Inspection, directory: &Path) -> Finding {
    let size = size(directory) >> 20;
    let known = Inspection::KNOWN_SCHEMA;
    match seen.schema {
        Some(found) if found > known => Finding::fail(
            STORE,
            format!("schema version {found}, this program knows {known}"),
            "run the newer version that wrote it, or restore a backup from before",
        ),
        Some(found) => Finding::ok(STORE, format!("schema version {found}, {size} MiB")),
        None => Finding::fail(STORE, "holds no tables of ours", "restore a backup"),
    }
}

fn sealing(seen: &Inspection, key: &Path) -> Finding {
    let shown = key.display();
    match &seen.sealing {
        Ok(Fit::Opens) => Finding::ok(SEALING, format!("{shown}: opens what the store holds")),
        Ok(Fit::Untested) => Finding::ok(SEALING, format!("{shown}: nothing is sealed yet")),
        Err(why) => Finding::fail(
            SEALING,
            why.to_string(),
            format!("put the key this store was made with at {shown}"),
        ),
    }
}

fn push_certificates(stored: &[(String, Vec<u8>)], now: UnixMillis) -> Vec<Finding> {
    if stored.is_empty() {
        return vec![Finding::warn(
            PUSH,
            "none; no device can be woken",
            "reveille push-cert csr begins the way to one",
        )];
    }
    let finding = |(topic, stored): &(String, Vec<u8>)| match PushCertificate::from_stored(stored) {
        Ok(certificate) => lasts(PUSH, Purpose::Push, topic, certificate.not_after, now),
        Err(why) => Finding::fail(
            PUSH,
            format!("{topic}: {why}"),
            "import it again: reveille push-cert import",
        ),
    };
    stored.iter().map(finding).collect()
}

/// The wall clock against the newest entry of the journal.
fn clock(last: Option<UnixMillis>, now: UnixMillis) -> Finding {
    let Some(last) = last else {
        return Finding::ok(CLOCK, "the journal is empty; nothing to compare with");
    };
    let (behind, ahead) = (last.since(now) / 60_000, now.since(last) / 60_000);
    if behind > MOST_BEHIND {
        return Finding::fail(
            CLOCK,
            format!("{behind} minutes before the newest entry of the journal"),
            "set the clock (NTP) before the server starts",
        );
    }
    if ahead > WEEK {
        return Finding::warn(
            CLOCK,
            format!(
                "{} days after the newest entry of the journal",
                ahead / (24 * 60)
            ),
            "if the server was off that long, all is well; nothing expires at first",
        );
    }
    Finding::ok(CLOCK, "agrees with the journal")
}

/// The file of the sealing key.
fn seal_key_file(config: &Config) -> PathBuf {
    match &config.store.seal_key_file {
        file if file.as_os_str().is_empty() => config.store.path.join("seal.key"),
        file => file.clone(),
    }
}

/// Bytes of the database and its segments.
fn size(directory: &Path) -> u64 {
    let length = |path: PathBuf| fs::metadata(path).map_or(0, |found| found.len());
    let segments = fs::read_dir(directory.join("segments"));
    let segments = segments.into_iter().flatten().flatten();
    let segments: u64 = segments.map(|entry| length(entry.path())).sum();
    length(directory.join("reveille.redb")) + segments
}

const IDENTITIES: &str = "identities";
const STORE: &str = "store";
const SEALING: &str = "sealing key";
const PUSH: &str = "push certificate";
const CLOCK: &str = "clock";
const BACKUP: &str = "last backup";
const RESTORED: &str = "restored";
/// Bytes to be had back.
const WORTH_IT: u64 = 64 << 20;
/// Minutes.
const MOST_BEHIND: u64 = 5;
const WEEK: u64 = 7 * 24 * 60;

#[cfg(test)]
mod tests {
    use super::super::finding::Outcome;
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    #[test]
    fn the_clock_is_held_against_the_journal() {
        let hour = 3600;
        let cases = [
            (None, Outcome::Ok),
            (Some(NOW), Outcome::Ok),
            (Some(NOW.plus_seconds(240)), Outcome::Ok),
            (Some(NOW.plus_seconds(hour)), Outcome::Fail),
            (Some(NOW.minus_seconds(24 * hour)), Outcome::Ok),
            (Some(NOW.minus_seconds(8 * 24 * hour)), Outcome::Warn),
        ];
        for (last, outcome) in cases {
            assert_eq!(clock(last, NOW).outcome, outcome, "{last:?}");
        }
    }

    #[test]
    fn a_backup_that_is_old_or_missing_is_told_and_so_is_room_that_is_not_needed() {
        assert_eq!(backup(None, NOW).outcome, Outcome::Warn);
        let old = NOW.minus_seconds(8 * 24 * 3600);
        let finding = backup(Some(old), NOW);
        assert_eq!(
            (finding.outcome, &*finding.detail),
            (Outcome::Warn, "8 days old")
        );
        let finding = backup(Some(NOW.minus_seconds(24 * 3600)), NOW);
        assert_eq!(
            (finding.outcome, &*finding.detail),
            (Outcome::Ok, "24 hours old")
        );
        assert!(room((100 << 20, 20 << 20)).is_some());
        assert!(room((100 << 20, 60 << 20)).is_none() && room((4 << 20, 1)).is_none());
    }

    #[test]
    fn devices_that_cannot_be_renewed_are_told_of() {
        assert!(renewals(0).is_none());
        let finding = renewals(3).unwrap();
        assert_eq!(finding.outcome, Outcome::Warn);
        assert!(
            finding.detail.contains("of 3 enrolled devices"),
            "{}",
            finding.detail
        );
    }

    #[test]
    fn a_store_of_a_newer_program_fails() {
        let inspection = |schema| Inspection {
            schema,
            last_written: None,
            sealing: Ok(Fit::Untested),
            push_certificates: Vec::new(),
            last_backup: None,
            restored: None,
            unrenewable: 0,
            database: (0, 0),
        };
        let known = Inspection::KNOWN_SCHEMA;
        for (schema, outcome) in [
            (Some(known), Outcome::Ok),
            (Some(known + 1), Outcome::Fail),
            (None, Outcome::Fail),
        ] {
            let finding = version(&inspection(schema), Path::new("/nowhere"));
            assert_eq!(finding.outcome, outcome);
        }
    }
}
