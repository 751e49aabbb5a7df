//! Looks at every device of the demo from both ends; says what is not exactly right.

use futures_util::{StreamExt as _, stream};
use sim::{Channel, Entry, Fleet, Status};

use super::stage::{Stage, bar};

/// A line per device that was not served exactly right.
pub(super) async fn wrong(stage: &Stage, fleet: &Fleet, uuid: &str, chaos: bool) -> Vec<String> {
    let bar = bar("checking", fleet.devices().len() as u64);
    let checks = stream::iter(0..fleet.devices().len()).map(|n| {
        let bar = bar.clone();
        async move {
            let right = right(stage, fleet, n, uuid, chaos).await;
            bar.inc(1);
            let id = fleet.device(n).enroll_id(Channel::Device);
            right.err().map(|why| format!("{id}: {why:#}"))
        }
    });
    let wrong = checks.buffer_unordered(16);
    let wrong: Vec<_> = wrong.filter_map(async |wrong| wrong).collect().await;
    bar.finish_and_clear();
    wrong
}

async fn right(
    stage: &Stage,
    fleet: &Fleet,
    n: usize,
    uuid: &str,
    chaos: bool,
) -> anyhow::Result<()> {
    let device = fleet.device(n);
    let ledger = fleet.ledger(n, Channel::Device);
    let entry = ledger.commands.get(uuid).cloned().unwrap_or_default();
    seen_by_the_device(&entry, chaos)?;

    let id = device.enroll_id(Channel::Device);
    let items = stage
        .admin
        .list(&["devices", &id, "commands"], &[], 10)
        .await?;
    let states: Vec<_> = items
        .iter()
        .filter(|item| item["command_uuid"] == uuid)
        .map(|item| item["state"].as_str().unwrap_or_default())
        .collect();
    let reported = match entry.status {
        Some(Status::Error) => "error",
        _ => "acknowledged",
    };
    anyhow::ensure!(
        states == [reported],
        "it reported {reported}, the server has {states:?}"
    );
    let path = ["devices", &id, "commands", uuid, "result"];
    let report = &stage.admin.get(&path).await?["report"];
    let own = match reported {
        "error" => report["Status"] == "Error",
        _ => report["QueryResponses"]["SerialNumber"] == device.serial.as_str(),
    };
    anyhow::ensure!(own, "the stored result is not its own");
    Ok(())
}

/// Without faults exactly once each; with faults at least once, by the same CommandUUID.
fn seen_by_the_device(entry: &Entry, chaos: bool) -> anyhow::Result<()> {
    let (out, sent, confirmed) = (entry.handed_out, entry.sent, entry.confirmed);
    let right = match chaos {
        true => out >= 1 && sent >= 1,
        false => (out, sent, confirmed) == (1, 1, 1),
    };
    anyhow::ensure!(
        right,
        "handed out {out} times, answered {sent} times, confirmed {confirmed} times"
    );
    Ok(())
}
