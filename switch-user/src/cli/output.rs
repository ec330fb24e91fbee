//! What all reports share on their way to the terminal: colour, JSON, and text that cannot play tricks with it.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use serde::Serialize;

/// `--color`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ColorWhen {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    Always,
    Never,
}

/// What a piece of text is to be taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Plain,
    Strong,
    Faint,
    Good,
    Warning,
    Bad,
}

/// Gives text its colours, or leaves it alone.
#[derive(Clone, Copy, Debug)]
pub struct Paint {
    on: bool,
}

impl Paint {
    #[cfg(test)]
    pub const OFF: Paint = Paint { on: false };

    /// Decides by the user's word, else by the terminal and the environment (<https://no-color.org>).
    pub fn new(when: ColorWhen) -> Paint {
        let on = match when {
            ColorWhen::Always => true,
            ColorWhen::Never => false,
            ColorWhen::Auto => {
                let set = |name| std::env::var_os(name).is_some_and(|v| !v.is_empty());
                let dumb = std::env::var_os("TERM").is_some_and(|v| v == "dumb");
                io::stdout().is_terminal() && !set("NO_COLOR") && !dumb
            }
        };
        Paint { on }
    }

    /// The text in this style (ECMA-48, select graphic rendition).
    pub fn apply(self, style: Style, text: &str) -> Cow<'_, str> {
        let code = match style {
            _ if !self.on || text.is_empty() => return Cow::Borrowed(text),
            Style::Plain => return Cow::Borrowed(text),
            Style::Strong => "1",
            Style::Faint => "2",
            Style::Good => "32",
            Style::Warning => "33",
            Style::Bad => "31",
        };
        Cow::Owned(format!("\x1b[{code}m{text}\x1b[0m"))
    }
}

/// The text with every control character replaced: interface names and error texts may hold any byte but a few,
/// and are not to move the cursor.
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.contains(char::is_control) {
        Cow::Owned(text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect())
    } else {
        Cow::Borrowed(text)
    }
}

/// Writes to standard output. A reader that left (`| head`) is no error, and tells the caller to stop.
pub fn emit(text: &str) -> io::Result<Continue> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(Continue::Yes),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(Continue::No),
        Err(e) => Err(e),
    }
}

/// Whether somebody still reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Continue {
    Yes,
    No,
}

/// A report as JSON for people and programs: indented, with a line's end.
pub fn pretty<T: Serialize>(report: &T) -> serde_json::Result<String> {
    let mut text = serde_json::to_string_pretty(report)?;
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours() {
        assert_eq!(Paint { on: true }.apply(Style::Bad, "down"), "\x1b[31mdown\x1b[0m");
        assert_eq!(Paint { on: true }.apply(Style::Plain, "up"), "up");
        assert_eq!(Paint { on: true }.apply(Style::Bad, ""), "");
        assert_eq!(Paint::OFF.apply(Style::Bad, "down"), "down");
        assert!(Paint::new(ColorWhen::Always).on && !Paint::new(ColorWhen::Never).on);
    }

    #[test]
    fn names_do_not_move_the_cursor() {
        assert_eq!(printable("eth\x1b[2J\n"), "eth\u{fffd}[2J\u{fffd}");
        assert_eq!(printable("eth0"), "eth0");
    }
}
