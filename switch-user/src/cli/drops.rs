//! `sluice drops`: why packets were dropped.

use super::Session;
use super::output::{Paint, Style, emit, pretty};
use super::table::{Align, Cell, Table};
use crate::control::report::DropsReport;

const EXAMPLES: &str = "\
Every packet that the switch takes and does not forward is counted under one reason. Counts are since the
start of the daemon.

Examples:
  sluice drops                   every reason, those that never happened too
  sluice drops --nonzero         those that happened
  sluice drops --json | jq '.reasons | map({(.reason): .packets}) | add'";

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct DropsArgs {
    /// Leave out reasons that never happened
    #[arg(long)]
    nonzero: bool,

    /// Print the daemon's report as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &DropsArgs, session: &Session) -> anyhow::Result<()> {
    let mut report = session.connect()?.drops()?;
    if args.nonzero {
        report.reasons.retain(|r| r.packets > 0);
    }
    let text = if args.json { pretty(&report)? } else { render(&report, session.paint) };
    emit(&text)?;
    Ok(())
}

/// The report as text.
pub fn render(report: &DropsReport, paint: Paint) -> String {
    let mut table =
        Table::new(&[("reason", Align::Left), ("packets", Align::Right), ("meaning", Align::Left)]);
    for drop in &report.reasons {
        let (name, count) = match drop.packets {
            0 => (Style::Plain, Style::Faint),
            _ => (Style::Strong, Style::Warning),
        };
        table.row(vec![
            Cell::new(&drop.reason, name),
            Cell::new(drop.packets, count),
            Cell::plain(&drop.meaning),
        ]);
    }
    table.render(0, paint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::report::DropReport;

    #[test]
    fn every_reason() {
        let drop = |reason: &str, packets, meaning: &str| DropReport {
            reason: reason.into(),
            packets,
            meaning: meaning.into(),
        };
        let report = DropsReport {
            reasons: vec![
                drop("policy", 1_234_567, "the tables say so"),
                drop("upcall_queue_full", 0, "the port's queue of misses was full"),
            ],
        };
        assert_eq!(
            render(&report, Paint::OFF),
            "\
reason             packets  meaning
policy             1234567  the tables say so
upcall_queue_full        0  the port's queue of misses was full
"
        );
    }
}
