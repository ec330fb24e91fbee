//! `sluice fdb`: MAC tables as `ovs-appctl fdb/show` writes them.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::Session;
use super::names::check_bridge;
use super::output::{Paint, Style, emit, pretty, printable};
use super::show::ofport;
use crate::control::report::{FdbEntry, FdbReport};

const EXAMPLES: &str = "\
Examples:
  sluice fdb br0                 port, VLAN, address, and seconds since its last packet
  sluice fdb --names             all bridges, ports by name
  sluice fdb br0 --flush         forget what was learnt; it is learnt again from the next packets
  sluice fdb --json";

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct FdbArgs {
    /// Only this bridge
    bridge: Option<String>,

    /// Print names of ports, not OpenFlow numbers
    #[arg(long)]
    names: bool,

    /// Forget the learnt addresses
    #[arg(long, conflicts_with_all = ["names", "json"])]
    flush: bool,

    /// Print the daemon's report as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: FdbArgs, session: &Session) -> anyhow::Result<()> {
    let mut client = session.connect()?;
    if let Some(bridge) = &args.bridge {
        check_bridge(&client.show()?, bridge)?;
    }
    if args.flush {
        client.flush_fdb(args.bridge)?;
        return Ok(());
    }
    let heads = args.bridge.is_none();
    let report = client.fdb(args.bridge)?;
    let text = if args.json { pretty(&report)? } else { render(&report, heads, args.names, session.paint) };
    emit(&text)?;
    Ok(())
}

/// The report as text: a table a bridge, under its name if there are several bridges and `heads` is set.
pub fn render(report: &FdbReport, heads: bool, names: bool, paint: Paint) -> String {
    let mut bridges: BTreeMap<&str, Vec<&FdbEntry>> = BTreeMap::new();
    for entry in &report.entries {
        bridges.entry(&entry.bridge).or_default().push(entry);
    }
    if bridges.is_empty() {
        return table(&[], names, paint);
    }
    let heads = heads && bridges.len() > 1;
    let mut out = String::new();
    for (i, (bridge, entries)) in bridges.iter().enumerate() {
        if heads {
            let gap = if i > 0 { "\n" } else { "" };
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{gap}{}", paint.apply(Style::Strong, &printable(bridge)));
        }
        out.push_str(&table(entries, names, paint));
    }
    out
}

fn table(entries: &[&FdbEntry], names: bool, paint: Paint) -> String {
    let port = |e: &FdbEntry| if names { printable(&e.port).into_owned() } else { ofport(e.ofport) };
    // Open vSwitch's widths; a longer name widens the column for all.
    let width = entries.iter().map(|e| port(e).chars().count()).max().unwrap_or(0).max(5);
    let head = format!("{:>width$}  VLAN  MAC                Age", "port");
    let mut out = format!("{}\n", paint.apply(Style::Faint, &head));
    for e in entries {
        let age = if e.is_static { "static".to_owned() } else { format!("{:>3}", e.age_s) };
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{:>width$}  {:>4}  {}  {age}", port(e), e.vlan, printable(&e.mac));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(bridge: &str, port: &str, ofport: u32, vlan: u16, n: u8, age_s: u64) -> FdbEntry {
        let mac = format!("02:00:00:00:00:{n:02x}");
        FdbEntry { bridge: bridge.into(), port: port.into(), ofport, vlan, mac, age_s, is_static: false }
    }

    #[test]
    fn as_open_vswitch_writes_it() {
        let mut entries = vec![
            entry("br0", "eth1", 1, 10, 1, 3),
            entry("br0", "br0", 65534, 0, 2, 120),
            entry("br0", "eth2", 2, 4095, 3, 0),
        ];
        entries[2].is_static = true;
        assert_eq!(
            render(&FdbReport { entries }, true, false, Paint::OFF),
            " port  VLAN  MAC                Age\n    \
             1    10  02:00:00:00:00:01    3\n\
             LOCAL     0  02:00:00:00:00:02  120\n    \
             2  4095  02:00:00:00:00:03  static\n"
        );
        assert_eq!(
            render(&FdbReport::default(), true, false, Paint::OFF),
            " port  VLAN  MAC                Age\n"
        );
    }

    #[test]
    fn several_bridges_and_names() {
        let entries = vec![entry("br1", "eth2", 1, 0, 1, 3), entry("br0", "veth-long", 1, 0, 2, 4)];
        assert_eq!(
            render(&FdbReport { entries }, true, true, Paint::OFF),
            "br0\n     \
             port  VLAN  MAC                Age\n\
             veth-long     0  02:00:00:00:00:02    4\n\
             \n\
             br1\n \
             port  VLAN  MAC                Age\n \
             eth2     0  02:00:00:00:00:01    3\n"
        );
    }
}
