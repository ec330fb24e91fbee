//! Colours and tables for people, plain text for everything else.
//!
//! A stream gets colours only if it is a terminal and `NO_COLOR` (<https://no-color.org>) is not set.

use std::io::{self, IsTerminal};

/// How a word is painted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    Good,
    Bad,
    Warn,
    Bold,
    Dim,
}

impl Paint {
    fn code(self) -> &'static str {
        match self {
            Paint::Good => "32",
            Paint::Bad => "31;1",
            Paint::Warn => "33",
            Paint::Bold => "1",
            Paint::Dim => "2",
        }
    }
}

/// One of the two output streams.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    terminal: bool,
    colours: bool,
}

impl Stream {
    /// Where results go.
    pub fn stdout() -> Stream {
        Stream::of(io::stdout().is_terminal())
    }

    /// Where progress goes.
    pub fn stderr() -> Stream {
        Stream::of(io::stderr().is_terminal())
    }

    /// One without colours.
    #[cfg(test)]
    pub fn plain() -> Stream {
        Stream { terminal: false, colours: false }
    }

    fn of(terminal: bool) -> Stream {
        let colours = terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        Stream { terminal, colours }
    }

    /// Whether a person looks at it, so that a line may be rewritten in place.
    pub fn is_terminal(self) -> bool {
        self.terminal
    }

    /// `text` in a colour, or as it is where there are none.
    pub fn paint(self, paint: Paint, text: &str) -> String {
        if self.colours { format!("\x1b[{}m{text}\x1b[0m", paint.code()) } else { text.to_owned() }
    }
}

/// Columns of a terminal, or 100 where it cannot be told.
pub fn columns() -> usize {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one `winsize` through the pointer, which lives as long as the call.
    let result = unsafe { libc::ioctl(libc::STDERR_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    if result == 0 && size.ws_col > 0 { usize::from(size.ws_col) } else { 100 }
}

/// A table whose columns are as wide as their widest cell.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<(String, Option<Paint>)>>,
}

impl Table {
    /// A table with a heading.
    pub fn new<const N: usize>(heading: [&str; N]) -> Table {
        let mut table = Table::default();
        table.rows.push(heading.iter().map(|h| ((*h).to_owned(), Some(Paint::Bold))).collect());
        table
    }

    /// Adds a line.
    pub fn row<const N: usize>(&mut self, cells: [(String, Option<Paint>); N]) {
        self.rows.push(cells.into());
    }

    /// The table's text, each line ended.
    pub fn render(&self, stream: Stream) -> String {
        let count = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let mut widths = vec![0; count];
        for row in &self.rows {
            for (width, (cell, _)) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::from("  ");
            for (i, (cell, paint)) in row.iter().enumerate() {
                // Padding comes after the colour's end, or it would count the escape sequence as text.
                let gap = if i + 1 == row.len() { 0 } else { widths[i] - cell.chars().count() + 2 };
                line.push_str(&paint.map_or_else(|| cell.clone(), |p| stream.paint(p, cell)));
                line.push_str(&" ".repeat(gap));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_without_colours() {
        let mut table = Table::new(["case", "value"]);
        table.row([("a longer one".into(), None), ("1".into(), Some(Paint::Good))]);
        assert_eq!(table.render(Stream::plain()), "  case          value\n  a longer one  1\n");
    }

    #[test]
    fn colours_do_not_move_columns() {
        let mut table = Table::new(["case", "value"]);
        table.row([("x".into(), Some(Paint::Bad)), ("1".into(), None)]);
        let coloured = Stream { terminal: true, colours: true };
        assert!(table.render(coloured).ends_with("  \x1b[31;1mx\x1b[0m     1\n"));
    }
}
