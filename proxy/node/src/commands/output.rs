//! Standard output and error of the offline commands: the one place that prints.

use std::io::Write as _;

/// Writes to standard output; a reader that has gone away is no error of ours.
pub(crate) fn say(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

/// Writes a line to standard error.
pub(crate) fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
