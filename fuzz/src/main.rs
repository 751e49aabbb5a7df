//! Fuzzing of everything that reads what strangers send, with libFuzzer on a stable
//! toolchain. `fuzz/run` builds it, makes the seeds and runs the campaign.
//!
//! `REVEILLE_FUZZ` names the reader. A run fails on a panic, on an overflow, on more than
//! 100 ms of processor time for one input, and on more memory than the campaign allows.

#![no_main]

mod readers;
mod scep;
mod seeds;
mod signed;

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use rustix::time::{ClockId, Timespec, clock_gettime};

type Reader = Box<dyn Fn(&[u8]) + Send + Sync>;

static READER: OnceLock<Reader> = OnceLock::new();

fuzz_target!(
    init: {
        let name = std::env::var("REVEILLE_FUZZ").unwrap_or_default();
        if let Some(directory) = std::env::var_os("REVEILLE_FUZZ_SEEDS") {
            seeds::write(&name, directory.as_ref());
            std::process::exit(0);
        }
        let reader = reader(&name).unwrap_or_else(|| panic!("REVEILLE_FUZZ: no reader {name:?}"));
        assert!(READER.set(reader).is_ok());
    },
    |data: &[u8]| {
        let reader = READER.get().expect("init ran");
        let before = processor_time();
        reader(data);
        let took = processor_time() - before;
        assert!(took < 100_000_000, "{} bytes took {} ms", data.len(), took / 1_000_000);
    }
);

fn reader(name: &str) -> Option<Reader> {
    Some(match name {
        "xml" => Box::new(readers::xml),
        "check_in" => Box::new(readers::check_in),
        "report" => Box::new(readers::report),
        "ber" => Box::new(readers::ber),
        "csr" => Box::new(readers::csr),
        "admin_json" => Box::new(readers::admin_json),
        "scep" => Box::new(readers::scep),
        "client_cert" => signed::client_cert(),
        "signature" => signed::signature(),
        "scep_answer" => scep::answer(),
        _ => return None,
    })
}

/// Nanoseconds this process has computed, in all its threads: other processes do not count.
fn processor_time() -> i64 {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::ProcessCPUTime);
    tv_sec * 1_000_000_000 + tv_nsec
}
