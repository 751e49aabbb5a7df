//! Backups: a moment between two commits, whole or refused, and a restore that is careful.

use std::io::{self, Read as _, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::disk::mix;
use super::*;
use crate::store::archive::Ending;
use crate::store::{Backup, BackupError, Manifest, Steady, compact, restore, verify};

const DAY: u64 = 24 * 3600;
/// Who write at once while it is measured.
const WRITERS: usize = 4;

/// Bytes nothing compresses.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let words = (0..length as u64 / 8).map(|n| mix(seed, n).to_le_bytes());
    words.flatten().collect()
}

/// A sink that waits for more writes to the store now and then, as long as any come.
struct Dawdling {
    into: Vec<u8>,
    done: Arc<AtomicUsize>,
    of: usize,
}

impl Write for Dawdling {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let seen = self.done.load(Ordering::Acquire);
        while self.done.load(Ordering::Acquire) < (seen + 2).min(self.of) {
            std::thread::yield_now();
        }
        let bytes = &bytes[..bytes.len().min(32 << 10)];
        self.into.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Desk {
    /// Queues the command of this number and reports on it: a row, then a body in a segment.
    async fn step(&self, channel: ChannelNo, number: usize) {
        let uuid = format!("c{number}");
        self.enqueue(&uuid, &[channel]).await.unwrap();
        let body = noise(number as u64, 6000);
        report(&self.store, channel, &uuid, Status::Acknowledged, &body).await;
    }

    async fn archive(&self, with_key: bool) -> (Vec<u8>, Manifest) {
        let mut archive = Vec::new();
        let backup = self.store.backup().await.unwrap();
        let manifest = backup.write(&mut archive, with_key).unwrap();
        (archive, manifest)
    }

    /// The files a server keeps beside its store.
    fn keep_ca(&self) -> Vec<u8> {
        crate::ca::DeviceCa::open(self.directory.path(), crate::ca::CaKey::Rsa2048, 7300).unwrap();
        std::fs::write(self.directory.path().join("admin.token"), "rvl_secret").unwrap();
        std::fs::read(self.directory.path().join("ca.key")).unwrap()
    }
}

fn no_key(archive: &[u8]) -> Result<crate::store::Proved, BackupError> {
    verify(archive, &std::env::temp_dir(), None)
}

/// Every file of an archive.
fn files(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
    let plain = zstd::stream::decode_all(archive).unwrap();
    let mut archive = tar::Archive::new(&*plain);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (name, bytes)
    });
    entries.collect()
}

fn packed(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, &**bytes).unwrap();
    }
    ended(&tar.into_inner().unwrap())
}

/// Compressed, with its end.
fn ended(tar: &[u8]) -> Vec<u8> {
    let mut ending = Ending::of(Vec::new());
    let packed = zstd::stream::encode_all(tar, 1).unwrap();
    ending.write_all(&packed).unwrap();
    ending.end().unwrap()
}

#[tokio::test]
async fn a_backup_under_writes_is_a_prefix_of_them_however_slow_it_is_drained() {
    const STEPS: usize = 160;
    let desk = Desk::new();
    let channel = desk.enroll("D").await.channel.no;
    let done = Arc::new(AtomicUsize::new(0));
    let writes = async {
        for number in 0..STEPS {
            desk.step(channel, number).await;
            done.store(number + 1, Ordering::Release);
            if number % 20 == 0 {
                desk.store.fold().await.unwrap();
            }
        }
    };
    let backups = async {
        let mut kept = Vec::new();
        for at in [20, 60, 100] {
            while done.load(Ordering::Acquire) < at {
                tokio::task::yield_now().await;
            }
            let before = done.load(Ordering::Acquire);
            let backup = desk.store.backup().await.unwrap();
            let after = done.load(Ordering::Acquire);
            let sink = Dawdling {
                into: Vec::new(),
                done: done.clone(),
                of: STEPS,
            };
            let written = tokio::task::spawn_blocking(move || {
                let mut sink = sink;
                backup.write(&mut sink, true).map(|_| sink.into)
            });
            kept.push((before, after, written.await.unwrap().unwrap()));
        }
        kept
    };
    let ((), kept) = tokio::join!(writes, backups);
    for (before, after, archive) in kept {
        let place = tempfile::tempdir().unwrap();
        let to = place.path().join("data");
        let clock = desk.clock.clone();
        let proved = restore(&*archive, &to, None, false, clock.clone()).await;
        assert_eq!(proved.unwrap().proved.devices, 1);
        let store = Store::open(options(&to), clock).unwrap();
        let kept = (0..STEPS).take_while(|number| is_whole(&store, channel, *number));
        let kept = kept.count();
        assert!(
            before <= kept && kept <= after + 1,
            "{before} {kept} {after}"
        );
        // Of the next there is at most what came before its report.
        let next = CommandUuid::parse(&format!("c{}", kept + 1)).unwrap();
        assert_eq!(store.seq_of(&next).unwrap(), None);
        store.close();
    }
    assert_eq!(desk.store.inner.shadow.aside(), 0);
}

