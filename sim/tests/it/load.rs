//! The load generator against the toy server.

use std::path::Path;

use clap::Parser;
use sim::{LoadOptions, LoadReport, load};

use crate::toy_server::ToyServer;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    options: LoadOptions,
}

async fn run(server: &ToyServer, ca: &Path, arguments: &[&str]) -> anyhow::Result<LoadReport> {
    let ca = ca.to_str().unwrap();
    let fixed = ["load", "--url", &server.url, "--ca", ca];
    let cli = Cli::parse_from(fixed.iter().chain(arguments));
    load::run(cli.options).await
}

#[tokio::test]
async fn idle_counts_requests_and_reads_the_metrics() {
    let (server, ca) = (ToyServer::start().await, tempfile::tempdir().unwrap());
    let arguments = [
        "idle",
        "--devices",
        "5",
        "--in-flight",
        "3",
        "--count",
        "100",
        "--warm-up",
        "0s",
        "--admin-url",
        &server.url,
    ];
    let report = run(&server, ca.path(), &arguments).await.unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.requests, 100);
    assert!(report.server.is_some());
    assert!(ca.path().join("ca.pem").exists());
}

#[tokio::test]
async fn a_rate_is_kept() {
    let (server, ca) = (ToyServer::start().await, tempfile::tempdir().unwrap());
    let arguments = [
        "idle",
        "--devices",
        "5",
        "--rate",
        "200",
        "--duration",
        "500ms",
        "--warm-up",
        "0s",
    ];
    let report = run(&server, ca.path(), &arguments).await.unwrap();
    assert_eq!(report.requests, 100);
    assert!((0.4..2.0).contains(&report.seconds), "{report}");
}

#[tokio::test]
async fn cycle_proves_exactly_once() {
    let (server, ca) = (ToyServer::start().await, tempfile::tempdir().unwrap());
    let arguments = [
        "cycle",
        "--devices",
        "40",
        "--in-flight",
        "8",
        "--count",
        "205",
        "--admin-url",
        &server.url,
    ];
    let report = run(&server, ca.path(), &arguments).await.unwrap();
    assert!(report.is_clean(), "{report}");
    let exact = report.exactness.unwrap();
    assert_eq!((exact.queued, exact.exactly_once), (205, 205));
    assert_eq!(report.requests, 410);
}

#[tokio::test]
async fn cycle_notices_a_command_handed_out_twice() {
    let (server, ca) = (ToyServer::start().await, tempfile::tempdir().unwrap());
    server.state.lock().unwrap().forget_every = 10;
    let arguments = [
        "cycle",
        "--devices",
        "40",
        "--in-flight",
        "8",
        "--count",
        "40",
        "--admin-url",
        &server.url,
    ];
    let report = run(&server, ca.path(), &arguments).await.unwrap();
    let exact = report.exactness.unwrap();
    assert!(!report.is_clean());
    assert_eq!((exact.exactly_once, exact.repeated), (36, 4));
}

#[tokio::test]
async fn cycle_repeats_what_a_503_refused() {
    let (server, ca) = (ToyServer::start().await, tempfile::tempdir().unwrap());
    server.state.lock().unwrap().refuse_results = 3;
    let arguments = [
        "cycle",
        "--devices",
        "10",
        "--count",
        "10",
        "--admin-url",
        &server.url,
    ];
    let report = run(&server, ca.path(), &arguments).await.unwrap();
    assert_eq!(report.errors["status 503"], 3);
    assert!(report.exactness.unwrap().is_exact());
}

#[tokio::test]
async fn enroll_enrolls_everyone() {
    let (server, ca) = (ToyServer::start().await, tempfile::tempdir().unwrap());
    let arguments = ["enroll", "--devices", "20", "--proof", "signature"];
    let report = run(&server, ca.path(), &arguments).await.unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.requests, 40);
    assert_eq!(server.state.lock().unwrap().check_ins.len(), 20);
}

#[tokio::test]
async fn the_world_is_left_alone() {
    let (server, ca) = (ToyServer::start().await, tempfile::tempdir().unwrap());
    for arguments in [
        ["idle", "--url", "http://mdm.example.com"],
        ["idle", "--admin-url", "http://10.1.2.3"],
    ] {
        let fixed = ["load", "--ca", ca.path().to_str().unwrap()];
        let cli = Cli::parse_from(fixed.iter().chain(&arguments));
        let refused = load::run(cli.options).await.unwrap_err().to_string();
        assert!(refused.contains("loopback only"), "{refused}");
    }
    assert!(server.state.lock().unwrap().check_ins.is_empty());
}
