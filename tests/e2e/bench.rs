//! The speed table, with small counts: each row runs clean against the real binary and
//! tells figures that can be; a server that is not there is an error.

use std::path::PathBuf;

use sim::bench::{self, BenchOptions, Row};

fn quick(reveille: PathBuf, rows: &[Row]) -> BenchOptions {
    BenchOptions {
        reveille: Some(reveille),
        rows: rows.to_vec(),
        runs: 1,
        quick: true,
    }
}

#[tokio::test]
async fn every_row_of_the_speed_table_is_measured() {
    let reveille = PathBuf::from(env!("CARGO_BIN_EXE_reveille"));
    let report = bench::run(quick(reveille, &Row::ALL)).await.unwrap();
    assert_eq!(report.rows.len(), Row::ALL.len());
    assert!(report.machine.reveille.starts_with("reveille "));
    for row in &report.rows {
        assert!(row.figures.iter().any(|figure| figure.bar.is_some()));
        // CPU is counted in hundredths of a second: a short run may show none.
        for figure in &row.figures {
            let seen = figure.spread.median;
            assert!((0.0..1e6).contains(&seen), "{report}");
        }
    }
    let text = report.to_string();
    for row in Row::ALL {
        assert!(text.contains(&row.name()), "{text}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_an_error() {
    for reveille in ["/nowhere/reveille", "/bin/false"] {
        let asked = quick(reveille.into(), &[Row::IdleHeader]);
        let error = bench::run(asked).await.unwrap_err();
        assert!(error.to_string().contains("idle-header"), "{error:#}");
    }
}
