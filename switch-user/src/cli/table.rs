//! Tables whose columns stand under each other.

use super::output::{Paint, Style, printable};

/// Where a column's text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

/// One field.
#[derive(Clone, Debug)]
pub struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    pub fn new(text: impl ToString, style: Style) -> Cell {
        Cell { text: printable(&text.to_string()).into_owned(), style }
    }

    pub fn plain(text: impl ToString) -> Cell {
        Cell::new(text, Style::Plain)
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

/// Rows under a head. A row may be followed by notes, lines of their own.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Row>,
}

#[derive(Clone, Debug)]
enum Row {
    Cells(Vec<Cell>),
    Note(Cell),
}

impl Table {
    pub fn new(columns: &[(&'static str, Align)]) -> Table {
        Table { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row: a cell for each column.
    pub fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(Row::Cells(cells));
    }

    /// Adds a line under the last row, indented.
    pub fn note(&mut self, note: Cell) {
        self.rows.push(Row::Note(note));
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table, each line behind so many blanks; no line ends in blanks.
    pub fn render(&self, indent: usize, paint: Paint) -> String {
        let mut widths: Vec<usize> = self.columns.iter().map(|(head, _)| head.len()).collect();
        for row in &self.rows {
            if let Row::Cells(cells) = row {
                for (width, cell) in widths.iter_mut().zip(cells) {
                    *width = (*width).max(cell.width());
                }
            }
        }
        let margin = " ".repeat(indent);
        let mut out = String::new();
        let head: Vec<_> = self.columns.iter().map(|(head, _)| Cell::new(head, Style::Faint)).collect();
        self.line(&mut out, &margin, &widths, &head, paint);
        for row in &self.rows {
            match row {
                Row::Cells(cells) => self.line(&mut out, &margin, &widths, cells, paint),
                Row::Note(note) => {
                    out.push_str(&margin);
                    out.push_str("    ");
                    out.push_str(&paint.apply(note.style, &note.text));
                    out.push('\n');
                }
            }
        }
        out
    }

    fn line(&self, out: &mut String, margin: &str, widths: &[usize], cells: &[Cell], paint: Paint) {
        out.push_str(margin);
        // Blanks that are owed: paid only if something follows.
        let mut owed = 0;
        for (i, ((cell, width), (_, align))) in cells.iter().zip(widths).zip(&self.columns).enumerate() {
            let pad = width - cell.width().min(*width);
            let gap = if i == 0 { 0 } else { 2 };
            let (before, after) = match align {
                Align::Left => (owed + gap, pad),
                Align::Right => (owed + gap + pad, 0),
            };
            if cell.text.is_empty() {
                owed = before + after;
            } else {
                out.extend(std::iter::repeat_n(' ', before));
                out.push_str(&paint.apply(cell.style, &cell.text));
                owed = after;
            }
        }
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other() {
        let mut t = Table::new(&[("port", Align::Left), ("packets", Align::Right), ("why", Align::Left)]);
        t.row(vec![Cell::plain("eth1"), Cell::plain(12_345_678_u64), Cell::plain("")]);
        t.note(Cell::plain("error: gone"));
        t.row(vec![Cell::plain("tap-long"), Cell::plain(1), Cell::plain("so")]);
        let want = "  \
  port       packets  why
  eth1      12345678
      error: gone
  tap-long         1  so
";
        assert_eq!(t.render(2, Paint::OFF), want);
    }
}
