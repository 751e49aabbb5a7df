//! Work for all cores: certificates and signatures cost about a millisecond
//! each, so a large fleet makes them side by side, and shows how far it is.

use std::io::IsTerminal;
use std::thread;

use indicatif::{ProgressBar, ProgressStyle};

use crate::error::SimError;

/// `make(0..count)` on all cores, in order. Blocks. Shows a bar on a terminal
/// when there is much to make.
pub(crate) fn make_all<T: Send>(
    what: &'static str,
    count: usize,
    make: impl Fn(usize) -> Result<T, SimError> + Sync,
) -> Result<Vec<T>, SimError> {
    let bar = progress(what, count);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let share = count.div_ceil(threads).max(1);
    let (make, bar_ref) = (&make, &bar);
    let parts = thread::scope(|scope| {
        let workers: Vec<_> = (0..count)
            .step_by(share)
            .map(|start| {
                scope.spawn(move || {
                    (start..count.min(start + share))
                        .map(|n| {
                            bar_ref.inc(1);
                            make(n)
                        })
                        .collect::<Result<Vec<T>, SimError>>()
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| match worker.join() {
                Ok(part) => part,
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect::<Result<Vec<_>, _>>()
    })?;
    bar.finish_and_clear();
    Ok(parts.into_iter().flatten().collect())
}

/// A progress bar; hidden when short or not on a terminal.
pub(crate) fn progress(what: &'static str, count: usize) -> ProgressBar {
    if count < 2_000 || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(count as u64).with_message(what);
    let template = "{msg:<24} {wide_bar} {pos}/{len} {per_sec} eta {eta}";
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_made_in_order() {
        for count in [0, 1, 2, 3, 101] {
            let made = make_all("numbers", count, Ok).unwrap();
            assert_eq!(made, (0..count).collect::<Vec<_>>());
        }
    }
}
