//! What came out, as a table and as JSON.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::figure::{Figure, Verdict, Wanted};
use crate::terminal::{Paint, Stream, Table};

/// A case that did not run.
#[derive(Clone, Debug, Serialize)]
pub struct Failure {
    pub case: &'static str,
    pub error: String,
}

/// A whole run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub kernel: String,
    pub cpus: usize,
    pub cpu: String,
    /// Seconds since 1970.
    pub at: u64,
    /// Fewer and shorter rounds than the figures deserve.
    pub quick: bool,
    pub figures: Vec<Figure>,
    pub failures: Vec<Failure>,
}

impl Report {
    /// An empty one, about this machine.
    pub fn new(quick: bool) -> Report {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpu = read("/proc/cpuinfo")
            .lines()
            .find_map(|l| Some(l.strip_prefix("model name")?.split_once(':')?.1.trim().to_owned()))
            .unwrap_or_default();
        Report {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            cpus: std::thread::available_parallelism().map_or(1, |n| n.get()),
            cpu,
            at: std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |t| t.as_secs()),
            quick,
            figures: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// Whether every figure that something is wanted of reached it.
    pub fn all_met(&self) -> bool {
        self.figures.iter().all(|f| f.verdict() != Verdict::Missed)
    }

    /// The table that people read.
    pub fn table(&self, stream: Stream) -> String {
        let mut table =
            Table::new(["case", "value", "per CPU s", "against", "ratio", "per CPU s", "wanted", ""]);
        for figure in &self.figures {
            let compared = figure.compared.as_ref();
            let (verdict, paint) = match figure.verdict() {
                Verdict::Met => ("met", Some(Paint::Good)),
                Verdict::Missed => ("missed", Some(Paint::Bad)),
                Verdict::Reported => ("", None),
            };
            let plain = |text: String| (text, None);
            table.row([
                plain(figure.name.clone()),
                plain(figure.unit.show(figure.value)),
                plain(figure.per_cpu.map_or_else(String::new, |v| figure.unit.show(v))),
                plain(compared.map_or_else(String::new, |c| c.to.clone())),
                plain(compared.map_or_else(String::new, |c| match c.bound {
                    Some(bound) => format!("{:.3} (≥ {bound:.3})", c.ratio),
                    None => format!("{:.3}", c.ratio),
                })),
                plain(compared.and_then(|c| c.per_cpu).map_or_else(String::new, |r| format!("{r:.3}"))),
                plain(figure.wanted.map_or_else(String::new, |w| wanted(w, figure))),
                (verdict.to_owned(), paint),
            ]);
        }
        let mut text = table.render(stream);
        for failure in &self.failures {
            let mark = stream.paint(Paint::Bad, "did not run:");
            text.push_str(&format!("  {mark} {}: {}\n", failure.case, failure.error));
        }
        text
    }

    /// Writes the JSON file.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context("write the report as JSON")?;
        fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))
    }
}

fn wanted(wanted: Wanted, figure: &Figure) -> String {
    match wanted {
        Wanted::RatioAtLeast(least) | Wanted::ClockRatioAtLeast(least) => format!("≥ {least}"),
        Wanted::MedianAndBound(least, bound) => format!("≥ {least:.1} (≥ {bound})"),
        Wanted::AtMost(most) => format!("≤ {}", figure.unit.show(most)),
    }
}
