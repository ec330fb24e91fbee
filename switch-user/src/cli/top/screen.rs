//! The live view.
//!
//! The terminal is given back as it was however this ends: a key, a signal, an error, a panic. A daemon that
//! goes away stays on the screen with its last figures until it is back.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, Cell, Paragraph, Row, Table, TableState};
use ratatui::{DefaultTerminal, Frame};

use super::sample::{PortRates, Sample};
use super::text::{levels, miss_path, title};
use crate::cli::output::printable;
use crate::cli::quantity::short;
use crate::control::client::{Client, ClientError};
use crate::control::report::TopReport;

/// The longest wait between a signal and its effect.
const TICK: Duration = Duration::from_millis(100);
/// Columns from which on there is room for everything; narrower screens do without totals, and without what
/// 'sluice show' tells of a port.
const WIDE: u16 = 112;
/// A daemon that answers later than this does not hold up the keys.
const PATIENCE: Duration = Duration::from_secs(2);

const HEADING: Style = Style::new().add_modifier(Modifier::DIM);
const STRONG: Style = Style::new().add_modifier(Modifier::BOLD);
const WARNING: Style = Style::new().fg(Color::Yellow);
const BAD: Style = Style::new().fg(Color::Red);

/// Shows the daemon's rates until the user has seen enough.
pub fn run(first: TopReport, interval: Duration, rundir: &Path) -> anyhow::Result<()> {
    let signals = Signals::hold()?;
    let mut screen = Screen::take()?;
    let mut view = View::new(Sample::between(&first, first.clone()));
    let mut client = None;
    let mut due = Instant::now() + interval;
    while !signals.came() {
        screen.0.draw(|frame| view.draw(frame))?;
        let wait = due.saturating_duration_since(Instant::now()).min(TICK);
        if event::poll(wait)?
            && let Event::Key(key) = event::read()?
            && view.key(key) == Key::Leave
        {
            break;
        }
        if Instant::now() >= due {
            due = Instant::now() + interval;
            view.take(ask(&mut client, rundir));
        }
    }
    Ok(())
}

/// Asks over the connection that there is, or a new one.
fn ask(client: &mut Option<Client>, rundir: &Path) -> Result<TopReport, ClientError> {
    let mut connected = match client.take() {
        Some(client) => client,
        None => Client::connect_within(rundir, PATIENCE)?,
    };
    let report = connected.top()?;
    *client = Some(connected);
    Ok(report)
}

/// The signals that would end this process with the terminal in disorder, held back to be looked at.
struct Signals {
    fd: SignalFd,
    old: SigSet,
}

impl Signals {
    fn hold() -> nix::Result<Signals> {
        let ends: SigSet = [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT].into_iter().collect();
        let old = ends.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK)?;
        let fd = SignalFd::with_flags(&ends, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Signals { fd, old })
    }

    fn came(&self) -> bool {
        matches!(self.fd.read_signal(), Ok(Some(_)))
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // The mask was valid when it was read; there is nothing to do should it be refused now.
        let _ = self.old.thread_set_mask();
    }
}

/// The terminal, for as long as this lives. A panic gives it back too: ratatui's hook does.
struct Screen(DefaultTerminal);

