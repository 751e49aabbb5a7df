//! A store that an older program wrote: what it holds is read and goes on.

use schema::access::AccessRights;
use schema::enrollment::EnrolledWith;
use schema::link::{IdentityKind, LinkId};
use serde::Serialize;

use super::*;
use crate::store::tables::{
    CERTIFICATE, CHALLENGE, COMMAND, GoodFor, LINK, LINK_BY_ID, META, SCHEMA_VERSION, encode,
};

/// The rows of schema version 3, field by field.
#[derive(Serialize)]
struct Link(
    LinkId,
    [u8; 32],
    [u8; 32],
    UnixMillis,
    UnixMillis,
    u32,
    u32,
    Vec<String>,
    Option<EnrollId>,
    Topic,
    bool,
    IdentityKind,
    Option<String>,
    EnrolledWith,
    bool,
    String,
);

#[derive(Serialize)]
#[expect(dead_code, reason = "postcard counts variants")]
enum LinkRow {
    V1,
    V2(Box<Link>),
}

#[derive(Serialize)]
enum ChallengeRow {
    V1(String, bool, Option<EnrollId>, UnixMillis, Option<Leaf>),
}

#[derive(Serialize)]
#[expect(dead_code, reason = "postcard counts variants")]
enum CertificateRow {
    V1,
    V2(
        Option<ChannelNo>,
        Option<EnrollId>,
        i64,
        String,
        Option<String>,
    ),
}

fn link() -> LinkRow {
    let offers = EnrolledWith {
        server_url: "https://mdm.example.org/mdm/connect".into(),
        check_in_url: "https://mdm.example.org/mdm/checkin".into(),
        profile_identifier: "p".into(),
        rights: Some(AccessRights::ALL),
        capabilities: Vec::new(),
        signer: None,
    };
    LinkRow::V2(Box::new(Link(
        LinkId("a".into()),
        [1; 32],
        [2; 32],
        NOW,
        NOW.plus_seconds(3600),
        7,
        0,
        vec!["loan".into()],
        Some(EnrollId::device("D").unwrap()),
        Topic("com.apple.mgmt.x".into()),
        true,
        IdentityKind::Pkcs12,
        Some("anne@example.org".into()),
        offers,
        false,
        "anne".into(),
    )))
}

/// Writes what a store of this version could hold, and closes it.
async fn written(directory: &std::path::Path, version: u32) {
    let store = Store::open(options(directory), Clock::manual(NOW)).unwrap();
    let hash = Store::challenge_hash(b"secret");
    let certificate = CertificateRow::V2(None, None, 5, "AB".into(), Some("a".into()));
    let expires = NOW.plus_seconds(60);
    let challenge = ChallengeRow::V1("a".into(), false, None, expires, None);
    let write = store.write(move |transaction| {
        let mut meta = transaction.open_table(META)?;
        meta.insert("schema", encode(&version)?.as_slice())?;
        transaction.open_table(LINK_BY_ID)?.insert("a", 1)?;
        let mut links = transaction.open_table(LINK)?;
        links.insert(1, encode(&link())?.as_slice())?;
        let mut challenges = transaction.open_table(CHALLENGE)?;
        challenges.insert(hash.as_slice(), encode(&challenge)?.as_slice())?;
        let mut certificates = transaction.open_table(CERTIFICATE)?;
        certificates.insert([9; 32].as_slice(), encode(&certificate)?.as_slice())?;
        Ok(Box::new(|_: &Published| {}))
    });
    write.await.unwrap();
    store.close();
}

#[tokio::test]
async fn what_a_store_of_version_3_holds_is_read_and_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    written(directory.path(), 3).await;
    let store = Store::open(options(directory.path()), Clock::manual(NOW)).unwrap();
    let link = store.link(&LinkId("a".into())).unwrap().unwrap();
    assert_eq!((link.max_uses, link.shared, link.ota), (7, true, false));
    assert_eq!(link.identity, IdentityKind::Pkcs12);
    assert_eq!(link.managed_apple_id.as_deref(), Some("anne@example.org"));
    assert_eq!(
        (&*link.principal, &*link.tags),
        ("anne", &["loan".to_owned()][..])
    );
    let record = store.certificate(Leaf([9; 32])).unwrap().unwrap();
    assert_eq!((record.not_after, record.link.as_deref()), (5, Some("a")));
    assert_eq!(record.good_for, GoodFor::ANY);

    let fresh = IssuedCertificate {
        request: [1; 32],
        leaf: Leaf([1; 32]),
        der: vec![1; 4],
        not_after: 5,
        serial: "AC".into(),
    };
    let hash = Store::challenge_hash(b"secret");
    let spent = store.spend_challenge(hash, fresh).await;
    assert_eq!(spent, Ok(Spent::Issued));
    assert_eq!(store.link(&link.id).unwrap().unwrap().uses, 1);
}

#[derive(Serialize)]
enum CommandRow {
    V1(
        (CommandUuid, String, Vec<u8>, Vec<u8>, u32, bool),
        (UnixMillis, UnixMillis, u8, bool, bool, String, String),
    ),
}

#[tokio::test]
async fn a_command_of_version_4_is_handed_out_as_it_was_meant() {
    let directory = tempfile::tempdir().unwrap();
    written(directory.path(), 4).await;
    let store = Store::open(options(directory.path()), Clock::manual(NOW)).unwrap();
    let sealed = store.seal_command("old", b"<plist/>").unwrap();
    let expires = NOW.plus_seconds(60);
    let row = CommandRow::V1(
        (
            CommandUuid::parse("old").unwrap(),
            "EraseDevice".into(),
            sealed,
            Vec::new(),
            1,
            false,
        ),
        (NOW, expires, 7, false, true, "anne".into(), "stolen".into()),
    );
    let write = store.write(move |transaction| {
        let mut commands = transaction.open_table(COMMAND)?;
        commands.insert(1, encode(&row)?.as_slice())?;
        Ok(Box::new(|_: &Published| {}))
    });
    write.await.unwrap();
    let command = store.command_bytes(Seq(1)).unwrap().unwrap();
    assert_eq!(
        (command.uuid.as_str(), &*command.plist),
        ("old", &b"<plist/>"[..])
    );
    assert!(command.destructive && command.forced);
    let summary = store.command(Seq(1)).unwrap().unwrap().command;
    assert_eq!((summary.rank, &*summary.reason), (7, "stolen"));
}

#[tokio::test]
async fn a_store_of_a_newer_program_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    written(directory.path(), SCHEMA_VERSION + 1).await;
    let refused = Store::open(options(directory.path()), Clock::manual(NOW));
    let (found, known) = (SCHEMA_VERSION + 1, SCHEMA_VERSION);
    assert_eq!(refused.unwrap_err(), StoreError::Newer { found, known });
}
