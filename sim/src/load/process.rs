//! What a process has used, from its own counters: `/proc/<pid>` where there
//! is one, the server's `/metrics` where not.

use std::fs;

use crate::load::admin::Admin;

/// Where the server's counters are read.
pub(super) enum Gauge {
    /// `/proc/<pid>`.
    Process(u32),
    /// `{admin_url}/metrics`.
    Metrics(Admin),
    /// Nowhere.
    Absent,
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    pub(super) cpu_seconds: f64,
    pub(super) rss_bytes: u64,
}

impl Gauge {
    /// Reads the counters; `None` where they cannot be read.
    pub(super) async fn read(&self) -> Option<Usage> {
        match self {
            Self::Process(pid) => of_process(&pid.to_string()),
            Self::Metrics(admin) => {
                let text = admin.metrics().await.ok()?;
                Some(Usage {
                    cpu_seconds: metric(&text, "process_cpu_seconds_total")?,
                    rss_bytes: metric(&text, "process_resident_memory_bytes").unwrap_or(0.0) as u64,
                })
            }
            Self::Absent => None,
        }
    }
}

/// What this process has used.
pub(super) fn own() -> Usage {
    of_process("self").unwrap_or_default()
}

fn of_process(pid: &str) -> Option<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(Usage {
        cpu_seconds: cpu_ticks(&stat)? as f64 / TICKS_PER_SECOND,
        rss_bytes: resident_kib(&status).unwrap_or(0) * 1024,
    })
}

/// utime + stime: fields 14 and 15; field 2 may itself contain blanks.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn resident_kib(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

fn metric(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| {
        let (key, value) = line.rsplit_once(' ')?;
        let bare = key.split('{').next()?;
        // An OpenMetrics writer may add `_total` to a name that has it.
        (bare.trim_end_matches("_total") == name.trim_end_matches("_total"))
            .then(|| value.parse().ok())?
    })
}

/// USER_HZ is 100 on every Linux there is.
const TICKS_PER_SECOND: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_any_name() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 0 0 0 123 77 0 0 20 0 1";
        assert_eq!(cpu_ticks(stat), Some(200));
    }

    #[test]
    fn a_metric_is_read_with_and_without_labels() {
        let text = "# TYPE x counter\nprocess_cpu_seconds_total 12.5\nrss{a=\"b\"} 7\n";
        assert_eq!(metric(text, "process_cpu_seconds_total"), Some(12.5));
        assert_eq!(metric(text, "rss"), Some(7.0));
        assert_eq!(metric(text, "none"), None);
    }

    #[test]
    fn this_process_has_used_something() {
        assert!(own().rss_bytes > 100_000);
    }
}