impl Screen {
    fn take() -> io::Result<Screen> {
        ratatui::try_init().map(Screen).inspect_err(|_| {
            // It may have come half way.
            let _ = ratatui::try_restore();
        })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Fails if the terminal is gone, and then there is nothing to put in order.
        let _ = ratatui::try_restore();
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Key {
    Stay,
    Leave,
}

/// What is on the screen.
struct View {
    sample: Sample,
    /// Why the figures are not of now.
    trouble: Option<String>,
    /// Selected port.
    ports: TableState,
}

impl View {
    fn new(sample: Sample) -> View {
        View { sample, trouble: None, ports: TableState::default().with_selected(0) }
    }

    /// The daemon's next totals, or why there are none.
    fn take(&mut self, report: Result<TopReport, ClientError>) {
        match report {
            Ok(report) => {
                self.sample = Sample::between(&self.sample.totals, report);
                self.trouble = None;
            }
            Err(error) => self.trouble = Some(error.to_string()),
        }
    }

    fn key(&mut self, key: KeyEvent) -> Key {
        if key.kind == KeyEventKind::Release {
            return Key::Stay;
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Key::Leave,
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Key::Leave,
            KeyCode::Down | KeyCode::Char('j') => self.ports.select_next(),
            KeyCode::Up | KeyCode::Char('k') => self.ports.select_previous(),
            KeyCode::PageDown => self.ports.scroll_down_by(10),
            KeyCode::PageUp => self.ports.scroll_up_by(10),
            KeyCode::Home => self.ports.select_first(),
            KeyCode::End => self.ports.select_last(),
            _ => {}
        }
        Key::Stay
    }

    fn draw(&mut self, frame: &mut Frame<'_>) {
        let [head, figures, ports, foot] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(9),
            Constraint::Min(3),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        frame.render_widget(Line::styled(title(&self.sample), STRONG), head);
        let widths = if frame.area().width < WIDE {
            [Constraint::Length(28), Constraint::Length(24), Constraint::Fill(1)]
        } else {
            [Constraint::Fill(1), Constraint::Length(38), Constraint::Length(40)]
        };
        let [lookups, upcalls, drops] = Layout::horizontal(widths).areas(figures);
        self.draw_lookups(frame, lookups);
        self.draw_upcalls(frame, upcalls);
        self.draw_drops(frame, drops);
        self.draw_ports(frame, ports);
        let foot_line = match &self.trouble {
            Some(trouble) => Line::styled(printable(trouble).into_owned(), BAD),
            None => Line::styled("q leaves, arrows move through the ports", HEADING),
        };
        frame.render_widget(foot_line, foot);
    }

    fn draw_lookups(&self, frame: &mut Frame<'_>, area: Rect) {
        let mut lines = Vec::new();
        for (name, rate, share, _) in levels(&self.sample) {
            lines.push(Line::from(vec![
                Span::raw(format!("{name:<11} {:>6} {share:>5.1}% ", short(rate))),
                Span::styled(bar(share, area.width), Style::new().fg(Color::Cyan)),
            ]));
        }
        let l = &self.sample.lookups;
        lines.push(Line::raw(format!("{:<11} {:>6.2}", "masks each", l.masks_per_lookup)));
        lines.push(Line::raw(format!("{:<11} {:>6}", "XDP to TC", short(l.handed_over))));
        lines.push(Line::raw(format!("{:<11} {:>6}", "recirculate", short(l.recirculated))));
        lines.push(Line::raw(format!("{:<11} {:>6}", "malformed", short(l.malformed))));
        frame.render_widget(Paragraph::new(lines).block(boxed("look-ups per s")), area);
    }

    fn draw_upcalls(&self, frame: &mut Frame<'_>, area: Rect) {
        let lines: Vec<_> = miss_path(&self.sample)
            .into_iter()
            .map(|(name, rate, total)| Line::raw(format!("{name:<15} {:>6} {:>12}", short(rate), total)))
            .collect();
        frame.render_widget(Paragraph::new(lines).block(boxed("miss path per s")), area);
    }

    /// The busiest reasons first: the box may be too small for all.
    fn draw_drops(&self, frame: &mut Frame<'_>, area: Rect) {
        let mut drops: Vec<_> = self.sample.drops.iter().filter(|d| d.packets > 0).collect();
        drops.sort_by(|a, b| {
            b.packets_per_s.total_cmp(&a.packets_per_s).then_with(|| b.packets.cmp(&a.packets))
        });
        let text = if drops.is_empty() {
            Text::styled("nothing", HEADING)
        } else {
            let lines = drops.iter().map(|d| {
                let style = if d.packets_per_s > 0.0 { WARNING } else { Style::new() };
                let rate = short(d.packets_per_s);
                let total = short(d.packets as f64);
                Line::styled(format!("{:<19} {rate:>6} {total:>10}", printable(&d.reason)), style)
            });
            Text::from_iter(lines)
        };
        frame.render_widget(Paragraph::new(text).block(boxed("dropped per s")), area);
    }

    fn draw_ports(&mut self, frame: &mut Frame<'_>, area: Rect) {
        let wide = area.width >= WIDE;
        let columns: Vec<&Column> = COLUMNS.iter().filter(|c| wide || c.always).collect();
        let rows = self.sample.ports.iter().map(|port| {
            Row::new(columns.iter().map(|c| c.cell((c.text)(port)))).style(match port.link.as_str() {
                "up" => Style::new(),
                "down" => WARNING,
                _ => BAD,
            })
        });
        let head = Row::new(columns.iter().map(|c| c.cell(c.head.to_owned()))).style(HEADING);
        let table = Table::new(rows, columns.iter().map(|c| Constraint::Length(c.width)))
            .header(head)
            .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
            .column_spacing(1)
            .block(boxed("ports"));
        frame.render_stateful_widget(table, area, &mut self.ports);
    }
}

/// A column of the table of ports.
struct Column {
    head: &'static str,
    width: u16,
    /// Also on narrow screens.
    always: bool,
    /// Figures stand right, names left.
    figure: bool,
    text: fn(&PortRates) -> String,
}

impl Column {
    const fn name(head: &'static str, width: u16, always: bool, text: fn(&PortRates) -> String) -> Column {
        Column { head, width, always, figure: false, text }
    }

    const fn figure(head: &'static str, width: u16, text: fn(&PortRates) -> String) -> Column {
        Column { head, width, always: true, figure: true, text }
    }

    fn cell(&self, text: String) -> Cell<'static> {
        let line = Line::raw(text);
        Cell::from(if self.figure { line.right_aligned() } else { line })
    }
}

const COLUMNS: [Column; 11] = [
    Column::name("port", 15, true, |p| printable(&p.name).into_owned()),
    Column::name("bridge", 15, false, |p| printable(&p.bridge).into_owned()),
    Column::name("link", 7, false, |p| printable(&p.link).into_owned()),
    Column::name("hook", 12, false, |p| printable(&p.hook).into_owned()),
    Column::figure("rx pps", 6, |p| short(p.rx_packets)),
    Column::figure("rx bit/s", 8, |p| short(p.rx_bits)),
    Column::figure("tx pps", 6, |p| short(p.tx_packets)),
    Column::figure("tx bit/s", 8, |p| short(p.tx_bits)),
    Column::figure("miss/s", 6, |p| short(p.upcalls)),
    Column::figure("refused/s", 9, |p| short(p.upcalls_refused)),
    Column::figure("dropped/s", 9, |p| short(p.dropped)),
];

fn boxed(name: &str) -> Block<'_> {
    Block::bordered().title(format!(" {name} ")).border_style(HEADING)
}

