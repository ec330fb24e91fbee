//! `sluice trace-packet`: what the switch would do with a packet, as `ovs-appctl ofproto/trace` tells it.

use std::fmt::Write;
use std::io::Read;

use super::Session;
use super::flows::rule_text;
use super::names::check_port;
use super::output::{Paint, Style, emit, pretty, printable};
use crate::control::report::TraceReport;

/// Bytes of a packet at most.
const MAX_PACKET: usize = 65_536;

const EXAMPLES: &str = "\
Nothing is sent and nothing is learnt.

Examples:
  A packet, as 'tcpdump -xx' prints its bytes (blanks, ':' and '-' between them are ignored):
    sluice trace-packet eth1 --packet 'ffffffffffff 020000000001 0806 ...'
  The same from a file:
    xxd -p packet.bin | sluice trace-packet eth1 --packet -
  A flow in Open vSwitch's notation:
    sluice trace-packet tap0 --flow 'eth(src=02:00:00:00:00:01,dst=02:00:00:00:00:02),eth_type(0x0800)'";

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["packet", "flow"]))]
pub struct TraceArgs {
    /// Port that the packet comes in by
    port: String,

    /// The packet's bytes in hexadecimal, from the Ethernet header on; '-' reads them from standard input
    #[arg(long, value_name = "HEX")]
    packet: Option<String>,

    /// A flow in Open vSwitch's datapath notation; fields that are not named are zero
    #[arg(long, value_name = "FLOW")]
    flow: Option<String>,

    /// Print the daemon's report as JSON
    #[arg(long)]
    json: bool,
}

/// Why a text is no packet.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PacketError {
    #[error("the packet's character {at} is '{found}', which is no hexadecimal digit")]
    NotHex { at: usize, found: char },
    #[error("the packet has an odd number of hexadecimal digits, {digits}: two make a byte")]
    HalfByte { digits: usize },
    #[error("the packet is empty")]
    Empty,
    #[error("the packet is longer than {MAX_PACKET} bytes")]
    TooLong,
}

pub fn run(args: TraceArgs, session: &Session) -> anyhow::Result<()> {
    let packet = match args.packet.as_deref() {
        Some("-") => {
            let mut text = String::new();
            // Room for a separator and a line's end behind each byte.
            std::io::stdin().lock().take(MAX_PACKET as u64 * 8).read_to_string(&mut text)?;
            Some(digits(&text)?)
        }
        Some(text) => Some(digits(text)?),
        None => None,
    };
    let mut client = session.connect()?;
    check_port(&client.show()?, &args.port)?;
    let report = client.trace(args.port, packet, args.flow)?;
    let text = if args.json { pretty(&report)? } else { render(&report, session.paint) };
    emit(&text)?;
    Ok(())
}

/// The hexadecimal digits of a packet, two a byte, without what people and tools put between them.
fn digits(text: &str) -> Result<String, PacketError> {
    let body = text.trim_start();
    let skipped = text.len() - body.len();
    let (body, skipped) = match body.strip_prefix("0x") {
        Some(rest) => (rest, skipped + 2),
        None => (body, skipped),
    };
    let mut digits = String::with_capacity(body.len());
    for (at, found) in body.chars().enumerate() {
        match found {
            '0'..='9' | 'a'..='f' | 'A'..='F' => digits.push(found.to_ascii_lowercase()),
            ':' | '-' | '.' => {}
            blank if blank.is_whitespace() => {}
            found => return Err(PacketError::NotHex { at: skipped + at + 1, found }),
        }
    }
    match digits.len() {
        0 => Err(PacketError::Empty),
        n if n % 2 != 0 => Err(PacketError::HalfByte { digits: n }),
        n if n / 2 > MAX_PACKET => Err(PacketError::TooLong),
        _ => Ok(digits),
    }
}

/// The report as text.
pub fn render(report: &TraceReport, paint: Paint) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let flow = printable(&report.flow);
    let _ = writeln!(out, "{} {flow}\n", paint.apply(Style::Faint, "Flow:"));
    for step in &report.steps {
        let _ = writeln!(out, "{}", printable(step));
    }
    out.push('\n');
    let mut entry = |name: &str, value: &str, style| {
        let value = printable(value);
        let _ = writeln!(out, "{} {}", paint.apply(Style::Faint, name), paint.apply(style, &value));
    };
    entry("Megaflow:", &report.megaflow, Style::Plain);
    entry("Datapath actions:", &report.actions, Style::Strong);
    if report.actions_named != report.actions {
        entry("  by name:", &report.actions_named, Style::Strong);
    }
    if let Some(reason) = &report.drop {
        entry("Dropped:", reason, Style::Bad);
    }
    for rule in &report.rules {
        entry("Rule:", &rule_text(rule), Style::Plain);
    }
    match &report.installed {
        Some(flow) => entry("Installed flow that it hits:", flow, Style::Plain),
        None => entry("Installed flow that it hits:", "none, it would be sent up", Style::Plain),
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::report::RuleReport;

    #[test]
    fn packets_as_people_write_them() {
        let table = [
            ("ffff02", Ok("ffff02")),
            ("0xFFff02", Ok("ffff02")),
            ("  ff:ff-02 .aa\n", Ok("ffff02aa")),
            ("", Err(PacketError::Empty)),
            ("0x", Err(PacketError::Empty)),
            ("fff", Err(PacketError::HalfByte { digits: 3 })),
            ("ffxf", Err(PacketError::NotHex { at: 3, found: 'x' })),
            (" 0xgf", Err(PacketError::NotHex { at: 4, found: 'g' })),
        ];
        for (text, want) in table {
            assert_eq!(digits(text), want.map(str::to_owned), "{text}");
        }
        assert_eq!(digits(&"00".repeat(MAX_PACKET + 1)), Err(PacketError::TooLong));
    }

    #[test]
    fn a_trace() {
        let report = TraceReport {
            flow: "in_port(2),eth(src=02:00:00:00:00:01,dst=02:00:00:00:00:02)".into(),
            steps: vec!["bridge br0".into(), "  table 0: priority=0 actions=NORMAL".into()],
            megaflow: "recirc_id(0),in_port(2)".into(),
            actions: "3,4".into(),
            actions_named: "eth2,eth3".into(),
            rules: vec![RuleReport {
                bridge: "br0".into(),
                text: "actions=NORMAL".into(),
                ..RuleReport::default()
            }],
            drop: None,
            installed: None,
        };
        assert_eq!(
            render(&report, Paint::OFF),
            "\
Flow: in_port(2),eth(src=02:00:00:00:00:01,dst=02:00:00:00:00:02)

bridge br0
  table 0: priority=0 actions=NORMAL

Megaflow: recirc_id(0),in_port(2)
Datapath actions: 3,4
  by name: eth2,eth3
Rule: br0: cookie=0x0, table=0, priority=0 actions=NORMAL
Installed flow that it hits: none, it would be sent up
"
        );
        let dropped = TraceReport { drop: Some("policy".into()), ..TraceReport::default() };
        assert!(render(&dropped, Paint::OFF).contains("\nDropped: policy\n"));
    }
}
