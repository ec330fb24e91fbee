//! A figure: what was measured, what it is compared with, and what is wanted of it.

use serde::Serialize;

use super::statistics::median;

/// What a value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    PacketsPerSecond,
    FlowsPerSecond,
    BitsPerSecond,
    Nanoseconds,
    Microseconds,
    Bytes,
}

impl Unit {
    /// A value with its unit, for people.
    pub fn show(self, value: f64) -> String {
        match self {
            Unit::PacketsPerSecond => format!("{} pps", thousands(value)),
            Unit::FlowsPerSecond => format!("{} flows/s", thousands(value)),
            Unit::BitsPerSecond => format!("{:.2} Gb/s", value / 1e9),
            Unit::Nanoseconds => format!("{value:.1} ns"),
            Unit::Microseconds => format!("{value:.1} µs"),
            Unit::Bytes => format!("{value:.0} B"),
        }
    }
}

/// A rate with three digits or so.
pub fn thousands(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{:.2} M", v / 1e6),
        v if v >= 1e3 => format!("{:.0} k", v / 1e3),
        v => format!("{v:.0} "),
    }
}

/// What the switch is held to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// Of the ratio: per CPU second where there is one, which holds still on a shared machine, else by the clock.
    RatioAtLeast(f64),
    /// Of the ratio by the clock, where competitors share the work among CPUs in different ways.
    ClockRatioAtLeast(f64),
    /// Of the ratio's median, and of its lower confidence bound.
    MedianAndBound(f64, f64),
    /// Of the value.
    AtMost(f64),
}

/// The value against a competitor's in the same rounds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compared {
    pub to: String,
    /// Median of the rounds' ratios.
    pub ratio: f64,
    /// The same per second of CPU time.
    pub per_cpu: Option<f64>,
    /// Lower confidence bound of the ratio.
    pub bound: Option<f64>,
}

/// How a figure came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Met,
    Missed,
    /// Nothing is wanted of it.
    Reported,
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    pub case: &'static str,
    pub name: String,
    pub value: f64,
    pub unit: Unit,
    /// The value per second of CPU time instead of per second.
    pub per_cpu: Option<f64>,
    pub compared: Option<Compared>,
    pub wanted: Option<Wanted>,
}

impl Figure {
    /// A value that nothing is wanted of, yet.
    pub fn new(case: &'static str, name: impl Into<String>, value: f64, unit: Unit) -> Figure {
        Figure { case, name: name.into(), value, unit, per_cpu: None, compared: None, wanted: None }
    }

    pub fn per_cpu(mut self, value: f64) -> Figure {
        self.per_cpu = Some(value);
        self
    }

    pub fn compared(mut self, compared: Compared) -> Figure {
        self.compared = Some(compared);
        self
    }

    pub fn wanted(mut self, wanted: Wanted) -> Figure {
        self.wanted = Some(wanted);
        self
    }

    pub fn verdict(&self) -> Verdict {
        let Some(share) = self.share() else { return Verdict::Reported };
        if share >= 1.0 { Verdict::Met } else { Verdict::Missed }
    }

    /// The ratio that is judged; NaN without one.
    pub fn judged(&self) -> f64 {
        let Some(compared) = &self.compared else { return f64::NAN };
        match self.wanted {
            Some(Wanted::RatioAtLeast(_)) => compared.per_cpu.unwrap_or(compared.ratio),
            _ => compared.ratio,
        }
    }

    /// How much of what is wanted was reached: 1 is just enough. `None` if nothing is wanted.
    pub fn share(&self) -> Option<f64> {
        let judged = self.judged();
        let share = match self.wanted? {
            Wanted::RatioAtLeast(least) | Wanted::ClockRatioAtLeast(least) => judged / least,
            Wanted::MedianAndBound(least, bound) => {
                let reached = self.compared.as_ref().and_then(|c| c.bound).unwrap_or(f64::NAN);
                least_of(judged / least, reached / bound)
            }
            // A program can cost less than the bare redirect, by the measurement's error.
            Wanted::AtMost(most) => most / self.value.max(most / 100.0),
        };
        // What could not be measured does not count as reached.
        Some(if share.is_nan() { 0.0 } else { share })
    }
}

/// The lesser; NaN if either is.
fn least_of(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.min(b) }
}

/// Median of the rounds' ratios of two competitors that took turns.
pub fn ratio(ours: &[f64], theirs: &[f64]) -> f64 {
    median(&ratios(ours, theirs))
}

/// The ratio of each round in which the competitor did anything.
pub fn ratios(ours: &[f64], theirs: &[f64]) -> Vec<f64> {
    ours.iter().zip(theirs).filter(|(_, t)| **t > 0.0).map(|(o, t)| o / t).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(ratio: f64, per_cpu: Option<f64>, wanted: Wanted) -> Figure {
        Figure::new("x", "x", 1.0, Unit::PacketsPerSecond)
            .compared(Compared { to: "y".into(), ratio, per_cpu, bound: Some(0.98) })
            .wanted(wanted)
    }

    #[test]
    fn what_cpu_time_buys_counts() {
        assert_eq!(figure(0.7, Some(0.9), Wanted::RatioAtLeast(0.88)).verdict(), Verdict::Met);
        assert_eq!(figure(0.9, None, Wanted::RatioAtLeast(0.88)).verdict(), Verdict::Met);
        assert_eq!(figure(0.9, Some(0.8), Wanted::RatioAtLeast(0.88)).verdict(), Verdict::Missed);
        assert_eq!(figure(f64::NAN, None, Wanted::RatioAtLeast(0.88)).verdict(), Verdict::Missed);
    }

    #[test]
    fn or_the_clock_counts() {
        assert_eq!(figure(2.1, Some(1.5), Wanted::ClockRatioAtLeast(2.0)).verdict(), Verdict::Met);
        assert_eq!(figure(1.9, Some(2.5), Wanted::ClockRatioAtLeast(2.0)).verdict(), Verdict::Missed);
    }

    #[test]
    fn the_bound_counts() {
        assert_eq!(figure(1.0, None, Wanted::MedianAndBound(1.0, 0.97)).verdict(), Verdict::Met);
        assert_eq!(figure(1.0, None, Wanted::MedianAndBound(1.0, 0.99)).verdict(), Verdict::Missed);
    }

    #[test]
    fn at_most() {
        let figure = Figure::new("x", "x", 20.0, Unit::Nanoseconds).wanted(Wanted::AtMost(25.0));
        assert_eq!((figure.verdict(), figure.share()), (Verdict::Met, Some(1.25)));
        let figure = Figure::new("x", "x", -1.0, Unit::Nanoseconds).wanted(Wanted::AtMost(25.0));
        assert_eq!(figure.verdict(), Verdict::Met);
    }

    #[test]
    fn a_round_in_which_nothing_came_is_left_out() {
        assert_eq!(ratios(&[1.0, 2.0], &[0.0, 4.0]), [0.5]);
    }
}