/// A bar for a share in percent, in what the text in a box of this width leaves.
fn bar(share: f64, width: u16) -> String {
    let room = f64::from(width.saturating_sub(30));
    "█".repeat((room * share.clamp(0.0, 100.0) / 100.0).round() as usize)
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::sample::tests::totals;
    use super::*;

    fn drawn(view: &mut View, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("terminal");
        terminal.draw(|frame| view.draw(frame)).expect("draw");
        terminal.backend().to_string()
    }

    #[test]
    fn figures_are_on_the_screen() {
        let mut view = View::new(Sample::between(&totals(10_000, 10), totals(12_000, 14)));
        let screen = drawn(&mut view, 120, 20);
        for text in [
            "sluice 0.1.0  pid 42, up 12s, 12 of 114688 flows, 3 masks",
            "exact match  1.80k  90.0% █",
            "flows installed      6           42",
            "policy                   4         28",
            "eth1            br0             up      xdp native    2.00k    1.02M  1.00k    12.0M      8         4         6",
            "q leaves",
        ] {
            assert!(screen.contains(text), "the screen lacks '{text}':\n{screen}");
        }
    }

    #[test]
    fn the_smallest_usual_terminal_has_every_rate() {
        let mut view = View::new(Sample::between(&totals(10_000, 10), totals(12_000, 14)));
        let screen = drawn(&mut view, 80, 24);
        for text in [
            "exact match  1.80k  90.0%",
            "flows installed      6",
            "policy                   4",
            "eth1             2.00k    1.02M  1.00k    12.0M      8         4         6",
        ] {
            assert!(screen.contains(text), "the screen lacks '{text}':\n{screen}");
        }
    }

    #[test]
    fn a_small_terminal_is_no_panic() {
        let mut view = View::new(Sample::between(&totals(10_000, 10), totals(12_000, 14)));
        for (width, height) in [(1, 1), (10, 3), (40, 12), (300, 100)] {
            drawn(&mut view, width, height);
        }
    }

    #[test]
    fn a_daemon_that_went_away_is_said() {
        let mut view = View::new(Sample::between(&totals(10_000, 10), totals(12_000, 14)));
        view.take(Err(ClientError::Refused("gone".into())));
        assert!(drawn(&mut view, 120, 20).contains("gone"));
        view.take(Ok(totals(13_000, 20)));
        let screen = drawn(&mut view, 120, 20);
        assert!(!screen.contains("gone") && screen.contains("q leaves"), "{screen}");
    }

    #[test]
    fn keys() {
        let mut view = View::new(Sample::between(&totals(10_000, 10), totals(12_000, 14)));
        assert_eq!(view.key(KeyEvent::from(KeyCode::Down)), Key::Stay);
        assert_eq!(view.ports.selected(), Some(1));
        assert_eq!(view.key(KeyEvent::from(KeyCode::Char('c'))), Key::Stay);
        assert_eq!(view.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Key::Leave);
        assert_eq!(view.key(KeyEvent::from(KeyCode::Char('q'))), Key::Leave);
    }
}
