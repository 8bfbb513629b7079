//! The table on paper.

use std::io::{self, Write};

use super::table::{Outcome, Seen};

/// The widest body that is shown whole.
const WIDEST: usize = 84;

/// Writes `case | expected | actual | ok`, aligned, and a last line with the count. Returns
/// whether every row was as expected; an empty table is not.
///
/// # Errors
/// What the writer says.
pub fn write_report(out: &mut impl Write, outcomes: &[Outcome]) -> io::Result<bool> {
    let rows: Vec<_> = outcomes.iter().map(Outcome::row).collect();
    write_rows(out, &rows)?;
    let good = outcomes.iter().filter(|outcome| outcome.is_expected()).count();
    writeln!(out, "{good} of {} as expected", outcomes.len())?;
    Ok(good == outcomes.len() && good > 0)
}

/// Writes rows of `case | expected | actual | ok` with that header, aligned.
///
/// # Errors
/// What the writer says.
pub(crate) fn write_rows(out: &mut impl Write, rows: &[[String; 4]]) -> io::Result<()> {
    let header = ["case", "expected", "actual", "ok"].map(str::to_owned);
    let mut widths = [0; 4];
    for row in rows.iter().chain([&header]) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for (index, row) in [&header].into_iter().chain(rows).enumerate() {
        let cells: Vec<_> = row.iter().zip(widths).map(|(c, width)| format!("{c:<width$}")).collect();
        writeln!(out, "{}", cells.join(" | ").trim_end())?;
        if index == 0 {
            writeln!(out, "{}", widths.map(|width| "-".repeat(width)).join("-+-"))?;
        }
    }
    Ok(())
}

impl Outcome {
    /// Case, expected, actual, and whether they agree.
    pub(crate) fn row(&self) -> [String; 4] {
        let expected = Seen { status: self.case.status, body: self.case.body.short() };
        let ok = if self.is_expected() { "yes" } else { "NO" };
        [self.case.name.to_owned(), expected.shown(), self.seen.shown(), ok.to_owned()]
    }
}

impl Seen {
    /// On one line, without control characters: the body comes from a server.
    pub(crate) fn shown(&self) -> String {
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        let mut body: String = self.body.chars().take(WIDEST).map(plain).collect();
        if self.body.chars().count() > WIDEST {
            body.push('…');
        }
        match self.status {
            0 => format!("no answer: {body}"),
            status => format!("{status} {body}"),
        }
    }
}
