//! A CA that refuses, is away or is not trusted: what is served, told and waited meanwhile.

use std::path::PathBuf;

use reveille::Config;
use serde_json::Value;
use sim::Proof;

use super::ca::Ca;
use super::{DAY, Pair};
use crate::doctor::{details, doctor};
use crate::tls::until;

#[actix_web::test]
async fn a_certificate_that_is_due_when_it_comes_is_served_and_not_ordered_again_and_again() {
    let short = |ca: &Ca| ca.state().lifetime = 60;
    let pair = Pair::start(short, |_| {}).await;
    pair.lead();
    pair.until_issued(None).await;
    pair.until_told("is due already").await;
    pair.leaves_the_ca_alone().await;
    assert_eq!(pair.ca.orders(), 1);
}

#[actix_web::test]
async fn a_refused_validation_is_told_and_waited_over_through_a_restart() {
    let pair = Pair::start(|ca| ca.state().distrustful = true, |_| {}).await;
    pair.lead();
    let told = pair.until_told("unauthorized").await;
    let why = "localhost is not proved to be ours: the CA says \
               urn:ietf:params:acme:error:unauthorized: the certificate does not convince me";
    assert!(told.ends_with(why), "{told}");
    assert!(pair.leaf().await.is_none());
    pair.leaves_the_ca_alone().await;
    let pair = pair.restarted(|_| {}).await;
    pair.until_told("unauthorized").await;
    pair.leaves_the_ca_alone().await;
    assert_eq!(pair.ca.orders(), 1, "a start is no reason to ask again");

    // A minute, and up to a quarter of it; then five.
    pair.pass(75);
    until(async || pair.ca.orders() == 2).await;
    until(async || !pair.warnings().await[0].contains("cut off")).await;
    pair.pass(75);
    pair.leaves_the_ca_alone().await;

    pair.ca.state().distrustful = false;
    pair.house.running.reload_certificates();
    pair.until_issued(None).await;
    assert_eq!(pair.ca.orders(), 3, "whoever set it right need not wait");
    until(async || pair.warnings().await.is_empty()).await;
    assert!(!pair.house.data().join("acme-attempts.json").exists());
}

#[actix_web::test]
async fn a_server_that_ends_in_the_middle_of_an_order_waits_before_the_next() {
    // The CA looks where nothing leads: the order is under way until the server ends.
    let pair = Pair::start(|_| {}, |_| {}).await;
    until(async || pair.ca.orders() == 1).await;
    let pair = pair.restarted(|_| {}).await;
    pair.until_told("cut off in the middle").await;
    pair.leaves_the_ca_alone().await;
    assert_eq!(pair.ca.orders(), 1);
    pair.pass(75);
    pair.until_issued(None).await;
    assert_eq!(pair.ca.orders(), 2);
}

#[actix_web::test]
async fn what_the_ca_asks_to_wait_is_waited_even_by_who_is_in_a_hurry() {
    let pair = Pair::start(|ca| ca.state().limited = Some(7200), |_| {}).await;
    pair.lead();
    let told = pair.until_told("rateLimited").await;
    assert!(
        told.contains("too many certificates for this name"),
        "{told}"
    );
    pair.ca.state().limited = None;
    pair.pass(7000);
    pair.house.running.reload_certificates();
    pair.leaves_the_ca_alone().await;
    assert_eq!(pair.ca.orders(), 1);
    pair.pass(200);
    pair.until_issued(None).await;
    assert_eq!(pair.ca.orders(), 2);
}

#[actix_web::test]
async fn an_old_certificate_is_served_on_while_the_ca_cannot_be_reached() {
    let mut pair = Pair::settled().await;
    let first = pair.leaf().await.unwrap();
    pair.ca.leave().await;
    pair.pass(61 * DAY);
    let told = pair.until_told("cannot be asked").await;
    assert!(told.contains(&pair.ca.directory()), "{told}");
    assert_eq!(pair.leaf().await.unwrap(), first);
    pair.house.enrolled(Proof::Tls).await;

    let mut pair = pair.restarted(|_| {}).await;
    assert_eq!(pair.leaf().await.unwrap(), first);
    pair.until_told("cannot be asked").await;
    pair.ca.come_back();
    pair.pass(3600);
    pair.until_issued(Some(&first)).await;
    until(async || pair.warnings().await.is_empty()).await;
}

#[actix_web::test]
async fn an_account_the_ca_knows_no_more_is_made_anew() {
    let pair = Pair::settled().await;
    let first = pair.leaf().await.unwrap();
    pair.ca.forget_accounts();
    pair.pass(61 * DAY);
    pair.until_told("accountDoesNotExist").await;
    pair.pass(75);
    pair.until_issued(Some(&first)).await;
    assert_eq!(pair.ca.state().accounts.len(), 2);
}

#[actix_web::test]
async fn a_directory_whose_root_nobody_named_is_not_trusted_and_profiles_carry_none() {
    let unnamed = |config: &mut Config| config.device.acme_root_file = PathBuf::new();
    let pair = Pair::start(|_| {}, unnamed).await;
    assert!(pair.house.running.app.tls_root_pem.is_none());
    until(async || {
        let told = pair.warnings().await;
        !told[0].contains("asked yet")
    })
    .await;
    assert_eq!(pair.ca.state().accounts.len(), 0);
}

#[actix_web::test]
async fn doctor_tells_how_it_stands_with_the_certificate() {
    let pair = Pair::start(|ca| ca.state().distrustful = true, |_| {}).await;
    let Pair {
        house, ca, _files, ..
    } = pair;
    let directory = house.data().parent().unwrap().to_owned();
    let device = &house.running.app.config.device;
    let text = format!(
        "[device]\nlisten = \"127.0.0.1:0\"\ntls = \"acme\"\nacme_agree_tos = true\n\
         public_url = \"https://mdm.example.org\"\nacme_directory = \"{}\"\n\
         acme_root_file = \"{}\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [store]\npath = \"{}\"\nreserve_mb = 0\n",
        ca.directory(),
        device.acme_root_file.display(),
        house.data().display()
    );
    std::fs::write(directory.join("doctor.toml"), text).unwrap();
    let named = |config: &mut Config| config.device.public_url = "https://mdm.example.org".into();
    let before = doctor(&directory).await.1;
    assert_eq!(found(&before, "ok"), ["ordered when the server runs"]);

    let house = house.stopped().await.start(named).await;
    let house = house.unwrap_or_else(|(_, error)| panic!("{error:#}"));
    ca.lead("mdm.example.org", house.running.device.port());
    until(async || found(&doctor(&directory).await.1, "fail").len() == 1).await;
    until(async || found(&doctor(&directory).await.1, "fail")[0].contains("unauthorized")).await;

    ca.state().distrustful = false;
    house.running.reload_certificates();
    until(async || !found(&doctor(&directory).await.1, "ok").is_empty()).await;
    let after = doctor(&directory).await.1;
    assert_eq!(found(&after, "ok"), ["the certificate expires in 89 days"]);
}

fn found(report: &Value, outcome: &str) -> Vec<String> {
    details(report, "ACME certificate", outcome)
}