fn is_whole(store: &Store, channel: ChannelNo, number: usize) -> bool {
    let uuid = CommandUuid::parse(&format!("c{number}")).unwrap();
    let Some(seq) = store.seq_of(&uuid).unwrap() else {
        return false;
    };
    match store.result(channel, seq).unwrap() {
        Some(result) => {
            let whole = result.body.unwrap() == noise(number as u64, 6000);
            assert!(whole, "the body of {uuid:?} is another");
            true
        }
        None => false,
    }
}

#[tokio::test]
async fn a_backup_nobody_drains_neither_grows_the_store_nor_stops_it() {
    let mut lengths = Vec::new();
    for backed_up in [false, true] {
        let desk = Desk::new();
        let channel = desk.enroll("D").await.channel.no;
        let held: Option<Backup> = match backed_up {
            true => Some(desk.store.backup().await.unwrap()),
            false => {
                desk.store.fold().await.unwrap();
                None
            }
        };
        for number in 0..100 {
            desk.step(channel, number).await;
        }
        if let Some(held) = held {
            let again = desk.store.backup().await.unwrap_err();
            assert_eq!(again, StoreError::BackupRuns);
            let moment = held.write(io::sink(), false).unwrap();
            assert_eq!(moment.seq, 0, "as it was");
        }
        let file = desk.directory.path().join("reveille.redb");
        lengths.push(std::fs::metadata(file).unwrap().len());
    }
    assert!(lengths[1] <= lengths[0] + (100 << 10), "{lengths:?}");
}

#[tokio::test]
async fn nothing_secret_is_in_a_clear_backup_and_all_of_it_comes_back_with_the_key() {
    let desk = Desk::new();
    let key = desk.keep_ca();
    let channel = desk.enroll("D").await.channel.no;
    desk.step(channel, 1).await;
    let (archive, manifest) = desk.archive(false).await;
    let sealing = desk.directory.path().join("seal.key");
    let secrets = [
        key.clone(),
        std::fs::read(&sealing).unwrap(),
        b"rvl_secret".to_vec(),
        noise(1, 6000),
    ];
    let plain = zstd::stream::decode_all(&*archive).unwrap();
    for secret in &secrets {
        assert!(memfind(&plain, &secret[..32.min(secret.len())]).is_none());
    }
    assert_eq!(manifest.left_out, ["admin.token", "seal.key"]);
    assert!(!manifest.holds_key());

    let place = tempfile::tempdir().unwrap();
    let to = place.path().join("data");
    let refused = restore(&*archive, &to, None, false, desk.clock.clone()).await;
    assert!(
        matches!(refused, Err(BackupError::KeyMissing)),
        "{refused:?}"
    );
    let other = place.path().join("other.key");
    std::fs::write(&other, [9; 32]).unwrap();
    let refused = restore(&*archive, &to, Some(&other), false, desk.clock.clone()).await;
    assert!(
        matches!(refused, Err(BackupError::KeyDoesNotFit)),
        "{refused:?}"
    );
    assert!(!to.exists());
    assert!(!no_key(&archive).unwrap().with_key);
    let proved = verify(&*archive, place.path(), Some(&sealing)).unwrap();
    assert!(proved.with_key);

    restore(&*archive, &to, Some(&sealing), false, desk.clock.clone())
        .await
        .unwrap();
    assert_eq!(std::fs::read(to.join("ca.key")).unwrap(), key);
    crate::ca::DeviceCa::open(&to, crate::ca::CaKey::Rsa2048, 7300).unwrap();
    let refused = restore(&*archive, &to, Some(&sealing), false, desk.clock.clone()).await;
    assert!(
        matches!(refused, Err(BackupError::NotEmpty(_))),
        "{refused:?}"
    );
    let stays = place.path().join("stays");
    std::fs::create_dir(&stays).unwrap();
    let restored = restore(&*archive, &stays, Some(&sealing), true, desk.clock.clone()).await;
    assert!(!restored.unwrap().key_inside && !stays.join("seal.key").exists());
    let there: Vec<_> = std::fs::read_dir(place.path()).unwrap().collect();
    assert_eq!(there.len(), 3, "nothing is left of what was refused");
}

