//! How many pushes go out in a second, printed, never asserted:
//! `cargo test --release throughput -- --nocapture`.

use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{fs, thread};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::fake::{Answer, Fake, Script, a_push};
use super::pki::Pki;
use super::{ApnsClient, Outcome};

#[test]
fn throughput_against_a_server_that_answers_after_40_ms() {
    let pushes = if cfg!(debug_assertions) {
        2_000
    } else {
        200_000
    };
    let pki = Pki::new();
    let (started, starts) = mpsc::channel();
    let (end, ended) = oneshot::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(|| {
            runtime().block_on(async {
                let script = Script {
                    records: false,
                    ..Script::new(|_| Answer::ok().after(40))
                };
                started.send(Fake::start(&pki, script).await).unwrap();
                let _ = ended.await;
            });
        });
        let fake = starts.recv().unwrap();
        runtime().block_on(async {
            let client = fake.client(&pki, 4);
            assert!(matches!(
                client.push(a_push()).await,
                Outcome::Accepted { .. }
            ));
            let (wall, cpu) = (Instant::now(), thread_cpu());
            run(&client, pushes).await;
            let (wall, cpu) = (wall.elapsed(), thread_cpu() - cpu);
            println!(
                "{pushes} pushes in {:.2} s: {:.0} pushes/s, {:.1} us CPU per push, {} connections",
                wall.as_secs_f64(),
                pushes as f64 / wall.as_secs_f64(),
                cpu.as_secs_f64() * 1e6 / pushes as f64,
                client.connections(),
            );
        });
        drop(end);
    });
}

/// Reserves, then sends, as the supervisor does.
async fn run(client: &ApnsClient, pushes: usize) {
    let mut under_way = JoinSet::new();
    for _ in 0..pushes {
        let slot = client.ready().await.unwrap();
        under_way.spawn(slot.push(a_push()));
        while let Some(outcome) = under_way.try_join_next() {
            assert!(matches!(outcome.unwrap(), Outcome::Accepted { .. }));
        }
    }
    for outcome in under_way.join_all().await {
        assert!(matches!(outcome, Outcome::Accepted { .. }));
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// The CPU time of this thread, on which the client's runtime alone runs.
fn thread_cpu() -> Duration {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(
        stat.split(' ')
            .next()
            .and_then(|ns| ns.parse().ok())
            .unwrap_or_default(),
    )
}
