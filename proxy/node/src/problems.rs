//! Problems of manifests and settings, told to people and to programs.

use policy::Problem;
use serde_json::{Value, json};

/// One line, as compilers write it: `file:line:column: error[code]: Kind ns/name: field: message`.
#[must_use]
pub fn line(problem: &Problem) -> String {
    problem.to_string()
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