fn memfind(in_: &[u8], what: &[u8]) -> Option<usize> {
    in_.windows(what.len()).position(|window| window == what)
}

#[tokio::test]
async fn an_archive_changed_in_any_file_or_cut_anywhere_is_refused_and_nothing_is_there() {
    let desk = Desk::new();
    desk.keep_ca();
    let channel = desk.enroll("D").await.channel.no;
    desk.step(channel, 1).await;
    let (archive, _) = desk.archive(true).await;
    let place = tempfile::tempdir().unwrap();
    let to = place.path().join("data");
    no_key(&archive).unwrap();

    let whole = files(&archive);
    assert!(whole.len() >= 7, "{}", whole.len());
    no_key(&packed(&whole)).unwrap();
    for file in 0..whole.len() {
        let mut changed = whole.clone();
        let (name, bytes) = &mut changed[file];
        let name = name.clone();
        let at = bytes.len() * 2 / 3;
        bytes[at] ^= 1;
        let refused = no_key(&packed(&changed)).unwrap_err();
        let told = match name.as_str() {
            "manifest.json" | "manifest.mac" => true,
            name => refused.to_string().contains(name),
        };
        assert!(told, "{name}: {refused}");
        changed.remove(file);
        assert!(no_key(&packed(&changed)).is_err(), "without {name}");
    }
    let mut more = whole.clone();
    more.push(("segments/0000000009.seg".into(), vec![1]));
    assert!(no_key(&packed(&more)).is_err());
    for name in ["../escape", "/etc/x", "segments/../../x.seg", "other"] {
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        let mut tar = tar::Builder::new(Vec::new());
        tar.append(&header, io::empty()).unwrap();
        let archive = ended(&tar.into_inner().unwrap());
        assert!(no_key(&archive).is_err(), "{name}");
    }

    for seed in 0..60 {
        let mut changed = archive.clone();
        let at = mix(seed, 1) as usize % changed.len();
        changed[at] ^= 1 << (seed % 8);
        let refused = restore(&*changed, &to, None, false, desk.clock.clone()).await;
        assert!(refused.is_err(), "bit {} of byte {at}", seed % 8);
        let cut = &archive[..mix(seed, 2) as usize % archive.len()];
        let refused = restore(cut, &to, None, false, desk.clock.clone()).await;
        assert!(refused.is_err(), "{} bytes", cut.len());
    }
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn whoever_has_not_the_sealing_key_cannot_change_a_backup() {
    let desk = Desk::new();
    let (archive, _) = desk.archive(false).await;
    let mut changed = files(&archive);
    let at = changed
        .iter()
        .position(|(name, _)| name == "manifest.json")
        .unwrap();
    let text = String::from_utf8(changed[at].1.clone()).unwrap();
    changed[at].1 = text
        .replace("\"generation\": 0", "\"generation\": 7")
        .into();
    let changed = packed(&changed);
    let key = desk.directory.path().join("seal.key");
    let refused = verify(&*changed, &std::env::temp_dir(), Some(&key)).unwrap_err();
    assert!(matches!(refused, BackupError::Altered), "{refused}");
}

#[tokio::test]
async fn a_restored_store_expires_nothing_of_itself_and_repeats_nothing_that_destroys() {
    let desk = Desk::new();
    let channel = desk.enroll("D").await.channel.no;
    desk.enqueue("waits", &[channel]).await.unwrap();
    let erase = NewCommand {
        destructive: true,
        ..desk.command("erase", &[channel])
    };
    desk.store.enqueue(erase).await.unwrap();
    let (archive, _) = desk.archive(true).await;
    let place = tempfile::tempdir().unwrap();
    let to = place.path().join("data");
    desk.clock.set(NOW.plus_seconds(3 * DAY));
    let restored = restore(&*archive, &to, None, false, desk.clock.clone()).await;
    assert_eq!(restored.unwrap().cancelled, 1);
    for start in 0..2 {
        let store = Store::open(options(&to), desk.clock.clone()).unwrap();
        assert!(store.fresh_from_backup());
        assert!(store.clock_doubt().unwrap().contains("backup"));
        assert_eq!(store.expiry_clock(), NOW);
        store.expire(store.expiry_clock()).await.unwrap();
        assert_eq!(
            open(&store, channel),
            [(1, State::Released)],
            "start {start}"
        );
        assert_eq!(count(&store, 2, State::Cancelled), 1);
        assert_eq!(store.last_backup().unwrap(), Some(NOW));
        // What the device did since, on its own account or of a command not in the backup.
        let stray = report(&store, channel, "later", Status::Acknowledged, b"x").await;
        assert_eq!(stray, Effect::Stray);
        store.close();
        drop(store);
    }
    let store = Store::open(options(&to), desk.clock.clone()).unwrap();
    let late = report(&store, channel, "erase", Status::Acknowledged, b"x").await;
    assert_eq!(
        late,
        Effect::Counted {
            seq: Seq(2),
            late: true
        }
    );
    store.confirm_clock().await.unwrap();
    assert!(!store.fresh_from_backup() && store.clock_doubt().is_none());
    let generation = store.restored().unwrap().unwrap().generation;
    store.expire(store.expiry_clock()).await.unwrap();
    assert_eq!(open(&store, channel), []);
    store.close();
    drop(store);
    let store = Store::open(options(&to), desk.clock.clone()).unwrap();
    assert!(store.clock_doubt().is_none());
    assert_eq!(generation, 1);
    let mut again = Vec::new();
    let backup = store.backup().await.unwrap();
    assert_eq!(backup.write(&mut again, false).unwrap().generation, 1);
}

#[tokio::test]
async fn segments_outlive_the_backup_that_reads_them() {
    let desk = Desk::new();
    let channel = desk.enroll("D").await.channel.no;
    desk.step(channel, 1).await;
    let Desk {
        store,
        clock,
        directory,
    } = desk;
    store.close();
    drop(store);
    // From here on another segment is written.
    let again = Store::open(options(directory.path()), clock.clone()).unwrap();
    let backup = again.backup().await.unwrap();
    clock.set(NOW.plus_seconds(400 * DAY));
    let first = directory.path().join("segments/0000000000.seg");
    while again.retain(clock.now()).await.unwrap() > 0 {}
    assert!(first.exists());
    let mut archive = Vec::new();
    backup.write(&mut archive, false).unwrap();
    no_key(&archive).unwrap();
    again.retain(clock.now()).await.unwrap();
    assert!(!first.exists());
}

#[tokio::test]
async fn compaction_gives_room_back_and_changes_nothing_and_a_store_in_use_is_left_alone() {
    let desk = Desk::new();
    let channel = desk.enroll("D").await.channel.no;
    let uuids: Vec<_> = (0..2000).map(|number| format!("c{number}")).collect();
    let targets = [channel];
    let queued = uuids.iter().map(|uuid| desk.enqueue(uuid, &targets));
    futures_util::future::join_all(queued).await;
    let directory = desk.directory.path();
    assert_eq!(compact(directory), Err(StoreError::InUse));
    let waiting = open(&desk.store, channel);
    let Desk {
        store,
        clock,
        directory,
    } = desk;
    store.close();
    drop(store);
    let done = compact(directory.path()).unwrap();
    assert!(done.after < done.before, "{done:?}");
    let store = Store::open(options(directory.path()), clock).unwrap();
    assert_eq!(open(&store, channel), waiting);
}

/// Prints how long writes wait, without a backup and with one: the figure that counts is
/// `REVEILLE_BACKUP_MB=1024 cargo test --release -p actors write_stall -- --nocapture`.
#[tokio::test]
async fn the_write_stall_of_a_backup_is_measured() {
    let megabytes = std::env::var("REVEILLE_BACKUP_MB");
    let megabytes: usize = megabytes.map_or(4, |text| text.parse().unwrap());
    let desk = Desk::new();
    let channel = desk.enroll("D").await.channel.no;
    let file = desk.directory.path().join("reveille.redb");
    let length = || std::fs::metadata(&file).unwrap().len();
    // Half in the database, half in segments.
    let mut number = 0;
    while length() < (megabytes as u64) << 19 {
        let tickets = (0..200).map(|_| {
            number += 1;
            let sealed = desk.store.seal_command("x", &noise(number, 8000)).unwrap();
            let command = NewCommand {
                sealed,
                ..desk.command(&format!("fill{number}"), &[channel])
            };
            desk.store.enqueue(command)
        });
        futures_util::future::join_all(tickets).await;
        report(
            &desk.store,
            channel,
            &format!("fill{number}"),
            Status::Acknowledged,
            &noise(number, 1_600_000),
        )
        .await;
    }
    let numbers = AtomicUsize::new(0);
    let body = noise(1, 6000);
    let one = async |more: &dyn Fn(usize) -> bool| {
        let mut waits = Vec::new();
        while more(waits.len()) {
            let number = numbers.fetch_add(1, Ordering::Relaxed);
            let uuid = format!("c{number}");
            let command = desk.command(&uuid, &[channel]);
            let began = Instant::now();
            desk.store.enqueue(command).await.unwrap();
            waits.push(began.elapsed());
            let began = Instant::now();
            report(&desk.store, channel, &uuid, Status::Acknowledged, &body).await;
            waits.push(began.elapsed());
        }
        waits
    };
    let measure = async |more: &dyn Fn(usize) -> bool| {
        let writers = (0..WRITERS).map(|_| one(more));
        let mut waits = futures_util::future::join_all(writers).await.concat();
        waits.sort_unstable();
        waits
    };
    let figure = |waits: &[Duration], share: f64| {
        let at = (waits.len() as f64 * share) as usize;
        waits[at.min(waits.len() - 1)].as_secs_f64() * 1000.0
    };
    let without = measure(&|n| n < 100).await;
    let before = length();
    let backup = desk.store.backup().await.unwrap();
    let began = Instant::now();
    let into = desk.directory.path().join("out");
    let written = tokio::task::spawn_blocking(move || {
        let sink = Steady::of(std::fs::File::create(into).unwrap());
        backup.write(sink, false).unwrap()
    });
    let with = measure(&|n| n < 20 || !written.is_finished()).await;
    let took = began.elapsed();
    let manifest = written.await.unwrap();
    println!(
        "backup of {} MB in {:.1} s; a write waits, in ms: without p50 {:.2} p99 {:.2} max {:.2}, \
         with p50 {:.2} p99 {:.2} max {:.2} ({} writes); the database grew by {} kB",
        manifest.bytes() >> 20,
        took.as_secs_f64(),
        figure(&without, 0.5),
        figure(&without, 0.99),
        figure(&without, 1.0),
        figure(&with, 0.5),
        figure(&with, 0.99),
        figure(&with, 1.0),
        with.len(),
        (length() - before) >> 10
    );
    // In a debug build on a busy machine: only that nothing stands still.
    assert!(figure(&with, 0.99) < 2000.0);
}
