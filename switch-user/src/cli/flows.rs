//! `sluice flows`: datapath flows as `ovs-appctl dpctl/dump-flows` writes them.

use std::fmt::Write;

use super::Session;
use super::names::{PortNames, check_bridge};
use super::output::{Paint, Style, emit, pretty, printable};
use crate::control::report::{FlowReport, FlowsReport, RuleReport};

const EXAMPLES: &str = "\
A line a flow: what it matches, how many packets and bytes it forwarded, when the last one came, and what
happens to them. A field that is not there is not looked at. Ports are datapath port numbers ('dp' of
'sluice show') or, with --names, names.

Examples:
  sluice flows --names           all flows, ports by name
  sluice flows br0 -m            those of one bridge, each with the OpenFlow rules that made it
  sluice flows --json | jq '.flows | sort_by(-.packets)[:10]'";

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct FlowsArgs {
    /// Only flows whose input port is in this bridge
    bridge: Option<String>,

    /// Print the OpenFlow rules that made each flow, under it
    #[arg(short, long)]
    more: bool,

    /// Print names of ports, not numbers
    #[arg(long)]
    names: bool,

    /// Print the daemon's report as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: FlowsArgs, session: &Session) -> anyhow::Result<()> {
    let mut client = session.connect()?;
    let mut names = None;
    if args.names || args.bridge.is_some() {
        let show = client.show()?;
        if let Some(bridge) = &args.bridge {
            check_bridge(&show, bridge)?;
        }
        names = args.names.then(|| PortNames::new(&show));
    }
    let report = client.flows(args.bridge)?;
    let text =
        if args.json { pretty(&report)? } else { render(&report, names.as_ref(), args.more, session.paint) };
    emit(&text)?;
    Ok(())
}

/// The report as text; with `names`, ports by name.
pub fn render(report: &FlowsReport, names: Option<&PortNames>, more: bool, paint: Paint) -> String {
    let mut out = String::new();
    for flow in &report.flows {
        flow_line(&mut out, flow, names, paint);
        if more {
            for rule in &flow.rules {
                let text = rule_text(rule);
                let _ = writeln!(out, "    {}", paint.apply(Style::Faint, &text));
            }
            if flow.slow_path {
                out.push_str("    every packet of it goes to userspace\n");
            }
        }
    }
    out
}

fn flow_line(out: &mut String, flow: &FlowReport, names: Option<&PortNames>, paint: Paint) {
    let key = match names {
        Some(names) => names.in_match(&flow.key),
        None => flow.key.clone(),
    };
    let used = match flow.used_s {
        Some(seconds) => format!("{seconds:.3}s"),
        None => "never".to_owned(),
    };
    let flags = if flow.tcp_flags.is_empty() {
        String::new()
    } else {
        format!(", flags:{}", printable(&flow.tcp_flags))
    };
    let actions = printable(if names.is_some() { &flow.actions_named } else { &flow.actions });
    let style = if actions == "drop" { Style::Bad } else { Style::Strong };
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "{}, packets:{}, bytes:{}, used:{used}{flags}, actions:{}",
        printable(&key),
        flow.packets,
        flow.bytes,
        paint.apply(style, &actions)
    );
}

/// A rule with its bridge, as `ovs-ofctl dump-flows` writes it. One that is not in the table any more has no
/// text.
pub fn rule_text(rule: &RuleReport) -> String {
    let body = match rule.text.as_str() {
        "" => format!("priority={} (removed since)", rule.priority),
        text if text.contains("priority=") => text.to_owned(),
        // Without a match the actions follow the priority behind a blank.
        text if text.starts_with("actions=") => format!("priority={} {text}", rule.priority),
        text => format!("priority={},{text}", rule.priority),
    };
    let text = format!("{}: cookie={:#x}, table={}, {body}", rule.bridge, rule.cookie, rule.table);
    printable(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::report::{BridgeReport, PortReport, ShowReport};

    fn report() -> FlowsReport {
        let rule = RuleReport {
            bridge: "br0".into(),
            table: 0,
            priority: 0,
            cookie: 0x2a,
            text: "priority=0 actions=NORMAL".into(),
        };
        FlowsReport {
            flows: vec![
                FlowReport {
                    bridge: "br0".into(),
                    key: "recirc_id(0),in_port(2),eth(src=02:00:00:00:00:01,dst=02:00:00:00:00:02),eth_type(0x0800),ipv4(frag=no)".into(),
                    packets: 9,
                    bytes: 882,
                    used_s: Some(0.0125),
                    tcp_flags: "SF.".into(),
                    actions: "push_vlan(vid=10,pcp=0),3".into(),
                    actions_named: "push_vlan(vid=10,pcp=0),eth2".into(),
                    rules: vec![rule],
                    ..FlowReport::default()
                },
                FlowReport {
                    key: "recirc_id(0),in_port(3),eth(dst=01:80:c2:00:00:00)".into(),
                    actions: "drop".into(),
                    actions_named: "drop".into(),
                    slow_path: true,
                    ..FlowReport::default()
                },
            ],
        }
    }

    #[test]
    fn as_open_vswitch_writes_them() {
        assert_eq!(
            render(&report(), None, false, Paint::OFF),
            "recirc_id(0),in_port(2),eth(src=02:00:00:00:00:01,dst=02:00:00:00:00:02),eth_type(0x0800),ipv4(frag=no), \
             packets:9, bytes:882, used:0.013s, flags:SF., actions:push_vlan(vid=10,pcp=0),3\n\
             recirc_id(0),in_port(3),eth(dst=01:80:c2:00:00:00), packets:0, bytes:0, used:never, actions:drop\n"
        );
    }

    #[test]
    fn names_and_rules() {
        let port = |name: &str, dp_port| PortReport { name: name.into(), dp_port, ..PortReport::default() };
        let bridge = BridgeReport { ports: vec![port("eth1", 2)], ..BridgeReport::default() };
        let names = PortNames::new(&ShowReport { bridges: vec![bridge], ..ShowReport::default() });
        assert_eq!(
            render(&report(), Some(&names), true, Paint::OFF),
            "recirc_id(0),in_port(eth1),eth(src=02:00:00:00:00:01,dst=02:00:00:00:00:02),eth_type(0x0800),ipv4(frag=no), \
             packets:9, bytes:882, used:0.013s, flags:SF., actions:push_vlan(vid=10,pcp=0),eth2\n\
             \x20   br0: cookie=0x2a, table=0, priority=0 actions=NORMAL\n\
             recirc_id(0),in_port(3),eth(dst=01:80:c2:00:00:00), packets:0, bytes:0, used:never, actions:drop\n\
             \x20   every packet of it goes to userspace\n"
        );
    }

    #[test]
    fn rules_with_their_priority() {
        let rule = |priority, text: &str| RuleReport {
            bridge: "br0".into(),
            table: 3,
            priority,
            cookie: 0,
            text: text.into(),
        };
        let table = [
            (rule(7, "ip,nw_dst=10.0.0.1 actions=drop"), "priority=7,ip,nw_dst=10.0.0.1 actions=drop"),
            (rule(7, "actions=NORMAL"), "priority=7 actions=NORMAL"),
            (rule(7, "priority=7,arp actions=FLOOD"), "priority=7,arp actions=FLOOD"),
            (rule(7, ""), "priority=7 (removed since)"),
        ];
        for (rule, want) in table {
            assert_eq!(rule_text(&rule), format!("br0: cookie=0x0, table=3, {want}"));
        }
    }
}
