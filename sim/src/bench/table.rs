//! What a bench found: a table for people, JSON for scripts.

use std::fmt;

use anyhow::{Context, Result};
use serde::Serialize;

use super::machine::Machine;
use super::row::Row;
use crate::report::LoadReport;

/// The whole table.
#[derive(Clone, Debug, Serialize)]
pub struct BenchReport {
    /// Where it was measured.
    pub machine: Machine,
    /// Runs of each row.
    pub runs: u32,
    /// Whether the counts were small: then the figures mean little.
    pub quick: bool,
    /// The rows.
    pub rows: Vec<RowReport>,
}

/// One row.
#[derive(Clone, Debug, Serialize)]
pub struct RowReport {
    /// Which.
    pub row: Row,
    /// Its figures.
    pub figures: Vec<Figure>,
    /// What must be borne in mind; may be empty.
    pub note: &'static str,
}

/// One figure of a row.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// What, in which unit.
    pub name: &'static str,
    /// Over the runs.
    pub spread: Spread,
    /// What it should be, where there is a bar.
    pub bar: Option<f64>,
    /// Whether the median meets its bar.
    pub met: Option<bool>,
}

/// A figure over several runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The one in the middle; of an even number the lower.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
}

impl Spread {
    /// `None` of nothing.
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        Some(Self {
            median: *values.get(values.len().checked_sub(1)? / 2)?,
            min: *values.first()?,
            max: *values.last()?,
        })
    }
}

impl RowReport {
    pub(super) fn of(row: Row, runs: &[LoadReport]) -> Result<Self> {
        let mut figures = Vec::new();
        for (name, read, bar, more_is_better) in row.figures() {
            let values: Vec<f64> = runs.iter().map(read).collect::<Result<_>>()?;
            let spread = Spread::of(values).context("there was no run")?;
            let met = bar.map(|bar| match more_is_better {
                true => spread.median >= bar,
                false => spread.median <= bar,
            });
            figures.push(Figure {
                name,
                spread,
                bar,
                met,
            });
        }
        Ok(Self {
            row,
            figures,
            note: row.note(),
        })
    }
}

impl fmt::Display for BenchReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine {
            cpu,
            cores,
            kernel,
            reveille,
        } = &self.machine;
        writeln!(f, "{cpu}, {cores} cores, Linux {kernel}, {reveille}")?;
        writeln!(f, "medians of {} runs (min..max)", self.runs)?;
        if self.quick {
            writeln!(f, "small counts: these figures mean little")?;
        }
        for row in &self.rows {
            let mut name = row.row.name();
            for figure in &row.figures {
                let Spread { median, min, max } = figure.spread;
                let spread = format!("({min:.1}..{max:.1})");
                write!(
                    f,
                    "{name:<17}{:<21}{median:>9.1}  {spread:<22}",
                    figure.name
                )?;
                match (figure.bar, figure.met) {
                    (Some(bar), Some(true)) => writeln!(f, "bar {bar}: met")?,
                    (Some(bar), _) => writeln!(f, "bar {bar}: MISSED")?,
                    (None, _) => writeln!(f)?,
                }
                name.clear();
            }
            if !row.note.is_empty() {
                writeln!(f, "{:<17}{}", "", row.note)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_one_in_the_middle() {
        let spread = Spread::of(vec![3.0, 1.0, 2.0]).unwrap();
        assert_eq!((spread.median, spread.min, spread.max), (2.0, 1.0, 3.0));
        assert_eq!(Spread::of(Vec::new()), None);
    }
}
