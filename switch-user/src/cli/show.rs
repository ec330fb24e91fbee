//! `sluice show`: bridges and ports.

use std::fmt::Write;

use super::Session;
use super::names::check_bridge;
use super::output::{Paint, Style, emit, pretty, printable};
use super::quantity::{bytes, duration, percent, vlans};
use super::table::{Align, Cell, Table};
use crate::control::report::{BridgeReport, PortReport, ShowReport};

/// The port number of a bridge's internal port (OpenFlow 1.3, 7.2.1, cut to 16 bits as in OpenFlow 1.0).
pub const OFPP_LOCAL: u32 = 65534;

const EXAMPLES: &str = "\
Columns:
  of       OpenFlow port number; LOCAL is the bridge's internal port
  dp       datapath port number, as in_port(..) of 'sluice flows'
  hook     where packets are taken: xdp or tc; behind it how it is attached (native, generic, tcx, clsact)
  dropped  packets that came in here and were dropped; 'sluice drops' says why

Examples:
  sluice show                    everything
  sluice show br0 -m             one bridge, with addresses, reasons and error counters
  sluice show --json | jq '.bridges[].ports[] | select(.error)'";

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct ShowArgs {
    /// Only this bridge
    bridge: Option<String>,

    /// Print each port's address, the reason for its hook, and its error counters as well
    #[arg(short, long)]
    more: bool,

    /// Print the daemon's report as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &ShowArgs, session: &Session) -> anyhow::Result<()> {
    let mut report = session.connect()?.show()?;
    if let Some(bridge) = &args.bridge {
        check_bridge(&report, bridge)?;
        report.bridges.retain(|b| b.name == *bridge);
    }
    let text = if args.json { pretty(&report)? } else { render(&report, args.more, session.paint) };
    emit(&text)?;
    Ok(())
}

/// The report as text.
pub fn render(report: &ShowReport, more: bool, paint: Paint) -> String {
    let mut out = String::new();
    head(&mut out, report, paint);
    for bridge in &report.bridges {
        out.push('\n');
        let name = printable(&bridge.name);
        line(
            &mut out,
            format_args!(
                "bridge {}  id {}, fail mode {}, {} of {} addresses",
                paint.apply(Style::Strong, &name),
                printable(&bridge.datapath_id),
                printable(&bridge.fail_mode),
                bridge.mac_entries,
                bridge.mac_limit
            ),
        );
        out.push_str(&ports(bridge, more).render(2, paint));
    }
    if !report.notes.is_empty() {
        out.push('\n');
    }
    for note in &report.notes {
        let note = printable(note);
        line(&mut out, format_args!("{} {note}", paint.apply(Style::Warning, "note:")));
    }
    out
}

fn head(out: &mut String, report: &ShowReport, paint: Paint) {
    let title = format!("sluice {}", printable(&report.version));
    line(
        out,
        format_args!(
            "{}  pid {}, up {}, datapath {} ({}), kernel {}",
            paint.apply(Style::Strong, &title),
            report.pid,
            duration(report.uptime_s),
            printable(&report.datapath),
            printable(&report.instance),
            printable(&report.kernel)
        ),
    );
    let c = &report.caches;
    let lookups = c.exact_match_hits.saturating_add(c.megaflow_hits).saturating_add(c.misses);
    line(out, format_args!("flows    {} of {}, {} masks", report.flows, report.flow_limit, report.masks));
    line(
        out,
        format_args!(
            "lookups  {} exact match ({}), {} megaflow ({}), {} missed ({})",
            c.exact_match_hits,
            percent(c.exact_match_hits, lookups),
            c.megaflow_hits,
            percent(c.megaflow_hits, lookups),
            c.misses,
            percent(c.misses, lookups)
        ),
    );
    let u = &report.upcalls;
    line(
        out,
        format_args!(
            "upcalls  {} received, {} translated, {} flows installed, {} joined, {} failed, {} handlers",
            u.received, u.translated, u.flows_installed, u.joined, u.install_failed, u.handlers
        ),
    );
    line(
        out,
        format_args!(
            "upkeep   {} revalidations: {} flows expired, {} corrected, {} removed",
            u.revalidations, u.flows_expired, u.flows_corrected, u.flows_removed
        ),
    );
}

