//! What is counted, in Prometheus text format, prefix `reveille_`.
//!
//! The doors count as they go; what the floors below count is read at each scrape.

use std::fs;
use std::sync::atomic::Ordering;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use schema::report::Status;

use crate::app::App;

/// The counters of the doors.
#[derive(Debug, Default)]
pub struct Metrics {
    device: Family<DeviceLabels, Counter>,
    checkins: Family<MessageLabels, Counter>,
    idle: Counter,
    reports: Family<StatusLabels, Counter>,
    handed_out: Counter,
    unreadable: Counter,
    admin: Family<AdminLabels, Counter>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DeviceLabels {
    route: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct MessageLabels {
    message: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StatusLabels {
    status: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AdminLabels {
    status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CertificateLabels {
    kind: &'static str,
    name: String,
}

impl Metrics {
    /// A device request ended.
    pub fn device(&self, route: &'static str, outcome: &'static str) {
        self.device
            .get_or_create(&DeviceLabels { route, outcome })
            .inc();
    }

    /// A check-in was read.
    pub fn checkin(&self, message: &'static str) {
        self.checkins
            .get_or_create(&MessageLabels { message })
            .inc();
    }

    /// A report was read.
    pub fn report(&self, status: Status) {
        match status {
            Status::Idle => self.idle.inc(),
            other => {
                let status = other.name();
                self.reports.get_or_create(&StatusLabels { status }).inc()
            }
        };
    }

    /// A command went out.
    pub fn handed_out(&self) {
        self.handed_out.inc();
    }

    /// A report could not be read and was kept all the same.
    pub fn unreadable_report(&self) {
        self.unreadable.inc();
    }

    /// An admin request ended.
    pub fn admin(&self, status: u16) {
        self.admin.get_or_create(&AdminLabels { status }).inc();
    }

    /// Everything in text format.
    ///
    /// # Errors
    /// None in practice: writing to a string.
    pub fn render(app: &App) -> Result<String, std::fmt::Error> {
        let mut registry = Registry::with_prefix("reveille");
        let doors = &app.metrics;
        registry.register(
            "device_requests",
            "Device requests by route and outcome",
            doors.device.clone(),
        );
        registry.register(
            "checkins",
            "Check-ins read, by message",
            doors.checkins.clone(),
        );
        registry.register("polls", "Idle polls read", doors.idle.clone());
        registry.register("reports", "Reports read, by status", doors.reports.clone());
        registry.register(
            "commands_handed_out",
            "Commands given to devices",
            doors.handed_out.clone(),
        );
        registry.register(
            "unreadable_reports",
            "Reports kept unread",
            doors.unreadable.clone(),
        );
        registry.register(
            "admin_requests",
            "Admin requests by status",
            doors.admin.clone(),
        );
        floors(&mut registry, app);
        certificates(&mut registry, app);
        let mut text = String::new();
        encode(&mut text, &registry)?;
        process(&mut text);
        Ok(text)
    }
}

/// What the floors below count.
fn floors(registry: &mut Registry, app: &App) {
    let mut count = |name: &str, help: &str, value: u64| {
        let counter = Counter::<u64>::default();
        counter.inc_by(value);
        registry.register(name, help, counter);
    };
    let figures = app.store.figures();
    let read = |value: &std::sync::atomic::AtomicU64| value.load(Ordering::Relaxed);
    count(
        "store_batches",
        "Transactions committed",
        read(&figures.batches),
    );
    count(
        "store_operations",
        "Operations in them",
        read(&figures.operations),
    );
    count(
        "store_commit_microseconds",
        "Time from a batch's first operation to its commit",
        read(&figures.commit_micros),
    );
    count(
        "repeated_messages",
        "Reports and check-ins that came before and changed nothing",
        read(&figures.repeats),
    );
    count(
        "stray_reports",
        "Reports on commands not addressed to their channel",
        read(&figures.strays),
    );
    let pushes = &app.push_figures;
    count("pushes_accepted", "Wakes APNs took", read(&pushes.accepted));
    count(
        "pushes_dead",
        "Wakes refused for their token",
        read(&pushes.dead),
    );
    count(
        "pushes_retried",
        "Wakes to be tried again",
        read(&pushes.retried),
    );
    count(
        "pushes_refused",
        "Wakes refused for a fault of ours",
        read(&pushes.refused),
    );
    count(
        "pushes_without_certificate",
        "Wakes whose topic has no push certificate",
        read(&pushes.without_certificate),
    );
    let mut level = |name: &str, help: &str, value: u64| {
        let gauge = Gauge::<i64>::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        registry.register(name, help, gauge);
    };
    level(
        "enrolled_channels",
        "Channels enrolled",
        app.store.enrolled(),
    );
    level(
        "clock_in_doubt",
        "1 while the wall clock is in doubt: nothing expires and nothing is deleted",
        u64::from(app.store.clock_doubt().is_some()),
    );
    level(
        "last_backup_timestamp_seconds",
        "When the last backup was made, in seconds since 1970; 0 for never",
        last_backup(app),
    );
    level(
        "actors_live",
        "Device actors in memory",
        app.registry.live() as u64,
    );
    level(
        "requests_under_way",
        "Device requests under way",
        app.admission.under_way() as u64,
    );
    level(
        "pushes_under_way",
        "Wakes sent and not answered yet",
        read(&app.push_figures.under_way),
    );
    level(
        "wakes_due",
        "Wakes marked",
        app.store.wakes().marked() as u64,
    );
    level(
        "journal_position",
        "Head of the journal",
        read(&figures.position),
    );
    let lag = read(&figures.position).saturating_sub(read(&figures.folded));
    level("journal_unfolded", "Journal entries not folded yet", lag);
}

fn last_backup(app: &App) -> u64 {
    let last = app.store.last_backup().ok().flatten();
    last.map_or(0, |made| made.seconds())
}

/// Whole days until each watched certificate ends, negative once it has.
fn certificates(registry: &mut Registry, app: &App) {
    let days = Family::<CertificateLabels, Gauge>::default();
    let now = app.clock.now();
    for expiry in app.expiries.all() {
        let labels = CertificateLabels {
            kind: expiry.purpose.word(),
            name: expiry.name,
        };
        let left = schema::expiry::days_left(expiry.not_after, now);
        days.get_or_create(&labels).set(left);
    }
    let help = "Days until a certificate ends";
    registry.register("certificate_days_left", help, days);
}

/// CPU and memory of this process, from the kernel's own counters.
fn process(text: &mut String) {
    // `# EOF` must stay last.
    let end = text.rfind("# EOF").unwrap_or(text.len());
    text.truncate(end);
    if let Some(seconds) = cpu_seconds() {
        text.push_str("# TYPE process_cpu_seconds counter\n");
        text.push_str(&format!("process_cpu_seconds_total {seconds}\n"));
    }
    if let Some(bytes) = resident_bytes("self") {
        text.push_str("# TYPE process_resident_memory_bytes gauge\n");
        text.push_str(&format!("process_resident_memory_bytes {bytes}\n"));
    }
    text.push_str("# EOF\n");
}

fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let behind_name = stat.rsplit_once(')')?.1;
    let mut fields = behind_name.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    // The kernel reports hundredths of a second to user space on every platform we build for.
    Some((user + system) / 100.0)
}

/// Memory a process holds, in bytes; `self` for this one.
pub(crate) fn resident_bytes(process: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
