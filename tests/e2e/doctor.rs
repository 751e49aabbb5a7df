//! `reveille doctor` beside a server that runs, and on what it left behind.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use reveille::config::AdminTls;
use serde_json::Value;
use sim::Proof;

use crate::house::House;
use crate::tls::CertificateFiles;

/// Exit code and findings.
pub(crate) async fn doctor(directory: &Path) -> (i32, Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reveille"));
    command
        .args(["--config", "doctor.toml", "doctor", "--json"])
        .current_dir(directory);
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output.await.unwrap().unwrap();
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), report)
}

/// The details of a check with an outcome.
pub(crate) fn details(report: &Value, check: &str, outcome: &str) -> Vec<String> {
    let checks = report["checks"].as_array().unwrap().iter();
    checks
        .filter(|finding| finding["check"] == check && finding["outcome"] == outcome)
        .map(|finding| finding["detail"].as_str().unwrap().to_owned())
        .collect()
}

fn configuration(house: &House) -> String {
    format!(
        "[device]\nlisten = \"{}\"\n[admin]\nlisten = \"{}\"\n\
         [store]\npath = \"{}\"\nreserve_mb = 0\n",
        house.running.device,
        house.running.admin,
        house.running.app.config.store.path.display()
    )
}

/// Until the last actors let go of the store.
async fn until_closed(directory: &Path) -> (i32, Value) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let (code, report) = doctor(directory).await;
        let in_use = details(&report, "store", "ok")
            .iter()
            .any(|d| d.contains("in use"));
        if !in_use {
            return (code, report);
        }
        assert!(Instant::now() < deadline, "{report}");
    }
}

#[actix_web::test]
async fn a_sound_house_passes_running_and_stopped_and_each_fault_is_found() {
    let house = House::start().await;
    let data = house.running.app.config.store.path.clone();
    let directory = data.parent().unwrap().to_owned();
    std::fs::write(directory.join("doctor.toml"), configuration(&house)).unwrap();

    let (code, report) = doctor(&directory).await;
    assert_eq!((code, &report["ok"]), (0, &Value::Bool(true)), "{report}");
    assert_eq!(details(&report, "server", "ok"), ["is running and ready"]);
    for port in ["device.listen", "admin.listen"] {
        let found = details(&report, port, "ok");
        assert!(found[0].ends_with("in use by the server"), "{report}");
    }

    house.running.stop().await;
    let (code, report) = until_closed(&directory).await;
    assert_eq!(code, 0, "{report}");
    assert!(details(&report, "sealing key", "ok")[0].contains("opens what the store holds"));
    assert!(details(&report, "push certificate", "ok")[0].contains("com.apple.mgmt."));
    assert!(details(&report, "admin.listen", "ok")[0].ends_with("is free"));

    let key = data.join("seal.key");
    let right = std::fs::read(&key).unwrap();
    std::fs::write(&key, [1; 32]).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (code, report) = doctor(&directory).await;
    assert_eq!((code, &report["ok"]), (1, &Value::Bool(false)), "{report}");
    assert_eq!(details(&report, "sealing key", "fail").len(), 1, "{report}");
    assert_eq!(
        details(&report, "data directory", "fail").len(),
        1,
        "{report}"
    );
    std::fs::write(&key, right).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(doctor(&directory).await.0, 0);

    std::fs::write(directory.join("doctor.toml"), "[store]\ncolour = 1\n").unwrap();
    let (code, report) = doctor(&directory).await;
    assert_eq!(code, 1);
    assert!(
        details(&report, "configuration", "fail")[0].contains("colour"),
        "{report}"
    );
}

#[actix_web::test]
async fn a_server_is_asked_over_tls_when_its_admin_listener_speaks_it() {
    let directory = tempfile::tempdir().unwrap();
    let files = CertificateFiles::in_(directory.path());
    files.renew();
    let house = House::bare(|config| {
        config.admin.tls = AdminTls::Files;
        config.admin.cert_file = files.certificate();
        config.admin.key_file = files.key();
    })
    .await;
    let with_tls = format!(
        "[admin]\ntls = \"files\"\ncert_file = \"{}\"\nkey_file = \"{}\"\n",
        files.certificate().display(),
        files.key().display()
    );
    let text = configuration(&house).replacen("[admin]\n", &with_tls, 1);
    std::fs::write(directory.path().join("doctor.toml"), text).unwrap();
    let (code, report) = doctor(directory.path()).await;
    assert_eq!(code, 0, "{report}");
    let found = details(&report, "server", "ok");
    assert_eq!(found, ["is running and ready"]);
}

#[actix_web::test]
async fn a_clock_behind_the_journal_is_found() {
    // The house lives in the future of the machine this runs on, or long in its past.
    let house = House::start().await;
    let data = house.running.app.config.store.path.clone();
    let directory = data.parent().unwrap().to_owned();
    std::fs::write(directory.join("doctor.toml"), configuration(&house)).unwrap();
    let future = schema::UnixMillis(4_000_000_000_000);
    house.clock.set(future);
    house.enrolled(Proof::Header).await;
    house.running.stop().await;
    let (code, report) = until_closed(&directory).await;
    assert_eq!(code, 1, "{report}");
    assert_eq!(details(&report, "clock", "fail").len(), 1, "{report}");
}
