//! `commands send --wait`: follows a command until every device is done with it.
//!
//! Asks at a pace that slows down to a bound, and outlives a restart of the server.

use std::time::Duration;

use anyhow::bail;
use indicatif::{ProgressBar, ProgressStyle};
use schema::queue::State;
use serde_json::Value;
use tokio::time::sleep;

use super::commands::{counts, show};
use super::output::Format;
use crate::admin_client::{AdminClient, ClientError};

/// Waits, then prints how it ended. `rejected` targets count as failed.
///
/// # Errors
/// When a device did not do it, or the server stays away.
pub(super) async fn until_done(
    client: &AdminClient,
    uuid: &str,
    rejected: usize,
    format: Format,
) -> anyhow::Result<()> {
    let bar = bar();
    let mut pace = Pace::default();
    let standing = loop {
        match client.get(&["commands", uuid]).await {
            Ok(standing) => {
                pace.misses = 0;
                let tally = Tally::of(&standing);
                bar.set_length(tally.targets);
                bar.set_position(tally.closed);
                bar.set_message(tally.words);
                if tally.closed >= tally.targets {
                    break standing;
                }
            }
            Err(error) => pace.missed(error)?,
        }
        sleep(pace.next()).await;
    };
    bar.finish_and_clear();
    show(&standing, format)?;
    let tally = Tally::of(&standing);
    let rejected = u64::try_from(rejected).unwrap_or(u64::MAX);
    let failed = tally.failed.saturating_add(rejected);
    if failed > 0 {
        let all = tally.targets.saturating_add(rejected);
        bail!("{failed} of {all} targets did not do it");
    }
    Ok(())
}

/// How far it got.
struct Tally {
    targets: u64,
    closed: u64,
    failed: u64,
    words: String,
}

impl Tally {
    fn of(standing: &Value) -> Self {
        let (mut closed, mut failed) = (0, 0);
        let mut words = Vec::new();
        for (name, count) in counts(standing) {
            words.push(format!("{count} {name}"));
            let open = State::ALL
                .iter()
                .any(|state| state.name() == name && state.is_open());
            if !open {
                closed += count;
            }
            if !open && name != State::Acknowledged.name() {
                failed += count;
            }
        }
        let targets = standing.pointer("/targets").and_then(Value::as_u64);
        Self {
            targets: targets.unwrap_or(closed),
            closed,
            failed,
            words: words.join(", "),
        }
    }
}

/// When to ask again.
struct Pace {
    pause: Duration,
    misses: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            pause: Duration::from_millis(200),
            misses: 0,
        }
    }
}

impl Pace {
    fn next(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 3 / 2).min(SLOWEST);
        pause
    }

    /// Bears with a server that is away for a while.
    fn missed(&mut self, error: ClientError) -> Result<(), ClientError> {
        self.misses += 1;
        if self.misses > PATIENCE || !error.passes() {
            return Err(error);
        }
        self.pause = SLOWEST;
        Ok(())
    }
}

fn bar() -> ProgressBar {
    let template = "{bar:32} {pos}/{len} {msg} {elapsed}";
    let style = ProgressStyle::with_template(template);
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// The longest pause between two questions.
const SLOWEST: Duration = Duration::from_secs(2);
/// Questions in a row that may stay without an answer.
const PATIENCE: u32 = 60;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn all_that_ended_counts_and_all_but_acknowledged_failed() {
        let standing = json!({"targets": 10, "counts": {
            "sent": 1, "not_now": 1, "acknowledged": 3, "error": 1, "format_error": 1,
            "rejected": 1, "expired": 1, "cancelled": 1}});
        let tally = Tally::of(&standing);
        assert_eq!((tally.targets, tally.closed, tally.failed), (10, 8, 5));
    }

    #[test]
    fn the_pace_slows_down_to_its_bound() {
        let mut pace = Pace::default();
        let pauses: Vec<_> = std::iter::repeat_with(|| pace.next()).take(10).collect();
        assert!(pauses.is_sorted());
        assert_eq!(pauses.last(), Some(&SLOWEST));
    }
}
