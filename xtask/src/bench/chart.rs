//! The figures as a picture: an SVG 1.1 file of horizontal bars, drawn without any library.
//!
//! The upper half shows how much of what is wanted was reached, the lower one the packet rates themselves.

use std::fmt::Write as _;

use super::figure::{Figure, Unit, Verdict, Wanted};
use super::report::Report;

/// Pixels.
const WIDTH: f64 = 1000.0;
const LABELS: f64 = 430.0;
const VALUES: f64 = 210.0;
const BARS: f64 = WIDTH - LABELS - VALUES;
const ROW: f64 = 24.0;
const BAR: f64 = 15.0;
const HEAD: f64 = 64.0;
const TITLE: f64 = 40.0;

/// Where a bar ends that reaches this share of what is wanted, or more.
const MOST: f64 = 2.0;

const MET: &str = "#2e7d4f";
const MISSED: &str = "#c0392b";
const RATE: &str = "#4a6fa5";

/// One bar.
struct Bar {
    label: String,
    /// Of the bars' width.
    length: f64,
    value: String,
    colour: &'static str,
}

/// The picture.
pub fn draw(report: &Report) -> String {
    let wanted: Vec<Bar> = report.figures.iter().filter_map(against_wanted).collect();
    let rates = rates(&report.figures);
    let height = HEAD + 2.0 * TITLE + ROW * (wanted.len() + rates.len()) as f64 + 20.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" font-family=\"system-ui, sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    let quick = if report.quick { ", quick run" } else { "" };
    text(&mut svg, 20.0, 28.0, "start", "font-size=\"18\" font-weight=\"bold\"", "Sluice and its peers");
    let machine = format!("Linux {}, {} × {}{quick}", report.kernel, report.cpus, report.cpu);
    text(&mut svg, 20.0, 48.0, "start", "fill=\"#666666\"", &machine);

    let mut top = HEAD;
    top = panel(&mut svg, top, "Of what is wanted (the line is just enough)", &wanted);
    if !wanted.is_empty() {
        let x = LABELS + BARS / MOST;
        let (from, to) = (HEAD + TITLE - 6.0, top);
        let _ = writeln!(
            svg,
            "<line x1=\"{x}\" y1=\"{from}\" x2=\"{x}\" y2=\"{to}\" stroke=\"#333333\" stroke-dasharray=\"4 3\"/>"
        );
    }
    panel(&mut svg, top, "Packets per second of CPU time", &rates);
    svg.push_str("</svg>\n");
    svg
}

/// Draws a title and bars; where the next panel begins.
fn panel(svg: &mut String, top: f64, title: &str, bars: &[Bar]) -> f64 {
    if bars.is_empty() {
        return top;
    }
    text(svg, 20.0, top + 24.0, "start", "font-weight=\"bold\"", title);
    let mut y = top + TITLE;
    for bar in bars {
        let base = y + BAR - 3.0;
        let length = (bar.length.clamp(0.0, 1.0) * BARS).max(1.0);
        text(svg, LABELS - 10.0, base, "end", "", &bar.label);
        let _ = writeln!(
            svg,
            "<rect x=\"{LABELS}\" y=\"{y}\" width=\"{length:.1}\" height=\"{BAR}\" rx=\"2\" fill=\"{}\"/>",
            bar.colour
        );
        text(svg, LABELS + BARS + 10.0, base, "start", "", &bar.value);
        y += ROW;
    }
    y
}

fn against_wanted(figure: &Figure) -> Option<Bar> {
    let share = figure.share()?;
    let judged = figure.judged();
    let value = match figure.wanted? {
        Wanted::RatioAtLeast(least) | Wanted::ClockRatioAtLeast(least) => format!("{judged:.2} (≥ {least})"),
        Wanted::MedianAndBound(least, _) => format!("{judged:.2} (≥ {least:.1})"),
        Wanted::AtMost(most) => format!("{} (≤ {})", figure.unit.show(figure.value), figure.unit.show(most)),
    };
    let label = match (figure.wanted?, &figure.compared) {
        (Wanted::AtMost(_), _) | (_, None) => figure.name.clone(),
        (_, Some(compared)) => format!("{} ÷ {}", figure.name, compared.to),
    };
    let colour = if figure.verdict() == Verdict::Met { MET } else { MISSED };
    Some(Bar { label, length: share / MOST, value, colour })
}

/// Each rate once, though a figure stands for each thing that it is compared with.
fn rates(figures: &[Figure]) -> Vec<Bar> {
    let mut seen: Vec<(&str, f64)> = Vec::new();
    for figure in figures.iter().filter(|f| f.unit == Unit::PacketsPerSecond) {
        let rate = figure.per_cpu.unwrap_or(figure.value);
        if !seen.contains(&(figure.name.as_str(), rate)) {
            seen.push((&figure.name, rate));
        }
    }
    let most = seen.iter().map(|(_, rate)| *rate).fold(1.0, f64::max);
    seen.iter()
        .map(|(name, rate)| Bar {
            label: (*name).to_owned(),
            length: rate / most,
            value: Unit::PacketsPerSecond.show(*rate),
            colour: RATE,
        })
        .collect()
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, style: &str, words: &str) {
    let _ =
        writeln!(svg, "<text x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\" {style}>{}</text>", escaped(words));
}

/// Text in which XML sees no markup.
fn escaped(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::figure::Compared;

    #[test]
    fn a_picture_has_all_figures() {
        let mut report = Report::new(true);
        let compared = |to: &str| Compared { to: to.into(), ratio: 0.9, per_cpu: Some(0.9), bound: None };
        let hit = Figure::new("xdp", "XDP <hit>", 1e6, Unit::PacketsPerSecond).per_cpu(2e6);
        for to in ["bare", "bridge"] {
            report.figures.push(hit.clone().compared(compared(to)).wanted(Wanted::RatioAtLeast(0.88)));
        }
        report.figures.push(Figure::new("hit", "ns", 50.0, Unit::Nanoseconds).wanted(Wanted::AtMost(25.0)));
        let svg = draw(&report);
        assert_eq!(svg.matches(MET).count(), 2);
        assert_eq!(svg.matches(MISSED).count(), 1);
        assert_eq!(svg.matches(RATE).count(), 1, "the same rate stands there once");
        assert!(svg.contains("XDP &lt;hit&gt; ÷ bridge") && svg.ends_with("</svg>\n"));
    }
}
