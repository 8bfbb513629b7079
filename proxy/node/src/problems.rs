//! Problems of manifests and settings, told to people and to programs.

use std::fmt::Write as _;

use policy::{Problem, Severity};
use serde_json::{Value, json};

/// `file:line:column: error: Kind ns/name: spec.rules[0]: message [code]`, as compilers write it.
#[must_use]
pub fn line(problem: &Problem) -> String {
    let severity = match problem.severity {
        Severity::Warning => "warning",
        Severity::Error => "error",
    };
    let mut out = format!("{}: {severity}: ", problem.place);
    // Writing to a String cannot fail.
    if let Some(object) = &problem.object {
        let _ = write!(out, "{object}: ");
    }
    if !problem.field.is_empty() {
        let _ = write!(out, "{}: ", problem.field);
    }
    let _ = write!(out, "{} [{}]", problem.message, problem.code);
    out
}

/// The same as an object.
#[must_use]
pub fn json(problem: &Problem) -> Value {
    json!({
        "severity": problem.severity,
        "code": problem.code,
        "file": &*problem.place.file,
        "line": problem.place.line,
        "column": problem.place.column,
        "field": problem.field,
        "object": problem.object,
        "message": problem.message,
    })
}
