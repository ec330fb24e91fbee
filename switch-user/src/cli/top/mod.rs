//! `sluice top`: what the switch does right now.
//!
//! Two totals of the daemon make a [`sample::Sample`] of rates; a terminal shows it as a live view
//! ([`screen`]), everything else gets blocks of text ([`text`]) or lines of JSON.

mod sample;
mod screen;
mod text;

use std::io::{self, IsTerminal};
use std::thread;
use std::time::{Duration, Instant};

use self::sample::Sample;
use super::Session;
use super::output::{Continue, emit, pretty};

const EXAMPLES: &str = "\
On a terminal: a live view. Arrow keys move through the ports, q or Ctrl-C leaves.
Elsewhere: a block of text (with --json a line of JSON) each interval.

Examples:
  sluice top                     the live view
  sluice top --once              rates over one second, as text
  sluice top --json -i 10 >> rates.jsonl";

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct TopArgs {
    /// Measure over one interval, print it, and leave
    #[arg(long)]
    once: bool,

    /// Seconds between two looks
    #[arg(short, long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    interval: Duration,

    /// Print samples as JSON: rates, and the daemon's totals
    #[arg(long)]
    json: bool,
}

/// A tenth of a second to an hour.
fn interval(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("it is a number of seconds from 0.1 to 3600".to_owned()),
    }
}

pub fn run(args: &TopArgs, session: &Session) -> anyhow::Result<()> {
    let terminal = io::stdout().is_terminal() && io::stdin().is_terminal();
    if terminal && !args.once && !args.json {
        // A daemon that is not there is told before the screen is taken.
        let first = session.connect()?.top()?;
        return screen::run(first, args.interval, &session.rundir);
    }
    stream(args, session)
}

/// Samples one after the other, until nobody reads.
fn stream(args: &TopArgs, session: &Session) -> anyhow::Result<()> {
    let mut client = session.connect()?;
    let mut before = client.top()?;
    let mut due = Instant::now();
    loop {
        // Intervals are counted from the start, so that the daemon's answer time adds up to nothing. After a
        // stop of this process they start anew.
        due = (due + args.interval).max(Instant::now());
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let now = client.top()?;
        let sample = Sample::between(&before, now);
        let text = match (args.json, args.once) {
            (true, true) => pretty(&sample)?,
            (true, false) => format!("{}\n", serde_json::to_string(&sample)?),
            (false, true) => text::render(&sample, session.paint),
            (false, false) => format!("{}\n", text::render(&sample, session.paint)),
        };
        if emit(&text)? == Continue::No || args.once {
            return Ok(());
        }
        before = sample.totals;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals() {
        assert_eq!(interval("0.5"), Ok(Duration::from_millis(500)));
        for bad in ["0", "-1", "x", "NaN", "1e9", ""] {
            assert!(interval(bad).is_err(), "{bad}");
        }
    }
}
