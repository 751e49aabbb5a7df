//! `reveille-sim`: simulated Apple devices and a fake APNs from the command
//! line. Sizes a machine, and stands in for Apple on a workbench.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use sim::bench::{self, BenchOptions};
use sim::{CaKey, DeviceCa, FakeApns, KeyPool, LoadOptions, Script, load};

/// Simulated Apple devices and a fake APNs.
#[derive(Parser)]
#[command(name = "reveille-sim", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Drive simulated devices at a running server and measure it.
    Load {
        #[command(flatten)]
        options: Box<LoadOptions>,
        /// Report as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Measure the real server on this machine: the speed table.
    Bench {
        #[command(flatten)]
        options: BenchOptions,
        /// Report as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Run a fake APNs until interrupted.
    Apns {
        /// The port on 127.0.0.1; 0 takes a free one.
        #[arg(long, default_value_t = 0)]
        port: u16,
        /// Where to write the root certificate the server must trust.
        #[arg(long, default_value = "fake-apns-root.pem")]
        root_file: PathBuf,
        /// Milliseconds before each answer.
        #[arg(long, default_value_t = 0)]
        delay_ms: u64,
    },
    /// Make the device CA that the server must trust before `load`.
    Ca {
        /// The directory for ca.pem and ca-key.pem.
        #[arg(long, default_value = "sim-ca")]
        dir: PathBuf,
        /// A P-256 CA: issues far faster than the RSA one.
        #[arg(long)]
        p256: bool,
    },
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    // One thread: the generator shares its cores with the server.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match cli.verb {
            Verb::Load { options, json } => run_load(*options, json).await,
            Verb::Bench { options, json } => run_bench(options, json).await,
            Verb::Apns {
                port,
                root_file,
                delay_ms,
            } => run_apns(port, root_file, delay_ms).await,
            Verb::Ca { dir, p256 } => make_ca(dir, p256),
        }
    })
}

async fn run_load(options: LoadOptions, json: bool) -> Result<()> {
    let report = load::run(options).await?;
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    if !report.is_clean() {
        std::process::exit(1);
    }
    Ok(())
}

async fn run_bench(options: BenchOptions, json: bool) -> Result<()> {
    let report = bench::run(options).await?;
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    Ok(())
}

async fn run_apns(port: u16, root_file: PathBuf, delay_ms: u64) -> Result<()> {
    let script = Script {
        delay: std::time::Duration::from_millis(delay_ms),
        ..Script::default()
    };
    let apns = FakeApns::start_on(script, port).await?;
    std::fs::write(&root_file, apns.root_pem())
        .with_context(|| format!("write {}", root_file.display()))?;
    println!("fake APNs at 127.0.0.1:{}", apns.port());
    println!("its root certificate: {}", root_file.display());
    let mut pushes = apns.pushes();
    loop {
        tokio::select! {
            Some(push) = pushes.recv() => println!("push {} {}", push.topic, push.token_hex),
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                println!("{:?}", apns.counts());
                return Ok(());
            }
        }
    }
}

fn make_ca(dir: PathBuf, p256: bool) -> Result<()> {
    let kind = if p256 { CaKey::P256 } else { CaKey::Rsa2048 };
    DeviceCa::open_or_create(&dir, kind, Arc::new(KeyPool::growing(1)))?;
    println!("{}", dir.join("ca.pem").display());
    Ok(())
}
