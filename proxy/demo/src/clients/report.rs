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
    let header = ["case", "expected", "actual", "ok"].map(str::to_owned);
    let mut rows = vec![header];
    for outcome in outcomes {
        let case = &outcome.case;
        let expected = Seen { status: case.status, body: case.body.short() };
        let ok = if outcome.is_expected() { "yes" } else { "NO" };
        rows.push([case.name.to_owned(), shown(&expected), shown(&outcome.seen), ok.to_owned()]);
    }
    let mut widths = [0; 4];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for (index, row) in rows.iter().enumerate() {
        let cells: Vec<_> = row.iter().zip(widths).map(|(c, width)| format!("{c:<width$}")).collect();
        writeln!(out, "{}", cells.join(" | ").trim_end())?;
        if index == 0 {
            writeln!(out, "{}", widths.map(|width| "-".repeat(width)).join("-+-"))?;
        }
    }
    let good = outcomes.iter().filter(|outcome| outcome.is_expected()).count();
    writeln!(out, "{good} of {} as expected", outcomes.len())?;
    Ok(good == outcomes.len() && good > 0)
}

/// On one line, without control characters: the body comes from a server.
fn shown(seen: &Seen) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let mut body: String = seen.body.chars().take(WIDEST).map(plain).collect();
    if seen.body.chars().count() > WIDEST {
        body.push('…');
    }
    match seen.status {
        0 => format!("no answer: {body}"),
        status => format!("{status} {body}"),
    }
}