fn ports(bridge: &BridgeReport, more: bool) -> Table {
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("port", Left),
        ("of", Right),
        ("dp", Right),
        ("link", Left),
        ("hook", Left),
        ("vlan", Left),
        ("mtu", Right),
        ("rx packets", Right),
        ("rx bytes", Right),
        ("tx packets", Right),
        ("tx bytes", Right),
        ("dropped", Right),
    ]);
    for port in &bridge.ports {
        let c = &port.counters;
        let dropped = dropped(port);
        table.row(vec![
            Cell::new(&port.name, Style::Strong),
            Cell::plain(ofport(port.ofport)),
            Cell::plain(port.dp_port),
            Cell::new(&port.link, link_style(&port.link)),
            Cell::plain(hook(port)),
            Cell::plain(vlan(port)),
            Cell::plain(port.mtu),
            Cell::plain(c.rx_packets),
            Cell::plain(bytes(c.rx_bytes)),
            Cell::plain(c.tx_packets),
            Cell::plain(bytes(c.tx_bytes)),
            Cell::new(dropped, if dropped > 0 { Style::Warning } else { Style::Plain }),
        ]);
        if let Some(error) = &port.error {
            table.note(Cell::new(format!("error: {error}"), Style::Bad));
        }
        if more {
            details(&mut table, port);
        }
    }
    table
}

fn details(table: &mut Table, port: &PortReport) {
    let c = &port.counters;
    let mut note = |text: String| table.note(Cell::new(text, Style::Faint));
    note(format!("{}, address {}, ifindex {}", port.kind, port.mac, port.ifindex));
    if !port.hook_reason.is_empty() {
        note(format!("hook: {}", port.hook_reason));
    }
    note(format!(
        "rx: {} errors, {} dropped; tx: {} errors, {} dropped",
        c.rx_errors, c.rx_dropped, c.tx_errors, c.tx_dropped
    ));
    note(format!(
        "misses: {} sent up, {} over the limit, {} queue full; dropped in the datapath: {}, by policy: {}",
        c.upcalls, c.upcalls_limited, c.upcalls_queue_full, c.datapath_dropped, c.policy_dropped
    ));
}

/// Packets that came in here and went nowhere. The datapath's count holds those over the limit.
pub fn dropped(port: &PortReport) -> u64 {
    let c = &port.counters;
    c.datapath_dropped.saturating_add(c.policy_dropped).saturating_add(c.upcalls_queue_full)
}

pub fn link_style(link: &str) -> Style {
    match link {
        "up" => Style::Good,
        "down" => Style::Warning,
        _ => Style::Bad,
    }
}

/// As Open vSwitch's tools write port numbers.
pub fn ofport(number: u32) -> String {
    if number == OFPP_LOCAL { "LOCAL".to_owned() } else { number.to_string() }
}

pub fn hook(port: &PortReport) -> String {
    match (port.hook.as_str(), port.mode.as_str()) {
        ("", _) => "-".to_owned(),
        (hook, "") => hook.to_owned(),
        (hook, mode) => format!("{hook} {mode}"),
    }
}

/// The mode with its VLANs: `access 10`, `trunk`, `trunk 10,20`, `native-untagged 1 of 10,20`.
fn vlan(port: &PortReport) -> String {
    let mut text = port.vlan_mode.clone();
    if let Some(tag) = port.tag {
        // Writing to a String cannot fail.
        let _ = write!(text, " {tag}");
    }
    if !port.trunks.is_empty() {
        text.push_str(if port.tag.is_some() { " of " } else { " " });
        text.push_str(&vlans(&port.trunks));
    }
    text
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{text}");
}

#[cfg(test)]
#[path = "show_tests.rs"]
mod tests;
