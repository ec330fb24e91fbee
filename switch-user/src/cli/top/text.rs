//! A sample as text.

use std::fmt::Write;

use super::sample::Sample;
use crate::cli::output::{Paint, Style, printable};
use crate::cli::quantity::{duration, short};
use crate::cli::show::link_style;
use crate::cli::table::{Align, Cell, Table};

/// The head line: who, for how long, how full.
pub fn title(sample: &Sample) -> String {
    let show = &sample.totals.show;
    format!(
        "sluice {}  pid {}, up {}, {} of {} flows, {} masks",
        printable(&show.version),
        show.pid,
        duration(show.uptime_s),
        show.flows,
        show.flow_limit,
        show.masks
    )
}

/// Levels of the look-up: name, packets a second, share of all look-ups in percent, total.
pub fn levels(sample: &Sample) -> [(&'static str, f64, f64, u64); 3] {
    let all = sample.all_lookups();
    let share = |rate: f64| if all > 0.0 { rate * 100.0 / all } else { 0.0 };
    let (rates, totals) = (&sample.lookups, &sample.totals.show.caches);
    [
        ("exact match", rates.exact_match_hits, share(rates.exact_match_hits), totals.exact_match_hits),
        ("megaflow", rates.megaflow_hits, share(rates.megaflow_hits), totals.megaflow_hits),
        ("miss", rates.misses, share(rates.misses), totals.misses),
    ]
}

/// What the miss path does: name, per second, total.
pub fn miss_path(sample: &Sample) -> [(&'static str, f64, u64); 7] {
    let (rates, totals) = (&sample.upcalls, &sample.totals.show.upcalls);
    [
        ("received", rates.received, totals.received),
        ("joined", rates.joined, totals.joined),
        ("flows installed", rates.flows_installed, totals.flows_installed),
        ("flows expired", rates.flows_expired, totals.flows_expired),
        ("flows corrected", rates.flows_corrected, totals.flows_corrected),
        ("flows removed", rates.flows_removed, totals.flows_removed),
        ("ring dropped", rates.ring_dropped, totals.ring_dropped),
    ]
}

/// The whole sample.
pub fn render(sample: &Sample, paint: Paint) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{}, over {:.1}s\n", paint.apply(Style::Strong, &title(sample)), sample.interval_s);
    out.push_str(&lookups(sample).render(0, paint));
    let _ = writeln!(out, "masks tried a look-up: {:.2}\n", sample.lookups.masks_per_lookup);
    out.push_str(&upcalls(sample).render(0, paint));
    out.push('\n');
    out.push_str(&ports(sample).render(0, paint));
    let drops = drops(sample);
    out.push('\n');
    if drops.is_empty() {
        out.push_str("nothing was dropped\n");
    } else {
        out.push_str(&drops.render(0, paint));
    }
    out
}

fn lookups(sample: &Sample) -> Table {
    let mut table = Table::new(&[
        ("look-ups", Align::Left),
        ("per s", Align::Right),
        ("share", Align::Right),
        ("total", Align::Right),
    ]);
    for (name, rate, share, total) in levels(sample) {
        let share = Cell::plain(format!("{share:.1}%"));
        table.row(vec![Cell::plain(name), Cell::plain(short(rate)), share, Cell::plain(total)]);
    }
    table
}

fn upcalls(sample: &Sample) -> Table {
    let mut table =
        Table::new(&[("miss path", Align::Left), ("per s", Align::Right), ("total", Align::Right)]);
    for (name, rate, total) in miss_path(sample) {
        table.row(vec![Cell::plain(name), Cell::plain(short(rate)), Cell::plain(total)]);
    }
    table
}

fn ports(sample: &Sample) -> Table {
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("port", Left),
        ("bridge", Left),
        ("link", Left),
        ("hook", Left),
        ("rx pps", Right),
        ("rx bit/s", Right),
        ("tx pps", Right),
        ("tx bit/s", Right),
        ("miss/s", Right),
        ("refused/s", Right),
        ("dropped/s", Right),
    ]);
    let bad = |rate: f64| Cell::new(short(rate), if rate > 0.0 { Style::Warning } else { Style::Plain });
    for port in &sample.ports {
        table.row(vec![
            Cell::new(&port.name, Style::Strong),
            Cell::plain(&port.bridge),
            Cell::new(&port.link, link_style(&port.link)),
            Cell::plain(&port.hook),
            Cell::plain(short(port.rx_packets)),
            Cell::plain(short(port.rx_bits)),
            Cell::plain(short(port.tx_packets)),
            Cell::plain(short(port.tx_bits)),
            Cell::plain(short(port.upcalls)),
            bad(port.upcalls_refused),
            bad(port.dropped),
        ]);
    }
    table
}

/// Reasons that happened since the daemon's start.
fn drops(sample: &Sample) -> Table {
    let mut table = Table::new(&[("dropped", Align::Left), ("per s", Align::Right), ("total", Align::Right)]);
    for drop in sample.drops.iter().filter(|d| d.packets > 0) {
        let style = if drop.packets_per_s > 0.0 { Style::Warning } else { Style::Plain };
        table.row(vec![
            Cell::plain(&drop.reason),
            Cell::new(short(drop.packets_per_s), style),
            Cell::plain(drop.packets),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::sample::tests::totals;
    use super::*;

    #[test]
    fn one_block() {
        let sample = Sample::between(&totals(10_000, 10), totals(12_000, 14));
        assert_eq!(
            render(&sample, Paint::OFF),
            "\
sluice 0.1.0  pid 42, up 12s, 12 of 114688 flows, 3 masks, over 2.0s

look-ups     per s  share  total
exact match  1.80k  90.0%  12600
megaflow       192   9.6%   1344
miss             8   0.4%     56
masks tried a look-up: 1.50

miss path        per s  total
received             8     56
joined               2     14
flows installed      6     42
flows expired        0      0
flows corrected      0      0
flows removed        0      0
ring dropped         0      0

port  bridge  link  hook        rx pps  rx bit/s  tx pps  tx bit/s  miss/s  refused/s  dropped/s
eth1  br0     up    xdp native   2.00k     1.02M   1.00k     12.0M       8          4          6
tap0  br0     up    xdp native   2.00k     1.02M   1.00k     12.0M       8          4          6

dropped  per s  total
policy       4     28
"
        );
    }

    #[test]
    fn an_idle_switch() {
        let sample = Sample::between(&totals(0, 0), totals(1000, 0));
        let text = render(&sample, Paint::OFF);
        assert!(text.contains("exact match      0   0.0%      0\n"), "{text}");
        assert!(text.ends_with("\nnothing was dropped\n"), "{text}");
    }
}
